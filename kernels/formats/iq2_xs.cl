// SPDX-License-Identifier: MIT
// iq2_xs: see host/format/iq2_xs.c, the specification.
#define CB_GRID CLQ_GRID_IQ2_XS
#define CB_LEVELS CLQ_LEVELS_IQ2_XS
#define CB_DIMS 8
#define CB_BITS 2
#define CB_N_LEVELS 3
#define CB_GROUP 16
#define CB_STEP 0.1f
#define CB_SPAN 9
#define CB_SMALLEST 1e-15f
#define CB_EVEN 1
#define CB_REFIT 0
#define CB_TWICE 0
#define CB_PLAIN 2
#include "codebook_search.cl"

inline void iq2_xs_block(__global const src_t *x, size_t first, __global const float *importance,
                           __global const uint *table, __global uchar *out)
{
    block_fit fit;
    uchar codes[256 / CB_GROUP];
    fit_block(x, first, importance, table, &fit);
    if (fit.max_scale == 0.0f) {
        for (uint i = 0; i < 74; i++) out[i] = 0;
        return;
    }
    far_put_half(out, scale_codes(&fit, codes));
    for (uint v = 0; v < 32; v++) ((__global ushort *)out)[1 + v] = fit.index[v] | (ushort)fit.signs[v] << 9;
    for (uint j = 0; j < 8; j++) out[66 + j] = codes[2 * j] | codes[2 * j + 1] << 4;
}

inline void iq2_xs_group(__global const uchar *in, uint j, float y[16])
{
    float scale = far_half(in) * (0.5f + (float)(in[66 + j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
    for (uint k = 0; k < 2; k++) {
        uint v = ((__global const ushort *)in)[1 + 2 * j + k];
        point_values(v & 511, even_signs(v >> 9), scale, y + 8 * k);
    }
}

__kernel GROUP void iq2_xs_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq2_xs_block, iq2_xs_group, sizeof(clq_block_iq2_xs));
}

__kernel GROUP void iq2_xs_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq2_xs_group, 256, sizeof(clq_block_iq2_xs));
}

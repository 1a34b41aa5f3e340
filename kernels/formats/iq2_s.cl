// SPDX-License-Identifier: MIT
// iq2_s: see host/format/iq2_s.c, the specification.
#define CB_GRID CLQ_GRID_IQ2_S
#define CB_LEVELS CLQ_LEVELS_IQ2_S
#define CB_DIMS 8
#define CB_BITS 2
#define CB_N_LEVELS 3
#define CB_GROUP 16
#define CB_STEP 0.1f
#define CB_SPAN 9
#define CB_SMALLEST 1e-8f
#define CB_EVEN 0
#define CB_REFIT 0
#define CB_TWICE 1
#define CB_PLAIN 1
#include "codebook_search.cl"

inline void iq2_s_block(__global const src_t *x, size_t first, __global const float *importance,
                          __global const uint *table, __global uchar *out)
{
    block_fit fit;
    uchar codes[256 / CB_GROUP];
    fit_block(x, first, importance, table, &fit);
    far_put_half(out, scale_codes(&fit, codes) * 0.9875f);
    for (uint v = 0; v < 32; v++) {
        out[2 + v] = (uchar)fit.index[v];
        out[34 + v] = fit.signs[v];
    }
    for (uint j = 0; j < 8; j++) {
        uint high = 0;
        for (uint v = 0; v < 4; v++) high |= (uint)(fit.index[4 * j + v] >> 8) << 2 * v;
        out[66 + j] = (uchar)high;
        out[74 + j] = codes[2 * j] | codes[2 * j + 1] << 4;
    }
}

inline void iq2_s_group(__global const uchar *in, uint j, float y[16])
{
    float scale = far_half(in) * (0.5f + (float)(in[74 + j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
    for (uint k = 0; k < 2; k++) {
        uint v = 2 * j + k, index = in[2 + v] | (in[66 + v / 4] >> 2 * (v % 4) & 3) << 8;
        point_values(index, in[34 + v], scale, y + 8 * k);
    }
}

__kernel GROUP void iq2_s_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq2_s_block, iq2_s_group, sizeof(clq_block_iq2_s));
}

__kernel GROUP void iq2_s_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq2_s_group, 256, sizeof(clq_block_iq2_s));
}

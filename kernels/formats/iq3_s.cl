// SPDX-License-Identifier: MIT
// iq3_s: see host/format/iq3_s.c, the specification.
#define CB_GRID CLQ_GRID_IQ3_S
#define CB_LEVELS CLQ_LEVELS_IQ3_S
#define CB_DIMS 4
#define CB_BITS 3
#define CB_N_LEVELS 8
#define CB_GROUP 32
#define CB_STEP 0.2f
#define CB_SPAN 9
#define CB_SMALLEST 0.0f
#define CB_EVEN 0
#define CB_REFIT 1
#define CB_TWICE 1
#define CB_PLAIN 0
#include "codebook_search.cl"

inline void iq3_s_block(__global const src_t *x, size_t first, __global const float *importance,
                        __global const uint *table, __global uchar *out)
{
    block_fit fit;
    uchar codes[8];
    fit_block(x, first, importance, table, &fit);
    float d = scale_codes(&fit, codes);
    far_put_half(out, d * 1.033f);
    uint at = 0;
    for (uint i = 2; i < 110; i++) out[i] = 0;
    for (uint j = 0; j < 8; j++) { // a group of zeros takes no place in qs and signs
        uint high = 0;
        for (uint v = 0; v < 8; v++) {
            out[2 + 8 * at + v] = (uchar)fit.index[8 * j + v];
            high |= (uint)(fit.index[8 * j + v] >> 8) << v;
        }
        out[66 + j] = (uchar)high;
        for (uint k = 0; k < 4; k++) out[74 + 4 * at + k] = fit.signs[4 * j + k];
        at += fit.stored >> j & 1;
    }
    for (uint j = 0; j < 4; j++) out[106 + j] = codes[2 * j] | codes[2 * j + 1] << 4;
}

inline void iq3_s_group(__global const uchar *in, uint j, float y[16])
{
    uint g = j / 2;
    float scale = far_half(in) * (float)(1 + 2 * (in[106 + g / 2] >> 4 * (g % 2) & 15));
    for (uint k = 0; k < 4; k++) {
        uint v = 4 * j + k, index = in[2 + v] | (in[66 + g] >> v % 8 & 1) << 8;
        point_values(index, in[74 + v / 2] >> 4 * (v % 2), scale, y + 4 * k);
    }
}

__kernel GROUP void iq3_s_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq3_s_block, iq3_s_group, sizeof(clq_block_iq3_s));
}

__kernel GROUP void iq3_s_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq3_s_group, 256, sizeof(clq_block_iq3_s));
}

// SPDX-License-Identifier: MIT
// iq3_xxs: see host/format/iq3_xxs.c, the specification.
#define CB_GRID CLQ_GRID_IQ3_XXS
#define CB_LEVELS CLQ_LEVELS_IQ3_XXS
#define CB_DIMS 4
#define CB_BITS 3
#define CB_N_LEVELS 8
#define CB_GROUP 32
#define CB_STEP 0.2f
#define CB_SPAN 15
#define CB_SMALLEST 1e-8f
#define CB_EVEN 1
#define CB_REFIT 0
#define CB_TWICE 1
#define CB_PLAIN 0
#include "codebook_search.cl"

inline void iq3_xxs_block(__global const src_t *x, size_t first, __global const float *importance,
                            __global const uint *table, __global uchar *out)
{
    block_fit fit;
    uchar codes[256 / CB_GROUP];
    fit_block(x, first, importance, table, &fit);
    if (fit.max_scale == 0.0f) {
        for (uint i = 0; i < 98; i++) out[i] = 0;
        return;
    }
    far_put_half(out, scale_codes(&fit, codes) * 1.0125f);
    for (uint v = 0; v < 64; v++) out[2 + v] = (uchar)fit.index[v];
    for (uint j = 0; j < 8; j++) put_signs(fit.signs + 4 * j, codes[j], out + 66 + 4 * j);
}

inline void iq3_xxs_group(__global const uchar *in, uint j, float y[16])
{
    uint word = get_word(in + 66 + j / 2 * 4);
    float scale = far_half(in) * (0.5f + (float)(word >> 28)) * 0.5f;
    for (uint k = 0; k < 4; k++) {
        uint v = 4 * j + k, signs = even_signs(word >> 7 * (v / 2 % 4) & 127);
        point_values(in[2 + v], signs >> 4 * (v % 2), scale, y + 4 * k);
    }
}

__kernel GROUP void iq3_xxs_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq3_xxs_block, iq3_xxs_group, sizeof(clq_block_iq3_xxs));
}

__kernel GROUP void iq3_xxs_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq3_xxs_group, 256, sizeof(clq_block_iq3_xxs));
}

// SPDX-License-Identifier: MIT
// iq2_xxs: see host/format/iq2_xxs.c, the specification.
#define CB_GRID CLQ_GRID_IQ2_XXS
#define CB_LEVELS CLQ_LEVELS_IQ2_XXS
#define CB_DIMS 8
#define CB_BITS 2
#define CB_N_LEVELS 3
#define CB_GROUP 32
#define CB_STEP 0.1f
#define CB_SPAN 6
#define CB_SMALLEST 1e-15f
#define CB_EVEN 1
#define CB_REFIT 2
#define CB_TWICE 0
#define CB_PLAIN 2
#include "codebook_search.cl"

inline void iq2_xxs_block(__global const src_t *x, size_t first, __global const float *importance,
                            __global const uint *table, __global uchar *out)
{
    block_fit fit;
    uchar codes[256 / CB_GROUP];
    fit_block(x, first, importance, table, &fit);
    if (fit.max_scale == 0.0f) {
        for (uint i = 0; i < 66; i++) out[i] = 0;
        return;
    }
    far_put_half(out, scale_codes(&fit, codes));
    for (uint j = 0; j < 8; j++) {
        for (uint v = 0; v < 4; v++) out[2 + 8 * j + v] = (uchar)fit.index[4 * j + v];
        put_signs(fit.signs + 4 * j, codes[j], out + 6 + 8 * j);
    }
}

inline void iq2_xxs_group(__global const uchar *in, uint j, float y[16])
{
    __global const uchar *own = in + 2 + j / 2 * 8;
    uint word = get_word(own + 4);
    float scale = far_half(in) * (0.5f + (float)(word >> 28)) * 0.25f;
    for (uint k = 0; k < 2; k++) {
        uint v = j % 2 * 2 + k;
        point_values(own[v], even_signs(word >> 7 * v & 127), scale, y + 8 * k);
    }
}

__kernel GROUP void iq2_xxs_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq2_xxs_block, iq2_xxs_group, sizeof(clq_block_iq2_xxs));
}

__kernel GROUP void iq2_xxs_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq2_xxs_group, 256, sizeof(clq_block_iq2_xxs));
}

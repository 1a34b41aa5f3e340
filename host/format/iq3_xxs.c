// SPDX-License-Identifier: MIT
// iq3_xxs: 8 groups of 32, 64 vectors of 4, grid of 256; value = d * (0.5 + sc) * 0.5 * level. qs: 64 indexes, then
// for each group a little-endian word with 4 x 7 sign bits and sc of 4 bits. d is 1.0125 times the largest scale / 31.
#include <string.h>

#include "base/half.h"
#include "format/codebook.h"
#include "format/codecs.h"

static const clq_codebook book = {.grid = CLQ_GRID_ID_IQ3_XXS, .group = 32, .n_levels = 8, .even_signs = true,
                                   .smallest = 1e-8f, .step = 0.2f, .span = 15, .sigma_twice = true,
                                   .refit = CLQ_REFIT_OFF_GRID};

void clq_iq3_xxs_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq3_xxs *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) {
        clq_codebook_fit fit;
        clq_codebook_block(&book, x + 256 * i, importance ? importance + 256 * i : NULL, &fit);
        memset(&b[i], 0, sizeof b[i]);
        uint8_t sc[16];
        if (fit.max_scale == 0) continue;
        b[i].d = clq_f32_to_f16(clq_codebook_scales(&fit, 8, sc) * 1.0125f);
        for (int v = 0; v < 64; v++) b[i].qs[v] = (uint8_t)fit.index[v];
        for (int j = 0; j < 8; j++) clq_put_signs(fit.signs + 4 * j, sc[j], b[i].qs + 64 + 4 * j);
    }
}

void clq_iq3_xxs_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq3_xxs *b = blocks;
    const clq_grid *g = clq_grid_get(book.grid);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (uint32_t v = 0; v < 64; v++) {
            uint32_t word = clq_get_signs(b[i].qs + 64 + v / 8 * 4);
            float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
            uint32_t signs = clq_even_signs(word >> 7 * (v / 2 % 4) & 127);
            clq_codebook_values(g, b[i].qs[v], signs >> 4 * (v % 2), scale, y + 4 * v);
        }
    }
}

const void *clq_iq3_xxs_table(size_t *n_bytes)
{
    const clq_grid *g = clq_grid_get(book.grid);
    *n_bytes = g->n_table_bytes;
    return g->map;
}

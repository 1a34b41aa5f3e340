// SPDX-License-Identifier: MIT
// iq2_xxs: 8 groups of 32, 32 vectors of 8, grid of 256; value = d * (0.5 + sc) * 0.25 * level. For each group 4
// indexes, then a little-endian word with 4 x 7 sign bits and sc of 4 bits. Without importance: as with 1.
#include <string.h>

#include "base/half.h"
#include "format/codebook.h"
#include "format/codecs.h"

static const clq_codebook book = {.grid = CLQ_GRID_ID_IQ2_XXS, .group = 32, .n_levels = 3, .even_signs = true,
                                   .smallest = 1e-15f, .step = 0.1f, .span = 6, .fits_first = true,
                                   .refit = CLQ_REFIT_ALL, .plain_one = true};

void clq_iq2_xxs_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq2_xxs *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) {
        clq_codebook_fit fit;
        clq_codebook_block(&book, x + 256 * i, importance ? importance + 256 * i : NULL, &fit);
        memset(&b[i], 0, sizeof b[i]);
        uint8_t sc[16], *to = (uint8_t *)b[i].qs;
        if (fit.max_scale == 0) continue;
        b[i].d = clq_f32_to_f16(clq_codebook_scales(&fit, 8, sc));
        for (int j = 0; j < 8; j++, to += 8) {
            for (int v = 0; v < 4; v++) to[v] = (uint8_t)fit.index[4 * j + v];
            clq_put_signs(fit.signs + 4 * j, sc[j], to + 4);
        }
    }
}

void clq_iq2_xxs_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq2_xxs *b = blocks;
    const clq_grid *g = clq_grid_get(book.grid);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (uint32_t v = 0; v < 32; v++) {
            const uint8_t *from = (const uint8_t *)b[i].qs + v / 4 * 8;
            uint32_t word = clq_get_signs(from + 4);
            float scale = d * (0.5f + (float)(word >> 28)) * 0.25f;
            clq_codebook_values(g, from[v % 4], clq_even_signs(word >> 7 * (v % 4) & 127), scale, y + 8 * v);
        }
    }
}

const void *clq_iq2_xxs_table(size_t *n_bytes)
{
    const clq_grid *g = clq_grid_get(book.grid);
    *n_bytes = g->n_table_bytes;
    return g->map;
}

// SPDX-License-Identifier: MIT
// iq2_xs: 16 groups of 16, 32 vectors of 8, grid of 512; value = d * (0.5 + sc) * 0.25 * level, sc of 4 bits. A vector
// is index | 7 sign bits << 9. Without importance: as with 1.
#include <string.h>

#include "base/half.h"
#include "format/codebook.h"
#include "format/codecs.h"

static const clq_codebook book = {.grid = CLQ_GRID_ID_IQ2_XS, .group = 16, .n_levels = 3, .even_signs = true,
                                   .smallest = 1e-15f, .step = 0.1f, .span = 9, .refit = CLQ_REFIT_OFF_GRID,
                                   .plain_one = true};

void clq_iq2_xs_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq2_xs *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) {
        clq_codebook_fit fit;
        clq_codebook_block(&book, x + 256 * i, importance ? importance + 256 * i : NULL, &fit);
        memset(&b[i], 0, sizeof b[i]);
        uint8_t sc[16];
        if (fit.max_scale == 0) continue;
        b[i].d = clq_f32_to_f16(clq_codebook_scales(&fit, 16, sc));
        for (int v = 0; v < 32; v++) b[i].qs[v] = (uint16_t)(fit.index[v] | fit.signs[v] << 9);
        for (int j = 0; j < 8; j++) b[i].scales[j] = (uint8_t)(sc[2 * j] | sc[2 * j + 1] << 4);
    }
}

void clq_iq2_xs_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq2_xs *b = blocks;
    const clq_grid *g = clq_grid_get(book.grid);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (uint32_t v = 0; v < 32; v++) {
            float scale = d * (0.5f + (float)(b[i].scales[v / 4] >> (v / 2 % 2 ? 4 : 0) & 15)) * 0.25f;
            clq_codebook_values(g, b[i].qs[v] & 511, clq_even_signs(b[i].qs[v] >> 9), scale, y + 8 * v);
        }
    }
}

const void *clq_iq2_xs_table(size_t *n_bytes)
{
    const clq_grid *g = clq_grid_get(book.grid);
    *n_bytes = g->n_table_bytes;
    return g->map;
}

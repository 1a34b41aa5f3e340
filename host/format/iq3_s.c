// SPDX-License-Identifier: MIT
// iq3_s: 8 groups of 32, 64 vectors of 4, grid of 512; value = d * (1 + 2 * sc) * level, sc of 4 bits. Index: low 8
// bits in qs, ninth in qh. d is 1.033 times the largest scale / 31. As in ggml, a group of zeros takes no place in qs
// and signs: those of the groups behind it stand one group earlier, where decoders do not look for them.
#include <string.h>

#include "base/half.h"
#include "format/codebook.h"
#include "format/codecs.h"

static const clq_codebook book = {.grid = CLQ_GRID_ID_IQ3_S, .group = 32, .n_levels = 8, .step = 0.2f, .span = 9,
                                   .sigma_twice = true, .refit = CLQ_REFIT_ALL_IF_OFF_GRID};

void clq_iq3_s_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq3_s *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) {
        clq_codebook_fit fit;
        clq_codebook_block(&book, x + 256 * i, importance ? importance + 256 * i : NULL, &fit);
        memset(&b[i], 0, sizeof b[i]);
        uint8_t sc[16];
        for (int j = 0, at = 0; j < 8; j++) {
            for (int v = 0; v < 8; v++) {
                b[i].qs[8 * at + v] |= (uint8_t)fit.index[8 * j + v];
                b[i].qh[j] |= (uint8_t)(fit.index[8 * j + v] >> 8 << v);
            }
            for (int k = 0; k < 4; k++) b[i].signs[4 * at + k] |= fit.signs[4 * j + k];
            at += fit.stored[j];
        }
        if (fit.max_scale == 0) continue;
        b[i].d = clq_f32_to_f16(clq_codebook_scales(&fit, 8, sc) * 1.033f);
        for (int j = 0; j < 4; j++) b[i].scales[j] = (uint8_t)(sc[2 * j] | sc[2 * j + 1] << 4);
    }
}

void clq_iq3_s_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq3_s *b = blocks;
    const clq_grid *g = clq_grid_get(book.grid);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (uint32_t v = 0; v < 64; v++) {
            int sc = b[i].scales[v / 16] >> (v / 8 % 2 ? 4 : 0) & 15;
            uint32_t index = b[i].qs[v] | (uint32_t)(b[i].qh[v / 8] >> v % 8 & 1) << 8;
            uint32_t signs = (uint32_t)b[i].signs[v / 2] >> 4 * (v % 2);
            clq_codebook_values(g, index, signs, d * (float)(1 + 2 * sc), y + 4 * v);
        }
    }
}

const void *clq_iq3_s_table(size_t *n_bytes)
{
    const clq_grid *g = clq_grid_get(book.grid);
    *n_bytes = g->n_table_bytes;
    return g->map;
}

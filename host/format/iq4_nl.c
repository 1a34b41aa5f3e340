// SPDX-License-Identifier: MIT
// iq4_nl: value = d * level[q]. Codes come from the unrounded d.
#include "base/half.h"
#include "format/codecs.h"
#include "format/iq4.h"
#include "format/search.h"

void clq_iq4_nl_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq4_nl *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float weight[32];
        if (importance) clq_weigh(32, x, importance + 32 * i, clq_sum_squares(x, 32) * (2.0f / 32), weight);
        float scale = clq_iq4_fit(x, importance ? weight : NULL);
        b[i].d = clq_f32_to_f16(scale);
        clq_iq4_pack(x, scale != 0 ? 1 / scale : 0, b[i].qs);
    }
}

void clq_iq4_nl_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq4_nl *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 16; j++) {
            y[j] = d * (float)clq_iq4_levels[b[i].qs[j] & 15];
            y[j + 16] = d * (float)clq_iq4_levels[b[i].qs[j] >> 4];
        }
    }
}

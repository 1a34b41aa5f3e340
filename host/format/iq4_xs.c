// SPDX-License-Identifier: MIT
// iq4_xs: 8 groups of 32; value = d * (sc - 32) * level[q], sc of 6 bits: low four in scales_l, high two
// in scales_h. Codes come from the unrounded d.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/iq4.h"
#include "format/search.h"

void clq_iq4_xs_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq4_xs *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        float scale[8], weight[32], largest = 0, signed_largest = 0;
        float sigma2 = importance ? clq_sum_squares(x, 256) * (2.0f / 256) : 0;
        for (int j = 0; j < 8; j++) {
            if (importance) clq_weigh(32, x + 32 * j, importance + 256 * i + 32 * j, sigma2, weight);
            scale[j] = clq_iq4_fit(x + 32 * j, importance ? weight : NULL);
            if (fabsf(scale[j]) > largest) {
                largest = fabsf(scale[j]);
                signed_largest = scale[j];
            }
        }
        memset(&b[i], 0, sizeof b[i]);
        float d = -signed_largest / 32, inverse = d != 0 ? 1 / d : 0;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 8; j++) {
            int l = clq_nearest(inverse * scale[j]);
            l = l < -32 ? -32 : l > 31 ? 31 : l;
            float step = d * (float)l;
            clq_iq4_pack(x + 32 * j, step != 0 ? 1 / step : 0, b[i].qs + 16 * j);
            b[i].scales_l[j / 2] |= (uint8_t)(((l + 32) & 15) << 4 * (j % 2));
            b[i].scales_h |= (uint16_t)((l + 32) >> 4 << 2 * j);
        }
    }
}

void clq_iq4_xs_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq4_xs *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 8; j++) {
            int l = (b[i].scales_l[j / 2] >> 4 * (j % 2) & 15) | (b[i].scales_h >> 2 * j & 3) << 4;
            float step = d * (float)(l - 32);
            for (int k = 0; k < 16; k++) {
                y[32 * j + k] = step * (float)clq_iq4_levels[b[i].qs[16 * j + k] & 15];
                y[32 * j + k + 16] = step * (float)clq_iq4_levels[b[i].qs[16 * j + k] >> 4];
            }
        }
    }
}

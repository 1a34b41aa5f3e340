// SPDX-License-Identifier: MIT
// q1_0: 128 elements; value = d where bit j is set (x >= 0), else -d. d is the mean of |x|.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"

void clq_q1_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_q1_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 128) {
        float sum = 0;
        memset(&b[i], 0, sizeof b[i]);
        for (int j = 0; j < 128; j++) {
            sum += fabsf(x[j]);
            b[i].qs[j / 8] |= (uint8_t)((x[j] >= 0) << j % 8);
        }
        b[i].d = clq_f32_to_f16(sum / 128);
    }
}

void clq_q1_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q1_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 128) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 128; j++) y[j] = b[i].qs[j / 8] >> j % 8 & 1 ? d : -d;
    }
}

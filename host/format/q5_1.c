// SPDX-License-Identifier: MIT
// q5_1: value = d * q + m, q in 0..31. m = min, d = (max - min) / 31,
// q = trunc((x - m) * (1 / d) + 0.5), from the unrounded d and m.
#include <float.h>

#include "base/half.h"
#include "format/codecs.h"

static unsigned code(float v)
{
    return (unsigned)clq_trunc_x86(v + 0.5f) & 31;
}

void clq_q5_1_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_q5_1 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float min = FLT_MAX, max = -FLT_MAX;
        for (int j = 0; j < 32; j++) {
            if (x[j] < min) min = x[j];
            if (x[j] > max) max = x[j];
        }
        float d = (max - min) / 31.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        uint32_t qh = 0;
        b[i].d = clq_f32_to_f16(d);
        b[i].m = clq_f32_to_f16(min);
        for (int j = 0; j < 16; j++) {
            unsigned low = code((x[j] - min) * id), high = code((x[j + 16] - min) * id);
            b[i].qs[j] = (uint8_t)((low & 15) | (high & 15) << 4);
            qh |= (low >> 4) << j | (high >> 4) << (j + 16);
        }
        for (int k = 0; k < 4; k++) b[i].qh[k] = (uint8_t)(qh >> 8 * k);
    }
}

void clq_q5_1_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q5_1 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = clq_f16_to_f32(b[i].d), m = clq_f16_to_f32(b[i].m);
        for (int j = 0; j < 32; j++) {
            int low = j < 16 ? b[i].qs[j] & 15 : b[i].qs[j - 16] >> 4;
            y[j] = (float)(low | (b[i].qh[j / 8] >> j % 8 & 1) << 4) * d + m;
        }
    }
}

// SPDX-License-Identifier: MIT
// q5_0: value = d * (q - 16), q in 0..31. d = m / -16 where m is the value of largest magnitude
// (the first of them); q = min(31, trunc(x * (1 / d) + 16.5)), 1 / d from the unrounded d.
#include "base/half.h"
#include "format/codecs.h"

static unsigned code(float v)
{
    int q = (int8_t)clq_trunc_x86(v + 16.5f);
    return (unsigned)(q < 31 ? q : 31) & 31;
}

void clq_q5_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_q5_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float amax = 0.0f, m = 0.0f;
        for (int j = 0; j < 32; j++) {
            float a = x[j] < 0.0f ? -x[j] : x[j];
            if (a > amax) {
                amax = a;
                m = x[j];
            }
        }
        float d = m / -16.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        uint32_t qh = 0;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 16; j++) {
            unsigned low = code(x[j] * id), high = code(x[j + 16] * id);
            b[i].qs[j] = (uint8_t)((low & 15) | (high & 15) << 4);
            qh |= (low >> 4) << j | (high >> 4) << (j + 16);
        }
        for (int k = 0; k < 4; k++) b[i].qh[k] = (uint8_t)(qh >> 8 * k);
    }
}

void clq_q5_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q5_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 32; j++) {
            int low = j < 16 ? b[i].qs[j] & 15 : b[i].qs[j - 16] >> 4;
            y[j] = (float)((low | (b[i].qh[j / 8] >> j % 8 & 1) << 4) - 16) * d;
        }
    }
}

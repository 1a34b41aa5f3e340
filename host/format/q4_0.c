// SPDX-License-Identifier: MIT
// q4_0: value = d * (q - 8), q in 0..15. d = m / -8 where m is the value of largest magnitude (the
// first of them); q = min(15, trunc(x * (1 / d) + 8.5)), 1 / d from the unrounded d.
#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

static unsigned code(float v)
{
    int q = (int8_t)clq_trunc_x86(v + 8.5f);
    return (unsigned)(q < 15 ? q : 15) & 15;
}

// With importance: codes and d of a fit.
static void encode_weighted(const float *x, const float *importance, uint64_t n_blocks, clq_block_q4_0 *b)
{
    float sigma2 = clq_sum_squares(x, 32 * n_blocks) / (float)(32 * n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++) {
        float weight[32];
        int8_t q[32];
        clq_weigh(32, x + 32 * i, importance + 32 * i, sigma2, weight);
        b[i].d = clq_f32_to_f16(clq_fit_symmetric(32, 8, x + 32 * i, weight, q));
        for (int j = 0; j < 16; j++) b[i].qs[j] = (uint8_t)(q[j] | q[j + 16] << 4);
    }
}

void clq_q4_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q4_0 *b = blocks;
    if (importance) {
        encode_weighted(x, importance, n_blocks, b);
        return;
    }
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float amax = 0.0f, m = 0.0f;
        for (int j = 0; j < 32; j++) {
            float a = x[j] < 0.0f ? -x[j] : x[j];
            if (a > amax) {
                amax = a;
                m = x[j];
            }
        }
        float d = m / -8.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 16; j++) {
            b[i].qs[j] = (uint8_t)(code(x[j] * id) | code(x[j + 16] * id) << 4);
        }
    }
}

void clq_q4_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q4_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 16; j++) {
            y[j] = (float)((b[i].qs[j] & 15) - 8) * d;
            y[j + 16] = (float)((b[i].qs[j] >> 4) - 8) * d;
        }
    }
}

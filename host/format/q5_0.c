// SPDX-License-Identifier: MIT
// q5_0: value = d * (q - 16), q in 0..31. d = m / -16 where m is the value of largest magnitude
// (the first of them); q = min(31, trunc(x * (1 / d) + 16.5)), 1 / d from the unrounded d.
#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

static unsigned code(float v)
{
    int q = (int8_t)clq_trunc_x86(v + 16.5f);
    return (unsigned)(q < 31 ? q : 31) & 31;
}

// With importance: codes and d of a fit.
static void encode_weighted(const float *x, const float *importance, uint64_t n_blocks, clq_block_q5_0 *b)
{
    float sigma2 = clq_sum_squares(x, 32 * n_blocks) / (float)(32 * n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++) {
        float weight[32];
        int8_t q[32];
        clq_weigh(32, x + 32 * i, importance + 32 * i, sigma2, weight);
        b[i].d = clq_f32_to_f16(clq_fit_symmetric(32, 16, x + 32 * i, weight, q));
        clq_pack_5bit((const uint8_t *)q, b[i].qs, b[i].qh);
    }
}

void clq_q5_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q5_0 *b = blocks;
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
        float d = m / -16.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        b[i].d = clq_f32_to_f16(d);
        uint8_t q[32];
        for (int j = 0; j < 32; j++) q[j] = (uint8_t)code(x[j] * id);
        clq_pack_5bit(q, b[i].qs, b[i].qh);
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

// SPDX-License-Identifier: MIT
// q5_1: value = d * q + m, q in 0..31. m = min, d = (max - min) / 31,
// q = trunc((x - m) * (1 / d) + 0.5), from the unrounded d and m.
#include <float.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

static unsigned code(float v)
{
    return (unsigned)clq_trunc_x86(v + 0.5f) & 31;
}

// With importance: codes, d and m of a fit.
static void encode_weighted(const float *x, const float *importance, uint64_t n_blocks, clq_block_q5_1 *b)
{
    float sigma2 = clq_sum_squares(x, 32 * n_blocks) / (float)(32 * n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++) {
        float weight[32], min;
        uint8_t q[32];
        clq_weigh(32, x + 32 * i, importance + 32 * i, sigma2, weight);
        b[i].d = clq_f32_to_f16(clq_fit_affine(32, 31, x + 32 * i, weight, -0.9f, 0.05f, 36, 0, q, &min));
        b[i].m = clq_f32_to_f16(-min);
        clq_pack_5bit(q, b[i].qs, b[i].qh);
    }
}

void clq_q5_1_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q5_1 *b = blocks;
    if (importance) {
        encode_weighted(x, importance, n_blocks, b);
        return;
    }
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float min = FLT_MAX, max = -FLT_MAX;
        for (int j = 0; j < 32; j++) {
            if (x[j] < min) min = x[j];
            if (x[j] > max) max = x[j];
        }
        float d = (max - min) / 31.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        b[i].d = clq_f32_to_f16(d);
        b[i].m = clq_f32_to_f16(min);
        uint8_t q[32];
        for (int j = 0; j < 32; j++) q[j] = (uint8_t)code((x[j] - min) * id);
        clq_pack_5bit(q, b[i].qs, b[i].qh);
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

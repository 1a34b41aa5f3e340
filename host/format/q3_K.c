// SPDX-License-Identifier: MIT
// q3_K: 16 groups of 16; value = d * (sc - 32) * (q - 4), q in 0..7, sc of 6 bits. The third bit of q
// stands in hmask: bit j of byte k for element 32 j + k.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

static int clamp4(int v)
{
    return v < -4 ? -4 : v > 3 ? 3 : v;
}

// Coordinate descent: each code in turn moves to where the fit is best, for up to 5 sweeps.
static float fit(const float x[16], int8_t q[16])
{
    float largest = 0, signed_largest = 0, sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < 16; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            signed_largest = x[i];
        }
    if (largest < 1e-15f) {
        memset(q, 0, 16);
        return 0;
    }
    float inverse = -4.0f / signed_largest;
    for (int i = 0; i < 16; i++) {
        float w = x[i] * x[i], l = (float)clamp4(clq_nearest(inverse * x[i]));
        q[i] = (int8_t)l;
        sum_qx += w * x[i] * l;
        sum_qq += w * l * l;
    }
    for (int sweep = 0, changed = 1; sweep < 5 && changed; sweep++) {
        changed = 0;
        for (int i = 0; i < 16; i++) {
            float w = x[i] * x[i], l = q[i], qx = sum_qx - w * x[i] * l;
            if (!(qx > 0)) continue;
            float qq = sum_qq - w * l * l;
            int n = clamp4(clq_nearest(x[i] * qq / qx));
            if (n == q[i]) continue;
            qx += w * x[i] * (float)n;
            qq += w * (float)n * (float)n;
            if (!(qq > 0) || !(qx * qx * sum_qq > sum_qx * sum_qx * qq)) continue;
            q[i] = (int8_t)n;
            sum_qx = qx;
            sum_qq = qq;
            changed = 1;
        }
    }
    for (int i = 0; i < 16; i++) q[i] = (int8_t)(q[i] + 4);
    return sum_qq > 0 ? sum_qx / sum_qq : 0;
}

static int get_scale(const uint8_t s[12], int j)
{
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

static void put_scale(uint8_t s[12], int j, int code) // code 0..63
{
    s[j % 8] |= (uint8_t)((code & 15) << (j < 8 ? 0 : 4));
    s[8 + j % 4] |= (uint8_t)(code >> 4 << 2 * (j / 4));
}

// The groups' scales and codes without importance.
static void fit_plain(const float x[256], clq_block_q3_K *b, int8_t q[256])
{
    float scale[16], largest = 0, signed_largest = 0;
    for (int j = 0; j < 16; j++) {
        scale[j] = fit(x + 16 * j, q + 16 * j);
        if (fabsf(scale[j]) > largest) {
            largest = fabsf(scale[j]);
            signed_largest = scale[j];
        }
    }
    if (signed_largest == 0) return;
    float inverse = -32.0f / signed_largest;
    for (int j = 0; j < 16; j++) {
        int l = (int8_t)clq_nearest(inverse * scale[j]);
        put_scale(b->scales, j, (l < -32 ? -32 : l > 31 ? 31 : l) + 32);
    }
    b->d = clq_f32_to_f16(1 / inverse);
}

// With importance the scales are fitted too, each with the sum of its group's weights.
static void fit_weighted(const float x[256], const float importance[256], clq_block_q3_K *b, int8_t q[256])
{
    float scale[16], weights[16], sigma2 = 2 * clq_sum_squares(x, 256) / 256;
    int8_t code[16];
    for (int j = 0; j < 16; j++) {
        float weight[16];
        clq_weigh(16, x + 16 * j, importance + 16 * j, sigma2, weight);
        weights[j] = 0;
        for (int k = 0; k < 16; k++) weights[j] += weight[k];
        scale[j] = clq_fit_symmetric(16, 4, x + 16 * j, weight, q + 16 * j);
    }
    b->d = clq_f32_to_f16(clq_fit_symmetric(16, 32, scale, weights, code));
    for (int j = 0; j < 16; j++) put_scale(b->scales, j, code[j]);
}

void clq_q3_K_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q3_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        int8_t q[256];
        memset(&b[i], 0, sizeof b[i]);
        if (importance)
            fit_weighted(x, importance + 256 * i, &b[i], q);
        else
            fit_plain(x, &b[i], q);
        for (int j = 0; j < 16; j++) {
            float step = clq_f16_to_f32(b[i].d) * (float)get_scale(b[i].scales, j);
            for (int k = 16 * j; step != 0 && k < 16 * j + 16; k++)
                q[k] = (int8_t)(clamp4(clq_nearest(x[k] / step)) + 4);
        }
        for (int k = 0; k < 256; k++) {
            b[i].hmask[k % 32] |= (uint8_t)(q[k] >> 2 << k / 32);
            b[i].qs[k / 128 * 32 + k % 32] |= (uint8_t)((q[k] & 3) << k % 128 / 32 * 2);
        }
    }
}

void clq_q3_K_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q3_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (int k = 0; k < 256; k++) {
            int q =
                (b[i].qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3) - (b[i].hmask[k % 32] >> k / 32 & 1 ? 0 : 4);
            y[k] = d * (float)get_scale(b[i].scales, k / 16) * (float)q;
        }
    }
}

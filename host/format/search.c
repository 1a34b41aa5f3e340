// SPDX-License-Identifier: MIT
#include "format/search.h"

#include <math.h>

#include "base/half.h"

int32_t clq_nearest(float v)
{
    return v == v ? (int32_t)(clq_bits(v + 12582912.0f) & 0x7fffff) - 0x400000 : 0;
}

static int clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

float clq_fit_affine(int n, int q_max, const float *x, const float *weight, float first, float step, int n_steps,
                     int absolute, uint8_t *q, float *min)
{
    float low = x[0], high = x[0], sum_w = weight[0], sum_x = weight[0] * x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
        sum_w += weight[i];
        sum_x += weight[i] * x[i];
    }
    if (low > 0) low = 0;
    if (high == low) {
        for (int i = 0; i < n; i++) q[i] = 0;
        *min = -low;
        return 0;
    }
    float inverse = (float)q_max / (high - low), scale = 1 / inverse, best = 0;
    for (int i = 0; i < n; i++) {
        q[i] = (uint8_t)clamp(clq_nearest(inverse * (x[i] - low)), 0, q_max);
        float e = scale * (float)q[i] + low - x[i];
        best += weight[i] * (absolute ? fabsf(e) : e * e);
    }
    for (int k = 0; k <= n_steps; k++) {
        uint8_t trial[32];
        float sum_q = 0, sum_qq = 0, sum_qx = 0;
        inverse = (first + step * (float)k + (float)q_max) / (high - low);
        for (int i = 0; i < n; i++) {
            trial[i] = (uint8_t)clamp(clq_nearest(inverse * (x[i] - low)), 0, q_max);
            float wq = weight[i] * (float)trial[i];
            sum_q += wq;
            sum_qq += wq * (float)trial[i];
            sum_qx += wq * x[i];
        }
        float det = sum_w * sum_qq - sum_q * sum_q;
        if (!(det > 0)) continue;
        float s = (sum_w * sum_qx - sum_x * sum_q) / det, m = (sum_qq * sum_x - sum_q * sum_qx) / det, error = 0;
        if (m > 0) {
            m = 0;
            s = sum_qx / sum_qq;
        }
        for (int i = 0; i < n; i++) {
            float e = s * (float)trial[i] + m - x[i];
            error += weight[i] * (absolute ? fabsf(e) : e * e);
        }
        if (error < best) {
            for (int i = 0; i < n; i++) q[i] = trial[i];
            best = error;
            scale = s;
            low = m; // the next candidates start from it
        }
    }
    *min = -low;
    return scale;
}

float clq_fit_symmetric(int n, int q_max, const float *x, const float *weight, int8_t *q)
{
    float largest = 0, signed_largest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            signed_largest = x[i];
        }
    if (largest < 1e-15f) {
        for (int i = 0; i < n; i++) q[i] = 0;
        return 0;
    }
    float scale = 0, best = 0;
    for (int k = -10; k <= 9; k++) { // -10 stands for the plain candidate, which comes first
        if (k == 0) continue;
        float inverse = k == -10 ? -(float)q_max / signed_largest : -((float)q_max + 0.1f * (float)k) / signed_largest;
        float sum_qx = 0, sum_qq = 0;
        for (int i = 0; i < n; i++) {
            float l = (float)clamp(clq_nearest(inverse * x[i]), -q_max, q_max - 1);
            float w = weight ? weight[i] : x[i] * x[i];
            sum_qx += w * x[i] * l;
            sum_qq += w * l * l;
        }
        if (k == -10) {
            scale = sum_qq != 0 ? sum_qx / sum_qq : 0;
        } else if (sum_qq > 0 && sum_qx * sum_qx > best * sum_qq) {
            scale = sum_qx / sum_qq;
        } else {
            continue;
        }
        best = scale * sum_qx;
        for (int i = 0; i < n; i++) q[i] = (int8_t)(q_max + clamp(clq_nearest(inverse * x[i]), -q_max, q_max - 1));
    }
    return scale;
}

float clq_fit_positive(int n, int q_max, const float *x, const float *weight, uint8_t *q)
{
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (x[i] > largest) largest = x[i];
    if (largest < 1e-15f) {
        for (int i = 0; i < n; i++) q[i] = 0;
        return 0;
    }
    float inverse = (float)q_max / largest, best = 0;
    for (int k = -5; k <= 4; k++) { // -5 stands for the plain candidate, which comes first
        if (k == 0) continue;
        float trial = k == -5 ? inverse : (0.1f * (float)k + (float)q_max) / largest, scale = 1 / trial, error = 0;
        for (int i = 0; i < n; i++) {
            int32_t l = clq_nearest(trial * x[i]);
            float e = x[i] - scale * (float)(k == -5 ? (uint8_t)l : l < q_max ? l : q_max);
            error += weight[i] * e * e;
        }
        if (k != -5 && !(error < best)) continue;
        best = error;
        inverse = trial;
    }
    float sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < n; i++) {
        int32_t l = clq_nearest(inverse * x[i]);
        l = l < q_max ? l : q_max;
        q[i] = (uint8_t)l;
        sum_qx += weight[i] * x[i] * (float)l;
        sum_qq += weight[i] * (float)l * (float)l;
    }
    for (int sweep = 0, changed = 1; sweep < 5 && changed; sweep++) {
        changed = 0;
        for (int i = 0; i < n; i++) {
            float w = weight[i], l = q[i], qx = sum_qx - w * x[i] * l, qq = sum_qq - w * l * l;
            if (!(qx > 0 && qq > 0)) continue;
            int32_t m = clq_nearest(x[i] * qq / qx);
            m = m < q_max ? m : q_max;
            if (m == q[i]) continue;
            qx += w * x[i] * (float)m;
            qq += w * (float)m * (float)m;
            if (!(qx * qx * sum_qq > sum_qx * sum_qx * qq)) continue;
            q[i] = (uint8_t)m;
            sum_qx = qx;
            sum_qq = qq;
            changed = 1;
        }
    }
    return sum_qq > 0 ? sum_qx / sum_qq : 0;
}

void clq_pack_5bit(const uint8_t q[32], uint8_t qs[16], uint8_t qh[4])
{
    for (int k = 0; k < 4; k++) qh[k] = 0;
    for (int j = 0; j < 16; j++) qs[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
    for (int j = 0; j < 32; j++) qh[j / 8] |= (uint8_t)((q[j] >> 4 & 1) << j % 8);
}

float clq_sum_squares(const float *x, uint64_t n)
{
    float sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

void clq_weigh(int n, const float *x, const float *importance, float sigma2, float *weight)
{
    for (int i = 0; i < n; i++) {
        float w = sqrtf(sigma2 + x[i] * x[i]);
        weight[i] = importance ? importance[i] * w : w;
    }
}

// SPDX-License-Identifier: MIT
#include "format/kscales.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/search.h"

void clq_get_scale_min(const uint8_t s[12], int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

static void put_scale_min(uint8_t s[12], int j, int scale, int min)
{
    if (j < 4) {
        s[j] = (uint8_t)scale;
        s[j + 4] = (uint8_t)min;
    } else {
        s[j + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        s[j - 4] |= (uint8_t)(scale >> 4 << 6);
        s[j] |= (uint8_t)(min >> 4 << 6);
    }
}

// min(63, the low byte of the nearest integer)
static int code6(float v)
{
    uint8_t l = (uint8_t)clq_nearest(v);
    return l < 63 ? l : 63;
}

// The groups' scales from their fits, without importance: relative to the largest.
static void scales_by_largest(const float scale[8], const float min[8], uint8_t s[12], clq_half *d, clq_half *dmin)
{
    float max_scale = 0, max_min = 0;
    for (int j = 0; j < 8; j++) {
        if (scale[j] > max_scale) max_scale = scale[j];
        if (min[j] > max_min) max_min = min[j];
    }
    float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0, inverse_min = max_min > 0 ? 63.0f / max_min : 0;
    for (int j = 0; j < 8; j++) put_scale_min(s, j, code6(inverse_scale * scale[j]), code6(inverse_min * min[j]));
    *d = clq_f32_to_f16(max_scale / 63.0f);
    *dmin = clq_f32_to_f16(max_min / 63.0f);
}

// With importance: fitted, each group with the sum of its weights. most: the largest code that is packed.
static void scales_by_fit(const float scale[8], const float min[8], const float weight[8], uint8_t most, uint8_t s[12],
                          clq_half *d, clq_half *dmin)
{
    uint8_t sc[8], m[8];
    *d = clq_f32_to_f16(clq_fit_positive(8, 63, scale, weight, sc));
    *dmin = clq_f32_to_f16(clq_fit_positive(8, 63, min, weight, m));
    for (int j = 0; j < 8; j++) put_scale_min(s, j, sc[j] < most ? sc[j] : most, m[j] < most ? m[j] : most);
}

void clq_affine_groups(const float *x, const float *importance, int q_max, float first, float step, int n_steps,
                       uint8_t q[256], clq_half *d, clq_half *dmin, uint8_t s[12])
{
    float scale[8], min[8], weights[8] = {0};
    float sigma2 = importance ? 2 * clq_sum_squares(x, 256) / 256 : 0;
    for (int j = 0; j < 8; j++) {
        const float *g = x + 32 * j;
        float weight[32];
        if (importance) {
            clq_weigh(32, g, importance + 32 * j, sigma2, weight);
            for (int k = 0; k < 32; k++) weights[j] += weight[k];
            scale[j] = clq_fit_affine(32, q_max, g, weight, -0.9f, 0.05f, 36, 0, q + 32 * j, &min[j]);
        } else {
            float level = sqrtf(clq_sum_squares(g, 32) / 32);
            for (int k = 0; k < 32; k++) weight[k] = level + fabsf(g[k]);
            scale[j] = clq_fit_affine(32, q_max, g, weight, first, step, n_steps, 0, q + 32 * j, &min[j]);
        }
    }
    memset(s, 0, 12);
    if (importance)
        scales_by_fit(scale, min, weights, q_max == 15 ? 255 : 63, s, d, dmin);
    else
        scales_by_largest(scale, min, s, d, dmin);
    for (int j = 0; j < 8; j++) {
        int sc, m;
        clq_get_scale_min(s, j, &sc, &m);
        float step_size = clq_f16_to_f32(*d) * (float)sc, offset = clq_f16_to_f32(*dmin) * (float)m;
        if (step_size == 0) continue;
        for (int k = 0; k < 32; k++) {
            int l = clq_nearest((x[32 * j + k] + offset) / step_size);
            q[32 * j + k] = (uint8_t)(l < 0 ? 0 : l > q_max ? q_max : l);
        }
    }
}

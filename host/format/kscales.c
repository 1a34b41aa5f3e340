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

void clq_affine_groups(const float *x, int q_max, float first, float step, int n_steps, uint8_t q[256], clq_half *d,
                       clq_half *dmin, uint8_t s[12])
{
    float scale[8], min[8], max_scale = 0, max_min = 0;
    for (int j = 0; j < 8; j++) {
        const float *g = x + 32 * j;
        float weight[32], sum = 0;
        for (int k = 0; k < 32; k++) sum += g[k] * g[k];
        float level = sqrtf(sum / 32);
        for (int k = 0; k < 32; k++) weight[k] = level + fabsf(g[k]);
        scale[j] = clq_fit_affine(32, q_max, g, weight, first, step, n_steps, 0, q + 32 * j, &min[j]);
        if (scale[j] > max_scale) max_scale = scale[j];
        if (min[j] > max_min) max_min = min[j];
    }
    float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0, inverse_min = max_min > 0 ? 63.0f / max_min : 0;
    memset(s, 0, 12);
    for (int j = 0; j < 8; j++) put_scale_min(s, j, code6(inverse_scale * scale[j]), code6(inverse_min * min[j]));
    *d = clq_f32_to_f16(max_scale / 63.0f);
    *dmin = clq_f32_to_f16(max_min / 63.0f);
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

// SPDX-License-Identifier: MIT
#include "format/iq1.h"

#include <float.h>

void clq_iq1_sort(int n, const float *x, uint8_t order[32])
{
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && x[i] < x[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
}

void clq_iq1_levels(int n, const uint8_t *order, int i1, int i2, bool mirrored, uint8_t *levels)
{
    for (int k = 0; k < n; k++) {
        int l = k < i1 ? 0 : k < i2 ? 1 : 2;
        levels[order[k]] = (uint8_t)(mirrored ? 2 - l : l);
    }
}

uint32_t clq_iq1_point(const clq_grid *g, const uint8_t levels[8], const float *x, const float *weight, float scale,
                       bool down, bool *on_grid)
{
    uint32_t v = 0, n;
    for (int i = 0; i < 8; i++) v |= (uint32_t)levels[i] << 2 * i;
    uint32_t entry = g->map[v];
    *on_grid = !(entry & CLQ_OFF_GRID);
    if (*on_grid) return v;
    const uint16_t *list = clq_grid_candidates(g, entry, &n), *best = list;
    float least = FLT_MAX;
    for (const uint16_t *p = list; p < list + n; p++) {
        float distance = 0;
        for (uint32_t i = 0; i < 8; i++) {
            float e = scale * clq_iq1_value(clq_grid_level(g, *p, i), down) - x[i];
            distance += weight[i] * e * e;
        }
        if (distance < least) {
            least = distance;
            best = p;
        }
    }
    return *best;
}

void clq_iq1_sum(const clq_grid *g, uint32_t point, const float *x, const float *weight, bool down, float factor,
                 float *sum_qx, float *sum_qq)
{
    for (uint32_t i = 0; i < 8; i++) {
        float q = clq_iq1_value(clq_grid_level(g, point, i), down) * factor;
        *sum_qx += weight[i] * q * x[i];
        *sum_qq += weight[i] * q * q;
    }
}

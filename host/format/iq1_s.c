// SPDX-License-Identifier: MIT
// iq1_s: 8 groups of 32, 32 vectors of 8, grid of 2048; value = d * (1 + 2 * sc) * (level +- 1/8), sc of 3 bits. qs:
// low 8 bits of the indexes; qh[j]: 4 x 3 bits above, sc << 12, and the sign of the 1/8 in bit 15. d is 1.125 times
// the largest scale / 15. Without importance: as with 1.
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/iq1.h"
#include "format/search.h"

// Weighted least squares over all splits of the sorted elements, moved up or down. false: none has weight.
static bool best_split(const float *x, const float *weight, const uint8_t *order, int *i1, int *i2, bool *down,
                       float *scale)
{
    float sum_x[33] = {0}, sum_w[33] = {0}, best = -FLT_MAX;
    bool found = false;
    for (int k = 0; k < 32; k++) {
        sum_x[k + 1] = sum_x[k] + weight[order[k]] * x[order[k]];
        sum_w[k + 1] = sum_w[k] + weight[order[k]];
    }
    for (int a = 0; a <= 32; a++)
        for (int b = a; b <= 32; b++)
            for (int side = 0; side < 2; side++) {
                float q0 = clq_iq1_value(0, side), q1 = clq_iq1_value(1, side), q2 = clq_iq1_value(2, side);
                float qx = sum_x[a] * q0 + (sum_x[b] - sum_x[a]) * q1 + (sum_x[32] - sum_x[b]) * q2;
                float qq = sum_w[a] * q0 * q0 + (sum_w[b] - sum_w[a]) * q1 * q1 + (sum_w[32] - sum_w[b]) * q2 * q2;
                if (!(qq > 0 && qx * qx > best * qq)) continue;
                *scale = qx / qq;
                best = *scale * qx;
                *i1 = a;
                *i2 = b;
                *down = side;
                found = true;
            }
    return found;
}

static bool fit_group(const clq_grid *g, const float *x, const float *weight, uint16_t index[4], float *scale,
                      bool *down)
{
    float largest = 0;
    uint8_t order[32], levels[32];
    uint32_t points[4];
    int i1 = 0, i2 = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    if (largest < 1e-12f) return false;
    clq_iq1_sort(32, x, order);
    if (!best_split(x, weight, order, &i1, &i2, down, scale)) return false;
    bool mirrored = *scale < 0, all_on_grid = true;
    clq_iq1_levels(32, order, i1, i2, mirrored, levels);
    *scale = fabsf(*scale);
    *down ^= mirrored;
    for (int v = 0; v < 4; v++) {
        bool on;
        points[v] = clq_iq1_point(g, levels + 8 * v, x + 8 * v, weight + 8 * v, *scale, *down, &on);
        index[v] = (uint16_t)g->map[points[v]];
        all_on_grid &= on;
    }
    if (all_on_grid) return true;
    float qx = 0, qq = 0;
    for (int v = 0; v < 4; v++) clq_iq1_sum(g, points[v], x + 8 * v, weight + 8 * v, *down, 1, &qx, &qq);
    if (qx > 0 && qq > 0) *scale = qx / qq;
    return true;
}

void clq_iq1_s_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq1_s *b = blocks;
    const clq_grid *g = clq_grid_get(CLQ_GRID_ID_IQ1);
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        float sigma2 = 2 * clq_sum_squares(x, 256) / 256, scale[8], max_scale = 0;
        bool down[8];
        memset(&b[i], 0, sizeof b[i]);
        for (int j = 0; j < 8; j++) {
            float weight[32];
            uint16_t index[4];
            clq_weigh(32, x + 32 * j, importance ? importance + 256 * i + 32 * j : NULL, sigma2, weight);
            if (!fit_group(g, x + 32 * j, weight, index, &scale[j], &down[j])) {
                scale[j] = 0;
                down[j] = false;
                continue;
            }
            for (int v = 0; v < 4; v++) {
                b[i].qs[4 * j + v] = (uint8_t)index[v];
                b[i].qh[j] |= (uint16_t)(index[v] >> 8 << 3 * v);
            }
            if (scale[j] > max_scale) max_scale = scale[j];
        }
        if (max_scale == 0) continue;
        float d = max_scale / 15, inverse = 1 / d;
        b[i].d = clq_f32_to_f16(d * 1.125f);
        for (int j = 0; j < 8; j++) {
            int l = clq_nearest(0.5f * (inverse * scale[j] - 1));
            l = l < 0 ? 0 : l > 7 ? 7 : l;
            b[i].qh[j] |= (uint16_t)((l | down[j] << 3) << 12);
        }
    }
}

void clq_iq1_s_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq1_s *b = blocks;
    const clq_grid *g = clq_grid_get(CLQ_GRID_ID_IQ1);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (uint32_t v = 0; v < 32; v++) {
            uint32_t high = b[i].qh[v / 4], index = b[i].qs[v] | (high >> 3 * (v % 4) & 7) << 8;
            float scale = d * (float)(1 + 2 * (high >> 12 & 7));
            for (uint32_t k = 0; k < 8; k++)
                y[8 * v + k] = scale * clq_iq1_value(clq_grid_level(g, g->points[index], k), high >> 15);
        }
    }
}

const void *clq_iq1_s_table(size_t *n_bytes)
{
    const clq_grid *g = clq_grid_get(CLQ_GRID_ID_IQ1);
    *n_bytes = g->n_table_bytes;
    return g->map;
}

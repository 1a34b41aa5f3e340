// SPDX-License-Identifier: MIT
// iq1_m: 16 groups of 16, 32 vectors of 8, grid of 2048; value = d * (1 + 2 * sc) * (level +- 1/8), sc of 3 bits. qs:
// low 8 bits of the indexes; qh: for each vector a nibble, 3 bits above and the sign of the 1/8. scales: four
// little-endian 16-bit words of 4 x 3 bits, and a nibble of the float16 d in the high bits of each, lowest first.
// d fits all elements at last, times 1.1125.
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/iq1.h"
#include "format/search.h"

// Weighted least squares over all splits of the sorted elements; each half of the group (8 elements) is moved
// up or down on its own: *side holds half 0's in bit 1, half 1's in bit 0. false: none has weight.
static bool best_split(const float *x, const float *weight, const uint8_t *order, int *i1, int *i2, int *side,
                       float *scale)
{
    float sum_x[2][17] = {{0}}, sum_w[2][17] = {{0}}, best = -FLT_MAX;
    bool found = false;
    for (int k = 0; k < 16; k++) {
        int at = order[k], own = at / 8;
        sum_x[own][k + 1] = sum_x[own][k] + weight[at] * x[at];
        sum_w[own][k + 1] = sum_w[own][k] + weight[at];
        sum_x[!own][k + 1] = sum_x[!own][k];
        sum_w[!own][k + 1] = sum_w[!own][k];
    }
    for (int a = 0; a <= 16; a++)
        for (int b = a; b <= 16; b++) {
            float qx[2][2], qq[2][2]; // [half][down]
            for (int h = 0; h < 2; h++)
                for (int down = 0; down < 2; down++) {
                    float q0 = clq_iq1_value(0, down), q1 = clq_iq1_value(1, down), q2 = clq_iq1_value(2, down);
                    // Levels are 1 apart: a sum is the total's with level 2, less the two prefixes.
                    qx[h][down] = sum_x[h][16] * q2 - (sum_x[h][a] + sum_x[h][b]);
                    qq[h][down] = sum_w[h][16] * q2 * q2 + sum_w[h][a] * (q0 * q0 - q1 * q1) +
                                  sum_w[h][b] * (q1 * q1 - q2 * q2);
                }
            for (int k = 0; k < 4; k++) {
                float sum_qx = qx[0][k >> 1] + qx[1][k & 1], sum_qq = qq[0][k >> 1] + qq[1][k & 1];
                if (!(sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)) continue;
                *scale = sum_qx / sum_qq;
                best = *scale * sum_qx;
                *i1 = a;
                *i2 = b;
                *side = k;
                found = true;
            }
        }
    return found;
}

static bool side_of(int side, int half)
{
    return side >> !half & 1;
}

static bool fit_group(const clq_grid *g, const float *x, const float *weight, uint32_t points[2], float *scale,
                      int *side)
{
    float largest = 0;
    uint8_t order[32], levels[16];
    int i1 = 0, i2 = 0;
    for (int i = 0; i < 16; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    if (largest < 1e-7f) return false;
    clq_iq1_sort(16, x, order);
    if (!best_split(x, weight, order, &i1, &i2, side, scale)) return false;
    bool mirrored = *scale < 0, all_on_grid = true;
    clq_iq1_levels(16, order, i1, i2, mirrored, levels);
    *scale = fabsf(*scale);
    if (mirrored) *side = 3 - *side;
    for (int v = 0; v < 2; v++) {
        bool on;
        points[v] = clq_iq1_point(g, levels + 8 * v, x + 8 * v, weight + 8 * v, *scale, side_of(*side, v), &on);
        all_on_grid &= on;
    }
    if (all_on_grid) return true;
    float qx = 0, qq = 0;
    for (int v = 0; v < 2; v++) clq_iq1_sum(g, points[v], x + 8 * v, weight + 8 * v, side_of(*side, v), 1, &qx, &qq);
    if (qx > 0 && qq > 0) *scale = qx / qq;
    return true;
}

static void weights(const float *x, const float *importance, float sigma2, float weight[16])
{
    if (importance)
        clq_weigh(16, x, importance, sigma2, weight);
    else
        for (int i = 0; i < 16; i++) weight[i] = x[i] * x[i];
}

void clq_iq1_m_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_iq1_m *b = blocks;
    const clq_grid *g = clq_grid_get(CLQ_GRID_ID_IQ1);
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        const float *own = importance ? importance + 256 * i : NULL;
        float sigma2 = 2 * clq_sum_squares(x, 256) / 256, scale[16], max_scale = 0, weight[16];
        uint32_t points[16][2];
        int side[16];
        memset(&b[i], 0, sizeof b[i]);
        for (int j = 0; j < 16; j++) {
            weights(x + 16 * j, own ? own + 16 * j : NULL, sigma2, weight);
            if (!fit_group(g, x + 16 * j, weight, points[j], &scale[j], &side[j])) {
                points[j][0] = points[j][1] = g->points[0];
                scale[j] = 0;
                side[j] = 0;
            }
            for (int v = 0; v < 2; v++) {
                uint32_t index = g->map[points[j][v]];
                b[i].qs[2 * j + v] = (uint8_t)index;
                b[i].qh[j] |= (uint8_t)(index >> 8 << 4 * v);
            }
            if (scale[j] > max_scale) max_scale = scale[j];
        }
        if (max_scale == 0) continue;
        float d = max_scale / 15, inverse = 1 / d, qx = 0, qq = 0;
        uint16_t words[4] = {0};
        for (int j = 0; j < 16; j++) {
            int l = clq_nearest(0.5f * (inverse * scale[j] - 1));
            l = l < 0 ? 0 : l > 7 ? 7 : l;
            words[j / 4] |= (uint16_t)(l << 3 * (j % 4));
            weights(x + 16 * j, own ? own + 16 * j : NULL, sigma2, weight);
            for (int v = 0; v < 2; v++) {
                bool down = side_of(side[j], v);
                b[i].qh[j] |= (uint8_t)(down << (3 + 4 * v));
                clq_iq1_sum(g, points[j][v], x + 16 * j + 8 * v, weight + 8 * v, down, (float)(2 * l + 1), &qx, &qq);
            }
        }
        if (qq > 0) d = qx / qq;
        uint16_t half = clq_f32_to_f16(d * 1.1125f);
        for (int k = 0; k < 4; k++) {
            words[k] |= (uint16_t)((half >> 4 * k & 15) << 12);
            b[i].scales[2 * k] = (uint8_t)words[k];
            b[i].scales[2 * k + 1] = (uint8_t)(words[k] >> 8);
        }
    }
}

void clq_iq1_m_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_iq1_m *b = blocks;
    const clq_grid *g = clq_grid_get(CLQ_GRID_ID_IQ1);
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        uint32_t words[4], half = 0;
        for (int k = 0; k < 4; k++) {
            words[k] = b[i].scales[2 * k] | (uint32_t)b[i].scales[2 * k + 1] << 8;
            half |= words[k] >> 12 << 4 * k;
        }
        float d = clq_f16_to_f32((uint16_t)half);
        for (uint32_t v = 0; v < 32; v++) {
            uint32_t high = b[i].qh[v / 2] >> 4 * (v % 2) & 15, index = b[i].qs[v] | (high & 7) << 8;
            float scale = d * (float)(1 + 2 * (words[v / 8] >> v / 2 % 4 * 3 & 7));
            for (uint32_t k = 0; k < 8; k++)
                y[8 * v + k] = scale * clq_iq1_value(clq_grid_level(g, g->points[index], k), high >> 3);
        }
    }
}

const void *clq_iq1_m_table(size_t *n_bytes)
{
    return clq_iq1_s_table(n_bytes);
}

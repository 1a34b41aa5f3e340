// SPDX-License-Identifier: MIT
// The search that iq2 and iq3 share. Sums run in index order, products from left to right, the first of
// equal candidates wins: every rounding counts.
#include "format/codebook.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/search.h"

static int level_of(const clq_codebook *c, float inverse, float x)
{
    int l = clq_nearest(0.5f * (inverse * x - 1)), most = (int)c->n_levels - 1;
    return l < 0 ? 0 : l > most ? most : l;
}

// The vector of levels nearest to x * inverse.
static uint32_t vector_of(const clq_codebook *c, const clq_grid *g, float inverse, const float *x)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < g->dims; i++) v |= (uint32_t)level_of(c, inverse, x[i]) << g->bits * i;
    return v;
}

// The candidate nearest to x when its levels are scaled; root: square roots of the weights.
static uint32_t nearest_candidate(const clq_grid *g, uint32_t entry, float scale, const float *x, const float *root)
{
    uint32_t n;
    const uint16_t *list = clq_grid_candidates(g, entry, &n), *best = list;
    float least = FLT_MAX;
    for (const uint16_t *p = list; p < list + n; p++) {
        float distance = 0;
        for (uint32_t i = 0; i < g->dims; i++) {
            float e = scale * (float)(2 * clq_grid_level(g, *p, i) + 1) - x[i];
            distance += root[i] * e * e;
        }
        if (distance < least) {
            least = distance;
            best = p;
        }
    }
    return *best;
}

// The point for x: its own vector where that is in the grid.
static uint32_t point_of(const clq_codebook *c, const clq_grid *g, float inverse, float scale, const float *x,
                         const float *root, bool *on_grid)
{
    uint32_t v = vector_of(c, g, inverse, x), entry = g->map[v];
    *on_grid = !(entry & CLQ_OFF_GRID);
    return *on_grid ? v : nearest_candidate(g, entry, scale, x, root);
}

static void sum(const clq_grid *g, uint32_t n, const uint32_t *points, const float *x, const float *weight,
                float *sum_qx, float *sum_qq)
{
    *sum_qx = *sum_qq = 0;
    for (uint32_t i = 0; i < n; i++) {
        float q = (float)(2 * clq_grid_level(g, points[i / g->dims], i % g->dims) + 1);
        *sum_qx += weight[i] * x[i] * q;
        *sum_qq += weight[i] * q * q;
    }
}

// x becomes its magnitude. even: where the number of negative ones is odd, the element of least weight * x^2
// changes its sign, and its magnitude turns negative.
static uint8_t take_signs(float x[8], const float weight[8], bool even)
{
    uint32_t signs = 0, n_negative = 0;
    for (uint32_t i = 0; i < 8; i++)
        if (!(x[i] >= 0)) {
            signs |= 1u << i;
            n_negative++;
        }
    uint32_t least = 0;
    float smallest = weight[0] * x[0] * x[0];
    for (uint32_t i = 1; i < 8; i++) {
        float w = weight[i] * x[i] * x[i];
        if (w < smallest) {
            smallest = w;
            least = i;
        }
    }
    for (uint32_t i = 0; i < 8; i++)
        if (signs >> i & 1) x[i] = -x[i];
    if (!even) return (uint8_t)signs;
    if (n_negative % 2) {
        x[least] = -x[least];
        signs ^= 1u << least;
    }
    return signs & 127;
}

// Scale of a group of magnitudes, and its points; false: the group is zero, nothing of it is stored.
static bool fit_group(const clq_codebook *c, const clq_grid *g, const float *x, const float *weight, uint32_t *points,
                      float *scale_out)
{
    float root[32], largest = x[0], best = 0, outermost = (float)(2 * c->n_levels - 1), range, scale, sum_qx, sum_qq;
    uint32_t n = c->group, n_vectors = n / g->dims;
    bool off[8], own_off[8], any_off = c->refit != CLQ_REFIT_OFF_GRID;
    for (uint32_t i = 0; i < n; i++) root[i] = sqrtf(weight[i]);
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > largest) largest = x[i];
    *scale_out = 0;
    if (c->smallest > 0 ? largest < c->smallest : largest == 0) return false;
    if (c->fits_first) {
        uint8_t q[32];
        scale = clq_fit_positive((int)n, 4, x, weight, q);
        range = scale * (float)c->n_levels;
        if (range <= 0) return false;
    } else {
        scale = largest / outermost;
        range = largest;
    }
    memset(points, 0, n_vectors * sizeof *points);
    for (uint32_t v = 0; v < n_vectors; v++) off[v] = any_off;
    for (int k = -c->span; k <= c->span; k++) {
        float inverse = (outermost + (float)k * c->step) / range;
        uint32_t own[8];
        for (uint32_t v = 0; v < n_vectors; v++) {
            bool on;
            own[v] = point_of(c, g, inverse, 1 / inverse, x + v * g->dims, root + v * g->dims, &on);
            own_off[v] = !on;
        }
        sum(g, n, own, x, weight, &sum_qx, &sum_qq);
        if (!(sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)) continue;
        scale = sum_qx / sum_qq;
        best = scale * sum_qx;
        memcpy(points, own, sizeof own);
        memcpy(off, own_off, sizeof off);
    }
    any_off = c->refit == CLQ_REFIT_ALL;
    for (uint32_t v = 0; v < n_vectors; v++) any_off |= off[v];
    if (any_off && scale > 0) {
        for (uint32_t v = 0; v < n_vectors; v++) {
            bool on;
            if (c->refit == CLQ_REFIT_OFF_GRID && !off[v]) continue;
            points[v] = point_of(c, g, 1 / scale, scale, x + v * g->dims, root + v * g->dims, &on);
        }
        sum(g, n, points, x, weight, &sum_qx, &sum_qq);
        if (sum_qq > 0) scale = sum_qx / sum_qq;
    }
    *scale_out = scale;
    return true;
}

// The weights of a group's elements; importance: of the group, or NULL.
static void weigh(const clq_codebook *c, const float *x, const float *importance, float sigma2, float *weight)
{
    if (importance || c->plain_one) {
        clq_weigh((int)c->group, x, importance, sigma2, weight);
        return;
    }
    for (uint32_t i = 0; i < c->group; i++) {
        float square = x[i] * x[i];
        weight[i] = c->plain_sigma > 0 ? c->plain_sigma * sigma2 + square : square;
    }
}

void clq_codebook_block(const clq_codebook *c, const float *x, const float *importance, clq_codebook_fit *fit)
{
    const clq_grid *g = clq_grid_get(c->grid);
    memset(fit, 0, sizeof *fit);
    float sum_x2 = clq_sum_squares(x, 256), sigma2 = (c->sigma_twice ? 2 * sum_x2 : sum_x2) / 256;
    for (uint32_t at = 0; at < 256; at += c->group) {
        float magnitude[32], weight[32], *scale = &fit->scale[at / c->group];
        uint32_t points[8];
        uint8_t *signs = fit->signs + at / 8;
        memcpy(magnitude, x + at, c->group * sizeof *x);
        weigh(c, x + at, importance ? importance + at : NULL, sigma2, weight);
        uint8_t own_signs[4];
        for (uint32_t i = 0; i < c->group; i += 8)
            own_signs[i / 8] = take_signs(magnitude + i, weight + i, c->even_signs);
        if (!fit_group(c, g, magnitude, weight, points, scale)) continue;
        fit->stored[at / c->group] = true;
        uint8_t flip = *scale < 0 ? (c->even_signs ? 127 : 255) : 0;
        *scale = fabsf(*scale);
        for (uint32_t i = 0; i < c->group / 8; i++) signs[i] = own_signs[i] ^ flip;
        for (uint32_t v = 0; v < c->group / g->dims; v++) fit->index[at / g->dims + v] = (uint16_t)g->map[points[v]];
        if (*scale > fit->max_scale) fit->max_scale = *scale;
    }
}

void clq_codebook_values(const clq_grid *g, uint32_t index, uint32_t signs, float scale, float *y)
{
    for (uint32_t i = 0; i < g->dims; i++) {
        float v = scale * (float)g->levels[clq_grid_level(g, g->points[index], i)];
        y[i] = signs >> i & 1 ? -v : v;
    }
}

float clq_codebook_scales(const clq_codebook_fit *fit, int n, uint8_t codes[16])
{
    float d = fit->max_scale / 31, inverse = 1 / d;
    for (int i = 0; i < n; i++) {
        int l = clq_nearest(0.5f * (inverse * fit->scale[i] - 1));
        codes[i] = (uint8_t)(l < 0 ? 0 : l > 15 ? 15 : l);
    }
    return d;
}

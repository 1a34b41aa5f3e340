// SPDX-License-Identifier: MIT
// How SCALES measures and chooses. All arithmetic is float, each operation rounded once; sums run in the order of the
// group's elements.
//
// The cost of errors d is sum over i of d_i * (G_ii * d_i + 2 * sum over j < i of G_ji * d_j). Diagonal: G_ii is in[c],
// without `in` |w_i| for SEARCH, else 1, and the inner sum is not there. p'Gw is sum over i of p_i * v_i, v_i = sum over j of G_ji * w_j
// (diagonal: G_ii * w_i).
//
// CLQ_SCALES_HQQ solves for scale s and zero-point z as HQQ's half-quadratic iteration does (Badri and Shaji 2023; p =
// 0.7, beta = 10), from ABSMAX's s and z on, at most 20 times:
//   q = clamp(rne(w / s + z)), d = w - (q - z) * s, e = sign(d) * max(0, |d| - |d|^(p - 1) / beta), t = w - e
//   z = mean(q - t / s), as a float; 0 where symmetric
//   s = sum t * (q - z) / sum (q - z)^2
// The second is HQQ's. The third is not: it moves the scale, too, so that integer zero-points and symmetric types gain
// as well. The sums are made as sum t q - z sum t and sum q^2 - 2 z sum q + n z^2. Each iteration's s, rounded to its
// format, with z, rounded to an integer within the codes, is a candidate. It ends when s and z stay as they are, or
// when one would not be a finite number (or s not positive where not symmetric; or 0).
#include "ops/scales.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "format/format.h"

const float *clq_step_weight(const clq_step *s, const uint8_t *weights, const float *state)
{
    const uint8_t *base = s->flags & CLQ_STEP_STATE_WEIGHT ? (const uint8_t *)state : weights;
    return (const float *)(const void *)(base + s->w);
}

static uint32_t group_len(const clq_step *s) { return s->group_size ? s->group_size : s->cols; }

static clq_type type_of(const clq_step *s, clq_format_id scale_format)
{
    return (clq_type){.format = CLQ_INT,
                      .bits = (uint8_t)s->bits,
                      .symmetric = (s->flags & CLQ_STEP_SYMMETRIC) != 0,
                      .scale_format = scale_format};
}

// q - zero of ROUND.
static float steps_of(float w, float scale, float zero, float half)
{
    float q = scale != 0.0f ? rintf(w / scale) + zero : zero;
    q = q > -half ? q : -half;
    return (q < half - 1.0f ? q : half - 1.0f) - zero;
}

static void range_of(const float *w, uint32_t n, float *low, float *high)
{
    *low = *high = 0;
    for (uint32_t i = 0; i < n; i++) {
        *low = w[i] < *low ? w[i] : *low;
        *high = w[i] > *high ? w[i] : *high;
    }
}

// ---- QUANT, ROUND ----

void clq_quant_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end)
{
    const float *w = clq_step_weight(s, weights, state), *factors = s->in2 == CLQ_NONE ? NULL : state + s->in2;
    clq_type type = type_of(s, CLQ_F32);
    uint32_t n = group_len(s);
    for (uint64_t r = begin; r < end; r++)
        for (uint32_t first = 0; first < s->cols; first += n) {
            const float *x = w + r * s->cols + first;
            float *y = state + s->out + r * s->cols + first, low, high, scale;
            int8_t zero;
            for (uint32_t i = 0; i < n; i++) y[i] = factors ? x[i] * factors[first + i] : x[i];
            range_of(y, n, &low, &high);
            clq_int_params(&type, low, high, &scale, &zero);
            if (s->flags & CLQ_STEP_GIVEN) {
                scale = s->scale;
                zero = (int8_t)s->zero_point;
            }
            for (uint32_t i = 0; i < n; i++) {
                y[i] = scale * (float)(clq_int_code(&type, y[i], scale, zero) - zero);
                if (factors) y[i] /= factors[first + i];
            }
        }
}

void clq_round_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end)
{
    const float *w = clq_step_weight(s, weights, state), *scales = state + s->in;
    const float *zeros = scales + (uint64_t)s->rows * s->groups;
    float half = (float)(1 << (s->bits - 1));
    uint32_t n = group_len(s);
    for (uint64_t r = begin; r < end; r++)
        for (uint32_t i = 0; i < s->cols; i++) {
            uint64_t g = r * s->groups + i / n;
            float zero = s->flags & CLQ_STEP_SYMMETRIC ? 0 : zeros[g];
            state[s->out + r * s->cols + i] = scales[g] * steps_of(w[r * s->cols + i], scales[g], zero, half);
        }
}

// ---- SCALES ----

typedef struct {
    const float *w;
    uint32_t n;
    const float *cost; // NULL, [n], or [n][n]
    bool full;         // [n][n]
    bool by_size;      // cost NULL: an element's error counts |w| times
    clq_type type;
    float half;         // 2^(bits-1)
    float *d, *sums, *v; // room for n floats each
} group;

typedef struct {
    float scale, zero, cost;
} choice;

static float stored(const group *g, float scale)
{
    if (g->type.scale_format == CLQ_F16) return clq_round_f16(scale);
    if (g->type.scale_format == CLQ_BF16) return clq_round_bf16(scale);
    return scale;
}

// Finite, not 0, and positive where a zero-point goes with it.
static bool usable(const group *g, float scale)
{
    float size = g->type.symmetric ? fabsf(scale) : scale;
    return size > 0 && size <= FLT_MAX;
}

static float weight_of(const group *g, uint32_t i)
{
    return g->cost ? g->cost[i] : g->by_size ? fabsf(g->w[i]) : 1.0f;
}

// a'Ga
static float quadratic(const group *g, const float *a)
{
    float sum = 0;
    if (!g->full) {
        for (uint32_t i = 0; i < g->n; i++) sum += a[i] * (weight_of(g, i) * a[i]);
        return sum;
    }
    memset(g->sums, 0, g->n * sizeof *g->sums);
    for (uint32_t j = 0; j < g->n; j++) {
        const float *row = g->cost + (uint64_t)j * g->n;
        sum += a[j] * (row[j] * a[j] + 2.0f * g->sums[j]);
        for (uint32_t i = j + 1; i < g->n; i++) g->sums[i] += row[i] * a[j];
    }
    return sum;
}

static float measure(const group *g, float scale, float zero)
{
    for (uint32_t i = 0; i < g->n; i++) g->d[i] = g->w[i] - scale * steps_of(g->w[i], scale, zero, g->half);
    return quadratic(g, g->d);
}

static void consider(const group *g, choice *best, float scale, float zero)
{
    if (!usable(g, scale)) return;
    float cost = measure(g, scale, zero);
    if (cost < best->cost) *best = (choice){scale, zero, cost};
}

static void consider_range(const group *g, choice *best, float low, float high)
{
    float scale;
    int8_t zero;
    clq_int_params(&g->type, low, high, &scale, &zero);
    consider(g, best, scale, zero);
}

static void refine(const group *g, choice *best)
{
    if (g->full) {
        memset(g->v, 0, g->n * sizeof *g->v);
        for (uint32_t j = 0; j < g->n; j++)
            for (uint32_t i = 0; i < g->n; i++) g->v[i] += g->cost[(uint64_t)j * g->n + i] * g->w[j];
    } else {
        for (uint32_t i = 0; i < g->n; i++) g->v[i] = weight_of(g, i) * g->w[i];
    }
    for (int round = 0; round < 2; round++) {
        float before = best->cost, pw = 0;
        for (uint32_t i = 0; i < g->n; i++) {
            g->d[i] = steps_of(g->w[i], best->scale, best->zero, g->half);
            pw += g->d[i] * g->v[i];
        }
        consider(g, best, stored(g, pw / quadratic(g, g->d)), best->zero);
        if (!(best->cost < before)) return;
    }
}

static void search(const group *g, choice *best, float low, float high)
{
    if (g->type.symmetric) {
        float largest = 0;
        for (uint32_t i = 0; i < g->n; i++)
            if (fabsf(g->w[i]) > fabsf(largest)) largest = g->w[i];
        for (int sign = -1; sign <= 1; sign += 2)
            for (int k = 0; k < 24; k++)
                consider(g, best, stored(g, (float)sign * largest / g->half * (1.15f - (float)k / 40.0f)), 0);
    } else {
        static const float ends[] = {-1, 0, 1, 2, 4, 7, 10};
        for (int i = 0; i < 7; i++)
            for (int j = 0; j < 7; j++)
                consider_range(g, best, low * (1.0f - ends[i] / 24.0f), high * (1.0f - ends[j] / 24.0f));
    }
    refine(g, best);
}

static void clip(const group *g, choice *best, float low, float high)
{
    float largest = high > -low ? high : -low;
    for (int i = 0; i < 10; i++) {
        float m = (1.0f - (float)i / 20.0f) * largest;
        consider_range(g, best, low > -m ? low : -m, high < m ? high : m);
    }
}

float clq_power_minus_0_3(float d)
{
    // |d| = 2^n * m, m in [sqrt(1/2), sqrt(2)); log2(m) by the series of artanh.
    uint32_t u = clq_bits(d) & 0x7fffffff;
    int32_t n = (int32_t)(u - 0x3f3504f3) >> 23;
    float m = clq_from_bits(u - ((uint32_t)n << 23));
    float t = (m - 1.0f) / (m + 1.0f), t2 = t * t;
    float p = t2 * 0.2f + 0.333333333f;
    p = p * t2 + 1.0f;
    float x = ((float)n + 2.88539008f * t * p) * -0.3f;
    // 2^x: Taylor's series of the fraction, the exponent by its bits.
    float whole = rintf(x), r = (x - whole) * 0.693147181f;
    float y = r * (1.0f / 120) + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * clq_from_bits((uint32_t)((int32_t)whole + 127) << 23);
}

static void hqq(const group *g, choice *best)
{
    float s = best->scale, z = best->zero, n = (float)g->n;
    for (int iteration = 0; iteration < 20; iteration++) {
        float sum_z = 0, sum_t = 0, sum_q = 0, sum_tq = 0, sum_qq = 0;
        for (uint32_t i = 0; i < g->n; i++) {
            float q = rintf(g->w[i] / s + z);
            q = q > -g->half ? q : -g->half;
            q = q < g->half - 1.0f ? q : g->half - 1.0f;
            float d = g->w[i] - (q - z) * s, size = fabsf(d);
            float e = size - clq_power_minus_0_3(d) * 0.1f;
            e = e > 0.0f ? e : 0.0f;
            float t = g->w[i] - (d < 0.0f ? -e : e);
            sum_z += q - t / s;
            sum_t += t;
            sum_q += q;
            sum_tq += t * q;
            sum_qq += q * q;
        }
        float new_z = g->type.symmetric ? 0.0f : sum_z / n;
        float new_s = (sum_tq - new_z * sum_t) / (sum_qq - 2.0f * new_z * sum_q + n * new_z * new_z);
        if (!usable(g, new_s) || !(fabsf(new_z) <= FLT_MAX) || (new_s == s && new_z == z)) return;
        s = new_s;
        z = new_z;
        float rounded = rintf(z) + 0.0f; // no -0
        rounded = rounded > -g->half ? rounded : -g->half;
        consider(g, best, stored(g, s), rounded < g->half - 1.0f ? rounded : g->half - 1.0f);
    }
}

bool clq_scales_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end)
{
    const float *w = clq_step_weight(s, weights, state);
    uint32_t n = group_len(s);
    float *room = malloc(3ull * n * sizeof *room);
    if (!room) return false;
    group g = {.n = n, .type = type_of(s, (clq_format_id)s->cache_format), .half = (float)(1 << (s->bits - 1)),
               .d = room, .sums = room + n, .v = room + 2ull * n,
               .full = s->in != CLQ_NONE && !(s->flags & CLQ_STEP_DIAGONAL),
               .by_size = s->in == CLQ_NONE && s->phase == CLQ_SCALES_SEARCH};
    for (uint64_t r = begin; r < end; r++)
        for (uint32_t b = 0; b < s->groups; b++) {
            float low, high;
            int8_t zero;
            choice best;
            g.w = w + r * s->cols + (uint64_t)b * n;
            g.cost = s->in == CLQ_NONE ? NULL : state + s->in + (uint64_t)b * n * (g.full ? n : 1);
            range_of(g.w, n, &low, &high);
            clq_int_params(&g.type, low, high, &best.scale, &zero);
            best.zero = zero;
            if (s->phase != CLQ_SCALES_ABSMAX && best.scale != 0) {
                best.cost = measure(&g, best.scale, best.zero);
                if (!(best.cost <= FLT_MAX)) best.cost = -INFINITY; // nothing is cheaper
                switch (s->phase) {
                case CLQ_SCALES_SEARCH: search(&g, &best, low, high); break;
                case CLQ_SCALES_CLIP: clip(&g, &best, low, high); break;
                case CLQ_SCALES_HQQ: hqq(&g, &best); break;
                }
            }
            float *scales = state + s->out + r * s->groups + b;
            scales[0] = best.scale;
            scales[(uint64_t)s->rows * s->groups] = best.zero;
        }
    free(room);
    return true;
}

// ---- GPTQ ----

void clq_gptq_ref(const clq_step *s, float *state, uint64_t begin, uint64_t end)
{
    const float *u = state + s->in2, *scales = state + s->scales, *zeros = scales + (uint64_t)s->rows * s->groups;
    const int32_t *index =
        s->group_index == CLQ_NONE ? NULL : (const int32_t *)(const void *)(state + s->group_index);
    float half = (float)(1 << (s->bits - 1));
    for (uint64_t r = begin; r < end; r++) {
        float *w = state + s->in + r * s->cols + s->position, *out = state + s->out + r * s->dims;
        for (uint32_t j = 0; j < s->dims; j++) {
            const float *row = u + (uint64_t)j * s->dims;
            uint32_t column = s->position + j;
            uint64_t g = r * s->groups + (index ? (uint32_t)index[column] : column / group_len(s));
            float zero = s->flags & CLQ_STEP_SYMMETRIC ? 0 : zeros[g];
            float y = scales[g] * steps_of(w[j], scales[g], zero, half), e = (w[j] - y) / row[j];
            w[j] = y;
            out[j] = e;
            for (uint32_t k = j + 1; k < s->dims; k++) w[k] -= e * row[k];
        }
    }
}

// SPDX-License-Identifier: MIT
// SCALES and GPTQ (include/clquant_steps.h). host/ops/scales.c says how groups are measured, and gives the same bits.
//
// Lanes are rows: VW rows an item in the vec form, one in the wg form, whose items share a group of columns and so
// read the same element of G.
#ifndef CLQ_SCALES_CL
#define CLQ_SCALES_CL
#include "prepare.cl"

#define RUN 256                 // columns of rows that are near at a time; G is at most so large
#define ROWS ((uint)VW * LSIZE) // of a work-group
#if VW == 16 && !defined(__AVX512F__)
#define BLOCK 4 // columns of G whose sums are in registers
#else
#define BLOCK 8
#endif
#define UNROLLED _Pragma("unroll")

// ---- transfers ----

// Columns of ROWS rows, `stride` apart, of which `n_rows` are there.
typedef struct {
    __global float *first;
    uint stride, n_rows;
} rows_at;

#define LANE_ROW(lane) (WG ? LID : (lane))

// x[i]: column first + i of each lane's row, i < n <= RUN. Lanes without a row get the last one. In the wg form an item
// reads its own row alone, whose lines stay in the cache meanwhile: what is made of the columns takes far longer.
inline void load_run(rows_at r, uint first, uint n, vfloat *x)
{
    for (uint lane = 0; lane < VW; lane++) {
        __global const float *p = r.first + (size_t)min(LANE_ROW(lane), r.n_rows - 1) * r.stride + first;
        for (uint i = 0; i < n; i++) ((float *)x)[i * VW + lane] = p[i];
    }
}

inline void store_run(rows_at r, uint n, const vfloat *x)
{
    for (uint lane = 0; lane < VW && LANE_ROW(lane) < r.n_rows; lane++) {
        __global float *p = r.first + (size_t)LANE_ROW(lane) * r.stride;
        for (uint i = 0; i < n; i++) p[i] = ((const float *)x)[i * VW + lane];
    }
}

// One value of each lane's row, `stride` floats apart.
inline vfloat load_lanes(rows_at r)
{
    vfloat v;
    for (uint lane = 0; lane < VW; lane++)
        ((float *)&v)[lane] = r.first[(size_t)min(LANE_ROW(lane), r.n_rows - 1) * r.stride];
    return v;
}

inline void store_lanes(rows_at r, vfloat v)
{
    for (uint lane = 0; lane < VW && LANE_ROW(lane) < r.n_rows; lane++)
        r.first[(size_t)LANE_ROW(lane) * r.stride] = ((const float *)&v)[lane];
}

// ---- costs ----

typedef struct {
    rows_at rows;
    uint n;
    __global const float *cost; // 0, [n], or with `full` [n][n]
    bool full, symmetric, by_size; // by_size: without `cost` an element's error counts |w| times
    uint bits, format;
    float lowest, highest;
} weight_group;

// Walks a group: BODY for each stretch of m columns from c on, which stand in x. Of one stretch, it is in x already.
#define STRETCHES(BODY)                                                                                                \
    for (uint c = 0; c < g->n; c += RUN) {                                                                             \
        uint m = min((uint)RUN, g->n - c);                                                                             \
        if (g->n > RUN) load_run(g->rows, c, m, x);                                                                    \
        BODY                                                                                                           \
    }
inline vfloat weight_of(const weight_group *g, uint i, vfloat w)
{
    if (g->cost) return g->cost[i];
    return g->by_size ? fabs(w) : (vfloat)1.0f;
}


// sums[k] = sum over j < n of G_j(first + k) * a[j].
inline void block_sums(const weight_group *g, const vfloat *a, uint n, uint first, vfloat sums[BLOCK])
{
    __global const float *row = g->cost + first;
    UNROLLED for (uint k = 0; k < BLOCK; k++) sums[k] = 0.0f;
    for (uint j = 0; j < n; j++, row += g->n) {
        UNROLLED for (uint k = 0; k < BLOCK; k++) sums[k] += row[k] * a[j];
    }
}

// The same of one column.
inline vfloat column_sum(const weight_group *g, const vfloat *a, uint n, uint column)
{
    vfloat sum = 0.0f;
    for (uint j = 0; j < n; j++) sum += g->cost[(size_t)j * g->n + column] * a[j];
    return sum;
}

// a'Ga
inline vfloat quadratic(const weight_group *g, const vfloat *a)
{
    vfloat sum = 0.0f;
    uint i = 0;
    for (; i + BLOCK <= g->n; i += BLOCK) {
        __global const float *row = g->cost + (size_t)i * g->n + i;
        vfloat sums[BLOCK];
        block_sums(g, a, i, i, sums);
        UNROLLED for (uint j = 0; j < BLOCK; j++, row += g->n) {
            vfloat v = a[i + j];
            sum += v * (row[j] * v + 2.0f * sums[j]);
            UNROLLED for (uint k = j + 1; k < BLOCK; k++) sums[k] += row[k] * v;
        }
    }
    for (; i < g->n; i++) sum += a[i] * (g->cost[(size_t)i * g->n + i] * a[i] + 2.0f * column_sum(g, a, i, i));
    return sum;
}

// v = Gw
inline void gram_times(const weight_group *g, const vfloat *w, vfloat *v)
{
    uint i = 0;
    for (; i + BLOCK <= g->n; i += BLOCK) {
        vfloat sums[BLOCK];
        block_sums(g, w, g->n, i, sums);
        UNROLLED for (uint k = 0; k < BLOCK; k++) v[i + k] = sums[k];
    }
    for (; i < g->n; i++) v[i] = column_sum(g, w, g->n, i);
}

// What ROUND makes of w, in steps of the scale.
inline vfloat steps_from(const weight_group *g, vfloat w, vfloat scale, vfloat zero)
{
    return code_of(w / scale, zero, g->lowest, g->highest) - zero;
}

inline vfloat measure(const weight_group *g, vfloat *x, vfloat *d, vfloat scale, vfloat zero)
{
    vfloat sum = 0.0f;
    if (g->full) {
        for (uint i = 0; i < g->n; i++) d[i] = x[i] - scale * steps_from(g, x[i], scale, zero);
        return quadratic(g, d);
    }
    STRETCHES(for (uint i = 0; i < m; i++) {
        vfloat e = x[i] - scale * steps_from(g, x[i], scale, zero);
        sum += e * (weight_of(g, c + i, x[i]) * e);
    })
    return sum;
}

// The scale p'Gw / p'Gp, with p the steps of scale and zero. v: Gw, where G is full.
inline vfloat refined_scale(const weight_group *g, vfloat *x, vfloat *d, const vfloat *v, vfloat scale, vfloat zero)
{
    vfloat pw = 0.0f, pp = 0.0f;
    if (g->full) {
        for (uint i = 0; i < g->n; i++) {
            d[i] = steps_from(g, x[i], scale, zero);
            pw += d[i] * v[i];
        }
        return pw / quadratic(g, d);
    }
    STRETCHES(for (uint i = 0; i < m; i++) {
        vfloat p = steps_from(g, x[i], scale, zero);
        vfloat weight = weight_of(g, c + i, x[i]);
        pw += p * (weight * x[i]);
        pp += p * (weight * p);
    })
    return pw / pp;
}

// ---- half-quadratic ----

inline vfloat power_minus_0_3(vfloat d)
{
    vint u = as_i(d) & 0x7fffffff, n = (u - 0x3f3504f3) >> 23;
    vfloat m = as_v(u - (n << 23));
    vfloat t = (m - 1.0f) / (m + 1.0f), t2 = t * t;
    vfloat p = t2 * 0.2f + 0.333333333f;
    p = p * t2 + 1.0f;
    vfloat x = (to_float(n) + 2.88539008f * t * p) * -0.3f;
    vfloat whole = round_even(x), r = (x - whole) * 0.693147181f;
    vfloat y = r * (1.0f / 120) + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * as_v((to_int(whole) + 127) << 23);
}

// Finite, not 0, and positive where a zero-point goes with it.
inline vint usable(const weight_group *g, vfloat scale)
{
    vfloat size = g->symmetric ? fabs(scale) : scale;
    return size > 0.0f & size <= FLT_MAX;
}

// One iteration.
inline void hqq_step(const weight_group *g, vfloat *x, vfloat *scale, vfloat *zero)
{
    vfloat sum_z = 0.0f, sum_t = 0.0f, sum_q = 0.0f, sum_tq = 0.0f, sum_qq = 0.0f, s = *scale, z = *zero;
    STRETCHES(for (uint i = 0; i < m; i++) {
        vfloat q = code_of(x[i] / s + z, (vfloat)0.0f, g->lowest, g->highest);
        vfloat d = x[i] - (q - z) * s;
        vfloat e = vmax(fabs(d) - power_minus_0_3(d) * 0.1f, (vfloat)0.0f);
        vfloat t = x[i] - (d < 0.0f ? -e : e);
        sum_z += q - t / s;
        sum_t += t;
        sum_q += q;
        sum_tq += t * q;
        sum_qq += q * q;
    })
    float n = (float)g->n;
    vfloat new_z = g->symmetric ? (vfloat)0.0f : sum_z / n;
    vfloat new_s = (sum_tq - new_z * sum_t) / (sum_qq - 2.0f * new_z * sum_q + n * new_z * new_z);
    vint good = usable(g, new_s) & (fabs(new_z) <= FLT_MAX);
    *scale = good ? new_s : s;
    *zero = good ? new_z : z;
}

// ---- rules ----

#define N_SIGNED 48 // candidates of SEARCH
#define N_ENDS 7 // of ranges, each way
#define N_CLIPS 10
#define N_HQQ 20

// Chooses a scale and a zero-point for one group of each lane's row. All lanes walk all candidates: one that comes to
// an end meets its own choice again, which is not cheaper.
inline void choose_scales(const weight_group *g, uint rule, vfloat *scale, vfloat *zero)
{
    vfloat x[RUN], d[RUN], v[RUN];
    vfloat low = 0.0f, high = 0.0f, largest = 0.0f;
    if (g->n <= RUN) load_run(g->rows, 0, g->n, x);
    STRETCHES(for (uint i = 0; i < m; i++) {
        low = vmin(x[i], low);
        high = vmax(x[i], high);
        largest = fabs(x[i]) > fabs(largest) ? x[i] : largest;
    })
    params_of(low, high, g->bits, g->symmetric, g->format, scale, zero);
    if (rule == CLQ_SCALES_ABSMAX) return;
    vfloat best = measure(g, x, d, *scale, *zero);
    best = best <= FLT_MAX ? best : (vfloat)-INFINITY;
    vfloat most = vmax(high, -low), s = *scale, z = *zero;
    uint n = rule == CLQ_SCALES_CLIP ? N_CLIPS : rule == CLQ_SCALES_HQQ ? N_HQQ : g->symmetric ? N_SIGNED : N_ENDS * N_ENDS;
    uint refinements = rule == CLQ_SCALES_SEARCH ? 2 : 0;
    for (uint k = 0; k < n + refinements; k++) {
        vfloat try_s, try_z = 0.0f;
        if (k >= n) {
            if (k == n && g->full) gram_times(g, x, v);
            try_s = stored_scale(refined_scale(g, x, d, v, *scale, *zero), g->format);
            try_z = *zero;
        } else if (rule == CLQ_SCALES_HQQ) {
            hqq_step(g, x, &s, &z);
            try_s = stored_scale(s, g->format);
            try_z = code_of(z, (vfloat)0.0f, g->lowest, g->highest);
        } else if (rule == CLQ_SCALES_SEARCH && g->symmetric) {
            float sign = k < N_SIGNED / 2 ? -1.0f : 1.0f, at = (float)(k % (N_SIGNED / 2));
            try_s = stored_scale(sign * largest / -g->lowest * (1.15f - at / 40.0f), g->format);
        } else {
            const float ends[N_ENDS] = {-1, 0, 1, 2, 4, 7, 10};
            vfloat from = low * (1.0f - ends[k / N_ENDS % N_ENDS] / 24.0f), to = high * (1.0f - ends[k % N_ENDS] / 24.0f);
            vfloat m = (1.0f - (float)k / 20.0f) * most;
            if (rule == CLQ_SCALES_CLIP) from = vmax(low, -m), to = vmin(high, m);
            params_of(from, to, g->bits, g->symmetric, g->format, &try_s, &try_z);
        }
        vfloat cost = measure(g, x, d, try_s, try_z);
        vint take = usable(g, try_s) & (cost < best);
        *scale = take ? try_s : *scale;
        *zero = take ? try_z : *zero;
        best = take ? cost : best;
    }
}

inline void scales(place at, __global const clq_step *s)
{
    uint units = (s->rows + ROWS - 1) / ROWS;
    weight_group g;
    g.n = group_len(s);
    g.full = s->in != CLQ_NONE && !(s->flags & CLQ_STEP_DIAGONAL);
    g.symmetric = s->flags & CLQ_STEP_SYMMETRIC;
    g.by_size = s->in == CLQ_NONE && s->phase == CLQ_SCALES_SEARCH;
    g.bits = s->bits;
    g.format = s->cache_format;
    g.lowest = -(float)(1 << (s->bits - 1));
    g.highest = -g.lowest - 1.0f;
    for (uint u = at.group; u < units * s->groups; u += at.n_groups) {
        uint row = u % units * ROWS, group = u / units;
        vfloat scale, zero;
        g.rows.first = (__global float *)weight_at(at, s) + (size_t)row * s->cols + (size_t)group * g.n;
        g.rows.stride = s->cols;
        g.rows.n_rows = min(ROWS, s->rows - row);
        g.cost = s->in == CLQ_NONE ? 0 : at.state + s->in + (size_t)group * g.n * (g.full ? g.n : 1);
        choose_scales(&g, s->phase, &scale, &zero);
        rows_at out = {at.state + s->out + (size_t)row * s->groups + group, s->groups, g.rows.n_rows};
        store_lanes(out, scale);
        out.first += (size_t)s->rows * s->groups;
        store_lanes(out, zero);
    }
}

// ---- GPTQ ----

#define GPTQ_COLUMNS 128 // dims at most

inline void gptq(place at, __global const clq_step *s)
{
    __global const int *index = (__global const int *)(at.state + s->group_index);
    bool indexed = s->group_index != CLQ_NONE, symmetric = s->flags & CLQ_STEP_SYMMETRIC;
    float lowest = -(float)(1 << (s->bits - 1)), highest = -lowest - 1.0f;
    for (uint row = at.group * ROWS; row < s->rows; row += at.n_groups * ROWS) {
        uint n_rows = min(ROWS, s->rows - row), last = ~0u;
        if (WG && LID >= n_rows) continue; // the row that it would read is changed by its own item
        rows_at w = {at.state + s->in + (size_t)row * s->cols + s->position, s->cols, n_rows};
        rows_at out = {at.state + s->out + (size_t)row * s->dims, s->dims, n_rows};
        vfloat x[GPTQ_COLUMNS], errors[GPTQ_COLUMNS], scale = 0.0f, zero = 0.0f;
        load_run(w, 0, s->dims, x);
        for (uint j = 0; j < s->dims; j++) {
            __global const float *u = at.state + s->in2 + (size_t)j * s->dims;
            uint group = indexed ? (uint)index[s->position + j] : (s->position + j) / group_len(s);
            if (group != last) {
                rows_at params = {at.state + s->scales + (size_t)row * s->groups + group, s->groups, n_rows};
                scale = load_lanes(params);
                params.first += (size_t)s->rows * s->groups;
                if (!symmetric) zero = load_lanes(params);
                last = group;
            }
            vfloat y = quant_value(x[j], scale, zero, lowest, highest);
            y = scale == 0.0f ? (vfloat)0.0f : y;
            vfloat e = (x[j] - y) / u[j];
            x[j] = y;
            errors[j] = e;
            for (uint k = j + 1; k < s->dims; k++) x[k] -= e * u[k];
        }
        store_run(w, s->dims, x);
        store_run(out, s->dims, errors);
    }
}

#endif

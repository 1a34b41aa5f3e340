// SPDX-License-Identifier: MIT
// Parallel reductions. minmax: smallest and largest value of each stretch of `len` elements of the
// `total` elements from `first` on (the last may be shorter); out[g] = (min, max), both NaN where
// the stretch holds one. vec: an item walks `per_item` stretches with VW-wide vectors; wg: a
// work-group a stretch. absmax is max(-min, max), on the host or in int_params.
#include "search.cl"

#if !WG
inline float2 minmax_one(__global const src_t *x, size_t begin, size_t end)
{
    vfloat low = src_get(x, begin), high = low, check = 0.0f;
    size_t i = begin;
    for (; i + VW <= end; i += VW) {
        vfloat v = src_load(x, i);
        low = vmin(v, low);
        high = vmax(v, high);
        check += v * 0.0f; // NaN for NaN and for infinities
    }
    float a = hmin(low), b = hmax(high);
    bool odd = hsum(check) != 0.0f;
    for (; i < end; i++) {
        float v = src_get(x, i);
        a = vmin(v, a);
        b = vmax(v, b);
        odd |= v != v;
    }
    if (odd) {
        for (i = begin; i < end; i++)
            if (src_get(x, i) != src_get(x, i)) return (float2)(NAN, NAN);
    }
    return (float2)(a, b);
}
#endif

__kernel GROUP void minmax(__global const src_t *restrict x, ulong first, ulong total, ulong len, uint n_groups,
                           uint per_item, __global float2 *restrict out)
{
#if !WG
    uint g_end = min((uint)(get_group_id(0) + 1) * per_item, n_groups);
    for (uint g = get_group_id(0) * per_item; g < g_end; g++) {
        size_t begin = (size_t)g * len, end = min((ulong)(begin + len), total);
        out[g] = minmax_one(x, first + begin, first + end);
    }
#else
    __local float2 near[UNITS];
    uint lid = get_local_id(0);
    uint g = get_group_id(0);
    if (g < n_groups) {
        size_t begin = (size_t)g * len, end = min((ulong)(begin + len), total);
        float low = src_get(x, first + begin), high = low;
        bool nan = false;
        for (size_t i = begin + lid; i < end; i += UNITS) {
            float v = src_get(x, first + i);
            low = vmin(v, low);
            high = vmax(v, high);
            nan |= v != v;
        }
        near[lid] = nan ? (float2)(NAN, NAN) : (float2)(low, high);
        for (uint half_n = UNITS / 2; half_n > 0; half_n /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lid < half_n) {
                float2 a = near[lid], b = near[lid + half_n];
                bool bad = a.x != a.x || b.x != b.x;
                near[lid] = bad ? (float2)(NAN, NAN) : (float2)(vmin(a.x, b.x), vmax(a.y, b.y));
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid == 0) out[g] = near[0];
    }
#endif
}

// A plain copy, to measure the device's bandwidth by.
__kernel GROUP void copy_words(__global const uint *restrict from, uint n, __global uint *restrict to)
{
#if WG
    for (uint i = get_global_id(0); i < n; i += get_global_size(0)) to[i] = from[i];
#else
    size_t begin = (size_t)get_group_id(0) * (UNITS * 32), end = min((size_t)n, begin + UNITS * 32), i = begin;
    for (; i + 8 <= end; i += 8) vstore8(vload8(0, from + i), 0, to + i);
    for (; i < end; i++) to[i] = from[i];
#endif
}

// out[r]: the mean of the squares of row r of [rows, cols], summed in index order; cols a multiple of 32.
__kernel GROUP void mean_squares(__global const src_t *restrict x, ulong first, uint rows, uint cols,
                                 __global float *restrict out)
{
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, rows);
    for (uint r = begin + (WG ? get_local_id(0) : 0); r < end; r += WG ? UNITS : VW) {
        uint n = min(end - r, (uint)VW);
        vfloat v[32], sum = 0.0f;
        for (uint c = 0; c < cols; c += 32) {
            load_blocks(x, first + (size_t)r * cols, cols, n, c, 32, v);
            for (uint i = 0; i < 32; i++) sum += v[i] * v[i];
        }
        sum /= (float)cols;
#if VW == 1
        out[r] = sum;
#else
        float lanes[VW];
        vstore_f(sum, lanes);
        for (uint l = 0; l < n; l++) out[r + l] = lanes[l];
#endif
    }
}

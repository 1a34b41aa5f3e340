// SPDX-License-Identifier: MIT
// The integer family: see host/format/integer.c, the specification, and clq_type in clquant.h.
//
// Macro: BITS (2..8). Arguments: symmetric (1: absmax, 0: zero-point), lowest (the least code), scale_format (of the
// stored scale: 0 float, 1 half, 2 bfloat16). Rows are walked in units of 32 elements, the last of a row perhaps
// shorter; a unit becomes BITS words (8 bits: 32 bytes).
#include "common.cl"
#ifndef BITS
#define BITS 4
#endif

#define HALF_RANGE (1 << (BITS - 1))
#define CODE_MAX (HALF_RANGE - 1)

// The bits of s in its stored format, and the float that they stand for.
inline uint scale_bits(float s, uint scale_format)
{
    return scale_format == 1 ? float_to_half_bits(s) : scale_format == 2 ? float_to_bf16_bits(s) : as_uint(s);
}

inline float scale_value(uint bits, uint scale_format)
{
    return scale_format == 1   ? half_bits_to_float((ushort)bits)
           : scale_format == 2 ? bf16_bits_to_float((ushort)bits)
                               : as_float(bits);
}

// Scale and zero-point of each group from its (min, max); given: scales and zero_points are there. lost counts groups
// that are not zero but whose every code will be.
__kernel GROUP void int_params(__global const float2 *restrict range, uint n_groups, __global float *restrict scales,
                               __global uchar *restrict stored, __global char *restrict zero_points,
                               __global uint *restrict lost, uint symmetric, uint scale_format, uint given)
{
    uint g_end = min((uint)(get_group_id(0) + 1) * UNITS, n_groups);
#if WG
    for (uint g = get_global_id(0); g < g_end; g += UNITS) {
#else
    for (uint g = get_group_id(0) * UNITS; g < g_end; g++) {
#endif
        float low = range[g].x, high = range[g].y, s = 0.0f, z = 0.0f;
        float largest = high > -low ? high : -low, extent = largest, steps = (float)CODE_MAX, slack = 0.5f;
        uint bits = 0;
        if (given) {
            s = scales[g];
            bits = scale_bits(s, scale_format);
            extent = 0.0f;
            if (largest > 0.0f && (s == 0.0f || fabs(s) * 0.5f > largest)) atomic_inc(lost);
        } else if (!symmetric) {
            low = low < 0.0f ? low : 0.0f;
            high = high > 0.0f ? high : 0.0f;
            extent = 0.5f * high - 0.5f * low;
            steps = 0.5f * (float)((1 << BITS) - 1);
            slack = 0.25f;
        }
        if (extent > 0.0f) {
            bits = scale_bits(extent / steps, scale_format);
            s = scale_value(bits, scale_format);
            if (s * (steps + slack) < extent) s = scale_value(++bits, scale_format);
            if (!symmetric) {
                z = (float)-HALF_RANGE - rint(low / s);
                z = z < (float)-HALF_RANGE ? (float)-HALF_RANGE : z > (float)CODE_MAX ? (float)CODE_MAX : z;
            }
            if (s * 0.5f > largest) atomic_inc(lost);
        }
        if (scale_format == 0)
            ((__global uint *)stored)[g] = bits;
        else
            ((__global ushort *)stored)[g] = (ushort)bits;
        if (!given) {
            scales[g] = s;
            zero_points[g] = (char)(int)z;
        }
    }
}

inline vint int_codes(vfloat x, float s, float z, float lowest)
{
    if (s == 0.0f) return (vint)(int)z;
    vfloat q = round_even(x / s) + z;
    q = vmax(q, (vfloat)lowest);
    q = vmin(q, (vfloat)(float)CODE_MAX);
    return to_int(q);
}

#if BITS < 8
// 8 codes (unsigned) of BITS bits are BITS bytes: a chunk. Four chunks are a unit's BITS words.
#define CHUNK_BITS (8 * BITS)
#define CODE_SHIFTS ((int4)(0, BITS, 2 * BITS, 3 * BITS))

inline int8 eight_of(const vint q[NV], uint i)
{
#if VW == 16
    return i % 2 ? q[i / 2].hi : q[i / 2].lo;
#elif VW == 8
    return q[i];
#elif VW == 4
    return (int8)(q[2 * i], q[2 * i + 1]);
#else
    q += 8 * i;
    return (int8)(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]);
#endif
}

inline void set_eight(vint q[NV], uint i, int8 v)
{
#if VW == 16
    if (i % 2)
        q[i / 2].hi = v;
    else
        q[i / 2].lo = v;
#elif VW == 8
    q[i] = v;
#elif VW == 4
    q[2 * i] = v.lo;
    q[2 * i + 1] = v.hi;
#else
    q += 8 * i;
    q[0] = v.s0, q[1] = v.s1, q[2] = v.s2, q[3] = v.s3, q[4] = v.s4, q[5] = v.s5, q[6] = v.s6, q[7] = v.s7;
#endif
}

inline ulong chunk_of(int8 q)
{
    int4 low = q.lo << CODE_SHIFTS, high = q.hi << CODE_SHIFTS;
    int2 a = low.lo | low.hi, b = high.lo | high.hi;
    return (ulong)(uint)(a.x | a.y) | (ulong)(uint)(b.x | b.y) << (4 * BITS);
}

inline int8 codes_of(ulong chunk)
{
    int4 low = (int4)((int)(chunk & ((1ul << 4 * BITS) - 1))), high = (int4)((int)(chunk >> 4 * BITS));
    return (int8)(low >> CODE_SHIFTS & (int4)((1 << BITS) - 1), high >> CODE_SHIFTS & (int4)((1 << BITS) - 1));
}

// Stores the first n_words of the unit's words.
inline void int_pack(const vint q[NV], NEAR uint *out, uint n_words)
{
    ulong c[5];
    UNROLL for (uint i = 0; i < 4; i++) c[i] = chunk_of(eight_of(q, i));
    c[4] = 0;
    UNROLL for (uint w = 0; w < BITS; w++) {
        uint i = 32 * w / CHUNK_BITS, off = 32 * w % CHUNK_BITS;
        ulong v = c[i] >> off;
        if (CHUNK_BITS - off < 32) v |= c[i + 1] << (CHUNK_BITS - off);
        if (w < n_words) out[w] = (uint)v;
    }
}

inline void int_unpack(NEAR const uint *in, uint n_words, vint q[NV])
{
    ulong w[BITS + 2];
    UNROLL for (uint i = 0; i < BITS + 2; i++) w[i] = i < n_words ? in[i] : 0;
    UNROLL for (uint i = 0; i < 4; i++) {
        uint at = i * CHUNK_BITS / 32, off = i * CHUNK_BITS % 32;
        ulong chunk = (w[at] | w[at + 1] << 32) >> off;
        if (64 - off < CHUNK_BITS) chunk |= w[at + 2] << (64 - off);
        set_eight(q, i, codes_of(chunk & ((1ul << CHUNK_BITS) - 1)));
    }
}
#endif

// Lanes of vector i that lie behind the n-th element.
#define BEHIND(i, n) (lane_index + (int)((i) * VW) >= (int)(n))

// Encodes a unit of n (1..32) elements; the lanes behind them hold 0.
inline void int_unit(const vfloat x[NV], uint n, float s, float z, float lowest, NEAR uchar *out)
{
    vint q[NV];
    EACH(i) q[i] = int_codes(x[i], s, z, lowest);
#if BITS == 8
    if (n == 32) {
        EACH(i) vstore_i8(q[i], (NEAR char *)out + i * VW);
    } else {
        int own[32];
        EACH(i) vstore_int(q[i], own + i * VW);
        for (uint i = 0; i < n; i++) out[i] = (uchar)own[i];
    }
#else
    EACH(i) q[i] += HALF_RANGE;
    if (n < 32) {
        EACH(i) q[i] = BEHIND(i, n) ? 0 : q[i];
    }
    int_pack(q, (NEAR uint *)out, n == 32 ? BITS : (n * BITS + 31) / 32);
#endif
}

// Decodes it; lanes behind the n-th element become 0.
inline void int_unit_load(NEAR const uchar *in, uint n, float s, float z, vfloat y[NV])
{
    vint q[NV];
#if BITS == 8
    if (n == 32) {
        EACH(i) q[i] = vload_i8((NEAR const char *)in + i * VW);
    } else {
        int own[32];
        for (uint i = 0; i < 32; i++) own[i] = i < n ? ((NEAR const char *)in)[i] : 0;
        EACH(i) q[i] = vload_int(own + i * VW);
    }
#else
    int_unpack((NEAR const uint *)in, n == 32 ? BITS : (n * BITS + 31) / 32, q);
    EACH(i) q[i] -= HALF_RANGE;
#endif
    EACH(i) y[i] = (to_float(q[i]) - z) * s;
    if (n < 32) {
        EACH(i) y[i] = BEHIND(i, n) ? 0.0f : y[i];
    }
}

inline size_t row_bytes(uint cols)
{
    return BITS == 8 ? cols : (cols * (ulong)BITS + 31) / 32 * 4;
}

// Where unit u of a tile with `units` units a row lies.
typedef struct {
    uint row, col, n;
    size_t scale;
} place;

inline place unit_place(uint u, uint units, uint cols, uint per_group, uint groups)
{
    place p;
    p.row = u / units;
    p.col = (u - p.row * units) * 32;
    p.n = min(cols - p.col, 32u);
    p.scale = (size_t)p.row * groups + p.col / per_group; // groups 0: one scale for all
    return p;
}

#define ZERO(i) (symmetric ? 0.0f : convert_float(zero_points[i]))

// x: the tile's [rows, cols] from element `first` on; scales and zero_points: `groups` a row, one
// for each per_group elements; a type with one scale for the tensor passes groups 0, per_group cols.
__kernel GROUP void int_encode(__global const src_t *restrict x, ulong first, uint rows, uint cols, uint per_group,
                               uint groups, __global const float *restrict scales,
                               __global const char *restrict zero_points, __global uchar *restrict out,
                               __global tile_stats *restrict stats, uint symmetric, int lowest)
{
    uint units = (cols + 31) / 32, n_units = rows * units, begin = get_group_id(0) * UNITS;
    uint n = begin < n_units ? min((uint)UNITS, n_units - begin) : 0;
    cost c = cost_zero();
#if WG
    __local float near_x[UNITS * 33];
    __local uint near_out[UNITS * 9]; // 8 words a unit, 9: different banks
    __local tile_stats near_stats[UNITS];
    uint lid = get_local_id(0);
    for (uint i = lid; i < n * 32; i += UNITS) {
        place p = unit_place(begin + i / 32, units, cols, per_group, groups);
        near_x[i / 32 * 33 + i % 32] = i % 32 < p.n ? src_get(x, first + (size_t)p.row * cols + p.col + i % 32) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid < n) {
        place p = unit_place(begin + lid, units, cols, per_group, groups);
        __local uchar *to = (__local uchar *)(near_out + lid * 9);
        vfloat v[NV], w[NV];
        EACH(i) v[i] = vload_f(near_x + lid * 33 + i * VW);
#else
    for (uint u = 0; u < n; u++) {
        place p = unit_place(begin + u, units, cols, per_group, groups);
        __global uchar *to = out + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4);
        vfloat v[NV], w[NV];
        size_t at = first + (size_t)p.row * cols + p.col;
        if (p.n == 32) {
            EACH(i) v[i] = src_load(x, at + i * VW);
        } else {
            float own[32];
            for (uint i = 0; i < 32; i++) own[i] = i < p.n ? src_get(x, at + i) : 0.0f;
            EACH(i) v[i] = vload_f(own + i * VW);
        }
#endif
        float s = scales[p.scale], z = ZERO(p.scale);
        int_unit(v, p.n, s, z, (float)lowest, to);
        int_unit_load(to, p.n, s, z, w);
        EACH(i) cost_add(&c, v[i], w[i]);
    }
#if WG
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lid; i < n * BITS; i += UNITS) {
        place p = unit_place(begin + i / BITS, units, cols, per_group, groups);
        uint word = i % BITS;
        __global uchar *to = out + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4) + word * 4;
#if BITS == 8
        for (uint b = 0; b < 4 && word * 4 + b < p.n; b++)
            to[b] = ((__local uchar *)(near_out + i / BITS * 9))[word * 4 + b];
#else
        if (word < (p.n * BITS + 31) / 32) *(__global uint *)to = near_out[i / BITS * 9 + word];
#endif
    }
    cost_reduce(cost_total(&c), near_stats, stats);
#else
    stats[get_group_id(0)] = cost_total(&c);
#endif
}

__kernel GROUP void int_decode(__global const uchar *restrict in, uint rows, uint cols, uint per_group, uint groups,
                               __global const float *restrict scales, __global const char *restrict zero_points,
                               __global float *restrict y, uint symmetric)
{
    uint units = (cols + 31) / 32, n_units = rows * units, begin = get_group_id(0) * UNITS;
    uint n = begin < n_units ? min((uint)UNITS, n_units - begin) : 0;
#if WG
    // A code a step, so that neighbouring items store neighbouring floats.
    for (uint i = get_local_id(0); i < n * 32; i += UNITS) {
        place p = unit_place(begin + i / 32, units, cols, per_group, groups);
        uint j = i % 32;
        if (j >= p.n) continue;
        __global const uchar *from = in + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4);
#if BITS == 8
        int q = ((__global const char *)from)[j];
#else
        uint bit = j * BITS, word = bit / 32;
        ulong both = ((__global const uint *)from)[word];
        if (bit % 32 + BITS > 32) both |= (ulong)((__global const uint *)from)[word + 1] << 32;
        int q = (int)(both >> bit % 32 & ((1 << BITS) - 1)) - HALF_RANGE;
#endif
        y[(size_t)p.row * cols + p.col + j] = ((float)q - ZERO(p.scale)) * scales[p.scale];
    }
#else
    for (uint u = 0; u < n; u++) {
        place p = unit_place(begin + u, units, cols, per_group, groups);
        vfloat w[NV];
        int_unit_load(in + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4), p.n, scales[p.scale],
                      ZERO(p.scale), w);
        __global float *to = y + (size_t)p.row * cols + p.col;
        if (p.n == 32) {
            EACH(i) vstore_f(w[i], to + i * VW);
        } else {
            float own[32];
            EACH(i) vstore_f(w[i], own + i * VW);
            for (uint i = 0; i < p.n; i++) to[i] = own[i];
        }
    }
#endif
}

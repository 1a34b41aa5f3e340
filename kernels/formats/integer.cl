// SPDX-License-Identifier: MIT
// The integer family: see host/format/integer.c, the specification, and clq_type in clquant.h.
//
// Macro: BITS (2..8). Arguments: symmetric (1: absmax, 0: zero-point), scale_format (of the stored
// scale: 0 float, 1 half, 2 bfloat16). Rows are walked in units of 32 elements, the last of a row perhaps shorter; a unit
// becomes BITS words (8 bits: 32 bytes).
#include "common.cl"
#ifndef BITS
#define BITS 4
#endif

#define HALF_RANGE (1 << (BITS - 1))
#define CODE_MAX (HALF_RANGE - 1)
#define CODE_MIN(symmetric) (symmetric ? -CODE_MAX : -HALF_RANGE)

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

// Scale and zero-point of each group from its (min, max). lost counts groups that are not zero but
// whose every code will be.
__kernel GROUP void int_params(__global const float2 *restrict range, uint n_groups, __global float *restrict scales,
                               __global uchar *restrict stored, __global char *restrict zero_points,
                               __global uint *restrict lost, uint symmetric, uint scale_format)
{
    uint g_end = min((uint)(get_group_id(0) + 1) * UNITS, n_groups);
#if WG
    for (uint g = get_global_id(0); g < g_end; g += UNITS) {
#else
    for (uint g = get_group_id(0) * UNITS; g < g_end; g++) {
#endif
        float low = range[g].x, high = range[g].y, s = 0.0f, z = 0.0f;
        float largest = high > -low ? high : -low, extent = largest, steps = (float)CODE_MAX;
        uint bits = 0;
        if (!symmetric) {
            low = low < 0.0f ? low : 0.0f;
            high = high > 0.0f ? high : 0.0f;
            extent = 0.5f * high - 0.5f * low;
            steps = 0.5f * (float)((1 << BITS) - 1);
        }
        if (extent > 0.0f) {
            bits = scale_bits(extent / steps, scale_format);
            s = scale_value(bits, scale_format);
            if (s * (steps + 0.5f) < extent) s = scale_value(++bits, scale_format);
            if (!symmetric) {
                z = (float)-HALF_RANGE - rint(low / s);
                z = z < (float)-HALF_RANGE ? (float)-HALF_RANGE : z > (float)CODE_MAX ? (float)CODE_MAX : z;
            }
            if (s * 0.5f > largest) atomic_inc(lost);
        }
        scales[g] = s;
        if (scale_format == 0)
            ((__global uint *)stored)[g] = bits;
        else
            ((__global ushort *)stored)[g] = (ushort)bits;
        zero_points[g] = (char)(int)z;
    }
}

inline vint int_codes(vfloat x, float s, float z, float lowest)
{
    if (s == 0.0f) return (vint)(int)z;
    vfloat q = rint(x / s) + z;
    q = vmax(q, (vfloat)lowest);
    q = vmin(q, (vfloat)(float)CODE_MAX);
    return to_int(q);
}

#if BITS < 8
// Packs 32 codes (offset to be unsigned) into BITS words, the first `n_words` of which are stored.
inline void int_pack(const uchar q[32], NEAR uint *out, uint n_words)
{
    ulong acc = 0;
    uint have = 0, word = 0;
    for (uint i = 0; i < 32; i++) {
        acc |= (ulong)q[i] << have;
        have += BITS;
        if (have >= 32) {
            if (word < n_words) out[word] = (uint)acc;
            word++;
            acc >>= 32;
            have -= 32;
        }
    }
}

inline void int_unpack(NEAR const uint *in, uint n_words, uchar q[32])
{
    ulong acc = 0;
    uint have = 0, word = 0;
    for (uint i = 0; i < 32; i++) {
        if (have < BITS) {
            if (word < n_words) acc |= (ulong)in[word] << have;
            word++;
            have += 32;
        }
        q[i] = (uchar)(acc & ((1 << BITS) - 1));
        acc >>= BITS;
        have -= BITS;
    }
}

#endif

#if BITS == 4
// 8 codes a word; a whole unit at once.
inline void int_pack_nibbles(const uchar q[32], NEAR uchar *out)
{
    uchar16 a = vload16(0, q), b = vload16(1, q);
    vstore8(a.even | a.odd << (uchar8)4, 0, out);
    vstore8(b.even | b.odd << (uchar8)4, 1, out);
}
#endif

// Encodes a unit of n (1..32) elements; x is padded with anything finite.
inline void int_unit(const float x[32], uint n, float s, float z, float lowest, NEAR uchar *out)
{
#if BITS == 8
    if (n == 32) {
        EACH(i) vstore_i8(int_codes(vload_f(x + i * VW), s, z, lowest), (NEAR char *)out + i * VW);
    } else {
        for (uint i = 0; i < n; i++) {
            float q = s == 0.0f ? z : rint(x[i] / s) + z;
            out[i] = (uchar)(int)clamp(q, lowest, (float)CODE_MAX);
        }
    }
#else
    uchar q[32];
    EACH(i) vstore_own(int_codes(vload_f(x + i * VW), s, z, lowest) + HALF_RANGE, q + i * VW);
    for (uint i = n; i < 32; i++) q[i] = 0;
#if BITS == 4
    if (n == 32) {
        int_pack_nibbles(q, out);
        return;
    }
#endif
    int_pack(q, (NEAR uint *)out, (n * BITS + 31) / 32);
#endif
}

// Decodes it; elements behind the n-th become 0.
inline void int_unit_load(NEAR const uchar *in, uint n, float s, float z, float y[32])
{
#if BITS == 8
    for (uint i = 0; i < 32; i++) y[i] = i < n ? ((float)((NEAR const char *)in)[i] - z) * s : 0.0f;
#else
    uchar q[32];
    int_unpack((NEAR const uint *)in, (n * BITS + 31) / 32, q);
    for (uint i = 0; i < 32; i++) y[i] = i < n ? ((float)((int)q[i] - HALF_RANGE) - z) * s : 0.0f;
#endif
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
                               __global tile_stats *restrict stats, uint symmetric)
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
        float v[32], w[32];
        for (uint i = 0; i < 32; i++) v[i] = near_x[lid * 33 + i];
#else
    for (uint u = 0; u < n; u++) {
        place p = unit_place(begin + u, units, cols, per_group, groups);
        __global uchar *to = out + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4);
        float v[32], w[32];
        size_t at = first + (size_t)p.row * cols + p.col;
        if (p.n == 32) {
            EACH(i) vstore_f(src_load(x, at + i * VW), v + i * VW);
        } else {
            for (uint i = 0; i < 32; i++) v[i] = i < p.n ? src_get(x, at + i) : 0.0f;
        }
#endif
        float s = scales[p.scale], z = ZERO(p.scale);
        int_unit(v, p.n, s, z, (float)CODE_MIN(symmetric), to);
        int_unit_load(to, p.n, s, z, w);
        EACH(i) cost_add(&c, vload_f(v + i * VW), vload_f(w + i * VW));
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
        float w[32];
        int_unit_load(in + p.row * row_bytes(cols) + p.col / 32 * (BITS * 4), p.n, scales[p.scale],
                      ZERO(p.scale), w);
        __global float *to = y + (size_t)p.row * cols + p.col;
        for (uint i = 0; i < p.n; i++) to[i] = w[i];
    }
#endif
}

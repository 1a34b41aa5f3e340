// SPDX-License-Identifier: MIT
// What the codebook formats (iq1, iq2, iq3) share. The specification is host/format/codebook.c.
//
// A work-item encodes one block of 256 at a time, whose groups or candidate scales are the lanes. Macros that the
// format sets:
//
//   CB_GRID       the points (clquant_grids.h), CB_LEVELS what their levels decode to
//   CB_DIMS       elements of a vector, CB_BITS bits of a level
//   CB_GROUP      elements that share a scale
//   CB_TWICE      1: importance is weighed with twice the mean square
//   CB_PLAIN      weight without importance: 0 x^2, 1 sigma2 / 4 + x^2, 2 as with importance 1
#ifndef CLQ_CODEBOOK_CL
#define CLQ_CODEBOOK_CL
#include "search.cl"
#include "clquant_grids.h"

#ifndef CB_GRID
#define CB_GRID CLQ_GRID_IQ3_S
#define CB_LEVELS CLQ_LEVELS_IQ3_S
#define CB_DIMS 4
#define CB_BITS 3
#define CB_GROUP 32
#define CB_TWICE 1
#define CB_PLAIN 0
#endif

#if IMPORTANCE
#define CODEBOOK_ARGS                                                                              \
    ENCODE32_ARGS, __global const uint *restrict table, __global const float *importance, uint blocks_per_row
#define CODEBOOK_ROW(b) (importance + (size_t)((b) % blocks_per_row) * 256)
#else
#define CODEBOOK_ARGS ENCODE32_ARGS, __global const uint *restrict table
#define CODEBOOK_ROW(b) ((__global const float *)0)
#endif

#define CB_MASK ((1 << CB_BITS) - 1)
#define CB_MAP (1 << CB_BITS * CB_DIMS)
#define CB_VECTORS (CB_GROUP / CB_DIMS) // of a group
#define OFF_GRID 0x80000000u

__constant ushort cb_points[] = {CB_GRID};
__constant char cb_levels[] = {CB_LEVELS};

// BLOCK(x, first, importance, table, out) encodes one block, GROUP(in, j, y) decodes 16 elements.
#define ENCODE_BLOCKS(BLOCK, DECODE_GROUP, BYTES)                                                  \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    cost c = cost_zero();                                                                          \
    for (uint b = begin + (WG ? get_local_id(0) : 0); b < end; b += WG ? UNITS : 1) {              \
        size_t at = first + (size_t)b * 256;                                                       \
        __global uchar *to = out + (size_t)b * (BYTES);                                            \
        BLOCK(x, at, CODEBOOK_ROW(b), table, to);                                                 \
        for (uint j = 0; j < 16; j++) {                                                            \
            float own[16];                                                                         \
            DECODE_GROUP(to, j, own);                                                              \
            for (uint i = 0; i < 16; i += VW) cost_add(&c, src_load(x, at + 16 * j + i), vload_f(own + i)); \
        }                                                                                          \
    }                                                                                              \
    FINISH_LANES

// ---- points ----

#if !WG && defined(__AVX2__)
// Eight candidates at a time: the 8 errors that an element can have are one register, which levels index.
inline float min_of_8(float8 v)
{
    float4 a = vmin(v.lo, v.hi);
    float2 b = vmin(a.lo, a.hi);
    return b.x < b.y ? b.x : b.y;
}

inline uint first_bit(int bits)
{
    return 31 - clz(bits & -bits);
}

inline float8 errors_of(const float8 *errors, __global const ushort *eight)
{
    int8 codes = convert_int8(vload8(0, eight));
    float8 sum = __builtin_ia32_permvarsf256(errors[0], codes);
    UNROLL for (int i = 1; i < CB_DIMS; i++) sum += __builtin_ia32_permvarsf256(errors[i], codes >> CB_BITS * i);
    return sum;
}

// The first candidate of the map's entry with the least sum of w * (scale * value - x)^2; level l has the value
// step * l + start.
inline uint nearest_candidate(__global const uint *table, uint entry, float scale, float start, float step,
                              const float *x, const float *w)
{
    __global const ushort *list = (__global const ushort *)(table + CB_MAP) + (entry & 0xffffff) * 8;
    uint n = entry >> 24 & 127;
#if CB_BITS == 3
    float8 values = scale * (step * (float8)(0, 1, 2, 3, 4, 5, 6, 7) + start);
#else
    float8 values = scale * (step * (float8)(0, 1, 2, 3, 0, 1, 2, 3) + start); // the third bit is of the next level
#endif
    float8 errors[CB_DIMS];
    UNROLL for (int i = 0; i < CB_DIMS; i++) {
        float8 e = values - x[i];
        errors[i] = w[i] * e * e;
    }
    float8 least = errors_of(errors, list);
    if (n == 1) return list[first_bit(__builtin_ia32_movmskps256(as_float8(least == min_of_8(least))) | 256) & 7];
    int8 place = (int8)(0, 1, 2, 3, 4, 5, 6, 7), from = place;
    for (uint k = 1; k < n; k++) {
        place += 8;
        float8 e = errors_of(errors, list + 8 * k);
        int8 better = e < least;
        least = better ? e : least;
        from = better ? place : from;
    }
    from = least == min_of_8(least) ? from : 0x7fff;
    int4 a = min(from.lo, from.hi);
    int2 b = min(a.lo, a.hi);
    return list[min(b.x, b.y)];
}
#else
inline uint nearest_candidate(__global const uint *table, uint entry, float scale, float start, float step,
                              const float *x, const float *w)
{
    __global const ushort *list = (__global const ushort *)(table + CB_MAP) + (entry & 0xffffff) * 8;
    uint n = (entry >> 24 & 127) * 8, best = list[0];
    float least = FLT_MAX;
    for (uint k = 0; k < n; k++) {
        uint point = list[k];
        float distance = 0.0f;
        for (uint i = 0; i < CB_DIMS; i++) {
            float e = scale * (step * (float)(point >> CB_BITS * i & CB_MASK) + start) - x[i];
            distance += w[i] * e * e;
        }
        best = distance < least ? point : best;
        least = distance < least ? distance : least;
    }
    return best;
}
#endif

// clq_nearest of one value, clamped to 0..most.
inline int nearest_code(float v, int most)
{
    int l = v == v ? (as_int(v + 12582912.0f) & 0x7fffff) - 0x400000 : 0; // NaN: as in `nearest`
    return min(max(l, 0), most);
}

// The values of a block and their weights, weight[i] and root[i] = sqrt(weight[i]).
inline void load_weighed(__global const src_t *x, size_t first, __global const float *importance, float *value,
                         float *weight, float *root)
{
    for (uint i = 0; i < 256; i += VW) vstore_f(src_load(x, first + i), value + i);
#if IMPORTANCE || CB_PLAIN
    float sum = 0.0f;
    for (uint i = 0; i < 256; i++) sum += value[i] * value[i];
    float sigma2 = (CB_TWICE ? 2.0f * sum : sum) / 256.0f;
#endif
    for (uint i = 0; i < 256; i += VW) {
        vfloat v = vload_f(value + i), w = v * v;
#if IMPORTANCE
        w = vload_f(importance + i) * sqrt(sigma2 + w);
#elif CB_PLAIN == 1
        w = 0.25f * sigma2 + w;
#elif CB_PLAIN == 2
        w = sqrt(sigma2 + w);
#endif
        vstore_f(w, weight + i);
        if (root) vstore_f(sqrt(w), root + i);
    }
}

inline void far_put_half(__global uchar *p, float x)
{
    *(__global ushort *)p = float_to_half_bits(x);
}

// The elements of the vector `index`; bit i of signs set: negative.
inline void point_values(uint index, uint signs, float scale, float *y)
{
    uint point = cb_points[index];
    for (uint i = 0; i < CB_DIMS; i++) {
        float v = scale * (float)cb_levels[point >> CB_BITS * i & CB_MASK];
        y[i] = signs >> i & 1 ? -v : v;
    }
}

#endif

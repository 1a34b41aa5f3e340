// SPDX-License-Identifier: MIT
// f32, f16, bf16: one value a block. A work-group handles UNITS * 32 elements.
#include "common.cl"

inline ushort f16_code(float v) { return float_to_half_bits(v); }
inline float f16_value(ushort h) { return half_bits_to_float(h); }
inline ushort bf16_code(float v) { return float_to_bf16_bits(v); }
inline float bf16_value(ushort b) { return bf16_bits_to_float(b); }
inline float f32_code(float v) { return v; }
inline float f32_value(float v) { return v; }

#if WG
#define BEGIN (get_group_id(0) * (UNITS * 32) + get_local_id(0))
#define STEP UNITS
#define FINISH(s) __local tile_stats near_stats[UNITS]; cost_reduce(s, near_stats, stats)
#else
#define BEGIN (get_group_id(0) * (UNITS * 32))
#define STEP 1
#define FINISH(s) stats[get_group_id(0)] = s
#endif

// Elementwise and bound by memory, so plain scalar code in both forms.
#define ENCODE_PLAIN(TYPE, CODE, VALUE)                                                            \
    uint end = min((uint)(get_group_id(0) + 1) * (UNITS * 32), n);                                 \
    tile_stats s = {0.0f, 0.0f, 0.0f, 0, 0};                                                       \
    for (uint i = BEGIN; i < end; i += STEP) {                                                     \
        float v = src_get(x, first + i);                                                           \
        TYPE q = CODE(v);                                                                          \
        float w = VALUE(q), e = v - w;                                                             \
        ((__global TYPE *)out)[i] = q;                                                             \
        s.sum_x2 += v * v;                                                                         \
        s.sum_e2 += e * e;                                                                         \
        s.max_error = vmax(fabs(e), s.max_error);                                                  \
        s.bad_inputs |= v - v != 0.0f;                                                             \
        s.bad_outputs |= w - w != 0.0f;                                                            \
    }                                                                                              \
    FINISH(s)

#define DECODE_PLAIN(TYPE, VALUE)                                                                  \
    uint end = min((uint)(get_group_id(0) + 1) * (UNITS * 32), n);                                 \
    __global const TYPE *from = (__global const TYPE *)(in + first);                               \
    for (uint i = BEGIN; i < end; i += STEP) y[i] = VALUE(from[i])

#define ENCODE_PLAIN_ARGS                                                                          \
    __global const src_t *restrict x, ulong first, uint n, __global uchar *restrict out,           \
        __global tile_stats *restrict stats
#define DECODE_PLAIN_ARGS                                                                          \
    __global const uchar *restrict in, ulong first, uint n, __global float *restrict y

__kernel GROUP void f32_encode(ENCODE_PLAIN_ARGS) { ENCODE_PLAIN(float, f32_code, f32_value); }
__kernel GROUP void f16_encode(ENCODE_PLAIN_ARGS) { ENCODE_PLAIN(ushort, f16_code, f16_value); }
__kernel GROUP void bf16_encode(ENCODE_PLAIN_ARGS) { ENCODE_PLAIN(ushort, bf16_code, bf16_value); }
__kernel GROUP void f32_decode(DECODE_PLAIN_ARGS) { DECODE_PLAIN(float, f32_value); }
__kernel GROUP void f16_decode(DECODE_PLAIN_ARGS) { DECODE_PLAIN(ushort, f16_value); }
__kernel GROUP void bf16_decode(DECODE_PLAIN_ARGS) { DECODE_PLAIN(ushort, bf16_value); }

// SPDX-License-Identifier: MIT
// f32, f16, bf16: one value a block. A work-group handles UNITS * 32 elements: vec, VW at a time;
// wg, neighbouring items take neighbouring elements.
#include "common.cl"

inline ushort f16_code(float v) { return float_to_half_bits(v); }
inline float f16_value(ushort h) { return half_bits_to_float(h); }
inline ushort bf16_code(float v) { return float_to_bf16_bits(v); }
inline float bf16_value(ushort b) { return bf16_bits_to_float(b); }
inline float f32_code(float v) { return v; }
inline float f32_value(float v) { return v; }

#if VW > 1
#define vf32_bits(v) (v)
#define vf32_value(v) (v)
#define VECTORS(TYPE, VCODE, VVALUE)                                                               \
    cost c = cost_zero();                                                                          \
    for (; i + VW <= end; i += VW) {                                                               \
        vfloat v = src_load(x, first + i);                                                         \
        CAT(TYPE, VW) q = VCODE(v);                                                                \
        CAT(vstore, VW)(q, 0, (__global TYPE *)out + i);                                           \
        cost_add(&c, v, VVALUE(q));                                                                \
    }                                                                                              \
    s = cost_total(&c)
#define DECODE_VECTORS(TYPE, VVALUE)                                                               \
    for (; i + VW <= end; i += VW) vstore_f(VVALUE(CAT(vload, VW)(0, from + i)), y + i)
#else
#define VECTORS(TYPE, VCODE, VVALUE)
#define DECODE_VECTORS(TYPE, VVALUE)
#endif

#if WG
#define STEP UNITS
#define FINISH(s) __local tile_stats near_stats[UNITS]; cost_reduce(s, near_stats, stats)
#else
#define STEP 1
#define FINISH(s) stats[get_group_id(0)] = s
#endif
#define BEGIN (get_group_id(0) * (UNITS * 32) + (WG ? get_local_id(0) : 0))

#define ENCODE_PLAIN(TYPE, CODE, VALUE, VCODE, VVALUE)                                             \
    uint end = min((uint)(get_group_id(0) + 1) * (UNITS * 32), n), i = BEGIN;                      \
    tile_stats s = {0.0f, 0.0f, 0.0f, 0, 0};                                                       \
    VECTORS(TYPE, VCODE, VVALUE);                                                                  \
    for (; i < end; i += STEP) {                                                                   \
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

#define DECODE_PLAIN(TYPE, VALUE, VVALUE)                                                          \
    uint end = min((uint)(get_group_id(0) + 1) * (UNITS * 32), n), i = BEGIN;                      \
    __global const TYPE *from = (__global const TYPE *)(in + first);                               \
    DECODE_VECTORS(TYPE, VVALUE);                                                                  \
    for (; i < end; i += STEP) y[i] = VALUE(from[i])

#define ENCODE_PLAIN_ARGS                                                                          \
    __global const src_t *restrict x, ulong first, uint n, __global uchar *restrict out,           \
        __global tile_stats *restrict stats
#define DECODE_PLAIN_ARGS                                                                          \
    __global const uchar *restrict in, ulong first, uint n, __global float *restrict y

__kernel GROUP void f32_encode(ENCODE_PLAIN_ARGS)
{
    ENCODE_PLAIN(float, f32_code, f32_value, vf32_bits, vf32_value);
}

__kernel GROUP void f16_encode(ENCODE_PLAIN_ARGS)
{
    ENCODE_PLAIN(ushort, f16_code, f16_value, vhalf_bits, vhalf_value);
}

__kernel GROUP void bf16_encode(ENCODE_PLAIN_ARGS)
{
    ENCODE_PLAIN(ushort, bf16_code, bf16_value, vbf16_bits, vbf16_value);
}

__kernel GROUP void f32_decode(DECODE_PLAIN_ARGS)
{
    DECODE_PLAIN(float, f32_value, vf32_value);
}

__kernel GROUP void f16_decode(DECODE_PLAIN_ARGS)
{
    DECODE_PLAIN(ushort, f16_value, vhalf_value);
}

__kernel GROUP void bf16_decode(DECODE_PLAIN_ARGS)
{
    DECODE_PLAIN(ushort, bf16_value, vbf16_value);
}

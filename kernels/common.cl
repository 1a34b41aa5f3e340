// SPDX-License-Identifier: MIT
// What every kernel shares. Macros that the host sets (defaults let a file be checked alone):
//
//   SRC   element type of the source: 0 float, 1 half, 2 bfloat16
//   VW    vector width: 1 (GPUs), 4, 8 or 16 (CPUs)
//   IMPORTANCE  0: none; 1: encoders weigh errors by an importance row; 2: and by the row's mean square
//   WG    0: the `vec` form, a work-group is one item that walks UNITS blocks with VW-wide vectors.
//         1: the `wg` form, a work-group is UNITS items, one block each, with coalesced transfers
//         through local memory.
//
// Both forms give the same bytes. Arithmetic is float, each operation rounded once (FP_CONTRACT
// OFF); half and bfloat16 are storage only.
#ifndef CLQ_COMMON_CL
#define CLQ_COMMON_CL
#include "clquant_blocks.h"

#pragma OPENCL FP_CONTRACT OFF

#ifndef SRC
#define SRC 0
#endif
#ifndef VW
#define VW 8
#endif
#ifndef WG
#define WG 0
#endif
#ifndef IMPORTANCE
#define IMPORTANCE 0
#endif

#define UNITS 64 // blocks of 32 elements a work-group handles: 2048 elements
#define NV (32 / VW)

#if WG
#define GROUP __attribute__((reqd_work_group_size(UNITS, 1, 1)))
#if IMPORTANCE
#define NEAR __global
#else
#define NEAR __local // where encoded blocks are made and read
#endif
#else
#define GROUP __attribute__((reqd_work_group_size(1, 1, 1)))
#define NEAR __global
#endif

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#if VW == 1
typedef float vfloat;
typedef int vint;
#define vload_f(p) (*(p))
#define vstore_f(v, p) (*(p) = (v))
#define to_int(v) convert_int_rtz(v)
#define to_float(v) convert_float(v)
#define as_v(v) as_float(v)
#define as_i(v) as_int(v)
#define vstore_i8(v, p) (*(p) = (char)(v))
#define vload_i8(p) ((int)*(p))
#define vload_int(p) (*(p))
#define vstore_int(v, p) (*(p) = (v))
#define UNROLL
#else
typedef CAT(float, VW) vfloat;
typedef CAT(int, VW) vint;
#define vload_f(p) CAT(vload, VW)(0, p)
#define vstore_f(v, p) CAT(vstore, VW)(v, 0, p)
#define to_int(v) CAT(CAT(convert_int, VW), _rtz)(v)
#define to_float(v) CAT(convert_float, VW)(v)
#define as_v(v) CAT(as_float, VW)(v)
#define as_i(v) CAT(as_int, VW)(v)
// Codes go out and come back in words of VW bytes at any address: some compilers take vstoreN of
// chars apart into bytes, which then do not forward to the load that follows.
#if VW == 4
typedef uint code_word;
#elif VW == 8
typedef ulong code_word;
#else
typedef ulong2 code_word;
#endif
typedef struct __attribute__((packed)) {
    code_word word;
} any_word;
#define vstore_i8(v, p) (((NEAR any_word *)(p))->word = CAT(as_code, VW)(CAT(convert_char, VW)(v)))
#define vload_i8(p) CAT(convert_int, VW)(CAT(as_char, VW)(((NEAR const any_word *)(p))->word))
#define vload_int(p) CAT(vload, VW)(0, p)
#define vstore_int(v, p) CAT(vstore, VW)(v, 0, p)
#define as_code4(c) as_uint(c)
#define as_code8(c) as_ulong(c)
#define as_code16(c) as_ulong2(c)
#define UNROLL _Pragma("unroll")
#endif
#define EACH(i) UNROLL for (uint i = 0; i < NV; i++)

// ---- half and bfloat16 ----

#if SRC == 0
typedef float src_t;
#else
typedef ushort src_t;
#endif

inline float half_bits_to_float(ushort h)
{
    uint rest = h & 0x7fff, sign = (uint)(h & 0x8000) << 16;
    if (rest >= 0x7c00) return as_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    // Subnormal halves by conversion: as floats they would be subnormal too, which some CPUs take 100 cycles over.
    float small = (float)rest * 0x1p-24f;
    return as_float(sign | (rest < 0x400 ? as_uint(small) : (rest << 13) + (112 << 23)));
}

// Round to nearest even; the same steps as clq_f32_to_f16.
inline ushort float_to_half_bits(float x)
{
    uint u = as_uint(x), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (ushort)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x477ff000) return (ushort)(sign | 0x7c00);
    if (u < 0x38800000) return (ushort)(sign | (as_uint(as_float(u) + 0.5f) - 0x3f000000));
    u += 0xfff + (u >> 13 & 1);
    return (ushort)(sign | ((u >> 13) - (112 << 10)));
}

inline ushort float_to_bf16_bits(float x)
{
    uint u = as_uint(x);
    if ((u & 0x7fffffff) > 0x7f800000) return (ushort)(u >> 16 | 64);
    return (ushort)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float bf16_bits_to_float(ushort b)
{
    return as_float((uint)b << 16);
}

// VW floats to halves and bfloat16s, as float_to_half_bits and float_to_bf16_bits.
#if VW > 1
typedef CAT(ushort, VW) vushort;
#if defined(__F16C__)
inline ushort8 float8_to_half(float8 v)
{
    return __builtin_astype(__builtin_ia32_vcvtps2ph256(v, 0), ushort8);
}
#endif
inline vushort vhalf_bits(vfloat x)
{
#if defined(__F16C__) && VW == 8
    return float8_to_half(x);
#elif defined(__F16C__) && VW == 16
    return (ushort16)(float8_to_half(x.lo), float8_to_half(x.hi));
#else
    vint u = as_i(x), a = u & 0x7fffffff;
    vint r = (a + 0xfff + (a >> 13 & 1)) >> 13;
    r -= 112 << 10;
    r = a < 0x38800000 ? as_i(as_v(a) + 0.5f) - 0x3f000000 : r;
    r = a >= 0x477ff000 ? 0x7c00 : r;
    r = a > 0x7f800000 ? 0x7e00 | (a >> 13 & 0x1ff) : r;
    return CAT(convert_ushort, VW)(r | (u >> 16 & 0x8000));
#endif
}
inline vushort vbf16_bits(vfloat x)
{
    vint u = as_i(x), a = u & 0x7fffffff;
    vint r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    r = a > 0x7f800000 ? u >> 16 | 64 : r;
    return CAT(convert_ushort, VW)(r & 0xffff);
}
// Shift into place and move the exponent; subnormals by conversion; put Inf and NaN right.
inline vfloat vhalf_value(vushort v)
{
    vint h = CAT(convert_int, VW)(v), rest = h & 0x7fff, sign = (h & 0x8000) << 16;
    vint finite = rest < 0x400 ? as_i(to_float(rest) * 0x1p-24f) : (rest << 13) + (112 << 23);
    return as_v(sign | (rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 : finite));
}
inline vfloat vbf16_value(vushort v)
{
    return as_v(CAT(convert_uint, VW)(v) << 16);
}
#endif

// One source element.
inline float src_get(__global const src_t *x, size_t i)
{
#if SRC == 0
    return x[i];
#elif SRC == 1
    return half_bits_to_float(x[i]);
#else
    return bf16_bits_to_float(x[i]);
#endif
}

// VW source elements.
#if VW == 1
#define src_load(x, i) src_get(x, i)
#else
#if SRC == 1 && defined(__F16C__)
typedef short x86_short8 __attribute__((ext_vector_type(8)));
inline float8 half8_to_float(__global const ushort *p)
{
    return __builtin_ia32_vcvtph2ps256(__builtin_astype(vload8(0, p), x86_short8));
}
#endif
inline vfloat src_load(__global const src_t *x, size_t i)
{
#if SRC == 0
    return CAT(vload, VW)(0, x + i);
#elif SRC == 2
    return as_v(CAT(convert_uint, VW)(CAT(vload, VW)(0, x + i)) << 16);
#elif defined(__F16C__) && VW == 8
    return half8_to_float(x + i);
#elif defined(__F16C__) && VW == 16
    return (float16)(half8_to_float(x + i), half8_to_float(x + i + 8));
#else
    return vhalf_value(CAT(vload, VW)(0, x + i));
#endif
}
#endif

// A half at an even, perhaps not 4-byte aligned address.
inline void put_half(NEAR uchar *p, float x)
{
    *(NEAR ushort *)p = float_to_half_bits(x);
}

inline float get_half(NEAR const uchar *p)
{
    return half_bits_to_float(*(NEAR const ushort *)p);
}

// ---- across a vector ----

#define vmax(a, b) ((a) > (b) ? (a) : (b))
#define vmin(a, b) ((a) < (b) ? (a) : (b))

#if VW == 1
inline float hmax(float v) { return v; }
inline float hmin(float v) { return v; }
inline float hsum(float v) { return v; }
inline int hmin_i(int v) { return v; }
#define lane_index 0
#else
inline float hmax4(float4 v) { float2 a = vmax(v.lo, v.hi); return a.x > a.y ? a.x : a.y; }
inline float hmin4(float4 v) { float2 a = vmin(v.lo, v.hi); return a.x < a.y ? a.x : a.y; }
inline float hsum4(float4 v) { float2 a = v.lo + v.hi; return a.x + a.y; }
inline int hmin4_i(int4 v) { int2 a = min(v.lo, v.hi); return min(a.x, a.y); }
#if VW == 4
#define hmax hmax4
#define hmin hmin4
#define hsum hsum4
#define hmin_i hmin4_i
#define lane_index ((int4)(0, 1, 2, 3))
#elif VW == 8
inline float hmax(float8 v) { return hmax4(vmax(v.lo, v.hi)); }
inline float hmin(float8 v) { return hmin4(vmin(v.lo, v.hi)); }
inline float hsum(float8 v) { return hsum4(v.lo + v.hi); }
inline int hmin_i(int8 v) { return hmin4_i(min(v.lo, v.hi)); }
#define lane_index ((int8)(0, 1, 2, 3, 4, 5, 6, 7))
#else
inline float hmax(float16 v) { float8 a = vmax(v.lo, v.hi); return hmax4(vmax(a.lo, a.hi)); }
inline float hmin(float16 v) { float8 a = vmin(v.lo, v.hi); return hmin4(vmin(a.lo, a.hi)); }
inline float hsum(float16 v) { float8 a = v.lo + v.hi; return hsum4(a.lo + a.hi); }
inline int hmin_i(int16 v) { int8 a = min(v.lo, v.hi); return hmin4_i(min(a.lo, a.hi)); }
#define lane_index ((int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#endif
#endif

// Round to nearest even, for |v| < 2^22.
#define round_even(v) (((v) + 12582912.0f) - 12582912.0f)

// ---- what encoding cost ----

// One a work-group; the host adds them up in double.
typedef struct {
    float sum_x2, sum_e2, max_error;
    uint bad_inputs, bad_outputs;
} tile_stats;

// Running sums of one item.
typedef struct {
    vfloat x2, e2, worst, x_check, y_check; // checks: 0, or NaN once a value was not finite
} cost;

inline cost cost_zero(void)
{
    cost c;
    c.x2 = c.e2 = c.worst = c.x_check = c.y_check = 0.0f;
    return c;
}

inline void cost_add(cost *c, vfloat x, vfloat y)
{
    vfloat e = x - y, a = fabs(e);
    c->x2 += x * x;
    c->e2 += e * e;
    c->worst = vmax(a, c->worst);
    c->x_check += x - x;
    c->y_check += y - y;
}

inline tile_stats cost_total(const cost *c)
{
    tile_stats s;
    s.sum_x2 = hsum(c->x2);
    s.sum_e2 = hsum(c->e2);
    s.max_error = hmax(c->worst);
    // Only whether there are any: the host counts them in the tile where there are.
    s.bad_inputs = hsum(c->x_check) != 0.0f;
    s.bad_outputs = hsum(c->y_check) != 0.0f;
    return s;
}

#if WG
// The sum of the items' statistics, by item 0.
inline void cost_reduce(tile_stats mine, __local tile_stats *all, __global tile_stats *out)
{
    uint lid = get_local_id(0);
    all[lid] = mine;
    for (uint half_n = UNITS / 2; half_n > 0; half_n /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < half_n) {
            all[lid].sum_x2 += all[lid + half_n].sum_x2;
            all[lid].sum_e2 += all[lid + half_n].sum_e2;
            all[lid].max_error = vmax(all[lid].max_error, all[lid + half_n].max_error);
            all[lid].bad_inputs |= all[lid + half_n].bad_inputs;
            all[lid].bad_outputs |= all[lid + half_n].bad_outputs;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid == 0) out[get_group_id(0)] = all[0];
}
#endif

// ---- formats with blocks of 32 ----
//
// A format gives two functions over one block,
//   void NAME_block(const vfloat x[NV], NEAR uchar *out)   encodes
//   void NAME_load(NEAR const uchar *in, vfloat y[NV])     decodes
// and its kernels are ENCODE32 and DECODE32 of them. x holds n_blocks * 32 elements from element
// `first` on, out n_blocks * BYTES bytes, stats one entry a work-group.
#define ENCODE32_ARGS                                                                              \
    __global const src_t *restrict x, ulong first, uint n_blocks, __global uchar *restrict out,    \
        __global tile_stats *restrict stats
#define DECODE32_ARGS                                                                              \
    __global const uchar *restrict in, ulong first, uint n_blocks, __global float *restrict y

#if !WG
#define ENCODE32(BLOCK, LOAD, BYTES)                                                               \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    cost c = cost_zero();                                                                          \
    for (uint b = begin; b < end; b++) {                                                           \
        vfloat v[NV], w[NV];                                                                       \
        EACH(i) v[i] = src_load(x, first + (size_t)b * 32 + i * VW);         \
        __global uchar *to = out + (size_t)b * (BYTES);                                            \
        BLOCK(v, to);                                                                              \
        LOAD(to, w);                                                                               \
        EACH(i) cost_add(&c, v[i], w[i]);                                    \
    }                                                                                              \
    if (begin < end) stats[get_group_id(0)] = cost_total(&c)

#define DECODE32(LOAD, BYTES)                                                                      \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    for (uint b = begin; b < end; b++) {                                                           \
        vfloat w[NV];                                                                              \
        LOAD(in + first + (size_t)b * (BYTES), w);                                                 \
        EACH(i) vstore_f(w[i], y + (size_t)b * 32 + i * VW);                 \
    }
#else
#define ENCODE32(BLOCK, LOAD, BYTES)                                                               \
    __local float near_x[UNITS * 33]; /* 33: neighbours in different banks */                      \
    __local uint near_out[UNITS * (BYTES) / 4];                                                    \
    __local tile_stats near_stats[UNITS];                                                          \
    uint lid = get_local_id(0), begin = get_group_id(0) * UNITS;                                   \
    uint n = begin < n_blocks ? min((uint)UNITS, n_blocks - begin) : 0;                            \
    for (uint i = lid; i < n * 32; i += UNITS)                                                     \
        near_x[i / 32 * 33 + i % 32] = src_get(x, first + (size_t)begin * 32 + i);                 \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                  \
    cost c = cost_zero();                                                                          \
    if (lid < n) {                                                                                 \
        vfloat v[NV], w[NV];                                                                       \
        __local uchar *to = (__local uchar *)near_out + lid * (BYTES);                             \
        EACH(i) v[i] = vload_f(near_x + lid * 33 + i * VW);                  \
        BLOCK(v, to);                                                                              \
        LOAD(to, w);                                                                               \
        EACH(i) cost_add(&c, v[i], w[i]);                                    \
    }                                                                                              \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                  \
    __global ushort *far_out = (__global ushort *)(out + (size_t)begin * (BYTES));                 \
    for (uint i = lid; i < n * (BYTES) / 2; i += UNITS)                                            \
        far_out[i] = ((__local const ushort *)near_out)[i];                                        \
    if (lid == 0 && (n * (BYTES)) % 2)                                                             \
        out[(size_t)begin * (BYTES) + n * (BYTES) - 1] = ((__local uchar *)near_out)[n * (BYTES) - 1]; \
    cost_reduce(cost_total(&c), near_stats, stats)

#define DECODE32(LOAD, BYTES)                                                                      \
    __local uint near_in[UNITS * (BYTES) / 4];                                                     \
    __local float near_y[UNITS * 33];                                                              \
    uint lid = get_local_id(0), begin = get_group_id(0) * UNITS;                                   \
    uint n = begin < n_blocks ? min((uint)UNITS, n_blocks - begin) : 0;                            \
    __global const uchar *far_in = in + first + (size_t)begin * (BYTES);                           \
    for (uint i = lid; i < n * (BYTES); i += UNITS) ((__local uchar *)near_in)[i] = far_in[i];     \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                  \
    if (lid < n) {                                                                                 \
        vfloat w[NV];                                                                              \
        LOAD((__local const uchar *)near_in + lid * (BYTES), w);                                   \
        EACH(i) vstore_f(w[i], near_y + lid * 33 + i * VW);                  \
    }                                                                                              \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                  \
    for (uint i = lid; i < n * 32; i += UNITS)                                                     \
        y[(size_t)begin * 32 + i] = near_y[i / 32 * 33 + i % 32]
#endif

// The value of largest magnitude of a block, the first of them where several are as large; +0 for a
// zero block.
inline float signed_largest(const vfloat x[NV])
{
    vfloat high = x[0], low = x[0];
    UNROLL for (uint i = 1; i < NV; i++) {
        high = vmax(x[i], high);
        low = vmin(x[i], low);
    }
    float top = hmax(high), bottom = -hmin(low);
    if (top > bottom) return top;
    if (bottom > top) return -bottom;
    if (top == 0.0f) return 0.0f;
    // As large on both sides: the first in order counts.
    int first_top = 32, first_bottom = 32;
    EACH(i) {
        vint at = lane_index + (int)(i * VW);
        first_top = min(first_top, hmin_i(x[i] == top ? at : 32));
        first_bottom = min(first_bottom, hmin_i(x[i] == -bottom ? at : 32));
    }
    return first_top < first_bottom ? top : -bottom;
}

// The smallest value of a block; of zeros of both signs the first, as a sequential search keeps it.
inline float first_smallest(const vfloat x[NV])
{
    vfloat low = x[0];
    UNROLL for (uint i = 1; i < NV; i++) low = vmin(x[i], low);
    float m = hmin(low);
    if (m != 0.0f) return m;
    int first_plus = 32, first_minus = 32;
    EACH(i) {
        vint at = lane_index + (int)(i * VW);
        first_plus = min(first_plus, hmin_i(as_i(x[i]) == 0 ? at : 32));
        first_minus = min(first_minus, hmin_i(as_i(x[i]) == (int)0x80000000 ? at : 32));
    }
    return first_minus < first_plus ? -0.0f : 0.0f;
}

// 1 / d, 0 for d = 0. Where it overflows, x86's conversion makes every code 0: *alive is 0.
inline float inverse(float d, int *alive)
{
    float id = d != 0.0f ? 1.0f / d : 0.0f;
    *alive = fabs(id) <= FLT_MAX ? -1 : 0;
    return id;
}

// Nibbles: byte j holds element j below element j + 16. q[i] holds codes below 16.
inline void put_nibbles(const vint q[NV], NEAR uchar *p)
{
#if VW == 16
    vstore_i8(q[0] | q[1] << 4, (NEAR char *)p);
#else
    UNROLL for (uint i = 0; i < NV / 2; i++) vstore_i8(q[i] | q[i + NV / 2] << 4, (NEAR char *)p + i * VW);
#endif
}

inline void get_nibbles(NEAR const uchar *p, vint q[NV])
{
    UNROLL for (uint i = 0; i < NV / 2; i++) {
        vint both = vload_i8((NEAR const char *)p + i * VW);
        q[i] = both & 15;
        q[i + NV / 2] = both >> 4 & 15;
    }
}

// The fifth bits of 32 codes: bit j of four bytes is element j's.
inline uint gather_bit4(const vint q[NV])
{
    uint bits = 0;
    EACH(i) {
#if VW == 1
        bits |= (uint)(q[i] >> 4 & 1) << i;
#else
        vint placed = (q[i] >> 4 & 1) << lane_index;
#if VW == 16
        int8 a = placed.lo | placed.hi;
        int4 b = a.lo | a.hi;
#elif VW == 8
        int4 b = placed.lo | placed.hi;
#else
        int4 b = placed;
#endif
        int2 d = b.lo | b.hi;
        bits |= (uint)(d.x | d.y) << (i * VW);
#endif
    }
    return bits;
}

inline void put_bit4(const vint q[NV], NEAR uchar *p)
{
    uint bits = gather_bit4(q);
    ((NEAR ushort *)p)[0] = (ushort)bits;
    ((NEAR ushort *)p)[1] = (ushort)(bits >> 16);
}

inline void get_bit4(NEAR const uchar *p, vint q[NV])
{
    uint bits = ((NEAR const ushort *)p)[0] | (uint)((NEAR const ushort *)p)[1] << 16;
    EACH(i) q[i] |= ((vint)((int)(bits >> (i * VW))) >> lane_index & 1) << 4;
}

#endif

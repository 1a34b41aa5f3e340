// SPDX-License-Identifier: MIT
// How products read weights: for each format, the codes of 32 elements as bytes, and what they stand for,
//
//   weight = d * code + m,   d and m shared by GROUP elements (16 or 32).
//
//   void NAME_scales(weight_row r, uint b, float *d, float *m)   of block b: BLOCK / GROUP of each
//   codes32 NAME_codes(weight_row r, uint b, uint s)             the s-th 32 of block b
//
// The host defines ID_NAME (a number) for the formats that a model has. dot.cl, included once behind each format, makes
// the products.
#ifndef CLQ_CODES_CL
#define CLQ_CODES_CL
#include "common.cl"
#include "clquant_steps.h"

// A row of a weight. scales, zero_points: CLQ_INT only.
typedef struct {
    __global const uchar *p;
    __global const float *scales;
    __global const char *zero_points; // 0: none
    uint per_scale;                   // blocks of 32 that share a scale
    __global const ulong *tables;     // clquant_steps.h: CLQ_EXPANDED_...
} weight_row;

typedef struct __attribute__((packed)) {
    ulong2 words;
} any_bytes16;
typedef struct __attribute__((packed)) {
    ulong word;
} any_bytes8;

inline uchar16 bytes16(__global const uchar *p)
{
#if WG
    return vload16(0, p);
#else
    return as_uchar16(((__global const any_bytes16 *)p)->words);
#endif
}

// 32 codes: uchars, or chars where SIGNED.
#if defined(__AVX2__) && !WG && !defined(PORTABLE)
#define X86 1
typedef uchar codes32 __attribute__((ext_vector_type(32)));
typedef ushort x86_ushort16 __attribute__((ext_vector_type(16)));
typedef char x86_char32 __attribute__((ext_vector_type(32)));
typedef short x86_short16 __attribute__((ext_vector_type(16)));
typedef struct __attribute__((packed)) {
    ulong4 words;
} any_bytes32;
#define BYTES_0_7 0, 1, 2, 3, 4, 5, 6, 7
#define BYTES_8_15 8, 9, 10, 11, 12, 13, 14, 15
#define BYTES_16_31 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_HALF(c) __builtin_shufflevector(c, c, BYTES_0_7, BYTES_8_15)
#define HIGH_HALF(c) __builtin_shufflevector(c, c, BYTES_16_31)
inline codes32 join(uchar16 lo, uchar16 hi)
{
    return __builtin_shufflevector(lo, hi, BYTES_0_7, BYTES_8_15, BYTES_16_31);
}
inline codes32 bytes32(__global const uchar *p)
{
    return __builtin_astype(((__global const any_bytes32 *)p)->words, codes32);
}
inline codes32 masked(codes32 c, uint mask) { return c & (codes32)(uchar)mask; }
inline codes32 merged(codes32 a, codes32 b) { return a | b; }
// Codes that are small enough that no bit leaves its byte; shifted_down leaves bits of the neighbour.
inline codes32 shifted_up(codes32 c, uint n)
{
    return __builtin_astype(__builtin_astype(c, x86_ushort16) << (x86_ushort16)(ushort)n, codes32);
}
inline codes32 shifted_down(codes32 c, uint n)
{
    return __builtin_astype(__builtin_astype(c, x86_ushort16) >> (x86_ushort16)(ushort)n, codes32);
}
inline codes32 negated(codes32 c, codes32 mask) { return (c ^ mask) - mask; }
inline codes32 look_up32(uchar16 table, codes32 c)
{
    return __builtin_astype(
        __builtin_ia32_pshufb256(__builtin_astype(join(table, table), x86_char32), __builtin_astype(c, x86_char32)),
        codes32);
}
// 255 where a bit is set, of 32.
inline codes32 bit_masks(uint bits)
{
    uchar16 all = as_uchar16((uint4)bits), one16 = (uchar16)(1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128);
    codes32 from = join((uchar16)(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                        (uchar16)(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)),
            one = join(one16, one16);
    return __builtin_astype((look_up32(all, from) & one) == one, codes32);
}
#else
#define X86 0
typedef struct {
    uchar16 lo, hi; // elements 0..15 and 16..31
} codes32;
#define LOW_HALF(c) (c).lo
#define HIGH_HALF(c) (c).hi
inline codes32 join(uchar16 lo, uchar16 hi) { return (codes32){lo, hi}; }
inline codes32 bytes32(__global const uchar *p) { return (codes32){bytes16(p), bytes16(p + 16)}; }
inline codes32 masked(codes32 c, uint mask) { return (codes32){c.lo & (uchar)mask, c.hi & (uchar)mask}; }
inline codes32 merged(codes32 a, codes32 b) { return (codes32){a.lo | b.lo, a.hi | b.hi}; }
inline codes32 shifted_up(codes32 c, uint n) { return (codes32){c.lo << (uchar)n, c.hi << (uchar)n}; }
inline codes32 shifted_down(codes32 c, uint n) { return (codes32){c.lo >> (uchar)n, c.hi >> (uchar)n}; }
inline codes32 negated(codes32 c, codes32 mask)
{
    return (codes32){(c.lo ^ mask.lo) - mask.lo, (c.hi ^ mask.hi) - mask.hi};
}
#endif

inline ulong bytes8(__global const uchar *p)
{
#if WG
    return as_ulong(vload8(0, p));
#else
    return ((__global const any_bytes8 *)p)->word;
#endif
}

inline uint bytes4(__global const uchar *p)
{
    return ((__global const ushort *)p)[0] | (uint)((__global const ushort *)p)[1] << 16;
}

inline uint bytes2(__global const uchar *p) { return p[0] | (uint)p[1] << 8; }

#if defined(__F16C__)
typedef short half_vector __attribute__((ext_vector_type(8)));
inline float half_value_of(ushort h)
{
    return __builtin_ia32_vcvtph2ps((half_vector)((short)h, 0, 0, 0, 0, 0, 0, 0))[0];
}
#else
#define half_value_of(h) half_bits_to_float(h)
#endif
inline float half_at(__global const uchar *p) { return half_value_of(*(__global const ushort *)p); }

// A table of 16 bytes, looked up by codes below 16.
inline uchar16 look_up(uchar16 table, uchar16 codes)
{
#if X86
    typedef char x86_bytes __attribute__((ext_vector_type(16)));
    return __builtin_astype(
        __builtin_ia32_pshufb128(__builtin_astype(table, x86_bytes), __builtin_astype(codes, x86_bytes)), uchar16);
#else
    return shuffle(table, codes);
#endif
}
#if !X86
inline codes32 look_up32(uchar16 table, codes32 c) { return (codes32){look_up(table, c.lo), look_up(table, c.hi)}; }
inline codes32 bit_masks(uint bits) // 255 where a bit is set, of 32
{
    uchar16 all = as_uchar16((uint4)bits), one = (uchar16)(1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128);
    uchar16 lo = look_up(all, (uchar16)(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)) & one;
    uchar16 hi = look_up(all, (uchar16)(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)) & one;
    return (codes32){as_uchar16(lo == one), as_uchar16(hi == one)};
}
#endif

#define FP4_TABLE as_uchar16((char16)(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))
#define IQ4_TABLE as_uchar16((char16)(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))

// Eight codes of BITS bits each from a dense bit stream of bytes, as 16-bit words: the two bytes that hold a code come
// together, then it is shifted out of them. 32 codes are four such eights, BITS bytes apart.
#define PAIR(j, bits) (uchar)((j) * (bits) / 8), (uchar)((j) * (bits) / 8 + 1)
#define LIFT(j, bits) (ushort)(256 >> (j) * (bits) % 8)
#define EIGHT_CODES(p, bits)                                                                                           \
    ((as_ushort8(look_up(bytes16(p), (uchar16)(PAIR(0, bits), PAIR(1, bits), PAIR(2, bits), PAIR(3, bits),             \
                                               PAIR(4, bits), PAIR(5, bits), PAIR(6, bits), PAIR(7, bits)))) *         \
          (ushort8)(LIFT(0, bits), LIFT(1, bits), LIFT(2, bits), LIFT(3, bits), LIFT(4, bits), LIFT(5, bits),          \
                    LIFT(6, bits), LIFT(7, bits)) >>                                                                   \
      (ushort)8) &                                                                                                     \
     (ushort)((1 << (bits)) - 1))
#define STREAM_CODES(NAME, bits)                                                                                       \
    inline codes32 NAME(__global const uchar *p)                                                                       \
    {                                                                                                                  \
        ushort8 a = EIGHT_CODES(p, bits), b = EIGHT_CODES(p + (bits), bits);                                           \
        ushort8 c = EIGHT_CODES(p + 2 * (bits), bits), d = EIGHT_CODES(p + 3 * (bits), bits);                          \
        return join(convert_uchar16((ushort16)(a, b)), convert_uchar16((ushort16)(c, d)));                             \
    }

inline codes32 nibbles(__global const uchar *p)
{
    uchar16 b = bytes16(p);
    return masked(join(b, as_uchar16(as_ushort8(b) >> (ushort)4)), 15);
}

// ---- what dot.cl needs ----

#define UNROLL_ALL _Pragma("unroll")
#if WG
#define NEAR_TILE __local
#else
#define NEAR_TILE
#endif

inline float sum8(float8 v)
{
    float4 h = v.lo + v.hi;
    return h.x + h.y + (h.z + h.w);
}

// Sums of the products of 32 codes and 32 int8 activations: 4 of the first 16 elements, 4 of the others. Exact.
#if X86
inline x86_char32 load_char32(__global const char *q)
{
    return __builtin_astype(((__global const any_bytes32 *)q)->words, x86_char32);
}
inline int8 sum_pairs(x86_short16 v) { return __builtin_astype(__builtin_ia32_pmaddwd256(v, (x86_short16)1), int8); }
inline int8 products_unsigned(codes32 c, __global const char *q)
{
    return sum_pairs(__builtin_ia32_pmaddubsw256(__builtin_astype(c, x86_char32), load_char32(q)));
}
// |code| (at most 128) times the activation (at most 127) with the code's sign: two of them fit in 16 bits.
inline int8 products_signed(codes32 c, __global const char *q)
{
    x86_char32 w = __builtin_astype(c, x86_char32), size = w < (x86_char32)0 ? -w : w;
    return sum_pairs(__builtin_ia32_pmaddubsw256(size, __builtin_ia32_psignb256(load_char32(q), w)));
}
#else
inline int4 sum_fours(int16 v) { return v.lo.lo + v.lo.hi + (v.hi.lo + v.hi.hi); }
inline int8 products_unsigned(codes32 c, __global const char *q)
{
    return (int8)(sum_fours(convert_int16(c.lo) * convert_int16(vload16(0, q))),
                  sum_fours(convert_int16(c.hi) * convert_int16(vload16(1, q))));
}
inline int8 products_signed(codes32 c, __global const char *q)
{
    return (int8)(sum_fours(convert_int16(as_char16(c.lo)) * convert_int16(vload16(0, q))),
                  sum_fours(convert_int16(as_char16(c.hi)) * convert_int16(vload16(1, q))));
}
#endif

// ---- blocks of 32 ----

#ifdef ID_q4_0
inline void q4_0_scales(weight_row r, uint b, float *d, float *m)
{
    d[0] = half_at(r.p + b * 18ul);
    m[0] = -8.0f * d[0];
}
#define q4_0_codes(r, b, s) nibbles((r).p + (b)*18ul + 2)
#define FORMAT q4_0
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 18
#include "dot.cl"
#endif

#ifdef ID_q4_1
inline void q4_1_scales(weight_row r, uint b, float *d, float *m)
{
    d[0] = half_at(r.p + b * 20ul);
    m[0] = half_at(r.p + b * 20ul + 2);
}
#define q4_1_codes(r, b, s) nibbles((r).p + (b)*20ul + 4)
#define FORMAT q4_1
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 20
#include "dot.cl"
#endif

inline codes32 five_bits(__global const uchar *high, __global const uchar *low)
{
    return merged(nibbles(low), masked(bit_masks(bytes4(high)), 16));
}

#ifdef ID_q5_0
inline void q5_0_scales(weight_row r, uint b, float *d, float *m)
{
    d[0] = half_at(r.p + b * 22ul);
    m[0] = -16.0f * d[0];
}
#define q5_0_codes(r, b, s) five_bits((r).p + (b)*22ul + 2, (r).p + (b)*22ul + 6)
#define FORMAT q5_0
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 22
#include "dot.cl"
#endif

#ifdef ID_q5_1
inline void q5_1_scales(weight_row r, uint b, float *d, float *m)
{
    d[0] = half_at(r.p + b * 24ul);
    m[0] = half_at(r.p + b * 24ul + 2);
}
#define q5_1_codes(r, b, s) five_bits((r).p + (b)*24ul + 4, (r).p + (b)*24ul + 8)
#define FORMAT q5_1
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 24
#include "dot.cl"
#endif

#ifdef ID_q8_0
inline void q8_0_scales(weight_row r, uint b, float *d, float *m) { d[0] = half_at(r.p + b * 34ul); }
#define q8_0_codes(r, b, s) bytes32((r).p + (b)*34ul + 2)
#define FORMAT q8_0
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 34
#include "dot.cl"
#endif

inline codes32 table_nibbles(uchar16 table, __global const uchar *p) { return look_up32(table, nibbles(p)); }

#ifdef ID_iq4_nl
inline void iq4_nl_scales(weight_row r, uint b, float *d, float *m) { d[0] = half_at(r.p + b * 18ul); }
#define iq4_nl_codes(r, b, s) table_nibbles(IQ4_TABLE, (r).p + (b)*18ul + 2)
#define FORMAT iq4_nl
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 18
#include "dot.cl"
#endif

#ifdef ID_mxfp4
inline void mxfp4_scales(weight_row r, uint b, float *d, float *m)
{
    uint e = r.p[b * 17ul]; // half of 2^(e - 127): levels are doubled
    d[0] = e < 2 ? as_float(0x00200000u << e) : as_float((e - 1) << 23);
}
#define mxfp4_codes(r, b, s) table_nibbles(FP4_TABLE, (r).p + (b)*17ul + 1)
#define FORMAT mxfp4
#define BLOCK 32
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 17
#include "dot.cl"
#endif

// ---- blocks of 64 and 128 ----

#ifdef ID_nvfp4
inline void nvfp4_scales(weight_row r, uint b, float *d, float *m)
{
    for (uint j = 0; j < 4; j++) {
        uint u = r.p[b * 36ul + j];
        float v = u & 0x78 ? as_float(((u & 0x7f) + (120 << 3)) << 20) : (float)(u & 7) * 0x1p-9f;
        d[j] = u == 0x7f ? 0.0f : 0.5f * v;
    }
}
inline codes32 nvfp4_codes(weight_row r, uint b, uint s)
{
    uchar16 q = bytes16(r.p + b * 36ul + 4 + 16 * s), low = q & (uchar)15, high = q >> (uchar)4;
    return look_up32(FP4_TABLE, join((uchar16)(low.lo, high.lo), (uchar16)(low.hi, high.hi)));
}
#define FORMAT nvfp4
#define BLOCK 64
#define GROUP_LEN 16
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 36
#include "dot.cl"
#endif

#ifdef ID_q2_0
inline void q2_0_scales(weight_row r, uint b, float *d, float *m)
{
    d[0] = d[1] = half_at(r.p + b * 18ul);
    m[0] = m[1] = -d[0];
}
STREAM_CODES(q2_0_stream, 2)
#define q2_0_codes(r, b, s) q2_0_stream((r).p + (b)*18ul + 2 + 8 * (s))
#define FORMAT q2_0
#define BLOCK 64
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 18
#include "dot.cl"
#endif

#ifdef ID_q1_0
inline void q1_0_scales(weight_row r, uint b, float *d, float *m)
{
    float v = half_at(r.p + b * 18ul);
    for (uint j = 0; j < 4; j++) {
        d[j] = 2.0f * v;
        m[j] = -v;
    }
}
inline codes32 q1_0_codes(weight_row r, uint b, uint s)
{
    return masked(bit_masks(bytes4(r.p + b * 18ul + 2 + 4 * s)), 1);
}
#define FORMAT q1_0
#define BLOCK 128
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 18
#include "dot.cl"
#endif

// ---- blocks of 256 ----

// 32 bytes hold 32 elements at every shift.
inline codes32 shifted(__global const uchar *p, uint shift, uint mask)
{
    return masked(shifted_down(bytes32(p), shift), mask);
}

#ifdef ID_q2_K
inline void q2_K_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 84ul;
    uchar16 s = bytes16(p);
    vstore16(half_at(p + 80) * convert_float16(s & (uchar)15), 0, d);
    vstore16(-half_at(p + 82) * convert_float16(s >> (uchar)4), 0, m);
}
#define q2_K_codes(r, b, s) shifted((r).p + (b)*84ul + 16 + (s) / 4 * 32, (s) % 4 * 2, 3)
#define FORMAT q2_K
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 84
#include "dot.cl"
#endif

#ifdef ID_q3_K
inline void q3_K_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 110ul;
    uint a0 = bytes4(p + 96), a1 = bytes4(p + 100), h = bytes4(p + 104);
    uint4 w = (uint4)((a0 & 0x0f0f0f0fu) | (h & 0x03030303u) << 4, (a1 & 0x0f0f0f0fu) | (h >> 2 & 0x03030303u) << 4,
                      (a0 >> 4 & 0x0f0f0f0fu) | (h >> 4 & 0x03030303u) << 4,
                      (a1 >> 4 & 0x0f0f0f0fu) | (h >> 6 & 0x03030303u) << 4);
    float16 v = half_at(p + 108) * convert_float16(as_char16(w) - (char)32);
    vstore16(v, 0, d);
    vstore16(-4.0f * v, 0, m);
}
inline codes32 q3_K_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 110ul;
    codes32 q = shifted(p + 32 + s / 4 * 32, s % 4 * 2, 3), high = shifted(p, s, 1);
    return merged(q, shifted_up(high, 2));
}
#define FORMAT q3_K
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 110
#include "dot.cl"
#endif

// The 6-bit scales and minimums of q4_K and q5_K.
inline void six_bit_scales(__global const uchar *p, float *d, float *m)
{
    uint a = bytes4(p + 4), b = bytes4(p + 8), c = bytes4(p + 12);
    uint2 scale = (uint2)(a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 6 & 0x03030303u) << 4);
    uint2 low = (uint2)(b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 6 & 0x03030303u) << 4);
    vstore8(half_at(p) * convert_float8(as_uchar8(scale)), 0, d);
    vstore8(-half_at(p + 2) * convert_float8(as_uchar8(low)), 0, m);
}

#ifdef ID_q4_K
#define q4_K_scales(r, b, d, m) six_bit_scales((r).p + (b)*144ul, d, m)
#define q4_K_codes(r, b, s) shifted((r).p + (b)*144ul + 16 + (s) / 2 * 32, (s) % 2 * 4, 15)
#define FORMAT q4_K
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 144
#include "dot.cl"
#endif

#ifdef ID_q5_K
#define q5_K_scales(r, b, d, m) six_bit_scales((r).p + (b)*176ul, d, m)
inline codes32 q5_K_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 176ul;
    codes32 q = shifted(p + 48 + s / 2 * 32, s % 2 * 4, 15), high = shifted(p + 16, s, 1);
    return merged(q, shifted_up(high, 4));
}
#define FORMAT q5_K
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 176
#include "dot.cl"
#endif

#ifdef ID_q6_K
inline void q6_K_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 210ul;
    float16 v = half_at(p + 208) * convert_float16(as_char16(bytes16(p + 192)));
    vstore16(v, 0, d);
    vstore16(-32.0f * v, 0, m);
}
inline codes32 q6_K_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 210ul;
    codes32 q = shifted(p + s / 4 * 64 + s % 2 * 32, s % 4 / 2 * 4, 15);
    codes32 high = shifted(p + 128 + s / 4 * 32, s % 4 * 2, 3);
    return merged(q, shifted_up(high, 4));
}
#define FORMAT q6_K
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 210
#include "dot.cl"
#endif

#ifdef ID_iq4_xs
inline void iq4_xs_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 136ul;
    float v = half_at(p);
    uint high = bytes2(p + 2);
    for (uint g = 0; g < 8; g++) {
        int l = (p[4 + g / 2] >> 4 * (g % 2) & 15) | (high >> 2 * g & 3) << 4;
        d[g] = v * (float)(l - 32);
    }
}
#define iq4_xs_codes(r, b, s) table_nibbles(IQ4_TABLE, (r).p + (b)*136ul + 8 + 16 * (s))
#define FORMAT iq4_xs
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 136
#include "dot.cl"
#endif

#ifdef ID_tq1_0
inline void tq1_0_scales(weight_row r, uint b, float *d, float *m)
{
    float v = half_at(r.p + b * 54ul + 52);
    for (uint j = 0; j < 8; j++) {
        d[j] = v;
        m[j] = -v;
    }
}
inline uchar16 trits(uchar16 bytes, uint power)
{
    ushort16 v = convert_ushort16(bytes) * (ushort)power & (ushort)255;
    return convert_uchar16(v * (ushort)3 >> (ushort)8);
}
inline codes32 tq1_0_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 54ul;
    if (s < 5) {
        uint power = s == 0 ? 1 : s == 1 ? 3 : s == 2 ? 9 : s == 3 ? 27 : 81;
        return join(trits(bytes16(p), power), trits(bytes16(p + 16), power));
    }
    uchar16 q = bytes16(p + 32);
    if (s == 5) return join(trits(q, 1), trits(q, 3));
    if (s == 6) return join(trits(q, 9), trits(q, 27));
    uint four = bytes4(p + 48);
    uchar16 last = as_uchar16((uint4)four);
    ushort16 v = convert_ushort16(last) * (ushort16)(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27) & (ushort)255;
    return join(trits(q, 81), convert_uchar16(v * (ushort)3 >> (ushort)8));
}
#define FORMAT tq1_0
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 54
#include "dot.cl"
#endif

#ifdef ID_tq2_0
inline void tq2_0_scales(weight_row r, uint b, float *d, float *m)
{
    float v = half_at(r.p + b * 66ul + 64);
    for (uint j = 0; j < 8; j++) {
        d[j] = v;
        m[j] = -v;
    }
}
#define tq2_0_codes(r, b, s) shifted((r).p + (b)*66ul + (s) / 4 * 32, (s) % 4 * 2, 3)
#define FORMAT tq2_0
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 0
#define HAS_MIN 1
#define BYTES 66
#include "dot.cl"
#endif

// ---- codebooks ----

inline uchar16 two_words(ulong a, ulong b) { return as_uchar16((ulong2)(a, b)); }
// Signs of 16 elements, seven bits for eight.
#define EVEN_SIGNS(r, a, b)                                                                                            \
    two_words((r).tables[CLQ_EXPANDED_EVEN_SIGNS + (a)], (r).tables[CLQ_EXPANDED_EVEN_SIGNS + (b)])

#ifdef ID_iq2_xxs
inline void iq2_xxs_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 66ul;
    float v = 0.25f * half_at(p);
    for (uint g = 0; g < 8; g++) d[g] = v * (0.5f + (float)(p[2 + g * 8 + 7] >> 4));
}
inline codes32 iq2_xxs_codes(weight_row r, uint b, uint s)
{
    ulong v = bytes8(r.p + b * 66ul + 2 + s * 8);
    __global const ulong *grid = r.tables + CLQ_EXPANDED_IQ2_XXS;
    return negated(
        join(two_words(grid[v & 255], grid[v >> 8 & 255]), two_words(grid[v >> 16 & 255], grid[v >> 24 & 255])),
        join(EVEN_SIGNS(r, v >> 32 & 127, v >> 39 & 127), EVEN_SIGNS(r, v >> 46 & 127, v >> 53 & 127)));
}
#define FORMAT iq2_xxs
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 66
#include "dot.cl"
#endif

// Scales of nibbles, one for 16 elements.
inline void nibble_scales(float v, ulong s, float *d)
{
    ulong2 w = (ulong2)(s & 0x0f0f0f0f0f0f0f0ful, s >> 4 & 0x0f0f0f0f0f0f0f0ful);
    uchar8 even = as_uchar8(w.x), odd = as_uchar8(w.y);
    uchar16 all = (uchar16)(even.s0, odd.s0, even.s1, odd.s1, even.s2, odd.s2, even.s3, odd.s3, even.s4, odd.s4,
                            even.s5, odd.s5, even.s6, odd.s6, even.s7, odd.s7);
    vstore16(v * (0.5f + convert_float16(all)), 0, d);
}

#ifdef ID_iq2_xs
#define iq2_xs_scales(r, b, d, m)                                                                                      \
    (void)m, nibble_scales(0.25f * half_at((r).p + (b)*74ul), bytes8((r).p + (b)*74ul + 66), d)
inline codes32 iq2_xs_codes(weight_row r, uint b, uint s)
{
    ulong v = bytes8(r.p + b * 74ul + 2 + s * 8);
    __global const ulong *grid = r.tables + CLQ_EXPANDED_IQ2_XS;
    return negated(
        join(two_words(grid[v & 511], grid[v >> 16 & 511]), two_words(grid[v >> 32 & 511], grid[v >> 48 & 511])),
        join(EVEN_SIGNS(r, v >> 9 & 127, v >> 25 & 127), EVEN_SIGNS(r, v >> 41 & 127, v >> 57)));
}
#define FORMAT iq2_xs
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 74
#include "dot.cl"
#endif

#ifdef ID_iq2_s
#define iq2_s_scales(r, b, d, m)                                                                                       \
    (void)m, nibble_scales(0.25f * half_at((r).p + (b)*82ul), bytes8((r).p + (b)*82ul + 74), d)
inline codes32 iq2_s_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 82ul;
    __global const ulong *grid = r.tables + CLQ_EXPANDED_IQ2_S;
    uint v = bytes4(p + 2 + 4 * s), high = p[66 + s], signs = bytes4(p + 34 + 4 * s);
    uchar16 lo = two_words(grid[(v & 255) | (high & 3) << 8], grid[(v >> 8 & 255) | (high << 6 & 0x300)]);
    uchar16 hi = two_words(grid[(v >> 16 & 255) | (high << 4 & 0x300)], grid[v >> 24 | (high << 2 & 0x300)]);
    return negated(join(lo, hi), bit_masks(signs));
}
#define FORMAT iq2_s
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 82
#include "dot.cl"
#endif

#ifdef ID_iq3_xxs
inline void iq3_xxs_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 98ul;
    float v = 0.5f * half_at(p);
    for (uint g = 0; g < 8; g++) d[g] = v * (0.5f + (float)(p[66 + 4 * g + 3] >> 4));
}
inline codes32 iq3_xxs_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 98ul;
    __global const uint *grid = (__global const uint *)(r.tables + CLQ_EXPANDED_IQ3_XXS);
    ulong v = bytes8(p + 2 + 8 * s);
    uint w = bytes4(p + 66 + 4 * s);
    uchar16 lo = as_uchar16((uint4)(grid[v & 255], grid[v >> 8 & 255], grid[v >> 16 & 255], grid[v >> 24 & 255]));
    uchar16 hi = as_uchar16((uint4)(grid[v >> 32 & 255], grid[v >> 40 & 255], grid[v >> 48 & 255], grid[v >> 56]));
    return negated(join(lo, hi),
                   join(EVEN_SIGNS(r, w & 127, w >> 7 & 127), EVEN_SIGNS(r, w >> 14 & 127, w >> 21 & 127)));
}
#define FORMAT iq3_xxs
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 98
#include "dot.cl"
#endif

#ifdef ID_iq3_s
inline void iq3_s_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 110ul;
    float v = half_at(p);
    for (uint g = 0; g < 8; g++) d[g] = v * (float)(1 + 2 * (p[106 + g / 2] >> 4 * (g % 2) & 15));
}
inline codes32 iq3_s_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 110ul;
    __global const uint *grid = (__global const uint *)(r.tables + CLQ_EXPANDED_IQ3_S);
    ulong v = bytes8(p + 2 + 8 * s);
    uint h = p[66 + s], signs = bytes4(p + 74 + 4 * s);
#define POINT(i) grid[(v >> 8 * i & 255) | (h << (8 - i) & 256)]
    uchar16 lo = as_uchar16((uint4)(POINT(0), POINT(1), POINT(2), POINT(3)));
    uchar16 hi = as_uchar16((uint4)(POINT(4), POINT(5), POINT(6), POINT(7)));
#undef POINT
    return negated(join(lo, hi), bit_masks(signs));
}
#define FORMAT iq3_s
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 110
#include "dot.cl"
#endif

// Values in eighths, one more or less: bit i of down is vector i's sign of that.
#if defined(ID_iq1_s) || defined(ID_iq1_m)
inline uchar16 iq1_eighths(weight_row r, uint index0, uint index1, uint down0, uint down1)
{
    uchar16 shift = (uchar16)((uchar8)(uchar)(1 - 2 * down0), (uchar8)(uchar)(1 - 2 * down1));
    return two_words(r.tables[CLQ_EXPANDED_IQ1 + index0], r.tables[CLQ_EXPANDED_IQ1 + index1]) + shift;
}
#endif

#ifdef ID_iq1_s
inline void iq1_s_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 50ul;
    float v = 0.125f * half_at(p);
    for (uint g = 0; g < 8; g++) d[g] = v * (float)(1 + 2 * (bytes2(p + 34 + 2 * g) >> 12 & 7));
}
inline codes32 iq1_s_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 50ul;
    uint v = bytes4(p + 2 + 4 * s), h = bytes2(p + 34 + 2 * s), down = h >> 15;
    return join(iq1_eighths(r, (v & 255) | (h << 8 & 0x700), (v >> 8 & 255) | (h << 5 & 0x700), down, down),
                iq1_eighths(r, (v >> 16 & 255) | (h << 2 & 0x700), v >> 24 | (h >> 1 & 0x700), down, down));
}
#define FORMAT iq1_s
#define BLOCK 256
#define GROUP_LEN 32
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 50
#include "dot.cl"
#endif

#ifdef ID_iq1_m
inline void iq1_m_scales(weight_row r, uint b, float *d, float *m)
{
    __global const uchar *p = r.p + b * 56ul;
    ulong w = bytes8(p + 48);
    uint bits = (w >> 12 & 15) | (w >> 28 & 15) << 4 | (w >> 44 & 15) << 8 | (w >> 60) << 12;
    float v = 0.125f * half_value_of((ushort)bits);
    for (uint j = 0; j < 16; j++) d[j] = v * (float)(1 + 2 * (int)(w >> (j / 4 * 16 + j % 4 * 3) & 7));
}
inline codes32 iq1_m_codes(weight_row r, uint b, uint s)
{
    __global const uchar *p = r.p + b * 56ul;
    uint v = bytes4(p + 4 * s), h = bytes2(p + 32 + 2 * s);
    return join(iq1_eighths(r, (v & 255) | (h << 8 & 0x700), (v >> 8 & 255) | (h << 4 & 0x700), h >> 3 & 1, h >> 7 & 1),
                iq1_eighths(r, (v >> 16 & 255) | (h & 0x700), v >> 24 | (h >> 4 & 0x700), h >> 11 & 1, h >> 15));
}
#define FORMAT iq1_m
#define BLOCK 256
#define GROUP_LEN 16
#define SIGNED 1
#define HAS_MIN 0
#define BYTES 56
#include "dot.cl"
#endif

// ---- the integer family ----

// zero: the stored code that stands for code 0.
inline void int_scales(weight_row r, uint b, int zero, float *d, float *m)
{
    uint g = b / r.per_scale;
    d[0] = r.scales[g];
    m[0] = -d[0] * (float)(zero + (r.zero_points ? r.zero_points[g] : 0));
}

#ifdef ID_i8
#define i8_scales(r, b, d, m) int_scales(r, b, 0, d, m)
#define i8_codes(r, b, s) bytes32((r).p + (b)*32ul)
#define FORMAT i8
#define INT_BITS 8
#define SIGNED 1
#include "dot.cl"
#endif
#ifdef ID_i2
STREAM_CODES(i2_stream, 2)
#define i2_scales(r, b, d, m) int_scales(r, b, 2, d, m)
#define i2_codes(r, b, s) i2_stream((r).p + (b)*8ul)
#define FORMAT i2
#define INT_BITS 2
#define SIGNED 0
#include "dot.cl"
#endif
#ifdef ID_i3
STREAM_CODES(i3_stream, 3)
#define i3_scales(r, b, d, m) int_scales(r, b, 4, d, m)
#define i3_codes(r, b, s) i3_stream((r).p + (b)*12ul)
#define FORMAT i3
#define INT_BITS 3
#define SIGNED 0
#include "dot.cl"
#endif
#ifdef ID_i4
STREAM_CODES(i4_stream, 4)
#define i4_scales(r, b, d, m) int_scales(r, b, 8, d, m)
#define i4_codes(r, b, s) i4_stream((r).p + (b)*16ul)
#define FORMAT i4
#define INT_BITS 4
#define SIGNED 0
#include "dot.cl"
#endif
#ifdef ID_i5
STREAM_CODES(i5_stream, 5)
#define i5_scales(r, b, d, m) int_scales(r, b, 16, d, m)
#define i5_codes(r, b, s) i5_stream((r).p + (b)*20ul)
#define FORMAT i5
#define INT_BITS 5
#define SIGNED 0
#include "dot.cl"
#endif
#ifdef ID_i6
STREAM_CODES(i6_stream, 6)
#define i6_scales(r, b, d, m) int_scales(r, b, 32, d, m)
#define i6_codes(r, b, s) i6_stream((r).p + (b)*24ul)
#define FORMAT i6
#define INT_BITS 6
#define SIGNED 0
#include "dot.cl"
#endif
#ifdef ID_i7
STREAM_CODES(i7_stream, 7)
#define i7_scales(r, b, d, m) int_scales(r, b, 64, d, m)
#define i7_codes(r, b, s) i7_stream((r).p + (b)*28ul)
#define FORMAT i7
#define INT_BITS 7
#define SIGNED 0
#include "dot.cl"
#endif

#endif

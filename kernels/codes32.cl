// SPDX-License-Identifier: MIT
// 32 codes as bytes: one AVX2 register, or two vectors of 16. What codes.cl reads them with, and their products with int8
// activations.
#ifndef CLQ_CODES32_CL
#define CLQ_CODES32_CL
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

#endif

// SPDX-License-Identifier: MIT
// codes.cl, continued: the codebook formats (iq1, iq2, iq3) and the integer family.
#ifndef CLQ_CODES_BOOKS_CL
#define CLQ_CODES_BOOKS_CL
#include "codes32.cl"

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

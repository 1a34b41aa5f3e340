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
#include "codes32.cl"

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

#include "codes_books.cl"

#endif

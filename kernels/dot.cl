// SPDX-License-Identifier: MIT
// The products of one format. Included by codes.cl behind each format, which defines
//
//   FORMAT     its name: FORMAT_scales and FORMAT_codes are there
//   SIGNED     codes are chars, else uchars below 128
//   BLOCK      elements of a block, BYTES its bytes, GROUP_LEN elements that share a scale (16 or 32)
//   HAS_MIN    m is not 0
//   INT_BITS   instead of BLOCK to HAS_MIN: the integer family
//
// and makes, of blocks first, first + step ... < n_blocks of a row,
//
//   float FORMAT_dot_f32(r, first, step, n_blocks, x, sums)           with floats and their sums of 16
//   float FORMAT_dot_i8(r, first, step, n_blocks, q, scales, sums)    with int8 activations (clquant_steps.h)
//   void FORMAT_decode_run, FORMAT_decode_32                          elements as floats
//   ulong FORMAT_row_bytes(cols), uint FORMAT_blocks(cols)
#ifdef FORMAT // by itself the file is empty
#ifdef INT_BITS
#define BLOCK 32
#define GROUP_LEN 32
#define HAS_MIN 1
#define BYTES (INT_BITS * 4)
#endif

inline ulong CAT(FORMAT, _row_bytes)(uint cols)
{
#ifndef INT_BITS
    return cols / BLOCK * (ulong)BYTES;
#elif INT_BITS == 8
    return cols;
#else
    return ((ulong)cols * INT_BITS + 31) / 32 * 4;
#endif
}

#if SIGNED
#define TO_FLOAT8(v) convert_float8(as_char8(v))
#define PRODUCTS products_signed
#else
#define TO_FLOAT8(v) convert_float8(v)
#define PRODUCTS products_unsigned
#endif

// What the minimums add: sum of m * (sum of x) over a block's groups.
#if HAS_MIN
inline float CAT(FORMAT, _mins)(const float *m, __global const float *sums)
{
#if BLOCK == 256 && GROUP_LEN == 16
    float8 a = vload8(0, m) * vload8(0, sums);
    a = fma(vload8(1, m), vload8(1, sums), a);
    float4 h = a.lo + a.hi;
    return h.x + h.y + (h.z + h.w);
#elif BLOCK == 256
    float16 s = vload16(0, sums);
    float8 a = vload8(0, m) * (s.even + s.odd);
    float4 h = a.lo + a.hi;
    return h.x + h.y + (h.z + h.w);
#else
    float total = 0.0f;
    UNROLL_ALL for (uint g = 0; g < BLOCK / GROUP_LEN; g++)
    {
#if GROUP_LEN == 16
        total = fma(m[g], sums[g], total);
#else
        total = fma(m[g], sums[2 * g] + sums[2 * g + 1], total);
#endif
    }
    return total;
#endif
}
#endif

inline float CAT(FORMAT, _dot_f32)(weight_row r, uint first, uint step, uint n_blocks, __global const float *x,
                                   __global const float *sums)
{
    float8 acc = 0.0f;
    float mins = 0.0f;
    for (uint b = first; b < n_blocks; b += step) {
        float d[BLOCK / GROUP_LEN], m[BLOCK / GROUP_LEN];
        CAT(FORMAT, _scales)(r, b, d, m);
        UNROLL_ALL for (uint s = 0; s < BLOCK / 32; s++)
        {
            codes32 c = CAT(FORMAT, _codes)(r, b, s);
            __global const float *at = x + (size_t)b * BLOCK + 32 * s;
            uchar16 lo = LOW_HALF(c), hi = HIGH_HALF(c);
            float8 p = TO_FLOAT8(lo.lo) * vload8(0, at);
            p = fma(TO_FLOAT8(lo.hi), vload8(1, at), p);
#if GROUP_LEN == 16
            acc = fma(p, (float8)d[2 * s], acc);
            p = TO_FLOAT8(hi.lo) * vload8(2, at);
            p = fma(TO_FLOAT8(hi.hi), vload8(3, at), p);
            acc = fma(p, (float8)d[2 * s + 1], acc);
#else
            p = fma(TO_FLOAT8(hi.lo), vload8(2, at), p);
            p = fma(TO_FLOAT8(hi.hi), vload8(3, at), p);
            acc = fma(p, (float8)d[s], acc);
#endif
        }
#if HAS_MIN
        mins += CAT(FORMAT, _mins)(m, sums + (size_t)b * (BLOCK / 16));
#endif
    }
    return sum8(acc) + mins;
}

inline float CAT(FORMAT, _dot_i8)(weight_row r, uint first, uint step, uint n_blocks, __global const char *q,
                                  __global const float *scales, __global const float *sums)
{
    float8 acc = 0.0f;
    float mins = 0.0f;
    for (uint b = first; b < n_blocks; b += step) {
        float d[BLOCK / GROUP_LEN], m[BLOCK / GROUP_LEN];
        CAT(FORMAT, _scales)(r, b, d, m);
        UNROLL_ALL for (uint s = 0; s < BLOCK / 32; s++)
        {
            float8 p = convert_float8(PRODUCTS(CAT(FORMAT, _codes)(r, b, s), q + (size_t)b * BLOCK + 32 * s));
            float dx = scales[b * (BLOCK / 32) + s];
#if GROUP_LEN == 16
            float2 both = vload2(s, d) * dx;
            acc = fma(p, both.xxxxyyyy, acc);
#else
            acc = fma(p, (float8)(d[s] * dx), acc);
#endif
        }
#if HAS_MIN
        mins += CAT(FORMAT, _mins)(m, sums + (size_t)b * (BLOCK / 16));
#endif
    }
    return sum8(acc) + mins;
}

// How far a row goes.
inline uint CAT(FORMAT, _blocks)(uint cols) { return (cols + BLOCK - 1) / BLOCK; }

#define DECODE_32(s, y)                                                                                                \
    {                                                                                                                  \
        codes32 c = CAT(FORMAT, _codes)(r, b, s);                                                                      \
        uchar16 lo = LOW_HALF(c), hi = HIGH_HALF(c);                                                                   \
        uint g = 32 * (s) / GROUP_LEN, h = (32 * (s) + 16) / GROUP_LEN;                                                \
        vstore8(fma(TO_FLOAT8(lo.lo), (float8)d[g], (float8)m[g]), 0, y);                                              \
        vstore8(fma(TO_FLOAT8(lo.hi), (float8)d[g], (float8)m[g]), 1, y);                                              \
        vstore8(fma(TO_FLOAT8(hi.lo), (float8)d[h], (float8)m[h]), 2, y);                                              \
        vstore8(fma(TO_FLOAT8(hi.hi), (float8)d[h], (float8)m[h]), 3, y);                                              \
    }

// 32 elements, the i-th of the row.
inline void CAT(FORMAT, _decode_32)(weight_row r, uint i, NEAR_TILE float *y)
{
    float d[BLOCK / GROUP_LEN], m[BLOCK / GROUP_LEN];
    uint b = i / (BLOCK / 32);
    for (uint g = 0; g < BLOCK / GROUP_LEN; g++) m[g] = 0.0f;
    CAT(FORMAT, _scales)(r, b, d, m);
    DECODE_32(i % (BLOCK / 32), y)
}

// Elements [first, first + n) and the rest of the last block; first is a multiple of BLOCK.
inline void CAT(FORMAT, _decode_run)(weight_row r, uint first, uint n, NEAR_TILE float *y)
{
    for (uint b = first / BLOCK; b * BLOCK < first + n; b++, y += BLOCK) {
        float d[BLOCK / GROUP_LEN], m[BLOCK / GROUP_LEN];
        UNROLL_ALL for (uint g = 0; g < BLOCK / GROUP_LEN; g++) m[g] = 0.0f;
        CAT(FORMAT, _scales)(r, b, d, m);
        UNROLL_ALL for (uint s = 0; s < BLOCK / 32; s++) DECODE_32(s, y + 32 * s)
    }
}

#undef FORMAT
#undef SIGNED
#undef BLOCK
#undef BYTES
#undef GROUP_LEN
#undef HAS_MIN
#undef INT_BITS
#undef DECODE_32
#undef TO_FLOAT8
#undef PRODUCTS
#endif

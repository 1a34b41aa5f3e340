// SPDX-License-Identifier: MIT
// float16, bfloat16 and float8 bit patterns to and from float, without hardware or compiler
// support, so that every build gives the same bits. Round to nearest, ties to even.
#ifndef CLQ_BASE_HALF_H
#define CLQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t clq_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float clq_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float clq_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = h & 0x7fff;
    if (rest >= 0x7c00) return clq_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest < 0x400) return clq_from_bits(sign | clq_bits((float)rest * 0x1p-24f)); // zero and subnormals
    return clq_from_bits(sign | ((rest << 13) + (112u << 23)));
}

// Overflow gives infinity, NaN stays (quiet) NaN.
static inline uint16_t clq_f32_to_f16(float x)
{
    uint32_t u = clq_bits(x);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
    if (u < 0x38800000) {                      // below 2^-14: subnormal or zero
        // Adding 0.5 aligns the float's unit in the last place with 2^-24 and rounds to even.
        return (uint16_t)(sign | (uint16_t)(clq_bits(clq_from_bits(u) + 0.5f) - 0x3f000000));
    }
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | ((u >> 13) - (112 << 10)));
}

static inline float clq_bf16_to_f32(uint16_t b)
{
    return clq_from_bits((uint32_t)b << 16);
}

static inline uint16_t clq_f32_to_bf16(float x)
{
    uint32_t u = clq_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

// Truncates as x86's cvttss2si does: what does not fit (and NaN) becomes INT_MIN, whose low byte is
// 0. ggml's reference encoders, run on x86, have this in their bytes.
static inline int32_t clq_trunc_x86(float x)
{
    return x >= -2147483648.0f && x < 2147483648.0f ? (int32_t)x : INT32_MIN;
}

// OCP 8-bit floats. E4M3 has no infinity: 0x7f and 0xff are NaN, the largest value is 448.
float clq_f8_e4m3_to_f32(uint8_t v);
float clq_f8_e5m2_to_f32(uint8_t v);

// x rounded to a storage dtype, as a float.
static inline float clq_round_f16(float x) { return clq_f16_to_f32(clq_f32_to_f16(x)); }
static inline float clq_round_bf16(float x) { return clq_bf16_to_f32(clq_f32_to_bf16(x)); }

#endif

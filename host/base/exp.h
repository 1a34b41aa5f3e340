// SPDX-License-Identifier: MIT
// e^x without a library's: the same bits on every machine, and loops over it become vector code.
#ifndef CLQ_BASE_EXP_H
#define CLQ_BASE_EXP_H

#include "base/half.h"

// x <= 88. Relative error below 1e-7; 0 below -87, NaN of NaN.
static inline float clq_exp(float x)
{
    // x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves n in the low bits.
    float magic = x * 1.44269504f + 12582912.0f;
    float n = magic - 12582912.0f;
    float r = x - n * 0.693145752f - n * 1.42860677e-6f;
    // Taylor's series up to r^7.
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    float y = p * clq_from_bits((clq_bits(magic) << 23) + 0x3f800000); // a NaN stays one
    return clq_from_bits(clq_bits(y) & (x < -87.0f ? 0 : 0xffffffff)); // a mask, as a branch is no vector code
}

#endif

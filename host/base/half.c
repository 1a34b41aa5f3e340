// SPDX-License-Identifier: MIT
#include "base/half.h"

#include <math.h>

float clq_f8_e4m3_to_f32(uint8_t v)
{
    float sign = v & 0x80 ? -1.0f : 1.0f;
    int exponent = v >> 3 & 15, mantissa = v & 7;
    if (exponent == 15 && mantissa == 7) return NAN;
    if (exponent == 0) return sign * ldexpf((float)mantissa, -9);
    return sign * ldexpf((float)(8 + mantissa), exponent - 10);
}

float clq_f8_e5m2_to_f32(uint8_t v)
{
    return clq_f16_to_f32((uint16_t)(v << 8)); // the upper half of a float16
}

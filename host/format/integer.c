// SPDX-License-Identifier: MIT
// The integer family: codes of 2 to 8 bits with a scale (and a zero-point) per channel, tensor or
// group. See clq_type in clquant.h for the ranges and clq_type_sizes for the layout.
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "format/format.h"

// Round half to even in the default rounding mode, whose change clquant never makes.
static float round_even(float x)
{
    return rintf(x);
}

static float round_scale(clq_format_id format, float s)
{
    if (format == CLQ_F16) return clq_round_f16(s);
    if (format == CLQ_BF16) return clq_round_bf16(s);
    return s;
}

// The next larger value of the format, s >= 0 being one of its values.
static float next_scale(clq_format_id format, float s)
{
    if (format == CLQ_F16) return clq_f16_to_f32((uint16_t)(clq_f32_to_f16(s) + 1));
    if (format == CLQ_BF16) return clq_bf16_to_f32((uint16_t)(clq_f32_to_bf16(s) + 1));
    return clq_from_bits(clq_bits(s) + 1);
}

void clq_int_params(const clq_type *t, float min, float max, float *scale, int8_t *zero_point)
{
    float steps, extent, slack = 0.5f;
    if (t->symmetric) {
        extent = max > -min ? max : -min;
        steps = (float)((1 << (t->bits - 1)) - 1);
    } else {
        min = min < 0.0f ? min : 0.0f; // zero must be representable
        max = max > 0.0f ? max : 0.0f;
        extent = 0.5f * max - 0.5f * min; // halves: the sum may exceed the largest float
        steps = 0.5f * (float)((1 << t->bits) - 1);
        slack = 0.25f; // of half the range, and the zero-point's rounding moves the codes by half a step
    }
    if (!(extent > 0.0f)) {
        *scale = 0.0f;
        *zero_point = 0;
        return;
    }
    float s = round_scale(t->scale_format, extent / steps);
    if (s * (steps + slack) < extent) s = next_scale(t->scale_format, s);
    *scale = s;
    *zero_point = 0;
    if (!t->symmetric) {
        float lowest = -(float)(1 << (t->bits - 1)), highest = -lowest - 1.0f;
        float z = lowest - round_even(min / s);
        *zero_point = (int8_t)(z < lowest ? lowest : z > highest ? highest : z);
    }
}

int clq_int_code(const clq_type *t, float x, float scale, int zero_point)
{
    float highest = (float)((1 << (t->bits - 1)) - 1);
    float lowest = t->symmetric ? -highest : -highest - 1.0f;
    float q = scale != 0.0f ? round_even(x / scale) + (float)zero_point : (float)zero_point;
    q = q > lowest ? q : lowest; // NaN becomes the lowest code; its presence is counted elsewhere
    return (int)(q < highest ? q : highest);
}

void clq_pack_bits(uint32_t *words, uint64_t index, uint32_t bits, uint32_t value)
{
    uint64_t bit = index * bits;
    words[bit / 32] |= value << bit % 32;
    if (bit % 32 + bits > 32) words[bit / 32 + 1] |= value >> (32 - bit % 32);
}

uint32_t clq_unpack_bits(const uint32_t *words, uint64_t index, uint32_t bits)
{
    uint64_t bit = index * bits, low = words[bit / 32];
    if (bit % 32 + bits > 32) low |= (uint64_t)words[bit / 32 + 1] << 32;
    return (uint32_t)(low >> bit % 32) & ((1u << bits) - 1);
}

void clq_int_encode_ref(const clq_type *t, const float *x, uint64_t rows, uint64_t cols, const float *scales,
                        const int8_t *zero_points, void *codes)
{
    uint64_t groups = clq_type_groups(t, cols), per_group = cols / groups, row_bytes = clq_type_row_bytes(t, cols);
    if (t->bits < 8) memset(codes, 0, rows * row_bytes);
    for (uint64_t r = 0; r < rows; r++) {
        uint8_t *row = (uint8_t *)codes + r * row_bytes;
        for (uint64_t c = 0; c < cols; c++) {
            uint64_t g = t->granularity == CLQ_PER_TENSOR ? 0 : r * groups + c / per_group;
            int q = clq_int_code(t, x[r * cols + c], scales[g], zero_points ? zero_points[g] : 0);
            if (t->bits == 8)
                row[c] = (uint8_t)q;
            else
                clq_pack_bits((uint32_t *)(void *)row, c, t->bits, (uint32_t)(q + (1 << (t->bits - 1))));
        }
    }
}

void clq_int_decode_ref(const clq_type *t, const void *codes, uint64_t rows, uint64_t cols, const float *scales,
                        const int8_t *zero_points, float *y)
{
    uint64_t groups = clq_type_groups(t, cols), per_group = cols / groups, row_bytes = clq_type_row_bytes(t, cols);
    for (uint64_t r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)codes + r * row_bytes;
        for (uint64_t c = 0; c < cols; c++) {
            uint64_t g = t->granularity == CLQ_PER_TENSOR ? 0 : r * groups + c / per_group;
            int q = t->bits == 8 ? ((const int8_t *)row)[c]
                                 : (int)clq_unpack_bits((const uint32_t *)(const void *)row, c, t->bits) -
                                       (1 << (t->bits - 1));
            y[r * cols + c] = scales[g] * (float)(q - (zero_points ? zero_points[g] : 0));
        }
    }
}

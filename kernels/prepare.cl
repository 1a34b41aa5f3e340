// SPDX-License-Identifier: MIT
// Steps of weight-preparing methods, element by element: COLUMNS, ERROR, QUANT, ROUND (include/clquant_steps.h). C
// references with the same bits (ERROR apart): host/ops/steps.c, host/ops/scales.c.
#ifndef CLQ_PREPARE_CL
#define CLQ_PREPARE_CL
#include "nn.cl"

inline __global const float *weight_at(place at, __global const clq_step *s)
{
    __global const uchar *base =
        s->flags & CLQ_STEP_STATE_WEIGHT ? (__global const uchar *)at.state : at.weights;
    return (__global const float *)(base + s->w);
}

inline uint group_len(__global const clq_step *s) { return s->group_size ? s->group_size : s->cols; }

// The part of n things that is this group's: [*begin, *end).
inline void share_of(place at, ulong n, ulong *begin, ulong *end)
{
    *begin = n * at.group / at.n_groups;
    *end = n * (at.group + 1) / at.n_groups;
}

// ---- rounding ----

// The code of v = w / scale (+ a zero-point that is no integer). Values far outside become any other that is: rounding
// then is two additions. NaN becomes the lowest code.
inline vfloat code_of(vfloat v, vfloat zero, float lowest, float highest)
{
    v = vmax(v, (vfloat)-1024.0f);
    v = round_even(vmin(v, (vfloat)1024.0f)) + zero;
    v = vmax(v, (vfloat)lowest);
    return vmin(v, (vfloat)highest);
}

// scale rounded to its format (a clq_format_id), and the value above one that was.
#if VW == 1
#define HALF_BITS(v) float_to_half_bits(v)
#define HALF_VALUE(h) half_bits_to_float((ushort)(h))
#define BF16_ROUNDED(v) bf16_bits_to_float(float_to_bf16_bits(v))
#else
#define HALF_BITS(v) vhalf_bits(v)
#define HALF_VALUE(h) vhalf_value(h)
#define BF16_ROUNDED(v) vbf16_value(vbf16_bits(v))
#endif
inline vfloat stored_scale(vfloat v, uint format)
{
    if (format == ID_f16) return HALF_VALUE(HALF_BITS(v));
    return format == ID_bf16 ? BF16_ROUNDED(v) : v;
}

inline vfloat next_scale(vfloat v, uint format)
{
    if (format == ID_f16) return HALF_VALUE(HALF_BITS(v) + (ushort)1);
    return as_v(as_i(v) + (format == ID_bf16 ? 0x10000 : 1));
}

// clq_int_params(): scale and zero-point of the range from low <= 0 to high >= 0.
inline void params_of(vfloat low, vfloat high, uint bits, bool symmetric, uint format, vfloat *scale, vfloat *zero)
{
    float lowest = -(float)(1 << (bits - 1)), steps = symmetric ? -lowest - 1.0f : 0.5f * (float)((1 << bits) - 1);
    vfloat extent = symmetric ? vmax(high, -low) : 0.5f * high - 0.5f * low;
    vfloat v = stored_scale(extent / steps, format);
    v = v * (steps + (symmetric ? 0.5f : 0.25f)) < extent ? next_scale(v, format) : v;
    *scale = extent > 0.0f ? v : (vfloat)0.0f;
    *zero = 0.0f;
    if (symmetric) return;
    vfloat z = lowest - round_even(vmax(low / v, (vfloat)-1024.0f));
    z = vmin(vmax(z, (vfloat)lowest), (vfloat)(-lowest - 1.0f));
    *zero = extent > 0.0f ? z : (vfloat)0.0f;
}

// Loops over elements i of n: BODY for vectors of VW, TAIL for single ones.
#define ELEMENTS(n, BODY, TAIL)                                                                                        \
    {                                                                                                                  \
        uint i = VW * LID, whole = (n) / VW * VW;                                                                      \
        for (; i < whole; i += VW * LSIZE) BODY;                                                                       \
        for (i = whole + LID; i < (n); i += LSIZE) TAIL;                                                               \
    }

// QUANT of one group: v = x * f, rounded, over f. f: 0 for 1.
inline vfloat quant_value(vfloat v, vfloat scale, vfloat zero, float lowest, float highest)
{
    return scale * (code_of(v / scale, zero, lowest, highest) - zero);
}

inline void quant(place at, __global const clq_step *s NEAR_PARAM)
{
    __global const float *w = weight_at(at, s);
    bool symmetric = s->flags & CLQ_STEP_SYMMETRIC, scaled = s->in2 != CLQ_NONE;
    float highest = (float)((1 << (s->bits - 1)) - 1), lowest = symmetric ? -highest : -highest - 1.0f;
    uint n = group_len(s);
    ulong begin, end;
    share_of(at, (ulong)s->rows * s->groups, &begin, &end);
    for (ulong g = begin; g < end; g++) {
        __global const float *x = w + g * n, *f = at.state + (scaled ? s->in2 + g % s->groups * n : s->in);
        __global float *y = at.state + s->out + g * n;
        vfloat under = 0.0f, high = 0.0f, scale, zero; // under: the largest -v
        float tail_under = 0.0f, tail_high = 0.0f;
        ELEMENTS(
            n,
            {
                vfloat v = vload_f(x + i);
                if (scaled) v *= vload_f(f + i);
                under = vmax(-v, under);
                high = vmax(v, high);
            },
            {
                float v = scaled ? x[i] * f[i] : x[i];
                tail_under = vmax(-v, tail_under);
                tail_high = vmax(v, tail_high);
            })
        float most = hmax(high), least = hmax(under);
        most = GROUP_MAX(vmax(tail_high, most));
        least = -GROUP_MAX(vmax(tail_under, least));
        params_of((vfloat)least, (vfloat)most, s->bits, symmetric, ID_f32, &scale, &zero);
        if (s->flags & CLQ_STEP_GIVEN) scale = s->scale, zero = (float)s->zero_point;
        bool zeros = hmax(scale) == 0.0f;
        ELEMENTS(
            n,
            {
                vfloat v = vload_f(x + i);
                if (scaled) v *= vload_f(f + i);
                v = zeros ? (vfloat)0.0f : quant_value(v, scale, zero, lowest, highest);
                vstore_f(scaled ? v / vload_f(f + i) : v, y + i);
            },
            {
                vfloat v = scaled ? x[i] * f[i] : x[i];
                float q = zeros ? 0.0f : hmax(quant_value(v, scale, zero, lowest, highest));
                y[i] = scaled ? q / f[i] : q;
            })
    }
}

inline void round_weight(place at, __global const clq_step *s)
{
    __global const float *w = weight_at(at, s), *scales = at.state + s->in;
    __global const float *zeros = scales + (ulong)s->rows * s->groups;
    bool symmetric = s->flags & CLQ_STEP_SYMMETRIC;
    float lowest = -(float)(1 << (s->bits - 1)), highest = -lowest - 1.0f;
    uint n = group_len(s);
    ulong begin, end;
    share_of(at, (ulong)s->rows * s->groups, &begin, &end);
    for (ulong g = begin; g < end; g++) {
        __global const float *x = w + g * n;
        __global float *y = at.state + s->out + g * n;
        vfloat scale = scales[g], zero = symmetric ? 0.0f : zeros[g];
        if (scales[g] == 0.0f)
            ELEMENTS(n, vstore_f((vfloat)0.0f, y + i), y[i] = 0.0f)
        else
            ELEMENTS(n, vstore_f(quant_value(vload_f(x + i), scale, zero, lowest, highest), y + i),
                     y[i] = hmax(quant_value((vfloat)x[i], scale, zero, lowest, highest)))
    }
}

// ---- columns, errors ----

inline void columns(place at, __global const clq_step *s)
{
    uint pieces = (s->cols + PIECE - 1) / PIECE;
    __global const float *f = at.state + s->in2;
    for (uint u = at.group; u < s->tokens * pieces; u += at.n_groups) {
        uint t = u / pieces, begin = u % pieces * PIECE, end = min(begin + PIECE, s->cols);
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
        __global float *y = at.state + s->out + (size_t)t * s->out_stride;
        COLUMNS(begin, end, vstore8(vload8(0, x + i) * vload8(0, f + i), 0, y + i), y[i] = x[i] * f[i])
    }
}

inline void error_of_rows(place at, __global const clq_step *s NEAR_PARAM)
{
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *a = at.state + s->in + (size_t)t * s->in_stride;
        __global const float *b = at.state + s->in2 + (size_t)t * s->out_stride;
        float8 sums = 0.0f;
        float rest = 0.0f;
        COLUMNS(
            0, s->cols,
            {
                float8 v = vload8(0, a + i) - vload8(0, b + i);
                sums = fma(v, v, sums);
            },
            rest = fma(a[i] - b[i], a[i] - b[i], rest))
        float sum = GROUP_SUM(sum8(sums) + rest);
        if (LID == 0) at.state[s->out + t] = sum;
    }
}

#endif

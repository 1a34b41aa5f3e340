// SPDX-License-Identifier: MIT
// The steps of a forward pass that are neither products nor attention. See include/clquant_steps.h; the C references
// are in host/ops/steps.c.
#ifndef CLQ_NN_CL
#define CLQ_NN_CL
#include "int8.cl"

#define PIECE 256 // columns of a row that a group takes at a time

// f32 vectors of the weights; NULL for CLQ_NONE.
inline __global const float *vector_at(place at, ulong offset)
{
    return offset == CLQ_NONE ? 0 : (__global const float *)(at.weights + offset);
}

// exp(x) for any x, an error of 2 units in the last place: 2^n * polynomial.
inline float8 exp8(float8 x)
{
    x = fmin(fmax(x, -87.0f), 88.0f);
    float8 n = round_even(x * 1.44269504f);
    float8 r = fma(n, (float8)-0.693145752f, x);
    r = fma(n, (float8)-1.42860677e-6f, r);
    float8 p = fma(r, (float8)1.98756912e-4f, (float8)1.39819994e-3f);
    p = fma(p, r, (float8)8.33345205e-3f);
    p = fma(p, r, (float8)4.16657962e-2f);
    p = fma(p, r, (float8)1.66666657e-1f);
    p = fma(p, r, (float8)0.5f);
    p = fma(p, r * r, r + 1.0f);
    return p * as_float8((convert_int8_rtz(n) + 127) << 23);
}

inline float8 tanh8(float8 x)
{
    float8 a = fabs(x), e = exp8(-2.0f * a), big = (1.0f - e) / (1.0f + e);
    float8 s = x * x; // small values: the difference above would cancel
    float8 small =
        a * fma(s, fma(s, fma(s, (float8)-0.0539682540f, (float8)0.133333333f), (float8)-0.333333333f), (float8)1.0f);
    return copysign(a < 0.1f ? small : big, x);
}

inline float8 activate8(uint act, float8 x)
{
    if (act == CLQ_ACT_SILU) return x / (1.0f + exp8(-x));
    if (act == CLQ_ACT_GELU) return 0.5f * x * (1.0f + erf(x * 0.707106781f));
    if (act == CLQ_ACT_GELU_TANH)
        return 0.5f * x * (1.0f + tanh8(0.797884561f * x * fma(x * x, (float8)0.044715f, (float8)1.0f)));
    return fmax(x, 0.0f);
}

// Calls BODY(i) for float8s at columns i of [begin, end), then TAIL(i) for single ones.
#define COLUMNS(begin, end, BODY, TAIL)                                                                                \
    {                                                                                                                  \
        uint whole = (begin) + ((end) - (begin)) / 8 * 8;                                                              \
        for (uint i = (begin) + 8 * LID; i < whole; i += 8 * LSIZE) BODY;                                              \
        for (uint i = whole + LID; i < (end); i += LSIZE) TAIL;                                                        \
    }

inline void embed(place at, __global const clq_step *s NEAR_PARAM)
{
    __global const int *ids = (__global const int *)(at.state + s->in);
    ulong bytes = row_bytes(s);
    bool add = s->flags & CLQ_STEP_ACCUMULATE;
    uint pieces = (s->cols + PIECE - 1) / PIECE;
    for (uint u = at.group; u < s->tokens * pieces; u += at.n_groups) {
        uint t = u / pieces, begin = u % pieces * PIECE, end = min(begin + PIECE, s->cols);
        __global float *out = at.state + s->out + (size_t)t * s->cols;
        weight_row r = row_at(at, s, bytes, ids[t]);
#if WG
        for (uint i = begin + 32 * LID; i < end; i += 32 * LSIZE) {
            __local float *y = near + 33 * LID;
            decode_row(at, s, r, i, min(32u, end - i), y);
#else
        float y[PIECE];
        for (uint i = begin; i < end; i += PIECE) {
            decode_row(at, s, r, i, end - i, y);
#endif
            for (uint j = 0; i + j < end && j < (WG ? 32 : PIECE); j++)
                out[i + j] = add ? out[i + j] + s->scale * y[j] : s->scale * y[j];
        }
    }
}

inline void norm(place at, __global const clq_step *s NEAR_PARAM)
{
    __global const float *w = vector_at(at, s->w), *b = vector_at(at, s->bias);
    bool add = s->flags & CLQ_STEP_ACCUMULATE;
    for (uint r = at.group; r < s->rows; r += at.n_groups) {
        __global const float *x = at.state + s->in + (size_t)r * s->in_stride;
        __global float *y = at.state + s->out + (size_t)r * s->out_stride;
        float mean = 0.0f;
        if (s->flags & CLQ_STEP_LAYER_NORM) {
            float8 sum = 0.0f;
            float rest = 0.0f;
            COLUMNS(0, s->cols, sum += vload8(0, x + i), rest += x[i])
            mean = GROUP_SUM(sum8(sum) + rest) / (float)s->cols;
        }
        float8 squares = 0.0f;
        float rest = 0.0f;
        COLUMNS(
            0, s->cols,
            {
                float8 v = vload8(0, x + i) - mean;
                squares = fma(v, v, squares);
            },
            {
                float v = x[i] - mean;
                rest = fma(v, v, rest);
            })
        float scale = 1.0f / sqrt(GROUP_SUM(sum8(squares) + rest) / (float)s->cols + s->eps);
        COLUMNS(
            0, s->cols,
            {
                float8 v = (vload8(0, x + i) - mean) * scale;
                if (w) v *= vload8(0, w + i);
                if (b) v += vload8(0, b + i);
                if (add) v += vload8(0, y + i);
                vstore8(v, 0, y + i);
            },
            {
                float v = (x[i] - mean) * scale;
                if (w) v *= w[i];
                if (b) v += b[i];
                y[i] = add ? y[i] + v : v;
            })
    }
}

// ---- activations for products ----

// n values (32, 256) in x: codes and the scale.
inline float quantize_run(const float *x, uint n, uint mode, char *q)
{
    float8 high = 0.0f, low = 0.0f;
    for (uint i = 0; i < n; i += 8) {
        float8 v = vload8(0, x + i);
        high = fmax(high, v);
        low = fmin(low, v);
    }
    float4 h4 = fmax(high.lo, high.hi), l4 = fmin(low.lo, low.hi);
    float top = fmax(fmax(h4.x, h4.y), fmax(h4.z, h4.w)), bottom = -fmin(fmin(l4.x, l4.y), fmin(l4.z, l4.w));
    float most = fmax(top, bottom), d, id;
    if (mode == CLQ_MODE_Q8_256) {
        if (top == bottom && top > 0.0f) // as large on both sides: the first counts
            for (uint i = 0; i < n; i++)
                if (fabs(x[i]) == top) {
                    most = x[i];
                    break;
                } else
                    continue;
        else if (bottom > top)
            most = -bottom;
        id = most != 0.0f ? -127.0f / most : 0.0f;
        d = id != 0.0f ? 1.0f / id : 0.0f;
        for (uint i = 0; i < n; i += 8) {
            float8 v = fmin(round_even(vload8(0, x + i) * id), 127.0f);
            vstore8(convert_char8(convert_int8_rtz(v)), 0, q + i);
        }
        return d;
    }
    d = most / 127.0f;
    id = d != 0.0f ? 1.0f / d : 0.0f;
    if (!(id <= FLT_MAX)) id = d = 0.0f;
    for (uint i = 0; i < n; i += 8) {
        float8 v = vload8(0, x + i) * id;
        int8 c = mode == CLQ_MODE_Q8_32 ? convert_int8_rtz(v + copysign((float8)0.49999997f, v))
                                        : convert_int8_rtz(round_even(v));
        vstore8(convert_char8(c), 0, q + i);
    }
    return mode == CLQ_MODE_Q8_32 ? half_value_of(float_to_half_bits(d)) : d;
}

// The 256 columns from `first` on of a row, zeros behind it. With an integer mode also codes q and a scale for 32.
inline void prepare(place at, __global const clq_step *s, __global const float *row, uint first, float *x, char *q,
                    float *scales)
{
    uint have = min(256u, s->cols - min(first, s->cols)), whole = have / 8 * 8, i = 0;
    for (; i < whole; i += 8) vstore8(vload8(0, row + first + i), 0, x + i);
    for (; i < have; i++) x[i] = row[first + i];
    for (; i < 256; i++) x[i] = 0.0f;
    if (s->mode == CLQ_MODE_F32 && s->quant == CLQ_QUANT_NONE) return;
    uint8 most = 0;
    for (uint k = 0; k < 256; k += 8) most = max(most, as_uint8(vload8(0, x + k)) & 0x7fffffffu);
    uint4 m = max(most.lo, most.hi);
    look_for_bad(at, s, max(max(m.x, m.y), max(m.z, m.w)));
    if (s->mode == CLQ_MODE_F32) {
        uint magnitude = 0;
        for (uint k = 0; s->quant == CLQ_QUANT_TOKEN && k < s->cols; k++) magnitude = max(magnitude, MAGNITUDE(row[k]));
        quantizer z = find_quantizer(at, s, magnitude);
        for (uint k = 0; k < 256; k += 8) vstore8(z.scale * steps_of(z, vload8(0, x + k)), 0, x + k);
    } else if (s->mode == CLQ_MODE_Q8_32) {
        for (uint b = 0; b < 8; b++) scales[b] = quantize_run(x + 32 * b, 32, CLQ_MODE_Q8_32, q + 32 * b);
    } else if (s->mode == CLQ_MODE_Q8_256) {
        float d = quantize_run(x, 256, CLQ_MODE_Q8_256, q);
        for (uint b = 0; b < 8; b++) scales[b] = d;
    } else if (s->mode == CLQ_MODE_Q8_TOKEN) {
        float most = 0.0f;
        for (uint k = 0; k < s->cols; k++) most = fmax(most, fabs(row[k]));
        float d = most / 127.0f, id = d != 0.0f ? 1.0f / d : 0.0f;
        if (!(id <= FLT_MAX)) id = d = 0.0f;
        for (uint k = 0; k < 256; k += 8)
            vstore8(convert_char8(convert_int8_rtz(round_even(vload8(0, x + k) * id))), 0, q + k);
        for (uint b = 0; b < 8; b++) scales[b] = d;
    }
}

inline void prep_rows(place at, __global const clq_step *s)
{
    uint k = CLQ_PREP_K(s->cols), runs = k / 256;
    bool floats = s->mode == CLQ_MODE_F32;
    for (uint u = at.group * LSIZE + LID; u < s->tokens * runs; u += at.n_groups * LSIZE) {
        uint t = u / runs, run = u % runs;
        float x[256], scales[8];
        char q[256];
        prepare(at, s, at.state + s->in + (size_t)t * s->in_stride, run * 256, x, q, scales);
        __global float *out = at.state + s->out + (size_t)t * (floats ? k + k / 16 : k / 4 + k / 32 + k / 16);
        if (floats) {
            __global float *sums = out + k + run * 16;
            for (uint g = 0; g < 16; g++) {
                float8 a = vload8(2 * g, x), b = vload8(2 * g + 1, x);
                vstore8(a, 2 * g, out + run * 256);
                vstore8(b, 2 * g + 1, out + run * 256);
                sums[g] = sum8(a + b);
            }
        } else {
            __global float *sums = out + k / 4 + k / 32 + run * 16;
            __global char *codes = (__global char *)out + run * 256;
            for (uint b = 0; b < 8; b++) out[k / 4 + run * 8 + b] = scales[b];
            for (uint g = 0; g < 16; g++) {
                char16 c = vload16(g, q);
                int8 v = convert_int8(c.lo) + convert_int8(c.hi);
                int4 h = v.lo + v.hi;
                ((__global char16 *)codes)[g] = c;
                sums[g] = scales[g / 2] * (float)(h.x + h.y + h.z + h.w);
            }
        }
    }
}

// Panels of 16 tokens: [panel][k16][16].
inline void prep_panels(place at, __global const clq_step *s)
{
    uint k16 = (s->cols + 15) / 16 * 16, runs = (k16 + 255) / 256, panels = (s->tokens + 15) / 16;
#if WG
    for (uint u = at.group * LSIZE + LID; u < panels * runs * 16; u += at.n_groups * LSIZE) {
        uint lane = u % 16, run = u / 16 % runs, panel = u / 16 / runs, t = panel * 16 + lane,
             n = min(256u, k16 - run * 256);
        float x[256], scales[8];
        char q[256];
        __global float *out = at.state + s->out + ((size_t)panel * k16 + run * 256) * 16 + lane;
        if (t < s->tokens) prepare(at, s, at.state + s->in + (size_t)t * s->in_stride, run * 256, x, q, scales);
        for (uint i = 0; i < n; i++)
            out[i * 16] = t >= s->tokens ? 0.0f : s->mode == CLQ_MODE_F32 ? x[i] : scales[i / 32] * (float)q[i];
    }
#else
    for (uint u = at.group; u < panels * runs; u += at.n_groups) {
        uint run = u % runs, panel = u / runs, n = min(256u, k16 - run * 256);
        float x[16][256];
        for (uint lane = 0; lane < 16; lane++) {
            uint t = panel * 16 + lane;
            float scales[8];
            char q[256];
            if (t >= s->tokens) {
                for (uint i = 0; i < 256; i += 8) vstore8((float8)0.0f, 0, x[lane] + i);
                continue;
            }
            prepare(at, s, at.state + s->in + (size_t)t * s->in_stride, run * 256, x[lane], q, scales);
            if (s->mode != CLQ_MODE_F32)
                for (uint i = 0; i < 256; i += 8)
                    vstore8(scales[i / 32] * convert_float8(vload8(0, q + i)), 0, x[lane] + i);
        }
        __global float *out = at.state + s->out + ((size_t)panel * k16 + run * 256) * 16;
#define LANE_COLUMNS(k) vload8(0, x[lane + (k)] + i)
        for (uint i = 0; i < n; i += 8)
            for (uint lane = 0; lane < 16; lane += 8) TRANSPOSE_8X8(LANE_COLUMNS, out + i * 16 + lane, 16)
#undef LANE_COLUMNS
    }
#endif
}

inline void prep(place at, __global const clq_step *s NEAR_PARAM)
{
    if (s->mode == CLQ_MODE_I8)
        prep_i8(at, s NEAR_PASS);
    else if (s->tokens >= CLQ_PACKED_TOKENS)
        prep_panels(at, s);
    else
        prep_rows(at, s);
}

// ---- element by element ----

inline void rope(place at, __global const clq_step *s)
{
    uint half_dims = s->dims / 2;
    bool neox = s->flags & CLQ_STEP_NEOX;
    for (uint u = at.group; u < s->tokens * s->heads; u += at.n_groups) {
        uint t = u / s->heads, h = u % s->heads;
        __global float *x = at.state + s->in + (size_t)t * s->in_stride + h * s->head_dim;
        __global const float *table = at.state + s->in2 + (size_t)t * s->dims;
        for (uint i = LID; i < half_dims; i += LSIZE) {
            float c = table[2 * i], n = table[2 * i + 1];
            __global float *a = neox ? x + i : x + 2 * i, *b = neox ? x + i + half_dims : x + 2 * i + 1;
            float p = *a, q = *b;
            *a = p * c - q * n;
            *b = p * n + q * c;
        }
    }
}

inline void act(place at, __global const clq_step *s)
{
    uint pieces = (s->cols + PIECE - 1) / PIECE;
    bool mul = s->flags & CLQ_STEP_MUL;
    for (uint u = at.group; u < s->tokens * pieces; u += at.n_groups) {
        uint t = u / pieces, begin = u % pieces * PIECE, end = min(begin + PIECE, s->cols);
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
        __global const float *other = at.state + s->in2 + (size_t)t * s->in_stride;
        __global float *y = at.state + s->out + (size_t)t * s->cols;
        COLUMNS(
            begin, end,
            {
                float8 v = activate8(s->act, vload8(0, x + i));
                vstore8(mul ? v * vload8(0, other + i) : v, 0, y + i);
            },
            {
                float v = activate8(s->act, (float8)x[i]).s0;
                y[i] = mul ? v * other[i] : v;
            })
    }
}

inline void add(place at, __global const clq_step *s)
{
    uint pieces = (s->cols + PIECE - 1) / PIECE;
    for (uint u = at.group; u < s->tokens * pieces; u += at.n_groups) {
        uint t = u / pieces, begin = u % pieces * PIECE, end = min(begin + PIECE, s->cols);
        __global const float *x = at.state + s->in + (size_t)t * s->cols;
        __global float *y = at.state + s->out + (size_t)t * s->cols;
        COLUMNS(begin, end, vstore8(fma((float8)s->scale, vload8(0, x + i), vload8(0, y + i)), 0, y + i),
                y[i] = fma(s->scale, x[i], y[i]))
    }
}

inline void softcap(place at, __global const clq_step *s)
{
    uint pieces = (s->cols + PIECE - 1) / PIECE;
    float inverse_scale = 1.0f / s->scale;
    for (uint u = at.group; u < s->tokens * pieces; u += at.n_groups) {
        uint t = u / pieces, begin = u % pieces * PIECE, end = min(begin + PIECE, s->cols);
        __global const float *x = at.state + s->in + (size_t)t * s->cols;
        __global float *y = at.state + s->out + (size_t)t * s->cols;
        COLUMNS(begin, end, vstore8(s->scale * tanh8(inverse_scale * vload8(0, x + i)), 0, y + i),
                y[i] = s->scale * tanh8((float8)(inverse_scale * x[i])).s0)
    }
}

inline void gather(place at, __global const clq_step *s)
{
    __global const int *ids = (__global const int *)(at.state + s->in2);
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *x = at.state + s->in + (size_t)ids[t] * s->cols;
        __global float *y = at.state + s->out + (size_t)t * s->cols;
        for (uint i = LID; i < s->cols; i += LSIZE) y[i] = x[i];
    }
}

inline void scatter(place at, __global const clq_step *s)
{
    __global const int *ids = (__global const int *)(at.state + s->in2);
    __global const float *scales = at.state + s->in2 + s->tokens;
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *x = at.state + s->in + (size_t)t * s->cols;
        __global float *y = at.state + s->out + (size_t)ids[t] * s->cols;
        for (uint i = LID; i < s->cols; i += LSIZE) y[i] = fma(scales[t], x[i], y[i]);
    }
}

#endif

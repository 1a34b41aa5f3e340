// SPDX-License-Identifier: MIT
#include "ops/int8.h"

#include <float.h>
#include <math.h>
#include <string.h>

// ---- activations ----

bool clq_any_bad(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= FLT_MAX)) return true;
    return false;
}

static clq_quant_params token_params(const float *x, uint32_t n)
{
    float most = 0;
    for (uint32_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float scale = most / 127.0f;
    return (clq_quant_params){scale >= FLT_MIN && scale <= FLT_MAX ? scale : 0, 0};
}

static clq_quant_params tensor_params(const float *ranges, uint32_t tokens)
{
    float low = 0, high = 0;
    for (uint32_t t = 0; t < tokens; t++) {
        low = ranges[2 * t] < low ? ranges[2 * t] : low;
        high = ranges[2 * t + 1] > high ? ranges[2 * t + 1] : high;
    }
    float scale = (high - low) / 255.0f;
    if (!(scale >= FLT_MIN && scale <= FLT_MAX)) return (clq_quant_params){0, 0};
    float zero = rintf(-low / scale);
    return (clq_quant_params){scale, (int32_t)(zero < 255 ? zero : 255) - 128};
}

clq_quant_params clq_quant_params_ref(const clq_step *s, const float *state, uint32_t t)
{
    switch (s->quant) {
    case CLQ_QUANT_TOKEN: return token_params(state + s->in + (uint64_t)t * s->in_stride, s->cols);
    case CLQ_QUANT_TENSOR: return tensor_params(state + s->in2, s->tokens);
    default: return (clq_quant_params){s->scale, s->zero_point};
    }
}

int32_t clq_quant_code(const clq_step *s, clq_quant_params p, float x)
{
    if (p.scale == 0) return p.zero_point;
    float low = (float)((s->quant == CLQ_QUANT_TOKEN ? -127 : -128) - p.zero_point), high = (float)(127 - p.zero_point);
    float y = x / p.scale;
    y = y > low ? y : low; // and NaN
    return (int32_t)rintf(y < high ? y : high) + p.zero_point;
}

void clq_i8_prep_ref(const clq_step *s, float *state, uint64_t begin, uint64_t end)
{
    uint32_t k256 = CLQ_PREP_K(s->cols), k16 = (s->cols + 15) / 16 * 16, m16 = (s->tokens + 15) / 16 * 16;
    bool packed = s->tokens >= CLQ_PACKED_TOKENS;
    for (uint64_t t = begin; t < end; t++) {
        bool there = t < s->tokens; // else a lane of a tile without a token
        const float *x = state + s->in + t * s->in_stride;
        clq_quant_params p = {0};
        if (there) p = clq_quant_params_ref(s, state, (uint32_t)t);
        clq_i8_token token = {.scale = p.scale, .zero_point = p.zero_point};
        float *out = state + s->out;
        if (packed) {
            int16_t *codes = (int16_t *)(void *)out + t / 16 * 16 * k16 + t % 16 * 2;
            for (uint32_t i = 0; i < k16; i++) {
                int32_t q = there && i < s->cols ? clq_quant_code(s, p, x[i]) : 0;
                codes[(uint64_t)(i / 2) * 32 + i % 2] = (int16_t)q;
                token.sum += q;
            }
            memcpy(out + (uint64_t)m16 * k16 / 2 + t * 4, &token, sizeof token);
            continue;
        }
        int8_t *codes = (int8_t *)(void *)(out + t * (k256 / 4 + 4));
        for (uint32_t i = 0; i < k256; i++) {
            int32_t q = i < s->cols ? clq_quant_code(s, p, x[i]) : 0;
            codes[i] = (int8_t)q;
            token.sum += q;
        }
        memcpy(codes + k256, &token, sizeof token);
    }
}

// ---- products ----

// One product, from the sums of codes.
static float product(const clq_i8_token *x, int32_t acc, float scale, int32_t zero_point, int32_t sum, uint32_t cols)
{
    // Fits into 32 bits in the end, but not on the way.
    uint32_t v = (uint32_t)acc - (uint32_t)x->zero_point * (uint32_t)sum - (uint32_t)zero_point * (uint32_t)x->sum +
                 cols * (uint32_t)x->zero_point * (uint32_t)zero_point;
    return (float)(int32_t)v * (x->scale * scale);
}

void clq_i8_linear_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end)
{
    uint32_t k256 = CLQ_PREP_K(s->cols), k16 = (s->cols + 15) / 16 * 16, m16 = (s->tokens + 15) / 16 * 16;
    const float *scales = (const float *)(const void *)(weights + s->scales), *in = state + s->in;
    const int8_t *zeros = s->zero_points == CLQ_NONE ? NULL : (const int8_t *)(weights + s->zero_points);
    const int32_t *sums = (const int32_t *)(const void *)(weights + s->code_sums);
    const float *bias = s->bias == CLQ_NONE ? NULL : (const float *)(const void *)(weights + s->bias);
    bool packed = s->tokens >= CLQ_PACKED_TOKENS;
    for (uint64_t r = begin; r < end; r++) {
        const int8_t *w = (const int8_t *)(weights + s->w) + r * s->cols;
        uint64_t g = s->groups ? r : 0;
        for (uint64_t t = 0; t < s->tokens; t++) {
            clq_i8_token token;
            int32_t acc = 0;
            if (packed) {
                const int16_t *q = (const int16_t *)(const void *)in + t / 16 * 16 * k16 + t % 16 * 2;
                for (uint32_t i = 0; i < s->cols; i++) acc += w[i] * q[(uint64_t)(i / 2) * 32 + i % 2];
                memcpy(&token, in + (uint64_t)m16 * k16 / 2 + t * 4, sizeof token);
            } else {
                const int8_t *q = (const int8_t *)(const void *)(in + t * (k256 / 4 + 4));
                for (uint32_t i = 0; i < s->cols; i++) acc += w[i] * q[i];
                memcpy(&token, q + k256, sizeof token);
            }
            float y = product(&token, acc, scales[g], zeros ? zeros[g] : 0, sums[r], s->cols);
            if (bias) y += bias[r];
            float *out = state + s->out + t * s->out_stride + r;
            *out = s->flags & CLQ_STEP_ACCUMULATE ? *out + y : y;
        }
    }
}

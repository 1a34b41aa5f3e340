// SPDX-License-Identifier: MIT
#include "ops/steps.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/threads.h"
#include "ops/int8.h"
#include "ops/observe.h"
#include "ops/scales.h"

enum { MAX_DECODED = 256 }; // elements a weight's decoder makes at a time: one block

typedef struct {
    const clq_step *s;
    const clq_step_memory *m;
    _Atomic bool *failed; // an allocation did
} job;

static const int32_t *state_ids(const job *j, uint64_t offset)
{
    return (const int32_t *)(const void *)(j->m->state + offset);
}

// ---- weights ----

static void decode_int(const clq_step *s, const uint8_t *weights, uint64_t row, float *y)
{
    const uint8_t *codes = weights + s->w;
    const float *scales = (const float *)(const void *)(weights + s->scales);
    const int8_t *zero_points = s->zero_points == CLQ_NONE ? NULL : (const int8_t *)(weights + s->zero_points);
    const int32_t *index =
        s->group_index == CLQ_NONE ? NULL : (const int32_t *)(const void *)(weights + s->group_index);
    uint64_t row_bytes = s->bits == 8 ? s->cols : ((uint64_t)s->cols * s->bits + 31) / 32 * 4;
    uint64_t first = s->groups ? row * s->groups : 0;
    uint32_t size = s->group_size ? s->group_size : s->cols;
    for (uint32_t i = 0; i < s->cols; i++) {
        uint64_t g = first + (index ? (uint64_t)index[i] : s->groups ? i / size : 0);
        const uint8_t *r = codes + row * row_bytes;
        int q = s->bits == 8
                    ? (int8_t)r[i]
                    : (int)clq_unpack_bits((const uint32_t *)(const void *)r, i, s->bits) - (1 << (s->bits - 1));
        y[i] = scales[g] * (float)(q - (zero_points ? zero_points[g] : 0));
    }
}

static void decode_row(const clq_step *s, const uint8_t *weights, uint64_t row, float *y)
{
    if (s->format == CLQ_INT) {
        decode_int(s, weights, row, y);
        return;
    }
    const clq_format *f = clq_format_row((clq_format_id)s->format);
    uint64_t n_blocks = s->cols / f->info.block_elements;
    f->decode_ref(weights + s->w + row * n_blocks * f->info.block_bytes, n_blocks, y);
}

// ---- activations for products ----

uint64_t clq_prep_floats(uint32_t tokens, uint32_t cols, uint32_t mode)
{
    uint64_t k = CLQ_PREP_K((uint64_t)cols), m16 = ((uint64_t)tokens + 15) / 16 * 16, k16 = (cols + 15u) / 16 * 16;
    if (clq_step_packed(tokens)) return mode == CLQ_MODE_I8 ? m16 * k16 / 2 + 4 * m16 : m16 * k16;
    if (mode == CLQ_MODE_I8) return tokens * (k / 4 + 4);
    return tokens * (mode == CLQ_MODE_F32 ? k + k / 16 : k / 4 + k / 32 + k / 16);
}

uint32_t clq_step_int8_mode(clq_format_id format)
{
    if (format == CLQ_INT) return CLQ_MODE_Q8_TOKEN;
    const clq_format *f = clq_format_row(format);
    if (format == CLQ_F32 || format == CLQ_F16 || format == CLQ_BF16) return CLQ_MODE_F32;
    return f->info.block_elements == 256 ? CLQ_MODE_Q8_256 : CLQ_MODE_Q8_32;
}

bool clq_step_takes_i8(const clq_type *type, uint64_t cols)
{
    return type->format == CLQ_INT && type->bits == 8 && type->granularity != CLQ_PER_GROUP && cols <= CLQ_I8_COLS;
}

// Codes of n values (one stretch that shares a scale) and the scale.
static float quantize_stretch(const float *x, uint32_t n, uint32_t mode, int8_t *q)
{
    float most = 0, signed_most = 0;
    for (uint32_t i = 0; i < n; i++)
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            signed_most = x[i];
        }
    if (!(most > 0)) {
        memset(q, 0, n);
        return 0;
    }
    if (mode == CLQ_MODE_Q8_256) {
        float id = -127.0f / signed_most;
        for (uint32_t i = 0; i < n; i++) {
            float v = rintf(id * x[i]);
            q[i] = (int8_t)(v > 127 ? 127 : v);
        }
        return 1.0f / id;
    }
    float d = most / 127.0f, id = d != 0 ? 1.0f / d : 0;
    if (!(id <= FLT_MAX)) { // below the normal floats
        memset(q, 0, n);
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) q[i] = (int8_t)(mode == CLQ_MODE_Q8_32 ? roundf(x[i] * id) : rintf(x[i] * id));
    return mode == CLQ_MODE_Q8_32 ? clq_f16_to_f32(clq_f32_to_f16(d)) : d;
}

// A value that is not finite in any row: the step's tag goes to the status word, unless one stands there.
static void look_for_bad(const clq_step *s, float *state)
{
    uint32_t word;
    if (s->tag == 0 || (s->mode == CLQ_MODE_F32 && s->quant == CLQ_QUANT_NONE)) return;
    memcpy(&word, state + s->status, sizeof word);
    for (uint32_t t = 0; t < s->tokens && word == 0; t++)
        if (clq_any_bad(state + s->in + (uint64_t)t * s->in_stride, s->cols)) word = s->tag;
    memcpy(state + s->status, &word, sizeof word);
}

static void prep_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    if (s->mode == CLQ_MODE_I8) {
        clq_i8_prep_ref(s, j->m->state, begin, end);
        return;
    }
    uint32_t k = CLQ_PREP_K(s->cols), k16 = (s->cols + 15) / 16 * 16;
    uint32_t stretch = s->mode == CLQ_MODE_Q8_32 ? 32 : s->mode == CLQ_MODE_Q8_256 ? 256 : k;
    bool packed = clq_step_packed(s->tokens);
    float *x = calloc(k, sizeof *x);
    int8_t *q = calloc(k, 1);
    float *d = calloc(k / 32, sizeof *d);
    for (uint64_t t = begin; x && q && d && t < end; t++) {
        if (t < s->tokens)
            memcpy(x, j->m->state + s->in + t * s->in_stride, s->cols * sizeof *x);
        else
            memset(x, 0, s->cols * sizeof *x); // lanes of a tile without a token
        if (t < s->tokens && s->mode == CLQ_MODE_F32 && s->quant != CLQ_QUANT_NONE) {
            clq_quant_params p = clq_quant_params_ref(s, j->m->state, (uint32_t)t);
            for (uint32_t i = 0; i < s->cols; i++)
                x[i] = p.scale * (float)(clq_quant_code(s, p, x[i]) - p.zero_point);
        }
        if (s->mode != CLQ_MODE_F32)
            for (uint32_t i = 0; i < k; i += stretch) {
                float scale = quantize_stretch(x + i, stretch, s->mode, q + i);
                for (uint32_t b = i / 32; b < (i + stretch) / 32; b++) d[b] = scale;
            }
        float *out = j->m->state + s->out;
        if (packed) {
            out += t / 16 * 16 * k16 + t % 16;
            for (uint32_t i = 0; i < k16; i++)
                out[(uint64_t)i * 16] = s->mode == CLQ_MODE_F32 ? x[i] : d[i / 32] * (float)q[i];
        } else if (s->mode == CLQ_MODE_F32) {
            out += t * (k + k / 16);
            memcpy(out, x, k * sizeof *x);
            for (uint32_t i = 0; i < k / 16; i++) {
                float sum = 0;
                for (uint32_t e = 0; e < 16; e++) sum += x[i * 16 + e];
                out[k + i] = sum;
            }
        } else {
            out += t * (k / 4 + k / 32 + k / 16);
            memcpy(out, q, k);
            memcpy(out + k / 4, d, k / 32 * sizeof *d);
            for (uint32_t i = 0; i < k / 16; i++) {
                int sum = 0;
                for (uint32_t e = 0; e < 16; e++) sum += q[i * 16 + e];
                out[k / 4 + k / 32 + i] = d[i / 2] * (float)sum;
            }
        }
    }
    if (!x || !q || !d) *j->failed = true;
    free(x);
    free(q);
    free(d);
}

// Element i of token t of a prepared input.
static float prepared(const clq_step *s, const float *in, uint64_t t, uint32_t i)
{
    uint64_t k = CLQ_PREP_K((uint64_t)s->cols), k16 = (s->cols + 15u) / 16 * 16;
    if (clq_step_packed(s->tokens)) return in[t / 16 * 16 * k16 + (uint64_t)i * 16 + t % 16];
    if (s->mode == CLQ_MODE_F32) return in[t * (k + k / 16) + i];
    in += t * (k / 4 + k / 32 + k / 16);
    return in[k / 4 + i / 32] * (float)((const int8_t *)(const void *)in)[i];
}

static void linear_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    const float *in = j->m->state + s->in;
    if (s->mode == CLQ_MODE_I8) {
        clq_i8_linear_ref(s, j->m->weights, j->m->state, begin, end);
        return;
    }
    const float *bias = s->bias == CLQ_NONE ? NULL : (const float *)(const void *)(j->m->weights + s->bias);
    const uint8_t *weights = s->flags & CLQ_STEP_STATE_WEIGHT ? (const uint8_t *)j->m->state : j->m->weights;
    float *w = malloc((s->cols + MAX_DECODED) * sizeof *w);
    for (uint64_t r = begin; w && r < end; r++) {
        decode_row(s, weights, r, w);
        for (uint64_t t = 0; t < s->tokens; t++) {
            double sum = 0;
            for (uint32_t i = 0; i < s->cols; i++) sum += (double)w[i] * prepared(s, in, t, i);
            float *out = j->m->state + s->out + t * s->out_stride + r;
            float y = (float)sum + (bias ? bias[r] : 0);
            *out = s->flags & CLQ_STEP_ACCUMULATE ? *out + y : y;
        }
    }
    if (!w) *j->failed = true;
    free(w);
}

// ---- rows ----

static void embed_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    float *w = malloc((s->cols + MAX_DECODED) * sizeof *w);
    for (uint64_t t = begin; w && t < end; t++) {
        float *out = j->m->state + s->out + t * s->cols;
        decode_row(s, j->m->weights, (uint64_t)state_ids(j, s->in)[t], w);
        for (uint32_t i = 0; i < s->cols; i++) out[i] = (s->flags & CLQ_STEP_ACCUMULATE ? out[i] : 0) + s->scale * w[i];
    }
    if (!w) *j->failed = true;
    free(w);
}

static void norm_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    const float *w = s->w == CLQ_NONE ? NULL : (const float *)(const void *)(j->m->weights + s->w);
    const float *b = s->bias == CLQ_NONE ? NULL : (const float *)(const void *)(j->m->weights + s->bias);
    for (uint64_t r = begin; r < end; r++) {
        const float *x = j->m->state + s->in + r * s->in_stride;
        float *y = j->m->state + s->out + r * s->out_stride;
        double mean = 0, squares = 0;
        if (s->flags & CLQ_STEP_LAYER_NORM) {
            for (uint32_t i = 0; i < s->cols; i++) mean += x[i];
            mean /= s->cols;
        }
        for (uint32_t i = 0; i < s->cols; i++) squares += (x[i] - mean) * (x[i] - mean);
        double scale = 1 / sqrt(squares / s->cols + s->eps);
        for (uint32_t i = 0; i < s->cols; i++) {
            float v = (float)((x[i] - mean) * scale) * (w ? w[i] : 1) + (b ? b[i] : 0);
            y[i] = s->flags & CLQ_STEP_ACCUMULATE ? y[i] + v : v;
        }
    }
}

static void rope_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    uint32_t half = s->dims / 2;
    for (uint64_t t = begin; t < end; t++)
        for (uint32_t h = 0; h < s->heads; h++) {
            float *x = j->m->state + s->in + t * s->in_stride + h * s->head_dim;
            const float *table = j->m->state + s->in2 + t * s->dims;
            for (uint32_t i = 0; i < half; i++) {
                float *a = s->flags & CLQ_STEP_NEOX ? &x[i] : &x[2 * i];
                float *b = s->flags & CLQ_STEP_NEOX ? &x[i + half] : &x[2 * i + 1];
                float p = *a, q = *b, c = table[2 * i], n = table[2 * i + 1];
                *a = p * c - q * n;
                *b = p * n + q * c;
            }
        }
}

static float activate(uint32_t act, float x)
{
    switch (act) {
    case CLQ_ACT_SILU: return (float)(x / (1 + exp(-(double)x)));
    case CLQ_ACT_GELU: return (float)(0.5 * x * (1 + erf(x * 0.70710678118654752440)));
    case CLQ_ACT_GELU_TANH: return (float)(0.5 * x * (1 + tanh(0.79788456080286535588 * x * (1 + 0.044715 * x * x))));
    default: return x > 0 ? x : 0;
    }
}

static void act_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t t = begin; t < end; t++)
        for (uint32_t i = 0; i < s->cols; i++) {
            float y = activate(s->act, j->m->state[s->in + t * s->in_stride + i]);
            if (s->flags & CLQ_STEP_MUL) y *= j->m->state[s->in2 + t * s->in_stride + i];
            j->m->state[s->out + t * s->cols + i] = y;
        }
}

static void add_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t i = begin * s->cols; i < end * s->cols; i++)
        j->m->state[s->out + i] += s->scale * j->m->state[s->in + i];
}

static void softcap_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t i = begin * s->cols; i < end * s->cols; i++)
        j->m->state[s->out + i] = s->scale * (float)tanh((double)j->m->state[s->in + i] / s->scale);
}

static void gather_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t t = begin; t < end; t++)
        memcpy(j->m->state + s->out + t * s->cols, j->m->state + s->in + (uint64_t)state_ids(j, s->in2)[t] * s->cols,
               s->cols * sizeof(float));
}

static void scatter_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t t = begin; t < end; t++) {
        float *out = j->m->state + s->out + (uint64_t)state_ids(j, s->in2)[t] * s->cols;
        float scale = j->m->state[s->in2 + s->tokens + t];
        for (uint32_t i = 0; i < s->cols; i++) out[i] += scale * j->m->state[s->in + t * s->cols + i];
    }
}

// ---- preparing weights ----

static void columns_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t t = begin; t < end; t++)
        for (uint32_t i = 0; i < s->cols; i++)
            j->m->state[s->out + t * s->out_stride + i] =
                j->m->state[s->in + t * s->in_stride + i] * j->m->state[s->in2 + i];
}

static void error_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    for (uint64_t t = begin; t < end; t++) {
        const float *a = j->m->state + s->in + t * s->in_stride, *b = j->m->state + s->in2 + t * s->out_stride;
        double sum = 0;
        for (uint32_t i = 0; i < s->cols; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        j->m->state[s->out + t] = (float)sum;
    }
}

static void weight_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    switch (j->s->kind) {
    case CLQ_STEP_QUANT: clq_quant_ref(j->s, j->m->weights, j->m->state, begin, end); break;
    case CLQ_STEP_ROUND: clq_round_ref(j->s, j->m->weights, j->m->state, begin, end); break;
    case CLQ_STEP_GPTQ: clq_gptq_ref(j->s, j->m->state, begin, end); break;
    case CLQ_STEP_SCALES:
        if (!clq_scales_ref(j->s, j->m->weights, j->m->state, begin, end)) *j->failed = true;
        break;
    }
}

// ---- attention ----

uint64_t clq_cache_bytes(clq_format_id format, uint32_t head_dim)
{
    const clq_format_info *f = &clq_format_row(format)->info;
    return (uint64_t)head_dim / f->block_elements * f->block_bytes;
}

static void store_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    const clq_format *f = clq_format_row((clq_format_id)s->cache_format);
    uint64_t bytes = clq_cache_bytes((clq_format_id)s->cache_format, s->head_dim);
    for (uint64_t t = begin; t < end; t++)
        for (uint32_t h = 0; h < s->heads; h++)
            f->encode_ref(j->m->state + s->in + t * s->in_stride + h * s->head_dim, NULL,
                          s->head_dim / f->info.block_elements,
                          j->m->cache + s->cache + ((uint64_t)h * s->positions + s->position + t) * bytes);
}

static void attend_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const job *j = ctx;
    const clq_step *s = j->s;
    const clq_format *f = clq_format_row((clq_format_id)s->cache_format);
    uint64_t bytes = clq_cache_bytes((clq_format_id)s->cache_format, s->head_dim);
    uint32_t n_blocks = s->head_dim / f->info.block_elements;
    float *row = malloc(s->head_dim * sizeof *row);
    double *p = malloc(s->keys * sizeof *p), *sum = malloc(s->head_dim * sizeof *sum);
    for (uint64_t u = begin; row && p && sum && u < end; u++) {
        uint64_t t = u / s->heads, h = u % s->heads, kv = h / (s->heads / s->kv_heads);
        const float *q = j->m->state + s->in + t * s->in_stride + h * s->head_dim;
        float *out = j->m->state + s->out + t * s->heads * s->head_dim + h * s->head_dim;
        uint32_t at = s->position + (uint32_t)t, first = 0, last = s->keys;
        if (s->flags & CLQ_STEP_CAUSAL)
            last = at + 1;
        else if (s->window && at + s->window < last)
            last = at + s->window;
        if (s->window && at + 1 > s->window) first = at + 1 - s->window;
        double most = -INFINITY, total = 0;
        for (uint32_t k = first; k < last; k++) {
            f->decode_ref(j->m->cache + s->cache + (kv * s->positions + k) * bytes, n_blocks, row);
            double dot = 0;
            for (uint32_t i = 0; i < s->head_dim; i++) dot += (double)q[i] * row[i];
            p[k] = dot * s->scale;
            if (s->softcap > 0) p[k] = s->softcap * tanh(p[k] / s->softcap);
            if (p[k] > most) most = p[k];
        }
        memset(sum, 0, s->head_dim * sizeof *sum);
        for (uint32_t k = first; k < last; k++) {
            f->decode_ref(j->m->cache + s->cache2 + (kv * s->positions + k) * bytes, n_blocks, row);
            double e = exp(p[k] - most);
            total += e;
            for (uint32_t i = 0; i < s->head_dim; i++) sum[i] += e * row[i];
        }
        for (uint32_t i = 0; i < s->head_dim; i++) out[i] = (float)(sum[i] / total);
    }
    if (!row || !p || !sum) *j->failed = true;
    free(row);
    free(p);
    free(sum);
}

bool clq_step_run_ref(uint32_t threads, const clq_step *s, const clq_step_memory *memory)
{
    _Atomic bool failed = false;
    job j = {s, memory, &failed};
    switch (s->kind) {
    case CLQ_STEP_EMBED: clq_parallel(threads, s->tokens, 1, embed_rows, &j); break;
    case CLQ_STEP_NORM: clq_parallel(threads, s->rows, 4, norm_rows, &j); break;
    case CLQ_STEP_PREP:
        look_for_bad(s, memory->state);
        clq_parallel(threads, clq_step_packed(s->tokens) ? (s->tokens + 15) / 16 * 16 : s->tokens, 1, prep_rows, &j);
        break;
    case CLQ_STEP_LINEAR: clq_parallel(threads, s->rows, 16, linear_rows, &j); break;
    case CLQ_STEP_ROPE: clq_parallel(threads, s->tokens, 4, rope_rows, &j); break;
    case CLQ_STEP_STORE: clq_parallel(threads, s->tokens, 4, store_rows, &j); break;
    case CLQ_STEP_ATTEND: clq_parallel(threads, (uint64_t)s->tokens * s->heads, 1, attend_rows, &j); break;
    case CLQ_STEP_ACT: clq_parallel(threads, s->tokens, 1, act_rows, &j); break;
    case CLQ_STEP_ADD: clq_parallel(threads, s->tokens, 8, add_rows, &j); break;
    case CLQ_STEP_GATHER: clq_parallel(threads, s->tokens, 8, gather_rows, &j); break;
    case CLQ_STEP_SCATTER: clq_parallel(threads, s->tokens, 8, scatter_rows, &j); break;
    case CLQ_STEP_SOFTCAP: clq_parallel(threads, s->tokens, 1, softcap_rows, &j); break;
    case CLQ_STEP_RANGE: clq_range_ref(s, memory->state); break;
    case CLQ_STEP_OBSERVE: clq_observe_ref(s, memory->state); break;
    case CLQ_STEP_GRAM: return clq_gram_ref(threads, s, memory->state);
    case CLQ_STEP_COLUMNS: clq_parallel(threads, s->tokens, 1, columns_rows, &j); break;
    case CLQ_STEP_ERROR: clq_parallel(threads, s->tokens, 1, error_rows, &j); break;
    case CLQ_STEP_QUANT:
    case CLQ_STEP_ROUND:
    case CLQ_STEP_SCALES:
    case CLQ_STEP_GPTQ: clq_parallel(threads, s->rows, 1, weight_rows, &j); break;
    }
    return !failed;
}

// SPDX-License-Identifier: MIT
// The cache of keys and values, and attention over it with a running softmax: scores are never stored but for one block
// of keys. See STORE and ATTEND in include/clquant_steps.h.
#ifndef CLQ_ATTEND_CL
#define CLQ_ATTEND_CL
#include "nn.cl"

#define MAX_HEAD_DIM 512
#define KEY_BLOCK 32

#define CACHE_F32 0
#define CACHE_F16 1 // the formats' numbers; others are q8_0

inline size_t vector_bytes(__global const clq_step *s)
{
    return s->cache_format == CACHE_F32   ? s->head_dim * 4u
           : s->cache_format == CACHE_F16 ? s->head_dim * 2u
                                          : s->head_dim / 32 * 34u;
}

inline void store(place at, __global const clq_step *s)
{
    size_t bytes = vector_bytes(s);
    for (uint u = at.group; u < s->tokens * s->heads; u += at.n_groups) {
        uint t = u / s->heads, h = u % s->heads;
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride + h * s->head_dim;
        __global uchar *to = at.cache + s->cache + ((size_t)h * s->positions + s->position + t) * bytes;
        if (s->cache_format == CACHE_F32) {
            for (uint i = LID; i < s->head_dim; i += LSIZE) ((__global float *)to)[i] = x[i];
        } else if (s->cache_format == CACHE_F16) {
            for (uint i = LID; i < s->head_dim; i += LSIZE) ((__global ushort *)to)[i] = float_to_half_bits(x[i]);
        } else {
            for (uint b = LID; b < s->head_dim / 32; b += LSIZE) {
                float own[32];
                char q[32];
                for (uint i = 0; i < 32; i += 8) vstore8(vload8(0, x + 32 * b + i), 0, own + i);
                float d = quantize_run(own, 32, CLQ_MODE_Q8_32, q);
                *(__global ushort *)(to + 34 * b) = float_to_half_bits(d);
                for (uint i = 0; i < 32; i++) ((__global char *)to)[34 * b + 2 + i] = q[i];
            }
        }
    }
}

// Eight values of a cached vector, from i on.
inline float8 cached8(__global const clq_step *s, __global const uchar *p, uint i)
{
    if (s->cache_format == CACHE_F32) return vload8(0, (__global const float *)p + i);
    if (s->cache_format == CACHE_F16) return FLOAT8_F16((__global const ushort *)p + i);
    __global const uchar *block = p + i / 32 * 34;
    return half_at(block) * convert_float8(vload8(0, (__global const char *)block + 2 + i % 32));
}

// The keys that the query of token t sees.
inline uint first_key(__global const clq_step *s, uint t)
{
    uint here = s->position + t + 1;
    return s->window && here > s->window ? here - s->window : 0;
}
inline uint end_key(__global const clq_step *s, uint t)
{
    uint here = s->position + t;
    if (s->flags & CLQ_STEP_CAUSAL) return here + 1;
    return s->window ? min(s->keys, here + s->window) : s->keys;
}

inline float8 cap8(__global const clq_step *s, float8 v)
{
    return s->softcap > 0.0f ? s->softcap * tanh8(v / s->softcap) : v;
}

#if !WG
// One query: lanes are dimensions.
inline void attend_one(place at, __global const clq_step *s, uint t, uint h)
{
    size_t bytes = vector_bytes(s);
    uint kv = h / (s->heads / s->kv_heads), dim = s->head_dim, last = end_key(s, t);
    __global const float *query = at.state + s->in + (size_t)t * s->in_stride + h * dim;
    __global const uchar *keys = at.cache + s->cache + (size_t)kv * s->positions * bytes;
    __global const uchar *values = at.cache + s->cache2 + (size_t)kv * s->positions * bytes;
    float q[MAX_HEAD_DIM], sum[MAX_HEAD_DIM], p[KEY_BLOCK], most = -INFINITY, total = 0.0f;
    for (uint i = 0; i < dim; i += 8) {
        vstore8(vload8(0, query + i) * s->scale, 0, q + i);
        vstore8((float8)0.0f, 0, sum + i);
    }
    for (uint first = first_key(s, t); first < last; first += KEY_BLOCK) {
        uint n = min((uint)KEY_BLOCK, last - first);
        float block_most = -INFINITY;
        for (uint k = 0; k < n; k++) {
            __global const uchar *key = keys + (first + k) * bytes;
            float8 dot8 = 0.0f;
            for (uint i = 0; i < dim; i += 8) dot8 = fma(cached8(s, key, i), vload8(0, q + i), dot8);
            p[k] = sum8(dot8);
        }
        for (uint k = n; k < KEY_BLOCK; k++) p[k] = -INFINITY;
        for (uint k = 0; k < KEY_BLOCK; k += 8) {
            float8 v = cap8(s, vload8(0, p + k));
            for (uint e = 0; e < 8; e++)
                if (k + e < n) block_most = fmax(block_most, ((float *)&v)[e]);
            vstore8(v, 0, p + k);
        }
        if (block_most > most) {
            float shrink = most == -INFINITY ? 0.0f : exp8((float8)(most - block_most)).s0;
            total *= shrink;
            for (uint i = 0; i < dim; i += 8) vstore8(vload8(0, sum + i) * shrink, 0, sum + i);
            most = block_most;
        }
        for (uint k = 0; k < KEY_BLOCK; k += 8) vstore8(exp8(vload8(0, p + k) - most), 0, p + k);
        for (uint k = 0; k < n; k++) {
            __global const uchar *value = values + (first + k) * bytes;
            total += p[k];
            for (uint i = 0; i < dim; i += 8)
                vstore8(fma(cached8(s, value, i), (float8)p[k], vload8(0, sum + i)), 0, sum + i);
        }
    }
    __global float *out = at.state + s->out + ((size_t)t * s->heads + h) * dim;
    for (uint i = 0; i < dim; i += 8) vstore8(vload8(0, sum + i) / total, 0, out + i);
}

// Sixteen queries of a head: lanes are queries.
inline void attend_16(place at, __global const clq_step *s, uint t0, uint h)
{
    size_t bytes = vector_bytes(s);
    uint kv = h / (s->heads / s->kv_heads), dim = s->head_dim, n_tokens = min(16u, s->tokens - t0);
    __global const uchar *keys = at.cache + s->cache + (size_t)kv * s->positions * bytes;
    __global const uchar *values = at.cache + s->cache2 + (size_t)kv * s->positions * bytes;
    float q[MAX_HEAD_DIM * 16], sum[MAX_HEAD_DIM * 16], block[KEY_BLOCK * MAX_HEAD_DIM], p[KEY_BLOCK * 16];
    int first_of[16], end_of[16];
    uint first = 0xffffffff, last = 0;
    for (uint lane = 0; lane < 16; lane++) {
        uint t = t0 + min(lane, n_tokens - 1); // lanes without a token repeat the last
        __global const float *query = at.state + s->in + (size_t)t * s->in_stride + h * dim;
        for (uint i = 0; i < dim; i++) q[i * 16 + lane] = query[i] * s->scale;
        first_of[lane] = first_key(s, t);
        end_of[lane] = end_key(s, t);
        first = min(first, (uint)first_of[lane]);
        last = max(last, (uint)end_of[lane]);
    }
    for (uint i = 0; i < dim * 16; i += 8) vstore8((float8)0.0f, 0, sum + i);
    int16 from = vload16(0, first_of), to = vload16(0, end_of);
    float16 most = -INFINITY, total = 0.0f;
    for (; first < last; first += KEY_BLOCK) {
        uint n = min((uint)KEY_BLOCK, last - first);
        for (uint k = 0; k < n; k++)
            for (uint i = 0; i < dim; i += 8)
                vstore8(cached8(s, keys + (first + k) * bytes, i), 0, block + k * dim + i);
        for (uint i = n * dim; i < (n + 3) / 4 * 4 * dim; i++) block[i] = 0.0f;
        for (uint k = 0; k < n; k += 4) multiply_near(block + k * dim, dim, 1, q, dim, false, p + k * 16);
        float16 block_most = most;
        for (uint k = 0; k < n; k++) {
            float16 v = vload16(k, p);
            if (s->softcap > 0.0f) v = (float16)(cap8(s, v.lo), cap8(s, v.hi));
            int here = first + k;
            v = here >= from && here < to ? v : -INFINITY;
            block_most = fmax(block_most, v);
            vstore16(v, k, p);
        }
        // A query that has seen no key yet: its maximum stays -inf, and 0 takes its place below.
        float16 base = block_most == -INFINITY ? 0.0f : block_most;
        float16 less = most - base;
        float16 shrink = (float16)(exp8(less.lo), exp8(less.hi));
        shrink = most == -INFINITY ? 0.0f : shrink;
        total *= shrink;
        for (uint i = 0; i < dim; i++) vstore16(vload16(i, sum) * shrink, i, sum);
        most = block_most;
        for (uint k = 0; k < n; k++) {
            float16 v = vload16(k, p), x = v - base;
            float16 e = (float16)(exp8(x.lo), exp8(x.hi));
            e = v == -INFINITY ? 0.0f : e;
            total += e;
            vstore16(e, k, p);
        }
        for (uint k = 0; k < n; k++)
            for (uint i = 0; i < dim; i += 8)
                vstore8(cached8(s, values + (first + k) * bytes, i), 0, block + k * dim + i);
        for (uint i = 0; i < dim; i += 4) multiply_near(block + i, 1, dim, p, n, true, sum + i * 16);
    }
    for (uint i = 0; i < dim; i++) vstore16(vload16(i, sum) / total, i, sum);
    for (uint lane = 0; lane < n_tokens; lane++) {
        __global float *out = at.state + s->out + ((size_t)(t0 + lane) * s->heads + h) * dim;
        for (uint i = 0; i < dim; i++) out[i] = sum[i * 16 + lane];
    }
}

inline void attend(place at, __global const clq_step *s)
{
    if (s->tokens < CLQ_PACKED_TOKENS) {
        for (uint u = at.group; u < s->tokens * s->heads; u += at.n_groups)
            attend_one(at, s, u / s->heads, u % s->heads);
        return;
    }
    uint blocks = (s->tokens + 15) / 16;
    for (uint u = at.group; u < blocks * s->heads; u += at.n_groups)
        attend_16(at, s, (blocks - 1 - u / s->heads) * 16, u % s->heads); // the long ones first
}
#else
// A group takes one query: items are keys for the scores, then dimensions for the sum.
inline void attend(place at, __global const clq_step *s, __local float *near)
{
    size_t bytes = vector_bytes(s);
    uint dim = s->head_dim;
    __local float *q = near + UNITS, *p = q + MAX_HEAD_DIM;
    for (uint u = at.group; u < s->tokens * s->heads; u += at.n_groups) {
        uint t = u / s->heads, h = u % s->heads, kv = h / (s->heads / s->kv_heads), last = end_key(s, t);
        __global const float *query = at.state + s->in + (size_t)t * s->in_stride + h * dim;
        __global const uchar *keys = at.cache + s->cache + (size_t)kv * s->positions * bytes;
        __global const uchar *values = at.cache + s->cache2 + (size_t)kv * s->positions * bytes;
        float8 sum = 0.0f; // dimensions 8 * LID ...
        float most = -INFINITY, total = 0.0f;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = LID; i < dim; i += LSIZE) q[i] = query[i] * s->scale;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint first = first_key(s, t); first < last; first += UNITS) {
            uint n = min((uint)UNITS, last - first);
            float score = -INFINITY;
            if (LID < n) {
                float8 dot8 = 0.0f;
                for (uint i = 0; i < dim; i += 8)
                    dot8 = fma(cached8(s, keys + (first + LID) * bytes, i), vload8(0, q + i), dot8);
                score = cap8(s, (float8)sum8(dot8)).s0;
            }
            float block_most = fmax(most, GROUP_MAX(score));
            float shrink = most == -INFINITY ? 0.0f : exp8((float8)(most - block_most)).s0;
            float e = LID < n ? exp8((float8)(score - block_most)).s0 : 0.0f;
            p[LID] = e;
            total = total * shrink + GROUP_SUM(e); // the barriers in it show p to all
            sum *= shrink;
            most = block_most;
            if (8 * LID < dim)
                for (uint k = 0; k < n; k++)
                    sum = fma(cached8(s, values + (first + k) * bytes, 8 * LID), (float8)p[k], sum);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (8 * LID < dim) vstore8(sum / total, LID, at.state + s->out + ((size_t)t * s->heads + h) * dim);
    }
}
#endif

#endif

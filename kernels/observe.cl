// SPDX-License-Identifier: MIT
// Steps that look at activations: RANGE, OBSERVE and GRAM (include/clquant_steps.h; C references in
// host/ops/observe.c, with the same bits but for GRAM).
#ifndef CLQ_OBSERVE_CL
#define CLQ_OBSERVE_CL
#include "int8.cl"

inline void range(place at, __global const clq_step *s NEAR_PARAM)
{
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
        float under = 0.0f, high = 0.0f; // under: the largest -x
        for (uint i = LID; i < s->cols; i += LSIZE) {
            under = fmax(under, -x[i]);
            high = fmax(high, x[i]);
        }
        high = GROUP_MAX(high);
        under = GROUP_MAX(under);
        if (LID == 0) {
            at.state[s->out + 2 * (size_t)t] = -under;
            at.state[s->out + 2 * (size_t)t + 1] = high;
        }
    }
}

// ---- observations ----

inline void observe_channels(place at, __global const clq_step *s)
{
    __global float *slot = at.state + s->out, *arrays = slot + CLQ_SLOT_CHANNELS;
    __global uint *head = (__global uint *)slot;
    uint k16 = (s->cols + 15) / 16 * 16;
    bool first = head[CLQ_SLOT_WINDOWS] == 0;
#if WG
    for (uint i = at.group * LSIZE + LID; i < s->cols; i += at.n_groups * LSIZE) {
        float low = INFINITY, high = -INFINITY, sum = 0.0f, sum_abs = 0.0f, sum_sq = 0.0f;
        uint bad = 0;
        for (uint t = 0; t < s->tokens; t++) {
            float x = at.state[s->in + (size_t)t * s->in_stride + i];
            bool good = MAGNITUDE(x) < INFINITE;
            float v = good ? x : 0.0f;
            bad += !good;
            low = good ? fmin(low, x) : low;
            high = good ? fmax(high, x) : high;
            sum += v;
            sum_abs += fabs(v);
            sum_sq += v * v;
        }
        __global float *own = arrays + i;
        own[CLQ_CHANNEL_WINDOW_MIN * k16] = low;
        own[CLQ_CHANNEL_WINDOW_MAX * k16] = high;
        own[CLQ_CHANNEL_MIN * k16] = first ? low : fmin(own[CLQ_CHANNEL_MIN * k16], low);
        own[CLQ_CHANNEL_MAX * k16] = first ? high : fmax(own[CLQ_CHANNEL_MAX * k16], high);
        own[CLQ_CHANNEL_SUM * k16] += sum;
        own[CLQ_CHANNEL_SUM_ABS * k16] += sum_abs;
        own[CLQ_CHANNEL_SUM_SQ * k16] += sum_sq;
        if (bad) atomic_add((volatile __global uint *)head + CLQ_SLOT_BAD, bad);
    }
#else
    for (uint i = 8 * at.group; i < s->cols; i += 8 * at.n_groups) {
        float8 low = INFINITY, high = -INFINITY, sum = 0.0f, sum_abs = 0.0f, sum_sq = 0.0f;
        int8 bad = 0, lanes = (int8)(0, 1, 2, 3, 4, 5, 6, 7) + (int)i < (int8)(int)s->cols;
        for (uint t = 0; t < s->tokens; t++) {
            float8 x = vload8(0, at.state + s->in + (size_t)t * s->in_stride + i); // the state goes on behind it
            int8 good = (as_int8(x) & 0x7fffffff) < (int8)INFINITE;
            float8 v = good ? x : 0.0f;
            bad -= ~good & lanes;
            low = good && x < low ? x : low;
            high = good && x > high ? x : high;
            sum += v;
            sum_abs += fabs(v);
            sum_sq += v * v;
        }
        __global float *own = arrays + i;
        vstore8(low, 0, own + CLQ_CHANNEL_WINDOW_MIN * k16);
        vstore8(high, 0, own + CLQ_CHANNEL_WINDOW_MAX * k16);
        float8 least = vload8(0, own + CLQ_CHANNEL_MIN * k16), most = vload8(0, own + CLQ_CHANNEL_MAX * k16);
        vstore8(first || low < least ? low : least, 0, own + CLQ_CHANNEL_MIN * k16);
        vstore8(first || high > most ? high : most, 0, own + CLQ_CHANNEL_MAX * k16);
        vstore8(vload8(0, own + CLQ_CHANNEL_SUM * k16) + sum, 0, own + CLQ_CHANNEL_SUM * k16);
        vstore8(vload8(0, own + CLQ_CHANNEL_SUM_ABS * k16) + sum_abs, 0, own + CLQ_CHANNEL_SUM_ABS * k16);
        vstore8(vload8(0, own + CLQ_CHANNEL_SUM_SQ * k16) + sum_sq, 0, own + CLQ_CHANNEL_SUM_SQ * k16);
        int4 b4 = bad.lo + bad.hi;
        int n = b4.x + b4.y + b4.z + b4.w;
        if (n) atomic_add((volatile __global uint *)head + CLQ_SLOT_BAD, (uint)n);
    }
#endif
}

// Bins of a range 2^by times as large. One item.
inline void merge_bins(__global uint *bins, uint by)
{
    by = min(by, 31u);
    for (uint a = 1; a < CLQ_BINS; a++) { // bin a on either side of 0
        uint n = bins[CLQ_BINS + a], m = bins[CLQ_BINS - 1 - a];
        bins[CLQ_BINS + a] = bins[CLQ_BINS - 1 - a] = 0;
        bins[CLQ_BINS + (a >> by)] += n;
        bins[CLQ_BINS - 1 - (a >> by)] += m;
    }
}

inline void observe_range(place at, __global const clq_step *s NEAR_PARAM)
{
    if (at.group != 0) return;
    __global float *slot = at.state + s->out, *arrays = slot + CLQ_SLOT_CHANNELS;
    __global uint *head = (__global uint *)slot;
    uint k16 = (s->cols + 15) / 16 * 16;
    float under = -INFINITY, high = -INFINITY; // under: the largest -x
    for (uint i = LID; i < s->cols; i += LSIZE) {
        under = fmax(under, -arrays[CLQ_CHANNEL_WINDOW_MIN * k16 + i]);
        high = fmax(high, arrays[CLQ_CHANNEL_WINDOW_MAX * k16 + i]);
    }
    high = GROUP_MAX(high);
    float low = -GROUP_MAX(under);
    if (LID != 0) return;
    if (!(low <= high)) low = high = 0.0f; // no finite value
    bool first = head[CLQ_SLOT_WINDOWS] == 0;
    float most = fmax(fabs(low), fabs(high));
    int exponent = first ? CLQ_MIN_EXPONENT : (int)head[CLQ_SLOT_EXPONENT], needs = (int)(as_uint(most) >> 23) - 126;
    if (needs > exponent) {
        merge_bins(head + CLQ_SLOT_BINS, (uint)(needs - exponent));
        exponent = needs;
    }
    head[CLQ_SLOT_EXPONENT] = (uint)exponent;
    if (first) {
        slot[CLQ_SLOT_MIN] = slot[CLQ_SLOT_EMA_MIN] = low;
        slot[CLQ_SLOT_MAX] = slot[CLQ_SLOT_EMA_MAX] = high;
        slot[CLQ_SLOT_TOKEN_MIN] = FLT_MAX;
    } else {
        slot[CLQ_SLOT_MIN] = fmin(slot[CLQ_SLOT_MIN], low);
        slot[CLQ_SLOT_MAX] = fmax(slot[CLQ_SLOT_MAX], high);
        slot[CLQ_SLOT_EMA_MIN] += 0.01f * (low - slot[CLQ_SLOT_EMA_MIN]);
        slot[CLQ_SLOT_EMA_MAX] += 0.01f * (high - slot[CLQ_SLOT_EMA_MAX]);
    }
    head[CLQ_SLOT_TOKENS] += s->tokens;
    head[CLQ_SLOT_WINDOWS]++;
}

// What a token's absmax (as bits) adds to the head.
inline void count_token(__global uint *head, uint most)
{
    int bin = (int)(most >> 21) - 4 * (127 - 32);
    atomic_inc((volatile __global uint *)head + CLQ_SLOT_TOKEN_BINS + clamp(bin, 0, CLQ_TOKEN_BINS - 1));
    atomic_min((volatile __global uint *)head + CLQ_SLOT_TOKEN_MIN, most); // positive floats are ordered as their bits
    atomic_max((volatile __global uint *)head + CLQ_SLOT_TOKEN_MAX, most);
}

#if WG
// A group counts one half of the bins at a time in local memory, then adds.
#define NEAR_BINS CLQ_BINS
inline void observe_values(place at, __global const clq_step *s, __local float *near_floats)
{
    __global float *slot = at.state + s->out;
    __global uint *head = (__global uint *)slot;
    __local uint *near = (__local uint *)near_floats + UNITS;
    float scale = as_float((uint)(127 + 12 - (int)head[CLQ_SLOT_EXPONENT]) << 23);
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
        uint most = 0;
        for (uint i = LID; i < s->cols; i += LSIZE) most = max(most, MAGNITUDE(x[i]) < INFINITE ? MAGNITUDE(x[i]) : 0u);
        most = group_max_uint(most, near_floats);
        if (LID == 0) count_token(head, most);
    }
    for (int first = 0; first < 2 * CLQ_BINS; first += NEAR_BINS) {
        for (uint i = LID; i < NEAR_BINS; i += LSIZE) near[i] = 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint t = at.group; t < s->tokens; t += at.n_groups) {
            __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
            for (uint i = LID; i < s->cols; i += LSIZE) {
                bool good = MAGNITUDE(x[i]) < INFINITE;
                int bin = CLQ_BINS + (int)floor(good ? x[i] * scale : 0.0f) - first;
                if (good && bin >= 0 && bin < NEAR_BINS) atomic_inc((volatile __local uint *)near + bin);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = LID; i < NEAR_BINS; i += LSIZE)
            if (near[i]) atomic_add((volatile __global uint *)head + CLQ_SLOT_BINS + first + i, near[i]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
#else
// Each group counts for itself, then adds.
inline void observe_values(place at, __global const clq_step *s)
{
    __global float *slot = at.state + s->out;
    __global uint *head = (__global uint *)slot, *bins = head + CLQ_SLOT_BINS;
    uint own[2 * CLQ_BINS];
    uint begin = (uint)((ulong)s->tokens * at.group / at.n_groups),
         end = (uint)((ulong)s->tokens * (at.group + 1) / at.n_groups), whole = s->cols / 8 * 8;
    if (begin == end) return;
    float scale = as_float((uint)(127 + 12 - (int)head[CLQ_SLOT_EXPONENT]) << 23);
    for (uint i = 0; i < 2 * CLQ_BINS; i += 8) vstore8((uint8)0, 0, own + i);
    for (uint t = begin; t < end; t++) {
        __global const float *x = at.state + s->in + (size_t)t * s->in_stride;
        uint8 most = 0;
        uint rest = 0;
        for (uint i = 0; i < whole; i += 8) {
            float8 v = vload8(0, x + i);
            uint8 size = as_uint8(v) & 0x7fffffffu;
            int8 good = size < (uint8)INFINITE;
            most = max(most, as_uint8(good) & size);
            // A bad value is counted in bin 0, and taken out again.
            int8 bin = good ? CLQ_BINS + convert_int8_rtn(v * scale) : 0;
            own[bin.s0]++, own[bin.s1]++, own[bin.s2]++, own[bin.s3]++;
            own[bin.s4]++, own[bin.s5]++, own[bin.s6]++, own[bin.s7]++;
            if (any(!good)) {
                uint8 bad = as_uint8(~good) & 1u;
                uint4 h = bad.lo + bad.hi;
                own[0] -= h.x + h.y + h.z + h.w;
            }
        }
        for (uint i = whole; i < s->cols; i++) {
            uint size = MAGNITUDE(x[i]);
            if (size >= INFINITE) continue;
            rest = max(rest, size);
            own[CLQ_BINS + convert_int_rtn(x[i] * scale)]++;
        }
        uint4 m = max(most.lo, most.hi);
        count_token(head, max(rest, max(max(m.x, m.y), max(m.z, m.w))));
    }
    for (uint i = 0; i < 2 * CLQ_BINS; i++)
        if (own[i]) atomic_add((volatile __global uint *)bins + i, own[i]);
}
#endif

inline void observe(place at, __global const clq_step *s NEAR_PARAM)
{
    if (s->phase == CLQ_OBSERVE_CHANNELS)
        observe_channels(at, s);
    else if (s->phase == CLQ_OBSERVE_RANGE)
        observe_range(at, s NEAR_PASS);
    else
        observe_values(at, s NEAR_PASS);
}

// ---- Gram matrix ----

// Adds v to element (i, j), j >= i, of a matrix [n][n], and to its mirror.
inline void put_gram(__global float *out, uint n, uint i, uint j, float v)
{
    if (i >= n || j >= n || j < i) return;
    float sum = out[(size_t)i * n + j] + v;
    out[(size_t)i * n + j] = sum;
    out[(size_t)j * n + i] = sum;
}

#if WG
// A tile of 64 x 64, on and above the diagonal; an item makes 8 x 8 of it.
inline void gram(place at, __global const clq_step *s, __local float *near)
{
    __local float *a = near, *b = near + 16 * TILE;
    uint n = s->group_size ? s->group_size : s->cols, blocks = s->cols / n;
    uint tiles = (n + TILE - 1) / TILE, row8 = LID / 8 * 8, col8 = LID % 8 * 8;
    for (uint u = at.group; u < blocks * tiles * tiles; u += at.n_groups) {
        uint block = u / (tiles * tiles), i0 = u / tiles % tiles * TILE, j0 = u % tiles * TILE;
        if (j0 < i0) continue;
        float8 sum[8];
        for (uint r = 0; r < 8; r++) sum[r] = 0.0f;
        for (uint t = 0; t < s->tokens; t += 16) {
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint k = 0; k < 16; k++) {
                __global const float *x = at.state + s->in + (size_t)(t + k) * s->in_stride + block * n;
                bool there = t + k < s->tokens;
                a[k * TILE + LID] = there && i0 + LID < n ? x[i0 + LID] : 0.0f;
                b[k * TILE + LID] = there && j0 + LID < n ? x[j0 + LID] : 0.0f;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint k = 0; k < 16; k++) {
                float8 v = vload8(0, b + k * TILE + col8);
                for (uint r = 0; r < 8; r++) sum[r] = fma((float8)a[k * TILE + row8 + r], v, sum[r]);
            }
        }
        for (uint r = 0; r < 8; r++) {
            float own[8];
            vstore8(sum[r], 0, own);
            for (uint c = 0; c < 8; c++)
                put_gram(at.state + s->out + (size_t)block * n * n, n, i0 + row8 + r, j0 + col8 + c, own[c]);
        }
    }
}
#else
// Strips of 32 rows; of each the columns from the diagonal on.
inline void gram(place at, __global const clq_step *s)
{
    uint n = s->group_size ? s->group_size : s->cols, blocks = s->cols / n, strips = (n + TILE_ROWS - 1) / TILE_ROWS;
    float tile[TILE_ROWS * TILE_K], c[TILE_ROWS * 16], x[16 * TILE_K];
    for (uint u = at.group; u < blocks * strips; u += at.n_groups) {
        uint block = u / strips, i0 = u % strips * TILE_ROWS;
        for (uint t0 = 0; t0 < s->tokens; t0 += TILE_K) {
            uint m = min((uint)TILE_K, s->tokens - t0);
            __global const float *in = at.state + s->in + (size_t)t0 * s->in_stride + block * n;
            for (uint t = 0; t < m; t++)
                for (uint r = 0; r < TILE_ROWS; r++)
                    tile[r * TILE_K + t] = i0 + r < n ? in[(size_t)t * s->in_stride + i0 + r] : 0.0f;
            for (uint j0 = i0; j0 < n; j0 += 16) {
                for (uint t = 0; t < m; t++) { // the state goes on behind the last row
                    vstore8(vload8(0, in + (size_t)t * s->in_stride + j0), 0, x + 16 * t);
                    vstore8(vload8(1, in + (size_t)t * s->in_stride + j0), 0, x + 16 * t + 8);
                }
                for (uint q = 0; q < TILE_ROWS; q += 4)
                    multiply_near(tile + q * TILE_K, TILE_K, 1, x, m, false, c + q * 16);
                for (uint r = 0; r < TILE_ROWS; r++)
                    for (uint k = 0; k < 16; k++)
                        put_gram(at.state + s->out + (size_t)block * n * n, n, i0 + r, j0 + k, c[r * 16 + k]);
            }
        }
    }
}
#endif

#endif

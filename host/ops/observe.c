// SPDX-License-Identifier: MIT
#include "ops/observe.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"

void clq_range_ref(const clq_step *s, float *state)
{
    for (uint32_t t = 0; t < s->tokens; t++) {
        const float *x = state + s->in + (uint64_t)t * s->in_stride;
        float low = 0, high = 0;
        for (uint32_t i = 0; i < s->cols; i++) {
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        state[s->out + 2ull * t] = low;
        state[s->out + 2ull * t + 1] = high;
    }
}

// ---- observations ----

static uint32_t bits_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static float *channel(const clq_step *s, float *slot, uint32_t which)
{
    return slot + CLQ_SLOT_CHANNELS + (uint64_t)which * ((s->cols + 15) / 16 * 16);
}

static void observe_channels(const clq_step *s, const float *in, float *slot)
{
    uint32_t *head = (uint32_t *)(void *)slot;
    bool first = head[CLQ_SLOT_WINDOWS] == 0;
    float *min = channel(s, slot, CLQ_CHANNEL_MIN), *max = channel(s, slot, CLQ_CHANNEL_MAX);
    for (uint32_t i = 0; i < s->cols; i++) {
        float low = INFINITY, high = -INFINITY, sum = 0, sum_abs = 0, sum_sq = 0;
        for (uint32_t t = 0; t < s->tokens; t++) {
            float x = in[(uint64_t)t * s->in_stride + i];
            if (!(fabsf(x) <= FLT_MAX)) {
                head[CLQ_SLOT_BAD]++;
                continue;
            }
            low = x < low ? x : low;
            high = x > high ? x : high;
            sum += x;
            sum_abs += fabsf(x);
            sum_sq += x * x;
        }
        channel(s, slot, CLQ_CHANNEL_WINDOW_MIN)[i] = low;
        channel(s, slot, CLQ_CHANNEL_WINDOW_MAX)[i] = high;
        min[i] = first || low < min[i] ? low : min[i];
        max[i] = first || high > max[i] ? high : max[i];
        channel(s, slot, CLQ_CHANNEL_SUM)[i] += sum;
        channel(s, slot, CLQ_CHANNEL_SUM_ABS)[i] += sum_abs;
        channel(s, slot, CLQ_CHANNEL_SUM_SQ)[i] += sum_sq;
    }
}

// Bins of a range 2^by times as large.
static void merge_bins(uint32_t *bins, uint32_t by)
{
    if (by > 31) by = 31;
    for (uint32_t a = 1; a < CLQ_BINS; a++) { // bin a on either side of 0
        uint32_t *above = bins + CLQ_BINS + a, *below = bins + CLQ_BINS - 1 - a, n = *above, m = *below;
        *above = *below = 0;
        bins[CLQ_BINS + (a >> by)] += n;
        bins[CLQ_BINS - 1 - (a >> by)] += m;
    }
}

static void observe_range(const clq_step *s, float *slot)
{
    uint32_t *head = (uint32_t *)(void *)slot;
    const float *lows = channel(s, slot, CLQ_CHANNEL_WINDOW_MIN), *highs = channel(s, slot, CLQ_CHANNEL_WINDOW_MAX);
    float low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < s->cols; i++) {
        low = lows[i] < low ? lows[i] : low;
        high = highs[i] > high ? highs[i] : high;
    }
    if (!(low <= high)) low = high = 0; // no finite value
    bool first = head[CLQ_SLOT_WINDOWS] == 0;
    float most = fabsf(low) > fabsf(high) ? fabsf(low) : fabsf(high);
    int exponent = first ? CLQ_MIN_EXPONENT : (int)head[CLQ_SLOT_EXPONENT], needs = (int)(bits_of(most) >> 23) - 126;
    if (needs > exponent) {
        merge_bins(head + CLQ_SLOT_BINS, (uint32_t)(needs - exponent));
        exponent = needs;
    }
    head[CLQ_SLOT_EXPONENT] = (uint32_t)exponent;
    if (first) {
        slot[CLQ_SLOT_MIN] = slot[CLQ_SLOT_EMA_MIN] = low;
        slot[CLQ_SLOT_MAX] = slot[CLQ_SLOT_EMA_MAX] = high;
        slot[CLQ_SLOT_TOKEN_MIN] = FLT_MAX;
    } else {
        slot[CLQ_SLOT_MIN] = low < slot[CLQ_SLOT_MIN] ? low : slot[CLQ_SLOT_MIN];
        slot[CLQ_SLOT_MAX] = high > slot[CLQ_SLOT_MAX] ? high : slot[CLQ_SLOT_MAX];
        slot[CLQ_SLOT_EMA_MIN] += 0.01f * (low - slot[CLQ_SLOT_EMA_MIN]);
        slot[CLQ_SLOT_EMA_MAX] += 0.01f * (high - slot[CLQ_SLOT_EMA_MAX]);
    }
    head[CLQ_SLOT_TOKENS] += s->tokens;
    head[CLQ_SLOT_WINDOWS]++;
}

static void observe_values(const clq_step *s, const float *in, float *slot)
{
    uint32_t *head = (uint32_t *)(void *)slot, *bins = head + CLQ_SLOT_BINS;
    float scale = float_of((uint32_t)(127 + 12 - (int)head[CLQ_SLOT_EXPONENT]) << 23); // CLQ_BINS / 2^exponent
    for (uint32_t t = 0; t < s->tokens; t++) {
        float most = 0;
        for (uint32_t i = 0; i < s->cols; i++) {
            float x = in[(uint64_t)t * s->in_stride + i];
            if (!(fabsf(x) <= FLT_MAX)) continue;
            most = fabsf(x) > most ? fabsf(x) : most;
            bins[CLQ_BINS + (int)floorf(x * scale)]++;
        }
        int bin = (int)(bits_of(most) >> 21) - 4 * (127 - 32);
        head[CLQ_SLOT_TOKEN_BINS + (bin < 0 ? 0 : bin >= CLQ_TOKEN_BINS ? CLQ_TOKEN_BINS - 1 : bin)]++;
        slot[CLQ_SLOT_TOKEN_MIN] = most < slot[CLQ_SLOT_TOKEN_MIN] ? most : slot[CLQ_SLOT_TOKEN_MIN];
        slot[CLQ_SLOT_TOKEN_MAX] = most > slot[CLQ_SLOT_TOKEN_MAX] ? most : slot[CLQ_SLOT_TOKEN_MAX];
    }
}

void clq_observe_ref(const clq_step *s, float *state)
{
    const float *in = state + s->in;
    float *slot = state + s->out;
    switch (s->phase) {
    case CLQ_OBSERVE_CHANNELS: observe_channels(s, in, slot); break;
    case CLQ_OBSERVE_RANGE: observe_range(s, slot); break;
    case CLQ_OBSERVE_VALUES: observe_values(s, in, slot); break;
    }
}

// ---- Gram matrix ----

typedef struct {
    const clq_step *s;
    float *state;
    atomic_bool failed;
} gram;

static void gram_rows(void *ctx, uint64_t begin, uint64_t end)
{
    gram *g = ctx;
    const clq_step *s = g->s;
    uint32_t n = s->group_size ? s->group_size : s->cols;
    double *sums = malloc(n * sizeof *sums);
    for (uint64_t i = begin; sums && i < end; i++) {
        uint64_t first = i / n * n;
        memset(sums, 0, n * sizeof *sums);
        for (uint32_t t = 0; t < s->tokens; t++) {
            const float *x = g->state + s->in + (uint64_t)t * s->in_stride;
            for (uint32_t j = 0; j < n; j++) sums[j] += (double)x[i] * x[first + j];
        }
        for (uint32_t j = 0; j < n; j++) g->state[s->out + i * n + j] += (float)sums[j];
    }
    if (!sums) g->failed = true;
    free(sums);
}

bool clq_gram_ref(uint32_t threads, const clq_step *s, float *state)
{
    gram g = {.s = s, .state = state};
    clq_parallel(threads, s->cols, 16, gram_rows, &g);
    return !g.failed;
}

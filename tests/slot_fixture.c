// SPDX-License-Identifier: MIT
#include "slot_fixture.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "clquant_steps.h"

static uint32_t word(const float *slot, uint32_t i) { return clq_bits(slot[i]); }
static void set_word(float *slot, uint32_t i, uint32_t v) { memcpy(&slot[i], &v, 4); }
static void count(float *slot, uint32_t i) { set_word(slot, i, word(slot, i) + 1); }

float *new_slot(uint32_t cols) { return calloc(CLQ_SLOT_FLOATS(cols), sizeof(float)); }

// Pairs of bins become one, from the middle outwards.
static void double_range(float *slot)
{
    uint32_t merged[2 * CLQ_BINS] = {0};
    for (uint32_t i = 0; i < 2 * CLQ_BINS; i++) merged[CLQ_BINS / 2 + i / 2] += word(slot, CLQ_SLOT_BINS + i);
    memcpy(slot + CLQ_SLOT_BINS, merged, sizeof merged);
}

static float *channels(float *slot, uint32_t cols, int array)
{
    return slot + CLQ_SLOT_CHANNELS + (cols + 15) / 16 * 16 * (uint32_t)array;
}

static void add_channels(float *slot, const float *x, uint32_t tokens, uint32_t cols)
{
    bool first = word(slot, CLQ_SLOT_TOKENS) == 0;
    float *min = channels(slot, cols, CLQ_CHANNEL_MIN), *max = channels(slot, cols, CLQ_CHANNEL_MAX);
    for (uint32_t c = 0; c < cols; c++) {
        double sum = 0, sum_abs = 0, sum_sq = 0;
        for (uint32_t t = 0; t < tokens; t++) {
            float v = x[(uint64_t)t * cols + c];
            if (!isfinite(v)) continue;
            min[c] = first && t == 0 ? v : fminf(min[c], v);
            max[c] = first && t == 0 ? v : fmaxf(max[c], v);
            sum += (double)v;
            sum_abs += fabs((double)v);
            sum_sq += (double)v * (double)v;
        }
        channels(slot, cols, CLQ_CHANNEL_SUM)[c] += (float)sum;
        channels(slot, cols, CLQ_CHANNEL_SUM_ABS)[c] += (float)sum_abs;
        channels(slot, cols, CLQ_CHANNEL_SUM_SQ)[c] += (float)sum_sq;
    }
}

static void add_range(float *slot, const float *x, uint32_t tokens, uint32_t cols)
{
    float min = INFINITY, max = -INFINITY;
    uint32_t bad = 0;
    for (uint64_t i = 0; i < (uint64_t)tokens * cols; i++) {
        if (!isfinite(x[i])) {
            bad++;
            continue;
        }
        min = fminf(min, x[i]);
        max = fmaxf(max, x[i]);
    }
    bool first = word(slot, CLQ_SLOT_WINDOWS) == 0;
    slot[CLQ_SLOT_MIN] = first ? min : fminf(slot[CLQ_SLOT_MIN], min);
    slot[CLQ_SLOT_MAX] = first ? max : fmaxf(slot[CLQ_SLOT_MAX], max);
    slot[CLQ_SLOT_EMA_MIN] = first ? min : slot[CLQ_SLOT_EMA_MIN] + 0.01f * (min - slot[CLQ_SLOT_EMA_MIN]);
    slot[CLQ_SLOT_EMA_MAX] = first ? max : slot[CLQ_SLOT_EMA_MAX] + 0.01f * (max - slot[CLQ_SLOT_EMA_MAX]);
    set_word(slot, CLQ_SLOT_BAD, word(slot, CLQ_SLOT_BAD) + bad);
    int32_t exponent = first ? CLQ_MIN_EXPONENT : (int32_t)word(slot, CLQ_SLOT_EXPONENT);
    for (; fmaxf(-min, max) >= ldexpf(1, exponent); exponent++) double_range(slot);
    set_word(slot, CLQ_SLOT_EXPONENT, (uint32_t)exponent);
}

static void add_values(float *slot, const float *x, uint32_t tokens, uint32_t cols)
{
    double per = ldexp(CLQ_BINS, -(int32_t)word(slot, CLQ_SLOT_EXPONENT));
    for (uint32_t t = 0; t < tokens; t++) {
        float absmax = 0;
        for (uint32_t c = 0; c < cols; c++) {
            float v = x[(uint64_t)t * cols + c];
            if (!isfinite(v)) continue;
            absmax = fmaxf(absmax, fabsf(v));
            count(slot, CLQ_SLOT_BINS + (uint32_t)(CLQ_BINS + (int32_t)floor((double)v * per)));
        }
        int32_t bin = absmax > 0 ? 4 * (ilogbf(absmax) + 32) + (int32_t)(clq_bits(absmax) >> 21 & 3) : 0;
        count(slot, CLQ_SLOT_TOKEN_BINS + (uint32_t)(bin < 0 ? 0 : bin > 255 ? 255 : bin));
        bool first = word(slot, CLQ_SLOT_TOKENS) == 0;
        slot[CLQ_SLOT_TOKEN_MIN] = first ? absmax : fminf(slot[CLQ_SLOT_TOKEN_MIN], absmax);
        slot[CLQ_SLOT_TOKEN_MAX] = first ? absmax : fmaxf(slot[CLQ_SLOT_TOKEN_MAX], absmax);
        count(slot, CLQ_SLOT_TOKENS);
    }
}

void add_window(float *slot, const float *x, uint32_t tokens, uint32_t cols)
{
    add_channels(slot, x, tokens, cols);
    add_range(slot, x, tokens, cols);
    add_values(slot, x, tokens, cols);
    count(slot, CLQ_SLOT_WINDOWS);
}

// SPDX-License-Identifier: MIT
// A row of logits against the token that came and a base's row. Sums are double, in a fixed order; what they sum is
// float, so that the loops are vector code.
#include <math.h>
#include <string.h>

#include "base/exp.h"
#include "run/evaluate.h"

enum { LANES = 16, CHUNK = 256 };
// A base's probabilities count from here on: what lies below is mostly its floor (llama.cpp).
static const float LOWEST_LN_P = -16.0f;

static double sum_of(const double *lanes)
{
    double sum = 0;
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

static void range_of(const float *x, uint32_t n, float *min, float *max)
{
    float low[LANES], high[LANES];
    for (int j = 0; j < LANES; j++) low[j] = high[j] = x[0];
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    for (; i < n; i++) {
        low[0] = x[i] < low[0] ? x[i] : low[0];
        high[0] = x[i] > high[0] ? x[i] : high[0];
    }
    *min = low[0];
    *max = high[0];
    for (int j = 1; j < LANES; j++) {
        if (low[j] < *min) *min = low[j];
        if (high[j] > *max) *max = high[j];
    }
}

// Adds the n <= CHUNK terms to the lanes.
static void add_to(double *lanes, const float *terms, uint32_t n)
{
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += (double)terms[i + j];
    for (; i < n; i++) lanes[0] += (double)terms[i];
}

// The sum of e^(x - max).
static double sum_of_exp(const float *x, uint32_t n, float max)
{
    double lanes[LANES] = {0};
    float terms[CHUNK];
    for (uint32_t at = 0; at < n; at += CHUNK) {
        uint32_t m = n - at < CHUNK ? n - at : CHUNK;
        for (uint32_t i = 0; i < m; i++) terms[i] = clq_exp(x[at + i] - max);
        add_to(lanes, terms, m);
    }
    return sum_of(lanes);
}

static uint32_t first_equal(const float *x, float v)
{
    uint32_t i = 0;
    while (x[i] != v) i++;
    return i;
}

// The sum of p (ln p - ln q) where ln p counts; q is the model's, ln q = x - max - log_sum.
static double divergence(const float *x, uint32_t n, float max, double log_sum, const uint16_t *words)
{
    float scale = clq_kldbase_scale(words), low = clq_kldbase_floor(words), ln_sum = (float)log_sum;
    const uint16_t *codes = clq_kldbase_codes(words);
    double lanes[LANES] = {0};
    float ln_p[CHUNK], terms[CHUNK];
    for (uint32_t at = 0; at < n; at += CHUNK) {
        uint32_t m = n - at < CHUNK ? n - at : CHUNK;
        for (uint32_t i = 0; i < m; i++) ln_p[i] = scale * (float)codes[at + i] + low;
        for (uint32_t i = 0; i < m; i++) {
            float product = clq_exp(ln_p[i]) * (ln_p[i] - (x[at + i] - max) + ln_sum);
            terms[i] = clq_from_bits(clq_bits(product) & (ln_p[i] > LOWEST_LN_P ? 0xffffffff : 0));
        }
        add_to(lanes, terms, m);
    }
    return sum_of(lanes);
}

static uint32_t first_largest(const uint16_t *codes, uint32_t n)
{
    uint16_t max = 0;
    for (uint32_t i = 0; i < n; i++) max = codes[i] > max ? codes[i] : max;
    uint32_t i = 0;
    while (codes[i] != max) i++;
    return i;
}

bool clq_score_row(const float *logits, uint32_t vocab, int32_t next, const uint16_t *base, uint16_t *save,
                   clq_score *score)
{
    float min, max;
    *score = (clq_score){0};
    range_of(logits, vocab, &min, &max);
    double sum = sum_of_exp(logits, vocab, max);
    if (!isfinite(sum)) return false; // NaN anywhere ends up here, and so does an infinite max
    double log_sum = log(sum);
    score->nll = log_sum - (double)(logits[next] - max);
    if (save) clq_kldbase_encode(logits, vocab, max, min, log_sum, save);
    if (!base) return true;
    const uint16_t *codes = clq_kldbase_codes(base);
    score->nll_base = -(double)(clq_kldbase_scale(base) * (float)codes[next] + clq_kldbase_floor(base));
    score->kld = divergence(logits, vocab, max, log_sum, base);
    score->delta_p = exp(-score->nll) - exp(-score->nll_base);
    score->same_top = first_equal(logits, max) == first_largest(codes, vocab);
    return true;
}

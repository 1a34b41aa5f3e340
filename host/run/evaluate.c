// SPDX-License-Identifier: MIT
#include "run/evaluate.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/threads.h"

// ---- sums ----

// A number of a score.
typedef double (*value_fn)(const clq_score *s);

static double nll_of(const clq_score *s) { return s->nll; }
static double nll_base_of(const clq_score *s) { return s->nll_base; }
static double kld_of(const clq_score *s) { return s->kld; }
static double delta_p_of(const clq_score *s) { return s->delta_p; }
static double delta_p2_of(const clq_score *s) { return s->delta_p * s->delta_p; }
static double same_top_of(const clq_score *s) { return s->same_top; }

static double mean_of(const clq_score *s, uint64_t n, value_fn value)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += value(&s[i]);
    return sum / (double)n;
}

// Covariance of two means.
static double covariance_of(const clq_score *s, uint64_t n, value_fn a, double mean_a, value_fn b, double mean_b)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += (a(&s[i]) - mean_a) * (b(&s[i]) - mean_b);
    return n > 1 ? sum / (double)n / (double)(n - 1) : 0;
}

static clq_estimate estimate_of(const clq_score *s, uint64_t n, value_fn value)
{
    double mean = mean_of(s, n, value);
    return (clq_estimate){mean, sqrt(covariance_of(s, n, value, mean, value, mean))};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const double *sorted, uint64_t n, double share)
{
    double place = share * (double)(n - 1);
    uint64_t i = (uint64_t)place;
    if (i + 1 >= n) return sorted[n - 1];
    double rest = place - (double)i;
    return rest > 0 ? (1 - rest) * sorted[i] + rest * sorted[i + 1] : sorted[i];
}

static void sum_klds(const double *sorted, uint64_t n, clq_divergence *d)
{
    d->kld_min = sorted[0];
    d->kld_p001 = percentile(sorted, n, 0.001);
    d->kld_p01 = percentile(sorted, n, 0.01);
    d->kld_p05 = percentile(sorted, n, 0.05);
    d->kld_p10 = percentile(sorted, n, 0.1);
    d->kld_median = percentile(sorted, n, 0.5);
    d->kld_p90 = percentile(sorted, n, 0.9);
    d->kld_p95 = percentile(sorted, n, 0.95);
    d->kld_p99 = percentile(sorted, n, 0.99);
    d->kld_p999 = percentile(sorted, n, 0.999);
    d->kld_max = sorted[n - 1];
}

static double error_of_difference(double a, double b, double covariance)
{
    double variance = a * a + b * b - 2 * covariance;
    return variance > 0 ? sqrt(variance) : 0;
}

static void sum_base(const clq_score *s, uint64_t n, clq_evaluation *e)
{
    clq_divergence *d = &e->base;
    clq_estimate base = estimate_of(s, n, nll_base_of);
    double covariance = covariance_of(s, n, nll_of, e->nll.value, nll_base_of, base.value);
    double ppl = e->ppl.value, ppl_base = exp(base.value);
    d->ppl_base = (clq_estimate){ppl_base, ppl_base * base.error};
    d->correlation = covariance / (e->nll.error * base.error);
    d->ln_ratio = (clq_estimate){e->nll.value - base.value, error_of_difference(e->nll.error, base.error, covariance)};
    d->ratio.value = exp(d->ln_ratio.value);
    d->ratio.error = d->ratio.value * d->ln_ratio.error;
    d->difference.value = ppl - ppl_base;
    d->difference.error = error_of_difference(e->ppl.error, d->ppl_base.error, ppl * ppl_base * covariance);
    d->kld = estimate_of(s, n, kld_of);
    d->delta_p = estimate_of(s, n, delta_p_of);
    clq_estimate square = estimate_of(s, n, delta_p2_of);
    d->rms_delta_p.value = sqrt(square.value);
    d->rms_delta_p.error = square.value > 0 ? 0.5 / d->rms_delta_p.value * square.error : 0;
    double top = mean_of(s, n, same_top_of);
    d->same_top = (clq_estimate){top, n > 1 ? sqrt(top * (1 - top) / (double)(n - 1)) : 0};
}

clq_status clq_evaluation_sum(const clq_score *s, uint64_t n, bool has_base, clq_evaluation *e, clq_error *err)
{
    e->scored = n;
    e->has_base = false;
    if (!n) return CLQ_OK;
    e->nll = estimate_of(s, n, nll_of);
    e->ppl.value = exp(e->nll.value);
    e->ppl.error = e->ppl.value * e->nll.error;
    if (!has_base) return CLQ_OK;
    double *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return clq_fail_memory(err, n * sizeof *sorted);
    for (uint64_t i = 0; i < n; i++) sorted[i] = s[i].kld;
    qsort(sorted, n, sizeof *sorted, by_value);
    sum_klds(sorted, n, &e->base);
    free(sorted);
    sum_base(s, n, e);
    e->has_base = true;
    return CLQ_OK;
}

// ---- windows ----

typedef struct {
    const clq_predictor *predictor;
    const clq_evaluate_options *o;
    clq_score *scores;     // [windows][rows]
    uint16_t *base, *save; // words of at most `capacity` rows
    uint32_t base_capacity, save_capacity;
    uint32_t window, done; // rows of the window that are scored
    double sum_nll;
} evaluation;

// Rows that came in one call.
typedef struct {
    const float *logits;
    uint32_t vocab;
    const int32_t *next; // the tokens that came
    const uint16_t *base;
    uint16_t *save;
    clq_score *scores;
    atomic_bool bad;
} batch;

static void score_rows(void *ctx, uint64_t begin, uint64_t end)
{
    batch *b = ctx;
    size_t words = clq_kldbase_words(b->vocab);
    for (uint64_t i = begin; i < end; i++)
        if (!clq_score_row(b->logits + i * b->vocab, b->vocab, b->next[i], b->base ? b->base + i * words : NULL,
                           b->save ? b->save + i * words : NULL, &b->scores[i]))
            b->bad = true;
}

static clq_status room(uint16_t **words, uint32_t *capacity, uint32_t n, uint32_t vocab, clq_error *err)
{
    if (n <= *capacity) return CLQ_OK;
    size_t n_bytes = n * clq_kldbase_words(vocab) * 2;
    free(*words);
    *words = malloc(n_bytes);
    *capacity = *words ? n : 0;
    return *words ? CLQ_OK : clq_fail_memory(err, n_bytes);
}

static clq_status take_rows(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err)
{
    evaluation *e = user;
    const clq_evaluate_options *o = e->o;
    uint32_t rows = clq_window_rows(o->context), vocab = e->predictor->vocab;
    if (first != clq_window_first(o->context) + e->done || n > rows - e->done)
        return clq_fail(err, CLQ_DEVICE, "the model gave logits of other tokens than those asked for");
    if (o->base) {
        CLQ_TRY(room(&e->base, &e->base_capacity, n, vocab, err));
        CLQ_TRY(clq_kldbase_rows(o->base, e->window, e->done, n, e->base, err));
    }
    if (o->save) CLQ_TRY(room(&e->save, &e->save_capacity, n, vocab, err));
    const int32_t *tokens = o->tokens + (uint64_t)e->window * o->context;
    clq_score *scores = e->scores + (uint64_t)e->window * rows + e->done;
    batch b = {.logits = logits,
               .vocab = vocab,
               .next = tokens + first + 1,
               .base = o->base ? e->base : NULL,
               .save = o->save ? e->save : NULL,
               .scores = scores};
    clq_parallel(o->threads, n, 4, score_rows, &b);
    if (b.bad)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "the model's logits are not numbers (window %u, tokens %u to %u): its weights "
                        "are damaged, or its values too large for the cache's type",
                        e->window + 1, first, first + n - 1);
    if (o->save) CLQ_TRY(clq_kldbase_append(o->save, e->save, n, err));
    for (uint32_t i = 0; i < n; i++) e->sum_nll += scores[i].nll;
    e->done += n;
    return CLQ_OK;
}

static clq_status run_window(evaluation *e, int32_t *window, clq_error *err)
{
    const clq_evaluate_options *o = e->o;
    memcpy(window, o->tokens + (uint64_t)e->window * o->context, o->context * sizeof *window);
    if (o->bos >= 0) window[0] = o->bos;
    e->done = 0;
    // Nothing is asked of the last token's logits.
    CLQ_TRY(
        e->predictor->run(e->predictor->user, window, o->context - 1, clq_window_first(o->context), take_rows, e, err));
    if (e->done != clq_window_rows(o->context)) return clq_fail(err, CLQ_DEVICE, "the model gave too few logits");
    return CLQ_OK;
}

static clq_status check(const clq_predictor *p, const clq_evaluate_options *o, clq_error *err)
{
    uint64_t n = (uint64_t)o->windows * o->context;
    if (o->context < 4) return clq_fail(err, CLQ_USAGE, "a window has at least 4 tokens");
    for (uint64_t i = 0; i < n; i++)
        if (o->tokens[i] < 0 || (uint32_t)o->tokens[i] >= p->vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "token %llu is %d, which is not in the model's vocabulary of %u",
                            (unsigned long long)i, o->tokens[i], p->vocab);
    if (!o->base) return CLQ_OK;
    clq_kldbase_shape s = clq_kldbase_shape_of(o->base);
    if (s.vocab != p->vocab)
        return clq_fail(err, CLQ_BAD_INPUT, "the base logits are of a vocabulary of %u, the model has %u", s.vocab,
                        p->vocab);
    if (s.context != o->context || s.windows < o->windows)
        return clq_fail(err, CLQ_BAD_INPUT, "the base logits are of %u windows of %u tokens, not %u of %u", s.windows,
                        s.context, o->windows, o->context);
    return CLQ_OK;
}

clq_status clq_evaluate(const clq_predictor *predictor, const clq_evaluate_options *o, clq_evaluation *result,
                        clq_error *err)
{
    *result = (clq_evaluation){0};
    CLQ_TRY(check(predictor, o, err));
    uint32_t rows = clq_window_rows(o->context);
    uint64_t n_bytes = (uint64_t)o->windows * rows * sizeof(clq_score);
    evaluation e = {.predictor = predictor, .o = o, .scores = malloc(n_bytes)};
    int32_t *window = malloc(o->context * sizeof *window);
    double start = clq_seconds();
    clq_status st = e.scores && window ? CLQ_OK : clq_fail_memory(err, n_bytes);
    while (st == CLQ_OK && e.window < o->windows) {
        st = clq_cancelled(o->hooks) ? clq_fail(err, CLQ_INTERRUPTED, "interrupted") : run_window(&e, window, err);
        if (st != CLQ_OK) break;
        if (o->base && o->window_klds)
            o->window_klds[e.window] = mean_of(e.scores + (uint64_t)e.window * rows, rows, kld_of);
        e.window++;
        result->windows = e.window;
        result->scored = (uint64_t)e.window * rows;
        result->seconds = clq_seconds() - start;
        result->nll.value = e.sum_nll / (double)result->scored;
        result->ppl.value = exp(result->nll.value);
        if (o->window) o->window(o->user, result);
    }
    if (st == CLQ_OK || st == CLQ_INTERRUPTED) {
        clq_status summed =
            clq_evaluation_sum(e.scores, (uint64_t)result->windows * rows, o->base != NULL, result, err);
        if (summed != CLQ_OK) st = summed;
    }
    free(e.scores);
    free(e.base);
    free(e.save);
    free(window);
    return st;
}

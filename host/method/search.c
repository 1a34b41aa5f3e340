// SPDX-License-Identifier: MIT
#include "method/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RATIOS = 20 };

void clq_awq_factors(const clq_channel_facts *f, float ratio, bool weighted, float *s)
{
    float most = 0, least = INFINITY;
    for (uint32_t c = 0; c < f->cols; c++) {
        float v = powf(f->mean_abs[c], ratio);
        if (weighted) v /= powf(f->weight_mean[c], 1 - ratio) + 1e-4f;
        s[c] = v > 1e-4f ? v : 1e-4f;
        if (f->mean_abs[c] == 0) continue;
        most = s[c] > most ? s[c] : most;
        least = s[c] < least ? s[c] : least;
    }
    float by = sqrtf(most * least);
    for (uint32_t c = 0; c < f->cols; c++) {
        s[c] /= by;
        if (!isfinite(s[c]) || !(s[c] > 0) || !isfinite(1 / s[c]) || f->mean_abs[c] == 0) s[c] = 1;
        if (f->powers_of_two) s[c] = exp2f(rintf(log2f(s[c])));
    }
}

void clq_smooth_factors(const clq_channel_facts *f, float alpha, float *s)
{
    for (uint32_t c = 0; c < f->cols; c++) {
        float a = f->max_abs[c], m = f->weight_max[c];
        float v = powf(a, alpha) / powf(m > 1e-5f ? m : 1e-5f, 1 - alpha);
        s[c] = a == 0 || m == 0 ? 1 : v > 1e-5f ? v : 1e-5f;
        if (!isfinite(s[c]) || !isfinite(1 / s[c])) s[c] = 1;
    }
}

// ---- the search ----

typedef struct {
    clq_trial *trial;
    const clq_fold *fold;
    const clq_consumer *consumers;
    float *factors; // [n][cols]
    uint32_t n;
    double *losses;               // [n], of the windows so far
    uint32_t *done;               // [n]: windows so far
    float *packed;                // [n][cols]: of those that are run
    const clq_activation *inputs; // [n]: how inputs are rounded; NULL: not
} search;

// Runs the candidates of a list, all of which have done as many windows, on their next one.
static clq_status run_next(search *s, const uint32_t *list, uint32_t n, clq_error *err)
{
    double losses[CLQ_MAX_CANDIDATES];
    uint32_t cols = s->fold->cols;
    if (!n) return CLQ_OK;
    if (clq_cancelled(s->trial->engine->hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
    for (uint32_t i = 0; i < n; i++)
        memcpy(s->packed + (uint64_t)i * cols, s->factors + (uint64_t)list[i] * cols, cols * sizeof *s->packed);
    if (s->inputs) {
        clq_activation inputs[CLQ_MAX_CANDIDATES];
        for (uint32_t i = 0; i < n; i++) inputs[i] = s->inputs[list[i]];
        CLQ_TRY(clq_trial_int8_losses(s->trial, s->fold, s->consumers, s->done[list[0]], s->packed, inputs, n, losses,
                                      err));
    } else {
        CLQ_TRY(clq_trial_losses(s->trial, s->fold, s->consumers, s->done[list[0]], s->packed, n, losses, err));
    }
    for (uint32_t i = 0; i < n; i++) {
        s->losses[list[i]] += isfinite(losses[i]) ? losses[i] : INFINITY;
        s->done[list[i]]++;
    }
    return CLQ_OK;
}

static uint32_t least(const search *s, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t k = 1; k < n; k++)
        if (s->losses[k] < s->losses[best]) best = k;
    return best;
}

// The first of least loss over all windows. Losses only grow, so that one beyond the least known is out.
static clq_status run_search(search *s, uint32_t *best, clq_error *err)
{
    uint32_t list[CLQ_MAX_CANDIDATES], n_windows = s->trial->n_windows;
    for (uint32_t k = 0; k < s->n; k++) list[k] = k;
    CLQ_TRY(run_next(s, list, s->n, err));
    *best = least(s, s->n);
    while (s->done[*best] < n_windows) CLQ_TRY(run_next(s, best, 1, err));
    double bound = s->losses[*best];
    for (uint32_t window = 1; window < n_windows; window++) {
        uint32_t n = 0;
        for (uint32_t k = 0; k < s->n; k++)
            if (s->done[k] == window && s->losses[k] <= bound) list[n++] = k;
        CLQ_TRY(run_next(s, list, n, err));
    }
    for (uint32_t k = 0; k < s->n; k++)
        if (s->done[k] < n_windows) s->losses[k] = INFINITY;
    *best = least(s, s->n);
    return CLQ_OK;
}

// The best of the candidates, whose factors are there; `plain` is the one of factors 1. Frees the factors.
static clq_status finish(search *all, uint32_t plain, float *s, uint32_t *best, clq_choice_of_factors *choice,
                         clq_error *err)
{
    uint32_t n_windows = all->trial->n_windows;
    clq_status st = clq_trial_begin(all->trial, all->fold, err);
    if (st == CLQ_OK) st = run_search(all, best, err);
    if (all->done[plain] < n_windows) { // was given up
        all->losses[plain] = 0;
        all->done[plain] = 0;
    }
    while (st == CLQ_OK && all->done[plain] < n_windows) st = run_next(all, &plain, 1, err);
    memcpy(s, all->factors + (uint64_t)*best * all->fold->cols, all->fold->cols * sizeof *s);
    choice->loss = all->losses[*best];
    choice->plain_loss = all->losses[plain];
    free(all->factors);
    return st;
}

static clq_status make_room(search *all, clq_error *err)
{
    uint64_t n = (uint64_t)all->n * all->fold->cols;
    all->factors = malloc(2 * n * sizeof *all->factors);
    all->packed = all->factors + n;
    return all->factors ? CLQ_OK : clq_fail_memory(err, 2 * n * sizeof *all->factors);
}

clq_status clq_awq_search(clq_trial *trial, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                          const clq_channel_facts *facts, float *s, clq_choice_of_factors *choice, clq_error *err)
{
    double losses[CLQ_MAX_CANDIDATES] = {0};
    uint32_t done[CLQ_MAX_CANDIDATES] = {0}, best = 0;
    search all = {
        .trial = trial, .fold = fold, .consumers = consumers, .n = 2 * RATIOS, .losses = losses, .done = done};
    CLQ_TRY(make_room(&all, err));
    for (uint32_t k = 0; k < all.n; k++)
        clq_awq_factors(facts, (float)(k % RATIOS) / RATIOS, k < RATIOS, all.factors + (uint64_t)k * fold->cols);
    CLQ_TRY(finish(&all, RATIOS, s, &best, choice, err)); // ratio 0 without the term: factors 1
    choice->ratio = (float)(best % RATIOS) / RATIOS;
    choice->weighted = best < RATIOS;
    return CLQ_OK;
}

enum { FIRST_ALPHA = 6, LAST_ALPHA = 18, ALPHAS = 20 };

clq_status clq_smooth_search(clq_trial *trial, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                             const clq_channel_facts *facts, float alpha, bool is_static, float *s,
                             clq_choice_of_factors *choice, clq_error *err)
{
    double losses[CLQ_MAX_CANDIDATES] = {0};
    uint32_t done[CLQ_MAX_CANDIDATES] = {0}, best = 0, cols = fold->cols;
    clq_activation inputs[CLQ_MAX_CANDIDATES] = {0};
    search all = {
        .trial = trial, .fold = fold, .consumers = consumers, .losses = losses, .done = done, .inputs = inputs};
    *choice = (clq_choice_of_factors){.ratio = alpha, .loss = -1, .plain_loss = -1};
    if (alpha >= 0) {
        clq_smooth_factors(facts, alpha, s);
        return CLQ_OK;
    }
    all.n = 1 + LAST_ALPHA - FIRST_ALPHA + 1;
    CLQ_TRY(make_room(&all, err));
    for (uint32_t k = 0; k < all.n; k++) {
        float *factors = all.factors + (uint64_t)k * cols, most = 0;
        for (uint32_t c = 0; c < cols; c++) factors[c] = 1;
        if (k) clq_smooth_factors(facts, (float)(FIRST_ALPHA + k - 1) / ALPHAS, factors);
        for (uint32_t c = 0; c < cols; c++) most = fmaxf(most, facts->max_abs[c] / factors[c]);
        inputs[k].quant = is_static ? CLQ_QUANT_STATIC : CLQ_QUANT_TOKEN;
        inputs[k].scale = most > 0 && isfinite(most) ? most / 127 : 1;
    }
    CLQ_TRY(finish(&all, 0, s, &best, choice, err));
    if (best) choice->ratio = (float)(FIRST_ALPHA + best - 1) / ALPHAS;
    return CLQ_OK;
}

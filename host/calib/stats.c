// SPDX-License-Identifier: MIT
#include "calib/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[CLQ_N_OBSERVERS] = {
    [CLQ_OBSERVER_MINMAX] = "minmax",
    [CLQ_OBSERVER_MOVING_AVERAGE] = "moving-average",
    [CLQ_OBSERVER_P99_9] = "percentile-99.9",
    [CLQ_OBSERVER_P99_99] = "percentile-99.99",
    [CLQ_OBSERVER_P99_999] = "percentile-99.999",
    [CLQ_OBSERVER_ENTROPY] = "entropy",
    [CLQ_OBSERVER_MSE] = "mse",
};

const char *clq_observer_name(clq_observer observer) { return names[observer]; }

bool clq_observer_parse(const char *text, clq_observer *observer)
{
    for (int i = 0; i < CLQ_N_OBSERVERS; i++)
        if (strcmp(text, names[i]) == 0) {
            *observer = (clq_observer)i;
            return true;
        }
    return false;
}

double clq_token_spread(const clq_stat_site *site, uint32_t matrix)
{
    const uint32_t *bins = site->token_bins + (uint64_t)matrix * CLQ_TOKEN_BINS;
    uint64_t below = 0;
    uint32_t bin = 0;
    while (bin + 1 < CLQ_TOKEN_BINS && (below += bins[bin]) * 2 < site->tokens[matrix]) bin++;
    double median = ldexp(1 + (bin % 4 + 0.5) / 4, (int)(bin / 4) - 32);
    double spread = (double)site->token_range[2 * matrix + 1] / median;
    return site->tokens[matrix] && spread > 1 ? spread : 1;
}

clq_observer clq_default_observer(const clq_stat_site *site, uint32_t matrix)
{
    return clq_token_spread(site, matrix) >= CLQ_WIDE_SPREAD ? CLQ_OBSERVER_MSE : CLQ_OBSERVER_P99_999;
}

void clq_range_scale(const clq_range *range, bool symmetric, float *scale, int32_t *zero_point)
{
    float extent = range->max - range->min;
    // A range of more than a float's is divided before it is one.
    float s = symmetric       ? range->absmax / 127.0f
              : isinf(extent) ? (float)(((double)range->max - (double)range->min) / 255)
                              : extent / 255.0f;
    *scale = 1;
    *zero_point = 0;
    if (!(s > 0)) return; // all zero, or so small that everything rounds to zero
    *scale = s;
    if (symmetric) return;
    float z = -128.0f + rintf(-range->min / s);
    *zero_point = z < -128.0f ? -128 : z > 127.0f ? 127 : (int32_t)z;
}

clq_status clq_stat_site_create(clq_stat_site *site, const char *const *weights, uint32_t n_weights, uint32_t cols,
                                uint32_t n_matrices, bool gram, clq_error *err)
{
    uint64_t n = n_matrices, n_channels = n * cols;
    *site = (clq_stat_site){.cols = cols, .n_matrices = n_matrices};
    site->weights = calloc(n_weights, sizeof *site->weights);
    bool ok = site->weights != NULL && (site->name = strdup(weights[0])) != NULL;
    for (uint32_t i = 0; ok && i < n_weights; i++) {
        ok = (site->weights[i] = strdup(weights[i])) != NULL;
        site->n_weights += ok;
    }
    float **channels[] = {&site->min, &site->max, &site->sum, &site->sum_abs, &site->sum_sq};
    for (int i = 0; ok && i < 5; i++) ok = (*channels[i] = calloc(n_channels, sizeof(float))) != NULL;
    ok = ok && (site->tokens = calloc(n, sizeof *site->tokens)) &&
         (site->ranges = calloc(n * CLQ_N_OBSERVERS, sizeof *site->ranges)) &&
         (site->bins = calloc(n * 2 * CLQ_BINS, sizeof *site->bins)) &&
         (site->token_bins = calloc(n * CLQ_TOKEN_BINS, sizeof *site->token_bins)) &&
         (site->exponents = calloc(n, sizeof *site->exponents)) &&
         (site->token_range = calloc(2 * n, sizeof *site->token_range));
    if (ok && gram) ok = n_channels <= SIZE_MAX / cols / 4 && (site->gram = calloc(n_channels * cols, 4));
    if (ok) return CLQ_OK;
    clq_stat_site_clear(site);
    return clq_fail_memory(err, n_channels * (gram ? cols : 5) * 4);
}

void clq_stat_site_clear(clq_stat_site *s)
{
    for (uint32_t i = 0; i < s->n_weights; i++) free(s->weights[i]);
    void *arrays[] = {s->name,    s->weights, s->tokens, s->ranges,     s->min,       s->max,         s->sum,
                      s->sum_abs, s->sum_sq,  s->bins,   s->token_bins, s->exponents, s->token_range, s->gram};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    *s = (clq_stat_site){0};
}

void clq_stats_free(clq_stats_file *stats)
{
    if (!stats) return;
    for (uint32_t i = 0; i < stats->n_sites; i++) clq_stat_site_clear(&stats->sites[i]);
    free(stats->sites);
    free(stats->dataset);
    free(stats->architecture);
    free(stats);
}

const clq_stat_site *clq_stats_find(const clq_stats_file *stats, const char *weight)
{
    for (uint32_t i = 0; i < stats->n_sites; i++)
        for (uint32_t k = 0; k < stats->sites[i].n_weights; k++)
            if (strcmp(stats->sites[i].weights[k], weight) == 0) return &stats->sites[i];
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const clq_stat_site *)a)->name, ((const clq_stat_site *)b)->name);
}

void clq_stats_sort(clq_stats_file *stats)
{
    if (stats->n_sites) qsort(stats->sites, stats->n_sites, sizeof *stats->sites, by_name);
}

static uint32_t head_word(const float *slot, int word)
{
    uint32_t v;
    memcpy(&v, &slot[word], sizeof v);
    return v;
}

void clq_stat_site_set(clq_stat_site *site, uint32_t m, const float *slot)
{
    uint64_t cols = site->cols, stride = (cols + 15) / 16 * 16;
    const float *channels = slot + CLQ_SLOT_CHANNELS;
    float *const arrays[] = {[CLQ_CHANNEL_MIN] = site->min,
                             [CLQ_CHANNEL_MAX] = site->max,
                             [CLQ_CHANNEL_SUM] = site->sum,
                             [CLQ_CHANNEL_SUM_ABS] = site->sum_abs,
                             [CLQ_CHANNEL_SUM_SQ] = site->sum_sq};
    for (int i = CLQ_CHANNEL_MIN; i <= CLQ_CHANNEL_SUM_SQ; i++)
        memcpy(arrays[i] + m * cols, channels + (uint64_t)i * stride, cols * sizeof(float));
    memcpy(site->bins + (uint64_t)m * 2 * CLQ_BINS, slot + CLQ_SLOT_BINS, 2 * CLQ_BINS * sizeof(uint32_t));
    memcpy(site->token_bins + (uint64_t)m * CLQ_TOKEN_BINS, slot + CLQ_SLOT_TOKEN_BINS,
           CLQ_TOKEN_BINS * sizeof(uint32_t));
    site->tokens[m] = head_word(slot, CLQ_SLOT_TOKENS);
    site->exponents[m] = (int32_t)head_word(slot, CLQ_SLOT_EXPONENT);
    site->token_range[2 * m] = slot[CLQ_SLOT_TOKEN_MIN];
    site->token_range[2 * m + 1] = slot[CLQ_SLOT_TOKEN_MAX];
}

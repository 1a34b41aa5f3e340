// SPDX-License-Identifier: MIT
// What calibration measured, in memory and as a file (docs/statistics.md): safetensors with a JSON description in its
// metadata. A site is the input that some weights of a layer share; names are GGUF's.
#ifndef CLQ_CALIB_STATS_H
#define CLQ_CALIB_STATS_H

#include "base/error.h"
#include "clquant_steps.h"

typedef enum clq_observer {
    CLQ_OBSERVER_MINMAX,
    CLQ_OBSERVER_MOVING_AVERAGE,
    CLQ_OBSERVER_P99_9,
    CLQ_OBSERVER_P99_99,
    CLQ_OBSERVER_P99_999,
    CLQ_OBSERVER_ENTROPY,
    CLQ_OBSERVER_MSE,
    CLQ_N_OBSERVERS
} clq_observer;

// Names on the command line and in files: minmax, moving-average, percentile-99.9 ...
const char *clq_observer_name(clq_observer observer);
bool clq_observer_parse(const char *text, clq_observer *observer);

// One scale for tokens so many times as large as the median one leaves that two bits.
#define CLQ_WIDE_SPREAD 32

// The range that an observer gives for int8 activations of one scale a tensor.
typedef struct clq_range {
    float absmax;   // symmetric
    float min, max; // asymmetric, min <= 0 <= max
} clq_range;

typedef struct clq_stat_site {
    char *name;           // of the first of its weights: "blk.0.attn_q.weight"
    char **weights;
    uint32_t n_weights, cols, n_matrices; // matrices: experts, else 1
    uint64_t *tokens;     // [n_matrices]
    clq_range *ranges;    // [n_matrices][CLQ_N_OBSERVERS]; all zero where a matrix saw no token
    float *min, *max, *sum, *sum_abs, *sum_sq; // [n_matrices][cols], of the channels
    uint32_t *bins, *token_bins;               // [n_matrices][2 * CLQ_BINS], [n_matrices][CLQ_TOKEN_BINS]
    int32_t *exponents;                        // [n_matrices]: clquant_steps.h has the meaning
    float *token_range;                        // [n_matrices][2]: least and largest absmax of a token
    float *gram;          // [n_matrices][cols][cols], NULL: not measured
} clq_stat_site;

typedef struct clq_stats_file {
    clq_stat_site *sites; // sorted by name
    uint32_t n_sites;
    char *dataset;        // name of the text; "" if unknown
    char *architecture;
    uint64_t fingerprint; // of model, tokens and settings
    uint32_t context, windows;
    uint64_t tokens;      // of the calibration text that were run
} clq_stats_file;

// The quantization of activations that an observer's range gives: scale > 0, finite. A site that saw nothing or only
// zeros: scale 1, zero_point 0. Symmetric: absmax / 127, 0. Else (max - min) / 255, -128 + round(-min / scale).
void clq_range_scale(const clq_range *range, bool symmetric, float *scale, int32_t *zero_point);

// How many times the median token's absmax the largest token's is, at one matrix of a site; 1 where no token was seen.
double clq_token_spread(const clq_stat_site *site, uint32_t matrix);
// Whose range is taken where no observer is named: what lost least (bench/results has the measurements). Percentile-99.999,
// as hardly anything may be clipped; mse where the spread of tokens is wide, as there a clip costs less than coarse steps.
clq_observer clq_default_observer(const clq_stat_site *site, uint32_t matrix);

// CLQ_BAD_INPUT for another file, or one whose sizes or values cannot be.
clq_status clq_stats_open(const char *path, clq_stats_file **stats, clq_error *err);
void clq_stats_free(clq_stats_file *stats);
// Atomically: a temporary file beside it, fsync, rename.
clq_status clq_stats_write(const clq_stats_file *stats, const char *path, clq_error *err);
// Whether the path names such a file, by its content; false where it cannot be read.
bool clq_stats_is(const char *path);
// The site that a weight ("blk.0.attn_k.weight") belongs to; NULL: none.
const clq_stat_site *clq_stats_find(const clq_stats_file *stats, const char *weight);

// ---- making them ----

// Everything zero. cols and n_matrices > 0; names are copied. On failure the site is empty.
clq_status clq_stat_site_create(clq_stat_site *site, const char *const *weights, uint32_t n_weights, uint32_t cols,
                                uint32_t n_matrices, bool gram, clq_error *err);
// What was observed at one matrix (CLQ_SLOT_* of clquant_steps.h), but for ranges and gram.
void clq_stat_site_set(clq_stat_site *site, uint32_t matrix, const float *slot);
void clq_stat_site_clear(clq_stat_site *site); // frees what it holds
void clq_stats_sort(clq_stats_file *stats);    // by name, as clq_stats_write wants them

#endif

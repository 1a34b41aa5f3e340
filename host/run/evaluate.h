// SPDX-License-Identifier: MIT
// Perplexity of a text in windows, and how far predictions are from those of a base. The protocol and the definitions
// are llama.cpp's llama-perplexity's: docs/evaluation.md.
#ifndef CLQ_RUN_EVALUATE_H
#define CLQ_RUN_EVALUATE_H

#include "run/kldbase.h"

// Rows of logits, floats [n][vocab], behind the window's tokens first ... first + n - 1. Valid during the call.
typedef clq_status (*clq_rows_fn)(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err);

// Where logits come from: a model, or a test.
typedef struct clq_predictor {
    void *user;
    uint32_t vocab;
    // Runs n tokens with nothing before them and calls rows in order for tokens from ... n - 1.
    clq_status (*run)(void *user, const int32_t *tokens, uint32_t n, uint32_t from, clq_rows_fn rows, void *rows_user,
                      clq_error *err);
} clq_predictor;

typedef struct clq_estimate {
    double value, error; // one standard error
} clq_estimate;

// Of a base; natural logarithms and nats. Percentiles interpolate between values.
typedef struct clq_divergence {
    clq_estimate ppl_base, ratio, ln_ratio, difference; // PPL(model) over, and minus, PPL(base)
    double correlation;                                 // of ln p(token) between the two
    clq_estimate kld;                                   // mean
    double kld_min, kld_p001, kld_p01, kld_p05, kld_p10, kld_median, kld_p90, kld_p95, kld_p99, kld_p999, kld_max;
    clq_estimate delta_p, rms_delta_p; // p(token) of the model minus the base's
    clq_estimate same_top;             // share of positions whose likeliest token is the base's
} clq_divergence;

typedef struct clq_evaluation {
    uint32_t windows;      // done
    uint64_t scored;       // tokens whose probability counts
    clq_estimate ppl, nll; // nll = ln PPL
    bool has_base;
    clq_divergence base;
    double seconds;
} clq_evaluation;

typedef struct clq_evaluate_options {
    const int32_t *tokens; // [windows][context]
    uint32_t context, windows;
    int32_t bos;              // stands in for the first token of each window; -1: none does
    const clq_kldbase *base;  // its first windows are compared with; NULL: none
    double *window_klds;      // with base: [windows], gets the mean of each that is done; NULL: not wanted
    clq_kldbase_writer *save; // gets the rows; NULL: none. The caller finishes it
    uint32_t threads;         // of scoring
    const clq_hooks *hooks;   // cancel is looked at between windows
    void (*window)(void *user, const clq_evaluation *so_far); // after each: windows, scored, nll and ppl; NULL: none
    void *user;
} clq_evaluate_options;

// CLQ_BAD_INPUT when logits are not numbers, or base and vocabulary do not fit. CLQ_INTERRUPTED leaves in *result what
// is done.
clq_status clq_evaluate(const clq_predictor *predictor, const clq_evaluate_options *options, clq_evaluation *result,
                        clq_error *err);

// ---- the pieces, for tests ----

// What one position gives.
typedef struct clq_score {
    double nll, nll_base, kld, delta_p; // the latter three: with a base
    bool same_top;
} clq_score;

// The score of token `next` by a row. base: the row's words, NULL: none; save: gets the row's words, NULL: not.
// False when the logits make no probabilities (NaN, +infinity, or -infinity only).
bool clq_score_row(const float *logits, uint32_t vocab, int32_t next, const uint16_t *base, uint16_t *save,
                   clq_score *score);
// Sums up. has_base tells whether the scores have one.
clq_status clq_evaluation_sum(const clq_score *scores, uint64_t n, bool has_base, clq_evaluation *result,
                              clq_error *err);

#endif

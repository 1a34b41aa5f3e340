// SPDX-License-Identifier: MIT
// Which factors: AWQ's and SmoothQuant's candidates for the channels of one input, and the search among them.
#ifndef CLQ_METHOD_SEARCH_H
#define CLQ_METHOD_SEARCH_H

#include "method/trial.h"

// What the factors of a fold are computed from.
typedef struct clq_channel_facts {
    const float *mean_abs;    // [cols]: mean |x| of the inputs
    const float *max_abs;     // [cols]: largest |x|
    const float *weight_mean; // [cols]: mean over the consumers' rows of |w| / (largest |w| of its group + 1e-6)
    const float *weight_max;  // [cols]: largest |w| of the consumers' rows
    uint32_t cols;
    bool powers_of_two; // factors become the nearest: 16-bit weights stay exact
} clq_channel_facts;

// AWQ: x = mean_abs, w = weight_mean: s = x^ratio, weighted: / (w^(1 - ratio) + 1e-4); at least 1e-4; then / sqrt(max s *
// min s); what is not finite becomes 1. Channels without activations are left out of max and min and get 1.
// Sources: awq/quantize/quantizer.py of https://github.com/casper-hansen/AutoAWQ; arXiv:2306.00978
void clq_awq_factors(const clq_channel_facts *facts, float ratio, bool weighted, float *s);
// SmoothQuant: s = max(1e-5, a^alpha / max(1e-5, m)^(1 - alpha)), a = max_abs, m = weight_max; 1 where either is 0.
// Sources: smoothquant/smooth.py of https://github.com/mit-han-lab/smoothquant; arXiv:2211.10438
void clq_smooth_factors(const clq_channel_facts *facts, float alpha, float *s);

// The result of a search.
typedef struct clq_choice_of_factors {
    float ratio;
    bool weighted;
    double loss, plain_loss; // sums of squares over the trial's windows; plain: of factors 1
} clq_choice_of_factors;

// AWQ's search: ratios k / 20, k = 0 .. 19, each with and without the weights' term; the first of least loss. s[cols]: its
// factors. A candidate whose loss on some of the windows is beyond that of another on all of them is not run on the rest.
clq_status clq_awq_search(clq_trial *trial, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                          const clq_channel_facts *facts, float *s, clq_choice_of_factors *choice, clq_error *err);

// SmoothQuant: alpha, or where it is negative the best of k / 20, k = 6 .. 18, and of factors 1 (ratio < 0). is_static:
// inputs are rounded with one scale for all, that of the largest |x|, else with one for each token.
clq_status clq_smooth_search(clq_trial *trial, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                             const clq_channel_facts *facts, float alpha, bool is_static, float *s,
                             clq_choice_of_factors *choice, clq_error *err);

#endif

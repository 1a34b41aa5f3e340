// SPDX-License-Identifier: MIT
// What is known of the loaded layer while it is prepared, and the parts of that.
#ifndef CLQ_METHOD_LAYER_H
#define CLQ_METHOD_LAYER_H

#include "method/state.h"

typedef struct clq_layer_work {
    clq_method *m;
    const clq_unit *unit;
    clq_fold folds[CLQ_MAX_FOLDS];
    float *factors[CLQ_MAX_FOLDS];          // [cols], of those that were folded; NULL: none
    clq_site_report reports[CLQ_N_WEIGHTS]; // by the first of the weights that share an input
    uint32_t n_folds;
} clq_layer_work;

// The factors by which the columns of a weight were multiplied, or rows of it divided: NULL: none. first: its first row.
const float *clq_layer_columns(const clq_layer_work *l, int which);
const float *clq_layer_rows(const clq_layer_work *l, int which, uint64_t *first, uint64_t *n);
// An array of channels (CLQ_CHANNEL_*) of what was observed of a weight's input: [cols].
clq_status clq_layer_channels(const clq_layer_work *l, int which, uint32_t matrix, int array, float *to,
                              clq_error *err);
// CLQ_BAD_INPUT where an observed input was NaN or infinite.
clq_status clq_layer_check(const clq_layer_work *l, clq_error *err);

// factors.c: searches and folds factors (awq, smoothquant).
clq_status clq_layer_factors(clq_layer_work *l, clq_error *err);
// rounding.c: scales and, with gptq, values; errors into the reports.
clq_status clq_layer_rounding(clq_layer_work *l, clq_error *err);
// layer.c: scales of static activations, from what was observed.
clq_status clq_layer_activations(clq_layer_work *l, clq_error *err);

#endif

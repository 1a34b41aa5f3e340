// SPDX-License-Identifier: MIT
// Trials on the loaded layer: what a module gives with other weights, on copies of its inputs for some of the
// calibration's windows. Everything stays on the device but the losses.
#ifndef CLQ_METHOD_TRIAL_H
#define CLQ_METHOD_TRIAL_H

#include "method/folds.h"
#include "model/layers.h"

enum { CLQ_MAX_CANDIDATES = 64 };

// How a fold's consumer is rounded in trials.
typedef struct clq_consumer {
    const clq_type *types; // by matrix; not CLQ_INT: not rounded
    float *low, *high;     // [cols]: of the columns, where one scale is for the whole matrix; else NULL
} clq_consumer;

typedef struct clq_trial {
    clq_layers *layers;
    clq_engine *engine;
    uint32_t *windows; // tokens of each window
    uint32_t n_windows;
    uint64_t n_rows; // tokens of all
    clq_copies copies;
    // Places in the state, in floats.
    uint64_t zeros;     // [the most columns or rows]
    uint64_t reference; // [rows][embd]: what the module gives with the layer's own weights
    uint64_t out;       // [context][the most rows]
    uint64_t factors;   // [CLQ_MAX_CANDIDATES][the most columns]
    uint64_t errors;    // [CLQ_MAX_CANDIDATES][context]
    uint64_t divided;   // [context][the most columns]: inputs divided by a candidate's factors
    uint64_t weights;   // of one candidate: those that read one input, one behind the other
    uint64_t max_cols;
    float *host_errors; // of `errors`
} clq_trial;

// What trials with windows of so many tokens, of n_rows tokens together, need in the state. For clq_layers_options.extra.
bool clq_trial_floats(const clq_engine *engine, uint64_t n_rows, uint64_t *n_floats);
// Elements of the largest weight whose errors are measured.
uint64_t clq_trial_largest(const clq_engine *engine);
// windows: copied. The layers were opened with that much extra room.
clq_status clq_trial_create(clq_layers *layers, const uint32_t *windows, uint32_t n_windows, clq_trial *trial,
                            clq_error *err);
void clq_trial_free(clq_trial *trial);
// Where the inputs of window `index` are to be copied (clq_layers_run_with).
const clq_copies *clq_trial_copies(clq_trial *trial, uint32_t index);
// The first of the weights that share an input with `which`: whose input is observed, and copied.
int clq_trial_input(const clq_unit *unit, int which);

// Whether the inputs of a weight are copied, in the layer whose copies were asked for last.
bool clq_trial_has_input(const clq_trial *trial, int which);

// Makes the reference of a fold's module.
clq_status clq_trial_begin(clq_trial *trial, const clq_fold *fold, clq_error *err);
// The sum of squares of what the module gives otherwise on one window, for each of n candidates: weights W of a consumer
// become Q(W * s) / s, s being row factors[k] of [n][cols], Q rounding as consumers[i] says. Behind clq_trial_begin.
clq_status clq_trial_losses(clq_trial *trial, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                            uint32_t window, const float *factors, uint32_t n, double *losses, clq_error *err);
// The same of a module whose fold is by a norm, where inputs are rounded, too: to int8 as inputs[k] says, divided by the
// factors.
clq_status clq_trial_int8_losses(clq_trial *trial, const clq_fold *fold,
                                 const clq_consumer consumers[CLQ_FOLD_CONSUMERS], uint32_t window,
                                 const float *factors, const clq_activation *inputs, uint32_t n, double *losses,
                                 clq_error *err);
// Sums of squares, over all windows, of products with `errors` (f32, all rows of one matrix of the weight) and with the
// weight.
clq_status clq_trial_site_error(clq_trial *trial, int which, const float *errors, double *error, double *energy,
                                clq_error *err);

#endif

// SPDX-License-Identifier: MIT
// Steps on a device against the C references: the self-test, and what tests/check_steps.c is made of.
#ifndef CLQ_DEVICE_STEPS_TEST_H
#define CLQ_DEVICE_STEPS_TEST_H

#include "device/device.h"

// A product of random weights [rows, cols], encoded to a type, with random activations.
typedef struct clq_linear_case {
    clq_type type;
    uint32_t rows, cols, tokens, mode, quant;
    bool bias, accumulate, indexed; // indexed: CLQ_INT with a group for each column
    bool in_state;                  // f32: CLQ_STEP_STATE_WEIGHT
    uint32_t seed;
} clq_linear_case;

// *worst: the largest error against a sum in double, as a share of what float32 may lose: (cols / 8 + 24) * 2^-24 of the
// sum of |weight's block| * |activation|. CLQ_MODE_I8: 0, or infinite where any bit differs.
clq_status clq_linear_compare(clq_device *d, const clq_linear_case *c, double *worst, clq_error *err);

// A step of another kind. tokens, cols (or heads and head_dim) as the kind takes them.
typedef struct clq_step_case {
    clq_step step;         // offsets are set by the comparison
    clq_type embedding;    // EMBED
    uint32_t seed;
} clq_step_case;

// *worst: the largest |ours - theirs| / (1e-5 * (1 + |theirs|)).
clq_status clq_step_compare(clq_device *d, const clq_step_case *c, double *worst, clq_error *err);

// OBSERVE (all phases, over windows of growing values) and, with `gram`, GRAM on random activations [tokens][cols].
// bad: some are NaN or infinite. *worst: 0, or infinite where any count or statistic differs; for GRAM the error as a
// share of 1e-5 of the largest product sum.
typedef struct clq_observe_case {
    uint32_t tokens, cols, windows, seed;
    bool gram, bad;
} clq_observe_case;
clq_status clq_observe_compare(clq_device *d, const clq_observe_case *c, double *worst, clq_error *err);

// A step that prepares weights, on groups of ordinary values, of zeros, and at the ends of what floats can hold. ROUND
// and GPTQ: with the scales that a SCALES of the same fields has chosen before.
typedef struct clq_prepare_case {
    clq_step step; // kind, flags, shapes and rules; offsets are set by the comparison
    enum { CLQ_COST_NONE, CLQ_COST_DIAGONAL, CLQ_COST_FULL } cost; // SCALES, ROUND
    bool scaled, in_place, indexed; // QUANT: with in2; COLUMNS: out is in; GPTQ: a group for each column
    uint32_t seed;
} clq_prepare_case;

// *worst: 0, or infinite where any bit differs; GRAM and ERROR: the error as a share of 1e-5 of the largest value.
clq_status clq_prepare_compare(clq_device *d, const clq_prepare_case *c, double *worst, clq_error *err);
// A few of these, small. Needs steps_prepare.
clq_status clq_prepare_test(clq_device *d, bool *good, clq_error *err);

#endif

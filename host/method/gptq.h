// SPDX-License-Identifier: MIT
// GPTQ: columns are rounded one after the other, and those that come later make up for the errors of those before.
// Sources: arXiv:2210.17323; modifiers/gptq of https://github.com/vllm-project/llm-compressor
#ifndef CLQ_METHOD_GPTQ_H
#define CLQ_METHOD_GPTQ_H

#include "device/device.h"

// The order of the columns and the factors of the updates, for all weights that share an input.
typedef struct clq_sweep {
    uint32_t cols;
    uint32_t *order; // [cols]: which column comes when
    double *factor;  // [cols][cols]: the upper Cholesky factor of the inverse Hessian in that order; its lower half is
                     // not used
    float damp;      // that it took
    uint32_t n_dead; // columns whose inputs are all zero
} clq_sweep;

// CLQ_DEVICE without LAPACKE. gram [cols][cols]: sums of products of the inputs. The diagonal gets damp times its mean, and more in steps until the
// matrix is positive definite. keep_order: columns in their order, else by descending diagonal. *found false: it never
// was, and there is no sweep.
clq_status clq_sweep_create(const float *gram, uint32_t cols, float damp, bool keep_order, clq_sweep *sweep,
                            bool *found, clq_error *err);
void clq_sweep_free(clq_sweep *sweep);

typedef struct clq_sweeper clq_sweeper;

// max_cols: of any matrix. The device's steps must have been prepared.
clq_status clq_sweeper_create(clq_device *device, uint64_t max_cols, clq_sweeper **sweeper, clq_error *err);
void clq_sweeper_free(clq_sweeper *sweeper);
uint64_t clq_sweeper_bytes(const clq_sweeper *sweeper); // of device memory
// w [rows, cols] becomes what the codes stand for: scale * (code - zero_point), with the scales and zero-points (NULL: all
// 0) [rows, groups] given.
clq_status clq_sweeper_run(clq_sweeper *sweeper, const clq_sweep *sweep, const clq_type *type, float *w, uint64_t rows,
                           const float *scales, const int8_t *zero_points, clq_error *err);

#endif

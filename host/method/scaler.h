// SPDX-License-Identifier: MIT
// Scales and zero-points of integer types, chosen on the device (CLQ_STEP_SCALES).
#ifndef CLQ_METHOD_SCALER_H
#define CLQ_METHOD_SCALER_H

#include "device/device.h"

typedef struct clq_scaler clq_scaler;

// What errors of a group cost. At most one of the two; both NULL: their squares.
typedef struct clq_error_cost {
    const float *blocks;   // [cols / group][group][group]: sums of products of inputs
    const float *diagonal; // [cols]: sums of their squares
} clq_error_cost;

// max_cols: of any matrix. block: the largest group that blocks are given for, 0: none. The device's steps must have been
// prepared (clq_device_ops.steps_prepare).
clq_status clq_scaler_create(clq_device *device, uint64_t max_cols, uint64_t block, clq_scaler **scaler,
                             clq_error *err);
void clq_scaler_free(clq_scaler *scaler);
uint64_t clq_scaler_bytes(const clq_scaler *scaler); // of device memory
// w [rows, cols] to scales and zero_points [rows][groups], for a type with one scale a row or group. rule: CLQ_SCALES_* of
// clquant_steps.h. zero_points may be NULL where the type is symmetric.
clq_status clq_scaler_run(clq_scaler *scaler, const clq_type *type, uint32_t rule, const float *w, uint64_t rows,
                          uint64_t cols, const clq_error_cost *cost, float *scales, int8_t *zero_points,
                          clq_error *err);

#endif

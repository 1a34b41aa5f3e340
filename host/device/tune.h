// SPDX-License-Identifier: MIT
// How a device runs forward passes best, measured: `clquant tune` stores it, by device and driver, in the cache folder.
#ifndef CLQ_DEVICE_TUNE_H
#define CLQ_DEVICE_TUNE_H

#include "device/device.h"

// -1: as the device's kind suggests.
typedef struct clq_tuning {
    int work_groups; // 1: `wg` kernels, 0: `vec` kernels
    int together;    // 1: one launch runs many steps (vec kernels on CPUs)
    int blas;        // 1: CLBlast makes dense float32 products of many tokens
} clq_tuning;
#define CLQ_UNTUNED ((clq_tuning){-1, -1, -1})

typedef struct clq_tune_row {
    clq_tuning tuning;
    bool works;
    double one, many, dense; // milliseconds of a chain of products: 1 token, 64 tokens (q8_0), 64 tokens (f32)
} clq_tune_row;

enum { CLQ_TUNE_ROWS = 8 };

// Measures what the device can do, stores the best and says where. CLQ_DEVICE when there is no such device; CLQ_OUTPUT
// when there is no cache folder.
clq_status clq_tune(const char *selector, const clq_device_options *options, clq_tune_row rows[CLQ_TUNE_ROWS],
                    uint32_t *n_rows, uint32_t *best, char *path, size_t path_size, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
#include "method/scaler.h"

#include <stdlib.h>

#include "base/checked.h"
#include "device/steps_test.h"

enum { CHUNK = 4 << 20, MIN_GROUP = 32 }; // floats of weights at a time, unless a row is longer

struct clq_scaler {
    clq_device *device;
    clq_memory *memory;
    uint64_t w, out, cost; // floats in the memory
    uint64_t n_w, n_cost;
    float *host; // of the results
};

// What is chosen is baked into models: the device must give what the references give. Without exact division it does not.
static clq_status test_device(clq_device *device, clq_error *err)
{
    bool good = true;
    if (device->info.exact_divide && !device->info.is_reference) CLQ_TRY(clq_prepare_test(device, &good, err));
    if (good) return CLQ_OK;
    return clq_fail(
        err, CLQ_DEVICE,
        "kernel self-test: scales and codes that '%s' chooses are not those of the references; --device ref uses "
        "these",
        device->info.name);
}

clq_status clq_scaler_create(clq_device *device, uint64_t max_cols, uint64_t block, clq_scaler **scaler, clq_error *err)
{
    *scaler = NULL;
    CLQ_TRY(test_device(device, err));
    clq_scaler *s = *scaler = calloc(1, sizeof *s);
    if (!s) return clq_fail_memory(err, sizeof *s);
    s->device = device;
    s->n_w = max_cols > CHUNK ? max_cols : CHUNK;
    s->out = s->n_w;
    s->cost = s->out + 2 * (s->n_w / MIN_GROUP + 16);
    s->n_cost = max_cols * (block ? block : 1);
    s->host = malloc((s->cost - s->out) * sizeof *s->host);
    clq_status st = s->host ? device->ops->memory_create(device, (s->cost + s->n_cost + 64) * 4, &s->memory, err)
                            : clq_fail_memory(err, (s->cost - s->out) * sizeof *s->host);
    if (st == CLQ_OK) return CLQ_OK;
    clq_scaler_free(s);
    *scaler = NULL;
    return st;
}

void clq_scaler_free(clq_scaler *s)
{
    if (!s) return;
    if (s->memory) s->device->ops->memory_free(s->memory);
    free(s->host);
    free(s);
}

uint64_t clq_scaler_bytes(const clq_scaler *s) { return s->memory->n_bytes; }

// One chunk of rows, whose cost is there.
static clq_status run_rows(clq_scaler *s, clq_step *step, const float *w, uint64_t rows, float *scales,
                           int8_t *zero_points, clq_error *err)
{
    const clq_device_ops *ops = s->device->ops;
    uint64_t n = rows * step->groups;
    step->rows = (uint32_t)rows;
    CLQ_TRY(ops->memory_write(s->memory, s->w * 4, w, rows * step->cols * 4, err));
    CLQ_TRY(ops->steps_run(s->device, step, 1, s->memory, s->memory, NULL, err));
    CLQ_TRY(ops->memory_read(s->memory, s->out * 4, s->host, 2 * n * 4, err));
    for (uint64_t i = 0; i < n; i++) scales[i] = s->host[i];
    for (uint64_t i = 0; zero_points && i < n; i++) zero_points[i] = (int8_t)s->host[n + i];
    return CLQ_OK;
}

clq_status clq_scaler_run(clq_scaler *s, const clq_type *type, uint32_t rule, const float *w, uint64_t rows,
                          uint64_t cols, const clq_error_cost *cost, float *scales, int8_t *zero_points, clq_error *err)
{
    uint64_t groups = clq_type_groups(type, cols), group = cols / groups;
    clq_step step = {.kind = CLQ_STEP_SCALES,
                     .flags = CLQ_STEP_STATE_WEIGHT | (type->symmetric ? CLQ_STEP_SYMMETRIC : 0),
                     .cols = (uint32_t)cols,
                     .bits = type->bits,
                     .group_size = type->granularity == CLQ_PER_GROUP ? type->group_size : 0,
                     .groups = (uint32_t)groups,
                     .cache_format = type->scale_format,
                     .phase = rule,
                     .w = s->w * 4,
                     .in = CLQ_NONE,
                     .in2 = CLQ_NONE,
                     .out = s->out};
    uint64_t n_cost = cost->blocks ? cols * group : cost->diagonal ? cols : 0;
    if (n_cost > s->n_cost)
        return clq_fail(err, CLQ_DEVICE, "groups of %llu were not planned for", (unsigned long long)group);
    if (n_cost) {
        const float *from = cost->blocks ? cost->blocks : cost->diagonal;
        step.in = s->cost;
        step.flags |= cost->blocks ? 0 : CLQ_STEP_DIAGONAL;
        CLQ_TRY(s->device->ops->memory_write(s->memory, s->cost * 4, from, n_cost * 4, err));
    }
    uint64_t most = s->n_w / cols, most_scales = (s->cost - s->out) / (2 * groups);
    if (most > most_scales) most = most_scales; // rows shorter than MIN_GROUP
    for (uint64_t r = 0, n; r < rows; r += n) {
        n = rows - r < most ? rows - r : most;
        CLQ_TRY(run_rows(s, &step, w + r * cols, n, scales + r * groups, zero_points ? zero_points + r * groups : NULL,
                         err));
    }
    return CLQ_OK;
}

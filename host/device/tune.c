// SPDX-License-Identifier: MIT
#include "device/tune.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/median.h"
#include "base/threads.h"
#include "device/opencl.h"
#include "ops/steps.h"

enum { SIZE = 1024, CHAIN = 24, ROUNDS = 5, MANY = 64 };

// ---- what is stored ----

static bool tuning_path(const clq_opencl *d, char *path, size_t size)
{
    const clq_device_info *i = &d->base.info;
    const char *parts[] = {i->name, i->platform, i->version, i->driver};
    uint64_t hash = 0;
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
        hash = XXH3_64bits_withSeed(parts[k], strlen(parts[k]), hash);
    return d->cache_dir[0] && (size_t)snprintf(path, size, "%s/tune-%016" PRIx64 ".txt", d->cache_dir, hash) < size;
}

clq_tuning clq_tuning_load(const clq_opencl *d)
{
    char path[512];
    clq_tuning t = CLQ_UNTUNED;
    FILE *f = tuning_path(d, path, sizeof path) ? fopen(path, "r") : NULL;
    if (!f) return t;
    if (fscanf(f, "work_groups %d together %d blas %d", &t.work_groups, &t.together, &t.blas) != 3) t = CLQ_UNTUNED;
    fclose(f);
    return t;
}

static clq_status store(const clq_opencl *d, const clq_tuning *t, char *path, size_t size, clq_error *err)
{
    char other[520];
    if (!tuning_path(d, path, size))
        return clq_fail(err, CLQ_OUTPUT, "there is no cache folder to store the choice in; CLQ_CACHE_DIR names one");
    snprintf(other, sizeof other, "%s.new", path);
    FILE *f = fopen(other, "w");
    bool good = f && fprintf(f, "work_groups %d together %d blas %d\n", t->work_groups, t->together, t->blas) > 0;
    if (f && fclose(f) != 0) good = false;
    if (good && rename(other, path) == 0) return CLQ_OK;
    remove(other);
    return clq_fail(err, CLQ_OUTPUT, "cannot write '%s'", path);
}

// ---- measuring ----

// Median milliseconds of a chain of products [SIZE, SIZE], each of what the one before made.
static clq_status time_chain(clq_device *d, clq_format_id format, uint32_t tokens, double *ms, clq_error *err)
{
    const clq_format *f = clq_format_row(format);
    uint64_t n_bytes = (uint64_t)SIZE * SIZE / f->info.block_elements * f->info.block_bytes;
    uint64_t rows = (uint64_t)tokens * SIZE, prep = clq_prep_floats(tokens, SIZE, CLQ_MODE_F32);
    clq_memory *weights = NULL, *state = NULL;
    clq_step steps[2 * CHAIN];
    float *x = malloc(sizeof *x * SIZE * SIZE);
    void *encoded = malloc(n_bytes);
    clq_status st = x && encoded ? CLQ_OK : clq_fail_memory(err, SIZE * SIZE * sizeof *x);
    for (uint32_t i = 0, seed = 1; st == CLQ_OK && i < SIZE * SIZE; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-31f / 18; // a product keeps the size of what goes in
    }
    if (st != CLQ_OK) goto out;
    f->encode_ref(x, NULL, (uint64_t)SIZE * SIZE / f->info.block_elements, encoded);
    CLQ_TRY_OUT(d->ops->memory_create(d, n_bytes + 256, &weights, err));
    CLQ_TRY_OUT(d->ops->memory_create(d, (2 * rows + prep) * sizeof(float), &state, err));
    CLQ_TRY_OUT(d->ops->memory_write(weights, 0, encoded, n_bytes, err));
    CLQ_TRY_OUT(d->ops->memory_write(state, 0, x, rows * sizeof *x, err));
    for (uint32_t i = 0; i < CHAIN; i++) {
        steps[2 * i] = (clq_step){.kind = CLQ_STEP_PREP,
                                  .tokens = tokens,
                                  .cols = SIZE,
                                  .in_stride = SIZE,
                                  .in = i % 2 * rows,
                                  .out = 2 * rows};
        steps[2 * i + 1] = (clq_step){.kind = CLQ_STEP_LINEAR,
                                      .tokens = tokens,
                                      .rows = SIZE,
                                      .cols = SIZE,
                                      .format = format,
                                      .in = 2 * rows,
                                      .out = (1 - i % 2) * rows,
                                      .out_stride = SIZE,
                                      .bias = CLQ_NONE,
                                      .scales = CLQ_NONE,
                                      .zero_points = CLQ_NONE,
                                      .group_index = CLQ_NONE};
    }
    double times[ROUNDS];
    for (int i = -1; i < ROUNDS; i++) {
        double start = clq_seconds();
        CLQ_TRY_OUT(d->ops->steps_run(d, steps, 2 * CHAIN, weights, state, NULL, err));
        CLQ_TRY_OUT(d->ops->wait(d, err));
        if (i >= 0) times[i] = 1e3 * (clq_seconds() - start);
    }
    *ms = clq_median(times, ROUNDS);
out:
    d->ops->memory_free(weights);
    d->ops->memory_free(state);
    free(x);
    free(encoded);
    return st;
}

static void measure(const char *selector, const clq_device_options *options, clq_tune_row *row)
{
    clq_device *d;
    if (clq_opencl_open(selector, options, &row->tuning, &d, NULL) != CLQ_OK) return;
    const clq_type types[] = {clq_plain(CLQ_F32), clq_plain(CLQ_Q8_0)};
    clq_status st = d->ops->steps_prepare(d, types, 2, NULL);
    row->works = st == CLQ_OK && !clq_opencl_of(d)->steps.use_reference;
    if (row->works && row->tuning.together == 1) row->works = clq_opencl_of(d)->steps.together;
    row->works = row->works && time_chain(d, CLQ_Q8_0, 1, &row->one, NULL) == CLQ_OK &&
                 time_chain(d, CLQ_Q8_0, MANY, &row->many, NULL) == CLQ_OK &&
                 time_chain(d, CLQ_F32, MANY, &row->dense, NULL) == CLQ_OK;
    clq_device_close(d);
}

clq_status clq_tune(const char *selector, const clq_device_options *options, clq_tune_row rows[CLQ_TUNE_ROWS],
                    uint32_t *n_rows, uint32_t *best, char *path, size_t path_size, clq_error *err)
{
    static const clq_tuning tunings[] = {{0, 1, 0}, {0, 0, 0}, {0, 0, 1}, {1, 0, 0}, {1, 0, 1}};
    clq_device *d;
    CLQ_TRY(clq_opencl_open(selector, options, &CLQ_UNTUNED, &d, err));
    bool is_cpu = d->info.is_cpu;
    double least = INFINITY;
    clq_status st = CLQ_OK;
    *n_rows = 0;
    *best = CLQ_TUNE_ROWS;
    for (size_t i = 0; i < sizeof tunings / sizeof *tunings; i++) {
        if (!is_cpu && !tunings[i].work_groups) continue; // one item a group is of no use there
        clq_tune_row *row = &rows[*n_rows];
        *row = (clq_tune_row){.tuning = tunings[i]};
        measure(selector, options, row);
        double score = cbrt(row->one * row->many * row->dense);
        if (row->works && score < least) {
            least = score;
            *best = *n_rows;
        }
        ++*n_rows;
    }
    if (*best == CLQ_TUNE_ROWS)
        st = clq_fail(err, CLQ_DEVICE, "no form of the kernels works on '%s'", d->info.name);
    else
        st = store(clq_opencl_of(d), &rows[*best].tuning, path, path_size, err);
    clq_device_close(d);
    return st;
}

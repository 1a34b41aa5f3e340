// SPDX-License-Identifier: MIT
#include "method/gptq.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "ops/steps.h"

// ---- the factor ----

enum { TRIES = 12 };

typedef struct {
    float diagonal;
    uint32_t column;
} place;

static int descending(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->diagonal != y->diagonal) return x->diagonal > y->diagonal ? -1 : 1;
    return x->column < y->column ? -1 : x->column > y->column;
}

static clq_status set_order(const float *gram, clq_sweep *s, bool keep, clq_error *err)
{
    place *places = malloc(s->cols * sizeof *places);
    if (!places) return clq_fail_memory(err, s->cols * sizeof *places);
    for (uint32_t i = 0; i < s->cols; i++) places[i] = (place){gram[(uint64_t)i * s->cols + i], i};
    if (!keep) qsort(places, s->cols, sizeof *places, descending);
    for (uint32_t i = 0; i < s->cols; i++) s->order[i] = places[i].column;
    free(places);
    return CLQ_OK;
}

// The Hessian with its columns in order, dead ones with 1 on the diagonal, and damp on all.
static void fill(const clq_sweep *s, const float *gram, double mean, double damp, double *h)
{
    uint64_t n = s->cols;
    for (uint64_t i = 0; i < n; i++) {
        const float *row = gram + s->order[i] * n;
        for (uint64_t j = 0; j < n; j++) h[i * n + j] = row[s->order[j]];
        if (!(h[i * n + i] > 0)) h[i * n + i] = mean > 0 ? mean : 1;
        h[i * n + i] += damp * mean;
    }
}

// LAPACK through its C interface, opened when it is needed first: the BLAS behind it may start threads and take memory
// when it is loaded, which no other command shall pay for.
typedef int (*lapack_fn)(int layout, char triangle, int n, double *a, int stride);
typedef struct {
    lapack_fn factor, invert; // dpotrf, dpotri
} lapack;

static clq_status open_lapack(lapack *l, clq_error *err)
{
    static const char name[] = "liblapacke.so.3";
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL); // stays open
    const char *why = library ? NULL : dlerror();
    void *factor = library ? dlsym(library, "LAPACKE_dpotrf_work") : NULL;
    void *invert = library ? dlsym(library, "LAPACKE_dpotri_work") : NULL;
    memcpy(&l->factor, &factor, sizeof factor);
    memcpy(&l->invert, &invert, sizeof invert);
    if (l->factor && l->invert) return CLQ_OK;
    return clq_fail(err, CLQ_DEVICE, "gptq needs LAPACKE (Debian's liblapacke, best with libopenblas0-pthread): %s",
                    why ? why : name);
}

enum { COLUMN_MAJOR = 102 };

// In place: LAPACK's lower triangle of columns is our upper one of rows.
static bool factorize(const lapack *l, double *h, int n)
{
    if (l->factor(COLUMN_MAJOR, 'L', n, h, n) != 0) return false;
    if (l->invert(COLUMN_MAJOR, 'L', n, h, n) != 0) return false;
    if (l->factor(COLUMN_MAJOR, 'L', n, h, n) != 0) return false;
    for (int i = 0; i < n; i++) {
        float d = (float)h[(uint64_t)i * (uint64_t)n + (uint64_t)i];
        if (!(d > 0) || !isfinite(d) || !isfinite(1 / d)) return false;
    }
    return true;
}

clq_status clq_sweep_create(const float *gram, uint32_t cols, float damp, bool keep_order, clq_sweep *s, bool *found,
                            clq_error *err)
{
    uint64_t n_bytes = (uint64_t)cols * cols * sizeof *s->factor;
    double mean = 0;
    lapack l;
    *s = (clq_sweep){.cols = cols, .damp = damp};
    *found = false;
    CLQ_TRY(open_lapack(&l, err));
    s->order = malloc(cols * sizeof *s->order);
    s->factor = malloc(n_bytes);
    if (!s->order || !s->factor) {
        clq_sweep_free(s);
        return clq_fail_memory(err, n_bytes);
    }
    clq_status st = set_order(gram, s, keep_order, err);
    if (st != CLQ_OK) {
        clq_sweep_free(s);
        return st;
    }
    for (uint32_t i = 0; i < cols; i++) {
        float d = gram[(uint64_t)i * cols + i];
        s->n_dead += !(d > 0);
        mean += d > 0 ? (double)d / cols : 0;
    }
    for (int i = 0; i < TRIES && !*found && mean > 0 && isfinite(mean); i++) {
        if (i) s->damp = i < 5 ? s->damp + (damp > 0.01f ? damp : 0.01f) : 2 * s->damp;
        fill(s, gram, mean, s->damp, s->factor);
        *found = factorize(&l, s->factor, (int)cols);
    }
    if (!*found) clq_sweep_free(s);
    return CLQ_OK;
}

void clq_sweep_free(clq_sweep *s)
{
    free(s->order);
    free(s->factor);
    s->order = NULL;
    s->factor = NULL;
}

// ---- the sweep ----

enum { BLOCK = 128, CHUNK = 8 << 20, MIN_GROUP = 32 };

struct clq_sweeper {
    clq_device *device;
    clq_memory *memory;
    uint64_t max_cols, n_w;
    // Places in the memory, in floats.
    uint64_t w, errors, prepared, scales, index, block;
    float *host, *host_block; // of w, and of scales before it; of block
};

static uint64_t chunk_rows(const clq_sweeper *s, uint64_t cols) { return s->n_w / (cols > BLOCK ? cols : BLOCK); }

clq_status clq_sweeper_create(clq_device *device, uint64_t max_cols, clq_sweeper **sweeper, clq_error *err)
{
    clq_sweeper *s = *sweeper = calloc(1, sizeof *s);
    if (!s) return clq_fail_memory(err, sizeof *s);
    s->device = device;
    s->max_cols = max_cols;
    s->n_w = max_cols > CHUNK ? max_cols : CHUNK;
    uint64_t n_errors = s->n_w + 16 * BLOCK, n_scales = 2 * (s->n_w / MIN_GROUP + 16);
    s->errors = (s->w + s->n_w + 15) / 16 * 16;
    s->prepared = (s->errors + n_errors + 15) / 16 * 16;
    s->scales = (s->prepared + 2 * n_errors + 8 * 512 + 15) / 16 * 16;
    s->index = (s->scales + n_scales + 15) / 16 * 16;
    s->block = (s->index + max_cols + 15) / 16 * 16;
    uint64_t n_block = (max_cols > BLOCK ? max_cols : BLOCK) * BLOCK + 64, n_floats = s->block + n_block + 64;
    s->host = malloc((s->n_w > n_scales ? s->n_w : n_scales) * sizeof *s->host);
    s->host_block = malloc(n_block * sizeof *s->host_block);
    clq_status st = s->host && s->host_block ? device->ops->memory_create(device, n_floats * 4, &s->memory, err)
                                             : clq_fail_memory(err, (s->n_w + n_block) * sizeof *s->host);
    if (st == CLQ_OK) return CLQ_OK;
    clq_sweeper_free(s);
    *sweeper = NULL;
    return st;
}

void clq_sweeper_free(clq_sweeper *s)
{
    if (!s) return;
    if (s->memory) s->device->ops->memory_free(s->memory);
    free(s->host);
    free(s->host_block);
    free(s);
}

uint64_t clq_sweeper_bytes(const clq_sweeper *s) { return s->memory->n_bytes; }

// Columns [from, from + dims): the block of the factor on the diagonal, then, negated, that of the columns behind it with
// a row for each of them.
static clq_status put_block(clq_sweeper *s, const clq_sweep *sweep, uint64_t from, uint64_t dims, clq_error *err)
{
    uint64_t cols = sweep->cols, rest = cols - from - dims;
    float *diagonal = s->host_block, *behind = diagonal + BLOCK * BLOCK;
    for (uint64_t j = 0; j < dims; j++) {
        const double *row = sweep->factor + (from + j) * cols + from;
        for (uint64_t k = 0; k < dims; k++) diagonal[j * dims + k] = k < j ? 0 : (float)row[k];
        for (uint64_t k = 0; k < rest; k++) behind[k * dims + j] = -(float)row[dims + k];
    }
    return s->device->ops->memory_write(s->memory, s->block * 4, s->host_block, (BLOCK * BLOCK + rest * dims) * 4, err);
}

static clq_status run_block(clq_sweeper *s, const clq_sweep *sweep, const clq_type *type, uint64_t rows, uint64_t from,
                            clq_error *err)
{
    uint64_t cols = sweep->cols, dims = cols - from < BLOCK ? cols - from : BLOCK, rest = cols - from - dims;
    CLQ_TRY(put_block(s, sweep, from, dims, err));
    clq_step sweep_step = {.kind = CLQ_STEP_GPTQ,
                           .flags = type->symmetric ? CLQ_STEP_SYMMETRIC : 0,
                           .rows = (uint32_t)rows,
                           .cols = (uint32_t)cols,
                           .position = (uint32_t)from,
                           .dims = (uint32_t)dims,
                           .bits = type->bits,
                           .groups = (uint32_t)clq_type_groups(type, cols),
                           .in = s->w,
                           .in2 = s->block,
                           .out = s->errors,
                           .scales = s->scales,
                           .group_index = s->index,
                           .w = CLQ_NONE,
                           .bias = CLQ_NONE,
                           .zero_points = CLQ_NONE};
    clq_step prep = {.kind = CLQ_STEP_PREP,
                     .tokens = (uint32_t)rows,
                     .cols = (uint32_t)dims,
                     .in_stride = (uint32_t)dims,
                     .mode = CLQ_MODE_F32,
                     .in = s->errors,
                     .in2 = CLQ_NONE,
                     .out = s->prepared,
                     .w = CLQ_NONE,
                     .bias = CLQ_NONE};
    clq_step update = {.kind = CLQ_STEP_LINEAR,
                       .flags = CLQ_STEP_STATE_WEIGHT | CLQ_STEP_ACCUMULATE,
                       .tokens = (uint32_t)rows,
                       .rows = (uint32_t)rest,
                       .cols = (uint32_t)dims,
                       .format = CLQ_F32,
                       .mode = CLQ_MODE_F32,
                       .in = s->prepared,
                       .out = s->w + from + dims,
                       .out_stride = (uint32_t)cols,
                       .w = (s->block + BLOCK * BLOCK) * 4,
                       .bias = CLQ_NONE,
                       .scales = CLQ_NONE,
                       .zero_points = CLQ_NONE,
                       .group_index = CLQ_NONE};
    clq_step steps[] = {sweep_step, prep, update};
    return s->device->ops->steps_run(s->device, steps, rest ? 3 : 1, s->memory, s->memory, NULL, err);
}

static clq_status run_chunk(clq_sweeper *s, const clq_sweep *sweep, const clq_type *type, float *w, uint64_t rows,
                            const float *scales, const int8_t *zero_points, clq_error *err)
{
    const clq_device_ops *ops = s->device->ops;
    uint64_t cols = sweep->cols, n = rows * clq_type_groups(type, cols);
    for (uint64_t i = 0; i < n; i++) {
        s->host[i] = scales[i];
        s->host[n + i] = zero_points ? zero_points[i] : 0;
    }
    CLQ_TRY(ops->memory_write(s->memory, s->scales * 4, s->host, 2 * n * 4, err));
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) s->host[r * cols + c] = w[r * cols + sweep->order[c]];
    CLQ_TRY(ops->memory_write(s->memory, s->w * 4, s->host, rows * cols * 4, err));
    for (uint64_t from = 0; from < cols; from += BLOCK) CLQ_TRY(run_block(s, sweep, type, rows, from, err));
    CLQ_TRY(ops->memory_read(s->memory, s->w * 4, s->host, rows * cols * 4, err));
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) w[r * cols + sweep->order[c]] = s->host[r * cols + c];
    return CLQ_OK;
}

clq_status clq_sweeper_run(clq_sweeper *s, const clq_sweep *sweep, const clq_type *type, float *w, uint64_t rows,
                           const float *scales, const int8_t *zero_points, clq_error *err)
{
    uint64_t cols = sweep->cols, groups = clq_type_groups(type, cols), group = cols / groups,
             most = chunk_rows(s, cols);
    int32_t *index = malloc(cols * sizeof *index);
    if (!index) return clq_fail_memory(err, cols * sizeof *index);
    for (uint64_t c = 0; c < cols; c++) index[c] = (int32_t)(sweep->order[c] / group);
    clq_status st = s->device->ops->memory_write(s->memory, s->index * 4, index, cols * 4, err);
    free(index);
    for (uint64_t r = 0, n; st == CLQ_OK && r < rows; r += n) {
        n = rows - r < most ? rows - r : most;
        st = run_chunk(s, sweep, type, w + r * cols, n, scales + r * groups,
                       zero_points ? zero_points + r * groups : NULL, err);
    }
    return st;
}

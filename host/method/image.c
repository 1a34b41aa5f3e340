// SPDX-License-Identifier: MIT
#include "method/image.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"

clq_status clq_image_create(const clq_source *source, const clq_destiny *destinies, clq_image *image, clq_error *err)
{
    *image = (clq_image){.source = source, .destinies = destinies};
    image->tensors = calloc(source->n_tensors + 1ull, sizeof *image->tensors);
    return image->tensors ? CLQ_OK : clq_fail_memory(err, source->n_tensors * sizeof *image->tensors);
}

void clq_image_drop_one(clq_image *image, uint32_t tensor)
{
    clq_prepared *p = image->tensors[tensor];
    if (!p) return;
    free(p->w);
    free(p->columns);
    free(p->scales);
    free(p->zero_points);
    free(p->activations);
    free(p);
    image->tensors[tensor] = NULL;
}

void clq_image_drop(clq_image *image)
{
    for (uint32_t i = 0; i < image->source->n_tensors; i++) clq_image_drop_one(image, i);
}

void clq_image_free(clq_image *image)
{
    if (!image->tensors) return;
    clq_image_drop(image);
    free(image->tensors);
    image->tensors = NULL;
}

// ---- loading ----

// What a method makes of such values could be stored as if nothing were wrong.
static clq_status check_finite(const clq_tensor *t, const clq_prepared *p, clq_error *err)
{
    uint64_t n_bad = 0;
    for (uint64_t i = 0; i < p->rows * p->cols; i++) n_bad += !isfinite(p->w[i]);
    if (!n_bad) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' of the source holds NaN or infinite values (%" PRIu64 " of them)",
                    t->name, n_bad);
}

static clq_status load_tensor(clq_image *image, uint32_t index, uint64_t matrix_rows, clq_error *err)
{
    const clq_tensor *t = &image->source->tensors[index];
    if (image->tensors[index]) return CLQ_OK;
    clq_prepared *p = image->tensors[index] = calloc(1, sizeof *p);
    if (!p) return clq_fail_memory(err, sizeof *p);
    clq_tensor_matrix(t, &p->rows, &p->cols);
    p->matrix_rows = matrix_rows;
    p->w = malloc(p->rows * p->cols * sizeof *p->w + 1);
    if (!p->w) return clq_fail_memory(err, p->rows * p->cols * sizeof *p->w);
    CLQ_TRY(clq_tensor_read(image->source, t, 0, p->rows, p->w, err));
    clq_file_forget(&image->source->files[t->codes.file], t->codes.offset, t->codes.n_bytes); // the mapping's pages
    return check_finite(t, p, err);
}

static clq_status load_pieces(clq_image *image, const clq_view_tensor *t, uint64_t matrix_rows, clq_error *err)
{
    if (!t || t->computed) return CLQ_OK;
    for (uint32_t i = 0; i < t->from.n_pieces; i++)
        CLQ_TRY(load_tensor(image, t->from.sources ? t->from.sources[i] : t->from.source, matrix_rows, err));
    return CLQ_OK;
}

clq_status clq_image_load(clq_image *image, const clq_unit *unit, clq_error *err)
{
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &unit->weights[i];
        CLQ_TRY(load_pieces(image, w->tensor, w->rows, err));
        CLQ_TRY(load_pieces(image, w->bias_tensor, 1, err));
    }
    return CLQ_OK;
}

// ---- places ----

static clq_stretch place(const clq_image *image, const clq_view_tensor *t, uint64_t row, uint64_t rows, uint64_t cols)
{
    const clq_origin *o = &t->from;
    return clq_origin_at(image->source, o, clq_row_from(o->order, o->n_heads, rows, row) * cols, cols);
}

static uint32_t index_of(const clq_image *image, const clq_tensor *t) { return (uint32_t)(t - image->source->tensors); }

uint32_t clq_image_tensor(const clq_image *image, const clq_weight *w, uint64_t row)
{
    if (w->tensor->computed) return image->source->n_tensors;
    return index_of(image, place(image, w->tensor, row, (uint64_t)w->rows * w->count, w->cols).t);
}

clq_prepared *clq_image_row(const clq_image *image, const clq_weight *w, uint64_t row, uint64_t *at)
{
    clq_stretch s = place(image, w->tensor, row, (uint64_t)w->rows * w->count, w->cols);
    clq_prepared *p = image->tensors[index_of(image, s.t)];
    *at = s.first / w->cols;
    return p;
}

clq_prepared *clq_image_stretch(const clq_image *image, const clq_weight *w, uint64_t row, uint64_t *at, uint64_t *n)
{
    clq_stretch s = clq_origin_at(image->source, &w->tensor->from, row * w->cols, *n * w->cols);
    *at = s.first / w->cols;
    *n = s.n / w->cols;
    return image->tensors[index_of(image, s.t)];
}

// The element of a bias that belongs to a row.
static float *bias_of(const clq_image *image, const clq_weight *w, uint64_t row)
{
    clq_stretch s = place(image, w->bias_tensor, row, w->is_vector ? w->cols : w->rows, 1);
    return image->tensors[index_of(image, s.t)]->w + s.first;
}

static void divide_bias(const clq_image *image, const clq_weight *w, uint64_t row, float s)
{
    if (w->bias_tensor) *bias_of(image, w, row) /= s;
}

// ---- changing ----

static void note_columns(clq_prepared *p, uint64_t matrix, const float *s)
{
    uint64_t n = p->rows / p->matrix_rows * p->cols;
    if (!p->columns && (p->columns = malloc(n * sizeof *p->columns)))
        for (uint64_t i = 0; i < n; i++) p->columns[i] = 1;
    for (uint64_t c = 0; p->columns && c < p->cols; c++) p->columns[matrix * p->cols + c] *= s[c];
}

void clq_image_scale_columns(clq_image *image, const clq_weight *w, uint32_t matrix, const float *s)
{
    for (uint64_t r = 0; r < w->rows; r++) {
        uint64_t at;
        clq_prepared *p = clq_image_row(image, w, (uint64_t)matrix * w->rows + r, &at);
        float *row = p->w + at * w->cols;
        for (uint32_t c = 0; c < w->cols; c++) row[c] *= s[c];
        if (r == 0) note_columns(p, at / p->matrix_rows, s);
    }
}

void clq_image_divide_rows(clq_image *image, const clq_weight *w, uint32_t matrix, uint64_t first, uint64_t n,
                           const float *s)
{
    for (uint64_t r = 0; r < n; r++) {
        uint64_t at;
        clq_prepared *p = clq_image_row(image, w, (uint64_t)matrix * w->rows + first + r, &at);
        float *row = p->w + at * w->cols;
        for (uint32_t c = 0; c < w->cols; c++) row[c] /= s[r];
        divide_bias(image, w, first + r, s[r]);
    }
}

static float as_stored(clq_format_id format, float x)
{
    return format == CLQ_F16 ? clq_round_f16(x) : format == CLQ_BF16 ? clq_round_bf16(x) : x;
}

void clq_image_divide_norm(clq_image *image, const clq_weight *w, float *s)
{
    for (uint32_t c = 0; c < w->cols; c++) {
        clq_stretch at = place(image, w->tensor, 0, 1, w->cols);
        clq_prepared *p = image->tensors[index_of(image, at.t)];
        const clq_destiny *d = &image->destinies[index_of(image, at.t)];
        float *value = p->w + at.first + c, shift = w->tensor->from.shift, old = *value + shift;
        // The output may hold the value as the source does, or with the shift: both are rounded to its format.
        float stored = as_stored(d->type.format, old / s[c] - shift), now = stored + shift, ratio = old / now;
        if (!(ratio > 0) || !isfinite(ratio) || !isfinite(1 / ratio)) {
            s[c] = 1;
            continue;
        }
        *value = stored;
        s[c] = ratio;
        divide_bias(image, w, c, ratio);
    }
}

// So many rows from `row` on that lie one behind the other in one tensor.
static uint64_t run_of_rows(const clq_image *image, const clq_weight *w, uint64_t row, const float **first)
{
    uint64_t rows = (uint64_t)w->rows * w->count, n = 1, at, next;
    const clq_prepared *p = clq_image_row(image, w, row, &at);
    *first = p->w + at * w->cols;
    while (row + n < rows && clq_image_row(image, w, row + n, &next) == p && next == at + n) n++;
    return n;
}

clq_status clq_image_push(const clq_image *image, const clq_weight *w, clq_memory *memory, uint64_t base,
                          clq_error *err)
{
    const clq_device_ops *ops = memory->device->ops;
    if (w->tensor->computed) return CLQ_OK;
    uint64_t rows = (uint64_t)w->rows * w->count, n_vector = w->is_vector ? w->cols : w->rows;
    float *vector = malloc(n_vector * sizeof *vector);
    const float *from;
    if (!vector) return clq_fail_memory(err, n_vector * sizeof *vector);
    clq_status st = CLQ_OK;
    for (uint64_t r = 0, n; st == CLQ_OK && r < rows; r += n) {
        n = run_of_rows(image, w, r, &from);
        for (uint32_t c = 0; w->is_vector && c < w->cols; c++) vector[c] = from[c] + w->tensor->from.shift;
        st = ops->memory_write(memory, base + w->w + r * w->cols * 4, w->is_vector ? vector : from, n * w->cols * 4,
                               err);
    }
    for (uint64_t i = 0; w->bias_tensor && i < n_vector; i++) vector[i] = *bias_of(image, w, i);
    if (st == CLQ_OK && w->bias_tensor) st = ops->memory_write(memory, base + w->bias, vector, n_vector * 4, err);
    free(vector);
    return st;
}

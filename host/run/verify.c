// SPDX-License-Identifier: MIT
// Comparing an output with its source, tensor by tensor, with the C references only: no kernel takes
// part, so that a fault of one cannot hide itself.
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "io/source.h"
#include "model/translate.h"

// A tensor of the output, and what it was made from.
typedef struct {
    clq_origin from;
    const clq_tensor *a, *b; // a: the first that it was made from
} pair;

typedef struct {
    const clq_source *source, *output;
    pair p;
    uint64_t slice;    // elements of a slice: a row of the first dimension
    uint64_t n_slices;
    clq_row_order order, reorder; // of the slices; of the elements of a vector
    pthread_mutex_t lock; // of what follows
    clq_status status;
    clq_error error;
    clq_verify_tensor *t;
    double sum_x2, sum_e2;
} compare;

// One slice of a tensor: all its matrix rows within that row of the first dimension.
static clq_status read_slice(const clq_source *s, const clq_tensor *t, uint64_t n_slices, uint64_t index, float *y,
                             clq_error *err)
{
    uint64_t rows, cols;
    clq_tensor_matrix(t, &rows, &cols);
    return clq_tensor_read(s, t, index * (rows / n_slices), rows / n_slices, y, err);
}

static void compare_slices(void *ctx, uint64_t begin, uint64_t end)
{
    compare *c = ctx;
    float *x = malloc(c->slice * sizeof *x), *y = malloc(c->slice * sizeof *y);
    clq_error err = {0};
    clq_status st = x && y ? CLQ_OK : clq_fail_memory(&err, 2 * c->slice * sizeof *x);
    double x2 = 0, e2 = 0, worst = 0;
    uint64_t bad = 0;
    for (uint64_t r = begin; r < end && st == CLQ_OK; r++) {
        uint64_t from = clq_row_from(c->order, c->p.from.n_heads, c->n_slices, r);
        st = clq_origin_read(c->source, &c->p.from, from * c->slice, c->slice, x, &err);
        if (st == CLQ_OK) st = read_slice(c->output, c->p.b, c->n_slices, r, y, &err);
        for (uint64_t i = 0; st == CLQ_OK && i < c->slice; i++) {
            float v = c->reorder ? x[clq_row_from(c->reorder, c->p.from.n_heads, c->slice, i)] : x[i];
            double e = (double)v - y[i];
            x2 += (double)v * v;
            e2 += e * e;
            worst = fmax(worst, fabs(e));
            bad += !isfinite(y[i]);
        }
    }
    free(x);
    free(y);
    pthread_mutex_lock(&c->lock);
    if (st != CLQ_OK && c->status == CLQ_OK) {
        c->status = st;
        c->error = err;
    }
    c->sum_x2 += x2;
    c->sum_e2 += e2;
    c->t->max_error = fmax(c->t->max_error, worst);
    c->t->bad_values += bad;
    pthread_mutex_unlock(&c->lock);
}

static double sqnr(double x2, double e2)
{
    return e2 == 0 ? INFINITY : 10 * log10(x2 / e2);
}

static bool same_bytes(const clq_source *a, const clq_extent *x, const clq_source *b, const clq_extent *y)
{
    if (x->n_bytes != y->n_bytes) return false;
    uint8_t p[65536], q[65536];
    for (uint64_t at = 0; at < x->n_bytes; at += sizeof p) {
        uint64_t n = x->n_bytes - at < sizeof p ? x->n_bytes - at : sizeof p;
        if (clq_file_read(&a->files[x->file], x->offset + at, p, n, NULL) != CLQ_OK ||
            clq_file_read(&b->files[y->file], y->offset + at, q, n, NULL) != CLQ_OK || memcmp(p, q, n) != 0)
            return false;
    }
    return true;
}

// Scales are looked at themselves: an infinite one behind zero codes would not show in the values.
static uint64_t bad_scales(const clq_source *s, const clq_tensor *t)
{
    uint64_t bad = 0, size = t->scales.n_bytes ? clq_format_at(t->scales.format)->block_bytes : 1;
    for (uint64_t i = 0; i < t->scales.n_bytes / size; i++) {
        uint8_t bytes[8];
        float v;
        if (clq_file_read(&s->files[t->scales.file], t->scales.offset + i * size, bytes, size, NULL) != CLQ_OK)
            return bad + 1;
        clq_load_floats(t->scales.format, bytes, 1, &v);
        bad += !isfinite(v);
    }
    return bad;
}

// The largest relative error of a full-precision type, by its rounding.
static bool beyond_rounding(const clq_tensor *a, const clq_tensor *b, const clq_verify_tensor *t)
{
    if (b->type.format > CLQ_BF16) return false;
    if (a->type.format == b->type.format || b->type.format == CLQ_F32)
        return t->max_error != 0 && a->type.format != CLQ_F64;
    return t->sqnr_db < (b->type.format == CLQ_BF16 ? 45 : 55);
}

static clq_status verify_pair(compare *c, uint32_t threads, double min_sqnr_db, clq_error *err)
{
    const clq_tensor *a = c->p.a, *b = c->p.b;
    clq_verify_tensor *t = c->t;
    t->name = b->name;
    t->n_elements = b->n_elements;
    t->sqnr_db = INFINITY;
    clq_type_name(&b->type, t->type);
    uint64_t n_elements = c->p.from.n_pieces * c->p.from.n_elements;
    if (n_elements != b->n_elements)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' has %" PRIu64 " elements in the source, %" PRIu64 " in the output", b->name,
                        n_elements, b->n_elements);
    if (clq_format_row(b->type.format)->kind == CLQ_KIND_OPAQUE ||
        clq_format_row(a->type.format)->kind == CLQ_KIND_OPAQUE) {
        bool same = a->n_elements == b->n_elements && a->type.format == b->type.format &&
                    same_bytes(c->source, &a->codes, c->output, &b->codes);
        t->missed = !same;
        return CLQ_OK;
    }
    if (!b->n_elements) return CLQ_OK;
    uint64_t rows_b, cols_a, cols;
    clq_tensor_matrix(a, &rows_b, &cols_a);
    clq_tensor_matrix(b, &rows_b, &cols);
    c->n_slices = b->n_dims > 1 ? b->dims[0] : 1;
    if (b->n_dims == 1)
        c->reorder = c->p.from.order;
    else
        c->order = c->p.from.order;
    if (b->n_elements / cols_a % c->n_slices || rows_b % c->n_slices)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has another shape in the output than in the source", b->name);
    c->slice = b->n_elements / c->n_slices;
    uint64_t grain = (1 << 20) / c->slice;
    clq_parallel(threads, c->n_slices, grain ? grain : 1, compare_slices, c);
    if (c->status != CLQ_OK) {
        if (err) *err = c->error;
        return c->status;
    }
    t->sqnr_db = sqnr(c->sum_x2, c->sum_e2);
    t->bad_values += bad_scales(c->output, b);
    t->missed = t->bad_values > 0 || beyond_rounding(a, b, t) || !(t->sqnr_db >= min_sqnr_db);
    return CLQ_OK;
}

// Pairs by name: through the translation where the containers differ, which the pairs refer to.
static clq_status pair_up(const clq_source *source, const clq_source *output, const clq_hooks *hooks, pair **pairs,
                          uint32_t *n, uint32_t *n_missing, clq_translation *translation, clq_error *err)
{
    bool gguf_in = source->container == CLQ_GGUF, gguf_out = output->container == CLQ_GGUF;
    clq_hooks quiet = {0};
    if (gguf_in && !gguf_out) CLQ_TRY(clq_translate_to_hf(source, &quiet, translation, err));
    if (!gguf_in && gguf_out) CLQ_TRY(clq_translate_to_gguf(source, &quiet, translation, err));
    const clq_translation tr = *translation;
    uint32_t most = tr.n_tensors ? tr.n_tensors : source->n_tensors;
    *pairs = calloc(most + 1, sizeof **pairs);
    *n = *n_missing = 0;
    for (uint32_t i = 0; *pairs && i < most; i++) {
        clq_origin from = tr.n_tensors ? tr.tensors[i].from : clq_origin_of(source, i);
        const clq_tensor *a = &source->tensors[from.source];
        const clq_tensor *b = clq_source_find(output, tr.n_tensors ? tr.tensors[i].name : a->name);
        if (!b) {
            if (++*n_missing <= 5) clq_warn(hooks, "tensor '%s' of the source is not in the output", a->name);
            continue;
        }
        (*pairs)[(*n)++] = (pair){from, a, b};
    }
    return *pairs ? CLQ_OK : clq_fail_memory(err, most * sizeof **pairs);
}

clq_status clq_verify(clq_source *source, clq_source *output, uint32_t threads, double min_sqnr_db,
                      const clq_hooks *hooks,
                      void (*each)(void *user, const clq_verify_tensor *t), void *user, clq_verify_totals *totals,
                      clq_error *err)
{
    *totals = (clq_verify_totals){.worst_sqnr_db = INFINITY};
    if (!threads) threads = clq_threads_allowed();
    pair *pairs = NULL;
    uint32_t n = 0;
    clq_translation tr = {0}; // holds lists that the pairs point to
    clq_status st = pair_up(source, output, hooks, &pairs, &n, &totals->n_missing, &tr, err);
    const char *first_missed = NULL;
    double x2 = 0, e2 = 0;
    for (uint32_t i = 0; i < n && st == CLQ_OK; i++) {
        clq_verify_tensor t = {0};
        compare c = {.source = source, .output = output, .p = pairs[i], .t = &t};
        pthread_mutex_init(&c.lock, NULL);
        st = verify_pair(&c, threads, min_sqnr_db, err);
        pthread_mutex_destroy(&c.lock);
        if (st == CLQ_OK && clq_cancelled(hooks)) st = clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        if (st != CLQ_OK) break;
        x2 += c.sum_x2;
        e2 += c.sum_e2;
        totals->n_compared++;
        totals->bad_values += t.bad_values;
        totals->n_missed += t.missed;
        if (t.missed && !first_missed) first_missed = t.name;
        if (t.sqnr_db < totals->worst_sqnr_db) totals->worst_sqnr_db = t.sqnr_db;
        if (each) each(user, &t);
    }
    totals->n_more = output->n_tensors > n ? output->n_tensors - n : 0;
    totals->sqnr_db = sqnr(x2, e2);
    if (st == CLQ_OK && totals->n_missing)
        st = clq_fail(err, CLQ_QUALITY, "%u tensors of the source are not in the output", totals->n_missing);
    else if (st == CLQ_OK && first_missed)
        st = clq_fail(err, CLQ_QUALITY, "%u of %u tensors miss their bound, the first is '%s': values that are not finite, an "
                      "SQNR below %g dB, or a full-precision tensor that differs beyond its type's rounding",
                      totals->n_missed, totals->n_compared, first_missed, min_sqnr_db);
    free(pairs);
    clq_translation_free(&tr);
    return st;
}

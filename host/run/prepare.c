// SPDX-License-Identifier: MIT
#include "run/prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "method/method.h"
#include "method/scaler.h"
#include "model/view.h"

// ---- the plan ----

static bool has_int(const clq_plan *p)
{
    if (p->options.type.format == CLQ_INT) return true;
    for (uint32_t i = 0; i < p->options.n_rules; i++)
        if (p->rules[i].type.format == CLQ_INT) return true;
    return false;
}

static clq_status check_method(const clq_plan *p, const clq_method_options *o, clq_error *err)
{
    const clq_method_info *info = clq_method_at(o->method);
    if (p->options.convert) return clq_fail(err, CLQ_USAGE, "--method is an option of `clquant quantize`");
    if (info->calibrated && !o->text)
        return clq_fail(err, CLQ_USAGE, "%s runs the model on a text; --calib FILE gives it one", info->name);
    if (o->text && p->source->container == CLQ_SAFETENSORS)
        return clq_fail(err, CLQ_USAGE,
                        "with a text %s runs the model, which needs its config.json and tokenizer: give the "
                        "folder of '%s'",
                        info->name, p->source->path);
    if (o->method == CLQ_METHOD_HQQ && o->scales != CLQ_SCALES_OF_METHOD)
        return clq_fail(err, CLQ_USAGE, "hqq chooses scales itself; --scales is for other methods");
    bool needs_int = o->method == CLQ_METHOD_GPTQ || o->method == CLQ_METHOD_HQQ || o->scales > CLQ_SCALES_BY_RANGE;
    if (needs_int && !has_int(p))
        return clq_fail(
            err, CLQ_USAGE,
            "%s makes scales and codes of integer types (i4_asym_g64 ...), which a folder holds; for GGUF's types "
            "there is --method awq",
            o->scales > CLQ_SCALES_BY_RANGE ? "--scales" : info->name);
    for (uint32_t i = 0; needs_int && i <= p->options.n_rules; i++) {
        const clq_type *t = i ? &p->rules[i - 1].type : &p->options.type;
        if (t->format == CLQ_INT && t->granularity == CLQ_PER_TENSOR)
            return clq_fail(err, CLQ_USAGE,
                            "%s chooses scales of rows or groups; a type with one scale for the tensor "
                            "(..._tensor) leaves nothing to choose",
                            o->scales > CLQ_SCALES_BY_RANGE ? "--scales" : info->name);
    }
    if (o->damp < 0 || o->damp > 1)
        return clq_fail(err, CLQ_USAGE, "a damping of %g is not between 0 and 1", (double)o->damp);
    if (o->alpha > 1) return clq_fail(err, CLQ_USAGE, "an alpha of %g is not between 0 and 1", (double)o->alpha);
    return CLQ_OK;
}

clq_status clq_plan_take_method(clq_plan *p, clq_error *err)
{
    const clq_method_options *o = p->options.method;
    if (!o) return CLQ_OK;
    CLQ_TRY(check_method(p, o, err));
    p->method = *o;
    p->options.method = &p->method;
    p->method.text = NULL;
    p->method.text_name = NULL;
    if (o->search_type) {
        p->search_type = *o->search_type;
        p->method.search_type = &p->search_type;
    }
    if (!o->text) return CLQ_OK;
    p->method_text = malloc(o->text_len + 1);
    p->method_text_name = strdup(o->text_name ? o->text_name : "the calibration text");
    if (!p->method_text || !p->method_text_name) return clq_fail_memory(err, o->text_len);
    memcpy(p->method_text, o->text, o->text_len);
    p->method_text[o->text_len] = '\0';
    p->method.text = p->method_text;
    p->method.text_name = p->method_text_name;
    return CLQ_OK;
}

static bool of_layer(const char *name) { return strncmp(name, "blk.", 4) == 0; }

// By tensor of the source: whether it belongs to a layer.
static clq_status find_layers(const clq_source *s, bool *is, clq_error *err)
{
    clq_view view;
    if (s->container == CLQ_GGUF) {
        for (uint32_t i = 0; i < s->n_tensors; i++) is[i] = of_layer(s->tensors[i].name);
        return CLQ_OK;
    }
    clq_status st = clq_view_create(s, &view, err);
    if (st == CLQ_BAD_INPUT) clq_error_locate(err, s->path);
    CLQ_TRY(st);
    for (uint32_t i = 0; i < view.n_tensors; i++) {
        const clq_view_tensor *t = &view.tensors[i];
        for (uint32_t k = 0; !t->computed && k < t->from.n_pieces; k++)
            is[t->from.sources ? t->from.sources[k] : t->from.source] = of_layer(t->name);
    }
    clq_view_free(&view);
    return CLQ_OK;
}

// Stacked experts of a GGUF file are one tensor, which the method prepares for one type.
static clq_status check_types(const clq_plan *p, clq_error *err)
{
    const clq_entry **first = calloc(p->source->n_tensors + 1ull, sizeof *first);
    if (!first) return clq_fail_memory(err, p->source->n_tensors * sizeof *first);
    clq_status st = CLQ_OK;
    for (uint32_t i = 0; i < p->n_entries && st == CLQ_OK; i++) {
        const clq_entry *e = &p->entries[i], *other = e->from.source != UINT32_MAX ? first[e->from.source] : NULL;
        if (e->from.source == UINT32_MAX || e->from.sources) continue;
        if (!other)
            first[e->from.source] = e;
        else if ((e->type.format == CLQ_INT || other->type.format == CLQ_INT) &&
                 !clq_type_equal(&e->type, &other->type))
            st = clq_fail(err, CLQ_USAGE,
                          "'%s' and '%s' are made of one tensor of the source, '%s', and a method that runs the model "
                          "prepares it for one type, not for %s and %s",
                          other->info.name, e->info.name, p->source->tensors[e->from.source].name, other->info.type,
                          e->info.type);
    }
    free(first);
    return st;
}

clq_status clq_plan_mark_prepared(clq_plan *p, clq_error *err)
{
    if (!clq_method_runs_model(p->options.method)) return CLQ_OK;
    CLQ_TRY(check_types(p, err));
    bool folds = p->method.method == CLQ_METHOD_AWQ || p->method.method == CLQ_METHOD_SMOOTHQUANT;
    bool *is = calloc(p->source->n_tensors + 1ull, sizeof *is);
    if (!is) return clq_fail_memory(err, p->source->n_tensors);
    clq_status st = find_layers(p->source, is, err);
    for (uint32_t i = 0; st == CLQ_OK && i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        bool codes = e->type.format == CLQ_INT || clq_format_row(e->type.format)->kind == CLQ_KIND_CODEC;
        if (e->from.source == UINT32_MAX || !is[e->from.source] || !codes || e->info.n_elements == 0) continue;
        if (e->copy && !folds) continue; // is what was asked for already
        e->prepared = true;
        e->copy = e->repack = false;
        e->info.lossy = e->info.quantized;
    }
    free(is);
    return st;
}

// ---- the run ----

struct clq_preparation {
    clq_plan *plan;
    clq_device *device;
    clq_method *method; // NULL: scales only
    clq_scaler *scaler;
    uint32_t rule;
    clq_destiny *destinies;
    char *checkpoint;
    float *scales; // of a tile
    int8_t *zero_points;
    uint64_t n_scales;
    float *importance; // of an entry, behind the method's factors
    const clq_entry *importance_of;
};

static clq_status make_destinies(clq_preparation *x, clq_error *err)
{
    const clq_plan *p = x->plan;
    x->destinies = calloc(p->source->n_tensors + 1ull, sizeof *x->destinies);
    if (!x->destinies) return clq_fail_memory(err, p->source->n_tensors * sizeof *x->destinies);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        if (e->from.source == UINT32_MAX) continue;
        for (uint32_t k = 0; k < e->from.n_pieces; k++) {
            uint32_t t = e->from.sources ? e->from.sources[k] : e->from.source;
            x->destinies[t] = (clq_destiny){.written = true, .type = e->type, .activation = e->activation};
        }
    }
    return CLQ_OK;
}

// "dir/.model.clq-hidden" of "dir/.model.clq-partial".
static char *checkpoint_path(const clq_output *output)
{
    const char *partial = clq_output_partial(output);
    size_t len = strlen(partial) - strlen("partial");
    char *path = malloc(len + sizeof "hidden");
    if (path) sprintf(path, "%.*shidden", (int)len, partial);
    return path;
}

// Whether all entries of the layers that the method passes over are there.
static bool layers_are_done(const clq_preparation *x)
{
    const clq_plan *p = x->plan;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        int32_t layer = clq_preparation_layer_of(x, &p->entries[i]);
        if (!p->entries[i].done && layer >= 0 && (uint32_t)layer < clq_method_first_layer(x->method)) return false;
    }
    return true;
}

static clq_status open_method(clq_preparation *x, uint32_t threads, clq_error *err)
{
    const clq_plan *p = x->plan;
    clq_method_setup setup = {.source = p->source,
                              .device = x->device,
                              .options = p->options.method,
                              .destinies = x->destinies,
                              .activations_asymmetric = p->options.activations_asymmetric,
                              .observer = p->options.observer,
                              .checkpoint = x->checkpoint,
                              .fingerprint = p->fingerprint,
                              .resume = p->options.resume,
                              .max_memory = p->options.max_memory,
                              .threads = threads,
                              .hooks = p->hooks};
    CLQ_TRY(clq_method_open(&setup, &x->method, err));
    if (layers_are_done(x)) return CLQ_OK;
    clq_method_close(x->method);
    x->method = NULL;
    setup.resume = false;
    return clq_method_open(&setup, &x->method, err);
}

static uint64_t widest(const clq_plan *p)
{
    uint64_t most = 1;
    for (uint32_t i = 0; i < p->n_entries; i++)
        if (p->entries[i].type.format == CLQ_INT && p->entries[i].cols > most) most = p->entries[i].cols;
    return most;
}

clq_status clq_preparation_open(clq_plan *p, clq_device *device, const clq_output *output, uint32_t threads,
                                clq_preparation **preparation, clq_error *err)
{
    *preparation = NULL;
    if (!clq_method_prepares(p->options.method)) return CLQ_OK;
    clq_preparation *x = calloc(1, sizeof *x);
    if (!x) return clq_fail_memory(err, sizeof *x);
    *x = (clq_preparation){.plan = p, .device = device, .rule = clq_method_rule(p->options.method)};
    *preparation = x;
    x->checkpoint = checkpoint_path(output);
    if (!x->checkpoint) return clq_fail_memory(err, 1);
    CLQ_TRY(make_destinies(x, err));
    if (clq_method_runs_model(p->options.method)) {
        CLQ_TRY(open_method(x, threads, err));
        clq_method_tokens(x->method, &p->totals.calibration_tokens, &p->totals.search_tokens);
        return CLQ_OK;
    }
    CLQ_TRY(device->ops->steps_prepare(device, NULL, 0, err));
    return clq_scaler_create(device, widest(p), 0, &x->scaler, err);
}

void clq_preparation_close(clq_preparation *x, bool complete)
{
    if (!x) return;
    if (x->method && complete) clq_method_forget_checkpoint(x->method);
    clq_method_close(x->method);
    clq_scaler_free(x->scaler);
    free(x->destinies);
    free(x->checkpoint);
    free(x->scales);
    free(x->zero_points);
    free(x->importance);
    free(x);
}

uint64_t clq_preparation_bytes(const clq_preparation *x)
{
    return x->method ? clq_method_bytes(x->method) : clq_scaler_bytes(x->scaler);
}

void clq_preparation_layers(const clq_preparation *x, uint32_t *first, uint32_t *end)
{
    *first = x && x->method ? clq_method_first_layer(x->method) : 0;
    *end = x && x->method ? clq_method_layers(x->method) : 0;
}

int32_t clq_preparation_layer_of(const clq_preparation *x, const clq_entry *e)
{
    return x && x->method && e->from.source != UINT32_MAX ? clq_method_layer_of(x->method, e->from.source) : -1;
}

// Reports belong to the plan once they are complete.
static clq_status keep_reports(clq_preparation *x, clq_error *err)
{
    clq_plan *p = x->plan;
    uint32_t n;
    const clq_site_report *sites = clq_method_sites(x->method, &n);
    clq_site_report *kept = realloc(p->sites, (n + 1ull) * sizeof *kept);
    if (!kept) return clq_fail_memory(err, (n + 1ull) * sizeof *kept);
    p->sites = kept;
    for (; p->n_sites < n; p->n_sites++) {
        kept[p->n_sites] = sites[p->n_sites];
        kept[p->n_sites].name = strdup(sites[p->n_sites].name);
        kept[p->n_sites].fold = strdup(sites[p->n_sites].fold);
        if (!kept[p->n_sites].name || !kept[p->n_sites].fold) return clq_fail_memory(err, 64);
    }
    return CLQ_OK;
}

clq_status clq_preparation_next(clq_preparation *x, clq_error *err)
{
    CLQ_TRY(clq_method_next(x->method, err));
    return keep_reports(x, err);
}

clq_status clq_preparation_taken(clq_preparation *x, clq_error *err)
{
    x->importance_of = NULL;
    return clq_method_taken(x->method, err);
}

// ---- entries ----

static const clq_prepared *prepared_at(const clq_preparation *x, const clq_entry *e, uint64_t element, clq_stretch *s)
{
    *s = clq_origin_at(x->plan->source, &e->from, element, e->cols);
    return x->method ? clq_method_prepared(x->method, (uint32_t)(s->t - x->plan->source->tensors)) : NULL;
}

// The importance of each matrix' columns, divided by the squares of the factors.
static clq_status adjust_importance(clq_preparation *x, clq_entry *e, clq_error *err)
{
    uint64_t matrices = e->rows / e->matrix_rows, n = matrices * e->cols;
    clq_stretch s;
    float *own = malloc(n * sizeof *own);
    if (!own) return clq_fail_memory(err, n * sizeof *own);
    free(x->importance);
    x->importance = memcpy(own, e->importance, n * sizeof *own);
    x->importance_of = e;
    for (uint64_t m = 0; m < matrices; m++) {
        const clq_prepared *p = prepared_at(x, e, m * e->matrix_rows * e->cols, &s);
        const float *columns = p && p->columns ? p->columns + s.first / p->cols / p->matrix_rows * p->cols : NULL;
        for (uint64_t c = 0; columns && c < e->cols; c++) own[m * e->cols + c] /= columns[c] * columns[c];
    }
    return CLQ_OK;
}

// Of several matrices that share one activation the one that clips none.
static void take_activation(const clq_prepared *p, uint64_t row, clq_entry *e)
{
    uint64_t first = row / p->matrix_rows, n = e->from.sources ? 1 : e->rows / p->matrix_rows;
    const clq_activation *a = &p->activations[first];
    for (uint64_t i = first + 1; i < first + n && i < p->rows / p->matrix_rows; i++)
        if (p->activations[i].scale > a->scale) a = &p->activations[i];
    if (a->quant != CLQ_QUANT_STATIC) return;
    e->activation = *a;
    e->info.activation = clq_activation_describe(a);
}

clq_status clq_preparation_begin(clq_preparation *x, clq_entry *e, clq_error *err)
{
    clq_stretch s;
    if (!x || !x->method || e->from.source == UINT32_MAX) return CLQ_OK;
    const clq_prepared *p = prepared_at(x, e, 0, &s);
    if (p && p->activations) take_activation(p, s.first / p->cols, e);
    return p && e->importance ? adjust_importance(x, e, err) : CLQ_OK;
}

const float *clq_preparation_importance(const clq_preparation *x, const clq_entry *e, uint64_t row)
{
    if (!e->importance) return NULL;
    const float *all = x && x->importance_of == e ? x->importance : e->importance;
    return all + row / e->matrix_rows * e->cols;
}

static bool chooses_scales(const clq_preparation *x, const clq_entry *e)
{
    return x->scaler && e->type.format == CLQ_INT && e->type.granularity != CLQ_PER_TENSOR;
}

bool clq_preparation_has(const clq_preparation *x, const clq_entry *e)
{
    clq_stretch s;
    return x && e->from.source != UINT32_MAX && (chooses_scales(x, e) || prepared_at(x, e, 0, &s));
}

bool clq_preparation_floats(const clq_preparation *x, const clq_entry *e, uint64_t first, uint64_t rows, float *floats)
{
    clq_stretch s;
    const clq_origin *o = &e->from;
    if (!x->method || !prepared_at(x, e, 0, &s)) return false;
    for (uint64_t r = 0; r < rows; r++) {
        const clq_prepared *p = prepared_at(x, e, clq_row_from(o->order, o->n_heads, e->rows, first + r) * e->cols, &s);
        memcpy(floats + r * e->cols, p->w + s.first, e->cols * sizeof *floats);
        for (uint64_t c = 0; o->shift != 0 && c < e->cols; c++) floats[r * e->cols + c] += o->shift;
    }
    return true;
}

void clq_preparation_stats(const clq_preparation *x, const clq_entry *e, clq_stats *stats)
{
    clq_stats sum = {0};
    if (!x || !x->method || e->from.source == UINT32_MAX || e->from.n_elements == 0) return;
    for (uint32_t i = 0; i < e->from.n_pieces; i++) {
        clq_stretch s;
        const clq_prepared *p = prepared_at(x, e, i * e->from.n_elements, &s);
        if (!p || !p->measured) return;
        sum.sum_x2 += p->sum_x2;
        sum.sum_e2 += p->sum_e2;
        sum.max_error = p->max_error > sum.max_error ? p->max_error : sum.max_error;
    }
    stats->sum_x2 = sum.sum_x2;
    stats->sum_e2 = sum.sum_e2;
    stats->max_error = sum.max_error;
}

static clq_status room_for_scales(clq_preparation *x, uint64_t n, clq_error *err)
{
    if (n <= x->n_scales) return CLQ_OK;
    free(x->scales);
    free(x->zero_points);
    x->scales = malloc(n * sizeof *x->scales);
    x->zero_points = malloc(n);
    x->n_scales = x->scales && x->zero_points ? n : 0;
    return x->n_scales ? CLQ_OK : clq_fail_memory(err, n * 5);
}

clq_status clq_preparation_scales(clq_preparation *x, const clq_entry *e, uint64_t first, const float *floats,
                                  clq_tile *tile, clq_error *err)
{
    if (e->type.format != CLQ_INT || e->type.granularity == CLQ_PER_TENSOR) return CLQ_OK;
    uint64_t groups = clq_type_groups(&e->type, e->cols);
    int8_t *zeros = NULL;
    clq_stretch s;
    CLQ_TRY(room_for_scales(x, tile->rows * groups, err));
    if (!e->type.symmetric) zeros = x->zero_points;
    if (x->scaler) {
        clq_error_cost cost = {0};
        CLQ_TRY(
            clq_scaler_run(x->scaler, &e->type, x->rule, floats, tile->rows, e->cols, &cost, x->scales, zeros, err));
    } else {
        for (uint64_t r = 0; r < tile->rows; r++) {
            uint64_t row = clq_row_from(e->from.order, e->from.n_heads, e->rows, first + r);
            const clq_prepared *p = prepared_at(x, e, row * e->cols, &s);
            if (!p || !p->scales) return CLQ_OK;
            uint64_t at = s.first / p->cols * groups;
            memcpy(x->scales + r * groups, p->scales + at, groups * sizeof *x->scales);
            if (zeros) memcpy(zeros + r * groups, p->zero_points + at, groups);
        }
    }
    tile->given_scales = x->scales;
    tile->given_zero_points = zeros;
    return CLQ_OK;
}

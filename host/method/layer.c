// SPDX-License-Identifier: MIT
// One layer, from its inputs to its prepared tensors.
#include "method/layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/ranges.h"

// ---- types ----

// An integer type that is like one of ggml's, for comparing candidates.
static clq_type like(clq_format_id format)
{
    static const struct {
        clq_format_id format;
        uint8_t bits;
        bool symmetric;
    } rows[] = {{CLQ_Q4_0, 4, true},     {CLQ_Q4_1, 4, false},   {CLQ_Q5_0, 5, true},   {CLQ_Q5_1, 5, false},
                {CLQ_Q8_0, 8, true},     {CLQ_Q2_K, 2, false},   {CLQ_Q3_K, 3, true},   {CLQ_Q4_K, 4, false},
                {CLQ_Q5_K, 5, false},    {CLQ_Q6_K, 6, true},    {CLQ_IQ4_NL, 4, true}, {CLQ_IQ4_XS, 4, true},
                {CLQ_IQ3_S, 3, true},    {CLQ_IQ3_XXS, 3, true}, {CLQ_IQ2_S, 2, false}, {CLQ_IQ2_XS, 2, false},
                {CLQ_IQ2_XXS, 2, false}, {CLQ_IQ1_S, 2, false},  {CLQ_IQ1_M, 2, false}, {CLQ_MXFP4, 4, true},
                {CLQ_NVFP4, 4, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].format == format)
            return (clq_type){.format = CLQ_INT,
                              .bits = rows[i].bits,
                              .symmetric = rows[i].symmetric,
                              .granularity = CLQ_PER_GROUP,
                              .group_size = 32,
                              .scale_format = CLQ_F16};
    return (clq_type){.format = format};
}

// Where the output has no quantized type at all: AWQ's usual one, in groups that suit.
static clq_type usual(uint32_t cols)
{
    uint32_t group = cols % 128 == 0 ? 128 : cols % 64 == 0 ? 64 : cols % 32 == 0 ? 32 : 0;
    return (clq_type){.format = CLQ_INT,
                      .bits = 4,
                      .granularity = group ? CLQ_PER_GROUP : CLQ_PER_CHANNEL,
                      .group_size = group,
                      .scale_format = CLQ_F16};
}

clq_type clq_method_type_of(const clq_method *m, const clq_weight *w, uint32_t matrix)
{
    const clq_destiny *d = clq_image_destiny(&m->image, w, matrix);
    clq_type type = d->type;
    if (!d->written || w->is_vector) return (clq_type){.format = CLQ_F32};
    bool router = strstr(w->tensor->name, "ffn_gate_inp") != NULL;
    if (m->floats_only)
        type = router ? d->type : m->o->search_type ? *m->o->search_type : usual(w->cols);
    else if (type.format != CLQ_INT)
        type = like(type.format);
    bool fits = type.format != CLQ_INT || type.granularity != CLQ_PER_GROUP || w->cols % type.group_size == 0;
    if (!fits) type.granularity = CLQ_PER_CHANNEL;
    return type;
}

// ---- what was observed ----

const float *clq_layer_columns(const clq_layer_work *l, int which)
{
    int input = clq_trial_input(l->unit, which);
    for (uint32_t f = 0; f < l->n_folds; f++)
        for (int i = 0; i < CLQ_FOLD_CONSUMERS && l->folds[f].consumers[i] >= 0; i++)
            if (clq_trial_input(l->unit, l->folds[f].consumers[i]) == input) return l->factors[f];
    return NULL;
}

const float *clq_layer_rows(const clq_layer_work *l, int which, uint64_t *first, uint64_t *n)
{
    for (uint32_t f = 0; f < l->n_folds; f++) {
        const clq_fold *fold = &l->folds[f];
        if (fold->by_norm || fold->producer != which || !l->factors[f]) continue;
        *first = fold->first_row;
        *n = fold->cols;
        return l->factors[f];
    }
    return NULL;
}

static clq_status read_state(const clq_layer_work *l, uint64_t at, uint64_t n, void *to, clq_error *err)
{
    clq_engine *e = l->m->engine;
    return e->device->ops->memory_read(e->state_memory, at * 4, to, n * 4, err);
}

clq_status clq_layer_channels(const clq_layer_work *l, int which, uint32_t matrix, int array, float *to, clq_error *err)
{
    uint64_t cols = l->unit->weights[which].cols;
    uint64_t slot = clq_layers_slot(l->m->layers, clq_trial_input(l->unit, which), matrix);
    return read_state(l, slot + CLQ_SLOT_CHANNELS + (uint64_t)array * ((cols + 15) / 16 * 16), cols, to, err);
}

clq_status clq_layer_check(const clq_layer_work *l, clq_error *err)
{
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &l->unit->weights[i];
        if (!w->tensor || clq_layers_slot(l->m->layers, i, 0) == CLQ_NONE) continue;
        for (uint32_t m = 0; m < w->count; m++) {
            uint32_t bad;
            CLQ_TRY(read_state(l, clq_layers_slot(l->m->layers, i, m) + CLQ_SLOT_BAD, 1, &bad, err));
            if (bad)
                return clq_fail(err, CLQ_BAD_INPUT,
                                "layer %u: %u values that '%s' reads are NaN or infinite: the weights before it are "
                                "damaged, or their products beyond float32",
                                l->m->next, bad, w->tensor->name);
        }
    }
    return CLQ_OK;
}

// ---- static activations ----

// The range of a matrix's inputs; *found false: no token reached it.
static clq_status measure_range(const clq_layer_work *l, int which, uint32_t matrix, clq_range *range, bool *found,
                                clq_error *err)
{
    const clq_weight *w = &l->unit->weights[which];
    uint64_t n = CLQ_SLOT_FLOATS((uint64_t)w->cols);
    float *slot = malloc(n * sizeof *slot);
    clq_stat_site site;
    clq_range ranges[CLQ_N_OBSERVERS];
    if (!slot) return clq_fail_memory(err, n * sizeof *slot);
    clq_status st = clq_stat_site_create(&site, &w->tensor->name, 1, w->cols, 1, false, err);
    if (st == CLQ_OK)
        st = read_state(l, clq_layers_slot(l->m->layers, clq_trial_input(l->unit, which), matrix), n, slot, err);
    if (st == CLQ_OK) st = clq_ranges_of(slot, ranges, err);
    if (st == CLQ_OK) {
        clq_stat_site_set(&site, 0, slot);
        clq_observer observer = clq_default_observer(&site, 0);
        if (l->m->setup.observer) clq_observer_parse(l->m->setup.observer, &observer);
        *range = ranges[observer];
        *found = site.tokens[0] > 0;
    }
    clq_stat_site_clear(&site);
    free(slot);
    return st;
}

static clq_status set_activation(const clq_layer_work *l, const clq_weight *w, uint32_t matrix, const clq_range *range,
                                 clq_error *err)
{
    uint64_t at;
    clq_prepared *p = clq_image_row(&l->m->image, w, (uint64_t)matrix * w->rows, &at);
    if (!p->activations) p->activations = calloc(p->rows / p->matrix_rows, sizeof *p->activations);
    if (!p->activations) return clq_fail_memory(err, p->rows / p->matrix_rows * sizeof *p->activations);
    clq_activation *a = &p->activations[at / p->matrix_rows];
    *a = clq_image_destiny(&l->m->image, w, matrix)->activation;
    clq_range_scale(range, !l->m->setup.activations_asymmetric, &a->scale, &a->zero_point);
    return CLQ_OK;
}

// Of all matrices of a weight; those that no token reached get what covers the ranges of the others.
static clq_status set_activations(const clq_layer_work *l, int which, clq_range *ranges, bool *found, clq_error *err)
{
    const clq_weight *w = &l->unit->weights[which];
    clq_range all = {0};
    uint32_t n_missing = 0;
    for (uint32_t m = 0; m < w->count; m++) {
        CLQ_TRY(measure_range(l, which, m, &ranges[m], &found[m], err));
        if (!found[m]) continue;
        all.absmax = fmaxf(all.absmax, ranges[m].absmax);
        all.min = fminf(all.min, ranges[m].min);
        all.max = fmaxf(all.max, ranges[m].max);
    }
    for (uint32_t m = 0; m < w->count; m++) {
        if (clq_image_destiny(&l->m->image, w, m)->activation.quant != CLQ_QUANT_STATIC) continue;
        CLQ_TRY(set_activation(l, w, m, found[m] ? &ranges[m] : &all, err));
        n_missing += !found[m];
    }
    if (n_missing)
        clq_warn(l->m->setup.hooks,
                 "'%s': no token of the calibration text reached %u of %u experts; the scales of their activations are "
                 "made of the ranges of the others",
                 w->tensor->name, n_missing, w->count);
    return CLQ_OK;
}

clq_status clq_layer_activations(clq_layer_work *l, clq_error *err)
{
    clq_status st = CLQ_OK;
    for (int i = 0; i < CLQ_N_WEIGHTS && st == CLQ_OK; i++) {
        const clq_weight *w = &l->unit->weights[i];
        bool any = false;
        for (uint32_t m = 0; w->tensor && !w->is_vector && m < w->count; m++)
            any |= clq_image_destiny(&l->m->image, w, m)->activation.quant == CLQ_QUANT_STATIC;
        if (!any) continue;
        clq_range *ranges = calloc(w->count, sizeof *ranges);
        bool *found = calloc(w->count, sizeof *found);
        st = ranges && found ? set_activations(l, i, ranges, found, err)
                             : clq_fail_memory(err, w->count * sizeof *ranges);
        free(ranges);
        free(found);
    }
    return st;
}

// ---- the layer ----

static clq_status push_all(const clq_layer_work *l, clq_error *err)
{
    clq_engine *e = l->m->engine;
    for (int i = 0; i < CLQ_N_WEIGHTS; i++)
        if (l->unit->weights[i].tensor) CLQ_TRY(clq_image_push(&l->m->image, &l->unit->weights[i], e->current, 0, err));
    return CLQ_OK;
}

static void append(char *text, size_t room, const char *what)
{
    size_t len = strlen(text);
    snprintf(text + len, room - len, "%s%s", len ? ", " : "", what);
}

static clq_status tell(clq_layer_work *l, clq_error *err)
{
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        clq_site_report *r = &l->reports[i];
        char name[256] = "", fold[64] = "", label[64];
        if (!l->unit->weights[i].tensor || l->unit->weights[i].is_vector || clq_trial_input(l->unit, i) != i) continue;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++)
            if (l->unit->weights[w].tensor && !l->unit->weights[w].is_vector && clq_trial_input(l->unit, w) == i)
                append(name, sizeof name, clq_weight_label(l->unit, w, label));
        for (uint32_t f = 0; f < l->n_folds; f++)
            if (l->factors[f] && l->folds[f].consumers[0] == i) clq_weight_label(l->unit, l->folds[f].producer, fold);
        r->layer = l->m->next;
        r->name = name;
        r->fold = fold;
        CLQ_TRY(clq_method_report(l->m, r, err));
    }
    return CLQ_OK;
}

static clq_status prepare(clq_layer_work *l, clq_error *err)
{
    clq_method *m = l->m;
    bool again = m->has_static || m->o->method == CLQ_METHOD_GPTQ; // the layer runs once more, prepared
    CLQ_TRY(clq_method_run_windows(m, true, true, !again, err));
    CLQ_TRY(clq_layer_check(l, err));
    if (m->o->method == CLQ_METHOD_AWQ || m->o->method == CLQ_METHOD_SMOOTHQUANT) CLQ_TRY(clq_layer_factors(l, err));
    CLQ_TRY(clq_layer_rounding(l, err));
    if (again) {
        CLQ_TRY(push_all(l, err));
        CLQ_TRY(clq_layers_forget(m->layers, err));
        CLQ_TRY(clq_method_run_windows(m, m->has_static, false, true, err));
        if (m->has_static) CLQ_TRY(clq_layer_activations(l, err));
    }
    return tell(l, err);
}

clq_status clq_method_prepare_layer(clq_method *m, clq_error *err)
{
    clq_layer_work l = {.m = m, .unit = &m->engine->layers[m->next]};
    for (int i = 0; i < CLQ_N_WEIGHTS; i++)
        l.reports[i] = (clq_site_report){.ratio = -1, .search_loss = -1, .search_plain = -1};
    clq_status st = prepare(&l, err);
    for (uint32_t f = 0; f < CLQ_MAX_FOLDS; f++) free(l.factors[f]);
    return st;
}

// SPDX-License-Identifier: MIT
// A layer's factors: facts of the channels, the search, folding.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "method/layer.h"

// ---- facts ----

typedef struct {
    const clq_layer_work *l;
    const clq_fold *fold;
    const clq_consumer *consumers;
    float *mean, *max; // [cols]
} weight_facts;

// Of a matrix' rows in the source's order, columns [begin, end), which are whole groups.
static void look_at_rows(const clq_image *image, const clq_weight *w, uint32_t matrix, uint64_t group, uint64_t begin,
                         uint64_t end, double *sums, float *max)
{
    for (uint64_t r = 0, n; r < w->rows; r += n) {
        uint64_t at;
        n = w->rows - r;
        const clq_prepared *p = clq_image_stretch(image, w, (uint64_t)matrix * w->rows + r, &at, &n);
        for (uint64_t i = 0; i < n; i++) {
            const float *row = p->w + (at + i) * w->cols;
            for (uint64_t g = begin; g < end; g += group) {
                float most = 0;
                for (uint64_t c = g; c < g + group; c++) most = fabsf(row[c]) > most ? fabsf(row[c]) : most;
                for (uint64_t c = g; c < g + group; c++) {
                    float x = fabsf(row[c]);
                    sums[c] += (double)(x / (most + 1e-6f));
                    max[c] = x > max[c] ? x : max[c];
                }
            }
        }
    }
}

static uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

// The fewest columns that are whole groups of all consumers.
static uint64_t common_group(const clq_layer_work *l, const clq_fold *fold, const clq_consumer consumers[])
{
    uint64_t all = 1;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++)
        for (uint32_t m = 0; m < l->unit->weights[fold->consumers[i]].count; m++) {
            const clq_type *t = &consumers[i].types[m];
            uint64_t group = t->granularity == CLQ_PER_GROUP ? t->group_size : fold->cols;
            if (t->format == CLQ_INT) all = all / common_divisor(all, group) * group;
        }
    return all;
}

typedef struct {
    weight_facts *f;
    uint64_t step;
    double *sums;
} facts_job;

static void look_at_columns(void *ctx, uint64_t begin, uint64_t end)
{
    facts_job *j = ctx;
    const clq_fold *fold = j->f->fold;
    const clq_layer_work *l = j->f->l;
    double n_rows = 0;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++) {
        const clq_weight *w = &l->unit->weights[fold->consumers[i]];
        for (uint32_t m = 0; m < w->count; m++) {
            const clq_type *t = &j->f->consumers[i].types[m];
            if (t->format != CLQ_INT) continue;
            uint64_t group = t->granularity == CLQ_PER_GROUP ? t->group_size : w->cols;
            look_at_rows(&l->m->image, w, m, group, begin * j->step, end * j->step, j->sums, j->f->max);
            n_rows += w->rows;
        }
    }
    for (uint64_t c = begin * j->step; c < end * j->step; c++)
        j->f->mean[c] = n_rows > 0 ? (float)(j->sums[c] / n_rows) : 0;
}

static clq_status weight_means(weight_facts *f, clq_error *err)
{
    facts_job j = {.f = f, .step = common_group(f->l, f->fold, f->consumers)};
    j.sums = calloc(f->fold->cols, sizeof *j.sums);
    if (!j.sums) return clq_fail_memory(err, f->fold->cols * sizeof *j.sums);
    memset(f->max, 0, f->fold->cols * sizeof *f->max);
    clq_parallel(f->l->m->setup.threads, f->fold->cols / j.step, 1, look_at_columns, &j);
    free(j.sums);
    return CLQ_OK;
}

static clq_status input_facts(const clq_layer_work *l, const clq_fold *fold, float *mean, float *max, float *scratch,
                              clq_error *err)
{
    int which = fold->consumers[0];
    CLQ_TRY(clq_layer_channels(l, which, 0, CLQ_CHANNEL_SUM_ABS, mean, err));
    CLQ_TRY(clq_layer_channels(l, which, 0, CLQ_CHANNEL_MIN, max, err));
    CLQ_TRY(clq_layer_channels(l, which, 0, CLQ_CHANNEL_MAX, scratch, err));
    for (uint32_t c = 0; c < fold->cols; c++) {
        mean[c] /= (float)l->m->corpus->n_tokens;
        max[c] = fmaxf(fabsf(max[c]), fabsf(scratch[c]));
    }
    return CLQ_OK;
}

// ---- folds ----

typedef clq_status (*search_fn)(clq_layer_work *l, const clq_fold *fold, const clq_consumer consumers[],
                                const clq_channel_facts *facts, float *s, clq_choice_of_factors *choice,
                                clq_error *err);

static clq_status search_awq(clq_layer_work *l, const clq_fold *fold, const clq_consumer consumers[],
                             const clq_channel_facts *facts, float *s, clq_choice_of_factors *choice, clq_error *err)
{
    return clq_awq_search(&l->m->trial, fold, consumers, facts, s, choice, err);
}

static clq_status search_smooth(clq_layer_work *l, const clq_fold *fold, const clq_consumer consumers[],
                                const clq_channel_facts *facts, float *s, clq_choice_of_factors *choice, clq_error *err)
{
    bool is_static = false;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++)
        is_static |= clq_image_destiny(&l->m->image, &l->unit->weights[fold->consumers[i]], 0)->activation.quant ==
                     CLQ_QUANT_STATIC;
    return clq_smooth_search(&l->m->trial, fold, consumers, facts, l->m->o->alpha, is_static, s, choice, err);
}

// The columns' least and largest values of a consumer that has one scale for all.
static clq_status column_ranges(const clq_layer_work *l, int which, clq_consumer *consumer, clq_error *err)
{
    const clq_weight *w = &l->unit->weights[which];
    uint64_t cols = w->cols;
    if (w->count != 1 || consumer->types->format != CLQ_INT || consumer->types->granularity != CLQ_PER_TENSOR)
        return CLQ_OK;
    consumer->low = calloc(2 * cols, sizeof *consumer->low);
    if (!consumer->low) return clq_fail_memory(err, 2 * cols * sizeof *consumer->low);
    consumer->high = consumer->low + cols;
    for (uint64_t r = 0, n, at; r < w->rows; r += n) {
        n = w->rows - r;
        const clq_prepared *p = clq_image_stretch(&l->m->image, w, r, &at, &n);
        for (uint64_t i = at * cols; i < (at + n) * cols; i++) {
            uint64_t c = i % cols;
            consumer->low[c] = p->w[i] < consumer->low[c] ? p->w[i] : consumer->low[c];
            consumer->high[c] = p->w[i] > consumer->high[c] ? p->w[i] : consumer->high[c];
        }
    }
    return CLQ_OK;
}

// How the consumers are rounded. *any: whether any is.
static clq_status fill_consumers(const clq_layer_work *l, const clq_fold *fold, clq_type *room,
                                 clq_consumer consumers[CLQ_FOLD_CONSUMERS], bool *any, clq_error *err)
{
    *any = false;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++) {
        const clq_weight *w = &l->unit->weights[fold->consumers[i]];
        consumers[i].types = room;
        for (uint32_t m = 0; m < w->count; m++, room++) {
            *room = clq_method_type_of(l->m, w, m);
            *any |= room->format == CLQ_INT;
        }
        CLQ_TRY(column_ranges(l, fold->consumers[i], &consumers[i], err));
    }
    return CLQ_OK;
}

// Whether a consumer stays in 16-bit floats: a router, mostly, whose rounding would choose other experts.
static bool has_short_floats(const clq_layer_work *l, const clq_fold *fold)
{
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++)
        for (uint32_t m = 0; m < l->unit->weights[fold->consumers[i]].count; m++) {
            const clq_destiny *d = clq_image_destiny(&l->m->image, &l->unit->weights[fold->consumers[i]], m);
            if (d->type.format == CLQ_F16 || d->type.format == CLQ_BF16) return true;
        }
    return false;
}

static uint32_t n_matrices(const clq_layer_work *l, const clq_fold *fold)
{
    uint32_t n = 0;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++)
        n += l->unit->weights[fold->consumers[i]].count;
    return n;
}

static clq_status search_fold(clq_layer_work *l, uint32_t f, search_fn fn, clq_error *err)
{
    const clq_fold *fold = &l->folds[f];
    uint64_t cols = fold->cols;
    clq_consumer consumers[CLQ_FOLD_CONSUMERS] = {0};
    bool any;
    clq_type *room = malloc(n_matrices(l, fold) * sizeof *room);
    float *x = malloc(5 * cols * sizeof *x), *s = malloc(cols * sizeof *s);
    clq_choice_of_factors choice;
    clq_site_report *report = &l->reports[clq_trial_input(l->unit, fold->consumers[0])];
    clq_status st = room && x && s ? CLQ_OK : clq_fail_memory(err, 6 * cols * sizeof *x);
    if (st == CLQ_OK) st = fill_consumers(l, fold, room, consumers, &any, err);
    if (st != CLQ_OK || !any) goto out;
    clq_channel_facts facts = {
        x, x + cols, x + 2 * cols, x + 3 * cols, (uint32_t)cols, has_short_floats(l, fold)};
    CLQ_TRY_OUT(input_facts(l, fold, x, x + cols, x + 4 * cols, err));
    CLQ_TRY_OUT(weight_means(&(weight_facts){l, fold, consumers, x + 2 * cols, x + 3 * cols}, err));
    CLQ_TRY_OUT(fn(l, fold, consumers, &facts, s, &choice, err));
    double n = (double)l->m->trial.n_rows * clq_layers_width(l->m->layers);
    report->ratio = choice.ratio;
    report->weighted = choice.weighted;
    report->search_loss = choice.loss / n;
    report->search_plain = choice.plain_loss / n;
    l->factors[f] = s;
    s = NULL;
out:
    for (int i = 0; i < CLQ_FOLD_CONSUMERS; i++) free(consumers[i].low);
    free(room);
    free(x);
    free(s);
    return st;
}

clq_status clq_layer_factors(clq_layer_work *l, clq_error *err)
{
    bool smooth = l->m->o->method == CLQ_METHOD_SMOOTHQUANT;
    l->n_folds = clq_folds_of(&l->m->engine->net, l->unit, smooth, l->folds);
    for (uint32_t f = 0; f < l->n_folds; f++) {
        // Experts get one smoothing for all, which suits none, and the router would be changed with them.
        if (smooth && l->folds[f].module == CLQ_MODULE_EXPERTS) continue;
        if (clq_cancelled(l->m->setup.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        CLQ_TRY(search_fold(l, f, smooth ? search_smooth : search_awq, err));
    }
    for (uint32_t f = 0; f < l->n_folds; f++)
        if (l->factors[f]) clq_fold_apply(&l->m->image, l->unit, &l->folds[f], l->factors[f]);
    return CLQ_OK;
}

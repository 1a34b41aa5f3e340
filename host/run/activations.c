// SPDX-License-Identifier: MIT
// Integer weights of Linear modules get the activations that the options ask for. Without such options a weight that is
// copied keeps what the source says of it; one that is made anew does not.
#include "run/activations.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "method/method.h"
#include "model/view.h"
#include "run/policy.h"

// Whether ranges are taken from statistics.
static bool is_measured(clq_activations kind)
{
    return kind == CLQ_ACTIVATIONS_STATIC || kind == CLQ_ACTIVATIONS_AUTO;
}

clq_status clq_plan_check_activations(const clq_plan *p, clq_error *err)
{
    const clq_quantize_options *o = &p->options;
    clq_activations kind = o->activations ? *o->activations : CLQ_ACTIVATIONS_NONE;
    clq_observer observer;
    bool measured = is_measured(kind);
    if (kind != CLQ_ACTIVATIONS_NONE && p->to_gguf)
        return clq_fail(
            err, CLQ_USAGE,
            "a GGUF file cannot say how activations are rounded (--activations %s); give an output that does "
            "not end in .gguf instead of '%s'",
            clq_activations_name(kind), p->out);
    bool by_method = clq_method_runs_model(o->method) && kind == CLQ_ACTIVATIONS_STATIC;
    if (measured && !o->statistics && !by_method)
        return clq_fail(
            err, CLQ_USAGE,
            "%s activations need ranges that were measured: `clquant calibrate %s --text FILE -o STATS` "
            "makes a file of them, which --stats STATS takes",
            clq_activations_name(kind), p->source->path);
    if (o->statistics && !measured && !p->to_gguf)
        return clq_fail(err, CLQ_USAGE,
                        "--stats is for --activations static or auto, and of a GGUF file for importance; neither is asked for");
    if (o->activations_asymmetric && !measured)
        return clq_fail(err, CLQ_USAGE,
                        "--asymmetric-activations is for --activations static or auto; others have always (tensor) or never "
                        "(token) a zero-point");
    if (!o->observer) return CLQ_OK;
    if (!measured)
        return clq_fail(err, CLQ_USAGE,
                        "--observer chooses the ranges of --activations static or auto, which is not asked for");
    if (clq_observer_parse(o->observer, &observer)) return CLQ_OK;
    clq_buf names = {0};
    for (int i = 0; i < CLQ_N_OBSERVERS; i++)
        clq_buf_printf(&names, "%s%s", i ? ", " : "", clq_observer_name((clq_observer)i));
    clq_fail(err, CLQ_USAGE, "there is no observer '%s'; there are %.*s", o->observer, (int)names.len,
             names.failed ? "" : names.data);
    clq_buf_free(&names);
    return CLQ_USAGE;
}

// ---- names ----

// What a weight is called in statistics, and which of that tensor's matrices it is.
typedef struct {
    const char *name; // NULL: the model does not run it
    uint32_t matrix;
} place;

typedef struct {
    clq_plan *plan;
    const clq_stats_file *stats;
    const clq_observer *observer; // NULL: the default of each input
    clq_view view; // of a folder
    place *places; // of the folder's tensors
    uint32_t n_unreached, n_not_run, n_spread;
    const char *first_unreached, *first_not_run, *most_spread;
    double spread; // of most_spread
    bool spread_is_dynamic; // such inputs get a scale for each token
} statics;

static clq_status open_places(statics *x, clq_error *err)
{
    const clq_source *s = x->plan->source;
    if (s->container == CLQ_GGUF) return CLQ_OK;
    clq_status st = clq_view_create(s, &x->view, err);
    if (st == CLQ_BAD_INPUT) clq_error_locate(err, s->path);
    CLQ_TRY(st);
    x->places = calloc(s->n_tensors + 1ull, sizeof *x->places);
    if (!x->places) return clq_fail_memory(err, s->n_tensors * sizeof *x->places);
    for (uint32_t i = 0; i < x->view.n_tensors; i++) {
        const clq_view_tensor *t = &x->view.tensors[i];
        if (t->computed) continue;
        for (uint32_t k = 0; k < t->from.n_pieces; k++) {
            uint32_t index = t->from.sources ? t->from.sources[k] : t->from.source;
            x->places[index] = (place){t->name, t->from.sources ? k : 0};
        }
    }
    return CLQ_OK;
}

static place find_place(const statics *x, const clq_entry *e)
{
    if (x->places) return x->places[e->from.source];
    const clq_tensor *t = &x->plan->source->tensors[e->from.source];
    return (place){t->name, e->from.n_elements ? (uint32_t)(e->from.first / e->from.n_elements) : 0};
}

// ---- static ----

static const clq_range *own_range(const clq_stat_site *site, uint32_t matrix, const clq_observer *observer)
{
    clq_observer by = observer ? *observer : clq_default_observer(site, matrix);
    return &site->ranges[(uint64_t)matrix * CLQ_N_OBSERVERS + by];
}

// The range of a matrix; of one that no token reached, what covers the ranges of the others. False: there are none.
static bool range_of(const clq_stat_site *site, uint32_t matrix, const clq_observer *observer, clq_range *range)
{
    *range = *own_range(site, matrix, observer);
    if (site->tokens[matrix]) return true;
    bool any = false;
    *range = (clq_range){0};
    for (uint32_t m = 0; m < site->n_matrices; m++) {
        const clq_range *other = own_range(site, m, observer);
        if (!site->tokens[m]) continue;
        any = true;
        range->absmax = fmaxf(range->absmax, other->absmax);
        range->min = fminf(range->min, other->min);
        range->max = fmaxf(range->max, other->max);
    }
    return any;
}

// *found false: the weight is none of those that the model runs.
static clq_status measured(statics *x, const clq_entry *e, clq_activation *a, bool *found, clq_error *err)
{
    const char *path = x->plan->options.statistics;
    place at = find_place(x, e);
    clq_range range;
    *found = at.name != NULL;
    if (!at.name) {
        if (x->n_not_run++ == 0) x->first_not_run = e->info.name;
        return CLQ_OK;
    }
    const clq_stat_site *site = clq_stats_find(x->stats, at.name);
    if (!site)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "'%s' has nothing about tensor '%s' (%s): calibrate this model, or give the tensor another type "
            "with --tensor-type",
            path, e->info.name, at.name);
    if (site->cols != e->cols)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is of another model: its '%s' has %u columns, tensor '%s' has %llu",
                        path, at.name, site->cols, e->info.name, (unsigned long long)e->cols);
    if (at.matrix >= site->n_matrices)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is of another model: its '%s' has %u matrices, tensor '%s' is number %u",
                        path, at.name, site->n_matrices, e->info.name, at.matrix + 1);
    if (!range_of(site, at.matrix, x->observer, &range))
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "'%s': no token of the text reached tensor '%s' (%s); calibrate with a longer text, or give the "
            "tensor another type with --tensor-type",
            path, e->info.name, at.name);
    if (!site->tokens[at.matrix] && x->n_unreached++ == 0) x->first_unreached = e->info.name;
    double spread = clq_token_spread(site, at.matrix);
    if (spread >= CLQ_WIDE_SPREAD) x->n_spread++;
    if (spread > x->spread) {
        x->spread = spread;
        x->most_spread = e->info.name;
    }
    a->quant = x->spread_is_dynamic && spread >= CLQ_WIDE_SPREAD ? CLQ_QUANT_TOKEN : CLQ_QUANT_STATIC;
    if (a->quant == CLQ_QUANT_TOKEN) return CLQ_OK;
    clq_range_scale(&range, !x->plan->options.activations_asymmetric, &a->scale, &a->zero_point);
    return CLQ_OK;
}

static void warn_of_ranges(const statics *x)
{
    const clq_hooks *hooks = x->plan->hooks;
    if (x->n_unreached)
        clq_warn(hooks,
                 "%u expert%s that no token of the calibration text reached take%s the largest range of the layer's "
                 "others (the first: '%s')",
                 x->n_unreached, CLQ_PLURAL(x->n_unreached), x->n_unreached == 1 ? "s" : "", x->first_unreached);
    if (x->n_spread && !x->spread_is_dynamic)
        clq_warn(hooks,
                 "the inputs of %u weight%s have tokens over %d times as large as most (of '%s' %.0f times): one scale for "
                 "all tokens leaves few of the 127 steps to the others; --activations auto gives these a scale for each token",
                 x->n_spread, CLQ_PLURAL(x->n_spread), CLQ_WIDE_SPREAD, x->most_spread, x->spread);
    if (x->n_not_run)
        clq_warn(hooks,
                 "%u weight%s that running the model does not use ha%s no ranges; their activations stay float (the "
                 "first: '%s')",
                 x->n_not_run, CLQ_PLURAL(x->n_not_run), x->n_not_run == 1 ? "s" : "ve", x->first_not_run);
}

// ---- all entries ----

// Weights of Linear modules, and stacked experts: neither embeddings and heads nor convolutions.
static bool takes(const clq_entry *e)
{
    bool matrix = e->info.n_dims == 2 || strstr(e->info.name, "expert");
    return e->type.format == CLQ_INT && matrix && clq_is_linear_weight(e->info.name, e->info.n_dims);
}

static clq_status set_asked(clq_plan *p, clq_activations kind, statics *x, clq_error *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        bool found = true;
        if (!takes(e)) continue;
        n++;
        if (clq_method_runs_model(p->options.method) && kind == CLQ_ACTIVATIONS_STATIC)
            e->activation = (clq_activation){.quant = CLQ_QUANT_STATIC, .scale = 1}; // the method measures them
        else if (is_measured(kind))
            CLQ_TRY(measured(x, e, &e->activation, &found, err));
        else
            e->activation.quant = kind == CLQ_ACTIVATIONS_TOKEN ? CLQ_QUANT_TOKEN : CLQ_QUANT_TENSOR;
    }
    if (n) return CLQ_OK;
    return clq_fail(
        err, CLQ_USAGE,
        "--activations is about weights of integer types (i8, i4_g128 ...), and no weight of a layer gets one");
}

// Without options: what the source says, where the weight stays as it is.
static void keep(clq_plan *p)
{
    uint32_t n_lost = 0;
    const char *first = NULL, *kind = "";
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        if (e->from.source == UINT32_MAX) continue;
        const clq_activation *a = &p->source->tensors[e->from.source].activation;
        if (a->quant == CLQ_QUANT_NONE) continue;
        if (e->copy && !p->to_gguf) {
            e->activation = *a;
        } else if (n_lost++ == 0) {
            first = e->info.name;
            kind = clq_activations_name(clq_activation_describe(a).kind);
        }
    }
    if (n_lost && p->to_gguf)
        clq_warn(
            p->hooks,
            "a GGUF file cannot say that activations are rounded to int8, as the source does (%s, of %u weight%s): "
            "dropped",
            kind, n_lost, CLQ_PLURAL(n_lost));
    else if (n_lost)
        clq_warn(p->hooks,
                 "%u weight%s made anew, without the int8 activations (%s) of the source (the first: '%s'); "
                 "`clquant quantize --activations` gives them",
                 n_lost, n_lost == 1 ? " is" : "s are", kind, first);
}

static clq_status add_parts(clq_plan *p, clq_error *err)
{
    bool zero_points = p->options.activations_asymmetric;
    for (uint32_t i = 0; i < p->n_entries; i++) zero_points |= p->entries[i].activation.zero_point != 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        e->info.activation = clq_activation_describe(&e->activation);
        if (e->activation.quant == CLQ_QUANT_STATIC) CLQ_TRY(clq_entry_add_activation(e, zero_points, err));
    }
    return CLQ_OK;
}

clq_status clq_plan_set_activations(clq_plan *p, const clq_stats_file *stats, clq_error *err)
{
    clq_activations kind = p->options.activations ? *p->options.activations : CLQ_ACTIVATIONS_NONE;
    if (!p->options.activations) keep(p);
    if (kind != CLQ_ACTIVATIONS_NONE) {
        clq_observer observer;
        statics x = {.plan = p, .stats = stats, .spread_is_dynamic = kind == CLQ_ACTIVATIONS_AUTO};
        if (p->options.observer && clq_observer_parse(p->options.observer, &observer)) x.observer = &observer;
        bool by_stats = is_measured(kind) && stats;
        clq_status st = by_stats ? open_places(&x, err) : CLQ_OK;
        if (st == CLQ_OK) st = set_asked(p, kind, &x, err);
        if (st == CLQ_OK) warn_of_ranges(&x);
        free(x.places);
        clq_view_free(&x.view);
        CLQ_TRY(st);
    }
    return add_parts(p, err);
}

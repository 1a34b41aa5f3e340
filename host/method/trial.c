// SPDX-License-Identifier: MIT
#include "method/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/graph_steps.h"

// ---- room ----

// The weights whose inputs are copied, if the layer has them.
static const int copied[] = {CLQ_W_Q, CLQ_W_QKV, CLQ_W_O, CLQ_W_GATE, CLQ_W_UP, CLQ_W_DOWN, CLQ_W_ROUTER};
enum { N_COPIED = sizeof copied / sizeof *copied };

int clq_trial_input(const clq_unit *unit, int which)
{
    if (which == CLQ_W_K || which == CLQ_W_V) return CLQ_W_Q;
    if (which == CLQ_W_UP && unit->weights[CLQ_W_GATE].tensor) return CLQ_W_GATE;
    if (which == CLQ_W_UP_EXPS) return CLQ_W_GATE_EXPS;
    if (which == CLQ_W_SHARED_UP) return CLQ_W_SHARED_GATE;
    return which == CLQ_W_SHARED_ROUTER ? CLQ_W_ROUTER : which;
}

static bool is_copied(const clq_unit *unit, int which)
{
    return unit->weights[which].tensor && clq_trial_input(unit, which) == which;
}

static uint64_t elements(const clq_weight *w) { return (uint64_t)w->rows * w->cols * w->count; }

typedef struct {
    uint64_t max_cols, max_rows, weights, copied;
} needs;

static needs layer_needs(const clq_net *net, const clq_unit *unit)
{
    clq_fold folds[CLQ_MAX_FOLDS];
    needs n = {0};
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &unit->weights[i];
        if (!w->tensor) continue;
        n.max_cols = clq_graph_max(n.max_cols, w->cols);
        n.max_rows = clq_graph_max(n.max_rows, w->rows);
        if (!w->is_vector && w->count == 1) n.weights = clq_graph_max(n.weights, elements(w));
    }
    for (uint32_t f = clq_folds_of(net, unit, false, folds); f-- > 0;) {
        uint64_t sum = 0;
        for (int i = 0; i < CLQ_FOLD_CONSUMERS && folds[f].consumers[i] >= 0; i++)
            sum += clq_graph_round_16(elements(&unit->weights[folds[f].consumers[i]]));
        n.weights = clq_graph_max(n.weights, sum);
    }
    for (int i = 0; i < N_COPIED; i++)
        if (is_copied(unit, copied[i])) n.copied += unit->weights[copied[i]].cols;
    return n;
}

static needs all_needs(const clq_engine *e)
{
    needs most = {.max_cols = e->net.embd, .max_rows = e->net.embd};
    for (uint32_t i = 0; i < e->net.layers; i++) {
        needs n = layer_needs(&e->net, &e->layers[i]);
        most.max_cols = clq_graph_max(most.max_cols, n.max_cols);
        most.max_rows = clq_graph_max(most.max_rows, n.max_rows);
        most.weights = clq_graph_max(most.weights, n.weights);
        most.copied = clq_graph_max(most.copied, n.copied);
    }
    return most;
}

static bool take(uint64_t *at, uint64_t rows, uint64_t cols, uint64_t *place)
{
    uint64_t n;
    *place = *at;
    return clq_mul_u64(rows, cols, &n) && clq_add_u64(*at, n, at) && clq_round_up_u64(*at, 16, at) &&
           *at < UINT64_MAX / 8;
}

// Places from `at` on, which becomes their end. The copies' places follow.
static bool plan(const needs *n, uint64_t rows, uint32_t context, uint32_t embd, uint64_t *at, clq_trial *t)
{
    uint64_t widest = clq_graph_max(n->max_cols, n->max_rows), copies;
    t->max_cols = n->max_cols;
    return take(at, 1, n->max_cols, &t->copies.ones) && take(at, 1, widest, &t->zeros) &&
           take(at, rows, embd, &t->reference) && take(at, context, n->max_rows, &t->out) &&
           take(at, CLQ_MAX_CANDIDATES, n->max_cols, &t->factors) &&
           take(at, CLQ_MAX_CANDIDATES, context, &t->errors) && take(at, context, n->max_cols, &t->divided) &&
           take(at, 1, n->weights, &t->weights) && take(at, rows + 16, n->copied, &copies);
}

uint64_t clq_trial_largest(const clq_engine *e)
{
    uint64_t most = 0;
    for (uint32_t l = 0; l < e->net.layers; l++)
        for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
            const clq_weight *w = &e->layers[l].weights[i];
            if (w->tensor && w->count == 1) most = clq_graph_max(most, elements(w));
        }
    return most;
}

bool clq_trial_floats(const clq_engine *e, uint64_t n_rows, uint64_t *n_floats)
{
    needs n = all_needs(e);
    clq_trial unused;
    *n_floats = 0;
    return plan(&n, n_rows, e->graph.positions, e->net.embd, n_floats, &unused);
}

static clq_status fill(clq_trial *t, uint64_t at, float value, uint64_t n, clq_error *err)
{
    clq_engine *e = t->engine;
    float *x = malloc(n * sizeof *x);
    if (!x) return clq_fail_memory(err, n * sizeof *x);
    for (uint64_t i = 0; i < n; i++) x[i] = value;
    clq_status st = e->device->ops->memory_write(e->state_memory, at * 4, x, n * 4, err);
    free(x);
    return st;
}

clq_status clq_trial_create(clq_layers *layers, const uint32_t *windows, uint32_t n_windows, clq_trial *t,
                            clq_error *err)
{
    clq_engine *e = clq_layers_engine(layers);
    uint64_t at = clq_layers_extra(layers);
    needs n = all_needs(e);
    *t = (clq_trial){.layers = layers, .engine = e, .n_windows = n_windows};
    for (uint32_t i = 0; i < n_windows; i++) t->n_rows += windows[i];
    t->windows = malloc((n_windows + 1) * sizeof *windows);
    t->host_errors = malloc((uint64_t)CLQ_MAX_CANDIDATES * e->graph.positions * sizeof *t->host_errors);
    if (!t->windows || !t->host_errors) return clq_fail_memory(err, CLQ_MAX_CANDIDATES * e->graph.positions * 4ull);
    memcpy(t->windows, windows, n_windows * sizeof *windows);
    if (!plan(&n, t->n_rows, e->graph.positions, e->net.embd, &at, t))
        return clq_fail(err, CLQ_DEVICE, "the copies of inputs are too large to count");
    CLQ_TRY(fill(t, t->copies.ones, 1, n.max_cols, err));
    return fill(t, t->zeros, 0, clq_graph_max(n.max_cols, n.max_rows), err);
}

void clq_trial_free(clq_trial *t)
{
    free(t->windows);
    free(t->host_errors);
    *t = (clq_trial){0};
}

// ---- inputs ----

static const clq_unit *unit_of(const clq_trial *t) { return &t->engine->layers[clq_layers_loaded(t->layers)]; }

const clq_copies *clq_trial_copies(clq_trial *t, uint32_t index)
{
    const clq_unit *unit = unit_of(t);
    uint64_t at = clq_graph_round_16(t->weights + all_needs(t->engine).weights);
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) t->copies.at[i] = CLQ_NONE;
    for (int i = 0; i < N_COPIED; i++) {
        if (!is_copied(unit, copied[i])) continue;
        t->copies.at[copied[i]] = at;
        at += clq_graph_round_16(t->n_rows * unit->weights[copied[i]].cols);
    }
    t->copies.first = 0;
    for (uint32_t i = 0; i < index; i++) t->copies.first += t->windows[i];
    return &t->copies;
}

// Row of the first token of a window.
static uint64_t first_row(const clq_trial *t, uint32_t window)
{
    uint64_t row = 0;
    for (uint32_t i = 0; i < window; i++) row += t->windows[i];
    return row;
}

static uint64_t input_of(const clq_trial *t, int which, uint32_t window)
{
    int source = clq_trial_input(unit_of(t), which);
    return t->copies.at[source] + first_row(t, window) * unit_of(t)->weights[which].cols;
}

bool clq_trial_has_input(const clq_trial *t, int which)
{
    return t->copies.at[clq_trial_input(unit_of(t), which)] != CLQ_NONE;
}

// ---- modules ----

// The module's output on a window, to `out`; weights as graph.instead says.
static clq_status run_module(clq_trial *t, const clq_fold *fold, uint32_t window, uint64_t in, uint64_t out,
                             clq_error *err)
{
    clq_engine *e = t->engine;
    clq_placed placed = {unit_of(t), 0};
    uint32_t layer = clq_layers_loaded(t->layers), n = t->windows[window];
    switch (fold->module) {
    case CLQ_MODULE_ATTENTION:
        clq_graph_attention_module(&e->graph, &placed, layer, clq_layers_pass(t->layers), in, out);
        return CLQ_OK;
    case CLQ_MODULE_FFN: clq_graph_ffn_module(&e->graph, &placed, n, in, out); return CLQ_OK;
    case CLQ_MODULE_EXPERTS:
        return clq_engine_experts_module(e, &placed, clq_layers_pass(t->layers), in, t->copies.ones, t->zeros, out,
                                         err);
    default: clq_graph_linear_module(&e->graph, &placed, fold->consumers[0], 0, n, in, out); return CLQ_OK;
    }
}

clq_status clq_trial_begin(clq_trial *t, const clq_fold *fold, clq_error *err)
{
    for (uint32_t i = 0; i < t->n_windows; i++) {
        CLQ_TRY(clq_layers_positions(t->layers, t->windows[i], err));
        CLQ_TRY(run_module(t, fold, i, input_of(t, fold->consumers[0], i),
                           t->reference + first_row(t, i) * t->engine->net.embd, err));
        CLQ_TRY(clq_engine_flush(t->engine, err));
    }
    return CLQ_OK;
}

// The scale that the whole matrix gets when its columns are multiplied.
static void give_scale(clq_step *s, const clq_type *type, const clq_consumer *consumer, const float *factors)
{
    float low = 0, high = 0;
    int8_t zero;
    for (uint32_t c = 0; c < s->cols; c++) {
        low = fminf(low, consumer->low[c] * factors[c]);
        high = fmaxf(high, consumer->high[c] * factors[c]);
    }
    clq_int_params(type, low, high, &s->scale, &zero);
    s->zero_point = zero;
    s->flags |= s->scale > 0 ? CLQ_STEP_GIVEN : 0;
}

// The candidate's weights to t->weights, as far as they are rounded, or all; instead: where. One that is not rounded is
// where others are: to 8 bits, nearly nothing.
static void round_weights(clq_trial *t, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                          const float *host_factors, uint64_t factors, bool all, uint64_t instead[CLQ_N_WEIGHTS])
{
    uint64_t at = t->weights;
    bool first = true;
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) instead[i] = CLQ_NONE;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++) {
        const clq_weight *w = &unit_of(t)->weights[fold->consumers[i]];
        bool any = all;
        for (uint32_t m = 0; m < w->count; m++) any |= consumers[i].types[m].format == CLQ_INT;
        if (!any) continue;
        instead[fold->consumers[i]] = at;
        for (uint32_t m = 0; m < w->count; m++) {
            const clq_type *type = &consumers[i].types[m];
            uint64_t n = (uint64_t)w->rows * w->cols;
            bool rounds = type->format == CLQ_INT;
            clq_step *s = clq_graph_add(&t->engine->graph, CLQ_STEP_QUANT, 0, first ? 0 : CLQ_STEP_TOGETHER);
            s->rows = w->rows;
            s->cols = w->cols;
            s->bits = rounds ? type->bits : 8;
            s->group_size = rounds && type->granularity == CLQ_PER_GROUP ? type->group_size : 0;
            s->groups = rounds ? (uint32_t)clq_type_groups(type, w->cols) : 1;
            s->flags |= rounds && type->symmetric ? CLQ_STEP_SYMMETRIC : 0;
            s->w = w->w + m * n * 4;
            s->in2 = factors;
            s->out = at;
            if (consumers[i].low) give_scale(s, type, &consumers[i], host_factors);
            at += n;
            first = false;
        }
        at = clq_graph_round_16(at);
    }
}

static void add_error(clq_trial *t, uint32_t tokens, uint32_t cols, uint64_t in, uint64_t in2, uint32_t stride2,
                      uint64_t out)
{
    clq_step *s = clq_graph_add(&t->engine->graph, CLQ_STEP_ERROR, tokens, 0);
    s->cols = s->in_stride = cols;
    s->out_stride = stride2;
    s->in = in;
    s->in2 = in2;
    s->out = out;
}

// Sums of `n` rows of errors, a row of `tokens`.
static clq_status read_errors(clq_trial *t, uint32_t n, uint32_t tokens, double *sums, clq_error *err)
{
    CLQ_TRY(clq_engine_read(t->engine, t->errors, (uint64_t)n * tokens, t->host_errors, err));
    for (uint32_t k = 0; k < n; k++) {
        sums[k] = 0;
        for (uint32_t i = 0; i < tokens; i++) sums[k] += (double)t->host_errors[(uint64_t)k * tokens + i];
    }
    return CLQ_OK;
}

clq_status clq_trial_losses(clq_trial *t, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                            uint32_t window, const float *factors, uint32_t n, double *losses, clq_error *err)
{
    clq_engine *e = t->engine;
    uint32_t tokens = t->windows[window], embd = e->net.embd;
    uint64_t instead[CLQ_N_WEIGHTS], reference = t->reference + first_row(t, window) * embd;
    CLQ_TRY(clq_layers_positions(t->layers, tokens, err));
    CLQ_TRY(clq_engine_flush(e, err));
    CLQ_TRY(e->device->ops->memory_write(e->state_memory, t->factors * 4, factors, (uint64_t)n * fold->cols * 4, err));
    clq_status st = CLQ_OK;
    for (uint32_t k = 0; st == CLQ_OK && k < n; k++) {
        round_weights(t, fold, consumers, factors + (uint64_t)k * fold->cols, t->factors + (uint64_t)k * fold->cols,
                      false, instead);
        e->graph.instead = instead;
        st = run_module(t, fold, window, input_of(t, fold->consumers[0], window), t->out, err);
        e->graph.instead = NULL;
        add_error(t, tokens, embd, t->out, reference, embd, t->errors + (uint64_t)k * tokens);
    }
    if (st == CLQ_OK) st = read_errors(t, n, tokens, losses, err);
    if (st != CLQ_OK) e->graph.n_steps = 0;
    return st;
}

// out[rows][cols] = in * by.
static void add_columns(clq_trial *t, uint64_t rows, uint32_t cols, uint64_t in, uint64_t by, uint64_t out)
{
    clq_step *s = clq_graph_add(&t->engine->graph, CLQ_STEP_COLUMNS, (uint32_t)rows, 0);
    s->cols = s->in_stride = s->out_stride = cols;
    s->in = in;
    s->in2 = by;
    s->out = out;
}

clq_status clq_trial_int8_losses(clq_trial *t, const clq_fold *fold, const clq_consumer consumers[CLQ_FOLD_CONSUMERS],
                                 uint32_t window, const float *factors, const clq_activation *inputs, uint32_t n,
                                 double *losses, clq_error *err)
{
    clq_engine *e = t->engine;
    const clq_unit *unit = unit_of(t);
    uint32_t tokens = t->windows[window], embd = e->net.embd, cols = fold->cols;
    uint64_t instead[CLQ_N_WEIGHTS], reference = t->reference + first_row(t, window) * embd;
    float *inverse = malloc(cols * sizeof *inverse);
    if (!inverse) return clq_fail_memory(err, cols * sizeof *inverse);
    clq_status st = clq_layers_positions(t->layers, tokens, err);
    for (uint32_t k = 0; st == CLQ_OK && k < n; k++) {
        uint64_t s = t->factors, by = t->factors + cols;
        for (uint32_t c = 0; c < cols; c++) inverse[c] = 1 / factors[(uint64_t)k * cols + c];
        CLQ_TRY_OUT(clq_engine_flush(e, err));
        CLQ_TRY_OUT(
            e->device->ops->memory_write(e->state_memory, s * 4, factors + (uint64_t)k * cols, cols * 4ull, err));
        CLQ_TRY_OUT(e->device->ops->memory_write(e->state_memory, by * 4, inverse, cols * 4ull, err));
        round_weights(t, fold, consumers, factors + (uint64_t)k * cols, s, true, instead);
        for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++) {
            const clq_weight *w = &unit->weights[fold->consumers[i]];
            uint64_t at = instead[fold->consumers[i]];
            add_columns(t, (uint64_t)w->rows * w->count, cols, at, s, at);
        }
        add_columns(t, tokens, cols, input_of(t, fold->consumers[0], window), by, t->divided);
        e->graph.instead = instead;
        e->graph.instead_inputs = &inputs[k];
        st = run_module(t, fold, window, t->divided, t->out, err);
        e->graph.instead = NULL;
        e->graph.instead_inputs = NULL;
        add_error(t, tokens, embd, t->out, reference, embd, t->errors + (uint64_t)k * tokens);
    }
    if (st == CLQ_OK) st = read_errors(t, n, tokens, losses, err);
out:
    if (st != CLQ_OK) e->graph.n_steps = 0;
    free(inverse);
    return st;
}

// ---- errors of sites ----

clq_status clq_trial_site_error(clq_trial *t, int which, const float *errors, double *error, double *energy,
                                clq_error *err)
{
    clq_engine *e = t->engine;
    const clq_unit *unit = unit_of(t);
    const clq_weight *w = &unit->weights[which];
    uint64_t instead[CLQ_N_WEIGHTS];
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) instead[i] = CLQ_NONE;
    instead[which] = t->weights;
    *error = *energy = 0;
    CLQ_TRY(
        e->device->ops->memory_write(e->state_memory, t->weights * 4, errors, (uint64_t)w->rows * w->cols * 4, err));
    clq_unit plain = *unit; // without a bias
    plain.weights[which].bias = CLQ_NONE;
    for (uint32_t i = 0; i < t->n_windows; i++) {
        double sums[2];
        uint32_t n = t->windows[i];
        for (int k = 0; k < 2; k++) {
            e->graph.instead = k == 0 ? instead : NULL;
            clq_graph_linear_module(&e->graph, &(clq_placed){&plain, 0}, which, 0, n, input_of(t, which, i), t->out);
            e->graph.instead = NULL;
            add_error(t, n, w->rows, t->out, t->zeros, 0, t->errors + (uint64_t)k * n);
        }
        CLQ_TRY(read_errors(t, 2, n, sums, err));
        *error += sums[0];
        *energy += sums[1];
    }
    return CLQ_OK;
}

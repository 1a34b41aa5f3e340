// SPDX-License-Identifier: MIT
#include "model/layers.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "device/steps_test.h"
#include "model/engine.h"

enum { MAX_SITES = 8 };

struct clq_layers {
    clq_engine e;
    clq_tokenizer *tokenizer;
    clq_memory *weights; // of the unit that is there
    int32_t unit;        // CLQ_UNIT_EMBED, a layer, or NOTHING
    clq_pass pass;       // whose inputs are in the state; no tokens: none
    clq_site sites[MAX_SITES];
    uint32_t n_sites;
    uint64_t observed_floats; // of all sites together
    clq_extra_fn extra;
    void *extra_user;
    uint64_t extra_at; // behind the observed ones
    clq_taps taps;
    float *zeros; // ZEROS of them
};

enum { NOTHING = -3, ZEROS = 1 << 16 };

// ---- sites ----

// Weights that share an input, the one that is observed first.
static const int shared_inputs[][CLQ_SITE_WEIGHTS] = {{CLQ_W_Q, CLQ_W_K, CLQ_W_V, -1},
                                                      {CLQ_W_QKV, -1, -1, -1},
                                                      {CLQ_W_O, -1, -1, -1},
                                                      {CLQ_W_GATE, CLQ_W_UP, -1, -1},
                                                      {CLQ_W_UP, -1, -1, -1},
                                                      {CLQ_W_DOWN, -1, -1, -1},
                                                      {CLQ_W_ROUTER, CLQ_W_SHARED_ROUTER, -1, -1},
                                                      {CLQ_W_GATE_EXPS, CLQ_W_UP_EXPS, -1, -1},
                                                      {CLQ_W_DOWN_EXPS, -1, -1, -1},
                                                      {CLQ_W_SHARED_GATE, CLQ_W_SHARED_UP, -1, -1},
                                                      {CLQ_W_SHARED_DOWN, -1, -1, -1}};

static uint64_t gram_floats(const clq_layers *l, uint32_t cols)
{
    return l->taps.gram ? (uint64_t)cols * clq_gram_block(l->taps.gram, cols) : 0;
}

// The sites of a layer, their slots and taps. false: too large to count.
static bool plan_sites(clq_layers *l, const clq_unit *unit, uint64_t at)
{
    uint64_t n_floats = at;
    l->n_sites = 0;
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) l->taps.slots[i] = CLQ_NONE;
    for (size_t s = 0; s < sizeof shared_inputs / sizeof *shared_inputs; s++) {
        const int *which = shared_inputs[s];
        const clq_weight *first = &unit->weights[which[0]];
        bool known = which[0] == CLQ_W_UP && l->taps.slots[CLQ_W_GATE] != CLQ_NONE; // its input is the gate's
        if (!first->tensor || known || l->n_sites == MAX_SITES) continue;
        clq_site *site = &l->sites[l->n_sites++];
        *site = (clq_site){.cols = first->cols, .n_matrices = first->count, .slot = n_floats};
        for (int i = 0; i < CLQ_SITE_WEIGHTS && which[i] >= 0; i++)
            if (unit->weights[which[i]].tensor) site->weights[site->n_weights++] = unit->weights[which[i]].tensor->name;
        uint64_t one = CLQ_SLOT_FLOATS((uint64_t)first->cols) + gram_floats(l, first->cols), all;
        l->taps.slots[which[0]] = n_floats;
        l->taps.slot_floats[which[0]] = (one + 15) / 16 * 16;
        if (!clq_mul_u64(l->taps.slot_floats[which[0]], first->count, &all) || !clq_add_u64(n_floats, all, &n_floats) ||
            n_floats > UINT64_MAX / 8)
            return false;
    }
    l->observed_floats = n_floats - at;
    return true;
}

const clq_site *clq_layers_sites(const clq_layers *l, uint32_t *n)
{
    *n = l->n_sites;
    return l->sites;
}

// ---- opening ----

clq_status clq_layers_default_context(const clq_source *source, uint32_t *context, clq_error *err)
{
    clq_view view;
    uint32_t positions = 0;
    CLQ_TRY(clq_view_create(source, &view, err));
    clq_status st = clq_net_positions(&view, &positions, err);
    clq_view_free(&view);
    *context = positions && positions < CLQ_LAYERS_CONTEXT ? positions : CLQ_LAYERS_CONTEXT;
    return st;
}

static clq_status plan_state(clq_layers *l, uint32_t context, clq_error *err)
{
    clq_input_needs needs = clq_engine_needs(&l->e);
    for (uint32_t i = 0; i < l->e.net.layers; i++) {
        if (!plan_sites(l, &l->e.layers[i], 0)) return clq_fail(err, CLQ_DEVICE, "observations are too large to count");
        if (l->observed_floats > needs.observed) needs.observed = l->observed_floats;
    }
    l->n_sites = 0;
    uint64_t extra = 0;
    if (l->extra && !l->extra(l->extra_user, &l->e, &extra))
        return clq_fail(err, CLQ_DEVICE, "what the method needs is too large to count");
    l->extra_at = (needs.observed + 15) / 16 * 16;
    if (extra) needs.observed = l->extra_at + extra;
    uint64_t limit = l->e.device->info.max_allocation;
    if (!clq_state_plan(&l->e.net, context, &needs, &l->e.state) || (limit && l->e.state.n_floats * 4 > limit))
        return clq_fail(err, CLQ_DEVICE,
                        "the activations of a window of %u tokens%s are larger than what the device allows in one "
                        "allocation; a smaller --ctx takes less",
                        context, l->taps.gram ? " and the Hessians" : "");
    return CLQ_OK;
}

// Room for the largest unit.
static clq_status make_weights(clq_layers *l, clq_error *err)
{
    uint64_t most = l->e.embed.n_bytes;
    for (uint32_t i = 0; i < l->e.net.layers; i++)
        if (l->e.layers[i].n_bytes > most) most = l->e.layers[i].n_bytes;
    return l->e.device->ops->memory_create(l->e.device, most + CLQ_WEIGHT_PADDING, &l->weights, err);
}

// What is observed is baked into models: the device's kernels must give what the references give.
static clq_status test_observing(clq_device *device, uint32_t gram, clq_error *err)
{
    clq_observe_case c = {.tokens = 5, .cols = 63, .windows = 2, .gram = gram != 0};
    double worst = 2;
    clq_status st = clq_observe_compare(device, &c, &worst, err);
    if (st != CLQ_OK || worst <= 1) return st;
    return clq_fail(err, CLQ_DEVICE,
                    "kernel self-test: what calibration observes on '%s' is not what the references observe; --device "
                    "ref uses these", device->info.name);
}

static clq_status open_layers(clq_layers *l, const clq_source *source, const clq_layers_options *o, clq_error *err)
{
    clq_engine *e = &l->e;
    uint32_t positions;
    CLQ_TRY(clq_view_create(source, &e->view, err));
    CLQ_TRY(clq_net_positions(&e->view, &positions, err));
    CLQ_TRY(clq_net_read(&e->view, o->context, &e->net, err));
    if (o->context == 0 || o->context > positions)
        return clq_fail(err, CLQ_USAGE, "windows of %u tokens: the model was trained on %u positions", o->context,
                        positions);
    e->graph.activations = CLQ_ROUND_NOTHING;
    e->graph.cache_type = CLQ_F32;
    e->graph.positions = o->context;
    e->as_floats = o->floats;
    l->taps.gram = o->gram;
    l->taps.without_values = o->without_values;
    l->extra = o->extra;
    l->extra_user = o->extra_user;
    CLQ_TRY(clq_engine_plan_units(e, err));
    CLQ_TRY(test_observing(e->device, o->gram, err));
    CLQ_TRY(plan_state(l, o->context, err));
    CLQ_TRY(clq_engine_buffers(e, err));
    CLQ_TRY(clq_view_tokenizer(&e->view, &l->tokenizer, err));
    CLQ_TRY(clq_engine_memories(e, 1, err));
    l->zeros = calloc(ZEROS, sizeof *l->zeros);
    if (!l->zeros) return clq_fail_memory(err, ZEROS * sizeof *l->zeros);
    return make_weights(l, err);
}

clq_status clq_layers_open(const clq_source *source, clq_device *device, const clq_layers_options *options,
                           clq_layers **layers, clq_error *err)
{
    clq_layers *l = calloc(1, sizeof *l);
    *layers = NULL;
    if (!l) return clq_fail_memory(err, sizeof *l);
    l->e.device = device;
    l->e.hooks = options->hooks;
    l->unit = NOTHING;
    clq_status st = open_layers(l, source, options, err);
    if (st == CLQ_OK)
        *layers = l;
    else
        clq_layers_close(l);
    return st;
}

void clq_layers_close(clq_layers *l)
{
    if (!l) return;
    if (l->weights) l->e.device->ops->memory_free(l->weights);
    clq_tokenizer_free(l->tokenizer);
    clq_engine_free(&l->e);
    free(l->zeros);
    free(l);
}

uint32_t clq_layers_count(const clq_layers *l) { return l->e.net.layers; }
uint32_t clq_layers_width(const clq_layers *l) { return l->e.net.embd; }
uint32_t clq_layers_vocab(const clq_layers *l) { return l->e.net.vocab; }
bool clq_layers_encoder(const clq_layers *l) { return l->e.net.kind->is_encoder; }
const char *clq_layers_architecture(const clq_layers *l) { return l->e.net.kind->name; }
const clq_tokenizer *clq_layers_tokenizer(const clq_layers *l) { return l->tokenizer; }

uint64_t clq_layers_device_bytes(const clq_layers *l)
{
    return l->weights->n_bytes + l->e.state_memory->n_bytes + l->e.cache->n_bytes;
}

// ---- running ----

static clq_status load(clq_layers *l, int32_t unit, const clq_unit *what, clq_error *err)
{
    if (l->unit == unit) return CLQ_OK;
    CLQ_TRY(clq_engine_flush(&l->e, err));
    l->unit = NOTHING;
    CLQ_TRY(clq_unit_load(&l->e.view, what, l->weights, 0, err));
    l->unit = unit;
    return clq_engine_enter(&l->e, l->weights, err);
}

clq_status clq_layers_embed(clq_layers *l, const int32_t *tokens, uint32_t n, float *hidden, clq_error *err)
{
    clq_engine *e = &l->e;
    clq_pass pass = {.tokens = n};
    l->pass.tokens = 0;
    if (n == 0 || n > e->state.batch)
        return clq_fail(err, CLQ_USAGE, "a window of %u tokens, where 1 to %u are planned", n, e->state.batch);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= e->net.vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "token %u is %d, but the vocabulary has %u", i, tokens[i],
                            e->net.vocab);
    CLQ_TRY(load(l, CLQ_UNIT_EMBED, &e->embed, err));
    CLQ_TRY(clq_engine_inputs(e, tokens, &pass, err));
    clq_graph_embed(&e->graph, &(clq_placed){&e->embed, 0}, &pass);
    return clq_engine_read(e, e->state.x, (uint64_t)n * e->net.embd, hidden, err);
}

clq_status clq_layers_load(clq_layers *l, uint32_t layer, clq_error *err)
{
    CLQ_TRY(load(l, (int32_t)layer, &l->e.layers[layer], err));
    plan_sites(l, &l->e.layers[layer], l->e.state.observed); // was counted when it was opened
    return clq_layers_forget(l, err);
}

clq_status clq_layers_forget(clq_layers *l, clq_error *err)
{
    clq_engine *e = &l->e;
    for (uint64_t done = 0, n; done < l->observed_floats; done += n) {
        n = l->observed_floats - done < ZEROS ? l->observed_floats - done : ZEROS;
        CLQ_TRY(e->device->ops->memory_write(e->state_memory, (e->state.observed + done) * 4, l->zeros, n * 4, err));
    }
    return CLQ_OK;
}

// The angles of n positions, which stay in the state for windows of the same length.
clq_status clq_layers_positions(clq_layers *l, uint32_t n, clq_error *err)
{
    if (l->pass.tokens == n) return CLQ_OK;
    int32_t *ids = calloc(n, sizeof *ids); // behind the embedding they do not matter
    clq_pass pass = {.tokens = n};
    if (!ids) return clq_fail_memory(err, n * sizeof *ids);
    clq_status st = clq_engine_inputs(&l->e, ids, &pass, err);
    free(ids);
    if (st == CLQ_OK) l->pass = pass;
    return st;
}

static clq_status run(clq_layers *l, uint32_t n, float *hidden, bool observe, const clq_copies *copies, clq_error *err)
{
    clq_engine *e = &l->e;
    uint64_t n_floats = (uint64_t)n * e->net.embd;
    CLQ_TRY(clq_layers_positions(l, n, err));
    CLQ_TRY(e->device->ops->memory_write(e->state_memory, e->state.x * 4, hidden, n_floats * 4, err));
    e->graph.taps = observe ? &l->taps : NULL;
    e->graph.copies = copies;
    clq_status st = clq_engine_layer(e, &(clq_placed){&e->layers[l->unit], 0}, (uint32_t)l->unit, &l->pass, err);
    e->graph.taps = NULL;
    e->graph.copies = NULL;
    if (st == CLQ_OK) st = clq_engine_read(e, e->state.x, n_floats, hidden, err);
    if (st != CLQ_OK) e->graph.n_steps = 0;
    return st;
}

clq_status clq_layers_run(clq_layers *l, uint32_t n, float *hidden, clq_error *err)
{
    return run(l, n, hidden, true, NULL, err);
}

clq_status clq_layers_run_with(clq_layers *l, uint32_t n, float *hidden, bool observe, const clq_copies *copies,
                               clq_error *err)
{
    return run(l, n, hidden, observe, copies, err);
}

clq_engine *clq_layers_engine(clq_layers *l) { return &l->e; }
uint64_t clq_layers_extra(const clq_layers *l) { return l->e.state.observed + l->extra_at; }
uint32_t clq_layers_loaded(const clq_layers *l) { return (uint32_t)l->unit; }
const clq_pass *clq_layers_pass(const clq_layers *l) { return &l->pass; }

uint64_t clq_layers_slot(const clq_layers *l, int which, uint32_t matrix)
{
    uint64_t slot = l->taps.slots[which];
    return slot == CLQ_NONE ? CLQ_NONE : slot + matrix * l->taps.slot_floats[which];
}

uint32_t clq_layers_block(const clq_layers *l, uint32_t cols)
{
    return l->taps.gram ? clq_gram_block(l->taps.gram, cols) : 0;
}

uint64_t clq_layers_gram(const clq_layers *l, int which, uint32_t matrix)
{
    const clq_weight *w = &l->e.layers[l->unit].weights[which];
    if (l->taps.slots[which] == CLQ_NONE || !l->taps.gram || !clq_gram_block(l->taps.gram, w->cols)) return CLQ_NONE;
    return clq_layers_slot(l, which, matrix) + CLQ_SLOT_FLOATS((uint64_t)w->cols);
}

clq_status clq_layers_observed(clq_layers *l, const clq_site *site, uint32_t matrix, float *slot, float *gram,
                               clq_error *err)
{
    clq_engine *e = &l->e;
    uint64_t n = CLQ_SLOT_FLOATS((uint64_t)site->cols), n_gram = gram_floats(l, site->cols);
    uint64_t one = (n + n_gram + 15) / 16 * 16, at = site->slot + matrix * one;
    CLQ_TRY(e->device->ops->memory_read(e->state_memory, at * 4, slot, n * 4, err));
    if (!gram) return CLQ_OK;
    return e->device->ops->memory_read(e->state_memory, (at + n) * 4, gram, n_gram * 4, err);
}

// SPDX-License-Identifier: MIT
#include "model/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/graph_steps.h"

// ---- units ----

static clq_status plan_units(clq_engine *e, clq_error *err)
{
    clq_net *n = &e->net;
    uint64_t weights = 0, bytes = 0;
    e->layers = calloc(n->layers, sizeof *e->layers);
    if (!e->layers) return clq_fail_memory(err, n->layers * sizeof *e->layers);
    CLQ_TRY(clq_unit_plan(&e->view, n, CLQ_UNIT_EMBED, false, &e->embed, err));
    CLQ_TRY(clq_unit_plan(&e->view, n, CLQ_UNIT_HEAD, false, &e->head, err));
    for (uint32_t i = 0; i < n->layers; i++)
        CLQ_TRY(clq_unit_plan(&e->view, n, (int32_t)i, e->as_floats, &e->layers[i], err));
    for (uint32_t i = 0; i < n->layers + 2; i++) {
        const clq_unit *u = i < n->layers ? &e->layers[i] : i == n->layers ? &e->embed : &e->head;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            const clq_weight *x = &u->weights[w];
            if (x->tensor) weights += (uint64_t)x->rows * x->cols * x->count;
            if (x->bias_tensor) weights += x->is_vector ? x->cols : x->rows;
        }
        if (!clq_add_u64(bytes, u->n_bytes, &bytes))
            return clq_fail(err, CLQ_BAD_INPUT, "the model's weights are too large to count");
    }
    e->n_weights = weights;
    e->weight_bytes = bytes;
    return CLQ_OK;
}

static bool same_kernel(const clq_type *a, const clq_type *b)
{
    return a->format == b->format && a->bits == b->bits && a->granularity == b->granularity;
}

// Tells the device which types of weights the steps will have: kernels are built and tested before memory is made.
static clq_status prepare_device(clq_engine *e, clq_error *err)
{
    clq_type types[CLQ_FORMAT_COUNT + 32]; // one for each kernel: sizes of groups do not matter
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->net.layers + 2; i++) {
        const clq_unit *u = i < e->net.layers ? &e->layers[i] : i == e->net.layers ? &e->embed : &e->head;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            const clq_weight *x = &u->weights[w];
            uint32_t known = 0;
            if (!x->tensor || x->is_vector) continue;
            while (known < n && !same_kernel(&types[known], &x->type)) known++;
            if (known == n && n < sizeof types / sizeof *types) types[n++] = x->type;
        }
    }
    return e->device->ops->steps_prepare(e->device, types, n, err);
}

// Tensors that are no part of a pass, or were read with the metadata.
static bool may_be_unused(const char *name)
{
    static const char *const parts[] = {"rope_freqs.weight", "rope_factors_", ".attn_rot_embd.", "cls.", "pooler."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

// A tensor that nothing reads means that the model computes something else than what is run here.
static clq_status check_unused(const clq_engine *e, clq_error *err)
{
    bool *used = calloc(e->view.n_tensors + 1ull, sizeof *used);
    clq_status st = CLQ_OK;
    if (!used) return clq_fail_memory(err, e->view.n_tensors);
    for (uint32_t i = 0; i < e->net.layers + 2; i++) {
        const clq_unit *u = i < e->net.layers ? &e->layers[i] : i == e->net.layers ? &e->embed : &e->head;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            if (u->weights[w].tensor) used[u->weights[w].tensor - e->view.tensors] = true;
            if (u->weights[w].bias_tensor) used[u->weights[w].bias_tensor - e->view.tensors] = true;
        }
    }
    for (uint32_t i = 0; i < e->view.n_tensors && st == CLQ_OK; i++)
        if (!used[i] && !may_be_unused(e->view.tensors[i].name))
            st = clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has no place in a '%s' model of %u layers as it is run here",
                          e->view.tensors[i].name, e->net.kind->name, e->net.layers);
    free(used);
    return st;
}

clq_status clq_engine_plan_units(clq_engine *e, clq_error *err)
{
    CLQ_TRY(plan_units(e, err));
    CLQ_TRY(prepare_device(e, err));
    return check_unused(e, err);
}

clq_input_needs clq_engine_needs(const clq_engine *e)
{
    clq_input_needs needs = {.places = 1};
    for (uint32_t i = 0; i < e->net.layers; i++) clq_unit_needs(&e->layers[i], e->graph.activations, &needs);
    clq_unit_needs(&e->embed, e->graph.activations, &needs);
    clq_unit_needs(&e->head, e->graph.activations, &needs);
    return needs;
}

clq_status clq_engine_buffers(clq_engine *e, clq_error *err)
{
    e->graph.net = &e->net;
    e->graph.state = &e->state;
    e->graph.rounds = clq_engine_needs(e).rounds;
    e->inputs = calloc(e->state.n_inputs, sizeof *e->inputs);
    if (!e->inputs) return clq_fail_memory(err, e->state.n_inputs * sizeof *e->inputs);
    return clq_routing_create(&e->net, e->state.batch, &e->routing, err);
}

clq_status clq_engine_memories(clq_engine *e, uint32_t layers, clq_error *err)
{
    const clq_net *n = &e->net;
    uint64_t head = clq_cache_bytes(e->graph.cache_type, n->head_dim), bytes, limit = e->device->info.max_allocation;
    bool ok = clq_mul_u64(2ull * n->kv_heads * e->graph.positions, head, &e->graph.layer_bytes) &&
              clq_mul_u64(e->graph.layer_bytes, layers, &bytes) && clq_add_u64(bytes, 64, &bytes);
    if (!ok || (limit && bytes > limit))
        return clq_fail(err, CLQ_DEVICE,
                        "a cache for %u positions is larger than what the device allows in one allocation; a shorter "
                        "context or a smaller cache type will fit",
                        e->graph.positions);
    if (layers == 1) e->graph.layer_bytes = 0;
    CLQ_TRY(e->device->ops->memory_create(e->device, bytes, &e->cache, err));
    return e->device->ops->memory_create(e->device, e->state.n_floats * 4, &e->state_memory, err);
}

void clq_engine_free(clq_engine *e)
{
    if (e->state_memory) e->device->ops->memory_free(e->state_memory);
    if (e->cache) e->device->ops->memory_free(e->cache);
    clq_routing_free(&e->routing);
    clq_graph_free(&e->graph);
    clq_net_free(&e->net);
    clq_view_free(&e->view);
    free(e->layers);
    free(e->inputs);
}

clq_status clq_view_tokenizer(const clq_view *view, clq_tokenizer **tokenizer, clq_error *err)
{
    const char *kind;
    size_t len;
    bool there = clq_kv_get_string(view->kvs, "tokenizer.ggml.model", &kind, &len);
    *tokenizer = NULL;
    if (!there || (len == 4 && memcmp(kind, "none", 4) == 0)) return CLQ_OK;
    bool is_gguf = view->source->container == CLQ_GGUF; // llama.cpp's reading, else that of tokenizer.json's
    return is_gguf ? clq_tokenizer_create(view->kvs, tokenizer, err)
                   : clq_tokenizer_create_hf(view->kvs, tokenizer, err);
}

// ---- running ----

clq_status clq_engine_flush(clq_engine *e, clq_error *err)
{
    clq_graph *g = &e->graph;
    if (g->failed) return clq_fail_memory(err, g->capacity * 2ull * sizeof *g->steps);
    if (g->n_steps == 0) return CLQ_OK;
    clq_status st =
        e->device->ops->steps_run(e->device, g->steps, g->n_steps, e->current, e->state_memory, e->cache, err);
    g->n_steps = 0;
    return st;
}

clq_status clq_engine_enter(clq_engine *e, clq_memory *memory, clq_error *err)
{
    if (memory != e->current) CLQ_TRY(clq_engine_flush(e, err));
    e->current = memory;
    return CLQ_OK;
}

// The weight that a tag of the graph names.
static const clq_view_tensor *tagged(const clq_engine *e, uint32_t tag)
{
    uint32_t unit = (tag - 1) / CLQ_N_WEIGHTS, which = (tag - 1) % CLQ_N_WEIGHTS;
    const clq_unit *u = unit < e->net.layers ? &e->layers[unit] : e->head.weights[which].tensor ? &e->head : &e->embed;
    return u->weights[which].tensor;
}

// Whether a step met an activation that cannot be rounded.
static clq_status check_status(clq_engine *e, clq_error *err)
{
    uint32_t tag = 0, none = 0;
    CLQ_TRY(e->device->ops->memory_read(e->state_memory, e->state.status * 4, &tag, sizeof tag, err));
    if (tag == 0) return CLQ_OK;
    CLQ_TRY(e->device->ops->memory_write(e->state_memory, e->state.status * 4, &none, sizeof none, err));
    const clq_view_tensor *t = tagged(e, tag);
    return clq_fail(err, CLQ_BAD_INPUT,
                    "the activations that go into '%s' hold NaN or infinite values, which no int8 code stands for: the "
                    "weights before it are damaged, or values too large for the cache's type; --activations f32 shows "
                    "what becomes of them",
                    t ? t->name : "a product");
}

clq_status clq_engine_read(clq_engine *e, uint64_t at, uint64_t n_floats, float *to, clq_error *err)
{
    CLQ_TRY(clq_engine_flush(e, err));
    CLQ_TRY(e->device->ops->memory_read(e->state_memory, at * 4, to, n_floats * 4, err));
    return e->graph.rounds ? check_status(e, err) : CLQ_OK;
}

static uint64_t round_16(uint64_t n) { return (n + 15) / 16 * 16; }

clq_status clq_engine_inputs(clq_engine *e, const int32_t *tokens, clq_pass *pass, clq_error *err)
{
    const clq_net *n = &e->net;
    uint32_t count = pass->tokens, half = n->rope_dims / 2;
    uint64_t at = 0, base = e->state.inputs;
    memcpy(e->inputs, tokens, count * sizeof *tokens);
    pass->ids = base;
    at = count;
    if (n->kind->is_encoder) {
        pass->position_ids = base + at;
        for (uint32_t t = 0; t < count; t++) e->inputs[at + t] = pass->position + t;
        at += count;
        pass->type_ids = base + at;
        memset(e->inputs + at, 0, count * sizeof *e->inputs);
        at += count;
    }
    for (int i = 0; i < CLQ_N_ROPES && half; i++) {
        const clq_rope_table *table = &n->ropes[i];
        if (!table->frequencies) continue;
        at = round_16(at);
        pass->tables[i] = base + at;
        float *to = (float *)(void *)(e->inputs + at);
        for (uint32_t t = 0; t < count; t++)
            for (uint32_t d = 0; d < half; d++) {
                double angle = (pass->position + t) * table->frequencies[d];
                *to++ = (float)(cos(angle) * table->magnitude);
                *to++ = (float)(sin(angle) * table->magnitude);
            }
        at += (uint64_t)count * n->rope_dims;
    }
    return e->device->ops->memory_write(e->state_memory, base * 4, e->inputs, at * 4, err);
}

// The host's part between router and experts, and the experts.
static clq_status run_experts(clq_engine *e, const clq_placed *layer, const clq_pass *pass, clq_error *err)
{
    const clq_net *n = &e->net;
    clq_routing *r = &e->routing;
    uint32_t count = pass->tokens - pass->from;
    uint64_t stride = n->experts + (n->features & CLQ_HAS_SHARED_EXPERT ? 1ull : 0), gather = e->state.routes;
    if (count == 0) return CLQ_OK;
    CLQ_TRY(clq_engine_read(e, e->state.router, count * stride, r->logits, err));
    clq_routing_plan(n, &e->state, count, r);
    CLQ_TRY(e->device->ops->memory_write(e->state_memory, e->state.routes * 4, r->words, r->n_rows * 12ull, err));
    for (uint32_t first = 0, next; first < r->n_runs; first = next) {
        uint32_t rows = r->runs[first].tokens;
        for (next = first + 1; next < r->n_runs && r->runs[next].first; next++) rows += r->runs[next].tokens;
        clq_graph_experts(&e->graph, layer, pass, r->runs + first, next - first, gather);
        gather += rows;
    }
    return CLQ_OK;
}

clq_status clq_engine_layer(clq_engine *e, const clq_placed *placed, uint32_t layer, const clq_pass *pass,
                            clq_error *err)
{
    clq_graph_attention(&e->graph, placed, layer, pass);
    if (e->net.features & CLQ_HAS_EXPERTS) {
        clq_graph_router(&e->graph, placed, pass);
        return run_experts(e, placed, pass, err);
    }
    clq_graph_ffn(&e->graph, placed, pass);
    return CLQ_OK;
}

// out[tokens][cols] = in * what stands at `by`.
static void columns(clq_engine *e, uint32_t tokens, uint64_t in, uint64_t by, uint64_t out)
{
    clq_step *s = clq_graph_add(&e->graph, CLQ_STEP_COLUMNS, tokens, 0);
    s->cols = s->in_stride = s->out_stride = e->net.embd;
    s->in = in;
    s->in2 = by;
    s->out = out;
}

clq_status clq_engine_experts_module(clq_engine *e, const clq_placed *placed, const clq_pass *pass, uint64_t in,
                                     uint64_t ones, uint64_t zeros, uint64_t out, clq_error *err)
{
    const clq_state *st = &e->state;
    columns(e, pass->tokens, in, ones, st->h);
    clq_graph_router_module(&e->graph, placed, pass->tokens);
    columns(e, pass->tokens, in, zeros, st->x);
    CLQ_TRY(run_experts(e, placed, pass, err));
    columns(e, pass->tokens, st->x, ones, out);
    return CLQ_OK;
}

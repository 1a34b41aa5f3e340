// SPDX-License-Identifier: MIT
#include "model/runtime.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/experts.h"
#include "model/residence.h"

enum { DEFAULT_CONTEXT = 4096, DEFAULT_BATCH = 512, MIN_BATCH = 16 };

struct clq_model {
    clq_device *device;
    const clq_hooks *hooks;
    clq_view view;
    clq_net net;
    clq_tokenizer *tokenizer;
    clq_model_facts facts;
    clq_unit embed, head, *layers;
    clq_residence residence;
    clq_memory *state_memory, *cache;
    clq_memory *current; // that the steps in the graph are for
    clq_state state;
    clq_graph graph;
    clq_routing routing;
    uint32_t *inputs; // words of state.inputs, on the host
    float *logits;    // [logit_rows][vocab]
    float *hidden;    // [batch][embd], made when first wanted
    uint32_t position;
};

// ---- opening ----

static clq_status plan_units(clq_model *m, unsigned *modes, clq_error *err)
{
    clq_net *n = &m->net;
    bool int8 = m->graph.int8;
    uint64_t weights = 0, bytes = 0;
    m->layers = calloc(n->layers, sizeof *m->layers);
    if (!m->layers) return clq_fail_memory(err, n->layers * sizeof *m->layers);
    CLQ_TRY(clq_unit_plan(&m->view, n, CLQ_UNIT_EMBED, &m->embed, err));
    CLQ_TRY(clq_unit_plan(&m->view, n, CLQ_UNIT_HEAD, &m->head, err));
    for (uint32_t i = 0; i < n->layers; i++)
        CLQ_TRY(clq_unit_plan(&m->view, n, (int32_t)i, &m->layers[i], err));
    *modes = 0;
    for (uint32_t i = 0; i < n->layers + 2; i++) {
        const clq_unit *u = i < n->layers ? &m->layers[i] : i == n->layers ? &m->embed : &m->head;
        *modes |= clq_unit_modes(u, int8);
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            const clq_weight *x = &u->weights[w];
            if (x->tensor) weights += (uint64_t)x->rows * x->cols * x->count;
            if (x->bias_tensor) weights += x->is_vector ? x->cols : x->rows;
        }
        if (!clq_add_u64(bytes, u->n_bytes, &bytes))
            return clq_fail(err, CLQ_BAD_INPUT, "the model's weights are too large to count");
    }
    m->facts.n_weights = weights;
    m->facts.weight_bytes = bytes;
    return CLQ_OK;
}

// Tells the device which types of weights the steps will have: kernels are built and tested before memory is made.
static clq_status prepare_device(clq_model *m, clq_error *err)
{
    clq_type types[CLQ_FORMAT_COUNT + 16]; // one for each kernel: sizes of groups do not matter
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->net.layers + 2; i++) {
        const clq_unit *u = i < m->net.layers ? &m->layers[i] : i == m->net.layers ? &m->embed : &m->head;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            const clq_weight *x = &u->weights[w];
            uint32_t known = 0;
            if (!x->tensor || x->is_vector) continue;
            while (known < n && (types[known].format != x->type.format || types[known].bits != x->type.bits)) known++;
            if (known == n && n < sizeof types / sizeof *types) types[n++] = x->type;
        }
    }
    return m->device->ops->steps_prepare(m->device, types, n, err);
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
static clq_status check_unused(const clq_model *m, clq_error *err)
{
    bool *used = calloc(m->view.n_tensors + 1ull, sizeof *used);
    clq_status st = CLQ_OK;
    if (!used) return clq_fail_memory(err, m->view.n_tensors);
    for (uint32_t i = 0; i < m->net.layers + 2; i++) {
        const clq_unit *u = i < m->net.layers ? &m->layers[i] : i == m->net.layers ? &m->embed : &m->head;
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            if (u->weights[w].tensor) used[u->weights[w].tensor - m->view.tensors] = true;
            if (u->weights[w].bias_tensor) used[u->weights[w].bias_tensor - m->view.tensors] = true;
        }
    }
    for (uint32_t i = 0; i < m->view.n_tensors && st == CLQ_OK; i++)
        if (!used[i] && !may_be_unused(m->view.tensors[i].name))
            st = clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has no place in a '%s' model of %u layers as it is run here",
                          m->view.tensors[i].name, m->net.kind->name, m->net.layers);
    free(used);
    return st;
}

// Bytes that the model may take, 0: no limit.
static uint64_t memory_limit(const clq_model *m, const clq_model_options *o)
{
    return o->max_memory ? o->max_memory : m->device->info.global_memory / 10 * 9;
}

// The state's layout; a smaller batch where the device's largest allocation or little memory ask for it.
static clq_status plan_state(clq_model *m, uint32_t batch, unsigned modes, uint64_t max_memory, clq_error *err)
{
    uint64_t limit = m->device->info.max_allocation, share = max_memory / 4;
    for (;;) {
        bool ok = clq_state_plan(&m->net, batch, modes, &m->state) && m->state.n_floats < UINT64_MAX / 16;
        bool small = !share || m->state.n_floats * 4 <= share || batch <= MIN_BATCH || m->net.kind->is_encoder;
        if (ok && (!limit || m->state.n_floats * 4 <= limit) && small) break;
        if (m->net.kind->is_encoder)
            return clq_fail(err, CLQ_DEVICE, "a text of %u tokens needs more memory than the device has in one piece",
                            batch);
        if (batch == 1)
            return clq_fail(err, CLQ_DEVICE, "the activations of one token do not fit into an allocation of the "
                            "device");
        batch /= 2;
    }
    m->facts.batch = batch;
    return CLQ_OK;
}

static clq_status make_cache(clq_model *m, clq_error *err)
{
    clq_net *n = &m->net;
    uint64_t head = clq_cache_bytes(m->graph.cache_type, n->head_dim), bytes, limit = m->device->info.max_allocation;
    bool ok = clq_mul_u64(2ull * n->kv_heads * m->facts.context, head, &m->graph.layer_bytes) &&
              clq_mul_u64(m->graph.layer_bytes, n->kind->is_encoder ? 1 : n->layers, &bytes) &&
              clq_add_u64(bytes, 64, &bytes);
    if (!ok || (limit && bytes > limit))
        return clq_fail(err, CLQ_DEVICE,
                        "a cache for %u positions is larger than what the device allows in one allocation; a shorter "
                        "context or a smaller cache type will fit",
                        m->facts.context);
    if (n->kind->is_encoder) m->graph.layer_bytes = 0;
    return m->device->ops->memory_create(m->device, bytes, &m->cache, err);
}

static clq_status make_memories(clq_model *m, uint64_t limit, clq_error *err)
{
    uint64_t other;
    CLQ_TRY(make_cache(m, err));
    CLQ_TRY(m->device->ops->memory_create(m->device, m->state.n_floats * 4, &m->state_memory, err));
    other = m->cache->n_bytes + m->state_memory->n_bytes;
    if (limit && limit <= other)
        return clq_fail(err, CLQ_DEVICE,
                        "the cache and the activations take %" PRIu64 " of %" PRIu64
                        " bytes, which leaves nothing for weights; a shorter context or a smaller batch takes less",
                        other, limit);
    CLQ_TRY(clq_residence_create(m->device, &m->view, &m->embed, &m->head, m->layers, m->net.layers,
                                 limit ? limit - other : 0, &m->residence, err));
    m->facts.streamed_layers = m->net.layers - m->residence.n_resident;
    return CLQ_OK;
}

static clq_status set_facts(clq_model *m, const clq_model_options *o, clq_error *err)
{
    clq_model_facts *f = &m->facts;
    static const clq_pooling poolings[] = {CLQ_POOL_NONE, CLQ_POOL_MEAN, CLQ_POOL_CLS, CLQ_POOL_LAST};
    f->name = clq_kv_dup_string(m->view.kvs, "general.name");
    if (!f->name) f->name = strdup("");
    if (!f->name) return clq_fail_memory(err, 1);
    f->architecture = m->net.kind->name;
    f->layers = m->net.layers;
    f->embd = m->net.embd;
    f->vocab = m->net.vocab;
    f->is_encoder = m->net.kind->is_encoder;
    f->pooling = m->net.pooling < 4 ? poolings[m->net.pooling] : CLQ_POOL_NONE;
    m->graph.int8 = o->int8_activations;
    m->graph.cache_type = f->is_encoder ? CLQ_F32 : o->cache_type;
    m->graph.positions = f->context;
    if (m->graph.cache_type != CLQ_F32 && m->graph.cache_type != CLQ_F16 && m->graph.cache_type != CLQ_Q8_0)
        return clq_fail(err, CLQ_USAGE, "keys and values can be cached as f32, f16 or q8_0");
    if (m->graph.cache_type == CLQ_Q8_0 && m->net.head_dim % 32)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "a q8_0 cache needs heads of a multiple of 32 elements; this model's have %u", m->net.head_dim);
    return CLQ_OK;
}

static clq_status set_context(clq_model *m, const clq_model_options *o, clq_error *err)
{
    clq_model_facts *f = &m->facts;
    CLQ_TRY(clq_net_positions(&m->view, &f->trained_context, err));
    f->context = o->context ? o->context : f->trained_context < DEFAULT_CONTEXT ? f->trained_context : DEFAULT_CONTEXT;
    if (f->context > INT32_MAX) return clq_fail(err, CLQ_USAGE, "a context of %u positions is too long", f->context);
    CLQ_TRY(clq_net_read(&m->view, f->context, &m->net, err));
    if (!m->net.kind->is_encoder && f->context > f->trained_context)
        clq_warn(o->hooks, "a context of %u positions is longer than the %u that the model was trained on", f->context,
                 f->trained_context);
    if (!m->net.kind->is_encoder) return CLQ_OK;
    if (f->context > f->trained_context) f->context = f->trained_context; // there are no more embeddings
    return CLQ_OK;
}

static clq_status make_tokenizer(clq_model *m, clq_error *err)
{
    const char *kind;
    size_t len;
    bool there = clq_kv_get_string(m->view.kvs, "tokenizer.ggml.model", &kind, &len);
    if (!there || (len == 4 && memcmp(kind, "none", 4) == 0)) return CLQ_OK;
    bool is_gguf = m->view.source->container == CLQ_GGUF; // llama.cpp's reading, else that of tokenizer.json's
    return is_gguf ? clq_tokenizer_create(m->view.kvs, &m->tokenizer, err)
                   : clq_tokenizer_create_hf(m->view.kvs, &m->tokenizer, err);
}

static clq_status open_model(clq_model *m, const clq_source *source, const clq_model_options *o, clq_error *err)
{
    unsigned modes = 0;
    CLQ_TRY(clq_view_create(source, &m->view, err));
    CLQ_TRY(set_context(m, o, err));
    CLQ_TRY(set_facts(m, o, err));
    CLQ_TRY(plan_units(m, &modes, err));
    CLQ_TRY(prepare_device(m, err));
    CLQ_TRY(check_unused(m, err));
    uint32_t batch = o->batch ? o->batch : DEFAULT_BATCH;
    if (batch > m->facts.context || m->facts.is_encoder) batch = m->facts.context;
    CLQ_TRY(plan_state(m, batch, modes, memory_limit(m, o), err));
    m->graph.net = &m->net;
    m->graph.state = &m->state;
    m->inputs = calloc(m->state.n_inputs, sizeof *m->inputs);
    m->logits = malloc(((uint64_t)m->state.logit_rows * m->net.vocab + 1) * sizeof *m->logits);
    if (!m->inputs || !m->logits) return clq_fail_memory(err, (uint64_t)m->state.logit_rows * m->net.vocab * 4);
    CLQ_TRY(clq_routing_create(&m->net, m->state.batch, &m->routing, err));
    CLQ_TRY(make_tokenizer(m, err));
    return make_memories(m, memory_limit(m, o), err);
}

clq_status clq_model_open(const clq_source *source, clq_device *device, const clq_model_options *options,
                          clq_model **model, clq_error *err)
{
    static const clq_model_options defaults = {.cache_type = CLQ_F32};
    clq_model *m = calloc(1, sizeof *m);
    *model = NULL;
    if (!options) options = &defaults;
    if (!m) return clq_fail_memory(err, sizeof *m);
    m->device = device;
    m->hooks = options->hooks;
    clq_status st = open_model(m, source, options, err);
    if (st == CLQ_OK)
        *model = m;
    else
        clq_model_close(m);
    return st;
}

void clq_model_close(clq_model *m)
{
    if (!m) return;
    if (m->state_memory) m->device->ops->memory_free(m->state_memory);
    if (m->cache) m->device->ops->memory_free(m->cache);
    clq_residence_free(&m->residence);
    clq_routing_free(&m->routing);
    clq_graph_free(&m->graph);
    clq_tokenizer_free(m->tokenizer);
    clq_net_free(&m->net);
    clq_view_free(&m->view);
    free((char *)m->facts.name);
    free(m->layers);
    free(m->inputs);
    free(m->logits);
    free(m->hidden);
    free(m);
}

const clq_model_facts *clq_model_facts_of(const clq_model *m) { return &m->facts; }
const clq_tokenizer *clq_model_tokenizer(const clq_model *m) { return m->tokenizer; }
uint32_t clq_model_position(const clq_model *m) { return m->position; }

void clq_model_rewind(clq_model *m, uint32_t n)
{
    if (n < m->position) m->position = n;
}

// ---- running ----

// Starts the steps made so far.
static clq_status flush(clq_model *m, clq_error *err)
{
    clq_graph *g = &m->graph;
    if (g->failed) return clq_fail_memory(err, g->capacity * 2ull * sizeof *g->steps);
    if (g->n_steps == 0) return CLQ_OK;
    clq_status st = m->device->ops->steps_run(m->device, g->steps, g->n_steps, m->current, m->state_memory, m->cache,
                                              err);
    g->n_steps = 0;
    return st;
}

// What is added from now on uses that memory.
static clq_status enter(clq_model *m, clq_memory *memory, clq_error *err)
{
    if (memory != m->current) CLQ_TRY(flush(m, err));
    m->current = memory;
    return CLQ_OK;
}

static clq_status enter_end(clq_model *m, int which, clq_placed *placed, clq_error *err)
{
    clq_memory *memory;
    if (which == CLQ_END_HEAD && !(m->net.features & CLQ_HAS_HEAD)) which = CLQ_END_EMBED;
    clq_residence_end(&m->residence, which, placed, &memory);
    return enter(m, memory, err);
}

static clq_status read_state(clq_model *m, uint64_t at, uint64_t n_floats, float *to, clq_error *err)
{
    CLQ_TRY(flush(m, err));
    return m->device->ops->memory_read(m->state_memory, at * 4, to, n_floats * 4, err);
}

static uint64_t round_16(uint64_t n) { return (n + 15) / 16 * 16; }

// The ids and angles of a pass, in one piece.
static clq_status write_inputs(clq_model *m, const int32_t *tokens, clq_pass *pass, clq_error *err)
{
    const clq_net *n = &m->net;
    uint32_t count = pass->tokens, half = n->rope_dims / 2;
    uint64_t at = 0, base = m->state.inputs;
    memcpy(m->inputs, tokens, count * sizeof *tokens);
    pass->ids = base;
    at = count;
    if (n->kind->is_encoder) {
        pass->position_ids = base + at;
        for (uint32_t t = 0; t < count; t++) m->inputs[at + t] = pass->position + t;
        at += count;
        pass->type_ids = base + at;
        memset(m->inputs + at, 0, count * sizeof *m->inputs);
        at += count;
    }
    for (int i = 0; i < CLQ_N_ROPES && half; i++) {
        const clq_rope_table *table = &n->ropes[i];
        if (!table->frequencies) continue;
        at = round_16(at);
        pass->tables[i] = base + at;
        float *to = (float *)(void *)(m->inputs + at);
        for (uint32_t t = 0; t < count; t++)
            for (uint32_t d = 0; d < half; d++) {
                double angle = (pass->position + t) * table->frequencies[d];
                *to++ = (float)(cos(angle) * table->magnitude);
                *to++ = (float)(sin(angle) * table->magnitude);
            }
        at += (uint64_t)count * n->rope_dims;
    }
    return m->device->ops->memory_write(m->state_memory, base * 4, m->inputs, at * 4, err);
}

// The host's part between router and experts, and the experts.
static clq_status run_experts(clq_model *m, const clq_placed *layer, const clq_pass *pass, clq_error *err)
{
    const clq_net *n = &m->net;
    clq_routing *r = &m->routing;
    uint32_t count = pass->tokens - pass->from;
    uint64_t stride = n->experts + (n->features & CLQ_HAS_SHARED_EXPERT ? 1ull : 0), gather = m->state.routes;
    clq_graph_router(&m->graph, layer, pass);
    if (count == 0) return CLQ_OK;
    CLQ_TRY(read_state(m, m->state.router, count * stride, r->logits, err));
    clq_routing_plan(n, &m->state, count, r);
    CLQ_TRY(m->device->ops->memory_write(m->state_memory, m->state.routes * 4, r->words, r->n_rows * 12ull, err));
    for (uint32_t first = 0, next; first < r->n_runs; first = next) {
        uint32_t rows = r->runs[first].tokens;
        for (next = first + 1; next < r->n_runs && r->runs[next].first; next++) rows += r->runs[next].tokens;
        clq_graph_experts(&m->graph, layer, pass, r->runs + first, next - first, gather);
        gather += rows;
    }
    return CLQ_OK;
}

static clq_status add_layer(clq_model *m, uint32_t layer, const clq_pass *pass, clq_error *err)
{
    clq_placed placed;
    clq_memory *memory;
    // A streamed layer's slot is written to behind the steps that used it.
    if (layer >= m->residence.n_resident) CLQ_TRY(flush(m, err));
    CLQ_TRY(clq_residence_layer(&m->residence, layer, &placed, &memory, err));
    CLQ_TRY(enter(m, memory, err));
    clq_graph_attention(&m->graph, &placed, layer, pass);
    if (m->net.features & CLQ_HAS_EXPERTS) return run_experts(m, &placed, pass, err);
    clq_graph_ffn(&m->graph, &placed, pass);
    return CLQ_OK;
}

// What the caller wants of a pass.
typedef struct {
    const clq_eval *eval;
    uint32_t first;       // the pass's first token among the call's
    uint32_t logits_from; // in the pass; its number of tokens: none
    bool layers;          // hidden states behind every layer
    bool final;           // hidden states at the end
} wanted;

static clq_status give_hidden(clq_model *m, const wanted *w, uint32_t layer, uint32_t first, uint32_t n, uint64_t at,
                              clq_error *err)
{
    CLQ_TRY(read_state(m, at, (uint64_t)n * m->net.embd, m->hidden, err));
    return w->eval->hidden(w->eval->user, layer, w->first + first, n, m->hidden, err);
}

// The final norm and the head, some rows at a time.
static clq_status run_end(clq_model *m, const wanted *w, const clq_pass *pass, clq_error *err)
{
    const clq_state *st = &m->state;
    clq_placed head;
    uint32_t n, begin = w->final ? 0 : w->logits_from;
    if (m->net.kind->is_encoder)
        return w->final ? give_hidden(m, w, m->net.layers, 0, pass->tokens, st->x, err) : CLQ_OK;
    for (uint32_t i = begin; i < pass->tokens; i += n) {
        bool logits = i >= w->logits_from;
        uint32_t end = logits ? pass->tokens : w->logits_from;
        n = end - i < st->logit_rows ? end - i : st->logit_rows;
        CLQ_TRY(enter_end(m, CLQ_END_HEAD, &head, err));
        clq_graph_final_norm(&m->graph, &head, i, n, st->final);
        if (logits) clq_graph_head(&m->graph, &head, n);
        if (w->final) CLQ_TRY(give_hidden(m, w, m->net.layers, i, n, st->final, err));
        if (!logits) continue;
        CLQ_TRY(read_state(m, st->logits, (uint64_t)n * m->net.vocab, m->logits, err));
        CLQ_TRY(w->eval->logits(w->eval->user, w->first + i, n, m->logits, err));
    }
    return CLQ_OK;
}

static clq_status run_pass(clq_model *m, const int32_t *tokens, uint32_t n, const wanted *w, clq_error *err)
{
    clq_pass pass = {.tokens = n, .position = m->position};
    clq_placed embed;
    if (clq_cancelled(m->hooks)) return clq_fail(err, CLQ_INTERRUPTED, "cancelled");
    CLQ_TRY(write_inputs(m, tokens, &pass, err));
    CLQ_TRY(enter_end(m, CLQ_END_EMBED, &embed, err));
    clq_graph_embed(&m->graph, &embed, &pass);
    for (uint32_t i = 0; i < m->net.layers; i++) {
        if (w->layers) CLQ_TRY(give_hidden(m, w, i, 0, n, m->state.x, err));
        if (i + 1 == m->net.layers && !w->final) pass.from = w->logits_from;
        CLQ_TRY(add_layer(m, i, &pass, err));
    }
    CLQ_TRY(run_end(m, w, &pass, err));
    return flush(m, err);
}

static clq_status check_tokens(const clq_model *m, const int32_t *tokens, uint32_t n, uint32_t position,
                               clq_error *err)
{
    if (n > m->facts.context - position)
        return clq_fail(err, CLQ_BAD_INPUT, "%u tokens behind %u in the cache are more than the context of %u", n,
                        position, m->facts.context);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->net.vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "token %u is %d, but the vocabulary has %u", i, tokens[i],
                            m->net.vocab);
    return CLQ_OK;
}

static clq_status evaluate(clq_model *m, const clq_eval *e, bool layers, clq_error *err)
{
    bool wants_logits = e->logits && e->logits_from < e->n;
    uint32_t begin, n;
    if (m->net.kind->is_encoder) {
        m->position = 0;
        if (wants_logits) return clq_fail(err, CLQ_USAGE, "'%s' is an encoder and has no logits", m->net.kind->name);
    }
    begin = m->position;
    CLQ_TRY(check_tokens(m, e->tokens, e->n, begin, err));
    if (e->hidden && !m->hidden) {
        m->hidden = malloc((uint64_t)m->state.batch * m->net.embd * sizeof *m->hidden);
        if (!m->hidden) return clq_fail_memory(err, (uint64_t)m->state.batch * m->net.embd * sizeof *m->hidden);
    }
    for (uint32_t i = 0; i < e->n; i += n) {
        n = e->n - i < m->state.batch ? e->n - i : m->state.batch;
        wanted w = {.eval = e, .first = i, .layers = layers, .final = e->hidden != NULL, .logits_from = n};
        if (wants_logits && e->logits_from < i + n) w.logits_from = e->logits_from > i ? e->logits_from - i : 0;
        clq_status st = run_pass(m, e->tokens + i, n, &w, err);
        if (st != CLQ_OK) {
            m->graph.n_steps = 0;
            m->position = begin;
            return st;
        }
        m->position += n;
    }
    return CLQ_OK;
}

clq_status clq_model_eval(clq_model *m, const clq_eval *e, clq_error *err)
{
    return evaluate(m, e, e->hidden != NULL, err);
}

// ---- embeddings ----

typedef struct {
    clq_pooling pooling;
    uint32_t embd, n;
    double *sums;
} pool;

static clq_status add_to_pool(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *hidden,
                              clq_error *err)
{
    pool *p = user;
    (void)layer;
    (void)err;
    for (uint32_t t = 0; t < n; t++) {
        bool counts = p->pooling == CLQ_POOL_MEAN || (p->pooling == CLQ_POOL_CLS && first + t == 0) ||
                      (p->pooling == CLQ_POOL_LAST && first + t == p->n - 1);
        for (uint32_t i = 0; counts && i < p->embd; i++) p->sums[i] += hidden[(uint64_t)t * p->embd + i];
    }
    return CLQ_OK;
}

clq_status clq_model_embed(clq_model *m, const int32_t *tokens, uint32_t n, clq_pooling pooling, float *embedding,
                           clq_error *err)
{
    if (pooling == CLQ_POOL_NONE || n == 0)
        return clq_fail(err, CLQ_USAGE, "an embedding needs at least one token and a way of pooling");
    pool p = {.pooling = pooling, .embd = m->net.embd, .n = n, .sums = calloc(m->net.embd, sizeof *p.sums)};
    if (!p.sums) return clq_fail_memory(err, m->net.embd * sizeof *p.sums);
    m->position = 0;
    clq_eval e = {.tokens = tokens, .n = n, .logits_from = n, .hidden = add_to_pool, .user = &p};
    clq_status st = evaluate(m, &e, false, err);
    m->position = 0;
    double scale = pooling == CLQ_POOL_MEAN ? 1.0 / n : 1;
    for (uint32_t i = 0; st == CLQ_OK && i < m->net.embd; i++) embedding[i] = (float)(p.sums[i] * scale);
    free(p.sums);
    return st;
}

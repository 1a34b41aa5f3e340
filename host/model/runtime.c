// SPDX-License-Identifier: MIT
#include "model/runtime.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/engine.h"
#include "model/residence.h"

enum { DEFAULT_CONTEXT = 4096, DEFAULT_BATCH = 512, MIN_BATCH = 16 };

struct clq_model {
    clq_engine e;
    clq_tokenizer *tokenizer;
    clq_model_facts facts;
    clq_residence residence;
    float *logits; // [logit_rows][vocab]
    float *hidden; // [batch][embd], made when first wanted
    uint32_t position;
};

// ---- opening ----

// Bytes that the model may take, 0: no limit.
static uint64_t memory_limit(const clq_model *m, const clq_model_options *o)
{
    return o->max_memory ? o->max_memory : m->e.device->info.global_memory / 10 * 9;
}

// The state's layout; a smaller batch where the device's largest allocation or little memory ask for it.
static clq_status plan_state(clq_model *m, uint32_t batch, uint64_t max_memory, clq_error *err)
{
    clq_input_needs needs = clq_engine_needs(&m->e);
    uint64_t limit = m->e.device->info.max_allocation, share = max_memory / 4;
    for (;;) {
        bool ok = clq_state_plan(&m->e.net, batch, &needs, &m->e.state) && m->e.state.n_floats < UINT64_MAX / 16;
        bool small = !share || m->e.state.n_floats * 4 <= share || batch <= MIN_BATCH || m->e.net.kind->is_encoder;
        if (ok && (!limit || m->e.state.n_floats * 4 <= limit) && small) break;
        if (m->e.net.kind->is_encoder)
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

static clq_status make_memories(clq_model *m, uint64_t limit, clq_error *err)
{
    uint64_t other;
    CLQ_TRY(clq_engine_memories(&m->e, m->e.net.kind->is_encoder ? 1 : m->e.net.layers, err));
    other = m->e.cache->n_bytes + m->e.state_memory->n_bytes;
    if (limit && limit <= other)
        return clq_fail(err, CLQ_DEVICE,
                        "the cache and the activations take %" PRIu64 " of %" PRIu64
                        " bytes, which leaves nothing for weights; a shorter context or a smaller batch takes less",
                        other, limit);
    CLQ_TRY(clq_residence_create(m->e.device, &m->e.view, &m->e.embed, &m->e.head, m->e.layers, m->e.net.layers,
                                 limit ? limit - other : 0, &m->residence, err));
    m->facts.streamed_layers = m->e.net.layers - m->residence.n_resident;
    return CLQ_OK;
}

static clq_status set_facts(clq_model *m, const clq_model_options *o, clq_error *err)
{
    clq_model_facts *f = &m->facts;
    static const clq_pooling poolings[] = {CLQ_POOL_NONE, CLQ_POOL_MEAN, CLQ_POOL_CLS, CLQ_POOL_LAST};
    f->name = clq_kv_dup_string(m->e.view.kvs, "general.name");
    if (!f->name) f->name = strdup("");
    if (!f->name) return clq_fail_memory(err, 1);
    f->architecture = m->e.net.kind->name;
    f->layers = m->e.net.layers;
    f->embd = m->e.net.embd;
    f->vocab = m->e.net.vocab;
    f->is_encoder = m->e.net.kind->is_encoder;
    f->pooling = m->e.net.pooling < 4 ? poolings[m->e.net.pooling] : CLQ_POOL_NONE;
    m->e.graph.activations = o->activations;
    m->e.graph.cache_type = f->is_encoder ? CLQ_F32 : o->cache_type;
    m->e.graph.positions = f->context;
    if (m->e.graph.cache_type != CLQ_F32 && m->e.graph.cache_type != CLQ_F16 && m->e.graph.cache_type != CLQ_Q8_0)
        return clq_fail(err, CLQ_USAGE, "keys and values can be cached as f32, f16 or q8_0");
    if (m->e.graph.cache_type == CLQ_Q8_0 && m->e.net.head_dim % 32)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "a q8_0 cache needs heads of a multiple of 32 elements; this model's have %u", m->e.net.head_dim);
    return CLQ_OK;
}

static clq_status set_context(clq_model *m, const clq_model_options *o, clq_error *err)
{
    clq_model_facts *f = &m->facts;
    CLQ_TRY(clq_net_positions(&m->e.view, &f->trained_context, err));
    f->context = o->context ? o->context : f->trained_context < DEFAULT_CONTEXT ? f->trained_context : DEFAULT_CONTEXT;
    if (f->context > INT32_MAX) return clq_fail(err, CLQ_USAGE, "a context of %u positions is too long", f->context);
    CLQ_TRY(clq_net_read(&m->e.view, f->context, &m->e.net, err));
    if (!m->e.net.kind->is_encoder && f->context > f->trained_context)
        clq_warn(o->hooks, "a context of %u positions is longer than the %u that the model was trained on", f->context,
                 f->trained_context);
    if (!m->e.net.kind->is_encoder) return CLQ_OK;
    if (f->context > f->trained_context) f->context = f->trained_context; // there are no more embeddings
    return CLQ_OK;
}

static clq_status open_model(clq_model *m, const clq_source *source, const clq_model_options *o, clq_error *err)
{
    CLQ_TRY(clq_view_create(source, &m->e.view, err));
    CLQ_TRY(set_context(m, o, err));
    CLQ_TRY(set_facts(m, o, err));
    CLQ_TRY(clq_engine_plan_units(&m->e, err));
    m->facts.n_weights = m->e.n_weights;
    m->facts.weight_bytes = m->e.weight_bytes;
    uint32_t batch = o->batch ? o->batch : DEFAULT_BATCH;
    if (batch > m->facts.context || m->facts.is_encoder) batch = m->facts.context;
    CLQ_TRY(plan_state(m, batch, memory_limit(m, o), err));
    CLQ_TRY(clq_engine_buffers(&m->e, err));
    m->facts.rounds_activations = m->e.graph.rounds;
    m->logits = malloc(((uint64_t)m->e.state.logit_rows * m->e.net.vocab + 1) * sizeof *m->logits);
    if (!m->logits) return clq_fail_memory(err, (uint64_t)m->e.state.logit_rows * m->e.net.vocab * 4);
    CLQ_TRY(clq_view_tokenizer(&m->e.view, &m->tokenizer, err));
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
    m->e.device = device;
    m->e.hooks = options->hooks;
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
    clq_residence_free(&m->residence);
    clq_tokenizer_free(m->tokenizer);
    clq_engine_free(&m->e);
    free((char *)m->facts.name);
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

static clq_status enter_end(clq_model *m, int which, clq_placed *placed, clq_error *err)
{
    clq_memory *memory;
    if (which == CLQ_END_HEAD && !(m->e.net.features & CLQ_HAS_HEAD)) which = CLQ_END_EMBED;
    clq_residence_end(&m->residence, which, placed, &memory);
    return clq_engine_enter(&m->e, memory, err);
}

static clq_status add_layer(clq_model *m, uint32_t layer, const clq_pass *pass, clq_error *err)
{
    clq_placed placed;
    clq_memory *memory;
    // A streamed layer's slot is written to behind the steps that used it.
    if (layer >= m->residence.n_resident) CLQ_TRY(clq_engine_flush(&m->e, err));
    CLQ_TRY(clq_residence_layer(&m->residence, layer, &placed, &memory, err));
    CLQ_TRY(clq_engine_enter(&m->e, memory, err));
    return clq_engine_layer(&m->e, &placed, layer, pass, err);
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
    CLQ_TRY(clq_engine_read(&m->e, at, (uint64_t)n * m->e.net.embd, m->hidden, err));
    return w->eval->hidden(w->eval->user, layer, w->first + first, n, m->hidden, err);
}

// The final norm and the head, some rows at a time.
static clq_status run_end(clq_model *m, const wanted *w, const clq_pass *pass, clq_error *err)
{
    const clq_state *st = &m->e.state;
    clq_placed head;
    uint32_t n, begin = w->final ? 0 : w->logits_from;
    if (m->e.net.kind->is_encoder)
        return w->final ? give_hidden(m, w, m->e.net.layers, 0, pass->tokens, st->x, err) : CLQ_OK;
    for (uint32_t i = begin; i < pass->tokens; i += n) {
        bool logits = i >= w->logits_from;
        uint32_t end = logits ? pass->tokens : w->logits_from;
        n = end - i < st->logit_rows ? end - i : st->logit_rows;
        CLQ_TRY(enter_end(m, CLQ_END_HEAD, &head, err));
        clq_graph_final_norm(&m->e.graph, &head, i, n, st->final);
        if (logits) clq_graph_head(&m->e.graph, &head, n);
        if (w->final) CLQ_TRY(give_hidden(m, w, m->e.net.layers, i, n, st->final, err));
        if (!logits) continue;
        CLQ_TRY(clq_engine_read(&m->e, st->logits, (uint64_t)n * m->e.net.vocab, m->logits, err));
        CLQ_TRY(w->eval->logits(w->eval->user, w->first + i, n, m->logits, err));
    }
    return CLQ_OK;
}

static clq_status run_pass(clq_model *m, const int32_t *tokens, uint32_t n, const wanted *w, clq_error *err)
{
    clq_pass pass = {.tokens = n, .position = m->position};
    clq_placed embed;
    if (clq_cancelled(m->e.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "cancelled");
    CLQ_TRY(clq_engine_inputs(&m->e, tokens, &pass, err));
    CLQ_TRY(enter_end(m, CLQ_END_EMBED, &embed, err));
    clq_graph_embed(&m->e.graph, &embed, &pass);
    for (uint32_t i = 0; i < m->e.net.layers; i++) {
        if (w->layers) CLQ_TRY(give_hidden(m, w, i, 0, n, m->e.state.x, err));
        if (i + 1 == m->e.net.layers && !w->final) pass.from = w->logits_from;
        CLQ_TRY(add_layer(m, i, &pass, err));
    }
    CLQ_TRY(run_end(m, w, &pass, err));
    return clq_engine_flush(&m->e, err);
}

static clq_status check_tokens(const clq_model *m, const int32_t *tokens, uint32_t n, uint32_t position,
                               clq_error *err)
{
    if (n > m->facts.context - position)
        return clq_fail(err, CLQ_BAD_INPUT, "%u tokens behind %u in the cache are more than the context of %u", n,
                        position, m->facts.context);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->e.net.vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "token %u is %d, but the vocabulary has %u", i, tokens[i],
                            m->e.net.vocab);
    return CLQ_OK;
}

static clq_status evaluate(clq_model *m, const clq_eval *e, bool layers, clq_error *err)
{
    bool wants_logits = e->logits && e->logits_from < e->n;
    uint32_t begin, n;
    if (m->e.net.kind->is_encoder) {
        m->position = 0;
        if (wants_logits) return clq_fail(err, CLQ_USAGE, "'%s' is an encoder and has no logits", m->e.net.kind->name);
    }
    begin = m->position;
    CLQ_TRY(check_tokens(m, e->tokens, e->n, begin, err));
    if (e->hidden && !m->hidden) {
        m->hidden = malloc((uint64_t)m->e.state.batch * m->e.net.embd * sizeof *m->hidden);
        if (!m->hidden) return clq_fail_memory(err, (uint64_t)m->e.state.batch * m->e.net.embd * sizeof *m->hidden);
    }
    for (uint32_t i = 0; i < e->n; i += n) {
        n = e->n - i < m->e.state.batch ? e->n - i : m->e.state.batch;
        wanted w = {.eval = e, .first = i, .layers = layers, .final = e->hidden != NULL, .logits_from = n};
        if (wants_logits && e->logits_from < i + n) w.logits_from = e->logits_from > i ? e->logits_from - i : 0;
        clq_status st = run_pass(m, e->tokens + i, n, &w, err);
        if (st != CLQ_OK) {
            m->e.graph.n_steps = 0;
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
    pool p = {.pooling = pooling, .embd = m->e.net.embd, .n = n, .sums = calloc(m->e.net.embd, sizeof *p.sums)};
    if (!p.sums) return clq_fail_memory(err, m->e.net.embd * sizeof *p.sums);
    m->position = 0;
    clq_eval e = {.tokens = tokens, .n = n, .logits_from = n, .hidden = add_to_pool, .user = &p};
    clq_status st = evaluate(m, &e, false, err);
    m->position = 0;
    double scale = pooling == CLQ_POOL_MEAN ? 1.0 / n : 1;
    for (uint32_t i = 0; st == CLQ_OK && i < m->e.net.embd; i++) embedding[i] = (float)(p.sums[i] * scale);
    free(p.sums);
    return st;
}

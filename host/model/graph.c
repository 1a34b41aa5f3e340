// SPDX-License-Identifier: MIT
#include "model/graph.h"

#include "model/graph_steps.h"

// ---- products and norms ----

// rows x cols of the weight's length, one behind the other.
static void norm(clq_graph *g, const clq_placed *p, int which, uint32_t rows, uint64_t in, uint64_t out,
                 unsigned flags)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = clq_graph_add(g, CLQ_STEP_NORM, rows, flags | (g->net->kind->layer_norm ? CLQ_STEP_LAYER_NORM : 0));
    s->rows = rows;
    s->cols = s->in_stride = s->out_stride = w->cols;
    s->w = clq_graph_shifted(w->w, p->base);
    s->bias = clq_graph_shifted(w->bias, p->base);
    s->eps = g->net->eps;
    s->in = in;
    s->out = out;
}

// Prepares in[tokens][cols] for the products with up to three of the unit's weights (-1: none); places[i]: the result
// for the i-th.
static void prepare(clq_graph *g, const clq_placed *p, const int which[3], uint32_t tokens, uint64_t in,
                    uint64_t places[3])
{
    clq_input_kind kinds[3];
    bool measured = false, first = true;
    uint32_t used[CLQ_N_MODES] = {0};
    clq_graph_observe(g, which[0], 0, tokens, p->unit->weights[which[0]].cols, in);
    for (int i = 0; i < 3 && which[i] >= 0; i++) {
        const clq_weight *w = &p->unit->weights[which[i]];
        kinds[i] = clq_input_kind_of(w, 0, g->activations);
        if (g->instead && g->instead_inputs && g->instead[which[i]] != CLQ_NONE) kinds[i].activation = *g->instead_inputs;
        if (kinds[i].activation.quant != CLQ_QUANT_TENSOR || measured) continue;
        clq_graph_measure(g, tokens, w->cols, in, 0, 0);
        measured = true;
    }
    for (int i = 0; i < 3 && which[i] >= 0; i++) {
        int same = 0;
        while (same < i && !clq_same_input_kind(&kinds[same], &kinds[i])) same++;
        if (same < i) {
            places[i] = places[same];
            continue;
        }
        uint32_t mode = kinds[i].mode;
        if (used[mode] == g->state->places) g->failed = true; // was not planned for
        places[i] = g->state->prep[mode] + used[mode]++ * g->state->place_floats[mode];
        clq_graph_prepare(g, &kinds[i], which[i], tokens, p->unit->weights[which[i]].cols, in, places[i],
                   first ? 0 : CLQ_STEP_TOGETHER);
        first = false;
    }
}

// The product with what was prepared at `in`.
static void linear(clq_graph *g, const clq_placed *p, int which, uint32_t tokens, uint64_t in, uint64_t out,
                   uint32_t out_stride, unsigned flags)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = clq_graph_add(g, CLQ_STEP_LINEAR, tokens, flags);
    clq_graph_use_weight(g, s, p, which, 0);
    s->mode = clq_input_kind_of(w, 0, g->activations).mode;
    s->in = in;
    s->out = out;
    s->out_stride = out_stride;
}

// ---- parts of a model ----

static void embed(clq_graph *g, const clq_placed *p, int which, uint32_t tokens, uint64_t ids, float scale,
                  unsigned flags)
{
    clq_step *s = clq_graph_add(g, CLQ_STEP_EMBED, tokens, flags);
    clq_graph_set_weight(s, p, &p->unit->weights[which], 0);
    s->bias = CLQ_NONE;
    s->scale = scale;
    s->in = ids;
    s->out = g->state->x;
}

void clq_graph_embed(clq_graph *g, const clq_placed *p, const clq_pass *pass)
{
    const clq_net *n = g->net;
    uint32_t m = pass->tokens;
    embed(g, p, CLQ_W_EMBED, m, pass->ids, n->embed_scale, 0);
    if (p->unit->weights[CLQ_W_TYPES].tensor)
        embed(g, p, CLQ_W_TYPES, m, pass->type_ids, 1, CLQ_STEP_ACCUMULATE);
    if (p->unit->weights[CLQ_W_POSITIONS].tensor)
        embed(g, p, CLQ_W_POSITIONS, m, pass->position_ids, 1, CLQ_STEP_ACCUMULATE);
    if (p->unit->weights[CLQ_W_EMBED_NORM].tensor) norm(g, p, CLQ_W_EMBED_NORM, m, g->state->x, g->state->x, 0);
}

static void rope(clq_graph *g, uint32_t layer, const clq_pass *pass, uint32_t heads, uint64_t in, uint32_t stride,
                 unsigned flags)
{
    const clq_net *n = g->net;
    clq_step *s = clq_graph_add(g, CLQ_STEP_ROPE, pass->tokens, flags | (n->kind->neox ? CLQ_STEP_NEOX : 0));
    s->heads = heads;
    s->head_dim = n->head_dim;
    s->dims = n->rope_dims;
    s->in = in;
    s->in_stride = stride;
    s->in2 = pass->tables[n->sliding[layer] ? CLQ_ROPE_LOCAL : CLQ_ROPE_GLOBAL];
}

static void store(clq_graph *g, const clq_pass *pass, uint64_t in, uint32_t stride, uint64_t cache, unsigned flags)
{
    clq_step *s = clq_graph_add(g, CLQ_STEP_STORE, pass->tokens, flags);
    s->heads = g->net->kv_heads;
    s->head_dim = g->net->head_dim;
    s->in = in;
    s->in_stride = stride;
    s->position = pass->position;
    s->positions = g->positions;
    s->cache_format = g->cache_type;
    s->cache = cache;
}

static void attend(clq_graph *g, uint32_t layer, const clq_pass *pass, uint32_t q_stride, uint64_t keys,
                   uint64_t values)
{
    const clq_net *n = g->net;
    clq_step *s = clq_graph_add(g, CLQ_STEP_ATTEND, pass->tokens - pass->from, n->kind->is_encoder ? 0 : CLQ_STEP_CAUSAL);
    s->heads = n->heads;
    s->kv_heads = n->kv_heads;
    s->head_dim = n->head_dim;
    s->in = g->state->q + (uint64_t)pass->from * q_stride;
    s->in_stride = q_stride;
    s->out = g->state->attended;
    s->position = pass->position + pass->from;
    s->positions = g->positions;
    s->keys = pass->position + pass->tokens;
    s->window = n->sliding[layer] ? n->window : 0;
    s->scale = n->attention_scale;
    s->softcap = n->attn_softcap;
    s->cache_format = g->cache_type;
    s->cache = keys;
    s->cache2 = values;
}

// Adds the product with `which` to the hidden states, through a norm where there is one.
static void add_to_hidden(clq_graph *g, const clq_placed *p, const clq_pass *pass, int which, uint64_t in,
                          int post_norm)
{
    const clq_state *st = g->state;
    uint32_t m = pass->tokens - pass->from, embd = g->net->embd;
    uint64_t x = clq_graph_live_rows(g, pass, st->x);
    if (g->net->features & CLQ_HAS_POST_NORMS) {
        linear(g, p, which, m, in, st->sum, embd, 0);
        norm(g, p, post_norm, m, st->sum, x, CLQ_STEP_ACCUMULATE);
        return;
    }
    linear(g, p, which, m, in, x, embd, CLQ_STEP_ACCUMULATE);
    if (g->net->features & CLQ_HAS_BERT) norm(g, p, post_norm, m, x, x, 0);
}

// From the input of the products with Q, K, V to what the product with O reads, in places[0]. false: no row is needed.
static bool attention(clq_graph *g, const clq_placed *p, uint32_t layer, const clq_pass *pass, uint64_t in,
                      uint64_t places[3])
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint32_t m = pass->tokens, q_cols = n->heads * n->head_dim, kv_cols = n->kv_heads * n->head_dim;
    uint64_t k = st->k, v = st->v, head_bytes = clq_cache_bytes(g->cache_type, n->head_dim);
    uint64_t keys = layer * g->layer_bytes, values = keys + n->kv_heads * (uint64_t)g->positions * head_bytes;
    uint32_t q_stride = q_cols, kv_stride = kv_cols;
    g->layer = layer;
    if (n->features & CLQ_HAS_FUSED_QKV) {
        q_stride = kv_stride = q_cols + 2 * kv_cols;
        k = st->q + q_cols;
        v = k + kv_cols;
        prepare(g, p, (int[3]){CLQ_W_QKV, -1, -1}, m, in, places);
        linear(g, p, CLQ_W_QKV, m, places[0], st->q, q_stride, 0);
    } else {
        prepare(g, p, (int[3]){CLQ_W_Q, CLQ_W_K, CLQ_W_V}, m, in, places);
        linear(g, p, CLQ_W_Q, m, places[0], st->q, q_stride, 0);
        linear(g, p, CLQ_W_K, m, places[1], k, kv_stride, CLQ_STEP_TOGETHER);
        linear(g, p, CLQ_W_V, m, places[2], v, kv_stride, CLQ_STEP_TOGETHER);
    }
    if (n->features & CLQ_HAS_QK_NORMS) {
        norm(g, p, CLQ_W_Q_NORM, m * n->heads, st->q, st->q, 0);
        norm(g, p, CLQ_W_K_NORM, m * n->kv_heads, k, k, CLQ_STEP_TOGETHER);
    }
    if (n->rope_dims) {
        rope(g, layer, pass, n->heads, st->q, q_stride, 0);
        rope(g, layer, pass, n->kv_heads, k, kv_stride, CLQ_STEP_TOGETHER);
    }
    store(g, pass, v, kv_stride, values, n->rope_dims ? CLQ_STEP_TOGETHER : 0);
    store(g, pass, k, kv_stride, keys, n->rope_dims ? 0 : CLQ_STEP_TOGETHER);
    if (pass->from == m) return false;
    attend(g, layer, pass, q_stride, keys, values);
    prepare(g, p, (int[3]){CLQ_W_O, -1, -1}, m - pass->from, st->attended, places);
    return true;
}

void clq_graph_attention(clq_graph *g, const clq_placed *p, uint32_t layer, const clq_pass *pass)
{
    const clq_state *st = g->state;
    uint64_t in = st->x, places[3];
    if (g->net->features & CLQ_HAS_PRE_NORMS) {
        norm(g, p, CLQ_W_ATTN_NORM, pass->tokens, st->x, st->h, 0);
        in = st->h;
    }
    if (attention(g, p, layer, pass, in, places))
        add_to_hidden(g, p, pass, CLQ_W_O, places[0], CLQ_W_POST_ATTN_NORM);
}

void clq_graph_attention_module(clq_graph *g, const clq_placed *p, uint32_t layer, const clq_pass *pass, uint64_t in,
                                uint64_t out)
{
    uint64_t places[3];
    if (attention(g, p, layer, pass, in, places))
        linear(g, p, CLQ_W_O, pass->tokens - pass->from, places[0], out, g->net->embd, 0);
}

// From the input of the products with gate and up to what the product with down reads, in places[0].
static void ffn(clq_graph *g, const clq_placed *p, uint32_t m, uint64_t in, uint64_t places[3])
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    if (n->features & CLQ_HAS_GATE) {
        prepare(g, p, (int[3]){CLQ_W_GATE, CLQ_W_UP, -1}, m, in, places);
        linear(g, p, CLQ_W_GATE, m, places[0], st->gate, n->ffn, 0);
        linear(g, p, CLQ_W_UP, m, places[1], st->up, n->ffn, CLQ_STEP_TOGETHER);
        clq_graph_activation(g, m, n->ffn, n->ffn, st->gate, st->up, st->act, CLQ_STEP_MUL);
    } else {
        uint32_t stride = n->features & CLQ_HAS_FUSED_GATE ? 2 * n->ffn : n->ffn;
        prepare(g, p, (int[3]){CLQ_W_UP, -1, -1}, m, in, places);
        linear(g, p, CLQ_W_UP, m, places[0], st->gate, stride, 0);
        clq_graph_activation(g, m, n->ffn, stride, st->gate, st->gate + n->ffn, st->act,
                             n->features & CLQ_HAS_FUSED_GATE ? CLQ_STEP_MUL : 0);
    }
    prepare(g, p, (int[3]){CLQ_W_DOWN, -1, -1}, m, st->act, places);
}

void clq_graph_ffn(clq_graph *g, const clq_placed *p, const clq_pass *pass)
{
    const clq_state *st = g->state;
    uint32_t m = pass->tokens - pass->from;
    uint64_t in = clq_graph_live_rows(g, pass, st->x), places[3];
    if (m == 0) return;
    if (g->net->features & CLQ_HAS_PRE_NORMS) {
        norm(g, p, CLQ_W_FFN_NORM, m, in, st->h, 0);
        in = st->h;
    }
    ffn(g, p, m, in, places);
    add_to_hidden(g, p, pass, CLQ_W_DOWN, places[0], CLQ_W_POST_FFN_NORM);
}

void clq_graph_ffn_module(clq_graph *g, const clq_placed *p, uint32_t tokens, uint64_t in, uint64_t out)
{
    uint64_t places[3];
    ffn(g, p, tokens, in, places);
    linear(g, p, CLQ_W_DOWN, tokens, places[0], out, g->net->embd, 0);
}

void clq_graph_linear_module(clq_graph *g, const clq_placed *p, int which, uint32_t matrix, uint32_t tokens, uint64_t in,
                             uint64_t out)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_input_kind kind = clq_input_kind_of(w, matrix, g->activations);
    uint64_t place = g->state->prep[kind.mode];
    clq_graph_prepare(g, &kind, which, tokens, w->cols, in, place, 0);
    clq_step *s = clq_graph_add(g, CLQ_STEP_LINEAR, tokens, 0);
    clq_graph_use_weight(g, s, p, which, matrix);
    s->mode = kind.mode;
    s->in = place;
    s->out = out;
    s->out_stride = w->rows;
}

void clq_graph_router(clq_graph *g, const clq_placed *p, const clq_pass *pass)
{
    uint32_t m = pass->tokens - pass->from;
    if (m == 0) return;
    norm(g, p, CLQ_W_FFN_NORM, m, clq_graph_live_rows(g, pass, g->state->x), g->state->h, 0);
    clq_graph_router_module(g, p, m);
}

void clq_graph_router_module(clq_graph *g, const clq_placed *p, uint32_t m)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    bool shared = n->features & CLQ_HAS_SHARED_EXPERT;
    uint64_t places[3];
    prepare(g, p, (int[3]){CLQ_W_ROUTER, shared ? CLQ_W_SHARED_ROUTER : -1, -1}, m, st->h, places);
    linear(g, p, CLQ_W_ROUTER, m, places[0], st->router, n->experts + shared, 0);
    if (shared)
        linear(g, p, CLQ_W_SHARED_ROUTER, m, places[1], st->router + n->experts, n->experts + shared, CLQ_STEP_TOGETHER);
}

// ---- the end ----

void clq_graph_final_norm(clq_graph *g, const clq_placed *p, uint32_t from, uint32_t n, uint64_t out)
{
    norm(g, p, CLQ_W_OUTPUT_NORM, n, g->state->x + (uint64_t)from * g->net->embd, out, 0);
}

void clq_graph_head(clq_graph *g, const clq_placed *p, uint32_t n)
{
    const clq_net *net = g->net;
    int which = p->unit->weights[CLQ_W_OUTPUT].tensor ? CLQ_W_OUTPUT : CLQ_W_EMBED;
    uint64_t places[3];
    const clq_taps *taps = g->taps;
    g->layer = net->layers;
    g->taps = NULL; // of layers
    prepare(g, p, (int[3]){which, -1, -1}, n, g->state->final, places);
    g->taps = taps;
    linear(g, p, which, n, places[0], g->state->logits, net->vocab, 0);
    if (net->final_softcap > 0) {
        clq_step *s = clq_graph_add(g, CLQ_STEP_SOFTCAP, n, 0);
        s->cols = net->vocab;
        s->in = s->out = g->state->logits;
        s->scale = net->final_softcap;
    }
}

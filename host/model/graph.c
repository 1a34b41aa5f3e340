// SPDX-License-Identifier: MIT
#include "model/graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

// ---- places in the state ----

// How the inputs of a weight's products are prepared.
typedef struct {
    uint32_t mode;
    clq_activation activation;
} input_kind;

static input_kind kind_of(const clq_weight *w, uint32_t matrix, clq_rounding wish)
{
    bool is_int = w->type.format == CLQ_INT, int8 = wish == CLQ_ROUND_INT8;
    input_kind kind = {.mode = CLQ_MODE_F32};
    if (wish == CLQ_ROUND_NOTHING) return kind;
    kind.activation = clq_weight_activation(w, matrix);
    if (kind.activation.quant == CLQ_QUANT_NONE && is_int && wish != CLQ_ROUND_STORED)
        kind.activation.quant = int8 ? CLQ_QUANT_TOKEN : CLQ_QUANT_TENSOR;
    if (kind.activation.quant == CLQ_QUANT_NONE) {
        kind.mode = int8 ? clq_step_int8_mode(w->type.format) : CLQ_MODE_F32;
        return kind;
    }
    if (clq_step_takes_i8(&w->type, w->cols))
        kind.mode = CLQ_MODE_I8;
    else if (is_int && kind.activation.quant == CLQ_QUANT_TOKEN)
        kind.mode = CLQ_MODE_Q8_TOKEN;
    return kind;
}

static bool same_kind(const input_kind *a, const input_kind *b)
{
    return a->mode == b->mode && a->activation.quant == b->activation.quant &&
           a->activation.scale == b->activation.scale && a->activation.zero_point == b->activation.zero_point;
}

void clq_unit_needs(const clq_unit *unit, clq_rounding activations, clq_input_needs *needs)
{
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &unit->weights[i];
        if (!w->tensor || w->is_vector) continue;
        input_kind kind = kind_of(w, 0, activations);
        needs->modes |= 1u << kind.mode;
        if (kind.mode != CLQ_MODE_F32 || kind.activation.quant != CLQ_QUANT_NONE) needs->rounds = true;
        // Up to three weights share an input, and a checkpoint may round it differently for each.
        if (activations != CLQ_ROUND_NOTHING && clq_weight_activation(w, 0).quant != CLQ_QUANT_NONE)
            needs->places = 3;
    }
}

// Takes rows * cols floats, to a multiple of 16.
static bool take(clq_state *s, uint64_t rows, uint64_t cols, uint64_t *at)
{
    uint64_t n;
    *at = s->n_floats;
    return clq_mul_u64(rows, cols, &n) && clq_add_u64(s->n_floats, n, &s->n_floats) &&
           clq_round_up_u64(s->n_floats, 16, &s->n_floats) && s->n_floats < UINT64_MAX / 8;
}

static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t round_16(uint64_t n) { return (n + 15) / 16 * 16; }

// The most that one PREP of up to `tokens` tokens takes, or those of runs that have so many together.
static uint64_t prep_bound(uint64_t tokens, uint64_t cols, uint32_t mode, bool runs)
{
    uint64_t one = round_16(clq_prep_floats(1, (uint32_t)cols, mode)), packed = (cols + 15) / 16 * 16;
    if (runs) return tokens * max_u64(one, 2 * packed);
    return max_u64((CLQ_PACKED_TOKENS - 1) * one, (tokens + 15) / 16 * 16 * packed);
}

bool clq_state_plan(const clq_net *n, uint32_t batch, const clq_input_needs *needs, clq_state *s)
{
    *s = (clq_state){.batch = batch};
    uint32_t rows = CLQ_LOGITS / n->vocab / 16 * 16;
    rows = rows < CLQ_MIN_LOGIT_ROWS ? CLQ_MIN_LOGIT_ROWS : rows > CLQ_MAX_LOGIT_ROWS ? CLQ_MAX_LOGIT_ROWS : rows;
    s->logit_rows = batch < rows ? batch : rows;
    uint64_t q = (uint64_t)n->heads * n->head_dim, kv = (uint64_t)n->kv_heads * n->head_dim;
    bool fused = n->features & CLQ_HAS_FUSED_QKV, fused_gate = n->features & CLQ_HAS_FUSED_GATE;
    bool experts = n->features & CLQ_HAS_EXPERTS, shared = n->features & CLQ_HAS_SHARED_EXPERT;
    uint64_t ffn = experts ? max_u64(n->expert_ffn, shared ? n->shared_ffn : 0) : n->ffn;
    if (experts) s->expert_rows = (uint32_t)max_u64(batch, n->experts_used + 1ull);
    uint64_t ffn_rows = experts ? s->expert_rows : batch;
    uint64_t inputs = 3ull + (n->rope_dims ? (1ull + n->has_local) * n->rope_dims : 0);
    bool ok = take(s, batch, inputs, &s->inputs) && take(s, 64, 1, &s->n_inputs); // and room for alignment
    s->n_inputs = s->n_floats - s->inputs;
    ok = ok && take(s, batch, n->embd, &s->x) && take(s, batch, n->embd, &s->h) &&
         take(s, batch, n->embd, &s->sum) && take(s, batch, fused ? q + 2 * kv : q, &s->q) &&
         take(s, batch, fused ? 0 : kv, &s->k) && take(s, batch, fused ? 0 : kv, &s->v) &&
         take(s, batch, q, &s->attended) && take(s, ffn_rows, fused_gate ? 2 * ffn : ffn, &s->gate) &&
         take(s, ffn_rows, fused_gate ? 0 : ffn, &s->up) && take(s, ffn_rows, ffn, &s->act);
    for (uint32_t mode = 0; mode < CLQ_N_MODES; mode++) {
        if (!(needs->modes & 1u << mode)) continue;
        uint64_t most = max_u64(n->embd, max_u64(q, experts ? 0 : ffn));
        uint64_t n_floats = prep_bound(batch, most, mode, false);
        if (experts) n_floats = max_u64(n_floats, prep_bound(s->expert_rows, max_u64(n->embd, ffn), mode, true));
        s->place_floats[mode] = round_16(n_floats);
        ok = ok && take(s, s->place_floats[mode], needs->places, &s->prep[mode]);
    }
    if (experts)
        ok = ok && take(s, batch, n->experts + shared, &s->router) &&
             take(s, batch, 3 * (n->experts_used + (uint64_t)shared), &s->routes) &&
             take(s, s->expert_rows, n->embd, &s->expert_in) && take(s, s->expert_rows, n->embd, &s->expert_out);
    ok = ok && take(s, max_u64(batch, s->expert_rows), 2, &s->ranges) && take(s, 1, 1, &s->status) &&
         take(s, needs->observed, 1, &s->observed);
    uint64_t logits = n->kind->is_encoder ? 0 : n->vocab;
    return ok && take(s, s->logit_rows, n->embd, &s->final) && take(s, s->logit_rows, logits, &s->logits) &&
           take(s, 64, 1, &inputs); // kernels may read a little behind a row
}

// ---- steps ----

void clq_graph_free(clq_graph *g)
{
    free(g->steps);
    g->steps = NULL;
    g->n_steps = g->capacity = 0;
}

static clq_step *add(clq_graph *g, uint32_t kind, uint32_t tokens, unsigned flags)
{
    static clq_step lost;
    if (g->n_steps == g->capacity) {
        uint32_t capacity = g->capacity ? 2 * g->capacity : 256;
        clq_step *steps = realloc(g->steps, capacity * sizeof *steps);
        if (!steps) {
            g->failed = true;
            return &lost;
        }
        g->steps = steps;
        g->capacity = capacity;
    }
    clq_step *s = &g->steps[g->n_steps++];
    *s = (clq_step){.kind = kind, .flags = flags, .tokens = tokens, .w = CLQ_NONE, .bias = CLQ_NONE,
                    .scales = CLQ_NONE, .zero_points = CLQ_NONE, .group_index = CLQ_NONE, .scale = 1};
    return s;
}

static uint64_t shifted(uint64_t offset, uint64_t by) { return offset == CLQ_NONE ? CLQ_NONE : offset + by; }

static void set_weight(clq_step *s, const clq_placed *p, const clq_weight *w, uint32_t matrix)
{
    s->format = w->type.format;
    s->rows = w->rows;
    s->cols = w->cols;
    s->w = p->base + w->w + matrix * w->code_bytes;
    s->bias = shifted(w->bias, p->base);
    if (w->type.format != CLQ_INT) return;
    s->bits = w->type.bits;
    s->group_size = w->type.granularity == CLQ_PER_GROUP ? w->type.group_size : 0;
    s->groups = w->groups;
    s->scales = shifted(w->scales, p->base + matrix * w->n_scales * 4);
    s->zero_points = shifted(w->zero_points, p->base + matrix * w->n_scales);
    s->group_index = shifted(w->group_index, p->base + 4ull * matrix * w->cols);
    s->code_sums = shifted(w->code_sums, p->base + 4ull * matrix * w->rows);
}

// rows x cols of the weight's length, one behind the other.
static void norm(clq_graph *g, const clq_placed *p, int which, uint32_t rows, uint64_t in, uint64_t out,
                 unsigned flags)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = add(g, CLQ_STEP_NORM, rows, flags | (g->net->kind->layer_norm ? CLQ_STEP_LAYER_NORM : 0));
    s->rows = rows;
    s->cols = s->in_stride = s->out_stride = w->cols;
    s->w = shifted(w->w, p->base);
    s->bias = shifted(w->bias, p->base);
    s->eps = g->net->eps;
    s->in = in;
    s->out = out;
}

// Adds in[tokens][cols] to the observations of a matrix of the weight, where it has any.
static void observe(clq_graph *g, int which, uint32_t matrix, uint32_t tokens, uint32_t cols, uint64_t in)
{
    if (!g->taps || g->taps->slots[which] == CLQ_NONE || tokens == 0) return;
    uint64_t slot = g->taps->slots[which] + matrix * g->taps->slot_floats[which];
    for (uint32_t phase = 0; phase <= CLQ_OBSERVE_VALUES + (g->taps->gram ? 1u : 0); phase++) {
        bool gram = phase > CLQ_OBSERVE_VALUES;
        clq_step *s = add(g, gram ? CLQ_STEP_GRAM : CLQ_STEP_OBSERVE, tokens, gram ? CLQ_STEP_TOGETHER : 0);
        s->phase = phase;
        s->cols = s->in_stride = cols;
        s->in = in;
        s->out = gram ? slot + CLQ_SLOT_FLOATS(cols) : slot;
    }
}

// The ranges of in[tokens][cols], at the place of rows from `first` on.
static void measure(clq_graph *g, uint32_t tokens, uint32_t cols, uint64_t in, uint32_t first, unsigned flags)
{
    clq_step *s = add(g, CLQ_STEP_RANGE, tokens, flags);
    s->cols = s->in_stride = cols;
    s->in = in;
    s->out = g->state->ranges + 2ull * first;
}

// The PREP of in[tokens][cols] for a weight.
static clq_step *prepare_as(clq_graph *g, const input_kind *kind, int which, uint32_t tokens, uint32_t cols,
                            uint64_t in, uint64_t out, unsigned flags)
{
    clq_step *s = add(g, CLQ_STEP_PREP, tokens, flags);
    s->cols = s->in_stride = cols;
    s->mode = kind->mode;
    s->quant = kind->activation.quant;
    s->scale = kind->activation.scale;
    s->zero_point = kind->activation.zero_point;
    s->in = in;
    s->in2 = g->state->ranges;
    s->out = out;
    s->status = g->state->status;
    s->tag = 1 + g->layer * CLQ_N_WEIGHTS + (uint32_t)which;
    return s;
}

// Prepares in[tokens][cols] for the products with up to three of the unit's weights (-1: none); places[i]: the result
// for the i-th.
static void prepare(clq_graph *g, const clq_placed *p, const int which[3], uint32_t tokens, uint64_t in,
                    uint64_t places[3])
{
    input_kind kinds[3];
    bool measured = false, first = true;
    observe(g, which[0], 0, tokens, p->unit->weights[which[0]].cols, in);
    for (int i = 0; i < 3 && which[i] >= 0; i++) {
        const clq_weight *w = &p->unit->weights[which[i]];
        kinds[i] = kind_of(w, 0, g->activations);
        if (kinds[i].activation.quant != CLQ_QUANT_TENSOR || measured) continue;
        measure(g, tokens, w->cols, in, 0, 0);
        measured = true;
    }
    for (int i = 0; i < 3 && which[i] >= 0; i++) {
        uint32_t others = 0; // of the same mode, before it
        int same = 0;
        for (; same < i && !same_kind(&kinds[same], &kinds[i]); same++) others += kinds[same].mode == kinds[i].mode;
        if (same < i) {
            places[i] = places[same];
            continue;
        }
        uint32_t mode = kinds[i].mode;
        places[i] = g->state->prep[mode] + others * g->state->place_floats[mode];
        prepare_as(g, &kinds[i], which[i], tokens, p->unit->weights[which[i]].cols, in, places[i],
                   first ? 0 : CLQ_STEP_TOGETHER);
        first = false;
    }
}

// The product with what was prepared at `in`.
static void linear(clq_graph *g, const clq_placed *p, int which, uint32_t tokens, uint64_t in, uint64_t out,
                   uint32_t out_stride, unsigned flags)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = add(g, CLQ_STEP_LINEAR, tokens, flags);
    set_weight(s, p, w, 0);
    s->mode = kind_of(w, 0, g->activations).mode;
    s->in = in;
    s->out = out;
    s->out_stride = out_stride;
}

// ---- parts of a model ----

static void embed(clq_graph *g, const clq_placed *p, int which, uint32_t tokens, uint64_t ids, float scale,
                  unsigned flags)
{
    clq_step *s = add(g, CLQ_STEP_EMBED, tokens, flags);
    set_weight(s, p, &p->unit->weights[which], 0);
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
    clq_step *s = add(g, CLQ_STEP_ROPE, pass->tokens, flags | (n->kind->neox ? CLQ_STEP_NEOX : 0));
    s->heads = heads;
    s->head_dim = n->head_dim;
    s->dims = n->rope_dims;
    s->in = in;
    s->in_stride = stride;
    s->in2 = pass->tables[n->sliding[layer] ? CLQ_ROPE_LOCAL : CLQ_ROPE_GLOBAL];
}

static void store(clq_graph *g, const clq_pass *pass, uint64_t in, uint32_t stride, uint64_t cache, unsigned flags)
{
    clq_step *s = add(g, CLQ_STEP_STORE, pass->tokens, flags);
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
    clq_step *s = add(g, CLQ_STEP_ATTEND, pass->tokens - pass->from, n->kind->is_encoder ? 0 : CLQ_STEP_CAUSAL);
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

// Rows of the hidden states that are still needed.
static uint64_t live_rows(const clq_graph *g, const clq_pass *pass, uint64_t at)
{
    return at + (uint64_t)pass->from * g->net->embd;
}

// Adds the product with `which` to the hidden states, through a norm where there is one.
static void add_to_hidden(clq_graph *g, const clq_placed *p, const clq_pass *pass, int which, uint64_t in,
                          int post_norm)
{
    const clq_state *st = g->state;
    uint32_t m = pass->tokens - pass->from, embd = g->net->embd;
    uint64_t x = live_rows(g, pass, st->x);
    if (g->net->features & CLQ_HAS_POST_NORMS) {
        linear(g, p, which, m, in, st->sum, embd, 0);
        norm(g, p, post_norm, m, st->sum, x, CLQ_STEP_ACCUMULATE);
        return;
    }
    linear(g, p, which, m, in, x, embd, CLQ_STEP_ACCUMULATE);
    if (g->net->features & CLQ_HAS_BERT) norm(g, p, post_norm, m, x, x, 0);
}

void clq_graph_attention(clq_graph *g, const clq_placed *p, uint32_t layer, const clq_pass *pass)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint32_t m = pass->tokens, q_cols = n->heads * n->head_dim, kv_cols = n->kv_heads * n->head_dim;
    uint64_t in = st->x, k = st->k, v = st->v, head_bytes = clq_cache_bytes(g->cache_type, n->head_dim);
    uint64_t keys = layer * g->layer_bytes, values = keys + n->kv_heads * (uint64_t)g->positions * head_bytes;
    uint64_t places[3];
    uint32_t q_stride = q_cols, kv_stride = kv_cols;
    g->layer = layer;
    if (n->features & CLQ_HAS_PRE_NORMS) {
        norm(g, p, CLQ_W_ATTN_NORM, m, st->x, st->h, 0);
        in = st->h;
    }
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
    if (pass->from == m) return;
    attend(g, layer, pass, q_stride, keys, values);
    prepare(g, p, (int[3]){CLQ_W_O, -1, -1}, m - pass->from, st->attended, places);
    add_to_hidden(g, p, pass, CLQ_W_O, places[0], CLQ_W_POST_ATTN_NORM);
}

// act(gate[m][cols]) (* up[m][cols]) to out.
static void activation(clq_graph *g, uint32_t tokens, uint32_t cols, uint32_t stride, uint64_t gate, uint64_t up,
                       uint64_t out, unsigned flags)
{
    clq_step *s = add(g, CLQ_STEP_ACT, tokens, flags);
    s->act = g->net->kind->act;
    s->cols = cols;
    s->in_stride = stride;
    s->in = gate;
    s->in2 = up;
    s->out = out;
}

void clq_graph_ffn(clq_graph *g, const clq_placed *p, const clq_pass *pass)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint32_t m = pass->tokens - pass->from;
    uint64_t in = live_rows(g, pass, st->x), places[3];
    if (m == 0) return;
    if (n->features & CLQ_HAS_PRE_NORMS) {
        norm(g, p, CLQ_W_FFN_NORM, m, in, st->h, 0);
        in = st->h;
    }
    if (n->features & CLQ_HAS_GATE) {
        prepare(g, p, (int[3]){CLQ_W_GATE, CLQ_W_UP, -1}, m, in, places);
        linear(g, p, CLQ_W_GATE, m, places[0], st->gate, n->ffn, 0);
        linear(g, p, CLQ_W_UP, m, places[1], st->up, n->ffn, CLQ_STEP_TOGETHER);
        activation(g, m, n->ffn, n->ffn, st->gate, st->up, st->act, CLQ_STEP_MUL);
    } else {
        uint32_t stride = n->features & CLQ_HAS_FUSED_GATE ? 2 * n->ffn : n->ffn;
        prepare(g, p, (int[3]){CLQ_W_UP, -1, -1}, m, in, places);
        linear(g, p, CLQ_W_UP, m, places[0], st->gate, stride, 0);
        activation(g, m, n->ffn, stride, st->gate, st->gate + n->ffn, st->act,
                   n->features & CLQ_HAS_FUSED_GATE ? CLQ_STEP_MUL : 0);
    }
    prepare(g, p, (int[3]){CLQ_W_DOWN, -1, -1}, m, st->act, places);
    add_to_hidden(g, p, pass, CLQ_W_DOWN, places[0], CLQ_W_POST_FFN_NORM);
}

void clq_graph_router(clq_graph *g, const clq_placed *p, const clq_pass *pass)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint32_t m = pass->tokens - pass->from;
    bool shared = n->features & CLQ_HAS_SHARED_EXPERT;
    uint64_t places[3];
    if (m == 0) return;
    norm(g, p, CLQ_W_FFN_NORM, m, live_rows(g, pass, st->x), st->h, 0);
    prepare(g, p, (int[3]){CLQ_W_ROUTER, shared ? CLQ_W_SHARED_ROUTER : -1, -1}, m, st->h, places);
    linear(g, p, CLQ_W_ROUTER, m, places[0], st->router, n->experts + shared, 0);
    if (shared)
        linear(g, p, CLQ_W_SHARED_ROUTER, m, places[1], st->router + n->experts, n->experts + shared, CLQ_STEP_TOGETHER);
}

// ---- experts ----

// The weights of a run's three products, as CLQ_W_*, and the matrix.
typedef struct {
    int gate, up, down;
    uint32_t matrix;
} expert_weights;

static expert_weights weights_of(int32_t expert)
{
    if (expert == CLQ_SHARED_EXPERT)
        return (expert_weights){CLQ_W_SHARED_GATE, CLQ_W_SHARED_UP, CLQ_W_SHARED_DOWN, 0};
    return (expert_weights){CLQ_W_GATE_EXPS, CLQ_W_UP_EXPS, CLQ_W_DOWN_EXPS, (uint32_t)expert};
}

// Places for prepared inputs of runs, taken in the order of the PREPs.
typedef struct {
    uint64_t used[CLQ_N_MODES];
} run_places;

static uint64_t take_place(const clq_graph *g, uint32_t mode, uint32_t tokens, uint32_t cols, run_places *places)
{
    uint64_t at = g->state->prep[mode] + places->used[mode];
    places->used[mode] += round_16(clq_prep_floats(tokens, cols, mode));
    return at;
}

static void expert_linear(clq_graph *g, const clq_placed *p, int which, uint32_t matrix, uint32_t tokens, uint64_t in,
                          uint64_t out, bool first)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = add(g, CLQ_STEP_LINEAR, tokens, first ? 0 : CLQ_STEP_TOGETHER);
    set_weight(s, p, w, matrix);
    s->mode = kind_of(w, matrix, g->activations).mode;
    s->in = in;
    s->out = out;
    s->out_stride = w->rows;
}

// Input of the gate and up of a run; with one token all runs share it.
static uint64_t run_input(const clq_graph *g, const clq_expert_run *run, bool one)
{
    return one ? g->state->h : g->state->expert_in + (uint64_t)run->first * g->net->embd;
}

// Observations and ranges that the inputs of all runs need: of gates and ups, or of downs.
static void look_at_runs(clq_graph *g, const clq_placed *p, const clq_expert_run *runs, uint32_t n_runs, bool one,
                         bool down, uint64_t width)
{
    bool first = true;
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        int which = down ? w.down : w.gate;
        uint32_t cols = p->unit->weights[which].cols;
        uint64_t in = down ? g->state->act + runs[i].first * width : run_input(g, &runs[i], one);
        observe(g, which, w.matrix, runs[i].tokens, cols, in);
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        int which = down ? w.down : w.gate;
        uint64_t in = down ? g->state->act + runs[i].first * width : run_input(g, &runs[i], one);
        input_kind kind = kind_of(&p->unit->weights[which], w.matrix, g->activations), up = kind;
        if (!down) up = kind_of(&p->unit->weights[w.up], w.matrix, g->activations);
        if (kind.activation.quant != CLQ_QUANT_TENSOR && up.activation.quant != CLQ_QUANT_TENSOR) continue;
        measure(g, runs[i].tokens, p->unit->weights[which].cols, in, runs[i].first, first ? 0 : CLQ_STEP_TOGETHER);
        first = false;
    }
}

// PREPs of a run's input for weights `which` and `other` (-1: none), which may share one.
static void prepare_run(clq_graph *g, const clq_placed *p, const clq_expert_run *run, int which, int other,
                        uint64_t in, run_places *places, bool first, uint64_t at[2])
{
    uint32_t matrix = weights_of(run->expert).matrix;
    input_kind kinds[2];
    for (int i = 0; i < (other < 0 ? 1 : 2); i++) {
        int w = i ? other : which;
        uint32_t cols = p->unit->weights[w].cols;
        kinds[i] = kind_of(&p->unit->weights[w], matrix, g->activations);
        if (i && same_kind(&kinds[0], &kinds[1])) {
            at[1] = at[0];
            continue;
        }
        at[i] = take_place(g, kinds[i].mode, run->tokens, cols, places);
        clq_step *s = prepare_as(g, &kinds[i], w, run->tokens, cols, in, at[i], first && !i ? 0 : CLQ_STEP_TOGETHER);
        s->in2 += 2ull * run->first;
    }
}

// Whether the gate and up of run i want their inputs as those of run 0.
static bool same_inputs(const clq_graph *g, const clq_placed *p, const clq_expert_run *runs, uint32_t i)
{
    expert_weights a = weights_of(runs[0].expert), b = weights_of(runs[i].expert);
    const clq_weight *w = p->unit->weights;
    input_kind gates[2] = {kind_of(&w[a.gate], a.matrix, g->activations), kind_of(&w[b.gate], b.matrix, g->activations)};
    input_kind ups[2] = {kind_of(&w[a.up], a.matrix, g->activations), kind_of(&w[b.up], b.matrix, g->activations)};
    return same_kind(&gates[0], &gates[1]) && same_kind(&ups[0], &ups[1]);
}

void clq_graph_experts(clq_graph *g, const clq_placed *p, const clq_pass *pass, const clq_expert_run *runs,
                       uint32_t n_runs, uint64_t gather)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint64_t width = max_u64(n->expert_ffn, n->features & CLQ_HAS_SHARED_EXPERT ? n->shared_ffn : 0);
    bool one = pass->tokens - pass->from == 1;
    if (n_runs == 0) return;
    if (!one) {
        const clq_expert_run *last = &runs[n_runs - 1];
        clq_step *s = add(g, CLQ_STEP_GATHER, last->first + last->tokens, 0);
        s->cols = n->embd;
        s->in = st->h;
        s->in2 = gather;
        s->out = st->expert_in;
    }
    uint64_t(*places)[2] = malloc(n_runs * sizeof *places);
    run_places inputs = {{0}}, downs = {{0}};
    if (!places) {
        g->failed = true;
        return;
    }
    look_at_runs(g, p, runs, n_runs, one, false, width);
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        if (one && i > 0 && same_inputs(g, p, runs, i))
            memcpy(places[i], places[0], sizeof *places);
        else
            prepare_run(g, p, &runs[i], w.gate, w.up, run_input(g, &runs[i], one), &inputs, i == 0, places[i]);
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        uint64_t at = runs[i].first * width;
        expert_linear(g, p, w.gate, w.matrix, runs[i].tokens, places[i][0], st->gate + at, i == 0);
        expert_linear(g, p, w.up, w.matrix, runs[i].tokens, places[i][1], st->up + at, false);
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        uint64_t at = runs[i].first * width;
        uint32_t cols = p->unit->weights[weights_of(runs[i].expert).gate].rows;
        activation(g, runs[i].tokens, cols, cols, st->gate + at, st->up + at, st->act + at,
                   CLQ_STEP_MUL | (i ? CLQ_STEP_TOGETHER : 0));
    }
    look_at_runs(g, p, runs, n_runs, one, true, width);
    for (uint32_t i = 0; i < n_runs; i++)
        prepare_run(g, p, &runs[i], weights_of(runs[i].expert).down, -1, st->act + runs[i].first * width, &downs,
                    i == 0, places[i]);
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        expert_linear(g, p, w.down, w.matrix, runs[i].tokens, places[i][0],
                      st->expert_out + (uint64_t)runs[i].first * n->embd, i == 0);
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        clq_step *s = add(g, CLQ_STEP_SCATTER, runs[i].tokens, 0);
        s->cols = n->embd;
        s->in = st->expert_out + (uint64_t)runs[i].first * n->embd;
        s->in2 = runs[i].route;
        s->out = live_rows(g, pass, st->x);
    }
    free(places);
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
        clq_step *s = add(g, CLQ_STEP_SOFTCAP, n, 0);
        s->cols = net->vocab;
        s->in = s->out = g->state->logits;
        s->scale = net->final_softcap;
    }
}

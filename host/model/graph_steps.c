// SPDX-License-Identifier: MIT
#include "model/graph_steps.h"

#include <stdlib.h>

#include "base/checked.h"

// ---- how inputs are rounded ----

clq_input_kind clq_input_kind_of(const clq_weight *w, uint32_t matrix, clq_rounding wish)
{
    bool is_int = w->type.format == CLQ_INT, int8 = wish == CLQ_ROUND_INT8;
    clq_input_kind kind = {.mode = CLQ_MODE_F32};
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

bool clq_same_input_kind(const clq_input_kind *a, const clq_input_kind *b)
{
    return a->mode == b->mode && a->activation.quant == b->activation.quant &&
           a->activation.scale == b->activation.scale && a->activation.zero_point == b->activation.zero_point;
}

void clq_unit_needs(const clq_unit *unit, clq_rounding activations, clq_input_needs *needs)
{
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &unit->weights[i];
        if (!w->tensor || w->is_vector) continue;
        for (uint32_t m = 0; m < w->count; m++) {
            clq_input_kind kind = clq_input_kind_of(w, m, activations);
            needs->modes |= 1u << kind.mode;
            if (kind.mode != CLQ_MODE_F32 || kind.activation.quant != CLQ_QUANT_NONE) needs->rounds = true;
            // Up to three weights share an input. A checkpoint may round it differently for each; and rounded floats
            // stand beside floats for weights that take no rounding.
            bool stored = activations != CLQ_ROUND_NOTHING && clq_weight_activation(w, m).quant != CLQ_QUANT_NONE;
            if (stored || (kind.mode == CLQ_MODE_F32 && kind.activation.quant != CLQ_QUANT_NONE)) needs->places = 3;
        }
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

// The most that one PREP of up to `tokens` tokens takes, or those of runs that have so many together.
static uint64_t prep_bound(uint64_t tokens, uint64_t cols, uint32_t mode, bool runs)
{
    uint64_t one = clq_graph_round_16(clq_prep_floats(1, (uint32_t)cols, mode)), packed = (cols + 15) / 16 * 16;
    if (runs) return tokens * clq_graph_max(one, 2 * packed);
    return clq_graph_max((CLQ_PACKED_TOKENS - 1) * one, (tokens + 15) / 16 * 16 * packed);
}

bool clq_state_plan(const clq_net *n, uint32_t batch, const clq_input_needs *needs, clq_state *s)
{
    *s = (clq_state){.batch = batch, .places = needs->places};
    uint32_t rows = CLQ_LOGITS / n->vocab / 16 * 16;
    rows = rows < CLQ_MIN_LOGIT_ROWS ? CLQ_MIN_LOGIT_ROWS : rows > CLQ_MAX_LOGIT_ROWS ? CLQ_MAX_LOGIT_ROWS : rows;
    s->logit_rows = batch < rows ? batch : rows;
    uint64_t q = (uint64_t)n->heads * n->head_dim, kv = (uint64_t)n->kv_heads * n->head_dim;
    bool fused = n->features & CLQ_HAS_FUSED_QKV, fused_gate = n->features & CLQ_HAS_FUSED_GATE;
    bool experts = n->features & CLQ_HAS_EXPERTS, shared = n->features & CLQ_HAS_SHARED_EXPERT;
    uint64_t ffn = experts ? clq_graph_max(n->expert_ffn, shared ? n->shared_ffn : 0) : n->ffn;
    if (experts) s->expert_rows = (uint32_t)clq_graph_max(batch, n->experts_used + 1ull);
    uint64_t ffn_rows = experts ? s->expert_rows : batch;
    uint64_t inputs = 3ull + (n->rope_dims ? (1ull + n->has_local) * n->rope_dims : 0);
    bool ok = take(s, batch, inputs, &s->inputs) && take(s, 64, 1, &s->n_inputs); // and room for alignment
    s->n_inputs = s->n_floats - s->inputs;
    ok = ok && take(s, batch, n->embd, &s->x) && take(s, batch, n->embd, &s->h) && take(s, batch, n->embd, &s->sum) &&
         take(s, batch, fused ? q + 2 * kv : q, &s->q) && take(s, batch, fused ? 0 : kv, &s->k) &&
         take(s, batch, fused ? 0 : kv, &s->v) && take(s, batch, q, &s->attended) &&
         take(s, ffn_rows, fused_gate ? 2 * ffn : ffn, &s->gate) && take(s, ffn_rows, fused_gate ? 0 : ffn, &s->up) &&
         take(s, ffn_rows, ffn, &s->act);
    for (uint32_t mode = 0; mode < CLQ_N_MODES; mode++) {
        if (!(needs->modes & 1u << mode)) continue;
        uint64_t most = clq_graph_max(n->embd, clq_graph_max(q, experts ? 0 : ffn));
        uint64_t n_floats = prep_bound(batch, most, mode, false);
        if (experts)
            n_floats = clq_graph_max(n_floats, prep_bound(s->expert_rows, clq_graph_max(n->embd, ffn), mode, true));
        s->place_floats[mode] = clq_graph_round_16(n_floats);
        ok = ok && take(s, s->place_floats[mode], needs->places, &s->prep[mode]);
    }
    if (experts)
        ok = ok && take(s, batch, n->experts + shared, &s->router) &&
             take(s, batch, 3 * (n->experts_used + (uint64_t)shared), &s->routes) &&
             take(s, s->expert_rows, n->embd, &s->expert_in) && take(s, s->expert_rows, n->embd, &s->expert_out);
    ok = ok && take(s, clq_graph_max(batch, s->expert_rows), 2, &s->ranges) && take(s, 1, 1, &s->status) &&
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

clq_step *clq_graph_add(clq_graph *g, uint32_t kind, uint32_t tokens, unsigned flags)
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
    *s = (clq_step){.kind = kind,
                    .flags = flags,
                    .tokens = tokens,
                    .w = CLQ_NONE,
                    .bias = CLQ_NONE,
                    .scales = CLQ_NONE,
                    .zero_points = CLQ_NONE,
                    .group_index = CLQ_NONE,
                    .scale = 1};
    return s;
}

void clq_graph_set_weight(clq_step *s, const clq_placed *p, const clq_weight *w, uint32_t matrix)
{
    s->format = w->type.format;
    s->rows = w->rows;
    s->cols = w->cols;
    s->w = p->base + w->w + matrix * w->code_bytes;
    s->bias = clq_graph_shifted(w->bias, p->base);
    if (w->type.format != CLQ_INT) return;
    s->bits = w->type.bits;
    s->group_size = w->type.granularity == CLQ_PER_GROUP ? w->type.group_size : 0;
    s->groups = w->groups;
    s->scales = clq_graph_shifted(w->scales, p->base + matrix * w->n_scales * 4);
    s->zero_points = clq_graph_shifted(w->zero_points, p->base + matrix * w->n_scales);
    s->group_index = clq_graph_shifted(w->group_index, p->base + 4ull * matrix * w->cols);
    s->code_sums = clq_graph_shifted(w->code_sums, p->base + 4ull * matrix * w->rows);
}

void clq_graph_use_weight(const clq_graph *g, clq_step *s, const clq_placed *p, int which, uint32_t matrix)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_graph_set_weight(s, p, w, matrix);
    if (!g->instead || g->instead[which] == CLQ_NONE) return;
    s->flags |= CLQ_STEP_STATE_WEIGHT;
    s->w = 4 * (g->instead[which] + (uint64_t)matrix * w->rows * w->cols);
}

// Adds a copy of in[tokens][cols] behind those made before.
static void copy_input(clq_graph *g, int which, uint32_t tokens, uint32_t cols, uint64_t in)
{
    if (!g->copies || g->copies->at[which] == CLQ_NONE || tokens == 0) return;
    clq_step *s = clq_graph_add(g, CLQ_STEP_COLUMNS, tokens, 0);
    s->cols = s->in_stride = s->out_stride = cols;
    s->in = in;
    s->in2 = g->copies->ones;
    s->out = g->copies->at[which] + g->copies->first * cols;
}

// Adds in[tokens][cols] to the observations of a matrix of the weight, where it has any.
void clq_graph_observe(clq_graph *g, int which, uint32_t matrix, uint32_t tokens, uint32_t cols, uint64_t in)
{
    const clq_taps *taps = g->taps;
    copy_input(g, which, tokens, cols, in);
    if (!taps || taps->slots[which] == CLQ_NONE || tokens == 0) return;
    uint64_t slot = taps->slots[which] + matrix * taps->slot_floats[which];
    for (uint32_t phase = 0; phase <= CLQ_OBSERVE_VALUES; phase++) {
        if (taps->without_values && phase == CLQ_OBSERVE_VALUES) continue;
        clq_step *s = clq_graph_add(g, CLQ_STEP_OBSERVE, tokens, 0);
        s->phase = phase;
        s->cols = s->in_stride = cols;
        s->in = in;
        s->out = slot;
    }
    if (!taps->gram || !clq_gram_block(taps->gram, cols)) return; // has no room
    clq_step *s = clq_graph_add(g, CLQ_STEP_GRAM, tokens, CLQ_STEP_TOGETHER);
    s->cols = s->in_stride = cols;
    s->group_size = taps->gram == CLQ_GRAM_ALL ? 0 : taps->gram;
    s->in = in;
    s->out = slot + CLQ_SLOT_FLOATS(cols);
}

// The ranges of in[tokens][cols], at the place of rows from `first` on.
void clq_graph_measure(clq_graph *g, uint32_t tokens, uint32_t cols, uint64_t in, uint32_t first, unsigned flags)
{
    clq_step *s = clq_graph_add(g, CLQ_STEP_RANGE, tokens, flags);
    s->cols = s->in_stride = cols;
    s->in = in;
    s->out = g->state->ranges + 2ull * first;
}

// The PREP of in[tokens][cols] for a weight.
clq_step *clq_graph_prepare(clq_graph *g, const clq_input_kind *kind, int which, uint32_t tokens, uint32_t cols,
                            uint64_t in, uint64_t out, unsigned flags)
{
    clq_step *s = clq_graph_add(g, CLQ_STEP_PREP, tokens, flags);
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

// act(gate[m][cols]) (* up[m][cols]) to out.
void clq_graph_activation(clq_graph *g, uint32_t tokens, uint32_t cols, uint32_t stride, uint64_t gate, uint64_t up,
                          uint64_t out, unsigned flags)
{
    clq_step *s = clq_graph_add(g, CLQ_STEP_ACT, tokens, flags);
    s->act = g->net->kind->act;
    s->cols = cols;
    s->in_stride = stride;
    s->in = gate;
    s->in2 = up;
    s->out = out;
}

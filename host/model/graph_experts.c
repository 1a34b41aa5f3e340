// SPDX-License-Identifier: MIT
// Steps of experts that run side by side.
#include <stdlib.h>
#include <string.h>

#include "model/graph_steps.h"

// The weights of a run's three products, as CLQ_W_*, and the matrix.
typedef struct {
    int gate, up, down;
    uint32_t matrix;
} expert_weights;

static expert_weights weights_of(int32_t expert)
{
    if (expert == CLQ_SHARED_EXPERT) return (expert_weights){CLQ_W_SHARED_GATE, CLQ_W_SHARED_UP, CLQ_W_SHARED_DOWN, 0};
    return (expert_weights){CLQ_W_GATE_EXPS, CLQ_W_UP_EXPS, CLQ_W_DOWN_EXPS, (uint32_t)expert};
}

// Places for prepared inputs of runs, taken in the order of the PREPs.
typedef struct {
    uint64_t used[CLQ_N_MODES];
} run_places;

static uint64_t take_place(clq_graph *g, uint32_t mode, uint32_t tokens, uint32_t cols, run_places *places)
{
    uint64_t at = g->state->prep[mode] + places->used[mode];
    places->used[mode] += clq_graph_round_16(clq_prep_floats(tokens, cols, mode));
    if (places->used[mode] > g->state->place_floats[mode] * g->state->places) g->failed = true; // was not planned for
    return at;
}

static void expert_linear(clq_graph *g, const clq_placed *p, int which, uint32_t matrix, uint32_t tokens, uint64_t in,
                          uint64_t out, bool first)
{
    const clq_weight *w = &p->unit->weights[which];
    clq_step *s = clq_graph_add(g, CLQ_STEP_LINEAR, tokens, first ? 0 : CLQ_STEP_TOGETHER);
    clq_graph_use_weight(g, s, p, which, matrix);
    s->mode = clq_input_kind_of(w, matrix, g->activations).mode;
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
        clq_graph_observe(g, which, w.matrix, runs[i].tokens, cols, in);
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        expert_weights w = weights_of(runs[i].expert);
        int which = down ? w.down : w.gate;
        uint64_t in = down ? g->state->act + runs[i].first * width : run_input(g, &runs[i], one);
        clq_input_kind kind = clq_input_kind_of(&p->unit->weights[which], w.matrix, g->activations), up = kind;
        if (!down) up = clq_input_kind_of(&p->unit->weights[w.up], w.matrix, g->activations);
        if (kind.activation.quant != CLQ_QUANT_TENSOR && up.activation.quant != CLQ_QUANT_TENSOR) continue;
        clq_graph_measure(g, runs[i].tokens, p->unit->weights[which].cols, in, runs[i].first,
                          first ? 0 : CLQ_STEP_TOGETHER);
        first = false;
    }
}

// PREPs of a run's input for weights `which` and `other` (-1: none), which may share one.
static void prepare_run(clq_graph *g, const clq_placed *p, const clq_expert_run *run, int which, int other, uint64_t in,
                        run_places *places, bool first, uint64_t at[2])
{
    uint32_t matrix = weights_of(run->expert).matrix;
    clq_input_kind kinds[2];
    for (int i = 0; i < (other < 0 ? 1 : 2); i++) {
        int w = i ? other : which;
        uint32_t cols = p->unit->weights[w].cols;
        kinds[i] = clq_input_kind_of(&p->unit->weights[w], matrix, g->activations);
        if (i && clq_same_input_kind(&kinds[0], &kinds[1])) {
            at[1] = at[0];
            continue;
        }
        at[i] = take_place(g, kinds[i].mode, run->tokens, cols, places);
        clq_step *s =
            clq_graph_prepare(g, &kinds[i], w, run->tokens, cols, in, at[i], first && !i ? 0 : CLQ_STEP_TOGETHER);
        s->in2 += 2ull * run->first;
    }
}

// Whether the gate and up of run i want their inputs as those of run 0.
static bool same_inputs(const clq_graph *g, const clq_placed *p, const clq_expert_run *runs, uint32_t i)
{
    expert_weights a = weights_of(runs[0].expert), b = weights_of(runs[i].expert);
    const clq_weight *w = p->unit->weights;
    clq_input_kind gates[2] = {clq_input_kind_of(&w[a.gate], a.matrix, g->activations),
                               clq_input_kind_of(&w[b.gate], b.matrix, g->activations)};
    clq_input_kind ups[2] = {clq_input_kind_of(&w[a.up], a.matrix, g->activations),
                             clq_input_kind_of(&w[b.up], b.matrix, g->activations)};
    return clq_same_input_kind(&gates[0], &gates[1]) && clq_same_input_kind(&ups[0], &ups[1]);
}

void clq_graph_experts(clq_graph *g, const clq_placed *p, const clq_pass *pass, const clq_expert_run *runs,
                       uint32_t n_runs, uint64_t gather)
{
    const clq_net *n = g->net;
    const clq_state *st = g->state;
    uint64_t width = clq_graph_max(n->expert_ffn, n->features & CLQ_HAS_SHARED_EXPERT ? n->shared_ffn : 0);
    bool one = pass->tokens - pass->from == 1;
    if (n_runs == 0) return;
    if (!one) {
        const clq_expert_run *last = &runs[n_runs - 1];
        clq_step *s = clq_graph_add(g, CLQ_STEP_GATHER, last->first + last->tokens, 0);
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
        clq_graph_activation(g, runs[i].tokens, cols, cols, st->gate + at, st->up + at, st->act + at,
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
        clq_step *s = clq_graph_add(g, CLQ_STEP_SCATTER, runs[i].tokens, 0);
        s->cols = n->embd;
        s->in = st->expert_out + (uint64_t)runs[i].first * n->embd;
        s->in2 = runs[i].route;
        s->out = clq_graph_live_rows(g, pass, st->x);
    }
    free(places);
}

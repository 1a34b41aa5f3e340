// SPDX-License-Identifier: MIT
// What graph.c and graph_experts.c make steps with.
#ifndef CLQ_MODEL_GRAPH_STEPS_H
#define CLQ_MODEL_GRAPH_STEPS_H

#include "model/graph.h"

static inline uint64_t clq_graph_max(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t clq_graph_round_16(uint64_t n) { return (n + 15) / 16 * 16; }
static inline uint64_t clq_graph_shifted(uint64_t offset, uint64_t by)
{
    return offset == CLQ_NONE ? CLQ_NONE : offset + by;
}

// Rows of the hidden states that are still needed.
static inline uint64_t clq_graph_live_rows(const clq_graph *g, const clq_pass *pass, uint64_t at)
{
    return at + (uint64_t)pass->from * g->net->embd;
}

// How the inputs of a weight's products are prepared.
typedef struct {
    uint32_t mode;
    clq_activation activation;
} clq_input_kind;

clq_input_kind clq_input_kind_of(const clq_weight *w, uint32_t matrix, clq_rounding wish);
bool clq_same_input_kind(const clq_input_kind *a, const clq_input_kind *b);

// A step with no weight. Without memory g->failed is set and the step goes nowhere.
clq_step *clq_graph_add(clq_graph *g, uint32_t kind, uint32_t tokens, unsigned flags);
// One matrix of a placed weight for a step.
void clq_graph_set_weight(clq_step *s, const clq_placed *p, const clq_weight *w, uint32_t matrix);
// The same of the unit's weight `which`, or of what the graph has instead.
void clq_graph_use_weight(const clq_graph *g, clq_step *s, const clq_placed *p, int which, uint32_t matrix);
// Adds in[tokens][cols] to the observations of a matrix of the weight, where it has any.
void clq_graph_observe(clq_graph *g, int which, uint32_t matrix, uint32_t tokens, uint32_t cols, uint64_t in);
// The ranges of in[tokens][cols], at the place of rows from `first` on.
void clq_graph_measure(clq_graph *g, uint32_t tokens, uint32_t cols, uint64_t in, uint32_t first, unsigned flags);
// The PREP of in[tokens][cols] for a weight.
clq_step *clq_graph_prepare(clq_graph *g, const clq_input_kind *kind, int which, uint32_t tokens, uint32_t cols,
                            uint64_t in, uint64_t out, unsigned flags);
// act(gate[m][cols]) (* up[m][cols]) to out.
void clq_graph_activation(clq_graph *g, uint32_t tokens, uint32_t cols, uint32_t stride, uint64_t gate, uint64_t up,
                          uint64_t out, unsigned flags);

#endif

// SPDX-License-Identifier: MIT
// The steps of a forward pass (clquant_steps.h): the places of activations in the state, and what a part of the model
// adds to the list. Nothing here runs or loads anything.
#ifndef CLQ_MODEL_GRAPH_H
#define CLQ_MODEL_GRAPH_H

#include "model/weights.h"
#include "ops/steps.h"

enum { CLQ_N_MODES = CLQ_MODE_I8 + 1 };
// Rows of logits that are made at a time: as many as so many floats hold, within bounds.
enum { CLQ_LOGITS = 1 << 23, CLQ_MIN_LOGIT_ROWS = 16, CLQ_MAX_LOGIT_ROWS = 128 };

// Places in the state, in floats, for at most `batch` tokens. Rows are contiguous.
typedef struct clq_state {
    uint32_t batch, logit_rows, expert_rows; // expert_rows: of the experts that run at the same time
    uint64_t inputs, n_inputs;    // what the host writes for a pass: ids, tables of angles
    uint64_t x, h, sum;           // [batch][embd]: the hidden states, a norm of them, what a part adds
    uint64_t q, k, v;             // [batch][heads * head_dim] ...; fused: one [batch][all] at q
    uint64_t attended;            // [batch][heads * head_dim]
    uint64_t gate, up, act;       // [batch][ffn]; fused: gate and up are one [batch][2 * ffn] at gate
    uint64_t prep[CLQ_N_MODES];   // prepared inputs in each mode that the model needs
    uint32_t places;              // in each mode
    uint64_t place_floats[CLQ_N_MODES]; // of one of the places there, for weights that share an input but not its rounding
    uint64_t ranges;              // [batch][2]: of the tokens, for CLQ_QUANT_TENSOR
    uint64_t status;              // a word: what a PREP found bad
    uint64_t observed;            // extra floats of the caller's
    uint64_t router;              // [batch][experts (+ 1 with a shared expert)]
    uint64_t routes;              // what the host writes for the experts
    uint64_t expert_in, expert_out; // [expert_rows][embd]
    uint64_t final, logits;       // [logit_rows][embd], [logit_rows][vocab]
    uint64_t n_floats;            // of all
} clq_state;

// What the inputs of weights need in the state. All zero but `places`, which is 1, to begin with.
typedef struct clq_input_needs {
    unsigned modes;    // bits
    uint32_t places;   // prepared inputs in one mode at the same time
    bool rounds;       // something is rounded
    uint64_t observed; // floats for observations
} clq_input_needs;

// Adds what a unit needs.
void clq_unit_needs(const clq_unit *unit, clq_rounding activations, clq_input_needs *needs);
// false: too large to count.
bool clq_state_plan(const clq_net *net, uint32_t batch, const clq_input_needs *needs, clq_state *state);

// Where the inputs of a layer's weights are observed: slots of observations (clquant_steps.h), floats in the state.
typedef struct clq_taps {
    uint64_t slots[CLQ_N_WEIGHTS]; // of the first matrix; CLQ_NONE: not observed, or with a weight before it
    uint64_t slot_floats[CLQ_N_WEIGHTS]; // from matrix to matrix
    uint32_t gram;      // behind each slot stand sums of products of inputs: 0: none, CLQ_GRAM_ALL: [cols][cols], else
                        // blocks of so many columns, nothing where that does not divide them (clq_gram_block)
    bool without_values; // without the histograms
} clq_taps;

#define CLQ_GRAM_ALL UINT32_MAX
// The width of the blocks of a Gram matrix of `cols` columns.
static inline uint32_t clq_gram_block(uint32_t gram, uint32_t cols)
{
    return gram == CLQ_GRAM_ALL ? cols : cols % gram ? 0 : gram;
}

// Where inputs of a layer's weights (not of experts) are copied to, row by row.
typedef struct clq_copies {
    uint64_t at[CLQ_N_WEIGHTS]; // floats in the state, [rows][cols]; CLQ_NONE: not copied
    uint64_t ones;              // so many floats 1 as the widest input has columns
    uint64_t first;             // row of the next token
} clq_copies;

// A unit at its place in the memory of the steps that are made.
typedef struct clq_placed {
    const clq_unit *unit;
    uint64_t base;
} clq_placed;

typedef struct clq_graph {
    const clq_net *net;
    const clq_state *state;
    clq_rounding activations;
    bool rounds;            // the state's status may be set
    const clq_taps *taps;   // NULL: nothing is observed
    const clq_copies *copies; // NULL: nothing is copied
    // NULL, or [CLQ_N_WEIGHTS]: places in the state of floats that are used instead of the unit's weights, which are
    // F32, too; CLQ_NONE: the unit's
    const uint64_t *instead;
    const clq_activation *instead_inputs; // how the inputs of those are rounded; NULL: not
    uint32_t layer;         // that steps are made for; the number of layers: the head
    clq_format_id cache_type;
    uint32_t positions;     // of the cache
    uint64_t layer_bytes;   // of the cache: keys, then values; 0: layers share one place
    clq_step *steps;        // owned
    uint32_t n_steps, capacity;
    bool failed;            // no memory, on the host or planned in the state
} clq_graph;

// Tokens that go through the layers together. Offsets are floats in the state.
typedef struct clq_pass {
    uint32_t tokens, position; // the first one's position
    uint32_t from;             // rows before it are not needed behind this layer (keys and values are)
    uint64_t ids, position_ids, type_ids; // int32 [tokens]
    uint64_t tables[CLQ_N_ROPES];
} clq_pass;

// Tokens that one expert works on.
enum { CLQ_SHARED_EXPERT = -1 };
typedef struct clq_expert_run {
    int32_t expert;
    uint32_t tokens, first; // first: of its rows among those of the runs that run together
    uint64_t route;         // place in the state: int32 row ids [tokens], float scales [tokens]
} clq_expert_run;

void clq_graph_free(clq_graph *g);
// Tokens to hidden states at state.x.
void clq_graph_embed(clq_graph *g, const clq_placed *embed, const clq_pass *pass);
// state.x through a layer's attention.
void clq_graph_attention(clq_graph *g, const clq_placed *layer, uint32_t index, const clq_pass *pass);
// state.x through its feed-forward network.
void clq_graph_ffn(clq_graph *g, const clq_placed *layer, const clq_pass *pass);
// Modules on inputs that are given. in: as the norm before the module leaves it, [tokens][embd]; out: [tokens][embd], what
// the module adds, before any norm behind it. With an attention, `tokens` are those of the pass, all of them.
void clq_graph_attention_module(clq_graph *g, const clq_placed *layer, uint32_t index, const clq_pass *pass, uint64_t in,
                                uint64_t out);
void clq_graph_ffn_module(clq_graph *g, const clq_placed *layer, uint32_t tokens, uint64_t in, uint64_t out);
// The product with one matrix: in[tokens][cols], out[tokens][rows]; at most as many tokens as a batch has.
void clq_graph_linear_module(clq_graph *g, const clq_placed *layer, int which, uint32_t matrix, uint32_t tokens,
                             uint64_t in, uint64_t out);
// The router's logits at state.router of so many rows of state.h.
void clq_graph_router_module(clq_graph *g, const clq_placed *layer, uint32_t tokens);
// The router's logits at state.router, the normed hidden states at state.h.
void clq_graph_router(clq_graph *g, const clq_placed *layer, const clq_pass *pass);
// Adds to state.x what experts make of state.h: `runs` together have at most state.expert_rows rows. gather: int32 ids
// of all their rows in the state; with one token in the pass it does not count.
void clq_graph_experts(clq_graph *g, const clq_placed *layer, const clq_pass *pass, const clq_expert_run *runs,
                       uint32_t n_runs, uint64_t gather);
// Rows [from, from + n) of state.x through the final norm, to `out` (floats in the state); encoders have none.
void clq_graph_final_norm(clq_graph *g, const clq_placed *head, uint32_t from, uint32_t n, uint64_t out);
// Logits at state.logits of n <= logit_rows rows at state.final. head: the unit that has the matrix.
void clq_graph_head(clq_graph *g, const clq_placed *head, uint32_t n);

#endif

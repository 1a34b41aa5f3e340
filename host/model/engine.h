// SPDX-License-Identifier: MIT
// What passes through a model need, whoever drives them: runtime.c whole models, layers.c one layer at a time.
#ifndef CLQ_MODEL_ENGINE_H
#define CLQ_MODEL_ENGINE_H

#include "model/experts.h"
#include "model/tokenizer.h"

typedef struct clq_engine {
    clq_device *device;
    const clq_hooks *hooks;
    bool as_floats; // weights of layers are F32 on the device
    clq_view view;
    clq_net net;
    clq_unit embed, head, *layers; // planned, wherever they are loaded
    uint64_t n_weights, weight_bytes;
    clq_memory *state_memory, *cache;
    clq_memory *current; // of weights, that the steps in the graph are for
    clq_state state;
    clq_graph graph;
    clq_routing routing;
    uint32_t *inputs; // words of state.inputs, on the host
} clq_engine;

// Plans the units, refuses tensors that have no place in them, and tells the device which types of weights there are.
// Needs view, net and graph.activations.
clq_status clq_engine_plan_units(clq_engine *e, clq_error *err);
// What the units ask of the state's plan.
clq_input_needs clq_engine_needs(const clq_engine *e);
// Memory of the host for state.batch tokens. Needs the state's plan.
clq_status clq_engine_buffers(clq_engine *e, clq_error *err);
// Makes the cache, of `layers` layers of graph.positions each (layers that come one after the other share one place: 1),
// and the state. CLQ_DEVICE when there is no room.
clq_status clq_engine_memories(clq_engine *e, uint32_t layers, clq_error *err);
void clq_engine_free(clq_engine *e);

// NULL in *tokenizer where the model has none.
clq_status clq_view_tokenizer(const clq_view *view, clq_tokenizer **tokenizer, clq_error *err);

// Starts the steps made so far.
clq_status clq_engine_flush(clq_engine *e, clq_error *err);
// What is added from now on uses that memory of weights.
clq_status clq_engine_enter(clq_engine *e, clq_memory *weights, clq_error *err);
// Floats of the state, behind all steps so far. CLQ_BAD_INPUT, naming the weight, when a step met an activation that
// cannot be rounded.
clq_status clq_engine_read(clq_engine *e, uint64_t at, uint64_t n_floats, float *to, clq_error *err);
// The ids and angles of a pass, whose tokens and position are set.
clq_status clq_engine_inputs(clq_engine *e, const int32_t *tokens, clq_pass *pass, clq_error *err);
// state.x through a layer whose memory was entered.
clq_status clq_engine_layer(clq_engine *e, const clq_placed *placed, uint32_t layer, const clq_pass *pass,
                            clq_error *err);

// As clq_graph_ffn_module, of a layer with experts. ones, zeros: so many floats 1 and 0 in the state as a hidden state has.
// Uses state.x and state.h.
clq_status clq_engine_experts_module(clq_engine *e, const clq_placed *placed, const clq_pass *pass, uint64_t in,
                                     uint64_t ones, uint64_t zeros, uint64_t out, clq_error *err);

#endif

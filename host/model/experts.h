// SPDX-License-Identifier: MIT
// Which tokens go to which experts: what the host does between a router and the experts.
#ifndef CLQ_MODEL_EXPERTS_H
#define CLQ_MODEL_EXPERTS_H

#include "model/graph.h"

// Buffers for `batch` tokens; all zero where the model has no experts.
typedef struct clq_routing {
    float *logits;         // [tokens][experts (+ 1: the shared expert's gate)], read from the device
    clq_expert_run *runs;  // by expert, the shared one last
    uint32_t n_runs;
    uint32_t *words;       // for state.routes: ids of all rows, then each run's ids and scales
    uint32_t n_rows;       // of all runs; words has 3 of them a row
    int32_t *chosen;       // [tokens][experts_used]
    float *weights;
    uint32_t *counts, *places, *filled; // [experts]: rows, the first one, how many are filled in
    bool *taken;
} clq_routing;

clq_status clq_routing_create(const clq_net *net, uint32_t batch, clq_routing *r, clq_error *err);
void clq_routing_free(clq_routing *r);
// From r->logits of so many tokens to runs and words. Runs are cut into groups that have at most state->expert_rows
// rows: run i begins one where i is 0 or its `first` is 0.
void clq_routing_plan(const clq_net *net, const clq_state *state, uint32_t tokens, clq_routing *r);

#endif

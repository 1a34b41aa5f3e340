// SPDX-License-Identifier: MIT
// Where the units of a model live on the device: all in one memory where they fit, in several where one memory cannot
// be large enough, and, where the device has not enough, the last layers in turn in two slots.
#ifndef CLQ_MODEL_RESIDENCE_H
#define CLQ_MODEL_RESIDENCE_H

#include "model/graph.h"

typedef struct clq_place {
    uint32_t memory;
    uint64_t base;
} clq_place;

typedef struct clq_residence {
    const clq_view *view;
    const clq_unit *layers;
    clq_memory **memories;
    uint32_t n_memories, n_layers, n_resident;
    clq_place *places;      // embedding, head, layers
    const clq_unit *ends[2];
    uint32_t slots[2];      // memories of streamed layers
    int64_t in_slot[2];     // the layer there, -1: none
} clq_residence;

enum { CLQ_END_EMBED, CLQ_END_HEAD };

// units: embedding, head, layers (n of them behind one another). max_memory: bytes for all weights, 0: no limit.
// CLQ_DEVICE when not even the ends and two layers fit, or one unit is larger than an allocation may be.
clq_status clq_residence_create(clq_device *device, const clq_view *view, const clq_unit *embed,
                                const clq_unit *head, const clq_unit *layers, uint32_t n_layers, uint64_t max_memory,
                                clq_residence *r, clq_error *err);
void clq_residence_free(clq_residence *r);
// A unit's place and memory. A streamed layer is loaded: steps that use the layer two before must have been started.
void clq_residence_end(const clq_residence *r, int which, clq_placed *placed, clq_memory **memory);
clq_status clq_residence_layer(clq_residence *r, uint32_t layer, clq_placed *placed, clq_memory **memory,
                               clq_error *err);

#endif

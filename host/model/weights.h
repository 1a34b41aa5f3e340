// SPDX-License-Identifier: MIT
// The tensors of a model as a device holds them. A unit is what is loaded together: the embedding, a layer, the head.
// Units are planned (shapes checked, places given) before any memory exists, and can be loaded anywhere.
#ifndef CLQ_MODEL_WEIGHTS_H
#define CLQ_MODEL_WEIGHTS_H

#include "clquant_steps.h"
#include "device/device.h"
#include "model/net.h"

enum { // tensors of all units
    // embedding
    CLQ_W_EMBED, CLQ_W_POSITIONS, CLQ_W_TYPES, CLQ_W_EMBED_NORM,
    // head; with a tied embedding they stand in the embedding's unit
    CLQ_W_OUTPUT_NORM, CLQ_W_OUTPUT,
    // layer
    CLQ_W_ATTN_NORM, CLQ_W_Q, CLQ_W_K, CLQ_W_V, CLQ_W_QKV, CLQ_W_Q_NORM, CLQ_W_K_NORM, CLQ_W_O, CLQ_W_POST_ATTN_NORM,
    CLQ_W_FFN_NORM, CLQ_W_GATE, CLQ_W_UP, CLQ_W_DOWN, CLQ_W_POST_FFN_NORM, CLQ_W_ROUTER, CLQ_W_GATE_EXPS,
    CLQ_W_UP_EXPS, CLQ_W_DOWN_EXPS, CLQ_W_SHARED_ROUTER, CLQ_W_SHARED_GATE, CLQ_W_SHARED_UP, CLQ_W_SHARED_DOWN,
    CLQ_N_WEIGHTS
};

// A weight in its unit. Offsets are bytes from the unit's begin; CLQ_NONE: not there.
typedef struct clq_weight {
    const clq_view_tensor *tensor, *bias_tensor; // NULL: not there
    clq_type type;         // as the device holds it; CLQ_F32 for vectors
    bool is_vector;        // one row of floats, its bias as long
    uint32_t rows, cols;   // of one matrix
    uint32_t count;        // matrices one behind the other: experts
    uint32_t groups;       // CLQ_INT: scales of a row, 0: one for the matrix
    uint64_t w, scales, zero_points, group_index, bias;
    uint64_t code_sums;    // of integers of 8 bits: int32, the sum of each row's codes
    const clq_source *source;
    uint64_t code_bytes, n_scales; // of one matrix
} clq_weight;

typedef struct clq_unit {
    clq_weight weights[CLQ_N_WEIGHTS];
    uint64_t n_bytes; // a multiple of 64
} clq_unit;

enum { CLQ_UNIT_EMBED = -1, CLQ_UNIT_HEAD = -2 }; // else a layer

// How the checkpoint wants the inputs of one of the weight's matrices rounded.
clq_activation clq_weight_activation(const clq_weight *w, uint32_t matrix);

// Behind the last unit of a memory stand so many zeros: kernels may read a little behind a row.
enum { CLQ_WEIGHT_PADDING = 256 };

// Finds and places a unit's tensors. CLQ_BAD_INPUT with the tensor where one is missing or of another shape.
// floats: the device gets F32, however they are stored.
clq_status clq_unit_plan(const clq_view *view, const clq_net *net, int32_t which, bool floats, clq_unit *unit,
                         clq_error *err);
// Copies a unit's tensors to `base` (a multiple of 64) of a memory.
clq_status clq_unit_load(const clq_view *view, const clq_unit *unit, clq_memory *memory, uint64_t base,
                         clq_error *err);

#endif

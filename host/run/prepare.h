// SPDX-License-Identifier: MIT
// Between a plan and the method that prepares its weights: which entries wait for which layer, and what their tiles are
// made of.
#ifndef CLQ_RUN_PREPARE_H
#define CLQ_RUN_PREPARE_H

#include "device/device.h"
#include "io/output.h"
#include "run/plan.h"

typedef struct clq_preparation clq_preparation;

// The options about methods, and copies of what they lead to. CLQ_USAGE where they make no sense together, or for the
// output.
clq_status clq_plan_take_method(clq_plan *plan, clq_error *err);
// Marks the entries that a method may change, once they have their types: they are no copies.
clq_status clq_plan_mark_prepared(clq_plan *plan, clq_error *err);

// NULL in *preparation where nothing is prepared. The entries that an earlier run completed are marked done.
clq_status clq_preparation_open(clq_plan *plan, clq_device *device, const clq_output *output, uint32_t threads,
                                clq_preparation **preparation, clq_error *err);
// complete: the output is: nothing is kept for a resumed run.
void clq_preparation_close(clq_preparation *preparation, bool complete);
uint64_t clq_preparation_bytes(const clq_preparation *preparation);
// Layers [*first, *end) are to be prepared, in their order.
void clq_preparation_layers(const clq_preparation *preparation, uint32_t *first, uint32_t *end);
int32_t clq_preparation_layer_of(const clq_preparation *preparation, const clq_entry *e); // -1: of none
clq_status clq_preparation_next(clq_preparation *preparation, clq_error *err);
clq_status clq_preparation_taken(clq_preparation *preparation, clq_error *err); // all entries of the layer are written

// Before an entry's first tile: its activation and its importance become those of the prepared weight. The importance that
// is returned is valid until the next entry; NULL: none.
clq_status clq_preparation_begin(clq_preparation *preparation, clq_entry *e, clq_error *err);
// Whether the entry's tiles are made by clq_preparation_tile(), from floats.
bool clq_preparation_has(const clq_preparation *preparation, const clq_entry *e);
// Rows [first, first + rows) as floats; false: the method does not have them, and the caller loads them.
bool clq_preparation_floats(const clq_preparation *preparation, const clq_entry *e, uint64_t first, uint64_t rows,
                            float *floats);
// The scales that they are encoded with, into the tile; valid until the next tile.
clq_status clq_preparation_scales(clq_preparation *preparation, const clq_entry *e, uint64_t first, const float *floats,
                                  clq_tile *tile, clq_error *err);
// What became of the values of a tensor that was rounded before it was encoded.
void clq_preparation_stats(const clq_preparation *preparation, const clq_entry *e, clq_stats *stats);
// Weights of rows' columns: those of the plan, as they are behind the method's factors. NULL: none.
const float *clq_preparation_importance(const clq_preparation *preparation, const clq_entry *e, uint64_t row);

#endif

// SPDX-License-Identifier: MIT
// What the layouts of a folder can hold, and weights that go from one to another as they are.
#ifndef CLQ_RUN_PACKING_H
#define CLQ_RUN_PACKING_H

#include "run/plan.h"

clq_packing clq_layout_packing(clq_layout layout);
// Why the layout has no weights of that type, as the end of a sentence; NULL: it has. kept: the weight's numbers are
// there already, so that those that it cannot hold are found by looking.
const char *clq_layout_refuses(clq_layout layout, const clq_type *type, bool kept);
// Whether the weight of that name and shape can be stored so; else why not.
bool clq_layout_takes(clq_layout layout, const char *name, uint32_t n_dims, const clq_type *type, uint64_t rows,
                      uint64_t cols, char note[96]);

// The layout and the name of the output, and the options that go with the layout.
clq_status clq_plan_check_layout(const clq_plan *plan, clq_error *err);
// An entry whose type and matrix are chosen, and t its source: where the weight has that type already, a copy of its
// bytes, or of its numbers in another packing. CLQ_BAD_INPUT where it must be kept and cannot.
clq_status clq_entry_keep_int(const clq_plan *plan, clq_entry *e, const clq_tensor *t, clq_error *err);
// After all entries have their types: what they say together, and, of weights that keep their numbers, whether scales
// and zero-points can be kept. CLQ_USAGE or CLQ_BAD_INPUT with the tensor's name.
clq_status clq_plan_check_packing(const clq_plan *plan, clq_error *err);
// quantization_config of AWQ or GPTQ; NULL: no weight is quantized, or no memory.
json_t *clq_columns_config(const clq_plan *plan);

#endif

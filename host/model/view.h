// SPDX-License-Identifier: MIT
// The GGUF side of any source: metadata, and tensors under GGUF's names and shapes with their origins.
#ifndef CLQ_MODEL_VIEW_H
#define CLQ_MODEL_VIEW_H

#include "model/translate.h"

typedef struct clq_view_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS];
    clq_origin from;
    const float *computed; // not NULL: the values; `from` does not count
} clq_view_tensor;

typedef struct clq_view {
    const clq_source *source;
    const clq_gguf_kvs *kvs;
    clq_view_tensor *tensors; // sorted by name
    uint32_t n_tensors;
    clq_translation translation; // of a folder
} clq_view;

// The source must outlive the view. CLQ_BAD_INPUT when it is neither a GGUF file nor a folder with a config.json that
// has a counterpart in GGUF.
clq_status clq_view_create(const clq_source *source, clq_view *view, clq_error *err);
void clq_view_free(clq_view *view);
// NULL when there is none of that name.
const clq_view_tensor *clq_view_find(const clq_view *view, const char *name);

#endif

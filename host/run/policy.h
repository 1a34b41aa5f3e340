// SPDX-License-Identifier: MIT
// Which type each tensor gets.
#ifndef CLQ_RUN_POLICY_H
#define CLQ_RUN_POLICY_H

#include "io/source.h"

// A tensor as the output will hold it.
typedef struct clq_subject {
    const char *name;     // in the output
    const clq_tensor *t;  // in the source
    bool to_gguf, from_gguf;
    uint32_t index;       // of the source tensor, for messages
} clq_subject;

typedef struct clq_choice {
    clq_type type;
    bool quantized;       // counts as quantized in reports
    uint64_t rows, cols;  // the matrix that the type sees
    char note[96];        // why it is not the type asked for
    bool fallback;        // because of the shape; `asked` is the type that it could not be
    clq_type asked;
} clq_choice;

typedef struct clq_policy clq_policy;

// Whether a folder's tensor is the weight of a Linear or convolution module that loaders expect to be quantized.
bool clq_is_linear_weight(const char *name, uint32_t n_dims);

// Compiles the rules. CLQ_USAGE for a bad pattern. kvs: the metadata of a GGUF output.
clq_status clq_policy_create(const clq_quantize_options *options, bool to_gguf, const clq_gguf_kvs *kvs,
                             bool has_imatrix, clq_policy **policy, clq_error *err);
void clq_policy_free(clq_policy *policy);
// GGUF: to be called with each name of the output before the first clq_policy_choose().
void clq_policy_see(clq_policy *policy, const char *name);
// GGUF: in the order of clq_mix_order(), because the rules of mixes count tensors.
clq_status clq_policy_choose(clq_policy *policy, const clq_subject *s, clq_choice *choice, clq_error *err);
// After all tensors: a rule that matched nothing is an error.
clq_status clq_policy_finish(const clq_policy *policy, clq_error *err);

#endif

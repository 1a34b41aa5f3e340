// SPDX-License-Identifier: MIT
// The architectures that have a counterpart on the other side, as tables: tensor names and shapes,
// hyperparameters, constants. An architecture that needs no new idea is one more row.
#ifndef CLQ_MODEL_ARCH_H
#define CLQ_MODEL_ARCH_H

#include "model/json.h"
#include "model/translate.h"

enum { CLQ_MAX_LAYERS = 4096 };

// One hyperparameter under its two names. `size` is its letter in tensor shapes, 0 for none.
typedef struct clq_hyper {
    const char *hf;   // key in config.json
    const char *gguf; // behind "<architecture>."
    bool is_float, required;
    char size;
} clq_hyper;

enum {
    CLQ_ROW_REQUIRED = 1, // in every model (in every layer)
    CLQ_ROW_BIAS_REQUIRED = 2,
    CLQ_ROW_BIAS = 4,    // a bias may stand beside the weight
    CLQ_ROW_ROPE_Q = 8,  // rows are reordered by n_heads
    CLQ_ROW_ROPE_K = 16, // rows are reordered by n_kv_heads
    CLQ_ROW_TIED = 32,   // not stored when tie_word_embeddings
};

// One tensor (or one of each layer: '%' stands for the layer) under its two names, without
// ".weight" or ".bias". shape: a letter a dimension; a bias has the first one.
//   V vocabulary  E hidden size  F feed-forward size  P positions  T token types
//   Q heads * head_dim  K key-value heads * head_dim
typedef struct clq_tensor_row {
    const char *hf, *gguf, *shape;
    unsigned flags;
} clq_tensor_row;

// A string that config.json must hold (or lack), because GGUF cannot say anything else. It is
// written to config.json.
typedef struct clq_constant {
    const char *key, *value, *also; // also: a second accepted value, NULL for none
} clq_constant;

// Biases that config.json switches together: rows whose HF name contains `part` have either all
// biases or none.
typedef struct clq_bias_group {
    const char *key, *part;
} clq_bias_group;

typedef struct clq_arch {
    const char *name;              // GGUF's general.architecture
    const char *model_type;        // written to config.json
    const char *const *classes;    // accepted in config.json's "architectures"; [0] is written
    const char *optional_prefix;   // of HF tensor names, accepted and not written; NULL: none
    const char *missing_prefix;    // of HF tensor names, may be missing; NULL: none
    const clq_hyper *hypers;       // ends with hf NULL; in GGUF's order
    const clq_tensor_row *tensors; // ends with hf NULL; in the output's order
    const clq_constant *constants; // ends with key NULL
    const clq_bias_group *biases;  // ends with key NULL; NULL: none
    const char *const *dropped;    // HF names that GGUF does not store, as fnmatch patterns
    bool has_rope;                 // rotary position embeddings
    bool is_encoder;               // bidirectional attention, pooling
} clq_arch;

const clq_arch *clq_arch_find(const char *gguf_name); // NULL: unknown
// By config.json's "architectures", else by its "model_type"; CLQ_BAD_INPUT when unknown.
clq_status clq_arch_of_config(const json_t *config, const clq_arch **arch, clq_error *err);

// Sizes of one model, all of them checked: heads > 0, kv_heads divides heads, head_dim even where
// the architecture has rotary embeddings.
typedef struct clq_sizes {
    uint32_t layers, embd, ffn, heads, kv_heads, head_dim, vocab, positions, token_types;
    bool explicit_head_dim;
} clq_sizes;

// Hyperparameters, both ways. To GGUF they are written to kvs, to Hugging Face to config.
clq_status clq_hypers_to_gguf(const clq_arch *arch, const json_t *config, clq_sizes *sizes,
                              clq_gguf_kvs *kvs, clq_error *err);
// vocab and token_types are not in every GGUF file's metadata: they come from its tensors.
clq_status clq_hypers_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                            json_t *config, clq_error *err);

// Scaling of rotary embeddings, both ways (rope.c).
clq_status clq_rope_to_gguf(const clq_arch *arch, const json_t *config, const clq_sizes *sizes,
                            clq_translation *out, clq_error *err);
clq_status clq_rope_to_hf(const clq_arch *arch, const clq_source *gguf, const clq_sizes *sizes,
                          json_t *config, clq_error *err);

// The row of a tensor name, and its layer (0 for rows without '%'); NULL: none. is_bias: the name
// ends in ".bias" (or ".beta"), else in ".weight" (or ".gamma").
const clq_tensor_row *clq_row_of_hf(const clq_arch *arch, const char *name, uint32_t *layer,
                                    bool *is_bias);
const clq_tensor_row *clq_row_of_gguf(const clq_arch *arch, const char *name, uint32_t *layer,
                                      bool *is_bias);
// A row's name with layer and suffix put in; NULL: no memory.
char *clq_row_name(const char *pattern, uint32_t layer, bool is_bias);
// Whether an HF tensor is one that GGUF leaves out.
bool clq_arch_drops(const clq_arch *arch, const char *name);

// CLQ_BAD_INPUT unless the tensor has the row's shape.
clq_status clq_row_check(const clq_tensor_row *row, bool is_bias, const clq_tensor *t,
                         const clq_sizes *sizes, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
// The architectures that have a counterpart on the other side, as tables (arch_tables.c): tensor
// names and shapes, hyperparameters, constants. An architecture that needs no new idea is one more
// row.
#ifndef CLQ_MODEL_ARCH_H
#define CLQ_MODEL_ARCH_H

#include "model/json.h"
#include "model/translate.h"

enum { CLQ_MAX_LAYERS = 4096, CLQ_MAX_EXPERTS = 1024 };

// One hyperparameter under its two names. `size` is its letter in tensor shapes, 0 for none.
typedef struct clq_hyper {
    const char *hf;   // key in config.json
    const char *gguf; // behind "<architecture>."
    bool is_float, required;
    char size;
    const char *hf_also; // another key in config.json, NULL for none
    double if_missing;   // what a missing key means in GGUF, 0 for nothing
} clq_hyper;

enum {
    CLQ_ROW_REQUIRED = 1, // in every model (in every layer)
    CLQ_ROW_BIAS_REQUIRED = 2,
    CLQ_ROW_BIAS = 4,    // a bias may stand beside the weight
    CLQ_ROW_ROPE_Q = 8,  // rows are reordered by n_heads
    CLQ_ROW_ROPE_K = 16, // rows are reordered by n_kv_heads
    CLQ_ROW_TIED = 32,   // not stored when tie_word_embeddings
    CLQ_ROW_NORM1 = 64,  // GGUF stores the weight plus 1
};

// One tensor (or one of each layer: '%' stands for the layer) under its two names, without
// ".weight" or ".bias". shape: a letter a dimension; a bias has the first one.
//   V vocabulary  E hidden size  F feed-forward size  P positions  T token types
//   Q heads * head size  K key-value heads * head size  D head size  A = Q + 2 K  U = 2 F
//   N experts  X feed-forward size of an expert  S of the shared expert  1 one
// '#' in the HF name stands for the expert: those tensors are the slices of GGUF's, whose first
// dimension is N.
typedef struct clq_tensor_row {
    const char *hf, *gguf, *shape;
    unsigned flags;
} clq_tensor_row;

// What config.json must hold (or lack), because GGUF cannot say anything else. It is written to
// config.json.
typedef struct clq_constant {
    const char *key, *value, *also; // strings; also: a second accepted value, NULL for none
    bool is_flag, flag;             // or a boolean
    bool is_null;                   // or null
} clq_constant;

// Biases that config.json switches together: rows that can have a bias and whose HF name contains
// `part` have either all biases or none.
typedef struct clq_bias_group {
    const char *key, *part;
} clq_bias_group;

typedef struct clq_arch {
    const char *name;              // GGUF's general.architecture
    const char *model_type;        // in config.json
    const char *const *classes;    // accepted in config.json's "architectures"; [0] is written
    const char *optional_prefix;   // of HF tensor names, accepted and not written; NULL: none
    const char *missing_prefix;    // of HF tensor names, may be missing; NULL: none
    const clq_hyper *hypers;       // ends with hf NULL; in GGUF's order
    const clq_hyper *more_hypers;  // those that other architectures do not have; NULL: none
    const clq_tensor_row *tensors; // ends with hf NULL; in the output's order
    const clq_constant *constants; // ends with key NULL
    const clq_bias_group *biases;  // ends with key NULL; NULL: none
    const char *const *dropped;    // HF names that GGUF does not store, as fnmatch patterns
    double rope_base;              // when config.json does not say; 0: no rotary embeddings
    bool rope_dims;                // GGUF has rope.dimension_count
    bool partial_rope;             // a part of each head may be rotated
    bool long_rope;                // two lists of factors, for short and for long texts
    bool local_rope;               // sliding layers have a base of their own
    uint32_t window_pattern;       // every so many layers one attends to all; 0: no sliding windows
    uint32_t window_default;       // a window that is not in the metadata; 0: no window
    bool window_kept;              // a sliding window has a place in GGUF
    bool scaled_queries;           // config.json's query_pre_attn_scalar
    uint32_t scaled_by_width;      // with that: the number of layers at which it is not the head size
    bool has_experts;              // tells from an architecture of the same GGUF name
    bool tied_by_default;          // tie_word_embeddings, when config.json does not say
    bool trims_vocabulary;         // rows of the embedding without a token are not stored in GGUF
    bool no_space_prefix;          // a text gets no space in front, whatever the tokenizer's files say
    bool may_pool;                 // can be an embedding model
    bool is_encoder;               // bidirectional attention, pooling
} clq_arch;

// CLQ_BAD_INPUT when unknown.
clq_status clq_arch_of_gguf(const clq_source *gguf, const clq_arch **arch, clq_error *err);
// By config.json's "architectures", else by its "model_type"; CLQ_BAD_INPUT when unknown.
clq_status clq_arch_of_config(const json_t *config, const clq_arch **arch, clq_error *err);
// The table (arch_tables.c).
extern const clq_arch clq_archs[];
extern const size_t clq_n_archs;

// Sizes of one model, all of them checked: heads > 0, kv_heads divides heads, head_dim even where
// the architecture has rotary embeddings.
typedef struct clq_sizes {
    uint32_t layers, embd, ffn, heads, kv_heads, head_dim, vocab, positions, token_types;
    uint32_t experts, expert_ffn, shared_ffn;
    uint32_t rope_dims;  // elements of a head that are rotated
    uint32_t vocab_kept; // rows of the vocabulary that the other side gets; 0: all
    bool explicit_head_dim;
} clq_sizes;

// Hyperparameters, both ways. To GGUF they are written to kvs, to Hugging Face to config.
clq_status clq_hypers_to_gguf(const clq_arch *arch, const json_t *config, clq_sizes *sizes,
                              clq_gguf_kvs *kvs, clq_error *err);
// vocab and token_types are not in every GGUF file's metadata: they come from its tensors.
clq_status clq_hypers_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                            json_t *config, clq_error *err);

// Sliding windows and the scale of queries, both ways (attention.c).
clq_status clq_attention_to_gguf(const clq_arch *arch, const json_t *config, const clq_sizes *sizes,
                                 const clq_hooks *hooks, clq_gguf_kvs *kvs, clq_error *err);
clq_status clq_attention_to_hf(const clq_arch *arch, const clq_gguf_kvs *kvs,
                               const clq_sizes *sizes, json_t *config, clq_error *err);

// Rotary embeddings and their scaling, both ways (rope.c). Sets rope_dims.
clq_status clq_rope_to_gguf(const clq_arch *arch, const json_t *config, clq_sizes *sizes,
                            clq_translation *out, clq_error *err);
clq_status clq_rope_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                          json_t *config, clq_error *err);
// The same of architectures with long_rope (rope_long.c).
clq_status clq_long_rope_to_gguf(const clq_arch *arch, const json_t *config, const json_t *params,
                                 const char *kind, const clq_sizes *sizes, clq_translation *out,
                                 clq_error *err);
clq_status clq_long_rope_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                               json_t *config, clq_error *err);
// Appends a vector of n zeros to out->computed; *data is to be filled in.
clq_status clq_add_computed(clq_translation *out, const char *name, uint32_t n, float **data,
                            clq_error *err);
// Whether a GGUF tensor is one that rope.c reads.
bool clq_rope_reads(const clq_arch *arch, const char *gguf_name);

// Which row a tensor name belongs to. layer and expert are 0 for rows without '%' and '#'. is_bias:
// the name ends in ".bias" (or ".beta"), else in ".weight" (or ".gamma").
typedef struct clq_row_match {
    const clq_tensor_row *row; // NULL: none
    uint32_t layer, expert;
    bool is_bias;
} clq_row_match;

clq_row_match clq_row_of_hf(const clq_arch *arch, const char *name);
clq_row_match clq_row_of_gguf(const clq_arch *arch, const char *name);
// A pattern with layer, expert and suffix put in; NULL: no memory.
char *clq_row_name(const char *pattern, uint32_t layer, uint32_t expert, bool is_bias);
// Whether the row's HF tensors are slices of its GGUF tensor.
bool clq_row_stacks(const clq_tensor_row *row);
// Whether an HF tensor is one that GGUF leaves out.
bool clq_arch_drops(const clq_arch *arch, const char *name);

// CLQ_BAD_INPUT unless the tensor has the row's shape, a slice's when it is one.
clq_status clq_row_check(const clq_tensor_row *row, bool is_bias, bool is_slice,
                         const clq_tensor *t, const clq_sizes *sizes, clq_error *err);

// The tensors of a translation (tensors.c): fills out->tensors; completes sizes that the
// configuration left out. To Hugging Face it also sets tie_word_embeddings and the switches of
// biases in out->config.
clq_status clq_tensors_to_gguf(const clq_arch *arch, const clq_source *hf, clq_sizes *sizes,
                               const clq_hooks *hooks, clq_translation *out, clq_error *err);
clq_status clq_tensors_to_hf(const clq_arch *arch, const clq_source *gguf, const clq_sizes *sizes,
                             clq_translation *out, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
// Hugging Face <-> GGUF: which tensor becomes which, and the metadata on the other side.
#ifndef CLQ_MODEL_TRANSLATE_H
#define CLQ_MODEL_TRANSLATE_H

#include "model/origin.h"

typedef struct clq_translated_tensor {
    char *name; // on the other side
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS];
    clq_origin from;
} clq_translated_tensor;

typedef struct clq_text_file {
    char *name; // "tokenizer.json", "1_Pooling/config.json" (at most one folder)
    char *data;
    size_t len;
} clq_text_file;

// A small tensor that the other side wants and the source does not have (Llama 3's rope_freqs,
// longrope's factors).
typedef struct clq_computed_tensor {
    char *name;
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS];
    float *data; // to be stored as F32
} clq_computed_tensor;

typedef struct clq_translation {
    clq_translated_tensor *tensors; // in the order in which the output holds them
    uint32_t n_tensors, capacity;
    clq_computed_tensor *computed; // to GGUF: stored behind `tensors`
    uint32_t n_computed;
    clq_gguf_kvs kvs;     // to GGUF: all metadata but general.file_type and quantization_version
    json_t *config;       // to Hugging Face: config.json without quantization_config, torch_dtype
    clq_text_file *files; // to Hugging Face: tokenizer files
    uint32_t n_files;
} clq_translation;

// CLQ_BAD_INPUT with the reason where the architecture, a tensor or the tokenizer has no
// counterpart. Tensors that the other side does not store (bert's pooler, position_ids, rotary
// inverse frequencies) are left out and named by a warning.
clq_status clq_translate_to_gguf(const clq_source *hf, const clq_hooks *hooks, clq_translation *out,
                                 clq_error *err);
clq_status clq_translate_to_hf(const clq_source *gguf, const clq_hooks *hooks, clq_translation *out,
                               clq_error *err);
void clq_translation_free(clq_translation *t);

#endif

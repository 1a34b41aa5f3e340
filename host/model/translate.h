// SPDX-License-Identifier: MIT
// Hugging Face <-> GGUF: which tensor becomes which, and the metadata on the other side.
#ifndef CLQ_MODEL_TRANSLATE_H
#define CLQ_MODEL_TRANSLATE_H

#include "io/source.h"

// Row order of rotary position embeddings. GGUF's "llama" interleaves the two halves of a head that
// Hugging Face keeps apart: within each head of hd rows, GGUF row 2i + j is HF row j * (hd / 2) + i.
typedef enum clq_row_order { CLQ_ROWS_KEPT, CLQ_ROWS_HF_TO_GGUF, CLQ_ROWS_GGUF_TO_HF } clq_row_order;

// The source row that becomes row `r` of n_rows.
static inline uint64_t clq_row_from(clq_row_order order, uint32_t n_heads, uint64_t n_rows, uint64_t r)
{
    if (order == CLQ_ROWS_KEPT) return r;
    uint64_t per_head = n_rows / n_heads, half = per_head / 2, in = r % per_head;
    uint64_t from = order == CLQ_ROWS_HF_TO_GGUF ? in % 2 * half + in / 2 : in % half * 2 + in / half;
    return r - in + from;
}

typedef struct clq_translated_tensor {
    char *name;      // on the other side
    uint32_t source; // index into the source's tensors
    clq_row_order order;
    uint32_t n_heads; // with order: rows are n_heads equal heads (also for 1-D biases)
} clq_translated_tensor;

typedef struct clq_text_file {
    char *name; // "tokenizer.json", "1_Pooling/config.json" (at most one folder)
    char *data;
    size_t len;
} clq_text_file;

// A small tensor that the other side wants and the source does not have (Llama 3's rope_freqs).
typedef struct clq_computed_tensor {
    char *name;
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS];
    float *data; // to be stored as F32
} clq_computed_tensor;

typedef struct clq_translation {
    clq_translated_tensor *tensors; // in the order in which the output holds them
    uint32_t n_tensors;
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

// SPDX-License-Identifier: MIT
// A model that runs: weights on a device as they are stored, a cache of keys and values, forward passes.
#ifndef CLQ_MODEL_RUNTIME_H
#define CLQ_MODEL_RUNTIME_H

#include "device/device.h"
#include "io/source.h"
#include "model/tokenizer.h"

typedef struct clq_model_options {
    uint32_t context;          // positions of the cache; 0: what the model was trained on, at most 4096
    uint32_t batch;            // tokens of one pass, at most; 0: 512
    bool int8_activations;     // products with quantized weights round activations to int8, as llama.cpp does
    clq_format_id cache_type;  // CLQ_F32, CLQ_F16 or CLQ_Q8_0
    uint64_t max_memory;       // bytes on the device; layers that do not fit are streamed. 0: what the device has
    const clq_hooks *hooks;
} clq_model_options;

typedef enum clq_pooling { CLQ_POOL_NONE, CLQ_POOL_MEAN, CLQ_POOL_CLS, CLQ_POOL_LAST } clq_pooling;

typedef struct clq_model_facts {
    const char *architecture; // GGUF's name
    char *name;               // general.name; "" if unknown
    uint32_t layers, embd, vocab, trained_context, context, batch;
    bool is_encoder;          // bidirectional: embeddings, no logits
    clq_pooling pooling;      // what the model says
    uint64_t n_weights, weight_bytes; // all parameters, as stored
    uint32_t streamed_layers; // layers that are loaded for each pass
} clq_model_facts;

typedef struct clq_model clq_model;

// Takes any source: GGUF or a Hugging Face folder. The source must live as long as the model. CLQ_BAD_INPUT with a
// sentence where the architecture is unknown, a tensor is missing or has the wrong shape, or the metadata contradict.
clq_status clq_model_open(const clq_source *source, clq_device *device, const clq_model_options *options,
                          clq_model **model, clq_error *err);
void clq_model_close(clq_model *model);
const clq_model_facts *clq_model_facts_of(const clq_model *model);
const clq_tokenizer *clq_model_tokenizer(const clq_model *model);

// Rows of logits, floats [n][vocab], of the tokens first ... first + n - 1 of the call. Valid during the call. Other
// than CLQ_OK ends the evaluation with that status (fill err).
typedef clq_status (*clq_logits_fn)(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err);
// The hidden states after layer `layer` (0: the embedding, layers: behind the final norm) for n tokens from the call's
// token `first` on: floats [n][embd].
typedef clq_status (*clq_hidden_fn)(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *hidden,
                                    clq_error *err);

typedef struct clq_eval {
    const int32_t *tokens; // n of them: checked against the vocabulary; they follow those in the cache
    uint32_t n;
    uint32_t logits_from;  // logits are wanted from this token of the call on; n: none
    clq_logits_fn logits;  // called in order; NULL: none wanted
    clq_hidden_fn hidden;  // NULL: none wanted
    void *user;
} clq_eval;

// Runs the tokens behind those in the cache, in passes of `batch`. CLQ_BAD_INPUT when an id is out of range or the
// cache is too short.
clq_status clq_model_eval(clq_model *model, const clq_eval *eval, clq_error *err);
// Positions filled; and forgets those behind the first n.
uint32_t clq_model_position(const clq_model *model);
void clq_model_rewind(clq_model *model, uint32_t n);

// An encoder's (or, pooled, a decoder's) embedding of one text: floats [embd], pooled as asked, not normalised.
// CLQ_BAD_INPUT when the text is longer than the model takes. Empties the cache.
clq_status clq_model_embed(clq_model *model, const int32_t *tokens, uint32_t n, clq_pooling pooling, float *embedding,
                           clq_error *err);

#endif

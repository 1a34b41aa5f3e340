// SPDX-License-Identifier: MIT
// A model run layer by layer, as calibration does it: only one unit (the embedding, or a layer) is on the device at a
// time, hidden states are the caller's, and the inputs of products are observed.
#ifndef CLQ_MODEL_LAYERS_H
#define CLQ_MODEL_LAYERS_H

#include "device/device.h"
#include "io/source.h"
#include "model/engine.h"

// The weights of a layer that share one input.
enum { CLQ_SITE_WEIGHTS = 4 };
typedef struct clq_site {
    const char *weights[CLQ_SITE_WEIGHTS]; // GGUF names of the tensors; n_weights of them
    uint32_t n_weights;
    uint32_t cols;       // elements of a token's input
    uint32_t n_matrices; // experts, each with observations of its own; else 1
    uint64_t slot;       // used inside
} clq_site;

typedef struct clq_layers clq_layers;
// Floats in the state that the caller wants for itself, for any layer. The units are planned. false: too many to count.
typedef bool (*clq_extra_fn)(void *user, const clq_engine *engine, uint64_t *n_floats);

typedef struct clq_layers_options {
    uint32_t context; // tokens of a window, at most
    uint32_t gram;    // sums of products of inputs, too: 0: none; CLQ_GRAM_ALL: of all pairs (Hessians); else of the
                      // pairs within blocks of so many columns, where that divides these
    bool without_values; // without the histograms
    bool floats;        // weights of layers are F32 on the device, however they are stored
    clq_extra_fn extra; // NULL: none
    void *extra_user;
    const clq_hooks *hooks;
} clq_layers_options;

// Tokens of a window where none are given: as many as the model takes, at most CLQ_LAYERS_CONTEXT.
enum { CLQ_LAYERS_CONTEXT = 512 };
clq_status clq_layers_default_context(const clq_source *source, uint32_t *context, clq_error *err);

// The source and the device must outlive it. CLQ_BAD_INPUT as clq_model_open.
clq_status clq_layers_open(const clq_source *source, clq_device *device, const clq_layers_options *options,
                           clq_layers **layers, clq_error *err);
void clq_layers_close(clq_layers *layers);
uint32_t clq_layers_count(const clq_layers *layers);
uint32_t clq_layers_width(const clq_layers *layers); // floats of a hidden state
uint32_t clq_layers_vocab(const clq_layers *layers);
bool clq_layers_encoder(const clq_layers *layers);
uint64_t clq_layers_device_bytes(const clq_layers *layers);    // what is allocated on the device
const char *clq_layers_architecture(const clq_layers *layers); // GGUF's name
// NULL: the model has none.
const clq_tokenizer *clq_layers_tokenizer(const clq_layers *layers);

// Windows of tokens to hidden states [n][width]. Loads the embedding, and keeps it until a layer is loaded.
clq_status clq_layers_embed(clq_layers *layers, const int32_t *tokens, uint32_t n, float *hidden, clq_error *err);
// Loads a layer and forgets what was observed.
clq_status clq_layers_load(clq_layers *layers, uint32_t layer, clq_error *err);
// One window of n tokens with nothing before them through the loaded layer, in place; its inputs are observed.
clq_status clq_layers_run(clq_layers *layers, uint32_t n, float *hidden, clq_error *err);

// The loaded layer's sites; valid until the next load.
const clq_site *clq_layers_sites(const clq_layers *layers, uint32_t *n);
// What was observed at one matrix of a site: CLQ_SLOT_FLOATS(cols) words (clquant_steps.h), and, where asked for in the
// options, gram [cols][cols] (NULL: not wanted).
clq_status clq_layers_observed(clq_layers *layers, const clq_site *site, uint32_t matrix, float *slot, float *gram,
                               clq_error *err);

// ---- for methods, which make steps of their own ----

// Forgets what was observed of the loaded layer.
clq_status clq_layers_forget(clq_layers *layers, clq_error *err);
// clq_layers_run with or without observing; copies: NULL, or where inputs go.
clq_status clq_layers_run_with(clq_layers *layers, uint32_t n, float *hidden, bool observe, const clq_copies *copies,
                               clq_error *err);
clq_engine *clq_layers_engine(clq_layers *layers);
uint32_t clq_layers_loaded(const clq_layers *layers); // the layer that is loaded
uint64_t clq_layers_extra(const clq_layers *layers); // floats in the state
// Makes clq_layers_pass that of a window of n tokens.
clq_status clq_layers_positions(clq_layers *layers, uint32_t n, clq_error *err);
const clq_pass *clq_layers_pass(const clq_layers *layers);
// Where the observations of the inputs of one matrix stand (of the first of the weights that share an input); floats in
// the state. CLQ_NONE: they are not observed.
uint64_t clq_layers_slot(const clq_layers *layers, int which, uint32_t matrix);
// Where the loaded layer's sums of products of the inputs of a weight stand (the first of those that share an input);
// floats in the state. CLQ_NONE: there are none.
uint32_t clq_layers_block(const clq_layers *layers, uint32_t cols); // the width of their blocks
uint64_t clq_layers_gram(const clq_layers *layers, int which, uint32_t matrix);

#endif

// SPDX-License-Identifier: MIT
// A model run layer by layer, as calibration does it: only one unit (the embedding, or a layer) is on the device at a
// time, hidden states are the caller's, and the inputs of products are observed.
#ifndef CLQ_MODEL_LAYERS_H
#define CLQ_MODEL_LAYERS_H

#include "device/device.h"
#include "io/source.h"
#include "model/tokenizer.h"

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

typedef struct clq_layers_options {
    uint32_t context; // tokens of a window, at most
    bool gram;        // sums of products of inputs (Hessians), too
    const clq_hooks *hooks;
} clq_layers_options;

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

#endif

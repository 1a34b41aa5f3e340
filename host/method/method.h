// SPDX-License-Identifier: MIT
// Methods that prepare a model's weights before they are encoded, layer by layer: hidden states of the calibration text go
// from layer to layer; a layer is loaded, run, prepared, taken by the caller, and dropped.
#ifndef CLQ_METHOD_METHOD_H
#define CLQ_METHOD_METHOD_H

#include "device/device.h"
#include "method/image.h"

typedef struct clq_method clq_method;

typedef struct clq_method_setup {
    const clq_source *source;
    clq_device *device;
    const clq_method_options *options;
    const clq_destiny *destinies; // by tensor of the source
    bool activations_asymmetric;  // of static ones
    const char *observer;         // whose ranges static ones take; NULL: the default
    const char *checkpoint;       // where the state between layers is kept
    uint64_t fingerprint;         // of all that decides the result
    bool resume;                  // from the checkpoint, if there is one
    uint64_t max_memory;          // bytes of host and device together; 0: no limit
    uint32_t threads;
    const clq_hooks *hooks;
} clq_method_setup;

// Whether the method prepares anything at all for such options, and whether layer by layer (then clq_method_open).
bool clq_method_prepares(const clq_method_options *options);
bool clq_method_runs_model(const clq_method_options *options);
// The rule of scales, CLQ_SCALES_* of clquant_steps.h.
uint32_t clq_method_rule(const clq_method_options *options);

// CLQ_USAGE when the memory does not suffice, or there are too few tokens. setup's pointers must outlive it.
clq_status clq_method_open(const clq_method_setup *setup, clq_method **method, clq_error *err);
void clq_method_close(clq_method *method);
uint64_t clq_method_bytes(const clq_method *method); // of host and device together
// Tokens of the text that are run, and of these those that candidates and errors are measured on.
void clq_method_tokens(const clq_method *method, uint64_t *calibration, uint64_t *search);
uint32_t clq_method_first_layer(const clq_method *method); // 0, or where a resumed run begins
uint32_t clq_method_layers(const clq_method *method);
// The layer that a tensor of the source belongs to; -1: none.
int32_t clq_method_layer_of(const clq_method *method, uint32_t tensor);
// Prepares the next layer: layers in their order.
clq_status clq_method_next(clq_method *method, clq_error *err);
// What became of a tensor of that layer. NULL: it stays as in the source.
const clq_prepared *clq_method_prepared(const clq_method *method, uint32_t tensor);
void clq_method_drop(clq_method *method, uint32_t tensor); // is not needed any more
// The layer was taken: frees it, and keeps the state between layers when that costs little, or the run is to end.
clq_status clq_method_taken(clq_method *method, clq_error *err);
// Reports of the layers that this run prepared; valid until the next layer, names until the method is closed.
const clq_site_report *clq_method_sites(const clq_method *method, uint32_t *n);
void clq_method_forget_checkpoint(clq_method *method); // removes the file

#endif

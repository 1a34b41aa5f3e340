// SPDX-License-Identifier: MIT
// A method at work, as its parts see it.
#ifndef CLQ_METHOD_STATE_H
#define CLQ_METHOD_STATE_H

#include "calib/corpus.h"
#include "method/gptq.h"
#include "method/method.h"
#include "method/scaler.h"
#include "method/search.h"

struct clq_method {
    clq_method_setup setup;
    const clq_method_options *o;
    uint32_t rule; // of scales
    clq_layers *layers;
    clq_engine *engine;
    clq_corpus *corpus;
    float *hidden;        // [tokens][width]: what goes into the next layer
    float *window;        // [context][width], of one
    uint32_t first, next; // layers
    int32_t *layer_of;    // by tensor of the source
    clq_image image;
    clq_trial trial;
    uint32_t n_search; // windows on which candidates are compared
    uint32_t *search;  // which, ascending
    clq_scaler *scaler;
    clq_sweeper *sweeper;
    clq_site_report *sites;
    char **names; // theirs
    uint32_t n_sites, n_names;
    bool floats_only;     // the output has no quantized type
    bool has_static;      // some activations are static
    uint64_t n_bytes;
    double written, write_seconds; // the last checkpoint
};

// layer.c: the loaded layer's image, as the method wants it. hidden is moved on.
clq_status clq_method_prepare_layer(clq_method *m, clq_error *err);
// Runs all windows through the loaded layer: from `hidden`, which moves on where `keep`. copies: with those of the search's.
clq_status clq_method_run_windows(clq_method *m, bool observe, bool copy, bool keep, clq_error *err);
// The type that a matrix's values are rounded to when candidates are compared; not CLQ_INT: they are not.
clq_type clq_method_type_of(const clq_method *m, const clq_weight *w, uint32_t matrix);
// Adds a report; name and fold are copied.
clq_status clq_method_report(clq_method *m, const clq_site_report *report, clq_error *err);

#endif

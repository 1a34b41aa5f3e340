// SPDX-License-Identifier: MIT
// Calibration: runs windows of tokens through a model, layer by layer, and keeps what its products read.
#ifndef CLQ_CALIB_CALIBRATE_H
#define CLQ_CALIB_CALIBRATE_H

#include "calib/corpus.h"
#include "calib/stats.h"
#include "model/layers.h"

// A layer that is done.
typedef struct clq_layer_report {
    uint32_t layer, n_layers;
    const clq_stat_site *sites; // in the layer's order
    uint32_t n_sites;
    double seconds;
} clq_layer_report;

typedef struct clq_calibrate_options {
    const char *out;     // where the statistics go
    const char *dataset; // name of the text; "" if unknown
    const char *device;  // name: a run is not resumed on another device
    bool gram;           // as the layers were opened
    bool resume;
    uint32_t threads;          // of the host
    double checkpoint_seconds; // least time between two checkpoints; 0: 60
    const clq_hooks *hooks;    // progress: tensors are layers, elements tokens that went through one
    void (*layer)(void *user, const clq_layer_report *report); // NULL: nothing
    void *user;
} clq_calibrate_options;

// Writes the statistics to options->out, and gives them. The hidden states of all windows are in memory.
// CLQ_BAD_INPUT, naming layer and weight, where an activation is NaN or infinite. When hooks->cancel is set, the layer
// under way is finished unless that can be spared, OUT.clq-partial is left for `resume`, and CLQ_INTERRUPTED returned;
// a resumed run gives the same bytes. resume: goes on if there is something to resume, and is CLQ_BAD_INPUT if that is
// of another model, text, device or other options.
clq_status clq_calibrate(const clq_source *source, clq_layers *layers, const clq_corpus *corpus,
                         const clq_calibrate_options *options, clq_stats_file **stats, clq_error *err);

#endif

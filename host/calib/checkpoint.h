// SPDX-License-Identifier: MIT
// An unfinished calibration, kept beside its output as OUT.clq-partial.
#ifndef CLQ_CALIB_CHECKPOINT_H
#define CLQ_CALIB_CHECKPOINT_H

#include "calib/stats.h"

// The state between two layers.
typedef struct clq_checkpoint {
    clq_stats_file *stats; // sites of the layers that are done
    uint32_t next_layer;
    uint32_t width;
    uint64_t n_tokens;
    float *hidden; // [n_tokens][width]: what goes into the next layer
    uint64_t run;  // fingerprint of everything that decides the result
} clq_checkpoint;

// "OUT.clq-partial"; free() it. NULL: no memory.
char *clq_checkpoint_path(const char *out);
clq_status clq_checkpoint_write(const clq_checkpoint *checkpoint, const char *path, clq_error *err);
// Takes over stats, next_layer and hidden (which is there, for n_tokens and width as given) of the run. *found: whether
// there is a checkpoint. CLQ_BAD_INPUT where it is of another run, or damaged.
clq_status clq_checkpoint_read(clq_checkpoint *checkpoint, const char *path, bool *found, clq_error *err);

#endif

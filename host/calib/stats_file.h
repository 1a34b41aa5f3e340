// SPDX-License-Identifier: MIT
// The file of statistics, and of an unfinished calibration, which holds more than they.
#ifndef CLQ_CALIB_STATS_FILE_H
#define CLQ_CALIB_STATS_FILE_H

#include "calib/stats.h"
#include "io/safetensors_write.h"
#include "io/source.h"

// What stands in __metadata__ as "format".
#define CLQ_STATS_FORMAT "clquant-statistics"
#define CLQ_CHECKPOINT_FORMAT "clquant-checkpoint"

// Writes statistics as a file of the format, with more members of the description (an object; NULL: none) and more
// arrays, whose names must differ from the sites'.
clq_status clq_stats_write_as(const clq_stats_file *stats, const char *path, const char *format, const json_t *more,
                              const clq_st_array *arrays, uint32_t n_arrays, clq_error *err);

typedef struct clq_stats_opened {
    clq_stats_file *stats;
    clq_source *source; // its tensors are those of the sites and n_more others
    json_t *description;
    uint32_t n_more;
} clq_stats_opened;

// CLQ_BAD_INPUT for a file of another format, or one whose sizes or values cannot be.
clq_status clq_stats_open_as(const char *path, const char *format, clq_stats_opened *opened, clq_error *err);
void clq_stats_close(clq_stats_opened *opened); // all four

#endif

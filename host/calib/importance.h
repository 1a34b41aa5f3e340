// SPDX-License-Identifier: MIT
// Statistics as an importance matrix: for each weight the mean square of each of its input columns.
#ifndef CLQ_CALIB_IMPORTANCE_H
#define CLQ_CALIB_IMPORTANCE_H

#include "calib/stats.h"
#include "io/imatrix.h"

// What clq_imatrix_open() gives for the file that clq_stats_export() writes. path: of the statistics, for messages.
clq_status clq_stats_imatrix(const clq_stats_file *stats, const char *path, clq_imatrix **imatrix, clq_error *err);
// The same of a file of statistics, or of an importance matrix in either format, told apart by content.
clq_status clq_importance_open(const char *path, clq_imatrix **imatrix, clq_error *err);
// Writes the importance matrix that llama-quantize reads: as GGUF where the path ends in ".gguf", else as .dat.
clq_status clq_stats_export(const clq_stats_file *stats, const char *path, clq_error *err);

#endif

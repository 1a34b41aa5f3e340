// SPDX-License-Identifier: MIT
// Importance matrices as llama.cpp's llama-imatrix writes them: for each weight and each of its input columns the
// mean square of what came in.
#ifndef CLQ_IO_IMATRIX_H
#define CLQ_IO_IMATRIX_H

#include "base/error.h"

typedef struct clq_imatrix_entry {
    char *name;         // of the weight, in GGUF's words
    float *values;      // n of them, finite and >= 0: cols for each matrix
    uint64_t n;
    uint32_t n_neutral; // matrices (experts) that no token reached: their values are 1
} clq_imatrix_entry;

typedef struct clq_imatrix {
    char *path;
    clq_imatrix_entry *entries; // sorted by name
    uint32_t n_entries;
    char *dataset;       // "" if unknown
    uint32_t n_chunks;   // 0: unknown
} clq_imatrix;

// Both formats, told apart by content. CLQ_BAD_INPUT, naming the tensor, for a file that is truncated or whose values
// are not finite or negative.
clq_status clq_imatrix_open(const char *path, clq_imatrix **imatrix, clq_error *err);
void clq_imatrix_free(clq_imatrix *imatrix);
// Keeps the entries whose name holds one of the parts (or, with keep false, none of them).
void clq_imatrix_filter(clq_imatrix *imatrix, const char *const *parts, uint32_t n, bool keep);
// The values for a weight of n_matrices matrices of cols columns; *values NULL where there is no entry. Experts whose
// values are all 0 get 1, with a warning. CLQ_BAD_INPUT where the entry has another size.
clq_status clq_imatrix_take(clq_imatrix *imatrix, const char *name, uint64_t n_matrices, uint64_t cols,
                            const clq_hooks *hooks, const float **values, clq_error *err);

#endif

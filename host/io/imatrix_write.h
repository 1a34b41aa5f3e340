// SPDX-License-Identifier: MIT
// Writing importance matrices as llama.cpp's llama-imatrix does (host/io/imatrix.h reads them).
#ifndef CLQ_IO_IMATRIX_WRITE_H
#define CLQ_IO_IMATRIX_WRITE_H

#include "base/error.h"

// What came in at one weight.
typedef struct clq_imatrix_sums {
    const char *name;       // GGUF's
    const float *squares;   // [n_matrices][cols]: sums of squares over the tokens
    const uint64_t *tokens; // [n_matrices]
    uint32_t n_matrices, cols;
} clq_imatrix_sums;

typedef struct clq_imatrix_facts {
    const char *dataset; // "": unknown
    uint32_t n_chunks, chunk_size;
} clq_imatrix_facts;

// Whether the path's ending says a format: ".gguf" or ".dat".
bool clq_imatrix_can_write(const char *path);
// weights: sorted by name. Matrices that no token reached have the count 0 in a GGUF file, ones in a .dat file; weights
// of which that is true of all are left out of a .dat file. The file appears when it is complete. CLQ_BAD_INPUT where a
// .dat file's numbers are too small for what it would have to hold, or it would be empty.
clq_status clq_imatrix_write(const char *path, const clq_imatrix_sums *weights, uint32_t n,
                             const clq_imatrix_facts *facts, clq_error *err);

#endif

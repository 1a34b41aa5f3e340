// SPDX-License-Identifier: MIT
// NumPy's array files: matrices of floats. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#ifndef CLQ_IO_NPY_H
#define CLQ_IO_NPY_H

#include "base/error.h"

typedef struct clq_matrix {
    float *values; // [rows][cols], owned
    uint64_t rows, cols;
} clq_matrix;

void clq_matrix_free(clq_matrix *m);
// Whether the path names such a file, by its bytes; false where it cannot be read.
bool clq_npy_is(const char *path);
// Little-endian f4 or f8 in C order, of one or two dimensions (one: a row). CLQ_BAD_INPUT for others.
clq_status clq_npy_read(const char *path, clq_matrix *m, clq_error *err);
// The file appears when it is complete.
clq_status clq_npy_write(const char *path, const clq_matrix *m, clq_error *err);

#endif

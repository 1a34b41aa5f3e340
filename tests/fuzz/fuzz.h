// SPDX-License-Identifier: MIT
// What the fuzz targets share. A target is a file with LLVMFuzzerTestOneInput; libFuzzer drives it, or replay.c
// over the files of a folder.
#ifndef CLQ_FUZZ_H
#define CLQ_FUZZ_H

#include "io/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A file in memory that holds the bytes: its path, and its descriptor to close. Aborts where there is none.
const char *clq_fuzz_file(const uint8_t *data, size_t size, int *fd);
// Asks an opened source everything that the public functions tell, and decodes rows of its first tensors.
void clq_fuzz_walk(const clq_source *source);

#endif

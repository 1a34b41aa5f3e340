// SPDX-License-Identifier: MIT
// A safetensors file of arrays in memory.
#ifndef CLQ_IO_SAFETENSORS_WRITE_H
#define CLQ_IO_SAFETENSORS_WRITE_H

#include <jansson.h>

#include "base/error.h"

typedef struct clq_st_array {
    const char *name;     // UTF-8; each once
    clq_format_id format; // one that safetensors has a word for, of whole bytes an element
    uint32_t n_dims;
    uint64_t dims[4];
    const void *data; // NULL only where there are no elements
} clq_st_array;

// metadata: an object of texts; NULL: none. Arrays of wide elements come first, so that each lies at a multiple of its
// element's size; otherwise their order is kept. The same arguments give the same bytes. The file appears when it is
// complete.
clq_status clq_safetensors_write(const char *path, const json_t *metadata, const clq_st_array *arrays, uint32_t n,
                                 clq_error *err);

#endif

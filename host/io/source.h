// SPDX-License-Identifier: MIT
// An opened checkpoint, whatever its container: files, tensors, metadata. The readers
// (safetensors.c, gguf.c, hfdir.c) fill it and have checked every number in it.
#ifndef CLQ_IO_SOURCE_H
#define CLQ_IO_SOURCE_H

#include <jansson.h>

#include "clquant_steps.h"
#include "format/format.h"
#include "io/columns.h"
#include "io/file.h"
#include "io/gguf.h"

enum { CLQ_MAX_DIMS = 8 };

// n_bytes 0: absent.
typedef struct clq_extent {
    uint32_t file;
    uint64_t offset, n_bytes;
    clq_format_id format; // of the elements
} clq_extent;

// How a checkpoint wants the inputs of a weight's products rounded to int8.
typedef struct clq_activation {
    uint32_t quant;      // CLQ_QUANT_* of clquant_steps.h
    float scale;         // CLQ_QUANT_STATIC: finite, > 0
    int32_t zero_point;  // CLQ_QUANT_STATIC: -128 to 127
} clq_activation;

clq_activation_info clq_activation_describe(const clq_activation *a);

typedef struct clq_tensor {
    char *name;
    clq_type type;
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS]; // row-major; a 0-d tensor has n_dims 0
    uint64_t n_elements;
    uint64_t row_len;    // CLQ_INT: elements of a row as quantization saw it; 0: the last dimension
    clq_extent codes;
    // Quantized tensors whose scales stand beside them (compressed-tensors, AWQ, GPTQ, float8).
    clq_extent scales, zero_points, group_index;
    clq_packing packing;     // CLQ_INT: of codes, scales and zero-points
    uint32_t zero_less;      // packed by columns: by how much stored zero-points are lower
    uint64_t scale_block[2]; // float8: rows and columns that share a scale
    bool packed_zero_points; // packed by rows: a bit stream along the rows, else int8
    clq_activation activation;
} clq_tensor;

struct clq_source {
    clq_container container;
    char *path;
    clq_file *files;
    uint32_t n_files;
    clq_tensor *tensors;
    uint32_t n_tensors, capacity;
    uint32_t *by_name;   // indices of the tensors, sorted by name
    char *architecture;  // "llama", "bert", ... in GGUF's words; "" if unknown
    clq_gguf_kvs kvs;    // GGUF
    uint32_t alignment;  // GGUF
    json_t *config;      // Hugging Face folder: config.json, NULL if there is none
    json_t *st_metadata; // safetensors' __metadata__ of the first file, NULL if there is none
    char **extra_files;  // Hugging Face folder: files to carry along, by name
    uint32_t n_extra_files;
};

// NULL when there is none of that name.
const clq_tensor *clq_source_find(const clq_source *source, const char *name);
// As a matrix [rows, cols]: rows that share nothing, the last dimension unless row_len says more.
void clq_tensor_matrix(const clq_tensor *t, uint64_t *rows, uint64_t *cols);
// Decodes the matrix rows [first, first + n).
clq_status clq_tensor_read(const clq_source *source, const clq_tensor *t, uint64_t first, uint64_t n, float *y,
                           clq_error *err);
// The parts of the matrix rows [first, first + n) of a CLQ_INT tensor, laid out as clq_type_sizes says: codes (a dense
// stream below 8 bits; NULL: not wanted), scales as floats, zero-points (NULL: not wanted). A CLQ_PER_TENSOR type has
// one of each.
clq_status clq_tensor_parts(const clq_source *source, const clq_tensor *t, uint64_t first, uint64_t n, void *codes,
                            float *scales, int8_t *zero_points, clq_error *err);
// The group of each column of a CLQ_INT tensor that has group_index; checked.
clq_status clq_tensor_group_index(const clq_source *source, const clq_tensor *t, int32_t *index, clq_error *err);

// Used by the readers.
// The bytes [offset, offset + n) of an extent: in the map where they stand at a multiple of `align` there, else read
// into *owned.
clq_status clq_extent_view(const clq_source *source, const clq_extent *e, uint64_t offset, uint64_t n, uintptr_t align,
                           const void **bytes, void **owned, clq_error *err);
// Elements [first, first + n) of an extent of floats.
clq_status clq_extent_floats(const clq_source *source, const clq_extent *e, uint64_t first, uint64_t n, float *y,
                             clq_error *err);
// clq_tensor_read of a CLQ_INT tensor; n > 0.
clq_status clq_integers_read(const clq_source *source, const clq_tensor *t, uint64_t first, uint64_t n, float *y,
                             clq_error *err);
clq_tensor *clq_source_add_tensor(clq_source *source); // zeroed; NULL: no memory
clq_status clq_gguf_open(clq_source *source, const clq_hooks *hooks, clq_error *err);
clq_status clq_safetensors_read(clq_source *source, uint32_t file, clq_error *err);
clq_status clq_hfdir_open(clq_source *source, const clq_hooks *hooks, clq_error *err);
// Makes one tensor "X.weight" of each set X.weight_packed, X.weight_scale, X.weight_zero_point ...
// (compressed-tensors) or X.qweight, X.qzeros ... (AWQ, GPTQ), gives float8 weights
// their scales, and weights their activation.
clq_status clq_compressed_assemble(clq_source *source, const clq_hooks *hooks, clq_error *err);
// What config.json says of a quantization that is not read; NULL: none, or one that is.
const char *clq_quantization_unread(const json_t *config);
// Removes the tensors whose name is NULL, keeping the order.
void clq_source_drop_unnamed(clq_source *source);
// Makes by_name; refuses names that stand twice. To be called again when tensors change.
clq_status clq_source_check_names(clq_source *source, clq_error *err);

#endif

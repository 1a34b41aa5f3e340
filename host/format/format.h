// SPDX-License-Identifier: MIT
// The format table: facts from include/clquant_formats.def, and each codec's C reference.
#ifndef CLQ_FORMAT_FORMAT_H
#define CLQ_FORMAT_FORMAT_H

#include "base/error.h"
#include "clquant_blocks.h"

typedef enum clq_kind { CLQ_KIND_CODEC, CLQ_KIND_FLOAT, CLQ_KIND_OPAQUE, CLQ_KIND_INT } clq_kind;

// What a weight for each column does to an encoder. The values are the kernels' macro IMPORTANCE.
typedef enum clq_weights { CLQ_WEIGHTS_IGNORED, CLQ_WEIGHTS_USED, CLQ_WEIGHTS_BY_ROW } clq_weights;

typedef struct clq_format {
    clq_format_info info;
    clq_kind kind;
    const char *st_name; // dtype in safetensors headers, NULL: none
    clq_weights weights;
    bool needs_importance; // encoded without an importance matrix it is of no use: a plan refuses
    int scale_offset;    // of the block's float16 scale, -1: none
    // The specification of the format. n_blocks blocks; x, blocks and y must not overlap. importance: NULL, or
    // a weight >= 0 for each element (an importance matrix's row), and then x is one whole row.
    void (*encode_ref)(const float *x, const float *importance, uint64_t n_blocks, void *blocks);
    void (*decode_ref)(const void *blocks, uint64_t n_blocks, float *y);
    // NULL, or what the encode kernel looks up: made when first asked for, from any thread, and kept.
    const void *(*table)(size_t *n_bytes);
} clq_format;

const clq_format *clq_format_row(clq_format_id id);
// CLQ_FORMAT_COUNT when there is none.
clq_format_id clq_format_of_ggml(uint32_t ggml_type);
clq_format_id clq_format_of_st(const char *st_name);

// A clq_type for a format that has no parameters.
static inline clq_type clq_plain(clq_format_id id)
{
    return (clq_type){.format = id, .scale_format = CLQ_F32};
}
bool clq_type_equal(const clq_type *a, const clq_type *b);

// Bytes of n_elements values in whole blocks; false: not whole blocks, or over 2^64.
bool clq_format_bytes(clq_format_id id, uint64_t n_elements, uint64_t *n_bytes);

// Bits a weight takes, scales and zero-points of a long row included.
double clq_type_bits(const clq_type *type);
// Scales per row of [rows, cols].
uint64_t clq_type_groups(const clq_type *type, uint64_t cols);
// Bytes of `codes` of one row.
uint64_t clq_type_row_bytes(const clq_type *type, uint64_t cols);

// ---- the integer family's reference (integer.c) ----

// Scale and zero-point from a group's smallest and largest value (finite). The scale is rounded to
// type->scale_format, upwards where rounding down would clip by more than half a step, so that
// codes made with it keep |x - decoded| within half a step (symmetric) or one (asymmetric). 0 only
// for an all-zero group.
void clq_int_params(const clq_type *type, float min, float max, float *scale, int8_t *zero_point);
// clamp(round(x / scale) + zero_point), halves to even; scale 0: zero_point. Symmetric types have no -2^(bits-1).
int clq_int_code(const clq_type *type, float x, float scale, int zero_point);
// Rows [rows, cols] of codes given scales [rows, groups] (floats, already rounded) and zero_points
// (NULL: all 0). A CLQ_PER_TENSOR type reads scales[0] for every row.
void clq_int_encode_ref(const clq_type *type, const float *x, uint64_t rows, uint64_t cols,
                        const float *scales, const int8_t *zero_points, void *codes);
void clq_int_decode_ref(const clq_type *type, const void *codes, uint64_t rows, uint64_t cols,
                        const float *scales, const int8_t *zero_points, float *y);
// Codes packed below 8 bits: value i of a dense little-endian bit stream.
uint32_t clq_unpack_bits(const uint32_t *words, uint64_t index, uint32_t bits);
void clq_pack_bits(uint32_t *words, uint64_t index, uint32_t bits, uint32_t value);

// F32, F16, BF16 values as floats, and back.
void clq_load_floats(clq_format_id format, const void *src, uint64_t n, float *dst);
void clq_store_floats(clq_format_id format, const float *src, uint64_t n, void *dst);

#endif

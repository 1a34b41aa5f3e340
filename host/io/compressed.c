// SPDX-License-Identifier: MIT
// The compressed-tensors layout, read: tensors whose scales and zero-points stand beside them become
// one clq_tensor each. Float8 weights with per-tensor, per-channel or block scales likewise.
// Source: https://github.com/vllm-project/compressed-tensors
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "io/columns_read.h"

static int by_name(const void *a, const void *b)
{
    return strcmp((*(clq_tensor *const *)a)->name, (*(clq_tensor *const *)b)->name);
}

clq_tensor *clq_names_find(const clq_names *all, const char *stem, size_t len, const char *suffix)
{
    char name[4200];
    int n = snprintf(name, sizeof name, "%.*s%s", (int)len, stem, suffix);
    if (n < 0 || (size_t)n >= sizeof name) return NULL;
    clq_tensor key = {.name = name}, *wanted = &key;
    clq_tensor **found = bsearch(&wanted, all->sorted, all->n, sizeof *all->sorted, by_name);
    return found ? *found : NULL;
}

static clq_status bad(const clq_tensor *t, const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': %s", t->name, what);
}

// The "weights" settings of a module; NULL when no group is about it.
static const json_t *weight_settings(const clq_module_settings *settings, const char *stem, size_t len)
{
    clq_target target;
    return json_object_get(clq_module_group(settings, stem, len, &target), "weights");
}

static clq_extent *give(clq_extent *to, clq_tensor *from)
{
    *to = from->codes;
    return to;
}

// Granularity from the scales' shape: one, [rows, 1] or [rows, groups]. Only the settings tell one
// group a row from one scale a channel.
static clq_status set_granularity(clq_tensor *t, const clq_tensor *scale, const json_t *settings, uint64_t rows,
                                  uint64_t cols, clq_error *err)
{
    const char *strategy = json_string_value(json_object_get(settings, "strategy"));
    bool one_group = strategy && strcmp(strategy, "group") == 0 && cols % 32 == 0;
    t->type.scale_format = scale->type.format;
    if (clq_format_row(scale->type.format)->kind == CLQ_KIND_OPAQUE || scale->type.format > CLQ_BF16)
        return bad(scale, "scales must be F32, F16 or BF16", err);
    uint64_t groups = rows ? scale->n_elements / rows : 0;
    if (scale->n_elements == 1 && !(rows == 1 && scale->n_dims >= 2)) {
        t->type.granularity = CLQ_PER_TENSOR;
    } else if (scale->n_elements == rows && !one_group) {
        t->type.granularity = CLQ_PER_CHANNEL;
    } else if (groups && groups * rows == scale->n_elements && cols % groups == 0 && (cols / groups) % 32 == 0 &&
               cols / groups <= UINT32_MAX) {
        t->type.granularity = CLQ_PER_GROUP;
        t->type.group_size = (uint32_t)(cols / groups);
    } else {
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': %" PRIu64 " scales do not fit a [%" PRIu64 ", %" PRIu64 "] weight", scale->name,
                        scale->n_elements, rows, cols);
    }
    give(&t->scales, (clq_tensor *)scale);
    return CLQ_OK;
}

static clq_status set_zero_points(clq_tensor *t, clq_tensor *zero, uint64_t rows, clq_error *err)
{
    if (!zero) return CLQ_OK;
    uint64_t n_scales = t->scales.n_bytes / clq_format_at(t->scales.format)->block_bytes;
    uint64_t groups = t->type.granularity == CLQ_PER_TENSOR ? 1 : n_scales / rows;
    uint64_t zero_rows = t->type.granularity == CLQ_PER_TENSOR ? 1 : rows;
    if (zero->type.format == CLQ_I8 && zero->n_elements == n_scales) {
        t->packed_zero_points = false;
    } else if (zero->type.format == CLQ_I32 && t->type.bits < 8 &&
               zero->n_elements == clq_div_up(zero_rows * t->type.bits, 32) * groups) {
        t->packed_zero_points = true;
    } else {
        return bad(zero, "zero-points must be I8 like the scales, or I32 packed along the rows", err);
    }
    t->type.symmetric = false;
    give(&t->zero_points, zero);
    return CLQ_OK;
}

static clq_status set_group_index(clq_tensor *t, clq_tensor *index, uint64_t cols, clq_error *err)
{
    if (!index) return CLQ_OK;
    if (index->type.format != CLQ_I32 || index->n_elements != cols || t->type.granularity != CLQ_PER_GROUP)
        return bad(index, "g_idx must be I32 with one entry a column, beside group scales", err);
    give(&t->group_index, index);
    return CLQ_OK;
}

// The shape of a packed weight, from its companion.
static clq_status read_shape(const clq_source *s, const clq_tensor *shape, clq_tensor *t, clq_error *err)
{
    bool wide = shape->type.format == CLQ_I64;
    if ((!wide && shape->type.format != CLQ_I32) || shape->n_dims != 1 || shape->dims[0] < 2 ||
        shape->dims[0] > CLQ_MAX_DIMS)
        return bad(shape, "must hold 2 to 8 integers", err);
    uint8_t bytes[8 * CLQ_MAX_DIMS];
    CLQ_TRY(clq_file_read(&s->files[shape->codes.file], shape->codes.offset, bytes, shape->codes.n_bytes, err));
    t->n_dims = (uint32_t)shape->dims[0];
    t->n_elements = 1;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        int64_t v = 0;
        int32_t v32;
        if (wide) {
            memcpy(&v, bytes + 8 * d, 8);
        } else {
            memcpy(&v32, bytes + 4 * d, 4);
            v = v32;
        }
        if (v <= 0 || !clq_mul_u64(t->n_elements, (uint64_t)v, &t->n_elements))
            return bad(shape, "is not a shape", err);
        t->dims[d] = (uint64_t)v;
    }
    return CLQ_OK;
}

// The matrix that quantization saw: [dim0, rest], or, where the scales or the packed codes have as
// many dimensions as the weight (stacked experts), everything but the last dimension by the last.
static void set_matrix(clq_tensor *t, const clq_tensor *scale, uint32_t packed_dims, uint64_t *rows, uint64_t *cols)
{
    bool stacked = t->n_dims > 2 && (scale->n_dims == t->n_dims || packed_dims == t->n_dims);
    *rows = t->n_dims > 1 ? t->dims[0] : 1;
    *cols = *rows ? t->n_elements / *rows : 0;
    if (stacked) {
        *cols = t->dims[t->n_dims - 1];
        *rows = *cols ? t->n_elements / *cols : 0;
    }
    t->row_len = *cols;
}

static clq_status assemble_packed(const clq_source *s, const clq_names *all, clq_tensor *t, const json_t *settings,
                                  size_t len, clq_error *err)
{
    clq_tensor *scale = clq_names_find(all, t->name, len, "_scale");
    clq_tensor *shape = clq_names_find(all, t->name, len, "_shape");
    clq_tensor *zero = clq_names_find(all, t->name, len, "_zero_point");
    clq_tensor *index = clq_names_find(all, t->name, len, "_g_idx");
    if (!scale || !shape) return bad(t, "has no scale or no shape beside it", err);
    if (t->type.format != CLQ_I32) return bad(t, "must be I32", err);
    json_int_t bits = json_integer_value(json_object_get(settings, "num_bits"));
    if (bits < 2 || bits > 8) return bad(t, "quantization_config gives it no num_bits from 2 to 8", err);
    uint64_t n_words = t->n_elements, rows, cols;
    uint32_t packed_dims = t->n_dims;
    CLQ_TRY(read_shape(s, shape, t, err));
    set_matrix(t, scale, packed_dims, &rows, &cols);
    t->type = (clq_type){.format = CLQ_INT, .bits = (uint8_t)bits, .symmetric = true};
    uint64_t dense, loose;
    if (!clq_mul_u64(rows, clq_div_up(cols, 32) * (uint64_t)bits, &dense) || cols > UINT64_MAX / 8)
        return bad(shape, "is not a shape", err);
    dense = rows * clq_div_up(cols * (uint64_t)bits, 32);
    loose = rows * clq_div_up(cols, 32 / (uint64_t)bits);
    if (n_words != dense && n_words != loose) return bad(t, "its words do not fit its shape and num_bits", err);
    t->packing = n_words != dense ? CLQ_PACKED_LOOSE : CLQ_PACKED_ROWS;
    // 8 bits in words are bytes with an offset; int8 codes have none, so they are not the same.
    if (bits == 8) return bad(t, "8-bit packed weights are not read", err);
    CLQ_TRY(set_granularity(t, scale, settings, rows, cols, err));
    CLQ_TRY(set_zero_points(t, zero, rows, err));
    CLQ_TRY(set_group_index(t, index, cols, err));
    t->name[len] = '\0'; // "X.weight" of "X.weight_packed"
    clq_tensor *used[] = {scale, shape, zero, index};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        if (used[i]) clq_tensor_use(used[i]);
    return CLQ_OK;
}

static clq_status assemble_int8(const clq_names *all, clq_tensor *t, const json_t *settings, size_t len, clq_error *err)
{
    clq_tensor *scale = clq_names_find(all, t->name, len, "_scale");
    clq_tensor *zero = clq_names_find(all, t->name, len, "_zero_point");
    clq_tensor *index = clq_names_find(all, t->name, len, "_g_idx");
    uint64_t rows, cols;
    if (!scale) return CLQ_OK;
    set_matrix(t, scale, 0, &rows, &cols);
    if (!rows || !cols) return bad(t, "is empty", err);
    t->type = (clq_type){.format = CLQ_INT, .bits = 8, .symmetric = true};
    CLQ_TRY(set_granularity(t, scale, settings, rows, cols, err));
    CLQ_TRY(set_zero_points(t, zero, rows, err));
    CLQ_TRY(set_group_index(t, index, cols, err));
    clq_tensor_use(scale);
    if (zero) clq_tensor_use(zero);
    if (index) clq_tensor_use(index);
    return CLQ_OK;
}

// Tile of a float8 weight that shares a scale: quantization_config.weight_block_size, 128 x 128.
static void block_size(const json_t *config, uint64_t block[2])
{
    const json_t *size = json_object_get(json_object_get(config, "quantization_config"), "weight_block_size");
    for (size_t i = 0; i < 2; i++) {
        json_int_t v = json_integer_value(json_array_get(size, i));
        block[i] = v > 0 ? (uint64_t)v : 128;
    }
}

static clq_status assemble_float8(const clq_source *s, const clq_names *all, clq_tensor *t, size_t len, clq_error *err)
{
    clq_tensor *scale = clq_names_find(all, t->name, len, "_scale_inv");
    if (!scale) scale = clq_names_find(all, t->name, len, "_scale");
    if (!scale) return CLQ_OK; // refused where its values are wanted
    uint64_t rows, cols, block[2];
    clq_tensor_matrix(t, &rows, &cols);
    block_size(s->config, block);
    if (scale->type.format > CLQ_BF16) return bad(scale, "scales must be F32, F16 or BF16", err);
    if (scale->n_elements == 1) {
        t->scale_block[0] = rows ? rows : 1;
        t->scale_block[1] = cols ? cols : 1;
    } else if (scale->n_elements == rows) {
        t->scale_block[0] = 1;
        t->scale_block[1] = cols;
    } else if (scale->n_dims == 2 && scale->dims[0] == clq_div_up(rows, block[0]) &&
               scale->dims[1] == clq_div_up(cols, block[1])) {
        t->scale_block[0] = block[0];
        t->scale_block[1] = block[1];
    } else {
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': its scales are neither one, one a row, nor one a %" PRIu64 "x%" PRIu64 " block",
                        t->name, block[0], block[1]);
    }
    give(&t->scales, scale);
    clq_tensor_use(scale);
    return CLQ_OK;
}

static clq_status assemble(clq_source *s, const clq_names *all, const clq_module_settings *modules, clq_tensor *t,
                           clq_error *err)
{
    bool packed = clq_ends_with(t->name, "_packed");
    size_t len = strlen(t->name) - (packed ? strlen("_packed") : 0);
    if (t->type.format == CLQ_F8_E4M3 || t->type.format == CLQ_F8_E5M2) return assemble_float8(s, all, t, len, err);
    const json_t *settings = weight_settings(modules, t->name, len);
    // Names without ".weight" may be anything, unless the settings are about them.
    if (clq_module_len(t->name, len) == len && !settings) return CLQ_OK;
    if (packed) return assemble_packed(s, all, t, settings, len, err);
    return t->type.format == CLQ_I8 ? assemble_int8(all, t, settings, len, err) : CLQ_OK;
}

clq_status clq_compressed_assemble(clq_source *s, const clq_hooks *hooks, clq_error *err)
{
    clq_names all = {.n = s->n_tensors};
    if (!all.n) return CLQ_OK;
    all.sorted = malloc(all.n * sizeof *all.sorted);
    // Tensors get shorter names and marks while they are assembled; walk a copy of the order.
    clq_tensor **walk = malloc(all.n * sizeof *walk);
    clq_module_settings modules = {0};
    clq_column_settings columns = {0};
    clq_status st = CLQ_OK;
    if (!all.sorted || !walk) {
        st = clq_fail_memory(err, all.n * sizeof *walk);
        goto out;
    }
    CLQ_TRY_OUT(clq_module_settings_create(s->config, &modules, err));
    CLQ_TRY_OUT(clq_column_settings_create(s->config, &columns, err));
    for (uint32_t i = 0; i < all.n; i++) all.sorted[i] = &s->tensors[i];
    qsort(all.sorted, all.n, sizeof *all.sorted, by_name);
    memcpy(walk, all.sorted, all.n * sizeof *walk);
    if (clq_by_columns(columns.packing)) {
        CLQ_TRY_OUT(clq_columns_assemble(s, &all, &columns, hooks, err));
    } else {
        for (uint32_t i = 0; i < all.n; i++)
            if (!clq_tensor_used(walk[i])) CLQ_TRY_OUT(assemble(s, &all, &modules, walk[i], err));
        CLQ_TRY_OUT(clq_compressed_activations(s, &all, &modules, hooks, err));
    }
    for (uint32_t i = 0; i < s->n_tensors; i++)
        if (clq_tensor_used(&s->tensors[i])) {
            free(s->tensors[i].name);
            s->tensors[i].name = NULL;
        }
    clq_source_drop_unnamed(s);
    st = clq_source_check_names(s, err); // "X.weight" beside "X.weight_packed"
out:
    clq_column_settings_free(&columns);
    clq_module_settings_free(&modules);
    free(walk);
    free(all.sorted);
    return st;
}

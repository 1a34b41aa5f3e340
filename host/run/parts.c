// SPDX-License-Identifier: MIT
// The parts of an entry: what the tensor is stored as, with names and shapes of the output's container.
// Source of the folder's names: https://github.com/vllm-project/compressed-tensors
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "run/plan.h"

static clq_status name_part(clq_part *part, const char *stem, size_t len, const char *suffix, clq_error *err)
{
    part->name = malloc(len + strlen(suffix) + 1);
    if (!part->name) return clq_fail_memory(err, len);
    sprintf(part->name, "%.*s%s", (int)len, stem, suffix);
    return CLQ_OK;
}

size_t clq_entry_module_len(const clq_entry *e)
{
    size_t len = strlen(e->info.name);
    return clq_ends_with(e->info.name, ".weight") ? len - strlen(".weight") : len;
}

// One zero-point for each scale: int8, or below 8 bits words along the rows.
static clq_part zero_points_part(const clq_entry *e, const clq_part_sizes *sizes)
{
    clq_part part = e->parts[CLQ_PART_SCALES];
    part.name = NULL;
    part.st_dtype = "I8";
    part.n_bytes = sizes->zero_points;
    if (e->type.bits == 8) return part;
    uint64_t rows = e->type.granularity == CLQ_PER_TENSOR ? 1 : e->rows;
    part.st_dtype = "I32";
    part.n_dims = 2;
    part.dims[0] = clq_div_up(rows * e->type.bits, 32);
    part.dims[1] = sizes->groups;
    part.n_bytes = part.dims[0] * part.dims[1] * 4;
    return part;
}

// Shapes and sizes of the parts of a compressed-tensors weight [dim0, ..., cols].
static clq_status set_int_parts(clq_entry *e, clq_error *err)
{
    clq_part_sizes sizes;
    CLQ_TRY(clq_type_sizes(&e->type, e->rows, e->cols, &sizes, err));
    bool packed = e->type.bits < 8;
    // The leading dimensions of codes and scales: all but the last where rows are by the last
    // dimension (matrices, stacked experts), the first alone for convolutions.
    bool by_last = e->cols == e->info.dims[e->info.n_dims - 1];
    uint32_t lead = by_last ? e->info.n_dims - 1 : 1;
    clq_part *codes = &e->parts[CLQ_PART_CODES], *scales = &e->parts[CLQ_PART_SCALES];
    *codes = (clq_part){.st_dtype = packed ? "I32" : "I8", .n_dims = e->info.n_dims, .n_bytes = sizes.codes};
    memcpy(codes->dims, e->info.dims, sizeof codes->dims);
    *scales = (clq_part){
        .st_dtype = clq_format_row(e->type.scale_format)->st_name, .n_dims = lead + 1, .n_bytes = sizes.scales};
    memcpy(scales->dims, e->info.dims, lead * sizeof *scales->dims);
    scales->dims[lead] = sizes.groups;
    if (e->type.granularity == CLQ_PER_TENSOR) {
        scales->n_dims = 1;
        scales->dims[0] = 1;
    }
    const char *name = e->info.name;
    size_t stem = clq_entry_module_len(e);
    bool suffix = name[stem] != '\0';
    CLQ_TRY(name_part(scales, name, stem, suffix ? ".weight_scale" : "_scale", err));
    if (!e->type.symmetric) {
        e->parts[CLQ_PART_ZERO_POINTS] = zero_points_part(e, &sizes);
        CLQ_TRY(
            name_part(&e->parts[CLQ_PART_ZERO_POINTS], name, stem, suffix ? ".weight_zero_point" : "_zero_point", err));
    }
    if (e->ordered) {
        clq_part *index = &e->parts[CLQ_PART_GROUP_INDEX];
        *index = (clq_part){.st_dtype = "I32", .n_dims = 1, .dims = {e->cols}, .n_bytes = e->cols * 4};
        CLQ_TRY(name_part(index, name, stem, suffix ? ".weight_g_idx" : "_g_idx", err));
    }
    if (!packed) return name_part(codes, name, strlen(name), "", err);
    codes->n_dims = lead + 1;
    codes->dims[lead] = clq_type_row_bytes(&e->type, e->cols) / 4;
    e->parts[CLQ_PART_SHAPE] =
        (clq_part){.st_dtype = "I64", .n_dims = 1, .dims = {e->info.n_dims}, .n_bytes = e->info.n_dims * 8ull};
    CLQ_TRY(name_part(codes, name, stem, suffix ? ".weight_packed" : "_packed", err));
    return name_part(&e->parts[CLQ_PART_SHAPE], name, stem, suffix ? ".weight_shape" : "_shape", err);
}

// Parts of AWQ and GPTQ. Sources: host/io/columns.h.
static clq_status set_column_parts(clq_packing packing, clq_entry *e, clq_error *err)
{
    uint64_t groups = clq_type_groups(&e->type, e->cols), bits = e->type.bits;
    const struct {
        int part;
        const char *suffix, *dtype;
        uint64_t lines, width;
    } all[] = {
        {CLQ_PART_CODES, ".qweight", "I32", clq_columns_lines(packing, e->type.bits, e->cols),
         clq_columns_line_words(packing, e->rows)},
        {CLQ_PART_ZERO_POINTS, ".qzeros", "I32", groups, e->rows * bits / 32},
        {CLQ_PART_SCALES, ".scales", "F16", groups, e->rows},
        {CLQ_PART_GROUP_INDEX, ".g_idx", "I32", e->cols, 1},
    };
    for (int i = 0; i < 3 + (packing == CLQ_PACKED_GPTQ); i++) {
        clq_part *part = &e->parts[all[i].part];
        *part = (clq_part){.st_dtype = all[i].dtype, .n_dims = i == 3 ? 1 : 2, .dims = {all[i].lines, all[i].width}};
        part->n_bytes = all[i].lines * all[i].width * (i == 2 ? 2 : 4);
        CLQ_TRY(name_part(part, e->info.name, clq_entry_module_len(e), all[i].suffix, err));
    }
    return CLQ_OK;
}

static clq_status set_plain_part(const clq_plan *p, clq_entry *e, clq_error *err)
{
    clq_part *codes = &e->parts[CLQ_PART_CODES];
    *codes = (clq_part){.st_dtype = clq_format_row(e->type.format)->st_name, .n_dims = e->info.n_dims};
    memcpy(codes->dims, e->info.dims, sizeof codes->dims);
    if (!clq_format_bytes(e->type.format, e->info.n_elements, &codes->n_bytes))
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is too large", e->info.source_name);
    if (!p->to_gguf && !codes->st_dtype)
        return clq_fail(err, CLQ_USAGE, "tensor '%s' would be %s, which a folder cannot hold", e->info.source_name,
                        e->info.type);
    return name_part(codes, e->info.name, strlen(e->info.name), "", err);
}

clq_status clq_entry_set_parts(const clq_plan *p, clq_entry *e, clq_error *err)
{
    clq_type_name(&e->type, e->info.type);
    CLQ_TRY(e->type.format != CLQ_INT            ? set_plain_part(p, e, err)
            : clq_by_columns(p->packing) ? set_column_parts(p->packing, e, err)
                                         : set_int_parts(e, err));
    e->info.n_bytes = clq_entry_bytes(e);
    return CLQ_OK;
}

clq_status clq_entry_add_activation(clq_entry *e, bool zero_point, clq_error *err)
{
    static const char *const suffixes[] = {".input_scale", ".input_zero_point"};
    for (int i = 0; i < 1 + zero_point; i++) {
        clq_part *part = &e->parts[CLQ_PART_INPUT_SCALE + i];
        *part = (clq_part){.st_dtype = i ? "I8" : "F32", .n_dims = 1, .dims = {1}, .n_bytes = i ? 1 : 4};
        CLQ_TRY(name_part(part, e->info.name, clq_entry_module_len(e), suffixes[i], err));
    }
    e->info.n_bytes = clq_entry_bytes(e);
    return CLQ_OK;
}

uint64_t clq_entry_bytes(const clq_entry *e)
{
    uint64_t n = 0;
    for (int i = 0; i < CLQ_ENTRY_PARTS; i++) n += e->parts[i].n_bytes;
    return n;
}

// SPDX-License-Identifier: MIT
#include "run/packing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "run/policy.h"

const char *clq_layout_name(clq_layout layout)
{
    static const char *const names[] = {"", "gguf", "compressed-tensors", "awq", "gptq", "gptq-v2"};
    return (unsigned)layout < sizeof names / sizeof *names ? names[layout] : "";
}

clq_packing clq_layout_packing(clq_layout layout)
{
    if (layout == CLQ_LAYOUT_AWQ) return CLQ_PACKED_AWQ;
    return layout == CLQ_LAYOUT_GPTQ || layout == CLQ_LAYOUT_GPTQ_V2 ? CLQ_PACKED_GPTQ : CLQ_PACKED_ROWS;
}

const char *clq_layout_refuses(clq_layout layout, const clq_type *t, bool kept)
{
    if (!clq_by_columns(clq_layout_packing(layout))) return NULL;
    bool awq = layout == CLQ_LAYOUT_AWQ;
    if (t->format != CLQ_INT)
        return awq ? "AWQ holds weights of type i4_asym_gN or i4_gN" : "GPTQ holds weights of integer types";
    if (awq && (t->bits != 4 || t->granularity != CLQ_PER_GROUP))
        return "AWQ holds 4 bits in groups: i4_asym_gN, or i4_gN";
    if (t->bits != 2 && t->bits != 3 && t->bits != 4 && t->bits != 8) return "GPTQ holds 2, 3, 4 or 8 bits";
    if (t->granularity == CLQ_PER_TENSOR) return "GPTQ holds scales of channels or groups";
    if (layout == CLQ_LAYOUT_GPTQ && !t->symmetric && !kept)
        return "GPTQ version 1 cannot hold the zero-point 0; use --container gptq-v2, or a type without _asym";
    return NULL;
}

bool clq_layout_takes(clq_layout layout, const char *name, uint32_t n_dims, const clq_type *t, uint64_t rows,
                      uint64_t cols, char note[96])
{
    clq_packing packing = clq_layout_packing(layout);
    if (!clq_by_columns(packing)) return true;
    bool awq = layout == CLQ_LAYOUT_AWQ, linear = n_dims == 2 && clq_is_linear_weight(name, n_dims);
    if (!linear)
        snprintf(note, 96, "not the matrix of a layer: %s leaves it in full precision", awq ? "AWQ" : "GPTQ");
    else if (!clq_columns_fit(packing, t->bits, rows, cols))
        snprintf(note, 96, "[%" PRIu64 ", %" PRIu64 "] is no whole number of %s's words: kept in full precision", rows,
                 cols, awq ? "AWQ" : "GPTQ");
    else if (awq && cols % t->group_size)
        snprintf(note, 96, "groups of %u do not divide rows of %" PRIu64 ": kept in full precision", t->group_size,
                 cols);
    else
        return true;
    return false;
}

clq_status clq_plan_check_layout(const clq_plan *p, clq_error *err)
{
    const clq_quantize_options *o = &p->options;
    const char *name = clq_layout_name(o->layout);
    if (o->layout == CLQ_LAYOUT_GGUF && !p->to_gguf)
        return clq_fail(err, CLQ_USAGE, "the name of a GGUF file ends in .gguf, that of the output '%s' does not",
                        p->out);
    if (o->layout > CLQ_LAYOUT_GGUF && p->to_gguf)
        return clq_fail(err, CLQ_USAGE,
                        "%s is the layout of a folder; give an output that does not end in .gguf instead of '%s'", name,
                        p->out);
    if (o->keep_types && p->to_gguf)
        return clq_fail(err, CLQ_USAGE, "a GGUF file has types of its own: give --type");
    if (o->keep_types && o->n_rules)
        return clq_fail(err, CLQ_USAGE, "--tensor-type asks for types, which need --type; without it all are kept");
    if (!clq_by_columns(p->packing)) return CLQ_OK;
    if (o->activations && *o->activations != CLQ_ACTIVATIONS_NONE)
        return clq_fail(err, CLQ_USAGE, "%s cannot say how activations are rounded (--activations)", name);
    const char *why = o->keep_types ? NULL : clq_layout_refuses(o->layout, &o->type, false);
    return why ? clq_fail(err, CLQ_USAGE, "--container %s: %s", name, why) : CLQ_OK;
}

// Whether an integer weight has already the type that it shall have. Scales keep their dtype.
static bool same_int(const clq_entry *e, const clq_tensor *t)
{
    const clq_origin *o = &e->from;
    clq_type same = t->type;
    uint64_t rows, cols;
    same.scale_format = e->type.scale_format;
    clq_tensor_matrix(t, &rows, &cols);
    return e->type.format == CLQ_INT && clq_type_equal(&e->type, &same) && o->n_pieces == 1 && o->first == 0 &&
           o->n_elements == t->n_elements && o->order == CLQ_ROWS_KEPT && o->shift == 0 && rows == e->rows &&
           cols == e->cols;
}

// Whether it is stored so, too.
static bool same_bytes(const clq_plan *p, const clq_tensor *t)
{
    return p->packing == CLQ_PACKED_ROWS && t->packing == CLQ_PACKED_ROWS && !t->group_index.n_bytes &&
           (t->type.symmetric || t->packed_zero_points == (t->type.bits < 8));
}

// Whether its numbers are kept in another packing.
static bool repacks(const clq_plan *p, const clq_entry *e, const clq_tensor *t)
{
    if (t->group_index.n_bytes && !p->options.keep_types) return false;
    bool exact = !clq_by_columns(p->packing) || t->type.scale_format == CLQ_F16;
    return p->options.keep_types || (exact && !clq_layout_refuses(p->options.layout, &e->type, false));
}

clq_status clq_entry_keep_int(const clq_plan *p, clq_entry *e, const clq_tensor *t, clq_error *err)
{
    bool same = same_int(e, t), bytes = same && same_bytes(p, t);
    if (bytes || (same && repacks(p, e, t))) {
        e->type = t->type;
        if (clq_by_columns(p->packing)) e->type.scale_format = CLQ_F16;
        e->copy = true;
        e->repack = !bytes;
        e->ordered = t->group_index.n_bytes > 0;
    } else if (p->options.keep_types && e->type.format == CLQ_INT) {
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': its rows cannot be kept as they are; --type quantizes again",
                        t->name);
    }
    return CLQ_OK;
}

// ---- values ----

static clq_status check_numbers(const clq_plan *p, const clq_entry *e, const float *scales, const int8_t *zeros,
                                uint64_t n, clq_error *err)
{
    for (uint64_t i = 0; i < n; i++)
        if (clq_round_f16(scales[i]) != scales[i])
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tensor '%s': %s stores scales in float16, and %.9g is none of its numbers; --type "
                            "quantizes again",
                            e->info.source_name, clq_layout_name(p->options.layout), scales[i]);
    int lowest = -(1 << (e->type.bits - 1));
    for (uint64_t i = 0; zeros && p->options.layout == CLQ_LAYOUT_GPTQ && i < n; i++)
        if (zeros[i] == lowest)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tensor '%s' has zero-points of 0, which GPTQ version 1 cannot hold; use --container "
                            "gptq-v2",
                            e->info.source_name);
    return CLQ_OK;
}

// Scales and zero-points of a weight that is stored in columns from now on.
static clq_status check_values(const clq_plan *p, const clq_entry *e, clq_error *err)
{
    const clq_tensor *t = &p->source->tensors[e->from.source];
    uint64_t groups = clq_type_groups(&e->type, e->cols), step = (1 << 20) / groups / 32 * 32 + 32;
    if (step > e->rows) step = e->rows;
    float *scales = malloc(step * groups * sizeof *scales);
    int8_t *zeros = malloc(step * groups);
    clq_status st = scales && zeros ? CLQ_OK : clq_fail_memory(err, step * groups * 5);
    for (uint64_t r = 0; st == CLQ_OK && r < e->rows; r += step) {
        uint64_t n = e->rows - r < step ? e->rows - r : step;
        bool has_zeros = t->zero_points.n_bytes > 0;
        st = clq_tensor_parts(p->source, t, r, n, NULL, scales, has_zeros ? zeros : NULL, err);
        if (st == CLQ_OK) st = check_numbers(p, e, scales, has_zeros ? zeros : NULL, n * groups, err);
    }
    free(zeros);
    free(scales);
    return st;
}

static bool in_columns(const clq_plan *p, const clq_entry *e)
{
    return clq_by_columns(p->packing) && e->type.format == CLQ_INT;
}

clq_status clq_plan_check_packing(const clq_plan *p, clq_error *err)
{
    const char *layout = clq_layout_name(p->options.layout);
    const clq_entry *first = NULL;
    uint32_t n_quantized = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        n_quantized += e->type.format == CLQ_INT;
        if (!in_columns(p, e)) continue;
        if (e->activation.quant != CLQ_QUANT_NONE)
            return clq_fail(err, CLQ_USAGE, "tensor '%s': its activations are rounded to int8, which %s cannot say",
                            e->info.name, layout);
        if (!first) first = e;
        if (p->packing == CLQ_PACKED_AWQ && !clq_type_equal(&e->type, &first->type))
            return clq_fail(err, CLQ_USAGE, "AWQ has one type for all weights, but '%s' is %s and '%s' %s",
                            first->info.name, first->info.type, e->info.name, e->info.type);
        if (e->repack) CLQ_TRY(check_values(p, e, err));
    }
    if (p->options.keep_types && !n_quantized)
        return clq_fail(err, CLQ_USAGE,
                        "'%s' has no integer weights, and --container alone quantizes nothing: give --type",
                        p->source->path);
    if (first && p->packing == CLQ_PACKED_AWQ && first->type.symmetric)
        clq_warn(p->hooks, "AWQ is made for zero-points: those of %s are all 8", first->info.type);
    return CLQ_OK;
}

// ---- quantization_config ----

static json_t *group_size_json(const clq_type *t)
{
    return json_integer(t->granularity == CLQ_PER_GROUP ? (json_int_t)t->group_size : -1);
}

// Modules that a loader may take for quantized ones, but for the head, which it never does.
static bool left_alone(const clq_entry *e)
{
    const char *name = e->info.name;
    return e->type.format != CLQ_INT && e->info.n_dims == 2 && clq_ends_with(name, ".weight") &&
           !strstr(name, "embed") && strcmp(name, "lm_head.weight") != 0;
}

// "+:^model\.layers\.0\.self_attn\.q_proj$": a pattern of one module's name.
static void set_dynamic(json_t *dynamic, const clq_entry *e, const char *sign, json_t *settings)
{
    clq_buf key = {0};
    clq_buf_printf(&key, "%s^", sign);
    size_t len = clq_entry_module_len(e);
    for (size_t i = 0; i < len; i++)
        clq_buf_printf(&key, strchr(".^$*+?()[]{}\\|", e->info.name[i]) ? "\\%c" : "%c", e->info.name[i]);
    clq_buf_append(&key, "$", 2);
    if (key.failed)
        json_decref(settings);
    else
        json_object_set_new(dynamic, key.data, settings);
    clq_buf_free(&key);
}

// The type of most weights.
static const clq_entry *main_entry(const clq_plan *p)
{
    const clq_entry *best = NULL;
    uint64_t most = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        uint64_t n = 0;
        if (e->type.format != CLQ_INT || (best && clq_type_equal(&e->type, &best->type))) continue;
        for (uint32_t k = i; k < p->n_entries; k++)
            if (clq_type_equal(&p->entries[k].type, &e->type)) n += p->entries[k].info.n_elements;
        if (n <= most) continue;
        most = n;
        best = e;
    }
    return best;
}

static json_t *awq_config(const clq_plan *p, const clq_type *t)
{
    json_t *left = json_array();
    for (uint32_t i = 0; i < p->n_entries; i++)
        if (left_alone(&p->entries[i]))
            json_array_append_new(left, json_stringn(p->entries[i].info.name, clq_entry_module_len(&p->entries[i])));
    if (!json_array_size(left)) {
        json_decref(left);
        left = json_null();
    }
    return json_pack("{s:s, s:i, s:o, s:b, s:s, s:o}", "quant_method", "awq", "bits", (int)t->bits, "group_size",
                     group_size_json(t), "zero_point", !t->symmetric, "version", "gemm", "modules_to_not_convert",
                     left);
}

static json_t *gptq_config(const clq_plan *p, const clq_type *t)
{
    json_t *dynamic = json_object();
    bool ordered = false;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        ordered |= e->ordered;
        if (left_alone(e)) set_dynamic(dynamic, e, "-:", json_object());
        if (e->type.format == CLQ_INT && !clq_type_equal(&e->type, t))
            set_dynamic(dynamic, e, "+:",
                        json_pack("{s:i, s:o, s:b}", "bits", (int)e->type.bits, "group_size", group_size_json(&e->type),
                                  "sym", e->type.symmetric));
    }
    json_t *config =
        json_pack("{s:s, s:i, s:o, s:b, s:b, s:b, s:s}", "quant_method", "gptq", "bits", (int)t->bits, "group_size",
                  group_size_json(t), "desc_act", ordered, "sym", t->symmetric, "lm_head", 0, "checkpoint_format",
                  p->options.layout == CLQ_LAYOUT_GPTQ_V2 ? "gptq_v2" : "gptq");
    if (json_object_size(dynamic)) json_object_set(config, "dynamic", dynamic);
    json_decref(dynamic);
    return config;
}

json_t *clq_columns_config(const clq_plan *p)
{
    const clq_entry *e = main_entry(p);
    if (!e) return NULL;
    return p->packing == CLQ_PACKED_AWQ ? awq_config(p, &e->type) : gptq_config(p, &e->type);
}

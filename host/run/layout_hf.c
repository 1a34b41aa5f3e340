// SPDX-License-Identifier: MIT
// The files of a Hugging Face folder: shards and their index, config.json with quantization_config
// (compressed-tensors), and what is carried along.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "run/plan.h"
#include "run/packing.h"
#include "run/policy.h"

static const uint64_t SHARD_BYTES = 5000000000u; // as transformers' default

// ---- shards ----

// Gives entries their shard, in order. The number of shards.
static uint32_t assign_shards(clq_plan *p)
{
    uint32_t shard = 0;
    uint64_t filled = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        uint64_t n = clq_entry_bytes(&p->entries[i]);
        if (filled && filled + n > SHARD_BYTES) {
            shard++;
            filled = 0;
        }
        p->entries[i].file = shard;
        filled += n;
    }
    return shard + 1;
}

static json_t *entry_json(const clq_part *part, uint64_t at)
{
    json_t *shape = json_array();
    for (uint32_t d = 0; d < part->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)part->dims[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", part->st_dtype, "shape", shape, "data_offsets", (json_int_t)at,
                     (json_int_t)(at + part->n_bytes));
}

// The header of one shard; sets the parts' offsets. Wide elements come first, so that every tensor
// lies at a multiple of its element size.
static clq_status write_shard_head(clq_plan *p, uint32_t shard, clq_error *err)
{
    clq_plan_file *file = &p->files[shard];
    json_t *head = json_object();
    json_t *metadata = p->source->st_metadata ? json_copy(p->source->st_metadata) : json_pack("{s:s}", "format", "pt");
    json_object_set_new(head, "__metadata__", metadata);
    uint64_t at = 0;
    static const uint32_t widths[] = {8, 4, 2, 1};
    for (int w = 0; w < 4; w++)
        for (uint32_t i = 0; i < p->n_entries; i++) {
            if (p->entries[i].file != shard) continue;
            for (int k = 0; k < CLQ_ENTRY_PARTS; k++) {
                clq_part *part = &p->entries[i].parts[k];
                if (!part->name) continue;
                uint32_t width = clq_format_at(clq_format_of_st(part->st_dtype))->block_bytes;
                if (width != widths[w] && !(w == 3 && width == 3)) continue;
                part->offset = at;
                json_object_set_new(head, part->name, entry_json(part, at));
                at += part->n_bytes;
            }
        }
    char *text = json_dumps(head, JSON_COMPACT);
    json_decref(head);
    if (!text) return clq_fail_memory(err, 1);
    size_t len = strlen(text), padded = (len + 7) / 8 * 8;
    clq_buf_u64(&file->head, padded);
    clq_buf_append(&file->head, text, len);
    free(text);
    for (; len < padded; len++) clq_buf_append(&file->head, " ", 1);
    if (file->head.failed) return clq_fail_memory(err, padded);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        if (p->entries[i].file != shard) continue;
        for (int k = 0; k < CLQ_ENTRY_PARTS; k++)
            if (p->entries[i].parts[k].name) p->entries[i].parts[k].offset += file->head.len;
    }
    file->n_bytes = file->head.len + at;
    return CLQ_OK;
}

static clq_status add_text_file(clq_plan *p, const char *name, const char *text, size_t len, clq_error *err)
{
    clq_plan_file *f = clq_plan_add_file(p, name);
    if (f) clq_buf_append(&f->head, text, len);
    if (!f || f->head.failed) return clq_fail_memory(err, len);
    f->n_bytes = len;
    return CLQ_OK;
}

static clq_status add_json_file(clq_plan *p, const char *name, const json_t *json, clq_error *err)
{
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (!text) return clq_fail_memory(err, 1);
    clq_status st = add_text_file(p, name, text, strlen(text), err);
    free(text);
    return st;
}

static clq_status write_index(clq_plan *p, clq_error *err)
{
    json_t *map = json_object();
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        total += clq_entry_bytes(e);
        for (int k = 0; k < CLQ_ENTRY_PARTS; k++)
            if (e->parts[k].name) json_object_set_new(map, e->parts[k].name, json_string(p->files[e->file].name));
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    clq_status st = index ? add_json_file(p, "model.safetensors.index.json", index, err) : clq_fail_memory(err, 1);
    json_decref(index);
    return st;
}

// ---- config.json ----

// "model.layers.0.q_proj" of "model.layers.0.q_proj.weight", as a JSON string.
static json_t *module_name(const clq_entry *e)
{
    return json_stringn(e->info.name, clq_entry_module_len(e));
}

// All keys that other readers' settings of weights and of activations have.
static json_t *quant_json(uint32_t bits, bool symmetric, const char *strategy, uint32_t group_size, bool dynamic)
{
    json_t *json = json_pack("{s:n, s:n, s:b, s:i, s:{}, s:s, s:b, s:s}", "actorder", "block_structure", "dynamic",
                             dynamic, "num_bits", (int)bits, "observer_kwargs", "strategy", strategy, "symmetric",
                             symmetric, "type", "int");
    json_object_set_new(json, "group_size", group_size ? json_integer(group_size) : json_null());
    json_object_set_new(json, "observer", dynamic ? json_null() : json_string("minmax"));
    return json;
}

static json_t *weights_json(const clq_entry *e)
{
    const clq_type *t = &e->type;
    const char *strategy = t->granularity == CLQ_PER_TENSOR  ? "tensor"
                           : t->granularity == CLQ_PER_GROUP ? "group"
                                                             : "channel";
    if (t->format != CLQ_INT) return json_null();
    json_t *json =
        quant_json(t->bits, t->symmetric, strategy, t->granularity == CLQ_PER_GROUP ? t->group_size : 0, false);
    if (e->ordered) json_object_set_new(json, "actorder", json_string("group"));
    return json;
}

static bool has_input_zero_point(const clq_entry *e)
{
    return e->parts[CLQ_PART_INPUT_ZERO_POINT].n_bytes > 0;
}

static json_t *inputs_json(const clq_entry *e)
{
    switch (e->activation.quant) {
    case CLQ_QUANT_TOKEN: return quant_json(8, true, "token", 0, true);
    case CLQ_QUANT_TENSOR: return quant_json(8, false, "tensor", 0, true);
    case CLQ_QUANT_STATIC: return quant_json(8, !has_input_zero_point(e), "tensor", 0, false);
    default: return json_null();
    }
}

static const char *format_of(const clq_entry *e)
{
    return e->type.format != CLQ_INT ? "dense" : e->type.bits == 8 ? "int-quantized" : "pack-quantized";
}

static json_t *scheme_json(const clq_entry *e, json_t *targets)
{
    return json_pack("{s:s, s:o, s:n, s:o, s:o}", "format", format_of(e), "input_activations", inputs_json(e),
                     "output_activations", "targets", targets, "weights", weights_json(e));
}

// Whether a loader takes the weight for a Linear module's: those need not be named as targets.
static bool is_linear(const clq_entry *e)
{
    return e->info.n_dims == 2 && !strstr(e->info.name, "embed");
}

static bool is_quantized(const clq_entry *e)
{
    return e->type.format == CLQ_INT || e->activation.quant != CLQ_QUANT_NONE;
}

static bool same_type(const clq_type *a, const clq_type *b)
{
    clq_type x = *a, y = *b;
    x.scale_format = y.scale_format = CLQ_F32;
    return (x.format != CLQ_INT && y.format != CLQ_INT) || clq_type_equal(&x, &y);
}

static bool same_scheme(const clq_entry *a, const clq_entry *b)
{
    return same_type(&a->type, &b->type) && a->ordered == b->ordered && a->activation.quant == b->activation.quant &&
           has_input_zero_point(a) == has_input_zero_point(b);
}

// One group for the scheme asked for, whose target is the class Linear and the names of quantized
// modules of other classes; one with names for every other scheme.
static json_t *config_groups(const clq_plan *p, const clq_entry *asked)
{
    json_t *groups = json_object();
    bool *taken = calloc(p->n_entries + 1, sizeof *taken);
    if (!taken) return groups;
    uint32_t n = 0;
    for (uint32_t pass = 0; pass < 2; pass++) // the group of the scheme asked for is group_0
        for (uint32_t i = 0; i < p->n_entries; i++) {
            const clq_entry *e = &p->entries[i];
            if (!is_quantized(e) || taken[i] || (pass == 0) != same_scheme(e, asked)) continue;
            json_t *targets = json_array();
            if (pass == 0) json_array_append_new(targets, json_string("Linear"));
            for (uint32_t k = i; k < p->n_entries; k++) {
                if (!is_quantized(&p->entries[k]) || !same_scheme(&p->entries[k], e)) continue;
                taken[k] = true;
                if (pass == 1 || !is_linear(&p->entries[k]))
                    json_array_append_new(targets, module_name(&p->entries[k]));
            }
            char key[32];
            snprintf(key, sizeof key, "group_%u", n++);
            json_object_set_new(groups, key, scheme_json(e, targets));
        }
    free(taken);
    return groups;
}

// Linear-like weights that were left alone, so that a loader does not look for their scales.
static json_t *ignored_modules(const clq_plan *p)
{
    json_t *list = json_array();
    bool head = false;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        head |= strcmp(e->info.name, "lm_head.weight") == 0;
        if (is_quantized(e) || !is_linear(e) || !clq_ends_with(e->info.name, ".weight")) continue;
        json_array_append_new(list, module_name(e));
    }
    if (!head) json_array_append_new(list, json_string("lm_head")); // tied: no tensor, but a module
    return list;
}

// How well an entry stands for the scheme asked for: of that type, and of a Linear module.
static int rank(const clq_plan *p, const clq_entry *e)
{
    if (!is_quantized(e)) return 0;
    int type = e->type.format == CLQ_INT && same_type(&e->type, &p->options.type) ? 2 : 0;
    return 1 + type + (is_linear(e) && clq_is_linear_weight(e->info.name, e->info.n_dims));
}

static json_t *quantization_config(const clq_plan *p)
{
    if (clq_by_columns(p->packing)) return clq_columns_config(p);
    const clq_entry *asked = NULL;
    const char *format = NULL;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        if (!is_quantized(e)) continue;
        if (!format) format = format_of(e);
        if (strcmp(format, format_of(e)) != 0) format = "mixed-precision";
        if (!asked || rank(p, e) > rank(p, asked)) asked = e;
    }
    if (!asked) return NULL;
    return json_pack("{s:o, s:s, s:n, s:o, s:n, s:s, s:s, s:{}, s:{}, s:s}", "config_groups", config_groups(p, asked),
                     "format", format, "global_compression_ratio", "ignore", ignored_modules(p), "kv_cache_scheme",
                     "quant_method", "compressed-tensors", "quantization_status", "compressed", "sparsity_config",
                     "transform_config", "version", "0.19.0");
}

static const char *torch_dtype(const clq_plan *p)
{
    // The dtype of the largest full-precision tensor.
    const clq_entry *largest = NULL;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        if (e->type.format > CLQ_BF16) continue;
        if (!largest || e->info.n_elements > largest->info.n_elements) largest = e;
    }
    clq_format_id f = largest ? largest->type.format : CLQ_F32;
    return f == CLQ_F16 ? "float16" : f == CLQ_BF16 ? "bfloat16" : "float32";
}

static clq_status write_config(clq_plan *p, clq_error *err)
{
    const json_t *from = p->source->container == CLQ_GGUF ? p->translation.config : p->source->config;
    json_t *config = from ? json_deep_copy(from) : json_object();
    if (!config) return clq_fail_memory(err, 1);
    json_object_del(config, "quantization_config");
    json_t *quantization = quantization_config(p);
    if (quantization) json_object_set_new(config, "quantization_config", quantization);
    bool translated = p->source->container == CLQ_GGUF;
    const char *key =
        json_object_get(config, "dtype") && !json_object_get(config, "torch_dtype") ? "dtype" : "torch_dtype";
    bool changes = !p->options.keep_types; // else full-precision tensors stay what they are
    if (changes && (translated || p->options.convert || json_object_get(config, key)))
        json_object_set_new(config, key, json_string(torch_dtype(p)));
    clq_status st = json_object_size(config) ? add_json_file(p, "config.json", config, err) : CLQ_OK;
    json_decref(config);
    return st;
}

// An output that lies in the source's folder is not carried along into itself.
static bool in_output(const clq_plan *p, const char *name)
{
    char *path = clq_path_join(p->source->path, name);
    char *slash = path ? strrchr(path, '/') : NULL;
    struct stat out, dir;
    if (slash) *slash = '\0';
    bool inside = slash && strchr(name, '/') && stat(path, &dir) == 0 && stat(p->out, &out) == 0 &&
                  dir.st_dev == out.st_dev && dir.st_ino == out.st_ino;
    free(path);
    return inside;
}

static clq_status carry_files(clq_plan *p, clq_error *err)
{
    for (uint32_t i = 0; i < p->translation.n_files; i++)
        CLQ_TRY(add_text_file(p, p->translation.files[i].name, p->translation.files[i].data,
                              p->translation.files[i].len, err));
    for (uint32_t i = 0; i < p->source->n_extra_files; i++) {
        if (in_output(p, p->source->extra_files[i])) continue;
        clq_plan_file *f = clq_plan_add_file(p, p->source->extra_files[i]);
        if (!f || !(f->copy_of = clq_path_join(p->source->path, p->source->extra_files[i])))
            return clq_fail_memory(err, 1);
        clq_file file;
        CLQ_TRY(clq_file_open(f->copy_of, &file, err));
        f->n_bytes = file.size;
        clq_file_close(&file);
    }
    return CLQ_OK;
}

clq_status clq_layout_hf(clq_plan *p, clq_error *err)
{
    uint32_t n = assign_shards(p);
    for (uint32_t i = 0; i < n; i++) {
        char name[64];
        if (n == 1)
            snprintf(name, sizeof name, "model.safetensors");
        else
            snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", i + 1, n);
        if (!clq_plan_add_file(p, name)) return clq_fail_memory(err, 1);
        CLQ_TRY(write_shard_head(p, i, err));
    }
    if (n > 1) CLQ_TRY(write_index(p, err));
    CLQ_TRY(write_config(p, err));
    return carry_files(p, err);
}

// SPDX-License-Identifier: MIT
// A GGUF output: its metadata, its parts, where the tensors lie, and the headers.
#include <inttypes.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "io/output.h"
#include "run/plan.h"

enum { MAX_PARTS = 65535 }; // split.no is a u16
static const char *const split_keys[] = {"split.no", "split.count", "split.tensors.count"};

// The format that most elements have: what the file "mostly" is.
static clq_format_id main_format(const clq_plan *p)
{
    uint64_t n[CLQ_INT] = {0};
    clq_format_id most = CLQ_F32;
    for (uint32_t i = 0; i < p->n_entries; i++) n[p->entries[i].type.format] += p->entries[i].info.n_elements;
    for (int f = 0; f < CLQ_INT; f++)
        if (n[f] > n[most]) most = (clq_format_id)f;
    return most;
}

// llama.cpp's general.file_type: the mix's number; else that of the mix that begins with the format that most have.
static uint32_t file_type(const clq_plan *p)
{
    if (p->options.mix) return p->options.mix->file_type;
    const clq_mix *mix;
    clq_format_id most = main_format(p);
    for (uint32_t i = 0; (mix = clq_mix_at(i)); i++)
        if (mix->base == most) return mix->file_type;
    return most == CLQ_NVFP4 ? 39 : 0; // no mix of llama-quantize, but a number
}

// ---- metadata ----

static void set_override(clq_gguf_kvs *kvs, const clq_override *o)
{
    switch (o->kind) {
    case CLQ_OVERRIDE_INT: clq_kv_set_u32(kvs, o->key, o->integer); break;
    case CLQ_OVERRIDE_FLOAT: clq_kv_set_f32(kvs, o->key, o->number); break;
    case CLQ_OVERRIDE_BOOL: clq_kv_set_bool(kvs, o->key, o->truth); break;
    case CLQ_OVERRIDE_STRING: clq_kv_set_string(kvs, o->key, o->text, strlen(o->text)); break;
    }
}

// Keys that say how to read the file itself.
static clq_status check_override(const clq_override *o, clq_error *err)
{
    bool structure = strcmp(o->key, "general.alignment") == 0 || strncmp(o->key, "split.", 6) == 0;
    if (!*o->key || strlen(o->key) > 4096 || structure)
        return clq_fail(err, CLQ_USAGE, "the metadata key '%s' cannot be overridden", o->key);
    if (strcmp(o->key, "general.architecture") == 0 && o->kind != CLQ_OVERRIDE_STRING)
        return clq_fail(err, CLQ_USAGE, "general.architecture is a string");
    return CLQ_OK;
}

// Readers take the type that they know for a key.
static void warn_of_types(const clq_plan *p, const clq_gguf_kvs *kvs)
{
    static const char *const names[CLQ_GGUF_TYPE_COUNT] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32",
                                                           "bool", "str", "an array", "u64", "i64", "f64"};
    static const clq_gguf_type types[] = {CLQ_GGUF_U32, CLQ_GGUF_F32, CLQ_GGUF_BOOL, CLQ_GGUF_STRING};
    for (uint32_t i = 0; i < p->options.n_overrides; i++) {
        const clq_override *o = &p->options.overrides[i];
        const clq_gguf_kv *kv = clq_kv_find(kvs, o->key);
        if (kv && kv->type != types[o->kind])
            clq_warn(p->hooks, "--override-kv: '%s' is %s in the source and becomes %s, which readers may not take",
                     o->key, names[kv->type], names[types[o->kind]]);
    }
}

static void set_overrides(const clq_plan *p, clq_gguf_kvs *kvs)
{
    for (uint32_t i = 0; i < p->options.n_overrides; i++) set_override(kvs, &p->options.overrides[i]);
}

clq_status clq_plan_metadata(clq_plan *p, clq_error *err)
{
    const clq_gguf_kvs *from = p->source->container == CLQ_GGUF ? &p->source->kvs : &p->translation.kvs;
    clq_gguf_kvs *kvs = &p->kvs;
    for (uint32_t i = 0; i < p->options.n_overrides; i++) CLQ_TRY(check_override(&p->options.overrides[i], err));
    for (uint32_t i = 0; i < from->n; i++)
        clq_kv_set_raw(kvs, from->items[i].key, from->items[i].type, from->items[i].value, from->items[i].n_bytes);
    for (int i = 0; i < 3; i++) clq_kv_remove(kvs, split_keys[i]);
    warn_of_types(p, kvs);
    set_overrides(p, kvs);
    return kvs->failed || from->failed ? clq_fail_memory(err, from->n * sizeof *from->items) : CLQ_OK;
}

// What describes the file itself.
static void finish_metadata(clq_plan *p)
{
    const clq_imatrix *m = p->imatrix;
    clq_gguf_kvs *kvs = &p->kvs;
    clq_kv_set_u32(kvs, "general.file_type", file_type(p));
    if (!p->options.convert) clq_kv_set_u32(kvs, "general.quantization_version", 2);
    if (m) {
        clq_kv_set_string(kvs, "quantize.imatrix.file", m->path, strlen(m->path));
        if (*m->dataset) clq_kv_set_string(kvs, "quantize.imatrix.dataset", m->dataset, strlen(m->dataset));
        clq_kv_set_u32(kvs, "quantize.imatrix.entries_count", m->n_entries);
        if (m->n_chunks) clq_kv_set_u32(kvs, "quantize.imatrix.chunks_count", m->n_chunks);
    }
    set_overrides(p, kvs);
}

// ---- parts ----

// The part of each entry: the source's own, or as many tensors as the limits allow.
static clq_status set_parts(clq_plan *p, uint32_t alignment, uint32_t *n_parts, clq_error *err)
{
    const clq_quantize_options *o = &p->options;
    uint64_t bytes = 0, tensors = 0, part = 0;
    p->in_parts = o->split_max_bytes || o->split_max_tensors || (o->keep_split && p->source->n_files > 1);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        uint64_t size;
        if (!clq_round_up_u64(e->parts[CLQ_PART_CODES].n_bytes, alignment, &size) || !clq_add_u64(bytes, size, &bytes))
            return clq_fail(err, CLQ_BAD_INPUT, "the output is too large");
        bool full = (o->split_max_bytes && bytes > o->split_max_bytes) ||
                    (o->split_max_tensors && tensors == o->split_max_tensors);
        if (full && tensors) {
            part++;
            bytes = size;
            tensors = 0;
        }
        tensors++;
        if (o->keep_split && e->from.source != UINT32_MAX) part = p->source->tensors[e->from.source].codes.file;
        e->file = (uint32_t)part;
    }
    *n_parts = o->keep_split && p->in_parts ? p->source->n_files : (uint32_t)part + 1;
    if (part < MAX_PARTS) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE, "the output would have %" PRIu64 " parts, more than %d; allow larger ones",
                    part + 1, MAX_PARTS);
}

// "" for one file, else NAME-00001-of-0000N.gguf.
static clq_status add_part(clq_plan *p, uint32_t part, uint32_t n_parts, clq_error *err)
{
    char *path = malloc(strlen(p->out) + 40);
    if (!path) return clq_fail_memory(err, strlen(p->out));
    int stem = (int)strlen(p->out) - 5;
    sprintf(path, "%.*s-%05u-of-%05u.gguf", stem, p->out, part + 1, n_parts);
    if (p->in_parts && part == 0) p->first_part = strdup(path);
    bool is_input = p->in_parts && clq_output_is_input(path, p->source->files, p->source->n_files);
    clq_status st = CLQ_OK;
    if (is_input)
        st = clq_fail(err, CLQ_USAGE, "the output '%s' is the input; nothing was changed", path);
    else if (!clq_plan_add_file(p, p->in_parts ? clq_path_base(path) : ""))
        st = clq_fail_memory(err, 1);
    free(path);
    return st;
}

// "NAME-00001-of-0000N.gguf" of the output's NAME: its N, else 0.
static unsigned count_of_part(const char *name, const char *stem, size_t stem_len)
{
    unsigned no, count;
    int end = 0;
    if (strncmp(name, stem, stem_len) != 0 || sscanf(name + stem_len, "-%5u-of-%5u.gguf%n", &no, &count, &end) != 2)
        return 0;
    return end && !name[stem_len + (size_t)end] ? count : 0;
}

// Parts of an earlier output in another number of parts stay, and a reader of them finds an old model.
static void warn_of_other_parts(const clq_plan *p, uint32_t n_parts)
{
    const char *base = clq_path_base(p->out);
    char *dir = base == p->out ? strdup(".") : strndup(p->out, (size_t)(base - p->out));
    DIR *d = dir ? opendir(dir) : NULL;
    char first[256] = "";
    uint32_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        unsigned count = count_of_part(e->d_name, base, strlen(base) - 5);
        char *path = count && count != n_parts ? clq_path_join(dir, e->d_name) : NULL;
        if (path && !clq_output_is_input(path, p->source->files, p->source->n_files)) {
            if (n++ == 0 || strcmp(e->d_name, first) < 0) snprintf(first, sizeof first, "%s", e->d_name);
        }
        free(path);
    }
    if (d) closedir(d);
    free(dir);
    if (n)
        clq_warn(p->hooks, "beside the output %u part%s of another split, such as '%s': of an earlier output?", n,
                 n == 1 ? " is" : "s are", first);
}

// The header of a part; the first has the model's metadata.
static clq_status write_head(clq_plan *p, uint32_t part, uint32_t n_parts, const clq_gguf_tensor *tensors, uint32_t n,
                             uint32_t alignment, clq_error *err)
{
    clq_gguf_kvs own = {0}, *kvs = part == 0 ? &p->kvs : &own;
    if (part > 0 && alignment != 32) clq_kv_set_u32(kvs, "general.alignment", alignment);
    if (p->in_parts) {
        clq_kv_set_u16(kvs, split_keys[0], (uint16_t)part);
        clq_kv_set_u16(kvs, split_keys[1], (uint16_t)n_parts);
        clq_kv_set_i32(kvs, split_keys[2], (int32_t)p->n_entries);
    }
    clq_buf *head = &p->files[part].head;
    clq_gguf_write_header(head, kvs, tensors, n, alignment);
    clq_kvs_free(&own);
    return head->failed ? clq_fail_memory(err, head->len) : CLQ_OK;
}

static clq_status lay_out_part(clq_plan *p, uint32_t part, uint32_t n_parts, clq_entry *entries, uint32_t n,
                               clq_gguf_tensor *tensors, uint32_t alignment, clq_error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        clq_entry *e = &entries[i];
        const clq_format_info *f = clq_format_at(e->type.format);
        e->parts[CLQ_PART_CODES].offset = at;
        tensors[i] = (clq_gguf_tensor){
            .name = e->info.name, .ggml_type = (uint32_t)f->ggml_type, .n_dims = e->info.n_dims, .offset = at};
        memcpy(tensors[i].dims, e->info.dims, sizeof tensors[i].dims);
        if (f->ggml_type < 0)
            return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has dtype %s, which GGUF does not know",
                            e->info.source_name, f->name);
        if (!clq_add_u64(at, e->parts[CLQ_PART_CODES].n_bytes, &at) || !clq_round_up_u64(at, alignment, &at))
            return clq_fail(err, CLQ_BAD_INPUT, "the output is too large");
    }
    CLQ_TRY(add_part(p, part, n_parts, err));
    CLQ_TRY(write_head(p, part, n_parts, tensors, n, alignment, err));
    clq_plan_file *file = &p->files[part];
    for (uint32_t i = 0; i < n; i++) entries[i].parts[CLQ_PART_CODES].offset += file->head.len;
    file->n_bytes = file->head.len + at;
    return CLQ_OK;
}

clq_status clq_layout_gguf(clq_plan *p, clq_error *err)
{
    uint32_t alignment = p->source->container == CLQ_GGUF ? p->source->alignment : 32, n_parts = 0;
    clq_gguf_tensor *tensors = calloc(p->n_entries + 1, sizeof *tensors);
    if (!tensors) return clq_fail_memory(err, p->n_entries * sizeof *tensors);
    finish_metadata(p);
    clq_status st = set_parts(p, alignment, &n_parts, err);
    for (uint32_t part = 0, first = 0; st == CLQ_OK && part < n_parts; part++) {
        uint32_t n = 0;
        while (first + n < p->n_entries && p->entries[first + n].file == part) n++;
        st = lay_out_part(p, part, n_parts, p->entries + first, n, tensors, alignment, err);
        first += n;
    }
    if (st == CLQ_OK && p->in_parts) warn_of_other_parts(p, n_parts);
    free(tensors);
    return st;
}

// SPDX-License-Identifier: MIT
// Where the tensors of a GGUF output lie, and its header.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "run/plan.h"

static const uint32_t file_types[CLQ_INT] = { // llama.cpp's general.file_type
    [CLQ_F32] = 0, [CLQ_F16] = 1, [CLQ_Q4_0] = 2, [CLQ_Q4_1] = 3, [CLQ_Q8_0] = 7, [CLQ_Q5_0] = 8, [CLQ_Q5_1] = 9,
    [CLQ_BF16] = 32, [CLQ_Q2_K] = 10, [CLQ_Q3_K] = 11, [CLQ_Q4_K] = 14, [CLQ_Q5_K] = 16, [CLQ_Q6_K] = 18,
    [CLQ_IQ2_XXS] = 19, [CLQ_IQ2_XS] = 20, [CLQ_IQ3_XXS] = 23, [CLQ_IQ1_S] = 24, [CLQ_IQ3_S] = 26, [CLQ_IQ2_S] = 28,
    [CLQ_IQ1_M] = 31, [CLQ_IQ4_NL] = 25, [CLQ_IQ4_XS] = 30, [CLQ_TQ1_0] = 36, [CLQ_TQ2_0] = 37,
    [CLQ_MXFP4] = 38, [CLQ_NVFP4] = 39, [CLQ_Q1_0] = 40, [CLQ_Q2_0] = 41,
};

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

// Metadata: the source's, byte for byte, but what describes the file itself.
static void set_metadata(const clq_plan *p, clq_gguf_kvs *kvs)
{
    static const char *const split[] = {"split.no", "split.count", "split.tensors.count"};
    const clq_gguf_kvs *from = p->source->container == CLQ_GGUF ? &p->source->kvs : &p->translation.kvs;
    kvs->failed |= from->failed;
    for (uint32_t i = 0; i < from->n; i++)
        clq_kv_set_raw(kvs, from->items[i].key, from->items[i].type, from->items[i].value, from->items[i].n_bytes);
    for (int i = 0; i < 3; i++) clq_kv_remove(kvs, split[i]);
    clq_kv_set_u32(kvs, "general.file_type", file_types[main_format(p)]);
    if (!p->options.convert) clq_kv_set_u32(kvs, "general.quantization_version", 2);
}

clq_status clq_layout_gguf(clq_plan *p, clq_error *err)
{
    uint32_t alignment = p->source->container == CLQ_GGUF ? p->source->alignment : 32;
    clq_gguf_kvs kvs = {0};
    clq_gguf_tensor *tensors = calloc(p->n_entries + 1, sizeof *tensors);
    clq_plan_file *file = clq_plan_add_file(p, "");
    clq_status st = CLQ_OK;
    if (!tensors || !file) {
        st = clq_fail_memory(err, p->n_entries * sizeof *tensors);
        goto out;
    }
    uint64_t at = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        e->file = 0;
        e->codes.offset = at;
        tensors[i] = (clq_gguf_tensor){.name = e->info.name,
                                       .ggml_type = (uint32_t)clq_format_at(e->type.format)->ggml_type,
                                       .n_dims = e->info.n_dims,
                                       .offset = at};
        memcpy(tensors[i].dims, e->info.dims, sizeof tensors[i].dims);
        if (clq_format_at(e->type.format)->ggml_type < 0) {
            st = clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has dtype %s, which GGUF does not know", e->info.source_name,
                          clq_format_at(e->type.format)->name);
            goto out;
        }
        if (!clq_add_u64(at, e->codes.n_bytes, &at) || !clq_round_up_u64(at, alignment, &at)) {
            st = clq_fail(err, CLQ_BAD_INPUT, "the output is too large");
            goto out;
        }
    }
    set_metadata(p, &kvs);
    clq_gguf_write_header(&file->head, &kvs, tensors, p->n_entries, alignment);
    if (file->head.failed) {
        st = clq_fail_memory(err, file->head.len);
        goto out;
    }
    for (uint32_t i = 0; i < p->n_entries; i++) p->entries[i].codes.offset += file->head.len;
    file->n_bytes = file->head.len + at;
out:
    clq_kvs_free(&kvs);
    free(tensors);
    return st;
}

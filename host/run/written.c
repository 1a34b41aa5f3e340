// SPDX-License-Identifier: MIT
#include "run/written.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/threads.h"

static uint64_t hash_part(const clq_file *f, const clq_part *part)
{
    if (!part->n_bytes) return XXH3_64bits(NULL, 0);
    if (f->map) return XXH3_64bits(f->map + part->offset, part->n_bytes);
    XXH3_state_t *h = XXH3_createState();
    uint8_t *buffer = malloc(1 << 20);
    uint64_t digest = 0;
    if (h && buffer) {
        XXH3_64bits_reset(h);
        for (uint64_t at = 0; at < part->n_bytes; at += 1 << 20) {
            uint64_t n = part->n_bytes - at < 1 << 20 ? part->n_bytes - at : 1 << 20;
            if (clq_file_read(f, part->offset + at, buffer, n, NULL) != CLQ_OK) break;
            XXH3_64bits_update(h, buffer, n);
        }
        digest = XXH3_64bits_digest(h);
    }
    free(buffer);
    XXH3_freeState(h);
    return digest;
}

bool clq_entry_intact(const clq_file *files, const clq_entry *e, uint64_t hash)
{
    const clq_file *f = &files[e->file];
    uint64_t digests[CLQ_ENTRY_PARTS];
    for (int i = 0; i < CLQ_ENTRY_PARTS; i++) {
        const clq_part *part = &e->parts[i];
        if (part->n_bytes && (part->offset > f->size || part->n_bytes > f->size - part->offset)) return false;
        digests[i] = hash_part(f, part);
    }
    return XXH3_64bits(digests, sizeof digests) == hash;
}

typedef struct {
    const clq_plan *plan;
    const clq_file *files;
    _Atomic(int) n_bad;
    const char *bad;
} check;

static void check_entries(void *ctx, uint64_t begin, uint64_t end)
{
    check *c = ctx;
    for (uint64_t i = begin; i < end; i++) {
        const clq_entry *e = &c->plan->entries[i];
        if (!clq_entry_intact(c->files, e, e->hash) && atomic_fetch_add(&c->n_bad, 1) == 0) c->bad = e->info.name;
    }
}

clq_status clq_written_open(const clq_plan *p, clq_output *output, clq_file **files, clq_error *err)
{
    *files = calloc(p->n_files, sizeof **files);
    if (!*files) return clq_fail_memory(err, p->n_files * sizeof **files);
    for (uint32_t i = 0; i < p->n_files; i++) (*files)[i].fd = -1;
    for (uint32_t i = 0; i < p->n_files; i++) CLQ_TRY(clq_output_reopen(output, i, &(*files)[i], err));
    return CLQ_OK;
}

void clq_written_close(const clq_plan *p, clq_file *files)
{
    for (uint32_t i = 0; files && i < p->n_files; i++) clq_file_close(&files[i]);
    free(files);
}

static bool same_activation(const clq_tensor *t, const clq_entry *e)
{
    const clq_activation *a = &t->activation, *b = &e->activation;
    return a->quant == b->quant && a->scale == b->scale && a->zero_point == b->zero_point;
}

// The reader opens the partial output like any checkpoint and must find what was planned.
static clq_status check_structure(const clq_plan *p, clq_output *output, clq_error *err)
{
    clq_source *s = NULL;
    const char *partial = clq_output_partial(output);
    char *path = p->in_parts ? clq_path_join(partial, p->files[0].name) : strdup(partial);
    clq_status st = path ? clq_source_open(path, NULL, &s, err) : clq_fail_memory(err, 1);
    free(path);
    CLQ_TRY(st);
    if (s->n_tensors != p->n_entries)
        st = clq_fail(err, CLQ_OUTPUT, "the output reads as %u tensors, %u were written", s->n_tensors, p->n_entries);
    for (uint32_t i = 0; st == CLQ_OK && i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        // Readers keep the file's order for GGUF; safetensors headers are ordered by width.
        const clq_tensor *t = i < s->n_tensors && strcmp(s->tensors[i].name, e->info.name) == 0
                                  ? &s->tensors[i]
                                  : clq_source_find(s, e->info.name);
        const clq_part *codes = &e->parts[CLQ_PART_CODES];
        if (!t || !clq_type_equal(&t->type, &e->type) || t->n_elements != e->info.n_elements ||
            t->codes.offset != codes->offset || t->codes.n_bytes != codes->n_bytes || !same_activation(t, e))
            st = clq_fail(err, CLQ_OUTPUT, "the output does not read back: tensor '%s' %s", e->info.name,
                          t ? "has another type, shape or place" : "is missing");
    }
    clq_source_close(s);
    return st;
}

clq_status clq_written_check(const clq_plan *p, clq_output *output, uint32_t threads, clq_error *err)
{
    check c = {.plan = p};
    clq_file *files = NULL;
    clq_status st = clq_written_open(p, output, &files, err);
    c.files = files;
    if (st == CLQ_OK) {
        clq_parallel(threads, p->n_entries, 1, check_entries, &c);
        if (c.n_bad) st = clq_fail(err, CLQ_OUTPUT, "tensor '%s' reads back with other bytes than were written", c.bad);
    }
    clq_written_close(p, files);
    return st == CLQ_OK ? check_structure(p, output, err) : st;
}

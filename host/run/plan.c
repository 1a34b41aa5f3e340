// SPDX-License-Identifier: MIT
// Making the plan: translation of names, types by the policy, layout, memory, fingerprint.
#include "run/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/half.h"
#include "calib/importance.h"
#include "io/output.h"
#include "run/activations.h"
#include "run/gather.h"
#include "run/mix.h"
#include "run/packing.h"
#include "run/policy.h"
#include "run/prepare.h"

enum {
    TILE_ELEMENTS = 1 << 20,           // on the CPU: input, output and work stay in its caches
    DISCRETE_TILE_ELEMENTS = 16 << 20, // across a bus
    N_LANES = 3,
    LANE_BYTES_PER_ELEMENT = 16, // source as float, decoded, codes, scales and statistics: at most
};
static const uint64_t MIN_MEMORY = 16u << 20;

clq_plan_file *clq_plan_add_file(clq_plan *p, const char *name)
{
    clq_plan_file *files = realloc(p->files, (p->n_files + 1) * sizeof *files);
    if (!files) return NULL;
    p->files = files;
    files[p->n_files] = (clq_plan_file){.name = strdup(name)};
    return files[p->n_files].name ? &files[p->n_files++] : NULL;
}

void clq_plan_free(clq_plan *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        for (int k = 0; k < CLQ_ENTRY_PARTS; k++) free(e->parts[k].name);
        free((char *)e->info.name);
    }
    for (uint32_t i = 0; i < p->n_files; i++) {
        free(p->files[i].name);
        free(p->files[i].copy_of);
        clq_buf_free(&p->files[i].head);
    }
    for (uint32_t i = 0; i < p->options.n_rules; i++)
        if (p->rules) free((char *)p->rules[i].pattern);
    clq_translation_free(&p->translation);
    clq_kvs_free(&p->kvs);
    clq_imatrix_free(p->imatrix);
    clq_stats_free(p->stats);
    for (uint32_t i = 0; i < p->n_sites; i++) {
        free((char *)p->sites[i].name);
        free((char *)p->sites[i].fold);
    }
    free(p->sites);
    free(p->method_text);
    free(p->method_text_name);
    free(p->rules);
    free(p->entries);
    free(p->files);
    free(p->first_part);
    free(p->out);
    free(p);
}

// ---- entries ----

static clq_status make_entry(clq_plan *p, clq_policy *policy, const clq_translated_tensor *tr, clq_entry *e,
                             clq_error *err)
{
    const clq_tensor *first = &p->source->tensors[tr->from.source];
    *e = (clq_entry){.from = tr->from, .uniform = clq_origin_uniform(p->source, &tr->from)};
    // The tensor as the output sees it: of the first piece's type, in its own shape.
    clq_tensor whole = *first, *t = &whole;
    t->n_elements = tr->from.n_pieces * tr->from.n_elements;
    t->n_dims = tr->n_dims;
    memcpy(t->dims, tr->dims, sizeof t->dims);
    e->info = (clq_plan_tensor){.name = strdup(tr->name), .source_name = t->name, .note = e->note, .n_dims = t->n_dims,
                                .n_elements = t->n_elements};
    if (!e->info.name) return clq_fail_memory(err, 1);
    memcpy(e->info.dims, t->dims, sizeof e->info.dims);
    clq_type_name(&t->type, e->info.source_type);
    clq_subject s = {.name = tr->name, .t = t, .to_gguf = p->to_gguf, .from_gguf = p->source->container == CLQ_GGUF};
    clq_choice c;
    CLQ_TRY(clq_policy_choose(policy, &s, &c, err));
    if (!e->uniform && clq_format_row(c.type.format)->kind == CLQ_KIND_OPAQUE)
        return clq_fail(err, CLQ_BAD_INPUT, "the parts of tensor '%s' are stored in several types, from '%s' on",
                        tr->name, t->name);
    e->type = c.type;
    e->rows = c.rows;
    e->cols = c.cols;
    if (tr->from.order != CLQ_ROWS_KEPT && t->n_dims == 1) { // a bias: its elements are the rows
        e->rows = t->n_elements;
        e->cols = 1;
    }
    e->info.quantized = c.quantized;
    memcpy(e->note, c.note, sizeof e->note);
    CLQ_TRY(clq_entry_keep_int(p, e, first, err));
    CLQ_TRY(clq_entry_set_parts(p, e, err));
    e->copy |= e->info.n_elements == 0 || (e->type.format != CLQ_INT && e->type.format == first->type.format &&
                                           e->uniform && e->from.shift == 0);
    e->info.lossy = !e->copy;
    p->totals.n_fallbacks += c.fallback;
    p->totals.n_notes += *e->note != '\0';
    if (c.fallback)
        p->totals.fallback_bytes +=
            (int64_t)e->info.n_bytes - (int64_t)(clq_type_bits(&c.asked) / 8 * (double)t->n_elements);
    p->totals.n_elements += t->n_elements;
    if (c.quantized) p->totals.quantized_elements += t->n_elements;
    p->totals.source_bytes += clq_origin_bytes(p->source, &e->from);
    return CLQ_OK;
}

// Computed tensors have no source: they go behind the others, as F32, from memory.
static clq_status add_computed(clq_plan *p, clq_error *err)
{
    for (uint32_t i = 0; i < p->translation.n_computed; i++) {
        const clq_computed_tensor *c = &p->translation.computed[i];
        clq_entry *e = &p->entries[p->n_entries++];
        *e = (clq_entry){.type = clq_plain(CLQ_F32), .from.source = UINT32_MAX, .copy = true, .rows = 1};
        e->info = (clq_plan_tensor){.name = strdup(c->name),
                                    .source_name = "(computed)",
                                    .note = e->note,
                                    .n_dims = c->n_dims,
                                    .n_elements = 1};
        if (!e->info.name) return clq_fail_memory(err, 1);
        memcpy(e->info.dims, c->dims, sizeof e->info.dims);
        for (uint32_t d = 0; d < c->n_dims; d++) e->info.n_elements *= c->dims[d];
        e->parts[CLQ_PART_CODES].n_bytes = e->info.n_bytes = 4 * e->info.n_elements;
        snprintf(e->info.source_type, sizeof e->info.source_type, "-");
        clq_type_name(&e->type, e->info.type);
    }
    return CLQ_OK;
}

// ---- importance ----

// Statistics, and importance from a file of its own or from them.
static clq_status open_measurements(clq_plan *p, clq_error *err)
{
    const clq_quantize_options *o = &p->options;
    if (o->statistics) CLQ_TRY(clq_stats_open(o->statistics, &p->stats, err));
    if (o->imatrix)
        CLQ_TRY(clq_importance_open(o->imatrix, &p->imatrix, err));
    else if (p->stats && p->to_gguf)
        CLQ_TRY(clq_stats_imatrix(p->stats, o->statistics, &p->imatrix, err));
    if (!p->imatrix) return CLQ_OK;
    if (o->n_exclude_weights) clq_imatrix_filter(p->imatrix, o->exclude_weights, o->n_exclude_weights, false);
    if (o->n_include_weights) clq_imatrix_filter(p->imatrix, o->include_weights, o->n_include_weights, true);
    if (p->imatrix->n_entries) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE, "no entry of '%s' is left to be used", p->imatrix->path);
}

static clq_status set_importance(clq_plan *p, clq_entry *e, uint32_t *n_missing, clq_error *err)
{
    const char *name = e->info.name;
    if (e->copy || clq_format_row(e->type.format)->weights == CLQ_WEIGHTS_IGNORED) return CLQ_OK;
    const clq_mix *mix = p->options.mix;
    bool needed = clq_needs_importance(name, e->type.format, mix);
    // Experts are stacked in the dimensions before the last two.
    uint64_t n_matrices = 1;
    for (uint32_t d = 0; d + 2 < e->info.n_dims; d++) n_matrices *= e->info.dims[d];
    if (p->imatrix) {
        // Entries of token embeddings do not count columns; llama-quantize passes over them too.
        clq_status st = clq_imatrix_take(p->imatrix, name, n_matrices, e->cols, p->hooks, &e->importance, err);
        if (st != CLQ_OK && !clq_is_token_embedding(name)) return st;
        e->matrix_rows = e->rows / n_matrices;
        *n_missing += !e->importance && !clq_is_token_embedding(name);
    }
    if (e->importance || !needed) return CLQ_OK;
    if (p->imatrix)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': %s needs an importance matrix, and '%s' has no entry for it; give it "
                        "another type with --tensor-type",
                        name, e->info.type, p->imatrix->path);
    return clq_fail(err, CLQ_USAGE, "tensor '%s': %s needs an importance matrix (--imatrix)", name, e->info.type);
}

static clq_status set_importances(clq_plan *p, clq_error *err)
{
    uint32_t n_missing = 0;
    const char *first = NULL;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        uint32_t before = n_missing;
        CLQ_TRY(set_importance(p, &p->entries[i], &n_missing, err));
        if (n_missing > before && !first) first = p->entries[i].info.name;
    }
    bool filtered = p->options.n_include_weights || p->options.n_exclude_weights;
    if (n_missing && !filtered)
        clq_warn(p->hooks, "'%s' has no entry for %u tensor%s (the first: '%s'), quantized without it",
                 p->imatrix->path, n_missing, CLQ_PLURAL(n_missing), first);
    return CLQ_OK;
}

// ---- all entries ----

typedef struct {
    const char *name;
    uint64_t file, offset;
    uint32_t index;
} turn;

static int by_mix_order(const void *a, const void *b)
{
    return clq_mix_order(((const turn *)a)->name, ((const turn *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const turn *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Makes the entries in the order in which the rules of mixes count tensors.
static clq_status choose_types(clq_plan *p, clq_policy *policy, uint32_t n, clq_error *err)
{
    bool translated = p->translation.n_tensors > 0;
    turn *turns = malloc((n + 1) * sizeof *turns);
    if (!turns) return clq_fail_memory(err, n * sizeof *turns);
    for (uint32_t i = 0; i < n; i++) {
        const clq_tensor *t = &p->source->tensors[translated ? p->translation.tensors[i].from.source : i];
        turns[i] = (turn){translated ? p->translation.tensors[i].name : t->name, t->codes.file, t->codes.offset, i};
        if (p->to_gguf) clq_policy_see(policy, turns[i].name);
    }
    if (p->to_gguf) qsort(turns, n, sizeof *turns, p->options.keep_split ? by_place : by_mix_order);
    clq_status st = CLQ_OK;
    for (uint32_t k = 0; st == CLQ_OK && k < n; k++) {
        uint32_t i = turns[k].index;
        clq_translated_tensor same = {0};
        if (!translated) {
            const clq_tensor *t = &p->source->tensors[i];
            same = (clq_translated_tensor){.name = t->name, .n_dims = t->n_dims, .from = clq_origin_of(p->source, i)};
            memcpy(same.dims, t->dims, sizeof same.dims);
        }
        st = make_entry(p, policy, translated ? &p->translation.tensors[i] : &same, &p->entries[i], err);
    }
    free(turns);
    return st;
}

static bool quantized_source(const clq_tensor *t)
{
    return t->type.format == CLQ_INT || clq_format_at(t->type.format)->block_elements > 1;
}

// Quantizing what was quantized before adds the errors of both.
static void warn_of_requantizing(const clq_plan *p)
{
    char types[160] = "", type[32];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        if (e->from.source == UINT32_MAX || e->copy || !e->info.quantized) continue;
        const clq_tensor *t = &p->source->tensors[e->from.source];
        if (!quantized_source(t)) continue;
        n++;
        clq_type_name(&t->type, type);
        size_t at = strlen(types);
        if (!strstr(types, type) && at + strlen(type) + 3 < sizeof types)
            sprintf(types + at, "%s%s", at ? ", " : "", type);
    }
    if (n)
        clq_warn(p->hooks,
                 "%u tensor%s quantized already (%s); quantizing again loses more than quantizing the original model "
                 "does",
                 n, n == 1 ? " is" : "s are", types);
}

static clq_status make_entries(clq_plan *p, clq_error *err)
{
    uint32_t n = p->translation.n_tensors > 0 ? p->translation.n_tensors : p->source->n_tensors;
    clq_policy *policy = NULL;
    clq_status st = clq_policy_create(&p->options, p->to_gguf, &p->kvs, p->imatrix != NULL, &policy, err);
    p->entries = calloc(n + p->translation.n_computed + 1, sizeof *p->entries);
    if (st == CLQ_OK && !p->entries) st = clq_fail_memory(err, n * sizeof *p->entries);
    if (p->entries) p->n_entries = n;
    if (st == CLQ_OK) st = choose_types(p, policy, n, err);
    if (st == CLQ_OK) st = add_computed(p, err);
    if (st == CLQ_OK) st = clq_policy_finish(policy, err);
    if (st == CLQ_OK) st = set_importances(p, err);
    if (st == CLQ_OK) st = clq_plan_mark_prepared(p, err);
    if (st == CLQ_OK) st = clq_plan_set_activations(p, p->stats, err);
    if (st == CLQ_OK) st = clq_plan_check_packing(p, err);
    clq_policy_free(policy);
    p->totals.n_tensors = p->n_entries;
    if (st == CLQ_OK && !p->options.convert) warn_of_requantizing(p);
    return st;
}

// ---- memory ----

// Rows that must stay together: a word of packed zero-points spans 32 of them.
static uint64_t row_step(const clq_entry *e)
{
    return e->type.format == CLQ_INT && !e->type.symmetric && e->type.bits < 8 ? 32 : 1;
}

uint64_t clq_plan_tile_rows(const clq_plan *p, const clq_entry *e)
{
    uint64_t rows = e->cols ? p->tile_elements / e->cols : e->rows, step = row_step(e);
    rows = rows / step * step;
    if (!rows) rows = step;
    return rows < e->rows ? rows : e->rows;
}

static uint64_t default_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t quarter = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : 1u << 30;
    return quarter < 1u << 30 ? quarter : 1u << 30;
}

// Types whose blocks know nothing of rows are walked as rows of one block, so that a tile's size does
// not depend on the tensor's shape.
static void flatten(clq_plan *p, clq_entry *e)
{
    if (e->type.format == CLQ_INT || e->copy || e->prepared || e->importance || e->from.order != CLQ_ROWS_KEPT ||
        e->from.source == UINT32_MAX)
        return;
    const clq_tensor *t = &p->source->tensors[e->from.source];
    const clq_format *from = clq_format_row(t->type.format);
    if (t->type.format == CLQ_INT || !e->uniform || e->from.shift != 0 || from->kind != CLQ_KIND_CODEC) return;
    uint64_t a = from->info.block_elements, b = clq_format_at(e->type.format)->block_elements;
    uint64_t block = a > b ? a : b; // all are powers of two
    if (e->from.n_elements % block || e->from.first % block || e->from.stride % block) return;
    e->cols = block;
    e->rows = e->info.n_elements / block;
}

static clq_status plan_memory(clq_plan *p, clq_error *err)
{
    uint64_t memory = p->options.max_memory ? p->options.max_memory : default_memory();
    if (memory < MIN_MEMORY)
        return clq_fail(err, CLQ_USAGE, "--max-mem must be at least %" PRIu64 " MiB", MIN_MEMORY >> 20);
    uint64_t largest = 0;
    const char *name = "";
    for (uint32_t i = 0; i < p->n_entries; i++) {
        uint64_t n = clq_gathers(p, &p->entries[i]) ? clq_gather_bytes(&p->entries[i]) : 0;
        if (n <= p->gather_bytes) continue;
        p->gather_bytes = n;
        name = p->entries[i].info.name;
    }
    if (p->gather_bytes > memory)
        return clq_fail(err, CLQ_USAGE,
                        "tensor '%s' needs %" PRIu64 " MiB to be packed by columns; raise --max-mem", name,
                        (p->gather_bytes >> 20) + 1);
    memory -= p->gather_bytes;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        if (e->copy) continue;
        flatten(p, e);
        uint64_t least = (row_step(e) < e->rows ? row_step(e) : e->rows) * e->cols;
        if (least > largest) {
            largest = least;
            name = e->info.name;
        }
    }
    p->memory = memory;
    p->n_lanes = N_LANES;
    while (p->n_lanes > 1 && p->n_lanes * largest * LANE_BYTES_PER_ELEMENT > memory) p->n_lanes--;
    if (largest > UINT32_MAX || largest * LANE_BYTES_PER_ELEMENT > memory)
        return clq_fail(err, CLQ_USAGE,
                        "tensor '%s' needs %" PRIu64 " MiB for the rows that belong together; raise --max-mem", name,
                        ((largest * LANE_BYTES_PER_ELEMENT + p->gather_bytes) >> 20) + 1);
    clq_plan_fit(p, 0, false, 0);
    return CLQ_OK;
}

void clq_plan_fit(clq_plan *p, uint64_t max_allocation, bool discrete, uint64_t taken)
{
    p->tile_elements = discrete ? DISCRETE_TILE_ELEMENTS : TILE_ELEMENTS;
    uint64_t left = p->options.max_memory && taken < p->memory ? p->memory - taken : p->memory;
    uint64_t affordable = left / p->n_lanes / LANE_BYTES_PER_ELEMENT;
    if (p->tile_elements > affordable) p->tile_elements = affordable;
    if (max_allocation && p->tile_elements > max_allocation / 4) p->tile_elements = max_allocation / 4;
    p->max_elements = p->max_src_bytes = p->max_code_bytes = p->max_groups = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        if (e->copy) continue;
        uint64_t rows = clq_plan_tile_rows(p, e), n = rows * e->cols;
        uint64_t groups = e->type.format == CLQ_INT ? rows * clq_type_groups(&e->type, e->cols) : 0;
        uint64_t codes = rows * clq_type_row_bytes(&e->type, e->cols);
        if (n > p->max_elements) p->max_elements = n;
        if (n * 4 > p->max_src_bytes) p->max_src_bytes = n * 4;
        if (codes > p->max_code_bytes) p->max_code_bytes = codes;
        if (groups > p->max_groups) p->max_groups = groups;
    }
    p->totals.memory = p->n_lanes * p->max_elements * LANE_BYTES_PER_ELEMENT + p->gather_bytes;
}

// ---- the whole ----

// Everything that decides a byte of the output, and the identity of the source.
static void set_fingerprint(clq_plan *p)
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return;
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, CLQ_VERSION, sizeof CLQ_VERSION);
    for (uint32_t i = 0; i < p->n_files; i++) {
        XXH3_64bits_update(h, p->files[i].name, strlen(p->files[i].name) + 1);
        XXH3_64bits_update(h, p->files[i].head.data, p->files[i].head.len);
        XXH3_64bits_update(h, &p->files[i].n_bytes, 8);
    }
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        uint64_t facts[] = {e->from.source, e->from.n_pieces, e->from.first, clq_bits(e->from.shift),
                            e->from.order, e->from.n_heads, e->type.format, e->type.bits, e->type.symmetric,
                            e->type.granularity, e->type.group_size, e->type.scale_format, e->file,
                            e->activation.quant, clq_bits(e->activation.scale), (uint64_t)e->activation.zero_point};
        XXH3_64bits_update(h, facts, sizeof facts);
        for (int k = 0; k < CLQ_ENTRY_PARTS; k++) XXH3_64bits_update(h, &e->parts[k].offset, 8);
        if (e->importance)
            XXH3_64bits_update(h, e->importance, e->rows / e->matrix_rows * e->cols * sizeof *e->importance);
    }
    const clq_method_options *o = p->options.method;
    if (o) {
        float numbers[] = {o->alpha, o->damp};
        uint32_t facts[] = {o->method, o->scales, o->text_kind, o->context, o->windows, o->search_tokens, o->keep_order,
                            o->search_type ? o->search_type->bits : 0, o->search_type ? o->search_type->symmetric : 0,
                            o->search_type ? o->search_type->group_size : 0};
        XXH3_64bits_update(h, facts, sizeof facts);
        XXH3_64bits_update(h, numbers, sizeof numbers);
        if (o->text) XXH3_64bits_update(h, o->text, o->text_len);
    }
    for (uint32_t i = 0; i < p->source->n_files; i++) {
        const clq_file *f = &p->source->files[i];
        uint64_t facts[] = {f->size, f->device, f->inode, (uint64_t)f->mtime_ns};
        XXH3_64bits_update(h, facts, sizeof facts);
    }
    p->fingerprint = XXH3_64bits_digest(h);
    XXH3_freeState(h);
}

static clq_status copy_options(clq_plan *p, const clq_quantize_options *o, clq_error *err)
{
    p->options = *o;
    p->options.n_rules = 0;
    p->rules = calloc(o->n_rules + 1, sizeof *p->rules);
    if (!p->rules) return clq_fail_memory(err, o->n_rules * sizeof *p->rules);
    for (uint32_t i = 0; i < o->n_rules; i++) {
        p->rules[i] = (clq_rule){.pattern = strdup(o->rules[i].pattern), .type = o->rules[i].type};
        if (!p->rules[i].pattern) return clq_fail_memory(err, 1);
        p->options.n_rules++;
    }
    p->options.rules = p->rules;
    return CLQ_OK;
}

static clq_status check_type(const clq_plan *p, const clq_type *t, clq_error *err)
{
    char name[32];
    clq_type_name(t, name);
    if (t->format == CLQ_INT && p->to_gguf)
        return clq_fail(err, CLQ_USAGE,
                        "%s is stored in a folder; give an output that does not end in .gguf instead of '%s'", name,
                        p->out);
    const char *why = t->format == CLQ_INT ? clq_layout_refuses(p->options.layout, t, false) : NULL;
    if (why)
        return clq_fail(err, CLQ_USAGE, "%s, --container %s: %s", name, clq_layout_name(p->options.layout), why);
    if (t->format != CLQ_INT && t->format > CLQ_BF16 && !p->to_gguf)
        return clq_fail(err, CLQ_USAGE,
                        "%s is stored in a GGUF file; give an output that ends in .gguf instead of '%s'", name, p->out);
    return CLQ_OK;
}

// Options that only a GGUF output has a meaning for.
static clq_status check_gguf_options(const clq_plan *p, clq_error *err)
{
    const clq_quantize_options *o = &p->options;
    const struct {
        bool given;
        const char *name;
    } options[] = {{o->token_embedding, "--token-embedding-type"},
                   {o->output_tensor, "--output-tensor-type"},
                   {o->leave_output_tensor, "--leave-output-tensor"},
                   {o->n_overrides > 0, "--override-kv"},
                   {o->imatrix, "--imatrix"},
                   {o->keep_split, "--keep-split"},
                   {o->split_max_bytes > 0, "--split-max-size"},
                   {o->split_max_tensors > 0, "--split-max-tensors"}};
    for (size_t i = 0; !p->to_gguf && i < sizeof options / sizeof *options; i++)
        if (options[i].given)
            return clq_fail(err, CLQ_USAGE, "%s is for GGUF files; give an output that ends in .gguf instead of '%s'",
                            options[i].name, p->out);
    if (o->token_embedding) CLQ_TRY(check_type(p, o->token_embedding, err));
    if (o->output_tensor) CLQ_TRY(check_type(p, o->output_tensor, err));
    if (o->leave_output_tensor && o->output_tensor)
        return clq_fail(err, CLQ_USAGE, "--leave-output-tensor and --output-tensor-type exclude each other");
    if (o->n_include_weights && o->n_exclude_weights)
        return clq_fail(err, CLQ_USAGE, "--include-weights and --exclude-weights exclude each other");
    if ((o->n_include_weights || o->n_exclude_weights) && !o->imatrix && !(o->statistics && p->to_gguf))
        return clq_fail(err, CLQ_USAGE,
                        "--include-weights and --exclude-weights choose entries of an --imatrix, and there is none");
    if (o->keep_split && (o->split_max_bytes || o->split_max_tensors))
        return clq_fail(err, CLQ_USAGE, "--keep-split and --split-max-* exclude each other");
    if (o->keep_split && p->source->container != CLQ_GGUF)
        return clq_fail(err, CLQ_USAGE, "--keep-split keeps the parts of a split GGUF file; '%s' is none",
                        p->source->path);
    return CLQ_OK;
}

static clq_status check_source(const clq_plan *p, clq_error *err)
{
    const clq_source *s = p->source;
    const char *unread = clq_quantization_unread(s->config);
    if (unread)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is already quantized (%s), in a layout that is not read", s->path,
                        unread);
    if (s->container == CLQ_SAFETENSORS && p->to_gguf)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' is a single safetensors file; a GGUF file needs the model's config.json and "
                        "tokenizer: give its folder",
                        s->path);
    if (clq_ends_with(p->out, ".safetensors"))
        return clq_fail(err, CLQ_USAGE, "a folder is written, with model.safetensors in it; give '%.*s'",
                        (int)(strlen(p->out) - strlen(".safetensors")), p->out);
    if (clq_output_is_input(p->out, s->files, s->n_files))
        return clq_fail(err, CLQ_USAGE, "the output '%s' is the input; nothing was changed", p->out);
    // A GGUF file may lie beside the weights: it is never carried along.
    if (s->container == CLQ_HF_FOLDER && !p->to_gguf && clq_output_is_inside(p->out, s->path))
        return clq_fail(err, CLQ_USAGE,
                        "the output '%s' lies in the source folder '%s', whose files later runs carry along; give a "
                        "place outside it",
                        p->out, s->path);
    return clq_output_check_place(p->out, err);
}

static clq_status translate(clq_plan *p, clq_error *err)
{
    clq_source *s = p->source;
    clq_status st = CLQ_OK;
    if (s->container == CLQ_GGUF && !p->to_gguf)
        st = clq_translate_to_hf(s, p->hooks, &p->translation, err);
    if (s->container == CLQ_HF_FOLDER && p->to_gguf)
        st = clq_translate_to_gguf(s, p->hooks, &p->translation, err);
    if (st == CLQ_BAD_INPUT) clq_error_locate(err, s->path);
    return st;
}

static clq_status fill_plan(clq_plan *p, const clq_quantize_options *o, clq_error *err)
{
    CLQ_TRY(copy_options(p, o, err));
    p->packing = clq_layout_packing(o->layout);
    CLQ_TRY(clq_plan_check_layout(p, err));
    CLQ_TRY(check_type(p, &p->options.type, err));
    for (uint32_t i = 0; i < p->options.n_rules; i++) CLQ_TRY(check_type(p, &p->rules[i].type, err));
    CLQ_TRY(check_gguf_options(p, err));
    CLQ_TRY(clq_plan_take_method(p, err));
    CLQ_TRY(clq_plan_check_activations(p, err));
    CLQ_TRY(check_source(p, err));
    CLQ_TRY(open_measurements(p, err));
    CLQ_TRY(translate(p, err));
    if (p->to_gguf) CLQ_TRY(clq_plan_metadata(p, err));
    CLQ_TRY(make_entries(p, err));
    CLQ_TRY(plan_memory(p, err));
    CLQ_TRY(p->to_gguf ? clq_layout_gguf(p, err) : clq_layout_hf(p, err));
    for (uint32_t i = 0; i < p->n_files; i++) p->totals.n_bytes += p->files[i].n_bytes;
    p->totals.n_files = p->n_files;
    set_fingerprint(p);
    return CLQ_OK;
}

clq_status clq_plan_create(clq_source *source, const char *out, const clq_quantize_options *options,
                           const clq_hooks *hooks, clq_plan **plan, clq_error *err)
{
    *plan = NULL;
    clq_plan *p = calloc(1, sizeof *p);
    if (!p || !(p->out = strdup(out))) {
        free(p);
        return clq_fail_memory(err, sizeof *p);
    }
    p->source = source;
    p->hooks = hooks;
    p->to_gguf = strlen(out) >= 5 && strcasecmp(out + strlen(out) - 5, ".gguf") == 0;
    clq_status st = fill_plan(p, options, err);
    if (st == CLQ_OK)
        *plan = p;
    else
        clq_plan_free(p);
    return st;
}

void clq_plan_summary(const clq_plan *p, clq_plan_totals *totals)
{
    *totals = p->totals;
}

const char *clq_plan_first_part(const clq_plan *p)
{
    return p->first_part;
}

const clq_plan_tensor *clq_plan_at(const clq_plan *p, uint32_t index)
{
    return index < p->n_entries ? &p->entries[index].info : NULL;
}

const clq_site_report *clq_plan_site(const clq_plan *p, uint32_t index)
{
    return index < p->n_sites ? &p->sites[index] : NULL;
}

// SPDX-License-Identifier: MIT
#include "run/gather.h"

#include <stdlib.h>
#include <string.h>

#include "base/threads.h"

enum { CHUNK_BYTES = 4 << 20, SCALE_BYTES = 2 };

struct clq_gather {
    const clq_plan *plan;
    const clq_entry *entry;
    uint64_t groups, row_bytes;
    uint8_t *codes;
    uint16_t *scales;
    int8_t *zeros;
};

bool clq_gathers(const clq_plan *p, const clq_entry *e)
{
    return clq_by_columns(p->packing) && e->type.format == CLQ_INT;
}

uint64_t clq_gather_bytes(const clq_entry *e)
{
    uint64_t groups = clq_type_groups(&e->type, e->cols);
    // Zero-points twice: int8, and as words.
    return e->rows * (clq_type_row_bytes(&e->type, e->cols) + groups * (SCALE_BYTES + 2)) + CHUNK_BYTES + e->cols * 4;
}

clq_status clq_gather_create(const clq_plan *p, const clq_entry *e, clq_gather **gather, clq_error *err)
{
    clq_gather *g = calloc(1, sizeof *g);
    *gather = g;
    if (!g) return clq_fail_memory(err, sizeof *g);
    g->plan = p;
    g->entry = e;
    g->groups = clq_type_groups(&e->type, e->cols);
    g->row_bytes = clq_type_row_bytes(&e->type, e->cols);
    g->codes = malloc(e->rows * g->row_bytes);
    g->scales = malloc(e->rows * g->groups * SCALE_BYTES);
    g->zeros = calloc(e->rows, g->groups);
    return g->codes && g->scales && g->zeros ? CLQ_OK : clq_fail_memory(err, clq_gather_bytes(e));
}

void clq_gather_free(clq_gather *g)
{
    if (!g) return;
    free(g->codes);
    free(g->scales);
    free(g->zeros);
    free(g);
}

void clq_gather_add(clq_gather *g, uint64_t first, uint64_t n, const void *codes, const void *scales,
                    const int8_t *zeros)
{
    memcpy(g->codes + first * g->row_bytes, codes, n * g->row_bytes);
    memcpy(g->scales + first * g->groups, scales, n * g->groups * SCALE_BYTES);
    if (zeros) memcpy(g->zeros + first * g->groups, zeros, n * g->groups);
}

typedef struct {
    const clq_gather *g;
    uint64_t first, n;
    uint32_t *words;
} packing;

// Steps [begin, end) of a chunk's lines.
static void pack(void *ctx, uint64_t begin, uint64_t end)
{
    packing *p = ctx;
    const clq_entry *e = p->g->entry;
    clq_packing how = p->g->plan->packing;
    uint64_t from = begin * CLQ_COLUMNS_STEP, to = end * CLQ_COLUMNS_STEP < p->n ? end * CLQ_COLUMNS_STEP : p->n;
    clq_columns_pack(how, e->type.bits, p->g->codes, e->rows, e->cols, p->first + from, to - from,
                     p->words + from * clq_columns_line_words(how, e->rows));
}

static clq_status write_codes(const clq_gather *g, uint32_t threads, clq_put_fn put, void *ctx, clq_error *err)
{
    const clq_entry *e = g->entry;
    uint64_t lines = clq_columns_lines(g->plan->packing, e->type.bits, e->cols);
    uint64_t line_bytes = clq_columns_line_words(g->plan->packing, e->rows) * 4;
    uint64_t chunk = CHUNK_BYTES / line_bytes / CLQ_COLUMNS_STEP * CLQ_COLUMNS_STEP + CLQ_COLUMNS_STEP;
    if (chunk > lines) chunk = lines;
    packing p = {.g = g, .words = malloc(chunk * line_bytes)};
    if (!p.words) return clq_fail_memory(err, chunk * line_bytes);
    clq_status st = CLQ_OK;
    for (; p.first < lines && st == CLQ_OK; p.first += chunk) {
        p.n = lines - p.first < chunk ? lines - p.first : chunk;
        clq_parallel(threads, (p.n + CLQ_COLUMNS_STEP - 1) / CLQ_COLUMNS_STEP, 4, pack, &p);
        st = put(ctx, CLQ_PART_CODES, p.first * line_bytes, p.words, p.n * line_bytes, err);
    }
    free(p.words);
    return st;
}

static clq_status write_zeros(const clq_gather *g, clq_put_fn put, void *ctx, clq_error *err)
{
    const clq_entry *e = g->entry;
    uint64_t n = e->parts[CLQ_PART_ZERO_POINTS].n_bytes;
    uint32_t *words = malloc(n);
    if (!words) return clq_fail_memory(err, n);
    uint32_t less = g->plan->options.layout == CLQ_LAYOUT_GPTQ;
    clq_columns_pack_zeros(g->plan->packing, e->type.bits, less, g->zeros, e->rows, g->groups, words);
    clq_status st = put(ctx, CLQ_PART_ZERO_POINTS, 0, words, n, err);
    free(words);
    return st;
}

static clq_status write_scales(const clq_gather *g, clq_put_fn put, void *ctx, clq_error *err)
{
    uint64_t rows = g->entry->rows;
    uint16_t *line = malloc(rows * SCALE_BYTES);
    clq_status st = line ? CLQ_OK : clq_fail_memory(err, rows * SCALE_BYTES);
    for (uint64_t k = 0; k < g->groups && st == CLQ_OK; k++) {
        for (uint64_t r = 0; r < rows; r++) line[r] = g->scales[r * g->groups + k];
        st = put(ctx, CLQ_PART_SCALES, k * rows * SCALE_BYTES, line, rows * SCALE_BYTES, err);
    }
    free(line);
    return st;
}

static clq_status write_index(const clq_gather *g, clq_put_fn put, void *ctx, clq_error *err)
{
    const clq_entry *e = g->entry;
    const clq_source *s = g->plan->source;
    if (!e->parts[CLQ_PART_GROUP_INDEX].n_bytes) return CLQ_OK;
    int32_t *index = malloc(e->cols * sizeof *index);
    if (!index) return clq_fail_memory(err, e->cols * sizeof *index);
    clq_status st = CLQ_OK;
    if (e->ordered)
        st = clq_tensor_group_index(s, &s->tensors[e->from.source], index, err);
    else
        for (uint64_t c = 0; c < e->cols; c++) index[c] = (int32_t)(c / (e->cols / g->groups));
    if (st == CLQ_OK) st = put(ctx, CLQ_PART_GROUP_INDEX, 0, index, e->cols * sizeof *index, err);
    free(index);
    return st;
}

clq_status clq_gather_write(const clq_gather *g, uint32_t threads, clq_put_fn put, void *ctx, clq_error *err)
{
    CLQ_TRY(write_codes(g, threads, put, ctx, err));
    CLQ_TRY(write_zeros(g, put, ctx, err));
    CLQ_TRY(write_scales(g, put, ctx, err));
    return write_index(g, put, ctx, err);
}

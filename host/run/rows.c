// SPDX-License-Identifier: MIT
#include "run/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { TILE_BYTES = 4 << 20 };

clq_status clq_put_zero_points(const clq_entry *e, uint64_t first, const int8_t *zeros, uint64_t n_rows,
                               uint64_t groups, clq_put_fn put, void *ctx, clq_error *err)
{
    uint32_t bits = e->type.bits;
    if (bits == 8) return put(ctx, CLQ_PART_ZERO_POINTS, first * groups, zeros, n_rows * groups, err);
    // [rows, groups] becomes words along the rows: word w of group g holds rows 32 w / bits on.
    uint64_t n_words = clq_div_up(n_rows * bits, 32);
    uint32_t *words = calloc(n_words * groups + 1, sizeof *words), *column = calloc(n_words + 1, sizeof *column);
    clq_status st = words && column ? CLQ_OK : clq_fail_memory(err, n_words * groups * 4);
    for (uint64_t g = 0; st == CLQ_OK && g < groups; g++) {
        memset(column, 0, n_words * sizeof *column);
        for (uint64_t k = 0; k < n_rows; k++)
            clq_pack_bits(column, k, bits, (uint32_t)(zeros[k * groups + g] + (1 << (bits - 1))));
        for (uint64_t k = 0; k < n_words; k++) words[k * groups + g] = column[k];
    }
    if (st == CLQ_OK)
        st = put(ctx, CLQ_PART_ZERO_POINTS, first * bits / 32 * groups * 4, words, n_words * groups * 4, err);
    free(words);
    free(column);
    return st;
}

clq_status clq_put_rows(const clq_entry *e, clq_gather *gather, uint64_t first, uint64_t n, const void *codes,
                        const void *scales, const int8_t *zeros, clq_put_fn put, void *ctx, clq_error *err)
{
    uint64_t groups = clq_type_groups(&e->type, e->cols), row_bytes = clq_type_row_bytes(&e->type, e->cols);
    uint64_t scale_row = groups * clq_format_at(e->type.scale_format)->block_bytes;
    if (gather) {
        clq_gather_add(gather, first, n, codes, scales, zeros);
        return CLQ_OK;
    }
    CLQ_TRY(put(ctx, CLQ_PART_CODES, first * row_bytes, codes, n * row_bytes, err));
    if (scales) CLQ_TRY(put(ctx, CLQ_PART_SCALES, first * scale_row, scales, n * scale_row, err));
    return zeros ? clq_put_zero_points(e, first, zeros, n, groups, put, ctx, err) : CLQ_OK;
}

static clq_status put_index(const clq_plan *p, const clq_entry *e, clq_put_fn put, void *ctx, clq_error *err)
{
    int32_t *index = malloc(e->cols * sizeof *index);
    clq_status st = index ? CLQ_OK : clq_fail_memory(err, e->cols * sizeof *index);
    if (st == CLQ_OK) st = clq_tensor_group_index(p->source, &p->source->tensors[e->from.source], index, err);
    if (st == CLQ_OK) st = put(ctx, CLQ_PART_GROUP_INDEX, 0, index, e->cols * sizeof *index, err);
    free(index);
    return st;
}

// The one scale, and the one zero-point, of a CLQ_PER_TENSOR weight.
static clq_status put_single(const clq_entry *e, const void *scale, const int8_t *zero, clq_put_fn put, void *ctx,
                             clq_error *err)
{
    CLQ_TRY(put(ctx, CLQ_PART_SCALES, 0, scale, e->parts[CLQ_PART_SCALES].n_bytes, err));
    return zero ? clq_put_zero_points(e, 0, zero, 1, 1, put, ctx, err) : CLQ_OK;
}

clq_status clq_repack(const clq_plan *p, const clq_entry *e, clq_gather *gather, clq_put_fn put, void *ctx,
                      clq_error *err)
{
    const clq_tensor *t = &p->source->tensors[e->from.source];
    bool one = e->type.granularity == CLQ_PER_TENSOR;
    uint64_t groups = clq_type_groups(&e->type, e->cols), row_bytes = clq_type_row_bytes(&e->type, e->cols);
    uint64_t step = TILE_BYTES / row_bytes / 32 * 32 + 32;
    if (step > e->rows) step = e->rows;
    uint8_t *codes = malloc(step * row_bytes);
    float *scales = malloc(step * groups * sizeof *scales), *stored = malloc(step * groups * sizeof *stored);
    int8_t *all = malloc(step * groups), *zeros = t->zero_points.n_bytes ? all : NULL;
    clq_status st = codes && scales && stored && all ? CLQ_OK : clq_fail_memory(err, step * (row_bytes + 9 * groups));
    for (uint64_t first = 0; st == CLQ_OK && first < e->rows; first += step) {
        uint64_t n = e->rows - first < step ? e->rows - first : step;
        if (clq_cancelled(p->hooks)) st = clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        if (st == CLQ_OK) st = clq_tensor_parts(p->source, t, first, n, codes, scales, zeros, err);
        if (st != CLQ_OK) break;
        clq_store_floats(e->type.scale_format, scales, one ? 1 : n * groups, stored);
        st = clq_put_rows(e, gather, first, n, codes, one ? NULL : stored, one ? NULL : zeros, put, ctx, err);
        if (st == CLQ_OK && one && first == 0) st = put_single(e, stored, zeros, put, ctx, err);
    }
    free(all);
    free(stored);
    free(scales);
    free(codes);
    return st == CLQ_OK && e->ordered && !gather ? put_index(p, e, put, ctx, err) : st;
}

// SPDX-License-Identifier: MIT
// Reading CLQ_INT tensors in every packing: their parts as clq_type_sizes lays them out, and their values.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/source.h"

// ---- packed by columns ----

// n bytes from `at` on of each of the lines of an extent, one behind the other.
static clq_status read_lines(const clq_source *s, const clq_extent *e, uint64_t n_lines, uint64_t line_bytes,
                             uint64_t at, uint64_t n, void *dst, clq_error *err)
{
    for (uint64_t i = 0; i < n_lines; i++)
        CLQ_TRY(clq_file_read(&s->files[e->file], e->offset + i * line_bytes + at, (uint8_t *)dst + i * n, n, err));
    return CLQ_OK;
}

// Rows that stand in words with [first, first + n): [*low, *high).
static void widen(uint64_t first, uint64_t n, uint64_t step, uint64_t rows, uint64_t *low, uint64_t *high)
{
    *low = first / step * step;
    *high = clq_div_up(first + n, step) * step;
    if (*high > rows) *high = rows;
}

static clq_status column_codes(const clq_source *s, const clq_tensor *t, uint64_t first, uint64_t n, void *codes,
                               clq_error *err)
{
    uint64_t rows, cols, low, high, row_bytes;
    clq_tensor_matrix(t, &rows, &cols);
    row_bytes = clq_type_row_bytes(&t->type, cols);
    widen(first, n, t->packing == CLQ_PACKED_AWQ ? 8 : 1, rows, &low, &high);
    uint64_t lines = clq_columns_lines(t->packing, t->type.bits, cols);
    uint64_t line = clq_columns_line_words(t->packing, rows) * 4;
    uint64_t at = clq_columns_line_words(t->packing, low) * 4;
    uint64_t width = clq_columns_line_words(t->packing, high) * 4 - at;
    uint32_t *words = malloc(lines * width);
    uint8_t *all = high - low == n ? codes : malloc((high - low) * row_bytes);
    clq_status st = words && all ? CLQ_OK : clq_fail_memory(err, lines * width);
    if (st == CLQ_OK) st = read_lines(s, &t->codes, lines, line, at, width, words, err);
    if (st == CLQ_OK) clq_columns_unpack(t->packing, t->type.bits, words, high - low, cols, all);
    if (st == CLQ_OK && all != codes) memcpy(codes, all + (first - low) * row_bytes, n * row_bytes);
    if (all != codes) free(all);
    free(words);
    return st;
}

static clq_status column_scales(const clq_source *s, const clq_tensor *t, uint64_t rows, uint64_t groups,
                                uint64_t first, uint64_t n, float *scales, clq_error *err)
{
    float *line = malloc(n * sizeof *line);
    clq_status st = line ? CLQ_OK : clq_fail_memory(err, n * sizeof *line);
    for (uint64_t g = 0; st == CLQ_OK && g < groups; g++) {
        st = clq_extent_floats(s, &t->scales, g * rows + first, n, line, err);
        for (uint64_t r = 0; st == CLQ_OK && r < n; r++) scales[r * groups + g] = line[r];
    }
    free(line);
    return st;
}

static clq_status column_zeros(const clq_source *s, const clq_tensor *t, uint64_t rows, uint64_t groups,
                               uint64_t first, uint64_t n, int8_t *zeros, clq_error *err)
{
    uint64_t low, high;
    widen(first, n, 32, rows, &low, &high);
    uint64_t bits = t->type.bits, width = (high - low) * bits / 8;
    uint32_t *words = malloc(groups * width);
    int8_t *all = malloc((high - low) * groups);
    clq_status st = words && all ? CLQ_OK : clq_fail_memory(err, groups * width);
    if (st == CLQ_OK)
        st = read_lines(s, &t->zero_points, groups, rows * bits / 8, low * bits / 8, width, words, err);
    if (st == CLQ_OK) {
        clq_columns_unpack_zeros(t->packing, t->type.bits, t->zero_less, words, high - low, groups, all);
        memcpy(zeros, all + (first - low) * groups, n * groups);
    }
    free(all);
    free(words);
    return st;
}

// ---- packed by rows ----

// Zero-points of rows [first, first + n): int8 in the file, or a stream packed along the rows.
static clq_status row_zeros(const clq_source *s, const clq_tensor *t, uint64_t groups, uint64_t first,
                                   uint64_t n, int8_t *z, clq_error *err)
{
    if (!t->packed_zero_points)
        return clq_file_read(&s->files[t->zero_points.file], t->zero_points.offset + first * groups, z, n * groups,
                             err);
    uint32_t bits = t->type.bits;
    uint64_t word0 = first * bits / 32, word1 = clq_div_up((first + n) * bits, 32);
    const void *bytes = NULL;
    void *owned;
    uint64_t n_bytes = (word1 - word0) * groups * 4;
    CLQ_TRY(clq_extent_view(s, &t->zero_points, word0 * groups * 4, n_bytes, 1, &bytes, &owned, err));
    uint32_t *column = malloc((word1 - word0 + 1) * sizeof *column);
    if (!column) {
        free(owned);
        return clq_fail_memory(err, (word1 - word0) * sizeof *column);
    }
    for (uint64_t g = 0; g < groups; g++) {
        for (uint64_t w = 0; w < word1 - word0; w++)
            memcpy(&column[w], (const uint8_t *)bytes + (w * groups + g) * 4, 4);
        for (uint64_t r = 0; r < n; r++) {
            uint64_t bit = (first + r) * bits - word0 * 32;
            uint64_t low = column[bit / 32];
            if (bit % 32 + bits > 32) low |= (uint64_t)column[bit / 32 + 1] << 32;
            z[r * groups + g] = (int8_t)((int)(low >> bit % 32 & ((1u << bits) - 1)) - (1 << (bits - 1)));
        }
    }
    free(column);
    free(owned);
    return CLQ_OK;
}

// Rows of an older layout, 32 / bits values a word, as the dense stream.
static clq_status read_loose_rows(const clq_source *s, const clq_tensor *t, uint64_t cols, uint64_t first,
                                  uint64_t n, uint32_t **dense, clq_error *err)
{
    uint32_t bits = t->type.bits, per_word = 32 / bits;
    uint64_t loose = clq_div_up(cols, per_word), words = clq_type_row_bytes(&t->type, cols) / 4;
    const void *bytes = NULL;
    void *owned;
    CLQ_TRY(clq_extent_view(s, &t->codes, first * loose * 4, n * loose * 4, 4, &bytes, &owned, err));
    *dense = calloc(n * words + 1, 4);
    for (uint64_t r = 0; *dense && r < n; r++)
        for (uint64_t c = 0; c < cols; c++) {
            uint32_t word = ((const uint32_t *)bytes)[r * loose + c / per_word];
            clq_pack_bits(*dense + r * words, c, bits, word >> c % per_word * bits & ((1u << bits) - 1));
        }
    free(owned);
    return *dense ? CLQ_OK : clq_fail_memory(err, n * words * 4);
}

// ---- any packing ----

// Codes of rows [first, first + n): *codes leads into the file's map, or to *owned.
static clq_status view_codes(const clq_source *s, const clq_tensor *t, uint64_t cols, uint64_t first, uint64_t n,
                             const void **codes, void **owned, clq_error *err)
{
    uint64_t row_bytes = clq_type_row_bytes(&t->type, cols);
    *owned = NULL;
    if (t->packing == CLQ_PACKED_ROWS)
        return clq_extent_view(s, &t->codes, first * row_bytes, n * row_bytes, 4, codes, owned, err);
    if (t->packing == CLQ_PACKED_LOOSE) {
        uint32_t *dense = NULL;
        CLQ_TRY(read_loose_rows(s, t, cols, first, n, &dense, err));
        *codes = *owned = dense;
        return CLQ_OK;
    }
    *codes = *owned = malloc(n * row_bytes);
    if (!*owned) return clq_fail_memory(err, n * row_bytes);
    clq_status st = column_codes(s, t, first, n, *owned, err);
    if (st == CLQ_OK) return CLQ_OK;
    free(*owned);
    *owned = NULL;
    return st;
}

clq_status clq_tensor_parts(const clq_source *s, const clq_tensor *t, uint64_t first, uint64_t n, void *codes,
                            float *scales, int8_t *zeros, clq_error *err)
{
    bool columns = clq_by_columns(t->packing);
    uint64_t rows, cols, from = first, n_rows = n;
    clq_tensor_matrix(t, &rows, &cols);
    uint64_t groups = clq_type_groups(&t->type, cols), row_bytes = clq_type_row_bytes(&t->type, cols);
    if (t->type.granularity == CLQ_PER_TENSOR) {
        from = 0;
        n_rows = 1;
    }
    CLQ_TRY(columns ? column_scales(s, t, rows, groups, from, n_rows, scales, err)
                    : clq_extent_floats(s, &t->scales, from * groups, n_rows * groups, scales, err));
    if (zeros)
        CLQ_TRY(columns ? column_zeros(s, t, rows, groups, from, n_rows, zeros, err)
                        : row_zeros(s, t, groups, from, n_rows, zeros, err));
    if (!codes) return CLQ_OK;
    if (t->packing == CLQ_PACKED_ROWS)
        return clq_file_read(&s->files[t->codes.file], t->codes.offset + first * row_bytes, codes, n * row_bytes, err);
    if (columns) return column_codes(s, t, first, n, codes, err);
    uint32_t *dense = NULL;
    CLQ_TRY(read_loose_rows(s, t, cols, first, n, &dense, err));
    memcpy(codes, dense, n * row_bytes);
    free(dense);
    return CLQ_OK;
}

static clq_status check_group_index(const clq_tensor *t, uint64_t cols, uint64_t groups, const int32_t *index,
                                    clq_error *err)
{
    for (uint64_t c = 0; c < cols; c++)
        if (index[c] < 0 || (uint64_t)index[c] >= groups)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tensor '%s': g_idx[%" PRIu64 "] = %d, but there are %" PRIu64 " groups", t->name, c,
                            index[c], groups);
    return CLQ_OK;
}

clq_status clq_tensor_group_index(const clq_source *s, const clq_tensor *t, int32_t *index, clq_error *err)
{
    uint64_t rows, cols;
    clq_tensor_matrix(t, &rows, &cols);
    uint64_t groups = clq_type_groups(&t->type, cols);
    CLQ_TRY(clq_file_read(&s->files[t->group_index.file], t->group_index.offset, index, cols * sizeof *index, err));
    return check_group_index(t, cols, groups, index, err);
}

// Scales follow g_idx instead of the column's place where a file has one.
static clq_status apply_group_index(const clq_source *s, const clq_tensor *t, uint64_t cols, uint64_t n,
                                    uint64_t groups, const float *scales, const int8_t *zeros, const void *codes,
                                    float *y, clq_error *err)
{
    const void *bytes = NULL;
    void *owned;
    CLQ_TRY(clq_extent_view(s, &t->group_index, 0, t->group_index.n_bytes, 4, &bytes, &owned, err));
    const int32_t *index = bytes;
    clq_status st = CLQ_OK;
    uint64_t row_bytes = clq_type_row_bytes(&t->type, cols);
    st = check_group_index(t, cols, groups, index, err);
    for (uint64_t r = 0; r < n && st == CLQ_OK; r++) {
        const uint8_t *row = (const uint8_t *)codes + r * row_bytes;
        for (uint64_t c = 0; c < cols; c++) {
            int code = t->type.bits == 8 ? ((const int8_t *)row)[c]
                                         : (int)clq_unpack_bits((const uint32_t *)(const void *)row, c, t->type.bits) -
                                               (1 << (t->type.bits - 1));
            uint64_t g = r * groups + (uint64_t)index[c];
            y[r * cols + c] = scales[g] * (float)(code - (zeros ? zeros[g] : 0));
        }
    }
    free(owned);
    return st;
}

clq_status clq_integers_read(const clq_source *s, const clq_tensor *t, uint64_t first, uint64_t n, float *y,
                             clq_error *err)
{
    uint64_t rows, cols;
    clq_tensor_matrix(t, &rows, &cols);
    uint64_t groups = clq_type_groups(&t->type, cols);
    uint64_t n_scales = t->type.granularity == CLQ_PER_TENSOR ? 1 : n * groups;
    float *scales = malloc(n_scales * sizeof *scales);
    int8_t *zeros = t->zero_points.n_bytes ? malloc(n_scales) : NULL;
    const void *codes = NULL;
    void *owned = NULL;
    clq_status st;
    if (!scales || (t->zero_points.n_bytes && !zeros)) {
        st = clq_fail_memory(err, n_scales * sizeof *scales);
        goto out;
    }
    CLQ_TRY_OUT(clq_tensor_parts(s, t, first, n, NULL, scales, zeros, err));
    CLQ_TRY_OUT(view_codes(s, t, cols, first, n, &codes, &owned, err));
    if (t->group_index.n_bytes)
        CLQ_TRY_OUT(apply_group_index(s, t, cols, n, groups, scales, zeros, codes, y, err));
    else
        clq_int_decode_ref(&t->type, codes, n, cols, scales, zeros, y);
out:
    free(owned);
    free(zeros);
    free(scales);
    return st;
}

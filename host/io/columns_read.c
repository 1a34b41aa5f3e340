// SPDX-License-Identifier: MIT
// AWQ and GPTQ, read: X.qweight, X.scales, X.qzeros and X.g_idx become one clq_tensor "X.weight".
#include "io/columns_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"

static const char QWEIGHT[] = ".qweight";

// A module's parts while they are joined.
typedef struct {
    clq_tensor *t, *scales, *zeros, *index;
    clq_column_module says;
    uint64_t rows, cols, groups;
    uint32_t bits;
} module;

typedef struct {
    uint32_t n;
    const char *first;
} count;

static clq_status bad(const clq_tensor *t, const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': %s", t->name, what);
}

static clq_status check_parts(const clq_column_settings *s, const module *m, clq_error *err)
{
    const clq_tensor *t = m->t;
    if (!m->scales) return bad(t, "has no scales beside it", err);
    if (!m->zeros && !m->says.symmetric) return bad(t, "has no qzeros beside it", err);
    const clq_tensor *integers[] = {t, m->zeros, m->index};
    for (int i = 0; i < 3; i++)
        if (integers[i] && integers[i]->type.format != CLQ_I32) return bad(integers[i], "must be I32", err);
    if (m->scales->type.format > CLQ_BF16) return bad(m->scales, "scales must be F32, F16 or BF16", err);
    const clq_tensor *matrices[] = {t, m->scales, m->zeros};
    for (int i = 0; i < 3; i++)
        if (matrices[i] && (matrices[i]->n_dims != 2 || !matrices[i]->n_elements))
            return bad(matrices[i], "must be a matrix", err);
    if (m->index && s->packing == CLQ_PACKED_AWQ) return bad(m->index, "AWQ knows no g_idx", err);
    if (m->says.bits && (m->says.bits < 2 || m->says.bits > 8))
        return bad(t, "quantization_config gives it other bits than 2, 3, 4 or 8", err);
    return CLQ_OK;
}

// Sizes follow from the shapes of scales and zero-points; all others must agree.
static clq_status set_sizes(const clq_column_settings *s, module *m, clq_error *err)
{
    const clq_tensor *t = m->t;
    bool awq = s->packing == CLQ_PACKED_AWQ;
    m->groups = m->scales->dims[0];
    m->rows = m->scales->dims[1];
    uint64_t bits = awq ? 4 : (uint64_t)m->says.bits;
    if (m->zeros && !awq) bits = m->zeros->dims[1] * 32 / m->rows;
    if (!bits || bits > 8) return bad(m->zeros ? m->zeros : t, "its shape and the scales' fit no number of bits", err);
    if (m->says.bits && (uint64_t)m->says.bits != bits)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': its shapes are those of %d bits, but quantization_config says %d", t->name,
                        (int)bits, (int)m->says.bits);
    m->bits = (uint32_t)bits;
    m->cols = awq ? t->dims[0] : t->dims[0] * 32 / bits;
    bool fits = t->dims[1] == clq_columns_line_words(s->packing, m->rows) &&
                (!m->zeros || (m->zeros->dims[0] == m->groups && m->zeros->dims[1] * 32 == m->rows * bits)) &&
                clq_columns_fit(s->packing, m->bits, m->rows, m->cols) &&
                t->dims[0] == clq_columns_lines(s->packing, m->bits, m->cols);
    if (fits) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT,
                    "tensor '%s': the shapes of qweight [%" PRIu64 ", %" PRIu64 "], qzeros [%" PRIu64 ", %" PRIu64
                    "] and scales [%" PRIu64 ", %" PRIu64 "] do not fit each other",
                    t->name, t->dims[0], t->dims[1], m->zeros ? m->zeros->dims[0] : 0, m->zeros ? m->zeros->dims[1] : 0,
                    m->groups, m->rows);
}

// One group a row is a scale a channel, unless the settings say that the group is as long.
static clq_status set_type(module *m, clq_type *type, clq_error *err)
{
    *type = (clq_type){.format = CLQ_INT, .bits = (uint8_t)m->bits, .scale_format = m->scales->type.format};
    uint64_t size = m->cols / m->groups;
    bool whole = m->groups == 1 && (m->says.group_size <= 0 || (uint64_t)m->says.group_size != m->cols || size % 32);
    if (!whole && (m->cols % m->groups || size % 32 || size > UINT32_MAX))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': %" PRIu64 " groups of %" PRIu64 " columns; groups of a multiple of 32 are read",
                        m->scales->name, m->groups, m->cols);
    bool agrees = m->says.group_size == 0 || (m->says.group_size < 0 ? m->groups == 1 :
                  (uint64_t)m->says.group_size == size || (whole && (uint64_t)m->says.group_size > m->cols));
    if (!agrees)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': %" PRIu64 " groups of %" PRIu64
                        " columns, but quantization_config says group_size %d",
                        m->scales->name, m->groups, m->cols, (int)m->says.group_size);
    type->granularity = whole ? CLQ_PER_CHANNEL : CLQ_PER_GROUP;
    type->group_size = whole ? 0 : (uint32_t)size;
    return CLQ_OK;
}

// A g_idx that says what the column's place says anyway is none. *given: it says something else.
static clq_status check_index(const clq_source *s, const module *m, bool *given, clq_error *err)
{
    *given = false;
    if (!m->index) return CLQ_OK;
    if (m->index->n_elements != m->cols) return bad(m->index, "must have one entry a column", err);
    const void *bytes;
    void *owned;
    CLQ_TRY(clq_extent_view(s, &m->index->codes, 0, m->cols * 4, 4, &bytes, &owned, err));
    const int32_t *index = bytes;
    clq_status st = CLQ_OK;
    for (uint64_t c = 0; c < m->cols && st == CLQ_OK; c++) {
        if (index[c] < 0 || (uint64_t)index[c] >= m->groups)
            st = clq_fail(err, CLQ_BAD_INPUT,
                          "tensor '%s': entry %" PRIu64 " is %d, but there are %" PRIu64 " groups", m->index->name, c,
                          index[c], m->groups);
        *given |= (uint64_t)index[c] != c / (m->cols / m->groups);
    }
    free(owned);
    return st;
}

// Whether all stored zero-points are `value`.
static clq_status all_zeros_are(const clq_source *s, const module *m, uint32_t value, bool *all, clq_error *err)
{
    uint32_t pattern[8] = {0}; // 32 numbers; a line is a multiple of them, or of a word
    for (uint64_t i = 0; i < 32; i++) clq_pack_bits(pattern, i, m->bits, value);
    const void *bytes;
    void *owned;
    CLQ_TRY(clq_extent_view(s, &m->zeros->codes, 0, m->zeros->codes.n_bytes, 4, &bytes, &owned, err));
    *all = true;
    const uint32_t *words = bytes;
    for (uint64_t i = 0; *all && i < m->zeros->n_elements; i++) *all = words[i] == pattern[i % m->bits];
    free(owned);
    return CLQ_OK;
}

// Symmetric weights say their zero-point, the middle, in either version; others go by the label.
static clq_status set_zeros(const clq_source *s, const clq_column_settings *settings, const module *m,
                            count *mislabelled, count *uneven, clq_error *err)
{
    clq_tensor *t = m->t;
    t->type.symmetric = m->says.symmetric;
    t->zero_less = settings->zero_less;
    if (!m->zeros) return CLQ_OK;
    uint32_t middle = 1u << (m->bits - 1);
    bool exact = false, lower = false;
    if (m->says.symmetric) CLQ_TRY(all_zeros_are(s, m, middle, &exact, err));
    if (m->says.symmetric && !exact && settings->packing == CLQ_PACKED_GPTQ)
        CLQ_TRY(all_zeros_are(s, m, middle - 1, &lower, err));
    t->type.symmetric = exact || lower;
    if (!t->type.symmetric) t->zero_points = m->zeros->codes;
    count *odd = m->says.symmetric && !t->type.symmetric                    ? uneven
                 : t->type.symmetric && lower != (settings->zero_less == 1) ? mislabelled
                                                                            : NULL;
    if (odd && odd->n++ == 0) odd->first = t->name;
    return CLQ_OK;
}

static clq_status join(const clq_source *s, const clq_names *all, const clq_column_settings *settings, clq_tensor *t,
                       count *mislabelled, count *uneven, clq_error *err)
{
    size_t len = strlen(t->name) - strlen(QWEIGHT);
    module m = {.t = t, .says = clq_column_module_of(settings, t->name, len)};
    m.scales = clq_names_find(all, t->name, len, ".scales");
    m.zeros = clq_names_find(all, t->name, len, ".qzeros");
    m.index = clq_names_find(all, t->name, len, ".g_idx");
    bool ordered;
    clq_type type;
    CLQ_TRY(check_parts(settings, &m, err));
    CLQ_TRY(set_sizes(settings, &m, err));
    CLQ_TRY(set_type(&m, &type, err));
    CLQ_TRY(check_index(s, &m, &ordered, err));
    if (m.says.ordered && !m.index && m.groups > 1) return bad(t, "desc_act needs g_idx, and none is beside it", err);
    t->type = type;
    t->packing = settings->packing;
    t->scales = m.scales->codes;
    if (ordered) t->group_index = m.index->codes;
    CLQ_TRY(set_zeros(s, settings, &m, mislabelled, uneven, err));
    t->dims[0] = m.rows;
    t->dims[1] = t->row_len = m.cols;
    if (!clq_mul_u64(m.rows, m.cols, &t->n_elements)) return bad(t, "is too large", err);
    clq_tensor *used[] = {m.scales, m.zeros, m.index};
    for (int i = 0; i < 3; i++)
        if (used[i]) clq_tensor_use(used[i]);
    return CLQ_OK;
}

static void warn(const clq_column_settings *settings, const count *mislabelled, const count *uneven,
                 const clq_hooks *hooks)
{
    if (mislabelled->n)
        clq_warn(hooks,
                 "%u tensor%s (the first: '%s') ha%s the zero-points of %s, but checkpoint_format is %s; read as "
                 "symmetric, whose zero-point is in the middle",
                 mislabelled->n, CLQ_PLURAL(mislabelled->n), mislabelled->first, mislabelled->n == 1 ? "s" : "ve",
                 settings->zero_less ? "gptq_v2" : "gptq", settings->zero_less ? "gptq" : "gptq_v2");
    if (uneven->n)
        clq_warn(hooks,
                 "%u tensor%s (the first: '%s') %s said to be symmetric, but %s zero-points of other values; these are "
                 "followed",
                 uneven->n, CLQ_PLURAL(uneven->n), uneven->first, uneven->n == 1 ? "is" : "are",
                 uneven->n == 1 ? "has" : "have");
}

clq_status clq_columns_assemble(clq_source *s, const clq_names *all, const clq_column_settings *settings,
                                const clq_hooks *hooks, clq_error *err)
{
    count mislabelled = {0}, uneven = {0};
    for (uint32_t i = 0; i < all->n; i++)
        if (clq_ends_with(all->sorted[i]->name, QWEIGHT))
            CLQ_TRY(join(s, all, settings, all->sorted[i], &mislabelled, &uneven, err));
    warn(settings, &mislabelled, &uneven, hooks);
    for (uint32_t i = 0; i < all->n; i++) {
        clq_tensor *t = all->sorted[i];
        if (!clq_tensor_used(t) && clq_ends_with(t->name, ".qzeros")) return bad(t, "has no qweight beside it", err);
    }
    // Only now: names are looked up in their order.
    for (uint32_t i = 0; i < all->n; i++) {
        clq_tensor *t = all->sorted[i];
        size_t len = strlen(t->name);
        if (clq_by_columns(t->packing)) memcpy(t->name + len - strlen(QWEIGHT), ".weight", sizeof ".weight");
    }
    return CLQ_OK;
}

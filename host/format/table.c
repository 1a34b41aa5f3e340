// SPDX-License-Identifier: MIT
// The table of formats, pasted from include/clquant_formats.def, and the names of types.
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "format/codecs.h"

#define EXACT true
#define IGNORED CLQ_WEIGHTS_IGNORED
#define USED CLQ_WEIGHTS_USED
#define BY_ROW CLQ_WEIGHTS_BY_ROW
#define FLOAT CLQ_KIND_FLOAT
#define OPAQUE CLQ_KIND_OPAQUE
#define NEEDED true
#define USEFUL false
static const clq_format formats[CLQ_FORMAT_COUNT] = {
#define CLQ_CODEC(ID, name_, ggml, st, elements, bytes, scale, exactness, bound, weights_)         \
    [CLQ_##ID] = {                                                                                 \
        .info = {.name = #name_, .ggml_type = ggml, .block_elements = elements,                    \
                 .block_bytes = bytes, .has_codec = true, .exact = exactness,                      \
                 .error_bound = bound},                                                            \
        .kind = CLQ_KIND_CODEC,                                                                    \
        .scale_offset = scale,                                                                     \
        .weights = weights_,                                                                       \
        .st_name = st,                                                                             \
        .encode_ref = clq_##name_##_encode_ref,                                                    \
        .decode_ref = clq_##name_##_decode_ref,                                                    \
    },
#define CLQ_CODEBOOK(ID, name_, ggml, st, elements, bytes, scale, exactness, bound, importance)    \
    [CLQ_##ID] = {                                                                                 \
        .info = {.name = #name_, .ggml_type = ggml, .block_elements = elements,                    \
                 .block_bytes = bytes, .has_codec = true, .exact = exactness,                      \
                 .error_bound = bound},                                                            \
        .kind = CLQ_KIND_CODEC,                                                                    \
        .weights = USED,                                                                           \
        .needs_importance = importance,                                                            \
        .scale_offset = scale,                                                                     \
        .st_name = st,                                                                             \
        .encode_ref = clq_##name_##_encode_ref,                                                    \
        .decode_ref = clq_##name_##_decode_ref,                                                    \
        .table = clq_##name_##_table,                                                              \
    },
#define CLQ_STORAGE(ID, name_, ggml, st, elements, bytes, kind_)                                   \
    [CLQ_##ID] = {                                                                                 \
        .info = {.name = #name_, .ggml_type = ggml, .block_elements = elements,                    \
                 .block_bytes = bytes},                                                            \
        .kind = kind_,                                                                             \
        .scale_offset = -1,                                                                        \
        .st_name = st,                                                                             \
    },
#include "clquant_formats.def"
#undef CLQ_CODEC
#undef CLQ_STORAGE
    [CLQ_INT] = {.info = {.name = "i<bits>[_asym][_tensor|_g<N>]", .ggml_type = -1, .block_elements = 1,
                          .has_codec = true},
                 .kind = CLQ_KIND_INT,
                 .scale_offset = -1},
};
#undef EXACT
#undef IGNORED
#undef USED
#undef BY_ROW
#undef FLOAT
#undef OPAQUE
#undef NEEDED
#undef USEFUL

const clq_format *clq_format_row(clq_format_id id)
{
    return &formats[id];
}

const clq_format_info *clq_format_at(clq_format_id id)
{
    return (unsigned)id < CLQ_FORMAT_COUNT ? &formats[id].info : NULL;
}

clq_format_id clq_format_of_ggml(uint32_t ggml_type)
{
    for (int i = 0; i < CLQ_INT; i++)
        if (formats[i].info.ggml_type >= 0 && (uint32_t)formats[i].info.ggml_type == ggml_type) return (clq_format_id)i;
    return CLQ_FORMAT_COUNT;
}

clq_format_id clq_format_of_st(const char *st_name)
{
    for (int i = 0; i < CLQ_INT; i++)
        if (formats[i].st_name && strcmp(formats[i].st_name, st_name) == 0) return (clq_format_id)i;
    return CLQ_FORMAT_COUNT;
}

bool clq_format_bytes(clq_format_id id, uint64_t n_elements, uint64_t *n_bytes)
{
    const clq_format_info *f = &formats[id].info;
    return n_elements % f->block_elements == 0 &&
           clq_mul_u64(n_elements / f->block_elements, f->block_bytes, n_bytes);
}

// ---- types ----

bool clq_type_equal(const clq_type *a, const clq_type *b)
{
    if (a->format != b->format) return false;
    if (a->format != CLQ_INT) return true;
    return a->bits == b->bits && a->symmetric == b->symmetric && a->granularity == b->granularity &&
           (a->granularity != CLQ_PER_GROUP || a->group_size == b->group_size) && a->scale_format == b->scale_format;
}

// "i4_asym_g128": what stands behind the bits, or false.
static bool parse_int_suffix(const char *s, clq_type *out)
{
    if (strncasecmp(s, "_asym", 5) == 0) {
        out->symmetric = false;
        s += 5;
    }
    if (*s == '\0') return true;
    if (strcasecmp(s, "_tensor") == 0) {
        out->granularity = CLQ_PER_TENSOR;
        return true;
    }
    if (strncasecmp(s, "_g", 2) != 0 || !isdigit((unsigned char)s[2])) return false;
    char *end;
    unsigned long group = strtoul(s + 2, &end, 10);
    if (*end || group == 0 || group > 1u << 20 || group % 32) return false;
    out->granularity = CLQ_PER_GROUP;
    out->group_size = (uint32_t)group;
    return true;
}

clq_status clq_type_parse(const char *text, clq_type *out, clq_error *err)
{
    for (int i = 0; i < CLQ_INT; i++)
        if (formats[i].kind == CLQ_KIND_CODEC && strcasecmp(text, formats[i].info.name) == 0) {
            *out = clq_plain((clq_format_id)i);
            return CLQ_OK;
        }
    *out = (clq_type){.format = CLQ_INT, .symmetric = true, .scale_format = CLQ_F32};
    if ((text[0] == 'i' || text[0] == 'I') && text[1] >= '2' && text[1] <= '8' && parse_int_suffix(text + 2, out)) {
        out->bits = (uint8_t)(text[1] - '0');
        return CLQ_OK;
    }
    return clq_fail(err, CLQ_USAGE,
                    "unknown type '%s': see `clquant formats`; integer types are i<2..8>[_asym][_tensor|_g<N>], N a "
                    "multiple of 32",
                    text);
}

void clq_type_name(const clq_type *t, char name[32])
{
    if (t->format != CLQ_INT) {
        snprintf(name, 32, "%s", formats[t->format].info.name);
        return;
    }
    char group[16] = "";
    if (t->granularity == CLQ_PER_GROUP) snprintf(group, sizeof group, "_g%u", t->group_size);
    snprintf(name, 32, "i%u%s%s%s", t->bits, t->symmetric ? "" : "_asym",
             t->granularity == CLQ_PER_TENSOR ? "_tensor" : "", group);
}

double clq_type_bits(const clq_type *t)
{
    const clq_format_info *f = &formats[t->format].info;
    if (t->format != CLQ_INT) return 8.0 * f->block_bytes / f->block_elements;
    double scale = 8.0 * formats[t->scale_format].info.block_bytes + (t->symmetric ? 0 : t->bits);
    return t->bits + (t->granularity == CLQ_PER_GROUP ? scale / t->group_size : 0);
}

uint64_t clq_type_groups(const clq_type *t, uint64_t cols)
{
    if (t->format != CLQ_INT) return 0;
    return t->granularity == CLQ_PER_GROUP ? cols / t->group_size : 1;
}

uint64_t clq_type_row_bytes(const clq_type *t, uint64_t cols)
{
    if (t->format == CLQ_INT) return t->bits == 8 ? cols : clq_div_up(cols * t->bits, 32) * 4;
    return cols / formats[t->format].info.block_elements * formats[t->format].info.block_bytes;
}

clq_status clq_type_sizes(const clq_type *t, uint64_t rows, uint64_t cols, clq_part_sizes *sizes, clq_error *err)
{
    char name[32];
    clq_type_name(t, name);
    *sizes = (clq_part_sizes){0};
    uint64_t per = t->format == CLQ_INT ? (t->granularity == CLQ_PER_GROUP ? t->group_size : 1)
                                        : formats[t->format].info.block_elements;
    if (cols % per)
        return clq_fail(err, CLQ_USAGE, "rows of %llu elements do not divide into the %llu of type %s",
                        (unsigned long long)cols, (unsigned long long)per, name);
    bool ok = cols < UINT64_MAX / 64 && clq_mul_u64(rows, clq_type_row_bytes(t, cols), &sizes->codes);
    if (ok && t->format == CLQ_INT) {
        uint64_t n = t->granularity == CLQ_PER_TENSOR ? 1 : 0;
        sizes->groups = clq_type_groups(t, cols);
        if (!n) ok = clq_mul_u64(rows, sizes->groups, &n);
        ok = ok && clq_mul_u64(n, formats[t->scale_format].info.block_bytes, &sizes->scales);
        if (!t->symmetric) sizes->zero_points = n;
    }
    return ok ? CLQ_OK : clq_fail(err, CLQ_USAGE, "a tensor of that shape is too large");
}

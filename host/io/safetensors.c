// SPDX-License-Identifier: MIT
// The safetensors reader: u64 header length, JSON header, data. Stricter than the JSON: ranges must
// be sorted, gapless and cover the data, so that no byte has two owners or none.
// Source: https://github.com/huggingface/safetensors
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/source.h"

static const uint64_t MAX_HEADER = 256u << 20; // stated in docs/containers.md

// The format's only other entry: a map of texts. It goes into the output as it is.
static bool is_metadata(const json_t *entry)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)entry, key, value)
        if (!json_is_string(value)) return false;
    return json_is_object(entry);
}

static clq_status bad_tensor(const clq_file *f, const char *name, const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "'%s': tensor '%s': %s", f->path, name, what);
}

static bool get_u64(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

// Reads and parses the header. *data: where the tensors' bytes begin.
static clq_status read_header(const clq_file *f, json_t **header, uint64_t *data, clq_error *err)
{
    uint8_t word[8];
    if (f->size < 8)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has %" PRIu64 " bytes: too short for a safetensors file",
                        f->path, f->size);
    CLQ_TRY(clq_file_read(f, 0, word, 8, err));
    uint64_t len = 0;
    for (int i = 0; i < 8; i++) len |= (uint64_t)word[i] << (8 * i);
    if (len > f->size - 8)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s': the header is said to have %" PRIu64 " bytes, the file has %" PRIu64
                        " (truncated, or not a safetensors file)",
                        f->path, len, f->size);
    if (len < 2 || len > MAX_HEADER)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': a header of %" PRIu64 " bytes; 2 to %" PRIu64 " are read",
                        f->path, len, MAX_HEADER);
    char *text = malloc(len);
    if (!text) return clq_fail_memory(err, len);
    clq_status st = clq_file_read(f, 8, text, len, err);
    if (st == CLQ_OK) {
        json_error_t why;
        *header = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
        if (!json_is_object(*header)) {
            st = clq_fail(err, CLQ_BAD_INPUT, "'%s': the header is not a JSON object without duplicate names: %s",
                          f->path, *header ? "another kind of value" : why.text);
            json_decref(*header);
            *header = NULL;
        }
    }
    free(text);
    *data = 8 + len;
    return st;
}

// One entry of the header. A dtype that is unknown is refused only after its range was checked, so
// that the message can tell a newer file from a broken one.
static clq_status read_entry(const clq_file *f, const char *name, const json_t *entry, uint64_t n_data,
                             clq_tensor *t, clq_error *err)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *range = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (!dtype || !json_is_array(shape) || json_array_size(range) != 2 ||
        !get_u64(json_array_get(range, 0), &begin) || !get_u64(json_array_get(range, 1), &end))
        return bad_tensor(f, name, "needs a dtype, a shape and two data_offsets", err);
    if (begin > end) return bad_tensor(f, name, "its data_offsets run backwards", err);
    if (end > n_data)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s': tensor '%s' ends at byte %" PRIu64 " of the data, which has %" PRIu64
                        " (file truncated, or header corrupt)",
                        f->path, name, end, n_data);
    if (json_array_size(shape) > CLQ_MAX_DIMS)
        return bad_tensor(f, name, "has more than 8 dimensions", err);
    t->n_dims = (uint32_t)json_array_size(shape);
    t->n_elements = 1;
    bool empty = false;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (!get_u64(json_array_get(shape, d), &t->dims[d]))
            return bad_tensor(f, name, "its shape is not a list of sizes", err);
        empty |= t->dims[d] == 0;
    }
    for (uint32_t d = 0; d < t->n_dims; d++)
        if (!empty && !clq_mul_u64(t->n_elements, t->dims[d], &t->n_elements))
            return bad_tensor(f, name, "has more than 2^64 elements", err);
    if (empty) t->n_elements = 0;
    clq_format_id format = clq_format_of_st(dtype);
    if (format == CLQ_FORMAT_COUNT)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': tensor '%s' has the unknown dtype '%s'", f->path, name, dtype);
    uint64_t n_bytes;
    if (!clq_format_bytes(format, t->n_elements, &n_bytes) || n_bytes != end - begin)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s': tensor '%s': its shape and dtype %s do not need the %" PRIu64
                        " bytes of its data_offsets",
                        f->path, name, dtype, end - begin);
    t->type = clq_plain(format);
    t->codes = (clq_extent){.offset = begin, .n_bytes = n_bytes, .format = format};
    return CLQ_OK;
}

static int by_offset(const void *a, const void *b)
{
    const clq_extent *x = &(*(const clq_tensor *const *)a)->codes;
    const clq_extent *y = &(*(const clq_tensor *const *)b)->codes;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes; // empty tensors first
}

static clq_status check_ranges(const clq_file *f, clq_tensor **order, uint32_t n, uint64_t n_data,
                               clq_error *err)
{
    qsort(order, n, sizeof *order, by_offset);
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const clq_extent *e = &order[i]->codes;
        if (e->offset < at)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': tensors '%s' and '%s' share bytes", f->path,
                            i ? order[i - 1]->name : "", order[i]->name);
        if (e->offset > at)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': %" PRIu64 " bytes in front of tensor '%s' belong to no tensor",
                            f->path, e->offset - at, order[i]->name);
        at += e->n_bytes;
    }
    if (at != n_data)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': %" PRIu64 " bytes behind the last tensor belong to none",
                        f->path, n_data - at);
    return CLQ_OK;
}

clq_status clq_safetensors_read(clq_source *s, uint32_t file, clq_error *err)
{
    const clq_file *f = &s->files[file];
    json_t *header = NULL;
    clq_tensor **order = NULL;
    uint64_t data;
    uint32_t first = s->n_tensors;
    clq_status st;
    CLQ_TRY_OUT(read_header(f, &header, &data, err));
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            if (!is_metadata(entry)) {
                st = clq_fail(err, CLQ_BAD_INPUT, "'%s': __metadata__ is not a map of texts", f->path);
                goto out;
            }
            if (!s->st_metadata) s->st_metadata = json_incref(entry);
            continue;
        }
        clq_tensor *t = clq_source_add_tensor(s);
        if (!t || !(t->name = strdup(name))) {
            st = clq_fail_memory(err, sizeof *t);
            goto out;
        }
        CLQ_TRY_OUT(read_entry(f, name, entry, f->size - data, t, err));
        t->codes.file = file;
    }
    uint32_t n = s->n_tensors - first;
    order = malloc((n ? n : 1) * sizeof *order);
    if (!order) {
        st = clq_fail_memory(err, n * sizeof *order);
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    CLQ_TRY_OUT(check_ranges(f, order, n, f->size - data, err));
    for (uint32_t i = 0; i < n; i++) order[i]->codes.offset += data;
out:
    free(order);
    json_decref(header);
    return st;
}

// SPDX-License-Identifier: MIT
#include "io/safetensors_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "format/format.h"
#include "io/output.h"

static const uint32_t widths[] = {8, 4, 2, 1};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

static bool bytes_of(const clq_st_array *a, uint64_t *n_bytes)
{
    *n_bytes = clq_format_at(a->format)->block_bytes;
    for (uint32_t d = 0; d < a->n_dims; d++)
        if (!clq_mul_u64(*n_bytes, a->dims[d], n_bytes)) return false;
    return true;
}

static json_t *entry_of(const clq_st_array *a, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();
    for (uint32_t d = 0; d < a->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)a->dims[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", clq_format_row(a->format)->st_name, "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

// The length and the text of the header, padded to a multiple of 8 bytes. *n_bytes: of the data behind it.
static clq_status make_head(const json_t *metadata, const clq_st_array *arrays, uint32_t n, clq_buf *head,
                            uint64_t *n_bytes, clq_error *err)
{
    json_t *json = json_object();
    bool ok = !metadata || json_object_set(json, "__metadata__", (json_t *)metadata) == 0;
    uint64_t at = 0;
    for (int w = 0; w < N_WIDTHS; w++)
        for (uint32_t i = 0; ok && i < n; i++) {
            uint64_t own, end = 0;
            if (clq_format_at(arrays[i].format)->block_bytes != widths[w]) continue;
            ok = bytes_of(&arrays[i], &own) && clq_add_u64(at, own, &end) && end <= INT64_MAX &&
                 json_object_set_new(json, arrays[i].name, entry_of(&arrays[i], at, end)) == 0;
            at = end;
        }
    char *text = ok ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text) return clq_fail_memory(err, n * sizeof *arrays);
    size_t len = strlen(text), padded = (len + 7) / 8 * 8;
    clq_buf_u64(head, padded);
    clq_buf_append(head, text, len);
    free(text);
    for (; len < padded; len++) clq_buf_append(head, " ", 1);
    *n_bytes = at;
    return head->failed ? clq_fail_memory(err, padded) : CLQ_OK;
}

static clq_status write_arrays(clq_output *o, uint64_t at, const clq_st_array *arrays, uint32_t n, clq_error *err)
{
    for (int w = 0; w < N_WIDTHS; w++)
        for (uint32_t i = 0; i < n; i++) {
            uint64_t own;
            if (clq_format_at(arrays[i].format)->block_bytes != widths[w]) continue;
            bytes_of(&arrays[i], &own);
            if (own) CLQ_TRY(clq_output_write(o, 0, at, arrays[i].data, own, err));
            at += own;
        }
    return CLQ_OK;
}

clq_status clq_safetensors_write(const char *path, const json_t *metadata, const clq_st_array *arrays, uint32_t n,
                                 clq_error *err)
{
    clq_buf head = {0};
    clq_output *o = NULL;
    uint64_t n_bytes = 0;
    clq_status st;
    CLQ_TRY_OUT(make_head(metadata, arrays, n, &head, &n_bytes, err));
    clq_output_file file = {.name = "", .n_bytes = head.len + n_bytes};
    CLQ_TRY_OUT(clq_output_open(path, CLQ_OUTPUT_FILE, &file, 1, 0, false, &o, err));
    CLQ_TRY_OUT(clq_output_write(o, 0, 0, head.data, head.len, err));
    CLQ_TRY_OUT(write_arrays(o, head.len, arrays, n, err));
    CLQ_TRY_OUT(clq_output_sync(o, err));
    st = clq_output_commit(o, err);
out:
    clq_output_close(o, false);
    clq_buf_free(&head);
    return st;
}

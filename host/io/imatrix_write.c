// SPDX-License-Identifier: MIT
// The formats stand in imatrix.c.
#include "io/imatrix_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "format/format.h"
#include "io/gguf.h"
#include "io/output.h"

enum { ALIGNMENT = 32 };

bool clq_imatrix_can_write(const char *path) { return clq_ends_with(path, ".gguf") || clq_ends_with(path, ".dat"); }

static uint64_t n_values(const clq_imatrix_sums *w) { return (uint64_t)w->n_matrices * w->cols; }

static uint64_t most_tokens(const clq_imatrix_sums *w)
{
    uint64_t most = 0;
    for (uint32_t m = 0; m < w->n_matrices; m++) most = w->tokens[m] > most ? w->tokens[m] : most;
    return most;
}

// ---- .dat ----

static void put_text(clq_buf *b, const char *text)
{
    clq_buf_u32(b, (uint32_t)strlen(text));
    clq_buf_text(b, text);
}

// A value is the mean square times the number of calls, in the order of operations that llama-imatrix has.
static clq_status put_entry(clq_buf *b, const clq_imatrix_sums *w, uint32_t chunk_size, clq_error *err)
{
    uint64_t calls = clq_div_up(most_tokens(w), chunk_size);
    if (calls > INT32_MAX || n_values(w) > INT32_MAX)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has too many values or tokens for a .dat file: name it .gguf",
                        w->name);
    put_text(b, w->name);
    clq_buf_u32(b, (uint32_t)calls);
    clq_buf_u32(b, (uint32_t)n_values(w));
    for (uint32_t m = 0; m < w->n_matrices; m++)
        for (uint32_t c = 0; c < w->cols; c++) {
            uint64_t tokens = w->tokens[m];
            float mean = tokens ? w->squares[(uint64_t)m * w->cols + c] / (float)tokens : 1;
            float value = mean * (float)calls;
            clq_buf_append(b, &value, sizeof value);
        }
    return CLQ_OK;
}

static clq_status make_dat(clq_buf *b, const clq_imatrix_sums *weights, uint32_t n, const clq_imatrix_facts *facts,
                           clq_error *err)
{
    uint32_t n_seen = 0;
    for (uint32_t i = 0; i < n; i++) n_seen += most_tokens(&weights[i]) > 0;
    if (!n_seen || n_seen > INT32_MAX || facts->n_chunks > INT32_MAX)
        return clq_fail(err, CLQ_BAD_INPUT, "no importance of any tensor, or more than a .dat file holds");
    clq_buf_u32(b, n_seen);
    for (uint32_t i = 0; i < n; i++)
        if (most_tokens(&weights[i])) CLQ_TRY(put_entry(b, &weights[i], facts->chunk_size, err));
    clq_buf_u32(b, facts->n_chunks);
    put_text(b, facts->dataset);
    return CLQ_OK;
}

// ---- GGUF ----

static void put_metadata(clq_gguf_kvs *kvs, const clq_imatrix_facts *facts)
{
    size_t len = strlen(facts->dataset);
    clq_kv_set_string(kvs, "general.type", "imatrix", strlen("imatrix"));
    clq_kv_set_strings(kvs, "imatrix.datasets", &facts->dataset, &len, len > 0);
    clq_kv_set_u32(kvs, "imatrix.chunk_count", facts->n_chunks);
    clq_kv_set_u32(kvs, "imatrix.chunk_size", facts->chunk_size);
}

// Names owned by `names`.
static void describe(const clq_imatrix_sums *w, clq_buf names[2], clq_gguf_tensor tensors[2], uint64_t *offset)
{
    static const char *const suffixes[2] = {".in_sum2", ".counts"};
    for (int k = 0; k < 2; k++) {
        clq_buf_text(&names[k], w->name);
        clq_buf_append(&names[k], suffixes[k], strlen(suffixes[k]) + 1);
        tensors[k] = (clq_gguf_tensor){.name = names[k].data,
                                       .ggml_type = (uint32_t)clq_format_at(CLQ_F32)->ggml_type,
                                       .n_dims = 2,
                                       .dims = {w->n_matrices, k ? 1 : w->cols},
                                       .offset = *offset};
        *offset += clq_div_up((k ? w->n_matrices : n_values(w)) * sizeof(float), ALIGNMENT) * ALIGNMENT;
    }
}

static void put_floats(clq_buf *b, const clq_imatrix_sums *w)
{
    clq_buf_append(b, w->squares, n_values(w) * sizeof(float));
    clq_buf_zeros(b, -b->len % ALIGNMENT);
    for (uint32_t m = 0; m < w->n_matrices; m++) {
        float count = (float)w->tokens[m];
        clq_buf_append(b, &count, sizeof count);
    }
    clq_buf_zeros(b, -b->len % ALIGNMENT);
}

static clq_status make_gguf(clq_buf *b, const clq_imatrix_sums *weights, uint32_t n, const clq_imatrix_facts *facts,
                            clq_error *err)
{
    clq_gguf_kvs kvs = {0};
    clq_buf(*names)[2] = calloc(n + 1, sizeof *names);
    clq_gguf_tensor *tensors = calloc(2 * (uint64_t)n + 1, sizeof *tensors);
    uint64_t offset = 0;
    bool ok = names && tensors;
    for (uint32_t i = 0; ok && i < n; i++) {
        describe(&weights[i], names[i], tensors + 2 * i, &offset);
        ok = !names[i][0].failed && !names[i][1].failed;
    }
    if (ok) {
        put_metadata(&kvs, facts);
        clq_gguf_write_header(b, &kvs, tensors, 2 * (uint64_t)n, ALIGNMENT);
        for (uint32_t i = 0; i < n; i++) put_floats(b, &weights[i]);
    }
    for (uint32_t i = 0; names && i < n; i++)
        for (int k = 0; k < 2; k++) clq_buf_free(&names[i][k]);
    free(names);
    free(tensors);
    clq_kvs_free(&kvs);
    return ok ? CLQ_OK : clq_fail_memory(err, n * sizeof *tensors);
}

clq_status clq_imatrix_write(const char *path, const clq_imatrix_sums *weights, uint32_t n,
                             const clq_imatrix_facts *facts, clq_error *err)
{
    clq_buf all = {0};
    clq_status st =
        clq_ends_with(path, ".gguf") ? make_gguf(&all, weights, n, facts, err) : make_dat(&all, weights, n, facts, err);
    if (st == CLQ_OK && all.failed) st = clq_fail_memory(err, all.len);
    if (st == CLQ_OK) st = clq_output_whole(path, all.data, all.len, err);
    clq_buf_free(&all);
    return st;
}

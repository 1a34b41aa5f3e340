// SPDX-License-Identifier: MIT
// Two formats, both little-endian.
//   .dat  i32 n; n times {i32 length, name, i32 calls, i32 count, f32[count]}; then, perhaps, i32 chunks, and perhaps
//         i32 length, dataset. Value: f32 / calls.
//   GGUF  for each weight NAME.in_sum2, f32 [matrices, columns], and NAME.counts, f32 [matrices, 1].
//         Value: sum / count.
// Source: tools/imatrix/imatrix.cpp, common/imatrix-loader.cpp of https://github.com/ggml-org/llama.cpp
#include "io/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "io/source.h"

enum { MAX_NAME = 4096, MAX_DATASET = 1 << 16 };

void clq_imatrix_free(clq_imatrix *m)
{
    if (!m) return;
    for (uint32_t i = 0; i < m->n_entries; i++) {
        free(m->entries[i].name);
        free(m->entries[i].values);
    }
    free(m->entries);
    free(m->dataset);
    free(m->path);
    free(m);
}

// Room for one more entry; it counts only once n_entries is raised.
static clq_imatrix_entry *new_entry(clq_imatrix *m, uint64_t n)
{
    if (n > SIZE_MAX / sizeof(float)) return NULL;
    clq_imatrix_entry *entries = realloc(m->entries, (m->n_entries + 1) * sizeof *entries);
    if (!entries) return NULL;
    m->entries = entries;
    entries[m->n_entries] = (clq_imatrix_entry){.values = malloc(n * sizeof(float)), .n = n};
    return entries[m->n_entries].values ? &entries[m->n_entries++] : NULL;
}

static clq_status check_values(const clq_imatrix *m, const clq_imatrix_entry *e, clq_error *err)
{
    for (uint64_t i = 0; i < e->n; i++)
        if (!isfinite(e->values[i]) || e->values[i] < 0)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "'%s': the importance of tensor '%s' is %g at %" PRIu64 "; it must be finite and "
                            "not negative",
                            m->path, e->name, (double)e->values[i], i);
    return CLQ_OK;
}

// ---- .dat ----

typedef struct {
    const char *path;
    const uint8_t *p;
    uint64_t left;
} cursor;

static bool take_i32(cursor *c, int32_t *v)
{
    if (c->left < 4) return false;
    *v = (int32_t)((uint32_t)c->p[0] | (uint32_t)c->p[1] << 8 | (uint32_t)c->p[2] << 16 | (uint32_t)c->p[3] << 24);
    c->p += 4;
    c->left -= 4;
    return true;
}

static bool take_text(cursor *c, int32_t most, char **text)
{
    int32_t len;
    *text = NULL;
    if (!take_i32(c, &len) || len < 0 || len > most || (uint64_t)len > c->left || memchr(c->p, 0, (size_t)len))
        return false;
    *text = strndup((const char *)c->p, (size_t)len);
    c->p += len;
    c->left -= (uint64_t)len;
    return *text != NULL;
}

static clq_status truncated(const cursor *c, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "'%s' is not an importance matrix, or truncated", c->path);
}

static clq_status read_dat_entry(clq_imatrix *m, cursor *c, clq_error *err)
{
    char *name;
    int32_t calls, count;
    if (!take_text(c, MAX_NAME, &name)) return truncated(c, err);
    if (!*name || !take_i32(c, &calls) || !take_i32(c, &count) || count < 1 || (uint64_t)count > c->left / 4) {
        free(name);
        return truncated(c, err);
    }
    clq_imatrix_entry *e = new_entry(m, (uint64_t)count);
    if (!e) {
        free(name);
        return clq_fail_memory(err, (uint64_t)count * 4);
    }
    e->name = name;
    memcpy(e->values, c->p, e->n * 4);
    c->p += e->n * 4;
    c->left -= e->n * 4;
    for (uint64_t i = 0; calls > 0 && i < e->n; i++) e->values[i] /= (float)calls;
    return check_values(m, e, err);
}

static clq_status read_dat(clq_imatrix *m, cursor *c, clq_error *err)
{
    int32_t n, chunks = 0;
    // An entry has at least 17 bytes.
    if (!take_i32(c, &n) || n < 1 || (uint64_t)n > c->left / 17) return truncated(c, err);
    for (int32_t i = 0; i < n; i++) CLQ_TRY(read_dat_entry(m, c, err));
    if (c->left && !take_i32(c, &chunks)) return truncated(c, err);
    if (c->left && !take_text(c, MAX_DATASET, &m->dataset)) return truncated(c, err);
    if (c->left)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' goes on behind its end, by %" PRIu64 " bytes", m->path, c->left);
    m->n_chunks = chunks > 0 ? (uint32_t)chunks : 0;
    return CLQ_OK;
}

static clq_status open_dat(clq_imatrix *m, const clq_file *f, clq_error *err)
{
    cursor c = {.path = m->path, .left = f->size};
    if (f->size < 21 || f->size > SIZE_MAX) return truncated(&c, err);
    uint8_t *bytes = f->map ? NULL : malloc(f->size);
    if (!f->map && !bytes) return clq_fail_memory(err, f->size);
    clq_status st = f->map ? CLQ_OK : clq_file_read(f, 0, bytes, f->size, err);
    c.p = f->map ? f->map : bytes;
    if (st == CLQ_OK) st = read_dat(m, &c, err);
    free(bytes);
    return st;
}

// ---- GGUF ----

// sums: [matrices, columns] as stored; becomes means.
static clq_status divide(const clq_imatrix *m, clq_imatrix_entry *e, const float *counts, uint64_t n_counts,
                         clq_error *err)
{
    uint64_t cols = e->n / n_counts;
    for (uint64_t k = 0; k < n_counts; k++) {
        if (!isfinite(counts[k]) || counts[k] < 0 || counts[k] > 1e18f)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': the count %" PRIu64 " of tensor '%s' is %g", m->path, k, e->name,
                            (double)counts[k]);
        float count = roundf(counts[k]);
        e->n_neutral += count == 0;
        for (uint64_t i = k * cols; i < (k + 1) * cols; i++) {
            bool good = isfinite(e->values[i]) && e->values[i] >= 0; // else check_values() tells
            e->values[i] = count > 0 ? e->values[i] / count : good ? 1 : e->values[i];
        }
    }
    return check_values(m, e, err);
}

static clq_status read_floats(const clq_source *s, const clq_tensor *t, float *y, clq_error *err)
{
    uint64_t rows, cols;
    clq_tensor_matrix(t, &rows, &cols);
    return clq_tensor_read(s, t, 0, rows, y, err);
}

static clq_status read_gguf_entry(clq_imatrix *m, const clq_source *s, const clq_tensor *sums, clq_error *err)
{
    size_t stem = strlen(sums->name) - strlen(".in_sum2");
    char *counts_name = malloc(stem + sizeof ".counts");
    if (!counts_name) return clq_fail_memory(err, stem);
    memcpy(counts_name, sums->name, stem);
    memcpy(counts_name + stem, ".counts", sizeof ".counts");
    const clq_tensor *counts = clq_source_find(s, counts_name);
    free(counts_name);
    bool fits = counts && counts->type.format == CLQ_F32 && sums->type.format == CLQ_F32 && stem > 0 &&
                counts->n_elements > 0 && sums->n_elements > 0 && sums->n_elements % counts->n_elements == 0;
    if (!fits)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': '%s' and its .counts must be f32, the counts one for each matrix",
                        m->path, sums->name);
    clq_imatrix_entry *e = new_entry(m, sums->n_elements);
    float *c = malloc(counts->n_elements * sizeof *c);
    clq_status st =
        e && c && (e->name = strndup(sums->name, stem)) ? CLQ_OK : clq_fail_memory(err, sums->n_elements * 4);
    if (st == CLQ_OK) st = read_floats(s, sums, e->values, err);
    if (st == CLQ_OK) st = read_floats(s, counts, c, err);
    if (st == CLQ_OK) st = divide(m, e, c, counts->n_elements, err);
    free(c);
    return st;
}

static clq_status read_gguf(clq_imatrix *m, const clq_source *s, clq_error *err)
{
    uint64_t chunks, chunk_size, n;
    clq_gguf_type element;
    const uint8_t *p;
    bool known = clq_kv_get_u64(&s->kvs, "imatrix.chunk_count", &chunks) &&
                 clq_kv_get_u64(&s->kvs, "imatrix.chunk_size", &chunk_size) &&
                 clq_kv_get_array(&s->kvs, "imatrix.datasets", &element, &n, &p) && element == CLQ_GGUF_STRING;
    if (!known)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' is a GGUF file, but not an importance matrix: imatrix.datasets, imatrix.chunk_count "
                        "or imatrix.chunk_size is missing",
                        m->path);
    m->n_chunks = chunks < UINT32_MAX ? (uint32_t)chunks : UINT32_MAX;
    if (n) {
        const char *text;
        size_t len;
        clq_kv_next_string(&p, &text, &len);
        if (!(m->dataset = strndup(text, len))) return clq_fail_memory(err, len);
    }
    for (uint32_t i = 0; i < s->n_tensors; i++)
        if (clq_ends_with(s->tensors[i].name, ".in_sum2")) CLQ_TRY(read_gguf_entry(m, s, &s->tensors[i], err));
    return CLQ_OK;
}

// ---- both ----

static int by_name(const void *a, const void *b)
{
    return strcmp(((const clq_imatrix_entry *)a)->name, ((const clq_imatrix_entry *)b)->name);
}

static clq_status open_either(clq_imatrix *m, clq_error *err)
{
    clq_file f;
    uint8_t magic[4] = {0};
    CLQ_TRY(clq_file_open(m->path, &f, err));
    clq_status st = f.size >= 4 ? clq_file_read(&f, 0, magic, 4, err) : CLQ_OK;
    bool gguf = memcmp(magic, "GGUF", 4) == 0;
    if (st == CLQ_OK && !gguf) st = open_dat(m, &f, err);
    clq_file_close(&f);
    if (st == CLQ_OK && gguf) {
        clq_source *s;
        CLQ_TRY(clq_source_open(m->path, NULL, &s, err));
        st = read_gguf(m, s, err);
        clq_source_close(s);
    }
    CLQ_TRY(st);
    if (!m->n_entries) return clq_fail(err, CLQ_BAD_INPUT, "'%s' has no importance of any tensor", m->path);
    qsort(m->entries, m->n_entries, sizeof *m->entries, by_name);
    for (uint32_t i = 1; i < m->n_entries; i++)
        if (strcmp(m->entries[i - 1].name, m->entries[i].name) == 0)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': tensor '%s' stands twice", m->path, m->entries[i].name);
    if (!m->dataset && !(m->dataset = strdup(""))) return clq_fail_memory(err, 1);
    return CLQ_OK;
}

clq_status clq_imatrix_open(const char *path, clq_imatrix **imatrix, clq_error *err)
{
    *imatrix = NULL;
    clq_imatrix *m = calloc(1, sizeof *m);
    if (!m || !(m->path = strdup(path))) {
        free(m);
        return clq_fail_memory(err, sizeof *m);
    }
    clq_status st = open_either(m, err);
    if (st == CLQ_OK)
        *imatrix = m;
    else
        clq_imatrix_free(m);
    return st;
}

void clq_imatrix_filter(clq_imatrix *m, const char *const *parts, uint32_t n, bool keep)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->n_entries; i++) {
        clq_imatrix_entry *e = &m->entries[i];
        bool held = false;
        for (uint32_t k = 0; k < n; k++) held |= strstr(e->name, parts[k]) != NULL;
        if (held == keep) {
            m->entries[kept++] = *e;
        } else {
            free(e->name);
            free(e->values);
        }
    }
    m->n_entries = kept;
}

static bool all_zero(const float *v, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (v[i] != 0) return false;
    return true;
}

clq_status clq_imatrix_take(clq_imatrix *m, const char *name, uint64_t n_matrices, uint64_t cols,
                            const clq_hooks *hooks, const float **values, clq_error *err)
{
    *values = NULL;
    clq_imatrix_entry key = {.name = (char *)name};
    clq_imatrix_entry *e = m->n_entries ? bsearch(&key, m->entries, m->n_entries, sizeof *e, by_name) : NULL;
    if (!e) return CLQ_OK;
    uint64_t n;
    if (!clq_mul_u64(n_matrices, cols, &n) || e->n != n)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s': the importance of tensor '%s' has %" PRIu64 " values, the tensor %" PRIu64 " columns "
                        "in %" PRIu64 " matrices: it is of another model",
                        m->path, name, e->n, cols, n_matrices);
    for (uint64_t k = 0; k < n_matrices; k++) {
        float *v = e->values + k * cols;
        if (!all_zero(v, cols)) continue;
        for (uint64_t i = 0; i < cols; i++) v[i] = 1;
        e->n_neutral++;
    }
    if (e->n_neutral)
        clq_warn(hooks,
                 "tensor '%s': %u of %" PRIu64 " matrices got no calibration data; all their columns count alike", name,
                 e->n_neutral, n_matrices);
    e->n_neutral = 0; // told once
    *values = e->values;
    return CLQ_OK;
}

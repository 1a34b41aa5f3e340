// SPDX-License-Identifier: MIT
#include "io/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "io/file.h"
#include "io/output.h"

static const char magic[6] = "\x93NUMPY";
enum { MAX_HEAD_BYTES = 1 << 16, ALIGNMENT = 64 };

void clq_matrix_free(clq_matrix *m)
{
    free(m->values);
    *m = (clq_matrix){0};
}

bool clq_npy_is(const char *path)
{
    char head[sizeof magic];
    clq_file f;
    if (clq_file_open(path, &f, NULL) != CLQ_OK) return false;
    bool is = f.size >= sizeof head && clq_file_read(&f, 0, head, sizeof head, NULL) == CLQ_OK &&
              memcmp(head, magic, sizeof magic) == 0;
    clq_file_close(&f);
    return is;
}

// What follows "'key':" in the header's dictionary; NULL: no such key.
static const char *value_of(const char *head, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *p = strstr(head, quoted);
    if (!p) return NULL;
    p += strlen(quoted);
    while (*p == ' ') p++;
    if (*p++ != ':') return NULL;
    while (*p == ' ') p++;
    return p;
}

// "(3, 4)" or "(4,)"
static bool read_shape(const char *p, clq_matrix *m)
{
    uint64_t dims[2];
    int n = 0;
    if (!p || *p++ != '(') return false;
    while (*p >= '0' && *p <= '9') {
        char *end;
        if (n == 2) return false;
        dims[n++] = strtoull(p, &end, 10);
        for (p = end; *p == ' ' || *p == ','; p++) continue;
    }
    if (*p != ')' || n == 0) return false;
    m->rows = n == 2 ? dims[0] : 1;
    m->cols = dims[n - 1];
    return true;
}

// The head's text, NUL-terminated, and where the values begin.
static clq_status read_head(const clq_file *f, char *head, uint64_t *begin, clq_error *err)
{
    uint8_t start[12] = {0};
    uint64_t n_start = f->size < sizeof start ? f->size : sizeof start;
    CLQ_TRY(clq_file_read(f, 0, start, n_start, err));
    if (n_start < sizeof start || memcmp(start, magic, sizeof magic) != 0 || start[6] < 1 || start[6] > 3)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is no array of NumPy", f->path);
    bool is_long = start[6] > 1;
    uint64_t at = is_long ? 12 : 10, n = (uint64_t)start[8] | (uint64_t)start[9] << 8;
    if (is_long) n |= (uint64_t)start[10] << 16 | (uint64_t)start[11] << 24;
    if (n >= MAX_HEAD_BYTES || at + n > f->size)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': its head of %" PRIu64 " bytes is too long", f->path, n);
    CLQ_TRY(clq_file_read(f, at, head, n, err));
    head[n] = '\0';
    *begin = at + n;
    return CLQ_OK;
}

static clq_status read_values(const clq_file *f, uint64_t begin, bool is_double, clq_matrix *m, clq_error *err)
{
    uint64_t n, n_bytes, size = is_double ? 8 : 4;
    if (!clq_mul_u64(m->rows, m->cols, &n) || !clq_mul_u64(n, size, &n_bytes) || n_bytes != f->size - begin)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' does not have the bytes of an array of %" PRIu64 " by %" PRIu64,
                        f->path, m->rows, m->cols);
    m->values = malloc(n_bytes ? n_bytes : 1);
    if (!m->values) return clq_fail_memory(err, n_bytes);
    CLQ_TRY(clq_file_read(f, begin, m->values, n_bytes, err));
    for (uint64_t i = 0; is_double && i < n; i++) {
        double v;
        memcpy(&v, (const char *)m->values + 8 * i, sizeof v);
        m->values[i] = (float)v; // in place: i is never behind what was read
    }
    return CLQ_OK;
}

clq_status clq_npy_read(const char *path, clq_matrix *m, clq_error *err)
{
    char head[MAX_HEAD_BYTES];
    uint64_t begin = 0;
    clq_file f;
    *m = (clq_matrix){0};
    CLQ_TRY(clq_file_open(path, &f, err));
    clq_status st = read_head(&f, head, &begin, err);
    if (st == CLQ_OK) {
        const char *type = value_of(head, "descr"), *order = value_of(head, "fortran_order");
        bool is_double = type && strncmp(type, "'<f8'", 5) == 0;
        if ((!is_double && !(type && strncmp(type, "'<f4'", 5) == 0)) || !order || strncmp(order, "False", 5) != 0 ||
            !read_shape(value_of(head, "shape"), m))
            st = clq_fail(err, CLQ_BAD_INPUT,
                          "'%s': wanted is an array of float32 or float64, in C order, of one or two "
                          "dimensions",
                          path);
        else
            st = read_values(&f, begin, is_double, m, err);
    }
    clq_file_close(&f);
    if (st != CLQ_OK) clq_matrix_free(m);
    return st;
}

clq_status clq_npy_write(const char *path, const clq_matrix *m, clq_error *err)
{
    char text[128];
    int n =
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64 "), }",
                 m->rows, m->cols);
    clq_buf head = {0};
    unsigned n_head = ALIGNMENT * 2 - 10; // long enough for any shape
    clq_buf_append(&head, magic, sizeof magic);
    clq_buf_append(&head, (char[]){1, 0, (char)n_head, 0}, 4);
    clq_buf_append(&head, text, (size_t)n);
    while (!head.failed && head.len < 2 * ALIGNMENT - 1) clq_buf_text(&head, " ");
    clq_buf_text(&head, "\n");
    uint64_t n_bytes = m->rows * m->cols * 4;
    clq_output_file file = {.name = "", .n_bytes = 2 * ALIGNMENT + n_bytes};
    clq_output *o = NULL;
    clq_status st = head.failed ? clq_fail_memory(err, head.len) : CLQ_OK;
    if (st == CLQ_OK) st = clq_output_open(path, CLQ_OUTPUT_FILE, &file, 1, 0, false, &o, err);
    if (st == CLQ_OK) st = clq_output_write(o, 0, 0, head.data, head.len, err);
    if (st == CLQ_OK) st = clq_output_write(o, 0, head.len, m->values, n_bytes, err);
    if (st == CLQ_OK) st = clq_output_sync(o, err);
    if (st == CLQ_OK) st = clq_output_commit(o, err);
    clq_output_close(o, false);
    clq_buf_free(&head);
    return st;
}

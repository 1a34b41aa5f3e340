// SPDX-License-Identifier: MIT
// host/io/imatrix.c, from files in memory.
#define _GNU_SOURCE // memfd_create
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/half.h"
#include "io/gguf.h"
#include "io/imatrix.h"

// ---- making files ----

static void text_i32(clq_buf *b, const char *text)
{
    clq_buf_u32(b, (uint32_t)strlen(text));
    clq_buf_text(b, text);
}

// An entry of a .dat file with the values 1, 2, 3 ... n, times calls.
static void dat_entry(clq_buf *b, const char *name, uint32_t calls, uint32_t n)
{
    text_i32(b, name);
    clq_buf_u32(b, calls);
    clq_buf_u32(b, n);
    for (uint32_t i = 0; i < n; i++) clq_buf_u32(b, clq_bits((float)(i + 1) * (float)(calls ? calls : 1)));
}

static clq_buf dat(uint32_t n_entries)
{
    clq_buf b = {0};
    clq_buf_u32(&b, n_entries);
    return b;
}

// Opens and forgets the bytes.
static clq_status open_bytes(clq_buf *b, clq_imatrix **m, clq_error *err)
{
    char path[64];
    int fd = memfd_create("imatrix", 0);
    assert_true(fd >= 0 && !b->failed);
    assert_int_equal(write(fd, b->data, b->len), b->len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    clq_status st = clq_imatrix_open(path, m, err);
    close(fd);
    clq_buf_free(b);
    return st;
}

static clq_imatrix *must_open(clq_buf b)
{
    clq_imatrix *m;
    clq_error err;
    if (open_bytes(&b, &m, &err) != CLQ_OK) fail_msg("%s", err.text);
    return m;
}

static void must_refuse(clq_buf b, const char *says)
{
    clq_imatrix *m = (clq_imatrix *)1;
    clq_error err;
    assert_int_equal(open_bytes(&b, &m, &err), CLQ_BAD_INPUT);
    assert_null(m);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

typedef struct {
    const char *sums, *counts;
    uint32_t n_matrices, n_cols, n_counts;
    float sum, count[3];
} gguf_spec;

// All sums are the same number; without metadata where `bare`.
static clq_buf gguf(const gguf_spec *g, bool bare)
{
    clq_buf b = {0};
    clq_gguf_kvs kvs = {0};
    const char *dataset = "text.txt";
    size_t len = strlen(dataset);
    clq_kv_set_string(&kvs, "general.type", "imatrix", 7);
    if (!bare) {
        clq_kv_set_strings(&kvs, "imatrix.datasets", &dataset, &len, 1);
        clq_kv_set_u32(&kvs, "imatrix.chunk_count", 9);
        clq_kv_set_u32(&kvs, "imatrix.chunk_size", 512);
    }
    uint64_t sum_bytes = (uint64_t)g->n_matrices * g->n_cols * 4, padded = (sum_bytes + 31) / 32 * 32;
    clq_gguf_tensor tensors[2] = {{.name = g->sums, .n_dims = 2, .dims = {g->n_matrices, g->n_cols}},
                                  {.name = g->counts, .n_dims = 2, .dims = {g->n_counts, 1}, .offset = padded}};
    clq_gguf_write_header(&b, &kvs, tensors, 2, 32);
    clq_kvs_free(&kvs);
    for (uint32_t i = 0; i < g->n_matrices * g->n_cols; i++) clq_buf_u32(&b, clq_bits(g->sum));
    clq_buf_zeros(&b, padded - sum_bytes);
    for (uint32_t i = 0; i < g->n_counts; i++) clq_buf_u32(&b, clq_bits(g->count[i]));
    clq_buf_zeros(&b, 64);
    return b;
}

// ---- tests ----

static const float *take(clq_imatrix *m, const char *name, uint64_t n_matrices, uint64_t cols, const clq_hooks *hooks)
{
    const float *values;
    clq_error err;
    if (clq_imatrix_take(m, name, n_matrices, cols, hooks, &values, &err) != CLQ_OK) fail_msg("%s", err.text);
    return values;
}

static void test_dat(void **state)
{
    (void)state;
    clq_buf b = dat(2);
    dat_entry(&b, "b.weight", 4, 6);
    dat_entry(&b, "a.weight", 0, 2); // no calls: the values as they are
    clq_buf_u32(&b, 17);
    text_i32(&b, "wiki.txt");
    clq_imatrix *m = must_open(b);
    assert_int_equal(m->n_entries, 2);
    assert_int_equal(m->n_chunks, 17);
    assert_string_equal(m->dataset, "wiki.txt");
    assert_string_equal(m->entries[0].name, "a.weight");
    const float *v = take(m, "b.weight", 2, 3, NULL);
    for (int i = 0; i < 6; i++) assert_true(v[i] == (float)(i + 1));
    assert_true(take(m, "a.weight", 1, 2, NULL)[1] == 2);
    assert_null(take(m, "c.weight", 1, 2, NULL));
    clq_error err;
    assert_int_equal(clq_imatrix_take(m, "b.weight", 1, 5, NULL, &v, &err), CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "b.weight"));
    assert_int_equal(clq_imatrix_take(m, "b.weight", UINT64_MAX, 3, NULL, &v, &err), CLQ_BAD_INPUT);
    clq_imatrix_free(m);
}

static void test_dat_without_tail(void **state)
{
    (void)state;
    clq_buf b = dat(1);
    dat_entry(&b, "a", 1, 2);
    clq_imatrix *m = must_open(b);
    assert_int_equal(m->n_chunks, 0);
    assert_string_equal(m->dataset, "");
    clq_imatrix_free(m);
    b = dat(1);
    dat_entry(&b, "a", 1, 2);
    clq_buf_u32(&b, 3);
    m = must_open(b);
    assert_int_equal(m->n_chunks, 3);
    clq_imatrix_free(m);
}

// Every proper beginning of a file is refused, but those that end with an optional part.
static void test_dat_truncated(void **state)
{
    (void)state;
    clq_buf whole = dat(2);
    dat_entry(&whole, "a.weight", 4, 3);
    dat_entry(&whole, "b.weight", 4, 3);
    size_t entries = whole.len;
    clq_buf_u32(&whole, 17);
    text_i32(&whole, "wiki");
    for (size_t len = 0; len < whole.len; len++) {
        clq_buf b = {0};
        clq_buf_append(&b, whole.data, len);
        if (len == entries || len == entries + 4)
            clq_imatrix_free(must_open(b));
        else
            must_refuse(b, "truncated");
    }
    clq_buf_u32(&whole, 0);
    must_refuse(whole, "behind its end");
}

static void test_dat_broken(void **state)
{
    (void)state;
    const uint32_t bad_values[] = {0x7fc00000, 0x7f800000, 0xff800000, 0xbf800000}; // NaN, infinities, -1
    for (int i = 0; i < 4; i++) {
        clq_buf b = dat(1);
        text_i32(&b, "x.weight");
        clq_buf_u32(&b, 1);
        clq_buf_u32(&b, 2);
        clq_buf_u32(&b, 0);
        clq_buf_u32(&b, bad_values[i]);
        must_refuse(b, "'x.weight'");
    }
    clq_buf b = dat(2);
    dat_entry(&b, "a", 1, 2);
    dat_entry(&b, "a", 1, 2);
    must_refuse(b, "twice");
    const uint32_t counts[] = {0, 0xffffffff, 1000000000};
    for (int i = 0; i < 3; i++) {
        b = dat(counts[i]);
        dat_entry(&b, "a", 1, 2);
        must_refuse(b, "truncated");
        b = dat(1);
        text_i32(&b, "a");
        clq_buf_u32(&b, 1);
        clq_buf_u32(&b, counts[i]);
        clq_buf_zeros(&b, 32);
        must_refuse(b, "truncated");
        b = dat(1);
        clq_buf_u32(&b, counts[i]);
        clq_buf_zeros(&b, 32);
        must_refuse(b, "truncated");
    }
}

static void count_warning(void *user, const char *text)
{
    assert_non_null(strstr(text, "'x.weight'"));
    ++*(int *)user;
}

static void test_gguf(void **state)
{
    (void)state;
    int n_warnings = 0;
    clq_hooks hooks = {.user = &n_warnings, .warn = count_warning};
    gguf_spec g = {"x.weight.in_sum2", "x.weight.counts", 3, 4, 3, 12, {2, 0, 4}};
    clq_imatrix *m = must_open(gguf(&g, false));
    assert_int_equal(m->n_chunks, 9);
    assert_string_equal(m->dataset, "text.txt");
    const float *v = take(m, "x.weight", 3, 4, &hooks), expected[3] = {6, 1, 3};
    for (int i = 0; i < 12; i++) assert_true(v[i] == expected[i / 4]);
    assert_int_equal(n_warnings, 1); // of the expert without data
    clq_imatrix_free(m);

    g.sum = 0; // no data, whatever the counts say: neutral
    m = must_open(gguf(&g, false));
    v = take(m, "x.weight", 3, 4, &hooks);
    for (int i = 0; i < 12; i++) assert_true(v[i] == 1);
    assert_int_equal(n_warnings, 2);
    clq_imatrix_free(m);
}

static void test_gguf_broken(void **state)
{
    (void)state;
    const gguf_spec good = {"x.weight.in_sum2", "x.weight.counts", 3, 4, 3, 12, {2, 1, 4}};
    gguf_spec g = good;
    must_refuse(gguf(&g, true), "not an importance matrix");
    g.counts = "y.weight.counts";
    must_refuse(gguf(&g, false), "x.weight.in_sum2");
    g = good;
    g.n_counts = 2; // does not divide 12 into rows of 4, but is legal: rows of 6
    clq_imatrix_free(must_open(gguf(&g, false)));
    g.n_cols = 3;
    must_refuse(gguf(&g, false), "x.weight.in_sum2");
    g = good;
    g.sums = "x.weight.other";
    must_refuse(gguf(&g, false), "no importance");
    g = good;
    g.sums = ".in_sum2";
    g.counts = ".counts";
    must_refuse(gguf(&g, false), ".in_sum2");
    const float bad[] = {-1, clq_from_bits(0x7fc00000), clq_from_bits(0x7f800000)};
    for (int i = 0; i < 3; i++) {
        g = good;
        g.sum = bad[i];
        must_refuse(gguf(&g, false), "'x.weight'");
        g.count[0] = g.count[1] = g.count[2] = 0; // neutral values do not hide it
        must_refuse(gguf(&g, false), "'x.weight'");
        g = good;
        g.count[1] = bad[i];
        must_refuse(gguf(&g, false), "'x.weight'");
    }
}

static void test_filter(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.0.ffn_up.weight", "blk.0.attn_q.weight", "blk.1.ffn_up.weight"};
    for (int keep = 0; keep < 2; keep++) {
        clq_buf b = dat(3);
        for (int i = 0; i < 3; i++) dat_entry(&b, names[i], 1, 2);
        clq_imatrix *m = must_open(b);
        const char *parts[] = {"ffn_up", "blk.0.attn_q"};
        clq_imatrix_filter(m, parts, 1, keep);
        assert_int_equal(m->n_entries, keep ? 2 : 1);
        assert_true(!take(m, names[1], 1, 2, NULL) == (keep == 1));
        assert_true(!take(m, names[2], 1, 2, NULL) == (keep == 0));
        clq_imatrix_filter(m, parts, 2, false);
        assert_int_equal(m->n_entries, 0);
        assert_null(take(m, names[0], 1, 2, NULL));
        clq_imatrix_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dat),           cmocka_unit_test(test_dat_without_tail),
        cmocka_unit_test(test_dat_truncated), cmocka_unit_test(test_dat_broken),
        cmocka_unit_test(test_gguf),          cmocka_unit_test(test_gguf_broken),
        cmocka_unit_test(test_filter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

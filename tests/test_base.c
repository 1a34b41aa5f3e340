// SPDX-License-Identifier: MIT
// host/base: checked arithmetic, growing buffers, paths, errors, threads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/threads.h"

static void test_checked(void **state)
{
    (void)state;
    uint64_t v = 0;
    assert_true(clq_mul_u64(0, UINT64_MAX, &v) && v == 0);
    assert_true(clq_mul_u64(UINT64_MAX, 1, &v) && v == UINT64_MAX);
    assert_true(clq_mul_u64(1ull << 32, (1ull << 32) - 1, &v) && v == UINT64_MAX - (1ull << 32) + 1);
    assert_false(clq_mul_u64(1ull << 32, 1ull << 32, &v));
    assert_false(clq_mul_u64(UINT64_MAX, 2, &v));
    assert_false(clq_mul_u64(UINT64_MAX / 3 + 1, 3, &v));
    assert_true(clq_mul_u64(UINT64_MAX / 3, 3, &v) && v == UINT64_MAX);
    assert_true(clq_add_u64(UINT64_MAX, 0, &v) && v == UINT64_MAX);
    assert_true(clq_add_u64(UINT64_MAX - 7, 7, &v) && v == UINT64_MAX);
    assert_false(clq_add_u64(UINT64_MAX, 1, &v));
    assert_false(clq_add_u64(1ull << 63, 1ull << 63, &v));
    assert_true(clq_round_up_u64(0, 32, &v) && v == 0);
    assert_true(clq_round_up_u64(1, 32, &v) && v == 32);
    assert_true(clq_round_up_u64(32, 32, &v) && v == 32);
    assert_true(clq_round_up_u64(33, 32, &v) && v == 64);
    assert_true(clq_round_up_u64(UINT64_MAX, 1, &v) && v == UINT64_MAX);
    assert_true(clq_round_up_u64(UINT64_MAX - 31, 32, &v) && v == UINT64_MAX - 31);
    assert_false(clq_round_up_u64(UINT64_MAX - 30, 32, &v));
    assert_int_equal(clq_div_up(0, 5), 0);
    assert_int_equal(clq_div_up(1, 5), 1);
    assert_int_equal(clq_div_up(5, 5), 1);
    assert_int_equal(clq_div_up(6, 5), 2);
    assert_true(clq_div_up(UINT64_MAX, 2) == 1ull << 63);
}

static void test_buffer(void **state)
{
    (void)state;
    clq_buf b = {0};
    clq_buf_append(&b, NULL, 0); // nothing of nothing
    assert_true(b.len == 0 && !b.failed);
    clq_buf_text(&b, "abc");
    clq_buf_u32(&b, 0x04030201);
    clq_buf_u64(&b, 0x0c0b0a0908070605u);
    clq_buf_zeros(&b, 2);
    clq_buf_printf(&b, "%d-%s", -7, "x");
    static const char expected[] = "abc\1\2\3\4\5\6\7\10\11\12\13\14\0\0-7-x";
    assert_int_equal(b.len, sizeof expected - 1);
    assert_memory_equal(b.data, expected, b.len);
    clq_buf_free(&b);
    assert_true(!b.data && b.len == 0);

    // Growth keeps what there is, whatever the pieces.
    for (size_t piece = 1; piece <= 3000; piece = piece * 3 + 1) {
        uint8_t bytes[3001];
        size_t n = 0;
        while (n < 100000) {
            for (size_t i = 0; i < piece; i++) bytes[i] = (uint8_t)((n + i) % 251);
            clq_buf_append(&b, bytes, piece);
            n += piece;
        }
        assert_true(b.len == n && !b.failed && b.capacity >= n);
        for (size_t i = 0; i < n; i++)
            if ((uint8_t)b.data[i] != i % 251) fail_msg("pieces of %zu: byte %zu", piece, i);
        clq_buf_free(&b);
    }
    // A long formatted text.
    clq_buf_printf(&b, "%5000d", 1);
    assert_int_equal(b.len, 5000);
    assert_true(b.data[0] == ' ' && b.data[4999] == '1');
    // A failure stays, and nothing is appended behind it.
    clq_buf_zeros(&b, SIZE_MAX - 10);
    assert_true(b.failed);
    clq_buf_text(&b, "more");
    clq_buf_printf(&b, "more");
    clq_buf_u32(&b, 1);
    assert_true(b.failed && b.len == 5000);
    clq_buf_free(&b);
    assert_false(b.failed);
}

static void test_paths(void **state)
{
    (void)state;
    static const char *const joined[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"},
                                            {"", "b", "b"},    {"a", "", "a/"},    {"a/b", "c/d", "a/b/c/d"}};
    for (size_t i = 0; i < sizeof joined / sizeof *joined; i++) {
        char *path = clq_path_join(joined[i][0], joined[i][1]);
        assert_string_equal(path, joined[i][2]);
        free(path);
    }
    assert_string_equal(clq_path_base("a/b/c"), "c");
    assert_string_equal(clq_path_base("c"), "c");
    assert_string_equal(clq_path_base("/c"), "c");
    assert_string_equal(clq_path_base("a/"), "");
    assert_string_equal(clq_path_base(""), "");
    assert_true(clq_ends_with("model.gguf", ".gguf"));
    assert_true(clq_ends_with(".gguf", ".gguf"));
    assert_true(clq_ends_with("x", ""));
    assert_false(clq_ends_with("gguf", ".gguf"));
    assert_false(clq_ends_with("model.GGUF", ".gguf"));
    assert_false(clq_ends_with("model.gguf ", ".gguf"));
}

static char warned[1024];

static void keep_warning(void *user, const char *text)
{
    ++*(int *)user;
    strcpy(warned, text);
}

static void test_errors(void **state)
{
    (void)state;
    clq_error err = {0};
    assert_int_equal(clq_fail(&err, CLQ_OUTPUT, "%s: %d", "x", 5), CLQ_OUTPUT);
    assert_int_equal(err.status, CLQ_OUTPUT);
    assert_string_equal(err.text, "x: 5");
    assert_int_equal(clq_fail(NULL, CLQ_DEVICE, "%s", "nobody reads it"), CLQ_DEVICE);
    assert_int_equal(clq_fail_errno(NULL, CLQ_OUTPUT, ENOENT, "x"), CLQ_OUTPUT);
    assert_int_equal(clq_fail_errno(&err, CLQ_OUTPUT, ENOENT, "cannot open '%s'", "f"), CLQ_OUTPUT);
    assert_string_equal(err.text, "cannot open 'f': No such file or directory");
    assert_int_equal(clq_fail_memory(&err, 123), CLQ_DEVICE);
    assert_non_null(strstr(err.text, "123"));
    char text[3000];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    clq_fail_errno(&err, CLQ_OUTPUT, ENOENT, "%s", text); // cut, not overrun
    assert_int_equal(strlen(err.text), sizeof err.text - 1);

    int n = 0;
    volatile sig_atomic_t cancel = 0;
    clq_hooks hooks = {.user = &n, .warn = keep_warning, .cancel = &cancel}, none = {0};
    clq_warn(&hooks, "%d things", 3);
    assert_int_equal(n, 1);
    assert_string_equal(warned, "3 things");
    clq_warn(&hooks, "%s", text);
    assert_int_equal(n, 2);
    assert_int_equal(strlen(warned), 1023);
    clq_warn(&none, "x");
    clq_warn(NULL, "x");
    assert_false(clq_cancelled(NULL));
    assert_false(clq_cancelled(&none));
    assert_false(clq_cancelled(&hooks));
    cancel = 1;
    assert_true(clq_cancelled(&hooks));
    assert_string_equal(clq_version(), CLQ_VERSION);
}

// ---- threads -----------------------------------------------------------------------------------

enum { MOST = 5000 };

typedef struct {
    atomic_uchar seen[MOST];
    uint64_t n, grain;
    atomic_int wrong;
} coverage;

static void cover(void *ctx, uint64_t begin, uint64_t end)
{
    coverage *c = ctx;
    // Whole grains, the last perhaps shorter: what a range is does not depend on the threads.
    if (begin >= end || end > c->n || begin % c->grain || (end % c->grain && end != c->n))
        atomic_fetch_add(&c->wrong, 1);
    for (uint64_t i = begin; i < end && i < MOST; i++) atomic_fetch_add(&c->seen[i], 1);
}

static void test_parallel(void **state)
{
    (void)state;
    static const uint32_t threads[] = {0, 1, 2, 3, 7, 16, 300};
    static const uint64_t sizes[] = {0, 1, 2, 63, 64, 65, 1000, MOST},
                          grains[] = {1, 2, 7, 64, 4999, MOST, UINT64_MAX / 2};
    coverage *c = malloc(sizeof *c);
    assert_non_null(c);
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                memset(c, 0, sizeof *c);
                c->n = sizes[s];
                c->grain = grains[g];
                clq_parallel(threads[t], c->n, c->grain, cover, c);
                for (uint64_t i = 0; i < MOST; i++)
                    if (c->seen[i] != (i < c->n))
                        fail_msg("%u threads, %llu in grains of %llu: index %llu was seen %d times", threads[t],
                                 (unsigned long long)c->n, (unsigned long long)c->grain, (unsigned long long)i,
                                 c->seen[i]);
                assert_int_equal(c->wrong, 0);
            }
    memset(c, 0, sizeof *c);
    c->n = 10;
    c->grain = 1;
    clq_parallel(4, 10, 0, cover, c); // a grain of 0 counts as 1
    for (int i = 0; i < 10; i++) assert_int_equal(c->seen[i], 1);
    free(c);
}

static void test_clock(void **state)
{
    (void)state;
    uint32_t n = clq_threads_allowed();
    assert_true(n >= 1 && n <= 256);
    double last = clq_seconds();
    for (int i = 0; i < 1000; i++) {
        double now = clq_seconds();
        assert_true(now >= last);
        last = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checked), cmocka_unit_test(test_buffer),   cmocka_unit_test(test_paths),
        cmocka_unit_test(test_errors),  cmocka_unit_test(test_parallel), cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

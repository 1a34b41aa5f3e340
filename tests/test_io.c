// SPDX-License-Identifier: MIT
// host/io: the readers on files that are made here, whole and broken; metadata; the output transaction.
#define _XOPEN_SOURCE 700 // nftw
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "io/output.h"
#include "io/source.h"

// ---- files -------------------------------------------------------------------------------------

static char root[64];

static void make_path(char path[256], const char *dir, const char *name)
{
    int n = snprintf(path, 256, "%s/%s", dir, name);
    assert_true(n > 0 && n < 256);
}

static void write_bytes(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[256];
    make_path(path, dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    write_bytes(dir, name, text, strlen(text));
}

static void file_holds(const char *dir, const char *name, const char *text)
{
    char path[256], *got;
    size_t len;
    make_path(path, dir, name);
    clq_error err;
    if (clq_file_slurp(path, 1 << 20, &got, &len, &err) != CLQ_OK) fail_msg("%s", err.text);
    assert_int_equal(len, strlen(text));
    assert_string_equal(got, text);
    free(got);
}

static int remove_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
    (void)sb;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void new_folder(char dir[256], const char *name)
{
    make_path(dir, root, name);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(mkdir(dir, 0700), 0);
}

static int n_entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/clq_test_io_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

typedef struct {
    int n;
    char last[1024];
} warnings;

static void count_warning(void *user, const char *text)
{
    warnings *w = user;
    w->n++;
    snprintf(w->last, sizeof w->last, "%s", text);
}

static clq_source *must_open(const char *path, const clq_hooks *hooks)
{
    clq_source *s;
    clq_error err;
    if (clq_source_open(path, hooks, &s, &err) != CLQ_OK) fail_msg("%s: %s", path, err.text);
    return s;
}

// The message must hold `says`.
static void must_refuse(const char *path, const char *says)
{
    clq_source *s = (clq_source *)1;
    clq_error err = {0};
    clq_status st = clq_source_open(path, NULL, &s, &err);
    if (st == CLQ_OK) {
        clq_source_close(s);
        fail_msg("%s was opened; expected: %s", path, says);
    }
    assert_int_equal(st, CLQ_BAD_INPUT);
    assert_int_equal(err.status, CLQ_BAD_INPUT);
    assert_null(s);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

// ---- file.c ------------------------------------------------------------------------------------

static void test_file(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "file");
    uint8_t bytes[10000], a[10000], b[10000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
    write_bytes(dir, "f", bytes, sizeof bytes);
    make_path(path, dir, "f");
    clq_file mapped, plain;
    clq_error err;
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_OK);
    assert_int_equal(clq_file_open(path, &plain, &err), CLQ_OK);
    assert_non_null(mapped.map);
    munmap((void *)plain.map, plain.size);
    plain.map = NULL;
    assert_null(clq_file_at(&plain, 0));
    static const uint64_t ranges[][2] = {{0, 10000},   {0, 0},    {10000, 0}, {1, 4095},
                                         {4096, 4096}, {9999, 1}, {123, 8765}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        uint64_t at = ranges[i][0], n = ranges[i][1];
        memset(a, 1, sizeof a);
        memset(b, 1, sizeof b);
        assert_int_equal(clq_file_read(&mapped, at, a, n, &err), CLQ_OK);
        assert_int_equal(clq_file_read(&plain, at, b, n, &err), CLQ_OK);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(a, bytes + at, n);
    }
    static const uint64_t outside[][2] = {
        {0, 10001}, {10001, 0}, {9999, 2}, {UINT64_MAX, 1}, {UINT64_MAX, UINT64_MAX}, {1, UINT64_MAX}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(clq_file_read(&mapped, outside[i][0], a, outside[i][1], &err), CLQ_BAD_INPUT);
        assert_int_equal(clq_file_read(&plain, outside[i][0], a, outside[i][1], &err), CLQ_BAD_INPUT);
    }
    assert_int_equal(mapped.inode, plain.inode);
    // Shortened behind our back, not mapped: an error, not an endless loop.
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(clq_file_read(&plain, 0, a, 5000, &err), CLQ_OK);
    assert_int_equal(clq_file_read(&plain, 4000, a, 2000, &err), CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "shorter"));
    clq_file_close(&mapped);
    clq_file_close(&plain);
    clq_file_close(&plain); // twice is harmless

    assert_int_equal(clq_file_open(dir, &mapped, &err), CLQ_BAD_INPUT); // a folder
    make_path(path, dir, "none");
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_BAD_INPUT);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_BAD_INPUT); // must not wait for a writer
    assert_int_equal(clq_file_open("/dev/null", &mapped, &err), CLQ_BAD_INPUT);
    write_text(dir, "empty", "");
    make_path(path, dir, "empty");
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_OK);
    assert_int_equal(mapped.size, 0);
    clq_file_close(&mapped);

    char *text;
    size_t len;
    assert_int_equal(clq_file_slurp(path, 10, &text, &len, &err), CLQ_OK);
    assert_string_equal(text, "");
    free(text);
    write_text(dir, "eleven", "12345678901");
    make_path(path, dir, "eleven");
    assert_int_equal(clq_file_slurp(path, 10, &text, &len, &err), CLQ_BAD_INPUT);
    assert_null(text);
}

// ---- GGUF metadata -----------------------------------------------------------------------------

static void test_kvs(void **state)
{
    (void)state;
    clq_gguf_kvs kvs = {0};
    uint64_t u = 9;
    double f;
    bool truth;
    const char *s;
    size_t len;
    assert_null(clq_kv_find(&kvs, "a"));
    assert_false(clq_kv_get_u64(&kvs, "a", &u));
    clq_kv_remove(&kvs, "a");
    clq_kv_set_u32(&kvs, "a", 0xfedcba98);
    clq_kv_set_i32(&kvs, "b", -5);
    clq_kv_set_i32(&kvs, "c", 7);
    clq_kv_set_u16(&kvs, "d", 65535);
    clq_kv_set_f32(&kvs, "e", 0.1f);
    clq_kv_set_bool(&kvs, "f", true);
    clq_kv_set_string(&kvs, "g", "with\0nul", 8);
    clq_kv_set_string(&kvs, "h", "", 0);
    assert_int_equal(kvs.n, 8);
    assert_true(clq_kv_get_u64(&kvs, "a", &u) && u == 0xfedcba98);
    assert_false(clq_kv_get_u64(&kvs, "b", &u)); // negative
    assert_true(clq_kv_get_u64(&kvs, "c", &u) && u == 7);
    assert_true(clq_kv_get_u64(&kvs, "d", &u) && u == 65535);
    assert_false(clq_kv_get_u64(&kvs, "e", &u));
    assert_false(clq_kv_get_u64(&kvs, "f", &u));
    assert_true(clq_kv_get_f64(&kvs, "e", &f) && f == (double)0.1f);
    assert_false(clq_kv_get_f64(&kvs, "a", &f));
    assert_true(clq_kv_get_bool(&kvs, "f", &truth) && truth);
    assert_false(clq_kv_get_bool(&kvs, "a", &truth));
    assert_true(clq_kv_get_string(&kvs, "g", &s, &len) && len == 8 && memcmp(s, "with\0nul", 8) == 0);
    assert_true(clq_kv_get_string(&kvs, "h", &s, &len) && len == 0);
    assert_false(clq_kv_get_string(&kvs, "a", &s, &len));
    char *copy = clq_kv_dup_string(&kvs, "h");
    assert_string_equal(copy, "");
    free(copy);
    assert_null(clq_kv_dup_string(&kvs, "a"));

    // Replaced where it stands, also by another type.
    clq_kv_set_string(&kvs, "c", "seven", 5);
    assert_int_equal(kvs.n, 8);
    assert_string_equal(kvs.items[2].key, "c");
    assert_int_equal(kvs.items[2].type, CLQ_GGUF_STRING);
    assert_int_equal(kvs.items[2].n_bytes, 13);
    // Removed from the begin, the middle and the end; the order stays.
    clq_kv_remove(&kvs, "a");
    clq_kv_remove(&kvs, "d");
    clq_kv_remove(&kvs, "h");
    clq_kv_remove(&kvs, "nothing");
    assert_int_equal(kvs.n, 5);
    static const char *const left[] = {"b", "c", "e", "f", "g"};
    for (int i = 0; i < 5; i++) assert_string_equal(kvs.items[i].key, left[i]);

    // Arrays.
    static const char *const words[] = {"one", "", "drei"};
    static const size_t lens[] = {3, 0, 4};
    static const int32_t ints[] = {-1, 0, INT32_MAX};
    static const float floats[] = {0.5f, -0.0f};
    clq_kv_set_strings(&kvs, "words", words, lens, 3);
    clq_kv_set_i32s(&kvs, "ints", ints, 3);
    clq_kv_set_f32s(&kvs, "floats", floats, 2);
    clq_kv_set_strings(&kvs, "none", NULL, NULL, 0);
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *p;
    assert_true(clq_kv_get_array(&kvs, "words", &element, &n, &p) && element == CLQ_GGUF_STRING && n == 3);
    for (int i = 0; i < 3; i++) {
        clq_kv_next_string(&p, &s, &len);
        assert_int_equal(len, lens[i]);
        assert_memory_equal(s, words[i], len);
    }
    assert_true(clq_kv_get_array(&kvs, "ints", &element, &n, &p) && element == CLQ_GGUF_I32 && n == 3);
    assert_memory_equal(p, ints, sizeof ints);
    assert_true(clq_kv_get_array(&kvs, "floats", &element, &n, &p) && element == CLQ_GGUF_F32 && n == 2);
    assert_memory_equal(p, floats, sizeof floats);
    assert_true(clq_kv_get_array(&kvs, "none", &element, &n, &p) && n == 0);
    assert_false(clq_kv_get_array(&kvs, "b", &element, &n, &p));
    for (int i = 0; i < 500; i++) { // beyond the first capacity
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        clq_kv_set_u32(&kvs, key, (uint32_t)i);
    }
    assert_true(clq_kv_get_u64(&kvs, "k499", &u) && u == 499);
    assert_true(clq_kv_get_array(&kvs, "words", &element, &n, &p));
    assert_false(kvs.failed);
    clq_kvs_free(&kvs);
    assert_int_equal(kvs.n, 0);
}

// ---- GGUF files --------------------------------------------------------------------------------

static void put_string(clq_buf *b, const char *s)
{
    clq_buf_u64(b, strlen(s));
    clq_buf_text(b, s);
}

static void put_scalar(clq_buf *b, const char *key, clq_gguf_type type, const void *bytes, size_t n)
{
    put_string(b, key);
    clq_buf_u32(b, type);
    clq_buf_append(b, bytes, n);
}

static void put_info(clq_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                     uint64_t offset)
{
    put_string(b, name);
    clq_buf_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) clq_buf_u64(b, dims[i]);
    clq_buf_u32(b, type);
    clq_buf_u64(b, offset);
}

static void put_head(clq_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kvs)
{
    clq_buf_text(b, "GGUF");
    clq_buf_u32(b, version);
    clq_buf_u64(b, n_tensors);
    clq_buf_u64(b, n_kvs);
}

// Every kind of value, nested arrays among them; the number of entries.
static uint64_t put_all_kinds(clq_buf *b)
{
    static const uint8_t bytes[8] = {0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x08};
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t n = 0;
    for (int t = 0; t < CLQ_GGUF_TYPE_COUNT; t++) {
        char key[32];
        snprintf(key, sizeof key, "kind.%d", t);
        if (sizes[t]) {
            put_scalar(b, key, (clq_gguf_type)t, bytes, sizes[t]);
            n++;
        }
    }
    put_string(b, "general.architecture");
    clq_buf_u32(b, CLQ_GGUF_STRING);
    put_string(b, "llama");
    put_string(b, "empty.string");
    clq_buf_u32(b, CLQ_GGUF_STRING);
    put_string(b, "");
    put_string(b, "array.of.none");
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    clq_buf_u32(b, CLQ_GGUF_STRING);
    clq_buf_u64(b, 0);
    put_string(b, "array.of.arrays"); // [["a", "bc"], [], [[u8 1, 2]]]
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    clq_buf_u64(b, 3);
    clq_buf_u32(b, CLQ_GGUF_STRING);
    clq_buf_u64(b, 2);
    put_string(b, "a");
    put_string(b, "bc");
    clq_buf_u32(b, CLQ_GGUF_F64);
    clq_buf_u64(b, 0);
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    clq_buf_u64(b, 1);
    clq_buf_u32(b, CLQ_GGUF_U8);
    clq_buf_u64(b, 2);
    clq_buf_append(b, "\1\2", 2);
    return n + 4;
}

static void pad_to(clq_buf *b, size_t alignment) { clq_buf_zeros(b, (alignment - b->len % alignment) % alignment); }

// Two tensors: [3, 32] q8_0 and [5] f32.
static void sample_gguf(clq_buf *b, uint32_t alignment)
{
    clq_buf kvs = {0};
    uint64_t n_kvs = put_all_kinds(&kvs);
    if (alignment != 32) {
        uint8_t le[4] = {(uint8_t)alignment, (uint8_t)(alignment >> 8), (uint8_t)(alignment >> 16), 0};
        put_scalar(&kvs, "general.alignment", CLQ_GGUF_U32, le, 4);
        n_kvs++;
    }
    put_head(b, 3, 2, n_kvs);
    clq_buf_append(b, kvs.data, kvs.len);
    clq_buf_free(&kvs);
    static const uint64_t matrix[] = {32, 3}, vector[] = {5};
    uint64_t second = (3 * 34 + (uint64_t)alignment - 1) / alignment * alignment;
    put_info(b, "blk.0.a.weight", 2, matrix, 8, 0);
    put_info(b, "b", 1, vector, 0, second);
    pad_to(b, alignment);
    size_t data = b->len;
    for (int i = 0; i < 3 * 34; i++) clq_buf_append(b, i % 34 == 0 ? "\x00" : i % 34 == 1 ? "\x3c" : "\x05", 1);
    clq_buf_zeros(b, data + second - b->len);
    for (int i = 0; i < 5; i++) {
        float v = (float)i + 0.25f;
        clq_buf_append(b, &v, 4);
    }
    assert_false(b->failed);
}

static void check_sample(const clq_source *s, const clq_buf *file)
{
    clq_error err;
    assert_int_equal(s->container, CLQ_GGUF);
    assert_string_equal(clq_source_architecture(s), "llama");
    assert_int_equal(clq_source_count(s), 2);
    clq_tensor_info info;
    assert_int_equal(clq_source_tensor(s, 0, &info, &err), CLQ_OK);
    assert_string_equal(info.name, "blk.0.a.weight");
    assert_string_equal(info.type, "q8_0");
    assert_true(info.n_dims == 2 && info.dims[0] == 3 && info.dims[1] == 32 && info.n_bytes == 102);
    assert_int_equal(clq_source_tensor(s, 2, &info, &err), CLQ_USAGE);
    float y[96];
    assert_int_equal(clq_source_rows(s, 0, 1, 2, y, &err), CLQ_OK);
    for (int i = 0; i < 64; i++) assert_true(y[i] == 5.0f); // d = 1
    assert_int_equal(clq_source_rows(s, 1, 0, 1, y, &err), CLQ_OK);
    for (int i = 0; i < 5; i++) assert_true(y[i] == (float)i + 0.25f);
    assert_int_equal(clq_source_rows(s, 0, 2, 2, y, &err), CLQ_USAGE);
    assert_int_equal(clq_source_rows(s, 0, UINT64_MAX, 2, y, &err), CLQ_USAGE);
    assert_int_equal(clq_source_rows(s, 9, 0, 0, y, &err), CLQ_USAGE);
    // Written again from what was read: the same header.
    clq_gguf_tensor tensors[2];
    uint64_t data = s->tensors[0].codes.offset;
    for (int i = 0; i < 2; i++) {
        const clq_tensor *t = &s->tensors[i];
        tensors[i] = (clq_gguf_tensor){.name = t->name,
                                       .ggml_type = (uint32_t)clq_format_at(t->type.format)->ggml_type,
                                       .n_dims = t->n_dims,
                                       .offset = t->codes.offset - data};
        memcpy(tensors[i].dims, t->dims, sizeof tensors[i].dims);
    }
    clq_buf again = {0};
    clq_gguf_write_header(&again, &s->kvs, tensors, 2, s->alignment);
    assert_false(again.failed);
    assert_int_equal(again.len, data);
    assert_memory_equal(again.data, file->data, data);
    clq_buf_free(&again);
}

static void test_gguf_round_trip(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {32, 1, 2, 8, 64, 4096, 65536};
    char dir[256], path[256];
    new_folder(dir, "gguf");
    make_path(path, dir, "x"); // the name says nothing: the content decides
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        clq_buf file = {0};
        sample_gguf(&file, alignments[i]);
        write_bytes(dir, "x", file.data, file.len);
        clq_source *s = must_open(path, NULL);
        assert_int_equal(s->alignment, alignments[i]);
        check_sample(s, &file);
        // The same without a mapping: read in pieces, decoded from copies.
        munmap((void *)s->files[0].map, s->files[0].size);
        s->files[0].map = NULL;
        check_sample(s, &file);
        clq_source_close(s);
        s = calloc(1, sizeof *s);
        s->path = strdup(path);
        s->files = calloc(1, sizeof *s->files);
        clq_error err;
        assert_int_equal(clq_file_open(path, &s->files[0], &err), CLQ_OK);
        s->n_files = 1;
        munmap((void *)s->files[0].map, s->files[0].size);
        s->files[0].map = NULL;
        if (clq_gguf_open(s, NULL, &err) != CLQ_OK) fail_msg("%s", err.text);
        check_sample(s, &file);
        clq_source_close(s);
        clq_buf_free(&file);
    }
}

// Cut anywhere: refused, whatever is missing.
static void test_gguf_truncated(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "gguf");
    make_path(path, dir, "cut.gguf");
    clq_buf file = {0};
    sample_gguf(&file, 32);
    for (size_t n = 0; n < file.len; n++) {
        write_bytes(dir, "cut.gguf", file.data, n);
        must_refuse(path, "cut.gguf");
    }
    clq_buf_free(&file);
}

typedef void (*maker)(clq_buf *b);

static void bad_magic(clq_buf *b)
{
    clq_buf_text(b, "GGUX");
    clq_buf_zeros(b, 60);
}
static void old_version(clq_buf *b)
{
    put_head(b, 1, 0, 0);
    clq_buf_zeros(b, 8);
}
static void new_version(clq_buf *b)
{
    put_head(b, 4, 0, 0);
    clq_buf_zeros(b, 8);
}
static void big_endian(clq_buf *b)
{
    put_head(b, 3u << 24, 0, 0);
    clq_buf_zeros(b, 8);
}
static void many_tensors(clq_buf *b)
{
    put_head(b, 3, UINT64_MAX, 0);
    clq_buf_zeros(b, 64);
}
static void many_kvs(clq_buf *b)
{
    put_head(b, 3, 0, UINT64_MAX / 13);
    clq_buf_zeros(b, 64);
}
static void signed_count(clq_buf *b)
{
    put_head(b, 3, 1ull << 63, 1ull << 63);
    clq_buf_zeros(b, 64);
}
static void long_key(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    clq_buf_u64(b, UINT64_MAX - 7);
    clq_buf_zeros(b, 64);
}
static void no_key(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    put_string(b, "");
    clq_buf_u32(b, 0);
    clq_buf_zeros(b, 64);
}
static void nul_key(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    clq_buf_u64(b, 3);
    clq_buf_append(b, "a\0b", 3);
    clq_buf_zeros(b, 64);
}
static void twice_key(clq_buf *b)
{
    put_head(b, 3, 0, 2);
    for (int i = 0; i < 2; i++) put_scalar(b, "k", CLQ_GGUF_U8, "\1", 1);
    clq_buf_zeros(b, 64);
}
static void unknown_kind(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    put_scalar(b, "k", (clq_gguf_type)13, "\1", 1);
    clq_buf_zeros(b, 64);
}
static void long_array(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    put_string(b, "k");
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    clq_buf_u32(b, CLQ_GGUF_U64);
    clq_buf_u64(b, 1ull << 61); // times 8 is 2^64
    clq_buf_zeros(b, 64);
}
static void deep_array(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    put_string(b, "k");
    clq_buf_u32(b, CLQ_GGUF_ARRAY);
    for (int i = 0; i < 100; i++) {
        clq_buf_u32(b, CLQ_GGUF_ARRAY);
        clq_buf_u64(b, 1);
    }
    clq_buf_zeros(b, 64);
}
static void alignment_of(clq_buf *b, clq_gguf_type type, uint32_t v)
{
    put_head(b, 3, 0, 1);
    uint8_t le[8] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    put_scalar(b, "general.alignment", type, le, type == CLQ_GGUF_U64 ? 8 : 4);
    clq_buf_zeros(b, 128);
}
static void alignment_0(clq_buf *b) { alignment_of(b, CLQ_GGUF_U32, 0); }
static void alignment_3(clq_buf *b) { alignment_of(b, CLQ_GGUF_U32, 3); }
static void alignment_large(clq_buf *b) { alignment_of(b, CLQ_GGUF_U32, 1u << 31); }
static void alignment_u64(clq_buf *b) { alignment_of(b, CLQ_GGUF_U64, 64); }

static void one_tensor(clq_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                       uint64_t offset)
{
    put_head(b, 3, 1, 0);
    put_info(b, name, n_dims, dims, type, offset);
    clq_buf_zeros(b, 1024);
}
#define DIMS(...) ((const uint64_t[]){__VA_ARGS__})
static void five_dims(clq_buf *b) { one_tensor(b, "t", 5, DIMS(1, 1, 1, 1, 1), 0, 0); }
static void zero_dim(clq_buf *b) { one_tensor(b, "t", 2, DIMS(4, 0), 0, 0); }
static void huge_product(clq_buf *b) { one_tensor(b, "t", 4, DIMS(1u << 20, 1u << 20, 1u << 20, 1u << 20), 0, 0); }
static void huge_bytes(clq_buf *b) { one_tensor(b, "t", 2, DIMS(1ull << 30, 1ull << 30), 0, 0); }
static void wrapping_bytes(clq_buf *b) { one_tensor(b, "t", 1, DIMS(1ull << 62), 0, 0); }
static void wrapping_end(clq_buf *b) { one_tensor(b, "t", 1, DIMS(8), 0, UINT64_MAX - 31); }
static void past_end(clq_buf *b) { one_tensor(b, "t", 1, DIMS(1024), 0, 0); }
static void unaligned(clq_buf *b) { one_tensor(b, "t", 1, DIMS(4), 0, 16); }
static void unknown_type(clq_buf *b) { one_tensor(b, "t", 1, DIMS(4), 4, 0); }
static void part_block(clq_buf *b) { one_tensor(b, "t", 2, DIMS(48, 2), 8, 0); }
static void no_name(clq_buf *b) { one_tensor(b, "", 1, DIMS(4), 0, 0); }
static void overlap(clq_buf *b)
{
    put_head(b, 3, 2, 0);
    put_info(b, "a", 1, DIMS(16), 0, 0);
    put_info(b, "b", 1, DIMS(16), 0, 32);
    clq_buf_zeros(b, 1024);
}
static void twice_name(clq_buf *b)
{
    put_head(b, 3, 2, 0);
    put_info(b, "a", 1, DIMS(8), 0, 0);
    put_info(b, "a", 1, DIMS(8), 0, 32);
    clq_buf_zeros(b, 1024);
}
static void split_alone(clq_buf *b)
{
    put_head(b, 3, 0, 1);
    put_scalar(b, "split.count", CLQ_GGUF_U16, "\3\0", 2);
    clq_buf_zeros(b, 64);
}

static void test_gguf_broken(void **state)
{
    (void)state;
    static const struct {
        maker make;
        const char *says;
    } cases[] = {
        {bad_magic, "header"},
        {old_version, "version 1"},
        {new_version, "version 4"},
        {big_endian, "big-endian"},
        {many_tensors, "more tensors"},
        {many_kvs, "more metadata"},
        {signed_count, "more metadata"},
        {long_key, "key"},
        {no_key, "key"},
        {nul_key, "NUL"},
        {twice_key, "twice"},
        {unknown_kind, "unknown type"},
        {long_array, "truncated"},
        {deep_array, "truncated"},
        {alignment_0, "alignment"},
        {alignment_3, "alignment"},
        {alignment_large, "alignment"},
        {alignment_u64, "alignment"},
        {five_dims, "5 dimensions"},
        {zero_dim, "dimension of 0"},
        {huge_product, "2^64"},
        {huge_bytes, "past the file"},
        {wrapping_bytes, "t"},
        {wrapping_end, "past the file"},
        {past_end, "past the file"},
        {unaligned, "alignment"},
        {unknown_type, "ggml type 4"},
        {part_block, "whole"},
        {no_name, "name"},
        {overlap, "overlap"},
        {twice_name, "twice"},
        {split_alone, "parts"},
    };
    char dir[256], path[256];
    new_folder(dir, "gguf");
    make_path(path, dir, "bad.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clq_buf file = {0};
        cases[i].make(&file);
        write_bytes(dir, "bad.gguf", file.data, file.len);
        must_refuse(path, cases[i].says);
        clq_buf_free(&file);
    }
}

static void write_part(const char *dir, uint32_t no, uint32_t count, uint32_t stored_no, uint32_t tensors_count)
{
    clq_buf b = {0};
    put_head(&b, 3, 1, no == 1 ? 4 : 3);
    uint8_t le[4] = {(uint8_t)stored_no}, of[4] = {(uint8_t)count}, total[4] = {(uint8_t)tensors_count};
    put_scalar(&b, "split.no", CLQ_GGUF_U16, le, 2);
    put_scalar(&b, "split.count", CLQ_GGUF_U16, of, 2);
    put_scalar(&b, "split.tensors.count", CLQ_GGUF_I32, total, 4);
    if (no == 1) {
        put_string(&b, "general.architecture");
        clq_buf_u32(&b, CLQ_GGUF_STRING);
        put_string(&b, "gpt2");
    }
    char name[64];
    snprintf(name, sizeof name, "t%u", no);
    put_info(&b, name, 1, DIMS(2), 0, 0);
    pad_to(&b, 32);
    float v[8] = {(float)no, (float)no * 2};
    clq_buf_append(&b, v, sizeof v);
    snprintf(name, sizeof name, "m-%05u-of-%05u.gguf", no, count);
    write_bytes(dir, name, b.data, b.len);
    clq_buf_free(&b);
}

static void test_gguf_split(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "split");
    for (uint32_t i = 1; i <= 3; i++) write_part(dir, i, 3, i - 1, 3);
    for (int from = 1; from <= 3; from++) { // any part opens all
        char name[32];
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", from);
        make_path(path, dir, name);
        clq_source *s = must_open(path, NULL);
        assert_string_equal(clq_source_architecture(s), "gpt2");
        assert_int_equal(clq_source_count(s), 3);
        for (uint32_t i = 0; i < 3; i++) {
            float y[2];
            clq_error err;
            assert_int_equal(clq_source_rows(s, i, 0, 1, y, &err), CLQ_OK);
            assert_true(y[0] == (float)(i + 1) && y[1] == (float)(2 * i + 2));
        }
        clq_source_close(s);
    }
    write_part(dir, 2, 3, 2, 3); // says that it is the third
    must_refuse(path, "split.no");
    write_part(dir, 2, 3, 1, 3);
    write_part(dir, 1, 3, 0, 4); // there should be 4 tensors
    must_refuse(path, "split.tensors.count");
    write_part(dir, 1, 3, 0, 3);
    make_path(path, dir, "m-00002-of-00003.gguf");
    assert_int_equal(unlink(path), 0);
    make_path(path, dir, "m-00001-of-00003.gguf");
    must_refuse(path, "m-00002-of-00003.gguf");
}

// ---- safetensors -------------------------------------------------------------------------------

// header_len: 0 for the text's own.
static void write_st(const char *dir, const char *name, const char *header, uint64_t header_len, size_t n_data)
{
    clq_buf b = {0};
    clq_buf_u64(&b, header_len ? header_len : strlen(header));
    clq_buf_text(&b, header);
    for (size_t i = 0; i < n_data; i++) clq_buf_append(&b, &(uint8_t){(uint8_t)(i & 0x3f)}, 1);
    write_bytes(dir, name, b.data, b.len);
    clq_buf_free(&b);
}

#define ENTRY(name, dtype, shape, begin, end)                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void test_safetensors(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "st");
    make_path(path, dir, "x");
    // Not in order, an empty tensor, a scalar, metadata, padding behind the header.
    write_st(dir, "x",
             "{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("b", "F16", "[2,3]", 4, 16) "," ENTRY(
                 "empty", "F32", "[0,7]", 4, 4) "," ENTRY("scalar", "F32", "[]", 0, 4) "}      ",
             0, 16);
    clq_source *s = must_open(path, NULL);
    assert_int_equal(clq_source_container(s), CLQ_SAFETENSORS);
    assert_int_equal(clq_source_count(s), 3);
    assert_non_null(s->st_metadata);
    const clq_tensor *t = clq_source_find(s, "b");
    assert_non_null(t);
    assert_true(t->n_dims == 2 && t->dims[0] == 2 && t->dims[1] == 3 && t->n_elements == 6 && t->codes.n_bytes == 12);
    assert_null(clq_source_find(s, "a"));
    assert_int_equal(clq_source_find(s, "empty")->n_elements, 0);
    assert_int_equal(clq_source_find(s, "scalar")->n_elements, 1);
    float y[6];
    clq_error err;
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(clq_source_rows(s, i, 0, s->tensors[i].n_dims > 1 ? s->tensors[i].dims[0] : 1, y, &err),
                         CLQ_OK);
    clq_source_close(s);
    // No tensor at all is a valid file.
    write_st(dir, "x", "{}", 0, 0);
    s = must_open(path, NULL);
    assert_int_equal(clq_source_count(s), 0);
    clq_source_close(s);

    static const struct {
        const char *header;
        uint64_t header_len;
        size_t n_data;
        const char *says;
    } bad[] = {
        {"{}", 1, 0, "header of 1 bytes"},
        {"{}", 3, 0, "truncated"},
        {"{}", UINT64_MAX, 0, "truncated"},
        {"{}", UINT64_MAX - 7, 0, "truncated"},
        {"[]", 0, 0, "not a JSON object"},
        {"{", 0, 0, "header of 1 bytes"},
        {"{ ", 0, 0, "JSON"},
        {"\"x\"", 0, 0, "JSON"},
        {"{\"a\":1}", 0, 0, "needs a dtype"},
        {"{\"a\":{}}", 0, 0, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.0,4.0]}}", 0, 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 0, 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 0, 4, "shape"},
        {"{" ENTRY("a", "F32", "[1]", 4, 0) "}", 0, 4, "backwards"},
        {"{" ENTRY("a", "F32", "[2]", 0, 8) "}", 0, 4, "truncated"},
        {"{" ENTRY("a", "F32", "[2]", 0, 4) "}", 0, 4, "do not need"},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, 0, "2^64"},
        {"{" ENTRY("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, 0, "do not need"},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 0, 4, "8 dimensions"},
        {"{" ENTRY("a", "Q99", "[1]", 0, 4) "}", 0, 4, "unknown dtype"},
        {"{" ENTRY("a", "f32", "[1]", 0, 4) "}", 0, 4, "unknown dtype"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("a", "F32", "[1]", 4, 8) "}", 0, 8, "duplicate"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 0, 4) "}", 0, 4, "share"},
        {"{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "F32", "[1]", 4, 8) "}", 0, 8, "share"},
        {"{" ENTRY("a", "F32", "[1]", 4, 8) "}", 0, 8, "belong to no tensor"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 8, 12) "}", 0, 12, "belong to no tensor"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "}", 0, 5, "belong to none"},
        {"{" ENTRY("a", "F32", "[1]", 0, 99999999999999999999) "}", 0, 4, "JSON"},
        {"{" ENTRY("x\\u0000y", "F32", "[1]", 0, 4) "}", 0, 4, "JSON"},
        {"{" ENTRY("\xff", "F32", "[1]", 0, 4) "}", 0, 4, "JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_st(dir, "x", bad[i].header, bad[i].header_len, bad[i].n_data);
        must_refuse(path, bad[i].says);
    }
    write_text(dir, "x", "seven b");
    must_refuse(path, "7 bytes");
    write_text(dir, "x", "");
    must_refuse(path, "0 bytes");
    must_refuse("/nonexistent/x", "cannot open");
    // Deep nesting must not use up the stack.
    clq_buf deep = {0};
    for (int i = 0; i < 200000; i++) clq_buf_text(&deep, "[");
    clq_buf_append(&deep, "", 1);
    write_st(dir, "x", deep.data, 0, 0);
    clq_buf_free(&deep);
    must_refuse(path, "JSON");
}

// ---- folders -----------------------------------------------------------------------------------

static const char one_a[] = "{" ENTRY("a", "F32", "[1]", 0, 4) "}", one_b[] = "{" ENTRY("b", "F32", "[1]", 0, 4) "}";

static void opens_with(const char *dir, const char *tensors, int n_warnings)
{
    warnings w = {0};
    clq_hooks hooks = {.user = &w, .warn = count_warning};
    clq_source *s = must_open(dir, &hooks);
    assert_int_equal(clq_source_container(s), CLQ_HF_FOLDER);
    assert_int_equal(clq_source_count(s), strlen(tensors));
    for (const char *c = tensors; *c; c++) assert_non_null(clq_source_find(s, (char[]){*c, '\0'}));
    if (w.n != n_warnings) fail_msg("%d warnings, the last: %s", w.n, w.last);
    clq_source_close(s);
}

static void test_shards(void **state)
{
    (void)state;
    char dir[256], sub[256];
    new_folder(dir, "hf");
    must_refuse(dir, "no .safetensors");
    make_path(sub, dir, "sub");
    assert_int_equal(mkdir(sub, 0700), 0);
    write_st(sub, "model.safetensors", one_a, 0, 4); // a folder below does not count
    must_refuse(dir, "no .safetensors");
    write_st(dir, "any.safetensors", one_a, 0, 4);
    opens_with(dir, "a", 0);
    write_st(dir, "other.safetensors", one_b, 0, 4); // two, and nothing says which
    must_refuse(dir, "2 .safetensors");
    write_st(dir, "model.safetensors", one_b, 0, 4);
    opens_with(dir, "b", 2); // the others are ignored, and told

    // An index wins over model.safetensors.
    static const char index[] = "model.safetensors.index.json";
    write_st(dir, "s1.safetensors", one_a, 0, 4);
    write_st(dir, "s2.safetensors", one_b, 0, 4);
    write_text(dir, index,
               "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}");
    opens_with(dir, "ab", 3);
    write_text(dir, index, "{\"weight_map\":{\"a\":\"s1.safetensors\"}}");
    opens_with(dir, "a", 4);

    static const struct {
        const char *index, *says;
    } bad[] = {
        {"{", "JSON"},
        {"[]", "JSON"},
        {"{}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{\"weight_map\":{\"a\":5}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"../hf/s1.safetensors\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"sub/model.safetensors\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"gone.safetensors\",\"b\":\"s2.safetensors\"}}", "gone.safetensors"},
        {"{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s2.safetensors\"}}", "does not hold tensor 'a'"},
        {"{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}}", "does not hold tensor"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\"}}", "does not hold tensor 'c'"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s2.safetensors\"}}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(dir, index, bad[i].index);
        must_refuse(dir, bad[i].says);
    }
    // The same tensor in both shards.
    write_st(dir, "s2.safetensors", "{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 4, 8) "}", 0, 8);
    write_text(dir, index, "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}");
    must_refuse(dir, "twice");
    // More tensors in a shard than the index names: kept, and told.
    write_st(dir, "s2.safetensors", "{" ENTRY("b", "F32", "[1]", 0, 4) "," ENTRY("c", "F32", "[1]", 4, 8) "}", 0, 8);
    opens_with(dir, "abc", 4);

    // config.json: broken ones are refused, the architecture comes from it.
    write_text(dir, "config.json", "{\"model_type\":\"bert\"");
    must_refuse(dir, "config.json");
    write_text(dir, "config.json", "{\"architectures\":[\"XModel\"],\"model_type\":\"bert\"}");
    write_text(dir, "tokenizer.json", "{}");
    write_text(dir, "pytorch_model.bin", "x");
    write_text(sub, "config.json", "{}");
    clq_source *s = must_open(dir, NULL);
    assert_string_equal(clq_source_architecture(s), "bert");
    assert_int_equal(s->n_extra_files, 2); // carried along: neither weights nor config.json
    assert_string_equal(s->extra_files[0], "sub/config.json");
    assert_string_equal(s->extra_files[1], "tokenizer.json");
    clq_source_close(s);
}

// ---- output ------------------------------------------------------------------------------------

static clq_output *must_create(const char *path, bool folder, const clq_output_file *files, uint32_t n,
                               uint64_t fingerprint, bool resume)
{
    clq_output *o;
    clq_error err;
    if (clq_output_open(path, folder, files, n, fingerprint, resume, &o, &err) != CLQ_OK) fail_msg("%s", err.text);
    return o;
}

static void cannot_create(const char *path, bool folder, const clq_output_file *files, uint32_t n, uint64_t fingerprint,
                          bool resume, clq_status status, const char *says)
{
    clq_output *o = (clq_output *)1;
    clq_error err = {0};
    assert_int_equal(clq_output_open(path, folder, files, n, fingerprint, resume, &o, &err), status);
    assert_null(o);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

static void put(clq_output *o, uint32_t file, uint64_t offset, const char *text)
{
    clq_error err;
    if (clq_output_write(o, file, offset, text, strlen(text), &err) != CLQ_OK) fail_msg("%s", err.text);
}

static void finish(clq_output *o)
{
    clq_error err;
    if (clq_output_sync(o, &err) != CLQ_OK || clq_output_commit(o, &err) != CLQ_OK) fail_msg("%s", err.text);
    clq_output_close(o, false);
}

static void test_output_file(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "out");
    make_path(path, dir, "m.gguf");
    clq_output_file file = {.name = "", .n_bytes = 10};
    clq_error err;
    clq_output *o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 5, "56789");                                                     // in any order
    assert_int_equal(clq_output_write(o, 0, 6, "56789", 5, &err), CLQ_OUTPUT); // past the planned end
    assert_int_equal(clq_output_write(o, 0, UINT64_MAX, "56789", 5, &err), CLQ_OUTPUT);
    put(o, 0, 0, "01234");
    clq_file reopened;
    assert_int_equal(clq_output_reopen(o, 0, &reopened, &err), CLQ_OK);
    char bytes[10];
    assert_int_equal(clq_file_read(&reopened, 0, bytes, 10, &err), CLQ_OK);
    assert_memory_equal(bytes, "0123456789", 10);
    clq_file_close(&reopened);
    assert_int_equal(access(path, F_OK), -1); // not there before the commit
    finish(o);
    file_holds(dir, "m.gguf", "0123456789");
    assert_int_equal(n_entries(dir), 1);

    // Given up: nothing is left, the earlier output is as it was.
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "xxxxx");
    assert_int_equal(n_entries(dir), 3); // partial file and journal
    clq_output_close(o, false);
    assert_int_equal(n_entries(dir), 1);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    file_holds(dir, "m.gguf", "0123456789");

    // Replaced by one rename; a file that was not written to its end has its planned size.
    file.n_bytes = 4;
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "ab");
    finish(o);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_ino != before.st_ino && after.st_size == 4);
    assert_int_equal(n_entries(dir), 1);

    // One writer at a time.
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "mine");
    cannot_create(path, false, &file, 1, 1, false, CLQ_OUTPUT, "another process");
    cannot_create(path, false, &file, 1, 1, true, CLQ_OUTPUT, "another process");
    finish(o);
    file_holds(dir, "m.gguf", "mine");

    // Refused before anything is written.
    char where[256];
    make_path(where, dir, "none/m.gguf");
    cannot_create(where, false, &file, 1, 1, false, CLQ_OUTPUT, "no folder");
    make_path(where, dir, "m.gguf/m.gguf");
    cannot_create(where, false, &file, 1, 1, false, CLQ_OUTPUT, "m.gguf");
    cannot_create(dir, false, &file, 1, 1, false, CLQ_OUTPUT, "is a folder");
    cannot_create("..", false, &file, 1, 1, false, CLQ_OUTPUT, "name of its own");
    cannot_create("/", false, &file, 1, 1, false, CLQ_OUTPUT, "name of its own");
    cannot_create("/dev/null", false, &file, 1, 1, false, CLQ_OUTPUT, "regular");
    cannot_create(path, true, &file, 1, 1, false, CLQ_OUTPUT, "not a folder");
    file.n_bytes = 1ull << 60;
    cannot_create(path, false, &file, 1, 1, false, CLQ_OUTPUT, "free");
    clq_output_file two[] = {{.name = "", .n_bytes = UINT64_MAX}, {.name = "", .n_bytes = 2}};
    cannot_create(path, false, two, 2, 1, false, CLQ_OUTPUT, "too large");
    assert_int_equal(n_entries(dir), 1);
    file_holds(dir, "m.gguf", "mine");
}

static void test_output_folder(void **state)
{
    (void)state;
    char dir[256], path[256], with_slash[256];
    new_folder(dir, "out");
    make_path(path, dir, "model");
    make_path(with_slash, dir, "model/");
    clq_output_file files[] = {{.name = "config.json", .n_bytes = 2},
                               {.name = "1_Pooling/config.json", .n_bytes = 2},
                               {.name = "model.safetensors", .n_bytes = 3}};
    clq_output *o = must_create(with_slash, true, files, 3, 1, false);
    put(o, 0, 0, "{}");
    put(o, 1, 0, "[]");
    put(o, 2, 0, "abc");
    assert_int_equal(access(path, F_OK), -1);
    finish(o);
    file_holds(path, "config.json", "{}");
    file_holds(path, "1_Pooling/config.json", "[]");
    file_holds(path, "model.safetensors", "abc");
    assert_int_equal(n_entries(dir), 1);
    assert_int_equal(n_entries(path), 3);

    // An earlier output is replaced as a whole: what only it had is gone.
    o = must_create(path, true, files, 2, 1, false);
    put(o, 0, 0, "12");
    file_holds(path, "model.safetensors", "abc");
    clq_output_close(o, false);
    file_holds(path, "config.json", "{}"); // given up: untouched
    assert_int_equal(n_entries(dir), 1);
    // Anything else in it, and it is not.
    write_text(path, "thesis.tex", "years of work");
    cannot_create(path, true, files, 3, 1, false, CLQ_OUTPUT, "thesis.tex");
    file_holds(path, "thesis.tex", "years of work");
    make_path(with_slash, path, "thesis.tex");
    assert_int_equal(unlink(with_slash), 0);
    files[2] = (clq_output_file){.name = "model-00001-of-00001.safetensors", .n_bytes = 1};
    o = must_create(path, true, files, 3, 1, false);
    put(o, 2, 0, "z");
    finish(o);
    assert_int_equal(n_entries(path), 3);
    file_holds(path, "model-00001-of-00001.safetensors", "z");
    make_path(with_slash, path, "model.safetensors");
    assert_int_equal(access(with_slash, F_OK), -1);
    assert_int_equal(n_entries(dir), 1);
    // An empty folder may be taken.
    new_folder(path, "out/empty");
    o = must_create(path, true, files, 1, 1, false);
    put(o, 0, 0, "ok");
    finish(o);
    file_holds(path, "config.json", "ok");
}

static void record(clq_output *o, uint32_t tensor)
{
    clq_error err;
    clq_record r = {
        .tensor = tensor,
        .hash = 0x1111111111111111u * tensor,
        .stats = {
            .sum_x2 = tensor + 0.5, .sum_e2 = 0.25 * tensor, .max_error = 1.0 / (tensor + 1), .lost_groups = tensor}};
    assert_int_equal(clq_output_record(o, &r, &err), CLQ_OK);
}

static void has_records(const clq_output *o, uint32_t n)
{
    uint32_t got;
    const clq_record *r = clq_output_records(o, &got);
    assert_int_equal(got, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(r[i].tensor, i);
        assert_true(r[i].hash == 0x1111111111111111u * i && r[i].stats.sum_x2 == i + 0.5 &&
                    r[i].stats.sum_e2 == 0.25 * i && r[i].stats.max_error == 1.0 / (i + 1) &&
                    r[i].stats.lost_groups == i);
    }
}

static void test_resume(void **state)
{
    (void)state;
    char dir[256], path[256], journal[256];
    new_folder(dir, "out");
    make_path(path, dir, "m.gguf");
    make_path(journal, dir, ".m.gguf.clq-journal");
    clq_output_file file = {.name = "", .n_bytes = 8};
    // Nothing to resume: as a new run.
    clq_output *o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 0);
    put(o, 0, 0, "abcd");
    for (uint32_t i = 0; i < 3; i++) record(o, i);
    clq_output_close(o, true);
    assert_int_equal(n_entries(dir), 2);
    file_holds(dir, ".m.gguf.clq-partial", "abcd");

    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 3);
    record(o, 3);
    clq_output_close(o, true);
    // A torn last record: that one is lost, and what is appended then counts.
    struct stat sb;
    assert_int_equal(stat(journal, &sb), 0);
    off_t record_bytes = (sb.st_size - 24) / 4;
    assert_int_equal((sb.st_size - 24) % 4, 0);
    for (off_t cut = 1; cut < record_bytes; cut += 11) {
        assert_int_equal(truncate(journal, sb.st_size - cut), 0);
        o = must_create(path, false, &file, 1, 77, true);
        has_records(o, 3);
        record(o, 3);
        clq_output_close(o, true);
        o = must_create(path, false, &file, 1, 77, true);
        has_records(o, 4);
        clq_output_close(o, true);
    }
    // Garbage behind the records, as a crash of the machine leaves it.
    int fd = open(journal, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, (char[200]){0}, 200), 200);
    close(fd);
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 4);
    clq_output_close(o, true);
    // A damaged record: it and those behind it are not believed.
    fd = open(journal, O_WRONLY);
    assert_int_equal(pwrite(fd, "X", 1, 24 + record_bytes + 9), 1);
    close(fd);
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 1);
    put(o, 0, 4, "efgh");
    clq_output_close(o, true);

    // Other settings: refused, everything is kept.
    cannot_create(path, false, &file, 1, 78, true, CLQ_BAD_INPUT, "cannot resume");
    assert_int_equal(n_entries(dir), 2);
    file_holds(dir, ".m.gguf.clq-partial", "abcdefgh");
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 1);
    finish(o);
    file_holds(dir, "m.gguf", "abcdefgh");
    assert_int_equal(n_entries(dir), 1);

    // Not a journal.
    write_text(dir, ".m.gguf.clq-journal", "something else that is long enough");
    cannot_create(path, false, &file, 1, 77, true, CLQ_BAD_INPUT, "not a journal");
    file_holds(dir, ".m.gguf.clq-journal", "something else that is long enough");
    // Without resume the earlier partial data does not count.
    write_text(dir, ".m.gguf.clq-partial", "old partial data");
    o = must_create(path, false, &file, 1, 77, false);
    has_records(o, 0);
    put(o, 0, 0, "new");
    finish(o);
    make_path(path, dir, "m.gguf");
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_size, 8);
    assert_int_equal(n_entries(dir), 1);
}

static void test_output_is_input(void **state)
{
    (void)state;
    char dir[256], path[256], other[256];
    new_folder(dir, "same");
    write_text(dir, "a", "x");
    write_text(dir, "b", "y");
    make_path(path, dir, "a");
    clq_file file;
    clq_error err;
    assert_int_equal(clq_file_open(path, &file, &err), CLQ_OK);
    assert_true(clq_output_is_input(path, &file, 1));
    assert_true(clq_output_is_input(dir, &file, 1));
    make_path(other, dir, "./../same/a");
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "hard");
    assert_int_equal(link(path, other), 0);
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "soft");
    assert_int_equal(symlink("a", other), 0);
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "b");
    assert_false(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "none");
    assert_false(clq_output_is_input(other, &file, 1));
    assert_false(clq_output_is_input(path, &file, 0));
    assert_false(clq_output_is_input(root, &file, 1));
    clq_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_kvs),
        cmocka_unit_test(test_gguf_round_trip),
        cmocka_unit_test(test_gguf_truncated),
        cmocka_unit_test(test_gguf_broken),
        cmocka_unit_test(test_gguf_split),
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_output_file),
        cmocka_unit_test(test_output_folder),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_output_is_input),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

// SPDX-License-Identifier: MIT
// host/io: GGUF metadata, and the GGUF reader on files that are made here, whole and broken.
#define _XOPEN_SOURCE 700 // strdup
#include "file_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buffer.h"

// ---- metadata -----------------------------------------------------------------------------------


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

// ---- files --------------------------------------------------------------------------------------


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
        clq_source *s = open_source(path);
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
        clq_source *s = open_source(path);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvs),
        cmocka_unit_test(test_gguf_round_trip),
        cmocka_unit_test(test_gguf_truncated),
        cmocka_unit_test(test_gguf_broken),
        cmocka_unit_test(test_gguf_split),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

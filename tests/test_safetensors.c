// SPDX-License-Identifier: MIT
// host/io: the safetensors reader on files and folders that are made here, whole and broken.
#define _XOPEN_SOURCE 700
#include "file_fixture.h"

#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"

// ---- files --------------------------------------------------------------------------------------


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
    clq_source *s = open_source(path);
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
    s = open_source(path);
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

// ---- folders ------------------------------------------------------------------------------------


static const char one_a[] = "{" ENTRY("a", "F32", "[1]", 0, 4) "}", one_b[] = "{" ENTRY("b", "F32", "[1]", 0, 4) "}";

static void opens_with(const char *dir, const char *tensors, int n_warnings)
{
    warnings w = {0};
    clq_hooks hooks = {.user = &w, .warn = count_warning};
    clq_source *s = open_source_with(dir, &hooks);
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
    clq_source *s = open_source(dir);
    assert_string_equal(clq_source_architecture(s), "bert");
    assert_int_equal(s->n_extra_files, 2); // carried along: neither weights nor config.json
    assert_string_equal(s->extra_files[0], "sub/config.json");
    assert_string_equal(s->extra_files[1], "tokenizer.json");
    clq_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_shards),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

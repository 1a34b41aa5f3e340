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

// ---- activations ----

// A folder of an int8 weight "m.weight" with scales, a float matrix "f.weight" and a norm; `more`: entries behind them.
static void write_activations(const char *dir, const char *config, const char *more, const void *data, size_t n)
{
    clq_buf b = {0}, header = {0};
    clq_buf_text(&header, "{" ENTRY("m.weight", "I8", "[2,32]", 0, 64) ",");
    clq_buf_text(&header, ENTRY("m.weight_scale", "F32", "[2,1]", 64, 72) ",");
    clq_buf_text(&header, ENTRY("f.weight", "F16", "[2,2]", 72, 80) "," ENTRY("a_norm.weight", "F16", "[2]", 80, 84));
    clq_buf_printf(&header, "%s}", more);
    clq_buf_u64(&b, header.len);
    clq_buf_append(&b, header.data, header.len);
    clq_buf_zeros(&b, 84);
    clq_buf_append(&b, data, n);
    write_bytes(dir, "model.safetensors", b.data, b.len);
    clq_buf_free(&b);
    clq_buf_free(&header);
    write_text(dir, "config.json", config);
}

#define GROUP(targets, inputs)                                                                                         \
    "{\"targets\":" targets ",\"weights\":{\"num_bits\":8,\"strategy\":\"channel\"},\"input_activations\":" inputs     \
    "}"
#define CONFIG(groups, more) "{\"quantization_config\":{\"config_groups\":{" groups "}" more "}}"
#define LINEAR(inputs) CONFIG("\"g\":" GROUP("[\"Linear\"]", inputs), "")
#define STATIC_INPUTS                                                                                                  \
    "{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"tensor\",\"symmetric\":false,\"dynamic\":false}"
#define TOKEN_INPUTS "{\"strategy\":\"token\",\"dynamic\":true}"
#define SCALE ENTRY("m.input_scale", "F32", "[1]", 84, 88)
#define ZERO ENTRY("m.input_zero_point", "I8", "[1]", 88, 89)
#define ZERO2 ENTRY("m.input_zero_point", "I8", "[1]", 84, 85)

// What the weight m and the float matrix f get, and the one warning (NULL: none).
static void test_activation_settings(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        uint32_t m, f;
        const char *warns;
    } cases[] = {
        {"{}", CLQ_QUANT_STATIC, CLQ_QUANT_NONE, NULL}, // no settings: the tensors speak for themselves
        {LINEAR("null"), CLQ_QUANT_NONE, CLQ_QUANT_NONE, NULL},
        {LINEAR(TOKEN_INPUTS), CLQ_QUANT_TOKEN, CLQ_QUANT_TOKEN, NULL},
        {LINEAR("{\"type\":\"INT\",\"strategy\":\"TOKEN\",\"dynamic\":true,\"observer\":null}"), CLQ_QUANT_TOKEN,
         CLQ_QUANT_TOKEN, NULL},
        {LINEAR("{\"strategy\":\"tensor\",\"dynamic\":true,\"symmetric\":false}"), CLQ_QUANT_TENSOR, CLQ_QUANT_TENSOR,
         NULL},
        {LINEAR(STATIC_INPUTS), CLQ_QUANT_STATIC, CLQ_QUANT_NONE, NULL},
        {LINEAR("{}"), CLQ_QUANT_STATIC, CLQ_QUANT_NONE, NULL}, // what missing keys mean
        {LINEAR("{\"strategy\":\"token\",\"dynamic\":true,\"symmetric\":false}"), 0, 0, "zero-points for each token"},
        {LINEAR("{\"strategy\":\"tensor\",\"dynamic\":true}"), 0, 0, "without a zero-point"},
        {LINEAR("{\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true}"), 0, 0, "float activations"},
        {LINEAR("{\"num_bits\":4,\"strategy\":\"token\",\"dynamic\":true}"), 0, 0, "other than 8 bits"},
        {LINEAR("{\"num_bits\":\"8\"}"), 0, 0, "other than 8 bits"},
        {LINEAR("{\"strategy\":\"group\",\"group_size\":32,\"dynamic\":true}"), 0, 0, "activations in groups"},
        {LINEAR("{\"group_size\":32,\"dynamic\":true}"), 0, 0, "activations in groups"},
        {LINEAR("{\"strategy\":\"token\"}"), 0, 0, "measured beforehand"},
        {LINEAR("{\"strategy\":\"tensor_group\",\"dynamic\":\"local\"}"), 0, 0, "two stages"},
        {LINEAR("[]"), 0, 0, "another kind"},
        {LINEAR("null,\"output_activations\":{\"num_bits\":8}"), 0, 0, "outputs of products"},
        {CONFIG("\"W8A8\":[\"Linear\"]", ""), 0, 0, "a preset"},
        {CONFIG("", ",\"kv_cache_scheme\":{\"num_bits\":8}"), 0, 0, "cache of keys and values"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}}", 0, 0, "float8"},
        // Lists of what is left alone, and the order of targets.
        {CONFIG("\"g\":" GROUP("[\"Linear\"]", TOKEN_INPUTS), ",\"ignore\":[\"f\"]"), CLQ_QUANT_TOKEN, 0, NULL},
        {CONFIG("\"g\":" GROUP("[\"Linear\"]", TOKEN_INPUTS), ",\"ignore\":[\"re:.\"]"), 0, 0, NULL},
        {CONFIG("\"a\":" GROUP("[\"h\",\"Embedding\"]", "null") ",\"b\":" GROUP("[\"Linear\"]", TOKEN_INPUTS), ""),
         CLQ_QUANT_TOKEN, CLQ_QUANT_TOKEN, NULL},
        {CONFIG("\"a\":" GROUP("[\"lm_head\"]", TOKEN_INPUTS), ""), 0, 0, NULL},
        {CONFIG("\"a\":" GROUP("[\"re:m\"]", TOKEN_INPUTS) ",\"b\":" GROUP(
                    "[\"m\"]", STATIC_INPUTS) ",\"c\":" GROUP("[\"Linear\"]", "null"),
                ""),
         CLQ_QUANT_STATIC, 0, NULL},
    };
    const uint8_t data[] = {0, 0, 0x80, 0x3e, 0xf9}; // 0.25, -7
    char dir[256];
    new_folder(dir, "activations");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_activations(dir, cases[i].config, "," SCALE "," ZERO, data, sizeof data);
        warnings w = {0};
        clq_source *s = open_source_with(dir, &(clq_hooks){.user = &w, .warn = count_warning});
        if (w.n != (cases[i].warns != NULL) || (w.n && !strstr(w.last, cases[i].warns)))
            fail_msg("%s: %d warnings, %s", cases[i].config, w.n, w.last);
        const clq_activation *m = &clq_source_find(s, "m.weight")->activation;
        if (m->quant != cases[i].m) fail_msg("%s: %u", cases[i].config, m->quant);
        assert_int_equal(clq_source_find(s, "f.weight")->activation.quant, cases[i].f);
        assert_int_equal(clq_source_find(s, "a_norm.weight")->activation.quant, CLQ_QUANT_NONE);
        assert_int_equal(s->n_tensors, 3); // the scales are none of the tensors
        if (m->quant == CLQ_QUANT_STATIC) {
            assert_true(m->scale == 0.25f);
            bool symmetric = strstr(cases[i].config, "{}") && strstr(cases[i].config, "groups");
            assert_int_equal(m->zero_point, symmetric ? 0 : -7);
        }
        clq_source_close(s);
    }
}

// The scale and the zero-point of fixed activations, in every dtype and damaged.
static void test_activation_scales(void **state)
{
    (void)state;
    static const struct {
        const char *entries;
        uint8_t data[5];
        size_t n;
        const char *says; // NULL: opens, with
        float scale;
        int32_t zero_point;
    } cases[] = {
        {"," SCALE, {0, 0, 0x80, 0x3e}, 4, NULL, 0.25f, 0},
        {"," ENTRY("m.input_scale", "F16", "[]", 84, 86), {0, 0x34}, 2, NULL, 0.25f, 0},
        {"," ENTRY("m.input_scale", "BF16", "[1,1]", 84, 86), {0x80, 0x3e}, 2, NULL, 0.25f, 0},
        {"," SCALE "," ZERO, {0, 0, 0x80, 0x3e, 0x80}, 5, NULL, 0.25f, -128},
        {"", {0}, 0, "'m.input_scale' is missing", 0, 0},
        {"," ZERO2, {3}, 1, "'m.input_scale' is missing", 0, 0},
        {"," SCALE, {0}, 4, "'m.input_scale' is 0", 0, 0},
        {"," SCALE, {0, 0, 0x80, 0xbe}, 4, "'m.input_scale' is -0.25", 0, 0},
        {"," SCALE, {0, 0, 0x80, 0x7f}, 4, "'m.input_scale' is inf", 0, 0},
        {"," SCALE, {0, 0, 0xc0, 0x7f}, 4, "'m.input_scale' is nan", 0, 0},
        {"," ENTRY("m.input_scale", "F32", "[0]", 84, 84), {0}, 0, "'m.input_scale': the scale", 0, 0},
        {"," ENTRY("m.input_scale", "BF16", "[2]", 84, 88), {0}, 4, "'m.input_scale': the scale", 0, 0},
        {"," ENTRY("m.input_scale", "I8", "[1]", 84, 85), {1}, 1, "'m.input_scale': the scale", 0, 0},
        {"," SCALE "," ENTRY("m.input_zero_point", "U8", "[1]", 88, 89), {0, 0, 0x80, 0x3e, 1}, 5,
         "'m.input_zero_point': the zero-point", 0, 0},
        {"," SCALE "," ENTRY("m.input_zero_point", "I8", "[0]", 88, 88), {0, 0, 0x80, 0x3e}, 4,
         "'m.input_zero_point': the zero-point", 0, 0},
    };
    char dir[256];
    new_folder(dir, "activation_scales");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_activations(dir, LINEAR(STATIC_INPUTS), cases[i].entries, cases[i].data, cases[i].n);
        if (cases[i].says) {
            must_refuse(dir, cases[i].says);
            continue;
        }
        clq_source *s = open_source(dir);
        clq_tensor_info info;
        clq_error err;
        uint32_t index = (uint32_t)(clq_source_find(s, "m.weight") - s->tensors);
        assert_int_equal(clq_source_tensor(s, index, &info, &err), CLQ_OK);
        assert_int_equal(info.activation.kind, CLQ_ACTIVATIONS_STATIC);
        assert_true(info.activation.scale == cases[i].scale && info.activation.zero_point == cases[i].zero_point);
        assert_string_equal(clq_activations_name(info.activation.kind), "static");
        clq_source_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_activation_settings),
        cmocka_unit_test(test_activation_scales),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

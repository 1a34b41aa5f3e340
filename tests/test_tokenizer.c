// SPDX-License-Identifier: MIT
// host/model/tokenizer.c: ids that llama.cpp gives (golden/tokenizer.json), malformed metadata, chat templates.
#include "file_fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer.h"

static json_t *golden;

static void add_strings(clq_gguf_kvs *kvs, const char *key, const json_t *list)
{
    size_t n = json_array_size(list);
    const char **texts = calloc(n ? n : 1, sizeof *texts);
    size_t *lengths = calloc(n ? n : 1, sizeof *lengths);
    for (size_t i = 0; i < n; i++) {
        texts[i] = json_string_value(json_array_get(list, i));
        lengths[i] = json_string_length(json_array_get(list, i));
    }
    clq_kv_set_strings(kvs, key, texts, lengths, n);
    free(lengths);
    free(texts);
}

static void add_numbers(clq_gguf_kvs *kvs, const char *key, const json_t *list)
{
    size_t n = json_array_size(list);
    float *reals = calloc(n, sizeof *reals);
    int32_t *integers = calloc(n, sizeof *integers);
    for (size_t i = 0; i < n; i++) {
        reals[i] = (float)json_number_value(json_array_get(list, i));
        integers[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    if (json_is_real(json_array_get(list, 0)))
        clq_kv_set_f32s(kvs, key, reals, n);
    else
        clq_kv_set_i32s(kvs, key, integers, n);
    free(integers);
    free(reals);
}

static void add_kvs(clq_gguf_kvs *kvs, json_t *object)
{
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v)
    {
        if (json_is_string(v))
            clq_kv_set_string(kvs, key, json_string_value(v), json_string_length(v));
        else if (json_is_boolean(v))
            clq_kv_set_bool(kvs, key, json_is_true(v));
        else if (json_is_integer(v))
            clq_kv_set_u32(kvs, key, (uint32_t)json_integer_value(v));
        else if (json_is_string(json_array_get(v, 0)))
            add_strings(kvs, key, v);
        else
            add_numbers(kvs, key, v);
    }
}

static json_t *vocabulary(const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(golden, "vocabularies"), i, v)
        if (strcmp(json_string_value(json_object_get(v, "name")), name) == 0) return v;
    fail_msg("no vocabulary '%s'", name);
    return NULL;
}

static clq_gguf_kvs kvs_of(json_t *v)
{
    clq_gguf_kvs kvs = {0};
    json_t *as = json_object_get(v, "as");
    if (as) add_kvs(&kvs, json_object_get(vocabulary(json_string_value(as)), "kvs"));
    add_kvs(&kvs, json_object_get(v, "kvs"));
    return kvs;
}

static clq_tokenizer *create(const char *name)
{
    clq_gguf_kvs kvs = kvs_of(vocabulary(name));
    clq_tokenizer *t;
    clq_error err;
    if (clq_tokenizer_create(&kvs, &t, &err) != CLQ_OK) fail_msg("%s: %s", name, err.text);
    clq_kvs_free(&kvs);
    return t;
}

static char *from_hex(const char *hex, size_t *len) // exactly as large as it says, so that reading beyond shows
{
    *len = strlen(hex) / 2;
    char *bytes = malloc(*len ? *len : 1);
    for (size_t i = 0; i < *len; i++) {
        unsigned b;
        sscanf(hex + 2 * i, "%2x", &b);
        bytes[i] = (char)b;
    }
    return bytes;
}

static void check_ids(const clq_tokenizer *t, const char *name, size_t index, unsigned flags, const json_t *want)
{
    size_t len;
    clq_error err;
    clq_buf ids = {0};
    const char *hex = json_string_value(json_array_get(json_object_get(golden, "texts"), index));
    char *text = from_hex(hex, &len);
    assert_int_equal(clq_tokenize(t, text, len, flags, &ids, &err), CLQ_OK);
    const int32_t *id = (const int32_t *)(const void *)ids.data;
    size_t n = ids.len / sizeof *id;
    bool same = n == json_array_size(want);
    for (size_t i = 0; same && i < n; i++) same = id[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s, flags %u: other ids for %s", name, flags, hex);
    clq_buf_free(&ids);
    free(text);
}

static void test_golden(void **state)
{
    (void)state;
    size_t i, k;
    json_t *v, *ids;
    assert_true(json_array_size(json_object_get(golden, "vocabularies")) >= 10);
    json_array_foreach(json_object_get(golden, "vocabularies"), i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        clq_tokenizer *t = create(name);
        for (int special = 0; special < 2; special++)
            json_array_foreach(json_array_get(json_object_get(v, "ids"), special), k, ids)
                check_ids(t, name, k, special ? CLQ_TOKENIZE_SPECIAL | CLQ_TOKENIZE_PARSE : 0, ids);
        clq_tokenizer_free(t);
    }
}

// ---- malformed ---------------------------------------------------------------------------------

static void refuses_as(clq_gguf_kvs *kvs, const char *says, bool hf)
{
    clq_tokenizer *t;
    clq_error err = {0};
    clq_status st = (hf ? clq_tokenizer_create_hf : clq_tokenizer_create)(kvs, &t, &err);
    if (st != CLQ_BAD_INPUT || !strstr(err.text, says)) fail_msg("status %d, '%s' without '%s'", st, err.text, says);
    assert_null(t);
}

static void refuses(clq_gguf_kvs *kvs, const char *says)
{
    refuses_as(kvs, says, false);
    clq_kvs_free(kvs);
}

static clq_gguf_kvs kvs_named(const char *name)
{
    return kvs_of(vocabulary(name));
}

static void set_strings(clq_gguf_kvs *kvs, const char *key, const char *a, size_t len)
{
    const char *texts[] = {a};
    clq_kv_set_strings(kvs, key, texts, &len, 1);
}

static void test_malformed(void **state)
{
    (void)state;
    clq_gguf_kvs kvs = {0};
    refuses(&kvs, "has no tokenizer");
    clq_kv_set_string(&kvs, "tokenizer.ggml.model", "rwkv", 4);
    refuses(&kvs, "rwkv");
    clq_kv_set_string(&kvs, "tokenizer.ggml.model", "gpt2", 4);
    refuses(&kvs, "tokenizer.ggml.tokens");

    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) { // other types, other lengths
        kvs = kvs_named("bpe gpt-2");
        clq_kv_set_u32(&kvs, keys[i], 3);
        refuses(&kvs, keys[i]);
        kvs = kvs_named("bpe gpt-2");
        clq_kv_set_f32s(&kvs, keys[i], (float[]){1}, 1);
        refuses(&kvs, keys[i]);
    }
    kvs = kvs_named("bpe gpt-2");
    add_strings(&kvs, "tokenizer.ggml.tokens", NULL);
    refuses(&kvs, "has 0 tokens");
    kvs = kvs_named("bpe gpt-2");
    clq_kv_remove(&kvs, "tokenizer.ggml.merges");
    refuses(&kvs, "merges");
    static const char *const merges[] = {"nospace",       "",       " ",  "a ", " a", "a nosuchtoken",
                                         "nosuchtoken a", "a \x01", "€ €"};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        kvs = kvs_named("bpe gpt-2");
        set_strings(&kvs, "tokenizer.ggml.merges", merges[i], strlen(merges[i]));
        refuses(&kvs, "entry 0");
    }
    char *huge = calloc(5000, 1); // a token of NUL bytes, too long
    kvs = kvs_named("bpe gpt-2");
    set_strings(&kvs, "tokenizer.ggml.tokens", huge, 5000);
    refuses(&kvs, "5000 bytes");
    kvs = kvs_named("bpe gpt-2");
    set_strings(&kvs, "tokenizer.ggml.merges", huge, 5000);
    refuses(&kvs, "entry 0");
    free(huge);
    kvs = kvs_named("bpe gpt-2");
    clq_kv_set_string(&kvs, "tokenizer.ggml.pre", "no-such-cut", 11);
    refuses_as(&kvs, "no-such-cut", true);
    refuses(&kvs, "no-such-cut");
    static const char *const ids[] = {"bos", "eos", "unknown", "padding", "eot", "eom", "seperator", "mask"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        kvs = kvs_named("bpe gpt-2");
        clq_kv_set_u32(&kvs, key, 1 << 30);
        refuses(&kvs, key);
        kvs = kvs_named("bpe gpt-2");
        clq_kv_set_i32(&kvs, key, -1);
        refuses(&kvs, key);
    }

    for (int kind = 0; kind < 2; kind++) {
        kvs = kvs_named(kind ? "unigram" : "spm");
        clq_kv_remove(&kvs, "tokenizer.ggml.scores");
        refuses(&kvs, "scores' is missing");
        kvs = kvs_named(kind ? "unigram" : "spm");
        clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", (float[]){1, 2}, 2);
        refuses(&kvs, "scores");
    }
    const char *two[] = {"a", "a"};
    kvs = kvs_named("spm");
    clq_kv_set_strings(&kvs, "tokenizer.ggml.tokens", two, (size_t[]){1, 1}, 2);
    clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", (float[]){0, 0.0f / 0.0f}, 2);
    refuses_as(&kvs, "NaN", false);
    clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", (float[]){0, 1}, 2);
    refuses(&kvs, "both 'a'");

    static const uint8_t maps[][8] = {{0}, {255, 255, 255, 255, 0, 0, 0, 0}, {3, 0, 0, 0, 1, 2, 3, 0}, {0, 0, 0, 0, 1}};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        clq_buf b = {0};
        size_t n = i == 0 ? 3 : 8;
        clq_buf_u32(&b, CLQ_GGUF_U8);
        clq_buf_u64(&b, n);
        clq_buf_append(&b, maps[i], n);
        kvs = kvs_named("unigram");
        clq_kv_set_raw(&kvs, "tokenizer.ggml.precompiled_charsmap", CLQ_GGUF_ARRAY, b.data, b.len);
        clq_buf_free(&b);
        if (i < 3) {
            refuses(&kvs, "charsmap");
            continue;
        }
        clq_tokenizer *t; // an empty map
        clq_error err;
        assert_int_equal(clq_tokenizer_create(&kvs, &t, &err), CLQ_OK);
        assert_int_equal(clq_tokenize(t, "abc", 3, 0, &b, &err), CLQ_OK);
        clq_buf_free(&b);
        clq_tokenizer_free(t);
        clq_kvs_free(&kvs);
    }
    kvs = kvs_named("wordpiece");
    const char *few[] = {"a", "b"};
    clq_kv_set_strings(&kvs, "tokenizer.ggml.tokens", few, (size_t[]){1, 1}, 2);
    refuses(&kvs, "token_id");
    clq_tokenizer_free(NULL);
}

// A vocabulary without all that a text needs: unknown characters, missing bytes, odd types.
static void test_incomplete(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "llama", "t5", "bert"};
    const char *tokens[] = {"a", "", "\xff\xfe", "ab"};
    for (size_t i = 0; i < 4; i++) {
        clq_gguf_kvs kvs = {0};
        clq_kv_set_string(&kvs, "tokenizer.ggml.model", models[i], strlen(models[i]));
        clq_kv_set_strings(&kvs, "tokenizer.ggml.tokens", tokens, (size_t[]){1, 0, 2, 2}, 4);
        clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", (float[]){0, -1e30f, 1e30f, -0.0f}, 4);
        clq_kv_set_i32s(&kvs, "tokenizer.ggml.token_type", (int32_t[]){1, 6, 99, -7}, 4);
        clq_kv_set_strings(&kvs, "tokenizer.ggml.merges", tokens, (size_t[]){0}, 0);
        for (int k = 0; k < 3; k++)
            clq_kv_set_u32(&kvs, (const char *[]){"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.bos_token_id",
                                                  "tokenizer.ggml.seperator_token_id"}[k], (uint32_t)k);
        clq_kv_set_u32(&kvs, "tokenizer.ggml.eos_token_id", 3);
        for (int hf = 0; hf < 2; hf++) {
            clq_tokenizer *t;
            clq_error err;
            clq_buf out = {0};
            if ((hf ? clq_tokenizer_create_hf : clq_tokenizer_create)(&kvs, &t, &err) != CLQ_OK) {
                assert_string_equal(models[i], "gpt2"); // tokenizer.json has no cut named "default"
                assert_true(hf);
                continue;
            }
            static const char text[] = "ab \xff\xfe\0 \xe4\xb8\xad aab <|x|>";
            assert_int_equal(clq_tokenize(t, text, sizeof text, 3, &out, &err), CLQ_OK);
            for (int32_t id = 0; id < 4; id++) assert_int_equal(clq_token_piece(t, id, true, &out, &err), CLQ_OK);
            assert_int_equal(clq_token_piece(t, 4, true, &out, &err), CLQ_BAD_INPUT);
            assert_int_equal(clq_token_piece(t, -1, true, &out, &err), CLQ_BAD_INPUT);
            clq_buf_free(&out);
            clq_tokenizer_free(t);
        }
        clq_kvs_free(&kvs);
    }
}

// Long runs without a place to cut, of each kind: must take neither quadratic time nor deep recursion.
static void test_long_runs(void **state)
{
    (void)state;
    enum { N = 300000 };
    static const char *const names[] = {"bpe gpt-2",  "bpe tekken", "bpe deepseek-llm", "bpe deepseek-coder",
                                        "bpe falcon", "bpe bloom",  "bpe qwen2",        "spm",
                                        "unigram",    "wordpiece"};
    static const char *const units[] = {
        "a", " ", "A", "1", "\xff", "\xcc\x81", "\xe4\xb8\xad", "\n", "ab", " \xe4\xb8\xad", "'"};
    char *text = malloc(N);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        clq_tokenizer *t = create(names[i]);
        for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
            clq_buf ids = {0};
            clq_error err;
            for (size_t at = 0; at < N; at++) text[at] = units[k][at % strlen(units[k])];
            assert_int_equal(clq_tokenize(t, text, N, 3, &ids, &err), CLQ_OK);
            clq_buf_free(&ids);
        }
        clq_tokenizer_free(t);
    }
    free(text);
}

// What the cache and the cuts of long texts do changes nothing: a text is the sum of its lines.
static void test_cache(void **state)
{
    (void)state;
    static const char *const words[] = {"hello", " world", "\n", " naïve", "  ", " 12", "\xff", " don't", "中文", "\n\n"};
    static const char *const names[] = {"bpe gpt-2", "bpe qwen2", "spm", "wordpiece"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        clq_tokenizer *t = create(names[i]);
        clq_buf once = {0}, text = {0}, many = {0};
        clq_error err;
        uint32_t x = 1;
        for (int k = 0; k < 400; k++, x = x * 1664525 + 1013904223) clq_buf_text(&text, words[(x >> 16) % 10]);
        clq_buf_text(&text, ".\n<|end|>");
        assert_int_equal(clq_tokenize(t, text.data, text.len, CLQ_TOKENIZE_PARSE, &once, &err), CLQ_OK);
        bool cuts = strstr(names[i], "bpe") || strstr(names[i], "word"); // a special token parts those texts exactly
        size_t len = text.len;
        char *copy = malloc(len);
        memcpy(copy, text.data, len);
        for (int k = 1; cuts && k < 8; k++) clq_buf_append(&text, copy, len);
        free(copy);
        assert_int_equal(clq_tokenize(t, text.data, text.len, CLQ_TOKENIZE_PARSE, &many, &err), CLQ_OK);
        for (size_t at = 0; at < many.len; at += once.len) assert_memory_equal(many.data + at, once.data, once.len);
        clq_buf_free(&many);
        clq_buf_free(&text);
        clq_buf_free(&once);
        clq_tokenizer_free(t);
    }
}

static void test_pieces(void **state)
{
    (void)state;
    clq_error err;
    clq_tokenizer *t = create("bpe gpt-2");
    clq_buf ids = {0}, back = {0};
    static const char text[] = "Hello  wörld\n\t<|user|>\0 12";
    assert_int_equal(clq_tokenize(t, text, sizeof text, 0, &ids, &err), CLQ_OK);
    for (size_t i = 0; i < ids.len / 4; i++)
        assert_int_equal(clq_token_piece(t, ((int32_t *)(void *)ids.data)[i], false, &back, &err), CLQ_OK);
    assert_int_equal(back.len, sizeof text);
    assert_memory_equal(back.data, text, sizeof text);
    back.len = 0;
    int32_t bos = clq_tokenizer_bos(t);
    assert_int_equal(clq_token_piece(t, bos, false, &back, &err), CLQ_OK);
    assert_int_equal(back.len, 0);
    assert_int_equal(clq_token_piece(t, bos, true, &back, &err), CLQ_OK);
    assert_memory_equal(back.data, "<s>", 3);
    assert_true(clq_tokenizer_is_end(t, clq_tokenizer_eos(t)));
    assert_true(clq_tokenizer_is_end(t, bos + 2)); // <|end|>
    assert_false(clq_tokenizer_is_end(t, bos));
    assert_false(clq_tokenizer_is_end(t, -1));
    assert_false(clq_tokenizer_is_end(t, INT32_MAX));
    assert_false(clq_tokenizer_adds_bos(t));
    assert_int_equal(clq_tokenizer_pad(t), -1);
    assert_int_equal(clq_tokenizer_count(t), (uint32_t)bos + 5);
    clq_tokenizer_free(t);

    t = create("spm");
    ids.len = back.len = 0;
    static const char mixed[] = "x  y ж \xff";
    assert_int_equal(clq_tokenize(t, mixed, sizeof mixed - 1, CLQ_TOKENIZE_SPECIAL, &ids, &err), CLQ_OK);
    for (size_t i = 0; i < ids.len / 4; i++)
        assert_int_equal(clq_token_piece(t, ((int32_t *)(void *)ids.data)[i], false, &back, &err), CLQ_OK);
    assert_int_equal(back.len, sizeof mixed); // a space in front
    assert_memory_equal(back.data + 1, mixed, sizeof mixed - 1);
    assert_true(clq_tokenizer_adds_bos(t));
    clq_buf_free(&back);
    clq_buf_free(&ids);
    clq_tokenizer_free(t);
}

// ---- what `tokenizers` does otherwise ------------------------------------------------------------

static void check_hf(const char *vocabulary_name, const char *pre, const char *a, const char *b, bool same)
{
    clq_gguf_kvs kvs = kvs_named(vocabulary_name);
    clq_tokenizer *t;
    clq_error err;
    clq_buf x = {0}, y = {0};
    if (pre) clq_kv_set_string(&kvs, "tokenizer.ggml.pre", pre, strlen(pre));
    assert_int_equal(clq_tokenizer_create_hf(&kvs, &t, &err), CLQ_OK);
    assert_int_equal(clq_tokenize(t, a, strlen(a), 0, &x, &err), CLQ_OK);
    assert_int_equal(clq_tokenize(t, b, strlen(b), 0, &y, &err), CLQ_OK);
    bool equal = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    if (equal != same) fail_msg("'%s' and '%s' are %sthe same", a, b, equal ? "" : "not ");
    clq_buf_free(&x);
    clq_buf_free(&y);
    clq_tokenizer_free(t);
    clq_kvs_free(&kvs);
}

static void test_hf(void **state)
{
    (void)state;
    check_hf("bpe qwen2", NULL, "cafe\u0301 \u1112\u1161\u11ab a\u0323\u0302", "café 한 ậ", true); // form C
    check_hf("bpe qwen2", NULL, "\u0344\u212b", "\u0308\u0301\u00c5", true);              // what composition leaves out
    check_hf("bpe qwen2", NULL, "a\u0315\u0300", "\u00e0\u0315", true);                   // marks in another order
    check_hf("bpe gpt-2", "gpt-2", "cafe\u0301", "café", false);
    check_hf("wordpiece", NULL, "CAFÉ naïve", "cafe naive", true);
    check_hf("wordpiece", NULL, "a\x01\u200b b", "a b", true);
}

// ---- chat --------------------------------------------------------------------------------------

static void check_chat(const char *template, const char *name, bool add, const char *want)
{
    clq_gguf_kvs kvs = kvs_named("bpe gpt-2");
    clq_tokenizer *t;
    clq_error err;
    clq_buf out = {0};
    const clq_chat_message messages[] = {
        {"system", " Be kind. "}, {"user", "Hi"}, {"assistant", " Hello "}, {"user", "Why?"}};
    if (template) clq_kv_set_string(&kvs, "tokenizer.chat_template", template, strlen(template));
    assert_int_equal(clq_tokenizer_create(&kvs, &t, &err), CLQ_OK);
    clq_status st = clq_chat_format(t, name, messages, 4, add, &out, &err);
    assert_int_equal(st, want ? CLQ_OK : CLQ_BAD_INPUT);
    if (want) {
        clq_buf_zeros(&out, 1);
        assert_string_equal(out.data, want);
    }
    clq_buf_free(&out);
    clq_tokenizer_free(t);
    clq_kvs_free(&kvs);
}

static void test_chat(void **state)
{
    (void)state;
    static const char chatml[] =
        "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        " Hello <|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n";
    check_chat("{% for m in messages %}{{'<|im_start|>' + m['role']}}", NULL, true, chatml);
    check_chat("chatml", NULL, true, chatml);
    check_chat(NULL, "chatml", true, chatml);
    check_chat(NULL, "gemma", true,
               "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
               "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n");
    check_chat(
        NULL, "llama3", false,
        "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nWhy?<|eot_id|>");
    check_chat(NULL, "llama2-sys", true,
               "[INST] <<SYS>>\n Be kind. \n<</SYS>>\n\nHi [/INST] Hello </s>[INST] Why? [/INST]");
    check_chat(NULL, "mistral-v3", true, "[INST]  Be kind. \n\nHi[/INST] Hello</s>[INST] Why?[/INST]");
    check_chat("{{ 'something else' }}", NULL, true, NULL);
    check_chat(NULL, NULL, true, NULL);
    check_chat(NULL, "nosuch", true, NULL);
}

// As a built-in name, and as the model's own template.
static void test_golden_chats(void **state)
{
    (void)state;
    size_t i, k;
    json_t *row, *message;
    assert_true(json_array_size(json_object_get(golden, "chats")) > 100);
    json_array_foreach(json_object_get(golden, "chats"), i, row)
    {
        const char *template = json_string_value(json_array_get(row, 0));
        const char *want = json_string_value(json_array_get(row, 3));
        json_t *chat = json_array_get(json_object_get(golden, "conversations"),
                                      (size_t)json_integer_value(json_array_get(row, 1)));
        clq_chat_message messages[8];
        json_array_foreach(chat, k, message) messages[k] = (clq_chat_message){
            json_string_value(json_array_get(message, 0)), json_string_value(json_array_get(message, 1))};
        clq_gguf_kvs kvs = kvs_named("spm");
        clq_tokenizer *t;
        clq_error err;
        clq_buf out = {0};
        clq_kv_set_string(&kvs, "tokenizer.chat_template", template, strlen(template));
        assert_int_equal(clq_tokenizer_create(&kvs, &t, &err), CLQ_OK);
        clq_status st = clq_chat_format(t, NULL, messages, (uint32_t)json_array_size(chat),
                                        json_is_true(json_array_get(row, 2)), &out, &err);
        assert_int_equal(st, want ? CLQ_OK : CLQ_BAD_INPUT);
        clq_buf_zeros(&out, 1);
        if (want && strcmp(out.data, want) != 0) fail_msg("%s, %zu: '%s', not '%s'", template, i, out.data, want);
        clq_buf_free(&out);
        clq_tokenizer_free(t);
        clq_kvs_free(&kvs);
    }
}

int main(void)
{
    char path[4096];
    const char *data = getenv("CLQ_TEST_DATA");
    snprintf(path, sizeof path, "%s/golden/tokenizer.json", data ? data : "tests");
    golden = json_load_file(path, JSON_ALLOW_NUL, NULL);
    if (!golden) {
        fprintf(stderr, "cannot read %s\n", path);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_malformed), cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_long_runs), cmocka_unit_test(test_cache), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_hf), cmocka_unit_test(test_chat), cmocka_unit_test(test_golden_chats),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}

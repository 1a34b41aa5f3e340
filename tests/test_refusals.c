// SPDX-License-Identifier: MIT
// host/model: folders and GGUF files that cannot be translated, and what the messages say.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- refusals ----------------------------------------------------------------------------------

typedef struct edit {
    const char *from, *to, *expected;
} edit;

static void config_refusals(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"LlamaForCausalLM", "NoSuchModel", "'NoSuchModel'"},
        {"\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"", "\"x\":1",
         "\"architectures\""},
        {"\"hidden_size\":16", "\"x\":1", "lacks \"hidden_size\""},
        {"\"rms_norm_eps\":1e-05", "\"x\":1", "lacks \"rms_norm_eps\""},
        {"\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":\"small\"", "\"rms_norm_eps\" must be"},
        {"\"intermediate_size\":24", "\"intermediate_size\":-24", "\"intermediate_size\" must be"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":9000000000", "must be"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":2000000000", "layers"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":2.5", "must be"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":0", "0 layers"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":1", "belongs to a layer"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":3", "model.layers.2.input_layernorm"},
        {"\"num_attention_heads\":4", "\"num_attention_heads\":0", "above 0"},
        {"\"num_attention_heads\":4", "\"num_attention_heads\":3", "3 attention heads"},
        {"\"num_attention_heads\":4", "\"num_attention_heads\":6", "not a multiple"},
        {"\"num_attention_heads\":4", "\"num_attention_heads\":16", "odd"},
        {"\"num_key_value_heads\":2", "\"num_key_value_heads\":4", "k_proj"},
        {"\"num_key_value_heads\":2", "\"num_key_value_heads\":[2]", "must be"},
        {"\"hidden_act\":\"silu\"", "\"hidden_act\":\"relu\"", "\"relu\""},
        {"\"vocab_size\":7", "\"vocab_size\":8", "embed_tokens"},
        {"\"vocab_size\":7", "\"vocab_size\":{}", "vocab_size"},
        {"\"rope_theta\":10000.0", "\"rope_theta\":-1", "rope_theta"},
        {"\"rope_theta\":10000.0", "\"head_dim\":5", "odd"},
        {"\"rope_theta\":10000.0", "\"head_dim\":8", "q_proj"},
        {"\"rope_theta\":10000.0", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}",
         "'dynamic'"},
        {"\"rope_theta\":10000.0", "\"rope_scaling\":{\"type\":\"linear\"}", "\"factor\""},
        {"\"rope_theta\":10000.0", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":0}",
         "factor"},
        {"\"rope_theta\":10000.0", "\"partial_rotary_factor\":0.5", "partial_rotary_factor"},
    };
    char dir[256];
    make_llama(dir, "refused");
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        write_edited(dir, "config.json", llama_config, edits[i].from, edits[i].to);
        assert_refused(dir, edits[i].expected);
    }
}

static void tensor_refusals(void **state)
{
    (void)state;
    const uint64_t dims[] = {16, 16};
    static const struct {
        const char *skip, *add;
        uint32_t n_dims;
        const char *expected;
    } cases[] = {
        {"model.layers.1.mlp.up_proj.weight", NULL, 0, "'model.layers.1.mlp.up_proj.weight'"},
        {"lm_head.weight", NULL, 0, "lm_head.weight"},
        {NULL, "model.layers.0.self_attn.secret.weight", 2, "secret"},
        {NULL, "model.layers.00.self_attn.q_proj.weight", 2, "no counterpart"},
        {NULL, "model.layers.99999999999.self_attn.q_proj.weight", 2, "no counterpart"},
        {NULL, "model.layers.0.self_attn.q_proj.weight.weight", 2, "no counterpart"},
        {NULL, "model.embed_tokens.bias", 1, "no counterpart"},
        {NULL, "norm.weight", 1, "one and the same"},
        {"model.norm.weight", "model.norm.weight", 2, "2 dimensions instead of 1"},
    };
    char dir[256];
    make_llama(dir, "tensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weights w = {0};
        add_shapes(&w, llama_shapes, 2, cases[i].skip);
        if (cases[i].add) add_tensor(&w, cases[i].add, cases[i].n_dims, dims);
        save_weights(dir, &w);
        assert_refused(dir, cases[i].expected);
    }
}

static void tokenizer_refusals(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"a b\"", "\"a\"", "merge 0"},
        {"\"a b\"", "7", "merge 0"},
        {"\"a b\"", "\" b\"", "merge 0"},
        {"\"a b\"", "\"a b c\"", "merge 0"},
        {"[\"ab\",\"c\"]", "[\"ab\",3]", "merge 1"},
        {"[\"ab\",\"c\"]", "[\"ab\",\"c\",\"a\"]", "merge 1"},
        {"[\"a b\",[\"ab\",\"c\"]]", "{}", "merges"},
        {"\"abc\":4", "\"abc\":7", "outside the vocabulary"},
        {"\"abc\":4", "\"abc\":-1", "outside the vocabulary"},
        {"\"abc\":4", "\"abc\":99999999999", "outside the vocabulary"},
        {"\"abc\":4", "\"abc\":3", "same id 3"},
        {"\"abc\":4", "\"abc\":\"4\"", "no integer"},
        {"\"abc\":4", "\"ab\":4", "valid JSON"},
        {"{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4}", "[]", "model.vocab"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "'Unigram'"},
        {"\"Digits\"", "\"Metaspace\"", "pre_tokenizer"},
        {"\"individual_digits\":true", "\"individual_digits\":false", "pre_tokenizer"},
        {"\"content\":\"<s>\"", "\"content\":3", "content"},
        {"\"content\":\"<s>\"", "\"content\":\"abc\"", "are both 'abc'"},
        {"\"id\":5", "\"id\":-5", "added token"},
        {"\"id\":5", "\"id\":\"5\"", "added token"},
        {"\"content\":\"<s>\"", "\"content\":\"a\\u0000b\"", "added token"},
    };
    char dir[256];
    make_llama(dir, "tokenizers");
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        write_edited(dir, "tokenizer.json", bpe_tokenizer, edits[i].from, edits[i].to);
        assert_refused(dir, edits[i].expected);
    }
    remove_file(dir, "tokenizer.json");
    assert_refused(dir, "tokenizer.json");
    for (size_t len = 0; len < strlen(bpe_tokenizer); len++) {
        write_bytes(dir, "tokenizer.json", bpe_tokenizer, len);
        assert_refused(dir, "valid JSON");
    }
}

static void bert_refusals(void **state)
{
    (void)state;
    char dir[256];
    make_bert(dir, "bert_refused");
    write_edited(dir, "config.json", bert_config, "\"gelu\"", "\"relu\"");
    assert_refused(dir, "\"relu\"");
    write_text(dir, "config.json", bert_config);
    write_text(dir, "1_Pooling/config.json", "{\"pooling_mode_max_tokens\":true}");
    assert_refused(dir, "pooling");
    write_text(dir, "modules.json", "[{\"type\":\"x.Pooling\",\"path\":\"../..\"}]");
    assert_refused(dir, "modules.json");
    write_text(dir, "modules.json", "[{\"type\":\"x.Pooling\",\"path\":\"none\"}]");
    assert_refused(dir, "missing");
    remove_file(dir, "modules.json");
    write_edited(dir, "tokenizer.json", bert_tokenizer, "_prefix\":\"##\"", "_prefix\":\"@@\"");
    assert_refused(dir, "@@");
}

// ---- GGUF refusals -----------------------------------------------------------------------------

typedef void (*damage)(clq_gguf_kvs *kvs);

static void no_block_count(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "llama.block_count");
}
static void no_tokens(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "tokenizer.ggml.tokens");
}
static void no_merges(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "tokenizer.ggml.merges");
}
static void no_model(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "tokenizer.ggml.model");
}

static void unknown_arch(clq_gguf_kvs *kvs)
{
    clq_kv_set_string(kvs, "general.architecture", "grok", 4);
}

static void heads_by_layer(clq_gguf_kvs *kvs)
{
    const int32_t heads[] = {4, 4};
    clq_kv_set_i32s(kvs, "llama.attention.head_count", heads, 2);
}

static void huge_heads(clq_gguf_kvs *kvs)
{
    clq_kv_set_u32(kvs, "llama.attention.head_count", UINT32_MAX);
}

static void other_value_length(clq_gguf_kvs *kvs)
{
    clq_kv_set_u32(kvs, "llama.attention.value_length", 6);
}

static void set_tokens(clq_gguf_kvs *kvs, const char *last, uint64_t n)
{
    const char *tokens[] = {"a", "b", "c", "ab", "abc", "<s>", last};
    size_t lengths[7];
    for (size_t i = 0; i < 7; i++) lengths[i] = strlen(tokens[i]);
    clq_kv_set_strings(kvs, "tokenizer.ggml.tokens", tokens, lengths, n);
}

static void too_few_tokens(clq_gguf_kvs *kvs)
{
    set_tokens(kvs, "x", 6);
}
static void same_tokens(clq_gguf_kvs *kvs)
{
    set_tokens(kvs, "ab", 7);
}
static void not_utf8(clq_gguf_kvs *kvs)
{
    set_tokens(kvs, "\xff\xfe", 7);
}

static void tokens_are_numbers(clq_gguf_kvs *kvs)
{
    const int32_t numbers[7] = {0};
    clq_kv_set_i32s(kvs, "tokenizer.ggml.tokens", numbers, 7);
}

static void bad_types(clq_gguf_kvs *kvs)
{
    const int32_t types[7] = {1, 1, 1, 77, 1, 1, 1};
    clq_kv_set_i32s(kvs, "tokenizer.ggml.token_type", types, 7);
}

static void few_types(clq_gguf_kvs *kvs)
{
    const int32_t types[7] = {1, 1, 1, 1, 1, 1, 1};
    clq_kv_set_i32s(kvs, "tokenizer.ggml.token_type", types, 3);
}

static void set_merge(clq_gguf_kvs *kvs, const char *merge)
{
    size_t len = strlen(merge);
    clq_kv_set_strings(kvs, "tokenizer.ggml.merges", &merge, &len, 1);
}

static void merge_of_strangers(clq_gguf_kvs *kvs)
{
    set_merge(kvs, "a z");
}
static void merge_without_space(clq_gguf_kvs *kvs)
{
    set_merge(kvs, "ab");
}
static void empty_merge(clq_gguf_kvs *kvs)
{
    set_merge(kvs, "");
}
static void merge_of_nothing(clq_gguf_kvs *kvs)
{
    set_merge(kvs, " ");
}

static void unknown_pre(clq_gguf_kvs *kvs)
{
    clq_kv_set_string(kvs, "tokenizer.ggml.pre", "klingon", 7);
}

static void bos_outside(clq_gguf_kvs *kvs)
{
    clq_kv_set_u32(kvs, "tokenizer.ggml.bos_token_id", 7);
}

static void gguf_refusals(void **state)
{
    (void)state;
    static const struct {
        damage damage;
        const char *expected;
    } cases[] = {
        {no_block_count, "'llama.block_count'"},
        {no_tokens, "'tokenizer.ggml.tokens'"},
        {no_merges, "'tokenizer.ggml.merges'"},
        {no_model, "'tokenizer.ggml.model'"},
        {unknown_arch, "'grok'"},
        {heads_by_layer, "'llama.attention.head_count'"},
        {huge_heads, "'llama.attention.head_count'"},
        {other_value_length, "'llama.attention.value_length'"},
        {too_few_tokens, "6 tokens"},
        {same_tokens, "both 'ab'"},
        {not_utf8, "UTF-8"},
        {tokens_are_numbers, "no list of strings"},
        {bad_types, "type 77"},
        {few_types, "'tokenizer.ggml.token_type'"},
        {merge_of_strangers, "'a z'"},
        {merge_without_space, "entry 0"},
        {empty_merge, "entry 0"},
        {merge_of_nothing, "entry 0"},
        {unknown_pre, "'klingon'"},
        {bos_outside, "'tokenizer.ggml.bos_token_id'"},
    };
    char dir[256], path[256];
    make_llama(dir, "gguf_refused");
    make_path(path, root, "refused.gguf");
    clq_source *hf = open_source(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clq_translation t = to_gguf(hf), back;
        clq_error err = {0};
        cases[i].damage(&t.kvs);
        save_gguf(path, &t);
        clq_source *gguf = open_source(path);
        clq_status st = clq_translate_to_hf(gguf, NULL, &back, &err);
        if (st != CLQ_BAD_INPUT) fail_msg("accepted, instead of: %s", cases[i].expected);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("'%s' is not in: %s", cases[i].expected, err.text);
        clq_source_close(gguf);
        clq_translation_free(&t);
    }
    clq_source_close(hf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_refusals),
        cmocka_unit_test(tensor_refusals),
        cmocka_unit_test(tokenizer_refusals),
        cmocka_unit_test(bert_refusals),
        cmocka_unit_test(gguf_refusals),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

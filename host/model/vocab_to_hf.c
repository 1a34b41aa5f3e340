// SPDX-License-Identifier: MIT
// Tokenizers, GGUF -> Hugging Face: what all kinds share.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/vocab.h"

// ---- reading the metadata ----------------------------------------------------------------------

// The elements of a numeric array with one entry a token; NULL: there is no such key.
static clq_status numbers(const clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, uint32_t n,
                          const uint8_t **elements, clq_error *err)
{
    clq_gguf_type element;
    uint64_t count;
    *elements = NULL;
    if (!clq_kv_find(kvs, key)) return CLQ_OK;
    if (clq_kv_get_array(kvs, key, &element, &count, elements) && element == type && count == n)
        return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT,
                    "metadata '%s' must have a number for each of the %u tokens", key, n);
}

static uint32_t word_at(const uint8_t *elements, uint32_t i)
{
    const uint8_t *p = elements + 4 * (size_t)i;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static clq_status read_vocab(const clq_gguf_kvs *kvs, uint32_t n_rows, clq_vocab *v, clq_error *err)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *cursor, *types, *scores;
    if (!clq_kv_get_array(kvs, "tokenizer.ggml.tokens", &element, &n, &cursor) ||
        element != CLQ_GGUF_STRING)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "metadata 'tokenizer.ggml.tokens' is missing or no list of strings; without "
            "its tokenizer a model cannot become a folder");
    if (n != n_rows)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "metadata 'tokenizer.ggml.tokens' has %llu tokens, but token_embd.weight %u "
            "rows",
            (unsigned long long)n, n_rows);
    CLQ_TRY(numbers(kvs, "tokenizer.ggml.token_type", CLQ_GGUF_I32, n_rows, &types, err));
    CLQ_TRY(numbers(kvs, "tokenizer.ggml.scores", CLQ_GGUF_F32, n_rows, &scores, err));
    CLQ_TRY(clq_vocab_create(v, n_rows, err));
    for (uint32_t i = 0; i < n_rows; i++) {
        const char *text;
        size_t len;
        clq_kv_next_string(&cursor, &text, &len);
        uint32_t type = types ? word_at(types, i) : CLQ_TOKEN_NORMAL;
        if (type < CLQ_TOKEN_NORMAL || type > CLQ_TOKEN_BYTE)
            return clq_fail(
                err, CLQ_BAD_INPUT,
                "metadata 'tokenizer.ggml.token_type': token %u has type %d; 1 to 6 are "
                "known",
                i, (int)type);
        float score = scores ? clq_from_bits(word_at(scores, i)) : 0;
        if (score != score)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata 'tokenizer.ggml.scores': token %u has NaN", i);
        CLQ_TRY(clq_vocab_put(v, i, text, len, (clq_token_type)type, score,
                              "metadata 'tokenizer.ggml.tokens'", err));
    }
    return CLQ_OK;
}

bool clq_special_id(const clq_gguf_tokenizer *t, const char *gguf_key, int64_t fallback,
                    uint32_t *id)
{
    uint64_t n;
    if (clq_kv_get_u64(t->kvs, gguf_key, &n)) {
        *id = (uint32_t)n;
        return n < t->vocab.n;
    }
    *id = (uint32_t)fallback;
    return fallback >= 0 && fallback < t->vocab.n;
}

bool clq_cls_id(const clq_gguf_tokenizer *t, uint32_t *id)
{
    return clq_special_id(t, "tokenizer.ggml.cls_token_id", -1, id) ||
           clq_special_id(t, "tokenizer.ggml.bos_token_id", 101, id);
}

// ---- parts of tokenizer.json -------------------------------------------------------------------

json_t *clq_vocab_object(const clq_vocab *v, clq_error *err)
{
    json_t *object = json_object();
    for (uint32_t i = 0; i < v->n && object; i++) {
        if (clq_vocab_is_pad(v, i, "")) continue;
        if (json_object_set_new(object, v->tokens[i].text, json_integer(i)) == 0) continue;
        json_decref(object);
        object = NULL;
        clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.tokens': token %u is not UTF-8", i);
    }
    return object;
}

json_t *clq_template_processor(const clq_vocab *v, int64_t first, int64_t last)
{
    json_t *single = json_array(), *pair = json_array(), *tokens = json_object();
    const int64_t ids[] = {first, last};
    for (int type_id = 0; type_id < 2; type_id++) {
        const char *const name = type_id ? "B" : "A";
        json_t *parts[3] = {
            NULL, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id), NULL};
        for (int i = 0; i < 2; i++)
            if (ids[i] >= 0)
                parts[2 * i] = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id",
                                         v->tokens[ids[i]].text, "type_id", type_id);
        for (int i = 0; i < 3; i++) {
            if (!parts[i]) continue;
            if (type_id == 0) json_array_append(single, parts[i]);
            json_array_append_new(pair, parts[i]);
        }
    }
    for (int i = 0; i < 2; i++)
        if (ids[i] >= 0)
            json_object_set_new(tokens, v->tokens[ids[i]].text,
                                json_pack("{s:s, s:[i], s:[s]}", "id", v->tokens[ids[i]].text,
                                          "ids", (int)ids[i], "tokens", v->tokens[ids[i]].text));
    size_t n_parts = 1 + (first >= 0) + (last >= 0);
    if (json_array_size(single) == n_parts && json_array_size(pair) == 2 * n_parts)
        return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single,
                         "pair", pair, "special_tokens", tokens);
    json_decref(single);
    json_decref(pair);
    json_decref(tokens);
    return NULL;
}

// tokenizer.json's added_tokens and tokenizer_config.json's added_tokens_decoder.
static clq_status add_added_tokens(clq_gguf_tokenizer *t, clq_error *err)
{
    json_t *list = json_array(), *decoder = json_object();
    clq_status st = CLQ_OK;
    for (uint32_t i = 0; i < t->vocab.n; i++) {
        const clq_token *token = &t->vocab.tokens[i];
        bool special = token->type == CLQ_TOKEN_CONTROL ||
                       (token->type == CLQ_TOKEN_UNKNOWN && !t->model_has_unknown);
        if (!special && token->type != CLQ_TOKEN_USER_DEFINED) continue;
        json_t *entry =
            json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", token->text, "single_word", 0,
                      "lstrip", 0, "rstrip", 0, "normalized", 0, "special", (int)special);
        json_t *numbered = json_pack("{s:i}", "id", (int)i);
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        if (!entry || !numbered || json_object_update(numbered, entry) != 0 ||
            json_array_append(list, numbered) != 0 || json_object_set(decoder, key, entry) != 0)
            st = clq_fail(err, CLQ_BAD_INPUT,
                          "metadata 'tokenizer.ggml.tokens': token %u is not UTF-8", i);
        json_decref(entry);
        json_decref(numbered);
        if (st != CLQ_OK) break;
    }
    if (st == CLQ_OK) st = clq_json_set(t->json, "added_tokens", json_incref(list), err);
    if (st == CLQ_OK)
        st = clq_json_set(t->config, "added_tokens_decoder", json_incref(decoder), err);
    json_decref(list);
    json_decref(decoder);
    return st;
}

// ---- special tokens, chat template --------------------------------------------------------------

// Sets "bos_token" ... in tokenizer_config.json and special_tokens_map.json, and "bos_token_id" ...
// in config.json and generation_config.json where those have it. BERT has [CLS] and [SEP] instead
// of BOS and EOS.
static clq_status set_roles(clq_gguf_tokenizer *t, bool is_bert, json_t *map, json_t *generation,
                            clq_error *err)
{
    static const struct {
        const char *key, *gguf;
        int32_t spm, bert; // ids when the metadata has none
        bool in_config;
    } roles[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id", 1, -1, true},
        {"eos_token", "tokenizer.ggml.eos_token_id", 2, -1, true},
        {"unk_token", "tokenizer.ggml.unknown_token_id", 0, 100, false},
        {"sep_token", "tokenizer.ggml.seperator_token_id", -1, 102, false},
        {"pad_token", "tokenizer.ggml.padding_token_id", -1, 0, true},
        {"cls_token", "tokenizer.ggml.bos_token_id", -1, 101, false},
        {"mask_token", "tokenizer.ggml.mask_token_id", -1, 103, false},
    };
    const char *model;
    size_t len;
    bool is_spm = clq_kv_get_string(t->kvs, "tokenizer.ggml.model", &model, &len) && len == 5 &&
                  memcmp(model, "llama", 5) == 0;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        uint32_t id;
        char key[32];
        bool is_cls = roles[i].bert == 101;
        if (is_bert ? i < 2 : is_cls) continue;
        int32_t fallback = is_bert ? roles[i].bert : is_spm ? roles[i].spm : -1;
        if (is_cls ? !clq_cls_id(t, &id) : !clq_special_id(t, roles[i].gguf, fallback, &id)) {
            if (clq_kv_find(t->kvs, roles[i].gguf))
                return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no token of the vocabulary",
                                roles[i].gguf);
            continue;
        }
        const char *text = t->vocab.tokens[id].text;
        CLQ_TRY(clq_json_set(t->config, roles[i].key, json_string(text), err));
        CLQ_TRY(clq_json_set(map, roles[i].key, json_string(text), err));
        if (!roles[i].in_config) continue;
        snprintf(key, sizeof key, "%s_id", roles[i].key);
        CLQ_TRY(clq_json_set(t->out->config, key, json_integer(id), err));
        CLQ_TRY(clq_json_set(generation, key, json_integer(id), err));
    }
    return CLQ_OK;
}

static clq_status set_add_flags(clq_gguf_tokenizer *t, clq_error *err)
{
    bool add;
    if (clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_bos_token", &add))
        CLQ_TRY(clq_json_set(t->config, "add_bos_token", json_boolean(add), err));
    if (clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_eos_token", &add))
        CLQ_TRY(clq_json_set(t->config, "add_eos_token", json_boolean(add), err));
    return CLQ_OK;
}

// One template is a string; several are a list of {name, template}.
static clq_status set_chat_template(clq_gguf_tokenizer *t, clq_error *err)
{
    static const char prefix[] = "tokenizer.chat_template.";
    json_t *list = json_array();
    json_t *only = NULL;
    clq_status st = CLQ_OK;
    for (uint32_t i = 0; i < t->kvs->n; i++) {
        const char *key = t->kvs->items[i].key, *text;
        bool is_default = strcmp(key, "tokenizer.chat_template") == 0;
        size_t len;
        if (!is_default && strncmp(key, prefix, sizeof prefix - 1) != 0) continue;
        if (!clq_kv_get_string(t->kvs, key, &text, &len)) continue;
        json_t *value = json_stringn(text, len);
        const char *name = is_default ? "default" : key + sizeof prefix - 1;
        if (json_array_append_new(list, json_pack("{s:s, s:O}", "name", name, "template", value))) {
            json_decref(value);
            st = clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is not UTF-8", key);
            goto out;
        }
        if (is_default) only = value; // borrowed from the list
        json_decref(value);
    }
    if (only && json_array_size(list) == 1)
        st = clq_json_set(t->config, "chat_template", json_incref(only), err);
    else if (json_array_size(list) > 0)
        st = clq_json_set(t->config, "chat_template", json_incref(list), err);
out:
    json_decref(list);
    return st;
}

// ---- entry -------------------------------------------------------------------------------------

static const struct {
    const char *model;
    clq_status (*to_hf)(clq_gguf_tokenizer *, clq_error *);
} kinds[] = {{"gpt2", clq_bpe_to_hf}, {"llama", clq_spm_to_hf}, {"bert", clq_wordpiece_to_hf}};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

static clq_status write_files(clq_gguf_tokenizer *t, size_t kind, clq_error *err)
{
    bool is_bert = kinds[kind].to_hf == clq_wordpiece_to_hf;
    json_t *map = json_object(), *generation = json_pack("{s:b}", "_from_model_config", 1);
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_json_set(t->json, "version", json_string("1.0"), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "truncation", json_null(), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "padding", json_null(), err));
    CLQ_TRY_OUT(add_added_tokens(t, err));
    CLQ_TRY_OUT(set_add_flags(t, err));
    CLQ_TRY_OUT(set_roles(t, is_bert, map, generation, err));
    CLQ_TRY_OUT(kinds[kind].to_hf(t, err));
    CLQ_TRY_OUT(set_chat_template(t, err));
    CLQ_TRY_OUT(
        clq_json_set(t->config, "clean_up_tokenization_spaces", json_boolean(is_bert), err));
    json_t *length = json_object_get(t->out->config, "max_position_embeddings");
    if (length) CLQ_TRY_OUT(clq_json_set(t->config, "model_max_length", json_incref(length), err));
    CLQ_TRY_OUT(clq_add_json_file(t->out, "tokenizer.json", t->json, err));
    CLQ_TRY_OUT(clq_add_json_file(t->out, "tokenizer_config.json", t->config, err));
    CLQ_TRY_OUT(clq_add_json_file(t->out, "special_tokens_map.json", map, err));
    if (!is_bert) CLQ_TRY_OUT(clq_add_json_file(t->out, "generation_config.json", generation, err));
out:
    json_decref(generation);
    json_decref(map);
    return st;
}

clq_status clq_tokenizer_to_hf(const clq_source *gguf, uint32_t n_rows, const clq_hooks *hooks,
                               clq_translation *out, clq_error *err)
{
    clq_gguf_tokenizer t = {.kvs = &gguf->kvs, .hooks = hooks, .out = out};
    char *model = clq_kv_dup_string(t.kvs, "tokenizer.ggml.model");
    size_t kind = 0;
    clq_status st = CLQ_OK;
    while (model && kind < N_KINDS && strcmp(kinds[kind].model, model) != 0) kind++;
    if (!model || kind == N_KINDS) {
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "metadata 'tokenizer.ggml.model' is '%s'; known are gpt2, llama and bert",
                      model ? model : "(missing)");
        goto out;
    }
    t.model_has_unknown = kinds[kind].to_hf == clq_spm_to_hf;
    t.json = json_object();
    t.config = json_object();
    CLQ_TRY_OUT(read_vocab(t.kvs, n_rows, &t.vocab, err));
    CLQ_TRY_OUT(clq_vocab_check_unique(&t.vocab, err));
    CLQ_TRY_OUT(write_files(&t, kind, err));
out:
    clq_vocab_free(&t.vocab);
    json_decref(t.config);
    json_decref(t.json);
    free(model);
    return st;
}

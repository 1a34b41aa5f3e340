// SPDX-License-Identifier: MIT
// Tokenizers, Hugging Face -> GGUF: what all kinds share.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

// ---- tokens ------------------------------------------------------------------------------------

clq_status clq_vocab_put_object(clq_hf_tokenizer *t, const json_t *object, clq_error *err)
{
    const char *text;
    json_t *id;
    if (!json_is_object(object))
        return clq_fail(err, CLQ_BAD_INPUT, "tokenizer.json: model.vocab is missing or no object");
    json_object_foreach((json_t *)object, text, id)
    {
        if (!json_is_integer(id))
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tokenizer.json: the id of token '%s' is no integer", text);
        json_int_t n = json_integer_value(id);
        if (n >= 0 && n < t->vocab.n && t->vocab.tokens[n].text)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tokenizer.json: '%s' and '%s' have the same id %lld",
                            t->vocab.tokens[n].text, text, (long long)n);
        CLQ_TRY(clq_vocab_put(&t->vocab, n, text, strlen(text), CLQ_TOKEN_NORMAL, 0,
                              "tokenizer.json", err));
    }
    return CLQ_OK;
}

// Tokens that act as control tokens although some tokenizer files do not say so.
static bool looks_special(const char *text)
{
    static const char *const exact[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (strcmp(text, exact[i]) == 0) return true;
    return (strncmp(text, "<|", 2) == 0 && clq_ends_with(text, "|>")) ||
           (strncmp(text, "<｜", 4) == 0 && clq_ends_with(text, "｜>")) ||
           (strncmp(text, "<unused", 7) == 0 && clq_ends_with(text, ">"));
}

void clq_plain_spaces(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        if (strncmp(from, "\u2581", 3) == 0) {
            *to++ = ' ';
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

static clq_status put_added(clq_hf_tokenizer *t, json_int_t id, const json_t *token, float score,
                            const char *file, clq_error *err)
{
    const char *content = clq_json_text(token, "content");
    bool special = false;
    if (!content || id < 0)
        return clq_fail(err, CLQ_BAD_INPUT, "%s: an added token lacks its \"content\" or \"id\"",
                        file);
    clq_json_bool(token, "special", &special);
    if (id >= t->vocab.n) {
        clq_warn(t->hooks, "%s: added token '%s' has id %lld, but the model has %u; left out", file,
                 content, (long long)id, t->vocab.n);
        return CLQ_OK;
    }
    char *text = strdup(content);
    if (!text) return clq_fail_memory(err, strlen(content));
    clq_token_type type = CLQ_TOKEN_CONTROL;
    if (!special && !looks_special(text)) {
        type = CLQ_TOKEN_USER_DEFINED;
        clq_plain_spaces(text);
    }
    // A token that the vocabulary has already keeps its score; byte tokens stay such.
    const clq_token *old = &t->vocab.tokens[id];
    if (old->text && strcmp(old->text, text) == 0) {
        score = old->score;
        if (old->type == CLQ_TOKEN_BYTE) type = old->type;
    }
    clq_status st = clq_vocab_put(&t->vocab, id, text, strlen(text), type, score, file, err);
    free(text);
    return st;
}

static bool parse_id(const char *text, json_int_t *id)
{
    char *end;
    if (!isdigit((unsigned char)*text) || strlen(text) > 9) return false;
    *id = strtol(text, &end, 10);
    return *end == '\0';
}

clq_status clq_vocab_put_added(clq_hf_tokenizer *t, float score, clq_error *err)
{
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(t->json, "added_tokens"), i, token)
    {
        const json_t *id = json_object_get(token, "id");
        CLQ_TRY(put_added(t, json_is_integer(id) ? json_integer_value(id) : -1, token, score,
                          "tokenizer.json", err));
    }
    const char *key;
    json_object_foreach(json_object_get(t->config, "added_tokens_decoder"), key, token)
    {
        json_int_t id;
        if (!parse_id(key, &id)) id = -1;
        CLQ_TRY(put_added(t, id, token, score, "tokenizer_config.json", err));
    }
    return CLQ_OK;
}

clq_status clq_vocab_write(const clq_vocab *v, bool scores, clq_gguf_kvs *kvs, clq_error *err)
{
    CLQ_TRY(clq_vocab_check_unique(v, err));
    const char **texts = malloc(v->n * sizeof *texts);
    size_t *lengths = malloc(v->n * sizeof *lengths);
    int32_t *types = malloc(v->n * sizeof *types);
    float *values = malloc(v->n * sizeof *values);
    bool failed = !texts || !lengths || !types || !values;
    for (uint32_t i = 0; i < v->n && !failed; i++) {
        texts[i] = v->tokens[i].text;
        lengths[i] = strlen(texts[i]);
        types[i] = v->tokens[i].type;
        values[i] = v->tokens[i].score;
    }
    if (!failed) {
        clq_kv_set_strings(kvs, "tokenizer.ggml.tokens", texts, lengths, v->n);
        if (scores) clq_kv_set_f32s(kvs, "tokenizer.ggml.scores", values, v->n);
        clq_kv_set_i32s(kvs, "tokenizer.ggml.token_type", types, v->n);
    }
    free(values);
    free(types);
    free(lengths);
    free(texts);
    return failed ? clq_fail_memory(err, v->n * 32ull) : CLQ_OK;
}

// ---- special tokens ----------------------------------------------------------------------------

// Roles that config.json ("bos_token_id"), tokenizer_config.json ("bos_token") and GGUF know.
// BERT's [CLS] is GGUF's BOS.
static const struct {
    const char *role, *gguf;
} roles[] = {
    {"bos", "tokenizer.ggml.bos_token_id"},     {"eos", "tokenizer.ggml.eos_token_id"},
    {"unk", "tokenizer.ggml.unknown_token_id"}, {"sep", "tokenizer.ggml.seperator_token_id"},
    {"pad", "tokenizer.ggml.padding_token_id"}, {"mask", "tokenizer.ggml.mask_token_id"},
};

// tokenizer_config.json's token of a role: a string, or an object with "content".
static const char *role_text(const json_t *config, const char *role)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", role);
    const json_t *token = json_object_get(config, key);
    return json_is_object(token) ? clq_json_text(token, "content") : clq_json_string(token);
}

// A template's first or last special token, NULL when a text stands there.
static const char *template_end(const json_t *json, bool last)
{
    const json_t *processor = json_object_get(json, "post_processor");
    const json_t *list = json_object_get(processor, "processors");
    size_t n = list ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *single =
            json_object_get(list ? json_array_get(list, i) : processor, "single");
        size_t n_parts = json_array_size(single);
        if (n_parts < 2) continue;
        const json_t *part = json_array_get(single, last ? n_parts - 1 : 0);
        return clq_json_text(json_object_get(part, "SpecialToken"), "id");
    }
    return NULL;
}

// Which token a text begins or ends with; NULL: unknown.
static const char *end_token(const clq_hf_tokenizer *t, const char *role, const char *other_role,
                             bool last)
{
    const char *text = role_text(t->config, role);
    if (!text) text = role_text(t->config, other_role);
    return text ? text : template_end(t->json, last);
}

// config.json's id of a role. A list (generation may end at any of several tokens) gives its first.
static bool role_id(const clq_hf_tokenizer *t, const char *role, uint32_t *id)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", role);
    const json_t *value = json_object_get(t->source->config, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (!value || json_is_null(value)) return false;
    json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= 0 && n < t->vocab.n) {
        *id = (uint32_t)n;
        return true;
    }
    clq_warn(t->hooks, "config.json: \"%s\" is no token of the vocabulary; left out", key);
    return false;
}

static void write_roles(const clq_hf_tokenizer *t, clq_gguf_kvs *kvs)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const char *role = roles[i].role;
        const char *text = strcmp(role, "bos") == 0   ? end_token(t, "bos", "cls", false)
                           : strcmp(role, "eos") == 0 ? end_token(t, "eos", "sep", true)
                                                      : role_text(t->config, role);
        uint32_t id;
        if ((text && clq_vocab_id(&t->vocab, text, &id)) || role_id(t, role, &id))
            clq_kv_set_u32(kvs, roles[i].gguf, id);
    }
}

static bool has_template(const json_t *json)
{
    const json_t *processor = json_object_get(json, "post_processor");
    const json_t *list = json_object_get(processor, "processors");
    if (!list) return json_object_get(processor, "single") != NULL;
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)list, i, one) if (json_object_get(one, "single")) return true;
    return false;
}

// Whether a tokenizer puts a token in front of (behind) a text: by its template where there is one,
// else by tokenizer_config.json's add_bos_token (add_eos_token).
static void write_add_flag(const clq_hf_tokenizer *t, const char *role, bool last,
                           clq_gguf_kvs *kvs)
{
    char key[64];
    bool add;
    snprintf(key, sizeof key, "add_%s_token", role);
    if (has_template(t->json))
        add = template_end(t->json, last) != NULL;
    else if (!clq_json_bool(t->config, key, &add))
        return;
    snprintf(key, sizeof key, "tokenizer.ggml.add_%s_token", role);
    clq_kv_set_bool(kvs, key, add);
}

// ---- chat template -----------------------------------------------------------------------------

static void write_named_template(const json_t *entry, clq_gguf_kvs *kvs, json_t *names)
{
    const char *name = clq_json_text(entry, "name"), *text = clq_json_text(entry, "template");
    char key[128];
    if (!name || !text || !*name || strlen(name) > 64) return;
    if (strcmp(name, "default") == 0) {
        clq_kv_set_string(kvs, "tokenizer.chat_template", text, strlen(text));
        return;
    }
    int prefix = snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
    for (int i = prefix - (int)strlen(name); i < prefix; i++)
        if (!isalnum((unsigned char)key[i])) key[i] = '_';
    clq_kv_set_string(kvs, key, text, strlen(text));
    json_array_append_new(names, json_string(key + prefix - strlen(name)));
}

static clq_status write_chat_template(const clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err)
{
    json_t *template = json_incref(json_object_get(t->config, "chat_template"));
    json_t *names = json_array();
    clq_status st = CLQ_OK;
    if (!template) {
        char *text;
        size_t len;
        CLQ_TRY_OUT(clq_text_load(t->source->path, "chat_template.jinja", &text, &len, err));
        if (text) clq_kv_set_string(kvs, "tokenizer.chat_template", text, len);
        free(text);
        goto out;
    }
    if (json_is_string(template))
        clq_kv_set_string(kvs, "tokenizer.chat_template", json_string_value(template),
                          json_string_length(template));
    size_t i;
    json_t *entry;
    json_array_foreach(template, i, entry) write_named_template(entry, kvs, names);
    size_t n = json_array_size(names);
    if (n > 0) {
        const char **texts = malloc(n * sizeof *texts);
        size_t *lengths = malloc(n * sizeof *lengths);
        if (!texts || !lengths) kvs->failed = true;
        for (i = 0; i < n && !kvs->failed; i++) {
            texts[i] = json_string_value(json_array_get(names, i));
            lengths[i] = strlen(texts[i]);
        }
        if (!kvs->failed) clq_kv_set_strings(kvs, "tokenizer.chat_templates", texts, lengths, n);
        free(texts);
        free(lengths);
    }
out:
    json_decref(names);
    json_decref(template);
    return st;
}

// ---- entry -------------------------------------------------------------------------------------

static clq_status unknown_kind(const clq_hf_tokenizer *t, clq_error *err)
{
    const char *type = clq_json_text(json_object_get(t->json, "model"), "type");
    if (t->json)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "tokenizer.json: a tokenizer of kind '%s' has no translation to GGUF; known "
            "are BPE and WordPiece",
            type ? type : "(none)");
    return clq_fail(
        err, CLQ_BAD_INPUT,
        "'%s' has neither tokenizer.json nor tokenizer.model nor vocab.txt; a GGUF file "
        "needs the tokenizer",
        t->source->path);
}

static clq_status read_kind(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err)
{
    const json_t *model = json_object_get(t->json, "model");
    const char *type = clq_json_text(model, "type");
    bool byte_fallback = false;
    clq_json_bool(model, "byte_fallback", &byte_fallback);
    if (t->json && !type && json_object_get(model, "merges")) type = "BPE";
    if (type && strcmp(type, "BPE") == 0)
        return byte_fallback ? clq_spm_to_gguf(t, kvs, err) : clq_bpe_to_gguf(t, kvs, err);
    if (type && strcmp(type, "WordPiece") == 0) return clq_wordpiece_to_gguf(t, kvs, err);
    if (t->json) return unknown_kind(t, err);
    if (clq_has_file(t->source->path, "tokenizer.model")) return clq_spm_to_gguf(t, kvs, err);
    if (clq_has_file(t->source->path, "vocab.txt")) return clq_wordpiece_to_gguf(t, kvs, err);
    return unknown_kind(t, err);
}

// One above the largest id of tokenizer.json.
static uint64_t ids_end(const json_t *json)
{
    json_int_t end = 0;
    const char *text;
    json_t *id, *token;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(json, "model"), "vocab"), text, id)
        if (json_integer_value(id) >= end) end = json_integer_value(id) + 1;
    json_array_foreach(json_object_get(json, "added_tokens"), i, token)
    {
        id = json_object_get(token, "id");
        if (json_integer_value(id) >= end) end = json_integer_value(id) + 1;
    }
    return (uint64_t)end;
}

clq_status clq_tokenizer_rows(const clq_source *hf, uint32_t n_rows, bool named, uint32_t *n,
                              clq_error *err)
{
    uint64_t end = n_rows;
    if (clq_has_file(hf->path, "tokenizer.model")) {
        char *data;
        size_t len;
        CLQ_TRY(clq_text_load(hf->path, "tokenizer.model", &data, &len, err));
        if (!named) end = clq_sentencepiece_count(data, len);
        free(data);
    } else {
        json_t *json;
        CLQ_TRY(clq_json_load(hf->path, "tokenizer.json", &json, err));
        if (json) end = ids_end(json);
        json_decref(json);
    }
    *n = end > 0 && end < n_rows ? (uint32_t)end : n_rows;
    return CLQ_OK;
}

clq_status clq_tokenizer_to_gguf(const clq_source *hf, const clq_hooks *hooks, uint32_t n_rows,
                                 clq_gguf_kvs *kvs, clq_error *err)
{
    clq_hf_tokenizer t = {.source = hf, .hooks = hooks};
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_json_load(hf->path, "tokenizer.json", &t.json, err));
    CLQ_TRY_OUT(clq_json_load(hf->path, "tokenizer_config.json", &t.config, err));
    CLQ_TRY_OUT(clq_vocab_create(&t.vocab, n_rows, err));
    CLQ_TRY_OUT(read_kind(&t, kvs, err));
    write_roles(&t, kvs);
    write_add_flag(&t, "bos", false, kvs);
    write_add_flag(&t, "eos", true, kvs);
    CLQ_TRY_OUT(write_chat_template(&t, kvs, err));
out:
    clq_vocab_free(&t.vocab);
    json_decref(t.config);
    json_decref(t.json);
    return st;
}

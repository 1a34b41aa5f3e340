// SPDX-License-Identifier: MIT
// SentencePiece BPE with byte fallback ("llama" in GGUF): a score orders the merges. tokenizer.json
// lists the merges instead.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

enum { ADDED_TOKEN_SCORE = -1000, FILLER_SCORE = -10000 };

// ---- to GGUF -----------------------------------------------------------------------------------

static bool is_byte_token(const char *text)
{
    unsigned byte;
    char end;
    return strlen(text) == 6 && sscanf(text, "<0x%2X%c", &byte, &end) == 2 && end == '>';
}

// The text that a merge makes, "left right" or ["left", "right"]; free() it.
static char *merged_text(const json_t *merge)
{
    const char *text = clq_json_string(merge);
    const char *left = text ? text : clq_json_string(json_array_get(merge, 0));
    const char *right = text ? strchr(text, ' ') : clq_json_string(json_array_get(merge, 1));
    if (!left || !right) return NULL;
    size_t n_left = text ? (size_t)(right - text) : strlen(left);
    if (text) right++;
    clq_buf b = {0};
    clq_buf_append(&b, left, n_left);
    clq_buf_text(&b, right);
    clq_buf_zeros(&b, 1);
    if (!b.failed) return b.data;
    clq_buf_free(&b);
    return NULL;
}

// A token scores minus the rank of the first merge that makes it, so the order of merges is kept.
// What no merge makes comes last.
static clq_status score_by_merges(clq_hf_tokenizer *t, const json_t *vocab, const json_t *merges,
                                  clq_error *err)
{
    size_t n = json_array_size(merges);
    if (n == 0 || n > CLQ_MAX_TOKENS)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tokenizer.json: model.merges is missing, empty or too long");
    for (uint32_t i = 0; i < t->vocab.n; i++) t->vocab.tokens[i].score = -(float)n;
    for (size_t i = n; i-- > 0;) {
        char *text = merged_text(json_array_get(merges, i));
        const json_t *id = text ? json_object_get(vocab, text) : NULL;
        free(text);
        if (!id)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tokenizer.json: merge %zu is malformed or makes text that is no token",
                            i);
        t->vocab.tokens[json_integer_value(id)].score = -(float)i;
    }
    return CLQ_OK;
}

static clq_status read_json(clq_hf_tokenizer *t, clq_error *err)
{
    const json_t *model = json_object_get(t->json, "model");
    const json_t *vocab = json_object_get(model, "vocab");
    CLQ_TRY(clq_vocab_put_object(t, vocab, err));
    CLQ_TRY(score_by_merges(t, vocab, json_object_get(model, "merges"), err));
    for (uint32_t i = 0; i < t->vocab.n; i++) {
        clq_token *token = &t->vocab.tokens[i];
        if (token->text && is_byte_token(token->text)) token->type = CLQ_TOKEN_BYTE;
    }
    const char *unknown = clq_json_text(model, "unk_token");
    uint32_t id;
    if (unknown && clq_vocab_id(&t->vocab, unknown, &id))
        t->vocab.tokens[id].type = CLQ_TOKEN_UNKNOWN;
    return CLQ_OK;
}

static clq_status read_model(clq_hf_tokenizer *t, bool *add_prefix, clq_error *err)
{
    char *data;
    size_t len;
    CLQ_TRY(clq_text_load(t->source->path, "tokenizer.model", &data, &len, err));
    clq_status st = clq_sentencepiece_read(data, len, &t->vocab, add_prefix, err);
    free(data);
    for (uint32_t i = 0; i < t->vocab.n; i++)
        if (t->vocab.tokens[i].type == CLQ_TOKEN_USER_DEFINED)
            clq_plain_spaces(t->vocab.tokens[i].text);
    return st;
}

// tokenizer.json's way to put a space in front of a text: the normalizer Prepend, or the
// pre-tokenizer Metaspace.
static bool json_adds_prefix(const json_t *json)
{
    const json_t *normalizer = json_object_get(json, "normalizer");
    json_t *list = json_object_get(normalizer, "normalizers");
    const char *type = clq_json_text(normalizer, "type");
    if (type && strcmp(type, "Prepend") == 0) return true;
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        type = clq_json_text(one, "type");
        if (type && strcmp(type, "Prepend") == 0) return true;
    }
    const json_t *metaspace = json_object_get(json, "pre_tokenizer");
    const char *scheme = clq_json_text(metaspace, "prepend_scheme");
    bool add = false;
    if (scheme) return strcmp(scheme, "never") != 0;
    return clq_json_bool(metaspace, "add_prefix_space", &add) && add;
}

clq_status clq_spm_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err)
{
    bool add_prefix = true;
    if (clq_has_file(t->source->path, "tokenizer.model")) {
        CLQ_TRY(read_model(t, &add_prefix, err));
    } else {
        CLQ_TRY(read_json(t, err));
        add_prefix = json_adds_prefix(t->json);
    }
    CLQ_TRY(clq_vocab_put_added(t, ADDED_TOKEN_SCORE, err));
    CLQ_TRY(clq_vocab_pad(&t->vocab, FILLER_SCORE, err));
    clq_json_bool(t->config, "add_prefix_space", &add_prefix);
    clq_kv_set_string(kvs, "tokenizer.ggml.model", "llama", 5);
    clq_kv_set_string(kvs, "tokenizer.ggml.pre", "default", 7);
    clq_kv_set_bool(kvs, "tokenizer.ggml.add_space_prefix", add_prefix);
    return clq_vocab_write(&t->vocab, true, kvs, err);
}

// ---- to Hugging Face ---------------------------------------------------------------------------

typedef struct merge {
    uint32_t left, right, token;
    float score;
} merge;

typedef struct merge_list {
    merge *items;
    size_t n, capacity;
} merge_list;

static bool add_merge(merge_list *list, merge m)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        merge *items = realloc(list->items, capacity * sizeof *items);
        if (!items) return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = m;
    return true;
}

// The best score first; of one token's merges, the one with the earlier left side.
static int by_rank(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

// All ways to cut a token in two tokens.
static bool add_cuts(merge_list *list, const clq_vocab *v, const json_t *vocab, uint32_t id)
{
    const char *text = v->tokens[id].text;
    size_t len = strlen(text);
    for (size_t cut = 1; cut < len; cut++) {
        if ((text[cut] & 0xc0) == 0x80) continue; // inside a character
        const json_t *left = json_object_getn(vocab, text, cut);
        const json_t *right = left ? json_object_getn(vocab, text + cut, len - cut) : NULL;
        if (!right) continue;
        merge m = {.left = (uint32_t)json_integer_value(left),
                   .right = (uint32_t)json_integer_value(right),
                   .token = id,
                   .score = v->tokens[id].score};
        if (v->tokens[m.left].type != CLQ_TOKEN_NORMAL) continue;
        if (v->tokens[m.right].type == CLQ_TOKEN_NORMAL && !add_merge(list, m)) return false;
    }
    return true;
}

static clq_status derive_merges(const clq_vocab *v, const json_t *vocab, json_t *merges,
                                clq_error *err)
{
    merge_list list = {0};
    bool failed = false;
    for (uint32_t i = 0; i < v->n && !failed; i++)
        if (v->tokens[i].type == CLQ_TOKEN_NORMAL) failed = !add_cuts(&list, v, vocab, i);
    if (!failed && list.n) qsort(list.items, list.n, sizeof *list.items, by_rank);
    for (size_t i = 0; i < list.n && !failed; i++) {
        const merge *m = &list.items[i];
        failed = json_array_append_new(merges, json_pack("[s, s]", v->tokens[m->left].text,
                                                         v->tokens[m->right].text)) != 0;
    }
    free(list.items);
    return failed ? clq_fail_memory(err, list.n * sizeof(merge)) : CLQ_OK;
}

static clq_status set_spaces(clq_gguf_tokenizer *t, bool add_prefix, clq_error *err)
{
    json_t *normalizers = json_array(), *decoders = json_array();
    if (add_prefix)
        json_array_append_new(normalizers,
                              json_pack("{s:s, s:s}", "type", "Prepend", "prepend", "\u2581"));
    json_array_append_new(normalizers, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace",
                                                 "pattern", "String", " ", "content", "\u2581"));
    json_array_append_new(decoders, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                              "String", "\u2581", "content", " "));
    json_array_append_new(decoders, json_pack("{s:s}", "type", "ByteFallback"));
    json_array_append_new(decoders, json_pack("{s:s}", "type", "Fuse"));
    if (add_prefix)
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                  "content", " ", "start", 1, "stop", 0));
    bool complete = json_array_size(normalizers) == (add_prefix ? 2 : 1) &&
                    json_array_size(decoders) == (add_prefix ? 4 : 3);
    clq_status st = complete ? CLQ_OK : clq_fail_memory(err, 64);
    if (st == CLQ_OK)
        st = clq_json_set(t->json, "normalizer",
                          json_pack("{s:s, s:O}", "type", "Sequence", "normalizers", normalizers),
                          err);
    if (st == CLQ_OK) st = clq_json_set(t->json, "pre_tokenizer", json_null(), err);
    if (st == CLQ_OK)
        st = clq_json_set(t->json, "decoder",
                          json_pack("{s:s, s:O}", "type", "Sequence", "decoders", decoders), err);
    json_decref(normalizers);
    json_decref(decoders);
    return st;
}

static clq_status set_post_processor(clq_gguf_tokenizer *t, clq_error *err)
{
    uint32_t bos, eos;
    bool add_bos = true, add_eos = false;
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_bos_token", &add_bos);
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_eos_token", &add_eos);
    CLQ_TRY(clq_json_set(t->config, "add_bos_token", json_boolean(add_bos), err));
    CLQ_TRY(clq_json_set(t->config, "add_eos_token", json_boolean(add_eos), err));
    add_bos = add_bos && clq_special_id(t, "tokenizer.ggml.bos_token_id", 1, &bos);
    add_eos = add_eos && clq_special_id(t, "tokenizer.ggml.eos_token_id", 2, &eos);
    json_t *template = add_bos || add_eos
                           ? clq_template_processor(&t->vocab, add_bos ? (int64_t)bos : -1,
                                                    add_eos ? (int64_t)eos : -1)
                           : json_null();
    return clq_json_set(t->json, "post_processor", template, err);
}

static clq_status add_model_file(clq_gguf_tokenizer *t, uint32_t unknown, bool add_prefix,
                                 clq_error *err)
{
    clq_buf b = {0};
    clq_sentencepiece_write(&t->vocab, unknown, add_prefix, &b);
    if (!b.failed) return clq_add_text_file(t->out, "tokenizer.model", b.data, b.len, err);
    clq_buf_free(&b);
    return clq_fail_memory(err, b.len);
}

clq_status clq_spm_to_hf(clq_gguf_tokenizer *t, clq_error *err)
{
    bool add_prefix = true;
    uint32_t unk;
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_space_prefix", &add_prefix);
    if (!clq_special_id(t, "tokenizer.ggml.unknown_token_id", 0, &unk))
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no unknown token");
    if (!clq_kv_find(t->kvs, "tokenizer.ggml.scores"))
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "metadata 'tokenizer.ggml.scores' is missing: the order of merges is unknown");
    json_t *vocab = clq_vocab_object(&t->vocab, err);
    if (!vocab) return CLQ_BAD_INPUT;
    json_t *merges = json_array();
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(derive_merges(&t->vocab, vocab, merges, err));
    CLQ_TRY_OUT(set_spaces(t, add_prefix, err));
    CLQ_TRY_OUT(set_post_processor(t, err));
    CLQ_TRY_OUT(clq_json_set(t->json, "model",
                             json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type",
                                       "BPE", "dropout", "unk_token", t->vocab.tokens[unk].text,
                                       "continuing_subword_prefix", "end_of_word_suffix",
                                       "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0,
                                       "vocab", vocab, "merges", merges),
                             err));
    CLQ_TRY_OUT(clq_json_set(t->config, "tokenizer_class", json_string("LlamaTokenizer"), err));
    CLQ_TRY_OUT(clq_json_set(t->config, "add_prefix_space", json_boolean(add_prefix), err));
    CLQ_TRY_OUT(clq_json_set(t->config, "legacy", json_true(), err));
    CLQ_TRY_OUT(add_model_file(t, unk, add_prefix, err));
out:
    json_decref(merges);
    json_decref(vocab);
    return st;
}

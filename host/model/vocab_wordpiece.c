// SPDX-License-Identifier: MIT
// BERT's WordPiece. Hugging Face marks what continues a word ("##ing"), GGUF what begins one
// (U+2581); control tokens stand as they are.
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

#define WORD_START "\u2581"

// ---- to GGUF -----------------------------------------------------------------------------------

static bool is_bert_control(const char *text)
{
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], text) == 0) return true;
    return false;
}

// vocab.txt: a token a line, the line's number is its id.
static clq_status read_vocab_txt(clq_hf_tokenizer *t, clq_error *err)
{
    char *text;
    size_t len;
    CLQ_TRY(clq_text_load(t->source->path, "vocab.txt", &text, &len, err));
    clq_status st = CLQ_OK;
    int64_t id = 0;
    for (char *line = text, *end = text + len; line && line < end && st == CLQ_OK; id++) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        char *stop = newline ? newline : end;
        size_t n = (size_t)(stop - line);
        if (n > 0 && line[n - 1] == '\r') n--;
        st = clq_vocab_put(&t->vocab, id, line, n, CLQ_TOKEN_NORMAL, 0, "vocab.txt", err);
        if (st == CLQ_OK && is_bert_control(t->vocab.tokens[id].text))
            t->vocab.tokens[id].type = CLQ_TOKEN_CONTROL;
        line = stop + 1;
    }
    free(text);
    return st;
}

// "##x" becomes "x", anything else but control tokens gets the mark in front.
static clq_status mark_word_starts(clq_vocab *v, clq_error *err)
{
    for (uint32_t i = 0; i < v->n; i++) {
        clq_token *token = &v->tokens[i];
        if (token->type == CLQ_TOKEN_CONTROL) continue;
        bool continues = strncmp(token->text, "##", 2) == 0;
        clq_buf b = {0};
        clq_buf_text(&b, continues ? token->text + 2 : WORD_START);
        if (!continues) clq_buf_text(&b, token->text);
        clq_buf_zeros(&b, 1);
        if (b.failed) return clq_fail_memory(err, b.len);
        free(token->text);
        token->text = b.data;
    }
    return CLQ_OK;
}

// The normalizer's choices that GGUF keeps. A Sequence gives those of its members.
static void write_normalizer(const json_t *normalizer, clq_gguf_kvs *kvs)
{
    static const struct {
        const char *member, *type, *key;
    } flags[] = {
        {"lowercase", "Lowercase", "tokenizer.ggml.normalizer.lowercase"},
        {"strip_accents", "StripAccents", "tokenizer.ggml.normalizer.strip_accents"},
    };
    const char *type = clq_json_text(normalizer, "type");
    for (size_t i = 0; type && i < sizeof flags / sizeof *flags; i++) {
        bool on = true;
        if (strcmp(type, flags[i].type) == 0 || clq_json_bool(normalizer, flags[i].member, &on))
            clq_kv_set_bool(kvs, flags[i].key, on);
    }
}

static void write_normalizers(const clq_hf_tokenizer *t, clq_gguf_kvs *kvs)
{
    const json_t *normalizer = json_object_get(t->json, "normalizer");
    json_t *list = json_object_get(normalizer, "normalizers");
    size_t i;
    json_t *one;
    write_normalizer(normalizer, kvs);
    json_array_foreach(list, i, one) write_normalizer(one, kvs);
    bool lowercase;
    if (!t->json && clq_json_bool(t->config, "do_lower_case", &lowercase))
        clq_kv_set_bool(kvs, "tokenizer.ggml.normalizer.lowercase", lowercase);
}

clq_status clq_wordpiece_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err)
{
    const json_t *model = json_object_get(t->json, "model");
    const char *prefix = clq_json_text(model, "continuing_subword_prefix");
    if (prefix && strcmp(prefix, "##") != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tokenizer.json: continuing_subword_prefix is '%s'; GGUF needs '##'",
                        prefix);
    if (t->json)
        CLQ_TRY(clq_vocab_put_object(t, json_object_get(model, "vocab"), err));
    else
        CLQ_TRY(read_vocab_txt(t, err));
    CLQ_TRY(clq_vocab_put_added(t, 0, err));
    CLQ_TRY(clq_vocab_pad(&t->vocab, 0, err));
    CLQ_TRY(mark_word_starts(&t->vocab, err));
    clq_kv_set_string(kvs, "tokenizer.ggml.model", "bert", 4);
    clq_kv_set_string(kvs, "tokenizer.ggml.pre", "bert-bge", 8);
    CLQ_TRY(clq_vocab_write(&t->vocab, false, kvs, err));
    write_normalizers(t, kvs);
    return CLQ_OK;
}

// ---- to Hugging Face ---------------------------------------------------------------------------

static clq_status unmark_word_starts(clq_vocab *v, clq_error *err)
{
    for (uint32_t i = 0; i < v->n; i++) {
        clq_token *token = &v->tokens[i];
        if (token->type == CLQ_TOKEN_CONTROL || clq_vocab_is_pad(v, i, "")) continue;
        bool starts = strncmp(token->text, WORD_START, strlen(WORD_START)) == 0;
        clq_buf b = {0};
        clq_buf_text(&b, starts ? token->text + strlen(WORD_START) : "##");
        if (!starts) clq_buf_text(&b, token->text);
        clq_buf_zeros(&b, 1);
        if (b.failed) return clq_fail_memory(err, b.len);
        free(token->text);
        token->text = b.data;
    }
    return CLQ_OK;
}

static clq_status write_vocab_txt(clq_gguf_tokenizer *t, clq_error *err)
{
    clq_buf b = {0};
    uint32_t n = t->vocab.n;
    while (n > 0 && clq_vocab_is_pad(&t->vocab, n - 1, "")) n--;
    for (uint32_t i = 0; i < n; i++) {
        clq_buf_text(&b, t->vocab.tokens[i].text);
        clq_buf_text(&b, "\n");
    }
    if (b.failed) {
        clq_buf_free(&b);
        return clq_fail_memory(err, n);
    }
    return clq_add_text_file(t->out, "vocab.txt", b.data, b.len, err);
}

// "[CLS] A [SEP]", "[CLS] A [SEP] B [SEP]"
static json_t *bert_processor(const clq_vocab *v, uint32_t cls, uint32_t sep)
{
    json_t *processor = clq_template_processor(v, cls, sep);
    const char *cls_text = v->tokens[cls].text, *sep_text = v->tokens[sep].text;
    json_t *pair = json_pack(
        "[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}]",
        "SpecialToken", "id", cls_text, "type_id", 0, "Sequence", "id", "A", "type_id", 0,
        "SpecialToken", "id", sep_text, "type_id", 0, "Sequence", "id", "B", "type_id", 1,
        "SpecialToken", "id", sep_text, "type_id", 1);
    if (processor && pair && json_object_set(processor, "pair", pair) == 0) {
        json_decref(pair);
        return processor;
    }
    json_decref(pair);
    json_decref(processor);
    return NULL;
}

clq_status clq_wordpiece_to_hf(clq_gguf_tokenizer *t, clq_error *err)
{
    uint32_t cls, sep, unk;
    bool lowercase = true, strip_accents, has_strip;
    if (!clq_cls_id(t, &cls))
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no [CLS] token");
    if (!clq_special_id(t, "tokenizer.ggml.seperator_token_id", 102, &sep))
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no [SEP] token");
    if (!clq_special_id(t, "tokenizer.ggml.unknown_token_id", 100, &unk))
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no [UNK] token");
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.normalizer.lowercase", &lowercase);
    has_strip = clq_kv_get_bool(t->kvs, "tokenizer.ggml.normalizer.strip_accents", &strip_accents);

    CLQ_TRY(unmark_word_starts(&t->vocab, err));
    CLQ_TRY(clq_vocab_check_unique(&t->vocab, err));
    json_t *vocab = clq_vocab_object(&t->vocab, err);
    if (!vocab) return CLQ_BAD_INPUT;
    json_t *strip = has_strip ? json_boolean(strip_accents) : json_null();
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_json_set(t->json, "normalizer",
                             json_pack("{s:s, s:b, s:b, s:O, s:b}", "type", "BertNormalizer",
                                       "clean_text", 1, "handle_chinese_chars", 1, "strip_accents",
                                       strip, "lowercase", (int)lowercase),
                             err));
    CLQ_TRY_OUT(clq_json_set(t->json, "pre_tokenizer",
                             json_pack("{s:s}", "type", "BertPreTokenizer"), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "post_processor", bert_processor(&t->vocab, cls, sep), err));
    CLQ_TRY_OUT(clq_json_set(
        t->json, "decoder",
        json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1), err));
    CLQ_TRY_OUT(
        clq_json_set(t->json, "model",
                     json_pack("{s:s, s:s, s:s, s:i, s:O}", "type", "WordPiece", "unk_token",
                               t->vocab.tokens[unk].text, "continuing_subword_prefix", "##",
                               "max_input_chars_per_word", 100, "vocab", vocab),
                     err));
    CLQ_TRY_OUT(clq_json_set(t->config, "tokenizer_class", json_string("BertTokenizer"), err));
    CLQ_TRY_OUT(clq_json_set(t->config, "do_lower_case", json_boolean(lowercase), err));
    CLQ_TRY_OUT(clq_json_set(t->config, "strip_accents", json_incref(strip), err));
    CLQ_TRY_OUT(clq_json_set(t->config, "tokenize_chinese_chars", json_true(), err));
    CLQ_TRY_OUT(write_vocab_txt(t, err));
out:
    json_decref(strip);
    json_decref(vocab);
    return st;
}

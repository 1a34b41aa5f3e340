// SPDX-License-Identifier: MIT
// Byte-level BPE ("gpt2" in GGUF): tokens and merges are spelt with GPT-2's printable bytes.
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

// ---- to GGUF -----------------------------------------------------------------------------------

// Appends one side of a merge. A space inside it is spelt as the byte-level letter of a space,
// since GGUF separates the two sides with one.
static void put_side(clq_buf *b, const char *text)
{
    for (; *text; text++) {
        if (*text == ' ')
            clq_buf_text(b, "Ġ");
        else
            clq_buf_append(b, text, 1);
    }
}

// A merge is "left right", or ["left", "right"] in newer files.
static clq_status put_merge(clq_buf *b, const json_t *merge, size_t index, clq_error *err)
{
    const char *text = clq_json_string(merge);
    if (text) {
        const char *space = strchr(text, ' ');
        if (space && space != text && space[1] && !strchr(space + 1, ' ')) {
            clq_buf_text(b, text);
            return CLQ_OK;
        }
    }
    const char *left = clq_json_string(json_array_get(merge, 0));
    const char *right = clq_json_string(json_array_get(merge, 1));
    if (!left || !right || !*left || !*right || json_array_size(merge) != 2)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tokenizer.json: merge %zu is neither \"left right\" nor [\"left\", "
                        "\"right\"]",
                        index);
    put_side(b, left);
    clq_buf_text(b, " ");
    put_side(b, right);
    return CLQ_OK;
}

static clq_status write_merges(const json_t *merges, clq_gguf_kvs *kvs, clq_error *err)
{
    if (!json_is_array(merges))
        return clq_fail(err, CLQ_BAD_INPUT, "tokenizer.json: model.merges is missing or no list");
    size_t n = json_array_size(merges), room = n ? n : 1; // none: every byte is a token
    clq_status st = CLQ_OK;
    clq_buf all = {0};
    size_t *ends = malloc(room * sizeof *ends), *lengths = malloc(room * sizeof *lengths);
    const char **texts = malloc(room * sizeof *texts);
    if (!ends || !lengths || !texts) {
        st = clq_fail_memory(err, n * 3 * sizeof *ends);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        CLQ_TRY_OUT(put_merge(&all, json_array_get(merges, i), i, err));
        ends[i] = all.len;
    }
    if (all.failed) {
        st = clq_fail_memory(err, all.len);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        size_t begin = i ? ends[i - 1] : 0;
        texts[i] = all.data + begin;
        lengths[i] = ends[i] - begin;
    }
    clq_kv_set_strings(kvs, "tokenizer.ggml.merges", texts, lengths, n);
out:
    free(texts);
    free(lengths);
    free(ends);
    clq_buf_free(&all);
    return st;
}

clq_status clq_bpe_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err)
{
    const clq_pretokenizer *pre = clq_pretokenizer_of(t->json);
    if (!pre)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "tokenizer.json: its \"pre_tokenizer\" is none of those that GGUF has a name "
            "for and clquant knows (as in GPT-2, Llama 3, Qwen 2, SmolLM, Tekken, "
            "GPT-4o, DeepSeek V3); texts would be cut wrongly");
    const json_t *model = json_object_get(t->json, "model");
    bool prefix_space;
    CLQ_TRY(clq_vocab_put_object(t, json_object_get(model, "vocab"), err));
    CLQ_TRY(clq_vocab_put_added(t, 0, err));
    CLQ_TRY(clq_vocab_pad(&t->vocab, 0, err));
    if (clq_json_bool(t->config, "add_prefix_space", &prefix_space))
        clq_kv_set_bool(kvs, "tokenizer.ggml.add_space_prefix", prefix_space);
    clq_kv_set_string(kvs, "tokenizer.ggml.model", "gpt2", 4);
    clq_kv_set_string(kvs, "tokenizer.ggml.pre", pre->names[0], strlen(pre->names[0]));
    CLQ_TRY(clq_vocab_write(&t->vocab, false, kvs, err));
    return write_merges(json_object_get(model, "merges"), kvs, err);
}

// ---- to Hugging Face ---------------------------------------------------------------------------

// Both sides of a merge and what they make must be tokens, or tokenizer libraries refuse the file.
static clq_status check_merge(const json_t *vocab, const char *text, size_t len, uint64_t index,
                              clq_error *err)
{
    const char *space = memchr(text, ' ', len);
    if (!space || space == text || space == text + len - 1)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.merges': entry %llu is not two "
                        "tokens with a space between them",
                        (unsigned long long)index);
    size_t left = (size_t)(space - text), right = len - left - 1;
    char *joined = malloc(left + right);
    if (!joined) return clq_fail_memory(err, len);
    memcpy(joined, text, left);
    memcpy(joined + left, space + 1, right);
    bool known = json_object_getn(vocab, text, left) && json_object_getn(vocab, space + 1, right) &&
                 json_object_getn(vocab, joined, left + right);
    free(joined);
    if (known) return CLQ_OK;
    return clq_fail(
        err, CLQ_BAD_INPUT,
        "metadata 'tokenizer.ggml.merges': entry %llu, '%.*s', joins or makes text that "
        "is no token",
        (unsigned long long)index, (int)(len < 200 ? len : 200), text);
}

static clq_status read_merges(const clq_gguf_kvs *kvs, const json_t *vocab, json_t *merges,
                              clq_error *err)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *cursor;
    if (!clq_kv_get_array(kvs, "tokenizer.ggml.merges", &element, &n, &cursor) ||
        element != CLQ_GGUF_STRING)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.merges' is missing or no list of strings");
    for (uint64_t i = 0; i < n; i++) {
        const char *text;
        size_t len;
        clq_kv_next_string(&cursor, &text, &len);
        CLQ_TRY(check_merge(vocab, text, len, i, err));
        if (json_array_append_new(merges, json_stringn(text, len)) != 0)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata 'tokenizer.ggml.merges': entry %llu is not UTF-8",
                            (unsigned long long)i);
    }
    return CLQ_OK;
}

// add_bos and add_eos of the metadata, or the defaults of the pre-tokenizer.
static json_t *post_processor(const clq_gguf_tokenizer *t, const clq_pretokenizer *pre)
{
    bool add_bos = pre->add_bos, add_eos = false;
    uint32_t bos, eos;
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_bos_token", &add_bos);
    clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_eos_token", &add_eos);
    add_bos = add_bos && clq_special_id(t, "tokenizer.ggml.bos_token_id", -1, &bos);
    add_eos = add_eos && clq_special_id(t, "tokenizer.ggml.eos_token_id", -1, &eos);
    if (!add_bos && !add_eos) return json_null();
    json_t *template =
        clq_template_processor(&t->vocab, add_bos ? (int64_t)bos : -1, add_eos ? (int64_t)eos : -1);
    return json_pack("{s:s, s:[{s:s, s:b, s:b, s:b}, o]}", "type", "Sequence", "processors", "type",
                     "ByteLevel", "add_prefix_space", 1, "trim_offsets", 0, "use_regex", 1,
                     template);
}

clq_status clq_bpe_to_hf(clq_gguf_tokenizer *t, clq_error *err)
{
    char *name = clq_kv_dup_string(t->kvs, "tokenizer.ggml.pre");
    const clq_pretokenizer *pre = clq_pretokenizer_find(name ? name : "default");
    json_t *vocab = NULL, *merges = json_array();
    clq_status st = CLQ_OK;
    if (!pre) {
        st = clq_fail(
            err, CLQ_BAD_INPUT,
            "metadata 'tokenizer.ggml.pre' is '%s', a way to cut texts that clquant cannot "
            "write to tokenizer.json",
            name ? name : "(missing)");
        goto out;
    }
    vocab = clq_vocab_object(&t->vocab, err);
    if (!vocab) {
        st = CLQ_BAD_INPUT;
        goto out;
    }
    CLQ_TRY_OUT(read_merges(t->kvs, vocab, merges, err));
    bool prefix_space = false;
    if (clq_kv_get_bool(t->kvs, "tokenizer.ggml.add_space_prefix", &prefix_space))
        CLQ_TRY_OUT(clq_json_set(t->config, "add_prefix_space", json_boolean(prefix_space), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "normalizer",
                             pre->nfc ? json_pack("{s:s}", "type", "NFC") : json_null(), err));
    CLQ_TRY_OUT(
        clq_json_set(t->json, "pre_tokenizer", clq_pretokenizer_json(pre, prefix_space), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "post_processor", post_processor(t, pre), err));
    CLQ_TRY_OUT(clq_json_set(t->json, "decoder",
                             json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel",
                                       "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1),
                             err));
    CLQ_TRY_OUT(clq_json_set(t->json, "model",
                             json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type",
                                       "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                                       "ignore_merges", (int)pre->ignore_merges, "vocab", vocab,
                                       "merges", merges),
                             err));
    CLQ_TRY_OUT(
        clq_json_set(t->config, "tokenizer_class", json_string("PreTrainedTokenizerFast"), err));
out:
    json_decref(merges);
    json_decref(vocab);
    free(name);
    return st;
}

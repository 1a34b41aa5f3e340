// SPDX-License-Identifier: MIT
// Makes a tokenizer of metadata, and frames texts with the tokens that the model wants around them.
#include "model/tokenizer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/tokenize.h"
#include <xxhash.h>

// ---- tokens ------------------------------------------------------------------------------------

static uint32_t slot_of(const clq_tokenizer *t, const char *text, size_t len)
{
    return (uint32_t)XXH3_64bits(text, len) & (t->n_slots - 1);
}

int32_t clq_token_find(const clq_tokenizer *t, const char *text, size_t len)
{
    if (len > t->max_token_bytes) return -1;
    for (uint32_t at = slot_of(t, text, len); t->by_text[at]; at = (at + 1) & (t->n_slots - 1)) {
        uint32_t own_len, id = t->by_text[at] - 1;
        const char *own = clq_token_text(t, id, &own_len);
        if (own_len == len && memcmp(own, text, len) == 0) return (int32_t)id;
    }
    return -1;
}

static uint32_t word_at(const uint8_t *elements, uint64_t i)
{
    const uint8_t *p = elements + 4 * i;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

// An array with a 32-bit entry for each token; NULL: there is no such key.
static clq_status numbers(const clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, clq_gguf_type other,
                          uint32_t n, const uint8_t **elements, clq_gguf_type *element, clq_error *err)
{
    uint64_t count;
    *elements = NULL;
    if (!clq_kv_find(kvs, key)) return CLQ_OK;
    if (clq_kv_get_array(kvs, key, element, &count, elements) && (*element == type || *element == other) && count >= n)
        return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' must have a number for each of the %u tokens", key, n);
}

static clq_status read_texts(clq_tokenizer *t, const uint8_t *cursor, clq_error *err)
{
    clq_buf texts = {0};
    for (uint32_t i = 0; i < t->n; i++) {
        const char *text;
        size_t len;
        clq_kv_next_string(&cursor, &text, &len);
        if (len > CLQ_MAX_TOKEN_BYTES) {
            clq_buf_free(&texts);
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata 'tokenizer.ggml.tokens': token %u has %zu bytes; at most %d are possible", i, len,
                            CLQ_MAX_TOKEN_BYTES);
        }
        if (len)
            clq_buf_append(&texts, text, len);
        else
            clq_buf_printf(&texts, "[EMPTY_%u]", i); // so that no two tokens are equal
        if (texts.len > UINT32_MAX) texts.failed = true;
        t->ends[i] = (uint32_t)texts.len;
        uint32_t own = t->ends[i] - (i ? t->ends[i - 1] : 0);
        if (own > t->max_token_bytes) t->max_token_bytes = own;
    }
    t->texts = texts.data; // freed with the tokenizer
    return texts.failed ? clq_fail_memory(err, texts.len) : CLQ_OK;
}

static clq_status index_texts(clq_tokenizer *t, clq_error *err)
{
    for (t->n_slots = 16; t->n_slots < 2 * t->n; t->n_slots *= 2) {}
    t->by_text = calloc(t->n_slots, sizeof *t->by_text);
    if (!t->by_text) return clq_fail_memory(err, t->n_slots * sizeof *t->by_text);
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t len;
        const char *text = clq_token_text(t, i, &len);
        int32_t same = clq_token_find(t, text, len);
        if (same >= 0)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata 'tokenizer.ggml.tokens': the tokens %d and %u are both '%.*s'", same, i,
                            (int)(len < 200 ? len : 200), text);
        uint32_t at = slot_of(t, text, len);
        while (t->by_text[at]) at = (at + 1) & (t->n_slots - 1);
        t->by_text[at] = i + 1;
    }
    return CLQ_OK;
}

static clq_status read_tokens(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    clq_gguf_type element, kind;
    uint64_t n;
    const uint8_t *cursor, *types, *scores;
    if (!clq_kv_get_array(kvs, "tokenizer.ggml.tokens", &element, &n, &cursor) || element != CLQ_GGUF_STRING)
        return clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.tokens' is missing or no list of strings");
    if (n == 0 || n > CLQ_MAX_TOKENS)
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has %llu tokens; 1 to %d are possible",
                        (unsigned long long)n, CLQ_MAX_TOKENS);
    t->n = (uint32_t)n;
    t->ends = malloc(n * sizeof *t->ends);
    t->types = malloc(n);
    t->scores = malloc(n * sizeof *t->scores);
    t->is_end = calloc(n, sizeof *t->is_end);
    if (!t->ends || !t->types || !t->scores || !t->is_end) return clq_fail_memory(err, n * 10);
    CLQ_TRY(numbers(kvs, "tokenizer.ggml.token_type", CLQ_GGUF_I32, CLQ_GGUF_I32, t->n, &types, &kind, err));
    CLQ_TRY(numbers(kvs, "tokenizer.ggml.scores", CLQ_GGUF_F32, CLQ_GGUF_I32, t->n, &scores, &kind, err));
    CLQ_TRY(read_texts(t, cursor, err));
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t type = types ? word_at(types, i) : CLQ_TOKEN_NORMAL;
        uint32_t bits = scores ? word_at(scores, i) : 0;
        t->types[i] = type <= CLQ_TOKEN_BYTE ? (uint8_t)type : 0;
        t->scores[i] = kind == CLQ_GGUF_I32 && scores ? (float)(int32_t)bits : clq_from_bits(bits);
        if (t->scores[i] != t->scores[i])
            return clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.scores': token %u has NaN", i);
    }
    return index_texts(t, err);
}

// ---- special tokens ----------------------------------------------------------------------------

static clq_status read_id(const clq_tokenizer *t, const clq_gguf_kvs *kvs, const char *key, int32_t *id, clq_error *err)
{
    uint64_t v;
    if (*id >= (int32_t)t->n) *id = -1; // a default of the kind
    if (!clq_kv_find(kvs, key)) return CLQ_OK;
    if (!clq_kv_get_u64(kvs, key, &v) || v >= t->n)
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no token: the vocabulary has %u", key, t->n);
    *id = (int32_t)v;
    return CLQ_OK;
}

static void set_end(clq_tokenizer *t, int32_t id)
{
    if (id >= 0) t->is_end[id] = true;
}

static int32_t find_text(const clq_tokenizer *t, const char *text)
{
    return clq_token_find(t, text, strlen(text));
}

// A folder's tokenizer.json says itself which tokens are special.
static void set_type(clq_tokenizer *t, int32_t id, clq_token_type type)
{
    if (!t->hf) t->types[id] = (uint8_t)type;
}

static void mark(clq_tokenizer *t, const char *const *texts, size_t n, clq_token_type type, bool ends)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = find_text(t, texts[i]);
        if (id < 0) continue;
        set_type(t, id, type);
        if (ends) t->is_end[id] = true;
    }
}

// Which tokens mean by their text that generation ends is llama.cpp's knowledge (llama-vocab.cpp).
static void find_ends(clq_tokenizer *t)
{
    static const char *const ends[] = {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
        "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
    };
    static const char *const code_ends[] = { // padding, repository and file marks of code models
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
        "<REPO>", "<reponame>", "<|file_sep|>",
    };
    static const char *const marks[] = { // of code models: control tokens whatever the file says
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
        "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>",
        "▁<MID>", "<|code_middle|>", "<|middle|>",
    };
    static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    mark(t, ends, sizeof ends / sizeof *ends, CLQ_TOKEN_CONTROL, true);
    mark(t, code_ends, sizeof code_ends / sizeof *code_ends, CLQ_TOKEN_CONTROL, true);
    mark(t, marks, sizeof marks / sizeof *marks, CLQ_TOKEN_CONTROL, false);
    mark(t, shown, sizeof shown / sizeof *shown, CLQ_TOKEN_USER_DEFINED, false);
    set_end(t, t->eos);
    set_end(t, t->eot);
    set_end(t, t->eom);
    // Where answers have parts, <|end|> ends a part only. Where tools are called, </s> is plain text.
    bool parts =
        (find_text(t, "<|return|>") >= 0 && (find_text(t, "<|call|>") >= 0 || find_text(t, "<|calls|>") >= 0)) ||
        ((find_text(t, "<|call|>") >= 0 || find_text(t, "<|calls|>") >= 0) && find_text(t, "<|flush|>") >= 0);
    int32_t end = parts ? find_text(t, "<|end|>") : -1;
    if (end >= 0) {
        t->is_end[end] = false;
        set_type(t, end, CLQ_TOKEN_USER_DEFINED);
    }
    int32_t plamo = find_text(t, "<|plamo:eos|>"), closed = find_text(t, "</s>");
    if (closed >= 0 && (find_text(t, "<|tool_response>") >= 0 || (plamo >= 0 && t->is_end[plamo]))) {
        t->is_end[closed] = false;
        set_type(t, closed, CLQ_TOKEN_NORMAL);
    }
}

static bool contains(const clq_gguf_kvs *kvs, const char *key, const char *const *parts)
{
    char *text = clq_kv_dup_string(kvs, key);
    bool found = false;
    for (char *c = text; c && *c; c++) *c = (char)tolower((unsigned char)*c);
    for (; text && *parts && !found; parts++) found = strstr(text, *parts) != NULL;
    free(text);
    return found;
}

// White space that goes with a token. GGUF does not have it; llama.cpp knows some models by name.
static clq_status find_strips(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    static const char *const jina[] = {"jina-v2-de", "jina-v2-es", "jina-v2-code", NULL};
    static const char *const nomic[] = {"nomic-bert-moe", "jina-bert-v3", NULL};
    static const char *const phi3[] = {"phi-3", "phi3", NULL};
    static const char *const modern[] = {"modern-bert", NULL};
    static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
    const char *left = NULL;
    bool is_phi = false;
    if (contains(kvs, "tokenizer.ggml.pre", jina) || contains(kvs, "general.architecture", nomic))
        left = "<mask>";
    else if (contains(kvs, "general.name", phi3))
        is_phi = true;
    else if (contains(kvs, "general.name", modern))
        left = "[MASK]";
    if (!left && !is_phi) return CLQ_OK;
    t->strips = calloc(t->n, 1);
    if (!t->strips) return clq_fail_memory(err, t->n);
    int32_t id = left ? find_text(t, left) : -1;
    if (id >= 0) t->strips[id] = CLQ_STRIP_LEFT;
    for (uint32_t i = 0; is_phi && i < t->n; i++)
        if (t->types[i] == CLQ_TOKEN_CONTROL || t->types[i] == CLQ_TOKEN_USER_DEFINED ||
            t->types[i] == CLQ_TOKEN_UNKNOWN)
            t->strips[i] = CLQ_STRIP_RIGHT;
    for (size_t i = 0; is_phi && i < sizeof plain / sizeof *plain; i++)
        if ((id = find_text(t, plain[i])) >= 0) t->strips[id] = 0;
    return CLQ_OK;
}

static clq_status index_special(clq_tokenizer *t, clq_error *err)
{
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t len;
        const char *text = clq_token_text(t, i, &len);
        bool user = t->types[i] == CLQ_TOKEN_USER_DEFINED;
        // A folder's unknown token that is no added token is of this type; one that is, is a control token.
        bool control = t->types[i] == CLQ_TOKEN_CONTROL || (t->types[i] == CLQ_TOKEN_UNKNOWN && !t->hf);
        if (user && !clq_trie_add(&t->special[0], text, len, (int32_t)i)) return clq_fail_memory(err, len);
        if ((user || control) && !clq_trie_add(&t->special[1], text, len, (int32_t)i)) return clq_fail_memory(err, len);
    }
    return CLQ_OK;
}

// ---- kinds -------------------------------------------------------------------------------------

static clq_status gemma4_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    return clq_bpe_create(t, kvs, true, err);
}

static clq_status gpt2_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    return clq_bpe_create(t, kvs, false, err);
}

static const struct kind {
    const char *name;
    clq_status (*create)(clq_tokenizer *, const clq_gguf_kvs *, clq_error *);
    int32_t bos, eos, unknown, sep, pad, mask; // where the metadata has none
    bool add_bos, add_eos, add_space_prefix;
} kinds[] = {
    {"gpt2", gpt2_create, 11, 11, -1, -1, -1, -1, false, false, false},
    {"gemma4", gemma4_create, -1, -1, -1, -1, -1, -1, true, false, false},
    {"llama", clq_spm_create, 1, 2, 0, -1, -1, -1, true, false, true},
    {"t5", clq_unigram_create, -1, 1, 2, -1, 0, -1, false, true, false},
    {"bert", clq_wordpiece_create, 101, -1, 100, 102, 0, 103, true, true, false},
};

static clq_status read_roles(clq_tokenizer *t, const clq_gguf_kvs *kvs, const struct kind *kind, clq_error *err)
{
    const struct {
        const char *key;
        int32_t *id, none;
    } roles[] = {
        {"tokenizer.ggml.bos_token_id", &t->bos, kind->bos},
        {"tokenizer.ggml.eos_token_id", &t->eos, kind->eos},
        {"tokenizer.ggml.eot_token_id", &t->eot, -1},
        {"tokenizer.ggml.eom_token_id", &t->eom, -1},
        {"tokenizer.ggml.unknown_token_id", &t->unknown, kind->unknown},
        {"tokenizer.ggml.seperator_token_id", &t->sep, kind->sep},
        {"tokenizer.ggml.padding_token_id", &t->pad, kind->pad},
        {"tokenizer.ggml.mask_token_id", &t->mask, kind->mask},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        *roles[i].id = roles[i].none;
        CLQ_TRY(read_id(t, kvs, roles[i].key, roles[i].id, err));
    }
    t->add_bos = kind->add_bos;
    t->add_eos = kind->add_eos;
    t->add_space_prefix = kind->add_space_prefix;
    return CLQ_OK;
}

static clq_status create(const clq_gguf_kvs *kvs, clq_tokenizer *t, clq_error *err)
{
    const char *model;
    size_t len, k = 0, n_kinds = sizeof kinds / sizeof *kinds;
    if (!clq_kv_get_string(kvs, "tokenizer.ggml.model", &model, &len))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.model' is missing: the model has no tokenizer");
    while (k < n_kinds && (strlen(kinds[k].name) != len || memcmp(kinds[k].name, model, len) != 0)) k++;
    if (k == n_kinds)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.model' is '%.*s'; known are gpt2, gemma4, llama, t5 and bert",
                        (int)(len < 100 ? len : 100), model);
    CLQ_TRY(read_tokens(t, kvs, err));
    CLQ_TRY(read_roles(t, kvs, &kinds[k], err));
    CLQ_TRY(kinds[k].create(t, kvs, err));
    clq_kv_get_bool(kvs, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix);
    t->prefix_space = t->add_space_prefix && kinds[k].create == clq_spm_create;
    if (kinds[k].create != clq_wordpiece_create) { // [CLS] and [SEP] always
        clq_kv_get_bool(kvs, "tokenizer.ggml.add_bos_token", &t->add_bos);
        clq_kv_get_bool(kvs, "tokenizer.ggml.add_eos_token", &t->add_eos);
        if (t->newlines) t->add_bos = true; // Gemma 4's files say false and mean true
    } else {
        t->eos = t->sep;
    }
    if (t->add_bos && t->bos < 0) return clq_fail(err, CLQ_BAD_INPUT, "the model wants a BOS token and has none");
    if (t->add_eos && t->eos < 0) return clq_fail(err, CLQ_BAD_INPUT, "the model wants an EOS token and has none");
    find_ends(t);
    if (!t->hf) CLQ_TRY(find_strips(t, kvs, err));
    CLQ_TRY(index_special(t, err));
    t->chat_template = clq_kv_dup_string(kvs, "tokenizer.chat_template");
    return CLQ_OK;
}

static clq_status create_as(const clq_gguf_kvs *kvs, bool hf, clq_tokenizer **out, clq_error *err)
{
    clq_tokenizer *t = *out = calloc(1, sizeof *t);
    if (!t) return clq_fail_memory(err, sizeof *t);
    t->hf = hf;
    clq_status st = create(kvs, t, err);
    if (st == CLQ_OK) return CLQ_OK;
    clq_tokenizer_free(t);
    *out = NULL;
    return st;
}

clq_status clq_tokenizer_create(const clq_gguf_kvs *kvs, clq_tokenizer **t, clq_error *err)
{
    return create_as(kvs, false, t, err);
}

clq_status clq_tokenizer_create_hf(const clq_gguf_kvs *kvs, clq_tokenizer **t, clq_error *err)
{
    return create_as(kvs, true, t, err);
}

void clq_tokenizer_free(clq_tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < sizeof t->patterns / sizeof *t->patterns; i++) pcre2_code_free(t->patterns[i]);
    clq_trie_free(&t->special[0]);
    clq_trie_free(&t->special[1]);
    clq_trie_free(&t->all);
    clq_pair_map_free(&t->merges);
    clq_pair_map_free(&t->neighbours);
    free(t->charsmap);
    free(t->chat_template);
    free(t->strips);
    free(t->by_text);
    free(t->is_end);
    free(t->scores);
    free(t->types);
    free(t->ends);
    free(t->texts);
    free(t);
}

// ---- texts -------------------------------------------------------------------------------------

enum { CACHE_FROM_BYTES = 4096 }; // shorter texts do not earn the cache

static void end_work(clq_tokenize_work *w)
{
    pcre2_jit_stack_free(w->stack);
    pcre2_match_context_free(w->context);
    pcre2_match_data_free(w->match);
    clq_buf_free(&w->text);
    clq_buf_free(&w->subject);
    clq_buf_free(&w->lengths[0]);
    clq_buf_free(&w->lengths[1]);
    free(w->cache);
    free(w->heap);
    free(w->symbols);
}

static clq_status encode_fragments(const clq_tokenizer *t, clq_tokenize_work *w, const char *text,
                                   const clq_buf *fragments, clq_error *err)
{
    const clq_fragment *f = (const clq_fragment *)(const void *)fragments->data;
    bool after_special = true; // the begin counts as such
    clq_buf spaced = {0};
    clq_status st = CLQ_OK;
    for (size_t i = 0; i < fragments->len / sizeof *f && st == CLQ_OK; i++) {
        const char *part = text + f[i].begin;
        size_t len = f[i].len;
        if (f[i].id >= 0) {
            clq_put_id(w, f[i].id);
            after_special = true;
            continue;
        }
        if (t->bare_space) { // SentencePiece: a space in front, spaces spelt as U+2581
            spaced.len = 0;
            if (t->prefix_space && after_special) clq_buf_text(&spaced, "\u2581");
            for (const char *end = part + len; part < end;) {
                const char *space = memchr(part, ' ', (size_t)(end - part));
                clq_buf_append(&spaced, part, (size_t)((space ? space : end) - part));
                if (space) clq_buf_text(&spaced, "\u2581");
                part = space ? space + 1 : end;
            }
            part = spaced.data;
            len = spaced.len;
        }
        st = spaced.failed ? clq_fail_memory(err, spaced.len) : t->encode(t, w, part, len, err);
        after_special = false;
    }
    clq_buf_free(&spaced);
    return st;
}

clq_status clq_tokenize(const clq_tokenizer *t, const char *text, size_t len, unsigned flags, clq_buf *ids,
                        clq_error *err)
{
    clq_tokenize_work w = {.ids = ids};
    clq_buf fragments = {0};
    clq_status st = CLQ_OK;
    if (len > CLQ_MAX_TEXT_BYTES)
        return clq_fail(err, CLQ_BAD_INPUT, "a text of %zu bytes is too long to become tokens at once; at most %d are "
                                            "possible", len, CLQ_MAX_TEXT_BYTES);
    if (len >= CACHE_FROM_BYTES) w.cache = clq_cache_create(); // NULL: slower
    CLQ_TRY_OUT(clq_find_special(t, text, len, flags & CLQ_TOKENIZE_PARSE, &fragments, err));
    if (flags & CLQ_TOKENIZE_SPECIAL && t->add_bos) clq_put_id(&w, t->bos);
    CLQ_TRY_OUT(encode_fragments(t, &w, text, &fragments, err));
    if (flags & CLQ_TOKENIZE_SPECIAL && t->add_eos) clq_put_id(&w, t->eos);
    if (ids->failed) st = clq_fail_memory(err, len);
out:
    clq_buf_free(&fragments);
    end_work(&w);
    return st;
}

clq_status clq_token_piece(const clq_tokenizer *t, int32_t id, bool special, clq_buf *out, clq_error *err)
{
    uint32_t len;
    if (id < 0 || (uint32_t)id >= t->n)
        return clq_fail(err, CLQ_BAD_INPUT, "%d is no token: the vocabulary has %u", id, t->n);
    const char *text = clq_token_text(t, (uint32_t)id, &len);
    switch (t->types[id]) {
    case CLQ_TOKEN_CONTROL:
    case CLQ_TOKEN_UNKNOWN:
        if (special) clq_buf_append(out, text, len);
        break;
    case CLQ_TOKEN_USER_DEFINED:
        clq_buf_append(out, text, len);
        break;
    case CLQ_TOKEN_BYTE: {
        unsigned byte;
        char copy[8] = {0};
        memcpy(copy, text, len < 7 ? len : 7);
        if (sscanf(copy, "<0x%2X>", &byte) == 1) clq_buf_append(out, &(char){(char)byte}, 1);
        break;
    }
    case CLQ_TOKEN_NORMAL:
        for (uint32_t i = 0, n; i < len; i += n) {
            int byte = t->letters ? clq_letter_byte(clq_utf8_decode(text + i, len - i, &n)) : -1;
            if (!t->letters) n = clq_utf8_length((unsigned char)text[i]);
            if (n > len - i) n = len - i;
            if (byte >= 0)
                clq_buf_append(out, &(char){(char)byte}, 1);
            else if (!t->letters && n == 3 && memcmp(text + i, "\u2581", 3) == 0)
                clq_buf_append(out, " ", 1);
            else
                clq_buf_append(out, text + i, n);
        }
        break;
    default:
        break;
    }
    return out->failed ? clq_fail_memory(err, len) : CLQ_OK;
}

// ---- questions ---------------------------------------------------------------------------------

uint32_t clq_tokenizer_count(const clq_tokenizer *t) { return t->n; }
int32_t clq_tokenizer_bos(const clq_tokenizer *t) { return t->bos; }
int32_t clq_tokenizer_eos(const clq_tokenizer *t) { return t->eos; }
int32_t clq_tokenizer_pad(const clq_tokenizer *t) { return t->pad; }
int32_t clq_tokenizer_unknown(const clq_tokenizer *t) { return t->unknown; }
int32_t clq_tokenizer_mask(const clq_tokenizer *t) { return t->mask; }
bool clq_tokenizer_adds_bos(const clq_tokenizer *t) { return t->add_bos; }
bool clq_tokenizer_adds_eos(const clq_tokenizer *t) { return t->add_eos; }

bool clq_tokenizer_is_end(const clq_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n && t->is_end[id];
}

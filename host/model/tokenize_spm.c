// SPDX-License-Identifier: MIT
// SentencePiece BPE: of all neighbours whose text is a token, those of the best score are merged first. What is no
// token in the end becomes byte tokens.
#include <stdio.h>
#include <string.h>

#include "model/tokenize.h"

static uint64_t neighbour_key(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) + 1;
}

// A character as a number, malformed ones too: its bytes.
static uint32_t character(const char *text, size_t len, uint32_t *n)
{
    uint32_t c = 0;
    *n = clq_utf8_length((unsigned char)*text);
    if (*n > len) *n = (uint32_t)len;
    for (uint32_t i = 0; i < *n; i++) c = c << 8 | (unsigned char)text[i];
    return c;
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err);

clq_status clq_spm_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    if (!clq_kv_find(kvs, "tokenizer.ggml.scores"))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.scores' is missing: the order of merges is unknown");
    for (unsigned b = 0; b < 256; b++) {
        char spelt[8], byte = (char)b;
        t->bytes[b] = clq_token_find(t, spelt, (size_t)snprintf(spelt, sizeof spelt, "<0x%02X>", b));
        if (t->bytes[b] < 0) t->bytes[b] = clq_token_find(t, &byte, 1);
    }
    // Two characters that no token has side by side are never merged over: there a text may be cut.
    for (uint32_t id = 0; id < t->n; id++) {
        uint32_t len, n, left = 0;
        const char *token = clq_token_text(t, id, &len);
        for (uint32_t i = 0; i < len; i += n) {
            uint32_t c = character(token + i, len - i, &n);
            if (i && !clq_pair_map_add(&t->neighbours, neighbour_key(left, c), 0, 0)) return clq_fail_memory(err, len);
            left = c;
        }
    }
    t->bare_space = true;
    t->encode = encode;
    return CLQ_OK;
}

// A number that falls as the score rises; equal for -0 and 0.
static uint32_t rank_of(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return ~(bits >> 31 ? ~bits : bits | 0x80000000u);
}

static bool pair(const clq_tokenizer *t, const char *text, const clq_symbol *left, const clq_symbol *right,
                 uint32_t *rank, int32_t *id)
{
    *id = clq_token_find(t, text + left->begin, left->len + right->len);
    if (*id >= 0) *rank = rank_of(t->scores[*id]);
    return *id >= 0;
}

static clq_status encode_word(const clq_tokenizer *t, clq_tokenize_work *w, const char *word, size_t len,
                              clq_error *err)
{
    bool hit;
    clq_cached_word *slot = clq_cache_slot(w, word, len, &hit);
    if (hit) {
        clq_buf_append(w->ids, slot->ids, slot->n * sizeof *slot->ids);
        return CLQ_OK;
    }
    size_t n_before = w->ids->len / sizeof(int32_t);
    w->n_symbols = 0;
    for (uint32_t i = 0, n; i < len; i += n) {
        n = clq_utf8_length((unsigned char)word[i]);
        if (n > len - i) n = (uint32_t)len - i;
        if (!clq_work_add_symbol(w, i, n, clq_token_find(t, word + i, n))) return clq_fail_memory(err, len);
    }
    if (!clq_merge_symbols(t, w, word, pair)) return clq_fail_memory(err, len);
    for (int32_t i = w->n_symbols ? 0 : -1; i >= 0; i = w->symbols[i].next) {
        const clq_symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            clq_put_id(w, s->id);
            continue;
        }
        for (uint32_t k = 0; k < s->len; k++) {
            int32_t id = t->bytes[(unsigned char)word[s->begin + k]];
            if (id < 0) id = t->unknown;
            if (id >= 0) clq_put_id(w, id);
        }
    }
    clq_cache_put(w, slot, word, len, n_before);
    return CLQ_OK;
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err)
{
    size_t begin = 0;
    uint32_t n, left = 0;
    for (size_t i = 0; i < len; i += n) {
        uint32_t c = character(text + i, len - i, &n);
        if (i && !clq_pair_map_find(&t->neighbours, neighbour_key(left, c))) {
            CLQ_TRY(encode_word(t, w, text + begin, i - begin, err));
            begin = i;
        }
        left = c;
    }
    return len ? encode_word(t, w, text + begin, len - begin, err) : CLQ_OK;
}

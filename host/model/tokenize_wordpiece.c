// SPDX-License-Identifier: MIT
// BERT's WordPiece: words are cut at spaces and punctuation; each is the longest token that begins it, then the longest
// that goes on, or unknown as a whole.
#include <string.h>

#include "model/tokenize.h"

enum { MAX_WORD_CHARS = 100 }; // `tokenizers`: longer words are unknown

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err);

clq_status clq_wordpiece_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    t->lowercase = true;
    clq_kv_get_bool(kvs, "tokenizer.ggml.normalizer.lowercase", &t->lowercase);
    t->strip_accents = t->lowercase;
    clq_kv_get_bool(kvs, "tokenizer.ggml.normalizer.strip_accents", &t->strip_accents);
    if (t->unknown < 0) return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no [UNK] token");
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t len;
        const char *text = clq_token_text(t, i, &len);
        if (!clq_trie_add(&t->all, text, len, (int32_t)i)) return clq_fail_memory(err, len);
    }
    t->encode = encode;
    return CLQ_OK;
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) ||
           (c >= 0x2b920 && c <= 0x2ceaf) || // 0x2b820 is meant; both peers have this
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void put_word(const clq_tokenizer *t, clq_tokenize_work *w, const char *word, size_t len, uint32_t n_chars)
{
    size_t before = w->ids->len;
    bool known = !t->hf || n_chars <= MAX_WORD_CHARS;
    // GGUF's words begin with U+2581, which w->text has in front.
    for (size_t i = 0; known && i < len;) {
        int32_t id = -1;
        size_t end = 0;
        uint32_t node = 0;
        // Only llama.cpp takes the character U+2581 in a text for GGUF's mark.
        bool marked = t->hf && i > 0 && len - i >= 3 && memcmp(word + i, "\u2581", 3) == 0;
        for (size_t k = i; k < len && !marked; k++) {
            node = clq_trie_step(&t->all, node, (unsigned char)word[k]);
            if (!node) break;
            if (t->all.ids[node] < 0) continue;
            id = t->all.ids[node];
            end = k + 1;
        }
        known = id >= 0;
        if (known) clq_put_id(w, id);
        i = end;
    }
    if (known) return;
    w->ids->len = before;
    clq_put_id(w, t->unknown);
}

// The word grows in w->text.
static void end_word(const clq_tokenizer *t, clq_tokenize_work *w, uint32_t *n_chars)
{
    if (*n_chars && !w->text.failed) put_word(t, w, w->text.data, w->text.len, *n_chars);
    w->text.len = 0;
    clq_buf_text(&w->text, "\u2581");
    *n_chars = 0;
}

static void put_char(const clq_tokenizer *t, clq_tokenize_work *w, uint32_t *n_chars, uint32_t c, uint32_t lower)
{
    bool ascii_symbol = c < 0x7f && strchr("$+<=>^`|~", (int)c) && c;
    unsigned flags = t->hf ? clq_char_flags_hf(c) : clq_char_flags(c);
    bool alone = flags & CLQ_CHAR_PUNCTUATION || ascii_symbol || is_chinese(c);
    if (alone) end_word(t, w, n_chars);
    clq_utf8_append(&w->text, lower);
    ++*n_chars;
    if (alone) end_word(t, w, n_chars);
}

// llama.cpp: of a character's decomposition the first part is kept, whatever follows.
static void encode_llama(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len)
{
    uint32_t n_chars = 0;
    end_word(t, w, &n_chars);
    for (size_t i = 0; i < len;) {
        uint32_t n, parts[4], c = clq_utf8_decode(text + i, len - i, &n);
        i += n;
        if (t->strip_accents && c >= 0xc0) {
            clq_char_decompose(c, parts);
            c = parts[0];
        }
        unsigned flags = clq_char_flags(c);
        if (clq_char_is_space(c)) {
            end_word(t, w, &n_chars);
            continue;
        }
        if (c == 0 || c == 0xfffd || flags & CLQ_CHAR_CONTROL) continue;
        if (t->strip_accents && flags & (CLQ_CHAR_MARK | CLQ_CHAR_NONSPACING)) continue;
        put_char(t, w, &n_chars, c, t->lowercase ? clq_char_lower(c) : c);
    }
    end_word(t, w, &n_chars);
}

// `tokenizers`: the whole decomposition, without nonspacing marks; then lower case; then the cut.
static bool encode_hf(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len)
{
    clq_buf *chars = &w->lengths[0], *parts = &w->lengths[1];
    chars->len = parts->len = 0;
    for (size_t i = 0; i < len;) {
        uint32_t n, c = clq_utf8_decode(text + i, len - i, &n);
        i += n;
        bool space = clq_char_is_space(c);
        if (c == 0 || c == 0xfffd || (clq_char_flags_hf(c) & CLQ_CHAR_CONTROL && c != '\t' && c != '\n' && c != '\r'))
            continue;
        if (space) c = ' ';
        if (is_chinese(c)) clq_buf_append(chars, &(uint32_t){' '}, sizeof c);
        clq_buf_append(chars, &c, sizeof c);
        if (is_chinese(c)) clq_buf_append(chars, &(uint32_t){' '}, sizeof c);
    }
    if (chars->failed) return false;
    const clq_buf *from = chars;
    if (t->strip_accents) {
        if (!clq_chars_nfd((const uint32_t *)(const void *)chars->data, chars->len / sizeof(uint32_t), parts))
            return false;
        from = parts;
    }
    uint32_t n_chars = 0;
    end_word(t, w, &n_chars);
    for (size_t i = 0; i < from->len / sizeof(uint32_t); i++) {
        uint32_t c = ((const uint32_t *)(const void *)from->data)[i];
        if (t->strip_accents && clq_char_flags_hf(c) & CLQ_CHAR_NONSPACING) continue;
        if (c == ' ') {
            end_word(t, w, &n_chars);
            continue;
        }
        bool dotted = t->lowercase && c == 0x130; // the only character whose lower case is two
        uint32_t lower = dotted ? 'i' : t->lowercase ? clq_char_lower(c) : c;
        put_char(t, w, &n_chars, lower, lower);
        if (dotted) put_char(t, w, &n_chars, 0x307, 0x307);
    }
    end_word(t, w, &n_chars);
    return true;
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err)
{
    bool ok = true;
    if (t->hf)
        ok = encode_hf(t, w, text, len);
    else
        encode_llama(t, w, text, len);
    return ok && !w->text.failed ? CLQ_OK : clq_fail_memory(err, len);
}

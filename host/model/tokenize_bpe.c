// SPDX-License-Identifier: MIT
// BPE: a text is cut into words by patterns, a word's bytes (or characters) are merged in the order of a list.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenize.h"

// ---- GPT-2's letters for bytes ------------------------------------------------------------------

// Printable Latin-1 stands for itself; the other 68 bytes have the letters from U+0100 on.
static uint32_t byte_letter(unsigned b)
{
    if (b < 0x21) return 0x100 + b;
    if (b < 0x7f) return b;
    if (b < 0xa1) return 0x121 + b - 0x7f;
    return b == 0xad ? 0x143 : b;
}

int clq_letter_byte(uint32_t c)
{
    if (c >= 0x100 && c < 0x121) return (int)(c - 0x100);
    if (c >= 0x121 && c < 0x143) return (int)(c - 0x121 + 0x7f);
    if (c == 0x143) return 0xad;
    return (c >= 0x21 && c < 0x7f) || (c >= 0xa1 && c < 0x100 && c != 0xad) ? (int)c : -1;
}

// ---- making ------------------------------------------------------------------------------------

static clq_status read_merge(clq_tokenizer *t, const char *text, size_t len, uint32_t rank, clq_error *err)
{
    // The first side may begin with a space.
    const char *space = len > 2 ? memchr(text + 1, ' ', len - 1) : NULL;
    size_t n_left = space ? (size_t)(space - text) : 0, n_right = space ? len - n_left - 1 : 0;
    if (n_right == 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.merges': entry %u is not two tokens with a space between them", rank);
    char joined[2 * CLQ_MAX_TOKEN_BYTES];
    int32_t left = clq_token_find(t, text, n_left), right = clq_token_find(t, space + 1, n_right), whole = -1;
    if (left >= 0 && right >= 0) { // so they fit
        memcpy(joined, text, n_left);
        memcpy(joined + n_left, space + 1, n_right);
        whole = clq_token_find(t, joined, n_left + n_right);
    }
    if (whole < 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.merges': entry %u, '%.*s', joins or makes text that is no token",
                        rank, (int)(len < 200 ? len : 200), text);
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    return clq_pair_map_add(&t->merges, key, rank, whole) ? CLQ_OK : clq_fail_memory(err, len);
}

static clq_status read_merges(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *cursor;
    if (!clq_kv_get_array(kvs, "tokenizer.ggml.merges", &element, &n, &cursor) || element != CLQ_GGUF_STRING)
        return clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.merges' is missing or no list of strings");
    if (n > CLQ_MAX_TOKENS)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata 'tokenizer.ggml.merges' has %llu entries; at most %d are possible",
                        (unsigned long long)n, CLQ_MAX_TOKENS);
    for (uint64_t i = 0; i < n; i++) {
        const char *text;
        size_t len;
        clq_kv_next_string(&cursor, &text, &len);
        CLQ_TRY(read_merge(t, text, len, (uint32_t)i, err));
    }
    return CLQ_OK;
}

// \s and \S of PCRE2 count U+180E as white space, which no Unicode since 6.3 and no other engine does.
static void put_pattern(clq_buf *out, const char *pattern)
{
    bool inside = false; // a class
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && (p[1] == 's' || p[1] == 'S')) {
            if (!inside) clq_buf_text(out, p[1] == 's' ? "[" : "[^");
            clq_buf_text(out, "\\t-\\r \\x{85}\\p{Z}"); // a class never has \S in it
            if (!inside) clq_buf_text(out, "]");
            p++;
            continue;
        }
        if (*p == '\\' && p[1]) {
            clq_buf_append(out, p, 2);
            p++;
            continue;
        }
        if (*p == '[') inside = true;
        if (*p == ']') inside = false;
        clq_buf_append(out, p, 1);
    }
    clq_buf_zeros(out, 1);
}

static clq_status compile(clq_tokenizer *t, size_t i, const char *pattern, clq_error *err)
{
    clq_buf own = {0};
    int code;
    PCRE2_SIZE at;
    put_pattern(&own, pattern);
    if (own.failed) return clq_fail_memory(err, own.len);
    t->patterns[i] =
        pcre2_compile((PCRE2_SPTR)own.data, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    clq_buf_free(&own);
    if (!t->patterns[i])
        return clq_fail(err, CLQ_BAD_INPUT, "the pre-tokenizer's pattern '%s' is not understood (%d)", pattern, code);
    pcre2_jit_compile(t->patterns[i], PCRE2_JIT_COMPLETE); // without it: slower
    return CLQ_OK;
}

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static clq_status unknown_cut(const char *name, size_t len, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT,
                    "metadata 'tokenizer.ggml.pre' is '%.*s', a way to cut texts that clquant does not know",
                    (int)(len < 100 ? len : 100), name);
}

// tokenizer.json's patterns.
static clq_status use_hf_cut(clq_tokenizer *t, const char *name, size_t len, clq_error *err)
{
    char copy[64] = {0};
    if (len >= sizeof copy) return unknown_cut(name, len, err);
    memcpy(copy, name, len);
    const clq_pretokenizer *p = clq_pretokenizer_find(copy);
    if (!p) return unknown_cut(name, len, err);
    size_t n = 0;
    for (size_t i = 0; i < sizeof p->splits / sizeof *p->splits && p->splits[i]; i++)
        CLQ_TRY(compile(t, n++, p->splits[i], err));
    if (p->digits) CLQ_TRY(compile(t, n++, "\\p{N}", err));
    if (p->byte_level_regex) CLQ_TRY(compile(t, n++, gpt2_pattern, err));
    t->ignore_merges = p->ignore_merges;
    t->nfc = p->nfc;
    t->add_bos = p->add_bos;
    return CLQ_OK;
}

static clq_status use_cut(clq_tokenizer *t, const char *name, size_t len, const clq_gguf_kvs *kvs, clq_error *err)
{
    const clq_cut *cut = clq_cut_find(name, len);
    if (!cut) return unknown_cut(name, len, err);
    for (size_t i = 0; i < sizeof cut->patterns / sizeof *cut->patterns && cut->patterns[i]; i++)
        CLQ_TRY(compile(t, i, cut->patterns[i], err));
    t->ignore_merges = cut->ignore_merges;
    t->add_bos |= cut->add_bos;
    t->letters = !cut->raw;
    t->newlines = cut->newlines;
    t->bare_space = cut->raw;
    if (cut->no_bos && !clq_kv_find(kvs, "tokenizer.ggml.bos_token_id")) t->bos = -1;
    return CLQ_OK;
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err);

clq_status clq_bpe_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, bool gemma4, clq_error *err)
{
    const char *name = "default";
    size_t len = 7;
    clq_kv_get_string(kvs, "tokenizer.ggml.pre", &name, &len);
    if (len == 0) name = "default", len = 7;
    if (gemma4) name = "gemma4", len = 6;
    t->letters = true;
    if (t->hf)
        CLQ_TRY(use_hf_cut(t, name, len, err));
    else
        CLQ_TRY(use_cut(t, name, len, kvs, err));
    for (unsigned b = 0; b < 256; b++) {
        char spelt[8];
        clq_buf letter = {0};
        if (t->letters)
            clq_utf8_append(&letter, byte_letter(b));
        else
            clq_buf_append(&letter, spelt, (size_t)snprintf(spelt, sizeof spelt, "<0x%02X>", b));
        t->bytes[b] = letter.failed ? -1 : clq_token_find(t, letter.data, letter.len);
        clq_buf_free(&letter);
    }
    t->encode = encode;
    return read_merges(t, kvs, err);
}

// ---- words -------------------------------------------------------------------------------------

static bool pair(const clq_tokenizer *t, const char *text, const clq_symbol *left, const clq_symbol *right,
                 uint32_t *rank, int32_t *id)
{
    (void)text;
    if (left->id < 0 || right->id < 0) return false;
    uint64_t key = ((uint64_t)(uint32_t)left->id << 32 | (uint32_t)right->id) + 1;
    const struct clq_pair *p = clq_pair_map_find(&t->merges, key);
    if (!p) return false;
    *rank = p->rank;
    *id = p->id;
    return true;
}

// The token that a whole word is, -1: none.
static int32_t whole_word(const clq_tokenizer *t, const char *word, size_t len)
{
    char spelt[2 * CLQ_MAX_TOKEN_BYTES];
    size_t at = 0;
    if (len > t->max_token_bytes) return -1;
    if (!t->letters) return clq_token_find(t, word, len);
    for (size_t i = 0; i < len; i++) {
        uint32_t letter = byte_letter((unsigned char)word[i]);
        if (letter < 0x80) {
            spelt[at++] = (char)letter;
        } else {
            spelt[at++] = (char)(0xc0 | letter >> 6);
            spelt[at++] = (char)(0x80 | (letter & 0x3f));
        }
    }
    return clq_token_find(t, spelt, at);
}

static bool only_newlines(const char *word, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (word[i] != '\n') return false;
    return true;
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
    int32_t whole = t->ignore_merges || (t->newlines && only_newlines(word, len)) ? whole_word(t, word, len) : -1;
    w->n_symbols = 0;
    if (whole >= 0) {
        clq_put_id(w, whole);
    } else {
        for (uint32_t i = 0, n; i < len; i += n) {
            n = t->letters ? 1 : clq_utf8_length((unsigned char)word[i]);
            if (n > len - i) n = (uint32_t)len - i;
            int32_t id = t->letters ? t->bytes[(unsigned char)word[i]] : clq_token_find(t, word + i, n);
            if (!clq_work_add_symbol(w, i, n, id)) return clq_fail_memory(err, len);
        }
        if (!clq_merge_symbols(t, w, word, pair)) return clq_fail_memory(err, len);
    }
    for (int32_t i = w->n_symbols ? 0 : -1; i >= 0; i = w->symbols[i].next) {
        const clq_symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            clq_put_id(w, s->id);
            continue;
        }
        // No token: its bytes, as far as those are tokens; what is none is lost, as in llama.cpp.
        for (uint32_t k = 0; k < s->len; k++) {
            int32_t id = t->bytes[(unsigned char)word[s->begin + k]];
            if (id >= 0) clq_put_id(w, id);
        }
    }
    clq_cache_put(w, slot, word, len, n_before);
    return CLQ_OK;
}

// ---- cutting -----------------------------------------------------------------------------------

enum { JIT_STACK_BYTES = 1 << 20 };

static clq_status begin_matching(clq_tokenize_work *w, clq_error *err)
{
    if (w->match) return CLQ_OK;
    w->match = pcre2_match_data_create(8, NULL);
    w->context = pcre2_match_context_create(NULL);
    w->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_BYTES, NULL);
    if (!w->match || !w->context) return clq_fail_memory(err, JIT_STACK_BYTES);
    pcre2_set_match_limit(w->context, UINT32_MAX);
    pcre2_set_depth_limit(w->context, UINT32_MAX);
    if (w->stack) pcre2_jit_stack_assign(w->context, NULL, w->stack);
    return CLQ_OK;
}

static void put_length(clq_buf *lengths, size_t n)
{
    uint32_t length = (uint32_t)n;
    if (n) clq_buf_append(lengths, &length, sizeof length);
}

// Cuts a piece at the matches of a pattern: appends the lengths of the parts.
static clq_status cut_piece(const clq_tokenizer *t, size_t pattern, clq_tokenize_work *w, const char *piece, size_t len,
                            clq_buf *lengths, clq_error *err)
{
    size_t done = 0, from = 0;
    while (from <= len) {
        int rc = pcre2_match(t->patterns[pattern], (PCRE2_SPTR)piece, len, from, PCRE2_NO_UTF_CHECK, w->match,
                             w->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(t->patterns[pattern], (PCRE2_SPTR)piece, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             w->match, w->context);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0)
            return clq_fail(err, rc == PCRE2_ERROR_NOMEMORY ? CLQ_DEVICE : CLQ_BAD_INPUT,
                            "the pre-tokenizer's pattern failed on a text of %zu bytes (PCRE2 error %d)", len, rc);
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->match);
        put_length(lengths, at[0] - done);
        put_length(lengths, at[1] - at[0]);
        done = from = at[1];
        if (at[1] == at[0]) from += from < len ? clq_utf8_length((unsigned char)piece[from]) : 1;
    }
    if (len > done) put_length(lengths, len - done);
    return lengths->failed ? clq_fail_memory(err, len) : CLQ_OK;
}

// Makes w->text of text: valid UTF-8 but for surrogates; and w->subject, where those are replaced by characters that
// the patterns treat alike.
static void make_valid(clq_tokenize_work *w, const char *text, size_t len)
{
    w->text.len = w->subject.len = 0;
    for (size_t i = 0; i < len;) {
        uint32_t n, c = clq_utf8_decode(text + i, len - i, &n);
        clq_utf8_append(&w->text, c);
        clq_utf8_append(&w->subject, c >= 0xd800 && c < 0xe000 ? 0xe000 : c);
        i += n;
    }
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err)
{
    const char *subject = text;
    CLQ_TRY(begin_matching(w, err));
    if (!clq_utf8_valid(text, len)) {
        make_valid(w, text, len);
        if (w->text.failed || w->subject.failed) return clq_fail_memory(err, len);
        text = w->text.data;
        subject = w->subject.data;
        len = w->text.len;
    }
    if (t->hf && t->add_space_prefix && len && *text != ' ') {
        clq_buf *b = &w->lengths[0]; // spare until the text is cut
        b->len = 0;
        clq_buf_append(b, " ", 1);
        clq_buf_append(b, text, len);
        if (b->failed) return clq_fail_memory(err, len);
        clq_buf spaced = *b;
        *b = w->text;
        w->text = spaced;
        text = subject = spaced.data;
        len = spaced.len;
    }
    if (t->nfc) {
        w->subject.len = 0;
        if (!clq_text_nfc(text, len, &w->subject)) return clq_fail_memory(err, len);
        text = subject = w->subject.data;
        len = w->subject.len;
    }
    clq_buf *from = &w->lengths[0], *to = &w->lengths[1];
    from->len = 0;
    put_length(from, len);
    for (size_t i = 0; i < sizeof t->patterns / sizeof *t->patterns && t->patterns[i]; i++) {
        size_t at = 0;
        to->len = 0;
        for (size_t k = 0; k < from->len / sizeof(uint32_t); k++) {
            size_t n = ((const uint32_t *)(const void *)from->data)[k];
            CLQ_TRY(cut_piece(t, i, w, subject + at, n, to, err));
            at += n;
        }
        clq_buf *other = from;
        from = to;
        to = other;
    }
    size_t at = 0;
    for (size_t k = 0; k < from->len / sizeof(uint32_t); k++) {
        size_t n = ((const uint32_t *)(const void *)from->data)[k];
        CLQ_TRY(encode_word(t, w, text + at, n, err));
        at += n;
    }
    return CLQ_OK;
}

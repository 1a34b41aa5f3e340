// SPDX-License-Identifier: MIT
// SentencePiece unigram ("t5" in GGUF): of all ways to cut a text into tokens, the one with the largest sum of scores.
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenize.h"

#define SPACE "\u2581"

static const float unknown_penalty = 10.0f;

static uint32_t load_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err);

static clq_status read_charsmap(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *bytes;
    if (!clq_kv_find(kvs, key)) return CLQ_OK;
    if (!clq_kv_get_array(kvs, key, &element, &n, &bytes) || (element != CLQ_GGUF_U8 && element != CLQ_GGUF_I8))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no list of bytes", key);
    if (n == 0) return CLQ_OK;
    // A length, that many bytes of a double array, then replacements that end with NUL.
    if (n < 5 || n > 1 << 28 || load_u32(bytes) > n - 5 || load_u32(bytes) % 4 || bytes[n - 1] != 0)
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is malformed", key);
    t->charsmap = malloc(n);
    if (!t->charsmap) return clq_fail_memory(err, n);
    memcpy(t->charsmap, bytes, n);
    t->n_charsmap = (uint32_t)n;
    return CLQ_OK;
}

clq_status clq_unigram_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err)
{
    float least = FLT_MAX;
    if (!clq_kv_find(kvs, "tokenizer.ggml.scores"))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata 'tokenizer.ggml.scores' is missing");
    if (t->unknown < 0) return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has no unknown token");
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t len;
        const char *text = clq_token_text(t, i, &len);
        uint8_t type = t->types[i];
        if (type == CLQ_TOKEN_NORMAL && t->scores[i] < least) least = t->scores[i];
        if (type != CLQ_TOKEN_NORMAL && type != CLQ_TOKEN_USER_DEFINED && type != CLQ_TOKEN_UNUSED) continue;
        if (!clq_trie_add(&t->all, text, len, (int32_t)i)) return clq_fail_memory(err, len);
    }
    t->unknown_score = least - unknown_penalty;
    clq_kv_get_bool(kvs, "tokenizer.ggml.remove_extra_whitespaces", &t->remove_extra_spaces);
    t->encode = encode;
    return read_charsmap(t, kvs, err);
}

// ---- normalization -----------------------------------------------------------------------------

// The double array's entries hold: the byte that leads here (0-7), whether a prefix ends (8), the distance to the
// children (10-30, times 256 if bit 9 is set), or with bit 31 a replacement's place.
static uint32_t node_at(const clq_tokenizer *t, uint32_t i, bool *ok)
{
    uint32_t n = load_u32(t->charsmap) / 4;
    *ok = *ok && i < n;
    return *ok ? load_u32(t->charsmap + 4 + 4 * (size_t)i) : 0;
}

static uint32_t children(uint32_t node)
{
    return (node >> 10) << ((node & 1u << 9) >> 6);
}

// The longest prefix of text that has a replacement; 0 bytes: none.
static size_t replaced_prefix(const clq_tokenizer *t, const char *text, size_t len, const char **with, size_t *n_with)
{
    size_t longest = 0;
    uint32_t place = 0;
    bool ok = t->charsmap != NULL;
    if (!ok) return 0;
    uint32_t at = children(node_at(t, 0, &ok));
    for (size_t i = 0; i < len && text[i]; i++) {
        unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        uint32_t node = node_at(t, at, &ok);
        if (!ok || (node & (1u << 31 | 0xff)) != byte) break;
        at ^= children(node);
        if (!(node >> 8 & 1)) continue;
        longest = i + 1;
        place = node_at(t, at, &ok) & 0x7fffffff;
    }
    uint64_t begin = 4ull + load_u32(t->charsmap) + place;
    if (longest == 0 || begin >= t->n_charsmap) return 0;
    *with = (const char *)t->charsmap + begin; // the last byte is NUL
    *n_with = strlen(*with);
    return longest;
}

static size_t user_defined_prefix(const clq_tokenizer *t, const char *text, size_t len)
{
    const clq_trie *trie = &t->special[0];
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = clq_trie_step(trie, node, (unsigned char)text[i]);
        if (!node) break;
        if (trie->ids[node] >= 0) longest = i + 1;
    }
    return longest;
}

// Appends the normalized text: replacements made, spaces spelt as U+2581.
static void normalize(const clq_tokenizer *t, const char *text, size_t len, clq_buf *out)
{
    bool in_word = false, prefixed = false;
    for (size_t i = 0; i < len;) {
        const char *with = text + i;
        size_t n_with = user_defined_prefix(t, text + i, len - i), n = n_with;
        if (!n) n = replaced_prefix(t, text + i, len - i, &with, &n_with);
        if (!n) {
            uint32_t n_char, c = clq_utf8_decode(text + i, len - i, &n_char);
            bool bad = c == 0xfffd && n_char == 1;
            with = bad ? "\ufffd" : text + i;
            n = n_char;
            n_with = bad ? 3 : n;
        }
        for (size_t k = 0; k < n_with; k++) {
            if (with[k] != ' ') {
                if (!in_word && ((t->add_space_prefix && !prefixed) || t->remove_extra_spaces)) {
                    clq_buf_text(out, SPACE);
                    prefixed = true;
                }
                in_word = true;
                clq_buf_append(out, with + k, 1);
            } else {
                in_word = false;
                if (!t->remove_extra_spaces) clq_buf_text(out, SPACE);
            }
        }
        i += n;
    }
}

// ---- the best way ------------------------------------------------------------------------------

typedef struct step {
    double score; // of the best way up to here
    int32_t id;   // its last token
    uint32_t from;
} step;

static void reach(step *s, double score, int32_t id, size_t from)
{
    if (score > s->score) *s = (step){.score = score, .id = id, .from = (uint32_t)from};
}

static void find_best(const clq_tokenizer *t, const char *text, size_t len, step *steps)
{
    for (size_t i = 1; i <= len; i++) steps[i] = (step){.score = -DBL_MAX, .id = t->unknown};
    steps[0] = (step){.score = 0, .id = t->unknown};
    for (size_t i = 0, n; i < len; i += n) {
        bool whole_char = false;
        uint32_t node = 0;
        n = clq_utf8_length((unsigned char)text[i]);
        if (n > len - i) n = len - i;
        for (size_t k = i; k < len; k++) {
            node = clq_trie_step(&t->all, node, (unsigned char)text[k]);
            if (!node) break;
            int32_t id = t->all.ids[node];
            if (id < 0) continue;
            if (k + 1 - i == n) whole_char = true;
            double score = t->types[id] == CLQ_TOKEN_USER_DEFINED ? 0 : (double)t->scores[id];
            reach(&steps[k + 1], steps[i].score + score, id, i);
        }
        if (!whole_char) reach(&steps[i + n], steps[i].score + (double)t->unknown_score, t->unknown, i);
    }
}

static clq_status encode(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len, clq_error *err)
{
    w->text.len = 0;
    normalize(t, text, len, &w->text);
    if (w->text.failed) return clq_fail_memory(err, len);
    size_t n = w->text.len, begin = w->ids->len / sizeof(int32_t);
    if (n == 0) return CLQ_OK;
    step *steps = malloc((n + 1) * sizeof *steps);
    if (!steps) return clq_fail_memory(err, (n + 1) * sizeof *steps);
    find_best(t, w->text.data, n, steps);
    // From the end; a run of unknown characters is one token.
    for (size_t at = n, after_unknown = 0; at > 0; at = steps[at].from) {
        bool unknown = steps[at].id == t->unknown;
        if (!(unknown && after_unknown)) clq_put_id(w, steps[at].id);
        after_unknown = unknown;
    }
    free(steps);
    if (w->ids->failed) return clq_fail_memory(err, n);
    int32_t *ids = (int32_t *)(void *)w->ids->data;
    for (size_t i = begin, k = w->ids->len / sizeof *ids; i + 1 < k; i++) {
        int32_t id = ids[i];
        ids[i] = ids[--k];
        ids[k] = id;
    }
    return CLQ_OK;
}

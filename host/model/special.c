// SPDX-License-Identifier: MIT
// Tokens that stand in a text as such: added tokens, control tokens. llama.cpp looks for the longest tokens in the
// whole text first; `tokenizers` goes from left to right and takes the longest one at each place.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenize.h"

static bool put(clq_buf *fragments, size_t begin, size_t len, int32_t id)
{
    clq_fragment f = {.begin = (uint32_t)begin, .len = (uint32_t)len, .id = id};
    if (len) clq_buf_append(fragments, &f, sizeof f);
    return !fragments->failed;
}

// The longest token at text, shorter than limit bytes.
static int32_t longest(const clq_trie *t, const char *text, size_t len, uint32_t limit, uint32_t *n)
{
    int32_t id = -1;
    if (len >= limit) len = limit - 1;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = clq_trie_step(t, node, (unsigned char)text[i]);
        if (!node) break;
        if (t->ids[node] < 0) continue;
        id = t->ids[node];
        *n = (uint32_t)i + 1;
    }
    return id;
}

// ---- `tokenizers` ------------------------------------------------------------------------------

static bool find_leftmost(const clq_trie *trie, const char *text, size_t len, clq_buf *fragments)
{
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        uint32_t n;
        int32_t id = trie->first[(unsigned char)text[i]] ? longest(trie, text + i, len - i, UINT32_MAX, &n) : -1;
        if (id < 0) {
            i++;
            continue;
        }
        if (!put(fragments, done, i - done, -1) || !put(fragments, i, n, id)) return false;
        done = i += n;
    }
    return put(fragments, done, len - done, -1) || !fragments->failed;
}

// ---- llama.cpp ---------------------------------------------------------------------------------

typedef struct match {
    uint32_t at, len;
    int32_t id;
} match;

// Longer tokens first, then by id, then from left to right.
static int by_length(const void *a, const void *b)
{
    const match *x = a, *y = b;
    if (x->len != y->len) return x->len > y->len ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

// Every place where a token begins, with the longest one there.
static void find_all(const clq_trie *trie, const char *text, size_t len, clq_buf *matches)
{
    for (size_t i = 0; i < len; i++) {
        if (!trie->first[(unsigned char)text[i]]) continue;
        match m = {.at = (uint32_t)i};
        m.id = longest(trie, text + i, len - i, UINT32_MAX, &m.len);
        if (m.id >= 0) clq_buf_append(matches, &m, sizeof m);
    }
}

static bool is_free(const uint8_t *taken, const match *m)
{
    return !memchr(taken + m->at, 1, m->len);
}

// Takes the white space beside a token away, up to where other tokens are.
static void strip(const clq_tokenizer *t, const char *text, size_t len, uint8_t *taken, const match *m)
{
    uint8_t strips = t->strips ? t->strips[m->id] : 0;
    if (strips & CLQ_STRIP_LEFT)
        for (size_t i = m->at; i > 0 && !taken[i - 1] && isspace((unsigned char)text[i - 1]); i--) taken[i - 1] = 1;
    if (strips & CLQ_STRIP_RIGHT)
        for (size_t i = m->at + m->len; i < len && !taken[i] && isspace((unsigned char)text[i]); i++) taken[i] = 1;
}

// Takes matches in order of length. One that no longer fits is tried again with the next shorter token at its place.
// Fills the tokens that were taken into *kept.
static bool take_longest(const clq_tokenizer *t, const clq_trie *trie, const char *text, size_t len, clq_buf *matches,
                         uint8_t *taken, clq_buf *kept)
{
    while (matches->len) {
        clq_buf shorter = {0};
        size_t n = matches->len / sizeof(match);
        match *m = (match *)(void *)matches->data;
        qsort(m, n, sizeof *m, by_length);
        // Shorter tokens may have to go before what comes later in this list, so stop at the first length that
        // shortened matches reach.
        uint32_t floor = 0;
        size_t i = 0;
        for (; i < n && m[i].len > floor; i++) {
            if (is_free(taken, &m[i])) {
                memset(taken + m[i].at, 1, m[i].len);
                strip(t, text, len, taken, &m[i]);
                clq_buf_append(kept, &m[i], sizeof *m);
                continue;
            }
            if (taken[m[i].at]) continue;
            match again = {.at = m[i].at};
            again.id = longest(trie, text + again.at, len - again.at, m[i].len, &again.len);
            if (again.id < 0) continue;
            clq_buf_append(&shorter, &again, sizeof again);
            if (again.len > floor) floor = again.len;
        }
        clq_buf_append(&shorter, m + i, (n - i) * sizeof *m);
        clq_buf_free(matches);
        *matches = shorter;
        if (shorter.failed || kept->failed) return false;
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const match *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static bool put_free(const uint8_t *taken, size_t begin, size_t end, clq_buf *fragments)
{
    while (begin < end && taken[begin]) begin++;
    while (end > begin && taken[end - 1]) end--;
    return put(fragments, begin, end - begin, -1);
}

static bool find_longest(const clq_tokenizer *t, const clq_trie *trie, const char *text, size_t len,
                         clq_buf *fragments)
{
    clq_buf matches = {0}, kept = {0};
    uint8_t *taken = NULL;
    find_all(trie, text, len, &matches);
    bool ok = !matches.failed;
    if (ok && matches.len) {
        taken = calloc(len, 1);
        ok = taken && take_longest(t, trie, text, len, &matches, taken, &kept);
    }
    size_t done = 0, n = kept.len / sizeof(match);
    match *m = (match *)(void *)kept.data;
    if (ok && n) qsort(m, n, sizeof *m, by_place);
    for (size_t i = 0; ok && i < n; i++) {
        ok = put_free(taken, done, m[i].at, fragments) && put(fragments, m[i].at, m[i].len, m[i].id);
        done = m[i].at + m[i].len;
    }
    if (ok) ok = taken ? put_free(taken, done, len, fragments) : put(fragments, 0, len, -1);
    free(taken);
    clq_buf_free(&kept);
    clq_buf_free(&matches);
    return ok;
}

clq_status clq_find_special(const clq_tokenizer *t, const char *text, size_t len, bool parse, clq_buf *fragments,
                            clq_error *err)
{
    const clq_trie *trie = &t->special[parse];
    bool ok = t->hf ? find_leftmost(trie, text, len, fragments) : find_longest(t, trie, text, len, fragments);
    return ok ? CLQ_OK : clq_fail_memory(err, len);
}

// SPDX-License-Identifier: MIT
#include "calib/corpus.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { LEAST_CONTEXT = 4, LEAST_REST = 2, MAX_SHOWN = 24 };

typedef struct {
    const clq_corpus_options *o;
    const clq_tokenizer *tokenizer;
    unsigned flags;
    clq_buf ids; // int32 of the text
    clq_corpus *corpus;
} maker;

// ---- tokens of the text ----

static clq_status add_text(maker *m, const char *text, size_t len, clq_error *err)
{
    if (!m->tokenizer)
        return clq_fail(err, CLQ_BAD_INPUT, "the model has no tokenizer: give the calibration text as token ids");
    return clq_tokenize(m->tokenizer, text, len, m->flags, &m->ids, err);
}

static bool blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isspace((unsigned char)text[i])) return false;
    return true;
}

static clq_status add_line(maker *m, uint64_t line, const char *text, size_t len, clq_error *err)
{
    json_error_t why;
    json_t *document = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    const json_t *value = json_object_get(document, m->o->field);
    clq_status st = CLQ_OK;
    if (!document)
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': line %" PRIu64 " is no JSON: %s", m->o->name, line, why.text);
    else if (!json_is_object(document))
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': line %" PRIu64 " is no JSON object", m->o->name, line);
    else if (!value)
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': line %" PRIu64 " has no field '%s'", m->o->name, line, m->o->field);
    else if (!json_is_string(value))
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': line %" PRIu64 ": its field '%s' is no text", m->o->name, line,
                      m->o->field);
    else
        st = add_text(m, json_string_value(value), json_string_length(value), err);
    json_decref(document);
    return st;
}

static clq_status add_lines(maker *m, const char *text, size_t len, clq_error *err)
{
    const char *end = text + len;
    for (uint64_t line = 1; text < end; line++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((stop ? stop : end) - text);
        if (!blank(text, n)) CLQ_TRY(add_line(m, line, text, n, err));
        text += n + (stop != NULL);
    }
    return CLQ_OK;
}

static clq_status add_ids(maker *m, const char *text, size_t len, clq_error *err)
{
    const char *end = text + len;
    for (uint64_t n = 1;; n++) {
        while (text < end && isspace((unsigned char)*text)) text++;
        if (text == end) return CLQ_OK;
        const char *begin = text;
        uint64_t id = 0;
        bool good = true;
        for (; text < end && !isspace((unsigned char)*text); text++) {
            good = good && *text >= '0' && *text <= '9';
            if (good && id <= INT32_MAX) id = 10 * id + (uint64_t)(*text - '0');
        }
        if (good && id < m->o->vocab) {
            int32_t v = (int32_t)id;
            clq_buf_append(&m->ids, &v, sizeof v);
            continue;
        }
        size_t shown = (size_t)(text - begin);
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': number %" PRIu64 " is '%.*s%s', which is no token of the model's %u",
                        m->o->name, n, (int)(shown < MAX_SHOWN ? shown : MAX_SHOWN), begin,
                        shown > MAX_SHOWN ? "..." : "", m->o->vocab);
    }
}

static clq_status add_all(maker *m, const char *text, size_t len, clq_error *err)
{
    switch (m->o->kind) {
    case CLQ_CORPUS_TEXT: CLQ_TRY(add_text(m, text, len, err)); break;
    case CLQ_CORPUS_JSONL: CLQ_TRY(add_lines(m, text, len, err)); break;
    case CLQ_CORPUS_TOKENS: CLQ_TRY(add_ids(m, text, len, err)); break;
    }
    if (m->ids.failed) return clq_fail_memory(err, m->ids.len);
    const int32_t *ids = (const int32_t *)(const void *)m->ids.data;
    for (size_t i = 0; i < m->ids.len / sizeof *ids; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= m->o->vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "token %zu of '%s' is %d, which is not in the model's vocabulary of %u",
                            i, m->o->name, ids[i], m->o->vocab);
    return CLQ_OK;
}

// ---- windows ----

// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// A number below n.
static uint32_t random_below(uint64_t *state, uint32_t n) { return (uint32_t)((next_random(state) >> 32) * n >> 32); }

static void add_window(maker *m, const int32_t *ids, uint32_t n)
{
    clq_corpus *c = m->corpus;
    int32_t *out = c->tokens + c->n_tokens;
    bool bos = m->tokenizer && clq_tokenizer_adds_bos(m->tokenizer);
    bool eos = m->tokenizer && m->o->encoder && clq_tokenizer_adds_eos(m->tokenizer);
    if (bos && m->o->encoder) *out++ = clq_tokenizer_bos(m->tokenizer);
    memcpy(out, ids, n * sizeof *ids);
    if (bos && !m->o->encoder) *out = clq_tokenizer_bos(m->tokenizer);
    out += n;
    if (eos) *out++ = clq_tokenizer_eos(m->tokenizer);
    c->n_tokens = (uint64_t)(out - c->tokens);
    c->n_windows++;
    c->n_dropped -= n;
}

static clq_status too_short(const maker *m, uint64_t needed, uint32_t size, clq_error *err)
{
    if (m->o->chunks > 1)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' has %" PRIu64 " tokens; %u windows of %u need %" PRIu64 ": give more text, fewer windows "
                        "or a shorter context",
                        m->o->name, m->corpus->n_text, m->o->chunks, size, needed);
    return clq_fail(err, CLQ_BAD_INPUT,
                    "'%s' has %" PRIu64 " tokens; a window needs %" PRIu64 ": give more text or a shorter context",
                    m->o->name, m->corpus->n_text, needed);
}

// size: text tokens of a window.
static clq_status make_windows(maker *m, uint32_t size, clq_error *err)
{
    clq_corpus *c = m->corpus;
    const clq_corpus_options *o = m->o;
    const int32_t *ids = (const int32_t *)(const void *)m->ids.data;
    uint64_t n = m->ids.len / sizeof *ids, whole = n / size, needed = (uint64_t)(o->chunks ? o->chunks : 1) * size;
    c->n_text = c->n_dropped = n;
    if (n < needed) return too_short(m, needed, size, err);
    uint64_t rest = !o->chunks && n % size >= LEAST_REST, windows = (o->chunks ? o->chunks : whole) + rest;
    if (windows > UINT32_MAX) return clq_fail(err, CLQ_BAD_INPUT, "'%s' has too many tokens", o->name);
    uint64_t n_bytes = windows * o->context * sizeof *ids;
    c->tokens = malloc(n_bytes);
    if (!c->tokens) return clq_fail_memory(err, n_bytes);
    // Knuth's algorithm S: each window is taken with the probability of those still wanted among those left.
    uint64_t state = o->seed;
    uint32_t wanted = (uint32_t)(windows - rest);
    for (uint64_t i = 0; i < whole && wanted; i++) {
        if (o->chunks && o->random && random_below(&state, (uint32_t)(whole - i)) >= wanted) continue;
        add_window(m, ids + i * size, size);
        wanted--;
    }
    if (rest) add_window(m, ids + whole * size, (uint32_t)(n % size));
    return CLQ_OK;
}

static clq_status make(maker *m, const char *text, size_t len, clq_error *err)
{
    const clq_tokenizer *t = m->o->encoder ? m->tokenizer : NULL;
    uint32_t special = t ? (uint32_t)clq_tokenizer_adds_bos(t) + (uint32_t)clq_tokenizer_adds_eos(t) : 0;
    if (m->o->context < LEAST_CONTEXT)
        return clq_fail(err, CLQ_USAGE, "a window has at least %d tokens", LEAST_CONTEXT);
    CLQ_TRY(add_all(m, text, len, err));
    return make_windows(m, m->o->context - special, err);
}

clq_status clq_corpus_create(const clq_tokenizer *tokenizer, const char *text, size_t len, const clq_corpus_options *o,
                             clq_corpus **corpus, clq_error *err)
{
    *corpus = NULL;
    clq_corpus *c = calloc(1, sizeof *c);
    if (!c) return clq_fail_memory(err, sizeof *c);
    c->context = o->context;
    maker m = {.o = o, .tokenizer = tokenizer, .flags = o->encoder ? 0 : CLQ_TOKENIZE_SPECIAL, .corpus = c};
    clq_status st = make(&m, text, len, err);
    clq_buf_free(&m.ids);
    if (st == CLQ_OK)
        *corpus = c;
    else
        clq_corpus_free(c);
    return st;
}

void clq_corpus_free(clq_corpus *c)
{
    if (!c) return;
    free(c->tokens);
    free(c);
}

uint32_t clq_corpus_window(const clq_corpus *c, uint32_t window)
{
    uint64_t left = c->n_tokens - (uint64_t)window * c->context;
    return left < c->context ? (uint32_t)left : c->context;
}

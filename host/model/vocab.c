// SPDX-License-Identifier: MIT
#include "model/vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

clq_status clq_vocab_create(clq_vocab *v, uint32_t n, clq_error *err)
{
    *v = (clq_vocab){0};
    if (n == 0 || n > CLQ_MAX_TOKENS)
        return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary has %u tokens; 1 to %d are possible", n,
                        CLQ_MAX_TOKENS);
    v->tokens = calloc(n, sizeof *v->tokens);
    if (!v->tokens) return clq_fail_memory(err, n * sizeof *v->tokens);
    v->n = n;
    return CLQ_OK;
}

void clq_vocab_free(clq_vocab *v)
{
    for (uint32_t i = 0; i < v->n; i++) free(v->tokens[i].text);
    free(v->tokens);
    *v = (clq_vocab){0};
}

clq_status clq_vocab_put(clq_vocab *v, int64_t id, const char *text, size_t len,
                         clq_token_type type, float score, const char *file, clq_error *err)
{
    if (id < 0 || id >= v->n)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "%s: token id %" PRId64 " is outside the vocabulary, which has %u tokens "
                        "(rows of the token embedding)",
                        file, id, v->n);
    if (len > CLQ_MAX_TOKEN_BYTES)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "%s: token %" PRId64 " has %zu bytes; at most %d are possible", file, id,
                        len, CLQ_MAX_TOKEN_BYTES);
    if (memchr(text, '\0', len))
        return clq_fail(err, CLQ_BAD_INPUT, "%s: token %" PRId64 " contains a NUL byte", file, id);
    char *copy = strndup(text, len);
    if (!copy) return clq_fail_memory(err, len + 1);
    free(v->tokens[id].text);
    v->tokens[id] = (clq_token){.text = copy, .type = type, .score = score};
    return CLQ_OK;
}

clq_status clq_vocab_pad(clq_vocab *v, float score, clq_error *err)
{
    for (uint32_t i = 0; i < v->n; i++) {
        if (v->tokens[i].text) continue;
        char text[32];
        int len = snprintf(text, sizeof text, "[PAD%u]", i);
        CLQ_TRY(clq_vocab_put(v, i, text, (size_t)len, CLQ_TOKEN_UNUSED, score, "vocabulary", err));
    }
    return CLQ_OK;
}

bool clq_vocab_is_pad(const clq_vocab *v, uint32_t id, const char *prefix)
{
    char text[32];
    snprintf(text, sizeof text, "%s[PAD%u]", prefix, id);
    return v->tokens[id].type == CLQ_TOKEN_UNUSED && strcmp(v->tokens[id].text, text) == 0;
}

static int by_text(const void *a, const void *b)
{
    const clq_token *const *x = a, *const *y = b;
    return strcmp((*x)->text, (*y)->text);
}

clq_status clq_vocab_check_unique(const clq_vocab *v, clq_error *err)
{
    const clq_token **sorted = malloc(v->n * sizeof *sorted);
    if (!sorted) return clq_fail_memory(err, v->n * sizeof *sorted);
    for (uint32_t i = 0; i < v->n; i++) sorted[i] = &v->tokens[i];
    qsort(sorted, v->n, sizeof *sorted, by_text);
    clq_status st = CLQ_OK;
    for (uint32_t i = 1; i < v->n && st == CLQ_OK; i++)
        if (strcmp(sorted[i - 1]->text, sorted[i]->text) == 0)
            st = clq_fail(err, CLQ_BAD_INPUT, "the tokens %td and %td are both '%s'",
                          sorted[i - 1] - v->tokens, sorted[i] - v->tokens, sorted[i]->text);
    free(sorted);
    return st;
}

bool clq_vocab_id(const clq_vocab *v, const char *text, uint32_t *id)
{
    for (uint32_t i = 0; i < v->n; i++) {
        if (!v->tokens[i].text || strcmp(v->tokens[i].text, text) != 0) continue;
        *id = i;
        return true;
    }
    return false;
}

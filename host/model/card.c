// SPDX-License-Identifier: MIT
#include "model/card.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "model/json.h"

enum { MAX_WORDS = 256 };

typedef struct words {
    const char *text[MAX_WORDS]; // into the README
    size_t len[MAX_WORDS];
    size_t n;
} words;

// Adds [begin, end) without blanks and quotes around it. What is not a plain word is left out.
static void add_word(words *w, const char *begin, const char *end)
{
    while (begin < end && isspace((unsigned char)*begin)) begin++;
    while (end > begin && isspace((unsigned char)end[-1])) end--;
    if (end - begin >= 2 && (*begin == '"' || *begin == '\'') && end[-1] == *begin) {
        begin++;
        end--;
    }
    for (const char *p = begin; p < end; p++)
        if (strchr("{}[]#&*!|>", *p) || (unsigned char)*p < ' ') return;
    if (begin == end || w->n == MAX_WORDS) return;
    w->text[w->n] = begin;
    w->len[w->n++] = (size_t)(end - begin);
}

// "word" or "[word, word]"
static void add_value(words *w, const char *begin, const char *end)
{
    while (begin < end && isspace((unsigned char)*begin)) begin++;
    while (end > begin && isspace((unsigned char)end[-1])) end--;
    if (end - begin < 2 || *begin != '[' || end[-1] != ']') {
        add_word(w, begin, end);
        return;
    }
    for (begin++, end--; begin < end;) {
        const char *comma = memchr(begin, ',', (size_t)(end - begin));
        const char *stop = comma ? comma : end;
        add_word(w, begin, stop);
        begin = comma ? comma + 1 : end;
    }
}

// The values of a top-level key of the head [text, end): on its line, or as "- word" lines below.
static void collect(words *w, const char *text, const char *end, const char *key)
{
    size_t n_key = strlen(key);
    bool inside = false;
    for (const char *line = text; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline ? newline : end;
        const char *item = line;
        while (item < stop && *item == ' ') item++;
        if (inside && stop - item >= 2 && item[0] == '-' && item[1] == ' ') {
            add_word(w, item + 2, stop);
        } else if (item == line) {
            inside = (size_t)(stop - line) > n_key && memcmp(line, key, n_key) == 0 &&
                     line[n_key] == ':';
            if (inside) add_value(w, line + n_key + 1, stop);
        }
        line = stop + 1;
    }
}

clq_status clq_card_to_gguf(const clq_source *hf, clq_gguf_kvs *kvs, clq_error *err)
{
    char *text;
    size_t len;
    CLQ_TRY(clq_text_load(hf->path, "README.md", &text, &len, err));
    const char *end = text && strncmp(text, "---\n", 4) == 0 ? strstr(text + 4, "\n---") : NULL;
    words *w = end ? calloc(3, sizeof *w) : NULL;
    if (w) {
        collect(&w[0], text + 4, end, "license");
        collect(&w[1], text + 4, end, "tags");
        collect(&w[1], text + 4, end, "pipeline_tag");
        collect(&w[2], text + 4, end, "language");
        if (w[0].n == 1) clq_kv_set_string(kvs, "general.license", w[0].text[0], w[0].len[0]);
        if (w[1].n) clq_kv_set_strings(kvs, "general.tags", w[1].text, w[1].len, w[1].n);
        if (w[2].n) clq_kv_set_strings(kvs, "general.languages", w[2].text, w[2].len, w[2].n);
    }
    free(w);
    free(text);
    return CLQ_OK;
}

// Only what YAML reads as a plain word is written.
static bool is_plain(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("-_. /", s[i])) return false;
    return len > 0 && len < 128 && isalnum((unsigned char)s[0]);
}

static void put_list(clq_buf *b, const clq_gguf_kvs *kvs, const char *gguf_key, const char *key)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *cursor;
    bool first = true;
    if (!clq_kv_get_array(kvs, gguf_key, &element, &n, &cursor) || element != CLQ_GGUF_STRING)
        return;
    for (uint64_t i = 0; i < n && i < MAX_WORDS; i++) {
        const char *s;
        size_t len;
        clq_kv_next_string(&cursor, &s, &len);
        if (!is_plain(s, len)) continue;
        if (first) clq_buf_printf(b, "%s:\n", key);
        first = false;
        clq_buf_printf(b, "- \"%.*s\"\n", (int)len, s);
    }
}

clq_status clq_card_to_hf(const clq_gguf_kvs *kvs, clq_translation *out, clq_error *err)
{
    clq_buf b = {0};
    const char *s;
    size_t len;
    clq_buf_text(&b, "---\n");
    size_t empty = b.len;
    if (clq_kv_get_string(kvs, "general.license", &s, &len) && is_plain(s, len))
        clq_buf_printf(&b, "license: %.*s\n", (int)len, s);
    put_list(&b, kvs, "general.languages", "language");
    put_list(&b, kvs, "general.tags", "tags");
    bool has_content = b.len > empty;
    clq_buf_text(&b, "---\n");
    if (b.failed || !has_content) {
        clq_status st = b.failed ? clq_fail_memory(err, b.len) : CLQ_OK;
        clq_buf_free(&b);
        return st;
    }
    return clq_add_text_file(out, "README.md", b.data, b.len, err);
}

// SPDX-License-Identifier: MIT
#include "run/stream.h"

#include <string.h>

// Where the first stop text begins, at or behind `from`; SIZE_MAX: none is whole.
static size_t find_stop(const clq_stream *s, size_t from)
{
    for (size_t at = from; at < s->held.len; at++)
        for (uint32_t i = 0; i < s->n_stops; i++) {
            size_t n = strlen(s->stops[i]);
            if (n <= s->held.len - at && memcmp(s->held.data + at, s->stops[i], n) == 0) return at;
        }
    return SIZE_MAX;
}

// Whether what is held from `at` on is the beginning of a stop text.
static bool may_stop(const clq_stream *s, size_t at)
{
    size_t n = s->held.len - at;
    for (uint32_t i = 0; i < s->n_stops; i++)
        if (strncmp(s->held.data + at, s->stops[i], n) == 0 && strlen(s->stops[i]) > n) return true;
    return false;
}

// The number of bytes at the end of the first n that are an unfinished character.
static size_t unfinished(const char *data, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)data[n - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t length = c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
        return c < 0xf8 && length > back ? back : 0;
    }
    return 0;
}

void clq_stream_push(clq_stream *s, const char *bytes, size_t n)
{
    if (s->stopped) return;
    size_t from = s->ready; // what lies before was looked at
    clq_buf_append(&s->held, bytes, n);
    if (s->held.failed) return;
    size_t stop = find_stop(s, from);
    if (stop != SIZE_MAX) {
        s->stopped = true;
        s->held.len = s->ready = stop;
        return;
    }
    size_t ready = from;
    while (ready < s->held.len && !may_stop(s, ready)) ready++;
    ready -= unfinished(s->held.data, ready);
    if (ready > from) s->ready = ready;
}

void clq_stream_end(clq_stream *s) { s->ready = s->held.len; }

size_t clq_stream_take(clq_stream *s, clq_buf *out)
{
    size_t n = s->ready;
    if (!n) return 0;
    if (out) clq_buf_append(out, s->held.data, n);
    memmove(s->held.data, s->held.data + n, s->held.len - n);
    s->held.len -= n;
    s->ready = 0;
    return n;
}

void clq_stream_free(clq_stream *s) { clq_buf_free(&s->held); }

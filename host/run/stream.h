// SPDX-License-Identifier: MIT
// Text that comes in pieces of bytes and goes on in whole UTF-8 characters, up to a stop text.
#ifndef CLQ_RUN_STREAM_H
#define CLQ_RUN_STREAM_H

#include "base/buffer.h"

typedef struct clq_stream {
    const char *const *stops; // not empty; borrowed
    uint32_t n_stops;
    clq_buf held; // came, but may become part of a stop text or of a character
    size_t ready; // of held: bytes that may go on
    bool stopped; // a stop text came; it and what follows are dropped
} clq_stream;

void clq_stream_push(clq_stream *s, const char *bytes, size_t n);
// No more comes: all that is held is ready.
void clq_stream_end(clq_stream *s);
// The ready bytes go to the caller's `out`, which may be NULL; returns their number, and forgets them. 0 with
// s->held.failed: no memory.
size_t clq_stream_take(clq_stream *s, clq_buf *out);
void clq_stream_free(clq_stream *s);

#endif

// SPDX-License-Identifier: MIT
// Where the elements of a translated tensor come from: one source tensor, a stretch of one, or equal
// stretches of several, one behind the other.
#ifndef CLQ_MODEL_ORIGIN_H
#define CLQ_MODEL_ORIGIN_H

#include "io/source.h"

// Row order of rotary position embeddings. GGUF's "llama" interleaves the two halves of a head that
// Hugging Face keeps apart: within each head of hd rows, GGUF row 2i + j is HF row j * (hd / 2) + i.
typedef enum clq_row_order { CLQ_ROWS_KEPT, CLQ_ROWS_HF_TO_GGUF, CLQ_ROWS_GGUF_TO_HF } clq_row_order;

typedef struct clq_origin {
    uint32_t source;        // index of the first piece's tensor, whose type speaks for all
    uint32_t *sources;      // one a piece, [0] is `source`; NULL: all pieces are of `source`
    uint32_t n_pieces;
    uint64_t n_elements;    // of a piece: whole rows
    uint64_t first, stride; // piece i begins at its tensor's element first + i * stride
    clq_row_order order;    // of the whole tensor, which is then one piece
    uint32_t n_heads;       // with order: rows are n_heads equal heads (also for 1-D biases)
    float shift;            // is added to each element, in float
} clq_origin;

// The source row that becomes row `r` of n_rows.
static inline uint64_t clq_row_from(clq_row_order order, uint32_t n_heads, uint64_t n_rows, uint64_t r)
{
    if (order == CLQ_ROWS_KEPT) return r;
    uint64_t per_head = n_rows / n_heads, half = per_head / 2, in = r % per_head;
    uint64_t from = order == CLQ_ROWS_HF_TO_GGUF ? in % 2 * half + in / 2 : in % half * 2 + in / half;
    return r - in + from;
}

// A whole source tensor as it is.
clq_origin clq_origin_of(const clq_source *s, uint32_t source);

// A stretch within one piece.
typedef struct clq_stretch {
    const clq_tensor *t;
    uint64_t first, n; // elements of t
} clq_stretch;

// Where the elements from `at` on lie: at most n of them, fewer where a piece ends.
static inline clq_stretch clq_origin_at(const clq_source *s, const clq_origin *o, uint64_t at, uint64_t n)
{
    uint64_t piece = at / o->n_elements, in = at % o->n_elements, left = o->n_elements - in;
    return (clq_stretch){.t = &s->tensors[o->sources ? o->sources[piece] : o->source],
                         .first = o->first + piece * o->stride + in,
                         .n = n < left ? n : left};
}

// Decodes the elements [at, at + n), whole rows, and shifts them. Does not look at `order`.
clq_status clq_origin_read(const clq_source *s, const clq_origin *o, uint64_t at, uint64_t n, float *y,
                           clq_error *err);
// Whether all pieces are stored in one type, without scales beside them.
bool clq_origin_uniform(const clq_source *s, const clq_origin *o);
// Stored bytes that belong to the pieces.
uint64_t clq_origin_bytes(const clq_source *s, const clq_origin *o);

#endif

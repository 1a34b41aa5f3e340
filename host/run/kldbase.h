// SPDX-License-Identifier: MIT
// The file of base logits that llama.cpp's llama-perplexity writes and reads (--kl-divergence-base), little-endian:
//   "_logits_", u32 context, u32 vocab, u32 windows, i32 tokens[windows][context], then for each window its scored
//   rows, those of positions context / 2 ... context - 2:
//   f32 scale, f32 floor, u16 q[vocab rounded up to even]; ln p of token i is floor + scale * q[i]
// Logits more than 16 below a row's largest are stored as the floor.
#ifndef CLQ_RUN_KLDBASE_H
#define CLQ_RUN_KLDBASE_H

#include "base/error.h"

typedef struct clq_kldbase_shape {
    uint32_t context, vocab, windows;
} clq_kldbase_shape;

// Scored rows of a window of `context` tokens: positions first ... first + rows - 1.
static inline uint32_t clq_window_first(uint32_t context) { return context / 2; }
static inline uint32_t clq_window_rows(uint32_t context) { return context - 1 - context / 2; }
// 16-bit words of a stored row: scale and floor take four.
static inline size_t clq_kldbase_words(uint32_t vocab) { return 4 + (size_t)vocab + (vocab & 1); }

// A row to its words. max: the largest logit; min: the smallest; log_sum: ln of the sum of e^(logit - max).
void clq_kldbase_encode(const float *logits, uint32_t vocab, float max, float min, double log_sum, uint16_t *words);
static inline float clq_kldbase_scale(const uint16_t *words)
{
    float v;
    __builtin_memcpy(&v, words, 4);
    return v;
}
static inline float clq_kldbase_floor(const uint16_t *words) { return clq_kldbase_scale(words + 2); }
static inline const uint16_t *clq_kldbase_codes(const uint16_t *words) { return words + 4; }

// ---- reading ----

typedef struct clq_kldbase clq_kldbase;

// CLQ_BAD_INPUT where the header makes no sense, a token is not in the vocabulary, or the file's size is not what its
// header says.
clq_status clq_kldbase_open(const char *path, clq_kldbase **base, clq_error *err);
void clq_kldbase_close(clq_kldbase *base);
clq_kldbase_shape clq_kldbase_shape_of(const clq_kldbase *base);
const int32_t *clq_kldbase_tokens(const clq_kldbase *base); // [windows][context]
// Rows [first, first + n) of a window into words [n][clq_kldbase_words]. CLQ_BAD_INPUT when a scale or floor is not
// finite, or makes no probability.
clq_status clq_kldbase_rows(const clq_kldbase *base, uint32_t window, uint32_t first, uint32_t n, uint16_t *words,
                            clq_error *err);

// ---- writing ----

typedef struct clq_kldbase_writer clq_kldbase_writer;

// The file appears at its path with _finish, complete.
clq_status clq_kldbase_create(const char *path, const clq_kldbase_shape *shape, const int32_t *tokens,
                              clq_kldbase_writer **writer, clq_error *err);
// Rows in order: those of window 0, of window 1 ...
clq_status clq_kldbase_append(clq_kldbase_writer *writer, const uint16_t *words, uint32_t n_rows, clq_error *err);
clq_status clq_kldbase_finish(clq_kldbase_writer *writer, clq_error *err);
void clq_kldbase_free(clq_kldbase_writer *writer); // without _finish nothing is left

#endif

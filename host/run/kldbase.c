// SPDX-License-Identifier: MIT
#include "run/kldbase.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "io/file.h"
#include "io/output.h"

enum { HEAD_BYTES = 20, MAX_CONTEXT = 1 << 24, MAX_VOCAB = 1 << 24, DEPTH = 16 };
static const char magic[8] = "_logits_";

struct clq_kldbase {
    clq_file file;
    clq_kldbase_shape shape;
    int32_t *tokens;
};

struct clq_kldbase_writer {
    clq_output *output;
    clq_kldbase_shape shape;
    uint64_t at, n_bytes;
};

// False: more bytes than a number can tell.
static bool file_bytes(const clq_kldbase_shape *s, uint64_t *tokens, uint64_t *total)
{
    uint64_t rows;
    return clq_mul_u64((uint64_t)s->windows * s->context, 4, tokens) &&
           clq_mul_u64((uint64_t)s->windows * clq_window_rows(s->context), 2 * clq_kldbase_words(s->vocab), &rows) &&
           clq_add_u64(*tokens, rows, total) && clq_add_u64(*total, HEAD_BYTES, total);
}

void clq_kldbase_encode(const float *logits, uint32_t vocab, float max, float min, double log_sum, uint16_t *words)
{
    float low = min > max - DEPTH ? min : max - DEPTH;
    float sum = (float)log_sum;
    float head[2] = {(max - low) / 65535.0f, low - max - sum};
    memcpy(words, head, sizeof head);
    uint16_t *codes = words + 4;
    if (vocab & 1) codes[vocab] = 0;
    if (head[0] == 0) {
        memset(codes, 0, vocab * sizeof *codes);
        return;
    }
    float inverse = 1 / head[0];
    for (uint32_t i = 0; i < vocab; i++) {
        // To nearest, ties to even: 1.5 * 2^23 leaves the integer in the low bits.
        float q = inverse * ((logits[i] > low ? logits[i] : low) - low) + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &q, sizeof bits);
        bits -= 0x4b400000;
        codes[i] = (uint16_t)(bits < 65535 ? bits : 65535);
    }
}

// ---- reading ----

static clq_status read_head(clq_kldbase *b, clq_error *err)
{
    const char *path = b->file.path;
    unsigned char head[HEAD_BYTES];
    if (b->file.size < HEAD_BYTES)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is no file of base logits: it has only %llu bytes", path,
                        (unsigned long long)b->file.size);
    CLQ_TRY(clq_file_read(&b->file, 0, head, sizeof head, err));
    if (memcmp(head, magic, sizeof magic) != 0)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is no file of base logits: it does not begin with \"_logits_\"",
                        path);
    uint32_t v[3];
    for (int i = 0; i < 3; i++) {
        const unsigned char *p = head + 8 + 4 * i;
        v[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    b->shape = (clq_kldbase_shape){.context = v[0], .vocab = v[1], .windows = v[2]};
    if (v[0] < 4 || v[0] > MAX_CONTEXT || v[1] < 2 || v[1] > MAX_VOCAB || v[2] < 1 || v[2] > INT32_MAX)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': its head is wrong: %u windows of %u tokens of a vocabulary of %u",
                        path, v[2], v[0], v[1]);
    return CLQ_OK;
}

static clq_status read_tokens(clq_kldbase *b, clq_error *err)
{
    uint64_t n_bytes = 0, total = 0;
    const clq_kldbase_shape *s = &b->shape;
    if (!file_bytes(s, &n_bytes, &total) || total != b->file.size)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' has %llu bytes, which is not what %u windows of %u tokens of a vocabulary of %u take%s",
                        b->file.path, (unsigned long long)b->file.size, s->windows, s->context, s->vocab,
                        b->file.size < total ? ": it is incomplete" : "");
    b->tokens = malloc(n_bytes);
    if (!b->tokens) return clq_fail_memory(err, n_bytes);
    CLQ_TRY(clq_file_read(&b->file, HEAD_BYTES, b->tokens, n_bytes, err));
    for (uint64_t i = 0; i < n_bytes / 4; i++)
        if (b->tokens[i] < 0 || (uint32_t)b->tokens[i] >= s->vocab)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': token %llu is %d, which is not in its vocabulary of %u",
                            b->file.path, (unsigned long long)i, b->tokens[i], s->vocab);
    return CLQ_OK;
}

clq_status clq_kldbase_open(const char *path, clq_kldbase **base, clq_error *err)
{
    *base = NULL;
    clq_kldbase *b = calloc(1, sizeof *b);
    if (!b) return clq_fail_memory(err, sizeof *b);
    b->file.fd = -1;
    clq_status st = clq_file_open(path, &b->file, err);
    if (st == CLQ_OK) st = read_head(b, err);
    if (st == CLQ_OK) st = read_tokens(b, err);
    if (st != CLQ_OK) {
        clq_kldbase_close(b);
        return st;
    }
    *base = b;
    return CLQ_OK;
}

void clq_kldbase_close(clq_kldbase *b)
{
    if (!b) return;
    if (b->file.path) clq_file_close(&b->file);
    free(b->tokens);
    free(b);
}

clq_kldbase_shape clq_kldbase_shape_of(const clq_kldbase *b) { return b->shape; }

const int32_t *clq_kldbase_tokens(const clq_kldbase *b) { return b->tokens; }

clq_status clq_kldbase_rows(const clq_kldbase *b, uint32_t window, uint32_t first, uint32_t n, uint16_t *words,
                            clq_error *err)
{
    const clq_kldbase_shape *s = &b->shape;
    uint32_t rows = clq_window_rows(s->context);
    if (window >= s->windows || first > rows || n > rows - first)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': row %u of window %u is not in it", b->file.path, first, window);
    size_t n_words = clq_kldbase_words(s->vocab);
    uint64_t at = HEAD_BYTES + (uint64_t)s->windows * s->context * 4 + ((uint64_t)window * rows + first) * n_words * 2;
    CLQ_TRY(clq_file_read(&b->file, at, words, n * n_words * 2, err));
    for (uint32_t i = 0; i < n; i++) {
        float scale = clq_kldbase_scale(words + i * n_words), low = clq_kldbase_floor(words + i * n_words);
        // ln p of the likeliest token is at most 0, but for rounding.
        if (!(scale >= 0 && scale <= 1 && isfinite(low) && low + 65535 * scale < 0.01f))
            return clq_fail(err, CLQ_BAD_INPUT, "'%s': row %u of window %u has the scale %g and the floor %g",
                            b->file.path, first + i, window, scale, low);
    }
    return CLQ_OK;
}

// ---- writing ----

clq_status clq_kldbase_create(const char *path, const clq_kldbase_shape *shape, const int32_t *tokens,
                              clq_kldbase_writer **writer, clq_error *err)
{
    *writer = NULL;
    clq_kldbase_writer *w = calloc(1, sizeof *w);
    if (!w) return clq_fail_memory(err, sizeof *w);
    w->shape = *shape;
    uint64_t token_bytes;
    clq_buf head = {0};
    clq_buf_append(&head, magic, sizeof magic);
    clq_buf_u32(&head, shape->context);
    clq_buf_u32(&head, shape->vocab);
    clq_buf_u32(&head, shape->windows);
    clq_status st = CLQ_OK;
    if (!file_bytes(shape, &token_bytes, &w->n_bytes) || w->n_bytes > INT64_MAX)
        st = clq_fail(err, CLQ_OUTPUT, "'%s': the base logits would be too many", path);
    else if (head.failed)
        st = clq_fail_memory(err, HEAD_BYTES);
    clq_output_file file = {.name = "", .n_bytes = w->n_bytes};
    if (st == CLQ_OK) st = clq_output_open(path, CLQ_OUTPUT_FILE, &file, 1, 0, false, &w->output, err);
    if (st == CLQ_OK) st = clq_output_write(w->output, 0, 0, head.data, HEAD_BYTES, err);
    if (st == CLQ_OK) st = clq_output_write(w->output, 0, HEAD_BYTES, tokens, token_bytes, err);
    w->at = HEAD_BYTES + token_bytes;
    clq_buf_free(&head);
    if (st != CLQ_OK) {
        clq_kldbase_free(w);
        return st;
    }
    *writer = w;
    return CLQ_OK;
}

clq_status clq_kldbase_append(clq_kldbase_writer *w, const uint16_t *words, uint32_t n_rows, clq_error *err)
{
    uint64_t n_bytes = n_rows * clq_kldbase_words(w->shape.vocab) * 2;
    CLQ_TRY(clq_output_write(w->output, 0, w->at, words, n_bytes, err));
    w->at += n_bytes;
    return CLQ_OK;
}

clq_status clq_kldbase_finish(clq_kldbase_writer *w, clq_error *err)
{
    if (w->at != w->n_bytes) return clq_fail(err, CLQ_OUTPUT, "the base logits are incomplete");
    CLQ_TRY(clq_output_sync(w->output, err));
    return clq_output_commit(w->output, err);
}

void clq_kldbase_free(clq_kldbase_writer *w)
{
    if (!w) return;
    if (w->output) clq_output_close(w->output, false);
    free(w);
}

// SPDX-License-Identifier: MIT
// SentencePiece model files (tokenizer.model): the few fields of the protocol buffer that matter.
// Source: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/vocab.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_KIND = 3, KIND_UNIGRAM = 1, KIND_BPE = 2, TRAINER_BYTE_FALLBACK = 35 };
enum { NORMALIZER_NAME = 1, NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_EXTRA_SPACES = 4 };

typedef struct cursor {
    const uint8_t *p;
    size_t left;
} cursor;

typedef struct field {
    uint64_t number, value; // value: of varints and fixed-width fields
    unsigned wire;
    cursor bytes;
} field;

static bool take_varint(cursor *c, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && c->left > 0; shift += 7) {
        uint8_t byte = *c->p++;
        c->left--;
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool take_fixed(cursor *c, size_t n, uint64_t *v)
{
    if (c->left < n) return false;
    *v = 0;
    for (size_t i = 0; i < n; i++) *v |= (uint64_t)c->p[i] << (8 * i);
    c->p += n;
    c->left -= n;
    return true;
}

// The next field of a message; false: malformed or cut off.
static bool take_field(cursor *c, field *f)
{
    uint64_t tag, n;
    if (!take_varint(c, &tag)) return false;
    f->number = tag >> 3;
    f->wire = tag & 7;
    switch (f->wire) {
    case WIRE_VARINT: return take_varint(c, &f->value);
    case WIRE_FIXED64: return take_fixed(c, 8, &f->value);
    case WIRE_FIXED32: return take_fixed(c, 4, &f->value);
    case WIRE_BYTES:
        if (!take_varint(c, &n) || n > c->left) return false;
        f->bytes = (cursor){c->p, (size_t)n};
        c->p += n;
        c->left -= (size_t)n;
        return true;
    default: return false;
    }
}

static clq_status malformed(const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "tokenizer.model is cut off or malformed (%s)", what);
}

static clq_status read_piece(cursor c, uint32_t id, clq_vocab *v, clq_error *err)
{
    cursor text = {0};
    float score = 0;
    uint64_t type = CLQ_TOKEN_NORMAL;
    while (c.left > 0) {
        field f;
        if (!take_field(&c, &f)) return malformed("a piece", err);
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES) text = f.bytes;
        if (f.number == PIECE_SCORE && f.wire == WIRE_FIXED32)
            score = clq_from_bits((uint32_t)f.value);
        if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT) type = f.value;
    }
    if (text.left == 0) return malformed("a piece without text", err);
    if (type < CLQ_TOKEN_NORMAL || type > CLQ_TOKEN_BYTE) return malformed("a piece's type", err);
    return clq_vocab_put(v, id, (const char *)text.p, text.left, (clq_token_type)type, score,
                         "tokenizer.model", err);
}

// The value of a varint field of a message, or `value` when it has none.
static bool find_varint(cursor c, uint64_t number, uint64_t *value)
{
    while (c.left > 0) {
        field f;
        if (!take_field(&c, &f)) return false;
        if (f.number == number && f.wire == WIRE_VARINT) *value = f.value;
    }
    return true;
}

clq_status clq_sentencepiece_read(const char *data, size_t len, clq_vocab *v,
                                  bool *add_dummy_prefix, clq_error *err)
{
    cursor c = {(const uint8_t *)data, len};
    uint32_t n_pieces = 0;
    uint64_t kind = 0, prefix = 1;
    bool has_normalizer = false;
    while (c.left > 0) {
        field f;
        if (!take_field(&c, &f)) return malformed("a field", err);
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == MODEL_PIECE) CLQ_TRY(read_piece(f.bytes, n_pieces++, v, err));
        if (f.number == MODEL_TRAINER) {
            kind = KIND_UNIGRAM;
            if (!find_varint(f.bytes, TRAINER_KIND, &kind)) return malformed("trainer_spec", err);
        }
        if (f.number == MODEL_NORMALIZER) {
            has_normalizer = true;
            if (!find_varint(f.bytes, NORMALIZER_DUMMY_PREFIX, &prefix))
                return malformed("normalizer_spec", err);
        }
    }
    if (n_pieces == 0 || kind == 0 || !has_normalizer)
        return malformed("pieces, trainer_spec or normalizer_spec missing", err);
    if (kind != KIND_BPE)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tokenizer.model is not of BPE kind (model_type %llu); GGUF's 'llama' "
                        "tokenizer would cut texts differently",
                        (unsigned long long)kind);
    *add_dummy_prefix = prefix != 0;
    return CLQ_OK;
}

uint32_t clq_sentencepiece_count(const char *data, size_t len)
{
    cursor c = {(const uint8_t *)data, len};
    uint32_t n = 0;
    while (c.left > 0) {
        field f;
        if (!take_field(&c, &f)) return 0;
        n += f.number == MODEL_PIECE && f.wire == WIRE_BYTES;
    }
    return n;
}

// ---- writing -----------------------------------------------------------------------------------

static void put_varint(clq_buf *b, uint64_t v)
{
    do {
        uint8_t byte = (v & 0x7f) | (v > 0x7f ? 0x80 : 0);
        clq_buf_append(b, &byte, 1);
        v >>= 7;
    } while (v);
}

static void put_varint_field(clq_buf *b, unsigned number, uint64_t v)
{
    put_varint(b, number << 3 | WIRE_VARINT);
    put_varint(b, v);
}

static void put_bytes_field(clq_buf *b, unsigned number, const char *bytes, size_t n)
{
    put_varint(b, number << 3 | WIRE_BYTES);
    put_varint(b, n);
    clq_buf_append(b, bytes, n);
}

static void put_message(clq_buf *b, unsigned number, clq_buf *message)
{
    put_bytes_field(b, number, message->data, message->len);
    b->failed = b->failed || message->failed;
    clq_buf_free(message);
}

void clq_sentencepiece_write(const clq_vocab *v, uint32_t unknown, bool add_dummy_prefix,
                             clq_buf *out)
{
    uint32_t n = v->n;
    while (n > 0 && clq_vocab_is_pad(v, n - 1, "")) n--;
    bool has_bytes = false;
    for (uint32_t i = 0; i < n; i++) {
        const clq_token *token = &v->tokens[i];
        has_bytes = has_bytes || token->type == CLQ_TOKEN_BYTE;
        clq_buf piece = {0};
        put_bytes_field(&piece, PIECE_TEXT, token->text, strlen(token->text));
        put_varint(&piece, PIECE_SCORE << 3 | WIRE_FIXED32);
        clq_buf_u32(&piece, clq_bits(token->score));
        clq_token_type type = i == unknown ? CLQ_TOKEN_UNKNOWN : token->type;
        if (type != CLQ_TOKEN_NORMAL) put_varint_field(&piece, PIECE_TYPE, type);
        put_message(out, MODEL_PIECE, &piece);
    }
    clq_buf trainer = {0}, normalizer = {0};
    put_varint_field(&trainer, TRAINER_KIND, KIND_BPE);
    put_varint_field(&trainer, TRAINER_BYTE_FALLBACK, has_bytes);
    put_message(out, MODEL_TRAINER, &trainer);
    put_bytes_field(&normalizer, NORMALIZER_NAME, "identity", 8);
    put_varint_field(&normalizer, NORMALIZER_DUMMY_PREFIX, add_dummy_prefix);
    put_varint_field(&normalizer, NORMALIZER_EXTRA_SPACES, 0);
    put_message(out, MODEL_NORMALIZER, &normalizer);
}

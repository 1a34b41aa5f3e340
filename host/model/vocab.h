// SPDX-License-Identifier: MIT
// Tokenizers, both ways. vocab.c holds what all kinds share; vocab_bpe.c, vocab_spm.c and
// vocab_wordpiece.c hold one kind each.
#ifndef CLQ_MODEL_VOCAB_H
#define CLQ_MODEL_VOCAB_H

#include "model/json.h"
#include "model/translate.h"

enum { CLQ_MAX_TOKENS = 1 << 24, CLQ_MAX_TOKEN_BYTES = 4096 };

typedef enum clq_token_type { // GGUF's tokenizer.ggml.token_type
    CLQ_TOKEN_NORMAL = 1,
    CLQ_TOKEN_UNKNOWN,
    CLQ_TOKEN_CONTROL,
    CLQ_TOKEN_USER_DEFINED,
    CLQ_TOKEN_UNUSED,
    CLQ_TOKEN_BYTE,
} clq_token_type;

typedef struct clq_token {
    char *text; // NUL-terminated UTF-8 without NUL bytes; NULL: no token has this id
    clq_token_type type;
    float score; // SPM only
} clq_token;

// Ids are indices. n is the number of rows of the embedding.
typedef struct clq_vocab {
    clq_token *tokens;
    uint32_t n;
} clq_vocab;

clq_status clq_vocab_create(clq_vocab *v, uint32_t n, clq_error *err);
void clq_vocab_free(clq_vocab *v);
// Sets a token (copied), replacing what the id held. CLQ_BAD_INPUT when id is outside the
// vocabulary; file names the culprit.
clq_status clq_vocab_put(clq_vocab *v, int64_t id, const char *text, size_t len,
                         clq_token_type type, float score, const char *file, clq_error *err);
// Gives ids without a token the text "[PAD<id>]", unused.
clq_status clq_vocab_pad(clq_vocab *v, float score, clq_error *err);
// Whether a token is such a filler; prefix: what stands in front ("" or U+2581).
bool clq_vocab_is_pad(const clq_vocab *v, uint32_t id, const char *prefix);
// CLQ_BAD_INPUT when two ids have one text.
clq_status clq_vocab_check_unique(const clq_vocab *v, clq_error *err);
bool clq_vocab_id(const clq_vocab *v, const char *text, uint32_t *id);

// ---- Hugging Face -> GGUF ----------------------------------------------------------------------

// The tokenizer files of a folder, and the vocabulary that is made of them.
typedef struct clq_hf_tokenizer {
    const clq_source *source;
    const clq_hooks *hooks;
    json_t *json;   // tokenizer.json, NULL: none
    json_t *config; // tokenizer_config.json, NULL: none
    clq_vocab vocab;
} clq_hf_tokenizer;

// Reads the files, finds the kind of tokenizer, writes all of tokenizer.* to kvs.
clq_status clq_tokenizer_to_gguf(const clq_source *hf, const clq_hooks *hooks, uint32_t n_rows,
                                 clq_gguf_kvs *kvs, clq_error *err);

// How many rows of the embedding have a token, of n_rows: what the tokenizer's files list, but all
// rows where a tokenizer.model says nothing of a vocabulary size that config.json names.
clq_status clq_tokenizer_rows(const clq_source *hf, uint32_t n_rows, bool named, uint32_t *n,
                              clq_error *err);

// Each reads its kind into t->vocab and writes the metadata that only it has.
clq_status clq_bpe_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err);
clq_status clq_spm_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err);
clq_status clq_wordpiece_to_gguf(clq_hf_tokenizer *t, clq_gguf_kvs *kvs, clq_error *err);

// Puts an object {text: id} (tokenizer.json's model.vocab) into t->vocab as normal tokens.
clq_status clq_vocab_put_object(clq_hf_tokenizer *t, const json_t *object, clq_error *err);
// Puts tokenizer.json's added_tokens and tokenizer_config.json's added_tokens_decoder on top, as
// control or user-defined tokens. Ids behind the vocabulary are left out with a warning.
clq_status clq_vocab_put_added(clq_hf_tokenizer *t, float score, clq_error *err);
// U+2581 becomes a space, in place: GGUF's user-defined tokens are matched against plain text.
void clq_plain_spaces(char *text);
// Writes tokens, token_type and, if asked for, scores.
clq_status clq_vocab_write(const clq_vocab *v, bool scores, clq_gguf_kvs *kvs, clq_error *err);

// ---- GGUF -> Hugging Face ----------------------------------------------------------------------

// Writes tokenizer files; sets bos_token_id and the like in config.
clq_status clq_tokenizer_to_hf(const clq_source *gguf, uint32_t n_rows, const clq_hooks *hooks,
                               clq_translation *out, clq_error *err);

// What the kinds are given and fill in.
typedef struct clq_gguf_tokenizer {
    const clq_gguf_kvs *kvs;
    const clq_hooks *hooks;
    clq_vocab vocab;
    bool model_has_unknown; // the kind's model names its unknown token, so it need not be added
    json_t *json;   // tokenizer.json: added_tokens is there
    json_t *config; // tokenizer_config.json: added_tokens_decoder, special tokens are there
    clq_translation *out;
} clq_gguf_tokenizer;

clq_status clq_bpe_to_hf(clq_gguf_tokenizer *t, clq_error *err);
clq_status clq_spm_to_hf(clq_gguf_tokenizer *t, clq_error *err);
clq_status clq_wordpiece_to_hf(clq_gguf_tokenizer *t, clq_error *err);

// The id that a role has, bounded by the vocabulary; false: none. fallback: an id to use where the
// metadata has none, or -1.
bool clq_special_id(const clq_gguf_tokenizer *t, const char *gguf_key, int64_t fallback,
                    uint32_t *id);
// BERT's [CLS]: GGUF's BOS; older files have a key of its own.
bool clq_cls_id(const clq_gguf_tokenizer *t, uint32_t *id);
// A TemplateProcessing that puts tokens (-1: none) in front of and behind a text.
json_t *clq_template_processor(const clq_vocab *v, int64_t first, int64_t last);
// {text: id} of all tokens but fillers. NULL: no memory, or a text that is not UTF-8 (err is set).
json_t *clq_vocab_object(const clq_vocab *v, clq_error *err);

// ---- pre-tokenizers of byte-level BPE (pretokenizer.c) ------------------------------------------

typedef struct clq_pretokenizer {
    const char *names[16]; // tokenizer.ggml.pre; [0] is written, the others are accepted
    const char *splits[4]; // regular expressions, each isolates its matches; ends with NULL
    bool digits;           // single digits are isolated first
    bool byte_level_regex; // GPT-2's own pattern comes last
    bool ignore_merges;    // a word that is a token needs no merges
    bool nfc;              // Unicode normalization form C first
    bool add_bos;          // when the metadata does not say
} clq_pretokenizer;

// By tokenizer.ggml.pre; NULL: unknown.
const clq_pretokenizer *clq_pretokenizer_find(const char *name);
// By tokenizer.json's pre_tokenizer and model.ignore_merges; NULL: unknown.
const clq_pretokenizer *clq_pretokenizer_of(const json_t *tokenizer);
// tokenizer.json's pre_tokenizer; NULL: no memory.
json_t *clq_pretokenizer_json(const clq_pretokenizer *p, bool add_prefix_space);

// ---- SentencePiece model files (sentencepiece.c) ------------------------------------------------

// Reads a tokenizer.model into v. CLQ_BAD_INPUT when it is cut off, malformed or not of BPE kind.
clq_status clq_sentencepiece_read(const char *data, size_t len, clq_vocab *v,
                                  bool *add_dummy_prefix, clq_error *err);
// Its number of pieces; 0 when it is malformed.
uint32_t clq_sentencepiece_count(const char *data, size_t len);
// unknown: the id of the piece that stands for what is no piece.
void clq_sentencepiece_write(const clq_vocab *v, uint32_t unknown, bool add_dummy_prefix,
                             clq_buf *out);

#endif

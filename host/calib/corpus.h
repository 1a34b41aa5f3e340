// SPDX-License-Identifier: MIT
// Calibration text as windows of tokens.
#ifndef CLQ_CALIB_CORPUS_H
#define CLQ_CALIB_CORPUS_H

#include "model/tokenizer.h"

typedef enum clq_corpus_kind {
    CLQ_CORPUS_TEXT,   // one text, with the special tokens that the model wants around it
    CLQ_CORPUS_JSONL,  // lines, each a JSON object with a text in `field`, tokenized each for itself, put together;
                       // lines of white space only are passed over
    CLQ_CORPUS_TOKENS, // token ids, parted by white space
} clq_corpus_kind;

typedef struct clq_corpus_options {
    clq_corpus_kind kind;
    const char *name;  // of the text, for messages
    const char *field; // CLQ_CORPUS_JSONL
    uint32_t context;  // tokens of a window, special ones included: at least 4
    uint32_t chunks;   // windows; 0: all
    bool random;       // with chunks: any whole windows, chosen by the seed, in their order; else the first
    uint64_t seed;
    bool encoder;   // each window is a text of its own, with the special tokens around it
    uint32_t vocab; // of the model
} clq_corpus_options;

// Windows of `context` tokens one after the other; the last may be shorter (clq_corpus_window).
typedef struct clq_corpus {
    int32_t *tokens;
    uint64_t n_tokens;
    uint32_t context, n_windows;
    uint64_t n_text;    // tokens of the text, special ones of windows not counted
    uint64_t n_dropped; // of these, in no window
} clq_corpus;

// Where the tokenizer adds a BOS it stands in place of each window's first token, as in llama.cpp's llama-imatrix and
// in clq_evaluate; an encoder's windows get their special tokens in addition. Without `chunks` a rest of two tokens or
// more is a window, too. tokenizer: NULL for a model that has none; then only ids can be taken.
// CLQ_BAD_INPUT when text is malformed (naming the line or the place), an id is not in the vocabulary, or there are
// fewer tokens than one window has, or than `chunks` windows have.
clq_status clq_corpus_create(const clq_tokenizer *tokenizer, const char *text, size_t len,
                             const clq_corpus_options *options, clq_corpus **corpus, clq_error *err);
void clq_corpus_free(clq_corpus *corpus);
// Tokens of a window.
uint32_t clq_corpus_window(const clq_corpus *corpus, uint32_t window);

#endif

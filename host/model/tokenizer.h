// SPDX-License-Identifier: MIT
// Text to tokens and back, from GGUF metadata. A tokenizer does not change after it is made: threads may share it.
#ifndef CLQ_MODEL_TOKENIZER_H
#define CLQ_MODEL_TOKENIZER_H

#include "base/buffer.h"
#include "base/error.h"
#include "io/gguf.h"

typedef struct clq_tokenizer clq_tokenizer;

enum { CLQ_MAX_TEXT_BYTES = 1 << 28 }; // of one call of clq_tokenize()

// Kinds (tokenizer.ggml.model): gpt2 and gemma4 (BPE), llama (SentencePiece), t5 (unigram), bert (WordPiece). Gives the
// ids that llama.cpp gives. CLQ_BAD_INPUT when the metadata is malformed or of a kind or pre-tokenizer that is unknown.
// kvs may go away afterwards.
clq_status clq_tokenizer_create(const clq_gguf_kvs *kvs, clq_tokenizer **t, clq_error *err);
// The same for metadata that was made of a Hugging Face folder: gives the ids that the `tokenizers` library gives for
// its tokenizer.json (patterns, NFC, BERT's normalizer, the order in which added tokens are found). Metadata does not
// have added tokens' lstrip, rstrip, single_word and normalized; all count as false.
clq_status clq_tokenizer_create_hf(const clq_gguf_kvs *kvs, clq_tokenizer **t, clq_error *err);
void clq_tokenizer_free(clq_tokenizer *t); // NULL: nothing
uint32_t clq_tokenizer_count(const clq_tokenizer *t);

enum {
    CLQ_TOKENIZE_SPECIAL = 1, // puts the tokens around the text that the model wants: BOS, EOS, [CLS], [SEP]
    CLQ_TOKENIZE_PARSE = 2,   // control tokens that stand in the text are tokens, else plain text
};

// Appends int32 ids to *ids. text: any bytes; a byte that is no part of a UTF-8 sequence counts as U+FFFD where the
// kind works on characters. CLQ_BAD_INPUT when it is longer than CLQ_MAX_TEXT_BYTES.
clq_status clq_tokenize(const clq_tokenizer *t, const char *text, size_t len, unsigned flags, clq_buf *ids,
                        clq_error *err);
// Appends a token's bytes, those of control and unknown tokens only if special. Pieces need not be whole characters.
// CLQ_BAD_INPUT when there is no such token.
clq_status clq_token_piece(const clq_tokenizer *t, int32_t id, bool special, clq_buf *out, clq_error *err);

// -1: the model has none. BERT's BOS is [CLS], its EOS [SEP].
int32_t clq_tokenizer_bos(const clq_tokenizer *t);
int32_t clq_tokenizer_eos(const clq_tokenizer *t);
int32_t clq_tokenizer_pad(const clq_tokenizer *t);
int32_t clq_tokenizer_unknown(const clq_tokenizer *t);
int32_t clq_tokenizer_mask(const clq_tokenizer *t);
bool clq_tokenizer_adds_bos(const clq_tokenizer *t);
bool clq_tokenizer_adds_eos(const clq_tokenizer *t);
// Whether generation ends with this token: EOS, EOT, EOM, and tokens that are known by their text (<|im_end|>,
// <end_of_turn>, <|eot_id|> ...).
bool clq_tokenizer_is_end(const clq_tokenizer *t, int32_t id);

typedef struct clq_chat_message {
    const char *role, *content; // role: "system", "user", "assistant"
} clq_chat_message;

// Appends the conversation as the model was taught to read it, without BOS. name: a built-in one (chatml, llama2,
// llama2-sys, llama2-sys-bos, llama2-sys-strip, llama3, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7,
// mistral-v7-tekken, gemma, phi3, phi4, zephyr, falcon3, smolvlm, llama4, vicuna, deepseek3); NULL: the one that the
// model's own template (tokenizer.chat_template) is recognised as. add_assistant: the answer's head comes last.
// CLQ_BAD_INPUT when the template is missing or is none of these.
clq_status clq_chat_format(const clq_tokenizer *t, const char *name, const clq_chat_message *messages, uint32_t n,
                           bool add_assistant, clq_buf *out, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
// What the tests of host/model share: models that are made here, comparisons.
#ifndef CLQ_TESTS_MODEL_FIXTURE_H
#define CLQ_TESTS_MODEL_FIXTURE_H

#include "file_fixture.h"
#include "model/translate.h"
#include "model/vocab.h"

typedef struct shape {
    const char *name; // '%' stands for the layer, '#' for each of three experts
    uint32_t n_dims;
    uint64_t dims[3];
} shape;

typedef struct weights {
    clq_buf header, data;
} weights;

float value_at(size_t i);
void add_tensor(weights *w, const char *name, uint32_t n_dims, const uint64_t *dims);
void save_weights(const char *dir, weights *w);
// Adds all tensors of a table; `skip`: leave this one out (NULL: none).
void add_shapes(weights *w, const shape *shapes, uint32_t n_layers, const char *skip);
// A GGUF file of a translation, of zeros but for computed tensors.
void save_gguf(const char *path, const clq_translation *t);
void save_folder(const char *dir, const clq_translation *t);
clq_translation to_gguf(const clq_source *hf);
clq_translation to_hf(const clq_source *gguf);
void assert_same_kvs(const clq_gguf_kvs *a, const clq_gguf_kvs *b);
void assert_same_tensors(const clq_translation *a, const clq_translation *b);
// Folder -> GGUF -> folder -> GGUF: both GGUF sides are the same, all metadata byte for byte.
void there_and_back(const char *dir);
uint64_t u64_of(const clq_gguf_kvs *kvs, const char *key);
void assert_text(const clq_gguf_kvs *kvs, const char *key, const char *expected);
void assert_strings(const clq_gguf_kvs *kvs, const char *key, const char *const *expected,
                    size_t n_expected);
void assert_types(const clq_gguf_kvs *kvs, const char *digits);
const clq_translated_tensor *find_tensor(const clq_translation *t, const char *name);
// free() it. The first `from` in text becomes `to`.
char *edited(const char *text, const char *from, const char *to);
void write_edited(const char *dir, const char *name, const char *text, const char *from,
                  const char *to);
// A folder that cannot become GGUF; expected: a part of the message.
void assert_refused(const char *dir, const char *expected);

// A llama model with byte-level BPE and a bert model with WordPiece: their parts, and folders of them.
extern const shape llama_shapes[13];
extern const char llama_config[];
extern const char bpe_tokenizer[];
extern const char bpe_config[];
extern const shape bert_shapes[23];
extern const char bert_config[];
extern const char bert_tokenizer[];
extern const char bert_tokenizer_config[];
void make_llama(char dir[256], const char *name);
void make_bert(char dir[256], const char *name);

#endif

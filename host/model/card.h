// SPDX-License-Identifier: MIT
// Model cards: the YAML head of a folder's README.md <-> general.license, .languages, .tags.
#ifndef CLQ_MODEL_CARD_H
#define CLQ_MODEL_CARD_H

#include "model/translate.h"

// Reads "license", "language", "tags" and "pipeline_tag" where they are plain words or lists of
// words. A folder without a card, or with another kind of head, is no error.
clq_status clq_card_to_gguf(const clq_source *hf, clq_gguf_kvs *kvs, clq_error *err);
// Adds a README.md with such a head when the metadata has something to say.
clq_status clq_card_to_hf(const clq_gguf_kvs *kvs, clq_translation *out, clq_error *err);

#endif

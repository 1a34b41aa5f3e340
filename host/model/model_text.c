// SPDX-License-Identifier: MIT
// The tokenizer of a model, for users of the library.
#include <string.h>

#include "model/runtime.h"

static clq_status need_tokenizer(const clq_model *model, clq_error *err)
{
    if (clq_model_tokenizer(model)) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "the model has no tokenizer");
}

clq_status clq_model_tokenize(const clq_model *model, const char *text, size_t len, bool special, bool parse,
                              int32_t *ids, uint32_t room, uint32_t *n, clq_error *err)
{
    clq_buf all = {0};
    unsigned flags = (special ? CLQ_TOKENIZE_SPECIAL : 0) | (parse ? CLQ_TOKENIZE_PARSE : 0);
    *n = 0;
    CLQ_TRY(need_tokenizer(model, err));
    clq_status st = clq_tokenize(clq_model_tokenizer(model), text, len, flags, &all, err);
    if (st == CLQ_OK) {
        *n = (uint32_t)(all.len / sizeof *ids);
        uint32_t stored = *n < room ? *n : room;
        if (stored) memcpy(ids, all.data, stored * sizeof *ids);
    }
    clq_buf_free(&all);
    return st;
}

clq_status clq_model_token_text(const clq_model *model, int32_t id, char *text, size_t room, size_t *len,
                                clq_error *err)
{
    clq_buf bytes = {0};
    *len = 0;
    CLQ_TRY(need_tokenizer(model, err));
    clq_status st = clq_token_piece(clq_model_tokenizer(model), id, false, &bytes, err);
    if (st == CLQ_OK) {
        *len = bytes.len;
        if (bytes.len && room) memcpy(text, bytes.data, bytes.len < room ? bytes.len : room);
    }
    clq_buf_free(&bytes);
    return st;
}

bool clq_model_is_end(const clq_model *model, int32_t id)
{
    const clq_tokenizer *t = clq_model_tokenizer(model);
    return t && clq_tokenizer_is_end(t, id);
}

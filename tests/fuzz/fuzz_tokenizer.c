// SPDX-License-Identifier: MIT
// Tokenizers of the metadata of a GGUF file, on texts of all kinds and on the end of the file itself.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "model/tokenizer.h"

static void tokenize(const clq_tokenizer *t, const char *text, size_t len)
{
    clq_error err;
    clq_buf ids = {0}, pieces = {0};
    if (clq_tokenize(t, text, len, CLQ_TOKENIZE_SPECIAL | CLQ_TOKENIZE_PARSE, &ids, &err) == CLQ_OK)
        for (size_t i = 0; i < ids.len / sizeof(int32_t); i++) // every id is a token
            if (clq_token_piece(t, ((int32_t *)(void *)ids.data)[i], true, &pieces, &err) != CLQ_OK) abort();
    clq_buf_free(&pieces);
    clq_buf_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello  w\xc3\xb6rld, don't \xe4\xb8\xad\xe6\x96\x87 12345\n\n\t<s>x</s><|end|> \xff\xfe\0 e\xcc\x81 \xf0\x9f\x99\x82";
    static const clq_chat_message chat[] = {{"system", "s"}, {"user", "u"}};
    int fd;
    const char *path = clq_fuzz_file(data, size, &fd);
    clq_source *s;
    clq_error err;
    if (clq_source_open(path, NULL, &s, &err) == CLQ_OK) {
        for (int hf = 0; hf < 2; hf++) {
            clq_tokenizer *t;
            clq_buf out = {0};
            if ((hf ? clq_tokenizer_create_hf : clq_tokenizer_create)(&s->kvs, &t, &err) != CLQ_OK) continue;
            size_t tail = size < 300 ? size : 300;
            tokenize(t, text, sizeof text);
            tokenize(t, (const char *)data + size - tail, tail);
            clq_chat_format(t, NULL, chat, 2, true, &out, &err);
            clq_buf_free(&out);
            clq_tokenizer_free(t);
        }
        clq_source_close(s);
    }
    close(fd);
    return 0;
}

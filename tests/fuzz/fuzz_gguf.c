// SPDX-License-Identifier: MIT
// The GGUF reader, writing the header again, and the translation of metadata and vocabulary to Hugging Face's files.
#include <stdlib.h>
#include <unistd.h>

#include "fuzz.h"
#include "model/translate.h"

// The metadata of an accepted file is written as it was read.
static void rewrite(const clq_source *s)
{
    clq_buf header = {0};
    clq_gguf_write_header(&header, &s->kvs, NULL, 0, s->alignment);
    if (header.failed || header.len % s->alignment) abort();
    clq_buf_free(&header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    const char *path = clq_fuzz_file(data, size, &fd);
    clq_source *s;
    clq_error err;
    if (clq_source_open(path, NULL, &s, &err) == CLQ_OK) {
        clq_fuzz_walk(s);
        if (s->container == CLQ_GGUF) {
            rewrite(s);
            clq_translation t;
            if (clq_translate_to_hf(s, NULL, &t, &err) == CLQ_OK) clq_translation_free(&t);
        }
        clq_source_close(s);
    }
    close(fd);
    return 0;
}

// SPDX-License-Identifier: MIT
// Hugging Face folders: config.json, the index, shards, compressed-tensors' companions, tokenizer files; and their
// translation to GGUF. An input is several files, each behind a line "\x01@D" with D the digit of its name.
#define _GNU_SOURCE // memmem
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "model/translate.h"

static const char *const names[10] = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "vocab.txt",
    "tokenizer.model",
    "generation_config.json",
};

static char folder[64];

static void remove_all(void)
{
    char path[128];
    for (int i = 0; i < 10; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
}

static void leave(void)
{
    remove_all();
    rmdir(folder);
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void write_folder(const uint8_t *data, size_t size)
{
    static const char mark[] = "\x01@";
    const uint8_t *end = data + size, *at = size ? memmem(data, size, mark, 2) : NULL;
    while (at && end - at >= 4) {
        const uint8_t *begin = at + 4; // mark, digit, newline
        const uint8_t *next = memmem(begin, (size_t)(end - begin), mark, 2);
        write_file(names[(unsigned)(at[2] - '0') % 10], begin, (size_t)((next ? next : end) - begin));
        at = next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!folder[0]) {
        strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/clq_fuzz_XXXXXX" : "/tmp/clq_fuzz_XXXXXX");
        if (!mkdtemp(folder)) abort();
        atexit(leave);
    }
    remove_all();
    write_folder(data, size);
    clq_source *s;
    clq_error err;
    if (clq_source_open(folder, NULL, &s, &err) != CLQ_OK) return 0;
    clq_fuzz_walk(s);
    clq_translation t;
    if (clq_translate_to_gguf(s, NULL, &t, &err) == CLQ_OK) {
        clq_buf header = {0};
        clq_gguf_write_header(&header, &t.kvs, NULL, 0, 32);
        if (header.failed) abort();
        clq_buf_free(&header);
        clq_translation_free(&t);
    }
    clq_source_close(s);
    return 0;
}

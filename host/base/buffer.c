// SPDX-License-Identifier: MIT
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(clq_buf *b, size_t n)
{
    if (b->failed) return false;
    if (n <= b->capacity - b->len) return true;
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity - b->len < n) {
        if (capacity > SIZE_MAX / 2) goto fail;
        capacity *= 2;
    }
    char *data = realloc(b->data, capacity);
    if (!data) goto fail;
    b->data = data;
    b->capacity = capacity;
    return true;
fail:
    b->failed = true;
    return false;
}

void clq_buf_append(clq_buf *b, const void *bytes, size_t n)
{
    if (n == 0 || !reserve(b, n)) return;
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
}

void clq_buf_text(clq_buf *b, const char *text)
{
    clq_buf_append(b, text, strlen(text));
}

void clq_buf_printf(clq_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(b, (size_t)n + 1)) return;
    va_start(args, format);
    vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
    va_end(args);
    b->len += (size_t)n;
}

void clq_buf_u32(clq_buf *b, uint32_t v)
{
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)(v >> 8 * i);
    clq_buf_append(b, bytes, sizeof bytes);
}

void clq_buf_u64(clq_buf *b, uint64_t v)
{
    clq_buf_u32(b, (uint32_t)v);
    clq_buf_u32(b, (uint32_t)(v >> 32));
}

void clq_buf_zeros(clq_buf *b, size_t n)
{
    if (n == 0 || !reserve(b, n)) return;
    memset(b->data + b->len, 0, n);
    b->len += n;
}

void clq_buf_free(clq_buf *b)
{
    free(b->data);
    *b = (clq_buf){0};
}

char *clq_path_join(const char *dir, const char *name)
{
    size_t dir_len = strlen(dir), name_len = strlen(name);
    bool slash = dir_len > 0 && dir[dir_len - 1] != '/';
    char *path = malloc(dir_len + slash + name_len + 1);
    if (!path) return NULL;
    memcpy(path, dir, dir_len);
    if (slash) path[dir_len] = '/';
    memcpy(path + dir_len + slash, name, name_len + 1);
    return path;
}

const char *clq_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool clq_ends_with(const char *text, const char *suffix)
{
    size_t text_len = strlen(text), suffix_len = strlen(suffix);
    return text_len >= suffix_len && memcmp(text + text_len - suffix_len, suffix, suffix_len) == 0;
}

// SPDX-License-Identifier: MIT
// A growing byte string. After a failed allocation it stays failed and swallows appends, so that
// callers check `failed` once, at the end.
#ifndef CLQ_BASE_BUFFER_H
#define CLQ_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct clq_buf {
    char *data;
    size_t len, capacity;
    bool failed;
} clq_buf;

void clq_buf_append(clq_buf *b, const void *bytes, size_t n);
void clq_buf_text(clq_buf *b, const char *text);
void clq_buf_printf(clq_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void clq_buf_u32(clq_buf *b, uint32_t v); // little-endian
void clq_buf_u64(clq_buf *b, uint64_t v);
void clq_buf_zeros(clq_buf *b, size_t n);
void clq_buf_free(clq_buf *b);

// "dir/name" in new memory, NULL when there is none.
char *clq_path_join(const char *dir, const char *name);
// The part of path behind the last '/'.
const char *clq_path_base(const char *path);
bool clq_ends_with(const char *text, const char *suffix);

#endif

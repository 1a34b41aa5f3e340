// SPDX-License-Identifier: MIT
// A file opened for reading: memory-mapped, or read with pread where it cannot be mapped.
#ifndef CLQ_IO_FILE_H
#define CLQ_IO_FILE_H

#include <sys/types.h>

#include "base/error.h"

typedef struct clq_file {
    char *path; // as given
    int fd;
    uint64_t size;
    const uint8_t *map; // NULL: not mapped
    dev_t device;       // identity, to tell that two paths name one file
    ino_t inode;
    int64_t mtime_ns;
} clq_file;

// Regular files only.
clq_status clq_file_open(const char *path, clq_file *file, clq_error *err);
void clq_file_close(clq_file *file);
// offset + n <= size, or CLQ_BAD_INPUT.
clq_status clq_file_read(const clq_file *file, uint64_t offset, void *dst, uint64_t n, clq_error *err);
// Borrowed bytes, NULL when the file is not mapped.
static inline const uint8_t *clq_file_at(const clq_file *file, uint64_t offset)
{
    return file->map ? file->map + offset : NULL;
}
// The bytes will not be read again soon: mapped pages of them are given back. What is read later is the same.
void clq_file_forget(const clq_file *file, uint64_t offset, uint64_t n);
// The whole of a small text file (at most max_bytes), NUL-terminated; free() it.
clq_status clq_file_slurp(const char *path, uint64_t max_bytes, char **text, size_t *len, clq_error *err);

#endif

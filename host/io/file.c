// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"

clq_status clq_file_open(const char *path, clq_file *file, clq_error *err)
{
    *file = (clq_file){.fd = -1};
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot open '%s'", path);
    struct stat s;
    clq_status st = CLQ_OK;
    if (fstat(fd, &s) != 0)
        st = clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot stat '%s'", path);
    else if (!S_ISREG(s.st_mode))
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s' is not a regular file", path);
    if (st != CLQ_OK) {
        close(fd);
        return st;
    }
    file->path = strdup(path);
    if (!file->path) {
        close(fd);
        return clq_fail_memory(err, strlen(path));
    }
    file->fd = fd;
    file->size = (uint64_t)s.st_size;
    file->device = s.st_dev;
    file->inode = s.st_ino;
    file->mtime_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
    if (file->size && file->size <= SIZE_MAX) {
        void *map = mmap(NULL, file->size, PROT_READ, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) {
            file->map = map;
            madvise(map, file->size, MADV_SEQUENTIAL);
        }
    }
    return CLQ_OK;
}

void clq_file_forget(const clq_file *file, uint64_t offset, uint64_t n)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin, end;
    if (!file->map || !clq_round_up_u64(offset, page, &begin) || !clq_add_u64(offset, n, &end)) return;
    end = end / page * page;
    if (begin < end && end <= file->size) madvise((uint8_t *)file->map + begin, end - begin, MADV_DONTNEED);
}

void clq_file_close(clq_file *file)
{
    if (file->map) munmap((void *)file->map, file->size);
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    *file = (clq_file){.fd = -1};
}

clq_status clq_file_read(const clq_file *file, uint64_t offset, void *dst, uint64_t n, clq_error *err)
{
    uint64_t end;
    if (!clq_add_u64(offset, n, &end) || end > file->size)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s': a read of %llu bytes at %llu goes past its end",
                        file->path, (unsigned long long)n, (unsigned long long)offset);
    if (file->map) {
        if (n) memcpy(dst, file->map + offset, n);
        return CLQ_OK;
    }
    uint8_t *p = dst;
    while (n > 0) {
        ssize_t got = pread(file->fd, p, n < 1u << 30 ? n : 1u << 30, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot read '%s'", file->path);
        if (got == 0)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s' became shorter while it was read", file->path);
        p += got;
        offset += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return CLQ_OK;
}

clq_status clq_file_slurp(const char *path, uint64_t max_bytes, char **text, size_t *len, clq_error *err)
{
    *text = NULL;
    clq_file file;
    CLQ_TRY(clq_file_open(path, &file, err));
    clq_status st = CLQ_OK;
    if (file.size > max_bytes) {
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s' has %llu bytes; at most %llu are expected", path,
                      (unsigned long long)file.size, (unsigned long long)max_bytes);
        goto out;
    }
    *text = malloc(file.size + 1);
    if (!*text) {
        st = clq_fail_memory(err, file.size + 1);
        goto out;
    }
    st = clq_file_read(&file, 0, *text, file.size, err);
    if (st != CLQ_OK) {
        free(*text);
        *text = NULL;
        goto out;
    }
    (*text)[file.size] = '\0';
    *len = file.size;
out:
    clq_file_close(&file);
    return st;
}

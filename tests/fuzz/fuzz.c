// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // memfd_create
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_TENSORS = 8, MAX_FLOATS = 1 << 16 };

const char *clq_fuzz_file(const uint8_t *data, size_t size, int *fd)
{
    static char path[64];
    *fd = memfd_create("clq_fuzz", 0);
    if (*fd < 0) abort();
    for (size_t at = 0; at < size;) {
        ssize_t put = write(*fd, data + at, size - at);
        if (put <= 0) abort();
        at += (size_t)put;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

// The number of a target's own bugs: what the readers promise about every tensor they hand out.
static void check_promises(const clq_tensor_info *info)
{
    if (!info->name || info->n_dims > CLQ_MAX_DIMS || strlen(info->type) >= sizeof info->type) abort();
    if (!info->file || !*info->file) abort();
}

void clq_fuzz_walk(const clq_source *s)
{
    float *y = malloc(MAX_FLOATS * sizeof *y);
    if (!y) abort();
    clq_error err;
    for (uint32_t i = 0; i < clq_source_count(s); i++) {
        clq_tensor_info info;
        if (clq_source_tensor(s, i, &info, &err) != CLQ_OK) abort();
        check_promises(&info);
        if (!clq_source_find(s, info.name)) abort();
        if (i >= MAX_TENSORS) continue;
        uint64_t rows = info.n_dims > 1 ? info.dims[0] : 1, len = rows ? info.n_elements / rows : 0;
        if (len > MAX_FLOATS) continue;
        uint64_t n = len ? MAX_FLOATS / len : rows;
        if (n > rows) n = rows;
        // The first rows, the last, and one too many.
        if (clq_source_rows(s, i, 0, n, y, &err) == CLQ_USAGE) abort();
        if (rows && clq_source_rows(s, i, rows - 1, 1, y, &err) == CLQ_USAGE) abort();
        if (clq_source_rows(s, i, rows, 1, y, &err) != CLQ_USAGE) abort();
    }
    free(y);
}

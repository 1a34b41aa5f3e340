// SPDX-License-Identifier: MIT
// Kernel files, embedded at build time by cmake/EmbedKernels.cmake.
#ifndef CLQ_DEVICE_EMBEDDED_H
#define CLQ_DEVICE_EMBEDDED_H

#include <stddef.h>

typedef struct clq_embedded_file {
    const char *name; // "common.cl", "formats/q8_0.cl"
    const unsigned char *text;
    size_t len;
} clq_embedded_file;

extern const clq_embedded_file clq_embedded_files[];
extern const size_t clq_n_embedded_files;

#endif

// SPDX-License-Identifier: MIT
// The C references, declared from the table: clq_<name>_encode_ref, clq_<name>_decode_ref, and what the kernels
// of codebook formats look up.
#ifndef CLQ_FORMAT_CODECS_H
#define CLQ_FORMAT_CODECS_H

#include "format/format.h"

#define CLQ_CODEC(ID, name, ggml, st, elements, bytes, scale, exactness, bound, weights)          \
    void clq_##name##_encode_ref(const float *x, const float *importance, uint64_t n_blocks,       \
                                 void *blocks);                                                    \
    void clq_##name##_decode_ref(const void *blocks, uint64_t n_blocks, float *y);
#define CLQ_CODEBOOK(ID, name, ggml, st, elements, bytes, scale, exactness, bound, importance)             \
    CLQ_CODEC(ID, name, ggml, st, elements, bytes, scale, exactness, bound, USED)                          \
    const void *clq_##name##_table(size_t *n_bytes);
#define CLQ_STORAGE(ID, name, ggml, st, elements, bytes, kind)
#include "clquant_formats.def"
#undef CLQ_CODEC
#undef CLQ_STORAGE

#endif

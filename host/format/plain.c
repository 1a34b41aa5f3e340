// SPDX-License-Identifier: MIT
// F32, F16, BF16: one value a block, rounded to nearest, ties to even.
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"

void clq_f32_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    memcpy(blocks, x, n_blocks * sizeof *x);
}

void clq_f32_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    memcpy(y, blocks, n_blocks * sizeof *y);
}

void clq_f16_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    uint16_t *h = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) h[i] = clq_f32_to_f16(x[i]);
}

void clq_f16_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const uint16_t *h = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) y[i] = clq_f16_to_f32(h[i]);
}

void clq_bf16_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    uint16_t *h = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) h[i] = clq_f32_to_bf16(x[i]);
}

void clq_bf16_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const uint16_t *h = blocks;
    for (uint64_t i = 0; i < n_blocks; i++) y[i] = clq_bf16_to_f32(h[i]);
}

void clq_load_floats(clq_format_id format, const void *src, uint64_t n, float *dst)
{
    clq_format_row(format)->decode_ref(src, n, dst);
}

void clq_store_floats(clq_format_id format, const float *src, uint64_t n, void *dst)
{
    clq_format_row(format)->encode_ref(src, NULL, n, dst);
}

// SPDX-License-Identifier: MIT
// tq1_0, for weights that are ternary already: value = d * (t - 1), d the largest |x|. Five digits t of
// base 3 a byte, the first element's the most significant, as byte = ceil(digits * 256 / 243): byte k < 32
// of qs holds elements k + 32 n, byte 32 + k (k < 16) elements 160 + k + 16 n, byte k of qh the four elements
// 240 + k + 4 n and a last digit 0. Rounding is half away from zero.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"

static uint8_t pack(const float *x, int stride, int n, float inverse)
{
    unsigned q = 0;
    for (int k = 0; k < 5; k++)
        q = q * 3 + (k < n ? ((unsigned)clq_trunc_x86(roundf(x[k * stride] * inverse)) + 1) & 3 : 0);
    return (uint8_t)((q * 256 + 242) / 243);
}

static int digit(uint8_t byte, int n)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * power[n]) * 3 >> 8;
}

void clq_tq1_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_tq1_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        float d = 0;
        for (int j = 0; j < 256; j++) d = fmaxf(d, fabsf(x[j]));
        float inverse = d != 0 ? 1 / d : 0;
        b[i].d = clq_f32_to_f16(d);
        for (int k = 0; k < 32; k++) b[i].qs[k] = pack(x + k, 32, 5, inverse);
        for (int k = 0; k < 16; k++) b[i].qs[32 + k] = pack(x + 160 + k, 16, 5, inverse);
        for (int k = 0; k < 4; k++) b[i].qh[k] = pack(x + 240 + k, 4, 4, inverse);
    }
}

void clq_tq1_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_tq1_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (int k = 0; k < 160; k++) y[k] = (float)(digit(b[i].qs[k % 32], k / 32) - 1) * d;
        for (int k = 0; k < 80; k++) y[160 + k] = (float)(digit(b[i].qs[32 + k % 16], k / 16) - 1) * d;
        for (int k = 0; k < 16; k++) y[240 + k] = (float)(digit(b[i].qh[k % 4], k / 4) - 1) * d;
    }
}

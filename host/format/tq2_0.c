// SPDX-License-Identifier: MIT
// tq2_0, for weights that are ternary already: value = d * (q - 1), d the largest |x|. Per 128 elements,
// bits 2 n of byte k hold element k + 32 n. Rounding is half away from zero.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"

void clq_tq2_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_tq2_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        float d = 0;
        for (int j = 0; j < 256; j++) d = fmaxf(d, fabsf(x[j]));
        float inverse = d != 0 ? 1 / d : 0;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 64; j++) {
            unsigned q = 0;
            for (int n = 0; n < 4; n++)
                q |= (((unsigned)clq_trunc_x86(roundf(x[j / 32 * 128 + j % 32 + 32 * n] * inverse)) + 1) & 3) << 2 * n;
            b[i].qs[j] = (uint8_t)q;
        }
    }
}

void clq_tq2_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_tq2_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (int k = 0; k < 256; k++) y[k] = (float)((b[i].qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3) - 1) * d;
    }
}

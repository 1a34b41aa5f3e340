// SPDX-License-Identifier: MIT
// q2_0: 64 elements; value = d * (q - 1), d the largest |x|, so that q is 0, 1 or 2 (3, twice d, is only
// read). Bits 2 j of the block's codes hold element j. Rounding is half away from zero.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"

void clq_q2_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_q2_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 64) {
        float d = 0;
        for (int j = 0; j < 64; j++) d = fmaxf(d, fabsf(x[j]));
        float inverse = d > 0 ? 1 / d : 0;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 16; j++) {
            unsigned q = 0;
            for (int n = 0; n < 4; n++) {
                int l = (int)((unsigned)clq_trunc_x86(roundf(x[4 * j + n] * inverse)) + 1);
                q |= (unsigned)(l < 0 ? 0 : l > 3 ? 3 : l) << 2 * n;
            }
            b[i].qs[j] = (uint8_t)q;
        }
    }
}

void clq_q2_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q2_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 64) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 64; j++) y[j] = (float)((b[i].qs[j / 4] >> j % 4 * 2 & 3) - 1) * d;
    }
}

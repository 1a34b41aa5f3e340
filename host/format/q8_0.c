// SPDX-License-Identifier: MIT
// q8_0: value = d * q. d = largest |x| / 127, q = round(x * (1 / d)), halves away from zero, 1 / d
// from the unrounded d.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"

void clq_q8_0_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_q8_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float amax = 0.0f;
        for (int j = 0; j < 32; j++) {
            float a = x[j] < 0.0f ? -x[j] : x[j];
            if (a > amax) amax = a;
        }
        float d = amax / 127.0f;
        float id = d != 0.0f ? 1.0f / d : 0.0f;
        b[i].d = clq_f32_to_f16(d);
        for (int j = 0; j < 32; j++) b[i].qs[j] = (int8_t)clq_trunc_x86(roundf(x[j] * id));
    }
}

void clq_q8_0_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q8_0 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = clq_f16_to_f32(b[i].d);
        for (int j = 0; j < 32; j++) y[j] = (float)b[i].qs[j] * d;
    }
}

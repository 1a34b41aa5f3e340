// SPDX-License-Identifier: MIT
// q6_K: 16 groups of 16; value = d * sc * (q - 32), q in 0..63, sc int8. Per 128 elements: ql holds the
// low nibbles of elements k and k + 64 (k < 64) in byte k, qh the high bits of k, k + 32, k + 64, k + 96.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

void clq_q6_K_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q6_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        int8_t q[256];
        float scale[16], largest = 0, signed_largest = 0;
        for (int j = 0; j < 16; j++) {
            scale[j] =
                clq_fit_symmetric(16, 32, x + 16 * j, importance ? importance + 256 * i + 16 * j : NULL, q + 16 * j);
            if (fabsf(scale[j]) > largest) {
                largest = fabsf(scale[j]);
                signed_largest = scale[j];
            }
        }
        memset(&b[i], 0, sizeof b[i]);
        if (largest < 1e-15f) continue;
        float inverse = -128.0f / signed_largest;
        b[i].d = clq_f32_to_f16(1 / inverse);
        for (int j = 0; j < 16; j++) {
            int l = clq_nearest(inverse * scale[j]);
            b[i].scales[j] = (int8_t)(l < 127 ? l : 127);
        }
        for (int j = 0; j < 16; j++) {
            float step = clq_f16_to_f32(b[i].d) * (float)b[i].scales[j];
            for (int k = 16 * j; step != 0 && k < 16 * j + 16; k++) {
                int l = clq_nearest(x[k] / step);
                q[k] = (int8_t)((l < -32 ? -32 : l > 31 ? 31 : l) + 32);
            }
        }
        for (int k = 0; k < 256; k++) {
            int half = k / 128, in = k % 128;
            b[i].ql[64 * half + in % 64] |= (uint8_t)((q[k] & 15) << (in < 64 ? 0 : 4));
            b[i].qh[32 * half + in % 32] |= (uint8_t)(q[k] >> 4 << in / 32 * 2);
        }
    }
}

void clq_q6_K_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q6_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d);
        for (int k = 0; k < 256; k++) {
            int half = k / 128, in = k % 128, low = b[i].ql[64 * half + in % 64] >> (in < 64 ? 0 : 4) & 15;
            int high = b[i].qh[32 * half + in % 32] >> in / 32 * 2 & 3;
            y[k] = d * (float)b[i].scales[k / 16] * (float)((low | high << 4) - 32);
        }
    }
}

// SPDX-License-Identifier: MIT
// q4_K: 8 groups of 32; value = d * sc * q - dmin * m, q in 0..15, sc and m of 6 bits.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/kscales.h"
#include "format/search.h"

void clq_q4_K_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q4_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        uint8_t q[256];
        clq_affine_groups(x, importance ? importance + 256 * i : NULL, 15, -1.0f, 0.1f, 20, q, &b[i].d, &b[i].dmin,
                          b[i].scales);
        for (int j = 0; j < 128; j++) {
            int at = j / 32 * 64 + j % 32;
            b[i].qs[j] = (uint8_t)(q[at] | q[at + 32] << 4);
        }
    }
}

void clq_q4_K_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q4_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d), dmin = clq_f16_to_f32(b[i].dmin);
        for (int j = 0; j < 8; j++) {
            int sc, m;
            clq_get_scale_min(b[i].scales, j, &sc, &m);
            float scale = d * (float)sc, min = dmin * (float)m;
            for (int k = 0; k < 32; k++) {
                int byte = b[i].qs[j / 2 * 32 + k];
                y[32 * j + k] = scale * (float)(j % 2 ? byte >> 4 : byte & 15) - min;
            }
        }
    }
}

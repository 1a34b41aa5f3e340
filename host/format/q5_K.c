// SPDX-License-Identifier: MIT
// q5_K: as q4_K with q in 0..31; the fifth bits stand in qh, bit j of byte k for element 32 j + k.
#include "base/half.h"
#include "format/codecs.h"
#include "format/kscales.h"

void clq_q5_K_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q5_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        uint8_t q[256];
        clq_affine_groups(x, importance ? importance + 256 * i : NULL, 31, -0.5f, 0.1f, 15, q, &b[i].d, &b[i].dmin,
                          b[i].scales);
        for (int k = 0; k < 32; k++) {
            b[i].qh[k] = 0;
            for (int j = 0; j < 8; j++) b[i].qh[k] |= (uint8_t)(q[32 * j + k] >> 4 << j);
        }
        for (int j = 0; j < 128; j++) {
            int at = j / 32 * 64 + j % 32;
            b[i].qs[j] = (uint8_t)((q[at] & 15) | (q[at + 32] & 15) << 4);
        }
    }
}

void clq_q5_K_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q5_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d), dmin = clq_f16_to_f32(b[i].dmin);
        for (int j = 0; j < 8; j++) {
            int sc, m;
            clq_get_scale_min(b[i].scales, j, &sc, &m);
            float scale = d * (float)sc, min = dmin * (float)m;
            for (int k = 0; k < 32; k++) {
                int byte = b[i].qs[j / 2 * 32 + k], high = b[i].qh[k] >> j & 1;
                y[32 * j + k] = scale * (float)((j % 2 ? byte >> 4 : byte & 15) | high << 4) - min;
            }
        }
    }
}

// SPDX-License-Identifier: MIT
// q2_K: 16 groups of 16; value = d * sc * q - dmin * m, q in 0..3, sc (low) and m (high) nibbles.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/search.h"

// Codes of 4 bits of the groups' scales; the step as float16.
static clq_half quantize_scales(const float s[16], float largest, int shift, uint8_t scales[16])
{
    if (!(largest > 0)) return clq_f32_to_f16(0.0f);
    float inverse = 15.0f / largest;
    for (int j = 0; j < 16; j++) scales[j] |= (uint8_t)((uint32_t)clq_nearest(inverse * s[j]) << shift);
    return clq_f32_to_f16(largest / 15.0f);
}

// The same with importance: fitted, each group with the sum of its weights.
static clq_half fit_scales(const float s[16], const float weight[16], int shift, uint8_t scales[16])
{
    uint8_t code[16];
    float step = clq_fit_positive(16, 15, s, weight, code);
    for (int j = 0; j < 16; j++) scales[j] |= (uint8_t)(code[j] << shift);
    return clq_f32_to_f16(step);
}

void clq_q2_K_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    clq_block_q2_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 256) {
        uint8_t q[256];
        float scale[16], min[16], max_scale = 0, max_min = 0, weights[16] = {0};
        const float *own = importance ? importance + 256 * i : NULL;
        float sigma2 = own ? clq_sum_squares(x, 256) / 256 : 0;
        for (int j = 0; j < 16; j++) {
            float weight[16];
            if (own) {
                clq_weigh(16, x + 16 * j, own + 16 * j, sigma2, weight);
                for (int k = 0; k < 16; k++) weights[j] += weight[k];
                scale[j] = clq_fit_affine(16, 3, x + 16 * j, weight, -0.9f, 0.05f, 36, 0, q + 16 * j, &min[j]);
            } else {
                for (int k = 0; k < 16; k++) weight[k] = fabsf(x[16 * j + k]);
                scale[j] = clq_fit_affine(16, 3, x + 16 * j, weight, -0.5f, 0.1f, 15, 1, q + 16 * j, &min[j]);
            }
            if (scale[j] > max_scale) max_scale = scale[j];
            if (min[j] > max_min) max_min = min[j];
        }
        memset(b[i].scales, 0, sizeof b[i].scales);
        if (own) {
            b[i].d = fit_scales(scale, weights, 0, b[i].scales);
            b[i].dmin = fit_scales(min, weights, 4, b[i].scales);
        } else {
            b[i].d = quantize_scales(scale, max_scale, 0, b[i].scales);
            b[i].dmin = quantize_scales(min, max_min, 4, b[i].scales);
        }
        for (int j = 0; j < 16; j++) {
            float step = clq_f16_to_f32(b[i].d) * (float)(b[i].scales[j] & 15);
            float offset = clq_f16_to_f32(b[i].dmin) * (float)(b[i].scales[j] >> 4);
            if (step == 0) continue;
            for (int k = 16 * j; k < 16 * j + 16; k++) {
                int l = clq_nearest((x[k] + offset) / step);
                q[k] = (uint8_t)(l < 0 ? 0 : l > 3 ? 3 : l);
            }
        }
        for (int j = 0; j < 64; j++) {
            const uint8_t *from = q + j / 32 * 128 + j % 32;
            b[i].qs[j] = (uint8_t)(from[0] | from[32] << 2 | from[64] << 4 | from[96] << 6);
        }
    }
}

void clq_q2_K_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_q2_K *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 256) {
        float d = clq_f16_to_f32(b[i].d), dmin = clq_f16_to_f32(b[i].dmin);
        for (int k = 0; k < 256; k++) {
            int sc = b[i].scales[k / 16], q = b[i].qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
            y[k] = d * (float)(sc & 15) * (float)q - dmin * (float)(sc >> 4);
        }
    }
}

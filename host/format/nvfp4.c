// SPDX-License-Identifier: MIT
// nvfp4: 64 elements, a scale for each 16; value = scale / 2 * level[q], the scale an unsigned E4M3
// number. Scales above 448 become 448. Nibbles of a sub-block: element j low, j + 8 high.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/fp4.h"

// Unsigned E4M3 from v: rounded by the first bit behind the mantissa alone, 0 for v <= 0.
static uint8_t to_ue4m3(float v)
{
    if (!(v > 0)) return 0;
    uint32_t bits = clq_bits(fminf(v, 448.0f));
    int exponent = (int)(bits >> 23) - 127 + 7, mantissa = (int)(bits >> 20 & 7) + (int)(bits >> 19 & 1);
    if (exponent <= 0) {
        int steps = (int)(v * 512.0f + 0.5f); // of 2^-9
        return (uint8_t)(steps < 7 ? steps : 7);
    }
    if (exponent < 15 && mantissa > 7) {
        mantissa = 0;
        exponent++;
    }
    return (uint8_t)(exponent >= 15 ? 0x7e : exponent << 3 | mantissa);
}

// Half of the scale. 0x7f is not a number there and counts as 0.
static float half_scale(uint8_t u)
{
    int exponent = u >> 3 & 15, mantissa = u & 7;
    if (u == 0x7f) return 0;
    return 0.5f * (exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9));
}

void clq_nvfp4_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_nvfp4 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 64)
        for (int s = 0; s < 4; s++) {
            const float *g = x + 16 * s;
            float largest = 0;
            for (int j = 0; j < 16; j++) largest = fmaxf(largest, fabsf(g[j]));
            b[i].d[s] = to_ue4m3(largest / 6.0f);
            float d = half_scale(b[i].d[s]);
            for (int j = 0; j < 8; j++)
                b[i].qs[8 * s + j] = (uint8_t)(clq_fp4_index(g[j], d) | clq_fp4_index(g[j + 8], d) << 4);
        }
}

void clq_nvfp4_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_nvfp4 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 64)
        for (int s = 0; s < 4; s++) {
            float d = half_scale(b[i].d[s]);
            for (int j = 0; j < 8; j++) {
                y[16 * s + j] = (float)clq_fp4_levels[b[i].qs[8 * s + j] & 15] * d;
                y[16 * s + j + 8] = (float)clq_fp4_levels[b[i].qs[8 * s + j] >> 4] * d;
            }
        }
}

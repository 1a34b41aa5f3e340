// SPDX-License-Identifier: MIT
// mxfp4: value = 2^(e - 128) * level[q] (OCP microscaling FP4, the levels doubled). e comes from the
// largest |x| alone. Source: ggml; the levels are E2M1's.
#include <math.h>

#include "base/half.h"
#include "format/codecs.h"
#include "format/fp4.h"

const signed char clq_fp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

int clq_fp4_index(float x, float d)
{
    int index = 0;
    float best = fabsf((float)clq_fp4_levels[0] * d - x);
    for (int k = 1; k < 16; k++) {
        float e = fabsf((float)clq_fp4_levels[k] * d - x);
        if (e < best) {
            best = e;
            index = k;
        }
    }
    return index;
}

// floor of log2(v) where the logarithm is rounded to float first: the floats closest below 2^n count as 2^n.
// They are those whose logarithm is nearer to n than half the float spacing there, 2^(j - 24) for
// 2^j < n <= 2^(j + 1), or for 2^j <= -n < 2^(j + 1).
static int floor_log2f(float v)
{
    int n;
    float part = frexpf(v, &n); // [0.5, 1), v = part * 2^n
    int size = n > 0 ? n - 1 : -n, j = 0;
    if (n == 0 || n == 1) return n - 1;
    while (size >> (j + 1)) j++;
    return part >= 1 - floorf(0.6931472f * (float)(1 << j)) * 0x1p-24f ? n : n - 1;
}

// 2^(e - 128)
static float step_of(uint8_t e)
{
    return clq_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

void clq_mxfp4_encode_ref(const float *x, const float *importance, uint64_t n_blocks, void *blocks)
{
    (void)importance;
    clq_block_mxfp4 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, x += 32) {
        float largest = 0;
        for (int j = 0; j < 32; j++) largest = fmaxf(largest, fabsf(x[j]));
        b[i].e = (uint8_t)(largest > 0 ? floor_log2f(largest) - 2 + 127 : 0); // modulo 256 for the smallest
        float d = step_of(b[i].e);
        for (int j = 0; j < 16; j++) b[i].qs[j] = (uint8_t)(clq_fp4_index(x[j], d) | clq_fp4_index(x[j + 16], d) << 4);
    }
}

void clq_mxfp4_decode_ref(const void *blocks, uint64_t n_blocks, float *y)
{
    const clq_block_mxfp4 *b = blocks;
    for (uint64_t i = 0; i < n_blocks; i++, y += 32) {
        float d = step_of(b[i].e);
        for (int j = 0; j < 16; j++) {
            y[j] = (float)clq_fp4_levels[b[i].qs[j] & 15] * d;
            y[j + 16] = (float)clq_fp4_levels[b[i].qs[j] >> 4] * d;
        }
    }
}

// SPDX-License-Identifier: MIT
#include "format/iq4.h"

#include <math.h>

const int8_t clq_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

int clq_iq4_index(float x)
{
    int index = 0;
    for (int k = 1; k < 16; k++) // the midpoints are exact in float
        if (x >= 0.5f * (float)(clq_iq4_levels[k - 1] + clq_iq4_levels[k])) index = k;
    return index;
}

float clq_iq4_fit(const float x[32], const float *weight)
{
    float largest = 0, signed_largest = 0, scale = 0, best = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            signed_largest = x[i];
        }
    if (largest < 1e-15f) return 0;
    for (int k = -8; k <= 7; k++) { // the first candidate has the largest value at the other end
        float inverse = k == -8 ? 1 / (-signed_largest / -127.0f) : ((float)k + -127.0f) / signed_largest;
        float sum_qx = 0, sum_qq = 0;
        for (int i = 0; i < 32; i++) {
            float q = clq_iq4_levels[clq_iq4_index(inverse * x[i])], w = weight ? weight[i] : x[i] * x[i];
            sum_qx += w * q * x[i];
            sum_qq += w * q * q;
        }
        if (k == -8)
            scale = sum_qq > 0 ? sum_qx / sum_qq : 0;
        else if (sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)
            scale = sum_qx / sum_qq;
        else
            continue;
        best = scale * sum_qx;
    }
    return scale;
}

void clq_iq4_pack(const float x[32], float inverse, uint8_t qs[16])
{
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)(clq_iq4_index(inverse * x[j]) | clq_iq4_index(inverse * x[j + 16]) << 4);
}

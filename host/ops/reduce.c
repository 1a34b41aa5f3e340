// SPDX-License-Identifier: MIT
#include "ops/reduce.h"

#include <math.h>

void clq_minmax_ref(const float *x, uint64_t n_groups, uint64_t len, float *min, float *max)
{
    for (uint64_t g = 0; g < n_groups; g++, x += len) {
        float low = x[0], high = x[0];
        for (uint64_t i = 0; i < len; i++) {
            if (isnan(x[i])) {
                low = high = NAN;
                break;
            }
            if (x[i] < low) low = x[i];
            if (x[i] > high) high = x[i];
        }
        min[g] = low;
        max[g] = high;
    }
}

void clq_minmax_merge(const float *mins, const float *maxs, uint64_t n, float *min, float *max)
{
    float low = mins[0], high = maxs[0];
    for (uint64_t i = 0; i < n; i++) {
        if (isnan(mins[i]) || isnan(maxs[i])) {
            low = high = NAN;
            break;
        }
        if (mins[i] < low) low = mins[i];
        if (maxs[i] > high) high = maxs[i];
    }
    *min = low;
    *max = high;
}

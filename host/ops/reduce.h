// SPDX-License-Identifier: MIT
// C references of kernels/reduce.cl.
#ifndef CLQ_OPS_REDUCE_H
#define CLQ_OPS_REDUCE_H

#include <stdint.h>

// Smallest and largest value of each of n_groups stretches of `len` values (len >= 1). A NaN among
// them makes both NaN.
void clq_minmax_ref(const float *x, uint64_t n_groups, uint64_t len, float *min, float *max);
// Combines n pairs into one, with the same rule for NaN.
void clq_minmax_merge(const float *mins, const float *maxs, uint64_t n, float *min, float *max);

#endif

// SPDX-License-Identifier: MIT
// What q4_K and q5_K share: 8 groups of 32 with 6-bit scales and minimums in 12 bytes.
#ifndef CLQ_FORMAT_KSCALES_H
#define CLQ_FORMAT_KSCALES_H

#include "clquant_blocks.h"

// Fits the 8 groups of x[256] (codes 0..q_max), quantizes their scales and minimums, and rounds the
// codes again with those. A group whose scale became 0 keeps the codes of its fit. first, step and n_steps
// say where the search looks without importance.
void clq_affine_groups(const float *x, const float *importance, int q_max, float first, float step, int n_steps,
                       uint8_t q[256], clq_half *d, clq_half *dmin, uint8_t scales[12]);
void clq_get_scale_min(const uint8_t scales[12], int group, int *scale, int *min);

#endif

// SPDX-License-Identifier: MIT
// Scale searches that several block formats share. Bytes depend on every rounding: sums run in index
// order, products from left to right, and ties go to the first candidate.
// Source: ggml's reference quantizers (docs/formats.md).
#ifndef CLQ_FORMAT_SEARCH_H
#define CLQ_FORMAT_SEARCH_H

#include <stdint.h>

// Rounds to the nearest integer, ties to even, for |v| < 2^22. Beyond, and for infinities and NaN, the
// result is what the low mantissa bits say: part of the formats' bytes.
int32_t clq_nearest(float v);

// Fits x[i] ~ scale * q[i] - *min with 0 <= q <= q_max and *min >= 0 by weighted least squares over
// n_steps + 1 candidate scales (q_max + first + k * step) / range. absolute: the error that decides
// is |.|, else its square. Returns the scale, 0 for a constant x.
float clq_fit_affine(int n, int q_max, const float *x, const float *weight, float first, float step, int n_steps,
                     int absolute, uint8_t *q, float *min);

// Fits x[i] ~ scale * (q[i] - q_max), -q_max <= q - q_max < q_max, over 19 candidates; weights are x^2.
// Returns the scale (its sign is opposite to the largest value's), 0 with q = 0 for |x| < 1e-15.
float clq_fit_symmetric(int n, int q_max, const float *x, int8_t *q);

#endif

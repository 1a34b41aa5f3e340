// SPDX-License-Identifier: MIT
// Scale searches that several block formats share. Bytes depend on every rounding: sums run in index
// order, products from left to right, and ties go to the first candidate.
// Source: ggml's reference quantizers (docs/formats.md).
#ifndef CLQ_FORMAT_SEARCH_H
#define CLQ_FORMAT_SEARCH_H

#include <stdint.h>

// Rounds to the nearest integer, ties to even, for |v| < 2^22. Beyond, and for infinities, the result is what the
// low mantissa bits say: part of the formats' bytes. NaN gives 0, as x86's NaN does.
int32_t clq_nearest(float v);

// Fits x[i] ~ scale * q[i] - *min with 0 <= q <= q_max and *min >= 0 by weighted least squares over
// n_steps + 1 candidate scales (q_max + first + k * step) / range. absolute: the error that decides
// is |.|, else its square. Returns the scale, 0 for a constant x.
float clq_fit_affine(int n, int q_max, const float *x, const float *weight, float first, float step, int n_steps,
                     int absolute, uint8_t *q, float *min);

// Fits x[i] ~ scale * (q[i] - q_max), -q_max <= q - q_max < q_max, over 19 candidates. weight NULL: x^2.
// Returns the scale (its sign is opposite to the largest value's), 0 with q = 0 for |x| < 1e-15.
float clq_fit_symmetric(int n, int q_max, const float *x, const float *weight, int8_t *q);

// Fits x[i] ~ scale * q[i], 0 <= q <= q_max, for x that are mostly >= 0: 9 candidates by weighted squared
// error, then up to 5 sweeps in which each code moves to where the fit is best. Codes are modulo 256.
// Returns the scale, 0 with q = 0 where no x reaches 1e-15.
float clq_fit_positive(int n, int q_max, const float *x, const float *weight, uint8_t *q);

// Codes of q5_0 and q5_1: nibbles, element j below element j + 16; bit j of qh is element j's fifth bit.
void clq_pack_5bit(const uint8_t q[32], uint8_t qs[16], uint8_t qh[4]);

// ---- importance ----

// Sum of squares in index order.
float clq_sum_squares(const float *x, uint64_t n);
// weight[i] = importance[i] * sqrt(sigma2 + x[i]^2); NULL is importance 1.
void clq_weigh(int n, const float *x, const float *importance, float sigma2, float *weight);

#endif

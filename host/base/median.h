// SPDX-License-Identifier: MIT
#ifndef CLQ_BASE_MEDIAN_H
#define CLQ_BASE_MEDIAN_H

#include <stdint.h>

// The middle one (of an even number the higher of two); sorts the values. n > 0.
double clq_median(double *values, uint32_t n);

#endif

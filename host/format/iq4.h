// SPDX-License-Identifier: MIT
// What iq4_nl and iq4_xs share: 16 levels that are not evenly spaced.
#ifndef CLQ_FORMAT_IQ4_H
#define CLQ_FORMAT_IQ4_H

#include <stdint.h>

extern const int8_t clq_iq4_levels[16];
// The nearest level; halfway between two, the higher.
int clq_iq4_index(float x);
// Scale of 32 values over 16 candidates; 0 for |x| < 1e-15. weight NULL: x^2.
float clq_iq4_fit(const float x[32], const float *weight);
// Codes of x * inverse, packed: byte j holds element j below element j + 16.
void clq_iq4_pack(const float x[32], float inverse, uint8_t qs[16]);

#endif

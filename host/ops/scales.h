// SPDX-License-Identifier: MIT
// C references of the steps that round weights: QUANT, ROUND, SCALES and GPTQ (include/clquant_steps.h), for rows
// [begin, end). The kernels give the same bits.
#ifndef CLQ_OPS_SCALES_H
#define CLQ_OPS_SCALES_H

#include <stdbool.h>

#include "clquant_steps.h"

// The weight of a step, f32 [rows, cols].
const float *clq_step_weight(const clq_step *s, const uint8_t *weights, const float *state);

void clq_quant_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end);
void clq_round_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end);
// false: no memory
bool clq_scales_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end);
void clq_gptq_ref(const clq_step *s, float *state, uint64_t begin, uint64_t end);

// |d|^-0.3 in plain arithmetic, a relative error below 1e-5: the same bits everywhere. Subnormal d: as large as of about
// 2^-126.
float clq_power_minus_0_3(float d);

#endif

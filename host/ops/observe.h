// SPDX-License-Identifier: MIT
// C references of the steps that look at activations: RANGE, OBSERVE and GRAM (include/clquant_steps.h). They give the
// same bits as the kernels, GRAM apart.
#ifndef CLQ_OPS_OBSERVE_H
#define CLQ_OPS_OBSERVE_H

#include <stdbool.h>

#include "clquant_steps.h"

void clq_range_ref(const clq_step *s, float *state);
void clq_observe_ref(const clq_step *s, float *state);
bool clq_gram_ref(uint32_t threads, const clq_step *s, float *state); // false: no memory

#endif

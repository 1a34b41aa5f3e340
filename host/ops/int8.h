// SPDX-License-Identifier: MIT
// C references of activations rounded to int8 and of integer products: CLQ_QUANT_* and CLQ_MODE_I8
// (include/clquant_steps.h). The kernels give the same bits.
#ifndef CLQ_OPS_INT8_H
#define CLQ_OPS_INT8_H

#include <stdbool.h>

#include "clquant_steps.h"

// Of one token's row, or of all rows of a step.
typedef struct clq_quant_params {
    float scale; // 0: everything is 0
    int32_t zero_point;
} clq_quant_params;

// How a PREP with quantization rounds row t. state: the step's.
clq_quant_params clq_quant_params_ref(const clq_step *s, const float *state, uint32_t t);
// The code of x, -128 to 127.
int32_t clq_quant_code(const clq_step *s, clq_quant_params p, float x);
// A NaN or infinite value among n.
bool clq_any_bad(const float *x, uint32_t n);

// Of a token in a prepared input of CLQ_MODE_I8.
typedef struct clq_i8_token {
    float scale;
    int32_t zero_point, sum, unused;
} clq_i8_token;

// PREP and LINEAR, tokens or rows [begin, end).
void clq_i8_prep_ref(const clq_step *s, float *state, uint64_t begin, uint64_t end);
void clq_i8_linear_ref(const clq_step *s, const uint8_t *weights, float *state, uint64_t begin, uint64_t end);

#endif

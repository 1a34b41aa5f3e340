// SPDX-License-Identifier: MIT
// C references of the steps of a forward pass (include/clquant_steps.h, which says what each does).
#ifndef CLQ_OPS_STEPS_H
#define CLQ_OPS_STEPS_H

#include "clquant_steps.h"
#include "format/format.h"

typedef struct clq_step_memory {
    const uint8_t *weights;
    float *state;
    uint8_t *cache;
} clq_step_memory;

// Sums are double, so that this is a yardstick for kernels. Values, offsets and sizes are the caller's to check.
// false: no memory.
bool clq_step_run_ref(uint32_t threads, const clq_step *step, const clq_step_memory *memory);

static inline bool clq_step_packed(uint32_t tokens) { return tokens >= CLQ_PACKED_TOKENS; }
// Floats that a PREP of tokens x cols makes.
uint64_t clq_prep_floats(uint32_t tokens, uint32_t cols, uint32_t mode);
// The mode in which ggml multiplies weights of a format with int8 activations; CLQ_MODE_F32 for float weights.
uint32_t clq_step_int8_mode(clq_format_id format);
// Whether products of the type's rows can be made in CLQ_MODE_I8.
bool clq_step_takes_i8(const clq_type *type, uint64_t cols);
// Bytes of one head's vector in a cache of the format (head_dim a multiple of 32 for Q8_0).
uint64_t clq_cache_bytes(clq_format_id format, uint32_t head_dim);

#endif

// SPDX-License-Identifier: MIT
// Arithmetic on numbers that come from files: false (or CLQ_BAD_INPUT upstream) instead of a wrap.
#ifndef CLQ_BASE_CHECKED_H
#define CLQ_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool clq_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool clq_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

// Rounds up to a multiple of `to` (> 0).
static inline bool clq_round_up_u64(uint64_t a, uint64_t to, uint64_t *rounded)
{
    uint64_t rest = a % to;
    return clq_add_u64(a, rest ? to - rest : 0, rounded);
}

static inline uint64_t clq_div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

#endif

// SPDX-License-Identifier: MIT
// Observations (CLQ_SLOT_* of clquant_steps.h) of values in memory, by the C reference.
#ifndef CLQ_TESTS_SLOT_FIXTURE_H
#define CLQ_TESTS_SLOT_FIXTURE_H

#include <stdint.h>

// CLQ_SLOT_FLOATS(cols) words, zeroed; free() it.
float *new_slot(uint32_t cols);
// Adds a window: x[tokens][cols].
void add_window(float *slot, const float *x, uint32_t tokens, uint32_t cols);

#endif

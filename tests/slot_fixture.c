// SPDX-License-Identifier: MIT
#include "slot_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "ops/steps.h"

float *new_slot(uint32_t cols) { return calloc(CLQ_SLOT_FLOATS(cols), sizeof(float)); }

void add_window(float *slot, const float *x, uint32_t tokens, uint32_t cols)
{
    uint64_t n_slot = CLQ_SLOT_FLOATS(cols), n_x = (uint64_t)tokens * cols;
    float *state = malloc((n_slot + n_x) * sizeof *state);
    if (!state) abort();
    memcpy(state, slot, n_slot * sizeof *state);
    memcpy(state + n_slot, x, n_x * sizeof *state);
    clq_step step = {.kind = CLQ_STEP_OBSERVE, .tokens = tokens, .cols = cols, .in_stride = cols, .in = n_slot};
    clq_step_memory memory = {.state = state};
    for (step.phase = CLQ_OBSERVE_CHANNELS; step.phase <= CLQ_OBSERVE_VALUES; step.phase++)
        if (!clq_step_run_ref(1, &step, &memory)) abort();
    memcpy(slot, state, n_slot * sizeof *state);
    free(state);
}

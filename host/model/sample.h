// SPDX-License-Identifier: MIT
// Chooses the next token. The same seed and logits give the same tokens on every machine.
#ifndef CLQ_MODEL_SAMPLE_H
#define CLQ_MODEL_SAMPLE_H

#include "base/error.h"

// In the order in which they are applied; each sees what the one before left.
typedef struct clq_sampling {
    uint32_t top_k;    // keeps the k likeliest; 0: all
    float top_p;       // keeps the likeliest whose probabilities sum up to p; >= 1: all
    float min_p;       // keeps those of at least p times the likeliest's probability; 0: all
    float temperature; // divides what is left; 0: the likeliest token, whatever the others say
    uint64_t seed;
} clq_sampling;

typedef struct clq_sampler clq_sampler;

// CLQ_USAGE when a number makes no sense.
clq_status clq_sampler_create(const clq_sampling *sampling, uint32_t vocab, clq_sampler **sampler, clq_error *err);
void clq_sampler_free(clq_sampler *sampler);
// logits: floats [vocab]. Of equal logits the lowest id comes first. CLQ_BAD_INPUT when one is NaN or +infinity, or
// all are -infinity.
clq_status clq_sample(clq_sampler *sampler, const float *logits, int32_t *token, clq_error *err);

#endif

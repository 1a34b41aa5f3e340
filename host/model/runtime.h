// SPDX-License-Identifier: MIT
// A model that runs (clquant.h has its interface): weights on a device as they are stored, a cache of keys and values,
// forward passes.
#ifndef CLQ_MODEL_RUNTIME_H
#define CLQ_MODEL_RUNTIME_H

#include "device/device.h"
#include "io/source.h"
#include "model/tokenizer.h"

const clq_tokenizer *clq_model_tokenizer(const clq_model *model);

#endif

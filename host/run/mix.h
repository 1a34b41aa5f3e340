// SPDX-License-Identifier: MIT
// The mixes: llama-quantize's choice of a type for each tensor of a GGUF file.
#ifndef CLQ_RUN_MIX_H
#define CLQ_RUN_MIX_H

#include "io/source.h"

// What the rules of a mix want to know of a model; the counters advance with each tensor.
typedef struct clq_mix_state {
    const clq_mix *mix;
    bool falcon, big_llama, stacked_ffn_only, glm5; // architectures with rules of their own
    bool tied;           // no output.weight: the token embedding is the output too
    bool has_imatrix;
    uint32_t n_layers, n_experts, heads_per_kv;
    uint32_t n_values;   // attention value tensors
    uint32_t i_value, i_down, i_gate, i_up;
} clq_mix_state;

// Facts from the output's metadata; tied and n_values from clq_mix_see().
void clq_mix_begin(clq_mix_state *s, const clq_mix *mix, const clq_gguf_kvs *kvs, bool has_imatrix);
// To be called with every tensor name of the output before the first clq_mix_choose().
void clq_mix_see(clq_mix_state *s, const char *name);
// The type of a tensor that quantization applies to and nothing else decided; to be called in the order of
// clq_mix_order(). tied_type: of an output that is the token embedding too, NULL: the mix's.
clq_format_id clq_mix_choose(clq_mix_state *s, const char *name, const clq_tensor *t, const clq_type *tied_type);
// < 0, 0, > 0: by layer ("blk.N."; none is before 0), then by name.
int clq_mix_order(const char *a, const char *b);

bool clq_is_token_embedding(const char *name);
bool clq_is_output_tensor(const char *name);
// Encoding to the format without an importance matrix gives garbage.
bool clq_needs_importance(const char *name, clq_format_id format, const clq_mix *mix);

#endif

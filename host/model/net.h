// SPDX-License-Identifier: MIT
// What a forward pass needs to know of a model: a table of architectures, and one model's numbers from its metadata
// (with the defaults that llama.cpp has).
#ifndef CLQ_MODEL_NET_H
#define CLQ_MODEL_NET_H

#include "model/view.h"

// What an architecture (or one model of it) has. Tensors that belong to a feature are there only with it.
enum {
    CLQ_HAS_PRE_NORMS = 1,     // attn_norm and ffn_norm before the parts, output_norm
    CLQ_HAS_POST_NORMS = 2,    // gemma: norms of what a part adds
    CLQ_HAS_BERT = 4,          // norms behind each part, embeddings of positions and types
    CLQ_HAS_QK_NORMS = 8,
    CLQ_HAS_SPLIT_QKV = 16,    // else attn_qkv
    CLQ_HAS_FUSED_QKV = 32,
    CLQ_HAS_DENSE = 64,        // one feed-forward network
    CLQ_HAS_GATE = 128,        // ffn_gate beside ffn_up
    CLQ_HAS_FUSED_GATE = 256,  // ffn_up holds both
    CLQ_HAS_PLAIN_UP = 512,    // ffn_up without a gate
    CLQ_HAS_EXPERTS = 1024,
    CLQ_HAS_SHARED_EXPERT = 2048,
    CLQ_HAS_HEAD = 4096,       // output.weight; else the embedding serves, or there are no logits
};

// Tensors that divide rotary frequencies.
enum {
    CLQ_FACTORS_NONE,
    CLQ_FACTORS_BY_SCALING, // rope_freqs; with scaling of type longrope the next
    CLQ_FACTORS_BY_LENGTH,  // rope_factors_short, or _long when the context is longer than the original one
};

typedef struct clq_net_kind {
    const char *name; // GGUF's architecture
    unsigned features;
    bool neox;           // rotary pairs are halves of the head, else neighbours
    bool no_rope;
    bool layer_norm;     // the mean is subtracted
    bool scaled_embed;   // by the root of the width
    bool is_encoder;
    bool may_have_experts;    // expert_count > 0 replaces the one feed-forward network
    bool normalized_experts;  // the chosen experts' probabilities are made to sum to 1
    uint32_t rope_factors;    // CLQ_FACTORS_*
    uint32_t act;             // CLQ_ACT_*
    uint32_t window_pattern;  // every so many layers one attends to all; 0: sliding windows are not looked for
    uint32_t window_default;  // 0: none
    float attn_softcap, final_softcap; // defaults; 0: none
    bool reads_attn_softcap, reads_final_softcap;
    uint32_t scaled_by_width; // the number of layers at which queries are scaled by width / heads
    bool local_base_is_global; // the base of sliding layers, when it is not in the metadata; else 10000
} clq_net_kind;

enum { CLQ_ROPE_GLOBAL, CLQ_ROPE_LOCAL, CLQ_N_ROPES };

// Angle of pair i at position p: p * frequencies[i]; cos and sin are multiplied by magnitude.
typedef struct clq_rope_table {
    double *frequencies; // [dims / 2]
    double magnitude;
} clq_rope_table;

typedef struct clq_net {
    const clq_net_kind *kind;
    unsigned features;
    uint32_t layers, embd, ffn, heads, kv_heads, head_dim, vocab, positions, token_types;
    uint32_t experts, experts_used, expert_ffn, shared_ffn;
    uint32_t rope_dims;
    float eps, attention_scale, attn_softcap, final_softcap, embed_scale, experts_scale;
    uint32_t window;
    bool *sliding;  // [layers]
    bool has_local; // some layer slides and has its own rope table
    clq_rope_table ropes[CLQ_N_ROPES];
    uint32_t pooling; // GGUF's number
} clq_net;

// context: positions of the cache, decides between longrope's factors. CLQ_BAD_INPUT with the key or tensor.
clq_status clq_net_read(const clq_view *view, uint32_t context, clq_net *net, clq_error *err);
void clq_net_free(clq_net *net);
// Positions that the model was trained on, before clq_net_read.
clq_status clq_net_positions(const clq_view *view, uint32_t *positions, clq_error *err);

#endif

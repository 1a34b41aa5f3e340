// SPDX-License-Identifier: MIT
// The tables of architectures. Order of rows: as GGUF files have them.
#include "model/arch.h"

enum { WITH_BIAS = CLQ_ROW_REQUIRED | CLQ_ROW_BIAS | CLQ_ROW_BIAS_REQUIRED };
enum { MAY_BIAS = CLQ_ROW_REQUIRED | CLQ_ROW_BIAS, NORM1 = CLQ_ROW_REQUIRED | CLQ_ROW_NORM1 };

// ---- shared ------------------------------------------------------------------------------------

static const clq_hyper common_hypers[] = {
    {"num_hidden_layers", "block_count", .required = true, .size = 'L'},
    {"max_position_embeddings", "context_length", .required = true, .size = 'P'},
    {"hidden_size", "embedding_length", .required = true, .size = 'E'},
    {"intermediate_size", "feed_forward_length", .required = true, .size = 'F'},
    {"num_attention_heads", "attention.head_count", .required = true, .size = 'H'},
    {"num_key_value_heads", "attention.head_count_kv", .size = 'G'},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", .is_float = true, .required = true},
    {0},
};

static const clq_constant silu_constants[] = {{.key = "hidden_act", .value = "silu", .also = "swish"}, {0}};

static const char *const buffers_dropped[] = {"*.rotary_emb.inv_freq", "*.attention.masked_bias",
                                              "*.attention.bias", NULL};

static const clq_bias_group attention_biases[] = {{"attention_bias", ".self_attn."}, {0}};

// ---- llama, mixtral ----------------------------------------------------------------------------

static const char *const llama_classes[] = {"LlamaForCausalLM", "MistralForCausalLM", "LlamaModel",
                                            "MistralModel", NULL};

static const clq_hyper llama_hypers[] = {
    {"vocab_size", "vocab_size", .size = 'V'},
    {"head_dim", "attention.key_length", .size = 'D'},
    {0},
};

static const clq_tensor_row llama_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS | CLQ_ROW_ROPE_Q},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS | CLQ_ROW_ROPE_K},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", MAY_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", MAY_BIAS},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", MAY_BIAS},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", MAY_BIAS},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

static const clq_bias_group llama_biases[] = {
    {"attention_bias", ".self_attn."}, {"mlp_bias", ".mlp."}, {0}};

static const char *const mixtral_classes[] = {"MixtralForCausalLM", NULL};

static const clq_hyper mixtral_hypers[] = {
    {"num_local_experts", "expert_count", .required = true, .size = 'N', .hf_also = "num_experts"},
    {"num_experts_per_tok", "expert_used_count", .required = true},
    {"vocab_size", "vocab_size", .size = 'V'},
    {"head_dim", "attention.key_length", .size = 'D'},
    {0},
};

static const clq_tensor_row mixtral_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", CLQ_ROW_REQUIRED | CLQ_ROW_ROPE_Q},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", CLQ_ROW_REQUIRED | CLQ_ROW_ROPE_K},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.block_sparse_moe.gate", "blk.%.ffn_gate_inp", "NE", CLQ_ROW_REQUIRED},
    {"model.layers.%.block_sparse_moe.experts.#.w1", "blk.%.ffn_gate_exps", "NXE",
     CLQ_ROW_REQUIRED},
    {"model.layers.%.block_sparse_moe.experts.#.w3", "blk.%.ffn_up_exps", "NXE", CLQ_ROW_REQUIRED},
    {"model.layers.%.block_sparse_moe.experts.#.w2", "blk.%.ffn_down_exps", "NEX",
     CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

// ---- qwen2, qwen3 ------------------------------------------------------------------------------

static const char *const qwen2_classes[] = {"Qwen2ForCausalLM", "Qwen2Model", NULL};

static const clq_hyper head_dim_hypers[] = {
    {"head_dim", "attention.key_length", .size = 'D'},
    {0},
};

static const clq_tensor_row qwen2_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", WITH_BIAS},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", WITH_BIAS},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", WITH_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

static const char *const qwen3_classes[] = {"Qwen3ForCausalLM", "Qwen3Model", NULL};

static const clq_hyper required_head_dim_hypers[] = {
    {"head_dim", "attention.key_length", .required = true, .size = 'D'},
    {0},
};

static const clq_tensor_row qwen3_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS},
    {"model.layers.%.self_attn.q_norm", "blk.%.attn_q_norm", "D", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.k_norm", "blk.%.attn_k_norm", "D", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", MAY_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

// ---- qwen2moe, qwen3moe ------------------------------------------------------------------------

static const char *const qwen2moe_classes[] = {"Qwen2MoeForCausalLM", NULL};

static const clq_hyper qwen2moe_hypers[] = {
    {"num_experts", "expert_count", .required = true, .size = 'N', .hf_also = "num_local_experts"},
    {"num_experts_per_tok", "expert_used_count", .required = true},
    {"head_dim", "attention.key_length", .size = 'D'},
    {"moe_intermediate_size", "expert_feed_forward_length", .required = true, .size = 'X'},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", .required = true,
     .size = 'S'},
    {0},
};

static const clq_tensor_row qwen2moe_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate", "blk.%.ffn_gate_inp", "NE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.gate_proj", "blk.%.ffn_gate_exps", "NXE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.up_proj", "blk.%.ffn_up_exps", "NXE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.down_proj", "blk.%.ffn_down_exps", "NEX", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.shared_expert_gate", "blk.%.ffn_gate_inp_shexp", "1E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.shared_expert.gate_proj", "blk.%.ffn_gate_shexp", "SE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.shared_expert.up_proj", "blk.%.ffn_up_shexp", "SE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.shared_expert.down_proj", "blk.%.ffn_down_shexp", "ES", CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

static const clq_constant qwen2moe_constants[] = {
    {.key = "hidden_act", .value = "silu", .also = "swish"},
    {.key = "norm_topk_prob", .is_flag = true, .flag = false},
    {0},
};

static const clq_bias_group qwen2moe_biases[] = {{"qkv_bias", ".self_attn."}, {0}};

static const char *const qwen3moe_classes[] = {"Qwen3MoeForCausalLM", NULL};

static const clq_hyper qwen3moe_hypers[] = {
    {"num_experts", "expert_count", .required = true, .size = 'N', .hf_also = "num_local_experts"},
    {"num_experts_per_tok", "expert_used_count", .required = true},
    {"head_dim", "attention.key_length", .size = 'D'},
    {"moe_intermediate_size", "expert_feed_forward_length", .required = true, .size = 'X'},
    {0},
};

static const clq_tensor_row qwen3moe_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS},
    {"model.layers.%.self_attn.q_norm", "blk.%.attn_q_norm", "D", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.k_norm", "blk.%.attn_k_norm", "D", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", MAY_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate", "blk.%.ffn_gate_inp", "NE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.gate_proj", "blk.%.ffn_gate_exps", "NXE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.up_proj", "blk.%.ffn_up_exps", "NXE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.experts.#.down_proj", "blk.%.ffn_down_exps", "NEX", CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

static const clq_constant qwen3moe_constants[] = {
    {.key = "hidden_act", .value = "silu", .also = "swish"},
    {.key = "norm_topk_prob", .is_flag = true, .flag = true},
    {0},
};

// ---- gemma2, gemma3 ----------------------------------------------------------------------------

static const char *const gemma2_classes[] = {"Gemma2ForCausalLM", NULL};

static const clq_hyper gemma2_hypers[] = {
    {"head_dim", "attention.key_length", .required = true, .size = 'D'},
    {"attn_logit_softcapping", "attn_logit_softcapping", .is_float = true, .required = true,
     .if_missing = 50},
    {"final_logit_softcapping", "final_logit_softcapping", .is_float = true, .required = true,
     .if_missing = 30},
    {0},
};

static const clq_tensor_row gemma2_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", NORM1},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", MAY_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.post_attention_norm", "E", NORM1},
    {"model.layers.%.pre_feedforward_layernorm", "blk.%.ffn_norm", "E", NORM1},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_feedforward_layernorm", "blk.%.post_ffw_norm", "E", NORM1},
    {"model.norm", "output_norm", "E", NORM1},
    {0},
};

static const clq_constant gemma2_constants[] = {
    {.key = "hidden_activation", .value = "gelu_pytorch_tanh"}, {0}};

static const char *const gemma2_dropped[] = {"lm_head.weight", "*.rotary_emb.inv_freq", NULL};

static const clq_constant gemma3_constants[] = {{.key = "hidden_activation", .value = "gelu_pytorch_tanh"},
                                                {.key = "attn_logit_softcapping", .is_null = true},
                                                {0}};

static const char *const gemma3_classes[] = {"Gemma3ForCausalLM", NULL};

static const clq_hyper gemma3_hypers[] = {
    {"head_dim", "attention.key_length", .required = true, .size = 'D'},
    {"final_logit_softcapping", "final_logit_softcapping", .is_float = true},
    {0},
};

static const clq_tensor_row gemma3_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", NORM1},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE", MAY_BIAS},
    {"model.layers.%.self_attn.q_norm", "blk.%.attn_q_norm", "D", NORM1},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.k_norm", "blk.%.attn_k_norm", "D", NORM1},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", MAY_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", MAY_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.post_attention_norm", "E", NORM1},
    {"model.layers.%.pre_feedforward_layernorm", "blk.%.ffn_norm", "E", NORM1},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_feedforward_layernorm", "blk.%.post_ffw_norm", "E", NORM1},
    {"model.norm", "output_norm", "E", NORM1},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

// ---- phi3 --------------------------------------------------------------------------------------

static const char *const phi3_classes[] = {"Phi3ForCausalLM", NULL};

static const clq_tensor_row phi3_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.qkv_proj", "blk.%.attn_qkv", "AE", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", CLQ_ROW_REQUIRED},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate_up_proj", "blk.%.ffn_up", "UE", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

// ---- bert --------------------------------------------------------------------------------------

static const char *const bert_classes[] = {"BertModel", "BertForMaskedLM", NULL};

static const clq_hyper bert_hypers[] = {
    {"num_hidden_layers", "block_count", .required = true, .size = 'L'},
    {"max_position_embeddings", "context_length", .required = true, .size = 'P'},
    {"hidden_size", "embedding_length", .required = true, .size = 'E'},
    {"intermediate_size", "feed_forward_length", .required = true, .size = 'F'},
    {"num_attention_heads", "attention.head_count", .required = true, .size = 'H'},
    {"layer_norm_eps", "attention.layer_norm_epsilon", .is_float = true, .required = true},
    {0},
};

static const clq_tensor_row bert_tensors[] = {
    {"embeddings.word_embeddings", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"embeddings.token_type_embeddings", "token_types", "TE", CLQ_ROW_REQUIRED},
    {"embeddings.position_embeddings", "position_embd", "PE", CLQ_ROW_REQUIRED},
    {"embeddings.LayerNorm", "token_embd_norm", "E", WITH_BIAS},
    {"encoder.layer.%.attention.self.query", "blk.%.attn_q", "QE", WITH_BIAS},
    {"encoder.layer.%.attention.self.key", "blk.%.attn_k", "KE", WITH_BIAS},
    {"encoder.layer.%.attention.self.value", "blk.%.attn_v", "KE", WITH_BIAS},
    {"encoder.layer.%.attention.output.dense", "blk.%.attn_output", "EQ", WITH_BIAS},
    {"encoder.layer.%.attention.output.LayerNorm", "blk.%.attn_output_norm", "E", WITH_BIAS},
    {"encoder.layer.%.intermediate.dense", "blk.%.ffn_up", "FE", WITH_BIAS},
    {"encoder.layer.%.output.dense", "blk.%.ffn_down", "EF", WITH_BIAS},
    {"encoder.layer.%.output.LayerNorm", "blk.%.layer_output_norm", "E", WITH_BIAS},
    {0},
};

static const clq_constant bert_constants[] = {
    {.key = "hidden_act", .value = "gelu"}, {.key = "position_embedding_type", .value = "absolute", .also = NULL}, {0}};

static const char *const bert_dropped[] = {"*embeddings.position_ids", "*pooler.dense.*",
                                           "cls.predictions.*", "cls.seq_relationship.*", NULL};

// ---- all ---------------------------------------------------------------------------------------

const clq_arch clq_archs[] = {
    {.name = "llama",
     .model_type = "llama",
     .classes = llama_classes,
     .missing_prefix = "model.",
     .hypers = common_hypers,
     .more_hypers = llama_hypers,
     .tensors = llama_tensors,
     .constants = silu_constants,
     .biases = llama_biases,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .rope_dims = true},
    {.name = "llama",
     .model_type = "mixtral",
     .classes = mixtral_classes,
     .hypers = common_hypers,
     .more_hypers = mixtral_hypers,
     .tensors = mixtral_tensors,
     .constants = silu_constants,
     .dropped = buffers_dropped,
     .rope_base = 1e6,
     .rope_dims = true,
     .has_experts = true},
    {.name = "qwen2",
     .model_type = "qwen2",
     .classes = qwen2_classes,
     .missing_prefix = "model.",
     .hypers = common_hypers,
     .more_hypers = head_dim_hypers,
     .tensors = qwen2_tensors,
     .constants = silu_constants,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .may_pool = true},
    {.name = "qwen3",
     .model_type = "qwen3",
     .classes = qwen3_classes,
     .missing_prefix = "model.",
     .hypers = common_hypers,
     .more_hypers = required_head_dim_hypers,
     .tensors = qwen3_tensors,
     .constants = silu_constants,
     .biases = attention_biases,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .may_pool = true},
    {.name = "qwen2moe",
     .model_type = "qwen2_moe",
     .classes = qwen2moe_classes,
     .hypers = common_hypers,
     .more_hypers = qwen2moe_hypers,
     .tensors = qwen2moe_tensors,
     .constants = qwen2moe_constants,
     .biases = qwen2moe_biases,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .has_experts = true},
    {.name = "qwen3moe",
     .model_type = "qwen3_moe",
     .classes = qwen3moe_classes,
     .hypers = common_hypers,
     .more_hypers = qwen3moe_hypers,
     .tensors = qwen3moe_tensors,
     .constants = qwen3moe_constants,
     .biases = attention_biases,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .has_experts = true},
    {.name = "gemma2",
     .model_type = "gemma2",
     .classes = gemma2_classes,
     .hypers = common_hypers,
     .more_hypers = gemma2_hypers,
     .tensors = gemma2_tensors,
     .constants = gemma2_constants,
     .biases = attention_biases,
     .dropped = gemma2_dropped,
     .rope_base = 1e4,
     .window_pattern = 2,
     .window_default = 4096,
     .window_kept = true,
     .scaled_queries = true,
     .scaled_by_width = 46,
     .tied_by_default = true,
     .no_space_prefix = true},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .classes = gemma3_classes,
     .hypers = common_hypers,
     .more_hypers = gemma3_hypers,
     .tensors = gemma3_tensors,
     .constants = gemma3_constants,
     .biases = attention_biases,
     .dropped = buffers_dropped,
     .rope_base = 1e6,
     .local_rope = true,
     .window_pattern = 6,
     .window_kept = true,
     .scaled_queries = true,
     .scaled_by_width = 62,
     .tied_by_default = true,
     .trims_vocabulary = true,
     .no_space_prefix = true},
    {.name = "phi3",
     .model_type = "phi3",
     .classes = phi3_classes,
     .hypers = common_hypers,
     .tensors = phi3_tensors,
     .constants = silu_constants,
     .dropped = buffers_dropped,
     .rope_base = 1e4,
     .rope_dims = true,
     .partial_rope = true,
     .long_rope = true,
     .window_kept = true},
    {.name = "bert",
     .model_type = "bert",
     .classes = bert_classes,
     .optional_prefix = "bert.",
     .hypers = bert_hypers,
     .tensors = bert_tensors,
     .constants = bert_constants,
     .dropped = bert_dropped,
     .may_pool = true,
     .is_encoder = true},
};

const size_t clq_n_archs = sizeof clq_archs / sizeof *clq_archs;

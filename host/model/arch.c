// SPDX-License-Identifier: MIT
#include "model/arch.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the tables --------------------------------------------------------------------------------

static const char *const llama_classes[] = {"LlamaForCausalLM", "MistralForCausalLM", "LlamaModel",
                                            "MistralModel", NULL};

static const clq_hyper llama_hypers[] = {
    {"num_hidden_layers", "block_count", .required = true, .size = 'L'},
    {"max_position_embeddings", "context_length", .required = true, .size = 'P'},
    {"hidden_size", "embedding_length", .required = true, .size = 'E'},
    {"intermediate_size", "feed_forward_length", .required = true, .size = 'F'},
    {"num_attention_heads", "attention.head_count", .required = true, .size = 'H'},
    {"num_key_value_heads", "attention.head_count_kv", .size = 'G'},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", .is_float = true, .required = true},
    {"vocab_size", "vocab_size", .size = 'V'},
    {"head_dim", "attention.key_length", .size = 'D'},
    {0},
};

static const clq_tensor_row llama_tensors[] = {
    {"model.embed_tokens", "token_embd", "VE", CLQ_ROW_REQUIRED},
    {"model.layers.%.input_layernorm", "blk.%.attn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.self_attn.q_proj", "blk.%.attn_q", "QE",
     CLQ_ROW_REQUIRED | CLQ_ROW_BIAS | CLQ_ROW_ROPE_Q},
    {"model.layers.%.self_attn.k_proj", "blk.%.attn_k", "KE",
     CLQ_ROW_REQUIRED | CLQ_ROW_BIAS | CLQ_ROW_ROPE_K},
    {"model.layers.%.self_attn.v_proj", "blk.%.attn_v", "KE", CLQ_ROW_REQUIRED | CLQ_ROW_BIAS},
    {"model.layers.%.self_attn.o_proj", "blk.%.attn_output", "EQ", CLQ_ROW_REQUIRED | CLQ_ROW_BIAS},
    {"model.layers.%.post_attention_layernorm", "blk.%.ffn_norm", "E", CLQ_ROW_REQUIRED},
    {"model.layers.%.mlp.gate_proj", "blk.%.ffn_gate", "FE", CLQ_ROW_REQUIRED | CLQ_ROW_BIAS},
    {"model.layers.%.mlp.up_proj", "blk.%.ffn_up", "FE", CLQ_ROW_REQUIRED | CLQ_ROW_BIAS},
    {"model.layers.%.mlp.down_proj", "blk.%.ffn_down", "EF", CLQ_ROW_REQUIRED | CLQ_ROW_BIAS},
    {"model.norm", "output_norm", "E", CLQ_ROW_REQUIRED},
    {"lm_head", "output", "VE", CLQ_ROW_TIED},
    {0},
};

static const clq_constant llama_constants[] = {{"hidden_act", "silu", "swish"}, {0}};

static const clq_bias_group llama_biases[] = {
    {"attention_bias", ".self_attn."}, {"mlp_bias", ".mlp."}, {0}};

static const char *const llama_dropped[] = {"*.rotary_emb.inv_freq", "*.attention.masked_bias",
                                            "*.attention.bias", NULL};

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

enum { WITH_BIAS = CLQ_ROW_REQUIRED | CLQ_ROW_BIAS | CLQ_ROW_BIAS_REQUIRED };

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
    {"hidden_act", "gelu", NULL}, {"position_embedding_type", "absolute", NULL}, {0}};

static const char *const bert_dropped[] = {"*embeddings.position_ids", "*pooler.dense.*",
                                           "cls.predictions.*", "cls.seq_relationship.*", NULL};

static const clq_arch archs[] = {
    {.name = "llama",
     .model_type = "llama",
     .classes = llama_classes,
     .missing_prefix = "model.",
     .hypers = llama_hypers,
     .tensors = llama_tensors,
     .constants = llama_constants,
     .biases = llama_biases,
     .dropped = llama_dropped,
     .has_rope = true},
    {.name = "bert",
     .model_type = "bert",
     .classes = bert_classes,
     .optional_prefix = "bert.",
     .hypers = bert_hypers,
     .tensors = bert_tensors,
     .constants = bert_constants,
     .dropped = bert_dropped,
     .is_encoder = true},
};

enum { N_ARCHS = sizeof archs / sizeof *archs };

// ---- lookup ------------------------------------------------------------------------------------

const clq_arch *clq_arch_find(const char *gguf_name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strcmp(archs[i].name, gguf_name) == 0) return &archs[i];
    return NULL;
}

static const clq_arch *of_class(const char *class_name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        for (const char *const *c = archs[i].classes; *c; c++)
            if (strcmp(*c, class_name) == 0) return &archs[i];
    return NULL;
}

clq_status clq_arch_of_config(const json_t *config, const clq_arch **arch, clq_error *err)
{
    const char *class_name =
        clq_json_string(json_array_get(json_object_get(config, "architectures"), 0));
    const char *model_type = clq_json_text(config, "model_type");
    *arch = NULL;
    if (class_name)
        *arch = of_class(class_name);
    else if (model_type && strcmp(model_type, "mistral") == 0)
        *arch = clq_arch_find("llama");
    else if (model_type)
        *arch = clq_arch_find(model_type);
    if (*arch) return CLQ_OK;
    if (!class_name && !model_type)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json has neither \"architectures\" nor \"model_type\"; one of them "
                        "must say which model this is");
    return clq_fail(err, CLQ_BAD_INPUT,
                    "architecture '%s' of config.json has no translation to GGUF; known are llama "
                    "(LlamaForCausalLM, MistralForCausalLM) and bert (BertModel). A folder as "
                    "output needs no translation",
                    class_name ? class_name : model_type);
}

bool clq_arch_drops(const clq_arch *arch, const char *name)
{
    for (const char *const *pattern = arch->dropped; *pattern; pattern++)
        if (fnmatch(*pattern, name, 0) == 0) return true;
    return false;
}

// ---- names -------------------------------------------------------------------------------------

// The end of the tensor name's stem, NULL when it has no known suffix.
static const char *split_suffix(const char *name, bool *is_bias)
{
    static const struct {
        const char *text;
        bool is_bias;
    } suffixes[] = {{".weight", false}, {".bias", true}, {".gamma", false}, {".beta", true}};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (!clq_ends_with(name, suffixes[i].text)) continue;
        *is_bias = suffixes[i].is_bias;
        return name + strlen(name) - strlen(suffixes[i].text);
    }
    return NULL;
}

// Matches [name, end) against a pattern with at most one '%', which takes a decimal number without
// leading zeros, below CLQ_MAX_LAYERS.
static bool match(const char *pattern, const char *name, const char *end, uint32_t *layer)
{
    *layer = 0;
    for (; *pattern; pattern++) {
        if (*pattern != '%') {
            if (name == end || *name++ != *pattern) return false;
            continue;
        }
        const char *digits = name;
        while (name < end && *name >= '0' && *name <= '9' && *layer < CLQ_MAX_LAYERS)
            *layer = *layer * 10 + (uint32_t)(*name++ - '0');
        if (name == digits || (*digits == '0' && name - digits > 1)) return false;
        if (*layer >= CLQ_MAX_LAYERS) return false;
    }
    return name == end;
}

const clq_tensor_row *clq_row_of_gguf(const clq_arch *arch, const char *name, uint32_t *layer,
                                      bool *is_bias)
{
    const char *end = split_suffix(name, is_bias);
    for (const clq_tensor_row *row = arch->tensors; end && row->hf; row++)
        if ((!*is_bias || row->flags & CLQ_ROW_BIAS) && match(row->gguf, name, end, layer))
            return row;
    return NULL;
}

const clq_tensor_row *clq_row_of_hf(const clq_arch *arch, const char *name, uint32_t *layer,
                                    bool *is_bias)
{
    const char *prefix = arch->optional_prefix;
    if (prefix && strncmp(name, prefix, strlen(prefix)) == 0) name += strlen(prefix);
    const char *missing = arch->missing_prefix;
    size_t n_missing = missing ? strlen(missing) : 0;
    const char *end = split_suffix(name, is_bias);
    for (const clq_tensor_row *row = arch->tensors; end && row->hf; row++) {
        if (*is_bias && !(row->flags & CLQ_ROW_BIAS)) continue;
        if (match(row->hf, name, end, layer)) return row;
        if (n_missing && strncmp(row->hf, missing, n_missing) == 0 &&
            match(row->hf + n_missing, name, end, layer))
            return row;
    }
    return NULL;
}

char *clq_row_name(const char *pattern, uint32_t layer, bool is_bias)
{
    clq_buf b = {0};
    for (; *pattern; pattern++) {
        if (*pattern == '%')
            clq_buf_printf(&b, "%" PRIu32, layer);
        else
            clq_buf_append(&b, pattern, 1);
    }
    clq_buf_text(&b, is_bias ? ".bias" : ".weight");
    clq_buf_zeros(&b, 1);
    if (!b.failed) return b.data;
    clq_buf_free(&b);
    return NULL;
}

// ---- shapes ------------------------------------------------------------------------------------

static uint64_t size_of(const clq_sizes *s, char letter, const char **what)
{
    switch (letter) {
    case 'V': *what = "vocabulary size"; return s->vocab;
    case 'E': *what = "hidden size"; return s->embd;
    case 'F': *what = "feed-forward size"; return s->ffn;
    case 'P': *what = "context length"; return s->positions;
    case 'T': *what = "number of token types"; return s->token_types;
    case 'Q': *what = "attention heads times head size"; return (uint64_t)s->heads * s->head_dim;
    default: *what = "key-value heads times head size"; return (uint64_t)s->kv_heads * s->head_dim;
    }
}

clq_status clq_row_check(const clq_tensor_row *row, bool is_bias, const clq_tensor *t,
                         const clq_sizes *sizes, clq_error *err)
{
    uint32_t n_dims = is_bias ? 1 : (uint32_t)strlen(row->shape);
    if (t->n_dims != n_dims)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has %u dimensions instead of %u", t->name,
                        t->n_dims, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        const char *what;
        uint64_t expected = size_of(sizes, row->shape[d], &what);
        if (t->dims[d] != expected)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "dimension %u of tensor '%s' is %" PRIu64 ", but the %s is %" PRIu64
                            ": the tensor does not belong to this configuration",
                            d, t->name, t->dims[d], what, expected);
    }
    return CLQ_OK;
}

// SPDX-License-Identifier: MIT
#include "model/net.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "clquant_steps.h"

enum { GATED = CLQ_HAS_DENSE | CLQ_HAS_GATE };

static const clq_net_kind kinds[] = {
    {.name = "llama", .features = CLQ_HAS_PRE_NORMS | GATED, .may_have_experts = true, .normalized_experts = true,
     .rope_factors = CLQ_FACTORS_BY_SCALING},
    {.name = "qwen2", .features = CLQ_HAS_PRE_NORMS | GATED, .neox = true},
    {.name = "qwen3", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_QK_NORMS | GATED, .neox = true},
    {.name = "qwen2moe", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_EXPERTS | CLQ_HAS_SHARED_EXPERT, .neox = true},
    {.name = "qwen3moe", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_QK_NORMS | CLQ_HAS_EXPERTS, .neox = true,
     .normalized_experts = true},
    {.name = "gemma2", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_POST_NORMS | GATED, .neox = true, .scaled_embed = true,
     .act = CLQ_ACT_GELU_TANH, .window_pattern = 2, .window_default = 4096, .attn_softcap = 50, .final_softcap = 30,
     .reads_attn_softcap = true, .reads_final_softcap = true, .scaled_by_width = 46, .local_base_is_global = true},
    {.name = "gemma3", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_POST_NORMS | CLQ_HAS_QK_NORMS | GATED, .neox = true,
     .scaled_embed = true, .act = CLQ_ACT_GELU_TANH, .window_pattern = 6, .reads_final_softcap = true,
     .scaled_by_width = 62},
    {.name = "phi3", .features = CLQ_HAS_PRE_NORMS | CLQ_HAS_DENSE | CLQ_HAS_FUSED_GATE, .neox = true,
     .rope_factors = CLQ_FACTORS_BY_LENGTH},
    {.name = "bert", .features = CLQ_HAS_BERT | CLQ_HAS_DENSE | CLQ_HAS_PLAIN_UP, .no_rope = true, .layer_norm = true,
     .is_encoder = true, .act = CLQ_ACT_GELU},
};

// ---- reading metadata ----

typedef struct {
    const clq_view *view;
    clq_net *net;
    clq_error *err;
} reader;

static const char *full_key(const reader *r, const char *suffix, char key[96])
{
    snprintf(key, 96, "%s.%s", r->net->kind->name, suffix);
    return key;
}

// A whole number in [low, INT32_MAX]. Missing: `otherwise`, or CLQ_BAD_INPUT when that is below low. A list counts
// when all its entries are the same.
static clq_status read_u32(const reader *r, const char *suffix, uint32_t low, uint32_t otherwise, uint32_t *v)
{
    char key[96];
    uint64_t n = 0, count;
    clq_gguf_type type;
    const uint8_t *bytes;
    full_key(r, suffix, key);
    *v = otherwise;
    if (!clq_kv_find(r->view->kvs, key)) {
        if (otherwise >= low) return CLQ_OK;
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is missing", key);
    }
    if (clq_kv_get_array(r->view->kvs, key, &type, &count, &bytes)) {
        if (count == 0 || (type != CLQ_GGUF_U32 && type != CLQ_GGUF_I32))
            return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is not a whole number", key);
        uint32_t first, other;
        memcpy(&first, bytes, 4);
        for (uint64_t i = 1; i < count; i++) {
            memcpy(&other, bytes + 4 * i, 4);
            if (other != first)
                return clq_fail(r->err, CLQ_BAD_INPUT,
                                "metadata '%s' differs from layer to layer, which is not supported", key);
        }
        n = first;
    } else if (!clq_kv_get_u64(r->view->kvs, key, &n)) {
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is not a whole number", key);
    }
    if (n < low || n > INT32_MAX)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %" PRIu64 "; it must be from %u to %d", key, n, low,
                        INT32_MAX);
    *v = (uint32_t)n;
    return CLQ_OK;
}

// A finite number; missing: *v stays.
static clq_status read_number(const reader *r, const char *suffix, double *v)
{
    char key[96];
    double number;
    full_key(r, suffix, key);
    if (!clq_kv_find(r->view->kvs, key)) return CLQ_OK;
    if (!clq_kv_get_f64(r->view->kvs, key, &number) || !isfinite(number))
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is not a finite number", key);
    *v = number;
    return CLQ_OK;
}

static clq_status read_float(const reader *r, const char *suffix, float *v)
{
    double number = *v;
    CLQ_TRY(read_number(r, suffix, &number));
    *v = (float)number;
    return CLQ_OK;
}

// ---- sizes ----

static clq_status find_kind(const clq_view *view, const clq_net_kind **kind, clq_error *err)
{
    char *name = clq_kv_dup_string(view->kvs, "general.architecture");
    *kind = NULL;
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) *kind = &kinds[i];
    clq_status st = CLQ_OK;
    if (!name)
        st = clq_fail(err, CLQ_BAD_INPUT, "metadata 'general.architecture' is missing or not a text");
    else if (!*kind)
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "models of architecture '%.64s' cannot be run; known are llama (with mistral and mixtral), "
                      "qwen2, qwen3, qwen2moe, qwen3moe, gemma2, gemma3, phi3 and bert",
                      name);
    free(name);
    return st;
}

static clq_status read_heads(const reader *r)
{
    clq_net *n = r->net;
    uint32_t value_dim;
    CLQ_TRY(read_u32(r, "attention.head_count", 1, 0, &n->heads));
    CLQ_TRY(read_u32(r, "attention.head_count_kv", 1, n->heads, &n->kv_heads));
    if (n->heads % n->kv_heads)
        return clq_fail(r->err, CLQ_BAD_INPUT,
                        "metadata '%s.attention.head_count' is %u, which is no multiple of the %u key-value heads",
                        n->kind->name, n->heads, n->kv_heads);
    CLQ_TRY(read_u32(r, "attention.key_length", 1, n->embd / n->heads, &n->head_dim));
    CLQ_TRY(read_u32(r, "attention.value_length", 1, n->embd / n->heads, &value_dim));
    if (n->head_dim != value_dim)
        return clq_fail(r->err, CLQ_BAD_INPUT,
                        "metadata '%s.attention.value_length' is %u, but keys have %u elements; heads of two sizes "
                        "are not supported",
                        n->kind->name, value_dim, n->head_dim);
    if ((uint64_t)n->head_dim * (n->heads + 2ull * n->kv_heads) > INT32_MAX)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.attention.head_count': %u heads of %u elements are too "
                        "many",
                        n->kind->name, n->heads, n->head_dim);
    const clq_view_tensor *t = clq_view_find(r->view, "token_embd.weight");
    if (!t) return clq_fail(r->err, CLQ_BAD_INPUT, "tensor 'token_embd.weight' is missing");
    if (t->n_dims != 2 || t->dims[1] != n->embd || t->dims[0] == 0 || t->dims[0] > INT32_MAX)
        return clq_fail(r->err, CLQ_BAD_INPUT, "tensor 'token_embd.weight' must have the shape [vocabulary, %u]",
                        n->embd);
    n->vocab = (uint32_t)t->dims[0];
    return CLQ_OK;
}

static clq_status read_experts(const reader *r)
{
    clq_net *n = r->net;
    uint32_t count;
    CLQ_TRY(read_u32(r, "expert_count", 0, 0, &count));
    bool wanted = (n->features & CLQ_HAS_EXPERTS) != 0;
    if (n->kind->may_have_experts && count > 0) {
        n->features = (n->features & ~(unsigned)GATED) | CLQ_HAS_EXPERTS;
        wanted = true;
    }
    if (!wanted) return CLQ_OK;
    n->experts = count;
    if (n->experts == 0 || n->experts > CLQ_MAX_EXPERTS)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.expert_count' is %u; 1 to %d are possible", n->kind->name,
                        n->experts, CLQ_MAX_EXPERTS);
    CLQ_TRY(read_u32(r, "expert_used_count", 1, 0, &n->experts_used));
    if (n->experts_used > n->experts)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.expert_used_count' is %u, but there are %u experts",
                        n->kind->name, n->experts_used, n->experts);
    uint32_t otherwise = n->kind->may_have_experts ? n->ffn : n->ffn / n->experts_used;
    if (n->kind->may_have_experts)
        n->expert_ffn = otherwise;
    else
        CLQ_TRY(read_u32(r, "expert_feed_forward_length", 1, otherwise, &n->expert_ffn));
    n->experts_scale = 1;
    CLQ_TRY(read_float(r, "expert_weights_scale", &n->experts_scale));
    if (n->experts_scale == 0) n->experts_scale = 1;
    if (n->features & CLQ_HAS_SHARED_EXPERT)
        return read_u32(r, "expert_shared_feed_forward_length", 1, n->ffn, &n->shared_ffn);
    CLQ_TRY(read_u32(r, "expert_shared_feed_forward_length", 0, 0, &count));
    if (count)
        return clq_fail(r->err, CLQ_BAD_INPUT,
                        "metadata '%s.expert_shared_feed_forward_length' is %u; shared experts are supported in "
                        "qwen2moe only",
                        n->kind->name, count);
    return CLQ_OK;
}

// Which layers have a sliding window: a list of booleans, or every pattern-th layer has none.
static clq_status read_windows(const reader *r)
{
    clq_net *n = r->net;
    char key[96];
    clq_gguf_type type;
    uint64_t count;
    const uint8_t *bytes;
    uint32_t pattern;
    n->sliding = calloc(n->layers, sizeof *n->sliding);
    if (!n->sliding) return clq_fail_memory(r->err, n->layers);
    if (!n->kind->window_pattern) return CLQ_OK;
    CLQ_TRY(read_u32(r, "attention.sliding_window", 0, n->kind->window_default, &n->window));
    if (n->window == 0) return CLQ_OK;
    full_key(r, "attention.sliding_window_pattern", key);
    if (clq_kv_get_array(r->view->kvs, key, &type, &count, &bytes)) {
        if (type != CLQ_GGUF_BOOL || count < n->layers)
            return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' must have a boolean for each of the %u layers", key,
                            n->layers);
        for (uint32_t i = 0; i < n->layers; i++) n->sliding[i] = bytes[i] != 0;
        return CLQ_OK;
    }
    CLQ_TRY(read_u32(r, "attention.sliding_window_pattern", 0, n->kind->window_pattern, &pattern));
    for (uint32_t i = 0; i < n->layers; i++) n->sliding[i] = pattern == 0 || i % pattern < pattern - 1;
    return CLQ_OK;
}

static clq_status read_features(const reader *r)
{
    clq_net *n = r->net;
    n->features = n->kind->features;
    bool fused = clq_view_find(r->view, "blk.0.attn_qkv.weight") != NULL;
    n->features |= fused ? CLQ_HAS_FUSED_QKV : CLQ_HAS_SPLIT_QKV;
    if (fused && (n->features & CLQ_HAS_QK_NORMS))
        return clq_fail(r->err, CLQ_BAD_INPUT,
                        "tensor 'blk.0.attn_qkv.weight': norms of queries and keys need them apart, as attn_q and "
                        "attn_k");
    if (!n->kind->is_encoder && clq_view_find(r->view, "output.weight")) n->features |= CLQ_HAS_HEAD;
    return CLQ_OK;
}

static clq_status read_numbers(const reader *r)
{
    clq_net *n = r->net;
    char key[96];
    const char *norm = n->kind->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    full_key(r, norm, key);
    if (!clq_kv_find(r->view->kvs, key)) return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is missing", key);
    CLQ_TRY(read_float(r, norm, &n->eps));
    if (n->eps < 0) return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %g, below 0", key, (double)n->eps);
    n->attn_softcap = n->kind->attn_softcap;
    n->final_softcap = n->kind->final_softcap;
    if (n->kind->reads_attn_softcap) CLQ_TRY(read_float(r, "attn_logit_softcapping", &n->attn_softcap));
    if (n->kind->reads_final_softcap) CLQ_TRY(read_float(r, "final_logit_softcapping", &n->final_softcap));
    n->embed_scale = n->kind->scaled_embed ? sqrtf((float)n->embd) : 1;
    uint32_t divisor = n->layers == n->kind->scaled_by_width ? n->embd / n->heads : n->head_dim;
    n->attention_scale = 1 / sqrtf((float)divisor);
    bool causal = !n->kind->is_encoder;
    clq_kv_get_bool(r->view->kvs, full_key(r, "attention.causal", key), &causal);
    if (causal == n->kind->is_encoder)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %s, which is not supported for this architecture", key,
                        causal ? "true" : "false");
    return CLQ_OK;
}

// ---- rotary embeddings ----

typedef struct {
    double base, factor;        // factor: positions are divided by it
    double magnitude;
    bool is_yarn;
    double beta_fast, beta_slow, original;
    const clq_view_tensor *factors;
} rope_numbers;

static clq_status fill_table(const reader *r, const rope_numbers *x, clq_rope_table *table)
{
    const clq_net *n = r->net;
    uint32_t half = n->rope_dims / 2;
    float *factors = NULL;
    clq_status st = CLQ_OK;
    table->frequencies = malloc(half * sizeof *table->frequencies);
    table->magnitude = x->magnitude;
    if (!table->frequencies) return clq_fail_memory(r->err, half * sizeof *table->frequencies);
    if (x->factors) {
        const clq_view_tensor *t = x->factors;
        if (t->n_dims != 1 || t->dims[0] != half)
            return clq_fail(r->err, CLQ_BAD_INPUT,
                            "tensor '%s' must have %u elements, half of what is rotated in a head", t->name, half);
        factors = malloc(half * sizeof *factors);
        if (!factors) return clq_fail_memory(r->err, half * sizeof *factors);
        if (t->computed)
            memcpy(factors, t->computed, half * sizeof *factors);
        else
            CLQ_TRY_OUT(clq_origin_read(r->view->source, &t->from, 0, half, factors, r->err));
    }
    // Yarn: frequencies that turn often keep their speed, slow ones are divided by the factor.
    double scale = 1 / x->factor, low = 0, high = 0;
    if (x->is_yarn) {
        low = n->rope_dims * log(x->original / (x->beta_fast * 2 * 3.14159265358979323846)) / (2 * log(x->base));
        high = n->rope_dims * log(x->original / (x->beta_slow * 2 * 3.14159265358979323846)) / (2 * log(x->base));
        low = fmax(0, floor(low));
        high = fmin(n->rope_dims - 1, ceil(high));
    }
    for (uint32_t i = 0; i < half; i++) {
        double f = pow(x->base, -2.0 * i / n->rope_dims), ramp = 0;
        if (factors && !(factors[i] > 0 && isfinite(factors[i]))) {
            st = clq_fail(r->err, CLQ_BAD_INPUT, "tensor '%s' holds %g; all factors must be above 0",
                          x->factors->name, (double)factors[i]);
            goto out;
        }
        if (factors) f /= factors[i];
        if (x->is_yarn) ramp = 1 - fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
        table->frequencies[i] = f * (scale * (1 - ramp) + ramp);
    }
out:
    free(factors);
    return st;
}

// The tensor that divides the frequencies, NULL: none.
static const clq_view_tensor *find_factors(const reader *r, uint32_t context, double original, bool longrope)
{
    bool is_long = context > original;
    switch (r->net->kind->rope_factors) {
    case CLQ_FACTORS_BY_SCALING:
        if (!longrope) return clq_view_find(r->view, "rope_freqs.weight");
        break;
    case CLQ_FACTORS_BY_LENGTH: break;
    default: return NULL;
    }
    return clq_view_find(r->view, is_long ? "rope_factors_long.weight" : "rope_factors_short.weight");
}

static clq_status read_rope(const reader *r, uint32_t context)
{
    clq_net *n = r->net;
    rope_numbers x = {.base = 1e4, .factor = 1, .magnitude = 1, .beta_fast = 32, .beta_slow = 1};
    char key[96];
    if (n->kind->no_rope) return CLQ_OK;
    CLQ_TRY(read_u32(r, "rope.dimension_count", 1, n->head_dim, &n->rope_dims));
    full_key(r, "rope.dimension_count", key);
    if (n->rope_dims % 2 || n->rope_dims > n->head_dim)
        return clq_fail(r->err, CLQ_BAD_INPUT,
                        "metadata '%s': %u elements of a head are rotated; it must be an even number up to the head "
                        "size %u",
                        key, n->rope_dims, n->head_dim);
    CLQ_TRY(read_number(r, "rope.freq_base", &x.base));
    if (!(x.base > 0))
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %g; it must be above 0",
                        full_key(r, "rope.freq_base", key), x.base);
    char *type = clq_kv_dup_string(r->view->kvs, full_key(r, "rope.scaling.type", key));
    bool none = type && strcmp(type, "none") == 0, longrope = type && strcmp(type, "longrope") == 0;
    bool known = !type || none || longrope || strcmp(type, "linear") == 0 || strcmp(type, "yarn") == 0;
    x.is_yarn = type && strcmp(type, "yarn") == 0;
    free(type);
    if (!known) return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is of a kind that is not supported", key);
    double factor = 0, attn_factor = 1, log_mul = 0;
    CLQ_TRY(read_number(r, "rope.scale_linear", &factor));
    CLQ_TRY(read_number(r, "rope.scaling.factor", &factor));
    if (factor < 0)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %g, below 0",
                        full_key(r, "rope.scaling.factor", key), factor);
    if (factor != 0 && !none) x.factor = factor;
    CLQ_TRY(read_number(r, "rope.scaling.attn_factor", &attn_factor));
    CLQ_TRY(read_number(r, "rope.scaling.yarn_log_multiplier", &log_mul));
    CLQ_TRY(read_number(r, "rope.scaling.yarn_beta_fast", &x.beta_fast));
    CLQ_TRY(read_number(r, "rope.scaling.yarn_beta_slow", &x.beta_slow));
    uint32_t original;
    CLQ_TRY(read_u32(r, "rope.scaling.original_context_length", 0, n->positions, &original));
    x.original = original ? original : n->positions;
    if (x.is_yarn && (x.beta_fast <= 0 || x.beta_slow <= 0 || x.base == 1))
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.rope.*': yarn's numbers must be above 0", n->kind->name);
    x.magnitude = attn_factor;
    if (x.is_yarn && x.factor > 1) {
        double scaled = 0.1 * log(x.factor) + 1;
        x.magnitude *= log_mul != 0 ? scaled / (0.1 * log_mul * log(x.factor) + 1) : scaled;
    }
    x.factors = find_factors(r, context, x.original, longrope);
    CLQ_TRY(fill_table(r, &x, &n->ropes[CLQ_ROPE_GLOBAL]));
    for (uint32_t i = 0; i < n->layers; i++) n->has_local = n->has_local || n->sliding[i];
    if (!n->has_local) return CLQ_OK;
    // Sliding layers know no positions beyond the window, so nothing is scaled there.
    if (!n->kind->local_base_is_global) {
        x.base = 1e4;
        x.factor = 1;
    }
    CLQ_TRY(read_number(r, "rope.freq_base_swa", &x.base));
    if (!(x.base > 0))
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s' is %g; it must be above 0",
                        full_key(r, "rope.freq_base_swa", key), x.base);
    return fill_table(r, &x, &n->ropes[CLQ_ROPE_LOCAL]);
}

// ---- all ----

clq_status clq_net_positions(const clq_view *view, uint32_t *positions, clq_error *err)
{
    clq_net net = {0};
    CLQ_TRY(find_kind(view, &net.kind, err));
    return read_u32(&(reader){view, &net, err}, "context_length", 1, 0, positions);
}

static clq_status read_all(const reader *r, uint32_t context)
{
    clq_net *n = r->net;
    CLQ_TRY(find_kind(r->view, &n->kind, r->err));
    CLQ_TRY(read_features(r));
    CLQ_TRY(read_u32(r, "block_count", 1, 0, &n->layers));
    if (n->layers > CLQ_MAX_LAYERS)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.block_count' is %u; at most %d are possible",
                        n->kind->name, n->layers, CLQ_MAX_LAYERS);
    CLQ_TRY(read_u32(r, "context_length", 1, 0, &n->positions));
    CLQ_TRY(read_u32(r, "embedding_length", 1, 0, &n->embd));
    bool needs_ffn = (n->features & CLQ_HAS_DENSE) != 0;
    CLQ_TRY(read_u32(r, "feed_forward_length", needs_ffn, 0, &n->ffn));
    if (n->ffn > INT32_MAX / 2)
        return clq_fail(r->err, CLQ_BAD_INPUT, "metadata '%s.feed_forward_length' is %u, too large", n->kind->name,
                        n->ffn);
    CLQ_TRY(read_heads(r));
    CLQ_TRY(read_experts(r));
    CLQ_TRY(read_windows(r));
    CLQ_TRY(read_numbers(r));
    CLQ_TRY(read_u32(r, "pooling_type", 0, 0, &n->pooling));
    if (n->kind->is_encoder) {
        const clq_view_tensor *t = clq_view_find(r->view, "token_types.weight");
        n->token_types = t && t->n_dims == 2 && t->dims[0] <= INT32_MAX ? (uint32_t)t->dims[0] : 1;
    }
    return read_rope(r, context);
}

clq_status clq_net_read(const clq_view *view, uint32_t context, clq_net *net, clq_error *err)
{
    *net = (clq_net){0};
    clq_status st = read_all(&(reader){view, net, err}, context);
    if (st != CLQ_OK) clq_net_free(net);
    return st;
}

void clq_net_free(clq_net *net)
{
    free(net->sliding);
    for (int i = 0; i < CLQ_N_ROPES; i++) free(net->ropes[i].frequencies);
    *net = (clq_net){0};
}

// SPDX-License-Identifier: MIT
// Order of decision: the types given for the token embedding and the output, else a rule (the first whose pattern is
// found in the name), else the mix's or the one type asked for where the tensor is one that quantization applies to,
// else as it is; then the shape decides whether the type is possible.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "run/policy.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "run/mix.h"
#include "run/packing.h"

struct clq_policy {
    const clq_quantize_options *options;
    pcre2_code **patterns;
    bool *matched;
    bool to_gguf;
    bool mixed; // the mix's rules apply
    clq_mix_state mix;
};

clq_status clq_policy_create(const clq_quantize_options *options, bool to_gguf, const clq_gguf_kvs *kvs,
                             bool has_imatrix, clq_policy **policy, clq_error *err)
{
    *policy = NULL;
    clq_policy *p = calloc(1, sizeof *p);
    if (!p) return clq_fail_memory(err, sizeof *p);
    p->options = options;
    p->to_gguf = to_gguf;
    // Mixes of float types have no rules: every tensor gets the type.
    p->mixed = to_gguf && options->mix && !options->pure && options->mix->base > CLQ_BF16;
    if (to_gguf) clq_mix_begin(&p->mix, options->mix, kvs, has_imatrix);
    p->patterns = calloc(options->n_rules + 1, sizeof *p->patterns);
    p->matched = calloc(options->n_rules + 1, sizeof *p->matched);
    clq_status st = p->patterns && p->matched ? CLQ_OK : clq_fail_memory(err, options->n_rules);
    for (uint32_t i = 0; st == CLQ_OK && i < options->n_rules; i++) {
        int code;
        PCRE2_SIZE at;
        p->patterns[i] =
            pcre2_compile((PCRE2_SPTR)options->rules[i].pattern, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
        if (!p->patterns[i]) {
            PCRE2_UCHAR why[120];
            pcre2_get_error_message(code, why, sizeof why);
            st = clq_fail(err, CLQ_USAGE, "the pattern '%s' is not a regular expression: %s at %zu",
                          options->rules[i].pattern, (const char *)why, (size_t)at);
        }
    }
    if (st != CLQ_OK) {
        clq_policy_free(p);
        return st;
    }
    *policy = p;
    return CLQ_OK;
}

void clq_policy_free(clq_policy *p)
{
    if (!p) return;
    for (uint32_t i = 0; p->patterns && i < p->options->n_rules; i++) pcre2_code_free(p->patterns[i]);
    free(p->patterns);
    free(p->matched);
    free(p);
}

clq_status clq_policy_finish(const clq_policy *p, clq_error *err)
{
    for (uint32_t i = 0; i < p->options->n_rules; i++)
        if (!p->matched[i])
            return clq_fail(err, CLQ_USAGE, "the pattern '%s' matches no tensor that can be quantized",
                            p->options->rules[i].pattern);
    return CLQ_OK;
}

static bool holds_any(const char *name, const char *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}
#define HOLDS_ANY(name, parts) holds_any(name, parts, sizeof(parts) / sizeof(*(parts)))

// GGUF tensors that stay in full precision whatever is asked: small, and read by code that expects
// float. The list is llama-quantize's (docs/policies.md has its source).
static bool gguf_wants(const clq_policy *p, const char *name, const clq_tensor *t)
{
    static const char *const never[] = {
        "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
        "position_embd", "token_types", "ssm_conv1d", "shortconv.conv.weight", "time_mix_first.weight",
        "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
        "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
        "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
        "attn_rel_b.weight", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
        "a.rvq.codebook", "mm.a.code_embd", "indexer.k_proj.weight", "indexer.q_proj.weight",
    };
    static const char *const never_glm5[] = {
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    };
    // ggml does not count leading dimensions of 1.
    uint32_t ones = 0;
    while (ones < t->n_dims && t->dims[ones] == 1) ones++;
    bool wanted = t->n_dims - ones >= 2 && clq_ends_with(name, "weight") && !HOLDS_ANY(name, never);
    if (p->mix.glm5 && HOLDS_ANY(name, never_glm5)) wanted = false;
    return wanted && !(p->options->leave_output_tensor && clq_is_output_tensor(name));
}

bool clq_is_linear_weight(const char *name, uint32_t n_dims)
{
    static const char *const never[] = {
        "embed", "wte.", "wpe.", "lm_head", "norm", "Norm", "ln_", "router", "mlp.gate.weight", "moe.gate.weight",
        "shared_expert_gate", "rotary", "relative_attention_bias"};
    bool weight =
        clq_ends_with(name, ".weight") || strstr(name, "experts.gate_up_proj") || strstr(name, "experts.down_proj");
    return n_dims >= 2 && weight && !HOLDS_ANY(name, never);
}

// [rows, cols]: convolution kernels as [dim0, rest]; GGUF's and stacked experts' by the last dimension.
static void set_matrix(const clq_subject *s, clq_choice *c)
{
    const clq_tensor *t = s->t;
    bool stacked = strstr(s->name, "expert") != NULL;
    clq_tensor_matrix(t, &c->rows, &c->cols);
    if (!s->to_gguf && t->n_dims > 2 && !stacked) {
        c->rows = t->dims[0];
        c->cols = c->rows ? t->n_elements / c->rows : 0;
    }
}

static bool plain_float(const clq_type *t)
{
    return t->format == CLQ_F32 || t->format == CLQ_F16 || t->format == CLQ_BF16;
}

// What the tensor becomes when nothing is asked of it.
static clq_type kept_type(const clq_subject *s, const clq_quantize_options *o)
{
    const clq_type *from = &s->t->type;
    const clq_format *f = clq_format_row(from->format);
    bool weight = f->kind != CLQ_KIND_OPAQUE;
    if (!weight) return *from;
    if (o->convert && !o->keep_types && !s->to_gguf) return o->type;
    // Loaders want the small tensors of a GGUF file as float.
    if (s->to_gguf && !s->from_gguf) return clq_plain(CLQ_F32);
    if (f->kind == CLQ_KIND_FLOAT) return clq_plain(CLQ_F32); // F64, float8
    if (!s->to_gguf && !plain_float(from)) return clq_plain(CLQ_F32);
    return *from;
}

// The largest of 64 and 32 that divides cols, for a group size that does not.
static uint32_t smaller_group(uint64_t cols)
{
    return cols % 64 == 0 ? 64 : cols % 32 == 0 ? 32 : 0;
}

// What stands in for a type with larger blocks where rows are whole blocks of 32 only; llama-quantize's choice.
// CLQ_FORMAT_COUNT: nothing does.
static clq_format_id smaller_block(clq_format_id format)
{
    switch (format) {
    case CLQ_Q2_0: case CLQ_Q2_K: case CLQ_Q3_K: case CLQ_TQ1_0: case CLQ_TQ2_0: return CLQ_Q4_0;
    case CLQ_Q4_K: return CLQ_Q5_0;
    case CLQ_Q5_K: return CLQ_Q5_1;
    case CLQ_Q6_K: return CLQ_Q8_0;
    case CLQ_IQ1_S: case CLQ_IQ1_M: case CLQ_IQ2_XXS: case CLQ_IQ2_XS: case CLQ_IQ2_S: case CLQ_IQ3_XXS: case CLQ_IQ3_S:
    case CLQ_IQ4_XS: return CLQ_IQ4_NL;
    default: return clq_format_at(format)->block_elements <= 32 ? CLQ_F16 : CLQ_FORMAT_COUNT;
    }
}

// Makes the type fit the rows, or says what is stored instead.
static clq_status fit_shape(const clq_policy *p, const clq_subject *s, clq_choice *c, clq_error *err)
{
    char name[32];
    clq_type_name(&c->type, name);
    c->asked = c->type;
    unsigned long long cols = c->cols;
    if (c->type.format != CLQ_INT) {
        uint32_t block = clq_format_at(c->type.format)->block_elements;
        if (c->cols % block == 0) return CLQ_OK;
        clq_format_id smaller = smaller_block(c->type.format);
        if (smaller == CLQ_FORMAT_COUNT)
            return clq_fail(err, CLQ_USAGE,
                            "tensor '%s': rows of %llu are not whole blocks of %u, and no type stands in for %s; "
                            "give it one with --tensor-type",
                            s->name, cols, block, name);
        c->type = clq_plain(c->cols % 32 == 0 ? smaller : CLQ_F16);
        c->quantized = c->type.format != CLQ_F16;
        snprintf(c->note, sizeof c->note, "rows of %llu are not whole blocks of %u: %s instead of %s", cols, block,
                 clq_format_at(c->type.format)->name, name);
    } else if (!clq_layout_takes(p->options->layout, s->name, s->t->n_dims, &c->type, c->rows, c->cols, c->note)) {
        c->type = kept_type(s, p->options);
        c->quantized = false;
    } else if (c->type.granularity == CLQ_PER_GROUP && c->cols % c->type.group_size) {
        uint32_t group = smaller_group(c->cols);
        if (group) {
            snprintf(c->note, sizeof c->note, "groups of %u do not divide rows of %llu: groups of %u",
                     c->type.group_size, cols, group);
            c->type.group_size = group;
        } else {
            snprintf(c->note, sizeof c->note, "no group divides rows of %llu: kept in full precision", cols);
            c->type = kept_type(s, p->options);
            c->quantized = false;
        }
    } else {
        return CLQ_OK;
    }
    c->fallback = true;
    if (!p->options->no_fallback) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE, "tensor '%s': %s; --no-fallback refuses that", s->name, c->note);
}

// A scale is stored in the model's own dtype, as loaders expect, float32 for other sources.
static clq_format_id scale_format(const clq_type *source)
{
    return source->format == CLQ_F16 || source->format == CLQ_BF16 ? source->format : CLQ_F32;
}

static const clq_type *rule_for(clq_policy *p, const char *name, bool possible)
{
    pcre2_match_data *match = NULL;
    const clq_type *found = NULL;
    for (uint32_t i = 0; i < p->options->n_rules; i++) {
        match = pcre2_match_data_create_from_pattern(p->patterns[i], NULL);
        bool hit =
            match && pcre2_match(p->patterns[i], (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, match, NULL) >= 0;
        pcre2_match_data_free(match);
        if (!hit || !possible) continue;
        p->matched[i] = true; // also behind an earlier rule that wins
        if (!found) found = &p->options->rules[i].type;
    }
    return found;
}

// The type asked for, before the shape is looked at; NULL: none, the tensor is kept. *of_mix: room for the mix's.
static const clq_type *asked_type(clq_policy *p, const clq_subject *s, const clq_type *rule, bool wanted,
                                  clq_type *of_mix)
{
    const clq_quantize_options *o = p->options;
    if (s->to_gguf && o->leave_output_tensor && clq_is_output_tensor(s->name)) return NULL;
    if (s->to_gguf && wanted) {
        // A table of its own size follows --token-embedding-type unless a rule names it.
        bool own = rule && strcmp(s->name, "token_embd.weight") != 0;
        if (o->token_embedding && clq_is_token_embedding(s->name) && !own) return o->token_embedding;
        if (o->output_tensor && clq_is_output_tensor(s->name)) return o->output_tensor;
    }
    if (rule) return rule;
    if (!wanted && !(o->convert && !s->to_gguf)) return NULL;
    if (!p->mixed) return &o->type;
    *of_mix = clq_plain(clq_mix_choose(&p->mix, s->name, s->t, o->output_tensor));
    return of_mix;
}

// Types that have a row but no encoder.
static clq_status check_codec(const clq_policy *p, const clq_subject *s, const clq_choice *c, clq_error *err)
{
    const clq_format_info *f = clq_format_at(c->type.format);
    const clq_mix *mix = p->options->mix;
    if (c->type.format == CLQ_INT || f->has_codec || c->type.format == s->t->type.format) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE,
                    "tensor '%s' would be %s%s%s, which this version does not encode; give it another type with "
                    "--tensor-type, or use another --type",
                    s->name, f->name, p->mixed ? " in the mix " : "", p->mixed ? mix->name : "");
}

// Convert without a type: integer weights as they are, where the layout can hold them.
static clq_status keep(const clq_policy *p, const clq_subject *s, clq_choice *c, clq_error *err)
{
    const clq_type *from = &s->t->type;
    clq_layout layout = p->options->layout;
    if (from->format != CLQ_INT) return CLQ_OK;
    c->type = *from;
    c->quantized = true;
    const char *why = clq_layout_refuses(layout, from, true);
    if (!why && !clq_layout_takes(layout, s->name, s->t->n_dims, from, c->rows, c->cols, c->note)) why = c->note;
    if (!why && layout == CLQ_LAYOUT_AWQ && s->t->group_index.n_bytes) why = "AWQ has no g_idx";
    if (!why) return CLQ_OK;
    char name[32];
    clq_type_name(from, name);
    return clq_fail(err, CLQ_USAGE, "tensor '%s', of type %s: %s", s->name, name, why);
}

void clq_policy_see(clq_policy *p, const char *name)
{
    clq_mix_see(&p->mix, name);
}

clq_status clq_policy_choose(clq_policy *p, const clq_subject *s, clq_choice *c, clq_error *err)
{
    const clq_tensor *t = s->t;
    const clq_format *from = clq_format_row(t->type.format);
    *c = (clq_choice){0};
    set_matrix(s, c);
    if (s->to_gguf && t->n_dims > 4)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has %u dimensions; GGUF holds at most 4", t->name, t->n_dims);
    bool weight = from->kind != CLQ_KIND_OPAQUE && t->n_elements > 0;
    const clq_type *rule = rule_for(p, s->name, weight && t->n_dims >= 2);
    bool wanted = s->to_gguf ? gguf_wants(p, s->name, t) : clq_is_linear_weight(s->name, t->n_dims);
    // Block types that have no decoder cannot become something else.
    if (!weight && from->info.block_elements >= 32 && (wanted || p->options->convert))
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is stored as %s, which this version does not decode", t->name,
                        from->info.name);
    c->type = kept_type(s, p->options);
    if (!weight) return CLQ_OK;
    if (p->options->keep_types) return keep(p, s, c, err);
    clq_type of_mix;
    const clq_type *asked = asked_type(p, s, rule, wanted, &of_mix);
    if (!asked) {
        if (from->kind == CLQ_KIND_FLOAT) snprintf(c->note, sizeof c->note, "%s becomes f32", from->info.name);
        return CLQ_OK;
    }
    c->type = *asked;
    c->quantized = !plain_float(&c->type);
    c->type.scale_format =
        clq_by_columns(clq_layout_packing(p->options->layout)) ? CLQ_F16 : scale_format(&t->type);
    CLQ_TRY(fit_shape(p, s, c, err));
    return check_codec(p, s, c, err);
}

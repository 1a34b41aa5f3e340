// SPDX-License-Identifier: MIT
// Hyperparameters: config.json <-> "<architecture>.*" metadata.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/arch.h"

static uint32_t *slot_of(clq_sizes *s, char letter)
{
    switch (letter) {
    case 'L': return &s->layers;
    case 'E': return &s->embd;
    case 'F': return &s->ffn;
    case 'H': return &s->heads;
    case 'G': return &s->kv_heads;
    case 'D': return &s->head_dim;
    case 'P': return &s->positions;
    case 'V': return &s->vocab;
    case 'N': return &s->experts;
    case 'X': return &s->expert_ffn;
    case 'S': return &s->shared_ffn;
    default: return NULL;
    }
}

// Fills in what may be left out, and refuses sizes that contradict each other.
static clq_status check_sizes(const clq_arch *arch, clq_sizes *s, clq_error *err)
{
    if (s->layers == 0 || s->layers > CLQ_MAX_LAYERS)
        return clq_fail(err, CLQ_BAD_INPUT, "the model has %u layers; 1 to %d are possible",
                        s->layers, CLQ_MAX_LAYERS);
    if (s->embd == 0 || s->ffn == 0 || s->heads == 0 || s->positions == 0)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "hidden size (%u), feed-forward size (%u), attention heads (%u) and context "
            "length (%u) must all be above 0",
            s->embd, s->ffn, s->heads, s->positions);
    if (s->kv_heads == 0) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "%u attention heads cannot share %u key-value heads evenly", s->heads,
                        s->kv_heads);
    s->explicit_head_dim = s->head_dim != 0;
    if (!s->explicit_head_dim) {
        if (s->embd % s->heads != 0)
            return clq_fail(
                err, CLQ_BAD_INPUT,
                "the hidden size %u is not a multiple of the %u attention heads, and no "
                "head size is given",
                s->embd, s->heads);
        s->head_dim = s->embd / s->heads;
    }
    if (arch->has_experts && (s->experts == 0 || s->experts > CLQ_MAX_EXPERTS))
        return clq_fail(err, CLQ_BAD_INPUT, "the model has %u experts; 1 to %d are possible",
                        s->experts, CLQ_MAX_EXPERTS);
    if (!s->expert_ffn) s->expert_ffn = s->ffn;
    s->rope_dims = s->head_dim;
    if (arch->rope_base > 0 && s->head_dim % 2 != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "the head size %u is odd: rotary position embeddings need pairs",
                        s->head_dim);
    return CLQ_OK;
}

static void full_key(char *key, size_t n, const clq_arch *arch, const char *suffix)
{
    snprintf(key, n, "%s.%s", arch->name, suffix);
}

// ---- to GGUF -----------------------------------------------------------------------------------

static clq_status check_constants(const clq_arch *arch, const json_t *config, clq_error *err)
{
    for (const clq_constant *c = arch->constants; c->key; c++) {
        bool flag;
        if (c->is_flag && clq_json_bool(config, c->key, &flag) && flag != c->flag)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "config.json: \"%s\" is %s, but GGUF's '%s' always means %s", c->key,
                            flag ? "true" : "false", arch->name, c->flag ? "true" : "false");
        const json_t *other = json_object_get(config, c->key);
        if (c->is_null && other && !json_is_null(other))
            return clq_fail(err, CLQ_BAD_INPUT,
                            "config.json: \"%s\" must be null: GGUF's '%s' has no place for it",
                            c->key, arch->name);
        if (c->is_flag || c->is_null) continue;
        const char *value = clq_json_text(config, c->key);
        if (!value || strcmp(value, c->value) == 0 || (c->also && strcmp(value, c->also) == 0))
            continue;
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"%s\" is \"%s\", but GGUF's '%s' always means \"%s\"",
                        c->key, value, arch->name, c->value);
    }
    return CLQ_OK;
}

static clq_status missing_key(const clq_hyper *h, bool bad, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT,
                    bad ? "config.json: \"%s\" must be a %s"
                        : "config.json lacks \"%s\" (a %s), which GGUF needs",
                    h->hf, h->is_float ? "finite number" : "whole number from 0 to 2147483647");
}

static clq_status hyper_to_gguf(const clq_arch *arch, const clq_hyper *h, const json_t *config,
                                clq_sizes *sizes, clq_gguf_kvs *kvs, clq_error *err)
{
    const char *const names[] = {h->hf, h->hf_also};
    char key[96];
    bool bad = false, found = false;
    double number = 0;
    uint32_t n = 0;
    for (int i = 0; i < 2 && names[i] && !found && !bad; i++)
        found = h->is_float ? clq_json_number(config, names[i], &number, &bad)
                            : clq_json_u32(config, names[i], &n, &bad);
    if (bad || (!found && h->required)) return missing_key(h, bad, err);
    if (!found && h->size == 'G') {
        n = sizes->heads;
        found = true;
    }
    if (!found) return CLQ_OK;
    if (h->size) *slot_of(sizes, h->size) = n;
    full_key(key, sizeof key, arch, h->gguf);
    if (h->is_float)
        clq_kv_set_f32(kvs, key, (float)number);
    else
        clq_kv_set_u32(kvs, key, n);
    return CLQ_OK;
}

clq_status clq_hypers_to_gguf(const clq_arch *arch, const json_t *config, clq_sizes *sizes,
                              clq_gguf_kvs *kvs, clq_error *err)
{
    *sizes = (clq_sizes){0};
    CLQ_TRY(check_constants(arch, config, err));
    char key[96];
    const clq_hyper *const lists[] = {arch->hypers, arch->more_hypers};
    for (int i = 0; i < 2; i++)
        for (const clq_hyper *h = lists[i]; h && h->hf; h++)
            CLQ_TRY(hyper_to_gguf(arch, h, config, sizes, kvs, err));
    bool bad = false;
    if (!sizes->vocab) clq_json_u32(config, "vocab_size", &sizes->vocab, &bad);
    if (arch->is_encoder) clq_json_u32(config, "type_vocab_size", &sizes->token_types, &bad);
    if (bad)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"vocab_size\" and \"type_vocab_size\" must be whole numbers "
                        "from 0 to 2147483647");
    CLQ_TRY(check_sizes(arch, sizes, err));
    if (sizes->explicit_head_dim) {
        full_key(key, sizeof key, arch, "attention.value_length");
        clq_kv_set_u32(kvs, key, sizes->head_dim);
    }
    return CLQ_OK;
}

// ---- to Hugging Face ---------------------------------------------------------------------------

// A tensor's rows, 0 when there is no such tensor.
static uint32_t rows_of(const clq_source *gguf, const char *name)
{
    const clq_tensor *t = clq_source_find(gguf, name);
    return t && t->n_dims > 0 && t->dims[0] <= INT32_MAX ? (uint32_t)t->dims[0] : 0;
}

// Metadata that must agree with the head size where it is there.
static clq_status check_lengths(const clq_arch *arch, const clq_gguf_kvs *kvs,
                                const clq_sizes *sizes, clq_error *err)
{
    static const char *const suffixes[] = {"attention.key_length", "attention.value_length",
                                           "rope.dimension_count"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char key[96];
        uint64_t n;
        full_key(key, sizeof key, arch, suffixes[i]);
        if (i == 2 && arch->partial_rope) continue;
        if (clq_kv_get_u64(kvs, key, &n) && n != sizes->head_dim)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata '%s' is %" PRIu64
                            ", but the head size is %u; config.json has "
                            "one size for all",
                            key, n, sizes->head_dim);
    }
    return CLQ_OK;
}

static clq_status read_hyper(const clq_hyper *h, const char *key, const clq_gguf_kvs *kvs,
                             clq_sizes *sizes, json_t *config, clq_error *err)
{
    uint64_t n = 0;
    double number = 0;
    bool found = h->is_float ? clq_kv_get_f64(kvs, key, &number) && isfinite(number)
                             : clq_kv_get_u64(kvs, key, &n) && n <= INT32_MAX;
    if (!found && h->if_missing != 0 && !clq_kv_find(kvs, key)) {
        number = h->if_missing;
        n = (uint64_t)number;
        found = true;
    }
    if (!found && (h->required || clq_kv_find(kvs, key)))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is missing or not a single %s", key,
                        h->is_float ? "finite number" : "whole number from 0 to 2147483647");
    if (!found) return CLQ_OK;
    if (h->size) *slot_of(sizes, h->size) = (uint32_t)n;
    return clq_json_set(config, h->hf,
                        h->is_float ? clq_json_f32((float)number) : json_integer((json_int_t)n),
                        err);
}

clq_status clq_hypers_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                            json_t *config, clq_error *err)
{
    *sizes = (clq_sizes){0};
    for (const clq_constant *c = arch->constants; c->key; c++)
        CLQ_TRY(clq_json_set(config, c->key,
                             c->is_null   ? json_null()
                             : c->is_flag ? json_boolean(c->flag)
                                          : json_string(c->value),
                             err));
    bool has_kv_heads = false;
    const clq_hyper *const lists[] = {arch->hypers, arch->more_hypers};
    for (int i = 0; i < 2; i++)
        for (const clq_hyper *h = lists[i]; h && h->hf; h++) {
            char key[96];
            full_key(key, sizeof key, arch, h->gguf);
            CLQ_TRY(read_hyper(h, key, &gguf->kvs, sizes, config, err));
            has_kv_heads = has_kv_heads || h->size == 'G';
        }
    CLQ_TRY(check_sizes(arch, sizes, err));
    CLQ_TRY(check_lengths(arch, &gguf->kvs, sizes, err));
    if (has_kv_heads)
        CLQ_TRY(clq_json_set(config, "num_key_value_heads", json_integer(sizes->kv_heads), err));
    sizes->vocab = rows_of(gguf, "token_embd.weight");
    CLQ_TRY(clq_json_set(config, "vocab_size", json_integer(sizes->vocab), err));
    if (!arch->is_encoder) return CLQ_OK;
    sizes->token_types = rows_of(gguf, "token_types.weight");
    return clq_json_set(config, "type_vocab_size", json_integer(sizes->token_types), err);
}

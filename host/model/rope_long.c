// SPDX-License-Identifier: MIT
// longrope: two lists of factors, one for texts up to the original context, one for longer texts.
// config.json's rope_scaling <-> GGUF's tensors rope_factors_short and rope_factors_long. Source:
// LongRoPE, https://arxiv.org/abs/2402.13753
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"

static const struct {
    const char *hf, *gguf;
} lists[] = {{"long_factor", "rope_factors_long.weight"},
             {"short_factor", "rope_factors_short.weight"}};

static void rope_key(char key[96], const clq_arch *arch, const char *suffix)
{
    snprintf(key, 96, "%s.rope.%s", arch->name, suffix);
}

// What attention scores are multiplied by when the context grows from `original` to `positions`.
static double attention_factor(double positions, double original)
{
    double scale = positions / original;
    return scale > 1 ? sqrt(1 + log(scale) / log(original)) : 1;
}

static clq_status add_factors(const json_t *list, const char *hf, const char *gguf,
                              const clq_sizes *sizes, clq_translation *out, clq_error *err)
{
    float *data;
    uint32_t n = sizes->rope_dims / 2;
    CLQ_TRY(clq_add_computed(out, gguf, n, &data, err));
    bool good = json_array_size(list) == n;
    for (uint32_t i = 0; i < n && good; i++) {
        const json_t *v = json_array_get(list, i);
        data[i] = (float)json_number_value(v);
        good = json_is_number(v) && isfinite(data[i]) && data[i] > 0;
    }
    if (good) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT,
                    "config.json: rope scaling needs \"%s\", a list of %u numbers above 0", hf, n);
}

clq_status clq_long_rope_to_gguf(const clq_arch *arch, const json_t *config, const json_t *params,
                                 const char *kind, const clq_sizes *sizes, clq_translation *out,
                                 clq_error *err)
{
    static const char original_key[] = "original_max_position_embeddings";
    char key[96];
    uint32_t original = 0;
    bool bad = false;
    if (!clq_json_u32(params, original_key, &original, &bad))
        clq_json_u32(config, original_key, &original, &bad);
    if (bad || original < 2)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json needs \"%s\", a whole number above 1, for GGUF's '%s'",
                        original_key, arch->name);
    rope_key(key, arch, "scaling.original_context_length");
    clq_kv_set_u32(&out->kvs, key, original);
    if (strcmp(kind, "default") == 0) return CLQ_OK;
    if (strcmp(kind, "longrope") != 0 && strcmp(kind, "su") != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: rope scaling of type '%s' has no translation to GGUF's '%s'; "
                        "known is longrope",
                        kind, arch->name);
    rope_key(key, arch, "scaling.attn_factor");
    clq_kv_set_f32(&out->kvs, key, (float)attention_factor(sizes->positions, original));
    for (int i = 0; i < 2; i++)
        CLQ_TRY(add_factors(json_object_get(params, lists[i].hf), lists[i].hf, lists[i].gguf, sizes,
                            out, err));
    return CLQ_OK;
}

static clq_status read_factors(const clq_source *gguf, const clq_tensor *t, uint32_t n,
                               json_t *list, clq_error *err)
{
    if (t->n_dims != 1 || t->dims[0] != n)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' must have %u elements, half of what is rotated in a head",
                        t->name, n);
    float *values = malloc(n * sizeof *values);
    if (!values) return clq_fail_memory(err, n * sizeof *values);
    clq_status st = clq_tensor_read(gguf, t, 0, 1, values, err);
    for (uint32_t i = 0; i < n && st == CLQ_OK; i++) {
        if (!isfinite(values[i]))
            st = clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' holds NaN or infinite values", t->name);
        else if (json_array_append_new(list, clq_json_f32(values[i])) != 0)
            st = clq_fail_memory(err, 64);
    }
    free(values);
    return st;
}

// The metadata may hold the attention factor, but config.json has no place for it: it follows from
// the contexts.
static clq_status check_attention_factor(const clq_arch *arch, const clq_gguf_kvs *kvs,
                                         double expected, clq_error *err)
{
    char key[96];
    double stored;
    rope_key(key, arch, "scaling.attn_factor");
    if (!clq_kv_get_f64(kvs, key, &stored) || fabs(stored - expected) <= 1e-4 * expected)
        return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT,
                    "metadata '%s' is %g, but %g follows from the contexts; config.json cannot "
                    "express that",
                    key, stored, expected);
}

clq_status clq_long_rope_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                               json_t *config, clq_error *err)
{
    char key[96];
    uint64_t original = sizes->positions, dims = sizes->head_dim;
    rope_key(key, arch, "scaling.original_context_length");
    if (clq_kv_find(&gguf->kvs, key) &&
        (!clq_kv_get_u64(&gguf->kvs, key, &original) || original < 2 || original > INT32_MAX))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no whole number above 1", key);
    CLQ_TRY(clq_json_set(config, "original_max_position_embeddings",
                         json_integer((json_int_t)original), err));
    rope_key(key, arch, "dimension_count");
    if (clq_kv_find(&gguf->kvs, key) &&
        (!clq_kv_get_u64(&gguf->kvs, key, &dims) || dims == 0 || dims % 2 || dims > sizes->head_dim))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "metadata '%s' is no even number from 2 to the head size %u", key,
                        sizes->head_dim);
    sizes->rope_dims = (uint32_t)dims;
    double part = (double)dims / sizes->head_dim;
    // The number that gives the size again when it is rounded down.
    if ((uint32_t)(part * sizes->embd) / sizes->heads < dims) part = nextafter(part, 1);
    CLQ_TRY(clq_json_set(config, "partial_rotary_factor", json_real(part), err));

    const clq_tensor *tensors[2];
    for (int i = 0; i < 2; i++) tensors[i] = clq_source_find(gguf, lists[i].gguf);
    if (!tensors[0] && !tensors[1])
        return clq_json_set(config, "rope_scaling", json_null(), err);
    json_t *scaling = json_pack("{s:s}", "type", "longrope");
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(check_attention_factor(
        arch, &gguf->kvs, attention_factor(sizes->positions, (double)original), err));
    for (int i = 0; i < 2; i++) {
        json_t *list = json_array();
        st = tensors[i] ? read_factors(gguf, tensors[i], sizes->rope_dims / 2, list, err)
                        : clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is missing", lists[i].gguf);
        if (st == CLQ_OK) st = clq_json_set(scaling, lists[i].hf, json_incref(list), err);
        json_decref(list);
        if (st != CLQ_OK) goto out;
    }
    CLQ_TRY_OUT(clq_json_set(config, "rope_scaling", json_incref(scaling), err));
out:
    json_decref(scaling);
    return st;
}

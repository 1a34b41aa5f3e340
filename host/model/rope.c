// SPDX-License-Identifier: MIT
// Rotary embeddings: config.json's rope_theta and rope_scaling (rope_parameters in newer files) <->
// GGUF's rope.* metadata and, for Llama 3's scaling, the tensor rope_freqs.weight.
// Llama 3's rule: https://github.com/meta-llama/llama-models (models/llama3/model.py,
// apply_scaling)
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"

// The numbers that go with "yarn". The two names of attention_factor: one in rope_scaling.
static const struct {
    const char *hf, *gguf;
} yarn_numbers[] = {
    {"extrapolation_factor", "yarn_ext_factor"},
    {"attention_factor", "yarn_attn_factor"},
    {"beta_fast", "yarn_beta_fast"},
    {"beta_slow", "yarn_beta_slow"},
};

enum { N_YARN_NUMBERS = sizeof yarn_numbers / sizeof *yarn_numbers };

typedef struct llama3_scaling {
    double base, factor, low, high, original;
} llama3_scaling;

// factors: head_dim / 2 of them, what each rotary frequency is divided by.
static void llama3_factors(const llama3_scaling *s, uint32_t head_dim, float *factors)
{
    const double two_pi = 6.283185307179586;
    double low_wavelength = s->original / s->low, high_wavelength = s->original / s->high;
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double wavelength = two_pi * pow(s->base, 2.0 * i / head_dim);
        double smooth = (s->original / wavelength - s->low) / (s->high - s->low);
        if (wavelength < high_wavelength)
            factors[i] = 1.0f;
        else if (wavelength > low_wavelength)
            factors[i] = (float)s->factor;
        else
            factors[i] = (float)(1.0 / ((1.0 - smooth) / s->factor + smooth));
    }
}

static void rope_key(char key[96], const clq_arch *arch, const char *suffix)
{
    snprintf(key, 96, "%s.rope.%s", arch->name, suffix);
}

// ---- to GGUF -----------------------------------------------------------------------------------

static clq_status bad_number(const char *key, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "config.json: rope scaling needs \"%s\", a number above 0",
                    key);
}

static clq_status positive(const json_t *params, const char *key, double *v, clq_error *err)
{
    bool bad = false;
    if (clq_json_number(params, key, v, &bad) && *v > 0) return CLQ_OK;
    return bad_number(key, err);
}

clq_status clq_add_computed(clq_translation *t, const char *name, uint32_t n, float **data,
                            clq_error *err)
{
    clq_computed_tensor *computed = realloc(t->computed, (t->n_computed + 1) * sizeof *computed);
    if (computed) t->computed = computed;
    *data = calloc(n, sizeof **data);
    char *own_name = strdup(name);
    if (!computed || !*data || !own_name) {
        free(*data);
        free(own_name);
        return clq_fail_memory(err, n * sizeof **data);
    }
    computed[t->n_computed++] =
        (clq_computed_tensor){.name = own_name, .n_dims = 1, .dims = {n}, .data = *data};
    return CLQ_OK;
}

static clq_status add_llama3(const json_t *params, double base, const clq_sizes *sizes,
                             clq_translation *out, clq_error *err)
{
    llama3_scaling s = {.base = base};
    CLQ_TRY(positive(params, "factor", &s.factor, err));
    CLQ_TRY(positive(params, "low_freq_factor", &s.low, err));
    CLQ_TRY(positive(params, "high_freq_factor", &s.high, err));
    CLQ_TRY(positive(params, "original_max_position_embeddings", &s.original, err));
    if (s.low >= s.high)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: rope scaling's \"low_freq_factor\" must be below "
                        "\"high_freq_factor\"");
    float *factors;
    CLQ_TRY(clq_add_computed(out, "rope_freqs.weight", sizes->head_dim / 2, &factors, err));
    llama3_factors(&s, sizes->head_dim, factors);
    return CLQ_OK;
}

static clq_status add_yarn(const clq_arch *arch, const json_t *params, const json_t *config,
                           clq_gguf_kvs *kvs, clq_error *err)
{
    char key[96];
    bool bad = false;
    uint32_t original;
    static const char original_key[] = "original_max_position_embeddings";
    if (!clq_json_u32(params, original_key, &original, &bad) &&
        !clq_json_u32(config, original_key, &original, &bad))
        return bad_number(original_key, err);
    rope_key(key, arch, "scaling.original_context_length");
    clq_kv_set_u32(kvs, key, original);
    for (size_t i = 0; i < N_YARN_NUMBERS; i++) {
        double v;
        char suffix[64];
        bool wrong = false;
        if (!clq_json_number(params, yarn_numbers[i].hf, &v, &wrong)) {
            if (wrong) return bad_number(yarn_numbers[i].hf, err);
            continue;
        }
        snprintf(suffix, sizeof suffix, "scaling.%s", yarn_numbers[i].gguf);
        rope_key(key, arch, suffix);
        clq_kv_set_f32(kvs, key, (float)v);
    }
    return CLQ_OK;
}

static clq_status set_rope_dims(const clq_arch *arch, const json_t *config, const json_t *params,
                                clq_sizes *sizes, clq_error *err)
{
    const json_t *places[] = {config, params};
    double part = 1;
    bool bad = false;
    for (size_t i = 0; i < 2; i++) clq_json_number(places[i], "partial_rotary_factor", &part, &bad);
    if (bad || !(part > 0 && part <= 1) || (part != 1 && !arch->partial_rope))
        return clq_fail(err, CLQ_BAD_INPUT, "config.json: \"partial_rotary_factor\" must be %s",
                        arch->partial_rope ? "above 0 and at most 1" : "1 for this architecture");
    if (part != 1) sizes->rope_dims = (uint32_t)(part * sizes->embd) / sizes->heads;
    if (sizes->rope_dims == 0 || sizes->rope_dims > sizes->head_dim || sizes->rope_dims % 2)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"partial_rotary_factor\" %g leaves %u of a head's %u elements "
                        "for rotary position embeddings; that must be an even number",
                        part, sizes->rope_dims, sizes->head_dim);
    return CLQ_OK;
}

// rope_scaling and rope_parameters name their kind "rope_type" or, in older files, "type".
static const char *kind_of(const json_t *params)
{
    const char *kind = clq_json_text(params, "rope_type");
    if (!kind) kind = clq_json_text(params, "type");
    return kind ? kind : "default";
}

// The base of sliding layers, where config.json has one: rope_local_base_freq, or the parameters of
// that kind of layer.
static clq_status add_local_base(const clq_arch *arch, const json_t *config, const json_t *local,
                                 clq_gguf_kvs *kvs, clq_error *err)
{
    char key[96];
    double base;
    bool bad = false;
    const char *name = local ? "rope_theta" : "rope_local_base_freq";
    bool found = clq_json_number(local ? local : config, name, &base, &bad);
    if (bad || (found && !(base > 0))) return bad_number(name, err);
    if (strcmp(kind_of(local), "default") != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: rope scaling of sliding layers has no place in GGUF");
    rope_key(key, arch, "freq_base_swa");
    if (found) clq_kv_set_f32(kvs, key, (float)base);
    return CLQ_OK;
}

clq_status clq_rope_to_gguf(const clq_arch *arch, const json_t *config, clq_sizes *sizes,
                            clq_translation *out, clq_error *err)
{
    char key[96];
    const json_t *params = json_object_get(config, "rope_parameters"), *local = NULL;
    if (!json_is_object(params)) params = json_object_get(config, "rope_scaling");
    if (json_is_object(json_object_get(params, "full_attention"))) {
        local = json_object_get(params, "sliding_attention");
        params = json_object_get(params, "full_attention");
    }
    bool bad = false;
    double base = arch->rope_base, factor;
    if (!clq_json_number(params, "rope_theta", &base, &bad))
        clq_json_number(config, "rope_theta", &base, &bad);
    if (bad || !(base > 0)) return bad_number("rope_theta", err);
    CLQ_TRY(set_rope_dims(arch, config, params, sizes, err));
    rope_key(key, arch, "dimension_count");
    if (arch->rope_dims) clq_kv_set_u32(&out->kvs, key, sizes->rope_dims);
    rope_key(key, arch, "freq_base");
    clq_kv_set_f32(&out->kvs, key, (float)base);
    if (arch->local_rope) CLQ_TRY(add_local_base(arch, config, local, &out->kvs, err));

    const char *kind = kind_of(params);
    if (arch->long_rope) return clq_long_rope_to_gguf(arch, config, params, kind, sizes, out, err);
    if (strcmp(kind, "default") == 0) return CLQ_OK;
    if (strcmp(kind, "llama3") == 0) return add_llama3(params, base, sizes, out, err);
    if (strcmp(kind, "linear") != 0 && strcmp(kind, "yarn") != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: rope scaling of type '%s' has no translation to GGUF's '%s'; "
                        "known are linear, yarn and llama3",
                        kind, arch->name);
    CLQ_TRY(positive(params, "factor", &factor, err));
    rope_key(key, arch, "scaling.type");
    clq_kv_set_string(&out->kvs, key, kind, strlen(kind));
    rope_key(key, arch, "scaling.factor");
    clq_kv_set_f32(&out->kvs, key, (float)factor);
    return strcmp(kind, "yarn") == 0 ? add_yarn(arch, params, config, &out->kvs, err) : CLQ_OK;
}

// ---- to Hugging Face ---------------------------------------------------------------------------

static clq_status copy_f32(const clq_gguf_kvs *kvs, const char *key, json_t *object,
                           const char *name, clq_error *err)
{
    double v;
    if (!clq_kv_get_f64(kvs, key, &v) || !isfinite(v)) return CLQ_OK;
    return clq_json_set(object, name, clq_json_f32((float)v), err);
}

// Finds the parameters that give the stored factors. The tensor keeps only their result, so the
// published ones (low 1, high 4, original context 8192) are tried with the largest factor.
static clq_status read_llama3(const clq_source *gguf, const clq_tensor *t, double base,
                              uint32_t head_dim, json_t *scaling, clq_error *err)
{
    uint32_t n = head_dim / 2;
    if (t->n_dims != 1 || t->dims[0] != n)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' does not have half the head size %u",
                        t->name, head_dim);
    float *stored = malloc(2 * sizeof *stored * n);
    if (!stored) return clq_fail_memory(err, 2 * sizeof *stored * n);
    float *expected = stored + n;
    clq_status st = clq_tensor_read(gguf, t, 0, 1, stored, err);
    if (st != CLQ_OK) goto out;
    llama3_scaling s = {.base = base, .factor = 1, .low = 1, .high = 4, .original = 8192};
    for (uint32_t i = 0; i < n; i++)
        if (stored[i] > s.factor) s.factor = stored[i];
    llama3_factors(&s, head_dim, expected);
    for (uint32_t i = 0; i < n; i++) {
        if (fabsf(stored[i] - expected[i]) <= 1e-4f * expected[i]) continue;
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "tensor '%s' does not hold Llama 3's published scaling (entry %u is %g, not "
                      "%g); config.json cannot express it",
                      t->name, i, (double)stored[i], (double)expected[i]);
        goto out;
    }
    CLQ_TRY_OUT(clq_json_set(scaling, "rope_type", json_string("llama3"), err));
    CLQ_TRY_OUT(clq_json_set(scaling, "factor", clq_json_f32((float)s.factor), err));
    CLQ_TRY_OUT(clq_json_set(scaling, "low_freq_factor", json_real(s.low), err));
    CLQ_TRY_OUT(clq_json_set(scaling, "high_freq_factor", json_real(s.high), err));
    CLQ_TRY_OUT(clq_json_set(scaling, "original_max_position_embeddings",
                             json_integer((json_int_t)s.original), err));
out:
    free(stored);
    return st;
}

static clq_status read_scaling(const clq_arch *arch, const clq_gguf_kvs *kvs, const char *kind,
                               json_t *scaling, clq_error *err)
{
    char key[96];
    uint64_t original;
    rope_key(key, arch, "scaling.factor");
    CLQ_TRY(clq_json_set(scaling, "rope_type", json_string(kind), err));
    CLQ_TRY(copy_f32(kvs, key, scaling, "factor", err));
    if (!json_object_get(scaling, "factor"))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is missing or not a number", key);
    if (strcmp(kind, "yarn") != 0) return CLQ_OK;
    rope_key(key, arch, "scaling.original_context_length");
    if (clq_kv_get_u64(kvs, key, &original) && original <= INT32_MAX)
        CLQ_TRY(clq_json_set(scaling, "original_max_position_embeddings",
                             json_integer((json_int_t)original), err));
    for (size_t i = 0; i < N_YARN_NUMBERS; i++) {
        char suffix[64];
        snprintf(suffix, sizeof suffix, "scaling.%s", yarn_numbers[i].gguf);
        rope_key(key, arch, suffix);
        CLQ_TRY(copy_f32(kvs, key, scaling, yarn_numbers[i].hf, err));
    }
    return CLQ_OK;
}

static clq_status base_to_hf(const clq_arch *arch, const clq_gguf_kvs *kvs, const char *suffix,
                             const char *name, double *base, json_t *config, clq_error *err)
{
    char key[96];
    rope_key(key, arch, suffix);
    *base = 1e4; // what a missing one means
    if (clq_kv_find(kvs, key) && (!clq_kv_get_f64(kvs, key, base) || !isfinite(*base) || *base <= 0))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is not a number above 0", key);
    return clq_json_set(config, name, clq_json_f32((float)*base), err);
}

bool clq_rope_reads(const clq_arch *arch, const char *gguf_name)
{
    if (arch->long_rope)
        return strcmp(gguf_name, "rope_factors_long.weight") == 0 ||
               strcmp(gguf_name, "rope_factors_short.weight") == 0;
    return arch->rope_base > 0 && strcmp(gguf_name, "rope_freqs.weight") == 0;
}

clq_status clq_rope_to_hf(const clq_arch *arch, const clq_source *gguf, clq_sizes *sizes,
                          json_t *config, clq_error *err)
{
    char key[96];
    double base, local;
    CLQ_TRY(base_to_hf(arch, &gguf->kvs, "freq_base", "rope_theta", &base, config, err));
    if (arch->local_rope)
        CLQ_TRY(base_to_hf(arch, &gguf->kvs, "freq_base_swa", "rope_local_base_freq", &local, config,
                           err));
    if (arch->long_rope) return clq_long_rope_to_hf(arch, gguf, sizes, config, err);

    rope_key(key, arch, "scaling.type");
    char *kind = clq_kv_dup_string(&gguf->kvs, key);
    const clq_tensor *factors = clq_source_find(gguf, "rope_freqs.weight");
    bool scaled = kind && strcmp(kind, "none") != 0;
    json_t *scaling = json_object();
    clq_status st = CLQ_OK;
    if (scaled && strcmp(kind, "linear") != 0 && strcmp(kind, "yarn") != 0)
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "metadata '%s': rope scaling of type '%s' has no translation", key, kind);
    else if (scaled && factors)
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "rope scaling by '%s' and by tensor '%s' at once has no translation", key,
                      factors->name);
    else if (scaled)
        st = read_scaling(arch, &gguf->kvs, kind, scaling, err);
    else if (factors)
        st = read_llama3(gguf, factors, base, sizes->head_dim, scaling, err);
    if (st == CLQ_OK)
        st = clq_json_set(config, "rope_scaling",
                          scaled || factors ? json_incref(scaling) : json_null(), err);
    json_decref(scaling);
    free(kind);
    return st;
}

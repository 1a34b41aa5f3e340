// SPDX-License-Identifier: MIT
// How quantization_config wants the inputs of products rounded to int8: the input_activations of a module's group, and
// the tensors X.input_scale and X.input_zero_point beside X.weight where that was measured beforehand.
// Source: compressed_tensors/quantization/quant_args.py and lifecycle/initialize.py of
// https://github.com/vllm-project/compressed-tensors
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/buffer.h"
#include "io/compressed.h"

// What of the settings is not followed: once each, for one warning.
enum { MAX_REASONS = 10 };
typedef struct {
    const char *reasons[MAX_REASONS];
    uint32_t n;
    const clq_tensor *first;
    bool outputs; // one of them is about outputs
} unmet;

static void add_reason(unmet *u, const char *reason, const clq_tensor *t)
{
    if (t && !u->first) u->first = t;
    for (uint32_t i = 0; i < u->n; i++)
        if (strcmp(u->reasons[i], reason) == 0) return;
    if (u->n < MAX_REASONS) u->reasons[u->n++] = reason;
}

static bool flag(const json_t *args, const char *key, bool missing)
{
    const json_t *v = json_object_get(args, key);
    return v && !json_is_null(v) ? json_is_true(v) : missing;
}

static bool says(const json_t *args, const char *key, const char *word)
{
    const char *text = json_string_value(json_object_get(args, key));
    return text && strcasecmp(text, word) == 0;
}

typedef struct {
    uint32_t quant; // CLQ_QUANT_*
    bool symmetric; // CLQ_QUANT_STATIC
} scheme;

// Keys that are missing mean 8, "int", symmetric, static, and per tensor unless there is a group size. NULL where the
// scheme is one that can be followed, else in what it cannot.
static const char *read_scheme(const json_t *args, scheme *to)
{
    *to = (scheme){.quant = CLQ_QUANT_NONE};
    if (!args || json_is_null(args)) return NULL;
    if (!json_is_object(args)) return "activations in settings of another kind";
    const json_t *type = json_object_get(args, "type"), *bits = json_object_get(args, "num_bits");
    if (type && !says(args, "type", "int")) return "float activations of few bits (float8, float4)";
    if (bits && json_integer_value(bits) != 8) return "integer activations of other than 8 bits";
    const json_t *strategy = json_object_get(args, "strategy");
    bool symmetric = flag(args, "symmetric", true), dynamic = flag(args, "dynamic", false);
    bool has_strategy = strategy && !json_is_null(strategy);
    bool token = says(args, "strategy", "token");
    bool tensor =
        has_strategy ? says(args, "strategy", "tensor") : !json_integer_value(json_object_get(args, "group_size"));
    if (json_is_string(json_object_get(args, "dynamic"))) return "activations that are quantized in two stages";
    if (!token && !tensor) return "activations in groups";
    if (token && !dynamic) return "scales for tokens that were measured beforehand";
    if (token && !symmetric) return "zero-points for each token";
    if (tensor && dynamic && symmetric) return "one scale for all tokens of a pass, without a zero-point";
    to->quant = token ? CLQ_QUANT_TOKEN : dynamic ? CLQ_QUANT_TENSOR : CLQ_QUANT_STATIC;
    to->symmetric = symmetric;
    return NULL;
}

static bool holds_any(const char *name, const char *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

// Whether a group is about a weight of a class that products use. Which class a module has is not written anywhere: of
// weights that are not quantized, matrices that are neither embeddings nor norms are taken for Linear.
static bool multiplies(const clq_tensor *t, clq_target target)
{
    static const char *const others[] = {"embed", "wte.", "wpe."}, *const norms[] = {"norm", "Norm", "ln_"};
    if (target == CLQ_TARGET_NONE || holds_any(t->name, others, 3)) return false;
    return t->type.format == CLQ_INT || (t->n_dims == 2 && !holds_any(t->name, norms, 3));
}

static clq_tensor *companion(const clq_names *all, const clq_tensor *t, const char *suffix)
{
    size_t len = strlen(t->name);
    clq_tensor *found = clq_names_find(all, t->name, clq_module_len(t->name, len), suffix);
    return found && !clq_tensor_used(found) ? found : NULL;
}

static clq_status read_static(const clq_source *s, const clq_tensor *scale, const clq_tensor *zero, bool symmetric,
                              clq_activation *a, clq_error *err)
{
    uint8_t bytes[8] = {0};
    if (scale->n_elements != 1 || scale->type.format > CLQ_BF16)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': the scale of activations is one F32, F16 or BF16 number",
                        scale->name);
    CLQ_TRY(clq_file_read(&s->files[scale->codes.file], scale->codes.offset, bytes, scale->codes.n_bytes, err));
    clq_load_floats(scale->type.format, bytes, 1, &a->scale);
    if (!isfinite(a->scale) || !(a->scale > 0))
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is %g, which is no scale: it must be finite and above 0",
                        scale->name, (double)a->scale);
    if (symmetric || !zero) return CLQ_OK;
    if (zero->n_elements != 1 || zero->type.format != CLQ_I8)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': the zero-point of activations is one I8 number", zero->name);
    CLQ_TRY(clq_file_read(&s->files[zero->codes.file], zero->codes.offset, bytes, 1, err));
    a->zero_point = (int8_t)bytes[0];
    return CLQ_OK;
}

// t: "X.weight". settings NULL: there are none.
static clq_status set_activation(const clq_source *s, const clq_names *all, const clq_module_settings *settings,
                                 clq_tensor *t, unmet *u, clq_error *err)
{
    clq_tensor *scale = companion(all, t, ".input_scale"), *zero = companion(all, t, ".input_zero_point");
    size_t len = strlen(t->name);
    scheme wanted = {.quant = CLQ_QUANT_NONE};
    if (settings) {
        clq_target target;
        const json_t *group = clq_module_group(settings, t->name, len, &target);
        if (multiplies(t, target) && !clq_module_ignored(settings, t->name, len)) {
            const char *reason = json_is_array(group)
                                     ? "a preset by its name alone"
                                     : read_scheme(json_object_get(group, "input_activations"), &wanted);
            if (reason) add_reason(u, reason, t);
            if (json_is_object(json_object_get(group, "output_activations"))) {
                add_reason(u, "outputs of products", t);
                u->outputs = true;
            }
        }
    } else if (t->type.format == CLQ_INT && scale) { // a file without its config.json
        wanted = (scheme){.quant = CLQ_QUANT_STATIC};
    } else {
        return CLQ_OK;
    }
    if (scale) clq_tensor_use(scale);
    if (zero) clq_tensor_use(zero);
    if (wanted.quant == CLQ_QUANT_STATIC && !scale) {
        if (t->type.format != CLQ_INT) return CLQ_OK; // left alone when the others were quantized
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "tensor '%s': quantization_config wants activations of a fixed scale, but '%.*s.input_scale' is "
            "missing",
            t->name, (int)clq_module_len(t->name, len), t->name);
    }
    t->activation.quant = wanted.quant;
    if (wanted.quant != CLQ_QUANT_STATIC) return CLQ_OK;
    return read_static(s, scale, zero, wanted.symmetric, &t->activation, err);
}

// Scales of what stays float: X.output_scale of a product, X.k_scale of a cache.
static void drop_scales(const clq_names *all, const char *const *endings, size_t n)
{
    for (uint32_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < n; k++)
            if (!clq_tensor_used(all->sorted[i]) && clq_ends_with(all->sorted[i]->name, endings[k]))
                clq_tensor_use(all->sorted[i]);
}

static void warn(const clq_source *s, const unmet *u, const clq_hooks *hooks)
{
    clq_buf text = {0};
    for (uint32_t i = 0; i < u->n; i++)
        clq_buf_printf(&text, "%s%s", i == 0 ? "" : i + 1 < u->n ? ", " : " and ", u->reasons[i]);
    if (u->first) clq_buf_printf(&text, " (the first: '%.200s')", u->first->name);
    if (!text.failed)
        clq_warn(hooks, "'%s': quantization_config asks for %.*s, which is not done here: these values stay float",
                 s->path, (int)text.len, text.data);
    clq_buf_free(&text);
}

clq_status clq_compressed_activations(clq_source *s, const clq_names *all, const clq_module_settings *settings,
                                      const clq_hooks *hooks, clq_error *err)
{
    static const char *const of_outputs[] = {".output_scale", ".output_zero_point"};
    static const char *const of_cache[] = {".k_scale",      ".v_scale",      ".q_scale",
                                           ".k_zero_point", ".v_zero_point", ".q_zero_point"};
    const json_t *q = json_object_get(s->config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    bool float8 = method && strcmp(method, "fp8") == 0;
    if (method && !float8 && strcmp(method, "compressed-tensors") != 0) return CLQ_OK; // another layout
    unmet u = {0};
    if (float8 && json_is_string(json_object_get(q, "activation_scheme"))) add_reason(&u, "float8 activations", NULL);
    for (uint32_t i = 0; i < all->n; i++) {
        clq_tensor *t = all->sorted[i];
        if (!clq_tensor_used(t) && (clq_ends_with(t->name, ".weight") || t->type.format == CLQ_INT))
            CLQ_TRY(set_activation(s, all, json_is_object(q) ? settings : NULL, t, &u, err));
    }
    bool cache = json_is_object(json_object_get(q, "kv_cache_scheme"));
    if (cache) add_reason(&u, "a quantized cache of keys and values", NULL);
    if (cache) drop_scales(all, of_cache, sizeof of_cache / sizeof *of_cache);
    if (cache || u.outputs) drop_scales(all, of_outputs, sizeof of_outputs / sizeof *of_outputs);
    if (u.n) warn(s, &u, hooks);
    return CLQ_OK;
}

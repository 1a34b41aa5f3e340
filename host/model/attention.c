// SPDX-License-Identifier: MIT
// Sliding windows and the scale of queries: config.json <-> GGUF's attention.* metadata.
// Layer i is a sliding one unless i + 1 is a multiple of the pattern.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"

static const char sliding[] = "sliding_attention", full[] = "full_attention";

static bool slides(uint32_t layer, uint32_t pattern)
{
    return (layer + 1) % pattern != 0;
}

static void attention_key(char key[96], const clq_arch *arch, const char *suffix)
{
    snprintf(key, 96, "%s.attention.%s", arch->name, suffix);
}

// The queries are divided by the root of this. Which it is, llama.cpp tells by the number of layers.
static uint32_t query_scale(const clq_arch *arch, const clq_sizes *sizes)
{
    return sizes->layers == arch->scaled_by_width ? sizes->embd / sizes->heads : sizes->head_dim;
}

// ---- to GGUF -----------------------------------------------------------------------------------

// The whole context is attended to; a window that is shorter gets lost.
static void warn_window(const json_t *config, const clq_sizes *sizes, const clq_hooks *hooks)
{
    uint32_t window;
    bool bad = false, use = true;
    clq_json_bool(config, "use_sliding_window", &use);
    if (use && clq_json_u32(config, "sliding_window", &window, &bad) && window < sizes->positions)
        clq_warn(hooks,
                 "config.json: the sliding window of %u tokens has no place in GGUF; texts "
                 "longer than that will be attended to as a whole",
                 window);
}

static bool fits(const json_t *types, uint32_t pattern)
{
    size_t i;
    json_t *type;
    json_array_foreach(types, i, type)
    {
        const char *text = clq_json_string(type);
        bool is_sliding = text && strcmp(text, sliding) == 0;
        if (!text || (!is_sliding && strcmp(text, full) != 0)) return false;
        if (is_sliding != slides((uint32_t)i, pattern)) return false;
    }
    return true;
}

static clq_status read_pattern(const clq_arch *arch, const json_t *config, const clq_sizes *sizes,
                               uint32_t *pattern, clq_error *err)
{
    const json_t *types = json_object_get(config, "layer_types");
    bool bad = false;
    *pattern = arch->window_pattern;
    if (!types || json_is_null(types)) {
        if (!clq_json_u32(config, "sliding_window_pattern", pattern, &bad) || *pattern > 0)
            if (!bad) return CLQ_OK;
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"sliding_window_pattern\" must be a whole number above 0");
    }
    if (json_array_size(types) != sizes->layers)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"layer_types\" must list a type for each of the %u layers",
                        sizes->layers);
    if (fits(types, *pattern)) return CLQ_OK;
    for (*pattern = 1; *pattern <= sizes->layers + 1; ++*pattern)
        if (fits(types, *pattern)) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT,
                    "config.json: \"layer_types\" must be \"%s\", with \"%s\" at regular "
                    "distances; GGUF's '%s' knows no other",
                    sliding, full, arch->name);
}

static clq_status windows_to_gguf(const clq_arch *arch, const json_t *config,
                                  const clq_sizes *sizes, clq_gguf_kvs *kvs, clq_error *err)
{
    char key[96];
    uint32_t window = 0, pattern;
    bool bad = false;
    bool found = clq_json_u32(config, "sliding_window", &window, &bad);
    CLQ_TRY(read_pattern(arch, config, sizes, &pattern, err));
    if (bad || (!found && pattern != 1))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"sliding_window\" must be a whole number; GGUF's '%s' needs "
                        "it",
                        arch->name);
    attention_key(key, arch, "sliding_window");
    if (found) clq_kv_set_u32(kvs, key, window);
    attention_key(key, arch, "sliding_window_pattern");
    if (pattern != arch->window_pattern) clq_kv_set_u32(kvs, key, pattern);
    return CLQ_OK;
}

clq_status clq_attention_to_gguf(const clq_arch *arch, const json_t *config, const clq_sizes *sizes,
                                 const clq_hooks *hooks, clq_gguf_kvs *kvs, clq_error *err)
{
    char key[96];
    double scale = 256; // what a missing one means
    bool bad = false;
    if (!arch->window_kept) warn_window(config, sizes, hooks);
    if (arch->window_pattern) CLQ_TRY(windows_to_gguf(arch, config, sizes, kvs, err));
    if (arch->window_kept && !arch->window_pattern) {
        uint32_t window = 0; // 0: none
        clq_json_u32(config, "sliding_window", &window, &bad);
        attention_key(key, arch, "sliding_window");
        clq_kv_set_u32(kvs, key, window);
    }
    if (arch->scaled_queries) {
        clq_json_number(config, "query_pre_attn_scalar", &scale, &bad);
        if (!bad && scale != query_scale(arch, sizes))
            clq_warn(hooks,
                     "config.json: \"query_pre_attn_scalar\" is %g and has no place in GGUF; "
                     "readers of the file will take %u",
                     scale, query_scale(arch, sizes));
    }
    if (bad)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json: \"sliding_window\" and \"query_pre_attn_scalar\" must be "
                        "numbers");
    return CLQ_OK;
}

// ---- to Hugging Face ---------------------------------------------------------------------------

// The types of layers, one each. The metadata has nothing, a pattern, or a list.
static clq_status layer_types(const clq_arch *arch, const clq_gguf_kvs *kvs, const clq_sizes *sizes,
                              bool none, json_t *types, uint32_t *pattern, clq_error *err)
{
    char key[96];
    uint64_t n, number = arch->window_pattern;
    const uint8_t *list = NULL;
    clq_gguf_type element;
    attention_key(key, arch, "sliding_window_pattern");
    if (clq_kv_get_array(kvs, key, &element, &n, &list)) {
        if (n != sizes->layers || (element != CLQ_GGUF_BOOL && element != CLQ_GGUF_U32 &&
                                   element != CLQ_GGUF_I32))
            return clq_fail(err, CLQ_BAD_INPUT,
                            "metadata '%s' must have an entry for each of the %u layers", key,
                            sizes->layers);
    } else if (clq_kv_find(kvs, key) && !clq_kv_get_u64(kvs, key, &number)) {
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no whole number", key);
    }
    *pattern = none ? 1 : list || number > CLQ_MAX_LAYERS ? 0 : (uint32_t)number;
    for (uint32_t i = 0; i < sizes->layers; i++) {
        size_t width = list && element != CLQ_GGUF_BOOL ? 4 : 1;
        bool is_sliding = !none && (list ? list[i * width] != 0 : !*pattern || slides(i, *pattern));
        if (json_array_append_new(types, json_string(is_sliding ? sliding : full)) != 0)
            return clq_fail_memory(err, 64);
    }
    return CLQ_OK;
}

clq_status clq_attention_to_hf(const clq_arch *arch, const clq_gguf_kvs *kvs,
                               const clq_sizes *sizes, json_t *config, clq_error *err)
{
    char key[96];
    uint64_t window = arch->window_default;
    uint32_t pattern = 0;
    if (arch->scaled_queries)
        CLQ_TRY(clq_json_set(config, "query_pre_attn_scalar",
                             json_integer(query_scale(arch, sizes)), err));
    if (!arch->window_kept) return CLQ_OK;
    attention_key(key, arch, "sliding_window");
    if (clq_kv_find(kvs, key) && (!clq_kv_get_u64(kvs, key, &window) || window > INT32_MAX))
        return clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is no whole number from 0 to 2147483647",
                        key);
    if (!arch->window_pattern)
        return clq_json_set(config, "sliding_window",
                            window ? json_integer((json_int_t)window) : json_null(), err);
    json_t *types = json_array();
    clq_status st = layer_types(arch, kvs, sizes, window == 0, types, &pattern, err);
    if (st == CLQ_OK) st = clq_json_set(config, "layer_types", json_incref(types), err);
    json_decref(types);
    if (st == CLQ_OK && window)
        st = clq_json_set(config, "sliding_window", json_integer((json_int_t)window), err);
    if (st == CLQ_OK && pattern && arch->local_rope)
        st = clq_json_set(config, "sliding_window_pattern", json_integer(pattern), err);
    return st;
}

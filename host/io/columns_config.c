// SPDX-License-Identifier: MIT
// quantization_config of AWQ and GPTQ. "dynamic" has patterns, matched from the begin of a module's name: "-:" leaves
// it alone, "+:" or nothing gives it settings of its own; the first that matches counts.
// Sources: transformers/utils/quantization_config.py of https://github.com/huggingface/transformers,
// gptqmodel/quantization/config.py of https://github.com/ModelCloud/GPTQModel
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/columns_read.h"

struct clq_dynamic_pattern {
    pcre2_code *code;
    const json_t *settings; // NULL: left alone
};

static const char *text(const json_t *config, const char *key)
{
    return json_string_value(json_object_get(config, key));
}

// The layout's name; newer writers say "format" and "checkpoint_format".
static const char *layout_name(const json_t *q, bool awq)
{
    const char *name = awq ? text(q, "version") : NULL;
    if (!name) name = text(q, "checkpoint_format");
    if (!name) name = text(q, "format");
    return name ? name : awq ? "gemm" : "gptq";
}

const char *clq_quantization_unread(const json_t *config)
{
    const json_t *q = json_object_get(config, "quantization_config");
    const char *method = text(q, "quant_method");
    if (!q || (method && (strcmp(method, "compressed-tensors") == 0 || strcmp(method, "fp8") == 0))) return NULL;
    if (!method) return "no quant_method";
    bool awq = strcmp(method, "awq") == 0;
    if (!awq && strcmp(method, "gptq") != 0) return method;
    const char *layout = layout_name(q, awq), *backend = text(q, "backend");
    if (awq && backend && strcmp(backend, "llm-awq") == 0) return "awq, llm-awq";
    if (!awq && json_is_true(json_object_get(q, "is_marlin_format"))) return "gptq, marlin";
    if (strcasecmp(layout, "gemm") == 0) return awq ? NULL : layout;
    return !awq && (strcmp(layout, "gptq") == 0 || strcmp(layout, "gptq_v2") == 0) ? NULL : layout;
}

static clq_status add_patterns(clq_column_settings *s, clq_error *err)
{
    const json_t *dynamic = json_object_get(s->config, "dynamic");
    const char *key;
    json_t *value;
    s->varied = json_object_size(dynamic) > 0;
    s->patterns = calloc(json_object_size(dynamic) + 1, sizeof *s->patterns);
    if (!s->patterns) return clq_fail_memory(err, sizeof *s->patterns);
    json_object_foreach((json_t *)dynamic, key, value) {
        bool sign = strncmp(key, "+:", 2) == 0 || strncmp(key, "-:", 2) == 0;
        int code;
        PCRE2_SIZE at;
        pcre2_code *re = pcre2_compile((PCRE2_SPTR)(sign ? key + 2 : key), PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &code,
                                       &at, NULL);
        if (re) s->patterns[s->n_patterns++] = (struct clq_dynamic_pattern){re, key[0] == '-' && sign ? NULL : value};
    }
    return CLQ_OK;
}

clq_status clq_column_settings_create(const json_t *config, clq_column_settings *s, clq_error *err)
{
    *s = (clq_column_settings){.config = json_object_get(config, "quantization_config")};
    const char *method = text(s->config, "quant_method");
    bool awq = method && strcmp(method, "awq") == 0;
    if (!method || (!awq && strcmp(method, "gptq") != 0) || clq_quantization_unread(config)) return CLQ_OK;
    s->packing = awq ? CLQ_PACKED_AWQ : CLQ_PACKED_GPTQ;
    s->zero_less = !awq && strcmp(layout_name(s->config, awq), "gptq") == 0;
    return awq ? CLQ_OK : add_patterns(s, err);
}

void clq_column_settings_free(clq_column_settings *s)
{
    for (uint32_t i = 0; i < s->n_patterns; i++) pcre2_code_free(s->patterns[i].code);
    free(s->patterns);
    *s = (clq_column_settings){0};
}

static const json_t *own_settings(const clq_column_settings *s, const char *name, size_t len)
{
    for (uint32_t i = 0; i < s->n_patterns; i++) {
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(s->patterns[i].code, NULL);
        bool hit = data && pcre2_match(s->patterns[i].code, (PCRE2_SPTR)name, len, 0, 0, data, NULL) >= 0;
        pcre2_match_data_free(data);
        if (hit) return s->patterns[i].settings;
    }
    return NULL;
}

clq_column_module clq_column_module_of(const clq_column_settings *s, const char *name, size_t len)
{
    bool awq = s->packing == CLQ_PACKED_AWQ;
    clq_column_module m = {.symmetric = !awq};
    const json_t *levels[] = {s->config, own_settings(s, name, len)};
    for (int i = 0; i < 2; i++) {
        const json_t *bits = json_object_get(levels[i], "bits"), *group = json_object_get(levels[i], "group_size");
        const json_t *ordered = json_object_get(levels[i], "desc_act"), *sym = json_object_get(levels[i], "sym");
        const json_t *zeros = json_object_get(levels[i], "zero_point");
        if (json_is_integer(bits)) m.bits = json_integer_value(bits);
        if (json_is_integer(group)) m.group_size = json_integer_value(group);
        if (json_is_boolean(ordered) && !awq) m.ordered = json_is_true(ordered);
        if (json_is_boolean(sym) && !awq) m.symmetric = json_is_true(sym);
        if (json_is_boolean(zeros) && awq) m.symmetric = json_is_false(zeros);
    }
    return m;
}

// SPDX-License-Identifier: MIT
// Which settings of quantization_config are about a module. Targets are names, patterns ("re:", matched from the name's
// begin) or classes, and win in that order; of equals the first.
// Source: compressed_tensors/utils/match.py of https://github.com/vllm-project/compressed-tensors
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "io/compressed.h"

struct clq_target_pattern {
    pcre2_code *code;
    const json_t *group; // NULL: of the list "ignore"
};

size_t clq_module_len(const char *stem, size_t len)
{
    const size_t suffix = strlen(".weight");
    return len > suffix && memcmp(stem + len - suffix, ".weight", suffix) == 0 ? len - suffix : len;
}

// A pattern that is none matches nothing.
static clq_status add_pattern(clq_module_settings *m, const char *text, const json_t *group, clq_error *err)
{
    int code;
    PCRE2_SIZE at;
    struct clq_target_pattern *patterns = realloc(m->patterns, (m->n_patterns + 1) * sizeof *patterns);
    if (!patterns) return clq_fail_memory(err, (m->n_patterns + 1) * sizeof *patterns);
    m->patterns = patterns;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &code, &at, NULL);
    if (re) patterns[m->n_patterns++] = (struct clq_target_pattern){re, group};
    return CLQ_OK;
}

// Weights that are quantized are those of Linear modules, unless no group is about these.
static void add_class(clq_module_settings *m, const char *target, const json_t *group)
{
    bool linear = strcmp(target, "Linear") == 0;
    if (m->of_class && !(linear && !m->linear)) return;
    m->of_class = group;
    m->linear = linear;
}

// group NULL: the list "ignore", whose classes are nothing that can be looked up.
static clq_status add_targets(clq_module_settings *m, const json_t *list, json_t *group, clq_error *err)
{
    json_t *names = group ? m->named : m->ignored;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *target = json_string_value(json_array_get(list, i));
        if (!target) continue;
        if (strncmp(target, "re:", 3) == 0) {
            CLQ_TRY(add_pattern(m, target + 3, group, err));
        } else if (!json_object_get(names, target)) {
            if (json_object_set_new(names, target, group ? json_incref(group) : json_true()) != 0)
                return clq_fail_memory(err, strlen(target));
            if (group && isupper((unsigned char)*target)) add_class(m, target, group);
        }
    }
    return CLQ_OK;
}

clq_status clq_module_settings_create(const json_t *config, clq_module_settings *m, clq_error *err)
{
    *m = (clq_module_settings){.named = json_object(), .ignored = json_object()};
    const json_t *q = json_object_get(config, "quantization_config");
    const char *key;
    json_t *group;
    clq_status st = m->named && m->ignored ? CLQ_OK : clq_fail_memory(err, sizeof *m);
    json_object_foreach(json_object_get(q, "config_groups"), key, group)
    {
        // A list of targets alone stands for a preset that the key names.
        const json_t *targets = json_is_array(group) ? group : json_object_get(group, "targets");
        if (st == CLQ_OK) st = add_targets(m, targets, group, err);
    }
    if (st == CLQ_OK) st = add_targets(m, json_object_get(q, "ignore"), NULL, err);
    if (st != CLQ_OK) clq_module_settings_free(m);
    return st;
}

void clq_module_settings_free(clq_module_settings *m)
{
    for (uint32_t i = 0; i < m->n_patterns; i++) pcre2_code_free(m->patterns[i].code);
    free(m->patterns);
    json_decref(m->named);
    json_decref(m->ignored);
    *m = (clq_module_settings){0};
}

// The first pattern of a group, or of the list "ignore", that the module's name begins with.
static const struct clq_target_pattern *match(const clq_module_settings *m, bool ignore, const char *name, size_t len)
{
    for (uint32_t i = 0; i < m->n_patterns; i++) {
        const struct clq_target_pattern *p = &m->patterns[i];
        if (ignore != !p->group) continue;
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(p->code, NULL);
        bool hit = data && pcre2_match(p->code, (PCRE2_SPTR)name, len, 0, 0, data, NULL) >= 0;
        pcre2_match_data_free(data);
        if (hit) return p;
    }
    return NULL;
}

static const json_t *find(const json_t *names, const char *name, size_t len)
{
    char key[4200];
    if (len >= sizeof key) return NULL;
    memcpy(key, name, len);
    key[len] = '\0';
    return json_object_get(names, key);
}

const json_t *clq_module_group(const clq_module_settings *m, const char *stem, size_t len, clq_target *target)
{
    size_t module = clq_module_len(stem, len);
    const json_t *named = find(m->named, stem, module);
    const struct clq_target_pattern *pattern = named ? NULL : match(m, false, stem, module);
    *target = named ? CLQ_TARGET_NAME : pattern ? CLQ_TARGET_PATTERN : m->of_class ? CLQ_TARGET_CLASS : CLQ_TARGET_NONE;
    return named ? named : pattern ? pattern->group : m->of_class;
}

bool clq_module_ignored(const clq_module_settings *m, const char *stem, size_t len)
{
    size_t module = clq_module_len(stem, len);
    return find(m->ignored, stem, module) || match(m, true, stem, module);
}

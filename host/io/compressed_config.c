// SPDX-License-Identifier: MIT
// Which settings of quantization_config are about a module. Targets are names, patterns ("re:", matched from the name's
// begin) or classes, and win in that order.
// Source: compressed_tensors/utils/match.py of https://github.com/vllm-project/compressed-tensors
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "io/compressed.h"

static bool pattern_matches(const char *pattern, const char *name, size_t len)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &code, &at, NULL);
    if (!re) return false;
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(re, NULL);
    bool hit = match && pcre2_match(re, (PCRE2_SPTR)name, len, 0, 0, match, NULL) >= 0;
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    return hit;
}

size_t clq_module_len(const char *stem, size_t len)
{
    const size_t suffix = strlen(".weight");
    return len > suffix && memcmp(stem + len - suffix, ".weight", suffix) == 0 ? len - suffix : len;
}

static clq_target meets(const char *target, const char *module, size_t len)
{
    if (!target) return CLQ_TARGET_NONE;
    if (strlen(target) == len && memcmp(target, module, len) == 0) return CLQ_TARGET_NAME;
    if (strncmp(target, "re:", 3) == 0)
        return pattern_matches(target + 3, module, len) ? CLQ_TARGET_PATTERN : CLQ_TARGET_NONE;
    return strchr(target, '.') ? CLQ_TARGET_NONE : CLQ_TARGET_CLASS;
}

const json_t *clq_module_group(const json_t *config, const char *stem, size_t len, clq_target *target)
{
    size_t module = clq_module_len(stem, len);
    const json_t *groups = json_object_get(json_object_get(config, "quantization_config"), "config_groups");
    const json_t *best = NULL;
    const char *key;
    json_t *group;
    *target = CLQ_TARGET_NONE;
    json_object_foreach((json_t *)groups, key, group)
    {
        // A list of targets alone stands for a preset that the key names.
        const json_t *targets = json_is_array(group) ? group : json_object_get(group, "targets");
        for (size_t i = 0; i < json_array_size(targets); i++) {
            clq_target rank = meets(json_string_value(json_array_get(targets, i)), stem, module);
            if (rank <= *target) continue;
            *target = rank;
            best = group;
        }
    }
    return best;
}

bool clq_module_ignored(const json_t *config, const char *stem, size_t len)
{
    size_t module = clq_module_len(stem, len);
    const json_t *list = json_object_get(json_object_get(config, "quantization_config"), "ignore");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (meets(json_string_value(json_array_get(list, i)), stem, module) > CLQ_TARGET_CLASS) return true;
    return false;
}

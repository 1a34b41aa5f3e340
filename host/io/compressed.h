// SPDX-License-Identifier: MIT
// What the files that read the compressed-tensors layout share: compressed.c (weights), compressed_activations.c, and
// compressed_config.c, which finds a module's settings in quantization_config.
#ifndef CLQ_IO_COMPRESSED_H
#define CLQ_IO_COMPRESSED_H

#include "io/source.h"

// Tensors by name, to look companions up without a scan each.
typedef struct clq_names {
    clq_tensor **sorted;
    uint32_t n;
} clq_names;

// The tensor whose name is the first `len` bytes of `stem` and `suffix`; NULL: none.
clq_tensor *clq_names_find(const clq_names *all, const char *stem, size_t len, const char *suffix);

// A tensor that has become a part of another one, or means nothing by itself: removed in the end.
static inline void clq_tensor_use(clq_tensor *t) { t->n_dims = UINT32_MAX; }
static inline bool clq_tensor_used(const clq_tensor *t) { return t->n_dims == UINT32_MAX; }

// How a target of a config group meets a module, the better the more.
typedef enum clq_target {
    CLQ_TARGET_NONE,
    CLQ_TARGET_CLASS,   // "Linear", with a capital: which modules are of a class is not known here
    CLQ_TARGET_PATTERN, // "re:..."
    CLQ_TARGET_NAME
} clq_target;

// The targets of config_groups and the list "ignore" of quantization_config. Groups are borrowed from the config.
typedef struct clq_module_settings {
    json_t *named, *ignored; // names; the former lead to their groups
    struct clq_target_pattern *patterns;
    uint32_t n_patterns;
    const json_t *of_class; // of the target Linear, else of the first that is a class
    bool linear;            // of_class is of Linear
} clq_module_settings;

// config: NULL, or without settings: nothing is about any module.
clq_status clq_module_settings_create(const json_t *config, clq_module_settings *settings, clq_error *err);
void clq_module_settings_free(clq_module_settings *settings);

// Names here are a weight's: the first `len` bytes of `stem`, "X.weight" of module X (or the whole name of what has no
// ".weight", stacked experts). The module's part of them:
size_t clq_module_len(const char *stem, size_t len);
// The config group that is about a module, by the best of its targets; NULL, and *target CLQ_TARGET_NONE: none.
const json_t *clq_module_group(const clq_module_settings *settings, const char *stem, size_t len, clq_target *target);
// Whether the list "ignore" names the module.
bool clq_module_ignored(const clq_module_settings *settings, const char *stem, size_t len);

// Sets the tensors' `activation` by the groups' input_activations, and takes the scales and zero-points of activations
// out of the list. One warning tells what of the settings is not followed. CLQ_BAD_INPUT where a scale that the
// settings promise is missing or no scale.
clq_status clq_compressed_activations(clq_source *source, const clq_names *all, const clq_module_settings *settings,
                                      const clq_hooks *hooks, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
// Reading AWQ and GPTQ: what quantization_config says (columns_config.c), tensors from their parts (columns_read.c).
#ifndef CLQ_IO_COLUMNS_READ_H
#define CLQ_IO_COLUMNS_READ_H

#include "io/compressed.h"

// What is said of one module. bits 0, group_size 0: not said; group_size -1: a scale a channel.
typedef struct clq_column_module {
    json_int_t bits, group_size;
    bool symmetric, ordered; // ordered: columns belong to groups by g_idx (desc_act)
} clq_column_module;

// quantization_config of AWQ or GPTQ. Borrows the config.
typedef struct clq_column_settings {
    clq_packing packing;    // CLQ_PACKED_ROWS: it is none of them
    uint32_t zero_less;     // GPTQ's checkpoint_format
    bool varied;            // "dynamic": modules differ
    const json_t *config;
    struct clq_dynamic_pattern *patterns;
    uint32_t n_patterns;
} clq_column_settings;

// config: config.json, or NULL. A layout that is not read: none.
clq_status clq_column_settings_create(const json_t *config, clq_column_settings *settings, clq_error *err);
void clq_column_settings_free(clq_column_settings *settings);
clq_column_module clq_column_module_of(const clq_column_settings *settings, const char *name, size_t len);

// Makes one tensor "X.weight" of each set X.qweight, X.scales, X.qzeros, X.g_idx. CLQ_BAD_INPUT with the tensor's name
// where a part is missing or their shapes contradict each other or the settings. all: every tensor of the source, by
// name; its order is not kept.
clq_status clq_columns_assemble(clq_source *source, const clq_names *all, const clq_column_settings *settings,
                                const clq_hooks *hooks, clq_error *err);

#endif

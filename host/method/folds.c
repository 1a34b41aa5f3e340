// SPDX-License-Identifier: MIT
// Source of the groups: awq/models of https://github.com/casper-hansen/AutoAWQ
#include "method/folds.h"

#include <stdio.h>
#include <string.h>

static bool has(const clq_unit *unit, int which) { return unit->weights[which].tensor != NULL; }

static clq_fold by_norm(const clq_unit *unit, clq_module module, int norm, const int consumers[CLQ_FOLD_CONSUMERS])
{
    clq_fold f = {.module = module, .by_norm = true, .producer = norm, .cols = unit->weights[norm].cols};
    uint32_t n = 0;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS; i++) f.consumers[i] = -1;
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && consumers[i] >= 0; i++)
        if (has(unit, consumers[i])) f.consumers[n++] = consumers[i];
    return f;
}

static clq_fold by_weight(const clq_unit *unit, int producer, uint64_t first_row, int consumer)
{
    clq_fold f = {.module = CLQ_MODULE_LINEAR,
                  .producer = producer,
                  .first_row = first_row,
                  .cols = unit->weights[consumer].cols};
    for (int i = 0; i < CLQ_FOLD_CONSUMERS; i++) f.consumers[i] = i ? -1 : consumer;
    return f;
}

uint32_t clq_folds_of(const clq_net *net, const clq_unit *unit, bool norms_only, clq_fold folds[CLQ_MAX_FOLDS])
{
    uint32_t n = 0;
    uint64_t q_rows = (uint64_t)net->heads * net->head_dim, kv_rows = (uint64_t)net->kv_heads * net->head_dim;
    bool pre = net->features & CLQ_HAS_PRE_NORMS, experts = net->features & CLQ_HAS_EXPERTS;
    bool gated = net->features & (CLQ_HAS_GATE | CLQ_HAS_FUSED_GATE);
    if (pre)
        folds[n++] = by_norm(unit, CLQ_MODULE_ATTENTION, CLQ_W_ATTN_NORM,
                             (int[CLQ_FOLD_CONSUMERS]){CLQ_W_Q, CLQ_W_K, CLQ_W_V, CLQ_W_QKV, -1});
    if (!norms_only && net->heads == net->kv_heads)
        folds[n++] = has(unit, CLQ_W_QKV) ? by_weight(unit, CLQ_W_QKV, q_rows + kv_rows, CLQ_W_O)
                                          : by_weight(unit, CLQ_W_V, 0, CLQ_W_O);
    if (pre && experts)
        folds[n++] = by_norm(unit, CLQ_MODULE_EXPERTS, CLQ_W_FFN_NORM,
                             (int[CLQ_FOLD_CONSUMERS]){CLQ_W_ROUTER, CLQ_W_SHARED_ROUTER, CLQ_W_GATE_EXPS,
                                                       CLQ_W_UP_EXPS, CLQ_W_SHARED_GATE, CLQ_W_SHARED_UP});
    if (pre && !experts)
        folds[n++] = by_norm(unit, CLQ_MODULE_FFN, CLQ_W_FFN_NORM, (int[CLQ_FOLD_CONSUMERS]){CLQ_W_GATE, CLQ_W_UP, -1});
    if (!norms_only && !experts && gated)
        folds[n++] = by_weight(unit, CLQ_W_UP, net->features & CLQ_HAS_FUSED_GATE ? net->ffn : 0, CLQ_W_DOWN);
    return n;
}

void clq_fold_apply(clq_image *image, const clq_unit *unit, const clq_fold *fold, float *s)
{
    const clq_weight *producer = &unit->weights[fold->producer];
    if (fold->by_norm)
        clq_image_divide_norm(image, producer, s);
    else
        clq_image_divide_rows(image, producer, 0, fold->first_row, fold->cols, s);
    for (int i = 0; i < CLQ_FOLD_CONSUMERS && fold->consumers[i] >= 0; i++) {
        const clq_weight *w = &unit->weights[fold->consumers[i]];
        for (uint32_t m = 0; m < w->count; m++) clq_image_scale_columns(image, w, m, s);
    }
}

const char *clq_weight_label(const clq_unit *unit, int which, char text[64])
{
    const char *name = unit->weights[which].tensor->name,
               *layer = strncmp(name, "blk.", 4) == 0 ? strchr(name + 4, '.') : NULL;
    const char *label = layer ? layer + 1 : name;
    size_t len = strlen(label), suffix = strlen(".weight");
    if (len > suffix && strcmp(label + len - suffix, ".weight") == 0) len -= suffix;
    snprintf(text, 64, "%.*s", (int)(len < 63 ? len : 63), label);
    return text;
}

// SPDX-License-Identifier: MIT
// Where factors of channels go: each channel of an input is divided by a factor, in the norm or the weight that produces
// it, and the columns of the weights that read it are multiplied. In exact arithmetic the model stays the same.
#ifndef CLQ_METHOD_FOLDS_H
#define CLQ_METHOD_FOLDS_H

#include "method/image.h"
#include "model/graph.h"

// The part of a layer that a fold's factors can change, through rounding.
typedef enum clq_module {
    CLQ_MODULE_ATTENTION, // from the norm before the attention to its output projection
    CLQ_MODULE_FFN,       // from the norm before the feed-forward network to its down projection
    CLQ_MODULE_EXPERTS,   // the same of a layer with experts
    CLQ_MODULE_LINEAR,    // one product
} clq_module;

enum { CLQ_FOLD_CONSUMERS = 6, CLQ_MAX_FOLDS = 5 };
typedef struct clq_fold {
    clq_module module;
    bool by_norm;                      // the producer is a norm, else a weight
    int producer;                      // CLQ_W_*
    uint64_t first_row;                // of the producing weight: rows [first_row, first_row + cols)
    int consumers[CLQ_FOLD_CONSUMERS]; // CLQ_W_*, all matrices; the first one's input is observed. -1 behind the last
    uint32_t cols;
} clq_fold;

// The folds of a layer, which has these weights. norms_only: without those whose producer is a weight.
//   attn_norm -> q, k, v    v -> output (where there are as many heads of v as of q)
//   ffn_norm -> gate, up (with experts: of all of them, and the router)    up -> down (where up is not what is activated)
// Layers of encoders, whose norms feed the residual as well, have only v -> output.
uint32_t clq_folds_of(const clq_net *net, const clq_unit *unit, bool norms_only, clq_fold folds[CLQ_MAX_FOLDS]);
// Changes the image: s[cols] > 0, as it is folded (clq_image_divide_norm may change it).
void clq_fold_apply(clq_image *image, const clq_unit *unit, const clq_fold *fold, float *s);
// "attn_q" of CLQ_W_Q.
const char *clq_weight_label(const clq_unit *unit, int which, char text[64]);

#endif

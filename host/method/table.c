// SPDX-License-Identifier: MIT
#include <strings.h>

#include "clquant_steps.h"
#include "method/method.h"

static const clq_method_info methods[] = {
    [CLQ_METHOD_RTN] = {"rtn", "rounding to nearest", false},
    [CLQ_METHOD_AWQ] = {"awq", "channels scaled by their activations, found by search (arXiv:2306.00978)", true},
    [CLQ_METHOD_SMOOTHQUANT] = {"smoothquant", "activations made smaller at the cost of weights (arXiv:2211.10438)",
                                true},
    [CLQ_METHOD_GPTQ] = {"gptq", "columns that make up for the errors of others (arXiv:2210.17323)", true},
    [CLQ_METHOD_HQQ] = {"hqq", "half-quadratic scales and zero-points, without a text", false},
};

const clq_method_info *clq_method_at(uint32_t id)
{
    return id < sizeof methods / sizeof *methods ? &methods[id] : NULL;
}

bool clq_method_find(const char *name, clq_method_id *method)
{
    for (uint32_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcasecmp(name, methods[i].name) != 0) continue;
        *method = (clq_method_id)i;
        return true;
    }
    return false;
}

uint32_t clq_method_rule(const clq_method_options *o)
{
    if (o->method == CLQ_METHOD_HQQ) return CLQ_SCALES_HQQ;
    switch (o->scales) {
    case CLQ_SCALES_BY_RANGE: return CLQ_SCALES_ABSMAX;
    case CLQ_SCALES_BY_SEARCH: return CLQ_SCALES_SEARCH;
    case CLQ_SCALES_BY_CLIP: return CLQ_SCALES_CLIP;
    default: break;
    }
    return o->method == CLQ_METHOD_AWQ || o->method == CLQ_METHOD_GPTQ ? CLQ_SCALES_SEARCH : CLQ_SCALES_ABSMAX;
}

bool clq_method_runs_model(const clq_method_options *o)
{
    return o && (clq_method_at(o->method)->calibrated || o->text);
}

bool clq_method_prepares(const clq_method_options *o)
{
    return o && (clq_method_runs_model(o) || clq_method_rule(o) != CLQ_SCALES_ABSMAX);
}

// SPDX-License-Identifier: MIT
// Scales of a layer's integer weights; with GPTQ their values; and what rounding costs in the products of the layer.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "method/layer.h"

// What is needed of one input for all weights that read it.
typedef struct {
    int input; // CLQ_W_*, -1: nothing
    uint32_t matrix;
    float *gram; // [cols][cols], gptq; else blocks [cols / block][block][block], or NULL
    uint32_t block;
    float *squares; // [cols]: the diagonal
    clq_sweep sweep;
    bool has_sweep;
} input_cost;

static void forget_input(input_cost *x)
{
    if (x->has_sweep) clq_sweep_free(&x->sweep);
    free(x->gram);
    free(x->squares);
    *x = (input_cost){.input = -1};
}

// ---- costs ----

static clq_status read_gram(const clq_layer_work *l, input_cost *x, uint64_t cols, clq_error *err)
{
    clq_engine *e = l->m->engine;
    uint64_t at = clq_layers_gram(l->m->layers, x->input, x->matrix);
    if (at == CLQ_NONE) return CLQ_OK;
    x->block = l->m->o->method == CLQ_METHOD_GPTQ ? (uint32_t)cols : clq_layers_block(l->m->layers, (uint32_t)cols);
    uint64_t n = cols * x->block;
    x->gram = malloc(n * sizeof *x->gram);
    if (!x->gram) return clq_fail_memory(err, n * sizeof *x->gram);
    return e->device->ops->memory_read(e->state_memory, at * 4, x->gram, n * 4, err);
}

// Of inputs as they are behind the folds: divided by their factors.
static void divide_by_factors(input_cost *x, uint64_t cols, const float *s)
{
    for (uint64_t c = 0; s && c < cols; c++) x->squares[c] /= s[c] * s[c];
    for (uint64_t i = 0; s && x->gram && i < cols; i++)
        for (uint64_t j = 0; j < x->block; j++) x->gram[i * x->block + j] /= s[i] * s[i / x->block * x->block + j];
}

static bool all_finite(const float *x, uint64_t n)
{
    float sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += x[i] * 0;
    return sum == 0;
}

static clq_status load_input(const clq_layer_work *l, int which, uint32_t matrix, input_cost *x, clq_error *err)
{
    int input = clq_trial_input(l->unit, which);
    uint64_t cols = l->unit->weights[which].cols;
    if (x->input == input && x->matrix == matrix) return CLQ_OK;
    forget_input(x);
    x->input = input;
    x->matrix = matrix;
    x->squares = malloc(cols * sizeof *x->squares);
    if (!x->squares) return clq_fail_memory(err, cols * sizeof *x->squares);
    CLQ_TRY(clq_layer_channels(l, which, matrix, CLQ_CHANNEL_SUM_SQ, x->squares, err));
    CLQ_TRY(read_gram(l, x, cols, err));
    if (!all_finite(x->squares, cols) || (x->gram && !all_finite(x->gram, cols * x->block)))
        return clq_fail(err, CLQ_BAD_INPUT, "layer %u: the squares of what '%s' reads are beyond float32", l->m->next,
                        l->unit->weights[which].tensor->name);
    divide_by_factors(x, cols, clq_layer_columns(l, which));
    if (l->m->o->method != CLQ_METHOD_GPTQ || !x->gram) return CLQ_OK;
    float damp = l->m->o->damp > 0 ? l->m->o->damp : 0.01f;
    return clq_sweep_create(x->gram, (uint32_t)cols, damp, l->m->o->keep_order, &x->sweep, &x->has_sweep, err);
}

// The blocks of a group's width on the diagonal of a whole Gram matrix, or those that are there; NULL: none.
static clq_status group_blocks(const input_cost *x, uint64_t cols, uint64_t group, float **own, const float **blocks,
                               clq_error *err)
{
    *own = NULL;
    *blocks = x->gram && x->block == group ? x->gram : NULL;
    if (*blocks || !x->gram || x->block != cols || group > 256) return CLQ_OK;
    float *to = *own = malloc(cols * group * sizeof *to);
    if (!to) return clq_fail_memory(err, cols * group * sizeof *to);
    for (uint64_t i = 0; i < cols; i++)
        memcpy(to + i * group, x->gram + i * cols + i / group * group, group * sizeof *to);
    *blocks = to;
    return CLQ_OK;
}

// ---- scales ----

static bool takes_scales(const clq_type *t) { return t->format == CLQ_INT && t->granularity != CLQ_PER_TENSOR; }

// Room for scales of all rows of a tensor, which for now stand for none.
static clq_status make_scales(clq_prepared *p, const clq_type *type, clq_error *err)
{
    p->groups = clq_type_groups(type, p->cols);
    uint64_t n = p->rows * p->groups;
    if (p->scales) return CLQ_OK;
    p->scales = calloc(n, sizeof *p->scales);
    p->zero_points = type->symmetric ? NULL : calloc(n, 1);
    return p->scales && (type->symmetric || p->zero_points) ? CLQ_OK : clq_fail_memory(err, n * 5);
}

typedef struct {
    clq_layer_work *l;
    const clq_type *type;
    input_cost *input;
} rounding;

// The columns one after the other, and what that changes.
static clq_status sweep(const rounding *x, clq_prepared *p, float *w, uint64_t n, const float *scales,
                        const int8_t *zeros, clq_error *err)
{
    uint64_t n_values = n * p->cols;
    float *before = malloc(n_values * sizeof *before);
    if (!before) return clq_fail_memory(err, n_values * sizeof *before);
    memcpy(before, w, n_values * sizeof *before);
    clq_status st = clq_sweeper_run(x->l->m->sweeper, &x->input->sweep, x->type, w, n, scales, zeros, err);
    p->measured = true;
    for (uint64_t i = 0; i < n_values; i++) {
        double e = (double)before[i] - w[i];
        p->sum_x2 += (double)before[i] * before[i];
        p->sum_e2 += e * e;
        p->max_error = fmax(p->max_error, fabs(e));
    }
    free(before);
    return st;
}

// Rows of one tensor that lie behind each other.
static clq_status round_rows(const rounding *x, clq_prepared *p, uint64_t at, uint64_t n, clq_error *err)
{
    clq_method *m = x->l->m;
    float *own, *w = p->w + at * p->cols;
    clq_error_cost cost = {0};
    CLQ_TRY(make_scales(p, x->type, err));
    uint64_t group = p->cols / p->groups;
    float *scales = p->scales + at * p->groups;
    int8_t *zeros = p->zero_points ? p->zero_points + at * p->groups : NULL;
    CLQ_TRY(group_blocks(x->input, p->cols, group, &own, &cost.blocks, err));
    if (!cost.blocks && m->rule != CLQ_SCALES_HQQ) cost.diagonal = x->input->squares;
    clq_status st = clq_scaler_run(m->scaler, x->type, m->rule, w, n, p->cols, &cost, scales, zeros, err);
    free(own);
    if (st == CLQ_OK && x->input->has_sweep) st = sweep(x, p, w, n, scales, zeros, err);
    return st;
}

// ---- errors ----

typedef struct {
    const clq_layer_work *l;
    const clq_weight *w;
    int which;
    const clq_type *type;
    const float *before; // [rows][cols] of what gptq changed, in the model's order; NULL: the image's
    float *errors;
} error_job;

// w less what is stored of it, of one row.
static void row_error(const clq_prepared *p, uint64_t at, const clq_type *type, const float *before, float *error)
{
    const float *now = p->w + at * p->cols;
    uint64_t groups = clq_type_groups(type, p->cols), group = p->cols / groups;
    int half = 1 << (type->bits - 1);
    for (uint64_t g = 0; g < groups; g++) {
        const float *w = now + g * group;
        float scale, low = 0, high = 0;
        int8_t zero = 0;
        if (p->scales) {
            scale = p->scales[at * groups + g];
            zero = p->zero_points ? p->zero_points[at * groups + g] : 0;
        } else {
            for (uint64_t c = 0; c < group; c++) {
                low = w[c] < low ? w[c] : low;
                high = w[c] > high ? w[c] : high;
            }
            clq_int_params(type, low, high, &scale, &zero);
        }
        for (uint64_t c = 0; c < group; c++) {
            float q = scale != 0 ? rintf(w[c] / scale) + zero : zero;
            q = fmaxf(fminf(q, (float)(half - 1)), (float)-half);
            error[g * group + c] = (before ? before[g * group + c] : w[c]) - scale * (q - zero);
        }
    }
}

static void row_errors(void *ctx, uint64_t begin, uint64_t end)
{
    const error_job *j = ctx;
    uint64_t first = 0, n = 0, cols = j->w->cols;
    const float *columns = clq_layer_columns(j->l, j->which), *rows = clq_layer_rows(j->l, j->which, &first, &n);
    for (uint64_t r = begin; r < end; r++) {
        uint64_t at;
        const clq_prepared *p = clq_image_row(&j->l->m->image, j->w, r, &at);
        float *e = j->errors + r * cols, by = rows && r >= first && r < first + n ? rows[r - first] : 1;
        row_error(p, at, j->type, j->before ? j->before + r * cols : NULL, e);
        for (uint64_t c = 0; c < cols; c++) e[c] *= columns ? by / columns[c] : by;
    }
}

static clq_status measure_errors(clq_layer_work *l, int which, const clq_type *type, const float *before,
                                 clq_error *err)
{
    const clq_weight *w = &l->unit->weights[which];
    clq_site_report *r = &l->reports[clq_trial_input(l->unit, which)];
    error_job j = {l, w, which, type, before, malloc((uint64_t)w->rows * w->cols * sizeof(float))};
    double error, energy;
    if (!j.errors) return clq_fail_memory(err, (uint64_t)w->rows * w->cols * sizeof(float));
    clq_parallel(l->m->setup.threads, w->rows, 16, row_errors, &j);
    clq_status st = clq_trial_site_error(&l->m->trial, which, j.errors, &error, &energy, err);
    free(j.errors);
    r->error += st == CLQ_OK ? error : 0;
    r->energy += st == CLQ_OK ? energy : 0;
    return st;
}

// ---- weights ----

// All rows of a weight of one matrix, in the model's order.
static float *copy_of(const clq_image *image, const clq_weight *w)
{
    float *copy = malloc((uint64_t)w->rows * w->cols * sizeof *copy);
    for (uint64_t r = 0; copy && r < w->rows; r++) {
        uint64_t at;
        const clq_prepared *p = clq_image_row(image, w, r, &at);
        memcpy(copy + r * w->cols, p->w + at * w->cols, w->cols * sizeof *copy);
    }
    return copy;
}

static clq_status round_matrix(clq_layer_work *l, int which, uint32_t matrix, input_cost *input, clq_error *err)
{
    const clq_weight *w = &l->unit->weights[which];
    clq_method *m = l->m;
    const clq_type *type = &clq_image_destiny(&m->image, w, matrix)->type;
    bool gptq = m->o->method == CLQ_METHOD_GPTQ, measured = w->count == 1 && clq_trial_has_input(&m->trial, which);
    float *before = NULL;
    if (!takes_scales(type)) return CLQ_OK;
    CLQ_TRY(load_input(l, which, matrix, input, err));
    if (gptq && measured && !(before = copy_of(&m->image, w)))
        return clq_fail_memory(err, (uint64_t)w->rows * w->cols * 4);
    if (gptq && !input->has_sweep) {
        clq_warn(
            m->setup.hooks,
            "'%s'%s: no token reaches it, or its Hessian is not positive definite with any damping; it is rounded to "
            "nearest",
            w->tensor->name, w->count > 1 ? " (an expert)" : "");
    }
    rounding x = {l, type, input};
    clq_status st = CLQ_OK;
    bool own_rule = m->rule == CLQ_SCALES_ABSMAX && !gptq; // the encoder's
    for (uint64_t r = 0, n; !own_rule && st == CLQ_OK && r < w->rows; r += n) {
        uint64_t at;
        n = w->rows - r;
        clq_prepared *p = clq_image_stretch(&m->image, w, (uint64_t)matrix * w->rows + r, &at, &n);
        st = round_rows(&x, p, at, n, err);
    }
    if (st == CLQ_OK && measured) st = measure_errors(l, which, type, before, err);
    free(before);
    return st;
}

clq_status clq_layer_rounding(clq_layer_work *l, clq_error *err)
{
    input_cost input = {.input = -1};
    clq_status st = CLQ_OK;
    for (int i = 0; st == CLQ_OK && i < CLQ_N_WEIGHTS; i++) {
        const clq_weight *w = &l->unit->weights[i];
        for (uint32_t m = 0; st == CLQ_OK && w->tensor && !w->is_vector && m < w->count; m++) {
            if (clq_cancelled(l->m->setup.hooks)) st = clq_fail(err, CLQ_INTERRUPTED, "interrupted");
            if (st == CLQ_OK) st = round_matrix(l, i, m, &input, err);
        }
    }
    forget_input(&input);
    return st;
}

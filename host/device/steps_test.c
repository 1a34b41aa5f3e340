// SPDX-License-Identifier: MIT
#include "device/steps_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/steps.h"

typedef struct {
    uint8_t *weights, *cache;
    float *state;
    uint64_t n_weights, n_state, n_cache; // bytes, floats, bytes
} scene;

static float random_at(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int32_t)*seed * 0x1p-31f;
}

static void scene_free(scene *s)
{
    free(s->weights);
    free(s->cache);
    free(s->state);
}

static clq_status scene_create(scene *s, clq_error *err)
{
    s->weights = calloc(1, s->n_weights);
    s->cache = calloc(1, s->n_cache ? s->n_cache : 1);
    s->state = calloc(s->n_state, sizeof *s->state);
    if (s->weights && s->cache && s->state) return CLQ_OK;
    scene_free(s);
    *s = (scene){0};
    return clq_fail_memory(err, s->n_weights);
}

// Runs the steps on the device, on a copy of the scene; *state: what became of it. The scene itself runs on the
// references.
static clq_status run_both(clq_device *d, scene *s, const clq_step *steps, uint32_t n_steps, float *state,
                           clq_error *err)
{
    clq_memory *weights = NULL, *device_state = NULL, *cache = NULL;
    clq_status st;
    CLQ_TRY_OUT(d->ops->memory_create(d, s->n_weights, &weights, err));
    CLQ_TRY_OUT(d->ops->memory_create(d, s->n_state * sizeof(float), &device_state, err));
    if (s->n_cache) CLQ_TRY_OUT(d->ops->memory_create(d, s->n_cache, &cache, err));
    CLQ_TRY_OUT(d->ops->memory_write(weights, 0, s->weights, s->n_weights, err));
    CLQ_TRY_OUT(d->ops->memory_write(device_state, 0, s->state, s->n_state * sizeof(float), err));
    CLQ_TRY_OUT(d->ops->steps_run(d, steps, n_steps, weights, device_state, cache, err));
    CLQ_TRY_OUT(d->ops->memory_read(device_state, 0, state, s->n_state * sizeof(float), err));
    CLQ_TRY_OUT(d->ops->wait(d, err));
    clq_step_memory m = {s->weights, s->state, s->cache};
    for (uint32_t i = 0; i < n_steps; i++)
        if (!clq_step_run_ref(1, &steps[i], &m)) st = clq_fail_memory(err, steps[i].cols * 4ull);
out:
    d->ops->memory_free(cache);
    d->ops->memory_free(device_state);
    d->ops->memory_free(weights);
    return st;
}

static uint64_t aligned(uint64_t n) { return (n + 63) / 64 * 64; }

// ---- weights ----

// Rows of one type at offset `at`: x decoded is left in y. Returns what the step needs to know.
static clq_status encode_weight(const clq_type *type, const float *x, uint64_t rows, uint64_t cols, bool indexed,
                                uint8_t *memory, clq_step *s, clq_error *err)
{
    s->format = type->format;
    s->rows = (uint32_t)rows;
    s->cols = (uint32_t)cols;
    s->scales = s->zero_points = s->group_index = s->bias = CLQ_NONE;
    if (type->format != CLQ_INT) {
        const clq_format *f = clq_format_row(type->format);
        f->encode_ref(x, NULL, rows * cols / f->info.block_elements, memory + s->w);
        return CLQ_OK;
    }
    clq_part_sizes sizes;
    CLQ_TRY(clq_type_sizes(type, rows, cols, &sizes, err));
    s->bits = type->bits;
    s->group_size = type->granularity == CLQ_PER_GROUP ? type->group_size : 0;
    s->groups = type->granularity == CLQ_PER_TENSOR ? 0 : (clq_u32)sizes.groups;
    uint64_t groups = sizes.groups, n = rows * groups, len = s->group_size ? s->group_size : cols;
    s->scales = aligned(s->w + sizes.codes + 64);
    s->zero_points = type->symmetric ? CLQ_NONE : aligned(s->scales + n * 4);
    float *scales = (float *)(void *)(memory + s->scales);
    int8_t *zeros = type->symmetric ? NULL : (int8_t *)(memory + s->zero_points);
    for (uint64_t g = 0; g < n; g++) {
        const float *group = x + g / groups * cols + g % groups * len;
        uint64_t have = cols - g % groups * len < len ? cols - g % groups * len : len;
        float low = 0, high = 0;
        int8_t zero = 0;
        for (uint64_t i = 0; i < have; i++) {
            low = group[i] < low ? group[i] : low;
            high = group[i] > high ? group[i] : high;
        }
        if (type->granularity == CLQ_PER_TENSOR) low = -1, high = 1;
        clq_int_params(type, low, high, &scales[g], &zero);
        if (zeros) zeros[g] = zero;
    }
    clq_int_encode_ref(type, x, rows, cols, scales, zeros, memory + s->w);
    if (type->bits == 8) {
        s->code_sums = aligned(s->scales + n * 8 + cols * 4 + 128);
        int32_t *sums = (int32_t *)(void *)(memory + s->code_sums);
        for (uint64_t i = 0; i < rows * cols; i++) sums[i / cols] += (int8_t)memory[s->w + i];
    }
    if (indexed) {
        s->group_index = aligned(s->scales + n * 8 + 64);
        int32_t *index = (int32_t *)(void *)(memory + s->group_index);
        for (uint64_t i = 0; i < cols; i++) index[i] = (int32_t)((i * 7 + 3) % groups);
    }
    return CLQ_OK;
}

static uint64_t weight_space(uint64_t rows, uint64_t cols)
{
    return aligned(rows * (cols + 256) * 4) + aligned(rows * (cols / 32 + 2) * 16) + cols * 8 + rows * 8 + 4096;
}

clq_status clq_linear_compare(clq_device *d, const clq_linear_case *c, double *worst, clq_error *err)
{
    uint32_t seed = c->seed + 1, block = c->type.format == CLQ_INT ? 32 : clq_format_at(c->type.format)->block_elements;
    uint64_t n = (uint64_t)c->rows * c->cols, n_in = (uint64_t)c->tokens * c->cols,
             n_out = (uint64_t)c->tokens * c->rows;
    scene s = {.n_weights = weight_space(c->rows, c->cols)};
    clq_step steps[3] = {
        {.kind = CLQ_STEP_RANGE, .tokens = c->tokens, .cols = c->cols, .in_stride = c->cols},
        {.kind = CLQ_STEP_PREP,
         .tokens = c->tokens,
         .cols = c->cols,
         .in_stride = c->cols,
         .mode = c->mode,
         .quant = c->quant,
         .scale = 0.006f,
         .zero_point = (int32_t)(c->seed % 60) - 30},
        {.kind = CLQ_STEP_LINEAR,
         .tokens = c->tokens,
         .mode = c->mode,
         .out_stride = c->rows + 3,
         .flags = c->accumulate ? CLQ_STEP_ACCUMULATE : 0}};
    clq_step *prep = &steps[1], *linear = &steps[2];
    steps[0].out = prep->in2 = aligned(n_in);
    prep->out = linear->in = aligned(prep->in2 + 2ull * c->tokens);
    linear->out = aligned(prep->out + clq_prep_floats(c->tokens, c->cols, c->mode));
    uint64_t in_state = aligned(linear->out + (uint64_t)c->tokens * (c->rows + 3) + 64);
    s.n_state = in_state + (c->in_state ? n : 0);
    float *x = malloc(n * sizeof *x), *state = malloc(s.n_state * sizeof *state);
    clq_status st = scene_create(&s, err);
    if (st == CLQ_OK && (!x || !state)) st = clq_fail_memory(err, n * sizeof *x);
    if (st != CLQ_OK) goto out;
    for (uint64_t i = 0; i < n; i++) x[i] = i / 32 % 9 == 8 ? 0 : random_at(&seed) * (i / 32 % 5 == 4 ? 8.0f : 1.0f);
    CLQ_TRY_OUT(encode_weight(&c->type, x, c->rows, c->cols, c->indexed, s.weights, linear, err));
    if (c->bias) {
        linear->bias = aligned(s.n_weights - c->rows * 4ull - 64);
        for (uint32_t i = 0; i < c->rows; i++) ((float *)(void *)(s.weights + linear->bias))[i] = random_at(&seed);
    }
    for (uint64_t i = 0; i < s.n_state; i++) s.state[i] = random_at(&seed);
    if (c->in_state) {
        memcpy(s.state + in_state, s.weights + linear->w, n * sizeof *x);
        linear->flags |= CLQ_STEP_STATE_WEIGHT;
        linear->w = in_state * sizeof(float);
    }
    for (uint64_t i = 0; i < n_in && c->seed % 2; i++) { // of each three tokens one is zero, one all equal
        uint64_t kind = (i / c->cols + c->seed / 2) % 3;
        if (kind) s.state[i] = kind == 1 ? 0 : (c->seed % 4 == 1 ? 0.75f : -0.75f);
    }
    float *in = malloc(n_in * sizeof *in);
    if (in) memcpy(in, s.state, n_in * sizeof *in);
    st = in ? run_both(d, &s, steps, 3, state, err) : clq_fail_memory(err, n_in * sizeof *in);
    *worst = 0;
    double sums = c->bias && c->accumulate ? 0x1p-22 : 0; // which of the two (below 1) is added first is left open
    for (uint64_t i = 0; st == CLQ_OK && i < n_out; i++) {
        uint64_t t = i / c->rows, r = i % c->rows, at = linear->out + t * (c->rows + 3) + r;
        double size = 1e-3;
        if (c->mode == CLQ_MODE_I8) {
            if (memcmp(&state[at], &s.state[at], sizeof(float))) *worst = INFINITY;
            continue;
        }
        for (uint64_t b = 0; b < c->cols; b += block) {
            float most = 0;
            double sum = 0;
            for (uint64_t k = b; k < b + block && k < c->cols; k++) {
                most = fabsf(x[r * c->cols + k]) > most ? fabsf(x[r * c->cols + k]) : most;
                sum += fabsf(in[t * c->cols + k]);
            }
            size += (c->type.format == CLQ_INT ? 10 : most) * sum;
        }
        double bound = (c->cols / 8 + 24) * 0x1p-24 * size + sums, error = fabs((double)state[at] - s.state[at]);
        if (!(error / bound <= *worst)) *worst = error / bound;
    }
    // What stands between the rows of the output is not written.
    for (uint32_t t = 0; st == CLQ_OK && t < c->tokens; t++)
        if (memcmp(state + linear->out + t * (c->rows + 3) + c->rows,
                   s.state + linear->out + t * (c->rows + 3) + c->rows, 12))
            *worst = INFINITY;
    free(in);
out:
    scene_free(&s);
    free(x);
    free(state);
    return st;
}

// ---- other kinds ----

clq_status clq_step_compare(clq_device *d, const clq_step_case *c, double *worst, clq_error *err)
{
    clq_step steps[3] = {c->step, c->step, c->step}, *step = &steps[0];
    uint32_t seed = c->seed + 1, n_steps = 1;
    uint64_t big = (uint64_t)(step->tokens + 1) * (step->in_stride + step->cols + 2) +
                   (uint64_t)step->rows * step->in_stride +
                   (uint64_t)(step->tokens + 1) * step->heads * step->head_dim + 1024;
    scene s = {.n_weights = weight_space(step->rows + 16, step->cols + 16), .n_state = 8 * aligned(big)};
    step->in = 0;
    step->in2 = aligned(big);
    step->out = 2 * aligned(big);
    if (step->w != CLQ_NONE) step->w = 0;
    if (step->bias != CLQ_NONE) step->bias = aligned((step->cols + 16) * 4ull);
    if (step->kind == CLQ_STEP_ATTEND || step->kind == CLQ_STEP_STORE) {
        // Keys and values of all positions are put into the cache first.
        uint64_t head = clq_cache_bytes((clq_format_id)step->cache_format, step->head_dim);
        uint64_t all = step->kv_heads * step->positions * head;
        uint64_t floats = (uint64_t)step->keys * step->kv_heads * step->head_dim;
        steps[2] = *step;
        steps[2].cache = 0;
        steps[2].cache2 = aligned(all);
        s.n_cache = 2 * aligned(all) + 64;
        for (int i = 0; i < 2; i++) {
            steps[i] = (clq_step){.kind = CLQ_STEP_STORE,
                                  .tokens = step->keys,
                                  .heads = c->step.kv_heads,
                                  .head_dim = c->step.head_dim,
                                  .in_stride = c->step.kv_heads * c->step.head_dim,
                                  .positions = c->step.positions,
                                  .cache_format = c->step.cache_format,
                                  .in = s.n_state,
                                  .cache = i ? aligned(all) : 0};
            s.n_state += aligned(floats);
        }
        n_steps = 3;
        step = &steps[2];
    }
    float *state = malloc(s.n_state * sizeof *state), *x = NULL;
    clq_status st = scene_create(&s, err);
    if (st == CLQ_OK && !state) st = clq_fail_memory(err, s.n_state * sizeof *state);
    if (st != CLQ_OK) goto out;
    for (uint64_t i = 0; i < s.n_state; i++) s.state[i] = 3 * random_at(&seed);
    int32_t *ids = (int32_t *)(void *)(s.state + (step->kind == CLQ_STEP_EMBED ? step->in : step->in2));
    if (step->kind == CLQ_STEP_EMBED) {
        uint64_t n = (uint64_t)step->rows * step->cols;
        x = malloc(n * sizeof *x);
        if (!x) st = clq_fail_memory(err, n * sizeof *x);
        if (st != CLQ_OK) goto out;
        for (uint64_t i = 0; i < n; i++) x[i] = random_at(&seed);
        CLQ_TRY_OUT(encode_weight(&c->embedding, x, step->rows, step->cols, false, s.weights, step, err));
        for (uint32_t i = 0; i < step->tokens; i++) ids[i] = (int32_t)(i * 5 % step->rows);
    } else {
        for (uint64_t i = 0; i < step->bias / 4 + step->cols && i < s.n_weights / 4 && step->kind == CLQ_STEP_NORM; i++)
            ((float *)(void *)s.weights)[i] = random_at(&seed);
        if (step->kind == CLQ_STEP_GATHER || step->kind == CLQ_STEP_SCATTER)
            for (uint32_t i = 0; i < step->tokens; i++) ids[i] = (int32_t)((i * 3 + 1) % (step->tokens + 1));
    }
    CLQ_TRY_OUT(run_both(d, &s, steps, n_steps, state, err));
    *worst = 0;
    for (uint64_t i = 0; i < s.n_state; i++) {
        bool integer = i >= step->in && s.state[i] != s.state[i];
        double error = integer ? 0 : fabs((double)state[i] - s.state[i]) / (1e-5 * (1 + fabs((double)s.state[i])));
        if (!(error <= *worst)) *worst = error;
    }
out:
    scene_free(&s);
    free(x);
    free(state);
    return st;
}

// ---- observations ----

clq_status clq_observe_compare(clq_device *d, const clq_observe_case *c, double *worst, clq_error *err)
{
    uint32_t stride = c->cols + 3, seed = c->seed + 1, n = 0, k16 = (c->cols + 15) / 16 * 16;
    uint64_t window = aligned((uint64_t)c->tokens * stride), slot = c->windows * window,
             gram = slot + CLQ_SLOT_FLOATS(c->cols), n_gram = c->gram ? (uint64_t)c->cols * c->cols : 0;
    scene s = {.n_weights = 64, .n_state = gram + n_gram + 64};
    clq_step *steps = calloc(4ull * c->windows, sizeof *steps);
    float *state = malloc(s.n_state * sizeof *state);
    clq_status st = scene_create(&s, err);
    if (st == CLQ_OK && (!steps || !state)) st = clq_fail_memory(err, s.n_state * sizeof *state);
    if (st != CLQ_OK) goto out;
    for (uint32_t w = 0; w < c->windows; w++) {
        float *x = s.state + w * window;
        for (uint64_t i = 0; i < window; i++) x[i] = random_at(&seed) * (w % 2 ? 5 : 1) * (i % 97 == 5 ? 30 : 1);
        if (c->bad) x[1] = NAN, x[stride] = -INFINITY, x[stride + c->cols / 2] = INFINITY;
        for (uint32_t phase = 0; phase <= CLQ_OBSERVE_VALUES; phase++)
            steps[n++] = (clq_step){.kind = CLQ_STEP_OBSERVE, .tokens = c->tokens, .cols = c->cols,
                                    .in_stride = stride, .phase = phase, .in = w * window, .out = slot};
        if (c->gram)
            steps[n++] = (clq_step){.kind = CLQ_STEP_GRAM, .tokens = c->tokens, .cols = c->cols,
                                    .in_stride = stride, .in = w * window, .out = gram};
    }
    CLQ_TRY_OUT(run_both(d, &s, steps, n, state, err));
    *worst = memcmp(state + slot, s.state + slot, CLQ_SLOT_CHANNELS * sizeof *state) ? INFINITY : 0;
    for (uint32_t a = 0; a < CLQ_CHANNEL_ARRAYS; a++)
        for (uint32_t i = 0; i < c->cols; i++) { // by value: which of two zeros is the least is left open
            uint64_t at = slot + CLQ_SLOT_CHANNELS + (uint64_t)a * k16 + i;
            if (state[at] != s.state[at]) *worst = INFINITY;
        }
    double most = 1e-3;
    for (uint64_t i = 0; i < n_gram; i++) most = fmax(most, fabs((double)s.state[gram + i]));
    for (uint64_t i = 0; i < n_gram; i++) {
        double error = fabs((double)state[gram + i] - s.state[gram + i]) / (1e-5 * most);
        if (!(error <= *worst)) *worst = error;
    }
out:
    free(steps);
    free(state);
    scene_free(&s);
    return st;
}

// ---- preparing weights ----

// Weight `i` of group `g`: of some groups all are zero, or tiny, or as large as floats get.
static float hard_value(uint32_t g, uint32_t i, uint32_t *seed)
{
    float v = random_at(seed);
    switch (g % 13) {
    case 1: return 0;
    case 2: return 0.37f;
    case 3: return v * 1e-30f;
    case 4: return v * 3e-42f; // subnormal
    case 5: return v * 1e30f;
    case 6: return -fabsf(v) - 0.1f;
    case 7: return fabsf(v) + 0.1f;
    case 8: return i == 3 ? 40.0f : v;
    case 9: return rintf(v * 8) / 2; // ties
    case 10: return i % 2 ? 0.5f : -0.5f;
    case 11: return v * 3e38f;
    default: return v * 0.1f;
    }
}

clq_status clq_prepare_compare(clq_device *d, const clq_prepare_case *c, double *worst, clq_error *err)
{
    clq_step steps[2] = {c->step, c->step}, *step = &steps[0];
    uint32_t seed = c->seed + 1, n_steps = 1, kind = c->step.kind, rows = c->step.rows, cols = c->step.cols,
             tokens = c->step.tokens, len = c->step.group_size ? c->step.group_size : cols, dims = c->step.dims,
             samples = 24, stride = cols + 3;
    bool full = c->cost == CLQ_COST_FULL, in_tokens = kind == CLQ_STEP_GRAM || kind == CLQ_STEP_COLUMNS ||
                kind == CLQ_STEP_ERROR;
    uint64_t n = aligned((uint64_t)rows * cols), groups = cols / len, matrix = (uint64_t)tokens * stride,
             w = 64, x = aligned(w + n), factors = aligned(x + samples * cols + 2 * matrix),
             cost = aligned(factors + cols),
             gram = full || kind == CLQ_STEP_GRAM ? groups * len * len : cols, scales = aligned(cost + gram),
             index = aligned(scales + 2 * rows * groups), u = aligned(index + cols),
             out = aligned(u + (uint64_t)dims * dims);
    scene s = {.n_weights = n * sizeof(float), .n_state = aligned(out + n + 2 * matrix + gram) + 64};
    float *state = malloc(s.n_state * sizeof *state);
    clq_status st = scene_create(&s, err);
    if (st == CLQ_OK && !state) st = clq_fail_memory(err, s.n_state * sizeof *state);
    if (st != CLQ_OK) goto out;
    for (uint64_t i = 0; i < (kind == CLQ_STEP_GRAM ? out : s.n_state); i++) s.state[i] = random_at(&seed);
    for (uint64_t i = 0; i < (uint64_t)rows * cols; i++)
        s.state[w + i] = hard_value((kind == CLQ_STEP_GPTQ ? 0 : (uint32_t)(i / len)) + c->seed, (uint32_t)(i % len),
                                    &seed);
    memcpy(s.weights, s.state + w, (uint64_t)rows * cols * sizeof(float));
    for (uint32_t i = 0; i < cols; i++) s.state[factors + i] = 0.2f + fabsf(s.state[factors + i]);
    for (uint32_t i = 0; i < cols; i++) ((int32_t *)(void *)(s.state + index))[i] = (int32_t)((i * 7 + 3) % groups);
    for (uint32_t i = 0; i < dims; i++) s.state[u + i * (dims + 1)] += 2;
    clq_step make_cost = {.kind = CLQ_STEP_GRAM, .tokens = samples, .cols = cols, .in_stride = cols,
                          .group_size = len, .in = x, .out = cost};
    clq_step_memory m = {s.weights, s.state, s.cache};
    for (uint64_t i = 0; i < gram; i++) s.state[cost + i] = fabsf(s.state[cost + i]);
    if (full && !clq_step_run_ref(1, &make_cost, &m)) CLQ_TRY_OUT(clq_fail_memory(err, cols));
    step->kind = in_tokens || kind == CLQ_STEP_QUANT ? kind : CLQ_STEP_SCALES;
    step->groups = (uint32_t)groups;
    step->w = step->flags & CLQ_STEP_STATE_WEIGHT ? w * sizeof(float) : 0;
    step->in = in_tokens ? x : c->cost == CLQ_COST_NONE ? CLQ_NONE : cost;
    step->in2 = kind == CLQ_STEP_ERROR ? x + matrix : c->scaled || kind == CLQ_STEP_COLUMNS ? factors : CLQ_NONE;
    step->in_stride = step->out_stride = stride;
    step->out = step->kind == CLQ_STEP_SCALES ? scales : c->in_place ? x : out;
    if (c->cost == CLQ_COST_DIAGONAL) step->flags |= CLQ_STEP_DIAGONAL;
    if (kind == CLQ_STEP_ROUND || kind == CLQ_STEP_GPTQ) {
        steps[1] = *step;
        steps[1].kind = kind;
        steps[1].in = kind == CLQ_STEP_GPTQ ? w : scales;
        steps[1].in2 = u;
        steps[1].scales = scales;
        steps[1].group_index = c->indexed ? index : CLQ_NONE;
        steps[1].out = out;
        n_steps = 2;
    }
    CLQ_TRY_OUT(run_both(d, &s, steps, n_steps, state, err));
    *worst = 0;
    double most = 1e-3, share = kind == CLQ_STEP_GRAM || kind == CLQ_STEP_ERROR ? 1e-5 : 0;
    for (uint64_t i = out; i < s.n_state; i++) most = fmax(most, fabs((double)s.state[i]));
    for (uint64_t i = 0; i < s.n_state; i++) {
        bool same = memcmp(&state[i], &s.state[i], sizeof *state) == 0 || (isnan(state[i]) && isnan(s.state[i]));
        double error = same ? 0 : INFINITY;
        if (!same && share > 0 && i >= out) error = fabs((double)state[i] - s.state[i]) / (share * most);
        if (!(error <= *worst)) *worst = error;
    }
out:
    free(state);
    scene_free(&s);
    return st;
}

// ---- the self-test ----

clq_status clq_steps_test(clq_device *d, const clq_type *types, uint32_t n, bool *good, clq_error *err)
{
    *good = false;
    double worst;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = types[i].format == CLQ_INT ? 32 : clq_format_at(types[i].format)->block_elements;
        uint32_t group = types[i].granularity == CLQ_PER_GROUP && types[i].format == CLQ_INT ? types[i].group_size : 32;
        uint32_t int8_mode = clq_step_int8_mode(types[i].format);
        for (uint32_t k = 0; k < 3; k++) { // floats and integers at one token, then many tokens
            clq_linear_case c = {.type = types[i],
                                 .rows = 7,
                                 .cols = block >= 256   ? 512
                                         : block == 128 ? 384
                                                        : (192 + group - 1) / group * group,
                                 .tokens = k == 2 ? 9 : 1,
                                 .mode = k == 1 ? int8_mode : CLQ_MODE_F32,
                                 .bias = true};
            CLQ_TRY(clq_linear_compare(d, &c, &worst, err));
            if (!(worst <= 1)) return CLQ_OK;
            if (!clq_step_takes_i8(&types[i], c.cols)) continue;
            c.mode = CLQ_MODE_I8;
            c.quant = CLQ_QUANT_TOKEN + k;
            CLQ_TRY(clq_linear_compare(d, &c, &worst, err));
            if (!(worst <= 1)) return CLQ_OK;
        }
    }
    static const clq_step kinds[] = {
        {.kind = CLQ_STEP_NORM, .rows = 3, .cols = 100, .in_stride = 100, .out_stride = 100, .eps = 1e-5f},
        {.kind = CLQ_STEP_ROPE, .tokens = 2, .heads = 3, .head_dim = 16, .in_stride = 48, .dims = 16},
        {.kind = CLQ_STEP_ACT, .tokens = 2, .cols = 100, .in_stride = 100, .act = CLQ_ACT_SILU, .flags = CLQ_STEP_MUL},
        {.kind = CLQ_STEP_ATTEND,
         .tokens = 1,
         .heads = 4,
         .kv_heads = 2,
         .head_dim = 32,
         .in_stride = 128,
         .position = 40,
         .positions = 64,
         .keys = 41,
         .cache_format = CLQ_F16,
         .scale = 0.2f,
         .flags = CLQ_STEP_CAUSAL},
        {.kind = CLQ_STEP_ATTEND,
         .tokens = 20,
         .heads = 4,
         .kv_heads = 2,
         .head_dim = 32,
         .in_stride = 128,
         .positions = 64,
         .keys = 20,
         .cache_format = CLQ_F16,
         .scale = 0.2f,
         .flags = CLQ_STEP_CAUSAL}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        clq_step_case c = {.step = kinds[i]};
        CLQ_TRY(clq_step_compare(d, &c, &worst, err));
        if (!(worst <= 1)) return CLQ_OK;
    }
    *good = true;
    return CLQ_OK;
}

clq_status clq_prepare_test(clq_device *d, bool *good, clq_error *err)
{
    static const clq_prepare_case cases[] = {
        {.step = {.kind = CLQ_STEP_QUANT, .rows = 5, .cols = 96, .bits = 4, .group_size = 32}, .scaled = true},
        {.step = {.kind = CLQ_STEP_SCALES, .rows = 5, .cols = 96, .bits = 4, .group_size = 32, .cache_format = CLQ_F16,
                  .phase = CLQ_SCALES_SEARCH},
         .cost = CLQ_COST_FULL},
        {.step = {.kind = CLQ_STEP_SCALES, .flags = CLQ_STEP_SYMMETRIC, .rows = 3, .cols = 64, .bits = 3,
                  .cache_format = CLQ_F32, .phase = CLQ_SCALES_SEARCH},
         .cost = CLQ_COST_DIAGONAL},
        {.step = {.kind = CLQ_STEP_SCALES, .rows = 3, .cols = 64, .bits = 4, .group_size = 64, .cache_format = CLQ_F32,
                  .phase = CLQ_SCALES_HQQ}},
        {.step = {.kind = CLQ_STEP_GPTQ, .rows = 5, .cols = 96, .dims = 64, .position = 16, .bits = 4,
                  .group_size = 32, .cache_format = CLQ_F32, .phase = CLQ_SCALES_ABSMAX},
         .indexed = true},
        {.step = {.kind = CLQ_STEP_ERROR, .rows = 1, .tokens = 5, .cols = 70}},
        {.step = {.kind = CLQ_STEP_COLUMNS, .rows = 1, .tokens = 5, .cols = 70}}};
    *good = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases && *good; i++) {
        double worst;
        CLQ_TRY(clq_prepare_compare(d, &cases[i], &worst, err));
        *good = worst <= 1;
    }
    return CLQ_OK;
}

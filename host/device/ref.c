// SPDX-License-Identifier: MIT
// The device that is the C references: no OpenCL, the same bytes.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/threads.h"
#include "device/device.h"
#include "ops/reduce.h"
#include "ops/steps.h"

clq_status clq_tile_sizes(const clq_tile *t, clq_part_sizes *sizes, clq_error *err)
{
    CLQ_TRY(clq_type_sizes(&t->type, t->rows, t->cols, sizes, err));
    if (t->type.format == CLQ_INT && t->type.granularity == CLQ_PER_TENSOR) sizes->scales = sizes->zero_points = 0;
    return CLQ_OK;
}

enum { PIECE = 64 }; // rows (or 4096-element stretches) a thread takes at a time

typedef struct {
    const clq_tile *tile;
    const clq_ref_arrays *a;
    const float *x;
    clq_stats *stats; // one a piece
    float *mins, *maxs;
    uint64_t unit;    // elements a work index stands for
    uint64_t n_elements;
} work;

static void load_piece(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    const clq_format *f = clq_format_row(w->tile->source);
    uint64_t block = begin * w->unit / f->info.block_elements;
    uint64_t last = end * w->unit < w->n_elements ? end * w->unit : w->n_elements;
    f->decode_ref((const uint8_t *)w->tile->src + block * f->info.block_bytes,
                  (last - begin * w->unit) / f->info.block_elements, w->a->floats + begin * w->unit);
}

static void measure(const float *x, const float *y, uint64_t n, clq_stats *s)
{
    double x2 = 0, e2 = 0;
    float worst = 0;
    for (uint64_t i = 0; i < n; i++) {
        float e = x[i] - y[i];
        x2 += (double)x[i] * x[i];
        e2 += (double)e * e;
        if (fabsf(e) > worst) worst = fabsf(e);
        if (!isfinite(x[i]))
            s->bad_inputs++;
        else if (!isfinite(y[i]))
            s->bad_outputs++;
    }
    s->sum_x2 += x2;
    s->sum_e2 += e2;
    if (worst > s->max_error) s->max_error = worst;
}

// Encodes the stretch and measures it, through a small buffer that stays in cache.
static void encode_piece(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    const clq_format *f = clq_format_row(w->tile->type.format);
    float y[4096];
    for (uint64_t u = begin; u < end; u++) {
        uint64_t at = u * w->unit, n = w->n_elements - at < w->unit ? w->n_elements - at : w->unit;
        uint64_t n_blocks = n / f->info.block_elements;
        uint8_t *out = (uint8_t *)w->a->codes + at / f->info.block_elements * f->info.block_bytes;
        f->encode_ref(w->x + at, NULL, n_blocks, out);
        f->decode_ref(out, n_blocks, y);
        measure(w->x + at, y, n, &w->stats[begin / PIECE]);
    }
}

// Rows with importance: the references take one at a time.
static void encode_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    const clq_tile *t = w->tile;
    const clq_format *f = clq_format_row(t->type.format);
    uint64_t n_blocks = t->cols / f->info.block_elements;
    float y[4096];
    for (uint64_t r = begin; r < end; r++) {
        const float *x = w->x + r * t->cols;
        uint8_t *out = (uint8_t *)w->a->codes + r * n_blocks * f->info.block_bytes;
        f->encode_ref(x, t->importance, n_blocks, out);
        for (uint64_t at = 0, n; at < t->cols; at += n) {
            n = t->cols - at < 4096 ? t->cols - at : 4096;
            f->decode_ref(out + at / f->info.block_elements * f->info.block_bytes, n / f->info.block_elements, y);
            measure(x + at, y, n, &w->stats[begin / PIECE]);
        }
    }
}

static void put_scale(clq_format_id format, void *scales, uint64_t i, float s)
{
    if (format == CLQ_F32)
        ((float *)scales)[i] = s;
    else if (format == CLQ_F16)
        ((uint16_t *)scales)[i] = clq_f32_to_f16(s);
    else
        ((uint16_t *)scales)[i] = clq_f32_to_bf16(s);
}

static void encode_int_rows(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    const clq_tile *t = w->tile;
    const clq_type *type = &t->type;
    bool one = type->granularity == CLQ_PER_TENSOR, given = clq_tile_given(t);
    clq_type codes_type = *type;
    if (given) codes_type.symmetric = false; // all codes, see clq_tile
    uint64_t groups = clq_type_groups(type, t->cols), per_group = t->cols / groups;
    uint64_t row_bytes = clq_type_row_bytes(type, t->cols);
    float *y = malloc(t->cols * sizeof *y);
    clq_stats *stats = &w->stats[begin / PIECE];
    if (!y) {
        stats->sum_x2 = NAN; // told apart in clq_ref_tile
        return;
    }
    for (uint64_t r = begin; r < end; r++) {
        const float *x = w->x + r * t->cols;
        float *scales = one ? (float *)&t->scale : w->a->scale_floats + r * groups;
        int8_t *zeros = type->symmetric ? NULL : one ? (int8_t *)&t->zero_point : w->a->zero_points + r * groups;
        for (uint64_t g = 0; !one && g < groups; g++) {
            float low, high;
            int8_t zero = 0;
            clq_minmax_ref(x + g * per_group, 1, per_group, &low, &high);
            float largest = fmaxf(high, -low);
            if (given) {
                scales[g] = t->given_scales[r * groups + g];
                if (t->given_zero_points) zero = t->given_zero_points[r * groups + g];
            } else {
                clq_int_params(type, low, high, &scales[g], &zero);
            }
            if (zeros) zeros[g] = zero;
            bool all_zero = (given && scales[g] == 0) || fabsf(scales[g]) * 0.5f > largest;
            if (largest > 0 && all_zero) stats->lost_groups++;
            put_scale(type->scale_format, w->a->scales, r * groups + g, scales[g]);
        }
        uint8_t *codes = (uint8_t *)w->a->codes + r * row_bytes;
        clq_int_encode_ref(&codes_type, x, 1, t->cols, scales, zeros, codes);
        clq_int_decode_ref(type, codes, 1, t->cols, scales, zeros, y);
        measure(x, y, t->cols, stats);
    }
    free(y);
}

static void range_piece(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    for (uint64_t u = begin; u < end; u++) {
        uint64_t at = u * w->unit, n = w->n_elements - at < w->unit ? w->n_elements - at : w->unit;
        clq_minmax_ref(w->x + at, 1, n, &w->mins[u], &w->maxs[u]);
    }
}

static void range_groups(void *ctx, uint64_t begin, uint64_t end)
{
    const work *w = ctx;
    uint64_t len = w->tile->range_len;
    for (uint64_t g = begin; g < end; g++)
        clq_minmax_ref(w->x + g * len, 1, len, &w->a->ranges[2 * g], &w->a->ranges[2 * g + 1]);
}

static clq_status decode_tile(uint32_t threads, const clq_tile *t, const clq_ref_arrays *a, clq_tile_result *r)
{
    r->floats = a->floats;
    if (t->type.format == CLQ_INT) {
        clq_int_decode_ref(&t->type, t->src, t->rows, t->cols, t->scales, t->zero_points, a->floats);
        return CLQ_OK;
    }
    work w = {.tile = t, .a = a, .unit = 4096, .n_elements = t->rows * t->cols};
    clq_tile plain = *t;
    plain.source = t->type.format;
    w.tile = &plain;
    clq_parallel(threads, clq_div_up(w.n_elements, w.unit), PIECE, load_piece, &w);
    return CLQ_OK;
}

clq_status clq_ref_tile(uint32_t threads, const clq_tile *t, const clq_ref_arrays *a, clq_tile_result *r,
                        clq_error *err)
{
    *r = (clq_tile_result){.codes = a->codes, .scales = a->scales, .zero_points = a->zero_points};
    if (t->decode_only) return decode_tile(threads, t, a, r);
    CLQ_TRY(clq_tile_sizes(t, &r->sizes, err));
    if (t->type.format == CLQ_INT && t->type.granularity == CLQ_PER_TENSOR) r->scales = r->zero_points = NULL;
    work w = {.tile = t, .a = a, .x = t->src, .unit = 4096, .n_elements = t->rows * t->cols};
    uint64_t n_units = clq_div_up(w.n_elements, w.unit);
    if (t->source != CLQ_F32) {
        clq_parallel(threads, n_units, PIECE, load_piece, &w);
        w.x = a->floats;
    }
    if (t->range_only && t->range_len) {
        r->ranges = a->ranges;
        r->n_ranges = w.n_elements / t->range_len;
        clq_parallel(threads, r->n_ranges, PIECE, range_groups, &w);
        return CLQ_OK;
    }
    bool by_row = t->type.format == CLQ_INT || t->importance;
    uint64_t n_work = by_row && !t->range_only ? t->rows : n_units;
    uint64_t n_pieces = clq_div_up(n_work, PIECE);
    clq_status st = CLQ_OK;
    w.stats = calloc(n_pieces + 1, sizeof *w.stats);
    w.mins = t->range_only ? malloc((n_units + 1) * 2 * sizeof *w.mins) : NULL;
    if (!w.stats || (t->range_only && !w.mins)) {
        st = clq_fail_memory(err, n_pieces * sizeof *w.stats);
        goto out;
    }
    if (t->range_only) {
        w.maxs = w.mins + n_units + 1;
        clq_parallel(threads, n_units, PIECE, range_piece, &w);
        clq_minmax_merge(w.mins, w.maxs, n_units, &r->min, &r->max);
    } else if (t->type.format == CLQ_INT) {
        clq_parallel(threads, t->rows, PIECE, encode_int_rows, &w);
    } else if (t->importance) {
        clq_parallel(threads, t->rows, PIECE, encode_rows, &w);
    } else {
        clq_parallel(threads, n_units, PIECE, encode_piece, &w);
    }
    for (uint64_t i = 0; i < n_pieces; i++) {
        r->stats.sum_x2 += w.stats[i].sum_x2;
        r->stats.sum_e2 += w.stats[i].sum_e2;
        r->stats.max_error = fmax(r->stats.max_error, w.stats[i].max_error);
        r->stats.bad_inputs += w.stats[i].bad_inputs;
        r->stats.bad_outputs += w.stats[i].bad_outputs;
        r->stats.lost_groups += w.stats[i].lost_groups;
    }
    if (isnan(r->stats.sum_x2) && !r->stats.bad_inputs) st = clq_fail_memory(err, t->cols * sizeof(float));
out:
    free(w.mins);
    free(w.stats);
    return st;
}

clq_status clq_ref_arrays_create(const clq_lane_limits *l, clq_ref_arrays *a, clq_error *err)
{
    *a = (clq_ref_arrays){
        .codes = malloc(l->code_bytes + 8),
        .scales = malloc(l->n_groups * 4 + 8),
        .zero_points = malloc(l->n_groups + 8),
        .scale_floats = malloc(l->n_groups * 4 + 8),
        .floats = malloc(l->n_elements * 4 + 8),
        .ranges = malloc(l->n_groups * 8 + 8),
    };
    if (a->codes && a->scales && a->zero_points && a->scale_floats && a->floats && a->ranges) return CLQ_OK;
    clq_ref_arrays_free(a);
    return clq_fail_memory(err, l->code_bytes + l->n_groups * 17 + l->n_elements * 4);
}

void clq_ref_arrays_free(clq_ref_arrays *a)
{
    free(a->codes);
    free(a->scales);
    free(a->zero_points);
    free(a->scale_floats);
    free(a->floats);
    free(a->ranges);
    *a = (clq_ref_arrays){0};
}

// ---- the device ----

typedef struct {
    clq_lane base;
    void *staging;
    clq_ref_arrays arrays;
    clq_tile_result result;
} ref_lane;

static void ref_lane_free(clq_lane *lane)
{
    ref_lane *l = (ref_lane *)lane;
    if (!l) return;
    clq_ref_arrays_free(&l->arrays);
    free(l->staging);
    free(l);
}

static clq_status ref_lane_create(clq_device *d, const clq_lane_limits *limits, clq_lane **lane, clq_error *err)
{
    ref_lane *l = calloc(1, sizeof *l);
    *lane = NULL;
    if (!l) return clq_fail_memory(err, sizeof *l);
    l->base = (clq_lane){.device = d, .limits = *limits};
    clq_status st = clq_ref_arrays_create(limits, &l->arrays, err);
    if (st != CLQ_OK) {
        ref_lane_free(&l->base);
        return st;
    }
    *lane = &l->base;
    return CLQ_OK;
}

static void *ref_lane_staging(clq_lane *lane)
{
    ref_lane *l = (ref_lane *)lane;
    if (!l->staging) l->staging = malloc(lane->limits.src_bytes + 8);
    return l->staging;
}

static clq_status ref_lane_submit(clq_lane *lane, const clq_tile *tile, clq_error *err)
{
    ref_lane *l = (ref_lane *)lane;
    return clq_ref_tile(lane->device->threads, tile, &l->arrays, &l->result, err);
}

static clq_status ref_lane_wait(clq_lane *lane, clq_tile_result *result, clq_error *err)
{
    (void)err;
    *result = ((ref_lane *)lane)->result;
    return CLQ_OK;
}

static double ref_copy_rate(clq_device *d)
{
    (void)d;
    return 0;
}

static double ref_kernel_seconds(clq_device *d)
{
    (void)d;
    return -1;
}

// ---- forward passes ----

typedef struct {
    clq_memory base;
    uint8_t *data;
} ref_memory;

static clq_status ref_memory_create(clq_device *d, uint64_t n_bytes, clq_memory **memory, clq_error *err)
{
    ref_memory *m = calloc(1, sizeof *m);
    if (m) m->data = calloc(1, n_bytes);
    if (!m || !m->data) {
        free(m);
        return clq_fail_memory(err, n_bytes);
    }
    m->base = (clq_memory){d, n_bytes};
    *memory = &m->base;
    return CLQ_OK;
}

static void ref_memory_free(clq_memory *memory)
{
    if (!memory) return;
    free(((ref_memory *)memory)->data);
    free(memory);
}

static clq_status ref_memory_write(clq_memory *memory, uint64_t offset, const void *src, uint64_t n_bytes,
                                   clq_error *err)
{
    (void)err;
    memcpy(((ref_memory *)memory)->data + offset, src, n_bytes);
    return CLQ_OK;
}

static clq_status ref_memory_read(clq_memory *memory, uint64_t offset, void *dst, uint64_t n_bytes, clq_error *err)
{
    (void)err;
    memcpy(dst, ((ref_memory *)memory)->data + offset, n_bytes);
    return CLQ_OK;
}

static clq_status ref_steps_run(clq_device *d, const clq_step *steps, uint32_t n_steps, clq_memory *weights,
                                clq_memory *state, clq_memory *cache, clq_error *err)
{
    clq_step_memory m = {((ref_memory *)weights)->data, (float *)(void *)((ref_memory *)state)->data,
                         cache ? ((ref_memory *)cache)->data : NULL};
    for (uint32_t i = 0; i < n_steps; i++)
        if (!clq_step_run_ref(d->threads, &steps[i], &m)) return clq_fail_memory(err, steps[i].cols * sizeof(float));
    return CLQ_OK;
}

static clq_status ref_steps_prepare(clq_device *d, const clq_type *types, uint32_t n, clq_error *err)
{
    (void)d;
    (void)types;
    (void)n;
    (void)err;
    return CLQ_OK;
}

static clq_status ref_wait(clq_device *d, clq_error *err)
{
    (void)d;
    (void)err;
    return CLQ_OK;
}

static void ref_close(clq_device *d)
{
    free(d);
}

static const clq_device_ops ref_ops = {
    .lane_create = ref_lane_create,
    .lane_free = ref_lane_free,
    .lane_staging = ref_lane_staging,
    .lane_submit = ref_lane_submit,
    .lane_wait = ref_lane_wait,
    .copy_rate = ref_copy_rate,
    .kernel_seconds = ref_kernel_seconds,
    .memory_create = ref_memory_create,
    .memory_free = ref_memory_free,
    .memory_write = ref_memory_write,
    .memory_read = ref_memory_read,
    .steps_prepare = ref_steps_prepare,
    .steps_run = ref_steps_run,
    .wait = ref_wait,
    .close = ref_close,
};

clq_status clq_ref_open(const clq_device_options *options, clq_device **device, clq_error *err)
{
    clq_device *d = calloc(1, sizeof *d);
    if (!d) return clq_fail_memory(err, sizeof *d);
    d->ops = &ref_ops;
    d->options = options ? *options : (clq_device_options){.work_group_form = -1};
    d->threads = d->options.threads ? d->options.threads : clq_threads_allowed();
    d->info = (clq_device_info){.name = "C references", .platform = "clquant", .is_reference = true, .is_cpu = true,
                                .unified_memory = true, .exact_divide = true, .denormals = true,
                                .compute_units = d->threads};
    *device = d;
    return CLQ_OK;
}

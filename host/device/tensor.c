// SPDX-License-Identifier: MIT
// The public device functions: opening by selector, and encoding, decoding and reducing a tensor
// that lies in memory, in tiles.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/half.h"
#include "device/ring.h"
#include "ops/reduce.h"

clq_status clq_device_open(const char *selector, const clq_device_options *options, clq_device **device, clq_error *err)
{
    *device = NULL;
    if (selector && strcasecmp(selector, "ref") == 0) return clq_ref_open(options, device, err);
    if (selector) return clq_opencl_open(selector, options, NULL, device, err);
    if (clq_opencl_open(NULL, options, NULL, device, NULL) == CLQ_OK) return CLQ_OK;
    if (options) clq_warn(options->hooks, "no OpenCL device was found: the C references are used, on the CPU");
    return clq_ref_open(options, device, err);
}

void clq_device_close(clq_device *device)
{
    if (device) device->ops->close(device);
}

void clq_device_describe(const clq_device *device, clq_device_info *info)
{
    *info = device->info;
}

enum { TILE_ELEMENTS = 4 << 20, N_LANES = 2 };

typedef struct {
    uint8_t *codes, *scales;
    int8_t *zero_points;
    float *floats;
    clq_stats stats;
    float *mins, *maxs; // a pair a group
    float min, max;     // of everything
    bool any;
} target;

static clq_status store(void *ctx, void *tag, uint64_t first_row, const clq_tile *t, const clq_tile_result *r,
                        clq_error *err)
{
    (void)tag;
    (void)err;
    target *to = ctx;
    if (t->decode_only) {
        memcpy(to->floats + first_row * t->cols, r->floats, t->rows * t->cols * sizeof(float));
    } else if (t->range_only && t->range_len) {
        uint64_t first = first_row * (t->cols / t->range_len);
        for (uint64_t i = 0; i < r->n_ranges; i++) {
            to->mins[first + i] = r->ranges[2 * i];
            to->maxs[first + i] = r->ranges[2 * i + 1];
        }
    } else if (t->range_only) {
        float mins[] = {to->min, r->min}, maxs[] = {to->max, r->max};
        uint64_t skip = to->any ? 0 : 1;
        clq_minmax_merge(mins + skip, maxs + skip, 2 - skip, &to->min, &to->max);
        to->any = true;
    } else {
        uint64_t groups = clq_type_groups(&t->type, t->cols);
        memcpy(to->codes + first_row * clq_type_row_bytes(&t->type, t->cols), r->codes, r->sizes.codes);
        if (r->sizes.scales)
            memcpy(to->scales + first_row * groups * clq_format_at(t->type.scale_format)->block_bytes, r->scales,
                   r->sizes.scales);
        if (r->sizes.zero_points) memcpy(to->zero_points + first_row * groups, r->zero_points, r->sizes.zero_points);
        to->stats.sum_x2 += r->stats.sum_x2;
        to->stats.sum_e2 += r->stats.sum_e2;
        to->stats.max_error = fmax(to->stats.max_error, r->stats.max_error);
        to->stats.bad_inputs += r->stats.bad_inputs;
        to->stats.bad_outputs += r->stats.bad_outputs;
        to->stats.lost_groups += r->stats.lost_groups;
    }
    return CLQ_OK;
}

// Pushes all rows of `tile` (whose rows and src are the tensor's) through the ring.
static clq_status run(clq_device *d, const clq_tile *whole, uint64_t row_bytes, target *to, clq_error *err)
{
    // The widest array of a tile holds a float an element.
    uint64_t most = d->info.max_allocation ? d->info.max_allocation / sizeof(float) : TILE_ELEMENTS;
    if (most > TILE_ELEMENTS) most = TILE_ELEMENTS;
    uint64_t rows = whole->cols ? most / whole->cols : 1;
    if (rows == 0) rows = 1;
    if (rows > whole->rows) rows = whole->rows;
    if (!rows) return CLQ_OK;
    clq_tile t = *whole;
    clq_part_sizes sizes = {0};
    t.rows = rows;
    if (!t.decode_only && !t.range_only) CLQ_TRY(clq_type_sizes(&t.type, rows, t.cols, &sizes, err));
    uint64_t groups = t.type.format == CLQ_INT ? clq_type_groups(&t.type, t.cols) : 0;
    clq_lane_limits limits = {.src_bytes = rows * row_bytes, .n_elements = rows * t.cols, .code_bytes = sizes.codes,
                              .n_groups = rows * groups + 1, .floats = true};
    if (t.range_len) limits.n_groups = rows * (t.cols / t.range_len);
    clq_ring *ring;
    CLQ_TRY(clq_ring_create(d, &limits, N_LANES, store, to, &ring, err));
    clq_status st = CLQ_OK;
    for (uint64_t r = 0; r < whole->rows && st == CLQ_OK; r += rows) {
        t.rows = whole->rows - r < rows ? whole->rows - r : rows;
        t.src = (const uint8_t *)whole->src + r * row_bytes;
        t.src_bytes = t.rows * row_bytes;
        if (whole->decode_only && groups && t.type.granularity != CLQ_PER_TENSOR) {
            t.scales = whole->scales + r * groups;
            t.zero_points = whole->zero_points ? whole->zero_points + r * groups : NULL;
        }
        st = clq_ring_push(ring, &t, NULL, r, err);
    }
    if (st == CLQ_OK) st = clq_ring_flush(ring, err);
    clq_ring_free(ring);
    return st;
}

static clq_status check_source(clq_format_id source, clq_error *err)
{
    if (source == CLQ_F32 || source == CLQ_F16 || source == CLQ_BF16) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE, "the source must be F32, F16 or BF16");
}

clq_status clq_encode(clq_device *d, const clq_type *type, clq_format_id source, const void *x, uint64_t rows,
                      uint64_t cols, void *codes, void *scales, void *zero_points, clq_stats *stats, clq_error *err)
{
    return clq_encode_weighted(d, type, source, x, NULL, rows, cols, codes, scales, zero_points, stats, err);
}

clq_status clq_encode_weighted(clq_device *d, const clq_type *type, clq_format_id source, const void *x,
                               const float *importance, uint64_t rows, uint64_t cols, void *codes, void *scales,
                               void *zero_points, clq_stats *stats, clq_error *err)
{
    clq_part_sizes sizes;
    CLQ_TRY(check_source(source, err));
    CLQ_TRY(clq_type_sizes(type, rows, cols, &sizes, err));
    for (uint64_t i = 0; importance && i < cols; i++)
        if (!(importance[i] >= 0 && isfinite(importance[i])))
            return clq_fail(err, CLQ_BAD_INPUT, "importance %llu is negative or not finite", (unsigned long long)i);
    if ((sizes.scales && !scales) || (sizes.zero_points && !zero_points))
        return clq_fail(err, CLQ_USAGE, "the type has scales or zero-points; give memory for them");
    uint64_t row_bytes = cols * clq_format_at(source)->block_bytes;
    clq_tile t = {.type = *type, .source = source, .src = x, .rows = rows, .cols = cols, .in_place = true,
                  .importance = importance};
    target to = {.codes = codes, .scales = scales, .zero_points = zero_points};
    if (type->format == CLQ_INT && type->granularity == CLQ_PER_TENSOR && rows) {
        t.range_only = true;
        CLQ_TRY(run(d, &t, row_bytes, &to, err));
        t.range_only = false;
        clq_int_params(type, to.min, to.max, &t.scale, &t.zero_point);
        clq_store_floats(type->scale_format, &t.scale, 1, scales);
        if (sizes.zero_points) *(int8_t *)zero_points = t.zero_point;
    }
    CLQ_TRY(run(d, &t, row_bytes, &to, err));
    if (stats) *stats = to.stats;
    if (to.stats.bad_inputs) return clq_fail(err, CLQ_BAD_INPUT, "the tensor holds NaN or infinite values");
    if (to.stats.bad_outputs) return clq_fail(err, CLQ_BAD_INPUT, "a scale is out of its dtype's range");
    return CLQ_OK;
}

clq_status clq_decode(clq_device *d, const clq_type *type, const void *codes, const void *scales,
                      const void *zero_points, uint64_t rows, uint64_t cols, float *y, clq_error *err)
{
    clq_part_sizes sizes;
    CLQ_TRY(clq_type_sizes(type, rows, cols, &sizes, err));
    uint64_t n_scales = sizes.scales / (type->format == CLQ_INT ? clq_format_at(type->scale_format)->block_bytes : 1);
    float *as_floats = malloc((n_scales + 1) * sizeof *as_floats);
    if (!as_floats) return clq_fail_memory(err, n_scales * sizeof *as_floats);
    if (n_scales) clq_load_floats(type->scale_format, scales, n_scales, as_floats);
    clq_tile t = {.type = *type, .source = CLQ_F32, .src = codes, .rows = rows, .cols = cols, .decode_only = true,
                  .scales = as_floats, .zero_points = sizes.zero_points ? zero_points : NULL};
    target to = {.floats = y};
    clq_status st = run(d, &t, clq_type_row_bytes(type, cols), &to, err);
    free(as_floats);
    return st;
}

// ---- reductions ----

clq_status clq_minmax(clq_device *d, clq_format_id source, const void *x, uint64_t rows, uint64_t cols,
                      uint64_t group_size, float *min, float *max, clq_error *err)
{
    CLQ_TRY(check_source(source, err));
    if (!rows || !cols || (group_size && cols % group_size))
        return clq_fail(err, CLQ_USAGE, "a group must divide the row, and the tensor must not be empty");
    clq_tile t = {.type = clq_plain(CLQ_F32), .source = source, .src = x, .rows = rows, .cols = cols, .in_place = true,
                  .range_only = true, .range_len = group_size};
    target to = {.mins = min, .maxs = max};
    CLQ_TRY(run(d, &t, cols * clq_format_at(source)->block_bytes, &to, err));
    if (!group_size) {
        *min = to.min;
        *max = to.max;
    }
    return CLQ_OK;
}

clq_status clq_absmax(clq_device *d, clq_format_id source, const void *x, uint64_t rows, uint64_t cols,
                      uint64_t group_size, float *absmax, clq_error *err)
{
    uint64_t n = group_size && cols ? rows * (cols / group_size) : 1;
    float *min = malloc(n * sizeof *min);
    if (!min) return clq_fail_memory(err, n * sizeof *min);
    clq_status st = clq_minmax(d, source, x, rows, cols, group_size, min, absmax, err);
    for (uint64_t i = 0; i < n && st == CLQ_OK; i++)
        if (!isnan(absmax[i])) absmax[i] = fmaxf(absmax[i], -min[i]);
    free(min);
    return st;
}

// SPDX-License-Identifier: MIT
// The buffers of one tile in flight, and the launches that encode it.
//
// Unified memory: arrays are host memory that the device uses in place (map, unmap around kernels).
// Discrete: arrays are device memory with a pinned twin on the host; uploads, kernels and downloads
// go to three in-order queues, so that tiles of different lanes overlap.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/threads.h"
#include "device/opencl.h"
#include "ops/reduce.h"

enum { PAGE = 4096, RANGE_STRETCH = 65536, N_ARRAYS = 11 };

typedef struct {
    cl_mem mem;
    cl_mem pinned; // discrete only
    void *host;
    size_t n_bytes;
    bool mapped;   // unified only: the host may touch it
} array;

// kernels/common.cl: tile_stats
typedef struct {
    cl_float sum_x2, sum_e2, max_error;
    cl_uint bad_inputs, bad_outputs;
} tile_stats;

typedef struct {
    clq_lane base;
    array src, floats, range, scale_floats, scales, zero_points, codes, stats, lost, importance, mean_squares;
    cl_mem in_place;      // the tile's own memory, used as it is
    cl_event uploaded, done;
    clq_tile tile;
    clq_tile_result result;
    uint64_t n_stats, n_range;
    bool busy, by_reference;
    clq_ref_arrays ref;
    void *ref_src;
} cl_lane;

static clq_opencl *device_of(const cl_lane *l) { return clq_opencl_of(l->base.device); }

// ---- arrays ----

static void array_free(clq_opencl *d, array *a)
{
    if (a->pinned) {
        if (a->host) clEnqueueUnmapMemObject(d->compute, a->pinned, a->host, 0, NULL, NULL);
        clReleaseMemObject(a->pinned);
    } else if (a->mem && a->mapped) {
        clEnqueueUnmapMemObject(d->compute, a->mem, a->host, 0, NULL, NULL);
    }
    clFinish(d->compute);
    if (a->mem) clReleaseMemObject(a->mem);
    if (!a->pinned) free(a->host);
    *a = (array){0};
}

static clq_status array_create(clq_opencl *d, array *a, uint64_t n_bytes, clq_error *err)
{
    cl_int code;
    uint64_t rounded;
    // Host memory is taken in pages; device memory to the byte, so that Oclgrind sees an overrun.
    if (!clq_round_up_u64(n_bytes ? n_bytes : 1, d->unified ? PAGE : 4, &rounded)) return clq_fail_memory(err, n_bytes);
    if (rounded > d->base.info.max_allocation)
        return clq_fail(err, CLQ_DEVICE, "a buffer of %llu bytes is above the %llu that '%s' allocates at once",
                        (unsigned long long)rounded, (unsigned long long)d->base.info.max_allocation,
                        d->base.info.name);
    a->n_bytes = rounded;
    if (d->unified) {
        a->host = aligned_alloc(PAGE, rounded);
        if (!a->host) return clq_fail_memory(err, rounded);
        a->mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, rounded, a->host, &code);
        return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "a buffer of %zu bytes", a->n_bytes);
    }
    a->mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE, rounded, NULL, &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "a device buffer of %zu bytes", a->n_bytes);
    a->pinned = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, rounded, NULL, &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "a pinned buffer of %zu bytes", a->n_bytes);
    a->host = clEnqueueMapBuffer(d->compute, a->pinned, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, rounded, 0, NULL, NULL,
                                 &code);
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "mapping a pinned buffer of %zu bytes", a->n_bytes);
}

// Created when first needed, for the lane's limits.
static clq_status need(clq_opencl *d, array *a, uint64_t n_bytes, clq_error *err)
{
    return a->mem ? CLQ_OK : array_create(d, a, n_bytes, err);
}

// Makes the host's side writable. Discrete pinned memory always is.
static clq_status array_open(clq_opencl *d, array *a, clq_error *err)
{
    cl_int code = CL_SUCCESS;
    if (!d->unified || a->mapped) return CLQ_OK;
    clEnqueueMapBuffer(d->compute, a->mem, CL_TRUE, CL_MAP_WRITE_INVALIDATE_REGION, 0, a->n_bytes, 0, NULL, NULL,
                       &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "mapping a buffer");
    a->mapped = true;
    return CLQ_OK;
}

static void array_give(clq_opencl *d, array *a)
{
    if (!a->mapped) return;
    clEnqueueUnmapMemObject(d->compute, a->mem, a->host, 0, NULL, NULL);
    a->mapped = false;
}

// The host's bytes go to the device.
static clq_status array_send(clq_opencl *d, array *a, uint64_t n_bytes, cl_event *sent, clq_error *err)
{
    if (d->unified) {
        array_give(d, a);
        return CLQ_OK;
    }
    if (*sent) clReleaseEvent(*sent);
    *sent = NULL;
    cl_int code = clEnqueueWriteBuffer(d->upload, a->mem, CL_FALSE, 0, n_bytes, a->host, 0, NULL, sent);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "an upload of %llu bytes", (unsigned long long)n_bytes);
    clFlush(d->upload);
    return CLQ_OK;
}

// Asks for the first n_bytes on the host, after `after` (discrete). *done: the last such request.
static clq_status array_fetch(clq_opencl *d, array *a, uint64_t n_bytes, cl_event after, cl_event *done, clq_error *err)
{
    if (!n_bytes) return CLQ_OK;
    cl_int code;
    cl_event event = NULL;
    if (d->unified) {
        clEnqueueMapBuffer(d->compute, a->mem, CL_FALSE, CL_MAP_READ, 0, n_bytes, 0, NULL, &event, &code);
        if (code == CL_SUCCESS) a->mapped = true;
    } else {
        code = clEnqueueReadBuffer(d->download, a->mem, CL_FALSE, 0, n_bytes, a->host, after ? 1 : 0,
                                   after ? &after : NULL, &event);
    }
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "a download of %llu bytes", (unsigned long long)n_bytes);
    if (*done) clReleaseEvent(*done);
    *done = event;
    return CLQ_OK;
}

// ---- the lane ----

clq_status clq_cl_lane_create(clq_device *device, const clq_lane_limits *limits, clq_lane **lane, clq_error *err)
{
    cl_lane *l = calloc(1, sizeof *l);
    *lane = NULL;
    if (!l) return clq_fail_memory(err, sizeof *l);
    l->base = (clq_lane){.device = device, .limits = *limits};
    *lane = &l->base;
    return CLQ_OK;
}

static void release_events(cl_lane *l)
{
    if (l->uploaded) clReleaseEvent(l->uploaded);
    if (l->done) clReleaseEvent(l->done);
    l->uploaded = l->done = NULL;
}

static array *const *arrays_of(cl_lane *l, array *list[N_ARRAYS])
{
    array *all[N_ARRAYS] = {&l->src, &l->floats, &l->range, &l->scale_floats, &l->scales, &l->zero_points,
                            &l->codes, &l->stats, &l->lost, &l->mean_squares, &l->importance};
    memcpy(list, all, sizeof all);
    return list;
}

void clq_cl_lane_free(clq_lane *lane)
{
    cl_lane *l = (cl_lane *)lane;
    if (!l) return;
    clq_opencl *d = device_of(l);
    clFinish(d->upload);
    clFinish(d->compute);
    clFinish(d->download);
    release_events(l);
    if (l->in_place) clReleaseMemObject(l->in_place);
    array *list[N_ARRAYS];
    arrays_of(l, list);
    for (int i = 0; i < N_ARRAYS; i++) array_free(d, list[i]);
    clq_ref_arrays_free(&l->ref);
    free(l->ref_src);
    free(l);
}

void *clq_cl_lane_staging(clq_lane *lane)
{
    cl_lane *l = (cl_lane *)lane;
    clq_opencl *d = device_of(l);
    if (need(d, &l->src, lane->limits.src_bytes, NULL) != CLQ_OK || array_open(d, &l->src, NULL) != CLQ_OK) return NULL;
    return l->src.host;
}

// ---- submitting ----

typedef struct {
    cl_mem mem;
    cl_ulong first;     // in elements (encode, range) or bytes (decode)
    clq_format_id format; // F32, F16 or BF16 once it is decoded
} input;

static size_t element_bytes(clq_format_id f) { return f == CLQ_F32 ? 4 : 2; }
static bool is_direct(clq_format_id f) { return f == CLQ_F32 || f == CLQ_F16 || f == CLQ_BF16; }

typedef struct {
    uint8_t *to;
    const uint8_t *from;
    uint64_t n_bytes;
} copying;

enum { COPY_PIECE = 1 << 20, COPY_THREADS = 8 };

static void copy_pieces(void *ctx, uint64_t begin, uint64_t end)
{
    const copying *c = ctx;
    uint64_t at = begin * COPY_PIECE, last = end * COPY_PIECE < c->n_bytes ? end * COPY_PIECE : c->n_bytes;
    memcpy(c->to + at, c->from + at, last - at);
}

// One thread does not keep up with a GPU's bus, least of all from a file's pages.
static void copy_to_staging(uint32_t threads, void *to, const void *from, uint64_t n_bytes)
{
    copying c = {to, from, n_bytes};
    clq_parallel(threads < COPY_THREADS ? threads : COPY_THREADS, clq_div_up(n_bytes, COPY_PIECE), 1, copy_pieces, &c);
}

// Makes the tile's source visible to the device: in place where it can be.
static clq_status bind_source(cl_lane *l, input *in, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    clq_format_id format = t->decode_only ? t->type.format : t->source;
    in->format = format;
    in->first = 0;
    uintptr_t at = (uintptr_t)t->src, page = at & ~(uintptr_t)(PAGE - 1);
    bool staged = l->src.host && t->src == l->src.host;
    bool direct = is_direct(format) && !t->decode_only;
    bool aligned = format == CLQ_INT ? at % 4 == 0 : direct ? at % element_bytes(format) == 0 : at % 2 == 0;
    if (!staged && d->unified && t->in_place && aligned && at - page + t->src_bytes <= d->base.info.max_allocation) {
        cl_int code;
        l->in_place = clCreateBuffer(d->context, CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, at - page + t->src_bytes,
                                     (void *)page, &code);
        if (code == CL_SUCCESS) {
            in->mem = l->in_place;
            in->first = direct ? (at - page) / element_bytes(format) : at - page;
            return CLQ_OK;
        }
        l->in_place = NULL;
    }
    if (!staged) {
        void *staging = clq_cl_lane_staging(&l->base);
        if (!staging) return clq_fail_memory(err, l->base.limits.src_bytes);
        copy_to_staging(l->base.device->threads, staging, t->src, t->src_bytes);
    }
    in->mem = l->src.mem;
    return array_send(d, &l->src, t->src_bytes, &l->uploaded, err);
}

// weights: the kernels' macro IMPORTANCE.
static clq_status kernel_for(cl_lane *l, const clq_type *type, clq_format_id source, const char *what,
                             clq_weights weights, clq_kernel **k, clq_error *err)
{
    static const clq_format_id plain[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    char file[48], options[96], name[32];
    int src = 0;
    for (int i = 0; i < 3; i++)
        if (source == plain[i]) src = i;
    if (type->format == CLQ_INT) {
        snprintf(file, sizeof file, "formats/integer.cl");
        snprintf(options, sizeof options, "-DSRC=%d -DBITS=%d", src, type->bits);
        snprintf(name, sizeof name, "int_%s", what);
    } else {
        const char *format = clq_format_at(type->format)->name;
        snprintf(file, sizeof file, "formats/%s.cl", is_direct(type->format) ? "plain" : format);
        snprintf(options, sizeof options, weights ? "-DSRC=%d -DIMPORTANCE=%d" : "-DSRC=%d", src, (int)weights);
        snprintf(name, sizeof name, "%s_%s", format, what);
    }
    clq_opencl *d = device_of(l);
    bool searches = weights || clq_format_row(type->format)->weights == CLQ_WEIGHTS_USED;
    if (type->format == CLQ_IQ1_S || type->format == CLQ_IQ1_M) searches = false; // they sort, lane by lane: 25% slower
    return clq_kernel_get(d, file, searches ? d->search_lanes : d->lanes, options, name, k, err);
}

// Work-groups over n_elements: of CLQ_UNITS blocks, or as many elements as 32 blocks' of a plain format.
static uint64_t groups_of(clq_format_id format, uint64_t n_elements)
{
    uint32_t block = clq_format_at(format)->block_elements;
    return clq_div_up(n_elements, CLQ_UNITS * (block == 1 ? 32 : block));
}

// Blocks, as the kernels count: of 32 elements, or single ones of a plain format.
static cl_uint blocks_of(clq_format_id format, uint64_t n_elements)
{
    return (cl_uint)(n_elements / clq_format_at(format)->block_elements);
}

static clq_status decode_blocks(cl_lane *l, input *in, clq_error *err)
{
    clq_opencl *d = device_of(l);
    clq_format_id format = in->format;
    clq_type type = clq_plain(format);
    uint64_t n = l->tile.rows * l->tile.cols;
    clq_kernel *k;
    CLQ_TRY(need(d, &l->floats, l->base.limits.n_elements * 4, err));
    array_give(d, &l->floats);
    CLQ_TRY(kernel_for(l, &type, CLQ_F32, "decode", CLQ_WEIGHTS_IGNORED, &k, err));
    cl_uint n_blocks = blocks_of(format, n);
    clq_arg args[] = {CLQ_ARG(in->mem), CLQ_ARG(in->first), CLQ_ARG(n_blocks), CLQ_ARG(l->floats.mem)};
    CLQ_TRY(clq_launch(d, k, groups_of(format, n), args, 4, &l->uploaded, err));
    *in = (input){.mem = l->floats.mem, .first = 0, .format = CLQ_F32};
    return CLQ_OK;
}

// What the format's encode kernel looks up, on the device; NULL: nothing.
static clq_status table_of(clq_opencl *d, clq_format_id format, cl_mem *table, clq_error *err)
{
    const clq_format *f = clq_format_row(format);
    if (f->table && !d->tables[format]) {
        size_t n_bytes;
        cl_int code;
        const void *bytes = f->table(&n_bytes);
        d->tables[format] =
            clCreateBuffer(d->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, n_bytes, (void *)bytes, &code);
        if (code != CL_SUCCESS) {
            d->tables[format] = NULL;
            return clq_cl_fail(err, code, "the table of %s, %zu bytes", f->info.name, n_bytes);
        }
    }
    *table = d->tables[format];
    return CLQ_OK;
}

// The tile's importance row on the device, and for CLQ_WEIGHTS_BY_ROW the rows' mean squares.
static clq_status bind_importance(cl_lane *l, const input *in, clq_weights weights, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    if (l->importance.mem && l->importance.n_bytes < t->cols * sizeof(float)) array_free(d, &l->importance);
    CLQ_TRY(need(d, &l->importance, t->cols * sizeof(float), err));
    CLQ_TRY(array_open(d, &l->importance, err));
    memcpy(l->importance.host, t->importance, t->cols * sizeof(float));
    CLQ_TRY(array_send(d, &l->importance, t->cols * sizeof(float), &l->uploaded, err)); // behind the source, in order
    if (weights != CLQ_WEIGHTS_BY_ROW) return CLQ_OK;
    if (l->mean_squares.mem && l->mean_squares.n_bytes < t->rows * sizeof(float)) array_free(d, &l->mean_squares);
    CLQ_TRY(need(d, &l->mean_squares, t->rows * sizeof(float), err));
    array_give(d, &l->mean_squares);
    char options[16];
    snprintf(options, sizeof options, "-DSRC=%d", in->format == CLQ_F32 ? 0 : in->format == CLQ_F16 ? 1 : 2);
    clq_kernel *k;
    CLQ_TRY(clq_kernel_get(d, "reduce.cl", d->lanes, options, "mean_squares", &k, err));
    cl_uint rows = (cl_uint)t->rows, cols = (cl_uint)t->cols;
    clq_arg args[] = {CLQ_ARG(in->mem), CLQ_ARG(in->first), CLQ_ARG(rows), CLQ_ARG(cols), CLQ_ARG(l->mean_squares.mem)};
    return clq_launch(d, k, clq_div_up(rows, CLQ_UNITS), args, 5, &l->uploaded, err);
}

static clq_status encode_blocks(cl_lane *l, const input *in, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    uint64_t n = t->rows * t->cols;
    clq_weights weights = t->importance ? clq_format_row(t->type.format)->weights : CLQ_WEIGHTS_IGNORED;
    clq_kernel *k;
    CLQ_TRY(kernel_for(l, &t->type, in->format, "encode", weights, &k, err));
    if (weights) CLQ_TRY(bind_importance(l, in, weights, err));
    cl_uint n_blocks = blocks_of(t->type.format, n), per_row = blocks_of(t->type.format, t->cols);
    l->n_stats = groups_of(t->type.format, n);
    cl_mem table;
    CLQ_TRY(table_of(d, t->type.format, &table, err));
    clq_arg args[9] = {CLQ_ARG(in->mem), CLQ_ARG(in->first), CLQ_ARG(n_blocks), CLQ_ARG(l->codes.mem),
                       CLQ_ARG(l->stats.mem)};
    cl_uint n_args = 5;
    if (table) args[n_args++] = CLQ_ARG(table);
    if (weights) {
        args[n_args++] = CLQ_ARG(l->importance.mem);
        args[n_args++] = CLQ_ARG(per_row);
    }
    if (weights == CLQ_WEIGHTS_BY_ROW) args[n_args++] = CLQ_ARG(l->mean_squares.mem);
    return clq_launch(d, k, l->n_stats, args, n_args, &l->uploaded, err);
}

// (min, max) of stretches of `len` elements.
static clq_status launch_minmax(cl_lane *l, const input *in, cl_ulong len, clq_error *err)
{
    clq_opencl *d = device_of(l);
    char options[16];
    snprintf(options, sizeof options, "-DSRC=%d", in->format == CLQ_F32 ? 0 : in->format == CLQ_F16 ? 1 : 2);
    clq_kernel *k;
    CLQ_TRY(clq_kernel_get(d, "reduce.cl", d->lanes, options, "minmax", &k, err));
    cl_ulong total = l->tile.rows * l->tile.cols;
    cl_uint n_groups = (cl_uint)clq_div_up(total, len);
    cl_uint per_item = d->work_groups ? 1 : len < 4096 ? (cl_uint)(4096 / len) : 1;
    l->n_range = n_groups;
    clq_arg args[] = {CLQ_ARG(in->mem), CLQ_ARG(in->first), CLQ_ARG(total), CLQ_ARG(len),
                      CLQ_ARG(n_groups), CLQ_ARG(per_item), CLQ_ARG(l->range.mem)};
    return clq_launch(d, k, clq_div_up(n_groups, per_item), args, 7, &l->uploaded, err);
}

// The scales and zero-points that the tile came with, on the device.
static clq_status bind_given(cl_lane *l, uint64_t n_groups, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    CLQ_TRY(array_open(d, &l->scale_floats, err));
    CLQ_TRY(array_open(d, &l->zero_points, err));
    memcpy(l->scale_floats.host, t->given_scales, n_groups * sizeof(float));
    if (t->given_zero_points)
        memcpy(l->zero_points.host, t->given_zero_points, n_groups);
    else
        memset(l->zero_points.host, 0, n_groups);
    CLQ_TRY(array_send(d, &l->scale_floats, n_groups * sizeof(float), &l->uploaded, err)); // behind the source
    return array_send(d, &l->zero_points, n_groups, &l->uploaded, err);
}

static clq_status encode_ints(cl_lane *l, const input *in, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    bool one = t->type.granularity == CLQ_PER_TENSOR;
    cl_uint given = clq_tile_given(t);
    cl_uint groups = (cl_uint)clq_type_groups(&t->type, t->cols), per_group = (cl_uint)(t->cols / groups);
    cl_uint n_groups = (cl_uint)(t->rows * groups), rows = (cl_uint)t->rows, cols = (cl_uint)t->cols;
    cl_uint symmetric = t->type.symmetric;
    cl_int lowest = -(1 << (t->type.bits - 1)) + (symmetric && !given);
    cl_uint scale_format = t->type.scale_format == CLQ_F16 ? 1 : t->type.scale_format == CLQ_BF16 ? 2 : 0;
    clq_kernel *params, *encode;
    cl_uint zero = 0;
    clEnqueueFillBuffer(d->compute, l->lost.mem, &zero, sizeof zero, 0, sizeof zero, 0, NULL, NULL);
    if (one) {
        clEnqueueFillBuffer(d->compute, l->scale_floats.mem, &t->scale, 4, 0, 4, 0, NULL, NULL);
        clEnqueueFillBuffer(d->compute, l->zero_points.mem, &t->zero_point, 1, 0, 1, 0, NULL, NULL);
        groups = 0;
    } else {
        if (given) CLQ_TRY(bind_given(l, n_groups, err));
        CLQ_TRY(launch_minmax(l, in, per_group, err));
        CLQ_TRY(kernel_for(l, &t->type, in->format, "params", CLQ_WEIGHTS_IGNORED, &params, err));
        clq_arg args[] = {CLQ_ARG(l->range.mem), CLQ_ARG(n_groups), CLQ_ARG(l->scale_floats.mem),
                          CLQ_ARG(l->scales.mem), CLQ_ARG(l->zero_points.mem), CLQ_ARG(l->lost.mem),
                          CLQ_ARG(symmetric), CLQ_ARG(scale_format), CLQ_ARG(given)};
        CLQ_TRY(clq_launch(d, params, clq_div_up(n_groups, CLQ_UNITS), args, 9, NULL, err));
    }
    CLQ_TRY(kernel_for(l, &t->type, in->format, "encode", CLQ_WEIGHTS_IGNORED, &encode, err));
    l->n_stats = clq_div_up(t->rows * clq_div_up(t->cols, 32), CLQ_UNITS);
    clq_arg args[] = {CLQ_ARG(in->mem), CLQ_ARG(in->first), CLQ_ARG(rows), CLQ_ARG(cols),
                      CLQ_ARG(per_group), CLQ_ARG(groups), CLQ_ARG(l->scale_floats.mem), CLQ_ARG(l->zero_points.mem),
                      CLQ_ARG(l->codes.mem), CLQ_ARG(l->stats.mem), CLQ_ARG(symmetric), CLQ_ARG(lowest)};
    return clq_launch(d, encode, l->n_stats, args, 12, &l->uploaded, err);
}

static clq_status decode_ints(cl_lane *l, const input *in, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    bool one = t->type.granularity == CLQ_PER_TENSOR;
    cl_uint groups = (cl_uint)clq_type_groups(&t->type, t->cols), per_group = (cl_uint)(t->cols / groups);
    cl_uint rows = (cl_uint)t->rows, cols = (cl_uint)t->cols, symmetric = !t->zero_points;
    uint64_t n_scales = one ? 1 : t->rows * groups;
    if (one) groups = 0;
    if (in->first) return clq_fail(err, CLQ_DEVICE, "integer codes must start at the buffer's begin");
    CLQ_TRY(need(d, &l->floats, l->base.limits.n_elements * 4, err));
    CLQ_TRY(need(d, &l->scale_floats, l->base.limits.n_groups * 4, err));
    CLQ_TRY(need(d, &l->zero_points, l->base.limits.n_groups, err));
    array_give(d, &l->floats);
    cl_int code =
        clEnqueueWriteBuffer(d->compute, l->scale_floats.mem, CL_TRUE, 0, n_scales * 4, t->scales, 0, NULL, NULL);
    if (code == CL_SUCCESS && t->zero_points)
        code =
            clEnqueueWriteBuffer(d->compute, l->zero_points.mem, CL_TRUE, 0, n_scales, t->zero_points, 0, NULL, NULL);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "uploading scales");
    clq_kernel *k;
    CLQ_TRY(kernel_for(l, &t->type, CLQ_F32, "decode", CLQ_WEIGHTS_IGNORED, &k, err));
    clq_arg args[] = {CLQ_ARG(in->mem), CLQ_ARG(rows), CLQ_ARG(cols), CLQ_ARG(per_group), CLQ_ARG(groups),
                      CLQ_ARG(l->scale_floats.mem), CLQ_ARG(l->zero_points.mem), CLQ_ARG(l->floats.mem),
                      CLQ_ARG(symmetric)};
    return clq_launch(d, k, clq_div_up(t->rows * clq_div_up(t->cols, 32), CLQ_UNITS), args, 9, &l->uploaded, err);
}

static clq_status prepare_arrays(cl_lane *l, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_lane_limits *lim = &l->base.limits;
    const clq_tile *t = &l->tile;
    bool ints = t->type.format == CLQ_INT;
    if (t->decode_only) return CLQ_OK;
    if (t->range_only || ints) {
        uint64_t stretches = clq_div_up(lim->n_elements, RANGE_STRETCH);
        CLQ_TRY(need(d, &l->range, 8 * (lim->n_groups > stretches ? lim->n_groups : stretches), err));
    }
    if (t->range_only) {
        array_give(d, &l->range);
        return CLQ_OK;
    }
    if (ints) {
        CLQ_TRY(need(d, &l->scale_floats, lim->n_groups * 4, err));
        CLQ_TRY(need(d, &l->scales, lim->n_groups * 4, err));
        CLQ_TRY(need(d, &l->zero_points, lim->n_groups, err));
        CLQ_TRY(need(d, &l->lost, sizeof(cl_uint), err));
    }
    // Rows end in part units, at most one a row; a row has at least one element.
    uint64_t units = clq_div_up(lim->n_elements, 32) + (ints ? lim->n_groups + t->rows : 0);
    CLQ_TRY(need(d, &l->stats, (clq_div_up(units, CLQ_UNITS) + 1) * sizeof(tile_stats), err));
    CLQ_TRY(need(d, &l->codes, lim->code_bytes, err));
    array *list[N_ARRAYS];
    arrays_of(l, list);
    for (int i = 2; i < N_ARRAYS - 1; i++) array_give(d, list[i]); // src and importance are the host's to fill
    return CLQ_OK;
}

// A marker behind the kernels, for the download queue to wait on.
static clq_status fetch_results(cl_lane *l, clq_error *err)
{
    clq_opencl *d = device_of(l);
    const clq_tile *t = &l->tile;
    cl_event kernels = NULL;
    clq_status st = CLQ_OK;
    bool ints = t->type.format == CLQ_INT && t->type.granularity != CLQ_PER_TENSOR;
    if (!d->unified) {
        cl_int code = clEnqueueMarkerWithWaitList(d->compute, 0, NULL, &kernels);
        if (code != CL_SUCCESS) return clq_cl_fail(err, code, "a marker");
    }
    clFlush(d->compute);
    if (t->decode_only) {
        CLQ_TRY_OUT(array_fetch(d, &l->floats, t->rows * t->cols * 4, kernels, &l->done, err));
    } else if (t->range_only) {
        CLQ_TRY_OUT(array_fetch(d, &l->range, l->n_range * 8, kernels, &l->done, err));
    } else {
        CLQ_TRY_OUT(array_fetch(d, &l->codes, l->result.sizes.codes, kernels, &l->done, err));
        if (ints) {
            CLQ_TRY_OUT(array_fetch(d, &l->scales, l->result.sizes.scales, kernels, &l->done, err));
            CLQ_TRY_OUT(array_fetch(d, &l->zero_points, l->result.sizes.zero_points, kernels, &l->done, err));
            CLQ_TRY_OUT(array_fetch(d, &l->lost, sizeof(cl_uint), kernels, &l->done, err));
        }
        CLQ_TRY_OUT(array_fetch(d, &l->stats, l->n_stats * sizeof(tile_stats), kernels, &l->done, err));
    }
    clFlush(d->download);
out:
    if (kernels) clReleaseEvent(kernels);
    return st;
}

static clq_status submit_reference(cl_lane *l, clq_error *err)
{
    if (!l->ref.codes) CLQ_TRY(clq_ref_arrays_create(&l->base.limits, &l->ref, err));
    return clq_ref_tile(l->base.device->threads, &l->tile, &l->ref, &l->result, err);
}

clq_status clq_cl_lane_submit(clq_lane *lane, const clq_tile *tile, clq_error *err)
{
    cl_lane *l = (cl_lane *)lane;
    clq_opencl *d = device_of(l);
    if (tile->rows > UINT32_MAX || tile->cols > UINT32_MAX || tile->rows * tile->cols > UINT32_MAX)
        return clq_fail(err, CLQ_DEVICE, "a tile of more than 2^32 elements");
    l->tile = *tile;
    l->result = (clq_tile_result){0};
    CLQ_TRY(clq_family_get(d, tile, &l->by_reference, err));
    if (l->by_reference) return submit_reference(l, err);
    if (!tile->decode_only && !tile->range_only) CLQ_TRY(clq_tile_sizes(tile, &l->result.sizes, err));
    input in;
    CLQ_TRY(prepare_arrays(l, err));
    CLQ_TRY(bind_source(l, &in, err));
    if (tile->decode_only)
        CLQ_TRY(tile->type.format == CLQ_INT ? decode_ints(l, &in, err) : decode_blocks(l, &in, err));
    else if (!is_direct(in.format))
        CLQ_TRY(decode_blocks(l, &in, err));
    if (tile->range_only)
        CLQ_TRY(launch_minmax(l, &in, tile->range_len ? tile->range_len : RANGE_STRETCH, err));
    else if (!tile->decode_only)
        CLQ_TRY(tile->type.format == CLQ_INT ? encode_ints(l, &in, err) : encode_blocks(l, &in, err));
    CLQ_TRY(fetch_results(l, err));
    l->busy = true;
    return CLQ_OK;
}

static void read_results(cl_lane *l)
{
    clq_tile_result *r = &l->result;
    const clq_tile *t = &l->tile;
    if (t->decode_only) {
        r->floats = l->floats.host;
        return;
    }
    if (t->range_only) {
        const float *pairs = l->range.host;
        if (t->range_len) {
            r->ranges = pairs;
            r->n_ranges = l->n_range;
            return;
        }
        r->min = pairs[0];
        r->max = pairs[1];
        for (uint64_t i = 1; i < l->n_range; i++) {
            float mins[] = {r->min, pairs[2 * i]}, maxs[] = {r->max, pairs[2 * i + 1]};
            clq_minmax_merge(mins, maxs, 2, &r->min, &r->max);
        }
        return;
    }
    r->codes = l->codes.host;
    if (r->sizes.scales) r->scales = l->scales.host;
    if (r->sizes.zero_points) r->zero_points = l->zero_points.host;
    if (r->sizes.scales) r->stats.lost_groups = *(const cl_uint *)l->lost.host;
    const tile_stats *s = l->stats.host;
    for (uint64_t i = 0; i < l->n_stats; i++) {
        r->stats.sum_x2 += (double)s[i].sum_x2;
        r->stats.sum_e2 += (double)s[i].sum_e2;
        r->stats.max_error = fmax(r->stats.max_error, (double)s[i].max_error);
        r->stats.bad_inputs += s[i].bad_inputs;
        r->stats.bad_outputs += s[i].bad_outputs;
    }
}

clq_status clq_cl_lane_wait(clq_lane *lane, clq_tile_result *result, clq_error *err)
{
    cl_lane *l = (cl_lane *)lane;
    if (l->busy) {
        l->busy = false;
        cl_int code = l->done ? clWaitForEvents(1, &l->done) : CL_SUCCESS;
        release_events(l);
        if (l->in_place) clReleaseMemObject(l->in_place);
        l->in_place = NULL;
        if (code != CL_SUCCESS) return clq_cl_fail(err, code, "waiting for '%s'", lane->device->info.name);
        read_results(l);
    }
    *result = l->result;
    return CLQ_OK;
}

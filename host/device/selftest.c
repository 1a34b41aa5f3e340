// SPDX-License-Identifier: MIT
// The self-test: the first time that a kernel family is used on a device, a small tile goes through
// it and through the C references. Other bytes (or, without correctly rounded division, a larger
// error), a failed build or launch: that family falls back to the references, with one warning.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "device/opencl.h"

enum { ROWS = 5, MAX_COLS = 3 * 1024 };

// Values over many magnitudes, with zero, constant and tied stretches.
static void fill(float *x, uint32_t n)
{
    uint32_t state = 12345;
    for (uint32_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float v = (float)(int32_t)state * 0x1p-31f;
        uint32_t stretch = i / 32 % 8;
        float magnitude = stretch == 1 ? 1e-4f : stretch == 2 ? 100.0f : stretch == 3 ? 0.02f : 1.0f;
        x[i] = stretch == 5 ? 0.0f : stretch == 6 ? 0.75f : stretch == 7 ? (i % 2 ? -0.5f : 0.5f) : v * magnitude;
    }
}

static bool close_enough(double ours, double theirs)
{
    return ours <= theirs * 1.001 + 1e-12;
}

static bool same(const clq_device_info *info, const clq_tile *t, const clq_tile_result *a, const clq_tile_result *b)
{
    uint64_t n = t->rows * t->cols;
    if (t->decode_only) return memcmp(a->floats, b->floats, n * sizeof(float)) == 0;
    if (t->range_only) return a->min == b->min && a->max == b->max;
    if (!info->exact_divide) return close_enough(a->stats.sum_e2, b->stats.sum_e2);
    if (memcmp(a->codes, b->codes, b->sizes.codes) != 0) return false;
    if (b->sizes.scales && memcmp(a->scales, b->scales, b->sizes.scales) != 0) return false;
    if (b->sizes.zero_points && memcmp(a->zero_points, b->zero_points, b->sizes.zero_points) != 0) return false;
    return fabs(a->stats.sum_e2 - b->stats.sum_e2) <= 1e-3 * b->stats.sum_e2 + 1e-12;
}

// Scales of both signs and 0, that every dtype holds, and zero-points that 2 bits hold.
static void give_params(clq_tile *t)
{
    static const float choice[] = {0.03125f, -0.015625f, 0.0f, 0.1875f, -0.25f};
    static float scales[ROWS * (MAX_COLS / 32)]; // the same values whoever fills them
    static int8_t zeros[ROWS * (MAX_COLS / 32)];
    for (uint32_t i = 0; i < ROWS * (MAX_COLS / 32); i++) {
        scales[i] = choice[i % 5];
        zeros[i] = (int8_t)(i % 4 - 2);
    }
    t->given_scales = scales;
    t->given_zero_points = t->type.symmetric ? NULL : zeros;
}

// A small tile of the family's kind in `t`, its source in *bytes.
static clq_status make_tile(const clq_tile *like, clq_tile *t, void **bytes, clq_error *err)
{
    clq_format_id stored = like->decode_only && like->type.format != CLQ_INT ? like->type.format : like->source;
    uint64_t block = clq_format_at(stored)->block_elements;
    uint64_t widest = clq_format_at(like->type.format)->block_elements;
    if (block > widest) widest = block;
    *t = *like;
    if (t->type.format == CLQ_INT && t->type.granularity == CLQ_PER_GROUP) t->type.group_size = 64;
    t->rows = ROWS;
    bool ragged = t->type.format == CLQ_INT && t->type.granularity != CLQ_PER_GROUP && block == 1;
    t->cols = widest > 32 ? widest * 3 : ragged ? 973 : 960;
    t->in_place = false;
    t->scale = 0.01f;
    t->zero_point = 0;
    uint64_t n = t->rows * t->cols;
    float *x = malloc(n * sizeof *x);
    *bytes = malloc(n * sizeof *x);
    if (!x || !*bytes) {
        free(x);
        free(*bytes);
        *bytes = NULL;
        return clq_fail_memory(err, n * sizeof *x);
    }
    static float importance[MAX_COLS]; // the same values whoever fills it
    for (uint32_t i = 0; i < MAX_COLS; i++) importance[i] = (float)(i * 7 % 32) * 0.125f;
    if (like->importance) t->importance = importance;
    if (clq_tile_given(like)) give_params(t);
    fill(x, (uint32_t)n);
    clq_format_row(stored)->encode_ref(x, NULL, n / block, *bytes);
    t->src = *bytes;
    t->src_bytes = n / block * clq_format_at(stored)->block_bytes;
    free(x);
    return CLQ_OK;
}

static bool is_family(const clq_family *f, const clq_tile *t)
{
    return f->type.format == t->type.format && f->type.bits == t->type.bits && f->type.symmetric == t->type.symmetric &&
           f->type.granularity == t->type.granularity && f->type.scale_format == t->type.scale_format &&
           f->source == t->source && f->decode_only == t->decode_only &&
           f->range_only == t->range_only && f->weighted == (t->importance != NULL) && f->given == clq_tile_given(t);
}

static clq_family *find_family(clq_opencl *d, const clq_tile *t)
{
    for (uint32_t i = 0; i < d->n_families; i++)
        if (is_family(&d->families[i], t)) return &d->families[i];
    return NULL;
}

static clq_family *add_family(clq_opencl *d, const clq_tile *t)
{
    clq_family *families = realloc(d->families, (d->n_families + 1) * sizeof *families);
    if (!families) return NULL;
    d->families = families;
    clq_family *f = &families[d->n_families++];
    *f = (clq_family){.type = t->type, .source = t->source, .decode_only = t->decode_only, .range_only = t->range_only,
                       .weighted = t->importance != NULL, .given = clq_tile_given(t)};
    return f;
}

static clq_status compare(clq_opencl *d, clq_tile *t, clq_lane *lane, const clq_ref_arrays *ref, bool *good,
                          clq_error *err)
{
    clq_tile_result ours, theirs;
    CLQ_TRY(clq_ref_tile(1, t, ref, &theirs, err));
    CLQ_TRY(clq_cl_lane_submit(lane, t, err));
    CLQ_TRY(clq_cl_lane_wait(lane, &ours, err));
    *good = same(&d->base.info, t, &ours, &theirs);
    if (!*good || t->type.format != CLQ_INT || t->decode_only || t->range_only) return CLQ_OK;
    // Integer types: decode what was encoded, too.
    clq_tile back = *t;
    float scales[ROWS * (MAX_COLS / 32)];
    uint64_t groups = clq_type_groups(&t->type, t->cols);
    bool one = t->type.granularity == CLQ_PER_TENSOR;
    if (one)
        scales[0] = t->scale;
    else
        clq_load_floats(t->type.scale_format, theirs.scales, t->rows * groups, scales);
    back.decode_only = true;
    back.given_scales = NULL;
    back.src_bytes = theirs.sizes.codes;
    back.scales = scales;
    int8_t zeros[ROWS * (MAX_COLS / 32)] = {0};
    if (!t->type.symmetric && !one) memcpy(zeros, theirs.zero_points, t->rows * groups);
    back.zero_points = t->type.symmetric ? NULL : zeros;
    void *codes = malloc(theirs.sizes.codes);
    if (!codes) return clq_fail_memory(err, theirs.sizes.codes);
    memcpy(codes, theirs.codes, theirs.sizes.codes);
    back.src = codes;
    clq_status st;
    // This is the decoder's self-test too: its family is entered here, as tested.
    if (!find_family(d, &back) && !add_family(d, &back)) {
        st = clq_fail_memory(err, sizeof(clq_family));
        goto out;
    }
    CLQ_TRY_OUT(clq_ref_tile(1, &back, ref, &theirs, err));
    CLQ_TRY_OUT(clq_cl_lane_submit(lane, &back, err));
    CLQ_TRY_OUT(clq_cl_lane_wait(lane, &ours, err));
    *good = same(&d->base.info, &back, &ours, &theirs);
    find_family(d, &back)->use_reference = !*good;
out:
    free(codes);
    return st;
}

static clq_status run_test(clq_opencl *d, const clq_tile *like, bool *good, clq_error *err)
{
    clq_tile t;
    void *bytes = NULL;
    CLQ_TRY(make_tile(like, &t, &bytes, err));
    uint64_t n = t.rows * t.cols;
    clq_lane_limits limits = {.src_bytes = n * 4, .n_elements = n, .code_bytes = n * 4, .n_groups = n, .floats = true};
    clq_lane *lane = NULL;
    clq_ref_arrays ref = {0};
    clq_status st;
    CLQ_TRY_OUT(clq_ref_arrays_create(&limits, &ref, err));
    CLQ_TRY_OUT(clq_cl_lane_create(&d->base, &limits, &lane, err));
    st = compare(d, &t, lane, &ref, good, err);
out:
    clq_cl_lane_free(lane);
    clq_ref_arrays_free(&ref);
    free(bytes);
    return st;
}

clq_status clq_family_get(clq_opencl *d, const clq_tile *tile, bool *use_reference, clq_error *err)
{
    const clq_family *known = find_family(d, tile);
    *use_reference = known && known->use_reference;
    if (known) return CLQ_OK;
    if (!add_family(d, tile)) return clq_fail_memory(err, sizeof(clq_family));
    char name[32];
    clq_type_name(&tile->type, name);
    // Lets a test see the fall-back: "q8_0" or "all".
    const char *broken = getenv("CLQ_TEST_BREAK_KERNEL");
    bool good = false;
    clq_error why = {0};
    // The family counts as good while its own test runs through the lane.
    clq_status st = run_test(d, tile, &good, &why);
    if (broken && (strcmp(broken, "all") == 0 || strcmp(broken, name) == 0)) good = false;
    if (st == CLQ_OK && good) return CLQ_OK;
    find_family(d, tile)->use_reference = *use_reference = true;
    clq_warn(d->base.options.hooks, "kernel self-test: %s %s from %s %s on '%s'; the C reference is used instead%s%s",
             tile->decode_only ? "decoding" : tile->range_only ? "the range of" : "encoding", name,
             clq_format_at(tile->source)->name, st == CLQ_OK ? "gives other results than the reference" : "failed",
             d->base.info.name, st == CLQ_OK ? "" : ": ", st == CLQ_OK ? "" : why.text);
    return CLQ_OK;
}

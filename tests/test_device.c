// SPDX-License-Identifier: MIT
// host/device through the public functions: selectors, the C references against OpenCL, memory limits, discrete
// memory, fall-backs. Without an OpenCL device only what needs none is tested.
#define _XOPEN_SOURCE 700
#include "file_fixture.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "run/losses.h"

static uint64_t seed = 1;

static uint32_t random_bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static void fill(float *x, uint64_t n, float size)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = ((float)(random_bits() >> 8) * 0x1p-23f - 1.0f) * size * (i % 97 == 5 ? 20 : 1);
}

static bool have_opencl(void)
{
    uint32_t n = 0;
    assert_int_equal(clq_device_count(&n, NULL), CLQ_OK);
    return n > 0;
}

static clq_device *must_open(const char *selector, const clq_device_options *options)
{
    clq_device *d;
    clq_error err;
    if (clq_device_open(selector, options, &d, &err) != CLQ_OK)
        fail_msg("%s: %s", selector ? selector : "default", err.text);
    return d;
}

typedef struct {
    clq_part_sizes sizes;
    uint8_t *codes, *scales;
    int8_t *zeros;
    clq_stats stats;
    clq_status status;
    clq_error err;
} encoded;

static encoded encode(clq_device *d, const clq_type *type, clq_format_id source, const void *x, uint64_t rows,
                      uint64_t cols)
{
    encoded e = {0};
    assert_int_equal(clq_type_sizes(type, rows, cols, &e.sizes, &e.err), CLQ_OK);
    e.codes = calloc(1, e.sizes.codes + 1);
    e.scales = calloc(1, e.sizes.scales + 1);
    e.zeros = calloc(1, e.sizes.zero_points + 1);
    e.status = clq_encode(d, type, source, x, rows, cols, e.codes, e.scales, e.zeros, &e.stats, &e.err);
    // Nothing behind the ends.
    assert_true(e.codes[e.sizes.codes] == 0 && e.scales[e.sizes.scales] == 0 && e.zeros[e.sizes.zero_points] == 0);
    return e;
}

static void encoded_free(encoded *e)
{
    free(e->codes);
    free(e->scales);
    free(e->zeros);
}

static void same(const encoded *a, const encoded *b, const char *what)
{
    if (a->status != b->status) fail_msg("%s: status %d, not %d: %s", what, a->status, b->status, a->err.text);
    if (memcmp(a->codes, b->codes, a->sizes.codes)) fail_msg("%s: codes differ", what);
    if (memcmp(a->scales, b->scales, a->sizes.scales)) fail_msg("%s: scales differ", what);
    if (memcmp(a->zeros, b->zeros, a->sizes.zero_points)) fail_msg("%s: zero-points differ", what);
    if (a->stats.max_error != b->stats.max_error) fail_msg("%s: largest errors differ", what);
}

static clq_type type_of(const char *name)
{
    clq_type type;
    assert_int_equal(clq_type_parse(name, &type, NULL), CLQ_OK);
    return type;
}

static const char *const names[] = {"f32",      "f16",         "bf16",   "q4_0",    "q4_1",      "q5_0",
                                    "q5_1",     "q8_0",        "i8",     "i8_asym", "i8_tensor", "i8_asym_tensor",
                                    "i4_g32",   "i4_asym_g64", "i3_g64", "i2_asym", "i5",        "i6_asym_g32",
                                    "i7_tensor"};
enum { N_NAMES = sizeof names / sizeof *names };

// ---- opening -----------------------------------------------------------------------------------

static void cannot_open(const char *selector)
{
    clq_device *d = (clq_device *)1;
    clq_error err = {0};
    assert_int_equal(clq_device_open(selector, NULL, &d, &err), CLQ_DEVICE);
    assert_null(d);
    assert_int_equal(err.status, CLQ_DEVICE);
    if (!strstr(err.text, selector)) fail_msg("'%s' does not tell '%s'", err.text, selector);
}

static void test_selectors(void **state)
{
    (void)state;
    clq_device_info info;
    clq_error err = {0};
    uint32_t n;
    cannot_open("no such device");
    cannot_open("999");
    cannot_open("4294967296");
    cannot_open("99999999999999999999999");
    cannot_open("refx");
    assert_int_equal(clq_device_count(&n, &err), CLQ_OK);
    assert_int_equal(clq_device_query(n, &info, &err), CLQ_DEVICE);
    assert_int_equal(clq_device_query(UINT32_MAX, &info, &err), CLQ_DEVICE);
    static const char *const refs[] = {"ref", "REF"};
    for (int i = 0; i < 2; i++) {
        clq_device *d = must_open(refs[i], NULL);
        clq_device_describe(d, &info);
        assert_true(info.is_reference && info.exact_divide && info.compute_units >= 1);
        clq_device_close(d);
    }
    clq_device_close(NULL);
    clq_device *d = must_open(NULL, NULL); // there is always one
    clq_device_describe(d, &info);
    assert_true(info.is_reference == (n == 0));
    clq_device_close(d);
    for (uint32_t i = 0; i < n; i++) { // by index, by name, by a part of it in other case
        clq_device_info found;
        char text[160];
        assert_int_equal(clq_device_query(i, &info, &err), CLQ_OK);
        assert_true(info.name[0] && info.index == i && info.max_allocation > 0 && info.compute_units > 0);
        snprintf(text, sizeof text, "%u", i);
        d = must_open(text, NULL);
        clq_device_describe(d, &found);
        assert_string_equal(found.name, info.name);
        clq_device_close(d);
        snprintf(text, sizeof text, "%s", info.name);
        for (char *c = text; *c; c++)
            if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 32);
        d = must_open(text, NULL);
        clq_device_close(d);
        d = must_open(info.is_cpu ? "cpu" : "gpu", NULL);
        clq_device_close(d);
    }
}

// ---- what is the same everywhere ---------------------------------------------------------------

static void test_encode(void **state)
{
    (void)state;
    if (!have_opencl()) skip();
    enum { ROWS = 45, COLS = 192 };
    static const clq_format_id sources[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    float *x = malloc(ROWS * COLS * 4), *y = malloc(ROWS * COLS * 4), *z = malloc(ROWS * COLS * 4);
    void *stored = malloc(ROWS * COLS * 4);
    clq_device *ours = must_open("0", NULL), *ref = must_open("ref", NULL);
    fill(x, ROWS * COLS, 3);
    for (int s = 0; s < 3; s++)
        for (int i = 0; i < N_NAMES; i++) {
            clq_type type = type_of(names[i]);
            type.scale_format = sources[(s + i) % 3];
            clq_store_floats(sources[s], x, ROWS * COLS, stored);
            encoded a = encode(ours, &type, sources[s], stored, ROWS, COLS);
            encoded b = encode(ref, &type, sources[s], stored, ROWS, COLS);
            assert_int_equal(b.status, CLQ_OK);
            same(&a, &b, names[i]);
            clq_error err;
            assert_int_equal(clq_decode(ours, &type, b.codes, b.scales, b.zeros, ROWS, COLS, y, &err), CLQ_OK);
            assert_int_equal(clq_decode(ref, &type, b.codes, b.scales, b.zeros, ROWS, COLS, z, &err), CLQ_OK);
            if (memcmp(y, z, ROWS * COLS * 4)) fail_msg("%s: decoded values differ", names[i]);
            // The statistics are those of the decoded values.
            double e2 = 0, worst = 0;
            clq_load_floats(sources[s], stored, ROWS * COLS, y);
            for (int k = 0; k < ROWS * COLS; k++) {
                double e = (double)(y[k] - z[k]);
                e2 += e * e;
                worst = fmax(worst, fabs(e));
            }
            assert_true(fabs(e2 - a.stats.sum_e2) <= 1e-3 * e2 && a.stats.max_error == worst);
            encoded_free(&a);
            encoded_free(&b);
        }
    clq_device_close(ours);
    clq_device_close(ref);
    free(x);
    free(y);
    free(z);
    free(stored);
}

// A value that is not finite is told, whatever the type, the device and the place.
static void refuses(clq_device *d, const char *device)
{
    enum { ROWS = 70, COLS = 64 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const int places[] = {0, 31, 63, 64, 35 * 64 + 17, ROWS * COLS - 1};
    float *x = malloc(ROWS * COLS * 4);
    for (int i = 3; i < N_NAMES; i++) { // from q4_0 on
        clq_type type = type_of(names[i]);
        for (int b = 0; b < 3; b++)
            for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
                fill(x, ROWS * COLS, 1);
                x[places[p]] = bad[b];
                encoded e = encode(d, &type, CLQ_F32, x, ROWS, COLS);
                if (e.status != CLQ_BAD_INPUT || !e.stats.bad_inputs || !strstr(e.err.text, "NaN"))
                    fail_msg("%s on %s: %g at %d gave status %d, %llu bad inputs: %s", names[i], device, (double)bad[b],
                             places[p], e.status, (unsigned long long)e.stats.bad_inputs, e.err.text);
                encoded_free(&e);
            }
    }
    // A scale beyond its dtype: no bad input, a bad output.
    fill(x, ROWS * COLS, 1);
    x[100] = 1e30f;
    static const char *const narrow[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "i8", "i4_asym_g32", "i8_tensor"};
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        clq_type type = type_of(narrow[i]);
        type.scale_format = CLQ_F16;
        encoded e = encode(d, &type, CLQ_F32, x, ROWS, COLS);
        if (e.status != CLQ_BAD_INPUT || e.stats.bad_inputs || !e.stats.bad_outputs)
            fail_msg("%s on %s: status %d, %llu bad inputs, %llu bad outputs", narrow[i], device, e.status,
                     (unsigned long long)e.stats.bad_inputs, (unsigned long long)e.stats.bad_outputs);
        encoded_free(&e);
    }
    free(x);
}

static void test_not_finite(void **state)
{
    (void)state;
    clq_device *d = must_open("ref", NULL);
    refuses(d, "ref");
    clq_device_close(d);
    if (!have_opencl()) return;
    static const clq_device_options forms[] = {
        {.work_group_form = -1}, {.lanes = 1, .work_group_form = 0}, {.work_group_form = 1}};
    for (int i = 0; i < 3; i++) {
        d = must_open("0", &forms[i]);
        refuses(d, "device 0");
        clq_device_close(d);
    }
}

static void test_arguments(void **state)
{
    (void)state;
    clq_device *d = must_open("ref", NULL);
    clq_error err;
    float x[64] = {0}, out[64];
    uint8_t codes[64];
    clq_type i8 = type_of("i8"), q8 = type_of("q8_0"), asym = type_of("i8_asym");
    assert_int_equal(clq_encode(d, &i8, CLQ_F32, x, 1, 64, codes, NULL, NULL, NULL, &err), CLQ_USAGE); // scales wanted
    assert_int_equal(clq_encode(d, &asym, CLQ_F32, x, 1, 64, codes, out, NULL, NULL, &err), CLQ_USAGE);
    assert_int_equal(clq_encode(d, &q8, CLQ_Q8_0, x, 1, 64, codes, NULL, NULL, NULL, &err), CLQ_USAGE); // not a source
    assert_int_equal(clq_encode(d, &q8, CLQ_F32, x, 1, 48, codes, NULL, NULL, NULL, &err), CLQ_USAGE);  // half a block
    assert_int_equal(clq_encode(d, &q8, CLQ_F32, x, 0, 64, codes, NULL, NULL, NULL, &err), CLQ_OK);     // nothing to do
    assert_int_equal(clq_minmax(d, CLQ_F32, x, 1, 64, 5, out, out + 32, &err), CLQ_USAGE);
    assert_int_equal(clq_minmax(d, CLQ_F32, x, 0, 64, 0, out, out + 32, &err), CLQ_USAGE);
    assert_int_equal(clq_absmax(d, CLQ_F32, x, 1, 0, 0, out, &err), CLQ_USAGE);
    assert_int_equal(clq_minmax(d, CLQ_I8, x, 1, 64, 0, out, out + 32, &err), CLQ_USAGE);
    clq_device_close(d);
}

// ---- reductions --------------------------------------------------------------------------------

static void check_reductions(clq_device *d)
{
    enum { ROWS = 67, COLS = 96 };
    static const uint64_t groups[] = {0, 1, 2, 32, 48, 96};
    static const clq_format_id sources[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    float *x = malloc(ROWS * COLS * 4), *low = malloc(ROWS * COLS * 4), *high = malloc(ROWS * COLS * 4),
          *most = malloc(ROWS * COLS * 4);
    void *stored = malloc(ROWS * COLS * 4);
    clq_error err;
    for (int s = 0; s < 3; s++)
        for (int round = 0; round < 4; round++) {
            fill(x, ROWS * COLS, 5);
            if (round == 1) x[1234] = NAN;
            if (round == 2) x[0] = x[ROWS * COLS - 1] = -NAN;
            if (round == 3) {
                x[77] = INFINITY;
                x[78] = -INFINITY;
            }
            clq_store_floats(sources[s], x, ROWS * COLS, stored);
            clq_load_floats(sources[s], stored, ROWS * COLS, x);
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                uint64_t len = groups[g] ? groups[g] : ROWS * COLS, n = ROWS * COLS / len;
                assert_int_equal(clq_minmax(d, sources[s], stored, ROWS, COLS, groups[g], low, high, &err), CLQ_OK);
                assert_int_equal(clq_absmax(d, sources[s], stored, ROWS, COLS, groups[g], most, &err), CLQ_OK);
                for (uint64_t k = 0; k < n; k++) {
                    float a = INFINITY, b = -INFINITY;
                    bool nan = false;
                    for (uint64_t i = k * len; i < (k + 1) * len; i++) {
                        nan |= isnan(x[i]);
                        a = fminf(a, x[i]);
                        b = fmaxf(b, x[i]);
                    }
                    bool good = nan ? isnan(low[k]) && isnan(high[k]) && isnan(most[k])
                                    : low[k] == a && high[k] == b && most[k] == fmaxf(b, -a);
                    if (!good)
                        fail_msg("group %llu of %llu: %g..%g, largest %g; not %g..%g", (unsigned long long)k,
                                 (unsigned long long)len, (double)low[k], (double)high[k], (double)most[k], (double)a,
                                 (double)b);
                }
            }
        }
    free(x);
    free(low);
    free(high);
    free(most);
    free(stored);
}

static void test_reductions(void **state)
{
    (void)state;
    clq_device *d = must_open("ref", NULL);
    check_reductions(d);
    clq_device_close(d);
    if (!have_opencl()) return;
    for (int form = 0; form < 2; form++) {
        clq_device_options options = {.work_group_form = form};
        d = must_open("0", &options);
        check_reductions(d);
        clq_device_close(d);
    }
}

// ---- memory ------------------------------------------------------------------------------------

static clq_status same_bytes(clq_device *d, const char *name, const float *x, uint64_t rows, uint64_t cols,
                             clq_error *err)
{
    clq_type type = type_of(name);
    clq_device *ref = must_open("ref", NULL);
    encoded a = encode(d, &type, CLQ_F32, x, rows, cols), b = encode(ref, &type, CLQ_F32, x, rows, cols);
    clq_status st = a.status;
    *err = a.err;
    if (st == CLQ_OK) {
        same(&a, &b, name);
        float *y = malloc(rows * cols * 4), *z = malloc(rows * cols * 4);
        st = clq_decode(d, &type, b.codes, b.scales, b.zeros, rows, cols, y, err);
        assert_int_equal(clq_decode(ref, &type, b.codes, b.scales, b.zeros, rows, cols, z, NULL), CLQ_OK);
        if (st == CLQ_OK) assert_memory_equal(y, z, rows * cols * 4);
        free(y);
        free(z);
    }
    encoded_free(&a);
    encoded_free(&b);
    clq_device_close(ref);
    return st;
}

// A tensor larger than the device allocates at once goes through in tiles, with the same bytes.
static void test_small_allocations(void **state)
{
    (void)state;
    if (!have_opencl()) skip();
    enum { ROWS = 2051, COLS = 1024 }; // 8 MiB
    float *x = malloc(ROWS * COLS * 4);
    fill(x, ROWS * COLS, 1);
    clq_device_options options = {.max_allocation = 1 << 20, .work_group_form = -1};
    clq_device *d = must_open("0", &options);
    clq_device_info info;
    clq_device_describe(d, &info);
    assert_int_equal(info.max_allocation, 1 << 20);
    static const char *const some[] = {"q4_0", "q8_0", "f16", "i8", "i8_asym_tensor", "i4_g128"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        clq_error err = {0};
        if (same_bytes(d, some[i], x, ROWS, COLS, &err) != CLQ_OK) fail_msg("%s: %s", some[i], err.text);
    }
    float low, high, largest = 0;
    clq_error err;
    if (clq_minmax(d, CLQ_F32, x, ROWS, COLS, 0, &low, &high, &err) != CLQ_OK) fail_msg("%s", err.text);
    for (int i = 0; i < ROWS * COLS; i++) largest = fmaxf(largest, x[i]);
    assert_true(high == largest);
    clq_device_close(d);
    free(x);
}

static void test_discrete(void **state)
{
    (void)state;
    if (!have_opencl()) skip();
    enum { ROWS = 5003, COLS = 1024 }; // more tiles than lanes
    float *x = malloc(ROWS * COLS * 4);
    fill(x, ROWS * COLS, 1);
    setenv("CLQ_TEST_DISCRETE", "1", 1);
    clq_device *d = must_open("0", NULL);
    clq_device_info info;
    clq_device_describe(d, &info);
    assert_false(info.unified_memory);
    for (int i = 0; i < N_NAMES; i++) {
        clq_error err;
        if (i % 3 == 1) continue; // every other kind is as good
        if (same_bytes(d, names[i], x, ROWS, COLS, &err) != CLQ_OK) fail_msg("%s: %s", names[i], err.text);
    }
    check_reductions(d);
    clq_device_close(d);
    unsetenv("CLQ_TEST_DISCRETE");
    free(x);
}

// ---- fall-back ---------------------------------------------------------------------------------

// A kernel that fails its self-test is told once, and the reference stands in.
static void test_fall_back(void **state)
{
    (void)state;
    if (!have_opencl()) skip();
    enum { ROWS = 33, COLS = 256 };
    float x[ROWS * COLS];
    fill(x, ROWS * COLS, 1);
    warnings w = {0};
    clq_hooks hooks = {.user = &w, .warn = count_warning};
    clq_device_options options = {.work_group_form = -1, .hooks = &hooks};
    clq_type q8 = type_of("q8_0"), q4 = type_of("q4_0"), i4 = type_of("i4_g128");
    clq_device *ref = must_open("ref", NULL);
    for (int all = 0; all < 2; all++) {
        setenv("CLQ_TEST_BREAK_KERNEL", all ? "all" : "q8_0", 1);
        w.n = 0;
        clq_device *d = must_open("0", &options);
        assert_int_equal(w.n, 0); // told on first use
        const clq_type *types[] = {&q8, &q4, &i4};
        int told = 0;
        for (int t = 0; t < 3; t++) {
            encoded b = encode(ref, types[t], CLQ_F32, x, ROWS, COLS);
            for (int again = 0; again < 3; again++) {
                encoded a = encode(d, types[t], CLQ_F32, x, ROWS, COLS);
                same(&a, &b, "fall-back");
                encoded_free(&a);
                if (again == 0) told = w.n;
            }
            assert_int_equal(w.n, told); // once
            encoded_free(&b);
            if (t == 0 && (w.n != 1 || !strstr(w.last, "q8_0") || !strstr(w.last, "reference")))
                fail_msg("%d warnings: %s", w.n, w.last);
        }
        assert_in_range(w.n, all ? 3 : 1, all ? 4 : 1); // integers: encoding and decoding, each told
        clq_device_close(d);
    }
    unsetenv("CLQ_TEST_BREAK_KERNEL");
    clq_device_close(ref);
}

// ---- given scales ------------------------------------------------------------------------------

// x times `unit` with scales times `unit`: a group a line.
static void check_given(clq_device *d, float unit)
{
    enum { GROUP = 32, ROWS = 2, COLS = 3 * GROUP };
    const clq_type type = type_of("i4_g32");
    static const float given[] = {-0.5f, 0, 100, 3, -0.5f, 0};
    float x[ROWS * COLS], scales[6];
    for (int i = 0; i < GROUP; i++) {
        x[i] = -0.5f * (float)(i % 16 - 8);        // every code
        x[GROUP + i] = 1;                          // lost: no scale
        x[2 * GROUP + i] = -2;                     // lost: the scale is too large
        x[3 * GROUP + i] = 0;                      // zero is no loss
        x[4 * GROUP + i] = i % 2 ? 100 : -100;     // beyond the range: 4 and -3.5
        x[5 * GROUP + i] = 0;
    }
    for (int i = 0; i < ROWS * COLS; i++) x[i] *= unit;
    for (int g = 0; g < 6; g++) scales[g] = given[g] * unit;
    clq_tile tile = {.type = type, .source = CLQ_F32, .src = x, .src_bytes = sizeof x, .rows = ROWS, .cols = COLS,
                     .given_scales = scales};
    tile.type.scale_format = CLQ_F32;
    clq_lane_limits limits = {.src_bytes = sizeof x, .n_elements = ROWS * COLS, .code_bytes = ROWS * COLS,
                              .n_groups = 6};
    clq_lane *lane;
    clq_tile_result r;
    assert_int_equal(d->ops->lane_create(d, &limits, &lane, NULL), CLQ_OK);
    assert_int_equal(d->ops->lane_submit(lane, &tile, NULL), CLQ_OK);
    assert_int_equal(d->ops->lane_wait(lane, &r, NULL), CLQ_OK);
    assert_memory_equal(r.scales, scales, sizeof scales);
    assert_int_equal(r.sizes.zero_points, 0);
    for (uint64_t i = 0; i < GROUP; i++) {
        uint32_t first = clq_unpack_bits(r.codes, i, 4), clamped = clq_unpack_bits(r.codes, 4 * GROUP + i, 4);
        assert_int_equal(first, i % 16);
        assert_int_equal(clamped, i % 2 ? 0 : 15);
    }
    clq_stats stats = r.stats;
    clq_recount(&tile, &r, &stats);
    double size = unit, error = GROUP * (1 + 4) + GROUP / 2 * (96 * 96 + 96.5 * 96.5), square = 0;
    for (int i = 0; i < ROWS * COLS; i++) square += x[i] / size * (x[i] / size);
    assert_true(fabs(stats.sum_e2 / (size * size) - error) < 1e-5 * error);
    assert_true(fabs(stats.sum_x2 / (size * size) - square) < 1e-5 * square);
    assert_true(fabs(stats.max_error / size - 96.5) < 1e-4);
    assert_int_equal(stats.lost_groups, 2);
    d->ops->lane_free(lane);
}

static void test_given(void **state)
{
    (void)state;
    for (int kind = 0; kind < (have_opencl() ? 4 : 1); kind++) {
        warnings w = {0};
        clq_hooks hooks = {.user = &w, .warn = count_warning};
        clq_device_options options = {.work_group_form = -1, .hooks = &hooks};
        if (kind == 2) setenv("CLQ_TEST_DISCRETE", "1", 1);
        if (kind == 3) setenv("CLQ_TEST_BREAK_KERNEL", "all", 1);
        clq_device *d = must_open(kind ? "0" : "ref", &options);
        check_given(d, 1);
        check_given(d, 0x1p-70f); // squares that floats do not hold
        assert_int_equal(w.n, kind == 3);
        clq_device_close(d);
        unsetenv("CLQ_TEST_DISCRETE");
        unsetenv("CLQ_TEST_BREAK_KERNEL");
    }
}

int main(void)
{
    setenv("CLQ_CACHE_DIR", "", 0); // no traces in the user's cache
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selectors), cmocka_unit_test(test_encode),     cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_reductions), cmocka_unit_test(test_small_allocations),
        cmocka_unit_test(test_discrete),  cmocka_unit_test(test_fall_back),  cmocka_unit_test(test_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
// host/calib/ranges.c, and the scales that ranges give.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "calib/ranges.h"
#include "slot_fixture.h"

static void must(clq_status st, const clq_error *err)
{
    if (st != CLQ_OK) fail_msg("%s", err->text);
}

// ---- scales ----

static void expect_scale(clq_range r, bool symmetric, float scale, int32_t zero_point)
{
    float s;
    int32_t z;
    clq_range_scale(&r, symmetric, &s, &z);
    assert_int_equal(clq_bits(s), clq_bits(scale));
    assert_int_equal(z, zero_point);
}

static void test_scales(void **state)
{
    (void)state;
    expect_scale((clq_range){0, 0, 0}, true, 1, 0);
    expect_scale((clq_range){0, 0, 0}, false, 1, 0);
    expect_scale((clq_range){127, -127, 3}, true, 1, 0);
    expect_scale((clq_range){1, -1, 1}, true, 1.0f / 127.0f, 0);
    expect_scale((clq_range){255, 0, 255}, false, 1, -128);
    expect_scale((clq_range){255, -255, 0}, false, 1, 127);
    // 127.5 and 128.5: halves to even.
    expect_scale((clq_range){127.5f, -127.5f, 127.5f}, false, 1, 0);
    expect_scale((clq_range){128.5f, -128.5f, 126.5f}, false, 1, 0);
    expect_scale((clq_range){126.5f, -126.5f, 128.5f}, false, 1, -2);
    expect_scale((clq_range){2, -1, 2}, false, 3.0f / 255.0f, -128 + 85);
    // The ends of what a float holds.
    expect_scale((clq_range){FLT_MAX, -FLT_MAX, FLT_MAX}, true, FLT_MAX / 127.0f, 0);
    expect_scale((clq_range){FLT_MAX, -FLT_MAX, FLT_MAX}, false, (float)(2.0 * (double)FLT_MAX / 255.0), 0);
    expect_scale((clq_range){1e-45f, 0, 1e-45f}, true, 1, 0);
    expect_scale((clq_range){1e-45f, 0, 1e-45f}, false, 1, 0);
}

// ---- ranges ----

static const clq_range *ranges_of(const float *slot)
{
    static clq_range ranges[CLQ_N_OBSERVERS];
    clq_error err;
    must(clq_ranges_of(slot, ranges, &err), &err);
    return ranges;
}

static void expect_range(const clq_range *r, int observer, float absmax, float min, float max)
{
    r += observer;
    if (r->absmax != absmax || r->min != min || r->max != max)
        fail_msg("%s: %.9g, %.9g to %.9g instead of %.9g, %.9g to %.9g", clq_observer_name((clq_observer)observer),
                 (double)r->absmax, (double)r->min, (double)r->max, (double)absmax, (double)min, (double)max);
}

// All observers agree.
static void expect_all(const float *x, uint32_t n, float absmax, float min, float max)
{
    float *slot = new_slot(1);
    if (n) add_window(slot, x, n, 1);
    const clq_range *r = ranges_of(slot);
    for (int i = 0; i < CLQ_N_OBSERVERS; i++) expect_range(r, i, absmax, min, max);
    free(slot);
}

static void test_simple_ranges(void **state)
{
    (void)state;
    expect_all(NULL, 0, 0, 0, 0);
    expect_all((float[]){0, 0, -0.0f}, 3, 0, 0, 0);
    expect_all((float[]){1, 1, 1, 1}, 4, 1, 0, 1);
    expect_all((float[]){-3}, 1, 3, -3, 0);
    expect_all((float[]){0.7f}, 1, 0.7f, 0, 0.7f);
    // Bins are 2^-112 wide at least: here 77 are in use.
    expect_all((float[]){-76.5f * 0x1p-112f, 9 * 0x1p-112f}, 2, 76.5f * 0x1p-112f, -76.5f * 0x1p-112f, 9 * 0x1p-112f);
    expect_all((float[]){0x1p-149f}, 1, 0x1p-149f, 0, 0x1p-149f);
    expect_all((float[]){FLT_MAX, -FLT_MAX}, 2, FLT_MAX, -FLT_MAX, FLT_MAX);
    // The distributions of 0.5 alone and of both have 128 levels that are exactly right: the last clip wins.
    float *slot = new_slot(1);
    add_window(slot, (float[]){0.5f, -0.5f, 1, -1}, 4, 1);
    expect_range(ranges_of(slot), CLQ_OBSERVER_ENTROPY, 1, -1, 1);
    free(slot);
}

static void test_moving_average(void **state)
{
    (void)state;
    float *slot = new_slot(2);
    add_window(slot, (float[]){-1, 2, 0, 1}, 2, 2);
    add_window(slot, (float[]){-3, 102}, 1, 2);
    const clq_range *r = ranges_of(slot);
    expect_range(r, CLQ_OBSERVER_MINMAX, 102, -3, 102);
    expect_range(r, CLQ_OBSERVER_MOVING_AVERAGE, 2 + 0.01f * 100, -1 + 0.01f * -2, 2 + 0.01f * 100);
    free(slot);
}

static void set_count(float *slot, uint32_t bin, uint32_t n) { memcpy(&slot[CLQ_SLOT_BINS + bin], &n, 4); }

// All |x| < 1, so that bins are 1 / 4096 wide.
static float *slot_of_bins(float min, float max)
{
    float *slot = new_slot(1);
    uint32_t one = 1;
    memcpy(&slot[CLQ_SLOT_TOKENS], &one, 4);
    slot[CLQ_SLOT_MIN] = min;
    slot[CLQ_SLOT_MAX] = max;
    return slot;
}

static void test_percentiles(void **state)
{
    (void)state;
    const float w = 1.0f / CLQ_BINS;
    float *slot = slot_of_bins(-0.75f, 0.99f);
    // 99,800 values in [0, 2 w), 149 from 1000 w on, 40 from 2000 w on, 1 at 0.99; and 10 at -0.75.
    set_count(slot, CLQ_BINS, 50000);
    set_count(slot, CLQ_BINS + 1, 49800);
    set_count(slot, CLQ_BINS + 1000, 149);
    set_count(slot, CLQ_BINS + 2000, 40);
    set_count(slot, CLQ_BINS + 4055, 1);
    set_count(slot, CLQ_BINS - 3072, 10);
    const clq_range *r = ranges_of(slot);
    // 99,900 of |x| lie below 1001 w, 99,990 below 3072 w (-0.75 is the end of its bin), 99,999 below it, too. 50, 5
    // and none may be cut at each end.
    expect_range(r, CLQ_OBSERVER_P99_9, 1001 * w, 0, 1001 * w);
    expect_range(r, CLQ_OBSERVER_P99_99, 3072 * w, -0.75f, 2001 * w);
    expect_range(r, CLQ_OBSERVER_P99_999, 3072 * w, -0.75f, 0.99f);
    free(slot);
}

// Divergence and squared error as they are defined, bin by bin.
static double divergence_of(const double *bins, uint32_t n, uint32_t i)
{
    static double p[CLQ_BINS], q[CLQ_BINS];
    double sums[128] = {0}, used[128] = {0}, total_p = 0, total_q = 0, d = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (k < i) p[k] = 0;
        p[k < i ? k : i - 1] += bins[k];
        if (k < i && bins[k] > 0) {
            sums[128 * k / i] += bins[k];
            used[128 * k / i]++;
        }
    }
    for (uint32_t k = 0; k < i; k++) {
        q[k] = bins[k] > 0 ? sums[128 * k / i] / used[128 * k / i] : 0;
        total_p += p[k];
        total_q += q[k];
    }
    for (uint32_t k = 0; k < i; k++)
        if (p[k] > 0) d += p[k] / total_p * log(p[k] / total_p / (q[k] / total_q));
    return d;
}

static double error_of(const double *bins, uint32_t n, uint32_t i)
{
    double scale = i / 127.0, sum = 0;
    for (uint32_t k = 0; k < n; k++) {
        double x = k + 0.5, code = rint(x / scale);
        double e = (code > 127 ? 127 : code) * scale - x;
        sum += bins[k] * e * e;
    }
    return sum;
}

// Values of many sizes, half of them negative. Returns their number.
static uint32_t make_values(float *x, uint32_t seed)
{
    for (uint32_t i = 0; i < 20000; i++) {
        double u = 0;
        for (int k = 0; k < 12; k++) { // about normal
            seed = seed * 1664525 + 1013904223;
            u += seed * 0x1p-32 - 0.5;
        }
        x[i] = (float)(i % 997 == 0 ? 9 * u : u * u * u / 4);
    }
    return 20000;
}

static void test_clips(void **state)
{
    (void)state;
    static float x[20000];
    for (uint32_t seed = 1; seed <= 2; seed++) {
        float *slot = new_slot(1);
        add_window(slot, x, make_values(x, seed), 1);
        const clq_range *r = ranges_of(slot);
        double bins[CLQ_BINS] = {0}, width = ldexp(1.0 / CLQ_BINS, (int32_t)clq_bits(slot[CLQ_SLOT_EXPONENT]));
        uint32_t n = 0, best_entropy = 0, best_mse = 0;
        for (uint32_t i = 0; i < 20000; i++) {
            uint32_t k = (uint32_t)(fabs((double)x[i]) / width);
            bins[k]++;
            n = k + 1 > n ? k + 1 : n;
        }
        double least = INFINITY;
        for (uint32_t i = 128; i <= n; i++)
            if (error_of(bins, n, i) <= least) least = error_of(bins, n, best_mse = i);
        least = INFINITY;
        bins[0] = bins[1];
        for (uint32_t i = 128; i <= n; i++)
            if (divergence_of(bins, n, i) <= least) least = divergence_of(bins, n, best_entropy = i);
        float a = (float)(best_entropy * width), b = (float)(best_mse * width);
        const clq_range *all = &r[CLQ_OBSERVER_MINMAX];
        assert_true(best_entropy < n && best_mse < n && a < all->absmax && b < all->absmax);
        expect_range(r, CLQ_OBSERVER_ENTROPY, a, fmaxf(all->min, -a), fminf(all->max, a));
        expect_range(r, CLQ_OBSERVER_MSE, b, fmaxf(all->min, -b), fminf(all->max, b));
        free(slot);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scales),      cmocka_unit_test(test_simple_ranges), cmocka_unit_test(test_moving_average),
        cmocka_unit_test(test_percentiles), cmocka_unit_test(test_clips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

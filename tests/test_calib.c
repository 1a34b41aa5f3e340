// SPDX-License-Identifier: MIT
// host/calib/: statistics as a file, ranges, windows of a text.
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_fixture.h"

#include "base/half.h"
#include "calib/corpus.h"
#include "calib/ranges.h"
#include "calib/stats_file.h"
#include "slot_fixture.h"

// ---- statistics ----

static void must(clq_status st, const clq_error *err)
{
    if (st != CLQ_OK) fail_msg("%s", err->text);
}

// Every value another one, and all of them possible.
static void fill_site(clq_stat_site *s)
{
    for (uint32_t m = 0; m < s->n_matrices; m++) {
        s->tokens[m] = 7 + m;
        s->exponents[m] = (int32_t)m - 3;
        s->token_range[2 * m] = 0.5f;
        s->token_range[2 * m + 1] = 2.5f + (float)m;
        for (int i = 0; i < CLQ_N_OBSERVERS; i++)
            s->ranges[m * CLQ_N_OBSERVERS + i] = (clq_range){1.5f + (float)i, -1.0f - (float)m, (float)i};
        for (uint32_t i = 0; i < 2 * CLQ_BINS; i++) s->bins[m * 2 * CLQ_BINS + i] = i * 3 + m;
        for (uint32_t i = 0; i < CLQ_TOKEN_BINS; i++) s->token_bins[m * CLQ_TOKEN_BINS + i] = i + m;
        for (uint32_t c = 0; c < s->cols; c++) {
            uint32_t at = m * s->cols + c;
            s->min[at] = -1.0f - (float)c;
            s->max[at] = (float)c;
            s->sum[at] = -0.25f * (float)at;
            s->sum_abs[at] = 4.0f * (float)at;
            s->sum_sq[at] = 5.0f * (float)at;
        }
        for (uint32_t i = 0; s->gram && i < s->cols * s->cols; i++) s->gram[m * s->cols * s->cols + i] = (float)i;
    }
}

static clq_stats_file *make_stats(bool gram)
{
    static const char *const attention[] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"};
    static const char *const experts[] = {"blk.0.ffn_down_exps.weight"};
    clq_error err;
    clq_stats_file *f = calloc(1, sizeof *f);
    f->sites = calloc(2, sizeof *f->sites);
    must(clq_stat_site_create(&f->sites[0], experts, 1, 5, 3, false, &err), &err);
    must(clq_stat_site_create(&f->sites[1], attention, 3, 4, 1, gram, &err), &err);
    f->n_sites = 2;
    f->dataset = strdup("text.txt");
    f->architecture = strdup("llama");
    f->fingerprint = 0xfedcba9876543210;
    f->context = 512;
    f->windows = 4;
    f->tokens = 2048;
    for (uint32_t i = 0; i < f->n_sites; i++) fill_site(&f->sites[i]);
    clq_stats_sort(f);
    return f;
}

static void same_site(const clq_stat_site *a, const clq_stat_site *b)
{
    uint64_t n = a->n_matrices, channels = n * a->cols;
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->n_weights, b->n_weights);
    for (uint32_t i = 0; i < a->n_weights; i++) assert_string_equal(a->weights[i], b->weights[i]);
    assert_int_equal(a->cols, b->cols);
    assert_int_equal(n, b->n_matrices);
    assert_memory_equal(a->tokens, b->tokens, n * sizeof *a->tokens);
    assert_memory_equal(a->ranges, b->ranges, n * CLQ_N_OBSERVERS * sizeof *a->ranges);
    assert_memory_equal(a->min, b->min, channels * 4);
    assert_memory_equal(a->max, b->max, channels * 4);
    assert_memory_equal(a->sum, b->sum, channels * 4);
    assert_memory_equal(a->sum_abs, b->sum_abs, channels * 4);
    assert_memory_equal(a->sum_sq, b->sum_sq, channels * 4);
    assert_memory_equal(a->bins, b->bins, n * 2 * CLQ_BINS * 4);
    assert_memory_equal(a->token_bins, b->token_bins, n * CLQ_TOKEN_BINS * 4);
    assert_memory_equal(a->exponents, b->exponents, n * 4);
    assert_memory_equal(a->token_range, b->token_range, n * 8);
    assert_int_equal(a->gram != NULL, b->gram != NULL);
    if (a->gram) assert_memory_equal(a->gram, b->gram, channels * a->cols * 4);
}

static void test_round_trip(void **state)
{
    (void)state;
    char path[256];
    clq_error err;
    make_path(path, root, "stats");
    for (int gram = 0; gram < 2; gram++) {
        clq_stats_file *f = make_stats(gram), *g;
        must(clq_stats_write(f, path, &err), &err);
        assert_true(clq_stats_is(path));
        must(clq_stats_open(path, &g, &err), &err);
        assert_int_equal(g->n_sites, 2);
        assert_string_equal(g->sites[0].name, "blk.0.attn_q.weight");
        for (uint32_t i = 0; i < 2; i++) same_site(&f->sites[i], &g->sites[i]);
        assert_string_equal(g->dataset, "text.txt");
        assert_string_equal(g->architecture, "llama");
        assert_true(g->fingerprint == f->fingerprint && g->tokens == 2048 && g->context == 512 && g->windows == 4);
        assert_ptr_equal(clq_stats_find(g, "blk.0.attn_v.weight"), &g->sites[0]);
        assert_ptr_equal(clq_stats_find(g, "blk.0.ffn_down_exps.weight"), &g->sites[1]);
        assert_null(clq_stats_find(g, "blk.0.attn_output.weight"));
        clq_stats_free(g);
        clq_stats_free(f);
    }
    remove_file(root, "stats");
}

// A name that is no UTF-8 must not keep statistics from being written.
static void test_odd_dataset(void **state)
{
    (void)state;
    char path[256];
    clq_error err;
    clq_stats_file *f = make_stats(false), *g;
    make_path(path, root, "stats");
    free(f->dataset);
    f->dataset = strdup("\xff\"t\xc3.txt");
    must(clq_stats_write(f, path, &err), &err);
    must(clq_stats_open(path, &g, &err), &err);
    assert_string_equal(g->dataset, "?\"t?.txt");
    clq_stats_free(g);
    clq_stats_free(f);
    remove_file(root, "stats");
}

static void refuse_stats(const char *path, const char *says)
{
    clq_stats_file *g = (clq_stats_file *)1;
    clq_error err;
    assert_int_equal(clq_stats_open(path, &g, &err), CLQ_BAD_INPUT);
    assert_null(g);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

// Writes statistics of which one thing was changed, and expects the sentence.
typedef void (*change_fn)(clq_stats_file *f);
static void refuse_changed(change_fn change, const char *says)
{
    char path[256];
    clq_error err;
    make_path(path, root, "stats");
    clq_stats_file *f = make_stats(true);
    change(f);
    must(clq_stats_write(f, path, &err), &err);
    refuse_stats(path, says);
    clq_stats_free(f);
    remove_file(root, "stats");
}

static void nan_sum(clq_stats_file *f) { f->sites[0].sum[2] = NAN; }
static void infinite_square(clq_stats_file *f) { f->sites[1].sum_sq[9] = INFINITY; }
static void negative_square(clq_stats_file *f) { f->sites[1].sum_sq[9] = -1; }
static void crossed(clq_stats_file *f) { f->sites[0].min[1] = 99; }
static void no_range(clq_stats_file *f) { f->sites[1].ranges[3].min = 0.5f; }
static void infinite_range(clq_stats_file *f) { f->sites[1].ranges[8].absmax = INFINITY; }
static void exponent(clq_stats_file *f) { f->sites[1].exponents[1] = 4000; }
static void tokens_crossed(clq_stats_file *f) { f->sites[1].token_range[2] = 77; }
static void nan_gram(clq_stats_file *f) { f->sites[0].gram[15] = NAN; }
static void twice(clq_stats_file *f) { memcpy(f->sites[0].weights[2], "blk.0.attn_k.weight", 20); }

static void unsorted(clq_stats_file *f)
{
    clq_stat_site s = f->sites[0];
    f->sites[0] = f->sites[1];
    f->sites[1] = s;
}

static void test_values_refused(void **state)
{
    (void)state;
    refuse_changed(nan_sum, "'blk.0.attn_q.weight': a channel's value is not finite");
    refuse_changed(infinite_square, "'blk.0.ffn_down_exps.weight': a channel's value is not finite");
    refuse_changed(negative_square, "negative");
    refuse_changed(crossed, "above its largest");
    refuse_changed(no_range, "a range is not one");
    refuse_changed(infinite_range, "a range is not one");
    refuse_changed(exponent, "exponent");
    refuse_changed(tokens_crossed, "range of tokens");
    refuse_changed(nan_gram, "sum of products");
    refuse_changed(twice, "the weight stands twice");
    refuse_changed(unsorted, "not sorted");
}

// The bytes of the file, changed at the place where `what` stands, and as long as before.
static void refuse_edited(const char *what, const char *with, const char *says)
{
    char path[256], *bytes;
    size_t len, n = strlen(what);
    clq_error err;
    make_path(path, root, "stats");
    clq_stats_file *f = make_stats(false);
    must(clq_stats_write(f, path, &err), &err);
    must(clq_file_slurp(path, 1 << 24, &bytes, &len, &err), &err);
    assert_int_equal(n, strlen(with));
    size_t at = 0;
    while (at + n <= len && memcmp(bytes + at, what, n) != 0) at++;
    assert_true(at + n <= len);
    memcpy(bytes + at, with, n);
    write_bytes(root, "stats", bytes, len);
    refuse_stats(path, says);
    free(bytes);
    clq_stats_free(f);
    remove_file(root, "stats");
}

static void test_damage_refused(void **state)
{
    (void)state;
    refuse_edited("\"clquant-statistics\"", "\"clquant-STATISTICS\"", "no file of the format");
    refuse_edited("version\\\":1", "version\\\":2", "of version 2");
    refuse_edited("version\\\":1", "version\\\":x", "description");
    refuse_edited("entropy", "ENTROPY", "observers");
    refuse_edited("\\\"cols\\\":4", "\\\"cols\\\":5", "another shape");
    refuse_edited("\\\"cols\\\":4", "\\\"cols\\\":0", "out of range");
    refuse_edited("\\\"matrices\\\":3", "\\\"matrices\\\":2", "another shape");
    refuse_edited("fedcba98", "fedcba9G", "fingerprint");
    refuse_edited("weights\\\":[\\\"blk.0.attn_q", "weights\\\":[\\\"blk.1.attn_q", "is missing");
    refuse_edited("\\\"gram\\\":false", "\\\"gram\\\":true ", "is missing");
    refuse_edited("attn_q.weight.bins", "attn_q.weight.bind", "is missing");
}

static void test_other_files_refused(void **state)
{
    (void)state;
    char path[256], *bytes;
    size_t len;
    clq_error err;
    make_path(path, root, "stats");
    refuse_stats(path, "cannot open");
    write_text(root, "stats", "nothing of that kind, but long enough");
    assert_false(clq_stats_is(path));
    refuse_stats(path, "neither");
    clq_stats_file *f = make_stats(false);
    must(clq_stats_write(f, path, &err), &err);
    must(clq_file_slurp(path, 1 << 24, &bytes, &len, &err), &err);
    for (size_t n = 0; n < len; n += n < 64 ? 1 : 4099) {
        write_bytes(root, "stats", bytes, n);
        refuse_stats(path, "'");
    }
    free(bytes);
    // Statistics of no site, and a tensor that belongs to none.
    uint32_t n_sites = f->n_sites;
    f->n_sites = 0;
    must(clq_stats_write(f, path, &err), &err);
    refuse_stats(path, "it has no sites");
    f->n_sites = n_sites;
    float one = 1;
    clq_st_array more = {.name = "more", .format = CLQ_F32, .n_dims = 1, .dims = {1}, .data = &one};
    must(clq_stats_write_as(f, path, CLQ_STATS_FORMAT, NULL, &more, 1, &err), &err);
    refuse_stats(path, "belong to no site");
    clq_stats_free(f);
    remove_file(root, "stats");
}

static void test_observer_names(void **state)
{
    (void)state;
    for (int i = 0; i < CLQ_N_OBSERVERS; i++) {
        clq_observer o;
        assert_true(clq_observer_parse(clq_observer_name((clq_observer)i), &o));
        assert_int_equal(o, i);
    }
    clq_observer o;
    assert_false(clq_observer_parse("percentile-99", &o));
    assert_false(clq_observer_parse("", &o));
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

// ---- windows ----

enum { BOS = 1, EOS = 2, WORDS = 3, N_WORDS = 20, VOCAB = WORDS + N_WORDS };

// The words a ... t are the tokens 3 ... 22, with a space before them. llama: a BOS; bert: [CLS] and [SEP].
static clq_tokenizer *make_tokenizer(bool bert)
{
    static const char *const special[2][WORDS] = {{"<unk>", "<s>", "</s>"}, {"[UNK]", "[CLS]", "[SEP]"}};
    char words[N_WORDS][8];
    const char *tokens[VOCAB];
    size_t lengths[VOCAB];
    float scores[VOCAB] = {0};
    int32_t types[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        if (i >= WORDS) snprintf(words[i - WORDS], 8, "\xe2\x96\x81%c", 'a' + i - WORDS);
        tokens[i] = i < WORDS ? special[bert][i] : words[i - WORDS];
        lengths[i] = strlen(tokens[i]);
        types[i] = i < WORDS ? 3 : 1;
    }
    clq_gguf_kvs kvs = {0};
    clq_kv_set_string(&kvs, "tokenizer.ggml.model", bert ? "bert" : "llama", bert ? 4 : 5);
    clq_kv_set_strings(&kvs, "tokenizer.ggml.tokens", tokens, lengths, VOCAB);
    clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", scores, VOCAB);
    clq_kv_set_i32s(&kvs, "tokenizer.ggml.token_type", types, VOCAB);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.unknown_token_id", 0);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.bos_token_id", BOS);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.eos_token_id", EOS);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.seperator_token_id", EOS);
    clq_tokenizer *t;
    clq_error err;
    must(clq_tokenizer_create(&kvs, &t, &err), &err);
    clq_kvs_free(&kvs);
    return t;
}

static clq_corpus_options corpus_options(clq_corpus_kind kind, uint32_t context)
{
    return (clq_corpus_options){.kind = kind, .name = "F", .field = "text", .context = context, .vocab = VOCAB};
}

// Windows as letters: ^ BOS, $ EOS, | between windows.
static void expect_windows(const clq_tokenizer *t, const char *text, const clq_corpus_options *o, const char *want,
                           uint64_t n_text, uint64_t n_dropped)
{
    clq_corpus *c;
    clq_error err;
    char shown[256];
    size_t n = 0;
    must(clq_corpus_create(t, text, strlen(text), o, &c, &err), &err);
    for (uint32_t w = 0; w < c->n_windows; w++) {
        if (w) shown[n++] = '|';
        for (uint32_t i = 0; i < clq_corpus_window(c, w); i++) {
            int32_t id = c->tokens[(uint64_t)w * c->context + i];
            shown[n++] = id == BOS ? '^' : id == EOS ? '$' : id == 0 ? '?' : (char)('a' + id - WORDS);
        }
    }
    shown[n] = '\0';
    assert_string_equal(shown, want);
    assert_int_equal(c->n_text, n_text);
    assert_int_equal(c->n_dropped, n_dropped);
    clq_corpus_free(c);
}

static void refuse_windows(const clq_tokenizer *t, const char *text, const clq_corpus_options *o, const char *says)
{
    clq_corpus *c = (clq_corpus *)1;
    clq_error err;
    assert_int_equal(clq_corpus_create(t, text, strlen(text), o, &c, &err), o->context < 4 ? CLQ_USAGE : CLQ_BAD_INPUT);
    assert_null(c);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

static void test_text_windows(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TEXT, 4);
    // The text begins with a BOS of its own; the first token of other windows gives way to one.
    expect_windows(t, "a b c", &o, "^abc", 4, 0);
    expect_windows(t, "a b c d e f g", &o, "^abc|^efg", 8, 0);
    expect_windows(t, "a b c d", &o, "^abc", 5, 1);
    expect_windows(t, "a b c d e", &o, "^abc|^e", 6, 0);
    o.chunks = 1;
    expect_windows(t, "a b c d e f g", &o, "^abc", 8, 4);
    o.chunks = 2;
    expect_windows(t, "a b c d e f g h i", &o, "^abc|^efg", 10, 2);
    refuse_windows(t, "a b c d e f", &o, "'F' has 7 tokens; 2 windows of 4 need 8");
    o.chunks = 0;
    refuse_windows(t, "", &o, "'F' has 1 tokens; a window needs 4");
    refuse_windows(t, "a b", &o, "'F' has 3 tokens; a window needs 4");
    o.context = 3;
    refuse_windows(t, "a b c", &o, "at least 4");
    o.context = 4;
    o.vocab = 6;
    refuse_windows(t, "a b c d e", &o, "token 4 of 'F' is 6");
    refuse_windows(NULL, "a b c", &o, "no tokenizer");
    clq_tokenizer_free(t);
}

static void test_encoder_windows(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(true);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TEXT, 5);
    o.encoder = true;
    expect_windows(t, "a b c", &o, "^abc$", 3, 0);
    expect_windows(t, "a b c d e f g h", &o, "^abc$|^def$|^gh$", 8, 0);
    expect_windows(t, "a b c d e f g", &o, "^abc$|^def$", 7, 1);
    refuse_windows(t, "a b", &o, "'F' has 2 tokens; a window needs 3");
    refuse_windows(t, "", &o, "'F' has 0 tokens");
    o.chunks = 2;
    refuse_windows(t, "a b c d e", &o, "'F' has 5 tokens; 2 windows of 3 need 6");
    clq_tokenizer_free(t);
}

static void test_lines(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_JSONL, 4);
    expect_windows(t, "{\"text\": \"a b\", \"n\": 1}\r\n\n  \n{\"text\": \"c d\"}\n{\"text\":\"\"}", &o, "^ab^|^d^", 7,
                   0);
    refuse_windows(t, "{\"text\": \"a b c\"}\n{\"body\": \"a\"}\n", &o, "'F': line 2 has no field 'text'");
    refuse_windows(t, "\n[\"text\"]", &o, "line 2 is no JSON object");
    refuse_windows(t, "{\"text\": \"a", &o, "line 1 is no JSON: ");
    refuse_windows(t, "a b c", &o, "line 1 is no JSON: ");
    refuse_windows(t, "{\"text\": 1}", &o, "line 1: its field 'text' is no text");
    refuse_windows(t, "{\"text\": \"a\", \"text\": \"b\"}", &o, "duplicate");
    refuse_windows(t, "{\"text\": \"a\"} {}", &o, "line 1 is no JSON: ");
    refuse_windows(t, "\n\n", &o, "'F' has 0 tokens; a window needs 4");
    o.field = "body";
    expect_windows(t, "{\"body\": \"a b c\"}", &o, "^abc", 4, 0);
    clq_tokenizer_free(t);
}

static void test_ids(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TOKENS, 4);
    expect_windows(NULL, " 3 4\n5\t6 7 8\r\n9", &o, "abcd|efg", 7, 0);
    expect_windows(t, "3 4 5 6 7 8 9", &o, "^bcd|^fg", 7, 0);
    refuse_windows(NULL, "", &o, "'F' has 0 tokens; a window needs 4");
    refuse_windows(NULL, "3", &o, "'F' has 1 tokens; a window needs 4");
    refuse_windows(NULL, "3 4 23 5", &o, "number 3 is '23'");
    refuse_windows(NULL, "3 -4 5 5", &o, "number 2 is '-4'");
    refuse_windows(NULL, "3 4 5, 5", &o, "number 3 is '5,'");
    refuse_windows(NULL, "99999999999999999999999999999", &o, "number 1 is '999999999999999999999999...'");
    clq_tokenizer_free(t);
}

// The same windows for a seed wherever it runs, all with the same probability, in the text's order.
static void test_random_windows(void **state)
{
    (void)state;
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TOKENS, 4);
    o.random = true;
    o.chunks = 2;
    const char text[] = "3 3 3 3 4 4 4 4 5 5 5 5 6 6 6 6 7 7 7 7 8 8 8";
    o.seed = 1;
    expect_windows(NULL, text, &o, "dddd|eeee", 23, 15);
    o.seed = 2;
    expect_windows(NULL, text, &o, "cccc|eeee", 23, 15);
    uint32_t taken[5] = {0};
    for (o.seed = 0; o.seed < 5000; o.seed++) {
        clq_corpus *c;
        clq_error err;
        must(clq_corpus_create(NULL, text, strlen(text), &o, &c, &err), &err);
        assert_int_equal(c->n_windows, 2);
        assert_true(c->tokens[0] < c->tokens[4]);
        taken[c->tokens[0] - 3]++;
        taken[c->tokens[4] - 3]++;
        clq_corpus_free(c);
    }
    for (int i = 0; i < 5; i++) assert_in_range(taken[i], 1850, 2150);
    o.chunks = 5; // all that are whole
    expect_windows(NULL, text, &o, "aaaa|bbbb|cccc|dddd|eeee", 23, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_odd_dataset),
        cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_damage_refused),
        cmocka_unit_test(test_other_files_refused),
        cmocka_unit_test(test_observer_names),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_simple_ranges),
        cmocka_unit_test(test_moving_average),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_clips),
        cmocka_unit_test(test_text_windows),
        cmocka_unit_test(test_encoder_windows),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_random_windows),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

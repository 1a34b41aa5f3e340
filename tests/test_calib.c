// SPDX-License-Identifier: MIT
// Statistics as a file, and as an importance matrix.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_fixture.h"

#include "calib/importance.h"
#include "calib/stats_file.h"

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

// ---- importance ----

static void test_importance(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.0.attn_k.weight", "blk.0.attn_q.weight", "blk.0.attn_v.weight",
                                        "blk.0.ffn_down_exps.weight"};
    clq_error err;
    clq_imatrix *own, *read;
    clq_stats_file *f = make_stats(false);
    const clq_stat_site *attention = &f->sites[0], *experts = &f->sites[1];
    f->sites[1].tokens[1] = 0;
    memset(f->sites[1].sum_sq + 5, 0, 5 * sizeof(float));
    must(clq_stats_imatrix(f, "stats", &own, &err), &err);
    for (int dat = 0; dat < 2; dat++) {
        char path[256];
        make_path(path, root, dat ? "m.dat" : "m.gguf");
        must(clq_stats_export(f, path, &err), &err);
        must(clq_imatrix_open(path, &read, &err), &err);
        assert_int_equal(read->n_entries, 4);
        assert_int_equal(read->n_chunks, 4);
        assert_string_equal(read->dataset, "text.txt");
        for (uint32_t i = 0; i < 4; i++) {
            const clq_imatrix_entry *a = &own->entries[i], *b = &read->entries[i];
            assert_string_equal(a->name, names[i]);
            assert_string_equal(b->name, names[i]);
            assert_int_equal(a->n, b->n);
            if (!dat) assert_int_equal(a->n_neutral, b->n_neutral);
            if (!dat) assert_memory_equal(a->values, b->values, a->n * sizeof(float));
            for (uint64_t k = 0; k < a->n; k++)
                assert_true(fabsf(a->values[k] - b->values[k]) <= 1e-6f * fabsf(a->values[k]));
        }
        clq_imatrix_free(read);
        remove_file(root, dat ? "m.dat" : "m.gguf");
    }
    assert_int_equal(own->n_entries, 4);
    for (uint32_t c = 0; c < 4; c++) assert_true(own->entries[0].values[c] == attention->sum_sq[c] / 7);
    assert_int_equal(own->entries[3].n_neutral, 1);
    for (uint32_t c = 0; c < 5; c++) {
        assert_true(own->entries[3].values[5 + c] == 1);
        assert_true(own->entries[3].values[10 + c] == experts->sum_sq[10 + c] / 9);
    }
    clq_imatrix_free(own);
    clq_stats_free(f);
}

// A .dat file leaves out what was not reached at all, and does not hold nothing.
static void test_nothing_reached(void **state)
{
    (void)state;
    char path[256];
    clq_error err;
    clq_imatrix *read;
    clq_stats_file *f = make_stats(false);
    make_path(path, root, "m.dat");
    memset(f->sites[1].tokens, 0, 3 * sizeof(uint64_t));
    must(clq_stats_export(f, path, &err), &err);
    must(clq_imatrix_open(path, &read, &err), &err);
    assert_int_equal(read->n_entries, 3);
    clq_imatrix_free(read);
    remove_file(root, "m.dat");
    f->sites[0].tokens[0] = 0;
    assert_int_equal(clq_stats_export(f, path, &err), CLQ_BAD_INPUT);
    assert_int_not_equal(access(path, F_OK), 0);
    clq_stats_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),          cmocka_unit_test(test_odd_dataset),
        cmocka_unit_test(test_values_refused),      cmocka_unit_test(test_damage_refused),
        cmocka_unit_test(test_other_files_refused), cmocka_unit_test(test_observer_names),
        cmocka_unit_test(test_importance),          cmocka_unit_test(test_nothing_reached),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

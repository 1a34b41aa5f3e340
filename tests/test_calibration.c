// SPDX-License-Identifier: MIT
// host/calib/calibrate.c on tests/tiny-llama: what is measured, interruptions and what resumes them.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_fixture.h"

#include "calib/calibrate.h"
#include "calib/checkpoint.h"

enum { CONTEXT = 12, LAYERS = 4, WIDTH = 256 };

static void must(clq_status st, const clq_error *err)
{
    if (st != CLQ_OK) fail_msg("%s", err->text);
}

// ---- runs ----

typedef struct {
    clq_source *source;
    clq_device *device;
    clq_layers *layers;
    clq_corpus *corpus;
    clq_calibrate_options o;
    clq_hooks hooks;
    volatile sig_atomic_t cancel;
    uint32_t layers_done, stop_after; // sets cancel when so many layers are done; 0: never
    uint64_t stop_at;                 // or when so many tokens went through a layer
    uint32_t n_warnings;
} bench;

static const char sentence[] = "The configuration file is read when the server is started.";

static void on_layer(void *user, const clq_layer_report *l)
{
    bench *b = user;
    assert_int_equal(l->n_layers, LAYERS);
    assert_int_equal(l->n_sites, 4);
    assert_string_equal(strchr(l->sites[0].name + 4, '.'), ".attn_q.weight");
    b->layers_done++;
    if (b->stop_after && l->layer + 1 == b->stop_after) b->cancel = 1;
}

static void on_progress(void *user, const clq_progress *p)
{
    bench *b = user;
    assert_true(p->elements_done <= p->n_elements && p->tensors_done <= p->n_tensors);
    if (b->stop_at && p->elements_done >= b->stop_at) b->cancel = 1;
}

static void on_warning(void *user, const char *text)
{
    bench *b = user;
    assert_non_null(strstr(text, "is finished first"));
    b->n_warnings++;
}

static bool open_bench(bench *b, const char *text, bool gram)
{
    const char *data = getenv("CLQ_TEST_DATA");
    char path[1024];
    clq_error err;
    *b = (bench){.o = {.dataset = "text", .device = "ref", .gram = gram, .threads = 1}};
    snprintf(path, sizeof path, "%s/tiny-llama/model.safetensors", data ? data : "");
    if (!data || access(path, R_OK) != 0) return false;
    snprintf(path, sizeof path, "%s/tiny-llama", data);
    b->hooks = (clq_hooks){.user = b, .warn = on_warning, .progress = on_progress, .cancel = &b->cancel};
    b->o.hooks = &b->hooks;
    b->o.layer = on_layer;
    b->o.user = b;
    clq_layers_options layers = {.context = CONTEXT, .gram = gram ? CLQ_GRAM_ALL : 0, .hooks = &b->hooks};
    must(clq_source_open(path, NULL, &b->source, &err), &err);
    must(clq_device_open("ref", NULL, &b->device, &err), &err);
    must(clq_layers_open(b->source, b->device, &layers, &b->layers, &err), &err);
    clq_corpus_options corpus = {
        .kind = CLQ_CORPUS_TEXT, .name = "text", .context = CONTEXT, .vocab = clq_layers_vocab(b->layers)};
    must(clq_corpus_create(clq_layers_tokenizer(b->layers), text, strlen(text), &corpus, &b->corpus, &err), &err);
    return true;
}

static void close_bench(bench *b)
{
    clq_corpus_free(b->corpus);
    clq_layers_close(b->layers);
    clq_device_close(b->device);
    clq_source_close(b->source);
}

static clq_status run(bench *b, const char *name, clq_stats_file **stats, clq_error *err)
{
    char path[256];
    clq_stats_file *own;
    make_path(path, root, name);
    b->o.out = path;
    b->layers_done = 0;
    b->cancel = 0;
    clq_status st = clq_calibrate(b->source, b->layers, b->corpus, &b->o, stats ? stats : &own, err);
    if (st == CLQ_OK && !stats) clq_stats_free(own);
    return st;
}

static void read_file(const char *name, char **bytes, size_t *len)
{
    char path[256];
    clq_error err;
    make_path(path, root, name);
    must(clq_file_slurp(path, 1 << 28, bytes, len, &err), &err);
}

static bool exists(const char *name)
{
    char path[256];
    make_path(path, root, name);
    return access(path, F_OK) == 0;
}

static void same_files(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    read_file(a, &x, &n);
    read_file(b, &y, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

// ---- tests ----

// What can be told without running a model: the first site's input is the embedding, normalised.
static void test_what_is_measured(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    clq_stats_file *f;
    if (!open_bench(&b, sentence, true)) skip();
    must(run(&b, "stats", &f, &err), &err);
    uint64_t n = strlen(sentence); // bytes are tokens
    assert_int_equal(b.layers_done, LAYERS);
    assert_int_equal(f->n_sites, LAYERS * 4);
    assert_int_equal(f->tokens, n);
    assert_int_equal(f->windows, (n + CONTEXT - 1) / CONTEXT);
    assert_string_equal(f->architecture, "llama");
    for (uint32_t i = 0; i < f->n_sites; i++) {
        const clq_stat_site *s = &f->sites[i];
        double values = 0;
        for (uint32_t k = 0; k < 2 * CLQ_BINS; k++) values += s->bins[k];
        assert_true(s->tokens[0] == n && values == (double)n * s->cols);
        assert_true(s->ranges[CLQ_OBSERVER_MINMAX].absmax == s->token_range[1]);
        for (uint32_t c = 0; c < s->cols; c++) {
            float product = s->gram[(uint64_t)c * s->cols + c];
            assert_true(fabsf(product - s->sum_sq[c]) <= 1e-5f * s->sum_sq[c]);
            assert_true(s->sum_abs[c] >= fabsf(s->sum[c]) && s->min[c] <= s->max[c]);
        }
    }
    const clq_stat_site *first = clq_stats_find(f, "blk.0.attn_k.weight");
    assert_int_equal(first->n_weights, 3);
    float *hidden = malloc(n * WIDTH * sizeof *hidden), *norm = malloc(WIDTH * sizeof *norm);
    for (uint32_t w = 0; w < b.corpus->n_windows; w++)
        must(clq_layers_embed(b.layers, b.corpus->tokens + w * CONTEXT, clq_corpus_window(b.corpus, w),
                              hidden + w * CONTEXT * WIDTH, &err),
             &err);
    const clq_tensor *t = clq_source_find(b.source, "model.layers.0.input_layernorm.weight");
    must(clq_tensor_read(b.source, t, 0, 1, norm, &err), &err);
    for (uint32_t c = 0; c < WIDTH; c += 37) {
        double sum = 0;
        for (uint64_t i = 0; i < n; i++) {
            const float *x = hidden + i * WIDTH;
            double square = 0;
            for (uint32_t k = 0; k < WIDTH; k++) square += (double)x[k] * (double)x[k] / WIDTH;
            double y = (double)x[c] / sqrt(square + 1e-5) * (double)norm[c];
            sum += y * y;
        }
        assert_true(fabs(sum - (double)first->sum_sq[c]) <= 1e-5 * sum);
    }
    free(hidden);
    free(norm);
    clq_stats_free(f);
    close_bench(&b);
    remove_file(root, "stats");
}

// Stopped behind any layer, and in the middle of one, then resumed: the same bytes, and no layer is run twice.
static void test_resume(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    must(run(&b, "whole", NULL, &err), &err);
    uint64_t n = b.corpus->n_tokens;
    for (uint32_t k = 1; k <= 5; k++) {
        b.stop_after = k < LAYERS ? k : 0;
        b.stop_at = k < LAYERS ? 0 : k == 4 ? n + CONTEXT : 2 * n + n / 2;
        b.o.resume = false;
        b.n_warnings = 0;
        assert_int_equal(run(&b, "stats", NULL, &err), CLQ_INTERRUPTED);
        uint32_t done = k < LAYERS ? k : k == 4 ? 2 : 3;
        char says[64];
        snprintf(says, sizeof says, "after %u of 4 layers", done);
        assert_non_null(strstr(err.text, says));
        assert_int_equal(b.layers_done, done);
        assert_int_equal(b.n_warnings, k >= LAYERS);
        assert_false(exists("stats"));
        assert_true(exists("stats.clq-partial"));
        b.stop_after = 0;
        b.stop_at = 0;
        b.o.resume = true;
        must(run(&b, "stats", NULL, &err), &err);
        assert_int_equal(b.layers_done, LAYERS - done);
        assert_false(exists("stats.clq-partial"));
        same_files("whole", "stats");
        remove_file(root, "stats");
    }
    close_bench(&b);
    remove_file(root, "whole");
}

// In the first layer nothing is lost, so that a run ends at once; nothing to resume is no error.
static void test_interrupted_early(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    b.stop_at = 1;
    assert_int_equal(run(&b, "stats", NULL, &err), CLQ_INTERRUPTED);
    assert_non_null(strstr(err.text, "nothing to resume"));
    assert_int_equal(b.layers_done, 0);
    assert_false(exists("stats.clq-partial"));
    b.stop_at = 0;
    b.o.resume = true;
    must(run(&b, "stats", NULL, &err), &err);
    close_bench(&b);
    remove_file(root, "stats");
}

// A run that is interrupted where its last checkpoint was written ends at once, too.
static void test_frequent_checkpoints(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    must(run(&b, "whole", NULL, &err), &err);
    b.o.checkpoint_seconds = 1e-9;
    b.stop_at = 2 * b.corpus->n_tokens + 1;
    assert_int_equal(run(&b, "stats", NULL, &err), CLQ_INTERRUPTED);
    assert_non_null(strstr(err.text, "after 2 of 4 layers"));
    assert_int_equal(b.n_warnings, 0);
    b.stop_at = 0;
    b.o.resume = true;
    must(run(&b, "stats", NULL, &err), &err);
    assert_int_equal(b.layers_done, 2);
    same_files("whole", "stats");
    close_bench(&b);
    remove_file(root, "stats");
    remove_file(root, "whole");
}

static void expect_refusal(bench *b, const char *says)
{
    clq_error err;
    b->o.resume = true;
    assert_int_equal(run(b, "stats", NULL, &err), CLQ_BAD_INPUT);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
    assert_true(exists("stats.clq-partial"));
}

static void test_other_runs_refused(void **state)
{
    (void)state;
    bench b, other;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    b.stop_after = 1;
    assert_int_equal(run(&b, "stats", NULL, &err), CLQ_INTERRUPTED);
    b.stop_after = 0;
    assert_true(open_bench(&other, "Another text, which has as many bytes as it needs to have.", false));
    expect_refusal(&other, "cannot resume");
    close_bench(&other);
    assert_true(open_bench(&other, sentence, true));
    expect_refusal(&other, "cannot resume");
    close_bench(&other);
    b.o.device = "another";
    expect_refusal(&b, "are not those of the interrupted run");
    b.o.device = "ref";
    b.source->files[0].mtime_ns++;
    expect_refusal(&b, "are not those of the interrupted run");
    b.source->files[0].mtime_ns--;
    // Damaged, and something else.
    char *bytes;
    size_t len;
    read_file("stats.clq-partial", &bytes, &len);
    write_bytes(root, "stats.clq-partial", bytes, len / 2);
    expect_refusal(&b, "stats.clq-partial");
    write_text(root, "stats.clq-partial", "a note to myself, not a checkpoint");
    expect_refusal(&b, "stats.clq-partial");
    write_bytes(root, "stats.clq-partial", bytes, len);
    free(bytes);
    must(run(&b, "stats", NULL, &err), &err);
    close_bench(&b);
    remove_file(root, "stats");
}

// NaN in a hidden state: the layer, and the weight that reads it, are named.
static void test_bad_activations(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    float bad = NAN;
    b.stop_after = 2;
    assert_int_equal(run(&b, "stats", NULL, &err), CLQ_INTERRUPTED);
    char *bytes;
    size_t len;
    read_file("stats.clq-partial", &bytes, &len);
    uint64_t head = 0;
    memcpy(&head, bytes, 8);
    char *header = strndup(bytes + 8, head), *entry = strstr(header, "\"hidden\"");
    unsigned long long at;
    assert_int_equal(sscanf(strstr(entry, "data_offsets\":[") + strlen("data_offsets\":["), "%llu", &at), 1);
    memcpy(bytes + 8 + head + at + 4 * WIDTH, &bad, sizeof bad);
    write_bytes(root, "stats.clq-partial", bytes, len);
    b.stop_after = 0;
    b.o.resume = true;
    assert_int_equal(run(&b, "stats", NULL, &err), CLQ_BAD_INPUT);
    if (!strstr(err.text, "layer 2:") || !strstr(err.text, "'blk.2.attn_q.weight'")) fail_msg("%s", err.text);
    assert_false(exists("stats"));
    free(header);
    free(bytes);
    close_bench(&b);
    remove_file(root, "stats.clq-partial");
}

static void test_place_is_checked_first(void **state)
{
    (void)state;
    bench b;
    clq_error err;
    if (!open_bench(&b, sentence, false)) skip();
    assert_int_equal(run(&b, "no/such/folder/stats", NULL, &err), CLQ_OUTPUT);
    assert_int_equal(run(&b, "", NULL, &err), CLQ_OUTPUT); // a folder
    assert_int_equal(b.layers_done, 0);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_measured),       cmocka_unit_test(test_resume),
        cmocka_unit_test(test_interrupted_early),      cmocka_unit_test(test_frequent_checkpoints),
        cmocka_unit_test(test_other_runs_refused),     cmocka_unit_test(test_bad_activations),
        cmocka_unit_test(test_place_is_checked_first),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

// SPDX-License-Identifier: MIT
// host/run/evaluate, score, kldbase: the numbers of tests/golden/make_evaluation.py (numpy), the base file.
#include "file_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run/evaluate.h"

enum { VOCAB = 37, CONTEXT = 8, WINDOWS = 3, BOS = 1, ROWS = 3, WORDS = 4 + 38, N_TOKENS = WINDOWS * CONTEXT };

static uint32_t mix(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t h = a * 2654435761u + b * 40503u + c * 2246822519u;
    h ^= h >> 15;
    h *= 0x2c1b3c6d;
    return h ^ h >> 12;
}

// A model whose logits depend on position and token.
typedef struct {
    uint32_t salt, piece; // rows a call
    int calls;
    float poison;                     // stands in for a logit when not 0
    bool keep_quiet;                  // gives no rows
    volatile sig_atomic_t *interrupt; // set by the second call
} fake;

static clq_status run_fake(void *user, const int32_t *tokens, uint32_t n, uint32_t from, clq_rows_fn rows,
                           void *rows_user, clq_error *err)
{
    fake *f = user;
    float logits[ROWS * VOCAB];
    if (++f->calls == 2 && f->interrupt) *f->interrupt = 1;
    assert_int_equal(n, CONTEXT - 1);
    assert_int_equal(from, CONTEXT / 2);
    assert_int_equal(tokens[0], BOS);
    for (uint32_t p = from; p < n && !f->keep_quiet; p += f->piece) {
        uint32_t m = f->piece < n - p ? f->piece : n - p;
        for (uint32_t k = 0; k < m; k++)
            for (uint32_t i = 0; i < VOCAB; i++) {
                uint32_t token = (uint32_t)tokens[p + k];
                logits[k * VOCAB + i] = (float)(mix(f->salt + p + k, token, i) & 2047) / 1024 +
                                        (float)(mix(5 + p + k, token, i) & 4095) / 128;
            }
        if (f->poison != 0) logits[VOCAB - 1] = f->poison;
        clq_status st = rows(rows_user, p, m, logits, err);
        if (st != CLQ_OK) return st;
    }
    return CLQ_OK;
}

static int32_t tokens[N_TOKENS];
static const clq_kldbase_shape shape = {.context = CONTEXT, .vocab = VOCAB, .windows = WINDOWS};

static int make_tokens(void **state)
{
    for (uint32_t i = 0; i < N_TOKENS; i++) tokens[i] = (int32_t)(mix(9, i, 0) % VOCAB);
    assert_int_equal(tokens[3], 20);
    return make_root(state);
}

static clq_evaluate_options options(void)
{
    return (clq_evaluate_options){.tokens = tokens, .context = CONTEXT, .windows = WINDOWS, .bos = BOS, .threads = 2};
}

static clq_predictor predictor(fake *f) { return (clq_predictor){.user = f, .vocab = VOCAB, .run = run_fake}; }

static void near(double v, double right, const char *what)
{
    if (fabs(v - right) > 2e-5 * fabs(right) + 1e-9) fail_msg("%s is %.12g, not %.12g", what, v, right);
}

// The base's file, written by an evaluation of the model with salt 200.
static void write_base(const char *path, uint32_t piece)
{
    clq_error err;
    clq_kldbase_writer *writer;
    clq_evaluation e;
    fake f = {.salt = 200, .piece = piece};
    clq_predictor p = predictor(&f);
    clq_evaluate_options o = options();
    assert_int_equal(clq_kldbase_create(path, &shape, tokens, &writer, &err), CLQ_OK);
    o.save = writer;
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_OK);
    assert_int_equal(clq_kldbase_finish(writer, &err), CLQ_OK);
    clq_kldbase_free(writer);
    assert_false(e.has_base);
    near(e.ppl.value, 990760.9923980763, "PPL of the base"); // before the file's rounding
    near(e.ppl.error, 3347139.3346029217, "its error");
}

static clq_kldbase *open_base(const char *path)
{
    clq_kldbase *base;
    clq_error err;
    if (clq_kldbase_open(path, &base, &err) != CLQ_OK) fail_msg("%s", err.text);
    return base;
}

static void test_numbers(void **state)
{
    (void)state;
    char path[256];
    make_path(path, root, "base.kld");
    write_base(path, 2);
    clq_kldbase *base = open_base(path);
    for (uint32_t piece = 1; piece <= 3; piece++) {
        fake f = {.salt = 100, .piece = piece};
        clq_predictor p = predictor(&f);
        clq_evaluate_options o = options();
        clq_evaluation e;
        clq_error err;
        double klds[WINDOWS], sum = 0;
        o.base = base;
        o.window_klds = klds;
        assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_OK);
        for (int w = 0; w < WINDOWS; w++) sum += klds[w];
        near(sum / WINDOWS, e.base.kld.value, "mean of the windows' KLD");
        assert_true(e.has_base && e.windows == WINDOWS && e.scored == WINDOWS * ROWS && f.calls == WINDOWS);
        const clq_divergence *d = &e.base;
        near(e.nll.value, log(886081.1839946391), "ln PPL");
        near(e.ppl.value, 886081.1839946391, "PPL");
        near(e.ppl.error, 2866435.036456776, "its error");
        near(d->ppl_base.value, 58986.7910865129, "PPL of the base");
        near(d->ppl_base.error, 122965.93982484705, "its error");
        near(d->ratio.value, 15.021688206348932, "ratio");
        near(d->ratio.error, 26.23337739890086, "its error");
        near(d->ln_ratio.value, log(15.021688206348932), "ln ratio");
        near(d->difference.value, 886081.1839946391 - 58986.7910865129, "difference");
        near(d->correlation, 0.8719876533401121, "correlation");
        near(d->kld.value, 0.18055412058815554, "KLD");
        near(d->kld.error, 0.05927793347296264, "its error");
        near(d->kld_min, 0.021364038901439987, "KLD min");
        near(d->kld_p10, 0.04175991780096614, "KLD 10%");
        near(d->kld_median, 0.1155435963795702, "KLD median");
        near(d->kld_p90, 0.31575014935672224, "KLD 90%");
        near(d->kld_p99, 0.5764677816398459, "KLD 99%");
        near(d->kld_max, 0.6054364074490819, "KLD max");
        near(d->delta_p.value, -0.03177928386426487, "delta p");
        near(d->delta_p.error, 0.030645382605046536, "its error");
        near(d->rms_delta_p.value, 0.09232030482511978, "RMS delta p");
        near(d->rms_delta_p.error, 0.04610137449057508, "its error");
        near(d->same_top.value, 6.0 / 9, "same top");
        near(d->same_top.error, 0.16666666666666666, "its error");
    }
    clq_kldbase_close(base);
}

// A model against its own base: nothing but the file's rounding is between them.
static void test_itself(void **state)
{
    (void)state;
    char path[256];
    make_path(path, root, "own.kld");
    write_base(path, 3);
    fake f = {.salt = 200, .piece = 3};
    clq_predictor p = predictor(&f);
    clq_evaluate_options o = options();
    clq_evaluation e;
    clq_error err;
    clq_kldbase *base = open_base(path);
    o.base = base;
    o.windows = 2; // fewer than the base has
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_OK);
    assert_int_equal(e.scored, 2 * ROWS);
    assert_true(fabs(e.base.kld_max) < 1e-4 && fabs(e.base.kld_min) < 1e-4);
    assert_true(e.base.same_top.value == 1 && e.base.same_top.error == 0);
    assert_true(e.base.ratio.value > 1); // a token at the floor gets more than it had
    assert_int_equal(
        clq_evaluate(&p, &(clq_evaluate_options){.tokens = tokens, .context = 6, .windows = 4, .base = base}, &e, &err),
        CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "of 3 windows of 8 tokens"));
    p.vocab = VOCAB + 1;
    o.windows = WINDOWS;
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "vocabulary of 37, the model has 38"));
    clq_kldbase_close(base);
}

static void test_row(void **state)
{
    (void)state;
    enum { N = 1003 };
    float x[N];
    clq_score s;
    double sum = 0;
    for (uint32_t i = 0; i < N; i++) {
        x[i] = (float)(mix(1, 2, i) % 60000) / 1000 - 30;
        sum += exp((double)x[i]);
    }
    assert_true(clq_score_row(x, N, 500, NULL, NULL, &s));
    near(s.nll, log(sum) - (double)x[500], "-ln p");
    // Masked tokens are fine; without any other token they are not.
    x[3] = -INFINITY;
    assert_true(clq_score_row(x, N, 3, NULL, NULL, &s));
    assert_true(isinf(s.nll) && s.nll > 0);
    for (uint32_t bad = 0; bad < N; bad += 77) {
        float kept = x[bad];
        x[bad] = NAN;
        assert_false(clq_score_row(x, N, 0, NULL, NULL, &s));
        x[bad] = INFINITY;
        assert_false(clq_score_row(x, N, 0, NULL, NULL, &s));
        x[bad] = kept;
    }
    for (uint32_t i = 0; i < N; i++) x[i] = -INFINITY;
    assert_false(clq_score_row(x, N, 0, NULL, NULL, &s));
    // All alike: the scale is 0.
    uint16_t words[4 + N + 1];
    for (uint32_t i = 0; i < N; i++) x[i] = 5;
    assert_true(clq_score_row(x, N, 0, NULL, words, &s));
    assert_true(clq_kldbase_scale(words) == 0 && fabs((double)clq_kldbase_floor(words) + log(N)) < 1e-5);
    assert_true(clq_score_row(x, N, 0, words, NULL, &s));
    assert_true(fabs(s.kld) < 1e-5 && s.same_top && fabs(s.nll_base - log(N)) < 1e-5);
}

static void test_encoding(void **state)
{
    (void)state;
    // max 4, floor 4 - 16: -20 and -12 are it, -4 is half way up.
    const float x[5] = {-20, 4, -12, -4, -11.9997f};
    uint16_t words[4 + 6];
    memset(words, 0xff, sizeof words);
    clq_kldbase_encode(x, 5, 4, -20, 0.25, words);
    assert_true(clq_kldbase_scale(words) == 16.0f / 65535 && clq_kldbase_floor(words) == -16.25f);
    assert_int_equal(words[4], 0);
    assert_int_equal(words[5], 65535);
    assert_int_equal(words[6], 0);
    assert_in_range(words[7], 32767, 32768);
    assert_int_equal(words[8], 1);
    assert_int_equal(words[9], 0); // padding
}

static void test_bad_models(void **state)
{
    (void)state;
    const float poisons[] = {NAN, INFINITY};
    clq_evaluation e;
    clq_error err;
    clq_evaluate_options o = options();
    for (int i = 0; i < 2; i++) {
        fake f = {.salt = 1, .piece = 3, .poison = poisons[i]};
        clq_predictor p = predictor(&f);
        assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_BAD_INPUT);
        assert_non_null(strstr(err.text, "not numbers"));
    }
    fake quiet = {.keep_quiet = true};
    clq_predictor p = predictor(&quiet);
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_DEVICE);
    p.vocab = 5; // a token is out of it
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "not in the model's vocabulary of 5"));
}

static void test_interrupt(void **state)
{
    (void)state;
    volatile sig_atomic_t cancel = 0;
    clq_hooks hooks = {.cancel = &cancel};
    fake f = {.salt = 1, .piece = 3, .interrupt = &cancel};
    clq_predictor p = predictor(&f);
    clq_evaluate_options o = options();
    clq_evaluation e;
    clq_error err;
    o.hooks = &hooks;
    assert_int_equal(clq_evaluate(&p, &o, &e, &err), CLQ_INTERRUPTED);
    assert_true(e.windows == 2 && e.scored == 2 * ROWS && e.ppl.value > 1);
}

// ---- the file ----

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> 8 * i);
}

// A file of 20 + 4 * 24 + 9 * 2 * 42 bytes.
enum { TOKENS_AT = 20, ROWS_AT = TOKENS_AT + 4 * N_TOKENS, FILE_BYTES = ROWS_AT + WINDOWS * ROWS * 2 * WORDS };

static void refused(const unsigned char *bytes, size_t n, const char *says)
{
    char path[256];
    clq_kldbase *base;
    clq_error err;
    write_bytes(root, "bad.kld", bytes, n);
    make_path(path, root, "bad.kld");
    assert_int_equal(clq_kldbase_open(path, &base, &err), CLQ_BAD_INPUT);
    assert_null(base);
    if (!strstr(err.text, says) || !strstr(err.text, "bad.kld")) fail_msg("'%s' does not say '%s'", err.text, says);
}

static void test_file(void **state)
{
    (void)state;
    char path[256];
    make_path(path, root, "file.kld");
    write_base(path, 1);
    clq_kldbase *base = open_base(path);
    clq_kldbase_shape s = clq_kldbase_shape_of(base);
    assert_true(s.context == CONTEXT && s.vocab == VOCAB && s.windows == WINDOWS);
    assert_memory_equal(clq_kldbase_tokens(base), tokens, sizeof tokens); // the text's, not BOS
    uint16_t words[ROWS * WORDS];
    clq_error err;
    assert_int_equal(clq_kldbase_rows(base, 2, 0, ROWS, words, &err), CLQ_OK);
    assert_int_equal(clq_kldbase_rows(base, 2, 1, ROWS, words, &err), CLQ_BAD_INPUT);
    assert_int_equal(clq_kldbase_rows(base, 3, 0, 1, words, &err), CLQ_BAD_INPUT);
    assert_int_equal(clq_kldbase_rows(base, 0, UINT32_MAX, 2, words, &err), CLQ_BAD_INPUT);
    clq_kldbase_close(base);
    clq_kldbase_close(NULL);

    unsigned char good[FILE_BYTES + 1], bad[FILE_BYTES + 1];
    FILE *f = fopen(path, "rb");
    assert_int_equal(fread(good, 1, sizeof good, f), FILE_BYTES);
    fclose(f);
#define CHANGED(at, v) (memcpy(bad, good, sizeof bad), put32(bad + (at), v), bad)
    refused(good, 0, "only 0 bytes");
    refused(good, 19, "only 19 bytes");
    refused(good, FILE_BYTES - 1, "it is incomplete");
    refused(good, FILE_BYTES + 1, "bytes, which is not what");
    refused(CHANGED(0, 0x12345678), FILE_BYTES, "does not begin with");
    const uint32_t wrong[] = {0, 1, 3, 9, 1 << 30, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int field = 8; field < 20; field += 4)
            if (wrong[i] != (field == 16 ? WINDOWS : 0)) refused(CHANGED(field, wrong[i]), FILE_BYTES, "bad.kld");
    refused(CHANGED(TOKENS_AT + 8, VOCAB), FILE_BYTES, "token 2 is 37, which is not in its vocabulary of 37");
    refused(CHANGED(TOKENS_AT, UINT32_MAX), FILE_BYTES, "token 0 is -1");
    // Rows are looked at when they are read.
    const uint32_t scales[] = {0x7fc00000, 0x7f800000, 0xbf800000, 0x40000000};
    for (int i = 0; i < 8; i++) {
        write_bytes(root, "bad.kld", CHANGED(ROWS_AT + 4 * (i & 1), i & 1 && i / 2 == 2 ? 0x7f800000 : scales[i / 2]),
                    FILE_BYTES);
        make_path(path, root, "bad.kld");
        base = open_base(path);
        assert_int_equal(clq_kldbase_rows(base, 0, 0, 1, words, &err), CLQ_BAD_INPUT);
        assert_int_equal(clq_kldbase_rows(base, 0, 1, 1, words, &err), CLQ_OK);
        clq_kldbase_close(base);
    }
}

static void test_unfinished(void **state)
{
    (void)state;
    char path[256];
    clq_kldbase_writer *writer;
    clq_error err;
    make_path(path, root, "never.kld");
    assert_int_equal(clq_kldbase_create(path, &shape, tokens, &writer, &err), CLQ_OK);
    assert_int_equal(clq_kldbase_finish(writer, &err), CLQ_OUTPUT);
    clq_kldbase_free(writer);
    FILE *f = fopen(path, "rb");
    assert_null(f);
    make_path(path, root, "nowhere/base.kld");
    assert_int_equal(clq_kldbase_create(path, &shape, tokens, &writer, &err), CLQ_OUTPUT);
    clq_kldbase_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_itself),     cmocka_unit_test(test_row),
        cmocka_unit_test(test_encoding), cmocka_unit_test(test_bad_models), cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_file),     cmocka_unit_test(test_unfinished),
    };
    return cmocka_run_group_tests(tests, make_tokens, remove_root);
}

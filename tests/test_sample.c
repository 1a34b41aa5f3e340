// SPDX-License-Identifier: MIT
// host/model/sample: which token comes next; host/run/stream: whole characters and stop texts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/exp.h"
#include "model/sample.h"
#include "run/stream.h"

static void test_exp(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -87; x <= 88; x += 0.0137f) {
        double right = exp((double)x), off = fabs((double)clq_exp(x) - right) / right;
        if (off > worst) worst = off;
    }
    assert_true(worst < 1e-7);
    assert_true(clq_exp(0) == 1 && clq_exp(-INFINITY) == 0 && clq_exp(-100) == 0 && isnan(clq_exp(NAN)));
    assert_true(isnan(clq_exp(clq_from_bits(0x7fc001ff)))); // with a payload
}

static clq_sampler *sampler(uint32_t vocab, clq_sampling o)
{
    clq_sampler *s;
    clq_error err;
    assert_int_equal(clq_sampler_create(&o, vocab, &s, &err), CLQ_OK);
    return s;
}

static int32_t sample(clq_sampler *s, const float *logits)
{
    int32_t token = -1;
    clq_error err;
    assert_int_equal(clq_sample(s, logits, &token, &err), CLQ_OK);
    return token;
}

enum { DRAWS = 40000 };

// Draws, and compares each token's share with p: within 5 standard errors.
static void check_shares(const float *logits, const double *p, uint32_t vocab, clq_sampling o)
{
    clq_sampler *s = sampler(vocab, o);
    uint32_t count[16] = {0};
    for (int i = 0; i < DRAWS; i++) {
        int32_t token = sample(s, logits);
        assert_in_range(token, 0, vocab - 1);
        count[token]++;
    }
    for (uint32_t i = 0; i < vocab; i++) {
        double share = (double)count[i] / DRAWS, error = sqrt(p[i] * (1 - p[i]) / DRAWS);
        if (p[i] == 0) assert_int_equal(count[i], 0);
        if (fabs(share - p[i]) > 5 * error) fail_msg("token %u: share %g, not %g", i, share, p[i]);
    }
    clq_sampler_free(s);
}

// Logits whose softmax is 0.1 0.4 0.05 0.3 0.15.
static const double shares[5] = {0.1, 0.4, 0.05, 0.3, 0.15};
static void logits_of(float *logits)
{
    for (int i = 0; i < 5; i++) logits[i] = (float)log(shares[i]) + 3;
}

static void test_distributions(void **state)
{
    (void)state;
    float x[5];
    logits_of(x);
    const clq_sampling plain = {.top_p = 1, .temperature = 1, .seed = 7};
    clq_sampling o = plain;
    check_shares(x, shares, 5, o);
    o.top_k = 5;
    check_shares(x, shares, 5, o);
    o.top_k = 2;
    check_shares(x, (double[]){0, 4.0 / 7, 0, 3.0 / 7, 0}, 5, o);
    o = plain;
    o.top_p = 0.65f; // 0.4 + 0.3 reach it
    check_shares(x, (double[]){0, 4.0 / 7, 0, 3.0 / 7, 0}, 5, o);
    o.top_p = 0.75f; // 0.15 is needed too
    check_shares(x, (double[]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85}, 5, o);
    o.top_p = 0.001f; // one stays
    check_shares(x, (double[]){0, 1, 0, 0, 0}, 5, o);
    o = plain;
    o.min_p = 0.3f; // 0.12 at least
    check_shares(x, (double[]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85}, 5, o);
    o.min_p = 1;
    check_shares(x, (double[]){0, 1, 0, 0, 0}, 5, o);
    // The sum of top-p is over what top-k left: 4/7 < 0.6, so two; over all, 0.4 + 0.3 would do for 0.7 only.
    o = plain;
    o.top_k = 2;
    o.top_p = 0.5f;
    check_shares(x, (double[]){0, 1, 0, 0, 0}, 5, o);
}

static void test_temperature(void **state)
{
    (void)state;
    float x[5];
    logits_of(x);
    clq_sampling o = {.top_p = 1, .temperature = 2, .seed = 8};
    double p[5], sum = 0;
    for (int i = 0; i < 5; i++) sum += p[i] = sqrt(shares[i]);
    for (int i = 0; i < 5; i++) p[i] /= sum;
    check_shares(x, p, 5, o);
    // Temperature comes last: which tokens min-p keeps does not depend on it.
    o.min_p = 0.3f;
    sum = p[1] + p[3] + p[4];
    check_shares(x, (double[]){0, p[1] / sum, 0, p[3] / sum, p[4] / sum}, 5, o);
    o = (clq_sampling){.top_p = 1, .temperature = 1e-30f};
    check_shares(x, (double[]){0, 1, 0, 0, 0}, 5, o);
}

static void test_greedy(void **state)
{
    (void)state;
    clq_sampler *s = sampler(4, (clq_sampling){.top_p = 1, .seed = 1});
    assert_int_equal(sample(s, (float[]){-5, -1, -1, -2}), 1); // the first of equals
    assert_int_equal(sample(s, (float[]){-INFINITY, -INFINITY, -INFINITY, -3e38f}), 3);
    clq_sampler_free(s);
    s = sampler(3, (clq_sampling){.top_k = 1, .top_p = 1, .temperature = 1});
    for (int i = 0; i < 100; i++) assert_int_equal(sample(s, (float[]){7, 7, 7}), 0);
    clq_sampler_free(s);
    s = sampler(3, (clq_sampling){.top_p = 1, .temperature = 1});
    for (int i = 0; i < 100; i++) assert_int_equal(sample(s, (float[]){-INFINITY, 2, -INFINITY}), 1);
    clq_sampler_free(s);
}

// The generator written anew in Python: floor(1000 * uniform) of the first draws.
static void test_sequence(void **state)
{
    (void)state;
    static const int32_t of_0[] = {906, 539, 801, 99, 819, 931, 889, 895, 380, 12, 821, 922},
                         of_42[] = {761, 448, 959, 796, 480, 709, 24, 894, 703, 104, 273, 669};
    float zeros[1000] = {0};
    clq_sampling o = {.top_p = 1, .temperature = 1};
    clq_sampler *s = sampler(1000, o);
    for (int i = 0; i < 12; i++) assert_int_equal(sample(s, zeros), of_0[i]);
    clq_sampler_free(s);
    o.seed = 42;
    s = sampler(1000, o);
    for (int i = 0; i < 12; i++) assert_int_equal(sample(s, zeros), of_42[i]);
    clq_sampler_free(s);
}

static void test_bad_logits(void **state)
{
    (void)state;
    clq_error err;
    int32_t token;
    for (int t = 0; t < 2; t++) {
        clq_sampler *s = sampler(3, (clq_sampling){.top_p = 1, .temperature = (float)t});
        assert_int_equal(clq_sample(s, (float[]){0, 1, NAN}, &token, &err), CLQ_BAD_INPUT);
        assert_non_null(strstr(err.text, "not numbers"));
        assert_int_equal(clq_sample(s, (float[]){NAN, 1, 2}, &token, &err), CLQ_BAD_INPUT);
        assert_int_equal(clq_sample(s, (float[]){0, INFINITY, 2}, &token, &err), CLQ_BAD_INPUT);
        assert_int_equal(clq_sample(s, (float[]){-INFINITY, -INFINITY, -INFINITY}, &token, &err), CLQ_BAD_INPUT);
        clq_sampler_free(s);
    }
    clq_sampler *s;
    const clq_sampling wrong[] = {{.top_p = 0},
                                  {.top_p = NAN},
                                  {.top_p = 1, .min_p = 2},
                                  {.top_p = 1, .temperature = -1},
                                  {.top_p = 1, .min_p = -1},
                                  {.top_p = 1, .temperature = INFINITY}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(clq_sampler_create(&wrong[i], 3, &s, &err), CLQ_USAGE);
    clq_sampler_free(NULL);
}

// ---- streams ----

// Pushes the pieces; `whole` gets what came on, with '|' behind each piece's part.
static bool stream(const char *const *stops, uint32_t n_stops, const char *const *pieces, char *whole)
{
    clq_stream s = {.stops = stops, .n_stops = n_stops};
    clq_buf out = {0};
    for (; *pieces; pieces++) {
        clq_stream_push(&s, *pieces, strlen(*pieces));
        clq_stream_take(&s, &out);
        clq_buf_text(&out, "|");
    }
    clq_stream_end(&s);
    clq_stream_take(&s, &out);
    assert_true(out.len < 100 && !out.failed && !s.held.failed);
    memcpy(whole, out.data, out.len);
    whole[out.len] = '\0';
    bool stopped = s.stopped;
    clq_buf_free(&out);
    clq_stream_free(&s);
    return stopped;
}

#define PIECES(...)                                                                                                    \
    (const char *const[]) { __VA_ARGS__, NULL }

static void test_stops(void **state)
{
    (void)state;
    char text[128];
    const char *const stops[] = {"###", "\nUser:"};
    assert_false(stream(NULL, 0, PIECES("ab", "c"), text));
    assert_string_equal(text, "ab|c|");
    assert_true(stream(stops, 2, PIECES("ab#", "#", "#tail", "more"), text));
    assert_string_equal(text, "ab|||"
                              "|");
    assert_false(stream(stops, 2, PIECES("ab##", "c#", "d"), text)); // not this time
    assert_string_equal(text, "ab|##c|#d|");
    assert_true(stream(stops, 2, PIECES("a\nUs\n", "Use", "r: hi"), text)); // a new begin in a failed one
    assert_string_equal(text, "a\nUs|||");
    assert_true(stream(stops, 2, PIECES("x####"), text)); // the earliest
    assert_string_equal(text, "x|");
    assert_false(stream(stops, 2, PIECES("a##"), text)); // held at the end
    assert_string_equal(text, "a|##");
    assert_true(stream(stops, 2, PIECES("###"), text));
    assert_string_equal(text, "|");
    assert_true(stream(PIECES("aab"), 1, PIECES("a", "a", "a", "b"), text));
    assert_string_equal(text, "||a||");
}

static void test_characters(void **state)
{
    (void)state;
    char text[128];
    stream(NULL, 0, PIECES("a\xc3", "\xa9", "\xe2\x82", "\xac", "\xf0\x9f", "\x98", "\x80!"), text);
    assert_string_equal(text, "a|\xc3\xa9||\xe2\x82\xac|||\xf0\x9f\x98\x80!|");
    stream(NULL, 0, PIECES("a\xe2\x82"), text); // never finished
    assert_string_equal(text, "a|\xe2\x82");
    stream(NULL, 0, PIECES("\xff\xfe", "\x80\x80\x80\x80", "b"), text); // no UTF-8: goes on
    assert_string_equal(text, "\xff\xfe|\x80\x80\x80\x80|b|");
    assert_true(stream(PIECES("\xc3\xa9"), 1, PIECES("a\xc3", "\xa9"), text));
    assert_string_equal(text, "a||");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),    cmocka_unit_test(test_distributions), cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_greedy), cmocka_unit_test(test_sequence),      cmocka_unit_test(test_bad_logits),
        cmocka_unit_test(test_stops),  cmocka_unit_test(test_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

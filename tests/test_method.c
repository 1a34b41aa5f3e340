// SPDX-License-Identifier: MIT
// Factors of channels, and the factor of GPTQ's updates, on few numbers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "method/gptq.h"
#include "method/method.h"
#include "method/search.h"

enum { N = 6 };

static void near(float a, float b) { assert_true(fabsf(a - b) <= 1e-6f * fabsf(b)); }

static void test_awq(void **state)
{
    (void)state;
    float mean[N] = {4, 1, 0, 0.25f, 1e-30f, 16}, w[N] = {0.5f, 0.25f, 0.5f, 1, 0.5f, 0}, unused[N] = {0}, s[N];
    clq_channel_facts facts = {mean, unused, w, unused, N, false};

    clq_awq_factors(&facts, 0, false, s); // ratio 0 without the term of weights: none
    for (int c = 0; c < N; c++) assert_true(s[c] == 1);

    clq_awq_factors(&facts, 0.5f, false, s); // 2, 1, dead, .5, the least 1e-4, 4
    float by = sqrtf(4 * 1e-4f);
    near(s[0], 2 / by);
    near(s[1], 1 / by);
    assert_true(s[2] == 1);
    near(s[3], 0.5f / by);
    near(s[4], 1e-4f / by);
    near(s[5], 4 / by);

    mean[4] = 1;
    clq_awq_factors(&facts, 0.5f, true, s); // a channel without weights: 1e-4 in their place
    by = sqrtf(4 / 1e-4f * 0.5f / (1 + 1e-4f));
    near(s[5], 4 / 1e-4f / by);
    near(s[3], 0.5f / (1 + 1e-4f) / by);
    near(s[0], 2 / (sqrtf(0.5f) + 1e-4f) / by);
}

static void test_awq_dead(void **state)
{
    (void)state;
    float mean[N] = {0}, w[N] = {0}, s[N];
    clq_channel_facts facts = {mean, mean, w, w, N, false};
    for (int k = 0; k < 40; k++) {
        clq_awq_factors(&facts, (float)(k % 20) / 20, k < 20, s);
        for (int c = 0; c < N; c++) assert_true(s[c] == 1);
    }
    for (int c = 0; c < N; c++) mean[c] = c % 2 ? 3e38f : 1e-38f;
    for (int k = 0; k < 40; k++) {
        clq_awq_factors(&facts, (float)(k % 20) / 20, k < 20, s);
        for (int c = 0; c < N; c++) assert_true(s[c] > 0 && isfinite(s[c]) && isfinite(1 / s[c]));
    }
}

static void test_smoothquant(void **state)
{
    (void)state;
    float most[N] = {8, 0, 2, 1e-30f, 3e38f, 1}, w[N] = {2, 1, 0, 1, 1e-30f, 1e-7f}, unused[N] = {0}, s[N];
    clq_channel_facts facts = {unused, most, unused, w, N, false};
    clq_smooth_factors(&facts, 0.5f, s);
    near(s[0], 2);
    assert_true(s[1] == 1 && s[2] == 1);
    near(s[3], 1e-5f);
    near(s[5], 1 / sqrtf(1e-5f)); // of weights that are nearly none
    for (int k = 0; k <= 20; k++) {
        clq_smooth_factors(&facts, (float)k / 20, s);
        for (int c = 0; c < N; c++) assert_true(s[c] >= 1e-5f && isfinite(s[c]) && isfinite(1 / s[c]));
    }
    clq_smooth_factors(&facts, 1, s);
    near(s[0], 8);
    clq_smooth_factors(&facts, 0, s);
    near(s[0], 0.5f);
}

// U'U = inverse of the damped Hessian in the sweep's order: U H U' = 1 with its rows.
static void check_sweep(const float *gram, const clq_sweep *sweep)
{
    double h[N][N], u[N][N] = {{0}}, mean = 0;
    for (int i = 0; i < N; i++) mean += gram[i * N + i] > 0 ? (double)gram[i * N + i] / N : 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            uint32_t r = sweep->order[i], c = sweep->order[j];
            h[i][j] = (double)gram[r * N + c];
            if (i == j && !(h[i][j] > 0)) h[i][j] = mean;
            if (i == j) h[i][j] += (double)sweep->damp * mean;
            if (j >= i) u[i][j] = sweep->factor[i * N + j];
        }
    for (int i = 0; i < N; i++) // (U'U) H = 1
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                for (int l = 0; l < N; l++) sum += u[k][i] * u[k][l] * h[l][j];
            assert_true(fabs(sum - (i == j)) < 1e-6);
        }
}

static void test_sweep(void **state)
{
    (void)state;
    // Four inputs; column 3 is dead, columns 4 and 5 are equal.
    const float x[4][N] = {
        {1, 2, 3, 0, 1, 1}, {-1, 0.5f, 2, 0, 2, 2}, {0.25f, 1, -4, 0, 3, 3}, {2, -1, 0.5f, 0, -1, -1}};
    float gram[N * N] = {0};
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) gram[i * N + j] += x[t][i] * x[t][j];
    for (int keep = 0; keep < 2; keep++) {
        clq_sweep sweep;
        clq_error err;
        bool found;
        assert_int_equal(clq_sweep_create(gram, N, 0.01f, keep, &sweep, &found, &err), CLQ_OK);
        assert_true(found && sweep.n_dead == 1);
        for (uint32_t i = 0; i < N && keep; i++) assert_int_equal(sweep.order[i], i);
        for (uint32_t i = 1; i < N && !keep; i++) {
            float a = gram[sweep.order[i - 1] * (N + 1)], b = gram[sweep.order[i] * (N + 1)];
            assert_true(a > b || (a == b && sweep.order[i - 1] < sweep.order[i])); // ties in their order
        }
        check_sweep(gram, &sweep);
        clq_sweep_free(&sweep);
    }
}

static void test_sweep_fails(void **state)
{
    (void)state;
    float gram[N * N] = {0};
    clq_sweep sweep;
    clq_error err;
    bool found = true;
    assert_int_equal(clq_sweep_create(gram, N, 0.01f, false, &sweep, &found, &err), CLQ_OK); // no inputs at all
    assert_false(found);
    for (int i = 0; i < N; i++) gram[i * N + i] = 1;
    gram[1] = gram[N] = 1.2f; // not definite; more damp makes it so
    assert_int_equal(clq_sweep_create(gram, N, 0.01f, false, &sweep, &found, &err), CLQ_OK);
    assert_true(found && sweep.damp > 0.2f);
    check_sweep(gram, &sweep);
    clq_sweep_free(&sweep);
    gram[1] = gram[N] = 1e6f; // no damp does
    assert_int_equal(clq_sweep_create(gram, N, 0.01f, false, &sweep, &found, &err), CLQ_OK);
    assert_false(found);
    gram[1] = gram[N] = NAN;
    assert_int_equal(clq_sweep_create(gram, N, 0.01f, false, &sweep, &found, &err), CLQ_OK);
    assert_false(found);
}

static void test_table(void **state)
{
    (void)state;
    clq_method_id id;
    const clq_method_info *info;
    uint32_t n = 0;
    for (; (info = clq_method_at(n)); n++) {
        assert_true(clq_method_find(info->name, &id));
        assert_int_equal(id, n);
    }
    assert_int_equal(n, 5);
    assert_true(clq_method_find("AWQ", &id) && id == CLQ_METHOD_AWQ);
    assert_false(clq_method_find("", &id));
    assert_false(clq_method_find("awq ", &id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_awq),   cmocka_unit_test(test_awq_dead),    cmocka_unit_test(test_smoothquant),
        cmocka_unit_test(test_sweep), cmocka_unit_test(test_sweep_fails), cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
// clquant bench --products: the products of a forward pass for every type of weight. One token: bytes of weights a
// second, which memory bounds. Many tokens: floating-point operations a second (two for a weight and token).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/median.h"
#include "base/threads.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "device/device.h"
#include "ops/steps.h"

enum { COLS = 4096, ROUNDS = 7, PATTERN_ROWS = 16, GEMM_ROWS = 4096 };
#define STREAM_BYTES (192ull << 20) // beyond any cache

typedef struct {
    clq_device *device;
    clq_memory *weights, *state;
    clq_step prep, linear;
} bench;

// Fills the weights with copies of a few encoded rows; sets what the step says of them.
static clq_status make_weights(bench *b, const clq_type *type, uint64_t rows, clq_error *err)
{
    clq_part_sizes few, all;
    CLQ_TRY(clq_type_sizes(type, PATTERN_ROWS, COLS, &few, err));
    CLQ_TRY(clq_type_sizes(type, rows, COLS, &all, err));
    uint64_t scales_at = (all.codes + 319) / 64 * 64, n_scales = type->format == CLQ_INT ? rows * all.groups : 0;
    uint64_t zeros_at = scales_at + (n_scales * 4 + 63) / 64 * 64, sums_at = zeros_at + (n_scales + 63) / 64 * 64,
             n_bytes = sums_at + rows * 4 + 256;
    float *x = malloc(sizeof *x * PATTERN_ROWS * COLS), *scales = malloc((n_scales + 1) * sizeof *scales);
    uint8_t *codes = malloc(few.codes), *stored = malloc(few.scales + 8), *zeros = calloc(1, n_scales + 1);
    clq_status st = CLQ_OK;
    if (!x || !codes || !stored || !zeros || !scales) st = clq_fail_memory(err, PATTERN_ROWS * COLS * sizeof *x);
    uint32_t seed = 1;
    for (int i = 0; st == CLQ_OK && i < PATTERN_ROWS * COLS; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-34f;
    }
    if (st != CLQ_OK) goto out;
    b->linear.format = type->format;
    b->linear.bits = type->format == CLQ_INT ? type->bits : 0;
    b->linear.group_size = type->granularity == CLQ_PER_GROUP && type->format == CLQ_INT ? type->group_size : 0;
    b->linear.groups = type->format == CLQ_INT ? (clq_u32)all.groups : 0;
    b->linear.rows = (clq_u32)rows;
    b->linear.scales = n_scales ? scales_at : CLQ_NONE;
    b->linear.code_sums = sums_at; // their values do not matter here
    b->linear.zero_points = n_scales && !type->symmetric ? zeros_at : CLQ_NONE;
    CLQ_TRY_OUT(clq_encode(b->device, type, CLQ_F32, x, PATTERN_ROWS, COLS, codes, stored,
                           type->symmetric ? NULL : zeros, NULL, err));
    CLQ_TRY_OUT(b->device->ops->memory_create(b->device, n_bytes, &b->weights, err));
    for (uint64_t r = 0; r < rows && st == CLQ_OK; r += PATTERN_ROWS)
        st = b->device->ops->memory_write(b->weights, r * (all.codes / rows), codes, few.codes, err);
    for (uint64_t i = 0; i < n_scales; i++) scales[i] = 0.01f;
    if (st == CLQ_OK && n_scales) st = b->device->ops->memory_write(b->weights, scales_at, scales, n_scales * 4, err);
out:
    free(x);
    free(codes);
    free(stored);
    free(zeros);
    free(scales);
    return st;
}

// Median seconds of one product with `tokens` tokens.
static clq_status time_product(bench *b, uint32_t tokens, uint32_t mode, double *seconds, clq_error *err)
{
    clq_device *d = b->device;
    uint64_t n_in = (uint64_t)tokens * COLS, n_prep = clq_prep_floats(tokens, COLS, mode);
    b->prep =
        (clq_step){.kind = CLQ_STEP_PREP, .tokens = tokens, .cols = COLS, .in_stride = COLS, .mode = mode, .out = n_in,
                   .quant = mode == CLQ_MODE_I8 ? CLQ_QUANT_TOKEN : CLQ_QUANT_NONE};
    b->linear.tokens = tokens;
    b->linear.mode = mode;
    b->linear.in = n_in;
    b->linear.out = n_in + n_prep;
    b->linear.out_stride = b->linear.rows;
    clq_status st;
    CLQ_TRY(d->ops->memory_create(d, 4 * (n_in + n_prep + (uint64_t)tokens * b->linear.rows), &b->state, err));
    float *x = malloc(n_in * sizeof *x);
    for (uint64_t i = 0; x && i < n_in; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    st = x ? d->ops->memory_write(b->state, 0, x, n_in * sizeof *x, err) : clq_fail_memory(err, n_in * sizeof *x);
    free(x);
    double times[ROUNDS];
    if (st == CLQ_OK) st = d->ops->steps_run(d, &b->prep, 1, b->weights, b->state, NULL, err);
    for (int i = -1; i < ROUNDS && st == CLQ_OK; i++) { // the first builds and warms up
        st = d->ops->wait(d, err);
        double start = clq_seconds();
        if (st == CLQ_OK) st = d->ops->steps_run(d, &b->linear, 1, b->weights, b->state, NULL, err);
        if (st == CLQ_OK) st = d->ops->wait(d, err);
        if (i >= 0) times[i] = clq_seconds() - start;
    }
    d->ops->memory_free(b->state);
    b->state = NULL;
    if (st == CLQ_OK) *seconds = clq_median(times, ROUNDS);
    return st;
}

typedef struct {
    double f32, int8;  // bytes of weights a second, one token; int8 < 0: there is none
    double m128, m512; // operations a second
    double i8_128, i8_512; // of int8 products; < 0: there are none
} rates;

static clq_status measure(clq_device *d, const char *name, rates *r, clq_error *err)
{
    clq_type type;
    CLQ_TRY(clq_type_parse(name, &type, err));
    bench b = {.device = d,
               .linear = {.kind = CLQ_STEP_LINEAR, .cols = COLS, .bias = CLQ_NONE, .group_index = CLQ_NONE}};
    clq_part_sizes row;
    CLQ_TRY(clq_type_sizes(&type, 1, COLS, &row, err));
    uint64_t row_bytes = row.codes + row.scales + row.zero_points,
             rows = STREAM_BYTES / row_bytes / PATTERN_ROWS * PATTERN_ROWS;
    uint32_t mode = clq_step_int8_mode(type.format);
    double seconds = 1;
    bool takes_i8 = clq_step_takes_i8(&type, COLS);
    *r = (rates){.int8 = -1, .i8_128 = -1, .i8_512 = -1};
    if (takes_i8) mode = CLQ_MODE_I8;
    CLQ_TRY(d->ops->steps_prepare(d, &type, 1, err));
    clq_status st = make_weights(&b, &type, rows, err);
    if (st == CLQ_OK) st = time_product(&b, 1, CLQ_MODE_F32, &seconds, err);
    r->f32 = (double)(rows * row_bytes) / seconds;
    if (st == CLQ_OK && mode != CLQ_MODE_F32) {
        st = time_product(&b, 1, mode, &seconds, err);
        r->int8 = (double)(rows * row_bytes) / seconds;
    }
    b.linear.rows = GEMM_ROWS;
    if (st == CLQ_OK) st = time_product(&b, 128, CLQ_MODE_F32, &seconds, err);
    r->m128 = 2.0 * 128 * GEMM_ROWS * COLS / seconds;
    if (st == CLQ_OK) st = time_product(&b, 512, CLQ_MODE_F32, &seconds, err);
    r->m512 = 2.0 * 512 * GEMM_ROWS * COLS / seconds;
    if (st == CLQ_OK && takes_i8) {
        st = time_product(&b, 128, CLQ_MODE_I8, &seconds, err);
        r->i8_128 = 2.0 * 128 * GEMM_ROWS * COLS / seconds;
        if (st == CLQ_OK) st = time_product(&b, 512, CLQ_MODE_I8, &seconds, err);
        r->i8_512 = 2.0 * 512 * GEMM_ROWS * COLS / seconds;
    }
    if (b.weights) d->ops->memory_free(b.weights);
    return st;
}

int clq_bench_products(clq_device *device, const char *const *names, uint32_t n, bool json)
{
    clq_device_info info;
    clq_error err;
    clq_device_describe(device, &info);
    double copy = device->ops->copy_rate(device);
    json_t *list = json_array();
    int code = 0;
    if (!json)
        printf("%s, copy %.1f GB/s (read and written); weights of 4096 columns\n%-14s %10s %10s %10s %12s %12s %10s %10s\n",
               info.name, copy / 1e9, "type", "f32 GB/s", "int8 GB/s", "int8 Gw/s", "128: GFLOPS", "512: GFLOPS", "128: GIOPS",
               "512: GIOPS");
    for (uint32_t i = 0; i < n && !code; i++) {
        rates r;
        clq_type type;
        if (measure(device, names[i], &r, &err) != CLQ_OK) {
            code = clq_report(&err);
            break;
        }
        clq_type_parse(names[i], &type, NULL);
        double best = r.int8 > 0 ? r.int8 : r.f32, weights = best * 8 / clq_type_bits(&type);
        char text[16] = "-";
        if (r.int8 > 0) snprintf(text, sizeof text, "%.2f", r.int8 / 1e9);
        char m128[16] = "-", m512[16] = "-";
        if (r.i8_128 > 0) snprintf(m128, sizeof m128, "%.0f", r.i8_128 / 1e9);
        if (r.i8_512 > 0) snprintf(m512, sizeof m512, "%.0f", r.i8_512 / 1e9);
        if (!json)
            printf("%-14s %10.2f %10s %10.1f %12.0f %12.0f %10s %10s\n", names[i], r.f32 / 1e9, text, weights / 1e9,
                   r.m128 / 1e9, r.m512 / 1e9, m128, m512);
        fflush(stdout);
        json_array_append_new(list,
                              json_pack("{s:s, s:f, s:o, s:f, s:f, s:o, s:o}", "type", names[i], "f32_bytes_per_second", r.f32,
                                        "int8_bytes_per_second", r.int8 > 0 ? json_real(r.int8) : json_null(),
                                        "flops_128", r.m128, "flops_512", r.m512, "int8_ops_128",
                                        r.i8_128 > 0 ? json_real(r.i8_128) : json_null(), "int8_ops_512",
                                        r.i8_512 > 0 ? json_real(r.i8_512) : json_null()));
    }
    if (json && !code)
        return clq_print_json(json_pack("{s:o, s:o, s:f, s:o}", "device", clq_cli_text(info.name), "driver",
                                        clq_cli_text(info.driver), "copy_bytes_per_second", copy, "products", list));
    json_decref(list);
    return code;
}

// SPDX-License-Identifier: MIT
// clquant bench: every encoder over a tensor in memory. Weights a second and bytes a second from host memory
// and back; the kernels alone as a share of what the device copies; and how many times as fast as one thread of
// the C reference it is. With a model: bench_model.c.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/median.h"
#include "base/threads.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "device/ring.h"

enum { ROWS = 8192, COLS = 4096, ROUNDS = 5, REF_ROWS = 64 };

static const struct option options[] = {{"json", no_argument, NULL, 'j'},        {"only", required_argument, NULL, 'o'},
                                        {"device", required_argument, NULL, 'd'}, {"threads", required_argument, NULL, 'n'},
                                        {"products", no_argument, NULL, 'p'}, {0}};

static const char *const integer_names[] = {"i8", "i8_tensor", "i8_asym", "i4", "i4_g128", "i4_asym_g128", "i4_g32",
                                            "i2_g64", "i3_g64", "i5_g64", "i6_g64", "i7_g64"};
enum { N_INTEGERS = sizeof integer_names / sizeof *integer_names };

// The i-th type to measure: every format with a codec, then integers. NULL at the end.
static const char *type_at(uint32_t i)
{
    for (int id = 0; id < CLQ_INT; id++)
        if (clq_format_at((clq_format_id)id)->has_codec && i-- == 0) return clq_format_at((clq_format_id)id)->name;
    return i < N_INTEGERS ? integer_names[i] : NULL;
}

static clq_status drop(void *ctx, void *tag, uint64_t first, const clq_tile *t, const clq_tile_result *r, clq_error *err)
{
    (void)ctx, (void)tag, (void)first, (void)t, (void)r, (void)err;
    return CLQ_OK;
}

typedef struct {
    double seconds, kernels; // medians of a round; kernels < 0: not known
} timing;

// Encodes n_rows rows of x in tiles through a ring, as quantize does, without writing.
static clq_status measure(clq_device *d, const clq_type *type, const uint16_t *x, uint64_t n_rows, int rounds, timing *t,
                          clq_error *err)
{
    enum { N_LANES = 3 };
    const uint64_t tile_rows = d->info.unified_memory ? 256 : 2048;
    clq_part_sizes sizes;
    CLQ_TRY(clq_type_sizes(type, tile_rows, COLS, &sizes, err));
    clq_lane_limits limits = {.src_bytes = tile_rows * COLS * 2, .n_elements = tile_rows * COLS, .code_bytes = sizes.codes,
                              .n_groups = tile_rows * (sizes.groups + 1)};
    clq_ring *ring;
    CLQ_TRY(clq_ring_create(d, &limits, N_LANES, drop, NULL, &ring, err));
    double times[ROUNDS], kernels[ROUNDS];
    clq_status st = CLQ_OK;
    for (int i = -1; i < rounds && st == CLQ_OK; i++) { // the first round builds and warms up
        d->ops->kernel_seconds(d);
        double start = clq_seconds();
        for (uint64_t row = 0; row < n_rows && st == CLQ_OK; row += tile_rows) {
            uint64_t rows = n_rows - row < tile_rows ? n_rows - row : tile_rows;
            clq_tile tile = {.type = *type, .source = CLQ_F16, .src = x + row * COLS, .src_bytes = rows * COLS * 2,
                             .in_place = true, .rows = rows, .cols = COLS, .scale = 0.001f};
            st = clq_ring_push(ring, &tile, NULL, row, err);
        }
        if (st == CLQ_OK) st = clq_ring_flush(ring, err);
        if (i < 0) continue;
        times[i] = clq_seconds() - start;
        kernels[i] = d->ops->kernel_seconds(d);
    }
    clq_ring_free(ring);
    if (st == CLQ_OK) *t = (timing){clq_median(times, (uint32_t)rounds), clq_median(kernels, (uint32_t)rounds)};
    return st;
}

// Values like a weight matrix's.
static uint16_t *make_input(void)
{
    uint16_t *x = malloc((size_t)ROWS * COLS * 2);
    uint64_t state = 1;
    for (size_t i = 0; x && i < (size_t)ROWS * COLS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        // Halves from 2^-7 to 2^-4 with either sign.
        x[i] = (uint16_t)((state >> 63) << 15 | (8 + (state >> 60 & 3)) << 10 | (state >> 40 & 1023));
    }
    return x;
}

static int bench_encoders(int argc, char **argv)
{
    bool json = false, products = false;
    const char *only = NULL, *selector = NULL;
    clq_device_options o = {.work_group_form = -1, .hooks = clq_cli_hooks(false)};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'j')
            json = true;
        else if (c == 'p')
            products = true;
        else if (c == 'o')
            only = optarg;
        else if (c == 'd')
            selector = optarg;
        else if (c != 'n')
            return clq_wrong_option(argv);
        else if (!clq_parse_count(optarg, &o.threads))
            return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    }
    if (optind < argc) return clq_usage_error("unexpected argument '%s'", argv[optind]);
    clq_error err;
    clq_type type;
    if (only && clq_parse_type(only, &type, &err) != CLQ_OK) return clq_report(&err);
    if (selector && !*selector) return clq_usage_error("--device wants an index, a part of a name, cpu, gpu or ref");
    clq_device *device;
    if (clq_device_open(selector, &o, &device, &err) != CLQ_OK) return clq_report(&err);
    if (products) {
        const char *names[CLQ_FORMAT_COUNT + N_INTEGERS];
        uint32_t n = 0;
        for (const char *t; !only && (t = type_at(n)); n++) names[n] = t;
        if (only) names[n++] = only;
        int code = clq_bench_products(device, names, n, json);
        clq_device_close(device);
        return code;
    }
    clq_device_info info;
    clq_device_describe(device, &info);
    double copy = device->ops->copy_rate(device);
    clq_device *one; // one thread of the references
    clq_device_options one_thread = {.work_group_form = -1, .threads = 1};
    if (clq_device_open("ref", &one_thread, &one, &err) != CLQ_OK) {
        clq_device_close(device);
        return clq_report(&err);
    }
    uint16_t *x = make_input();
    json_t *list = json_array();
    int code = x ? 0 : clq_usage_error("out of memory");
    if (!json)
        printf("%s, copy %.1f GB/s; encoding %d x %d from f16\n%-14s %12s %8s %13s %15s\n", info.name, copy / 1e9, ROWS, COLS,
               "type", "Mweights/s", "GB/s", "kernels/copy", "x 1 ref thread");
    const char *name;
    for (uint32_t i = 0; !code && (name = only ? only : type_at(i)) && !(only && i); i++) {
        clq_part_sizes sizes = {0};
        timing ours = {0}, reference = {0};
        clq_type_parse(name, &type, NULL);
        if (clq_type_sizes(&type, ROWS, COLS, &sizes, &err) != CLQ_OK ||
            measure(device, &type, x, ROWS, ROUNDS, &ours, &err) != CLQ_OK ||
            measure(one, &type, x, REF_ROWS, 1, &reference, &err) != CLQ_OK) {
            code = clq_report(&err);
            break;
        }
        double bytes = 2.0 * ROWS * COLS + (double)(sizes.codes + sizes.scales + sizes.zero_points);
        double weights = (double)ROWS * COLS / ours.seconds, ref_weights = (double)REF_ROWS * COLS / reference.seconds;
        double share = copy > 0 && ours.kernels > 0 ? bytes / ours.kernels / copy : -1;
        if (!json) {
            char text[16] = "-";
            if (share >= 0) snprintf(text, sizeof text, "%.0f%%", 100 * share);
            printf("%-14s %12.0f %8.2f %13s %15.1f\n", name, weights / 1e6, bytes / ours.seconds / 1e9, text,
                   weights / ref_weights);
        }
        json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:o, s:f}", "type", name, "weights_per_second", weights,
                                              "bytes_per_second", bytes / ours.seconds, "kernels_share_of_copy",
                                              share >= 0 ? json_real(share) : json_null(), "reference_weights_per_second",
                                              ref_weights));
    }
    if (json && !code)
        code = clq_print_json(json_pack("{s:o, s:o, s:f, s:O}", "device", clq_cli_text(info.name), "driver",
                                        clq_cli_text(info.driver), "copy_bytes_per_second", copy, "results", list));
    clq_device_close(one);
    json_decref(list);
    free(x);
    clq_device_close(device);
    return code;
}

int clq_cmd_bench(int argc, char **argv)
{
    return clq_bench_has_model(argc, argv) ? clq_bench_model(argc, argv) : bench_encoders(argc, argv);
}

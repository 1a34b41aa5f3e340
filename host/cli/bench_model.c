// SPDX-License-Identifier: MIT
// clquant bench MODEL: tokens a second of a prompt, and of generation one token at a time.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/threads.h"
#include "cli/bench.h"
#include "cli/model.h"

enum { ONLY = 1 };
static const struct option options[] = {{"only", required_argument, NULL, ONLY}, {"products", no_argument, NULL, ONLY},
                                        CLQ_MODEL_OPTIONS, {0}};
static const char short_options[] = "p:n:r:";

typedef struct {
    clq_model_request model;
    uint32_t prompt, generate, rounds;
    const char *only;
} request;

typedef struct {
    double median, min, max; // tokens a second
} rates;

bool clq_bench_has_model(int argc, char **argv)
{
    // getopt_long() moves the arguments that are no options to the end; unknown options are told of later.
    while (getopt_long(argc, argv, short_options, options, NULL) != -1) continue;
    bool has = optind < argc;
    optind = 1;
    return has;
}

static int read_request(int argc, char **argv, request *r)
{
    int c, code;
    clq_model_request_init(&r->model, CLQ_ROUND_INT8);
    while ((c = getopt_long(argc, argv, short_options, options, NULL)) != -1) {
        if (c == ONLY)
            r->only = optarg;
        else if (c == 'p' || c == 'n') {
            if (!clq_parse_u32(optarg, 0, 1 << 24, c == 'p' ? &r->prompt : &r->generate))
                return clq_usage_error("-%c wants a number of tokens, not '%s'", c, optarg);
        } else if (c == 'r') {
            if (!clq_parse_u32(optarg, 1, 1000, &r->rounds))
                return clq_usage_error("-r wants 1 to 1000 repetitions, not '%s'", optarg);
        } else if ((code = clq_model_option(&r->model, c, argv)) != 0)
            return code;
    }
    if (r->only)
        return clq_usage_error("unexpected argument '%s': --only is of `clquant bench` without a model", argv[optind]);
    if (argc - optind != 1) return clq_usage_error("give one model");
    r->model.path = argv[optind];
    uint32_t needed = r->prompt > r->generate ? r->prompt : r->generate;
    if (!needed) return clq_usage_error("-p 0 and -n 0 leave nothing to measure");
    if (r->model.o.context && r->model.o.context < needed)
        return clq_usage_error("--ctx %u is less than the %u tokens to run", r->model.o.context, needed);
    if (!r->model.o.context) r->model.o.context = needed;
    return 0;
}

// ---- measuring ----

static clq_status drop_logits(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err)
{
    (void)user, (void)first, (void)n, (void)logits, (void)err;
    return CLQ_OK;
}

// Tokens of no meaning.
static int32_t token_at(const clq_loaded *l, uint32_t i) { return (int32_t)((i * 2654435761u >> 8) % l->facts->vocab); }

static clq_status run_prompt(const clq_loaded *l, uint32_t n, clq_error *err)
{
    int32_t *tokens = malloc(n * sizeof *tokens);
    if (!tokens) return clq_fail_memory(err, n * sizeof *tokens);
    for (uint32_t i = 0; i < n; i++) tokens[i] = token_at(l, i);
    clq_eval eval = {.tokens = tokens, .n = n, .logits_from = n - 1, .logits = drop_logits};
    clq_status st = clq_model_eval(l->model, &eval, err);
    free(tokens);
    return st;
}

static clq_status run_generation(const clq_loaded *l, uint32_t n, clq_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        int32_t token = token_at(l, i);
        clq_eval eval = {.tokens = &token, .n = 1, .logits_from = 0, .logits = drop_logits};
        CLQ_TRY(clq_model_eval(l->model, &eval, err));
    }
    return CLQ_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// The first run warms up; it needs few tokens where they come one by one.
static clq_status measure(const clq_loaded *l, clq_status (*run)(const clq_loaded *, uint32_t, clq_error *), uint32_t n,
                          uint32_t n_warm, uint32_t rounds, rates *r, clq_error *err)
{
    double *values = malloc(rounds * sizeof *values);
    if (!values) return clq_fail_memory(err, rounds * sizeof *values);
    clq_model_rewind(l->model, 0);
    clq_status st = run(l, n_warm, err);
    for (uint32_t i = 0; i < rounds && st == CLQ_OK; i++) {
        clq_model_rewind(l->model, 0);
        double start = clq_seconds();
        st = run(l, n, err);
        values[i] = clq_rate(n, clq_seconds() - start);
    }
    if (st == CLQ_OK) {
        qsort(values, rounds, sizeof *values, by_value);
        double median = rounds % 2 ? values[rounds / 2] : (values[rounds / 2 - 1] + values[rounds / 2]) / 2;
        *r = (rates){median, values[0], values[rounds - 1]};
    }
    free(values);
    return st;
}

// ---- results ----

// Bytes of weights that a token reads: of an embedding table that is not the head too, only a row.
static uint64_t bytes_of_token(const clq_loaded *l)
{
    static const char *const names[][2] = {{"token_embd.weight", "output.weight"},
                                           {"model.embed_tokens.weight", "lm_head.weight"}};
    for (int i = 0; i < 2; i++) {
        const clq_tensor *table = clq_source_find(l->source, names[i][0]);
        if (table && clq_source_find(l->source, names[i][1]) && table->codes.n_bytes < l->facts->weight_bytes)
            return l->facts->weight_bytes - table->codes.n_bytes;
    }
    return l->facts->weight_bytes;
}

static void print_rates(const char *kind, uint32_t n, const rates *r, double gigabytes)
{
    char name[32];
    snprintf(name, sizeof name, "%s%u", kind, n);
    printf("%-10s %12.2f %12.2f %12.2f", name, r->median, r->min, r->max);
    if (gigabytes > 0)
        printf(" %16.2f\n", gigabytes);
    else
        printf(" %16s\n", "-");
}

static json_t *rates_json(uint32_t n, const rates *r)
{
    return json_pack("{s:I, s:f, s:f, s:f}", "tokens", (json_int_t)n, "median", r->median, "min", r->min, "max",
                     r->max);
}

static clq_status bench(const clq_loaded *l, const request *r, clq_error *err)
{
    rates prompt = {0}, generation = {0};
    double bytes = (double)bytes_of_token(l);
    json_t *root = r->model.json ? json_object() : NULL;
    if (!root) printf("%-10s %12s %12s %12s %16s\n", "test", "tokens/s", "least", "most", "weights, GB/s");
    clq_status st = CLQ_OK;
    if (r->prompt) st = measure(l, run_prompt, r->prompt, r->prompt, r->rounds, &prompt, err);
    if (!root && r->prompt && st == CLQ_OK) print_rates("pp", r->prompt, &prompt, 0);
    fflush(stdout);
    if (r->generate && st == CLQ_OK)
        st = measure(l, run_generation, r->generate, r->generate < 4 ? r->generate : 4, r->rounds, &generation, err);
    if (!root && r->generate && st == CLQ_OK)
        print_rates("tg", r->generate, &generation, generation.median * bytes / 1e9);
    if (!root || st != CLQ_OK) {
        json_decref(root);
        return st;
    }
    if (r->prompt) json_object_set_new(root, "prompt", rates_json(r->prompt, &prompt));
    if (r->generate) {
        json_t *g = rates_json(r->generate, &generation);
        json_object_set_new(g, "weight_bytes_per_second", json_real(generation.median * bytes));
        json_object_set_new(root, "generation", g);
    }
    json_object_set_new(root, "repetitions", json_integer(r->rounds));
    json_object_set_new(root, "batch", json_integer(l->facts->batch));
    clq_model_json(root, l, &r->model);
    return clq_print_json(root) ? clq_fail(err, CLQ_DEVICE, "out of memory") : CLQ_OK;
}

int clq_bench_model(int argc, char **argv)
{
    request r = {.prompt = 512, .generate = 128, .rounds = 5};
    int code = read_request(argc, argv, &r);
    if (code) return code;
    clq_loaded l = {0};
    clq_error err;
    clq_status st = clq_load(&r.model, clq_cli_hooks(r.model.quiet), &l, &err);
    if (st == CLQ_OK && l.facts->is_encoder)
        st = clq_fail(&err, CLQ_BAD_INPUT, "'%s' is an encoder (%s): `clquant embed` tells its tokens a second",
                      r.model.path, l.facts->architecture);
    if (st == CLQ_OK && !r.model.quiet && !r.model.json) clq_tell_model(&l, r.model.path);
    if (st == CLQ_OK) st = bench(&l, &r, &err);
    if (st != CLQ_OK) code = clq_report(&err);
    clq_unload(&l);
    return code;
}

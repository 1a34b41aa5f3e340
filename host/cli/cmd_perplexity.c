// SPDX-License-Identifier: MIT
// clquant perplexity
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/model.h"
#include "io/output.h"
#include "run/evaluate.h"

enum { TEXT = 1, CHUNKS, SAVE_BASE, BASE, DEFAULT_CONTEXT = 512 };
static const struct option options[] = {
    {"text", required_argument, NULL, TEXT},
    {"chunks", required_argument, NULL, CHUNKS},
    {"save-base", required_argument, NULL, SAVE_BASE},
    {"base", required_argument, NULL, BASE},
    CLQ_MODEL_OPTIONS,
    {0},
};

typedef struct {
    clq_model_request model;
    const char *text, *save_base, *base;
    uint32_t chunks; // 0: all
} request;

// What an evaluation needs, opened.
typedef struct {
    clq_kldbase *base;
    clq_kldbase_writer *writer;
    clq_loaded model;
    char *text;
    size_t text_len;
    int32_t *tokens; // of the text
    uint32_t n_tokens;
    double *window_klds; // with a base
    clq_evaluate_options o;
} job;

static int read_request(int argc, char **argv, request *r)
{
    int c, code;
    clq_model_request_init(&r->model, CLQ_ROUND_STORED);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == TEXT)
            r->text = optarg;
        else if (c == SAVE_BASE)
            r->save_base = optarg;
        else if (c == BASE)
            r->base = optarg;
        else if (c == CHUNKS) {
            if (!clq_parse_u32(optarg, 1, 1 << 24, &r->chunks))
                return clq_usage_error("--chunks wants a number of windows, not '%s'", optarg);
        } else if ((code = clq_model_option(&r->model, c, argv)) != 0)
            return code;
    }
    if (argc - optind != 1) return clq_usage_error("give one model");
    r->model.path = argv[optind];
    if (!r->text && !r->base) return clq_usage_error("--text is missing: the text to measure on");
    if (r->save_base && r->base) return clq_usage_error("--save-base and --base exclude each other");
    if (r->model.o.context && r->model.o.context < 4) return clq_usage_error("--ctx wants 4 tokens or more");
    return 0;
}

// ---- the model as a predictor ----

static clq_status run_model(void *user, const int32_t *tokens, uint32_t n, uint32_t from, clq_rows_fn rows,
                            void *rows_user, clq_error *err)
{
    clq_model *model = user;
    clq_model_rewind(model, 0);
    clq_eval eval = {.tokens = tokens, .n = n, .logits_from = from, .logits = rows, .user = rows_user};
    return clq_model_eval(model, &eval, err);
}

// ---- what to run ----

// The windows of the text.
static clq_status windows_of_text(job *j, const request *r, clq_error *err)
{
    uint32_t context = j->o.context, windows = j->n_tokens / context;
    if (!windows)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has %u tokens; %u are needed for a window (--ctx)", r->text,
                        j->n_tokens, context);
    j->o.tokens = j->tokens;
    j->o.windows = r->chunks && r->chunks < windows ? r->chunks : windows;
    if (r->chunks > windows)
        clq_warn(r->model.o.hooks, "--chunks %u: the text has %u windows only", r->chunks, windows);
    return CLQ_OK;
}

// The windows of the base, which a text that is given must begin with.
static clq_status windows_of_base(job *j, const request *r, clq_error *err)
{
    clq_kldbase_shape s = clq_kldbase_shape_of(j->base);
    const int32_t *tokens = clq_kldbase_tokens(j->base);
    j->o.windows = r->chunks && r->chunks < s.windows ? r->chunks : s.windows;
    j->o.tokens = tokens;
    uint64_t n = (uint64_t)j->o.windows * s.context;
    if (!r->text) return CLQ_OK;
    if (j->n_tokens < n)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has %u tokens, the base %llu", r->text, j->n_tokens,
                        (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++)
        if (tokens[i] != j->tokens[i])
            return clq_fail(err, CLQ_BAD_INPUT, "'%s' is not the base's text: token %llu is %d there and %d here",
                            r->text, (unsigned long long)i, tokens[i], j->tokens[i]);
    return CLQ_OK;
}

static clq_status open_job(job *j, request *r, clq_hooks *hooks, clq_error *err)
{
    uint32_t asked = r->model.o.context;
    j->o.context = asked ? asked : DEFAULT_CONTEXT;
    if (r->base) {
        CLQ_TRY(clq_kldbase_open(r->base, &j->base, err));
        j->o.context = clq_kldbase_shape_of(j->base).context;
        if (asked && asked != j->o.context)
            return clq_fail(err, CLQ_USAGE, "--ctx %u: '%s' has windows of %u tokens", asked, r->base, j->o.context);
    }
    // Before the model: what is wrong with these is told at once.
    if (r->text) CLQ_TRY(clq_read_text(r->text, "--text", &j->text, &j->text_len, err));
    if (r->save_base) CLQ_TRY(clq_output_check_place(r->save_base, err));
    r->model.o.context = j->o.context;
    CLQ_TRY(clq_load(&r->model, hooks, &j->model, err));
    if (r->save_base) CLQ_TRY(clq_check_output(&j->model, r->save_base, err));
    const clq_model_facts *f = j->model.facts;
    if (f->is_encoder)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' is an encoder (%s), which predicts no next token: see `clquant embed`", r->model.path,
                        f->architecture);
    if (f->trained_context && f->trained_context < j->o.context)
        clq_warn(hooks, "the model was trained on %u tokens, the windows have %u", f->trained_context, j->o.context);
    if (r->text)
        CLQ_TRY(clq_cli_tokenize(j->model.tokenizer, j->text, j->text_len, CLQ_TOKENIZE_SPECIAL, &j->tokens,
                                 &j->n_tokens, err));
    CLQ_TRY(r->base ? windows_of_base(j, r, err) : windows_of_text(j, r, err));
    j->o.bos = clq_tokenizer_adds_bos(j->model.tokenizer) ? clq_tokenizer_bos(j->model.tokenizer) : -1;
    j->o.base = j->base;
    if (j->base) {
        j->window_klds = malloc(j->o.windows * sizeof *j->window_klds);
        if (!j->window_klds) return clq_fail_memory(err, j->o.windows * sizeof *j->window_klds);
        j->o.window_klds = j->window_klds;
    }
    j->o.threads = j->model.threads;
    j->o.hooks = hooks;
    if (r->save_base) {
        clq_kldbase_shape s = {.context = j->o.context, .vocab = f->vocab, .windows = j->o.windows};
        CLQ_TRY(clq_kldbase_create(r->save_base, &s, j->o.tokens, &j->writer, err));
        j->o.save = j->writer;
    }
    return CLQ_OK;
}

static void close_job(job *j)
{
    clq_kldbase_free(j->writer);
    clq_kldbase_close(j->base);
    clq_unload(&j->model);
    free(j->tokens);
    free(j->text);
    free(j->window_klds);
}

// ---- reports ----

static void show_window(void *user, const clq_evaluation *e)
{
    const job *j = user;
    double left = e->seconds / e->windows * (j->o.windows - e->windows);
    char line[160];
    snprintf(line, sizeof line, "[%u/%u] PPL %.4f, %.1f tokens/s, %.0f s left", e->windows, j->o.windows, e->ppl.value,
             clq_rate((double)e->windows * j->o.context, e->seconds), left);
    if (!isatty(STDERR_FILENO))
        fprintf(stderr, "%s\n", line);
    else
        clq_show_line(e->windows == j->o.windows ? NULL : line);
}

typedef struct {
    const char *label;
    const clq_estimate *e;
    double unit; // of what is printed: 100 for percent
} row;

// Tokens of the text that are in no window; of a base's tokens none are told.
static uint64_t dropped(const job *j)
{
    uint64_t used = (uint64_t)j->o.windows * j->o.context;
    return j->n_tokens > used ? j->n_tokens - used : 0;
}

static void print_base(const clq_divergence *d)
{
    const row rows[] = {
        {"PPL of the base", &d->ppl_base, 1},
        {"PPL ratio", &d->ratio, 1},
        {"ln PPL ratio", &d->ln_ratio, 1},
        {"PPL difference", &d->difference, 1},
        {"KLD mean", &d->kld, 1},
        {"same top token, %", &d->same_top, 100},
        {"delta p mean, %", &d->delta_p, 100},
        {"delta p RMS, %", &d->rms_delta_p, 100},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("%-20s %12.6f +/- %.6f\n", rows[i].label, rows[i].unit * rows[i].e->value,
               rows[i].unit * rows[i].e->error);
    printf("%-20s %12.2f\n", "correlation, %", 100 * d->correlation);
    printf("KLD  min %.6f  0.1%% %.6f  1%% %.6f  5%% %.6f  10%% %.6f\n", d->kld_min, d->kld_p001, d->kld_p01,
           d->kld_p05, d->kld_p10);
    printf("     median %.6f  90%% %.6f  95%% %.6f  99%% %.6f  99.9%% %.6f  max %.6f\n", d->kld_median, d->kld_p90,
           d->kld_p95, d->kld_p99, d->kld_p999, d->kld_max);
}

static void print_report(const job *j, const clq_evaluation *e)
{
    printf("%-20s %12.6f +/- %.6f\n", "PPL", e->ppl.value, e->ppl.error);
    if (e->has_base) print_base(&e->base);
    printf("%llu tokens scored in %u windows of %u", (unsigned long long)e->scored, e->windows, j->o.context);
    if (dropped(j)) printf("; %llu tokens at the end not used", (unsigned long long)dropped(j));
    printf("; %.2f s, %.1f tokens/s\n", e->seconds, clq_rate((double)e->windows * j->o.context, e->seconds));
}

static void set_estimate(json_t *root, const char *key, clq_estimate e)
{
    char name[64];
    snprintf(name, sizeof name, "%s_error", key);
    json_object_set_new(root, key, clq_json_real(e.value));
    json_object_set_new(root, name, clq_json_real(e.error));
}

static void set_divergence(json_t *root, const clq_divergence *d, const double *window_klds, uint32_t n_windows)
{
    const struct {
        const char *key;
        double v;
    } klds[] = {{"kld_min", d->kld_min},    {"kld_p0.1", d->kld_p001}, {"kld_p1", d->kld_p01},
                {"kld_p5", d->kld_p05},     {"kld_p10", d->kld_p10},   {"kld_median", d->kld_median},
                {"kld_p90", d->kld_p90},    {"kld_p95", d->kld_p95},   {"kld_p99", d->kld_p99},
                {"kld_p99.9", d->kld_p999}, {"kld_max", d->kld_max}};
    json_object_set_new(root, "kld_mean", clq_json_real(d->kld.value));
    json_object_set_new(root, "kld_error", clq_json_real(d->kld.error));
    for (size_t i = 0; i < sizeof klds / sizeof *klds; i++)
        json_object_set_new(root, klds[i].key, clq_json_real(klds[i].v));
    json_t *windows = json_array();
    for (uint32_t i = 0; i < n_windows; i++) json_array_append_new(windows, clq_json_real(window_klds[i]));
    json_object_set_new(root, "kld_windows", windows);
    set_estimate(root, "same_top", d->same_top);
    set_estimate(root, "ppl_base", d->ppl_base);
    set_estimate(root, "ppl_ratio", d->ratio);
    set_estimate(root, "ln_ppl_ratio", d->ln_ratio);
    set_estimate(root, "ppl_difference", d->difference);
    set_estimate(root, "delta_p", d->delta_p);
    set_estimate(root, "delta_p_rms", d->rms_delta_p);
    json_object_set_new(root, "correlation", clq_json_real(d->correlation));
}

static json_t *report_json(const job *j, const request *r, const clq_evaluation *e)
{
    json_t *root = json_object();
    set_estimate(root, "ppl", e->ppl);
    set_estimate(root, "ln_ppl", e->nll);
    if (e->has_base) set_divergence(root, &e->base, j->window_klds, e->windows);
    json_object_set_new(root, "context", json_integer(j->o.context));
    json_object_set_new(root, "windows", json_integer(e->windows));
    json_object_set_new(root, "tokens", json_integer((json_int_t)e->windows * j->o.context));
    json_object_set_new(root, "scored_tokens", json_integer((json_int_t)e->scored));
    json_object_set_new(root, "unused_tokens", json_integer((json_int_t)dropped(j)));
    json_object_set_new(root, "seconds", json_real(e->seconds));
    json_object_set_new(root, "tokens_per_second",
                        clq_json_real(clq_rate((double)e->windows * j->o.context, e->seconds)));
    clq_model_json(root, &j->model, &r->model);
    return root;
}

static clq_status run_job(job *j, const request *r, clq_evaluation *e, clq_error *err)
{
    clq_predictor predictor = {.user = j->model.model, .vocab = j->model.facts->vocab, .run = run_model};
    j->o.user = j;
    if (!r->model.quiet && (!r->model.json || isatty(STDERR_FILENO))) j->o.window = show_window;
    CLQ_TRY(clq_evaluate(&predictor, &j->o, e, err));
    return j->writer ? clq_kldbase_finish(j->writer, err) : CLQ_OK;
}

int clq_cmd_perplexity(int argc, char **argv)
{
    request r = {0};
    int code = read_request(argc, argv, &r);
    if (code) return code;
    clq_hooks *hooks = clq_cli_hooks(r.model.quiet);
    job j = {0};
    clq_evaluation e = {0};
    clq_error err;
    clq_status st = open_job(&j, &r, hooks, &err);
    if (st == CLQ_OK && !r.model.quiet && !r.model.json) clq_tell_model(&j.model, r.model.path);
    if (st == CLQ_OK) st = run_job(&j, &r, &e, &err);
    clq_show_line(NULL);
    if (st == CLQ_INTERRUPTED) {
        fprintf(stderr, "clquant: interrupted after %u of %u windows", e.windows, j.o.windows);
        if (e.windows) fprintf(stderr, ", PPL %.4f +/- %.4f so far", e.ppl.value, e.ppl.error);
        fprintf(stderr, "\n");
        code = CLQ_INTERRUPTED;
    } else if (st != CLQ_OK) {
        code = clq_report(&err);
    } else if (r.model.json) {
        code = clq_print_json(report_json(&j, &r, &e));
    } else {
        print_report(&j, &e);
    }
    close_job(&j);
    return code;
}

// SPDX-License-Identifier: MIT
// clquant calibrate
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/threads.h"
#include "calib/calibrate.h"
#include "calib/importance.h"
#include "cli/model.h"
#include "cli/stats_report.h"
#include "io/imatrix_write.h"
#include "io/output.h"
#include "model/net.h"

enum { TEXT = 1, JSONL, TOKENS, FIELD, CHUNKS, SEED, HESSIAN, IMATRIX, RESUME, MAX_EXPORTS = 8 };
static const struct option options[] = {
    {"text", required_argument, NULL, TEXT},
    {"jsonl", required_argument, NULL, JSONL},
    {"tokens", required_argument, NULL, TOKENS},
    {"field", required_argument, NULL, FIELD},
    {"output", required_argument, NULL, 'o'},
    {"chunks", required_argument, NULL, CHUNKS},
    {"seed", required_argument, NULL, SEED},
    {"hessian", no_argument, NULL, HESSIAN},
    {"imatrix", required_argument, NULL, IMATRIX},
    {"resume", no_argument, NULL, RESUME},
    {"ctx", required_argument, NULL, CLQ_OPT_CTX},
    {"device", required_argument, NULL, CLQ_OPT_DEVICE},
    {"threads", required_argument, NULL, CLQ_OPT_THREADS},
    {"quiet", no_argument, NULL, CLQ_OPT_QUIET},
    {"json", no_argument, NULL, CLQ_OPT_JSON},
    {0},
};

typedef struct {
    clq_model_request model; // path, device, o.context, threads, quiet, json
    const char *text, *out;  // text: of whatever kind
    const char *exports[MAX_EXPORTS];
    uint32_t n_exports;
    clq_corpus_options corpus;
    bool has_seed, has_field, gram, resume;
} request;

typedef struct {
    clq_source *source;
    clq_device *device;
    clq_layers *layers;
    char *text;
    size_t len;
    clq_corpus *corpus;
    clq_stats_file *stats;
    double seconds;
} job;

// ---- options ----

static int take_text(request *r, clq_corpus_kind kind)
{
    if (r->text) return clq_usage_error("--text, --jsonl and --tokens exclude each other, and each can be given once");
    r->text = optarg;
    r->corpus.kind = kind;
    return 0;
}

static int take_seed(request *r)
{
    char *end;
    errno = 0;
    r->corpus.seed = strtoull(optarg, &end, 10);
    r->has_seed = *optarg >= '0' && *optarg <= '9' && !*end && !errno;
    return r->has_seed ? 0 : clq_usage_error("--seed wants a number, not '%s'", optarg);
}

static int take_export(request *r)
{
    if (!clq_imatrix_can_write(optarg))
        return clq_usage_error("--imatrix wants a name ending in .gguf or .dat, not '%s'", optarg);
    if (r->n_exports == MAX_EXPORTS) return clq_usage_error("--imatrix can be given %d times", MAX_EXPORTS);
    r->exports[r->n_exports++] = optarg;
    return 0;
}

static int take_option(request *r, int c, char **argv)
{
    switch (c) {
    case TEXT: return take_text(r, CLQ_CORPUS_TEXT);
    case JSONL: return take_text(r, CLQ_CORPUS_JSONL);
    case TOKENS: return take_text(r, CLQ_CORPUS_TOKENS);
    case FIELD:
        r->corpus.field = optarg;
        r->has_field = true;
        return 0;
    case 'o': r->out = optarg; return 0;
    case CHUNKS:
        if (clq_parse_u32(optarg, 1, 1 << 24, &r->corpus.chunks)) return 0;
        return clq_usage_error("--chunks wants a number of windows, not '%s'", optarg);
    case SEED: return take_seed(r);
    case HESSIAN: r->gram = true; return 0;
    case IMATRIX: return take_export(r);
    case RESUME: r->resume = true; return 0;
    default: return clq_model_option(&r->model, c, argv);
    }
}

static int read_request(int argc, char **argv, request *r)
{
    int c, code;
    *r = (request){.corpus = {.field = "text"}};
    while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
        if ((code = take_option(r, c, argv)) != 0) return code;
    if (argc - optind != 1) return clq_usage_error("give one model, or one statistics file with --imatrix");
    r->model.path = argv[optind];
    if (r->has_field && r->corpus.kind != CLQ_CORPUS_JSONL)
        return clq_usage_error("--field is of the lines of --jsonl, and there is none");
    if (r->has_seed && !r->corpus.chunks)
        return clq_usage_error("--seed chooses --chunks windows, and their number is not given");
    if (r->model.o.context && r->model.o.context < 4) return clq_usage_error("--ctx wants 4 tokens or more");
    r->corpus.random = r->has_seed;
    return 0;
}

// ---- outputs ----

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static char *folder_of(const char *path)
{
    size_t len = (size_t)(clq_path_base(path) - path);
    return len ? strndup(path, len) : strdup(".");
}

// Whether two names are of one place, where perhaps no file stands yet.
static bool same_place(const char *a, const char *b)
{
    char *folders[2] = {folder_of(a), folder_of(b)};
    bool same = folders[0] && folders[1] && strcmp(clq_path_base(a), clq_path_base(b)) == 0 &&
                same_file(folders[0], folders[1]);
    free(folders[0]);
    free(folders[1]);
    return same || same_file(a, b);
}

static int check_names(const request *r)
{
    for (uint32_t i = 0; i < r->n_exports; i++)
        for (uint32_t k = 0; k < i + (r->out != NULL); k++)
            if (same_place(r->exports[i], k < i ? r->exports[k] : r->out))
                return clq_usage_error("'%s' is to be written twice", r->exports[i]);
    return 0;
}

// ---- exporting ----

static clq_status export_all(const request *r, const clq_stats_file *stats, clq_error *err)
{
    for (uint32_t i = 0; i < r->n_exports; i++) CLQ_TRY(clq_stats_export(stats, r->exports[i], err));
    return CLQ_OK;
}

// `calibrate STATS --imatrix F`
static int export_only(const request *r)
{
    clq_stats_file *stats;
    clq_error err;
    if (r->text || r->out || !r->n_exports || r->corpus.chunks || r->gram || r->resume || r->model.o.context ||
        r->model.device || r->model.threads)
        return clq_usage_error("'%s' is a statistics file: it can be exported (--imatrix, and --quiet or --json), not "
                               "calibrated on", r->model.path);
    clq_status st = clq_stats_open(r->model.path, &stats, &err);
    if (st != CLQ_OK) return clq_report(&err);
    for (uint32_t i = 0; i < r->n_exports && st == CLQ_OK; i++)
        st = same_file(r->exports[i], r->model.path)
                 ? clq_fail(&err, CLQ_OUTPUT, "'%s' is the statistics file itself", r->exports[i])
                 : clq_output_try_file(r->exports[i], &err);
    if (st == CLQ_OK) st = export_all(r, stats, &err);
    int code = st == CLQ_OK ? 0 : clq_report(&err);
    if (!code && r->model.json) {
        json_t *root = json_object();
        clq_stats_json(root, stats);
        code = clq_print_json(root);
    } else if (!code && !r->model.quiet) {
        for (uint32_t i = 0; i < r->n_exports; i++) printf("%s\n", r->exports[i]);
    }
    clq_stats_free(stats);
    return code;
}

// ---- opening ----

static clq_status check_output(const job *j, const request *r, const char *path, clq_error *err)
{
    if (clq_output_is_input(path, j->source->files, j->source->n_files))
        return clq_fail(err, CLQ_OUTPUT, "'%s' is one of the model's files", path);
    if (same_file(path, r->text)) return clq_fail(err, CLQ_OUTPUT, "'%s' is the calibration text", path);
    return clq_output_try_file(path, err);
}

static clq_status open_job(job *j, request *r, clq_hooks *hooks, clq_error *err)
{
    const char *what = (const char *[]){"--text", "--jsonl", "--tokens"}[r->corpus.kind];
    CLQ_TRY(clq_read_text(r->text, what, &j->text, &j->len, err));
    CLQ_TRY(clq_source_open(r->model.path, hooks, &j->source, err));
    CLQ_TRY(check_output(j, r, r->out, err));
    for (uint32_t i = 0; i < r->n_exports; i++) CLQ_TRY(check_output(j, r, r->exports[i], err));
    clq_device_options device = {.threads = r->model.threads, .work_group_form = -1, .hooks = hooks};
    clq_layers_options layers = {.context = r->model.o.context, .gram = r->gram ? CLQ_GRAM_ALL : 0, .hooks = hooks};
    if (!layers.context) CLQ_TRY(clq_layers_default_context(j->source, &layers.context, err));
    CLQ_TRY(clq_device_open(r->model.device, &device, &j->device, err));
    CLQ_TRY(clq_layers_open(j->source, j->device, &layers, &j->layers, err));
    r->corpus.name = strcmp(r->text, "-") == 0 ? "standard input" : r->text;
    r->corpus.context = layers.context;
    r->corpus.encoder = clq_layers_encoder(j->layers);
    r->corpus.vocab = clq_layers_vocab(j->layers);
    CLQ_TRY(clq_corpus_create(clq_layers_tokenizer(j->layers), j->text, j->len, &r->corpus, &j->corpus, err));
    free(j->text);
    j->text = NULL;
    return CLQ_OK;
}

static void close_job(job *j)
{
    clq_stats_free(j->stats);
    clq_corpus_free(j->corpus);
    free(j->text);
    clq_layers_close(j->layers);
    if (j->device) clq_device_close(j->device);
    clq_source_close(j->source);
}

// ---- reports ----

static void tell_model(const job *j)
{
    clq_device_info info;
    char bytes[32], hidden[32];
    clq_device_describe(j->device, &info);
    fprintf(stderr, "%s, %u layers, on %s: %s there, %s of hidden states\n", clq_layers_architecture(j->layers),
            clq_layers_count(j->layers), info.name, clq_size_text(clq_layers_device_bytes(j->layers), bytes),
            clq_size_text(j->corpus->n_tokens * clq_layers_width(j->layers) * sizeof(float), hidden));
}

static void show_progress(void *user, const clq_progress *p)
{
    double *shown = user, rate = clq_rate((double)p->elements_done, p->seconds);
    char line[160];
    if (p->seconds - *shown < 0.1) return;
    *shown = p->seconds;
    snprintf(line, sizeof line, "%3.0f%%  %s of %u  %.0f s left",
             p->n_elements ? 100.0 * (double)p->elements_done / (double)p->n_elements : 100.0, p->tensor, p->n_tensors,
             rate > 0 ? (double)(p->n_elements - p->elements_done) / rate : 0);
    clq_show_line(line);
}

static void show_layer(void *user, const clq_layer_report *l)
{
    const job *j = user;
    char text[96];
    clq_show_line(NULL);
    printf("layer %u: %" PRIu64 " tokens; absmax", l->layer, j->corpus->n_tokens);
    for (uint32_t i = 0; i < l->n_sites; i++)
        printf("%s %s %.4g", i ? "," : "", clq_site_label(&l->sites[i], text), (double)clq_site_absmax(&l->sites[i]));
    printf("%s\n", clq_experts_text(l->sites, l->n_sites, text));
    fflush(stdout);
}

static void print_report(const job *j, const request *r)
{
    const clq_corpus *c = j->corpus;
    printf("%s: %u sites; %" PRIu64 " tokens in %u window%s of %u", r->out, j->stats->n_sites, c->n_tokens,
           c->n_windows, CLQ_PLURAL(c->n_windows), c->context);
    if (c->n_dropped) printf("; %" PRIu64 " tokens of the text not used", c->n_dropped);
    printf("; %.2f s\n", j->seconds);
}

static json_t *report_json(const job *j, const request *r)
{
    clq_device_info info;
    clq_device_describe(j->device, &info);
    json_t *root = json_object(), *exports = json_array();
    for (uint32_t i = 0; i < r->n_exports; i++) json_array_append_new(exports, clq_cli_text(r->exports[i]));
    json_object_set_new(root, "model", clq_cli_text(r->model.path));
    json_object_set_new(root, "device", clq_cli_text(info.name));
    json_object_set_new(root, "output", clq_cli_text(r->out));
    json_object_set_new(root, "imatrix", exports);
    json_object_set_new(root, "layers", json_integer(clq_layers_count(j->layers)));
    json_object_set_new(root, "text_tokens", json_integer((json_int_t)j->corpus->n_text));
    json_object_set_new(root, "unused_tokens", json_integer((json_int_t)j->corpus->n_dropped));
    json_object_set_new(root, "seconds", json_real(j->seconds));
    clq_stats_json(root, j->stats);
    return root;
}

static clq_status run(job *j, request *r, clq_hooks *hooks, clq_error *err)
{
    double shown = 0, start = clq_seconds();
    bool quiet = r->model.quiet;
    clq_device_info info;
    CLQ_TRY(open_job(j, r, hooks, err));
    if (!quiet && !r->model.json) tell_model(j);
    clq_device_describe(j->device, &info);
    hooks->user = &shown;
    if (!quiet && isatty(STDERR_FILENO)) hooks->progress = show_progress;
    clq_calibrate_options o = {.out = r->out,
                               .dataset = strcmp(r->text, "-") == 0 ? "" : clq_path_base(r->text),
                               .device = info.name,
                               .gram = r->gram,
                               .resume = r->resume,
                               .threads = r->model.threads ? r->model.threads : clq_threads_allowed(),
                               .hooks = hooks,
                               .layer = quiet || r->model.json ? NULL : show_layer,
                               .user = j};
    CLQ_TRY(clq_calibrate(j->source, j->layers, j->corpus, &o, &j->stats, err));
    j->seconds = clq_seconds() - start;
    return export_all(r, j->stats, err);
}

int clq_cmd_calibrate(int argc, char **argv)
{
    request r;
    int code = read_request(argc, argv, &r);
    if (!code) code = check_names(&r);
    if (code) return code;
    if (clq_stats_is(r.model.path)) return export_only(&r);
    if (!r.text) return clq_usage_error("--text, --jsonl or --tokens is missing: the text to calibrate on");
    if (!r.out) return clq_usage_error("-o is missing: where the statistics go");
    job j = {0};
    clq_error err;
    clq_status st = run(&j, &r, clq_cli_hooks(r.model.quiet), &err);
    clq_show_line(NULL);
    if (st != CLQ_OK)
        code = clq_report(&err);
    else if (r.model.json)
        code = clq_print_json(report_json(&j, &r));
    else if (!r.model.quiet)
        print_report(&j, &r);
    close_job(&j);
    return code;
}

// SPDX-License-Identifier: MIT
#include "cli/model.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/threads.h"
#include "io/output.h"

// ---- options ----

static const char *const activation_names[] = {[CLQ_ROUND_STORED] = "stored",
                                               [CLQ_ROUND_NOTHING] = "f32",
                                               [CLQ_ROUND_INT8] = "int8",
                                               [CLQ_ROUND_INT8_TENSOR] = "int8-tensor"};
static const clq_rounding N_ACTIVATIONS =
    (clq_rounding)(sizeof activation_names / sizeof *activation_names);

void clq_model_request_init(clq_model_request *r, clq_rounding activations)
{
    *r = (clq_model_request){.o = {.activations = activations, .cache_type = CLQ_F16}};
}

bool clq_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *v)
{
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*end || errno || n < min || n > max) return false;
    *v = (uint32_t)n;
    return true;
}

bool clq_parse_float(const char *text, float *v)
{
    char *end;
    float x = strtof(text, &end);
    if (end == text || *end || !isfinite(x)) return false;
    *v = x;
    return true;
}

static int read_cache_type(clq_model_request *r)
{
    static const clq_format_id types[] = {CLQ_F16, CLQ_F32, CLQ_Q8_0};
    for (int i = 0; i < 3; i++)
        if (strcasecmp(optarg, clq_format_at(types[i])->name) == 0) {
            r->o.cache_type = types[i];
            return 0;
        }
    return clq_usage_error("--cache-type wants f16, f32 or q8_0, not '%s'", optarg);
}

int clq_model_option(clq_model_request *r, int option, char **argv)
{
    enum { MOST = 1 << 24 };
    switch (option) {
    case CLQ_OPT_CTX:
        if (clq_parse_u32(optarg, 1, MOST, &r->o.context)) return 0;
        return clq_usage_error("--ctx wants a number of tokens, not '%s'", optarg);
    case CLQ_OPT_BATCH:
        if (clq_parse_u32(optarg, 1, MOST, &r->o.batch)) return 0;
        return clq_usage_error("--batch wants a number of tokens, not '%s'", optarg);
    case CLQ_OPT_ACTIVATIONS:
        for (r->o.activations = CLQ_ROUND_STORED; r->o.activations < N_ACTIVATIONS; r->o.activations++)
            if (strcasecmp(optarg, activation_names[r->o.activations]) == 0) return 0;
        return clq_usage_error("--activations wants stored, f32, int8 or int8-tensor, not '%s'", optarg);
    case CLQ_OPT_CACHE_TYPE: return read_cache_type(r);
    case CLQ_OPT_DEVICE:
        r->device = optarg;
        return *optarg ? 0 : clq_usage_error("--device wants an index, a part of a name, cpu, gpu or ref");
    case CLQ_OPT_THREADS:
        if (clq_parse_count(optarg, &r->threads)) return 0;
        return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    case CLQ_OPT_MAX_MEM:
        if (clq_parse_size(optarg, &r->o.max_memory) && r->o.max_memory) return 0;
        return clq_usage_error("--max-mem wants a size such as 512M or 2G, not '%s'", optarg);
    case CLQ_OPT_QUIET: r->quiet = true; return 0;
    case CLQ_OPT_JSON: r->json = true; return 0;
    default: return clq_wrong_option(argv);
    }
}

// ---- models ----

clq_status clq_load(clq_model_request *r, clq_hooks *hooks, clq_loaded *l, clq_error *err)
{
    *l = (clq_loaded){.threads = r->threads ? r->threads : clq_threads_allowed()};
    clq_device_options device = {.threads = r->threads, .work_group_form = -1, .hooks = hooks};
    r->o.hooks = hooks;
    clq_status st;
    CLQ_TRY_OUT(clq_source_open(r->path, hooks, &l->source, err));
    CLQ_TRY_OUT(clq_device_open(r->device, &device, &l->device, err));
    CLQ_TRY_OUT(clq_model_open(l->source, l->device, &r->o, &l->model, err));
    l->facts = clq_model_facts_of(l->model);
    l->tokenizer = clq_model_tokenizer(l->model);
    return CLQ_OK;
out:
    clq_unload(l);
    return st;
}

void clq_unload(clq_loaded *l)
{
    if (l->model) clq_model_close(l->model);
    if (l->device) clq_device_close(l->device);
    if (l->source) clq_source_close(l->source);
    *l = (clq_loaded){0};
}

clq_status clq_check_output(const clq_loaded *l, const char *path, clq_error *err)
{
    if (!clq_output_is_input(path, l->source->files, l->source->n_files)) return CLQ_OK;
    return clq_fail(err, CLQ_OUTPUT, "'%s' is one of the model's files", path);
}

static const char *name_of(const clq_loaded *l, const char *path) { return *l->facts->name ? l->facts->name : path; }

void clq_tell_model(const clq_loaded *l, const char *model_path)
{
    char name[160], size[32];
    const clq_model_facts *f = l->facts;
    clq_device_info info;
    clq_device_describe(l->device, &info);
    fprintf(stderr, "%s: %s, %.0f million weights, %s, on %s\n",
            clq_safe_text(name_of(l, model_path), name, sizeof name), f->architecture, (double)f->n_weights / 1e6,
            clq_size_text(f->weight_bytes, size), info.name);
    if (f->streamed_layers)
        fprintf(stderr, "%u of %u layers do not fit and are loaded for each pass\n", f->streamed_layers, f->layers);
}

void clq_model_json(json_t *object, const clq_loaded *l, const clq_model_request *r)
{
    const clq_model_facts *f = l->facts;
    clq_device_info info;
    clq_device_describe(l->device, &info);
    json_object_set_new(object, "model", clq_cli_text(r->path));
    json_object_set_new(object, "name", clq_cli_text(f->name));
    json_object_set_new(object, "architecture", clq_cli_text(f->architecture));
    json_object_set_new(object, "n_weights", json_integer((json_int_t)f->n_weights));
    json_object_set_new(object, "weight_bytes", json_integer((json_int_t)f->weight_bytes));
    json_object_set_new(object, "streamed_layers", json_integer(f->streamed_layers));
    json_object_set_new(object, "device", clq_cli_text(info.name));
    clq_rounding named = r->o.activations;
    if (named == CLQ_ROUND_STORED && !l->facts->rounds_activations) named = CLQ_ROUND_NOTHING;
    json_object_set_new(object, "activations", json_string(activation_names[named]));
    json_object_set_new(object, "cache_type", json_string(clq_format_at(r->o.cache_type)->name));
}

// ---- texts ----

clq_status clq_read_text(const char *path, const char *what, char **text, size_t *len, clq_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "rb");
    *text = NULL;
    *len = 0;
    if (!f) return clq_fail_errno(err, CLQ_BAD_INPUT, errno, "%s: cannot open '%s'", what, path);
    clq_buf all = {0};
    char piece[1 << 16];
    size_t n;
    errno = 0;
    while (all.len <= CLQ_MAX_TEXT_BYTES && (n = fread(piece, 1, sizeof piece, f)) > 0) clq_buf_append(&all, piece, n);
    int failed = ferror(f) ? errno ? errno : EIO : 0;
    if (!standard) fclose(f);
    clq_buf_append(&all, "", 1);
    clq_status st = CLQ_OK;
    if (failed)
        st = clq_fail_errno(err, CLQ_BAD_INPUT, failed, "%s: cannot read '%s'", what, path);
    else if (all.failed)
        st = clq_fail_memory(err, all.len);
    else if (all.len - 1 > CLQ_MAX_TEXT_BYTES)
        st = clq_fail(err, CLQ_BAD_INPUT, "%s: '%s' has more than %d bytes", what, path, CLQ_MAX_TEXT_BYTES);
    if (st != CLQ_OK) {
        clq_buf_free(&all);
        return st;
    }
    *text = all.data;
    *len = all.len - 1;
    return CLQ_OK;
}

clq_status clq_cli_tokenize(const clq_tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **tokens,
                            uint32_t *n, clq_error *err)
{
    clq_buf ids = {0};
    clq_status st = clq_tokenize(t, text, len, flags, &ids, err);
    if (st == CLQ_OK && ids.failed) st = clq_fail_memory(err, ids.len);
    if (st != CLQ_OK) {
        clq_buf_free(&ids);
        return st;
    }
    *tokens = (int32_t *)(void *)ids.data;
    *n = (uint32_t)(ids.len / sizeof **tokens);
    return CLQ_OK;
}

double clq_rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

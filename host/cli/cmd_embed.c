// SPDX-License-Identifier: MIT
// clquant embed
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/threads.h"
#include "cli/model.h"
#include "io/npy.h"
#include "io/output.h"

enum { TEXT = 1, POOLING, NO_NORMALIZE, BASE };
static const struct option options[] = {
    {"text", required_argument, NULL, TEXT},
    {"output", required_argument, NULL, 'o'},
    {"pooling", required_argument, NULL, POOLING},
    {"base", required_argument, NULL, BASE},
    {"no-normalize", no_argument, NULL, NO_NORMALIZE},
    CLQ_MODEL_OPTIONS,
    {0},
};

typedef struct {
    clq_model_request model;
    const char *text, *out, *base;
    clq_pooling pooling; // CLQ_POOL_NONE: by model
    bool as_is;          // not normalised
} request;

typedef struct {
    clq_loaded model;
    char *text;
    size_t len;
    clq_matrix result, base;
    uint64_t n_tokens;
    double seconds, cosine_mean, cosine_min;
    uint64_t least; // the row of cosine_min
} job;

static const char *const poolings[] = {"none", "mean", "cls", "last"};

static int read_request(int argc, char **argv, request *r)
{
    int c, code;
    clq_model_request_init(&r->model, CLQ_ROUND_STORED);
    while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
        if (c == TEXT)
            r->text = optarg;
        else if (c == 'o')
            r->out = optarg;
        else if (c == BASE)
            r->base = optarg;
        else if (c == NO_NORMALIZE)
            r->as_is = true;
        else if (c == POOLING) {
            for (int i = CLQ_POOL_MEAN; i <= CLQ_POOL_LAST; i++)
                if (strcmp(optarg, poolings[i]) == 0) r->pooling = (clq_pooling)i;
            if (!r->pooling) return clq_usage_error("--pooling wants mean, cls or last, not '%s'", optarg);
        } else if ((code = clq_model_option(&r->model, c, argv)) != 0)
            return code;
    }
    if (argc - optind != 1) return clq_usage_error("give one model");
    r->model.path = argv[optind];
    if (!r->text) return clq_usage_error("--text is missing: the lines to embed");
    return 0;
}

// ---- embeddings of an earlier run ----

// Appends a JSON array of numbers as a row.
static bool add_row(clq_matrix *m, clq_buf *values, const json_t *list)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || (m->rows && n != m->cols)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_number(v)) return false;
        float x = (float)json_number_value(v);
        clq_buf_append(values, &x, sizeof x);
    }
    m->cols = n;
    m->rows++;
    return true;
}

// {"embeddings": [[...], ...]}, one of {"embedding": [...]}, or a list of lists.
static bool add_document(clq_matrix *m, clq_buf *values, const json_t *document)
{
    const json_t *one = json_object_get(document, "embedding"), *all = json_object_get(document, "embeddings");
    if (one) return add_row(m, values, one);
    if (!all) all = document;
    if (!json_is_array(all)) return false;
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!add_row(m, values, json_array_get(all, i))) return false;
    return true;
}

// Documents one after the other: JSON lines are such.
static clq_status read_json(const char *path, clq_matrix *m, clq_error *err)
{
    char *text;
    size_t len, at = 0;
    CLQ_TRY(clq_read_text(path, "--base", &text, &len, err));
    clq_buf values = {0};
    clq_status st = CLQ_OK;
    while (st == CLQ_OK && at + strspn(text + at, " \t\r\n") < len) {
        json_error_t why;
        json_t *document = json_loadb(text + at, len - at, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &why);
        if (!document)
            st = clq_fail(err, CLQ_BAD_INPUT, "'%s' is no JSON: %s", path, why.text);
        else if (!add_document(m, &values, document))
            st = clq_fail(err, CLQ_BAD_INPUT, "'%s' does not hold embeddings: lists of numbers of one length", path);
        at += document ? (size_t)why.position : 0;
        json_decref(document);
    }
    free(text);
    if (st == CLQ_OK && values.failed) st = clq_fail_memory(err, values.len);
    if (st == CLQ_OK && !m->rows) st = clq_fail(err, CLQ_BAD_INPUT, "'%s' holds no embeddings", path);
    if (st != CLQ_OK) clq_buf_free(&values);
    m->values = (float *)(void *)values.data;
    return st;
}

static clq_status compare(job *j, const request *r, clq_error *err)
{
    const clq_matrix *a = &j->result, *b = &j->base;
    if (a->rows != b->rows || a->cols != b->cols)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has %llu embeddings of %llu numbers, the text gives %llu of %llu",
                        r->base, (unsigned long long)b->rows, (unsigned long long)b->cols, (unsigned long long)a->rows,
                        (unsigned long long)a->cols);
    j->cosine_min = INFINITY;
    for (uint64_t i = 0; i < a->rows; i++) {
        double xy = 0, xx = 0, yy = 0;
        for (uint64_t k = 0; k < a->cols; k++) {
            double x = (double)a->values[i * a->cols + k], y = (double)b->values[i * a->cols + k];
            xy += x * y;
            xx += x * x;
            yy += y * y;
        }
        double cosine = xy / sqrt(xx * yy);
        if (!isfinite(cosine))
            return clq_fail(err, CLQ_BAD_INPUT, "line %llu has no direction to compare", (unsigned long long)i + 1);
        j->cosine_mean += cosine / (double)a->rows;
        if (cosine < j->cosine_min) {
            j->cosine_min = cosine;
            j->least = i;
        }
    }
    return CLQ_OK;
}

// ---- embedding ----

static clq_status normalize(float *x, uint64_t n, bool as_is, clq_error *err)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    if (!isfinite(sum))
        return clq_fail(err, CLQ_BAD_INPUT, "its embedding is not finite: the model's weights are damaged");
    double scale = sum > 0 && !as_is ? 1 / sqrt(sum) : 1;
    for (uint64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] * scale);
    return CLQ_OK;
}

static clq_status embed_line(job *j, clq_pooling pooling, bool as_is, const char *line, size_t len, float *embedding,
                             clq_error *err)
{
    int32_t *tokens = NULL;
    uint32_t n = 0;
    CLQ_TRY(clq_cli_tokenize(j->model.tokenizer, line, len, CLQ_TOKENIZE_SPECIAL, &tokens, &n, err));
    clq_status st = n ? CLQ_OK : clq_fail(err, CLQ_BAD_INPUT, "it is empty, and the model adds no token to a text");
    if (st == CLQ_OK) st = clq_model_embed(j->model.model, tokens, n, pooling, embedding, err);
    if (st == CLQ_OK) st = normalize(embedding, j->result.cols, as_is, err);
    free(tokens);
    j->n_tokens += n;
    return st;
}

static uint64_t count_lines(const char *text, size_t len)
{
    uint64_t n = len && text[len - 1] != '\n';
    for (size_t i = 0; i < len; i++) n += text[i] == '\n';
    return n;
}

static clq_status embed_all(job *j, const request *r, clq_error *err)
{
    const clq_model_facts *f = j->model.facts;
    clq_pooling pooling = r->pooling      ? r->pooling
                          : f->pooling    ? f->pooling
                          : f->is_encoder ? CLQ_POOL_MEAN
                                          : CLQ_POOL_LAST;
    j->result.rows = count_lines(j->text, j->len);
    j->result.cols = f->embd;
    if (!j->result.rows) return clq_fail(err, CLQ_BAD_INPUT, "'%s' has no lines", r->text);
    j->result.values = malloc(j->result.rows * j->result.cols * sizeof(float));
    if (!j->result.values) return clq_fail_memory(err, j->result.rows * j->result.cols * sizeof(float));
    double start = clq_seconds(), shown = start;
    size_t at = 0;
    for (uint64_t i = 0; i < j->result.rows; i++) {
        if (clq_cancelled(r->model.o.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        const char *end = memchr(j->text + at, '\n', j->len - at);
        size_t len = end ? (size_t)(end - (j->text + at)) : j->len - at, next = at + len + 1;
        if (len && j->text[at + len - 1] == '\r') len--;
        clq_status st = embed_line(j, pooling, r->as_is, j->text + at, len, j->result.values + i * j->result.cols, err);
        if (st == CLQ_BAD_INPUT) {
            char where[64];
            snprintf(where, sizeof where, "line %llu", (unsigned long long)i + 1);
            clq_error_locate(err, where);
        }
        CLQ_TRY(st);
        at = next;
        if (!r->model.quiet && isatty(STDERR_FILENO) && clq_seconds() - shown > 0.2) {
            char text[80];
            shown = clq_seconds();
            snprintf(text, sizeof text, "%llu of %llu lines", (unsigned long long)i + 1,
                     (unsigned long long)j->result.rows);
            clq_show_line(text);
        }
    }
    j->seconds = clq_seconds() - start;
    return CLQ_OK;
}

// ---- results ----

static json_t *row_json(const clq_matrix *m, uint64_t row)
{
    json_t *list = json_array();
    for (uint64_t k = 0; k < m->cols; k++) json_array_append_new(list, json_real((double)m->values[row * m->cols + k]));
    return list;
}

// False: no memory.
static bool add_line(const clq_matrix *m, uint64_t row, clq_buf *out)
{
    json_t *line = json_pack("{s:I, s:o}", "line", (json_int_t)row + 1, "embedding", row_json(m, row));
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) clq_buf_text(out, text);
    clq_buf_text(out, "\n");
    bool ok = text && !out->failed;
    free(text);
    json_decref(line);
    return ok;
}

static clq_status print_lines(const clq_matrix *m, clq_error *err)
{
    clq_buf line = {0};
    clq_status st = CLQ_OK;
    for (uint64_t i = 0; i < m->rows && st == CLQ_OK; i++) {
        line.len = 0;
        if (!add_line(m, i, &line))
            st = clq_fail_memory(err, line.len);
        else
            fwrite(line.data, 1, line.len, stdout); // main() tells of a stream that failed
    }
    clq_buf_free(&line);
    return st;
}

static clq_status write_lines(const clq_matrix *m, const char *path, clq_error *err)
{
    clq_buf all = {0};
    clq_status st = CLQ_OK;
    for (uint64_t i = 0; i < m->rows && st == CLQ_OK; i++)
        if (!add_line(m, i, &all)) st = clq_fail_memory(err, all.len);
    if (st == CLQ_OK) st = clq_output_whole(path, all.data, all.len, err);
    clq_buf_free(&all);
    return st;
}

static clq_status write_result(const job *j, const request *r, clq_error *err)
{
    return clq_ends_with(r->out, ".npy") ? clq_npy_write(r->out, &j->result, err)
                                         : write_lines(&j->result, r->out, err);
}

static json_t *report_json(const job *j, const request *r)
{
    json_t *root = json_object();
    json_object_set_new(root, "n_embeddings", json_integer((json_int_t)j->result.rows));
    json_object_set_new(root, "dimensions", json_integer((json_int_t)j->result.cols));
    json_object_set_new(root, "tokens", json_integer((json_int_t)j->n_tokens));
    json_object_set_new(root, "seconds", json_real(j->seconds));
    json_object_set_new(root, "tokens_per_second", clq_json_real(clq_rate((double)j->n_tokens, j->seconds)));
    clq_model_json(root, &j->model, &r->model);
    if (r->base) {
        json_object_set_new(root, "cosine_mean", json_real(j->cosine_mean));
        json_object_set_new(root, "cosine_min", json_real(j->cosine_min));
        json_object_set_new(root, "cosine_min_line", json_integer((json_int_t)j->least + 1));
    } else if (!r->out) {
        json_t *list = json_array();
        for (uint64_t i = 0; i < j->result.rows; i++) json_array_append_new(list, row_json(&j->result, i));
        json_object_set_new(root, "embeddings", list);
    }
    return root;
}

static clq_status print_result(const job *j, const request *r, clq_error *err)
{
    unsigned long long rows = j->result.rows, cols = j->result.cols;
    if (r->model.json) return clq_print_json(report_json(j, r)) ? clq_fail(err, CLQ_DEVICE, "out of memory") : CLQ_OK;
    if (!r->base && !r->out) return print_lines(&j->result, err);
    if (r->base)
        printf("%llu embeddings, cosine mean %.6f, min %.6f (line %llu)\n", rows, j->cosine_mean, j->cosine_min,
               (unsigned long long)j->least + 1);
    else if (!r->model.quiet)
        printf("%llu embeddings of %llu numbers; %.2f s, %.1f tokens/s\n", rows, cols, j->seconds,
               clq_rate((double)j->n_tokens, j->seconds));
    return CLQ_OK;
}

static clq_status run(job *j, request *r, clq_hooks *hooks, clq_error *err)
{
    if (r->out) CLQ_TRY(clq_output_check_place(r->out, err));
    CLQ_TRY(clq_read_text(r->text, "--text", &j->text, &j->len, err));
    if (r->base)
        CLQ_TRY(clq_npy_is(r->base) ? clq_npy_read(r->base, &j->base, err) : read_json(r->base, &j->base, err));
    CLQ_TRY(clq_load(&r->model, hooks, &j->model, err));
    if (r->out) CLQ_TRY(clq_check_output(&j->model, r->out, err));
    CLQ_TRY(embed_all(j, r, err));
    if (r->base) CLQ_TRY(compare(j, r, err));
    return r->out ? write_result(j, r, err) : CLQ_OK;
}

int clq_cmd_embed(int argc, char **argv)
{
    request r = {0};
    int code = read_request(argc, argv, &r);
    if (code) return code;
    job j = {0};
    clq_error err;
    clq_status st = run(&j, &r, clq_cli_hooks(r.model.quiet), &err);
    clq_show_line(NULL);
    if (st == CLQ_OK) st = print_result(&j, &r, &err);
    code = st == CLQ_OK ? 0 : clq_report(&err);
    clq_matrix_free(&j.result);
    clq_matrix_free(&j.base);
    free(j.text);
    clq_unload(&j.model);
    return code;
}

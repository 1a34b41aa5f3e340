// SPDX-License-Identifier: MIT
// clquant quantize, clquant convert
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/model.h"
#include "cli/quantize.h"

// ---- progress ----

typedef struct {
    bool terminal;
    double last;
} display;

// "352 million weights/s", in a smaller unit where that says more.
static const char *rate_text(double rate, char text[48])
{
    if (rate >= 1e6)
        snprintf(text, 48, "%.*f million weights/s", rate < 9.95e6, rate / 1e6);
    else if (rate >= 1e3)
        snprintf(text, 48, "%.0f thousand weights/s", rate / 1e3);
    else
        snprintf(text, 48, "%.0f weights/s", rate);
    return text;
}

static void show_progress(void *user, const clq_progress *p)
{
    display *d = user;
    double rate = p->seconds > 0 ? (double)p->elements_done / p->seconds : 0;
    double left = rate > 0 ? (double)(p->n_elements - p->elements_done) / rate : 0;
    char name[80], speed[48], line[320];
    if (!d->terminal) {
        fprintf(stderr, "[%u/%u] %s\n", p->tensors_done, p->n_tensors, p->tensor);
        return;
    }
    if (p->tensors_done == p->n_tensors) {
        clq_show_line(NULL);
        return;
    }
    if (p->seconds - d->last < 0.1) return;
    d->last = p->seconds;
    snprintf(line, sizeof line, "%3.0f%%  %u/%u  %s  %.0f s left  %s",
             p->n_elements ? 100.0 * (double)p->elements_done / (double)p->n_elements : 100.0, p->tensors_done,
             p->n_tensors, rate_text(rate, speed), left, clq_safe_text(p->tensor, name, sizeof name));
    clq_show_line(line);
}

// ---- reports ----

static double sqnr(const clq_stats *s)
{
    return s->sum_e2 == 0 ? INFINITY : 10 * log10(s->sum_x2 / s->sum_e2);
}

static void print_plan(const clq_plan *plan)
{
    printf("%-12s %-16s %-20s %14s  %s\n", "from", "to", "shape", "bytes", "tensor");
    const clq_plan_tensor *t;
    for (uint32_t i = 0; (t = clq_plan_at(plan, i)); i++) {
        char shape[160], name[256], inputs[64];
        clq_activation_text(&t->activation, inputs);
        printf("%-12s %-16s %-20s %14llu  %s%s%s%s%s\n", t->source_type, t->type,
               clq_shape_text(t->dims, t->n_dims, shape), (unsigned long long)t->n_bytes,
               clq_safe_text(t->name, name, sizeof name), *t->note ? "  # " : "", t->note,
               *inputs ? "  # int8 activations: " : "", inputs);
    }
}

// Before the start: what will not be as asked, and what that costs.
static void print_notes(const clq_plan *plan, const clq_plan_totals *totals)
{
    uint32_t shown = 0;
    const clq_plan_tensor *t;
    char name[256], size[32];
    if (totals->n_fallbacks) {
        int64_t extra = totals->fallback_bytes;
        fprintf(stderr, "clquant: %u tensor%s not get the type asked for, which makes the output %s %s\n",
                totals->n_fallbacks, totals->n_fallbacks == 1 ? " does" : "s do",
                clq_size_text((uint64_t)(extra < 0 ? -extra : extra), size), extra < 0 ? "smaller" : "larger");
    }
    for (uint32_t i = 0; (t = clq_plan_at(plan, i)); i++)
        if (*t->note && ++shown <= 5) fprintf(stderr, "  %s: %s\n", clq_safe_text(t->name, name, sizeof name), t->note);
    if (shown > 5) fprintf(stderr, "  ... and %u more; --dry-run lists them\n", shown - 5);
}

// Behind the size: " in 3 parts, the first 'dir/model-00001-of-00003.gguf'", of a plan also " in 1 file".
static void print_files(const clq_plan *plan, const clq_plan_totals *totals, const clq_request *r)
{
    const char *first = clq_plan_first_part(plan);
    char name[512];
    if (first)
        printf(" in %u part%s, the first '%s'", totals->n_files, CLQ_PLURAL(totals->n_files),
               clq_safe_text(first, name, sizeof name));
    else if (r->dry_run)
        printf(" in %u file%s", totals->n_files, CLQ_PLURAL(totals->n_files));
}

// How many weights have which activations.
static void print_activations(const clq_plan *plan)
{
    uint32_t n[CLQ_ACTIVATIONS_STATIC + 1] = {0};
    const clq_plan_tensor *t;
    for (uint32_t i = 0; (t = clq_plan_at(plan, i)); i++) n[t->activation.kind]++;
    for (int k = CLQ_ACTIVATIONS_TOKEN; k <= CLQ_ACTIVATIONS_STATIC; k++)
        if (n[k])
            printf("%u weight%s with int8 activations (%s)\n", n[k], CLQ_PLURAL(n[k]),
                   clq_activations_name((clq_activations)k));
}

// What a method did.
static void print_method(const clq_plan *plan, const clq_plan_totals *totals, const clq_request *r)
{
    const clq_site_report *s;
    double error = 0, ratio = 0, loss = 0, plain = 0;
    uint32_t n = 0, n_folded = 0, n_measured = 0;
    for (; (s = clq_plan_site(plan, n)); n++) {
        n_folded += s->ratio >= 0;
        ratio += s->ratio >= 0 ? (double)s->ratio : 0;
        loss += s->search_loss >= 0 ? s->search_loss : 0;
        plain += s->search_loss >= 0 ? s->search_plain : 0;
        if (!(s->energy > 0)) continue;
        n_measured++;
        error += s->error / s->energy;
    }
    if (!n) return;
    printf("%s: %u inputs of weights, %llu tokens of calibration, %llu of them for comparing",
           clq_method_at(r->method.method)->name, n, (unsigned long long)totals->calibration_tokens,
           (unsigned long long)totals->search_tokens);
    if (n_folded) printf("; %u with factors, mean %s %.2f", n_folded,
                         r->method.method == CLQ_METHOD_AWQ ? "ratio" : "alpha", ratio / n_folded);
    if (plain > 0) printf("; their modules' errors %.3f times those without", loss / plain);
    if (n_measured) printf("; mean error of products %.4f%%", 100 * error / n_measured);
    printf("\n");
}

// Per type: tensors, bytes, SQNR over all and of the worst tensor.
static void print_report(const clq_plan *plan, const clq_plan_totals *totals, const clq_request *r)
{
    struct {
        char type[32];
        uint32_t n;
        uint64_t elements, bytes;
        clq_stats sum;
        double worst;
        const char *worst_name;
    } rows[64];
    uint32_t n_rows = 0;
    const clq_plan_tensor *t;
    char size[32], name[256], speed[48];
    for (uint32_t i = 0; (t = clq_plan_at(plan, i)); i++) {
        uint32_t k = 0;
        while (k < n_rows && strcmp(rows[k].type, t->type) != 0) k++;
        if (k == 64) continue;
        if (k == n_rows) {
            memset(&rows[n_rows++], 0, sizeof rows[0]);
            memcpy(rows[k].type, t->type, sizeof t->type);
            rows[k].worst = INFINITY;
        }
        rows[k].n++;
        rows[k].elements += t->n_elements;
        rows[k].bytes += t->n_bytes;
        rows[k].sum.sum_x2 += t->stats.sum_x2;
        rows[k].sum.sum_e2 += t->stats.sum_e2;
        if (t->lossy && sqnr(&t->stats) < rows[k].worst) {
            rows[k].worst = sqnr(&t->stats);
            rows[k].worst_name = t->name;
        }
    }
    printf("%-16s %8s %15s %12s %9s  %s\n", "type", "tensors", "elements", "size", "SQNR dB", "worst tensor");
    for (uint32_t k = 0; k < n_rows; k++) {
        printf("%-16s %8u %15llu %12s ", rows[k].type, rows[k].n, (unsigned long long)rows[k].elements,
               clq_size_text(rows[k].bytes, size));
        if (rows[k].worst_name)
            printf("%9.2f  %.2f %s\n", sqnr(&rows[k].sum), rows[k].worst,
                   clq_safe_text(rows[k].worst_name, name, sizeof name));
        else
            printf("%9s\n", "equal");
    }
    print_activations(plan);
    print_method(plan, totals, r);
    double total = (double)totals->n_elements;
    printf("%s written", clq_size_text(totals->n_bytes, size));
    print_files(plan, totals, r);
    if (total > 0) printf(", %.3f bits per weight", 8.0 * (double)totals->n_bytes / total);
    if (total > 0 && !r->o.convert)
        printf(", %.1f%% of the weights quantized", 100.0 * (double)totals->quantized_elements / total);
    printf("; %.2f s", totals->seconds);
    if (total > 0 && totals->seconds > 0) printf(", %s", rate_text(total / totals->seconds, speed));
    printf("\n");
}

static json_t *sites_json(const clq_plan *plan)
{
    json_t *list = json_array();
    const clq_site_report *s;
    for (uint32_t i = 0; (s = clq_plan_site(plan, i)); i++) {
        json_t *row = json_pack("{s:i, s:s}", "layer", (int)s->layer, "name", s->name);
        if (s->ratio >= 0 || *s->fold) json_object_set_new(row, "folded_into", json_string(s->fold));
        if (s->ratio >= 0) {
            json_object_set_new(row, "ratio", json_real(round(100 * (double)s->ratio) / 100));
            json_object_set_new(row, "weighted", json_boolean(s->weighted));
        }
        if (s->search_loss >= 0) {
            json_object_set_new(row, "search_loss", clq_json_real(s->search_loss));
            json_object_set_new(row, "search_loss_without", clq_json_real(s->search_plain));
        }
        if (s->energy > 0) {
            json_object_set_new(row, "error", clq_json_real(s->error));
            json_object_set_new(row, "energy", clq_json_real(s->energy));
        }
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *report_json(const clq_plan *plan, const clq_plan_totals *totals, const clq_request *r)
{
    json_t *list = json_array();
    const clq_plan_tensor *t;
    for (uint32_t i = 0; (t = clq_plan_at(plan, i)); i++) {
        json_t *row = json_pack("{s:o, s:o, s:s, s:s, s:o, s:I, s:s, s:o}", "name", clq_cli_text(t->name), "source",
                                clq_cli_text(t->source_name), "from", t->source_type, "to", t->type, "shape",
                                clq_json_dims(t->dims, t->n_dims), "n_bytes", (json_int_t)t->n_bytes, "note", t->note,
                                "activations", clq_json_activation(&t->activation));
        if (!r->dry_run && t->lossy) {
            json_object_set_new(row, "sqnr_db", clq_json_real(sqnr(&t->stats)));
            json_object_set_new(row, "max_error", clq_json_real(t->stats.max_error));
        }
        json_array_append_new(list, row);
    }
    const char *type = r->type ? r->type : "kept";
    json_t *root =
        json_pack("{s:o, s:o, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:i, s:o}", "input", clq_cli_text(r->in), "output",
                  clq_cli_text(r->out), "type", type, "dry_run", r->dry_run, "n_bytes", (json_int_t)totals->n_bytes,
                  "source_bytes", (json_int_t)totals->source_bytes, "n_elements", (json_int_t)totals->n_elements,
                  "quantized_elements", (json_int_t)totals->quantized_elements, "memory", (json_int_t)totals->memory,
                  "n_fallbacks", (int)totals->n_fallbacks, "tensors", list);
    json_object_set_new(root, "n_files", json_integer(totals->n_files));
    if (clq_plan_first_part(plan)) json_object_set_new(root, "first_part", clq_cli_text(clq_plan_first_part(plan)));
    json_object_set_new(root, "fallback_bytes", json_integer((json_int_t)totals->fallback_bytes));
    if (r->o.method) json_object_set_new(root, "method", json_string(clq_method_at(r->method.method)->name));
    if (clq_plan_site(plan, 0)) {
        json_object_set_new(root, "calibration_tokens", json_integer((json_int_t)totals->calibration_tokens));
        json_object_set_new(root, "search_tokens", json_integer((json_int_t)totals->search_tokens));
        json_object_set_new(root, "sites", sites_json(plan));
    }
    if (!r->dry_run) {
        json_object_set_new(root, "seconds", json_real(totals->seconds));
        json_object_set_new(root, "weights_per_second", clq_json_real((double)totals->n_elements / totals->seconds));
    }
    return root;
}

// ---- running ----

static int run_plan(clq_plan *plan, const clq_request *r, clq_hooks *hooks)
{
    clq_error err;
    clq_device *device;
    clq_device_options options = {.threads = r->o.threads, .work_group_form = -1, .hooks = hooks};
    if (clq_device_open(r->device, &options, &device, &err) != CLQ_OK) return clq_report(&err);
    clq_device_info info;
    clq_device_describe(device, &info);
    if (!info.exact_divide)
        fprintf(stderr,
                "clquant: warning: '%s' does not round division correctly; ggml types are within their error bounds, "
                "but not byte-identical to the reference\n",
                info.name);
    clq_status st = clq_plan_run(plan, device, &err);
    clq_device_close(device);
    clq_show_line(NULL);
    if (st == CLQ_INTERRUPTED)
        fprintf(stderr, "clquant: interrupted; --resume goes on where this run ended\n");
    else if (st != CLQ_OK)
        return clq_report(&err);
    return (int)st;
}

// Whether the report could be written. The output is complete, so that its loss must not look like the output's.
static int check_report(const clq_request *r, int code)
{
    errno = 0;
    if (code || r->dry_run || (fflush(stdout) == 0 && !ferror(stdout))) return code;
    const char *why = errno ? strerror(errno) : "write error";
    char name[512];
    fprintf(stderr, "clquant: the output '%s' is complete; only the report could not be written to standard output: ",
            clq_safe_text(r->out, name, sizeof name));
    fprintf(stderr, "%s\n", why);
    return CLQ_OUTPUT;
}

static int run_request(clq_request *r)
{
    clq_hooks *hooks = clq_cli_hooks(r->quiet);
    display d = {.terminal = isatty(STDERR_FILENO)};
    hooks->user = &d;
    if (!r->quiet && !r->json) hooks->progress = show_progress;
    clq_error err;
    clq_source *source;
    clq_plan *plan;
    char *text = NULL;
    if (r->calib && clq_read_text(r->calib, "--calib", &text, &r->method.text_len, &err) != CLQ_OK) return clq_report(&err);
    r->method.text = text;
    r->method.text_name = r->calib && strcmp(r->calib, "-") == 0 ? "standard input" : r->calib;
    clq_status st = clq_source_open(r->in, hooks, &source, &err);
    if (st == CLQ_OK && (st = clq_plan_create(source, r->out, &r->o, hooks, &plan, &err)) != CLQ_OK)
        clq_source_close(source);
    free(text);
    if (st != CLQ_OK) return clq_report(&err);
    clq_plan_totals totals;
    clq_plan_summary(plan, &totals);
    if (!r->quiet) print_notes(plan, &totals);
    int code = r->dry_run ? 0 : run_plan(plan, r, hooks);
    clq_plan_summary(plan, &totals);
    char a[32], b[32];
    if (code) {
        // said already
    } else if (r->json) {
        code = clq_print_json(report_json(plan, &totals, r));
    } else if (r->dry_run) {
        print_plan(plan);
        printf("%llu bytes (%s)", (unsigned long long)totals.n_bytes, clq_size_text(totals.n_bytes, a));
        print_files(plan, &totals, r);
        printf(", %u tensor%s, buffers of at most %s\n", totals.n_tensors, CLQ_PLURAL(totals.n_tensors),
               clq_size_text(totals.memory, b));
    } else if (!r->quiet) {
        print_report(plan, &totals, r);
    }
    code = check_report(r, code);
    clq_plan_free(plan);
    clq_source_close(source);
    return code;
}

static int quantize(int argc, char **argv, bool convert)
{
    clq_request r;
    int code = clq_request_read(argc, argv, convert, &r);
    if (!code) code = run_request(&r);
    clq_request_free(&r);
    return code;
}

int clq_cmd_quantize(int argc, char **argv)
{
    return quantize(argc, argv, false);
}

int clq_cmd_convert(int argc, char **argv)
{
    return quantize(argc, argv, true);
}

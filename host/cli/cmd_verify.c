// SPDX-License-Identifier: MIT
// clquant verify
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"quiet", no_argument, NULL, 'q'},
                                        {"threads", required_argument, NULL, 'n'},
                                        {"min-sqnr", required_argument, NULL, 'm'}, {0}};

typedef struct {
    bool print;
    json_t *list;
} listing;

static void each(void *user, const clq_verify_tensor *t)
{
    listing *l = user;
    char name[256];
    if (l->list)
        json_array_append_new(l->list, json_pack("{s:o, s:s, s:o, s:o, s:I, s:I}", "name", clq_cli_text(t->name),
                                                 "type", t->type, "sqnr_db", clq_json_real(t->sqnr_db), "max_error",
                                                 clq_json_real(t->max_error), "bad_values", (json_int_t)t->bad_values,
                                                 "n_elements", (json_int_t)t->n_elements));
    else if (l->print && isinf(t->sqnr_db))
        printf("%-16s %9s %12s  %s%s\n", t->type, t->missed ? "other" : "equal", t->missed ? "-" : "0",
               clq_safe_text(t->name, name, sizeof name), t->missed ? "  BAD" : "");
    else if (l->print)
        printf("%-16s %9.2f %12.4g  %s%s\n", t->type, t->sqnr_db, t->max_error,
               clq_safe_text(t->name, name, sizeof name),
               t->bad_values ? "  NOT FINITE" : t->missed ? "  BAD" : "");
}

int clq_cmd_verify(int argc, char **argv)
{
    bool json = false, quiet = false;
    uint32_t threads = 0;
    double min_sqnr = 1; // noise as large as the weights, or other weights
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'j')
            json = true;
        else if (c == 'q')
            quiet = true;
        else if (c == 'm') {
            char *end;
            min_sqnr = strtod(optarg, &end);
            if (end == optarg || *end || !isfinite(min_sqnr))
                return clq_usage_error("--min-sqnr wants decibels, not '%s'", optarg);
        } else if (c != 'n')
            return clq_wrong_option(argv);
        else if (!clq_parse_count(optarg, &threads))
            return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    }
    if (argc - optind != 2) return clq_usage_error("give the source and the output");
    clq_hooks *hooks = clq_cli_hooks(quiet);
    clq_source *source, *output;
    clq_error err;
    if (clq_source_open(argv[optind], hooks, &source, &err) != CLQ_OK) return clq_report(&err);
    if (clq_source_open(argv[optind + 1], hooks, &output, &err) != CLQ_OK) {
        clq_source_close(source);
        return clq_report(&err);
    }
    listing l = {.print = !quiet && !json, .list = json ? json_array() : NULL};
    clq_verify_totals totals;
    if (l.print) printf("%-16s %9s %12s  %s\n", "type", "SQNR dB", "max error", "tensor");
    clq_status st = clq_verify(source, output, threads, min_sqnr, hooks, each, &l, &totals, &err);
    bool told = st == CLQ_OK || st == CLQ_QUALITY;
    if (json && told) {
        clq_print_json(json_pack("{s:b, s:i, s:i, s:o, s:o, s:I, s:o}", "ok", st == CLQ_OK, "n_compared",
                                 (int)totals.n_compared, "n_missing", (int)totals.n_missing, "sqnr_db",
                                 clq_json_real(totals.sqnr_db), "worst_sqnr_db", clq_json_real(totals.worst_sqnr_db),
                                 "bad_values", (json_int_t)totals.bad_values, "tensors", l.list));
    } else if (told && !quiet) {
        printf("%u tensors compared, SQNR %.2f dB, worst tensor %.2f dB, %llu values or scales not finite, "
               "%u missing",
               totals.n_compared, totals.sqnr_db, totals.worst_sqnr_db, (unsigned long long)totals.bad_values,
               totals.n_missing);
        if (totals.n_more) printf(", %u only in the output", totals.n_more);
        printf("\n");
    }
    clq_source_close(output);
    clq_source_close(source);
    return st == CLQ_OK ? 0 : clq_report(&err);
}

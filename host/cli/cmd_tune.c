// SPDX-License-Identifier: MIT
// clquant tune: measures which form of the kernels a device runs forward passes with best, and stores it.
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "device/tune.h"

static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                        {"device", required_argument, NULL, 'd'},
                                        {"threads", required_argument, NULL, 'n'},
                                        {0}};

static const char *form_text(const clq_tuning *t, char text[64])
{
    snprintf(text, 64, "%s%s%s", t->work_groups ? "wg" : "vec", t->together == 1 ? ", steps together" : "",
             t->blas == 1 ? ", CLBlast" : "");
    return text;
}

int clq_cmd_tune(int argc, char **argv)
{
    bool json = false;
    const char *selector = NULL;
    clq_device_options o = {.work_group_form = -1, .hooks = clq_cli_hooks(false)};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'j')
            json = true;
        else if (c == 'd')
            selector = optarg;
        else if (c != 'n')
            return clq_wrong_option(argv);
        else if (!clq_parse_count(optarg, &o.threads))
            return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    }
    if (optind < argc) return clq_usage_error("unexpected argument '%s'", argv[optind]);
    if (selector && strcmp(selector, "ref") == 0)
        return clq_usage_error("the references have one form: there is nothing to choose");
    clq_tune_row rows[CLQ_TUNE_ROWS];
    uint32_t n, best;
    char path[512], text[64];
    clq_error err;
    if (clq_tune(selector, &o, rows, &n, &best, path, sizeof path, &err) != CLQ_OK) return clq_report(&err);
    json_t *list = json_array();
    if (!json) printf("%-24s %12s %12s %12s\n", "form", "1 token", "64 tokens", "64, dense");
    for (uint32_t i = 0; i < n; i++) {
        const clq_tune_row *r = &rows[i];
        form_text(&r->tuning, text);
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:b, s:f, s:f, s:f, s:b}", "form", text, "works",
                                                  (int)r->works, "ms_1_token", r->one, "ms_64_tokens", r->many,
                                                  "ms_64_dense", r->dense, "chosen", (int)(i == best)));
        else if (r->works)
            printf("%-24s %9.2f ms %9.2f ms %9.2f ms%s\n", text, r->one, r->many, r->dense,
                   i == best ? "  chosen" : "");
        else
            printf("%-24s does not work here\n", text);
    }
    if (json) return clq_print_json(json_pack("{s:o, s:s}", "forms", list, "stored", path));
    json_decref(list);
    printf("stored in %s\n", path);
    return 0;
}

// SPDX-License-Identifier: MIT
// clquant devices, clquant formats, clquant methods
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"

static const struct option json_only[] = {{"json", no_argument, NULL, 'j'}, {0}};

// Reads "[--json]"; an exit code, or -1 to go on.
static int read_json_option(int argc, char **argv, bool *json)
{
    int c;
    *json = false;
    while ((c = getopt_long(argc, argv, "", json_only, NULL)) != -1) {
        if (c != 'j') return clq_wrong_option(argv);
        *json = true;
    }
    return optind < argc ? clq_usage_error("unexpected argument '%s'", argv[optind]) : -1;
}

static const char *kind(const clq_device_info *i)
{
    return i->is_cpu ? "cpu" : i->is_gpu ? "gpu" : "accelerator";
}

int clq_cmd_devices(int argc, char **argv)
{
    bool json;
    int code = read_json_option(argc, argv, &json);
    if (code >= 0) return code;
    clq_error err;
    uint32_t n;
    if (clq_device_count(&n, &err) != CLQ_OK) return clq_report(&err);
    json_t *list = json_array();
    for (uint32_t d = 0; d < n; d++) {
        clq_device_info i;
        if (clq_device_query(d, &i, &err) != CLQ_OK) return clq_report(&err);
        char memory[32], most[32];
        if (!json)
            printf("%u: %s\n   %s, %s, driver %s; %s, %u compute units, %s, %s at once\n   %s memory; %s division%s\n",
                   d, i.name, i.platform, i.version, i.driver, kind(&i), i.compute_units,
                   clq_size_text(i.global_memory, memory), clq_size_text(i.max_allocation, most),
                   i.unified_memory ? "unified" : "own", i.exact_divide ? "exact" : "inexact", i.fp16 ? "; fp16" : "");
        json_array_append_new(
            list, json_pack("{s:i, s:o, s:o, s:o, s:o, s:s, s:i, s:I, s:I, s:b, s:b, s:b, s:b, s:b}", "index", (int)d,
                            "name", clq_cli_text(i.name), "platform", clq_cli_text(i.platform), "version",
                            clq_cli_text(i.version), "driver", clq_cli_text(i.driver), "kind", kind(&i),
                            "compute_units", (int)i.compute_units, "global_memory", (json_int_t)i.global_memory,
                            "max_allocation", (json_int_t)i.max_allocation, "unified_memory", i.unified_memory,
                            "exact_divide", i.exact_divide, "denormals", i.denormals, "fp16", i.fp16, "fp64", i.fp64));
    }
    if (json) return clq_print_json(list);
    json_decref(list);
    if (!n) printf("no OpenCL devices\n");
    printf("ref: the C references on the CPU, without OpenCL\n");
    return 0;
}

int clq_cmd_formats(int argc, char **argv)
{
    bool json;
    int code = read_json_option(argc, argv, &json);
    if (code >= 0) return code;
    json_t *list = json_array();
    if (!json)
        printf("%-28s %-6s %-7s %-8s %-11s %s\n", "type", "block", "bits/w", "error", "container",
               "bytes equal to ggml's");
    for (int id = 0; id <= CLQ_INT; id++) {
        const clq_format_info *f = clq_format_at((clq_format_id)id);
        if (!f->has_codec) continue;
        double bits = 8.0 * f->block_bytes / f->block_elements;
        bool family = id == CLQ_INT;
        const char *container = family ? "folder" : id > CLQ_BF16 ? "gguf" : "both";
        if (json) {
            json_array_append_new(list, json_pack("{s:s, s:i, s:o, s:o, s:s, s:b}", "name", f->name, "block_elements",
                                                  (int)f->block_elements, "bits_per_weight",
                                                  family ? json_null() : json_real(bits), "error_bound",
                                                  family ? json_null() : json_real(f->error_bound), "container",
                                                  container, "exact", f->exact));
        } else if (family) {
            printf("%-28s %-6s %-7s %-8s %-11s\n", f->name, "-", "bits+", "s/2, s", container);
        } else {
            printf("%-28s %-6u %-7.4g %-8.4g %-11s %s\n", f->name, f->block_elements, bits, f->error_bound, container,
                   f->exact ? "yes" : "no");
        }
    }
    if (json) return clq_print_json(list);
    json_decref(list);
    printf("\nIntegers: 2 to 8 bits, symmetric (absmax) or _asym (zero-point); one scale per output channel, or\n"
           "_tensor, or _gN (groups of N inputs, N a multiple of 32): i8, i8_asym_tensor, i4_g128, i3_asym_g64.\n"
           "error: largest |x - decoded| over the block's largest |x|; s: the group's scale (s for _asym).\n");
    return 0;
}

int clq_cmd_methods(int argc, char **argv)
{
    bool json;
    int code = read_json_option(argc, argv, &json);
    if (code >= 0) return code;
    json_t *list = json_array();
    const clq_method_info *m;
    if (!json) printf("%-12s %-8s %s\n", "method", "text", "what it does");
    for (uint32_t i = 0; (m = clq_method_at(i)); i++) {
        if (!json) printf("%-12s %-8s %s\n", m->name, m->calibrated ? "--calib" : "no", m->summary);
        json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", m->name, "calibrated", m->calibrated, "summary",
                                              m->summary));
    }
    if (json) return clq_print_json(list);
    json_decref(list);
    return 0;
}

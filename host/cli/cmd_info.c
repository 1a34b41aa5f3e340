// SPDX-License-Identifier: MIT
// clquant info
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/stats_report.h"

static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"tensors", no_argument, NULL, 't'}, {0}};
static const char *const containers[] = {"GGUF", "safetensors", "Hugging Face folder"};

typedef struct {
    char type[32];
    uint32_t n_tensors;
    uint64_t n_elements, n_bytes;
} summary;

static uint32_t summarize(const clq_source *s, summary *by_type, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < clq_source_count(s); i++) {
        clq_tensor_info t;
        if (clq_source_tensor(s, i, &t, NULL) != CLQ_OK) continue;
        uint32_t k = 0;
        while (k < n && strcmp(by_type[k].type, t.type) != 0) k++;
        if (k == n) {
            if (n == most) continue;
            by_type[n++] = (summary){0};
            memcpy(by_type[k].type, t.type, sizeof t.type);
        }
        by_type[k].n_tensors++;
        by_type[k].n_elements += t.n_elements;
        by_type[k].n_bytes += t.n_bytes;
    }
    return n;
}

static int print_json(const clq_source *s, const summary *types, uint32_t n_types, bool tensors)
{
    json_t *root = json_pack("{s:s, s:o, s:i}", "container", containers[clq_source_container(s)], "architecture",
                             clq_cli_text(clq_source_architecture(s)), "n_tensors", (int)clq_source_count(s));
    json_t *list = json_array();
    for (uint32_t i = 0; i < n_types; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:I}", "type", types[i].type, "n_tensors",
                                              (int)types[i].n_tensors, "n_elements", (json_int_t)types[i].n_elements,
                                              "n_bytes", (json_int_t)types[i].n_bytes));
    json_object_set_new(root, "types", list);
    if (tensors) {
        list = json_array();
        for (uint32_t i = 0; i < clq_source_count(s); i++) {
            clq_tensor_info t;
            clq_source_tensor(s, i, &t, NULL);
            json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I, s:o, s:I, s:o}", "name", clq_cli_text(t.name),
                                                  "type", t.type, "shape", clq_json_dims(t.dims, t.n_dims), "n_bytes",
                                                  (json_int_t)t.n_bytes, "file", clq_cli_text(t.file), "offset",
                                                  (json_int_t)t.offset, "activations",
                                                  clq_json_activation(&t.activation)));
        }
        json_object_set_new(root, "tensors", list);
    }
    return clq_print_json(root);
}

static int info_of_stats(const char *path, bool json, bool sites)
{
    clq_stats_file *stats;
    clq_error err;
    if (clq_stats_open(path, &stats, &err) != CLQ_OK) return clq_report(&err);
    int code = 0;
    if (json) {
        json_t *root = json_pack("{s:s}", "container", "statistics");
        clq_stats_json(root, stats);
        code = clq_print_json(root);
    } else {
        clq_stats_print(stats, sites);
    }
    clq_stats_free(stats);
    return code;
}

int clq_cmd_info(int argc, char **argv)
{
    bool json = false, tensors = false;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'j')
            json = true;
        else if (c == 't')
            tensors = true;
        else
            return clq_wrong_option(argv);
    }
    if (argc - optind != 1) return clq_usage_error("give one path");
    if (clq_stats_is(argv[optind])) return info_of_stats(argv[optind], json, tensors);
    clq_source *s;
    clq_error err;
    if (clq_source_open(argv[optind], clq_cli_hooks(false), &s, &err) != CLQ_OK) return clq_report(&err);
    summary types[64];
    uint32_t n_types = summarize(s, types, 64);
    int code = 0;
    if (json) {
        code = print_json(s, types, n_types, tensors);
    } else {
        char text[160], size[32];
        const char *arch = clq_source_architecture(s);
        printf("%s%s%s, %u tensor%s\n", containers[clq_source_container(s)], *arch ? ", " : "",
               clq_safe_text(arch, text, sizeof text), clq_source_count(s), CLQ_PLURAL(clq_source_count(s)));
        for (uint32_t i = 0; i < n_types; i++)
            printf("  %-12s %6u %-7s %15llu %-8s  %s\n", types[i].type, types[i].n_tensors,
                   types[i].n_tensors == 1 ? "tensor" : "tensors", (unsigned long long)types[i].n_elements,
                   types[i].n_elements == 1 ? "element" : "elements", clq_size_text(types[i].n_bytes, size));
        for (uint32_t i = 0; tensors && i < clq_source_count(s); i++) {
            clq_tensor_info t;
            char name[256], activation[64];
            clq_source_tensor(s, i, &t, NULL);
            clq_activation_text(&t.activation, activation);
            printf("%-12s %-24s %s%s%s\n", t.type, clq_shape_text(t.dims, t.n_dims, text),
                   clq_safe_text(t.name, name, sizeof name), *activation ? "  # int8 activations: " : "", activation);
        }
    }
    clq_source_close(s);
    return code;
}

// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/quantize.h"

static const uint64_t MAX_LIST_BYTES = 64 << 20;

enum {
    TYPE = 1, TENSOR_TYPE, TENSOR_TYPE_FILE, PURE, TOKEN_EMBEDDING, OUTPUT_TENSOR, LEAVE_OUTPUT, OVERRIDE_KV, IMATRIX,
    INCLUDE, EXCLUDE, KEEP_SPLIT, SPLIT_SIZE, SPLIT_TENSORS, NO_FALLBACK, DRY_RUN, DEVICE, MAX_MEM, THREADS, RESUME,
    QUIET, JSON
};
static const struct option long_options[] = {
    {"type", required_argument, NULL, TYPE},
    {"tensor-type", required_argument, NULL, TENSOR_TYPE},
    {"tensor-type-file", required_argument, NULL, TENSOR_TYPE_FILE},
    {"pure", no_argument, NULL, PURE},
    {"token-embedding-type", required_argument, NULL, TOKEN_EMBEDDING},
    {"output-tensor-type", required_argument, NULL, OUTPUT_TENSOR},
    {"leave-output-tensor", no_argument, NULL, LEAVE_OUTPUT},
    {"override-kv", required_argument, NULL, OVERRIDE_KV},
    {"imatrix", required_argument, NULL, IMATRIX},
    {"include-weights", required_argument, NULL, INCLUDE},
    {"exclude-weights", required_argument, NULL, EXCLUDE},
    {"keep-split", no_argument, NULL, KEEP_SPLIT},
    {"split-max-size", required_argument, NULL, SPLIT_SIZE},
    {"split-max-tensors", required_argument, NULL, SPLIT_TENSORS},
    {"no-fallback", no_argument, NULL, NO_FALLBACK},
    {"dry-run", no_argument, NULL, DRY_RUN},
    {"device", required_argument, NULL, DEVICE},
    {"max-mem", required_argument, NULL, MAX_MEM},
    {"threads", required_argument, NULL, THREADS},
    {"resume", no_argument, NULL, RESUME},
    {"quiet", no_argument, NULL, QUIET},
    {"json", no_argument, NULL, JSON},
    {0},
};

// The array of n elements with one more, zeroed; NULL: no memory, the array is as it was.
static void *grow(void *array, uint32_t n, size_t size)
{
    char *grown = realloc(array, (n + 1) * size);
    if (grown) memset(grown + n * size, 0, size);
    return grown;
}

static int read_type(const char *text, clq_type *type)
{
    clq_error err;
    return clq_type_parse(text, type, &err) == CLQ_OK ? 0 : clq_report(&err);
}

// "REGEX=TYPE"; the last '=' parts them.
static int add_rule(clq_request *r, const char *text)
{
    const char *equals = strrchr(text, '=');
    if (!equals || equals == text) return clq_usage_error("--tensor-type wants REGEX=TYPE, not '%s'", text);
    clq_rule *rules = grow(r->rules, r->o.n_rules, sizeof *rules);
    if (!rules) return clq_usage_error("out of memory");
    r->rules = rules;
    clq_rule *rule = &rules[r->o.n_rules];
    int code = read_type(equals + 1, &rule->type);
    if (code) return code;
    rule->pattern = strndup(text, (size_t)(equals - text));
    if (!rule->pattern) return clq_usage_error("out of memory");
    r->o.n_rules++;
    return 0;
}

// Rules parted by white space; from a '#' at a rule's begin to the line's end is a comment.
static int add_rules_of_text(clq_request *r, char *text)
{
    int code = 0;
    while (!code) {
        while (isspace((unsigned char)*text)) text++;
        if (!*text) break;
        char *end = text + (*text == '#' ? strcspn(text, "\n") : strcspn(text, " \t\r\n\v\f"));
        bool comment = *text == '#', last = !*end;
        *end = '\0';
        if (!comment) code = add_rule(r, text);
        text = last ? end : end + 1;
    }
    return code;
}

static int add_rules_of_file(clq_request *r, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return clq_usage_error("cannot open '%s': %s", path, strerror(errno));
    char *text = NULL;
    size_t len = 0, got = 0;
    do {
        char *grown = realloc(text, len + (1 << 16) + 1);
        if (!grown) break;
        text = grown;
        got = fread(text + len, 1, 1 << 16, f);
        len += got;
    } while (got && len <= MAX_LIST_BYTES);
    bool good = text && !ferror(f) && len <= MAX_LIST_BYTES;
    fclose(f);
    if (good) text[len] = '\0';
    int code = !good                ? clq_usage_error("cannot read '%s'", path)
               : strlen(text) < len ? clq_usage_error("'%s' is not a text file", path)
                                    : add_rules_of_text(r, text);
    free(text);
    return code;
}

static int read_override_value(clq_override *o, const char *kind, size_t kind_len, const char *value)
{
    char *end;
    errno = 0;
    if (kind_len == 3 && strncmp(kind, "int", 3) == 0) {
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno || v < 0 || v > UINT32_MAX)
            return clq_usage_error("--override-kv: '%s' is not an integer from 0 to 4294967295", value);
        o->kind = CLQ_OVERRIDE_INT;
        o->integer = (uint32_t)v;
    } else if (kind_len == 5 && strncmp(kind, "float", 5) == 0) {
        double v = strtod(value, &end);
        if (end == value || *end || !isfinite((float)v))
            return clq_usage_error("--override-kv: '%s' is not a float", value);
        o->kind = CLQ_OVERRIDE_FLOAT;
        o->number = (float)v;
    } else if (kind_len == 4 && strncmp(kind, "bool", 4) == 0) {
        o->truth = strcmp(value, "true") == 0;
        if (!o->truth && strcmp(value, "false") != 0)
            return clq_usage_error("--override-kv: '%s' is neither true nor false", value);
        o->kind = CLQ_OVERRIDE_BOOL;
    } else if (kind_len == 3 && strncmp(kind, "str", 3) == 0) {
        o->kind = CLQ_OVERRIDE_STRING;
        o->text = strdup(value);
        if (!o->text) return clq_usage_error("out of memory");
    } else {
        return clq_usage_error("--override-kv: the type '%.*s' is none of int, float, bool, str", (int)kind_len, kind);
    }
    return 0;
}

// "KEY=TYPE:VALUE"
static int add_override(clq_request *r, const char *text)
{
    const char *equals = strchr(text, '='), *colon = equals ? strchr(equals, ':') : NULL;
    if (!colon || equals == text) return clq_usage_error("--override-kv wants KEY=TYPE:VALUE, not '%s'", text);
    clq_override *all = grow(r->overrides, r->o.n_overrides, sizeof *all);
    if (!all) return clq_usage_error("out of memory");
    r->overrides = all;
    clq_override *o = &all[r->o.n_overrides];
    o->key = strndup(text, (size_t)(equals - text));
    if (!o->key) return clq_usage_error("out of memory");
    r->o.n_overrides++;
    return read_override_value(o, equals + 1, (size_t)(colon - equals - 1), colon + 1);
}

static int add_string(clq_strings *list, const char *option, const char *text)
{
    if (!*text) return clq_usage_error("%s wants a part of a tensor name", option);
    const char **items = grow(list->items, list->n, sizeof *items);
    if (!items) return clq_usage_error("out of memory");
    list->items = items;
    items[list->n] = strdup(text);
    if (!items[list->n]) return clq_usage_error("out of memory");
    list->n++;
    return 0;
}

static int read_size(const char *option, uint64_t *n_bytes)
{
    if (clq_parse_size(optarg, n_bytes) && *n_bytes) return 0;
    return clq_usage_error("%s wants a size, not '%s'", option, optarg);
}

static int read_tensor_count(uint32_t *n)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(optarg, &end, 10);
    if (end == optarg || *end || errno || *optarg == '-' || v == 0 || v > UINT32_MAX)
        return clq_usage_error("--split-max-tensors wants a number of tensors, not '%s'", optarg);
    *n = (uint32_t)v;
    return 0;
}

static int read_option(int c, char **argv, clq_request *r)
{
    switch (c) {
    case TYPE: r->type = optarg; return 0;
    case TENSOR_TYPE: return add_rule(r, optarg);
    case TENSOR_TYPE_FILE: return add_rules_of_file(r, optarg);
    case PURE: r->o.pure = true; return 0;
    case TOKEN_EMBEDDING: r->o.token_embedding = &r->token_embedding; return read_type(optarg, &r->token_embedding);
    case OUTPUT_TENSOR: r->o.output_tensor = &r->output_tensor; return read_type(optarg, &r->output_tensor);
    case LEAVE_OUTPUT: r->o.leave_output_tensor = true; return 0;
    case OVERRIDE_KV: return add_override(r, optarg);
    case IMATRIX: r->o.imatrix = optarg; return 0;
    case INCLUDE: return add_string(&r->include, "--include-weights", optarg);
    case EXCLUDE: return add_string(&r->exclude, "--exclude-weights", optarg);
    case KEEP_SPLIT: r->o.keep_split = true; return 0;
    case SPLIT_SIZE: return read_size("--split-max-size", &r->o.split_max_bytes);
    case SPLIT_TENSORS: return read_tensor_count(&r->o.split_max_tensors);
    case NO_FALLBACK: r->o.no_fallback = true; return 0;
    case DRY_RUN: r->dry_run = true; return 0;
    case DEVICE: r->device = optarg; return 0;
    case MAX_MEM: return read_size("--max-mem", &r->o.max_memory);
    case THREADS:
        if (clq_parse_count(optarg, &r->o.threads)) return 0;
        return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    case RESUME: r->o.resume = true; return 0;
    case QUIET: r->quiet = true; return 0;
    case JSON: r->json = true; return 0;
    default: return clq_wrong_option(argv);
    }
}

// A mix where the name is one and the output can be one, else a type.
static int read_main_type(clq_request *r, bool convert)
{
    const clq_mix *mix = convert ? NULL : clq_mix_find(r->type);
    if (!mix) return read_type(r->type, &r->o.type);
    r->o.mix = mix;
    r->o.type = (clq_type){.format = mix->base, .scale_format = CLQ_F32};
    return 0;
}

// Options that convert does not know.
static int check_convert(const clq_request *r)
{
    const clq_quantize_options *o = &r->o;
    if (o->type.format == CLQ_INT || o->type.format > CLQ_BF16)
        return clq_usage_error("convert writes f32, f16 or bf16; `clquant quantize` makes %s", r->type);
    if (o->pure || o->token_embedding || o->output_tensor || o->leave_output_tensor || o->imatrix || r->include.n ||
        r->exclude.n)
        return clq_usage_error(
            "--pure, --token-embedding-type, --output-tensor-type, --leave-output-tensor, --imatrix and its "
            "weights are options of `clquant quantize`");
    return 0;
}

int clq_request_read(int argc, char **argv, bool convert, clq_request *r)
{
    int c, code = 0;
    *r = (clq_request){.o.convert = convert};
    while (!code && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1) code = read_option(c, argv, r);
    if (code) return code;
    if (argc - optind != 2) return clq_usage_error("give an input and an output");
    r->in = argv[optind];
    r->out = argv[optind + 1];
    r->o.rules = r->rules;
    r->o.overrides = r->overrides;
    r->o.include_weights = r->include.items;
    r->o.n_include_weights = r->include.n;
    r->o.exclude_weights = r->exclude.items;
    r->o.n_exclude_weights = r->exclude.n;
    if (!r->type) return clq_usage_error("--type is missing");
    code = read_main_type(r, convert);
    return code || !convert ? code : check_convert(r);
}

static void free_strings(clq_strings *list)
{
    for (uint32_t i = 0; i < list->n; i++) free((char *)list->items[i]);
    free(list->items);
}

void clq_request_free(clq_request *r)
{
    for (uint32_t i = 0; i < r->o.n_rules; i++) free((char *)r->rules[i].pattern);
    for (uint32_t i = 0; i < r->o.n_overrides; i++) {
        free((char *)r->overrides[i].key);
        free((char *)r->overrides[i].text);
    }
    free_strings(&r->include);
    free_strings(&r->exclude);
    free(r->rules);
    free(r->overrides);
}

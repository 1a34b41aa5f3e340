// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "cli/model.h"
#include "cli/quantize.h"

static const uint64_t MAX_LIST_BYTES = 64 << 20;

enum {
    TYPE = 1, TENSOR_TYPE, TENSOR_TYPE_FILE, PURE, TOKEN_EMBEDDING, OUTPUT_TENSOR, LEAVE_OUTPUT, OVERRIDE_KV, IMATRIX,
    INCLUDE, EXCLUDE, KEEP_SPLIT, SPLIT_SIZE, SPLIT_TENSORS, NO_FALLBACK, DRY_RUN, DEVICE, MAX_MEM, THREADS, RESUME,
    QUIET, JSON, CONTAINER, ACTIVATIONS, ASYMMETRIC, STATS, OBSERVER, METHOD, CALIB, CALIB_JSONL, CALIB_TOKENS, CONTEXT,
    CHUNKS, SEARCH_TOKENS, SCALES, NO_CLIP, ALPHA, DAMP, KEEP_ORDER, SEARCH_TYPE
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
    {"container", required_argument, NULL, CONTAINER},
    {"activations", required_argument, NULL, ACTIVATIONS},
    {"asymmetric-activations", no_argument, NULL, ASYMMETRIC},
    {"stats", required_argument, NULL, STATS},
    {"observer", required_argument, NULL, OBSERVER},
    {"method", required_argument, NULL, METHOD},
    {"calib", required_argument, NULL, CALIB},
    {"calib-jsonl", required_argument, NULL, CALIB_JSONL},
    {"calib-tokens", required_argument, NULL, CALIB_TOKENS},
    {"ctx", required_argument, NULL, CONTEXT},
    {"chunks", required_argument, NULL, CHUNKS},
    {"search-tokens", required_argument, NULL, SEARCH_TOKENS},
    {"scales", required_argument, NULL, SCALES},
    {"no-clip", no_argument, NULL, NO_CLIP},
    {"alpha", required_argument, NULL, ALPHA},
    {"damp", required_argument, NULL, DAMP},
    {"keep-order", no_argument, NULL, KEEP_ORDER},
    {"search-type", required_argument, NULL, SEARCH_TYPE},
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

static int read_type(const char *option, const char *text, clq_type *type)
{
    clq_error err;
    if (clq_parse_type(text, type, &err) == CLQ_OK) return 0;
    return clq_usage_error("%s: %s", option, err.text);
}

// "REGEX=TYPE"; the last '=' parts them. `where`: what the rule stands in, for messages.
static int add_rule(clq_request *r, const char *where, const char *text)
{
    const char *equals = strrchr(text, '=');
    if (!equals || equals == text) return clq_usage_error("%s wants REGEX=TYPE, not '%s'", where, text);
    clq_rule *rules = grow(r->rules, r->o.n_rules, sizeof *rules);
    if (!rules) return clq_usage_error("out of memory");
    r->rules = rules;
    clq_rule *rule = &rules[r->o.n_rules];
    clq_error err;
    if (clq_parse_type(equals + 1, &rule->type, &err) != CLQ_OK)
        return clq_usage_error("%s '%s': %s", where, text, err.text);
    rule->pattern = strndup(text, (size_t)(equals - text));
    if (!rule->pattern) return clq_usage_error("out of memory");
    r->o.n_rules++;
    return 0;
}

// Rules parted by white space; from a '#' at a rule's begin to the line's end is a comment.
static int add_rules_of_text(clq_request *r, const char *path, char *text)
{
    int code = 0;
    unsigned line = 1;
    char where[400];
    while (!code) {
        for (; isspace((unsigned char)*text); text++) line += *text == '\n';
        if (!*text) break;
        char *end = text + (*text == '#' ? strcspn(text, "\n") : strcspn(text, " \t\r\n\v\f")), stop = *end;
        bool comment = *text == '#';
        *end = '\0';
        snprintf(where, sizeof where, "'%.300s', line %u:", path, line);
        if (!comment) code = add_rule(r, where, text);
        *end = stop;
        text = end;
    }
    return code;
}

static int bad_file(const char *what, const char *path, int errno_value)
{
    clq_error err;
    if (errno_value)
        clq_fail_errno(&err, CLQ_BAD_INPUT, errno_value, "--tensor-type-file: %s '%s'", what, path);
    else
        clq_fail(&err, CLQ_BAD_INPUT, "--tensor-type-file: %s '%s'", what, path);
    return clq_report(&err);
}

static int add_rules_of_file(clq_request *r, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return bad_file("cannot open", path, errno);
    char *text = NULL;
    size_t len = 0, got = 0;
    do {
        char *grown = realloc(text, len + (1 << 16) + 1);
        if (!grown) break;
        text = grown;
        got = fread(text + len, 1, 1 << 16, f);
        len += got;
    } while (got && len <= MAX_LIST_BYTES);
    int why = !text ? ENOMEM : ferror(f) ? errno : len > MAX_LIST_BYTES ? EFBIG : 0;
    fclose(f);
    if (!why) text[len] = '\0';
    int code = why                  ? bad_file("cannot read", path, why)
               : strlen(text) < len ? bad_file("not a text file:", path, 0)
                                    : add_rules_of_text(r, path, text);
    free(text);
    return code;
}

static int read_override_value(clq_override *o, const char *kind, size_t kind_len, const char *value)
{
    char *end;
    bool blank = isspace((unsigned char)*value); // which strtoll() and strtod() pass over
    errno = 0;
    if (kind_len == 3 && strncmp(kind, "int", 3) == 0) {
        long long v = strtoll(value, &end, 10);
        if (blank || end == value || *end || errno || v < 0 || v > UINT32_MAX)
            return clq_usage_error("--override-kv: '%s' is not an integer from 0 to 4294967295", value);
        o->kind = CLQ_OVERRIDE_INT;
        o->integer = (uint32_t)v;
    } else if (kind_len == 5 && strncmp(kind, "float", 5) == 0) {
        double v = strtod(value, &end);
        if (blank || end == value || *end || !isfinite((float)v))
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
    if (end == optarg || *end || errno || !isdigit((unsigned char)*optarg) || v == 0 || v > UINT32_MAX)
        return clq_usage_error("--split-max-tensors wants a number of tensors, not '%s'", optarg);
    *n = (uint32_t)v;
    return 0;
}

static int read_activations(clq_request *r)
{
    r->o.activations = &r->activations;
    for (int k = CLQ_ACTIVATIONS_NONE; k <= CLQ_ACTIVATIONS_AUTO; k++) {
        r->activations = (clq_activations)k;
        if (strcmp(optarg, clq_activations_name(r->activations)) == 0) return 0;
    }
    return clq_usage_error("--activations wants none, token, tensor, static or auto, not '%s'", optarg);
}

static int read_container(clq_layout *layout)
{
    for (int k = CLQ_LAYOUT_GGUF; k <= CLQ_LAYOUT_GPTQ_V2; k++) {
        *layout = (clq_layout)k;
        if (strcmp(optarg, clq_layout_name(*layout)) == 0) return 0;
    }
    return clq_usage_error("--container wants gguf, compressed-tensors, awq, gptq or gptq-v2, not '%s'", optarg);
}

static int read_method(clq_request *r)
{
    if (clq_method_find(optarg, &r->method.method)) return 0;
    return clq_usage_error("--method wants rtn, awq, smoothquant, gptq or hqq, not '%s'", optarg);
}

static int read_scales(clq_request *r)
{
    static const char *const names[] = {
        [CLQ_SCALES_BY_RANGE] = "absmax", [CLQ_SCALES_BY_SEARCH] = "search", [CLQ_SCALES_BY_CLIP] = "clip"};
    for (int i = CLQ_SCALES_BY_RANGE; i <= CLQ_SCALES_BY_CLIP; i++) {
        r->method.scales = (clq_scale_rule)i;
        if (strcmp(optarg, names[i]) == 0) return 0;
    }
    return clq_usage_error("--scales wants absmax, search or clip, not '%s'", optarg);
}

static int read_calibration(clq_request *r, clq_text_kind kind)
{
    if (r->calib) return clq_usage_error("--calib, --calib-jsonl and --calib-tokens exclude each other, and each can be "
                                         "given once");
    r->calib = optarg;
    r->method.text_kind = kind;
    return 0;
}

static int read_part(const char *option, float *value)
{
    char *end;
    errno = 0;
    double v = strtod(optarg, &end);
    *value = (float)v;
    if (end != optarg && !*end && !errno && v >= 0 && v <= 1 && !isspace((unsigned char)*optarg)) return 0;
    return clq_usage_error("%s wants a number from 0 to 1, not '%s'", option, optarg);
}

static int read_alpha(clq_request *r)
{
    r->alpha_given = true;
    if (strcmp(optarg, "search") != 0) return read_part("--alpha", &r->method.alpha);
    r->method.alpha = -1;
    return 0;
}

static int read_number(const char *option, uint32_t least, uint32_t *value)
{
    if (clq_parse_u32(optarg, least, 1 << 24, value)) return 0;
    return clq_usage_error("%s wants a number from %u on, not '%s'", option, least, optarg);
}

static int read_search_type(clq_request *r)
{
    r->method.search_type = &r->search_type;
    int code = read_type("--search-type", optarg, &r->search_type);
    if (code || r->search_type.format == CLQ_INT) return code;
    return clq_usage_error("--search-type wants an integer type (i4_asym_g64 ...), not '%s'", optarg);
}

// Options about methods. false: it is none.
static bool read_method_option(int c, clq_request *r, int *code)
{
    r->method_given = r->method_given || c == METHOD;
    const char *before = r->method_option;
    r->method_option = "option";
    switch (c) {
    case METHOD: *code = read_method(r); break;
    case CALIB: *code = read_calibration(r, CLQ_TEXT_PLAIN); break;
    case CALIB_JSONL: *code = read_calibration(r, CLQ_TEXT_JSONL); break;
    case CALIB_TOKENS: *code = read_calibration(r, CLQ_TEXT_TOKENS); break;
    case CONTEXT: *code = read_number("--ctx", 4, &r->method.context); break;
    case CHUNKS: *code = read_number("--chunks", 1, &r->method.windows); break;
    case SEARCH_TOKENS: *code = read_number("--search-tokens", 1, &r->method.search_tokens); break;
    case SCALES: *code = read_scales(r); break;
    case NO_CLIP:
        r->method.scales = CLQ_SCALES_BY_RANGE;
        *code = 0;
        break;
    case ALPHA: *code = read_alpha(r); break;
    case DAMP: *code = read_part("--damp", &r->method.damp); break;
    case KEEP_ORDER:
        r->method.keep_order = true;
        *code = 0;
        break;
    case SEARCH_TYPE: *code = read_search_type(r); break;
    default: r->method_option = before; return false;
    }
    for (const struct option *o = long_options; o->name; o++)
        if (o->val == c) r->method_option = c == METHOD || c == SCALES ? before : o->name;
    return true;
}

static int read_device(const char **device)
{
    if (!*optarg) return clq_usage_error("--device wants an index, a part of a name, cpu, gpu or ref");
    *device = optarg;
    return 0;
}

// An option that could not be read: an abbreviation of several is one of getopt_long()'s unknown ones.
static int wrong_option(char **argv)
{
    const char *given = argv[optind - 1], *first = NULL;
    size_t len = strcspn(given, "=");
    for (const struct option *o = long_options; !optopt && len > 2 && o->name; o++) {
        if (strncmp(given + 2, o->name, len - 2) != 0) continue;
        if (first) return clq_usage_error("option '%s' is ambiguous: --%s or --%s", given, first, o->name);
        first = o->name;
    }
    return clq_wrong_option(argv);
}

static int read_option(int c, char **argv, clq_request *r)
{
    int code;
    if (read_method_option(c, r, &code)) return code;
    switch (c) {
    case TYPE: r->type = optarg; return 0;
    case TENSOR_TYPE: return add_rule(r, "--tensor-type", optarg);
    case TENSOR_TYPE_FILE: return add_rules_of_file(r, optarg);
    case PURE: r->o.pure = true; return 0;
    case TOKEN_EMBEDDING:
        r->o.token_embedding = &r->token_embedding;
        return read_type("--token-embedding-type", optarg, &r->token_embedding);
    case OUTPUT_TENSOR:
        r->o.output_tensor = &r->output_tensor;
        return read_type("--output-tensor-type", optarg, &r->output_tensor);
    case LEAVE_OUTPUT: r->o.leave_output_tensor = true; return 0;
    case OVERRIDE_KV: return add_override(r, optarg);
    case IMATRIX: r->o.imatrix = optarg; return 0;
    case CONTAINER: return read_container(&r->o.layout);
    case ACTIVATIONS: return read_activations(r);
    case ASYMMETRIC: r->o.activations_asymmetric = true; return 0;
    case STATS: r->o.statistics = optarg; return 0;
    case OBSERVER: r->o.observer = optarg; return 0;
    case INCLUDE: return add_string(&r->include, "--include-weights", optarg);
    case EXCLUDE: return add_string(&r->exclude, "--exclude-weights", optarg);
    case KEEP_SPLIT: r->o.keep_split = true; return 0;
    case SPLIT_SIZE: return read_size("--split-max-size", &r->o.split_max_bytes);
    case SPLIT_TENSORS: return read_tensor_count(&r->o.split_max_tensors);
    case NO_FALLBACK: r->o.no_fallback = true; return 0;
    case DRY_RUN: r->dry_run = true; return 0;
    case DEVICE: return read_device(&r->device);
    case MAX_MEM: return read_size("--max-mem", &r->o.max_memory);
    case THREADS:
        if (clq_parse_count(optarg, &r->o.threads)) return 0;
        return clq_usage_error("--threads wants 1 to 1024, not '%s'", optarg);
    case RESUME: r->o.resume = true; return 0;
    case QUIET: r->quiet = true; return 0;
    case JSON: r->json = true; return 0;
    default: return wrong_option(argv);
    }
}

const clq_type_pair *clq_type_pair_find(const char *name)
{
    static const clq_type_pair pairs[] = {{"w8a8", "i8", CLQ_ACTIVATIONS_TOKEN},
                                          {"w8a8_static", "i8", CLQ_ACTIVATIONS_STATIC}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcasecmp(name, pairs[i].name) == 0) return &pairs[i];
    return NULL;
}

static int read_pair(clq_request *r, const clq_type_pair *pair)
{
    if (r->o.activations && r->activations != pair->activations)
        return clq_usage_error("--type %s stands for --type %s --activations %s; --activations %s contradicts it",
                               pair->name, pair->type, clq_activations_name(pair->activations),
                               clq_activations_name(r->activations));
    r->activations = pair->activations;
    r->o.activations = &r->activations;
    return read_type("--type", pair->type, &r->o.type);
}

// A mix where the name is one and the output can be one, else a type.
static int read_main_type(clq_request *r, bool convert)
{
    const clq_type_pair *pair = clq_type_pair_find(r->type);
    if (pair && !convert) return read_pair(r, pair);
    const clq_mix *mix = clq_mix_find(r->type);
    clq_error err;
    if (convert && mix && clq_type_parse(r->type, &r->o.type, &err) != CLQ_OK)
        return clq_usage_error("'%s' is a mix, not a type: convert writes f32, f16 or bf16; `clquant quantize` makes "
                               "mixes",
                               r->type);
    if (convert || !mix) return read_type("--type", r->type, &r->o.type);
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
    const char *option = o->pure                  ? "--pure"
                         : o->token_embedding     ? "--token-embedding-type"
                         : o->output_tensor       ? "--output-tensor-type"
                         : o->leave_output_tensor ? "--leave-output-tensor"
                         : o->imatrix             ? "--imatrix"
                         : o->activations         ? "--activations"
                         : o->activations_asymmetric ? "--asymmetric-activations"
                         : o->statistics          ? "--stats"
                         : o->observer            ? "--observer"
                         : r->include.n           ? "--include-weights"
                         : r->exclude.n           ? "--exclude-weights"
                                                  : NULL;
    return option ? clq_usage_error("%s is an option of `clquant quantize`, not of convert", option) : 0;
}

// Options of one method with another.
static int check_method_options(const clq_request *r)
{
    const struct {
        bool given;
        const char *option;
        clq_method_id method;
    } all[] = {{r->alpha_given, "--alpha", CLQ_METHOD_SMOOTHQUANT},
               {r->method.damp > 0, "--damp", CLQ_METHOD_GPTQ},
               {r->method.keep_order, "--keep-order", CLQ_METHOD_GPTQ},
               {r->method.search_type, "--search-type", CLQ_METHOD_AWQ}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].given && r->method.method != all[i].method)
            return clq_usage_error("%s is about --method %s, not %s", all[i].option, clq_method_at(all[i].method)->name,
                                   clq_method_at(r->method.method)->name);
    if (!r->calib && (r->method.context || r->method.windows || r->method.search_tokens))
        return clq_usage_error("--ctx, --chunks and --search-tokens are about the text of --calib, and there is none");
    return 0;
}

int clq_request_read(int argc, char **argv, bool convert, clq_request *r)
{
    int c, code = 0;
    *r = (clq_request){.o.convert = convert, .method.alpha = -1};
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
    r->o.keep_types = convert && !r->type && r->o.layout != CLQ_LAYOUT_DEFAULT;
    if (!r->type && !r->o.keep_types) return clq_usage_error("--type is missing");
    if (convert && (r->method_given || r->method_option || r->method.scales))
        return clq_usage_error("--method and what belongs to it are options of `clquant quantize`, not of convert");
    if (!r->method_given && r->method_option)
        return clq_usage_error("--%s is about a method, and none is given (--method awq ...)", r->method_option);
    if (r->method_given || r->method.scales) r->o.method = &r->method;
    if ((code = check_method_options(r)) != 0) return code;
    if (r->type) code = read_main_type(r, convert);
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

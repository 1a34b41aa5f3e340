// SPDX-License-Identifier: MIT
// What the commands that run a model share: their options, and opening source, device and model.
#ifndef CLQ_CLI_MODEL_H
#define CLQ_CLI_MODEL_H

#include "cli/cli.h"
#include "model/runtime.h"

typedef struct clq_model_request {
    const char *path, *device;
    clq_model_options o;
    uint32_t threads;
    bool quiet, json;
} clq_model_request;

// Rows of a getopt_long() table; a command's own values are below 1000.
enum {
    CLQ_OPT_CTX = 1000, CLQ_OPT_BATCH, CLQ_OPT_ACTIVATIONS, CLQ_OPT_CACHE_TYPE, CLQ_OPT_DEVICE, CLQ_OPT_THREADS,
    CLQ_OPT_MAX_MEM, CLQ_OPT_QUIET, CLQ_OPT_JSON
};
#define CLQ_MODEL_OPTIONS                                                                                              \
    {"ctx", required_argument, NULL, CLQ_OPT_CTX}, {"batch", required_argument, NULL, CLQ_OPT_BATCH},                  \
    {"activations", required_argument, NULL, CLQ_OPT_ACTIVATIONS},                                                     \
    {"cache-type", required_argument, NULL, CLQ_OPT_CACHE_TYPE}, {"device", required_argument, NULL, CLQ_OPT_DEVICE},  \
    {"threads", required_argument, NULL, CLQ_OPT_THREADS}, {"max-mem", required_argument, NULL, CLQ_OPT_MAX_MEM},      \
    {"quiet", no_argument, NULL, CLQ_OPT_QUIET}, {"json", no_argument, NULL, CLQ_OPT_JSON}
// What stands in a command's help.
#define CLQ_MODEL_OPTIONS_HELP                                                                                         \
    "  --batch N                tokens of one pass; default 512\n"                                                     \
    "  --cache-type T           of keys and values: f16 (default), f32 or q8_0\n"                                      \
    "  --device D               index, part of a name, cpu, gpu, or ref (no OpenCL); default: a GPU\n"                 \
    "  --threads N              host threads, and PoCL's\n"                                                            \
    "  --max-mem SIZE           of the device; layers that do not fit are loaded for each pass\n"                      \
    "  --quiet                  no progress, no warnings\n"                                                            \
    "  --json                   the result as JSON"

void clq_model_request_init(clq_model_request *r, clq_rounding activations);
// Takes an option that getopt_long() returned: 0, or the exit code after a message. Others than the ones above are
// wrong options.
int clq_model_option(clq_model_request *r, int option, char **argv);

typedef struct clq_loaded {
    clq_source *source;
    clq_device *device;
    clq_model *model;
    const clq_model_facts *facts;
    const clq_tokenizer *tokenizer;
    uint32_t threads; // of the host
} clq_loaded;

// Opens r->path with r->o. CLQ_OK, or what failed; then nothing is left open.
clq_status clq_load(clq_model_request *r, clq_hooks *hooks, clq_loaded *l, clq_error *err);
void clq_unload(clq_loaded *l);
// CLQ_OUTPUT where the path names one of the model's files.
clq_status clq_check_output(const clq_loaded *l, const char *path, clq_error *err);

// "clquant: NAME, llama, 135 million weights in 85.91 MiB on DEVICE" to standard error.
void clq_tell_model(const clq_loaded *l, const char *model_path);
// The same as members of a JSON object.
void clq_model_json(json_t *object, const clq_loaded *l, const clq_model_request *r);

// An unsigned number of [min, max]; false: none.
bool clq_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *v);
bool clq_parse_float(const char *text, float *v); // finite
// A whole text file ("-": standard input), at most CLQ_MAX_TEXT_BYTES. `what` names the option. free() it.
clq_status clq_read_text(const char *path, const char *what, char **text, size_t *len, clq_error *err);
// The tokens of a text as int32; free() them.
clq_status clq_cli_tokenize(const clq_tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **tokens,
                            uint32_t *n, clq_error *err);
double clq_rate(double n, double seconds); // n / seconds, 0 where seconds is 0

#endif

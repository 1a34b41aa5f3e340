// SPDX-License-Identifier: MIT
// What the commands share. Only this folder prints.
#ifndef CLQ_CLI_CLI_H
#define CLQ_CLI_CLI_H

#include <jansson.h>

#include "clquant.h"

typedef struct clq_command {
    const char *name;
    int (*run)(int argc, char **argv); // argv[0] is the command's name; returns the exit code
    const char *summary;
    const char *usage; // what stands behind "clquant NAME"
} clq_command;

int clq_cmd_devices(int argc, char **argv);
int clq_cmd_formats(int argc, char **argv);
int clq_cmd_methods(int argc, char **argv);
int clq_cmd_info(int argc, char **argv);
int clq_cmd_quantize(int argc, char **argv);
int clq_cmd_convert(int argc, char **argv);
int clq_cmd_verify(int argc, char **argv);
int clq_cmd_calibrate(int argc, char **argv);
int clq_cmd_perplexity(int argc, char **argv);
int clq_cmd_generate(int argc, char **argv);
int clq_cmd_embed(int argc, char **argv);
int clq_cmd_tokenize(int argc, char **argv);
int clq_cmd_bench(int argc, char **argv);
int clq_cmd_tune(int argc, char **argv);

// Prints "clquant: text" to standard error and returns the exit code.
int clq_report(const clq_error *err);
int clq_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
// After getopt_long returned '?'.
int clq_wrong_option(char **argv);
// Puts a progress line, cut to the terminal's width, in place of the one that stands there. NULL: none. Messages clear
// it.
void clq_show_line(const char *text);
// The hooks of this process: warnings to standard error, SIGINT and SIGTERM cancel.
clq_hooks *clq_cli_hooks(bool quiet);

// "512M", "1.5G", "100000"; false: not a size.
bool clq_parse_size(const char *text, uint64_t *n_bytes);
bool clq_parse_count(const char *text, uint32_t *n);
// clq_type_parse() that explains what else a name may be.
clq_status clq_parse_type(const char *text, clq_type *type, clq_error *err);
// "1.50 GiB" in a buffer of at least 32 bytes.
const char *clq_size_text(uint64_t n_bytes, char text[32]);
// "[30522, 384]"
const char *clq_shape_text(const uint64_t *dims, uint32_t n_dims, char text[160]);
// "token", "static, scale 0.0217, zero-point -3"; "" for none.
const char *clq_activation_text(const clq_activation_info *a, char text[64]);
// A name as it may be printed: control bytes become '?'.
const char *clq_safe_text(const char *name, char *text, size_t size);

// Prints and frees.
int clq_print_json(json_t *json);
// A string that need not be UTF-8: bad bytes become U+FFFD.
json_t *clq_cli_text(const char *text);
json_t *clq_json_real(double v); // null for values that JSON has no word for
json_t *clq_json_dims(const uint64_t *dims, uint32_t n_dims);
json_t *clq_json_activation(const clq_activation_info *a); // null for none

#endif

// SPDX-License-Identifier: MIT
// The command line of quantize and convert, taken apart.
#ifndef CLQ_CLI_QUANTIZE_H
#define CLQ_CLI_QUANTIZE_H

#include "cli/cli.h"

typedef struct clq_strings {
    const char **items; // each owned
    uint32_t n;
} clq_strings;

typedef struct clq_request {
    const char *in, *out, *device, *type;
    clq_quantize_options o; // leads to the members below
    clq_rule *rules;        // patterns owned
    clq_override *overrides; // keys and texts owned
    clq_type token_embedding, output_tensor;
    clq_activations activations;
    clq_strings include, exclude;
    clq_method_options method;
    clq_type search_type;
    const char *calib;         // the calibration text's file
    bool method_given, alpha_given;
    const char *method_option; // some option that is about one
    bool dry_run, quiet, json;
} clq_request;

// A name for a type of weights and activations together.
typedef struct clq_type_pair {
    const char *name, *type;
    clq_activations activations;
} clq_type_pair;

const clq_type_pair *clq_type_pair_find(const char *name); // in any case; NULL: no such pair

// The exit code, 0 to go on. What was wrong has been printed. To be freed either way.
int clq_request_read(int argc, char **argv, bool convert, clq_request *r);
void clq_request_free(clq_request *r);

#endif

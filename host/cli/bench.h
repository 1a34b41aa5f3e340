// SPDX-License-Identifier: MIT
// The two kinds of `clquant bench`.
#ifndef CLQ_CLI_BENCH_H
#define CLQ_CLI_BENCH_H

#include <stdbool.h>

// Whether a model is among the arguments.
bool clq_bench_has_model(int argc, char **argv);
int clq_bench_model(int argc, char **argv);

// bench --products (bench_products.c): a table of the types; returns the exit code.
int clq_bench_products(clq_device *device, const char *const *names, uint32_t n, bool json);

#endif

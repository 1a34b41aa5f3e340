// SPDX-License-Identifier: MIT
// The two kinds of `clquant bench`.
#ifndef CLQ_CLI_BENCH_H
#define CLQ_CLI_BENCH_H

#include <stdbool.h>

// Whether a model is among the arguments.
bool clq_bench_has_model(int argc, char **argv);
int clq_bench_model(int argc, char **argv);

#endif

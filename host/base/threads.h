// SPDX-License-Identifier: MIT
#ifndef CLQ_BASE_THREADS_H
#define CLQ_BASE_THREADS_H

#include <stdint.h>

// Processors that this process may use: its affinity mask, and the cgroup's CPU quota.
uint32_t clq_threads_allowed(void);

// Calls fn(ctx, begin, end) on disjoint ranges that cover [0, n), on up to `threads` threads (the
// caller's among them). Ranges are multiples of `grain` long, so results never depend on threads.
void clq_parallel(uint32_t threads, uint64_t n, uint64_t grain,
                  void (*fn)(void *ctx, uint64_t begin, uint64_t end), void *ctx);

// Seconds of a clock that never runs backwards.
double clq_seconds(void);

#endif

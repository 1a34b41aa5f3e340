// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "base/checked.h"

enum { MAX_THREADS = 256 };

// cgroup v2 "max" or "<quota> <period>"; 0 when there is no limit.
static uint32_t cgroup_quota(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    long long quota = 0, period = 0;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    return (uint32_t)((quota + period - 1) / period);
}

uint32_t clq_threads_allowed(void)
{
    cpu_set_t set;
    uint32_t n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = (uint32_t)CPU_COUNT(&set);
    uint32_t quota = cgroup_quota();
    if (quota && quota < n) n = quota;
    if (n > MAX_THREADS) n = MAX_THREADS;
    return n ? n : 1;
}

typedef struct {
    atomic_ullong next;
    uint64_t n, grain;
    void (*fn)(void *ctx, uint64_t begin, uint64_t end);
    void *ctx;
} work;

static void *worker(void *arg)
{
    work *w = arg;
    for (;;) {
        uint64_t begin = atomic_fetch_add(&w->next, w->grain);
        if (begin >= w->n) return NULL;
        uint64_t end = w->n - begin < w->grain ? w->n : begin + w->grain;
        w->fn(w->ctx, begin, end);
    }
}

void clq_parallel(uint32_t threads, uint64_t n, uint64_t grain,
                  void (*fn)(void *ctx, uint64_t begin, uint64_t end), void *ctx)
{
    if (n == 0) return;
    if (grain == 0) grain = 1;
    uint64_t pieces = clq_div_up(n, grain);
    if (threads > pieces) threads = (uint32_t)pieces;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    work w = {.n = n, .grain = grain, .fn = fn, .ctx = ctx};
    pthread_t ids[MAX_THREADS];
    uint32_t started = 0;
    for (uint32_t i = 1; i < threads; i++)
        if (pthread_create(&ids[started], NULL, worker, &w) == 0) started++;
    worker(&w);
    for (uint32_t i = 0; i < started; i++) pthread_join(ids[i], NULL);
}

double clq_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

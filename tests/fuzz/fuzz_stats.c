// SPDX-License-Identifier: MIT
// The reader of statistics and of checkpoints, and what is made of them: scales, importance matrices.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/importance.h"
#include "calib/stats_file.h"
#include "fuzz.h"

// What the reader promises about every site.
static void check_site(const clq_stats_file *f, const clq_stat_site *s)
{
    if (!s->n_weights || strcmp(s->name, s->weights[0]) != 0 || !s->cols || !s->n_matrices) abort();
    for (uint32_t i = 0; i < s->n_weights; i++)
        if (clq_stats_find(f, s->weights[i]) != s) abort();
    for (uint64_t i = 0; i < (uint64_t)s->n_matrices * CLQ_N_OBSERVERS; i++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            float scale;
            int32_t zero;
            clq_range_scale(&s->ranges[i], symmetric, &scale, &zero);
            if (!(scale > 0) || !isfinite(scale) || zero < -128 || zero > 127) abort();
        }
    for (uint64_t i = 0; i < (uint64_t)s->n_matrices * s->cols; i++)
        if (!isfinite(s->sum[i]) || !(s->sum_sq[i] >= 0) || !(s->min[i] <= s->max[i])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    const char *path = clq_fuzz_file(data, size, &fd);
    clq_stats_file *f;
    clq_stats_opened o;
    clq_imatrix *m;
    clq_error err;
    if (clq_stats_open(path, &f, &err) == CLQ_OK) {
        if (!f->n_sites || !f->dataset || !f->architecture || !clq_stats_is(path)) abort();
        for (uint32_t i = 0; i < f->n_sites; i++) check_site(f, &f->sites[i]);
        if (clq_stats_imatrix(f, path, &m, &err) != CLQ_OK) abort();
        clq_imatrix_free(m);
        clq_stats_free(f);
    }
    if (clq_stats_open_as(path, CLQ_CHECKPOINT_FORMAT, &o, &err) == CLQ_OK) {
        for (uint32_t i = 0; i < o.stats->n_sites; i++) check_site(o.stats, &o.stats->sites[i]);
        clq_stats_close(&o);
    }
    close(fd);
    return 0;
}

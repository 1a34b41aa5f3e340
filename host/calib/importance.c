// SPDX-License-Identifier: MIT
#include "calib/importance.h"

#include <stdlib.h>
#include <string.h>

#include "io/imatrix_write.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const clq_imatrix_sums *)a)->name, ((const clq_imatrix_sums *)b)->name);
}

// One for each weight, sorted by name; borrowed from the statistics. free() the list.
static clq_status list_weights(const clq_stats_file *stats, clq_imatrix_sums **list, uint32_t *n, clq_error *err)
{
    uint64_t most = 0;
    *n = 0;
    for (uint32_t i = 0; i < stats->n_sites; i++) most += stats->sites[i].n_weights;
    *list = malloc((most + 1) * sizeof **list);
    if (!*list) return clq_fail_memory(err, most * sizeof **list);
    for (uint32_t i = 0; i < stats->n_sites; i++) {
        const clq_stat_site *s = &stats->sites[i];
        for (uint32_t k = 0; k < s->n_weights; k++)
            (*list)[(*n)++] = (clq_imatrix_sums){.name = s->weights[k],
                                                 .squares = s->sum_sq,
                                                 .tokens = s->tokens,
                                                 .n_matrices = s->n_matrices,
                                                 .cols = s->cols};
    }
    qsort(*list, *n, sizeof **list, by_name);
    return CLQ_OK;
}

// Matrices that no token reached count alike in all columns.
static clq_status make_entry(clq_imatrix_entry *e, const clq_imatrix_sums *w, clq_error *err)
{
    e->n = (uint64_t)w->n_matrices * w->cols;
    e->name = strdup(w->name);
    e->values = malloc(e->n * sizeof *e->values);
    if (!e->name || !e->values) return clq_fail_memory(err, e->n * sizeof *e->values);
    for (uint32_t m = 0; m < w->n_matrices; m++) {
        float tokens = (float)w->tokens[m];
        e->n_neutral += w->tokens[m] == 0;
        for (uint64_t i = (uint64_t)m * w->cols; i < (uint64_t)(m + 1) * w->cols; i++)
            e->values[i] = w->tokens[m] ? w->squares[i] / tokens : 1;
    }
    return CLQ_OK;
}

clq_status clq_stats_imatrix(const clq_stats_file *stats, const char *path, clq_imatrix **imatrix, clq_error *err)
{
    clq_imatrix_sums *list;
    uint32_t n;
    *imatrix = NULL;
    CLQ_TRY(list_weights(stats, &list, &n, err));
    clq_imatrix *m = calloc(1, sizeof *m);
    clq_status st = m ? CLQ_OK : clq_fail_memory(err, sizeof *m);
    if (m) {
        m->path = strdup(path);
        m->dataset = strdup(stats->dataset);
        m->entries = calloc(n + 1, sizeof *m->entries);
        m->n_chunks = stats->windows;
        if (!m->path || !m->dataset || !m->entries) st = clq_fail_memory(err, n * sizeof *m->entries);
    }
    for (uint32_t i = 0; st == CLQ_OK && i < n; i++) {
        m->n_entries = i + 1;
        st = make_entry(&m->entries[i], &list[i], err);
    }
    free(list);
    if (st == CLQ_OK)
        *imatrix = m;
    else
        clq_imatrix_free(m);
    return st;
}

clq_status clq_importance_open(const char *path, clq_imatrix **imatrix, clq_error *err)
{
    if (!clq_stats_is(path)) return clq_imatrix_open(path, imatrix, err);
    clq_stats_file *stats;
    *imatrix = NULL;
    CLQ_TRY(clq_stats_open(path, &stats, err));
    clq_status st = clq_stats_imatrix(stats, path, imatrix, err);
    clq_stats_free(stats);
    return st;
}

clq_status clq_stats_export(const clq_stats_file *stats, const char *path, clq_error *err)
{
    clq_imatrix_sums *list;
    uint32_t n;
    CLQ_TRY(list_weights(stats, &list, &n, err));
    clq_imatrix_facts facts = {.dataset = stats->dataset, .n_chunks = stats->windows, .chunk_size = stats->context};
    clq_status st = clq_imatrix_write(path, list, n, &facts, err);
    free(list);
    return st;
}

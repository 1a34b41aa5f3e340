// SPDX-License-Identifier: MIT
// The importance matrix readers: both formats, and looking entries up.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "io/imatrix.h"

// What the reader promises about every entry.
static void check_entry(const clq_imatrix_entry *e)
{
    if (!e->name || !*e->name || e->n == 0) abort();
    for (uint64_t i = 0; i < e->n; i++)
        if (!isfinite(e->values[i]) || e->values[i] < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    const char *path = clq_fuzz_file(data, size, &fd);
    clq_imatrix *m;
    clq_error err;
    if (clq_imatrix_open(path, &m, &err) == CLQ_OK) {
        if (!m->n_entries || !m->dataset) abort();
        for (uint32_t i = 0; i < m->n_entries; i++) {
            const clq_imatrix_entry *e = &m->entries[i];
            const float *values;
            check_entry(e);
            if (i && strcmp(m->entries[i - 1].name, e->name) >= 0) abort();
            if (clq_imatrix_take(m, e->name, 1, e->n, NULL, &values, &err) != CLQ_OK || values != e->values) abort();
            if (clq_imatrix_take(m, e->name, 2, e->n, NULL, &values, &err) != CLQ_BAD_INPUT || values) abort();
        }
        const char *part = "ffn";
        clq_imatrix_filter(m, &part, 1, true);
        clq_imatrix_free(m);
    }
    close(fd);
    return 0;
}

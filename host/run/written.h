// SPDX-License-Identifier: MIT
// The files that a run has written, read back.
#ifndef CLQ_RUN_WRITTEN_H
#define CLQ_RUN_WRITTEN_H

#include "io/output.h"
#include "run/plan.h"

// The plan's files as far as they are there; one that cannot be opened has the size 0. To be closed either way.
clq_status clq_written_open(const clq_plan *plan, clq_output *output, clq_file **files, clq_error *err);
void clq_written_close(const clq_plan *plan, clq_file *files);
// Whether all parts of the entry have the bytes of the hash.
bool clq_entry_intact(const clq_file *files, const clq_entry *e, uint64_t hash);
// Every entry has the bytes that were written, and the reader finds what was planned; else CLQ_OUTPUT.
clq_status clq_written_check(const clq_plan *plan, clq_output *output, uint32_t threads, clq_error *err);

#endif

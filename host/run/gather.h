// SPDX-License-Identifier: MIT
// A weight that is packed by columns: tiles are rows, so they are gathered until the last has come.
#ifndef CLQ_RUN_GATHER_H
#define CLQ_RUN_GATHER_H

#include "run/plan.h"

typedef struct clq_gather clq_gather;

// Writes n bytes of a part of the entry, from `at` on.
typedef clq_status (*clq_put_fn)(void *ctx, int part, uint64_t at, const void *bytes, uint64_t n, clq_error *err);

// Whether the entry is written so.
bool clq_gathers(const clq_plan *plan, const clq_entry *e);
// Bytes that gathering and writing it takes.
uint64_t clq_gather_bytes(const clq_entry *e);
clq_status clq_gather_create(const clq_plan *plan, const clq_entry *e, clq_gather **gather, clq_error *err);
void clq_gather_free(clq_gather *gather);
// Rows [first, first + n) as clq_type_sizes says, scales in float16. zeros: NULL for a symmetric type.
void clq_gather_add(clq_gather *gather, uint64_t first, uint64_t n, const void *codes, const void *scales,
                    const int8_t *zeros);
// Writes codes, zero-points, scales and the index of groups.
clq_status clq_gather_write(const clq_gather *gather, uint32_t threads, clq_put_fn put, void *ctx, clq_error *err);

#endif

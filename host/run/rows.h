// SPDX-License-Identifier: MIT
// Rows of integer weights, as lanes and readers hand them out, to the parts of an output.
#ifndef CLQ_RUN_ROWS_H
#define CLQ_RUN_ROWS_H

#include "run/gather.h"

// Rows [first, first + n) as clq_type_sizes says: codes, scales as stored (NULL: written elsewhere), zero-points (NULL:
// none). Below 8 bits `first` is a multiple of 32 where there are zero-points. gather: where they go; NULL: the output.
clq_status clq_put_rows(const clq_entry *e, clq_gather *gather, uint64_t first, uint64_t n, const void *codes,
                        const void *scales, const int8_t *zeros, clq_put_fn put, void *ctx, clq_error *err);
// int8 [rows, groups] as they are, or below 8 bits as words along the rows.
clq_status clq_put_zero_points(const clq_entry *e, uint64_t first, const int8_t *zeros, uint64_t n_rows,
                               uint64_t groups, clq_put_fn put, void *ctx, clq_error *err);
// All numbers of a source's weight, which keeps them in another packing.
clq_status clq_repack(const clq_plan *plan, const clq_entry *e, clq_gather *gather, clq_put_fn put, void *ctx,
                      clq_error *err);

#endif

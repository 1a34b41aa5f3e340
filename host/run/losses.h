// SPDX-License-Identifier: MIT
// What a tile lost on its way that the sums of squares do not tell.
#ifndef CLQ_RUN_LOSSES_H
#define CLQ_RUN_LOSSES_H

#include "device/device.h"

// Blocks that are not zero but decode to zeros, because their scale is rounded to 0.
uint64_t clq_lost_blocks(const clq_tile *tile, const uint8_t *codes);
// Blocks whose scale stopped at its dtype's largest value, so that larger values became smaller. Only types
// whose scale has no infinity do that; of others such a tile is refused.
uint64_t clq_clipped_blocks(const clq_tile *tile, const clq_tile_result *result);
// The sums of squares once more in double, where floats did not hold them (values near 1e19 or 1e-19).
void clq_recount(const clq_tile *tile, const clq_tile_result *result, clq_stats *stats);
// NaN and infinite values among n_bytes of F32, F16 or BF16; 0 for other formats.
uint64_t clq_bad_floats(clq_format_id format, const uint8_t *bytes, uint64_t n_bytes);

#endif

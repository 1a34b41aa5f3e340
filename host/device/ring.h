// SPDX-License-Identifier: MIT
// A ring of lanes: tiles go in, results come out in the same order while later tiles are encoded.
#ifndef CLQ_DEVICE_RING_H
#define CLQ_DEVICE_RING_H

#include "device/device.h"

typedef struct clq_ring clq_ring;

// Takes a finished tile. tag is what the push gave.
typedef clq_status (*clq_ring_store)(void *ctx, void *tag, uint64_t first_row, const clq_tile *tile,
                                     const clq_tile_result *result, clq_error *err);

clq_status clq_ring_create(clq_device *device, const clq_lane_limits *limits, uint32_t n_lanes, clq_ring_store store,
                           void *ctx, clq_ring **ring, clq_error *err);
void clq_ring_free(clq_ring *ring);
// Memory for the next tile's source, NULL: none to be had (the error tells).
clq_status clq_ring_staging(clq_ring *ring, void **staging, clq_error *err);
clq_status clq_ring_push(clq_ring *ring, const clq_tile *tile, void *tag, uint64_t first_row, clq_error *err);
// Stores everything that is still under way.
clq_status clq_ring_flush(clq_ring *ring, clq_error *err);

#endif

// SPDX-License-Identifier: MIT
#include "device/ring.h"

#include <stdlib.h>

enum { MAX_LANES = 8 };

struct clq_ring {
    clq_device *device;
    clq_lane *lanes[MAX_LANES];
    clq_tile tiles[MAX_LANES];
    void *tags[MAX_LANES];
    uint64_t first_rows[MAX_LANES];
    bool busy[MAX_LANES];
    uint32_t n, next;
    clq_ring_store store;
    void *ctx;
};

clq_status clq_ring_create(clq_device *device, const clq_lane_limits *limits, uint32_t n_lanes, clq_ring_store store,
                           void *ctx, clq_ring **ring, clq_error *err)
{
    *ring = NULL;
    clq_ring *r = calloc(1, sizeof *r);
    if (!r) return clq_fail_memory(err, sizeof *r);
    r->device = device;
    r->store = store;
    r->ctx = ctx;
    for (uint32_t i = 0; i < n_lanes && i < MAX_LANES; i++) {
        clq_status st = device->ops->lane_create(device, limits, &r->lanes[i], err);
        if (st != CLQ_OK) {
            clq_ring_free(r);
            return st;
        }
        r->n++;
    }
    *ring = r;
    return CLQ_OK;
}

void clq_ring_free(clq_ring *r)
{
    if (!r) return;
    for (uint32_t i = 0; i < r->n; i++) {
        // A lane that is still at work must end before its buffers (and the tile's memory) go.
        clq_tile_result ignored;
        if (r->busy[i]) r->device->ops->lane_wait(r->lanes[i], &ignored, NULL);
        r->device->ops->lane_free(r->lanes[i]);
    }
    free(r);
}

static clq_status finish(clq_ring *r, uint32_t i, clq_error *err)
{
    if (!r->busy[i]) return CLQ_OK;
    clq_tile_result result;
    r->busy[i] = false;
    CLQ_TRY(r->device->ops->lane_wait(r->lanes[i], &result, err));
    return r->store(r->ctx, r->tags[i], r->first_rows[i], &r->tiles[i], &result, err);
}

clq_status clq_ring_staging(clq_ring *r, void **staging, clq_error *err)
{
    CLQ_TRY(finish(r, r->next, err));
    *staging = r->device->ops->lane_staging(r->lanes[r->next]);
    return *staging ? CLQ_OK : clq_fail_memory(err, r->lanes[r->next]->limits.src_bytes);
}

clq_status clq_ring_push(clq_ring *r, const clq_tile *tile, void *tag, uint64_t first_row, clq_error *err)
{
    uint32_t i = r->next;
    CLQ_TRY(finish(r, i, err));
    CLQ_TRY(r->device->ops->lane_submit(r->lanes[i], tile, err));
    r->tiles[i] = *tile;
    r->tags[i] = tag;
    r->first_rows[i] = first_row;
    r->busy[i] = true;
    r->next = (i + 1) % r->n;
    return CLQ_OK;
}

clq_status clq_ring_flush(clq_ring *r, clq_error *err)
{
    for (uint32_t k = 0; k < r->n; k++) CLQ_TRY(finish(r, (r->next + k) % r->n, err));
    return CLQ_OK;
}

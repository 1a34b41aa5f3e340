// SPDX-License-Identifier: MIT
#include "model/residence.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"

enum { N_ENDS = 2 };

static const clq_unit *unit_of(const clq_residence *r, uint32_t i)
{
    return i < N_ENDS ? r->ends[i] : &r->layers[i - N_ENDS];
}

// The order in memory: embedding, resident layers, head.
static uint32_t in_order(const clq_residence *r, uint32_t i)
{
    return i == 0 ? CLQ_END_EMBED : i <= r->n_resident ? N_ENDS + i - 1 : CLQ_END_HEAD;
}

// How many layers may stay, n_layers: all; false: not even the slots fit.
static bool count_resident(clq_residence *r, uint64_t max_memory, uint64_t *needed)
{
    uint64_t ends = r->ends[0]->n_bytes + r->ends[1]->n_bytes + CLQ_WEIGHT_PADDING, all = ends, most = 0;
    for (uint32_t i = 0; i < r->n_layers; i++) {
        if (!clq_add_u64(all, r->layers[i].n_bytes, &all)) return false;
        if (r->layers[i].n_bytes > most) most = r->layers[i].n_bytes;
    }
    r->n_resident = r->n_layers;
    *needed = all;
    if (max_memory == 0 || all <= max_memory) return true;
    uint64_t left = ends + 2 * (most + CLQ_WEIGHT_PADDING);
    *needed = left < all ? left : all;
    if (left > max_memory) return false;
    left = max_memory - left;
    for (r->n_resident = 0; r->n_resident < r->n_layers && r->layers[r->n_resident].n_bytes <= left; r->n_resident++)
        left -= r->layers[r->n_resident].n_bytes;
    return true;
}

static clq_status add_memory(clq_residence *r, clq_device *d, uint64_t n_bytes, clq_error *err)
{
    CLQ_TRY(d->ops->memory_create(d, n_bytes + CLQ_WEIGHT_PADDING, &r->memories[r->n_memories], err));
    r->n_memories++;
    return CLQ_OK;
}

// Gives the resident units places, and makes and fills their memories.
static clq_status make_resident(clq_residence *r, clq_device *d, clq_error *err)
{
    uint64_t limit = (d->info.max_allocation ? d->info.max_allocation : UINT64_MAX) - CLQ_WEIGHT_PADDING;
    uint32_t n = r->n_resident + N_ENDS, next;
    for (uint32_t first = 0; first < n; first = next) {
        uint64_t n_bytes = 0;
        for (next = first; next < n; next++) {
            uint32_t u = in_order(r, next);
            uint64_t size = unit_of(r, u)->n_bytes;
            if (next > first && (size > limit || n_bytes > limit - size)) break;
            r->places[u] = (clq_place){r->n_memories, n_bytes};
            n_bytes += size;
        }
        CLQ_TRY(add_memory(r, d, n_bytes, err));
        for (uint32_t i = first; i < next; i++) {
            uint32_t u = in_order(r, i);
            CLQ_TRY(clq_unit_load(r->view, unit_of(r, u), r->memories[r->n_memories - 1], r->places[u].base, err));
        }
    }
    return CLQ_OK;
}

clq_status clq_residence_create(clq_device *d, const clq_view *view, const clq_unit *embed, const clq_unit *head,
                                const clq_unit *layers, uint32_t n_layers, uint64_t max_memory, clq_residence *r,
                                clq_error *err)
{
    *r = (clq_residence){.view = view, .layers = layers, .n_layers = n_layers, .ends = {embed, head},
                         .in_slot = {-1, -1}};
    clq_status st = CLQ_OK;
    uint64_t needed = 0, most = 0, limit = d->info.max_allocation;
    for (uint32_t i = 0; limit && i < n_layers + N_ENDS; i++)
        if (unit_of(r, i)->n_bytes + CLQ_WEIGHT_PADDING > limit)
            return clq_fail(err, CLQ_DEVICE,
                            "%s of the model takes %" PRIu64 " bytes, but the device allows %" PRIu64
                            " in one allocation",
                            i == CLQ_END_EMBED  ? "the embedding"
                            : i == CLQ_END_HEAD ? "the output matrix"
                                                : "a layer",
                            unit_of(r, i)->n_bytes, limit);
    if (!count_resident(r, max_memory, &needed))
        return clq_fail(err, CLQ_DEVICE,
                        "the model needs at least %" PRIu64 " bytes for weights, but only %" PRIu64
                        " are left for them on the device; a shorter context or a smaller batch leaves more",
                        needed, max_memory);
    r->places = calloc(n_layers + N_ENDS, sizeof *r->places);
    r->memories = calloc(n_layers + N_ENDS + 2ull, sizeof *r->memories);
    if (!r->places || !r->memories) {
        st = clq_fail_memory(err, (n_layers + 4ull) * 32);
        goto out;
    }
    CLQ_TRY_OUT(make_resident(r, d, err));
    for (uint32_t i = r->n_resident; i < n_layers; i++)
        if (layers[i].n_bytes > most) most = layers[i].n_bytes;
    for (int i = 0; i < 2 && r->n_resident < n_layers; i++) {
        r->slots[i] = r->n_memories;
        CLQ_TRY_OUT(add_memory(r, d, most, err));
    }
out:
    if (st != CLQ_OK) clq_residence_free(r);
    return st;
}

void clq_residence_free(clq_residence *r)
{
    for (uint32_t i = 0; i < r->n_memories; i++) r->memories[i]->device->ops->memory_free(r->memories[i]);
    free(r->memories);
    free(r->places);
    *r = (clq_residence){0};
}

void clq_residence_end(const clq_residence *r, int which, clq_placed *placed, clq_memory **memory)
{
    *placed = (clq_placed){r->ends[which], r->places[which].base};
    *memory = r->memories[r->places[which].memory];
}

clq_status clq_residence_layer(clq_residence *r, uint32_t layer, clq_placed *placed, clq_memory **memory,
                               clq_error *err)
{
    static const uint8_t zeros[CLQ_WEIGHT_PADDING];
    *placed = (clq_placed){&r->layers[layer], 0};
    if (layer < r->n_resident) {
        placed->base = r->places[N_ENDS + layer].base;
        *memory = r->memories[r->places[N_ENDS + layer].memory];
        return CLQ_OK;
    }
    uint32_t slot = layer % 2;
    *memory = r->memories[r->slots[slot]];
    if (r->in_slot[slot] == layer) return CLQ_OK;
    r->in_slot[slot] = -1;
    CLQ_TRY(clq_unit_load(r->view, &r->layers[layer], *memory, 0, err));
    CLQ_TRY((*memory)->device->ops->memory_write(*memory, r->layers[layer].n_bytes, zeros, sizeof zeros, err));
    r->in_slot[slot] = layer;
    return CLQ_OK;
}

// SPDX-License-Identifier: MIT
// What the steps of a forward pass share: where they work, and sums over a work-group. In the vec form a group is one
// item (LSIZE 1), in the wg form UNITS items; the same loops serve both.
#ifndef CLQ_GROUP_CL
#define CLQ_GROUP_CL
#include "common.cl"
#include "clquant_steps.h"

typedef struct {
    __global const uchar *weights;
    __global float *state;
    __global uchar *cache;
    __global const ulong *tables;
    uint group, n_groups; // of the groups that share a step
} place;

#if WG
#define LID ((uint)get_local_id(0))
#define LSIZE UNITS
#define NEAR_FLOATS (64 * 33 + 16 * 64) // local floats that steps may use; OBSERVE more
#define NEAR_PARAM , __local float *near
#define NEAR_PASS , near
#define NEAR_FENCE barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)

// The sum (or maximum) of each item's v, for all items. floats: UNITS of them.
#define GROUP_REDUCTION(NAME, TYPE, COMBINED)                                                                          \
    inline TYPE NAME(TYPE v, __local float *floats)                                                                    \
    {                                                                                                                  \
        __local TYPE *near = (__local TYPE *)floats;                                                                   \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        near[LID] = v;                                                                                                 \
        for (uint n = UNITS / 2; n > 0; n /= 2) {                                                                      \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (LID < n) near[LID] = COMBINED(near[LID], near[LID + n]);                                               \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        return near[0];                                                                                                \
    }
#define SUM_OF(a, b) ((a) + (b))
GROUP_REDUCTION(group_sum, float, SUM_OF)
GROUP_REDUCTION(group_sum_int, int, SUM_OF)
GROUP_REDUCTION(group_max, float, fmax)
GROUP_REDUCTION(group_max_uint, uint, max)
#define GROUP_SUM(v) group_sum(v, near)
#define GROUP_MAX(v) group_max(v, near)
#else
#define LID 0u
#define LSIZE 1u
#define NEAR_PARAM
#define NEAR_PASS
#define NEAR_FENCE
#define GROUP_SUM(v) (v)
#define GROUP_MAX(v) (v)
#endif

#endif

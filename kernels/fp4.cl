// SPDX-License-Identifier: MIT
// What mxfp4 and nvfp4 share. The specification is clq_fp4_index in host/format/mxfp4.c.
#ifndef CLQ_FP4_CL
#define CLQ_FP4_CL
#include "search.cl"

__constant float fp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// A level of the other sign is never nearer, so the search is over magnitudes.
inline vint fp4_index(vfloat x, vfloat d)
{
    vfloat a = fabs(x), best = a;
    vint index = 0;
#define TRY_LEVEL(k, level)                                                                        \
    {                                                                                              \
        vfloat e = fabs((level) * d - a);                                                          \
        index = e < best ? (vint)(k) : index;                                                      \
        best = vmin(e, best);                                                                      \
    }
    TRY_LEVEL(1, 1.0f) TRY_LEVEL(2, 2.0f) TRY_LEVEL(3, 3.0f) TRY_LEVEL(4, 4.0f)
    TRY_LEVEL(5, 6.0f) TRY_LEVEL(6, 8.0f) TRY_LEVEL(7, 12.0f)
#undef TRY_LEVEL
    return index + (x < 0.0f ? min(index, (vint)1) << 3 : (vint)0);
}
#endif

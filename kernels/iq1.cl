// SPDX-License-Identifier: MIT
// What iq1_s and iq1_m share. The specification is host/format/iq1.c. A lane is a group of the block: 8 of 32 or
// 16 of 16 elements.
#ifndef CLQ_IQ1_CL
#define CLQ_IQ1_CL
#define CB_GRID CLQ_GRID_IQ1
#define CB_LEVELS CLQ_LEVELS_IQ1
#define CB_DIMS 8
#define CB_BITS 2
#define CB_TWICE 1
#ifndef CB_GROUP
#define CB_GROUP 32
#define CB_PLAIN 2
#endif
#include "codebook.cl"

#define N_GROUPS (256 / CB_GROUP)

// Element i of VW groups from group j on; lanes behind the last group repeat it.
inline vfloat group_lanes(const float *x, uint j, uint i)
{
    float lanes[VW];
    for (uint l = 0; l < VW; l++) lanes[l] = x[CB_GROUP * min(j + l, N_GROUPS - 1u) + i];
    return vload_f(lanes);
}

// The place of each element in ascending order; equal ones keep theirs. Sums over it: of the weights, and of
// weight * x. The largest |x|.
inline vfloat sort_lanes(const float *x, const float *weight, uint j, vint rank[CB_GROUP], vfloat sorted_x[CB_GROUP],
                         vfloat sorted_w[CB_GROUP])
{
    vfloat v[CB_GROUP], largest = 0.0f;
    for (uint i = 0; i < CB_GROUP; i++) {
        v[i] = group_lanes(x, j, i);
        largest = vmax(fabs(v[i]), largest);
    }
    for (uint i = 0; i < CB_GROUP; i++) {
        vint before = 0;
        for (uint k = 0; k < CB_GROUP; k++) before += k < i ? v[k] <= v[i] : v[k] < v[i];
        rank[i] = VW == 1 ? before : -before; // a true lane of a vector is -1
        vfloat w = group_lanes(weight, j, i), wx = w * v[i];
        const int *to = (const int *)&rank[i];
        const float *ws = (const float *)&w, *wxs = (const float *)&wx;
        for (uint l = 0; l < VW; l++) {
            ((float *)&sorted_w[to[l]])[l] = ws[l];
            ((float *)&sorted_x[to[l]])[l] = wxs[l];
        }
    }
    return largest;
}

// The best split: level 0 before position i1, 2 from i2 on; how it is moved; its scale, as fitted.
typedef struct {
    vfloat scale, score;
    vint i1, i2, side, found;
} split;

inline split split_none(void)
{
    split s;
    s.scale = 0.0f;
    s.score = -FLT_MAX;
    s.i1 = s.i2 = s.side = s.found = 0;
    return s;
}

inline void split_try(split *s, vfloat qx, vfloat qq, int i1, int i2, int side)
{
    vint better = (qq > 0.0f) & (qx * qx > s->score * qq);
    if (!ANY(better)) return;
    vfloat scale = qx / qq;
    s->scale = better ? scale : s->scale;
    s->score = better ? scale * qx : s->score;
    s->i1 = better ? (vint)i1 : s->i1;
    s->i2 = better ? (vint)i2 : s->i2;
    s->side = better ? (vint)side : s->side;
    s->found |= better;
}

// The vectors of levels that a split gives, 2 for 0 where the scale is negative.
inline void split_vectors(const split *s, const vint rank[CB_GROUP], vint vectors[CB_GROUP / 8])
{
    vint one = 1, mirrored = s->scale < 0.0f;
    for (uint v = 0; v < CB_GROUP / 8; v++) {
        vectors[v] = 0;
        for (uint i = 0; i < 8; i++) {
            vint r = rank[8 * v + i];
            vint level = (r >= s->i1 ? one : (vint)0) + (r >= s->i2 ? one : (vint)0);
            vectors[v] |= (mirrored ? 2 - level : level) << (int)(2 * i);
        }
    }
}

// clq_iq1_point; *off: whether the vector is not in the grid.
inline uint iq1_point(__global const uint *table, uint vector, const float *x, const float *weight, float scale,
                      bool down, bool *off)
{
    uint entry = table[vector];
    if (!(entry & OFF_GRID)) return vector;
    *off = true;
    return nearest_candidate(table, entry, scale, down ? -1.125f : -0.875f, 1.0f, x, weight);
}

// clq_iq1_sum.
inline void iq1_sum(uint point, const float *x, const float *weight, bool down, float factor, float *sum_qx,
                    float *sum_qq)
{
    for (uint i = 0; i < 8; i++) {
        float q = ((float)(point >> 2 * i & 3) + (down ? -1.125f : -0.875f)) * factor;
        *sum_qx += weight[i] * q * x[i];
        *sum_qq += weight[i] * q * q;
    }
}

inline void iq1_values(uint index, bool down, float scale, float *y)
{
    uint point = cb_points[index];
    for (uint i = 0; i < 8; i++) y[i] = scale * ((float)(point >> 2 * i & 3) + (down ? -1.125f : -0.875f));
}
#endif

// SPDX-License-Identifier: MIT
// What iq1_s and iq1_m share: levels -1, 0, 1, all moved by 1/8 up or down; the best split of the sorted
// elements into three runs decides.
#ifndef CLQ_FORMAT_IQ1_H
#define CLQ_FORMAT_IQ1_H

#include "format/codebook.h"

// The value of level l (0..2), moved up or down.
static inline float clq_iq1_value(int l, bool down)
{
    return (float)(l - 1) + (down ? -0.125f : 0.125f);
}

// order[k]: the k-th smallest of x; equal ones keep their order. n: at most 32.
void clq_iq1_sort(int n, const float *x, uint8_t order[32]);

// Levels from a split: level 0 before position i1 of the order, 2 from i2 on. mirrored: 2 in place of 0.
void clq_iq1_levels(int n, const uint8_t *order, int i1, int i2, bool mirrored, uint8_t *levels);

// The point for 8 levels: themselves where they are in the grid, else the candidate nearest to x.
uint32_t clq_iq1_point(const clq_grid *g, const uint8_t levels[8], const float *x, const float *weight, float scale,
                       bool down, bool *on_grid);

// Adds the vector's sums for fitting a scale; factor multiplies its values.
void clq_iq1_sum(const clq_grid *g, uint32_t point, const float *x, const float *weight, bool down, float factor,
                 float *sum_qx, float *sum_qq);

#endif

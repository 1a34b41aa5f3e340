// SPDX-License-Identifier: MIT
// What mxfp4 and nvfp4 share: codes of 4 bits, E2M1 values times two.
#ifndef CLQ_FORMAT_FP4_H
#define CLQ_FORMAT_FP4_H

// 0 1 2 3 4 6 8 12, then the same negated.
extern const signed char clq_fp4_levels[16];

// The first level with the least |level * d - x|, each operation rounded to float.
int clq_fp4_index(float x, float d);

#endif

// SPDX-License-Identifier: MIT
// The observers: the range that int8 codes of activations shall cover, from what was seen of them.
#ifndef CLQ_CALIB_RANGES_H
#define CLQ_CALIB_RANGES_H

#include "calib/stats.h"

// slot: words up to CLQ_SLOT_CHANNELS at least (clquant_steps.h). Nothing seen, or only zeros: all zero.
//   minmax            what was seen
//   moving-average    CLQ_SLOT_EMA_*
//   percentile-P      absmax: the least edge of a bin below which are P percent of |x|. min and max: the edges beyond
//                     which half of the rest is, at most
//   entropy           TensorRT's: of the clips at edges i of the histogram of |x|, 128 <= i, the last of those whose
//                     distribution in 128 levels diverges least (Kullback-Leibler) from the one that clipping makes.
//                     The first bin counts as much as the second
//   mse               of the same clips the last of those with the least squared error of symmetric int8 codes, all
//                     values standing in their bin's middle
// Results are never beyond the values seen; min <= 0 <= max. min and max of the last two: those of minmax, clipped to
// -absmax and absmax. Where the histogram has less than 128 bins in use, they give what minmax gives.
// Source of entropy: modelopt/torch/quantization/calib/histogram.py of https://github.com/NVIDIA/Model-Optimizer
clq_status clq_ranges_of(const float *slot, clq_range ranges[CLQ_N_OBSERVERS], clq_error *err);

#endif

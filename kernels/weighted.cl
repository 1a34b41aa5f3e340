// SPDX-License-Identifier: MIT
// q4_0, q4_1, q5_0 and q5_1 with importance (IMPORTANCE 2): fits over lanes, a block of 32 a lane.
#ifndef CLQ_WEIGHTED_CL
#define CLQ_WEIGHTED_CL
#include "search.cl"

#if IMPORTANCE == 2
// Codes q[32] of 4 or 5 bits and the scale of the fit of clq_fit_symmetric.
inline vfloat weighted_symmetric(__global const src_t *x, size_t first, uint n_blocks, float q_max, vint q[32],
                                 importance_at at)
{
    vfloat v[32], w[32];
    code_rule rule;
    vint small;
    load_blocks(x, first, 32, n_blocks, 0, 32, v);
    weigh(at, 32, n_blocks, 0, 32, v, row_mean_square(at, n_blocks), w);
    vfloat scale = fit_symmetric(v, w, 32, q_max, &rule, &small);
    for (uint i = 0; i < 32; i++) {
        vint l = to_int(clamp_v(round_even(rule.inverse * v[i]), -q_max, q_max - 1.0f) + q_max);
        q[i] = small ? (vint)0 : l;
    }
    return scale;
}

// Codes, scale and minimum of the fit of clq_fit_affine.
inline vfloat weighted_affine(__global const src_t *x, size_t first, uint n_blocks, float q_max, vint q[32],
                              vfloat *low, importance_at at)
{
    vfloat v[32], w[32], min_found;
    code_rule rule;
    load_blocks(x, first, 32, n_blocks, 0, 32, v);
    weigh(at, 32, n_blocks, 0, 32, v, row_mean_square(at, n_blocks), w);
    vfloat scale = fit_affine(v, w, 32, q_max, -0.9f, 0.05f, 36, false, &min_found, &rule);
    for (uint i = 0; i < 32; i++) q[i] = to_int(clamp_v(round_even(rule.inverse * (v[i] - rule.low)), 0.0f, q_max));
    *low = -min_found;
    return scale;
}

// words[0..3]: nibbles, element j below element j + 16. Returns the fifth bits, bit j of element j.
inline vint weighted_words(const vint q[32], vint words[4])
{
    vint high = 0;
    for (uint w = 0; w < 4; w++) {
        const vint *a = q + 4 * w;
        words[w] = four_bytes((a[0] & 15) | (a[16] & 15) << 4, (a[1] & 15) | (a[17] & 15) << 4,
                              (a[2] & 15) | (a[18] & 15) << 4, (a[3] & 15) | (a[19] & 15) << 4);
    }
    for (uint j = 0; j < 32; j++) high |= q[j] >> 4 << (int)j;
    return high;
}

// As ENCODE_LANES, with the format's NAME_load.
#define ENCODE_LANES32(LANES, LOAD, BYTES)                                                         \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    cost c = cost_zero();                                                                          \
    for (uint b = begin + (WG ? get_local_id(0) : 0); b < end; b += WG ? UNITS : VW) {             \
        uint n = min(end - b, (uint)VW);                                                           \
        __global uchar *to = out + (size_t)b * (BYTES);                                            \
        LANES(x, first + (size_t)b * 32, n, to IMPORTANCE_OF(b));                                  \
        for (uint l = 0; l < n; l++) {                                                             \
            vfloat y[NV];                                                                          \
            LOAD(to + l * (BYTES), y);                                                             \
            EACH(i) cost_add(&c, src_load(x, first + (size_t)(b + l) * 32 + i * VW), y[i]);        \
        }                                                                                          \
    }                                                                                              \
    FINISH_LANES
#endif
#endif

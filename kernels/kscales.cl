// SPDX-License-Identifier: MIT
// q4_K and q5_K: 8 groups of 32 with 6-bit scales and minimums. The specification is host/format/kscales.c.
#ifndef CLQ_KSCALES_CL
#define CLQ_KSCALES_CL
#include "search.cl"

// min(63, the low byte of the nearest integer)
inline vint code6(vfloat v)
{
    return min(nearest(v) & 255, (vint)63);
}

// Codes of VW blocks in q, one byte each; words[0]: d and dmin, words[1..3]: the packed scales.
inline void affine_groups(__global const src_t *x, size_t first, uint n_blocks, float q_max, float start, float step,
                          int n_steps, vint q[256], vint words[4] IMPORTANCE_PARAM)
{
    vfloat scale[8], low[8], v[32];
    code_rule rule[8];
#if IMPORTANCE
    vfloat sums[8], sigma2 = 2.0f * sum_squares_256(x, first, n_blocks) / 256.0f;
#endif
    for (uint j = 0; j < 8; j++) {
        vfloat w[32], sum = 0.0f;
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
#if IMPORTANCE
        weigh(at, 256, n_blocks, 32 * j, 32, v, sigma2, w);
        for (uint i = 0; i < 32; i++) sum += w[i];
        sums[j] = sum;
        scale[j] = fit_affine(v, w, 32, q_max, -0.9f, 0.05f, 36, false, &low[j], &rule[j]);
#else
        for (uint i = 0; i < 32; i++) sum += v[i] * v[i];
        vfloat level = sqrt(sum / 32.0f);
        for (uint i = 0; i < 32; i++) w[i] = level + fabs(v[i]);
        scale[j] = fit_affine(v, w, 32, q_max, start, step, n_steps, false, &low[j], &rule[j]);
#endif
    }
#if IMPORTANCE
    vint sc[8], m[8], most = q_max == 15.0f ? 255 : 63, bytes[12];
    vint d = half_bits(fit_positive(scale, sums, 8, 63.0f, sc)), dmin = half_bits(fit_positive(low, sums, 8, 63.0f, m));
    for (uint j = 0; j < 8; j++) {
        sc[j] = min(sc[j], most);
        m[j] = min(m[j], most);
    }
#else
    vfloat max_scale = 0.0f, max_min = 0.0f;
    for (uint j = 0; j < 8; j++) {
        max_scale = vmax(scale[j], max_scale);
        max_min = vmax(low[j], max_min);
    }
    vfloat inverse_scale = max_scale > 0.0f ? 63.0f / max_scale : (vfloat)0.0f;
    vfloat inverse_min = max_min > 0.0f ? 63.0f / max_min : (vfloat)0.0f;
    vint sc[8], m[8], d = half_bits(max_scale / 63.0f), dmin = half_bits(max_min / 63.0f), bytes[12];
    for (uint j = 0; j < 8; j++) {
        sc[j] = code6(inverse_scale * scale[j]);
        m[j] = code6(inverse_min * low[j]);
    }
#endif
    for (uint j = 0; j < 4; j++) {
        bytes[j] = (sc[j] | sc[j + 4] >> 4 << 6) & 255;
        bytes[j + 4] = (m[j] | m[j + 4] >> 4 << 6) & 255;
        bytes[j + 8] = (sc[j + 4] & 15) | (m[j + 4] & 15) << 4;
    }
#if IMPORTANCE
    for (uint j = 0; j < 4; j++) { // as they read back: codes beyond 6 bits spill
        sc[j + 4] = (bytes[j + 8] & 15) | bytes[j] >> 6 << 4;
        m[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
        sc[j] = bytes[j] & 63;
        m[j] = bytes[j + 4] & 63;
    }
#endif
    words[0] = d | dmin << 16;
    for (uint k = 0; k < 3; k++)
        words[k + 1] = four_bytes(bytes[4 * k], bytes[4 * k + 1], bytes[4 * k + 2], bytes[4 * k + 3]);
    vfloat d_value = half_value(d), dmin_value = half_value(dmin);
    for (uint j = 0; j < 8; j++) {
        vfloat size = d_value * to_float(sc[j]), offset = dmin_value * to_float(m[j]);
        vint dead = size == 0.0f;
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) q[32 * j + i] = to_int(clamp_v(round_even((v[i] + offset) / size), 0.0f, q_max));
        if (ANY(dead)) // a group without a scale keeps the codes of its fit
            for (uint i = 0; i < 32; i++) {
                vint kept = to_int(clamp_v(round_even(rule[j].inverse * (v[i] - rule[j].low)), 0.0f, q_max));
                q[32 * j + i] = dead ? kept : q[32 * j + i];
            }
    }
}

// Scale and minimum of group j (of 32).
inline void scale_min(__global const uchar *s, uint j, float *scale, float *low)
{
    uint sc, m;
    if (j < 4) {
        sc = s[j] & 63;
        m = s[j + 4] & 63;
    } else {
        sc = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        m = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
    *scale = (float)sc;
    *low = (float)m;
}
#endif

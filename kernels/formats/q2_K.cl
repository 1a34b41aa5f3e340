// SPDX-License-Identifier: MIT
// q2_K: see host/format/q2_K.c, the specification.
#include "search.cl"

// The groups' codes of 4 bits and the step as half bits.
inline vint q2_K_scales(const vfloat s[16], vfloat largest, vint codes[16])
{
    vint none = !(largest > 0.0f);
    vfloat inverse = 15.0f / largest;
    for (uint j = 0; j < 16; j++) codes[j] = none ? (vint)0 : nearest(inverse * s[j]) & 255;
    return none ? (vint)0 : half_bits(largest / 15.0f);
}

inline void q2_K_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[256], words[21], sc[16], m[16];
    vfloat scale[16], low[16], max_scale = 0.0f, max_min = 0.0f, v[16];
    code_rule rule[16];
#if IMPORTANCE
    vfloat sums[16], sigma2 = sum_squares_256(x, first, n_blocks) / 256.0f;
#endif
    for (uint j = 0; j < 16; j++) {
        vfloat w[16];
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
#if IMPORTANCE
        weigh(at, 256, n_blocks, 16 * j, 16, v, sigma2, w);
        sums[j] = 0.0f;
        for (uint i = 0; i < 16; i++) sums[j] += w[i];
        scale[j] = fit_affine(v, w, 16, 3.0f, -0.9f, 0.05f, 36, false, &low[j], &rule[j]);
#else
        for (uint i = 0; i < 16; i++) w[i] = fabs(v[i]);
        scale[j] = fit_affine(v, w, 16, 3.0f, -0.5f, 0.1f, 15, true, &low[j], &rule[j]);
#endif
        max_scale = vmax(scale[j], max_scale);
        max_min = vmax(low[j], max_min);
    }
#if IMPORTANCE
    vint d = half_bits(fit_positive(scale, sums, 16, 15.0f, sc)),
         dmin = half_bits(fit_positive(low, sums, 16, 15.0f, m));
#else
    vint d = q2_K_scales(scale, max_scale, sc), dmin = q2_K_scales(low, max_min, m);
#endif
    vfloat d_value = half_value(d), dmin_value = half_value(dmin);
    for (uint j = 0; j < 16; j++) {
        vint both = (sc[j] | m[j] << 4) & 255; // a scale beyond 4 bits spills, as in the specification
        sc[j] = both & 15;
        m[j] = both >> 4;
        vfloat size = d_value * to_float(sc[j]), offset = dmin_value * to_float(m[j]);
        vint dead = size == 0.0f;
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        for (uint i = 0; i < 16; i++) q[16 * j + i] = to_int(clamp_v(round_even((v[i] + offset) / size), 0.0f, 3.0f));
        if (ANY(dead))
            for (uint i = 0; i < 16; i++) {
                vint kept = to_int(clamp_v(round_even(rule[j].inverse * (v[i] - rule[j].low)), 0.0f, 3.0f));
                q[16 * j + i] = dead ? kept : q[16 * j + i];
            }
        sc[j] = both;
    }
    for (uint w = 0; w < 4; w++) words[w] = four_bytes(sc[4 * w], sc[4 * w + 1], sc[4 * w + 2], sc[4 * w + 3]);
    for (uint w = 0; w < 16; w++) {
        vint bytes = 0;
        for (uint k = 0; k < 4; k++) {
            const vint *a = q + w / 8 * 128 + w % 8 * 4 + 32 * k;
            bytes |= four_bytes(a[0], a[1], a[2], a[3]) << (int)(2 * k);
        }
        words[4 + w] = bytes;
    }
    words[20] = d | dmin << 16;
    put_words(words, 21, sizeof(clq_block_q2_K), n_blocks, out);
}

inline void q2_K_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in + 80), dmin = far_half(in + 82), scale = d * (float)(in[j] & 15),
          low = dmin * (float)(in[j] >> 4);
    __global const uchar *qs = in + 16 + j / 8 * 32 + j % 2 * 16;
    for (uint i = 0; i < 16; i += VW) vstore_f(scale * to_float(FAR_BYTES(qs + i) >> (int)(j % 8 / 2 * 2) & 3) - low, y + i);
}

__kernel GROUP void q2_K_encode(ENCODE_ARGS)
{
    ENCODE_LANES(q2_K_lanes, q2_K_group, 256, sizeof(clq_block_q2_K));
}

__kernel GROUP void q2_K_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q2_K_group, 256, sizeof(clq_block_q2_K));
}

// SPDX-License-Identifier: MIT
// q3_K: see host/format/q3_K.c, the specification.
#include "search.cl"

inline vint clamp4(vint v)
{
    return min(max(v, (vint)-4), (vint)3);
}

// The fit by coordinate descent; codes 0..7.
inline vfloat q3_K_fit(const vfloat x[16], vint q[16])
{
    vfloat largest = 0.0f, signed_largest = 0.0f, sum_qx = 0.0f, sum_qq = 0.0f;
    for (uint i = 0; i < 16; i++) {
        vfloat a = fabs(x[i]);
        signed_largest = a > largest ? x[i] : signed_largest;
        largest = vmax(a, largest);
    }
    vint dead = largest < 1e-15f;
    vfloat inverse = -4.0f / (dead ? (vfloat)1.0f : signed_largest);
    vfloat w[16], wx[16], code[16];
    for (uint i = 0; i < 16; i++) {
        w[i] = x[i] * x[i];
        wx[i] = w[i] * x[i];
        code[i] = to_float(clamp4(nearest(inverse * x[i])));
        sum_qx += wx[i] * code[i];
        sum_qq += w[i] * code[i] * code[i];
    }
    vint moving = dead ? (vint)0 : (vint)-1; // lanes whose last sweep changed something
    for (int sweep = 0; sweep < 5 && ANY(moving); sweep++) {
        vint changed = 0;
        for (uint i = 0; i < 16; i++) {
            vfloat l = code[i], qx = sum_qx - wx[i] * l, qq = sum_qq - w[i] * l * l;
            vfloat f = to_float(clamp4(nearest(x[i] * qq / qx))), new_qx = qx + wx[i] * f, new_qq = qq + w[i] * f * f;
            vint take = (qx > 0.0f) & (f != l) & (new_qq > 0.0f) &
                        (new_qx * new_qx * sum_qq > sum_qx * sum_qx * new_qq) & moving;
            code[i] = take ? f : l;
            sum_qx = take ? new_qx : sum_qx;
            sum_qq = take ? new_qq : sum_qq;
            changed |= take;
        }
        moving = changed;
    }
    for (uint i = 0; i < 16; i++) q[i] = dead ? (vint)0 : to_int(code[i]) + 4;
    vfloat scale = sum_qq > 0.0f ? sum_qx / sum_qq : (vfloat)0.0f;
    return dead ? (vfloat)0.0f : scale;
}

inline void q3_K_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[256], words[27], code[16];
    vfloat scale[16], v[16];
#if IMPORTANCE
    vfloat sums[16], sigma2 = 2.0f * sum_squares_256(x, first, n_blocks) / 256.0f;
    code_rule rule;
    vint small;
    for (uint j = 0; j < 16; j++) {
        vfloat w[16];
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        weigh(at, 256, n_blocks, 16 * j, 16, v, sigma2, w);
        sums[j] = 0.0f;
        for (uint i = 0; i < 16; i++) sums[j] += w[i];
        scale[j] = fit_symmetric(v, w, 16, 4.0f, &rule, &small);
        for (uint i = 0; i < 16; i++) {
            vint l = clamp4(nearest(rule.inverse * v[i])) + 4;
            q[16 * j + i] = small ? (vint)0 : l;
        }
    }
    vint d = half_bits(fit_symmetric(scale, sums, 16, 32.0f, &rule, &small));
    for (uint j = 0; j < 16; j++) {
        vint l = min(max(nearest(rule.inverse * scale[j]), (vint)-32), (vint)31) + 32;
        code[j] = small ? (vint)0 : l;
    }
#else
    vfloat largest = 0.0f, signed_largest = 0.0f;
    for (uint j = 0; j < 16; j++) {
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        scale[j] = q3_K_fit(v, q + 16 * j);
        vfloat a = fabs(scale[j]);
        signed_largest = a > largest ? scale[j] : signed_largest;
        largest = vmax(a, largest);
    }
    vint none = signed_largest == 0.0f;
    vfloat inverse = -32.0f / signed_largest;
    vint d = none ? (vint)0 : half_bits(1.0f / inverse);
    for (uint j = 0; j < 16; j++) {
        vint l = nearest(inverse * scale[j]) << 24 >> 24; // as int8
        code[j] = none ? (vint)0 : min(max(l, (vint)-32), (vint)31) + 32;
    }
#endif
    vfloat d_value = half_value(d);
    for (uint j = 0; j < 16; j++) {
        vfloat size = d_value * to_float(code[j] - 32);
        vint dead = size == 0.0f;
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        for (uint i = 0; i < 16; i++) {
            vint again = to_int(clamp_v(round_even(v[i] / size), -4.0f, 3.0f)) + 4;
            q[16 * j + i] = dead ? q[16 * j + i] : again;
        }
    }
    for (uint w = 0; w < 8; w++) {
        vint high = 0;
        for (uint j = 0; j < 8; j++) {
            const vint *a = q + 32 * j + 4 * w;
            high |= four_bytes(a[0] >> 2, a[1] >> 2, a[2] >> 2, a[3] >> 2) << (int)j;
        }
        words[w] = high;
    }
    for (uint w = 0; w < 16; w++) {
        vint bytes = 0;
        for (uint k = 0; k < 4; k++) {
            const vint *a = q + w / 8 * 128 + w % 8 * 4 + 32 * k;
            bytes |= four_bytes(a[0] & 3, a[1] & 3, a[2] & 3, a[3] & 3) << (int)(2 * k);
        }
        words[8 + w] = bytes;
    }
    vint s[12];
    for (uint k = 0; k < 8; k++) s[k] = (code[k] & 15) | (code[k + 8] & 15) << 4;
    for (uint k = 0; k < 4; k++)
        s[8 + k] = code[k] >> 4 | code[k + 4] >> 4 << 2 | code[k + 8] >> 4 << 4 | code[k + 12] >> 4 << 6;
    for (uint k = 0; k < 3; k++) words[24 + k] = four_bytes(s[4 * k], s[4 * k + 1], s[4 * k + 2], s[4 * k + 3]);
    put_words(words, 27, sizeof(clq_block_q3_K), n_blocks, out);
    put_halves(d, 108, sizeof(clq_block_q3_K), n_blocks, out);
}

inline void q3_K_group(__global const uchar *in, uint j, float y[16])
{
    __global const uchar *s = in + 96, *hmask = in + j % 2 * 16, *qs = in + 32 + j / 8 * 32 + j % 2 * 16;
    int code = (j < 8 ? s[j] & 15 : s[j - 8] >> 4) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
    float scale = far_half(in + 108) * (float)(code - 32);
    for (uint i = 0; i < 16; i += VW) {
        vint low = FAR_BYTES(qs + i) >> (int)(j % 8 / 2 * 2) & 3, high = FAR_BYTES(hmask + i) >> (int)(j / 2) & 1;
        vstore_f(scale * to_float(low + high * 4 - 4), y + i);
    }
}

__kernel GROUP void q3_K_encode(ENCODE_ARGS)
{
    ENCODE_LANES(q3_K_lanes, q3_K_group, 256, sizeof(clq_block_q3_K));
}

__kernel GROUP void q3_K_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q3_K_group, 256, sizeof(clq_block_q3_K));
}

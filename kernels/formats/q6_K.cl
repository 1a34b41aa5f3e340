// SPDX-License-Identifier: MIT
// q6_K: see host/format/q6_K.c, the specification.
#include "search.cl"

inline void q6_K_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[256], words[52], code[16], small[16];
    vfloat scale[16], largest = 0.0f, signed_largest = 0.0f, v[16];
    code_rule rule[16];
    for (uint j = 0; j < 16; j++) {
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        vfloat w[16];
#if IMPORTANCE
        load_importance(at, 256, n_blocks, 16 * j, 16, w);
#endif
        scale[j] = fit_symmetric(v, w, 16, 32.0f, &rule[j], &small[j]);
        vfloat a = fabs(scale[j]);
        signed_largest = a > largest ? scale[j] : signed_largest;
        largest = vmax(a, largest);
    }
    vint none = largest < 1e-15f; // the whole block is zero bytes
    vfloat inverse = -128.0f / (none ? (vfloat)1.0f : signed_largest);
    vint d = none ? (vint)0 : half_bits(1.0f / inverse);
    vfloat d_value = half_value(d);
    for (uint j = 0; j < 16; j++) {
        code[j] = none ? (vint)0 : min(nearest(inverse * scale[j]), (vint)127) << 24 >> 24; // as int8
        vfloat size = d_value * to_float(code[j]);
        vint dead = size == 0.0f;
        load_lanes(x, first, n_blocks, 16 * j, 16, v);
        for (uint i = 0; i < 16; i++) {
            vint again = to_int(clamp_v(round_even(v[i] / size), -32.0f, 31.0f)) + 32;
            q[16 * j + i] = again;
        }
        if (ANY(dead))
            for (uint i = 0; i < 16; i++) {
                vint kept = to_int(clamp_v(round_even(rule[j].inverse * v[i]), -32.0f, 31.0f)) + 32;
                kept = small[j] ? (vint)0 : kept;
                q[16 * j + i] = dead ? (none ? (vint)0 : kept) : q[16 * j + i];
            }
    }
    for (uint w = 0; w < 32; w++) {
        const vint *a = q + w / 16 * 128 + w % 16 * 4;
        words[w] = four_bytes((a[0] & 15) | (a[64] & 15) << 4, (a[1] & 15) | (a[65] & 15) << 4,
                              (a[2] & 15) | (a[66] & 15) << 4, (a[3] & 15) | (a[67] & 15) << 4);
    }
    for (uint w = 0; w < 16; w++) {
        vint bytes = 0;
        for (uint k = 0; k < 4; k++) {
            const vint *a = q + w / 8 * 128 + w % 8 * 4 + 32 * k;
            bytes |= four_bytes(a[0] >> 4, a[1] >> 4, a[2] >> 4, a[3] >> 4) << (int)(2 * k);
        }
        words[32 + w] = bytes;
    }
    for (uint w = 0; w < 4; w++)
        words[48 + w] =
            four_bytes(code[4 * w] & 255, code[4 * w + 1] & 255, code[4 * w + 2] & 255, code[4 * w + 3] & 255);
    put_words(words, 52, sizeof(clq_block_q6_K), n_blocks, out);
    put_halves(d, 208, sizeof(clq_block_q6_K), n_blocks, out);
}

inline void q6_K_group(__global const uchar *in, uint j, float y[16])
{
    uint half_j = j / 8, in_half = j % 8;
    __global const uchar *ql = in + 64 * half_j + in_half % 4 * 16, *qh = in + 128 + 32 * half_j + in_half % 2 * 16;
    float scale = far_half(in + 208) * (float)((__global const char *)in)[192 + j];
    for (uint i = 0; i < 16; i += VW) {
        vint low = FAR_BYTES(ql + i) >> (in_half < 4 ? 0 : 4) & 15, high = FAR_BYTES(qh + i) >> (int)(in_half / 2 * 2) & 3;
        vstore_f(scale * to_float((low | high << 4) - 32), y + i);
    }
}

__kernel GROUP void q6_K_encode(ENCODE_ARGS)
{
    ENCODE_LANES(q6_K_lanes, q6_K_group, 256, sizeof(clq_block_q6_K));
}

__kernel GROUP void q6_K_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q6_K_group, 256, sizeof(clq_block_q6_K));
}

// SPDX-License-Identifier: MIT
// iq4_xs: see host/format/iq4_xs.c, the specification.
#include "iq4.cl"

inline void iq4_xs_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vfloat v[32], w[32], scale[8], largest = 0.0f, signed_largest = 0.0f;
    vint words[34], high = 0, low = 0;
#if IMPORTANCE
    vfloat sigma2 = sum_squares_256(x, first, n_blocks) * (2.0f / 256);
#endif
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
#if IMPORTANCE
        weigh(at, 256, n_blocks, 32 * j, 32, v, sigma2, w);
#endif
        scale[j] = iq4_fit(v, w);
        vfloat a = fabs(scale[j]);
        signed_largest = a > largest ? scale[j] : signed_largest;
        largest = vmax(a, largest);
    }
    vfloat d = -signed_largest / 32.0f;
    vfloat inverse = d != 0.0f ? 1.0f / d : (vfloat)0.0f;
    for (uint j = 0; j < 8; j++) {
        vint l = min(max(nearest(inverse * scale[j]), (vint)-32), (vint)31);
        vfloat step = d * to_float(l);
        vfloat inverse_step = step != 0.0f ? 1.0f / step : (vfloat)0.0f;
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        iq4_pack(v, inverse_step, words + 2 + 4 * j);
        l += 32;
        low |= (l & 15) << (int)(4 * j);
        high |= l >> 4 << (int)(2 * j);
    }
    words[0] = half_bits(d) | high << 16;
    words[1] = low;
    put_words(words, 34, sizeof(clq_block_iq4_xs), n_blocks, out);
}

inline void iq4_xs_group(__global const uchar *in, uint j, float y[16])
{
    uint g = j / 2, high = in[2] | in[3] << 8;
    int l = (in[4 + g / 2] >> 4 * (g % 2) & 15) | (high >> 2 * g & 3) << 4;
    float step = far_half(in) * (float)(l - 32);
    __global const uchar *qs = in + 8 + 16 * g;
    for (uint i = 0; i < 16; i++) y[i] = step * iq4_levels[j % 2 ? qs[i] >> 4 : qs[i] & 15];
}

__kernel GROUP void iq4_xs_encode(ENCODE_ARGS)
{
    ENCODE_LANES(iq4_xs_lanes, iq4_xs_group, 256, sizeof(clq_block_iq4_xs));
}

__kernel GROUP void iq4_xs_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq4_xs_group, 256, sizeof(clq_block_iq4_xs));
}

// SPDX-License-Identifier: MIT
// q5_1: see host/format/q5_1.c, the specification.
#include "weighted.cl"

inline void q5_1_block(const vfloat x[NV], NEAR uchar *out)
{
    vfloat high = x[0];
    UNROLL for (uint i = 1; i < NV; i++) high = vmax(x[i], high);
    // + 0: of zeros of both signs the difference may be -0, in sequence it is not.
    float m = first_smallest(x), d = (hmax(high) - m + 0.0f) / 31.0f;
    int alive;
    float id = inverse(d, &alive);
    vint q[NV];
    put_half(out, d);
    put_half(out + 2, m);
    EACH(i) q[i] = to_int((x[i] - m) * id + 0.5f) & alive & 31;
    put_bit4(q, out + 4);
    EACH(i) q[i] &= 15;
    put_nibbles(q, out + 8);
}

inline void q5_1_load(NEAR const uchar *in, vfloat y[NV])
{
    float d = get_half(in), m = get_half(in + 2);
    vint q[NV];
    get_nibbles(in + 8, q);
    get_bit4(in + 4, q);
    EACH(i) y[i] = to_float(q[i]) * d + m;
}

#if IMPORTANCE == 2
inline void q5_1_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[32], words[6];
    vfloat low, d = weighted_affine(x, first, n_blocks, 31.0f, q, &low, at);
    words[0] = half_bits(d) | half_bits(low) << 16;
    words[1] = weighted_words(q, words + 2);
    put_words(words, 6, sizeof(clq_block_q5_1), n_blocks, out);
}

__kernel GROUP void q5_1_encode(ENCODE_ARGS)
{
    ENCODE_LANES32(q5_1_lanes, q5_1_load, sizeof(clq_block_q5_1));
}
#else
__kernel GROUP void q5_1_encode(ENCODE32_ARGS)
{
    ENCODE32(q5_1_block, q5_1_load, sizeof(clq_block_q5_1));
}

__kernel GROUP void q5_1_decode(DECODE32_ARGS)
{
    DECODE32(q5_1_load, sizeof(clq_block_q5_1));
}
#endif

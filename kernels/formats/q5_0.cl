// SPDX-License-Identifier: MIT
// q5_0: see host/format/q5_0.c, the specification.
#include "weighted.cl"

inline void q5_0_block(const vfloat x[NV], NEAR uchar *out)
{
    float d = signed_largest(x) / -16.0f;
    int alive;
    float id = inverse(d, &alive);
    vint q[NV];
    put_half(out, d);
    EACH(i) q[i] = min(to_int(x[i] * id + 16.5f) & alive, (vint)31);
    put_bit4(q, out + 2);
    EACH(i) q[i] &= 15;
    put_nibbles(q, out + 6);
}

inline void q5_0_load(NEAR const uchar *in, vfloat y[NV])
{
    float d = get_half(in);
    vint q[NV];
    get_nibbles(in + 6, q);
    get_bit4(in + 2, q);
    EACH(i) y[i] = to_float(q[i] - 16) * d;
}

#if IMPORTANCE == 2
inline void q5_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[32], words[5];
    vfloat d = weighted_symmetric(x, first, n_blocks, 16.0f, q, at);
    put_halves(half_bits(d), 0, sizeof(clq_block_q5_0), n_blocks, out);
    words[0] = weighted_words(q, words + 1);
    put_words(words, 5, sizeof(clq_block_q5_0), n_blocks, out + 2);
}

__kernel GROUP void q5_0_encode(ENCODE_ARGS)
{
    ENCODE_LANES32(q5_0_lanes, q5_0_load, sizeof(clq_block_q5_0));
}
#else
__kernel GROUP void q5_0_encode(ENCODE32_ARGS)
{
    ENCODE32(q5_0_block, q5_0_load, sizeof(clq_block_q5_0));
}

__kernel GROUP void q5_0_decode(DECODE32_ARGS)
{
    DECODE32(q5_0_load, sizeof(clq_block_q5_0));
}
#endif

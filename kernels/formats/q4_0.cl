// SPDX-License-Identifier: MIT
// q4_0: see host/format/q4_0.c, the specification.
#include "weighted.cl"

inline void q4_0_block(const vfloat x[NV], NEAR uchar *out)
{
    float d = signed_largest(x) / -8.0f;
    int alive;
    float id = inverse(d, &alive);
    vint q[NV];
    put_half(out, d);
    EACH(i) q[i] = min(to_int(x[i] * id + 8.5f) & alive, (vint)15);
    put_nibbles(q, out + 2);
}

inline void q4_0_load(NEAR const uchar *in, vfloat y[NV])
{
    float d = get_half(in);
    vint q[NV];
    get_nibbles(in + 2, q);
    EACH(i) y[i] = to_float(q[i] - 8) * d;
}

#if IMPORTANCE == 2
inline void q4_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[32], words[4];
    vfloat d = weighted_symmetric(x, first, n_blocks, 8.0f, q, at);
    put_halves(half_bits(d), 0, sizeof(clq_block_q4_0), n_blocks, out);
    weighted_words(q, words);
    put_words(words, 4, sizeof(clq_block_q4_0), n_blocks, out + 2);
}

__kernel GROUP void q4_0_encode(ENCODE_ARGS)
{
    ENCODE_LANES32(q4_0_lanes, q4_0_load, sizeof(clq_block_q4_0));
}
#else
__kernel GROUP void q4_0_encode(ENCODE32_ARGS)
{
    ENCODE32(q4_0_block, q4_0_load, sizeof(clq_block_q4_0));
}

__kernel GROUP void q4_0_decode(DECODE32_ARGS)
{
    DECODE32(q4_0_load, sizeof(clq_block_q4_0));
}
#endif

// SPDX-License-Identifier: MIT
// q2_0: see host/format/q2_0.c, the specification.
#include "search.cl"

inline void q2_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out)
{
    vfloat v[64], d = 0.0f;
    vint words[4];
    load_blocks(x, first, 64, n_blocks, 0, 32, v);
    load_blocks(x, first, 64, n_blocks, 32, 32, v + 32);
    for (uint i = 0; i < 64; i++) d = vmax(fabs(v[i]), d);
    vfloat inverse = d > 0.0f ? 1.0f / d : (vfloat)0.0f;
    vint alive = inverse <= FLT_MAX ? (vint)-1 : (vint)0; // else every code is 0
    for (uint w = 0; w < 4; w++) {
        words[w] = 0;
        for (uint i = 0; i < 16; i++) {
            vfloat q = v[16 * w + i] * inverse; // within -1..1: halves away from zero
            words[w] |= (to_int(q + copysign((vfloat)0.49999997f, q)) + 1 & alive) << (int)(2 * i);
        }
    }
    put_halves(half_bits(d), 0, sizeof(clq_block_q2_0), n_blocks, out);
    put_words(words, 4, sizeof(clq_block_q2_0), n_blocks, out + 2);
}

inline void q2_0_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in);
    for (uint i = 0; i < 16; i++) y[i] = (float)((in[2 + 4 * j + i / 4] >> i % 4 * 2 & 3) - 1) * d;
}

__kernel GROUP void q2_0_encode(ENCODE32_ARGS)
{
    ENCODE_LANES(q2_0_lanes, q2_0_group, 64, sizeof(clq_block_q2_0));
}

__kernel GROUP void q2_0_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q2_0_group, 64, sizeof(clq_block_q2_0));
}

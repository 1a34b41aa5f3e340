// SPDX-License-Identifier: MIT
// q1_0: see host/format/q1_0.c, the specification.
#include "search.cl"

inline void q1_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out)
{
    vfloat v[32], sum = 0.0f;
    vint words[4];
    for (uint w = 0; w < 4; w++) {
        load_blocks(x, first, 128, n_blocks, 32 * w, 32, v);
        words[w] = 0;
        for (uint i = 0; i < 32; i++) {
            sum += fabs(v[i]);
            words[w] |= v[i] >= 0.0f ? (vint)(int)(1u << i) : (vint)0;
        }
    }
    put_halves(half_bits(sum / 128.0f), 0, sizeof(clq_block_q1_0), n_blocks, out);
    put_words(words, 4, sizeof(clq_block_q1_0), n_blocks, out + 2);
}

inline void q1_0_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in);
    uint bits = in[2 + 2 * j] | in[3 + 2 * j] << 8;
    for (uint i = 0; i < 16; i++) y[i] = bits >> i & 1 ? d : -d;
}

__kernel GROUP void q1_0_encode(ENCODE32_ARGS)
{
    ENCODE_LANES(q1_0_lanes, q1_0_group, 128, sizeof(clq_block_q1_0));
}

__kernel GROUP void q1_0_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q1_0_group, 128, sizeof(clq_block_q1_0));
}

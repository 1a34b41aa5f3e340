// SPDX-License-Identifier: MIT
// iq4_nl: see host/format/iq4_nl.c, the specification.
#include "iq4.cl"

inline void iq4_nl_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vfloat v[32], w[32];
    vint words[4];
    load_blocks(x, first, 32, n_blocks, 0, 32, v);
#if IMPORTANCE
    vfloat sum = 0.0f;
    for (uint i = 0; i < 32; i++) sum += v[i] * v[i];
    weigh(at, 32, n_blocks, 0, 32, v, sum * (2.0f / 32), w);
#endif
    vfloat scale = iq4_fit(v, w);
    vfloat inverse = scale != 0.0f ? 1.0f / scale : (vfloat)0.0f;
    iq4_pack(v, inverse, words);
    put_halves(half_bits(scale), 0, sizeof(clq_block_iq4_nl), n_blocks, out);
    put_words(words, 4, sizeof(clq_block_iq4_nl), n_blocks, out + 2);
}

inline void iq4_nl_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in);
    for (uint i = 0; i < 16; i++) y[i] = d * iq4_levels[j ? in[2 + i] >> 4 : in[2 + i] & 15];
}

__kernel GROUP void iq4_nl_encode(ENCODE_ARGS)
{
    ENCODE_LANES(iq4_nl_lanes, iq4_nl_group, 32, sizeof(clq_block_iq4_nl));
}

__kernel GROUP void iq4_nl_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq4_nl_group, 32, sizeof(clq_block_iq4_nl));
}

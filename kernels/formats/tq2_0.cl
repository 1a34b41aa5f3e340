// SPDX-License-Identifier: MIT
// tq2_0: see host/format/tq2_0.c, the specification.
#include "search.cl"

inline void tq2_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out)
{
    vfloat v[32], d = 0.0f;
    vint words[16];
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) d = vmax(fabs(v[i]), d);
    }
    vfloat inverse = d != 0.0f ? 1.0f / d : (vfloat)0.0f;
    vint alive = inverse <= FLT_MAX ? (vint)-1 : (vint)0; // else every value rounds to x86's INT_MIN, code 1
    for (uint w = 0; w < 16; w++) words[w] = 0;
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) {
            vfloat q = v[i] * inverse; // within -1..1: halves away from zero
            vint code = ((to_int(q + copysign((vfloat)0.49999997f, q)) & alive) + 1) & 3;
            words[j / 4 * 8 + i / 4] |= code << (int)(8 * (i % 4) + 2 * (j % 4));
        }
    }
    put_words(words, 16, sizeof(clq_block_tq2_0), n_blocks, out);
    put_halves(half_bits(d), 64, sizeof(clq_block_tq2_0), n_blocks, out);
}

inline void tq2_0_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in + 64);
    __global const uchar *qs = in + j / 8 * 32 + j % 2 * 16;
    for (uint i = 0; i < 16; i += VW) vstore_f(to_float((FAR_BYTES(qs + i) >> (int)(j % 8 / 2 * 2) & 3) - 1) * d, y + i);
}

__kernel GROUP void tq2_0_encode(ENCODE32_ARGS)
{
    ENCODE_LANES(tq2_0_lanes, tq2_0_group, 256, sizeof(clq_block_tq2_0));
}

__kernel GROUP void tq2_0_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(tq2_0_group, 256, sizeof(clq_block_tq2_0));
}

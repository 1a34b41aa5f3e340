// SPDX-License-Identifier: MIT
// q4_K: see host/format/q4_K.c, the specification.
#include "kscales.cl"

inline void q4_K_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[256], words[36];
    affine_groups(x, first, n_blocks, 15.0f, -1.0f, 0.1f, 20, q, words IMPORTANCE_PASS);
    for (uint w = 0; w < 32; w++) {
        const vint *a = q + w / 8 * 64 + w % 8 * 4;
        words[4 + w] = four_bytes(a[0] | a[32] << 4, a[1] | a[33] << 4, a[2] | a[34] << 4, a[3] | a[35] << 4);
    }
    put_words(words, 36, sizeof(clq_block_q4_K), n_blocks, out);
}

inline void q4_K_group(__global const uchar *in, uint j, float y[16])
{
    float scale, low;
    scale_min(in + 4, j / 2, &scale, &low);
    scale *= far_half(in);
    low *= far_half(in + 2);
    __global const uchar *qs = in + 16 + j / 4 * 32 + j % 2 * 16;
    for (uint i = 0; i < 16; i += VW) vstore_f(scale * to_float(FAR_BYTES(qs + i) >> (int)(j / 2 % 2 * 4) & 15) - low, y + i);
}

__kernel GROUP void q4_K_encode(ENCODE_ARGS)
{
    ENCODE_LANES(q4_K_lanes, q4_K_group, 256, sizeof(clq_block_q4_K));
}

__kernel GROUP void q4_K_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q4_K_group, 256, sizeof(clq_block_q4_K));
}

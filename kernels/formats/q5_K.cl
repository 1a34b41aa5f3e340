// SPDX-License-Identifier: MIT
// q5_K: see host/format/q5_K.c, the specification.
#include "kscales.cl"

inline void q5_K_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out IMPORTANCE_PARAM)
{
    vint q[256], words[44];
    affine_groups(x, first, n_blocks, 31.0f, -0.5f, 0.1f, 15, q, words IMPORTANCE_PASS);
    for (uint w = 0; w < 8; w++) {
        vint high = 0;
        for (uint j = 0; j < 8; j++) {
            const vint *a = q + 32 * j + 4 * w;
            high |= four_bytes(a[0] >> 4, a[1] >> 4, a[2] >> 4, a[3] >> 4) << (int)j;
        }
        words[4 + w] = high;
    }
    for (uint w = 0; w < 32; w++) {
        const vint *a = q + w / 8 * 64 + w % 8 * 4;
        words[12 + w] = four_bytes((a[0] & 15) | (a[32] & 15) << 4, (a[1] & 15) | (a[33] & 15) << 4,
                                   (a[2] & 15) | (a[34] & 15) << 4, (a[3] & 15) | (a[35] & 15) << 4);
    }
    put_words(words, 44, sizeof(clq_block_q5_K), n_blocks, out);
}

inline void q5_K_group(__global const uchar *in, uint j, float y[16])
{
    float scale, low;
    scale_min(in + 4, j / 2, &scale, &low);
    scale *= far_half(in);
    low *= far_half(in + 2);
    __global const uchar *qh = in + 16 + j % 2 * 16, *qs = in + 48 + j / 4 * 32 + j % 2 * 16;
    for (uint i = 0; i < 16; i += VW) {
        vint q = (FAR_BYTES(qs + i) >> (int)(j / 2 % 2 * 4) & 15) | (FAR_BYTES(qh + i) >> (int)(j / 2) & 1) << 4;
        vstore_f(scale * to_float(q) - low, y + i);
    }
}

__kernel GROUP void q5_K_encode(ENCODE_ARGS)
{
    ENCODE_LANES(q5_K_lanes, q5_K_group, 256, sizeof(clq_block_q5_K));
}

__kernel GROUP void q5_K_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(q5_K_group, 256, sizeof(clq_block_q5_K));
}

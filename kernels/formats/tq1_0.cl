// SPDX-License-Identifier: MIT
// tq1_0: see host/format/tq1_0.c, the specification.
#include "search.cl"

// Where element k stands: its byte's index in the block and its digit, 0 the most significant.
#define TQ1_BYTE(k) ((k) < 160 ? (k) % 32 : (k) < 240 ? 32 + (k) % 16 : 48 + (k) % 4)
#define TQ1_DIGIT(k) ((k) < 160 ? (k) / 32 : (k) < 240 ? ((k) - 160) / 16 : ((k) - 240) / 4)

inline void tq1_0_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out)
{
    vfloat v[32], d = 0.0f;
    vint bytes[52], words[13];
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) d = vmax(fabs(v[i]), d);
    }
    vfloat inverse = d != 0.0f ? 1.0f / d : (vfloat)0.0f;
    vint alive = inverse <= FLT_MAX ? (vint)-1 : (vint)0; // else every value rounds to x86's INT_MIN, digit 1
    for (uint k = 0; k < 52; k++) bytes[k] = 0;
    // Elements of one byte come in the order of their digits.
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) {
            vfloat q = v[i] * inverse; // within -1..1: halves away from zero
            uint at = TQ1_BYTE(32 * j + i);
            bytes[at] = bytes[at] * 3 + (to_int(q + copysign((vfloat)0.49999997f, q)) & alive) + 1;
        }
    }
    for (uint k = 48; k < 52; k++) bytes[k] *= 3;
    for (uint k = 0; k < 52; k++) bytes[k] = (bytes[k] * 256 + 242) / 243;
    for (uint w = 0; w < 13; w++)
        words[w] = four_bytes(bytes[4 * w], bytes[4 * w + 1], bytes[4 * w + 2], bytes[4 * w + 3]);
    put_words(words, 13, sizeof(clq_block_tq1_0), n_blocks, out);
    put_halves(half_bits(d), 52, sizeof(clq_block_tq1_0), n_blocks, out);
}

inline void tq1_0_group(__global const uchar *in, uint j, float y[16])
{
    float d = far_half(in + 52);
    for (uint i = 0; i < 16; i++) {
        uint k = 16 * j + i, digit = TQ1_DIGIT(k);
        uint power = digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
        y[i] = (float)((int)((in[TQ1_BYTE(k)] * power & 255) * 3 >> 8) - 1) * d;
    }
}

__kernel GROUP void tq1_0_encode(ENCODE32_ARGS)
{
    ENCODE_LANES(tq1_0_lanes, tq1_0_group, 256, sizeof(clq_block_tq1_0));
}

__kernel GROUP void tq1_0_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(tq1_0_group, 256, sizeof(clq_block_tq1_0));
}

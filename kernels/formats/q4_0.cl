// SPDX-License-Identifier: MIT
// q4_0: see host/format/q4_0.c, the specification.
#include "common.cl"

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

__kernel GROUP void q4_0_encode(ENCODE32_ARGS)
{
    ENCODE32(q4_0_block, q4_0_load, sizeof(clq_block_q4_0));
}

__kernel GROUP void q4_0_decode(DECODE32_ARGS)
{
    DECODE32(q4_0_load, sizeof(clq_block_q4_0));
}

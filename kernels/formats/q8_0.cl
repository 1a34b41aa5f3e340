// SPDX-License-Identifier: MIT
// q8_0: see host/format/q8_0.c, the specification.
#include "common.cl"

// Halves away from zero: adding the float below 0.5 and truncating is exact for |v| < 2^22.
inline void q8_0_block(const vfloat x[NV], NEAR uchar *out)
{
    vfloat a = fabs(x[0]);
    UNROLL for (uint i = 1; i < NV; i++) a = vmax(fabs(x[i]), a);
    float d = hmax(a) / 127.0f;
    int alive;
    float id = inverse(d, &alive);
    put_half(out, d);
    EACH(i) {
        vfloat v = x[i] * id;
        vstore_i8(to_int(v + copysign((vfloat)0.49999997f, v)) & alive, (NEAR char *)out + 2 + i * VW);
    }
}

inline void q8_0_load(NEAR const uchar *in, vfloat y[NV])
{
    float d = get_half(in);
    EACH(i) y[i] = to_float(vload_i8((NEAR const char *)in + 2 + i * VW)) * d;
}

__kernel GROUP void q8_0_encode(ENCODE32_ARGS)
{
    ENCODE32(q8_0_block, q8_0_load, sizeof(clq_block_q8_0));
}

__kernel GROUP void q8_0_decode(DECODE32_ARGS)
{
    DECODE32(q8_0_load, sizeof(clq_block_q8_0));
}

// SPDX-License-Identifier: MIT
// mxfp4: see host/format/mxfp4.c, the specification.
#include "fp4.cl"

// floor_log2f of the specification, for v > 0.
inline int floor_log2f(float v)
{
    int small = v < 0x1p-126f ? 32 : 0;
    uint bits = as_uint(small ? v * 0x1p32f : v);
    int n = (int)(bits >> 23) - 126 - small, size = n > 0 ? n - 1 : -n;
    if (n == 0 || n == 1) return n - 1;
    float part = as_float((bits & 0x7fffff) | 0x3f000000);
    float near = floor(0.6931472f * (float)(1 << (31 - (int)clz(size)))) * 0x1p-24f;
    return part >= 1.0f - near ? n : n - 1;
}

inline float step_of(uint e)
{
    return as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

inline void mxfp4_block(const vfloat x[NV], NEAR uchar *out)
{
    vfloat a = fabs(x[0]);
    UNROLL for (uint i = 1; i < NV; i++) a = vmax(fabs(x[i]), a);
    float largest = hmax(a);
    uint e = largest > 0.0f ? (uint)(floor_log2f(largest) + 125) & 255 : 0;
    vfloat d = step_of(e);
    vint q[NV];
    EACH(i) q[i] = fp4_index(x[i], d);
    out[0] = (uchar)e;
    put_nibbles(q, out + 1);
}

inline void mxfp4_load(NEAR const uchar *in, vfloat y[NV])
{
    float d = step_of(in[0]);
    vint q[NV];
    get_nibbles(in + 1, q);
    EACH(i) {
        vint m = q[i] & 7; // 0 1 2 3 4 6 8 12
        vint level = m + (m > 4 ? m - 4 : (vint)0) + (m == 7 ? (vint)2 : (vint)0);
        y[i] = to_float(q[i] > 7 ? -level : level) * d;
    }
}

__kernel GROUP void mxfp4_encode(ENCODE32_ARGS)
{
    ENCODE32(mxfp4_block, mxfp4_load, sizeof(clq_block_mxfp4));
}

__kernel GROUP void mxfp4_decode(DECODE32_ARGS)
{
    DECODE32(mxfp4_load, sizeof(clq_block_mxfp4));
}

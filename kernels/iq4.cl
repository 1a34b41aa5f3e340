// SPDX-License-Identifier: MIT
// What iq4_nl and iq4_xs share. The specification is host/format/iq4.c.
#ifndef CLQ_IQ4_CL
#define CLQ_IQ4_CL
#include "search.cl"

__constant float iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// APPLY(k, midpoint below level k, how much higher level k is)
#define IQ4_STEPS(APPLY)                                                                           \
    APPLY(1, -115.5f, 23.0f) APPLY(2, -93.5f, 21.0f) APPLY(3, -74.0f, 18.0f) APPLY(4, -57.0f, 16.0f) \
    APPLY(5, -42.0f, 14.0f) APPLY(6, -28.5f, 13.0f) APPLY(7, -16.0f, 12.0f) APPLY(8, -4.5f, 11.0f)   \
    APPLY(9, 7.0f, 12.0f) APPLY(10, 19.0f, 12.0f) APPLY(11, 31.5f, 13.0f) APPLY(12, 45.5f, 15.0f)    \
    APPLY(13, 61.0f, 16.0f) APPLY(14, 79.0f, 20.0f) APPLY(15, 101.0f, 24.0f)

// The nearest level itself.
inline vfloat iq4_level(vfloat v)
{
    vfloat level = -127.0f;
#define STEP_UP(k, middle, height) level += v >= middle ? (vfloat)height : (vfloat)0.0f;
    IQ4_STEPS(STEP_UP)
#undef STEP_UP
    return level;
}

inline vint iq4_index(vfloat v)
{
    vint index = 0;
#define STEP_UP(k, middle, height) index = v >= middle ? (vint)k : index;
    IQ4_STEPS(STEP_UP)
#undef STEP_UP
    return index;
}

// clq_iq4_fit; weight is read with IMPORTANCE only.
inline vfloat iq4_fit(const vfloat x[32], const vfloat weight[32])
{
    vfloat largest = 0.0f, signed_largest = 0.0f, scale = 0.0f, best = 0.0f;
    for (uint i = 0; i < 32; i++) {
        vfloat a = fabs(x[i]);
        signed_largest = a > largest ? x[i] : signed_largest;
        largest = vmax(a, largest);
    }
    vint dead = largest < 1e-15f;
    signed_largest = dead ? (vfloat)1.0f : signed_largest;
    for (int k = -8; k <= 7; k++) {
        vfloat inverse = k == -8 ? 1.0f / (-signed_largest / -127.0f) : ((float)k + -127.0f) / signed_largest;
        vfloat sum_qx = 0.0f, sum_qq = 0.0f;
        for (uint i = 0; i < 32; i++) {
            vfloat q = iq4_level(inverse * x[i]), w = IMPORTANCE ? weight[i] : x[i] * x[i];
            sum_qx += w * q * x[i];
            sum_qq += w * q * q;
        }
        vint better = k == -8 ? (vint)(VW == 1 ? 1 : -1) : (sum_qq > 0.0f) & (sum_qx * sum_qx > best * sum_qq);
        vfloat s = sum_qq > 0.0f ? sum_qx / sum_qq : (vfloat)0.0f;
        scale = better ? s : scale;
        best = better ? s * sum_qx : best;
    }
    return dead ? (vfloat)0.0f : scale;
}

// The 16 bytes of codes of x * inverse as four words.
inline void iq4_pack(const vfloat x[32], vfloat inverse, vint words[4])
{
    for (uint w = 0; w < 4; w++) {
        vint bytes[4];
        for (uint k = 0; k < 4; k++) bytes[k] = iq4_index(inverse * x[4 * w + k]) | iq4_index(inverse * x[4 * w + k + 16]) << 4;
        words[w] = four_bytes(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
}
#endif

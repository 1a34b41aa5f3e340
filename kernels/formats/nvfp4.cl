// SPDX-License-Identifier: MIT
// nvfp4: see host/format/nvfp4.c, the specification.
#include "fp4.cl"

// to_ue4m3 of the specification.
inline vint to_ue4m3(vfloat v)
{
    vint bits = as_i(vmin(v, (vfloat)448.0f));
    vint exponent = (bits >> 23) - 120, mantissa = (bits >> 20 & 7) + (bits >> 19 & 1);
    vint small = min(to_int(v * 512.0f + 0.5f), (vint)7);
    vint carry = mantissa > 7 ? (vint)1 : (vint)0;
    vint u = (exponent + carry) << 3 | (mantissa & 7);
    u = exponent + carry >= 15 ? (vint)0x7e : u;
    u = exponent <= 0 ? small : u;
    return v > 0.0f ? u : (vint)0;
}

// Half of the scale, of codes that to_ue4m3 makes.
inline vfloat half_scale(vint u)
{
    vfloat tiny = to_float(u) * 0x1p-10f;
    return u < 8 ? tiny : as_v((u + (119 << 3)) << 20);
}

inline void nvfp4_lanes(__global const src_t *x, size_t first, uint n_blocks, __global uchar *out)
{
    vint words[9], scale[4];
    for (uint s = 0; s < 4; s++) {
        vfloat v[16], largest = 0.0f;
        load_blocks(x, first, 64, n_blocks, 16 * s, 16, v);
        for (uint i = 0; i < 16; i++) largest = vmax(fabs(v[i]), largest);
        scale[s] = to_ue4m3(largest / 6.0f);
        vfloat d = half_scale(scale[s]);
        for (uint w = 0; w < 2; w++) {
            vint bytes[4];
            for (uint k = 0; k < 4; k++) bytes[k] = fp4_index(v[4 * w + k], d) | fp4_index(v[4 * w + k + 8], d) << 4;
            words[1 + 2 * s + w] = four_bytes(bytes[0], bytes[1], bytes[2], bytes[3]);
        }
    }
    words[0] = four_bytes(scale[0], scale[1], scale[2], scale[3]);
    put_words(words, 9, sizeof(clq_block_nvfp4), n_blocks, out);
}

inline void nvfp4_group(__global const uchar *in, uint j, float y[16])
{
    uint u = in[j];
    float d =
        u == 0x7f ? 0.0f : 0.5f * (u & 0x78 ? as_float(((u & 0x7f) + (120 << 3)) << 20) : (float)(u & 7) * 0x1p-9f);
    for (uint i = 0; i < 16; i++) y[i] = fp4_levels[in[4 + 8 * j + i % 8] >> (i < 8 ? 0 : 4) & 15] * d;
}

__kernel GROUP void nvfp4_encode(ENCODE32_ARGS)
{
    ENCODE_LANES(nvfp4_lanes, nvfp4_group, 64, sizeof(clq_block_nvfp4));
}

__kernel GROUP void nvfp4_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(nvfp4_group, 64, sizeof(clq_block_nvfp4));
}

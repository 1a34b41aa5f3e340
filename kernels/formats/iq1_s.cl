// SPDX-License-Identifier: MIT
// iq1_s: see host/format/iq1_s.c, the specification.
#define CB_GROUP 32
#define CB_PLAIN 2
#include "iq1.cl"

inline split best_split(const vfloat sorted_x[32], const vfloat sorted_w[32])
{
    vfloat sum_x[33], sum_w[33], end_x[33][2], end_w[33][2];
    sum_x[0] = sum_w[0] = 0.0f;
    for (uint k = 0; k < 32; k++) {
        sum_x[k + 1] = sum_x[k] + sorted_x[k];
        sum_w[k + 1] = sum_w[k] + sorted_w[k];
    }
    for (uint b = 0; b <= 32; b++) { // what level 2 adds behind b
        vfloat x = sum_x[32] - sum_x[b], w = sum_w[32] - sum_w[b];
        end_x[b][0] = x * 1.125f;
        end_x[b][1] = x * 0.875f;
        end_w[b][0] = w * 1.125f * 1.125f;
        end_w[b][1] = w * 0.875f * 0.875f;
    }
    split s = split_none();
    for (int a = 0; a <= 32; a++) {
        vfloat up_x = sum_x[a] * -0.875f, up_w = sum_w[a] * -0.875f * -0.875f;
        vfloat down_x = sum_x[a] * -1.125f, down_w = sum_w[a] * -1.125f * -1.125f;
        for (int b = a; b <= 32; b++) {
            vfloat x = (sum_x[b] - sum_x[a]) * 0.125f, w = (sum_w[b] - sum_w[a]) * 0.125f * 0.125f;
            split_try(&s, up_x + x + end_x[b][0], up_w + w + end_w[b][0], a, b, 0);
            split_try(&s, down_x - x + end_x[b][1], down_w + w + end_w[b][1], a, b, 1);
        }
    }
    return s;
}

inline void iq1_s_block(__global const src_t *x, size_t first, __global const float *importance,
                        __global const uint *table, __global uchar *out)
{
    float value[256], weight[256], scales[8], max_scale = 0.0f;
    bool downs[8];
    __global ushort *high = (__global ushort *)(out + 34);
    load_weighed(x, first, importance, value, weight, 0);
    for (uint j = 0; j < 8; j += VW) {
        vint rank[32], vectors[4];
        vfloat sorted_x[32], sorted_w[32];
        vfloat largest = sort_lanes(value, weight, j, rank, sorted_x, sorted_w);
        split s = best_split(sorted_x, sorted_w);
        split_vectors(&s, rank, vectors);
        s.found = largest < 1e-12f ? (vint)0 : s.found;
        for (uint l = 0; l < min(VW, 8); l++) {
            const float *own = value + 32 * (j + l), *w = weight + 32 * (j + l);
            bool found = ((const int *)&s.found)[l], off = false;
            float scale = found ? ((const float *)&s.scale)[l] : 0.0f, qx = 0.0f, qq = 0.0f;
            bool down = found && ((const int *)&s.side)[l] != scale < 0.0f;
            uint points[4], bits = 0;
            scale = fabs(scale);
            for (uint v = 0; v < 4; v++) {
                uint vector = ((const int *)&vectors[v])[l];
                points[v] = found ? iq1_point(table, vector, own + 8 * v, w + 8 * v, scale, down, &off) : cb_points[0];
                uint index = table[points[v]];
                out[2 + 4 * (j + l) + v] = (uchar)index;
                bits |= index >> 8 << 3 * v;
                iq1_sum(points[v], own + 8 * v, w + 8 * v, down, 1.0f, &qx, &qq);
            }
            high[j + l] = (ushort)bits;
            scales[j + l] = off && qx > 0.0f && qq > 0.0f ? qx / qq : scale;
            downs[j + l] = down;
            max_scale = vmax(scales[j + l], max_scale);
        }
    }
    float d = max_scale / 15.0f, inverse = 1.0f / d;
    far_put_half(out, d * 1.125f);
    if (max_scale == 0.0f) return;
    for (uint j = 0; j < 8; j++)
        high[j] |= (ushort)(nearest_code(0.5f * (inverse * scales[j] - 1.0f), 7) | (downs[j] ? 8 : 0)) << 12;
}

inline void iq1_s_group(__global const uchar *in, uint j, float y[16])
{
    uint high = ((__global const ushort *)(in + 34))[j / 2];
    float scale = far_half(in) * (float)(1 + 2 * (high >> 12 & 7));
    for (uint k = 0; k < 2; k++) {
        uint v = 2 * j + k, index = in[2 + v] | (high >> 3 * (v % 4) & 7) << 8;
        iq1_values(index, high >> 15, scale, y + 8 * k);
    }
}

__kernel GROUP void iq1_s_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq1_s_block, iq1_s_group, sizeof(clq_block_iq1_s));
}

__kernel GROUP void iq1_s_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq1_s_group, 256, sizeof(clq_block_iq1_s));
}

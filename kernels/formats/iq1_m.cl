// SPDX-License-Identifier: MIT
// iq1_m: see host/format/iq1_m.c, the specification.
#define CB_GROUP 16
#define CB_PLAIN 0
#include "iq1.cl"

// Each half of the group is moved on its own: side holds half 0's in bit 1, half 1's in bit 0 (set: down).
inline split best_split(const vfloat sorted_x[16], const vfloat sorted_w[16], const vint in_first[16])
{
    vfloat sum_x[2][17], sum_w[2][17], total_x[2][2], total_w[2][2];
    for (uint h = 0; h < 2; h++) {
        sum_x[h][0] = sum_w[h][0] = 0.0f;
        for (uint k = 0; k < 16; k++) {
            vint own = h == 0 ? in_first[k] : !in_first[k];
            sum_x[h][k + 1] = own ? sum_x[h][k] + sorted_x[k] : sum_x[h][k];
            sum_w[h][k + 1] = own ? sum_w[h][k] + sorted_w[k] : sum_w[h][k];
        }
        total_x[h][0] = sum_x[h][16] * 1.125f;
        total_x[h][1] = sum_x[h][16] * 0.875f;
        total_w[h][0] = sum_w[h][16] * 1.125f * 1.125f;
        total_w[h][1] = sum_w[h][16] * 0.875f * 0.875f;
    }
    split s = split_none();
    for (int a = 0; a <= 16; a++)
        for (int b = a; b <= 16; b++) {
            vfloat qx[2][2], qq[2][2]; // [half][down]
            UNROLL for (uint h = 0; h < 2; h++) {
                vfloat x = sum_x[h][a] + sum_x[h][b];
                qx[h][0] = total_x[h][0] - x;
                qx[h][1] = total_x[h][1] - x;
                qq[h][0] = total_w[h][0] + sum_w[h][a] * 0.75f + sum_w[h][b] * -1.25f;
                qq[h][1] = total_w[h][1] + sum_w[h][a] * 1.25f + sum_w[h][b] * -0.75f;
            }
            UNROLL for (int k = 0; k < 4; k++)
                split_try(&s, qx[0][k >> 1] + qx[1][k & 1], qq[0][k >> 1] + qq[1][k & 1], a, b, k);
        }
    return s;
}

inline void iq1_m_block(__global const src_t *x, size_t first, __global const float *importance,
                        __global const uint *table, __global uchar *out)
{
    float value[256], weight[256], scales[16], max_scale = 0.0f;
    ushort points[32];
    uchar sides[16];
    load_weighed(x, first, importance, value, weight, 0);
    for (uint j = 0; j < 16; j += VW) {
        vint rank[16], in_first[16], vectors[2];
        vfloat sorted_x[16], sorted_w[16];
        vfloat largest = sort_lanes(value, weight, j, rank, sorted_x, sorted_w);
        for (uint i = 0; i < 16; i++)
            for (uint l = 0; l < VW; l++)
                ((int *)&in_first[((const int *)&rank[i])[l]])[l] = i < 8 ? (VW == 1 ? 1 : -1) : 0;
        split s = best_split(sorted_x, sorted_w, in_first);
        split_vectors(&s, rank, vectors);
        s.found = largest < 1e-7f ? (vint)0 : s.found;
        for (uint l = 0; l < VW; l++) {
            const float *own = value + 16 * (j + l), *w = weight + 16 * (j + l);
            bool found = ((const int *)&s.found)[l], off = false;
            float scale = found ? ((const float *)&s.scale)[l] : 0.0f, qx = 0.0f, qq = 0.0f;
            uint side = found ? ((const int *)&s.side)[l] : 0;
            if (scale < 0.0f) side = 3 - side;
            scale = fabs(scale);
            for (uint v = 0; v < 2; v++) {
                uint vector = ((const int *)&vectors[v])[l];
                bool down = side >> (1 - v) & 1;
                uint point = found ? iq1_point(table, vector, own + 8 * v, w + 8 * v, scale, down, &off) : cb_points[0];
                points[2 * (j + l) + v] = (ushort)point;
                iq1_sum(point, own + 8 * v, w + 8 * v, down, 1.0f, &qx, &qq);
            }
            scales[j + l] = off && qx > 0.0f && qq > 0.0f ? qx / qq : scale;
            sides[j + l] = (uchar)side;
            max_scale = vmax(scales[j + l], max_scale);
        }
    }
    float d = max_scale / 15.0f, inverse = 1.0f / d, qx = 0.0f, qq = 0.0f;
    ushort words[4] = {0, 0, 0, 0};
    for (uint j = 0; j < 16; j++) {
        int code = nearest_code(0.5f * (inverse * scales[j] - 1.0f), 7);
        words[j / 4] |= (ushort)(code << 3 * (j % 4));
        uint high = 0;
        for (uint v = 0; v < 2; v++) {
            bool down = sides[j] >> (1 - v) & 1;
            uint index = table[points[2 * j + v]];
            out[2 * j + v] = (uchar)index;
            high |= (index >> 8 | (down && max_scale != 0.0f ? 8 : 0)) << 4 * v;
            uint at = 16 * j + 8 * v;
            iq1_sum(points[2 * j + v], value + at, weight + at, down, (float)(2 * code + 1), &qx, &qq);
        }
        out[32 + j] = (uchar)high;
    }
    if (qq > 0.0f) d = qx / qq;
    ushort bits = float_to_half_bits(d * 1.1125f);
    for (uint k = 0; k < 4; k++)
        ((__global ushort *)(out + 48))[k] = max_scale == 0.0f ? 0 : words[k] | (bits >> 4 * k & 15) << 12;
}

inline void iq1_m_group(__global const uchar *in, uint j, float y[16])
{
    __global const ushort *words = (__global const ushort *)(in + 48);
    ushort bits = words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12;
    float scale = half_bits_to_float(bits) * (float)(1 + 2 * (words[j / 4] >> 3 * (j % 4) & 7));
    for (uint k = 0; k < 2; k++) {
        uint high = in[32 + j] >> 4 * k & 15, index = in[2 * j + k] | (high & 7) << 8;
        iq1_values(index, high >> 3, scale, y + 8 * k);
    }
}

__kernel GROUP void iq1_m_encode(CODEBOOK_ARGS)
{
    ENCODE_BLOCKS(iq1_m_block, iq1_m_group, sizeof(clq_block_iq1_m));
}

__kernel GROUP void iq1_m_decode(DECODE32_ARGS)
{
    DECODE_GROUPS(iq1_m_group, 256, sizeof(clq_block_iq1_m));
}

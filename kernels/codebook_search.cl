// SPDX-License-Identifier: MIT
// The search of iq2 and iq3. The specification is host/format/codebook.c.
//
// In the `vec` form the lanes are candidate scales of one group: they meet the same elements, so that nothing is
// gathered but their points. Macros that the format sets, beside those of codebook.cl:
//
//   CB_N_LEVELS   levels of an element
//   CB_STEP, CB_SPAN   candidates -SPAN..SPAN, STEP apart
//   CB_SMALLEST   a group whose largest value is below it has scale 0
//   CB_EVEN       1: 7 sign bits for 8 elements
//   CB_REFIT      what is fitted again: 0 off-grid vectors, 1 all if any is off the grid, 2 all
#ifndef CLQ_CODEBOOK_SEARCH_CL
#define CLQ_CODEBOOK_SEARCH_CL
#include "codebook.cl"

#ifndef CB_STEP
#define CB_N_LEVELS 8
#define CB_STEP 0.2f
#define CB_SPAN 9
#define CB_SMALLEST 0.0f
#define CB_EVEN 0
#define CB_REFIT 1
#endif

// The point of one vector.
inline uint point_of(__global const uint *table, float inverse, float scale, const float *x, const float *root)
{
    uint v = 0;
    for (uint i = 0; i < CB_DIMS; i++) 
        v |= (uint)nearest_code(0.5f * (inverse * x[i] - 1.0f), CB_N_LEVELS - 1) << CB_BITS * i;
    uint entry = table[v];
    return entry & OFF_GRID ? nearest_candidate(table, entry, scale, 1.0f, 2.0f, x, root) : v;
}

#define N_CANDIDATES (2 * CB_SPAN + 1)
#define N_ROUNDS ((N_CANDIDATES + VW - 1) / VW)

// Fits a group of magnitudes; the index of its points and its scale (perhaps negative). range: the largest
// value; iq2_xxs: from its first fit, whose scale is `scale`.
inline float fit_group(__global const uint *table, const float *x, const float *weight, const float *root, float scale,
                       float range, uint *points)
{
    float best = 0.0f;
    uint off = CB_REFIT == 0 ? 0 : ~0u; // vectors to fit again
    uint trial[CB_VECTORS][VW];
    for (uint v = 0; v < CB_VECTORS; v++) points[v] = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        vint k = lane_index + (round * VW - CB_SPAN);
        vfloat inverse = ((2.0f * CB_N_LEVELS - 1.0f) + to_float(k) * CB_STEP) / range, size = 1.0f / inverse;
        vfloat sum_qx = 0.0f, sum_qq = 0.0f;
        uint n = min(N_CANDIDATES - round * VW, VW), off_grid[VW];
        const float *sizes = (const float *)&size, *all_qx = (const float *)&sum_qx, *all_qq = (const float *)&sum_qq;
        for (uint l = 0; l < VW; l++) off_grid[l] = 0;
        for (uint v = 0; v < CB_VECTORS; v++) {
            const float *own = x + v * CB_DIMS;
            vint vectors = 0;
            UNROLL for (uint i = 0; i < CB_DIMS; i++) {
                vint l = nearest(0.5f * (inverse * own[i] - 1.0f));
                vectors |= min(max(l, (vint)0), (vint)(CB_N_LEVELS - 1)) << (int)(CB_BITS * i);
            }
            vstore_int(vectors, (int *)trial[v]);
            for (uint l = 0; l < n; l++) {
                uint entry = table[trial[v][l]];
                if (!(entry & OFF_GRID)) continue;
                off_grid[l] |= 1u << v;
                trial[v][l] = nearest_candidate(table, entry, sizes[l], 1.0f, 2.0f, own, root + v * CB_DIMS);
            }
        }
        for (uint v = 0; v < CB_VECTORS; v++) { // apart, so that the loads do not wait for the stores above
            vint vectors = vload_int((const int *)trial[v]);
            UNROLL for (uint i = 0; i < CB_DIMS; i++) {
                vfloat q = to_float((vectors >> (int)(CB_BITS * i) & CB_MASK) * 2 + 1);
                float w = weight[v * CB_DIMS + i], wx = w * x[v * CB_DIMS + i];
                sum_qx += wx * q;
                sum_qq += w * q * q;
            }
        }
        for (uint l = 0; l < n; l++) {
            float qx = all_qx[l], qq = all_qq[l];
            if (!(qq > 0.0f && qx * qx > best * qq)) continue;
            scale = qx / qq;
            best = scale * qx;
            off = off_grid[l];
            for (uint v = 0; v < CB_VECTORS; v++) points[v] = trial[v][l];
        }
    }
    if (CB_REFIT == 2) off = ~0u;
    if (off && scale > 0.0f) {
        float sum_qx = 0.0f, sum_qq = 0.0f, inverse = 1.0f / scale;
        for (uint v = 0; v < CB_VECTORS; v++) {
            if (CB_REFIT != 0 || off >> v & 1)
                points[v] = point_of(table, inverse, scale, x + v * CB_DIMS, root + v * CB_DIMS);
            for (uint i = 0; i < CB_DIMS; i++) {
                float q = (float)((points[v] >> CB_BITS * i & CB_MASK) * 2 + 1), w = weight[v * CB_DIMS + i];
                sum_qx += w * x[v * CB_DIMS + i] * q;
                sum_qq += w * q * q;
            }
        }
        if (sum_qq > 0.0f) scale = sum_qx / sum_qq;
    }
    for (uint v = 0; v < CB_VECTORS; v++) points[v] = table[points[v]];
    return scale;
}

// A block of 256: what clq_codebook_fit holds.
typedef struct {
    float scale[256 / CB_GROUP], max_scale;
    uint stored; // bit j: group j is not zero
    ushort index[256 / CB_DIMS];
    uchar signs[32];
} block_fit;

// Magnitudes of 8 elements in place of their values; their sign bits.
inline uint take_signs(float *x, const float *weight)
{
    uint signs = 0, least = 0;
    float smallest = INFINITY;
    for (uint i = 0; i < 8; i++) {
        bool negative = !(x[i] >= 0.0f);
        if (CB_EVEN) {
            float w = weight[i] * x[i] * x[i];
            least = w < smallest ? i : least;
            smallest = w < smallest ? w : smallest;
        }
        signs |= negative ? 1u << i : 0;
        x[i] = negative ? -x[i] : x[i];
    }
    if (!CB_EVEN) return signs;
    if (popcount(signs) & 1) {
        x[least] = -x[least];
        signs ^= 1u << least;
    }
    return signs & 127;
}

#if CB_REFIT == 2
// iq2_xxs: the scales from which the candidates of the 8 groups start, a group a lane.
inline void first_fits(const float *x, const float *weight, float scale[8])
{
    for (uint j = 0; j < 8; j += VW) {
        vfloat v[32], w[32];
        vint q[32];
        float lanes[VW];
        for (uint i = 0; i < 32; i++) {
            for (uint l = 0; l < VW; l++) lanes[l] = x[32 * min(j + l, 7u) + i];
            v[i] = vload_f(lanes);
            for (uint l = 0; l < VW; l++) lanes[l] = weight[32 * min(j + l, 7u) + i];
            w[i] = vload_f(lanes);
        }
        vstore_f(fit_positive(v, w, 32, 4.0f, q), lanes);
        for (uint l = 0; l < min(VW, 8); l++) scale[j + l] = lanes[l];
    }
}
#endif

inline void fit_block(__global const src_t *x, size_t from, __global const float *importance,
                      __global const uint *table, block_fit *fit)
{
    float value[256], weight[256], root[256];
    load_weighed(x, from, importance, value, weight, root);
    fit->max_scale = 0.0f;
    fit->stored = 0;
    for (uint i = 0; i < 32; i++) fit->signs[i] = take_signs(value + 8 * i, weight + 8 * i);
#if CB_REFIT == 2
    float first[8];
    first_fits(value, weight, first);
#endif
    for (uint j = 0; j < 256 / CB_GROUP; j++) {
        const float *own = value + CB_GROUP * j;
        float largest = own[0];
        for (uint i = 1; i < CB_GROUP; i++) largest = vmax(own[i], largest);
        uint points[CB_VECTORS];
        bool zero = CB_SMALLEST > 0.0f ? largest < CB_SMALLEST : largest == 0.0f;
#if CB_REFIT == 2
        float scale = first[j], range = scale * CB_N_LEVELS;
        zero |= range <= 0.0f;
#else
        float scale = largest / (2.0f * CB_N_LEVELS - 1.0f), range = largest;
#endif
        for (uint v = 0; v < CB_VECTORS; v++) points[v] = 0;
        if (zero)
            scale = 0.0f;
        else
            scale = fit_group(table, own, weight + CB_GROUP * j, root + CB_GROUP * j, scale, range, points);
        fit->stored |= zero ? 0 : 1u << j;
        uint flip = zero ? 0 : scale < 0.0f ? (CB_EVEN ? 127 : 255) : 0;
        for (uint i = CB_GROUP / 8 * j; i < CB_GROUP / 8 * (j + 1); i++)
            fit->signs[i] = zero ? 0 : fit->signs[i] ^ flip;
        for (uint v = 0; v < CB_VECTORS; v++) fit->index[CB_VECTORS * j + v] = (ushort)points[v];
        fit->scale[j] = fabs(scale);
        fit->max_scale = vmax(fit->scale[j], fit->max_scale);
    }
}

// The scale codes of a block; d. Where all scales are 0, d and the codes are 0.
inline float scale_codes(const block_fit *fit, uchar codes[256 / CB_GROUP])
{
    float d = fit->max_scale / 31.0f, inverse = 1.0f / d;
    for (uint j = 0; j < 256 / CB_GROUP; j++)
        codes[j] = d == 0.0f ? 0 : (uchar)nearest_code(0.5f * (inverse * fit->scale[j] - 1.0f), 15);
    return d;
}

// 4 x 7 sign bits and a scale code, a little-endian word at an even address.
inline void put_signs(const uchar signs[4], uint code, __global uchar *out)
{
    uint word = signs[0] | (uint)signs[1] << 7 | (uint)signs[2] << 14 | (uint)signs[3] << 21 | code << 28;
    ((__global ushort *)out)[0] = (ushort)word;
    ((__global ushort *)out)[1] = (ushort)(word >> 16);
}

inline uint get_word(__global const uchar *in)
{
    return ((__global const ushort *)in)[0] | (uint)((__global const ushort *)in)[1] << 16;
}

// The eighth sign bit makes the number of set ones even.
inline uint even_signs(uint seven)
{
    return seven | (popcount(seven) & 1) << 7;
}
#endif

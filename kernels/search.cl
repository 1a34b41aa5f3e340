// SPDX-License-Identifier: MIT
// Scale searches over lanes: a lane of a vector is a block of its own, so that no operation crosses
// lanes and the body is the same for every VW. The specification is host/format/search.c.
#ifndef CLQ_SEARCH_CL
#define CLQ_SEARCH_CL
#include "common.cl"

#if VW == 1
#define ANY(v) ((v) != 0)
#define half_bits(v) ((int)float_to_half_bits(v))
#define half_value(v) half_bits_to_float((ushort)(v))
#define COLUMN(p, stride) (*(p))
#else
#define ANY(v) any(v)
#define half_bits(v) CAT(convert_int, VW)(vhalf_bits(v))
#define half_value(v) vhalf_value(CAT(convert_ushort, VW)(v))
#if VW == 4
#define COLUMN(p, s) ((float4)((p)[0], (p)[s], (p)[2 * (s)], (p)[3 * (s)]))
#elif VW == 8
#define COLUMN(p, s)                                                                               \
    ((float8)((p)[0], (p)[s], (p)[2 * (s)], (p)[3 * (s)], (p)[4 * (s)], (p)[5 * (s)], (p)[6 * (s)], (p)[7 * (s)]))
#else
#define COLUMN(p, s)                                                                               \
    ((float16)((p)[0], (p)[s], (p)[2 * (s)], (p)[3 * (s)], (p)[4 * (s)], (p)[5 * (s)], (p)[6 * (s)], (p)[7 * (s)], \
               (p)[8 * (s)], (p)[9 * (s)], (p)[10 * (s)], (p)[11 * (s)], (p)[12 * (s)], (p)[13 * (s)],             \
               (p)[14 * (s)], (p)[15 * (s)]))
#endif
#endif

// The n (16 or 32) elements at `offset` of VW blocks of `block` elements, block b in lane b; lanes behind
// the last of n_blocks repeat it.
inline void load_blocks(__global const src_t *x, size_t first, uint block, uint n_blocks, uint offset, uint n,
                        vfloat *v)
{
#if VW == 1
    for (uint i = 0; i < n; i++) v[i] = src_get(x, first + offset + i);
#else
    float rows[VW * 32];
    for (uint l = 0; l < VW; l++) {
        size_t at = first + (size_t)min(l, n_blocks - 1) * block + offset;
        for (uint i = 0; i < n; i += VW) vstore_f(src_load(x, at + i), rows + l * 32 + i);
    }
    for (uint i = 0; i < n; i++) v[i] = COLUMN(rows + i, 32);
#endif
}

#define load_lanes(x, first, n_blocks, offset, n, v) load_blocks(x, first, 256, n_blocks, offset, n, v)

// ---- importance ----

// The importance of the blocks that a vector's lanes hold: `row` weighs the elements of every row, which has
// `per_row` blocks; lane 0 holds block `block` of the tile.
#if IMPORTANCE
typedef struct {
    __global const float *row;
    uint block, per_row;
#if IMPORTANCE == 2
    __global const float *mean_squares; // a row each
#endif
} importance_at;
#if IMPORTANCE == 2
#define ENCODE_ARGS                                                                                \
    ENCODE32_ARGS, __global const float *restrict importance, uint blocks_per_row,                 \
        __global const float *restrict mean_squares
#define IMPORTANCE_OF(b) , (importance_at) { importance, b, blocks_per_row, mean_squares }
#else
#define ENCODE_ARGS ENCODE32_ARGS, __global const float *restrict importance, uint blocks_per_row
#define IMPORTANCE_OF(b) , (importance_at) { importance, b, blocks_per_row }
#endif
#define IMPORTANCE_PARAM , importance_at at
#define IMPORTANCE_PASS , at

// As load_blocks, of the importance.
inline void load_importance(importance_at at, uint block, uint n_blocks, uint offset, uint n, vfloat *w)
{
#if VW == 1
    __global const float *from = at.row + (size_t)(at.block % at.per_row) * block + offset;
    for (uint i = 0; i < n; i++) w[i] = from[i];
#else
    float rows[VW * 32];
    for (uint l = 0; l < VW; l++) {
        __global const float *from = at.row + (size_t)((at.block + min(l, n_blocks - 1)) % at.per_row) * block + offset;
        for (uint i = 0; i < n; i += VW) vstore_f(vload_f(from + i), rows + l * 32 + i);
    }
    for (uint i = 0; i < n; i++) w[i] = COLUMN(rows + i, 32);
#endif
}

// clq_weigh of the n elements at `offset`, which v holds.
inline void weigh(importance_at at, uint block, uint n_blocks, uint offset, uint n, const vfloat *v, vfloat sigma2,
                  vfloat *w)
{
    load_importance(at, block, n_blocks, offset, n, w);
    for (uint i = 0; i < n; i++) w[i] *= sqrt(sigma2 + v[i] * v[i]);
}

// clq_sum_squares of blocks of 256.
inline vfloat sum_squares_256(__global const src_t *x, size_t first, uint n_blocks)
{
    vfloat v[32], sum = 0.0f;
    for (uint j = 0; j < 8; j++) {
        load_lanes(x, first, n_blocks, 32 * j, 32, v);
        for (uint i = 0; i < 32; i++) sum += v[i] * v[i];
    }
    return sum;
}

#if IMPORTANCE == 2
// The mean squares of the rows that the lanes' blocks stand in.
inline vfloat row_mean_square(importance_at at, uint n_blocks)
{
#if VW == 1
    return at.mean_squares[at.block / at.per_row];
#else
    float lanes[VW];
    for (uint l = 0; l < VW; l++) lanes[l] = at.mean_squares[(at.block + min(l, n_blocks - 1)) / at.per_row];
    return vload_f(lanes);
#endif
}
#endif
#else
#define ENCODE_ARGS ENCODE32_ARGS
#define IMPORTANCE_OF(b)
#define IMPORTANCE_PARAM
#define IMPORTANCE_PASS
#endif

// clq_nearest, with its results for infinities and NaN (0, as of x86's NaN; other devices have other bits in it).
inline vint nearest(vfloat v)
{
    vint l = (as_i(v + 12582912.0f) & 0x7fffff) - 0x400000;
#if VW == 1
    l = v == v ? l : 0;
#endif
    return l;
}

inline vfloat clamp_v(vfloat v, float low, float high)
{
    v = vmax(v, (vfloat)low);
    return vmin(v, (vfloat)high);
}

// An infinite factor makes every code 0 in the specification.
inline vfloat usable(vfloat inverse)
{
    return fabs(inverse) <= FLT_MAX ? inverse : (vfloat)0.0f;
}

// How the codes of a fit are made: nearest(inverse * (x - low)), clamped.
typedef struct {
    vfloat inverse, low;
} code_rule;

// clq_fit_affine. n: 16 or 32.
inline vfloat fit_affine(const vfloat *x, const vfloat *w, uint n, float q_max, float first, float step, int n_steps,
                         bool absolute, vfloat *min_out, code_rule *rule)
{
    vfloat low = x[0], high = x[0], sum_w = w[0], sum_x = w[0] * x[0];
    for (uint i = 1; i < n; i++) {
        low = vmin(x[i], low);
        high = vmax(x[i], high);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    low = low > 0.0f ? (vfloat)0.0f : low;
    vfloat flat_low = low, inverse = q_max / (high - low), scale = 1.0f / inverse, best = 0.0f;
    vint flat = high == low;
    rule->inverse = usable(inverse);
    rule->low = low;
    for (uint i = 0; i < n; i++) {
        vfloat q = clamp_v(round_even(rule->inverse * (x[i] - low)), 0.0f, q_max);
        vfloat e = scale * q + low - x[i];
        best += w[i] * (absolute ? fabs(e) : e * e);
    }
    for (int k = 0; k <= n_steps; k++) {
        vfloat q[32], sum_q = 0.0f, sum_qq = 0.0f, sum_qx = 0.0f, error = 0.0f;
        inverse = usable((first + step * (float)k + q_max) / (high - low));
        for (uint i = 0; i < n; i++) {
            q[i] = clamp_v(round_even(inverse * (x[i] - low)), 0.0f, q_max);
            vfloat wq = w[i] * q[i];
            sum_q += wq;
            sum_qq += wq * q[i];
            sum_qx += wq * x[i];
        }
        vfloat det = sum_w * sum_qq - sum_q * sum_q;
        vfloat s = (sum_w * sum_qx - sum_x * sum_q) / det, m = (sum_qq * sum_x - sum_q * sum_qx) / det;
        s = m > 0.0f ? sum_qx / sum_qq : s;
        m = m > 0.0f ? (vfloat)0.0f : m;
        for (uint i = 0; i < n; i++) {
            vfloat e = s * q[i] + m - x[i];
            error += w[i] * (absolute ? fabs(e) : e * e);
        }
        vint better = (det > 0.0f) & (error < best);
        rule->inverse = better ? inverse : rule->inverse;
        rule->low = better ? low : rule->low;
        best = better ? error : best;
        scale = better ? s : scale;
        low = better ? m : low;
    }
    rule->inverse = flat ? (vfloat)0.0f : rule->inverse;
    *min_out = -(flat ? flat_low : low);
    return flat ? (vfloat)0.0f : scale;
}

// clq_fit_symmetric; weight is read with IMPORTANCE only. rule->low is 0; where the scale is 0 for want of
// magnitude, `dead`.
inline vfloat fit_symmetric(const vfloat *x, const vfloat *weight, uint n, float q_max, code_rule *rule, vint *dead)
{
    vfloat largest = 0.0f, signed_largest = 0.0f;
    for (uint i = 0; i < n; i++) {
        vfloat a = fabs(x[i]);
        signed_largest = a > largest ? x[i] : signed_largest;
        largest = vmax(a, largest);
    }
    *dead = largest < 1e-15f;
    vfloat divisor = *dead ? (vfloat)1.0f : signed_largest, scale = 0.0f, best = 0.0f;
    rule->low = 0.0f;
    for (int k = -10; k <= 9; k++) {
        if (k == 0) continue;
        float numerator = k == -10 ? -q_max : -(q_max + 0.1f * (float)k);
        vfloat inverse = numerator / divisor, sum_qx = 0.0f, sum_qq = 0.0f;
        for (uint i = 0; i < n; i++) {
            vfloat l = clamp_v(round_even(inverse * x[i]), -q_max, q_max - 1.0f),
                   w = IMPORTANCE ? weight[i] : x[i] * x[i];
            sum_qx += w * x[i] * l;
            sum_qq += w * l * l;
        }
        vint better = k == -10 ? (vint)(VW == 1 ? 1 : -1) : (sum_qq > 0.0f) & (sum_qx * sum_qx > best * sum_qq);
        vfloat s = sum_qq != 0.0f ? sum_qx / sum_qq : (vfloat)0.0f;
        rule->inverse = better ? inverse : rule->inverse;
        scale = better ? s : scale;
        best = better ? s * sum_qx : best;
    }
    return *dead ? (vfloat)0.0f : scale;
}

// clq_fit_positive; codes below 256.
inline vfloat fit_positive(const vfloat *x, const vfloat *w, uint n, float q_max, vint *q)
{
    vfloat largest = 0.0f, best = 0.0f, sum_qx = 0.0f, sum_qq = 0.0f;
    vint most = (vint)(int)q_max;
    for (uint i = 0; i < n; i++) largest = vmax(x[i], largest);
    vint dead = largest < 1e-15f;
    largest = dead ? (vfloat)1.0f : largest;
    vfloat inverse = q_max / largest;
    for (int k = -5; k <= 4; k++) {
        if (k == 0) continue;
        vfloat trial = k == -5 ? inverse : (0.1f * (float)k + q_max) / largest, scale = 1.0f / trial, error = 0.0f;
        for (uint i = 0; i < n; i++) {
            vint l = nearest(trial * x[i]);
            vfloat e = x[i] - scale * to_float(k == -5 ? l & 255 : min(l, most));
            error += w[i] * e * e;
        }
        vint better = k == -5 ? (vint)(VW == 1 ? 1 : -1) : error < best;
        best = better ? error : best;
        inverse = better ? trial : inverse;
    }
    for (uint i = 0; i < n; i++) {
        vint l = min(nearest(inverse * x[i]), most);
        vfloat f = to_float(l);
        q[i] = l & 255;
        sum_qx += w[i] * x[i] * f;
        sum_qq += w[i] * f * f;
    }
    vint moving = dead ? (vint)0 : (vint)-1; // lanes whose last sweep changed something
    for (int sweep = 0; sweep < 5 && ANY(moving); sweep++) {
        vint changed = 0;
        for (uint i = 0; i < n; i++) {
            vfloat l = to_float(q[i]), qx = sum_qx - w[i] * x[i] * l, qq = sum_qq - w[i] * l * l;
            vint m = min(nearest(x[i] * qq / qx), most);
            vfloat f = to_float(m), new_qx = qx + w[i] * x[i] * f, new_qq = qq + w[i] * f * f;
            vint take = (qx > 0.0f) & (qq > 0.0f) & (m != q[i]) & (new_qx * new_qx * sum_qq > sum_qx * sum_qx * new_qq);
            take = moving ? take : (vint)0;
            q[i] = take ? m & 255 : q[i];
            sum_qx = take ? new_qx : sum_qx;
            sum_qq = take ? new_qq : sum_qq;
            changed |= take;
        }
        moving = changed;
    }
    for (uint i = 0; i < n; i++) q[i] = dead ? (vint)0 : q[i];
    vfloat scale = sum_qq > 0.0f ? sum_qx / sum_qq : (vfloat)0.0f;
    return dead ? (vfloat)0.0f : scale;
}

// ---- formats that are encoded a block a lane ----
//
// A format gives
//   void NAME_lanes(x, first, n_blocks, out IMPORTANCE_PARAM)   encodes n_blocks (1..VW) blocks, a lane each
//   void NAME_group(in, j, y)                                  decodes the 16 elements from 16 j on
// Words are stored lane by lane; a block is words, then perhaps a half.

inline void put_words(const vint *words, uint n_words, uint block_bytes, uint n_blocks, __global uchar *out)
{
    for (uint w = 0; w < n_words; w++) {
        const int *lanes = (const int *)&words[w];
        for (uint l = 0; l < n_blocks; l++) {
            __global uchar *to = out + l * block_bytes + 4 * w;
            ((__global ushort *)to)[0] = (ushort)lanes[l];
            ((__global ushort *)to)[1] = (ushort)(lanes[l] >> 16);
        }
    }
}

inline void put_halves(vint half_bits_of, uint offset, uint block_bytes, uint n_blocks, __global uchar *out)
{
    const int *lanes = (const int *)&half_bits_of;
    for (uint l = 0; l < n_blocks; l++) *(__global ushort *)(out + l * block_bytes + offset) = (ushort)lanes[l];
}

inline float far_half(__global const uchar *p)
{
    return half_bits_to_float(*(__global const ushort *)p);
}

// VW bytes as ints, for decoders.
#define FAR_BYTES(p) (vload_i8((__global const char *)(p)) & 255)

// Four codes (below 256) as the bytes of a word.
inline vint four_bytes(vint a, vint b, vint c, vint d)
{
    return a | b << 8 | c << 16 | d << 24;
}

#define ENCODE_LANES(LANES, DECODE_GROUP, ELEMENTS, BYTES)                                         \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    cost c = cost_zero();                                                                          \
    for (uint b = begin + (WG ? get_local_id(0) : 0); b < end; b += WG ? UNITS : VW) {             \
        uint n = min(end - b, (uint)VW);                                                           \
        __global uchar *to = out + (size_t)b * (BYTES);                                            \
        LANES(x, first + (size_t)b * (ELEMENTS), n, to IMPORTANCE_OF(b));                          \
        for (uint l = 0; l < n; l++)                                                               \
            for (uint j = 0; j < (ELEMENTS) / 16; j++) {                                           \
                float own[16];                                                                     \
                DECODE_GROUP(to + l * (BYTES), j, own);                                            \
                size_t at = first + (size_t)(b + l) * (ELEMENTS) + j * 16;                         \
                for (uint i = 0; i < 16; i += VW) cost_add(&c, src_load(x, at + i), vload_f(own + i)); \
            }                                                                                      \
    }                                                                                              \
    FINISH_LANES

#if WG
#define FINISH_LANES __local tile_stats near_stats[UNITS]; cost_reduce(cost_total(&c), near_stats, stats)
#else
#define FINISH_LANES stats[get_group_id(0)] = cost_total(&c)
#endif

#define DECODE_GROUPS(DECODE_GROUP, ELEMENTS, BYTES)                                               \
    uint begin = get_group_id(0) * UNITS, end = min(begin + UNITS, n_blocks);                      \
    for (uint b = begin + (WG ? get_local_id(0) : 0); b < end; b += WG ? UNITS : 1)                \
        for (uint j = 0; j < (ELEMENTS) / 16; j++) {                                               \
            float own[16];                                                                         \
            DECODE_GROUP(in + first + (size_t)b * (BYTES), j, own);                                \
            for (uint i = 0; i < 16; i += VW) vstore_f(vload_f(own + i), y + (size_t)b * (ELEMENTS) + j * 16 + i); \
        }

#endif

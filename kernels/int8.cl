// SPDX-License-Identifier: MIT
// Activations rounded to int8 (CLQ_QUANT_*), and products of int8 weights with them whose sums are int32 (CLQ_MODE_I8):
// see include/clquant_steps.h. The C references, which give the same bits, are in host/ops/int8.c.
//
//   DOT_PRODUCT  1: there are dot products of packed int8
#ifndef CLQ_INT8_CL
#define CLQ_INT8_CL
#include "linear.cl"

#ifndef DOT_PRODUCT
#define DOT_PRODUCT 0
#endif

#define MAGNITUDE(x) (as_uint(x) & 0x7fffffffu) // ordered as |x|, NaN above infinity
#define INFINITE 0x7f800000u

// ---- activations ----

typedef struct {
    float scale; // 0: everything is 0
    int zero_point;
    int least; // code
} quantizer;

// The largest magnitude of a row of activations; in the wg form of this item's part.
inline uint row_magnitude(__global const float *row, uint cols)
{
    uint8 most = 0;
    uint rest = 0, whole = cols / 8 * 8;
    for (uint i = 8 * LID; i < whole; i += 8 * LSIZE) most = max(most, as_uint8(vload8(0, row + i)) & 0x7fffffffu);
    for (uint i = whole + LID; i < cols; i += LSIZE) rest = max(rest, MAGNITUDE(row[i]));
    uint4 m = max(most.lo, most.hi);
    return max(rest, max(max(m.x, m.y), max(m.z, m.w)));
}

// A magnitude that is not finite goes to the word at `status`: the tag, unless another is there.
inline void look_for_bad(place at, __global const clq_step *s, uint magnitude)
{
    if (magnitude >= INFINITE && s->tag)
        atomic_cmpxchg((volatile __global uint *)at.state + s->status, 0u, s->tag);
}

inline quantizer quantizer_of(float scale, int zero_point, int least)
{
    quantizer q = {scale >= FLT_MIN && scale <= FLT_MAX ? scale : 0.0f, zero_point, least};
    if (q.scale == 0.0f) q.zero_point = 0;
    return q;
}

// magnitude: the row's, for CLQ_QUANT_TOKEN.
inline quantizer find_quantizer(place at, __global const clq_step *s, uint magnitude)
{
    if (s->quant == CLQ_QUANT_TOKEN) return quantizer_of(as_float(magnitude) / 127.0f, 0, -127);
    if (s->quant == CLQ_QUANT_STATIC) {
        quantizer q = {s->scale, s->zero_point, -128};
        return q;
    }
    float low = 0.0f, high = 0.0f;
    __global const float *ranges = at.state + s->in2;
    for (uint t = 0; t < s->tokens; t++) {
        low = fmin(low, ranges[2 * t]);
        high = fmax(high, ranges[2 * t + 1]);
    }
    float scale = (high - low) / 255.0f;
    return quantizer_of(scale, (int)fmin(rint(-low / scale), 255.0f) - 128, -128);
}

// Code minus zero-point of each value.
inline float8 steps_of(quantizer q, float8 x)
{
    if (q.scale == 0.0f) return 0.0f;
    float8 y = fmin(fmax(x / q.scale, (float)(q.least - q.zero_point)), (float)(127 - q.zero_point));
    return round_even(y);
}
inline int8 codes_of(quantizer q, float8 x) { return convert_int8_rtz(steps_of(q, x)) + q.zero_point; }

// Columns [i, i + 8) of a row of activations, zeros behind it.
inline float8 columns8(__global const float *row, uint i, uint cols)
{
    if (i + 8 <= cols) return vload8(0, row + i);
    float v[8];
    for (uint k = 0; k < 8; k++) v[k] = i + k < cols ? row[i + k] : 0.0f;
    return vload8(0, v);
}
inline int8 codes8(quantizer q, __global const float *row, uint i, uint cols)
{
    int8 c = codes_of(q, columns8(row, i, cols));
    return i + 8 <= cols ? c : (int8)(0, 1, 2, 3, 4, 5, 6, 7) + (int)i < (int8)(int)cols ? c : 0;
}
inline int sum_int8(int8 v)
{
    int4 h = v.lo + v.hi;
    return h.x + h.y + (h.z + h.w);
}

typedef struct {
    float scale;
    int zero_point, sum, unused;
} i8_token;

inline void put_token(__global float *to, quantizer q, int sum)
{
    i8_token token = {q.scale, q.zero_point, sum, 0};
    *(__global i8_token *)to = token;
}

#define TRANSPOSE_8X8(V, OUT, STEP)                                                                                    \
    {                                                                                                                  \
        float8 a = V(0), b = V(1), c = V(2), d = V(3), e = V(4), f = V(5), g = V(6), h = V(7);                         \
        vstore8((float8)(a.s0, b.s0, c.s0, d.s0, e.s0, f.s0, g.s0, h.s0), 0, (OUT));                                   \
        vstore8((float8)(a.s1, b.s1, c.s1, d.s1, e.s1, f.s1, g.s1, h.s1), 0, (OUT) + (STEP));                          \
        vstore8((float8)(a.s2, b.s2, c.s2, d.s2, e.s2, f.s2, g.s2, h.s2), 0, (OUT) + 2 * (STEP));                      \
        vstore8((float8)(a.s3, b.s3, c.s3, d.s3, e.s3, f.s3, g.s3, h.s3), 0, (OUT) + 3 * (STEP));                      \
        vstore8((float8)(a.s4, b.s4, c.s4, d.s4, e.s4, f.s4, g.s4, h.s4), 0, (OUT) + 4 * (STEP));                      \
        vstore8((float8)(a.s5, b.s5, c.s5, d.s5, e.s5, f.s5, g.s5, h.s5), 0, (OUT) + 5 * (STEP));                      \
        vstore8((float8)(a.s6, b.s6, c.s6, d.s6, e.s6, f.s6, g.s6, h.s6), 0, (OUT) + 6 * (STEP));                      \
        vstore8((float8)(a.s7, b.s7, c.s7, d.s7, e.s7, f.s7, g.s7, h.s7), 0, (OUT) + 7 * (STEP));                      \
    }

#if WG
// A group takes a token.
inline void prep_i8_rows(place at, __global const clq_step *s, __local float *near)
{
    uint k = CLQ_PREP_K(s->cols);
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *row = at.state + s->in + (size_t)t * s->in_stride;
        __global float *out = at.state + s->out + (size_t)t * (k / 4 + 4);
        uint magnitude = group_max_uint(row_magnitude(row, s->cols), near);
        quantizer q = find_quantizer(at, s, magnitude);
        int sum = 0;
        for (uint i = 8 * LID; i < k; i += 8 * LSIZE) {
            int8 c = codes8(q, row, i, s->cols);
            ((__global char8 *)out)[i / 8] = convert_char8(c);
            sum += sum_int8(c);
        }
        sum = group_sum_int(sum, near);
        if (LID == 0) {
            look_for_bad(at, s, magnitude);
            put_token(out + k / 4, q, sum);
        }
    }
}

// A group takes a panel of 16 tokens, four items each.
inline void prep_i8_panels(place at, __global const clq_step *s, __local float *near)
{
    uint k16 = (s->cols + 15) / 16 * 16, panels = (s->tokens + 15) / 16, lane = LID % 16, part = LID / 16;
    __local uint *magnitudes = (__local uint *)near;
    __local int *sums = (__local int *)near + UNITS;
    for (uint panel = at.group; panel < panels; panel += at.n_groups) {
        uint t = panel * 16 + lane;
        bool there = t < s->tokens;
        __global const float *row = at.state + s->in + (size_t)(there ? t : 0) * s->in_stride;
        __global uint *out = (__global uint *)(at.state + s->out) + (size_t)panel * k16 * 8 + lane;
        uint magnitude = 0;
        for (uint i = part; there && i < s->cols; i += 4) magnitude = max(magnitude, MAGNITUDE(row[i]));
        barrier(CLK_LOCAL_MEM_FENCE);
        magnitudes[LID] = magnitude;
        barrier(CLK_LOCAL_MEM_FENCE);
        magnitude = max(max(magnitudes[lane], magnitudes[lane + 16]), max(magnitudes[lane + 32], magnitudes[lane + 48]));
        quantizer q = {0.0f, 0, 0};
        if (there) q = find_quantizer(at, s, magnitude);
        int sum = 0;
        for (uint i = 8 * part; i < k16; i += 32) {
            int8 c = 0;
            if (there) c = codes8(q, row, i, s->cols);
            int4 pairs = (c.even & 0xffff) | c.odd << 16;
            out[i / 2 * 16] = pairs.x;
            out[i / 2 * 16 + 16] = pairs.y;
            out[i / 2 * 16 + 32] = pairs.z;
            out[i / 2 * 16 + 48] = pairs.w;
            sum += sum_int8(c);
        }
        sums[LID] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (part == 0) {
            look_for_bad(at, s, magnitude);
            put_token(at.state + s->out + (size_t)panels * k16 * 8 + (size_t)t * 4, q,
                      sums[lane] + sums[lane + 16] + sums[lane + 32] + sums[lane + 48]);
        }
    }
}
#else
inline void prep_i8_rows(place at, __global const clq_step *s)
{
    uint k = CLQ_PREP_K(s->cols);
    for (uint t = at.group; t < s->tokens; t += at.n_groups) {
        __global const float *row = at.state + s->in + (size_t)t * s->in_stride;
        __global float *out = at.state + s->out + (size_t)t * (k / 4 + 4);
        uint magnitude = row_magnitude(row, s->cols);
        quantizer q = find_quantizer(at, s, magnitude);
        int8 sum = 0;
        look_for_bad(at, s, magnitude);
        for (uint i = 0; i < k; i += 8) {
            int8 c = codes8(q, row, i, s->cols);
            ((__global char8 *)out)[i / 8] = convert_char8(c);
            sum += c;
        }
        put_token(out + k / 4, q, sum_int8(sum));
    }
}

inline void prep_i8_panels(place at, __global const clq_step *s)
{
    uint k16 = (s->cols + 15) / 16 * 16, panels = (s->tokens + 15) / 16;
    for (uint panel = at.group; panel < panels; panel += at.n_groups) {
        quantizer q[16];
        int sums[16];
        for (uint lane = 0; lane < 16; lane++) {
            uint t = panel * 16 + lane;
            sums[lane] = 0;
            q[lane] = quantizer_of(0.0f, 0, 0);
            if (t >= s->tokens) continue;
            uint magnitude = row_magnitude(at.state + s->in + (size_t)t * s->in_stride, s->cols);
            look_for_bad(at, s, magnitude);
            q[lane] = find_quantizer(at, s, magnitude);
        }
        __global float *out = at.state + s->out + (size_t)panel * k16 * 8; // words of two codes
        for (uint i = 0; i < k16; i += 16) {
            float pairs[16][8];
            for (uint lane = 0; lane < 16; lane++) {
                uint t = panel * 16 + lane;
                int8 a = 0, b = 0;
                if (t < s->tokens) {
                    __global const float *row = at.state + s->in + (size_t)t * s->in_stride;
                    a = codes8(q[lane], row, i, s->cols);
                    b = codes8(q[lane], row, i + 8, s->cols);
                }
                sums[lane] += sum_int8(a + b);
                vstore8(as_float8((int8)((a.even & 0xffff) | a.odd << 16, (b.even & 0xffff) | b.odd << 16)), 0,
                        pairs[lane]);
            }
#define LOW_LANES(n) vload8(0, pairs[n])
#define HIGH_LANES(n) vload8(0, pairs[n + 8])
            TRANSPOSE_8X8(LOW_LANES, out + i * 8, 16)
            TRANSPOSE_8X8(HIGH_LANES, out + i * 8 + 8, 16)
#undef LOW_LANES
#undef HIGH_LANES
        }
        for (uint lane = 0; lane < 16; lane++)
            put_token(at.state + s->out + (size_t)panels * k16 * 8 + (panel * 16 + lane) * 4, q[lane], sums[lane]);
    }
}
#endif

// ---- products ----

// What a row's weights add to its products.
typedef struct {
    float scale, bias;
    int zero_point, sum;
} i8_row;

inline i8_row i8_row_at(place at, __global const clq_step *s, uint row)
{
    uint g = s->groups ? row : 0;
    i8_row r;
    r.scale = ((__global const float *)(at.weights + s->scales))[g];
    r.zero_point = s->zero_points == CLQ_NONE ? 0 : ((__global const char *)(at.weights + s->zero_points))[g];
    r.sum = ((__global const int *)(at.weights + s->code_sums))[row];
    r.bias = s->bias == CLQ_NONE ? 0.0f : ((__global const float *)(at.weights + s->bias))[row];
    return r;
}

inline void put_i8(place at, __global const clq_step *s, uint t, uint row, i8_row r, i8_token x, int acc)
{
    // Fits into 32 bits in the end, but not on the way.
    uint v = (uint)acc - (uint)x.zero_point * (uint)r.sum - (uint)r.zero_point * (uint)x.sum +
             s->cols * (uint)x.zero_point * (uint)r.zero_point;
    float y = (float)(int)v * (x.scale * r.scale);
    __global float *out = at.state + s->out + (size_t)t * s->out_stride + row;
    if (s->bias != CLQ_NONE) y += r.bias;
    *out = s->flags & CLQ_STEP_ACCUMULATE ? *out + y : y;
}

// acc + four products of int8, packed.
#if DOT_PRODUCT // cl_khr_integer_dot_product: the host has tried it
#define DOT4(a, b, acc) ((acc) + dot_4x8packed_ss_int(a, b))
#else
inline int dot4(uint a, uint b, int acc)
{
    char4 x = as_char4(a), y = as_char4(b);
    return acc + x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}
#define DOT4(a, b, acc) dot4(a, b, acc)
#endif

#if !WG
// Products of 16 codes, added up in pairs.
inline int8 pairs16(__global const uchar *w, __global const uchar *q)
{
#if X86
    return __builtin_astype(
        __builtin_ia32_pmaddwd256(__builtin_astype(convert_short16(as_char16(bytes16(w))), x86_short16),
                                  __builtin_astype(convert_short16(as_char16(bytes16(q))), x86_short16)),
        int8);
#else
    int16 p = convert_int16(as_char16(bytes16(w))) * convert_int16(as_char16(bytes16(q)));
    return p.even + p.odd;
#endif
}

inline void gemv_i8(place at, __global const clq_step *s)
{
    uint begin = (uint)((ulong)s->rows * at.group / at.n_groups),
         end = (uint)((ulong)s->rows * (at.group + 1) / at.n_groups);
    uint k = CLQ_PREP_K(s->cols), k32 = (s->cols + 31) / 32 * 32; // codes of activations behind cols are 0
    for (uint row = begin; row < end; row++) {
        __global const uchar *w = at.weights + s->w + (size_t)row * s->cols;
        i8_row r = i8_row_at(at, s, row);
        for (uint t = 0; t < s->tokens; t++) {
            __global const float *in = at.state + s->in + (size_t)t * (k / 4 + 4);
            __global const uchar *q = (__global const uchar *)in;
            int8 a = 0, b = 0;
            for (uint i = 0; i < k32; i += 32) {
                a += pairs16(w + i, q + i);
                b += pairs16(w + i + 16, q + i + 16);
            }
            put_i8(at, s, t, row, r, *(__global const i8_token *)(in + k / 4), sum_int8(a + b));
        }
    }
}

#define TILE_PAIRS 128 // of columns

// acc[8] + products of two int16 each.
inline int8 add_pairs(int8 acc, uint w, uint8 x)
{
#if X86
    return acc + __builtin_astype(__builtin_ia32_pmaddwd256(__builtin_astype((uint8)w, x86_short16),
                                                            __builtin_astype(x, x86_short16)),
                                  int8);
#else
    int8 v = as_int8(x);
    return acc + ((int)w << 16 >> 16) * (v << 16 >> 16) + ((int)w >> 16) * (v >> 16);
#endif
}

// c[4][16] (+)= the products of n pairs: rows of w stand TILE_PAIRS apart, x is [n][16].
inline void multiply_i8_4x16(const uint *w, __global const uint *x, uint n, bool add, int *c)
{
    int8 a0 = 0, a1 = 0, b0 = 0, b1 = 0, c0 = 0, c1 = 0, d0 = 0, d1 = 0;
    if (add) {
        a0 = vload8(0, c), a1 = vload8(1, c), b0 = vload8(2, c), b1 = vload8(3, c);
        c0 = vload8(4, c), c1 = vload8(5, c), d0 = vload8(6, c), d1 = vload8(7, c);
    }
    for (uint k = 0; k < n; k++, w++, x += 16) {
        uint8 x0 = vload8(0, x), x1 = vload8(1, x);
        uint w0 = w[0], w1 = w[TILE_PAIRS], w2 = w[2 * TILE_PAIRS], w3 = w[3 * TILE_PAIRS];
        a0 = add_pairs(a0, w0, x0), a1 = add_pairs(a1, w0, x1), b0 = add_pairs(b0, w1, x0), b1 = add_pairs(b1, w1, x1);
        c0 = add_pairs(c0, w2, x0), c1 = add_pairs(c1, w2, x1), d0 = add_pairs(d0, w3, x0), d1 = add_pairs(d1, w3, x1);
    }
    vstore8(a0, 0, c), vstore8(a1, 1, c), vstore8(b0, 2, c), vstore8(b1, 3, c);
    vstore8(c0, 4, c), vstore8(c1, 5, c), vstore8(d0, 6, c), vstore8(d1, 7, c);
}

// Rows [row, row + n_rows) for the tokens of panels [first, first + n_panels).
inline void gemm_i8_tile(place at, __global const clq_step *s, uint row, uint n_rows, uint first, uint n_panels)
{
    uint tile[TILE_ROWS * TILE_PAIRS];
    int c[TILE_PANELS * TILE_ROWS * 16];
    uint pairs = (s->cols + 15) / 16 * 8, quads = (n_rows + 3) / 4;
    for (uint k = 0; k < pairs; k += TILE_PAIRS) {
        uint n = min((uint)TILE_PAIRS, pairs - k);
        for (uint r = 0; r < n_rows; r++) {
            __global const uchar *w = at.weights + s->w + (size_t)(row + r) * s->cols + 2 * k;
            // Behind the row stands another or padding; activations are 0 there.
            for (uint i = 0; i < n; i += 8)
                vstore8(as_uint8(convert_short16(as_char16(bytes16(w + 2 * i)))), 0, tile + r * TILE_PAIRS + i);
        }
        for (uint i = n_rows * TILE_PAIRS; i < quads * 4 * TILE_PAIRS; i++) tile[i] = 0;
        for (uint p = 0; p < n_panels; p++) {
            __global const uint *x =
                (__global const uint *)(at.state + s->in) + ((size_t)(first + p) * pairs + k) * 16;
            for (uint q = 0; q < quads; q++)
                multiply_i8_4x16(tile + q * 4 * TILE_PAIRS, x, n, k > 0, c + (p * TILE_ROWS + q * 4) * 16);
        }
    }
    __global const i8_token *tokens =
        (__global const i8_token *)(at.state + s->in + (size_t)((s->tokens + 15) / 16) * 16 * pairs);
    for (uint r = 0; r < n_rows; r++) {
        i8_row own = i8_row_at(at, s, row + r);
        for (uint p = 0; p < n_panels; p++)
            for (uint lane = 0; lane < 16; lane++) {
                uint t = (first + p) * 16 + lane;
                if (t < s->tokens) put_i8(at, s, t, row + r, own, tokens[t], c[(p * TILE_ROWS + r) * 16 + lane]);
            }
    }
}

inline void gemm_i8(place at, __global const clq_step *s)
{
    uint panels = (s->tokens + 15) / 16, n_tiles = (s->rows + TILE_ROWS - 1) / TILE_ROWS;
    for (uint tile = at.group; tile < n_tiles; tile += at.n_groups)
        for (uint p = 0; p < panels; p += TILE_PANELS)
            gemm_i8_tile(at, s, tile * TILE_ROWS, min((uint)TILE_ROWS, s->rows - tile * TILE_ROWS), p,
                         min((uint)TILE_PANELS, panels - p));
}
#else
// Four codes of a row of weights from column i on, 0 behind the row.
inline uint four_codes(__global const char *w, uint i, uint cols)
{
    if (i + 4 <= cols) return as_uint(vload4(0, w + i));
    uint v = 0;
    for (uint k = 0; k < 4 && i + k < cols; k++) v |= (uint)(uchar)w[i + k] << 8 * k;
    return v;
}

// Four rows a group, ROW_LANES items each.
inline void gemv_i8(place at, __global const clq_step *s, __local float *near)
{
    uint k = CLQ_PREP_K(s->cols), lane = LID % ROW_LANES, own = LID / ROW_LANES, per_group = UNITS / ROW_LANES;
    __local int *sums = (__local int *)near;
    for (uint base = at.group * per_group; base < s->rows; base += at.n_groups * per_group) {
        uint row = base + own;
        __global const char *w = (__global const char *)at.weights + s->w + (size_t)row * s->cols;
        for (uint t = 0; t < s->tokens; t++) {
            __global const float *in = at.state + s->in + (size_t)t * (k / 4 + 4);
            int acc = 0;
            for (uint i = 4 * lane; row < s->rows && i < s->cols; i += 4 * ROW_LANES)
                acc = DOT4(four_codes(w, i, s->cols), as_uint(in[i / 4]), acc);
            sums[LID] = acc;
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint n = ROW_LANES / 2; n > 0; n /= 2) {
                if (lane < n) sums[LID] += sums[LID + n];
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            if (lane == 0 && row < s->rows)
                put_i8(at, s, t, row, i8_row_at(at, s, row), *(__global const i8_token *)(in + k / 4), sums[LID]);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
}

// A tile of 64 rows and 64 tokens; an item makes 8 x 8 of it. near: words of four codes, 64 x 9 of weights and 8 x 64 of
// activations.
inline void gemm_i8(place at, __global const clq_step *s, __local float *near)
{
    __local uint *w = (__local uint *)near, *x = w + TILE * 9;
    uint pairs = (s->cols + 15) / 16 * 8, panels = (s->tokens + 15) / 16;
    uint row_tiles = (s->rows + TILE - 1) / TILE, token_tiles = (panels + 3) / 4;
    uint row8 = LID / 8 * 8, token8 = LID % 8 * 8;
    __global const uint *in = (__global const uint *)(at.state + s->in);
    __global const i8_token *tokens = (__global const i8_token *)(in + (size_t)panels * 16 * pairs);
    for (uint u = at.group; u < row_tiles * token_tiles; u += at.n_groups) {
        uint row0 = u % row_tiles * TILE, panel0 = u / row_tiles * 4;
        int8 sum[8];
        for (uint i = 0; i < 8; i++) sum[i] = 0;
        for (uint k = 0; k < pairs; k += 16) { // 32 columns
            barrier(CLK_LOCAL_MEM_FENCE);
            __global const char *row = (__global const char *)at.weights + s->w + (size_t)(row0 + LID) * s->cols;
            for (uint i = 0; i < 8; i++)
                w[LID * 9 + i] = row0 + LID < s->rows && 2 * k + 4 * i < s->cols ? four_codes(row, 2 * k + 4 * i, s->cols)
                                                                                 : 0;
            for (uint i = LID; i < 8 * TILE; i += UNITS) {
                uint panel = panel0 + i % TILE / 16, pair = k + i / TILE * 2, both = 0;
                if (panel < panels && pair < pairs) {
                    __global const uint *p = in + ((size_t)panel * pairs + pair) * 16 + i % 16;
                    both = (p[0] & 0xff) | (p[0] >> 8 & 0xff00) | (p[16] & 0xff) << 16 | (p[16] & 0xff0000) << 8;
                }
                x[i] = both;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint i = 0; i < 8; i++) {
                uint8 v = vload8(0, x + i * TILE + token8);
                for (uint r = 0; r < 8; r++) {
                    uint c = w[(row8 + r) * 9 + i];
                    sum[r].s0 = DOT4(c, v.s0, sum[r].s0);
                    sum[r].s1 = DOT4(c, v.s1, sum[r].s1);
                    sum[r].s2 = DOT4(c, v.s2, sum[r].s2);
                    sum[r].s3 = DOT4(c, v.s3, sum[r].s3);
                    sum[r].s4 = DOT4(c, v.s4, sum[r].s4);
                    sum[r].s5 = DOT4(c, v.s5, sum[r].s5);
                    sum[r].s6 = DOT4(c, v.s6, sum[r].s6);
                    sum[r].s7 = DOT4(c, v.s7, sum[r].s7);
                }
            }
        }
        for (uint r = 0; r < 8 && row0 + row8 + r < s->rows; r++) {
            int own[8];
            i8_row weights = i8_row_at(at, s, row0 + row8 + r);
            vstore8(sum[r], 0, own);
            for (uint i = 0; i < 8; i++) {
                uint t = panel0 * 16 + token8 + i;
                if (t < s->tokens) put_i8(at, s, t, row0 + row8 + r, weights, tokens[t], own[i]);
            }
        }
    }
}
#endif

inline void prep_i8(place at, __global const clq_step *s NEAR_PARAM)
{
    if (s->tokens >= CLQ_PACKED_TOKENS)
        prep_i8_panels(at, s NEAR_PASS);
    else
        prep_i8_rows(at, s NEAR_PASS);
}

inline void linear_i8(place at, __global const clq_step *s NEAR_PARAM)
{
    if (s->tokens >= CLQ_PACKED_TOKENS)
        gemm_i8(at, s NEAR_PASS);
    else
        gemv_i8(at, s NEAR_PASS);
}

#endif

// SPDX-License-Identifier: MIT
// LINEAR: out = weight x input, for any format. Few tokens: a dot product a row (gemv). Many: rows are decoded into a
// tile that stays in cache and multiplied with packed inputs (gemm). See include/clquant_steps.h.
//
// FORMATS is a list X(q4_0)X(f32)... of the formats that the program has.
#ifndef CLQ_LINEAR_CL
#define CLQ_LINEAR_CL
#include "codes.cl"
#include "group.cl"

// ---- float weights ----

#define FLOAT_WEIGHT(NAME, ELEMENT, VALUE, VALUE8)                                                                     \
    inline float NAME##_dot_f32(weight_row r, uint first, uint step, uint cols, __global const float *x)               \
    {                                                                                                                  \
        __global const ELEMENT *w = (__global const ELEMENT *)r.p;                                                     \
        float8 a = 0.0f, c = 0.0f;                                                                                     \
        uint i = 16 * first;                                                                                           \
        for (; i + 16 <= cols; i += 16 * step) {                                                                       \
            a = fma(VALUE8(w + i), vload8(0, x + i), a);                                                               \
            c = fma(VALUE8(w + i + 8), vload8(0, x + i + 8), c);                                                       \
        }                                                                                                              \
        float tail = 0.0f;                                                                                             \
        for (; i < cols; i++) tail = fma(VALUE(w[i]), x[i], tail);                                                     \
        return sum8(a + c) + tail;                                                                                     \
    }                                                                                                                  \
    inline void NAME##_decode(weight_row r, uint first, uint n, NEAR_TILE float *y)                                    \
    {                                                                                                                  \
        __global const ELEMENT *w = (__global const ELEMENT *)r.p + first;                                             \
        uint i = 0;                                                                                                    \
        for (; i + 8 <= n; i += 8) vstore8(VALUE8(w + i), 0, y + i);                                                   \
        for (; i < n; i++) y[i] = VALUE(w[i]);                                                                         \
    }
#define SAME(v) (v)
#define LOAD_F32(p) vload8(0, p)
#define LOAD_BF16(p) as_float8(convert_uint8(vload8(0, p)) << 16)
#if defined(__F16C__)
typedef short x86_halves __attribute__((ext_vector_type(8)));
#define LOAD_F16(p) __builtin_astype(__builtin_ia32_vcvtph2ps256(__builtin_astype(vload8(0, p), x86_halves)), float8)
#else
inline float8 halves_to_float8(ushort8 v)
{
    int8 h = convert_int8(v), rest = h & 0x7fff, sign = (h & 0x8000) << 16;
    int8 finite = rest < 0x400 ? as_int8(convert_float8(rest) * 0x1p-24f) : (rest << 13) + (112 << 23);
    return as_float8(sign | (rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 : finite));
}
#define LOAD_F16(p) halves_to_float8(vload8(0, p))
#endif
#define FLOAT8_F16(p) LOAD_F16(p)
FLOAT_WEIGHT(f32, float, SAME, LOAD_F32)
FLOAT_WEIGHT(f16, ushort, half_value_of, LOAD_F16)
FLOAT_WEIGHT(bf16, ushort, bf16_bits_to_float, LOAD_BF16)

// ---- rows ----

#ifndef ID_f32
#define ID_f32 0
#define ID_f16 1
#define ID_bf16 2
#endif
#ifndef FORMATS
#define FORMATS
#endif

#define KEY_INT 0x10000 // formats of the integer family are KEY_INT + bits: what the host defines as ID_iBITS

inline uint format_key(__global const clq_step *s) { return s->bits ? KEY_INT + s->bits : s->format; }

inline ulong row_bytes(__global const clq_step *s)
{
    switch (format_key(s)) {
    case ID_f32: return s->cols * 4ul;
    case ID_f16:
    case ID_bf16: return s->cols * 2ul;
#define X(name)                                                                                                        \
    case ID_##name: return name##_row_bytes(s->cols);
        FORMATS
#undef X
    }
    return 0;
}

inline weight_row row_at(place at, __global const clq_step *s, ulong bytes, uint row)
{
    weight_row r;
    r.p = (s->flags & CLQ_STEP_STATE_WEIGHT ? (__global const uchar *)at.state : at.weights) + s->w + row * bytes;
    r.scales = 0;
    r.zero_points = 0;
    r.per_scale = 1;
    r.tables = at.tables;
    if (s->bits) {
        ulong first = s->groups ? (ulong)row * s->groups : 0;
        r.scales = (__global const float *)(at.weights + s->scales) + first;
        if (s->zero_points != CLQ_NONE) r.zero_points = (__global const char *)(at.weights + s->zero_points) + first;
        r.per_scale = s->group_size ? s->group_size / 32 : 0x7fffffff;
    }
    return r;
}

// Element i of a row whose columns say which group they are of.
inline float indexed_value(__global const clq_step *s, weight_row r, __global const int *index, uint i)
{
    int code, zero = r.zero_points ? r.zero_points[index[i]] : 0;
    if (s->bits == 8) {
        code = ((__global const char *)r.p)[i];
    } else {
        ulong bit = (ulong)i * s->bits;
        __global const uint *w = (__global const uint *)r.p + bit / 32;
        uint v = w[0] >> bit % 32;
        if (bit % 32 + s->bits > 32) v |= w[1] << (32 - bit % 32);
        code = (int)(v & ((1u << s->bits) - 1)) - (1 << (s->bits - 1));
    }
    return r.scales[index[i]] * (float)(code - zero);
}

// Elements [first, first + n) of a row, n <= 256 and first a multiple of 256 (or, with n <= 32, of 32); behind cols 0.
inline void decode_row(place at, __global const clq_step *s, weight_row r, uint first, uint n, NEAR_TILE float *y)
{
    uint have = min(n, s->cols - min(first, s->cols));
    if (s->group_index != CLQ_NONE) {
        __global const int *index = (__global const int *)(at.weights + s->group_index);
        for (uint i = 0; i < have; i++) y[i] = indexed_value(s, r, index, first + i);
        for (uint i = have; i < n; i++) y[i] = 0.0f;
        return;
    }
    switch (format_key(s)) {
    case ID_f32: f32_decode(r, first, have, y); break;
    case ID_f16: f16_decode(r, first, have, y); break;
    case ID_bf16: bf16_decode(r, first, have, y); break;
#if WG
#define X(name)                                                                                                        \
    case ID_##name:                                                                                                    \
        if (have) name##_decode_32(r, first / 32, y);                                                                  \
        break;
#else
#define X(name)                                                                                                        \
    case ID_##name:                                                                                                    \
        name##_decode_run(r, first, have, y);                                                                          \
        break;
#endif
        FORMATS
#undef X
    }
    for (uint i = have; i < n; i++) y[i] = 0.0f;
}

// The product of a row with token t's prepared input; this item's part of it (lane of n_lanes).
inline float row_dot(place at, __global const clq_step *s, weight_row r, uint t, uint lane, uint n_lanes)
{
    uint k = CLQ_PREP_K(s->cols);
    bool floats = s->mode == CLQ_MODE_F32;
    __global const float *in = at.state + s->in + (size_t)t * (floats ? k + k / 16 : k / 4 + k / 32 + k / 16);
    __global const char *q = (__global const char *)in;
    if (s->group_index != CLQ_NONE) {
        __global const int *index = (__global const int *)(at.weights + s->group_index);
        float sum = 0.0f;
        for (uint i = lane; i < s->cols; i += n_lanes)
            sum = fma(indexed_value(s, r, index, i), floats ? in[i] : in[k / 4 + i / 32] * (float)q[i], sum);
        return sum;
    }
    switch (format_key(s)) {
    case ID_f32: return f32_dot_f32(r, lane, n_lanes, s->cols, in);
    case ID_f16: return f16_dot_f32(r, lane, n_lanes, s->cols, in);
    case ID_bf16: return bf16_dot_f32(r, lane, n_lanes, s->cols, in);
#define X(name)                                                                                                        \
    case ID_##name:                                                                                                    \
        return floats ? name##_dot_f32(r, lane, n_lanes, name##_blocks(s->cols), in, in + k)                           \
                      : name##_dot_i8(r, lane, n_lanes, name##_blocks(s->cols), q, in + k / 4, in + k / 4 + k / 32);
        FORMATS
#undef X
    }
    return 0.0f;
}

inline void put_product(place at, __global const clq_step *s, uint t, uint row, float y)
{
    __global float *out = at.state + s->out + (size_t)t * s->out_stride + row;
    if (s->bias != CLQ_NONE) y += ((__global const float *)(at.weights + s->bias))[row];
    *out = s->flags & CLQ_STEP_ACCUMULATE ? *out + y : y;
}

#if !WG
// ---- CPUs: one item a group ----

inline void gemv(place at, __global const clq_step *s)
{
    ulong bytes = row_bytes(s);
    uint begin = (uint)((ulong)s->rows * at.group / at.n_groups),
         end = (uint)((ulong)s->rows * (at.group + 1) / at.n_groups);
    uint k = CLQ_PREP_K(s->cols);
    bool floats = s->mode == CLQ_MODE_F32;
    // One loop for each format, with the choices made outside of it.
    if (s->tokens == 1 && s->group_index == CLQ_NONE) {
        __global const float *in = at.state + s->in;
        switch (format_key(s)) {
#define X(name)                                                                                                        \
    case ID_##name:                                                                                                    \
        for (uint row = begin; row < end; row++) {                                                                     \
            weight_row r = row_at(at, s, bytes, row);                                                                  \
            float y = floats ? name##_dot_f32(r, 0, 1, name##_blocks(s->cols), in, in + k)                             \
                             : name##_dot_i8(r, 0, 1, name##_blocks(s->cols), (__global const char *)in, in + k / 4,   \
                                             in + k / 4 + k / 32);                                                     \
            put_product(at, s, 0, row, y);                                                                             \
        }                                                                                                              \
        return;
            FORMATS
#undef X
        }
    }
    for (uint row = begin; row < end; row++) {
        weight_row r = row_at(at, s, bytes, row);
        for (uint t = 0; t < s->tokens; t++) put_product(at, s, t, row, row_dot(at, s, r, t, 0, 1));
    }
}

#define TILE_ROWS 32
#define TILE_K 256
#define TILE_PANELS 32 // of 16 tokens

// c[4][16] (+)= w[4][n] x x[n][16]; element k of row r of w stands at r * row_step + k * k_step.
#define MULTIPLY_4X16(NAME, SPACE)                                                                                     \
    inline void NAME(const float *w, uint row_step, uint k_step, SPACE const float *x, uint n, bool add, float *c)     \
    {                                                                                                                  \
        float8 a0 = 0.0f, a1 = 0.0f, b0 = 0.0f, b1 = 0.0f, c0 = 0.0f, c1 = 0.0f, d0 = 0.0f, d1 = 0.0f;                 \
        if (add) {                                                                                                     \
            a0 = vload8(0, c), a1 = vload8(1, c), b0 = vload8(2, c), b1 = vload8(3, c);                                \
            c0 = vload8(4, c), c1 = vload8(5, c), d0 = vload8(6, c), d1 = vload8(7, c);                                \
        }                                                                                                              \
        for (uint k = 0; k < n; k++, w += k_step, x += 16) {                                                           \
            float8 x0 = vload8(0, x), x1 = vload8(1, x);                                                               \
            float8 w0 = w[0], w1 = w[row_step], w2 = w[2 * row_step], w3 = w[3 * row_step];                            \
            a0 = fma(w0, x0, a0), a1 = fma(w0, x1, a1), b0 = fma(w1, x0, b0), b1 = fma(w1, x1, b1);                    \
            c0 = fma(w2, x0, c0), c1 = fma(w2, x1, c1), d0 = fma(w3, x0, d0), d1 = fma(w3, x1, d1);                    \
        }                                                                                                              \
        vstore8(a0, 0, c), vstore8(a1, 1, c), vstore8(b0, 2, c), vstore8(b1, 3, c);                                    \
        vstore8(c0, 4, c), vstore8(c1, 5, c), vstore8(d0, 6, c), vstore8(d1, 7, c);                                    \
    }
MULTIPLY_4X16(multiply_far, __global)
MULTIPLY_4X16(multiply_near, __private)

// Rows [row, row + n_rows) for the tokens of panels [first, first + n_panels).
inline void gemm_tile(place at, __global const clq_step *s, ulong bytes, uint row, uint n_rows, uint first,
                      uint n_panels)
{
    float tile[TILE_ROWS * TILE_K], c[TILE_PANELS * TILE_ROWS * 16];
    uint k16 = (s->cols + 15) / 16 * 16, quads = (n_rows + 3) / 4;
    for (uint k = 0; k < k16; k += TILE_K) {
        uint n = min((uint)TILE_K, k16 - k);
        for (uint r = 0; r < n_rows; r++) decode_row(at, s, row_at(at, s, bytes, row + r), k, n, tile + r * TILE_K);
        for (uint i = n_rows * TILE_K; i < quads * 4 * TILE_K; i++) tile[i] = 0.0f;
        for (uint p = 0; p < n_panels; p++) {
            __global const float *x = at.state + s->in + ((size_t)(first + p) * k16 + k) * 16;
            for (uint q = 0; q < quads; q++)
                multiply_far(tile + q * 4 * TILE_K, TILE_K, 1, x, n, k > 0, c + (p * TILE_ROWS + q * 4) * 16);
        }
    }
    bool add = s->flags & CLQ_STEP_ACCUMULATE;
    __global const float *bias = s->bias == CLQ_NONE ? 0 : (__global const float *)(at.weights + s->bias) + row;
    for (uint p = 0; p < n_panels; p++)
        for (uint lane = 0; lane < 16; lane++) {
            uint t = (first + p) * 16 + lane;
            if (t >= s->tokens) break;
            __global float *out = at.state + s->out + (size_t)t * s->out_stride + row;
            for (uint r = 0; r < n_rows; r++) {
                float y = c[(p * TILE_ROWS + r) * 16 + lane] + (bias ? bias[r] : 0.0f);
                out[r] = add ? out[r] + y : y;
            }
        }
}

inline void gemm(place at, __global const clq_step *s)
{
    ulong bytes = row_bytes(s);
    uint panels = (s->tokens + 15) / 16, n_tiles = (s->rows + TILE_ROWS - 1) / TILE_ROWS;
    for (uint tile = at.group; tile < n_tiles; tile += at.n_groups)
        for (uint p = 0; p < panels; p += TILE_PANELS)
            gemm_tile(at, s, bytes, tile * TILE_ROWS, min((uint)TILE_ROWS, s->rows - tile * TILE_ROWS), p,
                      min((uint)TILE_PANELS, panels - p));
}

inline void linear(place at, __global const clq_step *s)
{
    if (s->tokens >= CLQ_PACKED_TOKENS)
        gemm(at, s);
    else
        gemv(at, s);
}
#else
// ---- GPUs: 64 items a group ----

#define ROW_LANES 16 // items that share a row
#define TILE 64      // rows and tokens of a tile
#define TILE_K 16

// Four rows a group, ROW_LANES items each.
inline void gemv(place at, __global const clq_step *s, __local float *near)
{
    ulong bytes = row_bytes(s);
    uint lane = LID % ROW_LANES, own = LID / ROW_LANES, per_group = UNITS / ROW_LANES;
    for (uint base = at.group * per_group; base < s->rows; base += at.n_groups * per_group) {
        uint row = base + own;
        for (uint t = 0; t < s->tokens; t++) {
            near[LID] = row < s->rows ? row_dot(at, s, row_at(at, s, bytes, row), t, lane, ROW_LANES) : 0.0f;
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint n = ROW_LANES / 2; n > 0; n /= 2) {
                if (lane < n) near[LID] += near[LID + n];
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            if (lane == 0 && row < s->rows) put_product(at, s, t, row, near[LID]);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
}

// A tile of 64 rows and 64 tokens; an item makes 8 x 8 of it. near: 64 x 33 weights, then 16 x 64 inputs.
inline void gemm(place at, __global const clq_step *s, __local float *near)
{
    __local float *w = near, *x = near + TILE * 33;
    ulong bytes = row_bytes(s);
    uint k16 = (s->cols + 15) / 16 * 16, panels = (s->tokens + 15) / 16;
    uint row_tiles = (s->rows + TILE - 1) / TILE, token_tiles = (panels + 3) / 4;
    uint row8 = LID / 8 * 8, token8 = LID % 8 * 8;
    for (uint u = at.group; u < row_tiles * token_tiles; u += at.n_groups) {
        uint row0 = u % row_tiles * TILE, panel0 = u / row_tiles * 4;
        float8 sum[8];
        for (uint i = 0; i < 8; i++) sum[i] = 0.0f;
        for (uint k = 0; k < k16; k += 32) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (row0 + LID < s->rows)
                decode_row(at, s, row_at(at, s, bytes, row0 + LID), k, 32, w + LID * 33);
            else
                for (uint i = 0; i < 32; i++) w[LID * 33 + i] = 0.0f;
            for (uint part = k; part < min(k + 32, k16); part += TILE_K) {
                barrier(CLK_LOCAL_MEM_FENCE);
                for (uint i = LID; i < TILE_K * TILE; i += UNITS) {
                    uint panel = panel0 + i / (TILE_K * 16);
                    x[i / 16 % TILE_K * TILE + i / (TILE_K * 16) * 16 + i % 16] =
                        panel < panels ? at.state[s->in + ((size_t)panel * k16 + part) * 16 + i % (TILE_K * 16)] : 0.0f;
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                for (uint i = 0; i < TILE_K; i++) {
                    float8 v = vload8(0, x + i * TILE + token8);
                    for (uint r = 0; r < 8; r++) sum[r] = fma((float8)w[(row8 + r) * 33 + part - k + i], v, sum[r]);
                }
            }
        }
        for (uint r = 0; r < 8; r++) {
            float own[8];
            vstore8(sum[r], 0, own);
            for (uint i = 0; i < 8; i++) {
                uint t = panel0 * 16 + token8 + i;
                if (row0 + row8 + r < s->rows && t < s->tokens) put_product(at, s, t, row0 + row8 + r, own[i]);
            }
        }
    }
}

inline void linear(place at, __global const clq_step *s, __local float *near)
{
    if (s->tokens >= CLQ_PACKED_TOKENS)
        gemm(at, s, near);
    else
        gemv(at, s, near);
}
#endif

#endif

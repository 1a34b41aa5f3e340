// SPDX-License-Identifier: MIT
// A forward pass is a list of steps, made by the host (host/model/graph.c) and run by a device: by one kernel of
// kernels/steps.cl, or by the C references in host/ops/steps.c. This record is shared by both languages.
//
// A step reads and writes three memories: weights (as stored), state (activations, indices) and cache (keys and
// values). Places in them are offsets: of weights in bytes, of state in floats, of the cache in bytes. Matrices are
// row-major; M stands for tokens.
#ifndef CLQUANT_STEPS_H
#define CLQUANT_STEPS_H

#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef uint clq_u32;
typedef int clq_i32;
typedef ulong clq_u64;
#else
#include <stdint.h>
typedef uint32_t clq_u32;
typedef int32_t clq_i32;
typedef uint64_t clq_u64;
#endif

#define CLQ_NONE (~(clq_u64)0) // an offset that is not there

// Kinds. in, in2, out: offsets in the state.
//
//  EMBED   out[m][cols] = scale * row ids[m] of the weight [rows, cols]; ids: int32 [M] at `in`. ADD: += instead
//  NORM    out[r][cols] = norm(in[r][cols]) * weight (+ bias) for `rows` rows at strides in_stride, out_stride.
//          out may be in.
//          w, bias: f32 [cols] in the weights, CLQ_NONE: 1 and 0. eps. LAYER: mean is subtracted. ADD: out +=
//  PREP    makes of in[M][in_stride] what a LINEAR over `cols` columns reads, at out (clq_prep_floats floats), in the
//          form `mode`. All steps for one M agree on whether it is packed (clq_packed)
//  LINEAR  out[m][out_stride] = weight [rows, cols] x prepared input at `in` (+ bias f32 [rows]). ADD: out +=
//  ROPE    rotates the first `dims` of each of `heads` heads of in[m][in_stride] (head_dim each), in place, with
//          cos and sin at `in2`: float2 [M][dims / 2]. NEOX: pairs (i, i + dims / 2), else (2 i, 2 i + 1)
//  STORE   puts in[m][in_stride], `heads` heads of head_dim, into the cache at `cache`: [heads][positions][head_dim] of
//          `cache_format` (f32, f16 or q8_0), from position `position` on
//  ATTEND  out[m][heads * head_dim] = attention of queries in[m][in_stride] over the cached keys at `cache` and values
//          at `cache2`, kv_heads heads each, `positions` long of which `keys` are filled. Query m stands at position
//          + m. CAUSAL: sees keys up to its own position, and with window > 0 only the last `window` of them; not
//          causal with a window: those less than window away. Scores are scaled by `scale`; softcap > 0: softcap *
//          tanh(score / softcap)
//  ACT     out[m][cols] = act(in[m][in_stride]) (* in2[m][in_stride] with MUL)
//  ADD     out[m][cols] += scale * in[m][cols]
//  GATHER  out[i][cols] = in[ids[i]][cols], M rows; ids: int32 at in2
//  SCATTER out[ids[i]][cols] += scales[i] * in[i][cols]; ids: int32 [M] at in2, followed by float scales [M]. The ids
//          of one step are distinct
//  SOFTCAP out[m][cols] = scale * tanh(in[m][cols] / scale). out may be in
//  RANGE   out[m] = {least, largest} of in[m][in_stride] over `cols` columns and 0: float2 [M]
//  OBSERVE adds in[M][in_stride], `cols` wide, to the observations at `out` (CLQ_SLOT_* below). `phase` CLQ_OBSERVE_*:
//          the phases run in their order, each behind the one before
//  GRAM    out[cols][cols] += sum over tokens of in[m][i] * in[m][j]; group_size > 0, which divides cols: only the
//          blocks on the diagonal, out[cols / group_size][group_size][group_size]
//
// For methods that prepare weights (host/method). "The weight" is f32 [rows, cols] at `w`. Q is rounding to the integer
// family: bits, group_size (0: the row; it divides cols), SYMMETRIC, `groups` scales a row.
//  COLUMNS out[m][out_stride] = in[m][in_stride] * in2[cols], M rows; out may be in
//  QUANT   out[rows][cols] = Q(W * s) / s: columns of the weight times s = in2[cols] (CLQ_NONE: 1), rounded as
//          clq_int_params() and clq_int_code() say with unrounded scales, and divided again
//  ROUND   out[rows][cols] = the weight rounded with given scales at `in`: scale * (q - zero_point), q =
//          clamp(rne(w / scale) + zero_point) within -2^(bits-1) .. 2^(bits-1)-1, also when SYMMETRIC
//  ERROR   out[m] = sum over cols of (in[m][in_stride] - in2[m][out_stride])^2, M rows
//  SCALES  chooses out = scales [rows][groups], then zero_points [rows][groups] as floats, by the rule `phase`
//          (CLQ_SCALES_*), scales being rounded to cache_format (f32, f16, bf16). `in`: what an error d of a group costs:
//          CLQ_NONE: d.d; DIAGONAL: sum in[c] d[c]^2, in[cols]; else d'Gd with G of what a GRAM of blocks of group_size
//          made. A scale may be negative where SYMMETRIC
//  GPTQ    columns [position, position + dims) of in[rows][cols], in place: for each column j, in their order: e = (w_j
//          - ROUND(w_j)) / U_jj, w_j = ROUND(w_j), w_k -= e * U_jk for the columns k > j of the block; out[rows][dims] =
//          e. in2: U [dims][dims], upper. Given scales stand at `scales`, the group of each column at `group_index`
//          (int32 [cols]), both in the state, in floats
enum {
    CLQ_STEP_EMBED, CLQ_STEP_NORM, CLQ_STEP_PREP, CLQ_STEP_LINEAR, CLQ_STEP_ROPE, CLQ_STEP_STORE, CLQ_STEP_ATTEND,
    CLQ_STEP_ACT, CLQ_STEP_ADD, CLQ_STEP_GATHER, CLQ_STEP_SCATTER, CLQ_STEP_SOFTCAP, CLQ_STEP_RANGE, CLQ_STEP_OBSERVE,
    CLQ_STEP_GRAM, CLQ_STEP_COLUMNS, CLQ_STEP_QUANT, CLQ_STEP_ROUND, CLQ_STEP_ERROR, CLQ_STEP_SCALES, CLQ_STEP_GPTQ,
    CLQ_STEP_KINDS
};

enum { // flags
    CLQ_STEP_ACCUMULATE = 1, // ADD above
    CLQ_STEP_LAYER_NORM = 2,
    CLQ_STEP_NEOX = 4,
    CLQ_STEP_CAUSAL = 8,
    CLQ_STEP_MUL = 16,
    CLQ_STEP_TOGETHER = 32, // does not need what the step before it wrote: they may run at the same time
    CLQ_STEP_STATE_WEIGHT = 64, // LINEAR of f32 in CLQ_MODE_F32, QUANT, ROUND, SCALES: `w` is in the state, in bytes
    CLQ_STEP_SYMMETRIC = 128,
    CLQ_STEP_DIAGONAL = 256,
    CLQ_STEP_GIVEN = 512, // QUANT: with `scale` (> 0) and `zero_point` for all groups
};

// Rules of SCALES, for a group w of n values; h = 2^(bits-1). A candidate is a scale (rounded to cache_format, not 0)
// and a zero-point; it costs what the errors of ROUND cost. The first of the cheapest is kept. All of them begin with
// ABSMAX's, so that none costs more. All zero, or not finite costs: ABSMAX's.
enum {
    CLQ_SCALES_ABSMAX, // clq_int_params()
    // SYMMETRIC: scale = sign * e / h * (1.15 - k / 40), k = 0 .. 23, for sign = -1, then 1; e: the first w of largest
    // magnitude. Else, with lo = min(w, 0), hi = max(w, 0): the range [lo * (1 - i / 24), hi * (1 - j / 24)], i and j of -1,
    // 0, 1, 2, 4, 7, 10. Then twice, while it gets cheaper: scale = p'Gw / p'Gp with p = q - zero_point of the cheapest.
    // Without `in` errors cost the sum of |w| d^2: of large weights more than their share
    CLQ_SCALES_SEARCH,
    // AWQ's clipping: the range of w clamped to +-m, m = (1 - i / 20) * largest |w|, i = 0 .. 9, as ABSMAX's of it
    CLQ_SCALES_CLIP,
    // Half-quadratic (HQQ), without `in`: see host/ops/scales.c
    CLQ_SCALES_HQQ,
};

// How activations enter a product. The integer forms round them as ggml does for the weight's block size.
enum {
    CLQ_MODE_F32,
    CLQ_MODE_Q8_32,    // int8, a scale for 32 (rounded to float16), halves away from zero: ggml's q8_0
    CLQ_MODE_Q8_256,   // int8, a scale for 256, halves to even: ggml's q8_K
    CLQ_MODE_Q8_TOKEN, // int8, absmax / 127 of the row, halves to even
    CLQ_MODE_I8,       // int8 with a zero-point, as `quant` says; sums are int32, so results do not depend on the order.
                       // Only for CLQ_INT weights of 8 bits with one scale a row or a tensor, cols <= CLQ_I8_COLS
};
#define CLQ_I8_COLS 32767 // so many products of two int8 (and their corrections) fit into an int32

// How CLQ_MODE_I8 makes codes q of activations x; CLQ_MODE_F32 with one of them: x becomes scale * (q - zero_point).
// Halves go to even, x / scale is a true division.
enum {
    CLQ_QUANT_NONE,
    CLQ_QUANT_TOKEN,  // scale = absmax / 127 of the token, zero_point 0
    CLQ_QUANT_TENSOR, // of all tokens of the step, as ONNX's DynamicQuantizeLinear: scale = (max - min) / 255 with 0 in
                      // the range, zero_point = -128 + round(-min / scale). in2: what RANGE made
    CLQ_QUANT_STATIC, // the step's scale and zero_point
};

enum { // activations
    CLQ_ACT_SILU,
    CLQ_ACT_GELU,     // with erf
    CLQ_ACT_GELU_TANH,
    CLQ_ACT_RELU,
};

typedef struct clq_step {
    clq_u32 kind, flags;
    clq_u32 tokens;              // M
    clq_u32 rows, cols;
    clq_u32 in_stride, out_stride; // floats
    clq_u32 mode, act;
    clq_u32 heads, kv_heads, head_dim, dims;
    clq_u32 position, positions, keys, window, cache_format; // cache_format: a clq_format_id
    // The weight: its clq_format_id, and for CLQ_INT bits, elements that share a scale (a multiple of 32; 0: the
    // row), symmetry, whether one scale serves all rows.
    clq_u32 format, bits, group_size, groups; // groups: scales a row has; 0: one for the tensor
    float scale, eps, softcap;
    clq_u32 quant;               // CLQ_QUANT_*
    clq_i32 zero_point;          // CLQ_QUANT_STATIC: -128 to 127
    clq_u32 phase;               // OBSERVE
    clq_u32 tag;                 // PREP with quantization: goes to the word at `status` when an activation is NaN or
                                 // infinite, unless another is there. 0: not looked at
    clq_u32 reserved;
    clq_u64 status;              // a word in the state
    clq_u64 in, in2, out;        // floats in the state
    clq_u64 w, bias;             // bytes in the weights
    // CLQ_INT: f32 scales [rows, groups]; int8 zero-points of the same shape or CLQ_NONE; CLQ_NONE, or int32 [cols],
    // the group of each column (then group_size is not used)
    clq_u64 scales, zero_points, group_index;
    clq_u64 code_sums;           // CLQ_MODE_I8: int32 [rows], sums of the weight's codes
    clq_u64 cache, cache2;       // bytes in the cache
} clq_step;

// From so many tokens on prepared inputs are packed for tiles: [ceil(M / 16)][K16][16] floats, K16 being cols rounded
// up to 16 (integer modes: the values that the integers stand for). Below, each token has, one after the other, with K
// = cols rounded up to 256:
//   CLQ_MODE_F32   float x[K], float sums[K / 16] (of 16 values each)
//   CLQ_MODE_I8    int8 q[K], then float scale, int32 zero_point, int32 sum of the codes, one word unused
//   others         int8 q[K], float scales[K / 32], float sums[K / 16] (scale * sum of 16 codes)
// Columns behind the row are zero.
// Packed CLQ_MODE_I8: int16 codes [M16 / 16][K16 / 2][16][2], M16 being M rounded up to 16, then for each of M16 tokens
// float scale, int32 zero_point, int32 sum of the codes, one word unused. Tokens behind the last: zeros.
#define CLQ_PACKED_TOKENS 8
#define CLQ_PREP_K(cols) (((cols) + 255u) / 256u * 256u)

// Observations of one input of products, `cols` wide, in words of the state; counts are uint32. All zero: nothing seen
// yet. K16 is cols rounded up to 16.
//   head[16]             CLQ_SLOT_TOKENS ... below
//   token_bins[256]      tokens by their absmax, four bins an octave: bin 4 * (exponent + 32) + the two first bits of the
//                        mantissa (exponent: floor of log2), clamped
//   bins[2 * CLQ_BINS]   values: x is in bin CLQ_BINS + floor(x * CLQ_BINS / 2^exponent), exponent in the head
//   min, max, sum, sum_abs, sum_sq, window_min, window_max   floats [K16] each: of the channels; window_*: of the
//                        tokens of the last OBSERVE
// NaN and infinite values are counted in the head and nowhere else.
#define CLQ_BINS 4096
#define CLQ_TOKEN_BINS 256
enum {
    CLQ_SLOT_TOKENS, CLQ_SLOT_BAD, CLQ_SLOT_WINDOWS, // OBSERVEs
    CLQ_SLOT_EXPONENT,              // int32: all |x| < 2^exponent; it starts at CLQ_MIN_EXPONENT
    CLQ_SLOT_MIN, CLQ_SLOT_MAX,     // float: of all values
    CLQ_SLOT_EMA_MIN, CLQ_SLOT_EMA_MAX, // float: moving averages of the windows' least and largest, 0.01 of the new
    CLQ_SLOT_TOKEN_MIN, CLQ_SLOT_TOKEN_MAX, // float: least and largest absmax of a token
    CLQ_SLOT_HEAD = 16
};
#define CLQ_MIN_EXPONENT (-100)
#define CLQ_SLOT_TOKEN_BINS CLQ_SLOT_HEAD
#define CLQ_SLOT_BINS (CLQ_SLOT_TOKEN_BINS + CLQ_TOKEN_BINS)
#define CLQ_SLOT_CHANNELS (CLQ_SLOT_BINS + 2 * CLQ_BINS)
enum { // arrays of channels, each K16 floats, from CLQ_SLOT_CHANNELS on
    CLQ_CHANNEL_MIN, CLQ_CHANNEL_MAX, CLQ_CHANNEL_SUM, CLQ_CHANNEL_SUM_ABS, CLQ_CHANNEL_SUM_SQ,
    CLQ_CHANNEL_WINDOW_MIN, CLQ_CHANNEL_WINDOW_MAX, CLQ_CHANNEL_ARRAYS
};
#define CLQ_SLOT_FLOATS(cols) (CLQ_SLOT_CHANNELS + CLQ_CHANNEL_ARRAYS * (((cols) + 15u) / 16u * 16u))

enum { // phases of OBSERVE
    CLQ_OBSERVE_CHANNELS, // the channels' arrays
    CLQ_OBSERVE_RANGE,    // the head; the histogram's bins are merged in pairs where the range doubles
    CLQ_OBSERVE_VALUES,   // the histograms
};

// What codebook formats look up: 64-bit words from these places on (clq_grids_expand). Signs: a byte of 0 or 255 for
// each of eight elements, by the seven bits that blocks store. Grids: the values of a point, a byte each (iq1: in eighths).
#define CLQ_EXPANDED_EVEN_SIGNS 0
#define CLQ_EXPANDED_IQ2_XXS 128
#define CLQ_EXPANDED_IQ2_XS 384
#define CLQ_EXPANDED_IQ2_S 896
#define CLQ_EXPANDED_IQ1 1920
#define CLQ_EXPANDED_IQ3_XXS 3968 // two points a word
#define CLQ_EXPANDED_IQ3_S 4096
#define CLQ_EXPANDED_WORDS 4352

#endif

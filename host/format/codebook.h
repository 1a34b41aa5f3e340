// SPDX-License-Identifier: MIT
// What the codebook formats (iq1, iq2, iq3) share: vectors of 4 or 8 elements are stored as the index of a
// point of a fixed grid (include/clquant_grids.h). Source: ggml's reference quantizers (docs/formats.md).
#ifndef CLQ_FORMAT_CODEBOOK_H
#define CLQ_FORMAT_CODEBOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum clq_grid_id {
    CLQ_GRID_ID_IQ3_XXS, CLQ_GRID_ID_IQ3_S, CLQ_GRID_ID_IQ2_XXS, CLQ_GRID_ID_IQ2_XS, CLQ_GRID_ID_IQ2_S,
    CLQ_GRID_ID_IQ1, CLQ_GRID_COUNT,
} clq_grid_id;

typedef struct clq_grid {
    uint32_t n_points, dims, bits;
    uint32_t n_shells;      // how many distinct distances the candidates of an off-grid vector have
    const uint16_t *points; // level i of point p: points[p] >> bits * i & mask
    int8_t levels[8];       // what level l decodes to
    // What encoders (kernels too) look up, one array of n_table_bytes. Entry v < 1 << bits * dims of the map
    // is about the vector v: the index of the point v; or CLQ_OFF_GRID, the number of its eights of
    // candidates << 24, and the eight (8 packed points each, of the lists behind the map) that is the
    // first. The last candidate is repeated to the end of its eight.
    const uint32_t *map;
    size_t n_table_bytes;
} clq_grid;

#define CLQ_OFF_GRID 0x80000000u

// Made when first asked for; from any thread.
const clq_grid *clq_grid_get(clq_grid_id id);

// Fills CLQ_EXPANDED_WORDS * 8 bytes (clquant_steps.h) for kernels that decode.
void clq_grids_expand(uint8_t *bytes);

// The candidates of an off-grid vector's map entry, and how many (repeated ones included).
static inline const uint16_t *clq_grid_candidates(const clq_grid *g, uint32_t entry, uint32_t *n)
{
    *n = (entry >> 24 & 127) * 8;
    return (const uint16_t *)(g->map + ((size_t)1 << g->bits * g->dims)) + (size_t)(entry & 0xffffff) * 8;
}

static inline int clq_grid_level(const clq_grid *g, uint32_t vector, uint32_t i)
{
    return (int)(vector >> g->bits * i & ((1u << g->bits) - 1));
}

// ---- the search of iq2 and iq3 ----

typedef struct clq_codebook {
    clq_grid_id grid;
    uint32_t group;       // elements that share a scale: 16 or 32
    uint32_t n_levels;    // 3 or 8
    bool even_signs;      // 7 sign bits a byte: the number of negative elements of 8 is even
    float smallest;       // a group whose largest value is below it has scale 0
    float step;           // between candidates, in units of the outermost level
    int span;             // candidates -span..span
    bool sigma_twice;     // importance is weighed with twice the mean square of the block
    bool fits_first;      // candidates start from a fit (iq2_xxs), not from the largest value
    enum { CLQ_REFIT_OFF_GRID, CLQ_REFIT_ALL_IF_OFF_GRID, CLQ_REFIT_ALL } refit;
    float plain_sigma;    // weight without importance: plain_sigma * sigma2 + x^2
    bool plain_one;       // weight without importance: as with importance 1
} clq_codebook;

// Per block of 256: scale of each group, index of each vector's point, sign bits of each 8 elements; 0 where a
// group is not stored.
typedef struct clq_codebook_fit {
    float scale[16], max_scale;
    bool stored[16]; // the group is not zero
    uint16_t index[64];
    uint8_t signs[32];
} clq_codebook_fit;

// Fits |x| ~ scale * (2 * level + 1). importance: 256 weights, or NULL.
void clq_codebook_block(const clq_codebook *c, const float *x, const float *importance, clq_codebook_fit *fit);

// Scale codes 0..15 of n groups; the largest scale is d * 31. Returns d.
float clq_codebook_scales(const clq_codebook_fit *fit, int n, uint8_t codes[16]);

// The elements of the vector `index`: scale * level, bit i of signs set: negative.
void clq_codebook_values(const clq_grid *g, uint32_t index, uint32_t signs, float scale, float *y);

// The sign bits of a byte from 7 stored ones.
static inline uint8_t clq_even_signs(uint32_t seven)
{
    uint32_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return (uint8_t)(seven | (parity & 1) << 7);
}

// iq2_xxs, iq3_xxs: 4 x 7 sign bits and a scale code, a little-endian word.
static inline void clq_put_signs(const uint8_t signs[4], uint32_t scale_code, uint8_t out[4])
{
    uint32_t word = signs[0] | (uint32_t)signs[1] << 7 | (uint32_t)signs[2] << 14 | (uint32_t)signs[3] << 21 |
                    scale_code << 28;
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(word >> 8 * i);
}

static inline uint32_t clq_get_signs(const uint8_t in[4])
{
    return in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

#endif

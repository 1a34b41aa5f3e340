// SPDX-License-Identifier: MIT
#include "io/columns.h"

#include <string.h>

#include "format/format.h"

enum { BLOCK = 16 }; // words a side: a cache line

// Nibble i of a word holds row 8 c + awq_rows[i].
static const uint8_t awq_rows[8] = {0, 2, 4, 6, 1, 3, 5, 7};

bool clq_columns_fit(clq_packing packing, uint32_t bits, uint64_t rows, uint64_t cols)
{
    if (packing == CLQ_PACKED_AWQ) return bits == 4 && rows % 8 == 0 && cols % 8 == 0;
    uint64_t whole = bits == 3 ? 32 : 32 / bits; // numbers in whole words
    return (bits == 2 || bits == 3 || bits == 4 || bits == 8) && rows % whole == 0 && cols % whole == 0;
}

uint64_t clq_columns_lines(clq_packing packing, uint32_t bits, uint64_t cols)
{
    return packing == CLQ_PACKED_AWQ ? cols : cols / 32 * bits + cols % 32 * bits / 32;
}

uint64_t clq_columns_line_words(clq_packing packing, uint64_t rows)
{
    return packing == CLQ_PACKED_AWQ ? rows / 8 : rows;
}

// Bytes of int8 codes are unsigned in files.
static uint32_t sign_of(uint32_t bits)
{
    return bits == 8 ? 0x80808080u : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// to[k][i] = from[i][k] ^ flip for n x m words, through blocks that stay in the cache.
static void transpose(const uint32_t *from, uint64_t from_stride, uint64_t n, uint64_t m, uint32_t flip, uint32_t *to,
                      uint64_t to_stride)
{
    uint32_t block[BLOCK][BLOCK];
    for (uint64_t k = 0; k < m; k += BLOCK)
        for (uint64_t i = 0; i < n; i += BLOCK) {
            uint64_t height = least(BLOCK, n - i), width = least(BLOCK, m - k);
            for (uint64_t y = 0; y < height; y++)
                for (uint64_t x = 0; x < width; x++) block[x][y] = from[(i + y) * from_stride + k + x] ^ flip;
            for (uint64_t x = 0; x < width; x++) memcpy(&to[(k + x) * to_stride + i], block[x], 4 * height);
        }
}

// 8 words of nibbles, transposed: nibble j of b[i] is nibble i of a[j].
static void transpose_nibbles(const uint32_t a[8], uint32_t b[8])
{
    for (uint32_t i = 0; i < 8; i++) {
        b[i] = 0;
        for (uint32_t j = 0; j < 8; j++) b[i] |= (a[j] >> 4 * i & 15) << 4 * j;
    }
}

void clq_columns_unpack(clq_packing packing, uint32_t bits, const uint32_t *words, uint64_t rows, uint64_t cols,
                        void *codes)
{
    uint64_t n = clq_columns_lines(packing, bits, cols), row_words = cols / 8, line = rows / 8;
    uint32_t *out = codes;
    if (packing == CLQ_PACKED_GPTQ) {
        transpose(words, rows, n, rows, sign_of(bits), out, n);
        return;
    }
    uint32_t block[8 * BLOCK][BLOCK], a[8], b[8];
    for (uint64_t c = 0; c < line; c += BLOCK)
        for (uint64_t w = 0; w < row_words; w += BLOCK) {
            uint64_t height = least(BLOCK, line - c), width = least(BLOCK, row_words - w);
            for (uint64_t x = 0; x < width; x++)
                for (uint64_t y = 0; y < height; y++) {
                    for (int j = 0; j < 8; j++) a[j] = words[(8 * (w + x) + (uint64_t)j) * line + c + y];
                    transpose_nibbles(a, b);
                    for (int i = 0; i < 8; i++) block[8 * y + awq_rows[i]][x] = b[i];
                }
            for (uint64_t y = 0; y < 8 * height; y++) memcpy(&out[(8 * c + y) * row_words + w], block[y], 4 * width);
        }
}

void clq_columns_pack(clq_packing packing, uint32_t bits, const void *codes, uint64_t rows, uint64_t cols,
                      uint64_t first, uint64_t n, uint32_t *words)
{
    const uint32_t *in = codes;
    if (packing == CLQ_PACKED_GPTQ) {
        uint64_t row_words = clq_columns_lines(packing, bits, cols);
        transpose(in + first, row_words, rows, n, sign_of(bits), words, rows);
        return;
    }
    uint64_t row_words = cols / 8, line = rows / 8;
    uint32_t block[8 * BLOCK][BLOCK], a[8], b[8];
    for (uint64_t c = 0; c < line; c += BLOCK)
        for (uint64_t w = 0; w < n / 8; w += BLOCK) {
            uint64_t height = least(BLOCK, line - c), width = least(BLOCK, n / 8 - w);
            for (uint64_t y = 0; y < height; y++)
                for (uint64_t x = 0; x < width; x++) {
                    const uint32_t *from = in + 8 * (c + y) * row_words + first / 8 + w + x;
                    for (int i = 0; i < 8; i++) a[i] = from[awq_rows[i] * row_words];
                    transpose_nibbles(a, b);
                    for (int j = 0; j < 8; j++) block[8 * x + (uint64_t)j][y] = b[j];
                }
            for (uint64_t x = 0; x < 8 * width; x++) memcpy(&words[(8 * w + x) * line + c], block[x], 4 * height);
        }
}

// Where row r of a line of zero-points stands: its place in the bit stream.
static uint64_t place_of(clq_packing packing, uint64_t r)
{
    static const uint8_t nibbles[8] = {0, 4, 1, 5, 2, 6, 3, 7}; // the inverse of awq_rows
    return packing == CLQ_PACKED_AWQ ? r / 8 * 8 + nibbles[r % 8] : r;
}

void clq_columns_unpack_zeros(clq_packing packing, uint32_t bits, uint32_t less, const uint32_t *words, uint64_t rows,
                              uint64_t groups, int8_t *zeros)
{
    uint64_t line = rows * bits / 32;
    uint32_t highest = (1u << bits) - 1;
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < rows; r++) {
            uint32_t z = clq_unpack_bits(words + g * line, place_of(packing, r), bits);
            zeros[r * groups + g] = (int8_t)((int)((z + less) & highest) - (1 << (bits - 1)));
        }
}

void clq_columns_pack_zeros(clq_packing packing, uint32_t bits, uint32_t less, const int8_t *zeros, uint64_t rows,
                            uint64_t groups, uint32_t *words)
{
    uint64_t line = rows * bits / 32;
    uint32_t highest = (1u << bits) - 1;
    memset(words, 0, groups * line * 4);
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < rows; r++) {
            uint32_t z = (uint32_t)(zeros[r * groups + g] + (1 << (bits - 1))) - less;
            clq_pack_bits(words + g * line, place_of(packing, r), bits, z & highest);
        }
}

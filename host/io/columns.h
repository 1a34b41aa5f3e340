// SPDX-License-Identifier: MIT
// Integer weights packed by columns, as AutoAWQ ("GEMM") and GPTQ store them, from and to clquant's rows.
// W is a weight [rows, cols] (out, in features); all words are uint32.
//   GPTQ  codes [cols * bits / 32][rows]: a row's dense bit stream, each of its words in a line of its own.
//         zero-points [groups][rows * bits / 32]: a bit stream along the rows, one lower in version 1.
//   AWQ   codes [cols][rows / 8], zero-points [groups][rows / 8]: a word is 8 rows, in AWQ's order. 4 bits.
// Both are unsigned: a code or zero-point of clquant's plus 2^(bits-1).
// Sources: awq/utils/packing_utils.py of https://github.com/casper-hansen/AutoAWQ,
// gptqmodel/nn_modules/qlinear/__init__.py of https://github.com/ModelCloud/GPTQModel
#ifndef CLQ_IO_COLUMNS_H
#define CLQ_IO_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>

// How codes, scales and zero-points of a CLQ_INT tensor stand in its file.
typedef enum clq_packing {
    CLQ_PACKED_ROWS,  // compressed-tensors: as clq_type_sizes says
    CLQ_PACKED_LOOSE, // the same, but 32 / bits codes a word without crossing words: an older layout
    CLQ_PACKED_AWQ,
    CLQ_PACKED_GPTQ
} clq_packing;

static inline bool clq_by_columns(clq_packing packing) { return packing >= CLQ_PACKED_AWQ; }

// Whether a weight can be packed so: words are whole.
bool clq_columns_fit(clq_packing packing, uint32_t bits, uint64_t rows, uint64_t cols);
// Lines of words that codes take, and words of a line.
uint64_t clq_columns_lines(clq_packing packing, uint32_t bits, uint64_t cols);
uint64_t clq_columns_line_words(clq_packing packing, uint64_t rows);
// Lines that are packed and unpacked together: `first` and `n` below are multiples of it, or end at the last line.
enum { CLQ_COLUMNS_STEP = 8 };

// codes: rows as clq_type_sizes says, 4-byte aligned. words: all lines of these rows.
void clq_columns_unpack(clq_packing packing, uint32_t bits, const uint32_t *words, uint64_t rows, uint64_t cols,
                        void *codes);
// Lines [first, first + n) of all rows.
void clq_columns_pack(clq_packing packing, uint32_t bits, const void *codes, uint64_t rows, uint64_t cols,
                      uint64_t first, uint64_t n, uint32_t *words);
// zeros: int8 [rows][groups]. less: by how much the stored numbers are lower (GPTQ version 1: 1); 0 wraps.
void clq_columns_unpack_zeros(clq_packing packing, uint32_t bits, uint32_t less, const uint32_t *words, uint64_t rows,
                              uint64_t groups, int8_t *zeros);
void clq_columns_pack_zeros(clq_packing packing, uint32_t bits, uint32_t less, const int8_t *zeros, uint64_t rows,
                            uint64_t groups, uint32_t *words);

#endif

// SPDX-License-Identifier: MIT
// Packing by columns: tables against layouts written by hand, packing and unpacking as inverses, and their speed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/threads.h"
#include "format/format.h"
#include "io/columns.h"

static const clq_packing both[] = {CLQ_PACKED_AWQ, CLQ_PACKED_GPTQ};

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

// Code of a row of 8 bits or fewer, unsigned.
static uint32_t code_at(const void *codes, uint64_t row_bytes, uint32_t bits, uint64_t row, uint64_t col)
{
    const uint8_t *at = (const uint8_t *)codes + row * row_bytes;
    return bits == 8 ? at[col] ^ 0x80u : clq_unpack_bits((const uint32_t *)(const void *)at, col, bits);
}

static void set_code(void *codes, uint64_t row_bytes, uint32_t bits, uint64_t row, uint64_t col, uint32_t code)
{
    uint8_t *at = (uint8_t *)codes + row * row_bytes;
    if (bits == 8)
        at[col] = (uint8_t)(code ^ 0x80u);
    else
        clq_pack_bits((uint32_t *)(void *)at, col, bits, code);
}

// Codes that tell their place: row mod 16, zero-points 5 * row mod 16.
static void test_awq_by_hand(void **state)
{
    (void)state;
    uint32_t codes[16] = {0}, words[16], zeros_words[2];
    int8_t zeros[16];
    for (uint64_t r = 0; r < 16; r++) {
        for (uint64_t c = 0; c < 8; c++) set_code(codes, 4, 4, r, c, (uint32_t)r % 16);
        zeros[r] = (int8_t)(r * 5 % 16 - 8);
    }
    clq_columns_pack(CLQ_PACKED_AWQ, 4, codes, 16, 8, 0, 8, words);
    clq_columns_pack_zeros(CLQ_PACKED_AWQ, 4, 0, zeros, 16, 1, zeros_words);
    for (int c = 0; c < 8; c++) {
        assert_int_equal(words[2 * c], 0x75316420);
        assert_int_equal(words[2 * c + 1], 0xfdb9eca8);
    }
    assert_int_equal(zeros_words[0], 0x39f5e4a0);
    assert_int_equal(zeros_words[1], 0xb17d6c28);
}

static void test_gptq_by_hand(void **state)
{
    (void)state;
    // 3 bits: column c of row r is (c + r) mod 8; 32 values in 3 words, the 11th and 22nd crossing words.
    uint32_t codes[2 * 3] = {0}, words[3 * 2];
    for (uint64_t r = 0; r < 2; r++)
        for (uint64_t c = 0; c < 32; c++) set_code(codes, 12, 3, r, c, (uint32_t)(c + r) % 8);
    clq_columns_pack(CLQ_PACKED_GPTQ, 3, codes, 2, 32, 0, 3, words);
    uint64_t stream[2] = {0};
    for (uint64_t r = 0; r < 2; r++)
        for (uint64_t c = 0; c < 21; c++) stream[r] |= (c + r) % 8 << 3 * c;
    for (uint64_t r = 0; r < 2; r++) {
        assert_int_equal(words[r], (uint32_t)stream[r]);
        assert_int_equal(words[2 + r] & 0x7fffffff, (uint32_t)(stream[r] >> 32));
    }
    // Zero-points of version 1 are one lower: the middle of 4 bits is 7, and 0 wraps.
    int8_t zeros[8] = {0, 0, 0, 0, 0, 0, 0, -8};
    uint32_t word;
    clq_columns_pack_zeros(CLQ_PACKED_GPTQ, 4, 1, zeros, 8, 1, &word);
    assert_int_equal(word, 0xf7777777);
    clq_columns_pack_zeros(CLQ_PACKED_GPTQ, 4, 0, zeros, 8, 1, &word);
    assert_int_equal(word, 0x08888888);
}

static void test_inverse(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{32, 32}, {8, 8}, {160, 96}, {264, 1056}, {136, 40}, {1024, 288}};
    static const uint32_t widths[] = {2, 3, 4, 8};
    uint32_t seed = 1;
    for (int p = 0; p < 2; p++)
        for (size_t b = 0; b < 4; b++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                uint64_t rows = shapes[s][0], cols = shapes[s][1], groups = 3;
                uint32_t bits = widths[b];
                if (!clq_columns_fit(both[p], bits, rows, cols)) continue;
                clq_type type = {.format = CLQ_INT, .bits = (uint8_t)bits, .scale_format = CLQ_F16};
                uint64_t row_bytes = clq_type_row_bytes(&type, cols), lines = clq_columns_lines(both[p], bits, cols);
                uint64_t line = clq_columns_line_words(both[p], rows);
                assert_int_equal(lines * line * 4, rows * row_bytes);
                uint32_t *codes = calloc(rows, row_bytes), *back = calloc(rows, row_bytes);
                uint32_t *words = malloc(rows * row_bytes), *pieces = malloc(rows * row_bytes);
                for (uint64_t r = 0; r < rows; r++)
                    for (uint64_t c = 0; c < cols; c++)
                        set_code(codes, row_bytes, bits, r, c, next(&seed) >> (24 - bits));
                clq_columns_pack(both[p], bits, codes, rows, cols, 0, lines, words);
                clq_columns_unpack(both[p], bits, words, rows, cols, back);
                assert_memory_equal(codes, back, rows * row_bytes);
                for (uint64_t at = 0; at < lines; at += CLQ_COLUMNS_STEP) {
                    uint64_t n = lines - at < CLQ_COLUMNS_STEP ? lines - at : CLQ_COLUMNS_STEP;
                    clq_columns_pack(both[p], bits, codes, rows, cols, at, n, pieces + at * line);
                }
                assert_memory_equal(words, pieces, rows * row_bytes);
                for (uint64_t c = 0; both[p] == CLQ_PACKED_GPTQ && bits != 3 && c < cols; c++) {
                    uint32_t per = 32 / bits, word = words[c / per * rows + 1];
                    assert_int_equal(word >> c % per * bits & ((1u << bits) - 1),
                                     code_at(codes, row_bytes, bits, 1, c));
                }
                int8_t *zeros = malloc(rows * groups), *same = malloc(rows * groups);
                for (uint64_t i = 0; i < rows * groups; i++)
                    zeros[i] = (int8_t)((int)(next(&seed) % (1u << bits)) - (1 << (bits - 1)));
                for (uint32_t less = 0; less < 2; less++) {
                    clq_columns_pack_zeros(both[p], bits, less, zeros, rows, groups, words);
                    clq_columns_unpack_zeros(both[p], bits, less, words, rows, groups, same);
                    assert_memory_equal(zeros, same, rows * groups);
                }
                free(same);
                free(zeros);
                free(pieces);
                free(words);
                free(back);
                free(codes);
            }
}

static void test_fit(void **state)
{
    (void)state;
    assert_true(clq_columns_fit(CLQ_PACKED_AWQ, 4, 8, 32));
    assert_false(clq_columns_fit(CLQ_PACKED_AWQ, 4, 12, 32));
    assert_false(clq_columns_fit(CLQ_PACKED_AWQ, 8, 8, 32));
    assert_true(clq_columns_fit(CLQ_PACKED_GPTQ, 8, 4, 4));
    assert_true(clq_columns_fit(CLQ_PACKED_GPTQ, 2, 16, 16));
    assert_false(clq_columns_fit(CLQ_PACKED_GPTQ, 2, 8, 16));
    assert_false(clq_columns_fit(CLQ_PACKED_GPTQ, 3, 16, 32));
    assert_false(clq_columns_fit(CLQ_PACKED_GPTQ, 5, 32, 32));
}

// [11008, 4096] at 4 bits, on one thread.
static void test_speed(void **state)
{
    (void)state;
    uint64_t rows = 11008, cols = 4096, n_bytes = rows * cols / 2;
    uint32_t *codes = malloc(n_bytes), *words = malloc(n_bytes), *back = malloc(n_bytes);
    for (uint64_t i = 0; i < n_bytes / 4; i++) codes[i] = (uint32_t)i * 2654435761u;
    for (int p = 0; p < 2; p++) {
        double start = clq_seconds();
        clq_columns_pack(both[p], 4, codes, rows, cols, 0, clq_columns_lines(both[p], 4, cols), words);
        double middle = clq_seconds();
        clq_columns_unpack(both[p], 4, words, rows, cols, back);
        double end = clq_seconds();
        print_message("%s: packed in %.3f s, unpacked in %.3f s\n", p ? "GPTQ" : "AWQ", middle - start, end - middle);
        assert_memory_equal(codes, back, n_bytes);
        assert_true(end - start < 4);
    }
    free(back);
    free(words);
    free(codes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_awq_by_hand), cmocka_unit_test(test_gptq_by_hand), cmocka_unit_test(test_inverse),
        cmocka_unit_test(test_fit),         cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

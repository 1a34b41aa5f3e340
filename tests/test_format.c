// SPDX-License-Identifier: MIT
// host/format and base/half.h: golden vectors of another encoder, the integer family's rules by hand-made
// numbers, names and sizes of types, and float16/bfloat16 in full.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "format/format.h"

static uint64_t seed = 1;

static uint32_t random_bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static float normal(void)
{
    double u = (random_bits() + 0.5) * 0x1p-32, v = random_bits() * 0x1p-32;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static bool same_float(float a, float b) { return clq_bits(a) == clq_bits(b) || (isnan(a) && isnan(b)); }

// ---- golden vectors ----------------------------------------------------------------------------

static void *read_golden(const char *name, size_t *len)
{
    const char *dir = getenv("CLQ_TEST_DATA");
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", dir ? dir : "tests", name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *len = (size_t)ftell(f);
    rewind(f);
    void *bytes = malloc(*len);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *len, f), *len);
    fclose(f);
    return bytes;
}

static void test_golden(void **state)
{
    (void)state;
    size_t n_bytes;
    float *x = read_golden("input.f32", &n_bytes);
    size_t n = n_bytes / 4, n_formats = 0;
    assert_true(n >= 32 * 150 && n % 256 == 0);
    for (int id = 0; id < CLQ_INT; id++) {
        const clq_format *f = clq_format_row((clq_format_id)id);
        if (!f->info.has_codec || id == CLQ_F32) continue;
        char name[32];
        snprintf(name, sizeof name, "%s.bin", f->info.name);
        size_t len, n_blocks = n / f->info.block_elements;
        uint8_t *expected = read_golden(name, &len), *ours = malloc(len);
        assert_int_equal(len, n_blocks * f->info.block_bytes);
        f->encode_ref(x, NULL, n_blocks, ours);
        for (size_t i = 0; i < len; i++)
            if (ours[i] != expected[i])
                fail_msg("%s: byte %zu of block %zu is %02x, the oracle's %02x", f->info.name, i % f->info.block_bytes,
                         i / f->info.block_bytes, ours[i], expected[i]);
        free(ours);
        free(expected);
        n_formats++;
    }
    assert_true(n_formats >= 7);
    free(x);
}

static void test_golden_decode(void **state)
{
    (void)state;
    for (int id = 0; id < CLQ_INT; id++) {
        const clq_format *f = clq_format_row((clq_format_id)id);
        if (!f->info.has_codec || f->info.block_elements == 1) continue;
        char name[32];
        size_t len, n_bytes;
        snprintf(name, sizeof name, "%s.bin", f->info.name);
        uint8_t *blocks = read_golden(name, &len);
        snprintf(name, sizeof name, "%s.f32", f->info.name);
        float *expected = read_golden(name, &n_bytes), *y = malloc(n_bytes);
        assert_int_equal(n_bytes / 4 / f->info.block_elements, len / f->info.block_bytes);
        f->decode_ref(blocks, len / f->info.block_bytes, y);
        for (size_t i = 0; i < n_bytes / 4; i++)
            if (!same_float(y[i], expected[i]))
                fail_msg("%s: value %zu is %a, the oracle's %a", f->info.name, i, (double)y[i], (double)expected[i]);
        free(y);
        free(expected);
        free(blocks);
    }
}

// Codes by hand: a step of 1, every value a half away from a code.
static void test_blocks_by_hand(void **state)
{
    (void)state;
    float x[32] = {0};
    x[0] = 127.0f;
    x[1] = 0.5f;
    x[2] = -0.5f;
    x[3] = 1.5f;
    x[4] = -126.5f;
    x[31] = -1.0f;
    clq_block_q8_0 q8;
    clq_format_row(CLQ_Q8_0)->encode_ref(x, NULL, 1, &q8);
    assert_int_equal(q8.d, 0x3c00); // 1.0
    assert_int_equal(q8.qs[0], 127);
    assert_int_equal(q8.qs[1], 1); // away from zero
    assert_int_equal(q8.qs[2], -1);
    assert_int_equal(q8.qs[3], 2);
    assert_int_equal(q8.qs[4], -127);
    assert_int_equal(q8.qs[31], -1);

    memset(x, 0, sizeof x);
    x[0] = -8.0f;
    x[1] = 7.0f;
    x[15] = 0.49f;
    x[16] = -7.0f;
    x[17] = 8.0f; // the same magnitude, later: code 16 is cut to 15
    clq_block_q4_0 q4;
    clq_format_row(CLQ_Q4_0)->encode_ref(x, NULL, 1, &q4);
    assert_int_equal(q4.d, 0x3c00);
    assert_int_equal(q4.qs[0], 0 | 1 << 4); // elements 0 and 16
    assert_int_equal(q4.qs[1], 15 | 15 << 4);
    assert_int_equal(q4.qs[15], 8 | 8 << 4);

    for (int i = 0; i < 32; i++) x[i] = (float)i - 10.0f;
    clq_block_q5_1 q5;
    clq_format_row(CLQ_Q5_1)->encode_ref(x, NULL, 1, &q5);
    assert_int_equal(q5.d, 0x3c00);
    assert_int_equal(q5.m, 0xc900); // -10.0
    for (int j = 0; j < 16; j++) assert_int_equal(q5.qs[j], j | j << 4);
    static const uint8_t high[4] = {0, 0, 0xff, 0xff}; // the fifth bits of elements 16..31
    assert_memory_equal(q5.qh, high, 4);
}

// ---- the table and names -----------------------------------------------------------------------

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t ggml;
        uint32_t elements, bytes;
    } known[] = {
        {"f32", 0, 1, 4},         {"f16", 1, 1, 2},         {"q4_0", 2, 32, 18},      {"q4_1", 3, 32, 20},
        {"q5_0", 6, 32, 22},      {"q5_1", 7, 32, 24},      {"q8_0", 8, 32, 34},      {"q8_1", 9, 32, 36},
        {"q2_K", 10, 256, 84},    {"q3_K", 11, 256, 110},   {"q4_K", 12, 256, 144},   {"q5_K", 13, 256, 176},
        {"q6_K", 14, 256, 210},   {"q8_K", 15, 256, 292},   {"iq2_xxs", 16, 256, 66}, {"iq2_xs", 17, 256, 74},
        {"iq3_xxs", 18, 256, 98}, {"iq1_s", 19, 256, 50},   {"iq4_nl", 20, 32, 18},   {"iq3_s", 21, 256, 110},
        {"iq2_s", 22, 256, 82},   {"iq4_xs", 23, 256, 136}, {"i8s", 24, 1, 1},        {"i16s", 25, 1, 2},
        {"i32s", 26, 1, 4},       {"i64s", 27, 1, 8},       {"f64", 28, 1, 8},        {"iq1_m", 29, 256, 56},
        {"bf16", 30, 1, 2},       {"tq1_0", 34, 256, 54},   {"tq2_0", 35, 256, 66},   {"mxfp4", 39, 32, 17},
        {"nvfp4", 40, 64, 36},    {"q1_0", 41, 128, 18},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        clq_format_id id = clq_format_of_ggml((uint32_t)known[i].ggml);
        if (id == CLQ_FORMAT_COUNT) fail_msg("ggml type %d is missing", known[i].ggml);
        const clq_format_info *f = clq_format_at(id);
        assert_string_equal(f->name, known[i].name);
        assert_int_equal(f->block_elements, known[i].elements);
        assert_int_equal(f->block_bytes, known[i].bytes);
    }
    static const uint32_t gone[] = {4,  5,  31, 32,   33,
                                    36, 37, 38, 1000, UINT32_MAX}; // removed from ggml, or never there
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        assert_int_equal(clq_format_of_ggml(gone[i]), CLQ_FORMAT_COUNT);
    assert_int_equal(clq_format_of_st("BF16"), CLQ_BF16);
    assert_int_equal(clq_format_of_st("F8_E4M3"), CLQ_F8_E4M3);
    assert_int_equal(clq_format_of_st("bf16"), CLQ_FORMAT_COUNT);
    assert_int_equal(clq_format_of_st(""), CLQ_FORMAT_COUNT);
    assert_null(clq_format_at(CLQ_FORMAT_COUNT));
    assert_null(clq_format_at((clq_format_id)-1));
    for (int id = 0; id < CLQ_INT; id++) // codecs have both directions, storage has none
        assert_true(clq_format_row((clq_format_id)id)->info.has_codec ==
                    (clq_format_row((clq_format_id)id)->encode_ref && clq_format_row((clq_format_id)id)->decode_ref));
}

static void round_trip(const char *text, const char *canonical)
{
    clq_type type, again;
    char name[32];
    clq_error err;
    if (clq_type_parse(text, &type, &err) != CLQ_OK) fail_msg("'%s': %s", text, err.text);
    clq_type_name(&type, name);
    assert_string_equal(name, canonical);
    assert_int_equal(clq_type_parse(name, &again, &err), CLQ_OK);
    assert_true(clq_type_equal(&type, &again));
}

static void test_names(void **state)
{
    (void)state;
    for (int id = 0; id < CLQ_INT; id++) {
        const clq_format_info *f = clq_format_at((clq_format_id)id);
        if (!f->has_codec) continue;
        char upper[32];
        snprintf(upper, sizeof upper, "%s", f->name);
        for (char *c = upper; *c; c++)
            if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 32);
        round_trip(f->name, f->name);
        round_trip(upper, f->name);
    }
    for (int bits = 2; bits <= 8; bits++) {
        static const char *const forms[] = {"", "_asym", "_tensor", "_asym_tensor", "_g32", "_asym_g128", "_g1048576"};
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
            char name[32];
            snprintf(name, sizeof name, "i%d%s", bits, forms[i]);
            round_trip(name, name);
        }
    }
    round_trip("I4_ASYM_G64", "i4_asym_g64");
    round_trip("i8_Tensor", "i8_tensor");

    clq_type t;
    assert_int_equal(clq_type_parse("i3_asym_g96", &t, NULL), CLQ_OK);
    assert_int_equal(t.format, CLQ_INT);
    assert_int_equal(t.bits, 3);
    assert_false(t.symmetric);
    assert_int_equal(t.granularity, CLQ_PER_GROUP);
    assert_int_equal(t.group_size, 96);
    assert_int_equal(t.scale_format, CLQ_F32);
    assert_int_equal(clq_type_parse("i8", &t, NULL), CLQ_OK);
    assert_true(t.symmetric && t.granularity == CLQ_PER_CHANNEL);
}

static void test_bad_names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "i",
        "i1",
        "i9",
        "i0",
        "i10",
        "i44",
        "i8_",
        "i8_g",
        "i8_g0",
        "i8_g31",
        "i8_g33",
        "i8_g-32",
        "i8_g+32",
        "i8_g 32",
        "i8_g32x",
        "i8_g32 ",
        "i8_g1048608",
        "i8_g99999999999999999999",
        "i8_tensor_asym",
        "i8_asym_asym",
        "i8_g64_asym",
        "i8_tensor_g32",
        "i8_tensors",
        "i8asym",
        "i-8",
        " i8",
        "i8 ",
        "int8",
        "q4",
        "q4_",
        "q4_00",
        "q4_0 ",
        "q8_K",
        "q9_0",
        "i8s",
        "f64",
        "f8_e4m3",
        "bool",
        "i<bits>[_asym][_tensor|_g<N>]",
        "f",
        "f160",
        "none",
        "\xff",
        "%s%n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        clq_type type;
        clq_error err = {0};
        if (clq_type_parse(bad[i], &type, &err) != CLQ_USAGE) fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(err.status, CLQ_USAGE);
        assert_non_null(strstr(err.text, bad[i]));
    }
    char long_name[5000];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    clq_type type;
    clq_error err;
    assert_int_equal(clq_type_parse(long_name, &type, &err), CLQ_USAGE);
    assert_true(strlen(err.text) < sizeof err.text);
}

static void sizes_are(const char *name, uint64_t rows, uint64_t cols, uint64_t codes, uint64_t scales, uint64_t zeros,
                      uint64_t groups)
{
    clq_type type;
    clq_part_sizes s;
    clq_error err;
    assert_int_equal(clq_type_parse(name, &type, &err), CLQ_OK);
    if (clq_type_sizes(&type, rows, cols, &s, &err) != CLQ_OK) fail_msg("%s: %s", name, err.text);
    assert_int_equal(s.codes, codes);
    assert_int_equal(s.scales, scales);
    assert_int_equal(s.zero_points, zeros);
    assert_int_equal(s.groups, groups);
}

static void test_sizes(void **state)
{
    (void)state;
    sizes_are("f32", 3, 5, 60, 0, 0, 0);
    sizes_are("bf16", 3, 5, 30, 0, 0, 0);
    sizes_are("q4_0", 3, 64, 3 * 2 * 18, 0, 0, 0);
    sizes_are("q8_0", 7, 96, 7 * 3 * 34, 0, 0, 0);
    sizes_are("i8", 3, 5, 15, 12, 0, 1);
    sizes_are("i8_asym", 3, 5, 15, 12, 3, 1);
    sizes_are("i8_tensor", 3, 5, 15, 4, 0, 1);
    sizes_are("i8_asym_tensor", 3, 5, 15, 4, 1, 1);
    sizes_are("i4", 3, 9, 3 * 8, 12, 0, 1); // 36 bits: two words a row
    sizes_are("i3_g32", 2, 64, 2 * 24, 16, 0, 2);
    sizes_are("i5_asym_g64", 2, 192, 2 * 120, 24, 6, 3);
    sizes_are("i7", 1, 1, 4, 4, 0, 1);
    sizes_are("i8", 0, 5, 0, 0, 0, 1);
    clq_type type;
    clq_part_sizes s;
    clq_error err;
    clq_type_parse("i4_g128", &type, NULL);
    type.scale_format = CLQ_F16;
    assert_int_equal(clq_type_sizes(&type, 10, 256, &s, &err), CLQ_OK);
    assert_int_equal(s.scales, 10 * 2 * 2);

    // Refused: rows that are not whole blocks or groups, products beyond 64 bits.
    clq_type_parse("q4_0", &type, NULL);
    assert_int_equal(clq_type_sizes(&type, 1, 48, &s, &err), CLQ_USAGE);
    clq_type_parse("i4_g128", &type, NULL);
    assert_int_equal(clq_type_sizes(&type, 1, 192, &s, &err), CLQ_USAGE);
    clq_type_parse("i4", &type, NULL);
    assert_int_equal(clq_type_sizes(&type, 1, UINT64_MAX, &s, &err), CLQ_USAGE);
    assert_int_equal(clq_type_sizes(&type, UINT64_MAX / 2, 1024, &s, &err), CLQ_USAGE);
    clq_type_parse("f32", &type, NULL);
    assert_int_equal(clq_type_sizes(&type, 1ull << 40, 1ull << 40, &s, &err), CLQ_USAGE);
    uint64_t n_bytes;
    assert_true(clq_format_bytes(CLQ_Q5_0, 320, &n_bytes));
    assert_int_equal(n_bytes, 220);
    assert_false(clq_format_bytes(CLQ_Q5_0, 33, &n_bytes));
    assert_false(clq_format_bytes(CLQ_F64, UINT64_MAX / 4, &n_bytes));
}

// ---- the integer family ------------------------------------------------------------------------

static clq_type int_type(const char *name, clq_format_id scale_format)
{
    clq_type type;
    assert_int_equal(clq_type_parse(name, &type, NULL), CLQ_OK);
    type.scale_format = scale_format;
    return type;
}

static void params_are(const char *name, clq_format_id scale_format, float min, float max, float scale, int zero_point)
{
    clq_type type = int_type(name, scale_format);
    float s = NAN;
    int8_t z = 99;
    clq_int_params(&type, min, max, &s, &z);
    if (s != scale || z != zero_point)
        fail_msg("%s, scales of format %d, %a..%a: scale %a, zero-point %d, not %a, %d", name, (int)scale_format,
                 (double)min, (double)max, (double)s, z, (double)scale, zero_point);
}

static void test_int_params(void **state)
{
    (void)state;
    params_are("i8", CLQ_F32, -127, 64, 1, 0);
    params_are("i8", CLQ_F32, -3, 254, 2, 0);
    params_are("i8", CLQ_F32, 5, 5, 5.0f / 127, 0);
    params_are("i4", CLQ_F32, -7, 3.5f, 1, 0);
    params_are("i2", CLQ_F32, -0.25f, 0.125f, 0.25f, 0);
    params_are("i3", CLQ_F32, -1.5f, 1, 0.5f, 0);
    params_are("i8", CLQ_F32, 0, 0, 0, 0);
    params_are("i8", CLQ_F32, -0.0f, 0, 0, 0);
    params_are("i8_asym", CLQ_F32, 0, 0, 0, 0);
    params_are("i8_asym", CLQ_F32, 0, 255, 1, -128);
    params_are("i8_asym", CLQ_F32, -255, 0, 1, 127);
    params_are("i8_asym", CLQ_F32, -128, 127, 1, 0);
    params_are("i8_asym", CLQ_F32, -1, 254, 1, -127);
    params_are("i8_asym", CLQ_F32, 100, 255, 1, -128); // zero is always within the range
    params_are("i8_asym", CLQ_F32, -255, -200, 1, 127);
    params_are("i4_asym", CLQ_F32, -5, 10, 1, -3); // -8 + 5
    params_are("i2_asym", CLQ_F32, -2, 1, 1, 0);
    params_are("i4_asym", CLQ_F32, -4.5f, 10.5f, 1, -4); // -8 - rint(-4.5): to even
    // The largest floats: the range itself is beyond float.
    params_are("i8_asym", CLQ_F32, -FLT_MAX, FLT_MAX, FLT_MAX / 127.5f, 0);
}

// A stored scale that was rounded down so far that the largest value would be cut by more than half a
// step goes up to the next one.
static void test_scale_rounding(void **state)
{
    (void)state;
    const float u = 0x1p-24f; // float16's smallest
    params_are("i8", CLQ_F16, 0, 127.0f * u, u, 0);
    params_are("i8", CLQ_F16, 0, 127.25f * u, u, 0); // cut by a quarter
    params_are("i8", CLQ_F16, 0, 127.5f * u, u, 0);  // exactly half a step: stays
    params_are("i8", CLQ_F16, 0, 127.75f * u, 2 * u, 0);
    params_are("i8", CLQ_F16, -1.4f * 127 * u, 0, 2 * u, 0); // nearest would be u
    params_are("i8", CLQ_F16, -1.6f * 127 * u, 0, 2 * u, 0);
    params_are("i8", CLQ_F16, 0, 0.25f * 127 * u, u, 0); // nearest would be 0, which loses the group
    params_are("i8", CLQ_F16, 0, 1e-30f, u, 0);
    params_are("i4", CLQ_F16, 0, 7.5f * u, u, 0);
    params_are("i4", CLQ_F16, 0, 7.75f * u, 2 * u, 0);
    params_are("i8_asym", CLQ_F16, 0, 255 * u, u, -128);
    params_are("i8_asym", CLQ_F16, 0, 300 * u, 2 * u, -128);
    // In float16's normal range nearest never cuts so much: 1 + 2^-11 rounds down to 1.
    params_are("i8", CLQ_F16, 0, 127.06f, 1, 0);
    params_are("i8", CLQ_F16, 0, 127.07f, 1 + 0x1p-10f, 0);
    // Two bits: 1.5 steps are in reach of the only code.
    params_are("i2", CLQ_F16, 0, 1.4f * u, u, 0);
    params_are("i2", CLQ_F16, 0, 1.5f * u, 2 * u, 0); // nearest (to even) is 2 already
    params_are("i8", CLQ_BF16, 0, 127.4f, 1, 0);
    params_are("i8", CLQ_BF16, 0, 127.6f, 1 + 0x1p-7f, 0);
    // float32's own subnormals.
    params_are("i8", CLQ_F32, 0, 178 * 0x1p-149f, 2 * 0x1p-149f, 0); // 1.4 steps
    params_are("i8", CLQ_F32, 0, 0x1p-149f, 0x1p-149f, 0);
}

static void test_int_codes(void **state)
{
    (void)state;
    clq_type i8 = int_type("i8", CLQ_F32), i4 = int_type("i4", CLQ_F32), a8 = int_type("i8_asym", CLQ_F32);
    static const struct {
        float x;
        int code;
    } half_to_even[] = {
        {0, 0},         {-0.0f, 0},    {0.5f, 0},       {-0.5f, 0},        {1.5f, 2},        {-1.5f, -2},
        {2.5f, 2},      {126.5f, 126}, {127, 127},      {127.5f, 127},     {-127, -127},     {-128, -127},
        {-1e30f, -127}, {1e30f, 127},  {INFINITY, 127}, {-INFINITY, -127}, {0.49999997f, 0}, {0.50000006f, 1}};
    for (size_t i = 0; i < sizeof half_to_even / sizeof *half_to_even; i++)
        assert_int_equal(clq_int_code(&i8, half_to_even[i].x, 1, 0), half_to_even[i].code);
    assert_int_equal(clq_int_code(&i4, -8, 1, 0), -7);
    assert_int_equal(clq_int_code(&i4, 3.5f, 0.5f, 0), 7);
    assert_int_equal(clq_int_code(&i8, 5, 0, 0), 0); // a scale of 0: an all-zero group
    assert_int_equal(clq_int_code(&a8, 0, 0, 7), 7);
    assert_int_equal(clq_int_code(&a8, -300, 1, 0), -128);
    assert_int_equal(clq_int_code(&a8, 10, 1, 120), 127);
    assert_int_equal(clq_int_code(&a8, -2, 1, -128), -128);
    assert_int_equal(clq_int_code(&a8, 2.5f, 1, 1), 3); // rounded before the zero-point is added
    assert_int_equal(clq_int_code(&a8, 0, 0.3f, -43), -43);
}

static void test_int_properties(void **state)
{
    (void)state;
    static const clq_format_id scale_formats[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    seed = 5;
    for (int round = 0; round < 3000; round++) {
        clq_type type = {.format = CLQ_INT,
                         .bits = (uint8_t)(2 + round % 7),
                         .symmetric = round % 2,
                         .scale_format = scale_formats[round % 3]};
        float x[64], y[64], scale, low = INFINITY, high = -INFINITY, size = ldexpf(1, (int)(random_bits() % 24) - 12);
        float shift = round % 5 == 0 ? 3.0f : 0.0f;
        for (int i = 0; i < 64; i++) {
            x[i] = (normal() + shift) * size;
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        x[9] = 0;
        low = fminf(low, 0);
        high = fmaxf(high, 0);
        int8_t zero;
        clq_int_params(&type, low, high, &scale, &zero);
        assert_true(scale > 0 && isfinite(scale));
        if (type.scale_format == CLQ_F16) assert_true(clq_round_f16(scale) == scale);
        if (type.scale_format == CLQ_BF16) assert_true(clq_round_bf16(scale) == scale);
        uint32_t codes[64] = {0}, minus[64];
        clq_int_encode_ref(&type, x, 1, 64, &scale, type.symmetric ? NULL : &zero, codes);
        clq_int_decode_ref(&type, codes, 1, 64, &scale, type.symmetric ? NULL : &zero, y);
        // Steps: rounding, then the zero-point's rounding, then what a rounded scale cuts off.
        double steps = type.symmetric ? 0.5 : 1;
        for (int i = 0; i < 64; i++)
            if (!(fabs((double)x[i] - (double)y[i]) <= 1.0001 * steps * (double)scale))
                fail_msg("bits %u, %s, scale %a: %a became %a", type.bits, type.symmetric ? "symmetric" : "asymmetric",
                         (double)scale, (double)x[i], (double)y[i]);
        assert_true(y[9] == 0.0f); // zero is exact
        if (!type.symmetric) continue;
        // -x has the negated codes, and no code is -2^(bits-1).
        float z[64];
        for (int i = 0; i < 64; i++) z[i] = -x[i];
        clq_int_encode_ref(&type, z, 1, 64, &scale, NULL, minus);
        clq_int_decode_ref(&type, minus, 1, 64, &scale, NULL, z);
        for (int i = 0; i < 64; i++) {
            assert_true(z[i] == -y[i]);
            int code = type.bits == 8 ? ((int8_t *)codes)[i]
                                      : (int)clq_unpack_bits(codes, (uint64_t)i, type.bits) - (1 << (type.bits - 1));
            assert_true(code >= -((1 << (type.bits - 1)) - 1));
        }
    }
}

// 32 codes of the widths 2 to 7 take as many words. Code i is (5 i + 1) mod 2^width; worked out with
// Python's integers: sum(code << (i * width)).
static void test_packing_table(void **state)
{
    (void)state;
    static const uint32_t words[8][7] = {
        [2] = {0x39393939, 0x39393939},
        [3] = {0xf19d50f1, 0x50f19d50, 0x9d50f19d},
        [4] = {0x4fa50b61, 0xc72d83e9, 0x4fa50b61, 0xc72d83e9},
        [5] = {0xf5582cc1, 0xdc4dc927, 0x6ed161c5, 0xd9a3d450, 0xe5e4d40f},
        [6] = {0x9540b181, 0x3ba991f6, 0x3070bde3, 0xa581b591, 0x3fb9d2fa, 0x71748d20},
        [7] = {0x5202c301, 0x29487cd1, 0x13d70cd7, 0xeb51991e, 0xbf565c16, 0x00ff79e9, 0x385c90d1},
    };
    for (uint32_t bits = 2; bits <= 7; bits++) {
        char name[8];
        snprintf(name, sizeof name, "i%u_asym", bits);
        clq_type type = int_type(name, CLQ_F32);
        float x[32], y[32], scale = 1;
        int8_t zero = 0;
        for (int i = 0; i < 32; i++) x[i] = (float)((5 * i + 1) % (1 << bits) - (1 << (bits - 1)));
        uint32_t packed[7];
        memset(packed, 0xff, sizeof packed);
        clq_int_encode_ref(&type, x, 1, 32, &scale, &zero, packed);
        assert_memory_equal(packed, words[bits], bits * 4);
        clq_int_decode_ref(&type, packed, 1, 32, &scale, &zero, y);
        assert_memory_equal(x, y, sizeof x);
    }
    // By eye: nibbles and pairs of bits, the first code in the lowest bits.
    uint32_t word = 0;
    for (uint32_t i = 0; i < 8; i++) clq_pack_bits(&word, i, 4, i);
    assert_int_equal(word, 0x76543210);
    word = 0;
    for (uint32_t i = 0; i < 16; i++) clq_pack_bits(&word, i, 2, i % 4);
    assert_int_equal(word, 0xe4e4e4e4);
}

// Every position alone: its bits are set, no other; a row starts at a word of its own.
static void test_packing_positions(void **state)
{
    (void)state;
    enum { COLS = 67, ROWS = 3 };
    for (uint32_t bits = 2; bits <= 7; bits++) {
        clq_type type = {.format = CLQ_INT, .bits = (uint8_t)bits, .symmetric = false, .scale_format = CLQ_F32};
        uint64_t row_bytes = clq_type_row_bytes(&type, COLS);
        assert_int_equal(row_bytes, (COLS * bits + 31) / 32 * 4);
        float scales[ROWS] = {1, 1, 1}, lowest = -(float)(1 << (bits - 1));
        int8_t zeros[ROWS] = {0};
        for (int at = 0; at < ROWS * COLS; at++) {
            float x[ROWS * COLS];
            uint8_t codes[ROWS * 64];
            for (int i = 0; i < ROWS * COLS; i++) x[i] = i == at ? -lowest - 1 : lowest; // all ones; zeros elsewhere
            clq_int_encode_ref(&type, x, ROWS, COLS, scales, zeros, codes);
            uint64_t first = (uint64_t)(at / COLS) * row_bytes * 8 + (uint64_t)(at % COLS) * bits;
            for (uint64_t b = 0; b < ROWS * row_bytes * 8; b++)
                if ((codes[b / 8] >> b % 8 & 1) != (b >= first && b < first + bits))
                    fail_msg("width %u, element %d: bit %llu is wrong", bits, at, (unsigned long long)b);
        }
    }
}

static void test_int_layout(void **state)
{
    (void)state;
    // Two rows of two groups, each with its own scale and zero-point.
    clq_type type = int_type("i8_asym_g32", CLQ_F32);
    float x[2 * 64], scales[4] = {1, 2, 4, 8}, y[2 * 64];
    int8_t zeros[4] = {10, -20, 30, -40}, codes[2 * 64];
    for (int i = 0; i < 128; i++) x[i] = (float)(i % 32 - 16) * scales[i / 32];
    clq_int_encode_ref(&type, x, 2, 64, scales, zeros, codes);
    for (int i = 0; i < 128; i++) assert_int_equal(codes[i], i % 32 - 16 + zeros[i / 32]);
    clq_int_decode_ref(&type, codes, 2, 64, scales, zeros, y);
    assert_memory_equal(x, y, sizeof x);
    // Per tensor: the first scale is every row's.
    type = int_type("i8_tensor", CLQ_F32);
    clq_int_encode_ref(&type, x, 2, 64, scales, NULL, codes);
    assert_int_equal(codes[0], -16);
    assert_int_equal(codes[127], 120);
}

// ---- float16, bfloat16, float8 -----------------------------------------------------------------

// |x| rounded to `mantissa` bits below the leading one, exponents from `lowest`, in double arithmetic.
static double slow_round(double x, int mantissa, int lowest, double overflow)
{
    if (x == 0) return 0;
    int e;
    frexp(x, &e);
    e -= 1;
    if (e < lowest) e = lowest;
    double unit = ldexp(1, e - mantissa), down = floor(x / unit), rest = x / unit - down;
    if (rest > 0.5 || (rest == 0.5 && fmod(down, 2) == 1)) down += 1;
    return down * unit >= overflow ? INFINITY : down * unit;
}

static double slow_f16_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent == 0    ? ldexp(mantissa, -24)
               : exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
                                : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -v : v;
}

static void f16_is(float x)
{
    uint16_t h = clq_f32_to_f16(x);
    if (isnan(x)) {
        if ((h & 0x7c00) != 0x7c00 || !(h & 0x3ff)) fail_msg("NaN became %04x", h);
        return;
    }
    double expected = copysign(slow_round(fabs((double)x), 10, -14, 65536), (double)x), got = slow_f16_value(h);
    if (got != expected || !signbit(got) != !signbit(x)) fail_msg("%a became %a, not %a", (double)x, got, expected);
}

static void bf16_is(float x)
{
    float got = clq_bf16_to_f32(clq_f32_to_bf16(x));
    if (isnan(x)) {
        assert_true(isnan(got));
        return;
    }
    double expected = copysign(slow_round(fabs((double)x), 7, -126, 0x1p128), (double)x);
    if ((double)got != expected || !signbit(got) != !signbit(x))
        fail_msg("%a became %a, not %a", (double)x, (double)got, expected);
}

static void test_f16_exhaustive(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float x = clq_f16_to_f32((uint16_t)h);
        double expected = slow_f16_value((uint16_t)h);
        if (isnan(expected)) {
            assert_true(isnan(x));
            uint16_t back = clq_f32_to_f16(x);
            assert_true((back & 0x7c00) == 0x7c00 && (back & 0x3ff) && (back & 0x8000) == (h & 0x8000));
            continue;
        }
        if ((double)x != expected || !signbit(x) != !(h >> 15)) fail_msg("%04x is %a, not %a", h, (double)x, expected);
        assert_int_equal(clq_f32_to_f16(x), h);
        if ((h & 0x7fff) >= 0x7c00) continue;
        // The midpoint to the next larger magnitude, and the floats beside it.
        double next = (h & 0x7fff) == 0x7bff ? copysign(65536, expected) : slow_f16_value((uint16_t)(h + 1));
        float middle = (float)((expected + next) / 2);
        assert_true((double)middle == (expected + next) / 2);
        assert_int_equal(clq_f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(clq_f32_to_f16(clq_from_bits(clq_bits(middle) - 1)), h);
        assert_int_equal(clq_f32_to_f16(clq_from_bits(clq_bits(middle) + 1)), h + 1);
    }
}

static void test_bf16_exhaustive(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 65536; b++) {
        float x = clq_bf16_to_f32((uint16_t)b);
        assert_int_equal(clq_bits(x), b << 16);
        uint16_t back = clq_f32_to_bf16(x);
        if (isnan(x)) {
            assert_true(isnan(clq_bf16_to_f32(back)) && (back & 0x8000) == (b & 0x8000));
            continue;
        }
        assert_int_equal(back, b);
        if ((b & 0x7fff) >= 0x7f80) continue;
        assert_int_equal(clq_f32_to_bf16(clq_from_bits(b << 16 | 0x8000)), b % 2 ? b + 1 : b);
        assert_int_equal(clq_f32_to_bf16(clq_from_bits(b << 16 | 0x7fff)), b);
        assert_int_equal(clq_f32_to_bf16(clq_from_bits(b << 16 | 0x8001)), b + 1);
    }
}

static void test_half_random(void **state)
{
    (void)state;
    seed = 77;
    for (int i = 0; i < 400000; i++) {
        float x = clq_from_bits(random_bits());
        f16_is(x);
        bf16_is(x);
        f16_is(clq_from_bits((clq_bits(x) & 0x87ffffff) | 0x30000000)); // exponents around float16's range
        f16_is(clq_from_bits((clq_bits(x) & 0x87ffffff) | 0x40000000));
    }
    static const float edges[] = {
        65503.9f, 65504,   65519.996f, 65520,           65536,           FLT_MAX,  INFINITY,
        NAN,      0,       0x1p-24f,   0x1p-25f,        0x1.000002p-25f, 0x1p-26f, 0x1.fffffep-15f,
        0x1p-14f, FLT_MIN, 0x1p-149f,  0x1.fefffep127f, 0x1.ffp127f};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        f16_is(edges[i]);
        f16_is(-edges[i]);
        bf16_is(edges[i]);
        bf16_is(-edges[i]);
    }
}

static void test_f8(void **state)
{
    (void)state;
    for (int v = 0; v < 256; v++) {
        int e4 = v >> 3 & 15, m3 = v & 7, e5 = v >> 2 & 31, m2 = v & 3;
        double sign = v & 128 ? -1 : 1;
        float a = clq_f8_e4m3_to_f32((uint8_t)v), b = clq_f8_e5m2_to_f32((uint8_t)v);
        if ((v & 127) == 127)
            assert_true(isnan(a));
        else
            assert_true((double)a == sign * (e4 ? (1 + m3 / 8.0) * pow(2, e4 - 7) : m3 / 8.0 * pow(2, -6)));
        if (e5 == 31)
            assert_true(m2 ? isnan(b) : (isinf(b) && (double)b * sign > 0));
        else
            assert_true((double)b == sign * (e5 ? (1 + m2 / 4.0) * pow(2, e5 - 15) : m2 / 4.0 * pow(2, -14)));
    }
    assert_true(clq_f8_e4m3_to_f32(0x7e) == 448.0f);
    assert_true(clq_f8_e5m2_to_f32(0x7b) == 57344.0f);
}

static void test_trunc(void **state)
{
    (void)state;
    assert_int_equal(clq_trunc_x86(1.9f), 1);
    assert_int_equal(clq_trunc_x86(-1.9f), -1);
    assert_int_equal(clq_trunc_x86(2147483520.0f), 2147483520);
    assert_int_equal(clq_trunc_x86(2147483648.0f), INT32_MIN);
    assert_int_equal(clq_trunc_x86(-2147483648.0f), INT32_MIN);
    assert_int_equal(clq_trunc_x86(-1e30f), INT32_MIN);
    assert_int_equal(clq_trunc_x86(INFINITY), INT32_MIN);
    assert_int_equal(clq_trunc_x86(NAN), INT32_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_golden_decode),
        cmocka_unit_test(test_blocks_by_hand),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_int_params),
        cmocka_unit_test(test_scale_rounding),
        cmocka_unit_test(test_int_codes),
        cmocka_unit_test(test_int_properties),
        cmocka_unit_test(test_packing_table),
        cmocka_unit_test(test_packing_positions),
        cmocka_unit_test(test_int_layout),
        cmocka_unit_test(test_f16_exhaustive),
        cmocka_unit_test(test_bf16_exhaustive),
        cmocka_unit_test(test_half_random),
        cmocka_unit_test(test_f8),
        cmocka_unit_test(test_trunc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
// Walks the format table: products of weights of every type, at ragged shapes, with float and int8 activations, against
// the C references; then the other steps of a forward pass.
//
//   check_steps [--device D] [--only NAME] [--form vec|wg|launches] [--tiny] [--all] [--verbose]
//
// --form launches: the vec form with one launch a step, and portable code only. --tiny: shapes for Oclgrind. --all: more
// large ones.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/steps_test.h"
#include "ops/steps.h"

static const char *only, *selector, *form_only;
static bool tiny, verbose, quick = true;
static uint32_t n_passed, n_failed;

static void report(bool good, const char *form, const char *what, double worst, const clq_error *err)
{
    if (good)
        n_passed++;
    else
        n_failed++;
    if (!good || verbose)
        printf("%s %s %s: %.3g of the bound %s\n", good ? "ok  " : "FAIL", form, what, worst,
               err->status ? err->text : "");
}

static void check_linear(clq_device *d, const char *form, const char *name, const clq_linear_case *c)
{
    char what[160];
    double worst = INFINITY;
    clq_error err = {0};
    clq_status st = clq_linear_compare(d, c, &worst, &err);
    snprintf(what, sizeof what, "%s [%u, %u] x %u, mode %u.%u%s%s%s", name, c->rows, c->cols, c->tokens, c->mode,
             c->quant, c->bias ? ", bias" : "", c->accumulate ? ", accumulate" : "", c->indexed ? ", indexed" : "");
    report(st == CLQ_OK && worst <= 1, form, what, worst, &err);
}

static void check_type(clq_device *d, const char *form, const char *name)
{
    clq_type type;
    if (only && strcmp(only, name) != 0) return;
    if (clq_type_parse(name, &type, NULL) != CLQ_OK) abort();
    bool is_int = type.format == CLQ_INT, is_float = clq_step_int8_mode(type.format) == CLQ_MODE_F32;
    uint32_t block =
        is_int ? (type.granularity == CLQ_PER_GROUP ? type.group_size : 1) : clq_format_at(type.format)->block_elements;
    static const uint32_t rows[] = {1, 3, 7, 31, 33, 65}, tokens[] = {1, 2, 17, 64},
                          widths[] = {1, 33, 100, 768, 2049, 16384};
    uint32_t n = 0;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++, n++) {
                // Every width, row count and token count; of the combinations of large ones a part.
                if (tiny ? w > 2 || r > 2 || t == 3 || t == 1
                         : widths[w] * rows[r] * tokens[t] > (quick ? 60000 : 2500000) && n % (quick ? 17 : 7))
                    continue;
                clq_linear_case c = {.type = type,
                                     .rows = rows[r],
                                     .tokens = tokens[t],
                                     .seed = n,
                                     .bias = n % 3 == 0,
                                     .accumulate = n % 5 == 0};
                c.cols = (widths[w] + block - 1) / block * block;
                if (c.cols > 16384) continue;
                check_linear(d, form, name, &c);
                if (is_float) continue;
                c.mode = clq_step_int8_mode(type.format);
                check_linear(d, form, name, &c);
                if (is_int && n % 4 == 0) {
                    c.mode = CLQ_MODE_Q8_32;
                    check_linear(d, form, name, &c);
                }
                for (c.quant = CLQ_QUANT_TOKEN; c.quant <= CLQ_QUANT_STATIC && n % 2; c.quant++) {
                    c.mode = CLQ_MODE_F32; // rounded, as floats
                    if (c.quant == 1 + n / 2 % 3) check_linear(d, form, name, &c);
                }
                bool large = widths[w] * rows[r] * tokens[t] > 60000; // of these one kind each
                for (c.quant = CLQ_QUANT_TOKEN; c.quant <= CLQ_QUANT_STATIC; c.quant++) {
                    c.mode = CLQ_MODE_I8;
                    if (large && c.quant != 1 + n % 3) continue;
                    if (clq_step_takes_i8(&type, c.cols)) check_linear(d, form, name, &c);
                }
                c.quant = CLQ_QUANT_NONE;
                c.mode = clq_step_int8_mode(type.format);
                if (is_int && type.granularity == CLQ_PER_GROUP) {
                    c.indexed = true;
                    check_linear(d, form, name, &c);
                }
            }
}

static void check_step(clq_device *d, const char *form, const char *name, clq_step step, const char *embedding)
{
    if (only && strcmp(only, name) != 0) return;
    char what[160];
    double worst = INFINITY;
    clq_error err = {0};
    clq_step_case c = {.step = step};
    if (embedding && clq_type_parse(embedding, &c.embedding, NULL) != CLQ_OK) abort();
    clq_status st = clq_step_compare(d, &c, &worst, &err);
    snprintf(what, sizeof what, "%s%s%s tokens %u cols %u heads %u/%u of %u keys %u window %u flags %u", name,
             embedding ? " " : "", embedding ? embedding : "", step.tokens, step.cols, step.heads, step.kv_heads,
             step.head_dim, step.keys, step.window, step.flags);
    report(st == CLQ_OK && worst <= 1, form, what, worst, &err);
}

static void check_observe(clq_device *d, const char *form)
{
    static const uint32_t tokens[] = {1, 5, 33, 300}, widths[] = {1, 8, 63, 100, 576};
    if (only && strcmp(only, "observe") != 0) return;
    for (uint32_t i = 0; i < 20; i++) {
        clq_observe_case c = {.tokens = tokens[i % 4], .cols = widths[i / 4], .windows = 3, .seed = i,
                              .gram = i % 3 != 2, .bad = i % 5 == 4 && i % 4 && i > 4};
        if (tiny && (c.tokens > 5 || c.cols > 63)) continue;
        if (c.bad) c.gram = false;
        char what[96];
        double worst = INFINITY;
        clq_error err = {0};
        clq_status st = clq_observe_compare(d, &c, &worst, &err);
        snprintf(what, sizeof what, "observe tokens %u cols %u%s%s", c.tokens, c.cols, c.gram ? ", gram" : "",
                 c.bad ? ", not finite" : "");
        report(st == CLQ_OK && worst <= 1, form, what, worst, &err);
    }
}

// ---- preparing weights ----

static void check_prepared(clq_device *d, const char *form, const char *name, const clq_prepare_case *c)
{
    if (only && strcmp(only, name) != 0) return;
    char what[160];
    double worst = INFINITY;
    clq_error err = {0};
    clq_status st = clq_prepare_compare(d, c, &worst, &err);
    snprintf(what, sizeof what,
             "%s [%u, %u] bits %u group %u flags %u rule %u cost %u scales %u tokens %u dims %u seed %u", name,
             c->step.rows, c->step.cols, c->step.bits, c->step.group_size, c->step.flags, c->step.phase, c->cost,
             c->step.cache_format, c->step.tokens, c->step.dims, c->seed);
    report(st == CLQ_OK && worst <= 1, form, what, worst, &err);
}

static void check_rounding(clq_device *d, const char *form)
{
    static const uint32_t shapes[][3] = {{1, 32, 32}, {65, 64, 32}, {5, 33, 0},   {9, 192, 64}, {65, 384, 128},
                                         {3, 7, 0},   {31, 40, 8},  {17, 700, 0}, {2, 60, 12},  {9, 512, 256}};
    static const clq_format_id formats[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    for (uint32_t i = 0, n = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (uint32_t bits = 2; bits <= 8; bits++)
            for (uint32_t symmetric = 0; symmetric < 2; symmetric++, n++) {
                if (tiny && (shapes[i][0] * shapes[i][1] > 400 || bits % 3)) continue;
                clq_prepare_case c = {.step = {.rows = shapes[i][0],
                                               .cols = shapes[i][1],
                                               .group_size = shapes[i][2],
                                               .bits = bits,
                                               .flags = (symmetric ? CLQ_STEP_SYMMETRIC : 0) |
                                                        (n % 3 ? CLQ_STEP_STATE_WEIGHT : 0)},
                                      .scaled = n / 2 % 2,
                                      .seed = n};
                c.step.kind = CLQ_STEP_QUANT;
                check_prepared(d, form, "quant", &c);
                if (n % 3 == 0) {
                    clq_prepare_case given = c;
                    given.step.flags |= CLQ_STEP_GIVEN;
                    given.step.scale = 0.05f;
                    given.step.zero_point = symmetric ? 0 : 1;
                    check_prepared(d, form, "quant", &given);
                }
                if (tiny && (shapes[i][1] > 7 || bits != 3)) continue; // each case walks up to 50 candidates
                for (uint32_t rule = CLQ_SCALES_ABSMAX; rule <= CLQ_SCALES_HQQ; rule++)
                    for (uint32_t cost = 0; cost < 3; cost++) {
                        c.step.kind = CLQ_STEP_ROUND;
                        c.step.phase = rule;
                        c.cost = cost;
                        c.step.cache_format = formats[(n + rule + cost) % 3];
                        if (cost && (rule == CLQ_SCALES_ABSMAX || rule == CLQ_SCALES_HQQ)) continue;
                        if (cost == CLQ_COST_FULL && shapes[i][2] == 0 && shapes[i][1] > 256) continue;
                        check_prepared(d, form, "scales", &c);
                    }
            }
}

static void check_prepare(clq_device *d, const char *form)
{
    static const uint32_t widths[] = {1, 7, 64, 100, 576}, tokens[] = {1, 5, 33};
    check_rounding(d, form);
    for (uint32_t i = 0; i < 15; i++) {
        clq_prepare_case c = {.step = {.rows = 1, .cols = widths[i / 3], .tokens = tokens[i % 3]}, .seed = i};
        if (tiny && c.step.cols > 100) continue;
        c.step.kind = CLQ_STEP_COLUMNS;
        c.in_place = i % 2;
        check_prepared(d, form, "columns", &c);
        c.step.kind = CLQ_STEP_ERROR;
        c.in_place = false;
        check_prepared(d, form, "error", &c);
        c.step.kind = CLQ_STEP_GRAM;
        for (uint32_t g = 1; g <= c.step.cols; g++)
            if (c.step.cols % g == 0 && g != 2 && g < 192) {
                c.step.group_size = g;
                check_prepared(d, form, "gram", &c);
            }
    }
    static const uint32_t blocks[][4] = {// rows, cols, position, dims
                                         {1, 32, 0, 32}, {9, 64, 32, 32}, {65, 256, 128, 128}, {17, 96, 64, 31}};
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t k = 0; k < 8; k++) {
            clq_prepare_case c = {.step = {.kind = CLQ_STEP_GPTQ,
                                           .rows = blocks[i][0],
                                           .cols = blocks[i][1],
                                           .position = blocks[i][2],
                                           .dims = blocks[i][3],
                                           .bits = 2 + (i + k) % 7,
                                           .group_size = k % 4 == 3 ? 0 : 32,
                                           .cache_format = CLQ_F16,
                                           .flags = CLQ_STEP_STATE_WEIGHT | (k % 2 ? CLQ_STEP_SYMMETRIC : 0)},
                                  .indexed = k > 4,
                                  .seed = k};
            if (tiny && i > 1) continue;
            check_prepared(d, form, "gptq", &c);
        }
    if (only && strcmp(only, "state") != 0) return;
    for (uint32_t i = 0; i < 12; i++) {
        clq_linear_case c = {.type = {.format = CLQ_F32},
                             .rows = 7 + 30 * (i % 2),
                             .cols = i % 3 == 2 ? 100 : 64,
                             .tokens = i < 4 ? 1 : i < 8 ? 3 : 17,
                             .bias = i % 2,
                             .accumulate = i % 3 == 0,
                             .in_state = true,
                             .seed = i};
        check_linear(d, form, "state", &c);
    }
}

static void check_kinds(clq_device *d, const char *form)
{
    static const uint32_t widths[] = {1, 7, 64, 100, 576, 1000}, tokens[] = {1, 3, 17};
    static const char *const embeddings[] = {"f32", "f16", "q4_0", "q6_K", "i8", "i4_g32"};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t t = 0; t < (tiny ? 2 : sizeof tokens / sizeof *tokens); t++) {
            uint32_t n = widths[w], m = tokens[t];
            if (tiny && n > 100) continue;
            for (uint32_t flags = 0; flags < 4; flags++)
                check_step(d, form, "norm",
                           (clq_step){.kind = CLQ_STEP_NORM,
                                      .rows = m,
                                      .tokens = m,
                                      .cols = n,
                                      .in_stride = n + 2,
                                      .out_stride = n + 2,
                                      .eps = 1e-6f,
                                      .flags = flags,
                                      .bias = flags & 2 ? 0 : CLQ_NONE,
                                      .w = flags & 1 ? CLQ_NONE : 0},
                           NULL);
            for (uint32_t act = 0; act < 4; act++)
                check_step(d, form, "act",
                           (clq_step){.kind = CLQ_STEP_ACT,
                                      .tokens = m,
                                      .cols = n,
                                      .in_stride = n + 1,
                                      .act = act,
                                      .flags = act % 2 ? CLQ_STEP_MUL : 0},
                           NULL);
            check_step(d, form, "add", (clq_step){.kind = CLQ_STEP_ADD, .tokens = m, .cols = n, .scale = 0.5f}, NULL);
            check_step(d, form, "softcap", (clq_step){.kind = CLQ_STEP_SOFTCAP, .tokens = m, .cols = n, .scale = 1.5f},
                       NULL);
            check_step(d, form, "gather", (clq_step){.kind = CLQ_STEP_GATHER, .tokens = m, .cols = n}, NULL);
            check_step(d, form, "scatter", (clq_step){.kind = CLQ_STEP_SCATTER, .tokens = m, .cols = n}, NULL);
        }
    for (size_t e = 0; e < sizeof embeddings / sizeof *embeddings; e++)
        for (uint32_t flags = 0; flags < 2; flags++)
            check_step(
                d, form, "embed",
                (clq_step){.kind = CLQ_STEP_EMBED, .tokens = 5, .rows = 9, .cols = 768, .scale = 3.5f, .flags = flags},
                embeddings[e]);
    for (uint32_t neox = 0; neox < 2; neox++)
        for (uint32_t dims = 8; dims <= 24; dims += 8)
            check_step(d, form, "rope",
                       (clq_step){.kind = CLQ_STEP_ROPE,
                                  .tokens = 3,
                                  .heads = 3,
                                  .head_dim = 24,
                                  .in_stride = 80,
                                  .dims = dims,
                                  .flags = neox ? CLQ_STEP_NEOX : 0},
                       NULL);
    static const uint32_t heads[][3] = {{1, 1, 8}, {4, 2, 32}, {3, 1, 64}, {2, 2, 96}, {4, 1, 256}};
    static const clq_format_id caches[] = {CLQ_F32, CLQ_F16, CLQ_Q8_0};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (size_t c = 0; c < 3; c++)
            for (uint32_t kind = 0; kind < 6; kind++)
                for (size_t t = 0; t < 3; t++) {
                    uint32_t m = tokens[t], before = kind % 2 ? 0 : 70;
                    if ((caches[c] == CLQ_Q8_0 && heads[h][2] % 32) || (tiny && (h > 1 || m > 3))) continue;
                    clq_step s = {.kind = CLQ_STEP_ATTEND,
                                  .tokens = m,
                                  .heads = heads[h][0],
                                  .kv_heads = heads[h][1],
                                  .head_dim = heads[h][2],
                                  .in_stride = heads[h][0] * heads[h][2],
                                  .position = before,
                                  .positions = 96,
                                  .keys = before + m,
                                  .cache_format = caches[c],
                                  .scale = 0.3f,
                                  .softcap = kind == 2 ? 2.0f : 0,
                                  .window = kind >= 3 ? 9 : 0,
                                  .flags = kind == 1 || kind == 4 ? 0 : CLQ_STEP_CAUSAL};
                    check_step(d, form, "attend", s, NULL);
                }
}

static void check_form(const char *form)
{
    if (form_only && strcmp(form_only, form) != 0) return;
    clq_device_options options = {.work_group_form = strcmp(form, "wg") == 0};
    setenv("CLQ_TOGETHER", strcmp(form, "launches") == 0 ? "0" : "1", 1);
    clq_device *d = NULL;
    clq_error err = {0};
    if (clq_device_open(selector, &options, &d, &err) != CLQ_OK) {
        printf("FAIL %s: %s\n", form, err.text);
        n_failed++;
        return;
    }
    if (n_passed + n_failed == 0) {
        clq_device_info info;
        clq_device_describe(d, &info);
        printf("device: %s\n", info.name);
    }
    static const char *const ints[] = {"i2",      "i3_g32",  "i4", "i4_g64",      "i4_asym_g32",   "i5_asym",
                                       "i6_g128", "i7_asym", "i8", "i8_tensor", "i8_asym", "i8_asym_g32",
                                       "i8_asym_tensor"};
    // One program for all formats.
    const char *names[CLQ_FORMAT_COUNT + sizeof ints / sizeof *ints];
    clq_type types[CLQ_FORMAT_COUNT + sizeof ints / sizeof *ints];
    uint32_t n = 0;
    for (int id = 0; id < CLQ_FORMAT_COUNT; id++)
        if (clq_format_at((clq_format_id)id)->has_codec && id != CLQ_INT)
            names[n++] = clq_format_at((clq_format_id)id)->name;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) names[n++] = ints[i];
    for (uint32_t i = 0; i < n; i++)
        if (clq_type_parse(names[i], &types[i], NULL) != CLQ_OK) abort();
    if (!only && d->ops->steps_prepare(d, types, n, &err) != CLQ_OK) printf("FAIL %s: %s\n", form, err.text);
    for (uint32_t i = 0; i < n; i++) check_type(d, form, names[i]);
    check_kinds(d, form);
    check_observe(d, form);
    clq_device_close(d);
    if (clq_device_open(selector, &options, &d, &err) != CLQ_OK) { // anew: a program without all those formats
        report(false, form, "open", INFINITY, &err);
        return;
    }
    check_prepare(d, form);
    clq_device_close(d);
}

// Dense products by CLBlast, which on CPUs has to be asked for.
static void check_blas(void)
{
    if (tiny || form_only || (only && strcmp(only, "f32") != 0)) return;
    clq_device_options options = {.work_group_form = 0};
    clq_device *d = NULL;
    clq_error err = {0};
    setenv("CLQ_BLAS", "1", 1);
    if (clq_device_open(selector, &options, &d, &err) != CLQ_OK) {
        report(false, "blas", "open", INFINITY, &err);
        return;
    }
    static const uint32_t rows[] = {1, 33, 200}, cols[] = {33, 768};
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t flags = 0; flags < 4; flags++) {
            clq_linear_case c = {.type = {.format = CLQ_F32, .scale_format = CLQ_F32},
                                 .rows = rows[i % 3],
                                 .cols = cols[i / 3],
                                 .tokens = 64 + i,
                                 .bias = flags & 1,
                                 .accumulate = flags & 2};
            check_linear(d, "blas", "f32", &c);
        }
    clq_device_close(d);
    unsetenv("CLQ_BLAS");
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--device") == 0 && more)
            selector = argv[++i];
        else if (strcmp(argv[i], "--only") == 0 && more)
            only = argv[++i];
        else if (strcmp(argv[i], "--form") == 0 && more)
            form_only = argv[++i];
        else if (strcmp(argv[i], "--tiny") == 0)
            tiny = true;
        else if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--all") == 0)
            quick = false;
        else {
            fprintf(stderr, "usage: check_steps [--device D] [--only NAME] [--form vec|wg|launches] [--tiny] [--all] "
                            "[--verbose]\n");
            return 2;
        }
    }
    check_form("vec");
    setenv("CLQ_TEST_PORTABLE", "1", 1); // one of the forms without code of its own for x86
    check_form("launches");
    unsetenv("CLQ_TEST_PORTABLE");
    check_form("wg");
    check_blas();
    printf("check_steps: %u passed, %u failed\n", n_passed, n_failed);
    return n_failed ? 1 : 0;
}

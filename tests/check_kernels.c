// SPDX-License-Identifier: MIT
// Walks the format table: every kernel, from every source dtype, in both forms and every lane width,
// against its C reference on the same input, byte for byte. The inputs reach the ends of the range.
//
//   check_kernels [--device D] [--only NAME] [--form vec1|vec4|vec8|vec16|wg] [--tiny]
//
// --tiny: shapes for Oclgrind.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "device/device.h"
#include "ops/reduce.h"

static uint64_t n_passed, n_failed;
static const char *only, *selector, *form_only;
static bool tiny;

static uint64_t seed = 1;

static double uniform(void) // [0, 1)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) * 0x1p-53;
}

static float normal(void)
{
    return (float)(sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()));
}

// Stretches of 32 of each kind, in turn.
static void fill(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t kind = i / 32 % 20;
        float v = normal();
        switch (kind) {
        case 0: case 1: case 2: break;
        case 3: v = i % 32 == 7 ? 300.0f * v : v; break; // an outlier
        case 4: v = 0.0f; break;
        case 5: v = -0.0f; break;
        case 6: v = 9.0f; break;
        case 7: v = -9.0f; break;
        case 8: v *= 1e-20f; break;
        case 9: v *= 1e-30f; break;
        case 10: v *= 1e-38f; break;
        case 11: v = (float)((int)(v * 3)) * 1.4e-45f; break;
        case 12: v = i % 2 ? 0.75f : -0.75f; break;   // the largest on both sides
        case 13: v = i % 2 ? -1.5f : 1.5f; break;
        case 14: v = (float)uniform(); break;          // all positive
        case 15: v = -15.0f - 7.0f * (float)uniform(); break;
        case 16: v = (float)((int)(uniform() * 256) - 128) * 0.125f; break; // ties in rounding
        case 17: v *= 1e4f; break;
        case 18: v = i % 32 == 31 ? 127.5f : ((float)(i % 32) + 0.5f); break;
        case 19: v = clq_from_bits(clq_bits((float)(1 << i % 8)) - 1); break; // just below 2^n
        }
        x[i] = v;
    }
}

static void report(bool good, const char *what, const char *name, const char *source, const char *form, uint64_t rows,
                   uint64_t cols, const char *why)
{
    if (good) {
        n_passed++;
        return;
    }
    n_failed++;
    printf("FAIL %s %s from %s, %s, [%llu, %llu]: %s\n", what, name, source, form, (unsigned long long)rows,
           (unsigned long long)cols, why);
}

static size_t first_difference(const void *a, const void *b, size_t n)
{
    size_t i = 0;
    while (i < n && ((const uint8_t *)a)[i] == ((const uint8_t *)b)[i]) i++;
    return i;
}

typedef struct {
    clq_part_sizes sizes;
    uint8_t *codes, *scales, *zeros;
    clq_stats stats;
} encoded;

static encoded encoded_create(const clq_type *type, uint64_t rows, uint64_t cols)
{
    encoded e = {0};
    clq_error err;
    if (clq_type_sizes(type, rows, cols, &e.sizes, &err) != CLQ_OK) abort();
    e.codes = malloc(e.sizes.codes + 1);
    e.scales = malloc(e.sizes.scales + 1);
    e.zeros = malloc(e.sizes.zero_points + 1);
    memset(e.codes, 0xa5, e.sizes.codes + 1); // what a kernel leaves out shows
    return e;
}

static void encoded_free(encoded *e)
{
    free(e->codes);
    free(e->scales);
    free(e->zeros);
}

static void check_one(clq_device *dev, clq_device *ref, const char *form, const clq_type *type, clq_format_id source,
                      uint64_t rows, uint64_t cols, bool weighted)
{
    char name[32], what[32], why[200] = "";
    clq_type_name(type, name);
    snprintf(what, sizeof what, weighted ? "weighted encode" : "encode");
    uint64_t n = rows * cols;
    float *x = malloc(n * 4), *y = malloc(n * 4), *z = malloc(n * 4);
    void *src = malloc(n * 4);
    seed = n + source;
    fill(x, n);
    clq_store_floats(source, x, n, src);
    float *importance = weighted ? malloc(cols * sizeof *importance) : NULL;
    for (uint64_t i = 0; weighted && i < cols; i++) importance[i] = i % 7 == 3 ? 0 : (float)pow(uniform(), 4);
    encoded a = encoded_create(type, rows, cols), b = encoded_create(type, rows, cols);
    clq_error err = {0};
    clq_status sa =
        clq_encode_weighted(dev, type, source, src, importance, rows, cols, a.codes, a.scales, a.zeros, &a.stats, &err);
    if (sa != CLQ_OK) snprintf(why, sizeof why, "%.150s", err.text);
    clq_status sb =
        clq_encode_weighted(ref, type, source, src, importance, rows, cols, b.codes, b.scales, b.zeros, &b.stats, NULL);
    size_t at = first_difference(a.codes, b.codes, a.sizes.codes);
    bool good = sa == sb;
    if (good && at < a.sizes.codes) {
        good = false;
        snprintf(why, sizeof why, "byte %zu is %02x, not %02x", at, a.codes[at], b.codes[at]);
    }
    if (good && (memcmp(a.scales, b.scales, a.sizes.scales) || memcmp(a.zeros, b.zeros, a.sizes.zero_points))) {
        good = false;
        snprintf(why, sizeof why, "scales or zero-points differ");
    }
    if (good && sa == CLQ_OK &&
        (fabs(a.stats.sum_e2 - b.stats.sum_e2) > 1e-3 * b.stats.sum_e2 + 1e-30 ||
         a.stats.max_error != b.stats.max_error || a.stats.lost_groups != b.stats.lost_groups)) {
        good = false;
        snprintf(why, sizeof why, "statistics: error %g not %g, largest %g not %g, lost %llu not %llu",
                 a.stats.sum_e2, b.stats.sum_e2, a.stats.max_error, b.stats.max_error,
                 (unsigned long long)a.stats.lost_groups, (unsigned long long)b.stats.lost_groups);
    }
    report(good, what, name, clq_format_at(source)->name, form, rows, cols, why);
    if (source == CLQ_F32) {
        sa = clq_decode(dev, type, b.codes, b.scales, b.zeros, rows, cols, y, &err);
        sb = clq_decode(ref, type, b.codes, b.scales, b.zeros, rows, cols, z, NULL);
        at = first_difference(y, z, n * 4) / 4;
        good = sa == CLQ_OK && sb == CLQ_OK && at >= n;
        if (sa != CLQ_OK)
            snprintf(why, sizeof why, "%.150s", err.text);
        else if (!good)
            snprintf(why, sizeof why, "value %zu is %g, not %g", at, (double)y[at], (double)z[at]);
        report(good, "decode", name, "codes", form, rows, cols, why);
    }
    encoded_free(&a);
    encoded_free(&b);
    free(importance);
    free(x);
    free(y);
    free(z);
    free(src);
}

static float round_to(clq_format_id format, float s)
{
    return format == CLQ_F16 ? clq_round_f16(s) : format == CLQ_BF16 ? clq_round_bf16(s) : s;
}

// Scales of both signs where the type is symmetric, and 0; zero-points, most of them at the ends.
static void fill_params(const clq_type *type, uint64_t n, float *scales, int8_t *zeros)
{
    int half = 1 << (type->bits - 1);
    for (uint64_t i = 0; i < n; i++) {
        float s = round_to(type->scale_format, (float)pow(2, 16 * uniform() - 10));
        scales[i] = i % 7 == 5 ? 0 : type->symmetric && i % 3 ? -s : s;
        zeros[i] = (int8_t)(i % 4 == 0 ? -half : i % 4 == 1 ? half - 1 : (int)(uniform() * 2 * half) - half);
    }
}

// Encodes the tile in a lane of its own.
static clq_status encode_given(clq_device *d, const clq_tile *tile, uint64_t n_groups, encoded *e, clq_error *err)
{
    clq_lane_limits limits = {.src_bytes = tile->src_bytes, .n_elements = tile->rows * tile->cols,
                              .code_bytes = e->sizes.codes, .n_groups = n_groups, .floats = true};
    clq_lane *lane = NULL;
    clq_tile_result r;
    clq_status st = d->ops->lane_create(d, &limits, &lane, err);
    if (st == CLQ_OK) st = d->ops->lane_submit(lane, tile, err);
    if (st == CLQ_OK) st = d->ops->lane_wait(lane, &r, err);
    if (st == CLQ_OK) {
        memcpy(e->codes, r.codes, e->sizes.codes);
        memcpy(e->scales, r.scales, e->sizes.scales);
        if (e->sizes.zero_points) memcpy(e->zeros, r.zero_points, e->sizes.zero_points);
        e->stats = r.stats;
    }
    d->ops->lane_free(lane);
    return st;
}

static int code_at(const clq_type *type, const encoded *e, uint64_t cols, uint64_t i)
{
    const uint8_t *row = e->codes + i / cols * clq_type_row_bytes(type, cols);
    if (type->bits == 8) return ((const int8_t *)row)[i % cols];
    return (int)clq_unpack_bits((const uint32_t *)(const void *)row, i % cols, type->bits) - (1 << (type->bits - 1));
}

// Tiles whose scales and zero-points are given. multiples: of values that are codes, each of them.
static void check_given(clq_device *dev, clq_device *ref, const char *form, const clq_type *type, clq_format_id source,
                        uint64_t rows, uint64_t cols, bool multiples)
{
    char name[32], why[200] = "";
    clq_type_name(type, name);
    uint64_t n = rows * cols, groups = clq_type_groups(type, cols), n_groups = rows * groups;
    int half = 1 << (type->bits - 1);
    float *x = malloc(n * 4), *scales = malloc(n_groups * 4), *stored = malloc(n_groups * 4);
    void *src = malloc(n * 4);
    int8_t *zeros = malloc(n_groups);
    seed = n + source;
    fill_params(type, n_groups, scales, zeros);
    fill(x, n);
    for (uint64_t i = 0; multiples && i < n; i++) {
        uint64_t g = i / (cols / groups);
        x[i] = scales[g] * (float)((int)(i % (uint64_t)(2 * half)) - half - (type->symmetric ? 0 : zeros[g]));
    }
    clq_store_floats(source, x, n, src);
    clq_tile tile = {.type = *type, .source = source, .src = src, .rows = rows, .cols = cols, .given_scales = scales,
                     .src_bytes = n * clq_format_at(source)->block_bytes};
    if (!type->symmetric && source != CLQ_F16) tile.given_zero_points = zeros; // without: all 0
    encoded a = encoded_create(type, rows, cols), b = encoded_create(type, rows, cols);
    clq_error err = {0};
    bool good = encode_given(dev, &tile, n_groups, &a, &err) == CLQ_OK;
    if (!good) snprintf(why, sizeof why, "%.150s", err.text);
    good = good && encode_given(ref, &tile, n_groups, &b, &err) == CLQ_OK;
    if (good && memcmp(a.codes, b.codes, a.sizes.codes)) {
        good = false;
        snprintf(why, sizeof why, "codes differ");
    }
    clq_load_floats(type->scale_format, a.scales, n_groups, stored);
    for (uint64_t g = 0; good && g < n_groups; g++) {
        int zero = tile.given_zero_points ? zeros[g] : 0;
        good = stored[g] == scales[g] && (type->symmetric || (int8_t)a.zeros[g] == zero);
        if (!good) snprintf(why, sizeof why, "scale or zero-point of group %llu", (unsigned long long)g);
    }
    if (good && (fabs(a.stats.sum_e2 - b.stats.sum_e2) > 1e-3 * b.stats.sum_e2 + 1e-30 ||
                 a.stats.max_error != b.stats.max_error || a.stats.lost_groups != b.stats.lost_groups)) {
        good = false;
        snprintf(why, sizeof why, "statistics: error %g not %g, largest %g not %g, lost %llu not %llu", a.stats.sum_e2,
                 b.stats.sum_e2, a.stats.max_error, b.stats.max_error, (unsigned long long)a.stats.lost_groups,
                 (unsigned long long)b.stats.lost_groups);
    }
    for (uint64_t i = 0; good && i < n; i++) {
        uint64_t g = i / (cols / groups);
        float v;
        clq_load_floats(source, (const uint8_t *)src + i * clq_format_at(source)->block_bytes, 1, &v);
        double zero = tile.given_zero_points ? zeros[g] : 0;
        double q = scales[g] != 0 ? rint((double)(v / scales[g])) + zero : zero;
        if (multiples && scales[g] != 0) q = (double)(i % (uint64_t)(2 * half)) - half;
        q = fmin(fmax(q, -half), half - 1);
        good = code_at(type, &a, cols, i) == (int)q;
        if (!good)
            snprintf(why, sizeof why, "code %llu of %g / %g + %g is %d", (unsigned long long)i, (double)v,
                     (double)scales[g], zero, code_at(type, &a, cols, i));
    }
    report(good, multiples ? "given multiples" : "given", name, clq_format_at(source)->name, form, rows, cols, why);
    encoded_free(&a);
    encoded_free(&b);
    free(x);
    free(scales);
    free(stored);
    free(src);
    free(zeros);
}

static void check_bound(clq_device *ref, const clq_type *type)
{
    // The documented error bound, on values whose scales float16 can hold.
    const clq_format_info *f = clq_format_at(type->format);
    enum { N = 256 * 512 };
    int block = f->block_elements == 1 ? 32 : (int)f->block_elements;
    float *x = malloc(N * 4), *y = malloc(N * 4);
    encoded e = encoded_create(type, 1, N);
    double worst = 0;
    for (int i = 0; i < N; i++) x[i] = normal() * (i / 32 % 3 == 1 ? 0.01f : 1.0f);
    clq_encode(ref, type, CLQ_F32, x, 1, N, e.codes, NULL, NULL, NULL, NULL);
    clq_decode(ref, type, e.codes, NULL, NULL, 1, N, y, NULL);
    for (int b = 0; b < N / block; b++) {
        float largest = 0, error = 0;
        for (int i = block * b; i < block * (b + 1); i++) {
            // Below float16's normal range its steps are absolute.
            float own = f->block_elements == 1 && fabsf(x[i]) >= 0x1p-14f ? fabsf(x[i]) : 0;
            largest = fmaxf(largest, fabsf(x[i]));
            error = fmaxf(error, fabsf(x[i] - y[i]));
            if (own > 0) worst = fmax(worst, fabsf(x[i] - y[i]) / own);
        }
        if (f->block_elements > 1) worst = fmax(worst, error / largest);
    }
    char why[80];
    snprintf(why, sizeof why, "error %.5f of the largest value, bound %.5f", worst, f->error_bound);
    report(worst <= f->error_bound, "bound of", f->name, "f32", "reference", 1, N, why);
    encoded_free(&e);
    free(x);
    free(y);
}

static void check_reduce(clq_device *dev, const char *form, clq_format_id source, uint64_t rows, uint64_t cols,
                         uint64_t group)
{
    uint64_t n = rows * cols, n_out = group ? n / group : 1;
    float *x = malloc(n * 4), *out = malloc(n_out * 4 * 5);
    void *src = malloc(n * 4);
    seed = n;
    fill(x, n);
    x[n / 2] = NAN;
    clq_store_floats(source, x, n, src);
    clq_load_floats(source, src, n, x);
    float *min = out, *max = out + n_out, *rmin = out + 2 * n_out, *rmax = out + 3 * n_out, *amax = out + 4 * n_out;
    clq_error err = {0};
    clq_status st = clq_minmax(dev, source, src, rows, cols, group, min, max, &err);
    clq_status sa = clq_absmax(dev, source, src, rows, cols, group, amax, &err);
    clq_minmax_ref(x, n_out, n / n_out, rmin, rmax);
    bool good = st == CLQ_OK && sa == CLQ_OK;
    for (uint64_t i = 0; good && i < n_out; i++) {
        bool nan = isnan(rmin[i]);
        good = nan ? isnan(min[i]) && isnan(max[i]) && isnan(amax[i])
                   : min[i] == rmin[i] && max[i] == rmax[i] && amax[i] == fmaxf(rmax[i], -rmin[i]);
    }
    report(good, "minmax", group ? "grouped" : "whole", clq_format_at(source)->name, form, rows, cols,
           st == CLQ_OK ? "other values" : err.text);
    free(x);
    free(out);
    free(src);
}

static bool wanted(const char *name)
{
    return !only || strcmp(only, name) == 0;
}

// A kernel that fell back to the reference would pass every comparison.
static void fell_back(void *user, const char *text)
{
    (void)user;
    n_failed++;
    printf("FAIL %s\n", text);
}

static void check_form(clq_device *ref, int lanes, int work_groups)
{
    static const clq_format_id sources[] = {CLQ_F32, CLQ_F16, CLQ_BF16};
    static const clq_hooks hooks = {.warn = fell_back};
    clq_device_options options = {.lanes = lanes, .work_group_form = work_groups, .hooks = &hooks};
    clq_device *dev;
    clq_error err;
    char form[32];
    snprintf(form, sizeof form, work_groups ? "wg" : "vec%d", lanes);
    if (form_only && strcmp(form_only, form) != 0) return;
    if (clq_device_open(selector, &options, &dev, &err) != CLQ_OK) {
        printf("FAIL opening the device: %s\n", err.text);
        n_failed++;
        return;
    }
    clq_device_info info;
    clq_device_describe(dev, &info);
    if (tiny) printf("device: %s, %s\n", info.name, form); // scripts/check-oclgrind looks for it
    uint64_t rows = tiny ? 3 : 37;
    for (int s = 0; s < 3; s++) {
        for (int f = 0; f < CLQ_INT; f++) {
            clq_type type = clq_plain((clq_format_id)f);
            if (!clq_format_at(type.format)->has_codec || !wanted(clq_format_at(type.format)->name)) continue;
            uint64_t block = clq_format_at(type.format)->block_elements;
            const clq_format *row = clq_format_row(type.format);
            if (tiny && block == 256 && s != 0)
                continue; // a search is slow in a simulator; sources differ in loads only
            // Widths and sources meet in full once; elsewhere they rotate (each pair is a build).
            bool all = tiny || only || lanes == 8 || block == 1;
            bool plain = all || s == (f + lanes / 4) % 3, weighted = row->weights && (all || s == (f + lanes / 4 + 1) % 3);
            if (tiny && row->weights) weighted = s == 0 && (!row->table || work_groups);
            if (tiny && row->table) plain = !work_groups;
            uint64_t n_blocks = tiny ? 3 : block == 256 ? 9 : 65;
            uint64_t n_rows = tiny && block == 256 ? 1 : rows;
            if (plain) {
                check_one(dev, ref, form, &type, sources[s], n_rows, block == 1 ? 333 : block * n_blocks, false);
                check_one(dev, ref, form, &type, sources[s], 1, block == 1 ? 1 : block, false);
            }
            if (weighted)
                check_one(dev, ref, form, &type, sources[s], n_rows, block * n_blocks, true);
        }
        for (uint32_t bits = 2; bits <= 8; bits++)
            for (int variant = 0; variant < 6; variant++) {
                static const char *const names[] = {"", "_asym", "_tensor", "_asym_tensor", "_g64", "_asym_g32"};
                char name[32];
                clq_type type;
                snprintf(name, sizeof name, "i%u%s", bits, names[variant]);
                clq_type_parse(name, &type, NULL);
                // Every scale dtype comes up with every width, without the full product.
                type.scale_format = sources[(s + bits + (unsigned)variant) % 3];
                if (!wanted(name) && !wanted("int")) continue;
                // The width and the source meet in full once; elsewhere they rotate (each pair is a build).
                if (lanes != 8 && (bits + (unsigned)lanes) % 3 != (unsigned)s) continue;
                if (tiny && (bits == 5 || bits == 7 || s == 2)) continue;
                bool grouped = type.granularity == CLQ_PER_GROUP;
                check_one(dev, ref, form, &type, sources[s], rows, grouped ? 192 : 333, false);
                if (!grouped) check_one(dev, ref, form, &type, sources[s], 2, 5, false);
                if (type.granularity == CLQ_PER_TENSOR) continue;
                for (int multiples = 0; multiples <= (s == 0); multiples++)
                    check_given(dev, ref, form, &type, sources[s], rows, grouped ? 192 : 333, multiples);
            }
        if (wanted("reduce")) {
            check_reduce(dev, form, sources[s], rows, 333, 333);
            check_reduce(dev, form, sources[s], rows, 320, 64);
            check_reduce(dev, form, sources[s], rows, 333, 0);
            check_reduce(dev, form, sources[s], 1, tiny ? 1000 : 300007, 0);
        }
    }
    clq_device_close(dev);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0)
            tiny = true;
        else if (i + 1 < argc && strcmp(argv[i], "--device") == 0)
            selector = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            only = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--form") == 0)
            form_only = argv[++i];
    }
    clq_device *ref;
    if (clq_device_open("ref", NULL, &ref, NULL) != CLQ_OK) return 1;
    if (!tiny)
        for (int f = 0; f < CLQ_INT; f++) {
            clq_type type = clq_plain((clq_format_id)f);
            if (clq_format_at(type.format)->has_codec && wanted(clq_format_at(type.format)->name))
                check_bound(ref, &type);
        }
    static const int lanes[] = {1, 4, 8, 16};
    for (int i = 0; i < 4; i++)
        if (!tiny || i == 2) check_form(ref, lanes[i], 0);
    check_form(ref, 1, 1);
    clq_device_close(ref);
    printf("kernels: %llu passed, %llu failed\n", (unsigned long long)n_passed, (unsigned long long)n_failed);
    return n_failed || !n_passed;
}

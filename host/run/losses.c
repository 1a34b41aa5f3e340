// SPDX-License-Identifier: MIT
#include "run/losses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// n elements of the tile's source from element `at` on; whole blocks of its format.
static void source_floats(const clq_tile *tile, uint64_t at, uint64_t n, float *x)
{
    const clq_format *from = clq_format_row(tile->source);
    uint32_t block = from->info.block_elements;
    from->decode_ref((const uint8_t *)tile->src + at / block * from->info.block_bytes, n / block, x);
}

static bool zero_scale(const clq_format *f, clq_format_id id, const uint8_t *block)
{
    if (id == CLQ_NVFP4) return !(block[0] | block[1] | block[2] | block[3]);
    const uint8_t *scale = block + f->scale_offset;
    return !(scale[0] | (scale[1] & 0x7f));
}

uint64_t clq_lost_blocks(const clq_tile *tile, const uint8_t *codes)
{
    const clq_format *f = clq_format_row(tile->type.format);
    uint32_t elements = f->info.block_elements;
    if (f->scale_offset < 0 && tile->type.format != CLQ_NVFP4) return 0;
    if (elements % clq_format_at(tile->source)->block_elements) return 0;
    uint64_t n = tile->rows * tile->cols / elements, lost = 0;
    for (uint64_t b = 0; b < n; b++) {
        const uint8_t *block = codes + b * f->info.block_bytes;
        if (!zero_scale(f, tile->type.format, block)) continue;
        float x[256], y[256];
        source_floats(tile, b * elements, elements, x);
        f->decode_ref(block, 1, y);
        bool some_x = false, some_y = false;
        for (uint32_t i = 0; i < elements; i++) {
            some_x |= x[i] != 0;
            some_y |= y[i] != 0;
        }
        lost += some_x && !some_y;
    }
    return lost;
}

uint64_t clq_clipped_blocks(const clq_tile *tile, const clq_tile_result *result)
{
    const clq_format_info *f = clq_format_at(tile->type.format);
    const float most = 6 * 448.0f; // the largest level at the largest scale
    if (tile->type.format != CLQ_NVFP4 || result->stats.max_error < (double)most * f->error_bound) return 0;
    uint64_t n = tile->rows * tile->cols / f->block_elements, clipped = 0;
    for (uint64_t b = 0; b < n; b++) {
        float x[64], largest = 0;
        source_floats(tile, b * 64, 64, x);
        for (int i = 0; i < 64; i++) largest = fmaxf(largest, fabsf(x[i]));
        clipped += largest > most * (1 + (float)f->error_bound);
    }
    return clipped;
}

void clq_recount(const clq_tile *tile, const clq_tile_result *r, clq_stats *stats)
{
    bool sane = isfinite(stats->sum_x2) && isfinite(stats->sum_e2) && stats->sum_e2 > 1e-30;
    if (sane || stats->max_error == 0 || tile->cols % clq_format_at(tile->source)->block_elements) return;
    const clq_type *type = &tile->type;
    const clq_format *f = clq_format_row(type->format);
    uint64_t groups = clq_type_groups(type, tile->cols), row_bytes = clq_type_row_bytes(type, tile->cols);
    float *x = malloc((2 * tile->cols + groups + 1) * sizeof *x);
    if (!x) return; // the sums stay as they are
    float *y = x + tile->cols, *scales = y + tile->cols;
    stats->sum_x2 = stats->sum_e2 = 0;
    for (uint64_t row = 0; row < tile->rows; row++) {
        const uint8_t *codes = (const uint8_t *)r->codes + row * row_bytes;
        source_floats(tile, row * tile->cols, tile->cols, x);
        if (type->format != CLQ_INT) {
            f->decode_ref(codes, tile->cols / f->info.block_elements, y);
        } else {
            bool one = type->granularity == CLQ_PER_TENSOR;
            const int8_t *zeros = type->symmetric ? NULL : one ? &tile->zero_point : r->zero_points + row * groups;
            uint32_t scale_bytes = clq_format_at(type->scale_format)->block_bytes;
            scales[0] = tile->scale;
            if (!one)
                clq_load_floats(type->scale_format, (const uint8_t *)r->scales + row * groups * scale_bytes, groups, scales);
            clq_int_decode_ref(type, codes, 1, tile->cols, scales, zeros, y);
        }
        for (uint64_t i = 0; i < tile->cols; i++) {
            double e = (double)x[i] - y[i];
            stats->sum_x2 += (double)x[i] * x[i];
            stats->sum_e2 += e * e;
        }
    }
    free(x);
}

uint64_t clq_bad_floats(clq_format_id format, const uint8_t *bytes, uint64_t n_bytes)
{
    uint64_t bad = 0;
    if (format == CLQ_F32) {
        for (uint64_t i = 0; i + 4 <= n_bytes; i += 4) {
            uint32_t v;
            memcpy(&v, bytes + i, 4);
            bad += (v & 0x7f800000) == 0x7f800000;
        }
    } else if (format == CLQ_F16 || format == CLQ_BF16) {
        uint16_t exponent = format == CLQ_F16 ? 0x7c00 : 0x7f80;
        for (uint64_t i = 0; i + 2 <= n_bytes; i += 2) {
            uint16_t v;
            memcpy(&v, bytes + i, 2);
            bad += (v & exponent) == exponent;
        }
    }
    return bad;
}

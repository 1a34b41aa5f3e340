// SPDX-License-Identifier: MIT
// Running a plan. For each tensor, in tiles: load -> encode on the device (which measures the error)
// -> check -> write at the planned offset. Then fsync, check what was written, rename.
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "base/threads.h"
#include "device/ring.h"
#include "io/output.h"
#include "method/method.h"
#include "run/losses.h"
#include "run/plan.h"
#include "run/prepare.h"
#include "run/rows.h"
#include "run/written.h"

// A tensor under way. Several are when tiles of one end while the next begins.
typedef struct {
    clq_entry *entry;
    uint64_t rows_stored;
    uint64_t n_clipped;      // blocks
    uint64_t n_bad;          // NaN and infinite values of a copy
    XXH3_state_t *hashes[CLQ_ENTRY_PARTS];
    bool first_range;
    float min, max;          // CLQ_PER_TENSOR, first pass
    float scale;
    int8_t zero_point;
    clq_gather *gather;      // of a weight that is packed by columns
} work;

enum { MAX_WORK = 16 };

typedef struct {
    clq_plan *plan;
    clq_device *device;
    clq_output *output;
    clq_ring *ring;
    clq_preparation *preparation; // NULL: no method
    work works[MAX_WORK];
    clq_progress progress;
    double start;
    uint32_t threads;
} run;

// ---- loading ----

typedef struct {
    const clq_plan *plan;
    const clq_entry *entry;
    uint64_t first;
    uint8_t *dst;
    uint64_t row_bytes;
    _Atomic(int) status;
    clq_error error;
} loading;

static void fail_load(loading *l, const clq_error *err)
{
    int none = CLQ_OK;
    if (atomic_compare_exchange_strong(&l->status, &none, err->status)) l->error = *err;
}

// Rows [begin, end) of the tile, as floats.
static void load_floats(void *ctx, uint64_t begin, uint64_t end)
{
    loading *l = ctx;
    const clq_entry *e = l->entry;
    const clq_origin *o = &e->from;
    clq_error err;
    clq_status st = CLQ_OK;
    uint64_t step = o->order == CLQ_ROWS_KEPT ? end - begin : 1;
    for (uint64_t r = begin; r < end && st == CLQ_OK; r += step)
        st = clq_origin_read(l->plan->source, o, clq_row_from(o->order, o->n_heads, e->rows, l->first + r) * e->cols,
                             step * e->cols, (float *)(void *)l->dst + r * e->cols, &err);
    if (st != CLQ_OK) fail_load(l, &err);
}

// The stored bytes of rows, each from its place. All pieces are stored alike.
static void load_bytes(void *ctx, uint64_t begin, uint64_t end)
{
    loading *l = ctx;
    const clq_entry *e = l->entry;
    const clq_origin *o = &e->from;
    clq_error err;
    clq_status st = CLQ_OK;
    for (uint64_t r = begin, n; r < end && st == CLQ_OK; r += n) {
        uint64_t at = clq_row_from(o->order, o->n_heads, e->rows, l->first + r) * e->cols;
        uint64_t most = (o->order == CLQ_ROWS_KEPT ? end - r : 1) * e->cols;
        clq_stretch s = clq_origin_at(l->plan->source, o, at, most);
        n = s.n / e->cols;
        st = clq_file_read(&l->plan->source->files[s.t->codes.file],
                           s.t->codes.offset + s.first / e->cols * l->row_bytes,
                           l->dst + r * l->row_bytes, n * l->row_bytes, &err);
    }
    if (st != CLQ_OK) fail_load(l, &err);
}

static clq_status load(run *r, loading *l, uint64_t rows, void (*fn)(void *, uint64_t, uint64_t), clq_error *err)
{
    uint64_t grain = l->entry->cols ? (1 << 16) / l->entry->cols : 1;
    clq_parallel(r->threads, rows, grain ? grain : 1, fn, l);
    if (l->status == CLQ_OK) return CLQ_OK;
    if (err) *err = l->error;
    return (clq_status)l->status;
}

// A tensor whose bytes the device can take as they are: plain floats and blocks that it decodes.
static bool device_reads(const clq_entry *e, const clq_tensor *t)
{
    return clq_format_row(t->type.format)->kind == CLQ_KIND_CODEC && e->uniform && e->from.shift == 0;
}

// A tile of what a method prepared, with the scales that it chose.
static clq_status load_prepared(run *r, const clq_entry *e, uint64_t first, clq_tile *tile, clq_error *err)
{
    void *staging;
    CLQ_TRY(clq_ring_staging(r->ring, &staging, err));
    loading l = {.plan = r->plan, .entry = e, .first = first, .dst = staging};
    tile->source = CLQ_F32;
    tile->src = staging;
    tile->src_bytes = tile->rows * e->cols * 4;
    if (!clq_preparation_floats(r->preparation, e, first, tile->rows, staging)) CLQ_TRY(load(r, &l, tile->rows, load_floats, err));
    return clq_preparation_scales(r->preparation, e, first, staging, tile, err);
}

// Fills the tile's source: in place where the file is mapped, else in the ring's staging memory.
static clq_status load_tile(run *r, const clq_entry *e, uint64_t first, clq_tile *tile, clq_error *err)
{
    clq_stretch s = clq_origin_at(r->plan->source, &e->from, first * e->cols, tile->rows * e->cols);
    const clq_tensor *t = s.t;
    loading l = {.plan = r->plan, .entry = e, .first = first};
    void *staging;
    if (clq_preparation_has(r->preparation, e)) return load_prepared(r, e, first, tile, err);
    if (!device_reads(e, t)) {
        CLQ_TRY(clq_ring_staging(r->ring, &staging, err));
        tile->source = CLQ_F32;
        tile->src = l.dst = staging;
        tile->src_bytes = tile->rows * e->cols * 4;
        return load(r, &l, tile->rows, load_floats, err);
    }
    tile->source = t->type.format;
    l.row_bytes = clq_type_row_bytes(&t->type, e->cols);
    tile->src_bytes = tile->rows * l.row_bytes;
    tile->src = clq_file_at(&r->plan->source->files[t->codes.file], t->codes.offset + s.first / e->cols * l.row_bytes);
    // A safetensors file may hold floats at odd addresses.
    bool aligned = (uintptr_t)tile->src % (t->type.format == CLQ_F32 ? 4 : 2) == 0;
    tile->in_place = e->from.order == CLQ_ROWS_KEPT && s.n == tile->rows * e->cols && tile->src && aligned;
    if (tile->in_place) return CLQ_OK;
    CLQ_TRY(clq_ring_staging(r->ring, &staging, err));
    tile->src = l.dst = staging;
    return load(r, &l, tile->rows, load_bytes, err);
}

// ---- storing ----

static clq_status put(run *r, work *w, int part, uint64_t at, const void *bytes, uint64_t n, clq_error *err)
{
    if (!n) return CLQ_OK;
    XXH3_64bits_update(w->hashes[part], bytes, n);
    return clq_output_write(r->output, w->entry->file, w->entry->parts[part].offset + at, bytes, n, err);
}

// One row of the plan's matrix as floats, whatever the source's own rows are. stored: scratch.
static void row_floats(run *r, const clq_entry *e, uint64_t row, uint8_t *stored, float *x)
{
    const clq_tensor *t = &r->plan->source->tensors[e->from.source];
    const clq_format *f = clq_format_row(t->type.format);
    loading l = {.plan = r->plan, .entry = e, .first = row, .dst = (uint8_t *)x};
    if (!device_reads(e, t)) {
        load_floats(&l, 0, 1);
        return;
    }
    l.dst = stored;
    l.row_bytes = clq_type_row_bytes(&t->type, e->cols);
    load_bytes(&l, 0, 1);
    f->decode_ref(stored, e->cols / f->info.block_elements, x);
}

// A tile whose values or results are not finite: how many, and where the first is.
static clq_status explain(run *r, const clq_entry *e, uint64_t first, const clq_tile *tile, bool inputs, clq_error *err)
{
    const clq_tensor *t = clq_origin_at(r->plan->source, &e->from, first * e->cols, e->cols).t;
    const clq_format *f = clq_format_row(e->type.format);
    float *x = malloc(e->cols * 2 * sizeof *x), *y = x + e->cols;
    uint8_t *stored = malloc(e->cols * 8), *codes = malloc(e->cols * 8 + 256);
    uint64_t bad = 0, where = 0;
    for (uint64_t k = 0; x && stored && codes && k < tile->rows; k++) {
        row_floats(r, e, first + k, stored, x);
        if (!inputs && e->type.format != CLQ_INT) {
            f->encode_ref(x, clq_preparation_importance(r->preparation, e, first + k), e->cols / f->info.block_elements, codes);
            f->decode_ref(codes, e->cols / f->info.block_elements, y);
        }
        for (uint64_t i = 0; i < e->cols; i++)
            if (!isfinite(inputs ? x[i] : y[i]) && bad++ == 0) where = (first + k) * e->cols + i;
        if (!inputs && e->type.format == CLQ_INT) break;
    }
    free(x);
    free(stored);
    free(codes);
    if (inputs)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' of the source holds NaN or infinite values (%" PRIu64
                        " here, the first at element %" PRIu64 "); mend the source, or keep the tensor as it is with "
                        "--tensor-type",
                        t->name, bad, where);
    if (e->type.format == CLQ_INT)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s': its values are too large for a scale in %s; keep it in a wider type with "
                        "--tensor-type",
                        t->name, clq_format_at(e->type.scale_format)->name);
    return clq_fail(err, CLQ_BAD_INPUT,
                    "tensor '%s': %" PRIu64 " values (the first at element %" PRIu64 ") are beyond what %s holds, "
                    "whose float16 ends at 65504; keep it in a wider type with --tensor-type",
                    t->name, bad, where, e->info.type);
}

typedef struct {
    run *r;
    work *w;
} target;

static clq_status put_to(void *ctx, int part, uint64_t at, const void *bytes, uint64_t n, clq_error *err)
{
    target *t = ctx;
    return put(t->r, t->w, part, at, bytes, n, err);
}

static clq_status finish_entry(run *r, work *w, clq_error *err)
{
    clq_entry *e = w->entry;
    if (w->gather) {
        target t = {r, w};
        CLQ_TRY(clq_gather_write(w->gather, r->threads, put_to, &t, err));
        clq_gather_free(w->gather);
        w->gather = NULL;
    }
    uint64_t digests[CLQ_ENTRY_PARTS];
    for (int i = 0; i < CLQ_ENTRY_PARTS; i++) digests[i] = XXH3_64bits_digest(w->hashes[i]);
    e->hash = XXH3_64bits(digests, sizeof digests);
    clq_preparation_stats(r->preparation, e, &e->info.stats);
    e->done = true;
    w->entry = NULL;
    clq_record record = {.tensor = (uint32_t)(e - r->plan->entries), .hash = e->hash, .stats = e->info.stats};
    CLQ_TRY(clq_output_record(r->output, &record, err));
    if (e->info.stats.lost_groups)
        clq_warn(r->plan->hooks, "tensor '%s': %" PRIu64 " %s are so small that their scale (%s) makes them 0",
                 e->info.name, e->info.stats.lost_groups, e->type.format == CLQ_INT ? "groups" : "blocks",
                 e->type.format == CLQ_INT ? clq_format_at(e->type.scale_format)->name : "f16");
    if (w->n_clipped)
        clq_warn(r->plan->hooks, "tensor '%s': values beyond the range of %s become smaller, in %" PRIu64 " %s",
                 e->info.name, e->info.type, w->n_clipped, w->n_clipped == 1 ? "block" : "blocks");
    if (w->n_bad)
        clq_warn(r->plan->hooks, "tensor '%s' holds %" PRIu64 " NaN or infinite values; they are copied as they are",
                 e->info.name, w->n_bad);
    r->progress.tensor = e->info.name;
    r->progress.tensors_done++;
    r->progress.elements_done += e->info.n_elements;
    r->progress.seconds = clq_seconds() - r->start;
    if (r->plan->hooks && r->plan->hooks->progress) r->plan->hooks->progress(r->plan->hooks->user, &r->progress);
    return CLQ_OK;
}

static void add_stats(clq_stats *sum, const clq_stats *s)
{
    sum->sum_x2 += s->sum_x2;
    sum->sum_e2 += s->sum_e2;
    sum->max_error = fmax(sum->max_error, s->max_error);
    sum->lost_groups += s->lost_groups;
}

static clq_status store(void *ctx, void *tag, uint64_t first, const clq_tile *tile, const clq_tile_result *res,
                        clq_error *err)
{
    run *r = ctx;
    work *w = tag;
    clq_entry *e = w->entry;
    if (tile->range_only) {
        if (!isfinite(res->min) || !isfinite(res->max)) return explain(r, e, first, tile, true, err);
        w->min = w->first_range || res->min < w->min ? res->min : w->min;
        w->max = w->first_range || res->max > w->max ? res->max : w->max;
        w->first_range = false;
        return CLQ_OK;
    }
    if (res->stats.bad_inputs || res->stats.bad_outputs)
        return explain(r, e, first, tile, res->stats.bad_inputs > 0, err);
    clq_stats stats = res->stats;
    clq_recount(tile, res, &stats);
    add_stats(&e->info.stats, &stats);
    e->info.stats.lost_groups += clq_lost_blocks(tile, res->codes);
    w->n_clipped += clq_clipped_blocks(tile, res);
    target to = {r, w};
    if (e->type.format == CLQ_INT)
        CLQ_TRY(clq_put_rows(e, w->gather, first, tile->rows, res->codes, res->sizes.scales ? res->scales : NULL,
                             res->sizes.zero_points ? res->zero_points : NULL, put_to, &to, err));
    else
        CLQ_TRY(put(r, w, CLQ_PART_CODES, first * clq_type_row_bytes(&e->type, e->cols), res->codes, res->sizes.codes,
                    err));
    w->rows_stored += tile->rows;
    return w->rows_stored == e->rows ? finish_entry(r, w, err) : CLQ_OK;
}

// ---- one tensor ----

// A free slot; when all are taken, waits for the tiles under way.
static clq_status begin_work(run *r, clq_entry *e, work **slot, clq_error *err)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        for (int i = 0; i < MAX_WORK; i++) {
            work *w = &r->works[i];
            if (w->entry) continue;
            w->entry = e;
            w->rows_stored = w->n_clipped = w->n_bad = 0;
            w->first_range = true;
            for (int k = 0; k < CLQ_ENTRY_PARTS; k++) {
                if (!w->hashes[k]) w->hashes[k] = XXH3_createState();
                if (!w->hashes[k]) return clq_fail_memory(err, 1024);
                XXH3_64bits_reset(w->hashes[k]);
            }
            *slot = w;
            return CLQ_OK;
        }
        CLQ_TRY(clq_ring_flush(r->ring, err));
    }
    return clq_fail(err, CLQ_DEVICE, "tiles were lost");
}

static clq_status push_tiles(run *r, work *w, bool range_only, clq_error *err)
{
    clq_entry *e = w->entry;
    uint64_t most = clq_plan_tile_rows(r->plan, e), n_rows = e->rows, rows;
    // Importance is the same for all rows of a tile, so experts do not share one.
    uint64_t together = e->importance ? e->matrix_rows : n_rows;
    for (uint64_t first = 0; first < n_rows; first += rows) {
        if (clq_cancelled(r->plan->hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        rows = together - first % together;
        if (rows > most) rows = most;
        clq_tile tile = {.type = e->type, .rows = rows, .cols = e->cols, .importance = clq_preparation_importance(r->preparation, e, first),
                         .range_only = range_only, .scale = w->scale, .zero_point = w->zero_point};
        CLQ_TRY(load_tile(r, e, first, &tile, err));
        CLQ_TRY(clq_ring_push(r->ring, &tile, w, first, err));
    }
    return CLQ_OK;
}

// Parts that the plan knows: the shape of a packed weight, scale and zero-point of its activations.
static clq_status put_constants(run *r, work *w, clq_error *err)
{
    const clq_entry *e = w->entry;
    int64_t dims[CLQ_MAX_DIMS];
    for (uint32_t d = 0; d < e->info.n_dims; d++) dims[d] = (int64_t)e->info.dims[d];
    int8_t zero_point = (int8_t)e->activation.zero_point;
    CLQ_TRY(put(r, w, CLQ_PART_SHAPE, 0, dims, e->parts[CLQ_PART_SHAPE].n_bytes, err));
    CLQ_TRY(put(r, w, CLQ_PART_INPUT_SCALE, 0, &e->activation.scale, e->parts[CLQ_PART_INPUT_SCALE].n_bytes, err));
    return put(r, w, CLQ_PART_INPUT_ZERO_POINT, 0, &zero_point, e->parts[CLQ_PART_INPUT_ZERO_POINT].n_bytes, err);
}

static clq_status encode_entry(run *r, clq_entry *e, clq_error *err)
{
    work *w;
    bool gathers = clq_gathers(r->plan, e);
    if (gathers) CLQ_TRY(clq_ring_flush(r->ring, err)); // one weight is gathered at a time
    CLQ_TRY(begin_work(r, e, &w, err));
    if (gathers) CLQ_TRY(clq_gather_create(r->plan, e, &w->gather, err));
    CLQ_TRY(clq_preparation_begin(r->preparation, e, err));
    CLQ_TRY(put_constants(r, w, err));
    if (e->type.format == CLQ_INT && e->type.granularity == CLQ_PER_TENSOR) {
        CLQ_TRY(push_tiles(r, w, true, err));
        CLQ_TRY(clq_ring_flush(r->ring, err));
        clq_int_params(&e->type, w->min, w->max, &w->scale, &w->zero_point);
        uint32_t stored = 0;
        clq_store_floats(e->type.scale_format, &w->scale, 1, &stored);
        CLQ_TRY(put(r, w, CLQ_PART_SCALES, 0, &stored, e->parts[CLQ_PART_SCALES].n_bytes, err));
        target to = {r, w};
        if (!e->type.symmetric) CLQ_TRY(clq_put_zero_points(e, 0, &w->zero_point, 1, 1, put_to, &to, err));
    }
    return push_tiles(r, w, false, err);
}

enum { COPY_CHUNK = 4 << 20 };

// n bytes of a source's file, from `offset` on, to a part from `at` on.
static clq_status copy_bytes(run *r, work *w, int part, uint64_t at, uint32_t file, uint64_t offset, uint64_t n,
                             clq_error *err)
{
    const clq_entry *e = w->entry;
    const clq_file *f = &r->plan->source->files[file];
    clq_format_id format = part == CLQ_PART_SCALES ? e->type.scale_format : e->type.format;
    uint8_t *buffer = f->map ? NULL : malloc(COPY_CHUNK);
    clq_status st = f->map || buffer ? CLQ_OK : clq_fail_memory(err, COPY_CHUNK);
    for (uint64_t done = 0, step; done < n && st == CLQ_OK; done += step) {
        const uint8_t *bytes = f->map ? f->map + offset + done : buffer;
        step = n - done < COPY_CHUNK ? n - done : COPY_CHUNK;
        if (clq_cancelled(r->plan->hooks))
            st = clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        else if (!f->map)
            st = clq_file_read(f, offset + done, buffer, step, err);
        if (st == CLQ_OK) st = put(r, w, part, at + done, bytes, step, err);
        if (st == CLQ_OK) w->n_bad += clq_bad_floats(format, bytes, step);
    }
    free(buffer);
    return st;
}

static clq_status copy_rows(run *r, work *w, clq_error *err)
{
    const clq_entry *e = w->entry;
    uint64_t n_bytes = e->parts[CLQ_PART_CODES].n_bytes;
    uint64_t unit = clq_type_row_bytes(&e->type, e->cols), chunk = COPY_CHUNK / unit ? COPY_CHUNK / unit * unit : unit;
    uint8_t *buffer = malloc(chunk);
    if (!buffer) return clq_fail_memory(err, chunk);
    clq_status st = CLQ_OK;
    for (uint64_t at = 0; at < n_bytes && st == CLQ_OK; at += chunk) {
        uint64_t n = n_bytes - at < chunk ? n_bytes - at : chunk;
        loading l = {.plan = r->plan, .entry = e, .first = at / unit, .dst = buffer, .row_bytes = unit};
        if (clq_cancelled(r->plan->hooks))
            st = clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        else
            st = load(r, &l, n / unit, load_bytes, err);
        if (st == CLQ_OK) st = put(r, w, CLQ_PART_CODES, at, buffer, n, err);
        if (st == CLQ_OK) w->n_bad += clq_bad_floats(e->type.format, buffer, n);
    }
    free(buffer);
    return st;
}

static clq_status copy_pieces(run *r, work *w, clq_error *err)
{
    const clq_entry *e = w->entry;
    const clq_format_info *format = clq_format_at(e->type.format);
    uint64_t piece = e->parts[CLQ_PART_CODES].n_bytes / e->from.n_pieces;
    for (uint32_t i = 0; piece && i < e->from.n_pieces; i++) {
        clq_stretch s = clq_origin_at(r->plan->source, &e->from, i * e->from.n_elements, e->from.n_elements);
        uint64_t before = s.first / format->block_elements * format->block_bytes;
        CLQ_TRY(copy_bytes(r, w, CLQ_PART_CODES, i * piece, s.t->codes.file, s.t->codes.offset + before, piece, err));
    }
    return CLQ_OK;
}

static clq_status copy_int(run *r, work *w, clq_error *err)
{
    const clq_tensor *t = &r->plan->source->tensors[w->entry->from.source];
    const clq_extent *extents[] = {[CLQ_PART_CODES] = &t->codes, [CLQ_PART_SCALES] = &t->scales,
                                   [CLQ_PART_ZERO_POINTS] = &t->zero_points};
    for (int k = 0; k <= CLQ_PART_ZERO_POINTS; k++)
        CLQ_TRY(copy_bytes(r, w, k, 0, extents[k]->file, extents[k]->offset, extents[k]->n_bytes, err));
    return CLQ_OK;
}

static clq_status put_computed(run *r, work *w, clq_error *err)
{
    const clq_entry *e = w->entry;
    const clq_translation *x = &r->plan->translation;
    const clq_computed_tensor *c = NULL;
    for (uint32_t i = 0; i < x->n_computed; i++)
        if (strcmp(x->computed[i].name, e->info.name) == 0) c = &x->computed[i];
    return put(r, w, CLQ_PART_CODES, 0, c->data, e->parts[CLQ_PART_CODES].n_bytes, err);
}

// Bytes as they are, rows perhaps in another order; and computed tensors.
static clq_status copy_entry(run *r, clq_entry *e, clq_error *err)
{
    work *w;
    bool gathers = clq_gathers(r->plan, e);
    if (gathers) CLQ_TRY(clq_ring_flush(r->ring, err));
    CLQ_TRY(begin_work(r, e, &w, err));
    if (gathers) CLQ_TRY(clq_gather_create(r->plan, e, &w->gather, err));
    CLQ_TRY(put_constants(r, w, err));
    target to = {r, w};
    if (e->from.source == UINT32_MAX)
        CLQ_TRY(put_computed(r, w, err));
    else if (e->type.format == CLQ_INT)
        CLQ_TRY(e->repack ? clq_repack(r->plan, e, w->gather, put_to, &to, err) : copy_int(r, w, err));
    else
        CLQ_TRY(e->from.order == CLQ_ROWS_KEPT ? copy_pieces(r, w, err) : copy_rows(r, w, err));
    return finish_entry(r, w, err);
}

// ---- the whole ----

// Heads and whole small files; a head is the file's begin.
static clq_status write_heads(run *r, clq_error *err)
{
    for (uint32_t i = 0; i < r->plan->n_files; i++) {
        const clq_plan_file *f = &r->plan->files[i];
        if (f->head.len) CLQ_TRY(clq_output_write(r->output, i, 0, f->head.data, f->head.len, err));
        if (!f->copy_of) continue;
        char *text;
        size_t len;
        CLQ_TRY(clq_file_slurp(f->copy_of, f->n_bytes, &text, &len, err));
        clq_status st = len == f->n_bytes
                            ? clq_output_write(r->output, i, 0, text, len, err)
                            : clq_fail(err, CLQ_BAD_INPUT, "'%s' changed while it was copied", f->copy_of);
        free(text);
        CLQ_TRY(st);
    }
    return CLQ_OK;
}

// Tensors that an interrupted run completed, if their bytes are still what the journal says.
static clq_status take_over(run *r, clq_error *err)
{
    uint32_t n;
    const clq_record *records = clq_output_records(r->output, &n);
    if (!n) return CLQ_OK;
    clq_file *files = NULL;
    clq_status st = clq_written_open(r->plan, r->output, &files, err);
    for (uint32_t i = 0; st == CLQ_OK && i < n; i++) {
        if (records[i].tensor >= r->plan->n_entries) continue;
        clq_entry *e = &r->plan->entries[records[i].tensor];
        if (e->done || !clq_entry_intact(files, e, records[i].hash)) continue;
        e->done = true;
        e->hash = records[i].hash;
        e->info.stats = records[i].stats;
        r->progress.tensors_done++;
        r->progress.elements_done += e->info.n_elements;
    }
    clq_written_close(r->plan, files);
    return st;
}

static clq_status open_output(run *r, clq_error *err)
{
    clq_plan *p = r->plan;
    clq_output_file *files = calloc(p->n_files + 1, sizeof *files);
    if (!files) return clq_fail_memory(err, p->n_files * sizeof *files);
    for (uint32_t i = 0; i < p->n_files; i++) files[i] = (clq_output_file){p->files[i].name, p->files[i].n_bytes};
    clq_output_kind kind = p->in_parts ? CLQ_OUTPUT_PARTS : p->to_gguf ? CLQ_OUTPUT_FILE : CLQ_OUTPUT_FOLDER;
    clq_status st =
        clq_output_open(p->out, kind, files, p->n_files, p->fingerprint, p->options.resume, &r->output, err);
    free(files);
    return st;
}

// The entries of a layer, -1: of none, or all where no method goes from layer to layer.
static clq_status run_layer(run *r, int32_t layer, clq_error *err)
{
    clq_plan *p = r->plan;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        clq_entry *e = &p->entries[i];
        if (e->done || clq_preparation_layer_of(r->preparation, e) != layer) continue;
        if (e->copy) // copies take no lane; keep the order of progress simple
            CLQ_TRY(copy_entry(r, e, err));
        else
            CLQ_TRY(encode_entry(r, e, err));
    }
    return clq_ring_flush(r->ring, err);
}

static clq_status run_entries(run *r, clq_error *err)
{
    clq_plan *p = r->plan;
    clq_lane_limits limits = {.src_bytes = p->max_src_bytes,
                              .n_elements = p->max_elements,
                              .code_bytes = p->max_code_bytes,
                              .n_groups = p->max_groups};
    CLQ_TRY(clq_ring_create(r->device, &limits, p->n_lanes, store, r, &r->ring, err));
    uint32_t first, end;
    clq_preparation_layers(r->preparation, &first, &end);
    CLQ_TRY(run_layer(r, -1, err));
    for (uint32_t layer = first; layer < end; layer++) {
        CLQ_TRY(clq_preparation_next(r->preparation, err));
        CLQ_TRY(run_layer(r, (int32_t)layer, err));
        CLQ_TRY(clq_preparation_taken(r->preparation, err));
    }
    return CLQ_OK;
}

// A type that suits only weights trained for it (ternary, binary) leaves little of others.
static void warn_of_noise(const clq_plan *p)
{
    const double floor_db = 5;
    const clq_entry *worst = NULL;
    uint32_t n = 0;
    double lowest = floor_db;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const clq_entry *e = &p->entries[i];
        const clq_stats *s = &e->info.stats;
        if (e->copy || clq_format_row(e->type.format)->needs_importance || !(s->sum_e2 > 0)) continue;
        double db = 10 * log10(s->sum_x2 / s->sum_e2);
        n += db < floor_db;
        if (!(db < lowest)) continue;
        lowest = db;
        worst = e;
    }
    if (n)
        clq_warn(p->hooks, "%u tensors keep little of their weights, '%s' %.1f dB in %s: a type of so few values is for "
                           "weights that were trained for it", n, worst->info.name, lowest, worst->info.type);
}

clq_status clq_plan_run(clq_plan *plan, clq_device *device, clq_error *err)
{
    run r = {.plan = plan, .device = device, .start = clq_seconds()};
    clq_device_info info;
    clq_device_describe(device, &info);
    if (clq_method_runs_model(plan->options.method)) // whose sums differ from device to device
        plan->fingerprint = XXH3_64bits_withSeed(info.name, strlen(info.name), plan->fingerprint);
    r.threads = plan->options.threads ? plan->options.threads : clq_threads_allowed();
    r.progress.n_tensors = plan->n_entries;
    r.progress.n_elements = plan->totals.n_elements;
    clq_status st;
    CLQ_TRY_OUT(open_output(&r, err));
    CLQ_TRY_OUT(take_over(&r, err));
    CLQ_TRY_OUT(clq_preparation_open(plan, device, r.output, r.threads, &r.preparation, err));
    clq_plan_fit(plan, info.max_allocation, !info.unified_memory, r.preparation ? clq_preparation_bytes(r.preparation) : 0);
    CLQ_TRY_OUT(write_heads(&r, err));
    CLQ_TRY_OUT(run_entries(&r, err));
    CLQ_TRY_OUT(clq_output_sync(r.output, err));
    CLQ_TRY_OUT(clq_written_check(plan, r.output, r.threads, err));
    CLQ_TRY_OUT(clq_output_commit(r.output, err));
    plan->totals.seconds = clq_seconds() - r.start;
    warn_of_noise(plan);
out:
    clq_ring_free(r.ring);
    for (int i = 0; i < MAX_WORK; i++) {
        for (int k = 0; k < CLQ_ENTRY_PARTS; k++) XXH3_freeState(r.works[i].hashes[k]);
        clq_gather_free(r.works[i].gather);
    }
    clq_preparation_close(r.preparation, st == CLQ_OK);
    clq_output_close(r.output, st == CLQ_INTERRUPTED);
    return st;
}

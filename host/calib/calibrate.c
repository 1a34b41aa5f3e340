// SPDX-License-Identifier: MIT
#include "calib/calibrate.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/threads.h"
#include "calib/checkpoint.h"
#include "calib/ranges.h"
#include "io/output.h"

typedef struct {
    clq_layers *layers;
    const clq_corpus *corpus;
    const clq_calibrate_options *o;
    clq_checkpoint state;
    char *path;             // of the checkpoint
    uint32_t written_layer; // next_layer of the checkpoint on disk
    double start, written;  // seconds; when the last checkpoint was written
    uint64_t done, todo;    // tokens times layers, of this run
} calibration;

// ---- fingerprints ----

static void hash_text(XXH3_state_t *h, const char *text) { XXH3_64bits_update(h, text, strlen(text) + 1); }

// Of what decides the statistics. With `files`: of these files, on this device; else a copy of them does as well.
static uint64_t fingerprint(const clq_source *source, const calibration *c, bool files)
{
    const clq_corpus *corpus = c->corpus;
    XXH3_state_t *h = XXH3_createState();
    if (!h) return 0;
    XXH3_64bits_reset(h);
    hash_text(h, CLQ_VERSION);
    for (uint32_t i = 0; i < source->n_tensors; i++) {
        const clq_tensor *t = &source->tensors[i];
        char type[32];
        clq_type_name(&t->type, type);
        hash_text(h, t->name);
        hash_text(h, type);
        XXH3_64bits_update(h, t->dims, t->n_dims * sizeof *t->dims);
        XXH3_64bits_update(h, &t->codes.n_bytes, sizeof t->codes.n_bytes);
    }
    for (uint32_t i = 0; i < source->kvs.n; i++) {
        hash_text(h, source->kvs.items[i].key);
        XXH3_64bits_update(h, source->kvs.items[i].value, source->kvs.items[i].n_bytes);
    }
    char *config = source->config ? json_dumps(source->config, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (config) hash_text(h, config);
    free(config);
    for (uint32_t i = 0; i < source->n_files; i++) {
        const clq_file *f = &source->files[i];
        uint64_t facts[] = {f->size, (uint64_t)f->mtime_ns, f->device, f->inode};
        XXH3_64bits_update(h, facts, files ? sizeof facts : sizeof *facts);
    }
    if (files) hash_text(h, c->o->device);
    uint64_t facts[] = {corpus->context, corpus->n_windows, corpus->n_tokens, c->o->gram};
    XXH3_64bits_update(h, facts, sizeof facts);
    XXH3_64bits_update(h, corpus->tokens, corpus->n_tokens * sizeof *corpus->tokens);
    uint64_t v = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return v;
}

// ---- a layer's statistics ----

// The matrices of a site, with what was observed of each.
typedef struct {
    clq_stat_site *site;
    const float *slots;
    uint64_t slot_floats;
    atomic_bool failed;
} matrices;

static void make_ranges(void *ctx, uint64_t begin, uint64_t end)
{
    matrices *all = ctx;
    for (uint64_t m = begin; m < end; m++)
        if (clq_ranges_of(all->slots + m * all->slot_floats, all->site->ranges + m * CLQ_N_OBSERVERS, NULL) != CLQ_OK)
            all->failed = true;
}

static uint32_t head_word(const float *slot, int word)
{
    uint32_t v;
    memcpy(&v, &slot[word], sizeof v);
    return v;
}

static clq_status check_finite(const calibration *c, const clq_stat_site *site, uint32_t m, const float *slot,
                               clq_error *err)
{
    uint32_t bad = head_word(slot, CLQ_SLOT_BAD);
    uint64_t cols = site->cols;
    if (bad)
        return clq_fail(
            err, CLQ_BAD_INPUT,
            "layer %u: %u values that '%s' reads are NaN or infinite: the weights before it are damaged, or "
            "their products beyond float32",
            c->state.next_layer, bad, site->name);
    uint64_t values = 0, tokens = 0;
    for (int i = 0; i < 2 * CLQ_BINS; i++) values += site->bins[(uint64_t)m * 2 * CLQ_BINS + i];
    for (int i = 0; i < CLQ_TOKEN_BINS; i++) tokens += site->token_bins[(uint64_t)m * CLQ_TOKEN_BINS + i];
    if (tokens != site->tokens[m] || values != tokens * cols)
        return clq_fail(err, CLQ_DEVICE, "layer %u: the device lost count of what '%s' reads", c->state.next_layer,
                        site->name);
    double sum = 0;
    for (uint64_t i = m * cols; i < (m + 1) * cols; i++)
        sum += (double)site->sum[i] * 0.0 + (double)site->sum_sq[i] * 0.0; // NaN of what is not finite
    for (uint64_t i = m * cols * cols; site->gram && i < (m + 1) * cols * cols; i++) sum += (double)site->gram[i] * 0.0;
    if (sum == 0) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "layer %u: the squares of what '%s' reads are beyond float32",
                    c->state.next_layer, site->name);
}

static clq_status take_site(const calibration *c, const clq_site *from, clq_stat_site *site, clq_error *err)
{
    uint64_t slot_floats = CLQ_SLOT_FLOATS(from->cols), n_bytes = from->n_matrices * slot_floats * sizeof(float);
    CLQ_TRY(clq_stat_site_create(site, from->weights, from->n_weights, from->cols, from->n_matrices, c->o->gram, err));
    float *slots = malloc(n_bytes);
    clq_status st = slots ? CLQ_OK : clq_fail_memory(err, n_bytes);
    for (uint32_t m = 0; st == CLQ_OK && m < from->n_matrices; m++) {
        float *slot = slots + m * slot_floats;
        float *gram = site->gram ? site->gram + (uint64_t)m * site->cols * site->cols : NULL;
        st = clq_layers_observed(c->layers, from, m, slot, gram, err);
        if (st != CLQ_OK) break;
        clq_stat_site_set(site, m, slot);
        st = check_finite(c, site, m, slot, err);
    }
    matrices all = {.site = site, .slots = slots, .slot_floats = slot_floats};
    if (st == CLQ_OK) clq_parallel(c->o->threads, from->n_matrices, 1, make_ranges, &all);
    if (st == CLQ_OK && all.failed) st = clq_fail_memory(err, n_bytes);
    free(slots);
    if (st != CLQ_OK) clq_stat_site_clear(site);
    return st;
}

static clq_status take_layer(calibration *c, double seconds, clq_error *err)
{
    uint32_t n;
    const clq_site *from = clq_layers_sites(c->layers, &n);
    clq_stats_file *stats = c->state.stats;
    clq_stat_site *sites = realloc(stats->sites, (stats->n_sites + n + 1) * sizeof *sites);
    if (!sites) return clq_fail_memory(err, (stats->n_sites + n + 1) * sizeof *sites);
    stats->sites = sites;
    uint32_t first = stats->n_sites;
    for (uint32_t i = 0; i < n; i++) {
        CLQ_TRY(take_site(c, &from[i], &sites[stats->n_sites], err));
        stats->n_sites++;
    }
    clq_layer_report report = {.layer = c->state.next_layer,
                               .n_layers = clq_layers_count(c->layers),
                               .sites = sites + first,
                               .n_sites = n,
                               .seconds = seconds};
    if (c->o->layer) c->o->layer(c->o->user, &report);
    return CLQ_OK;
}

// ---- running ----

static void tell_progress(const calibration *c)
{
    const clq_hooks *h = c->o->hooks;
    if (!h || !h->progress) return;
    char name[32];
    snprintf(name, sizeof name, "layer %u", c->state.next_layer);
    clq_progress p = {.tensor = name,
                      .tensors_done = c->state.next_layer,
                      .n_tensors = clq_layers_count(c->layers),
                      .elements_done = c->done,
                      .n_elements = c->todo,
                      .seconds = clq_seconds() - c->start};
    h->progress(h->user, &p);
}

static float *hidden_of(const calibration *c, uint32_t window)
{
    return c->state.hidden + (uint64_t)window * c->corpus->context * c->state.width;
}

// Whether to stop at once: nothing is lost but this layer.
static bool stops_here(const calibration *c)
{
    return clq_cancelled(c->o->hooks) && c->written_layer == c->state.next_layer;
}

static clq_status interrupted(const calibration *c, clq_error *err)
{
    if (!c->state.next_layer)
        return clq_fail(err, CLQ_INTERRUPTED,
                        "interrupted before the first layer was done: there is nothing to resume");
    return clq_fail(err, CLQ_INTERRUPTED, "interrupted after %u of %u layers; '%s' is kept: --resume goes on from it",
                    c->state.next_layer, clq_layers_count(c->layers), c->path);
}

static clq_status embed(calibration *c, clq_error *err)
{
    for (uint32_t w = 0; w < c->corpus->n_windows; w++) {
        if (stops_here(c)) return interrupted(c, err);
        CLQ_TRY(clq_layers_embed(c->layers, c->corpus->tokens + (uint64_t)w * c->corpus->context,
                                 clq_corpus_window(c->corpus, w), hidden_of(c, w), err));
    }
    return CLQ_OK;
}

// Counters of the histograms have 32 bits.
static clq_status check_counts(const calibration *c, clq_error *err)
{
    uint32_t n;
    const clq_site *sites = clq_layers_sites(c->layers, &n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t most = UINT32_MAX / sites[i].cols;
        if (c->corpus->n_tokens > most)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "%" PRIu64 " tokens are too many: the values that '%s' reads are counted in 32 bits, which "
                            "is enough for %" PRIu64 "; take fewer windows",
                            c->corpus->n_tokens, sites[i].weights[0], most);
    }
    return CLQ_OK;
}

static clq_status run_layer(calibration *c, clq_error *err)
{
    double start = clq_seconds();
    bool told = false;
    CLQ_TRY(clq_layers_load(c->layers, c->state.next_layer, err));
    CLQ_TRY(check_counts(c, err));
    for (uint32_t w = 0; w < c->corpus->n_windows; w++) {
        if (stops_here(c)) return interrupted(c, err);
        if (clq_cancelled(c->o->hooks) && !told) {
            clq_warn(c->o->hooks,
                     "interrupted: layer %u is finished first, so that the run can be resumed; interrupt "
                     "again to stop at once",
                     c->state.next_layer);
            told = true;
        }
        uint32_t n = clq_corpus_window(c->corpus, w);
        CLQ_TRY(clq_layers_run(c->layers, n, hidden_of(c, w), err));
        c->done += n;
        tell_progress(c);
    }
    return take_layer(c, clq_seconds() - start, err);
}

// Behind a layer, if the last one is long ago or the run is to end.
static clq_status keep(calibration *c, clq_error *err)
{
    double least = c->o->checkpoint_seconds > 0 ? c->o->checkpoint_seconds : 60;
    bool ends = clq_cancelled(c->o->hooks);
    if (c->state.next_layer == clq_layers_count(c->layers)) return CLQ_OK;
    if (ends || clq_seconds() - c->written >= least) {
        CLQ_TRY(clq_checkpoint_write(&c->state, c->path, err));
        c->written = clq_seconds();
        c->written_layer = c->state.next_layer;
    }
    return ends ? interrupted(c, err) : CLQ_OK;
}

static clq_status run(calibration *c, clq_error *err)
{
    uint32_t n_layers = clq_layers_count(c->layers);
    c->start = c->written = clq_seconds();
    c->todo = c->corpus->n_tokens * (n_layers - c->state.next_layer);
    if (!c->state.next_layer) CLQ_TRY(embed(c, err));
    while (c->state.next_layer < n_layers) {
        CLQ_TRY(run_layer(c, err));
        c->state.next_layer++;
        tell_progress(c);
        CLQ_TRY(keep(c, err));
    }
    return CLQ_OK;
}

// ---- the whole ----

static clq_status new_stats(calibration *c, uint64_t identity, clq_error *err)
{
    clq_stats_file *s = c->state.stats = calloc(1, sizeof *s);
    if (!s) return clq_fail_memory(err, sizeof *s);
    s->dataset = strdup(c->o->dataset);
    s->architecture = strdup(clq_layers_architecture(c->layers));
    s->fingerprint = identity;
    s->context = c->corpus->context;
    s->windows = c->corpus->n_windows;
    s->tokens = c->corpus->n_tokens;
    return s->dataset && s->architecture ? CLQ_OK : clq_fail_memory(err, 1);
}

static clq_status prepare(calibration *c, const clq_source *source, clq_error *err)
{
    uint64_t n_floats, n_bytes;
    bool found = false;
    CLQ_TRY(clq_output_try_file(c->o->out, err));
    if (!(c->path = clq_checkpoint_path(c->o->out))) return clq_fail_memory(err, strlen(c->o->out));
    CLQ_TRY(clq_output_try_file(c->path, err));
    if (!clq_mul_u64(c->state.n_tokens, c->state.width, &n_floats) || !clq_mul_u64(n_floats, 4, &n_bytes) ||
        n_bytes > SIZE_MAX)
        return clq_fail(err, CLQ_BAD_INPUT, "%" PRIu64 " tokens are too many to be held in memory", c->state.n_tokens);
    c->state.hidden = malloc(n_bytes);
    if (!c->state.hidden) return clq_fail_memory(err, n_bytes);
    c->state.run = fingerprint(source, c, true);
    if (c->o->resume) CLQ_TRY(clq_checkpoint_read(&c->state, c->path, &found, err));
    c->written_layer = c->state.next_layer;
    if (!found) return new_stats(c, fingerprint(source, c, false), err);
    if (c->state.next_layer && c->state.next_layer < clq_layers_count(c->layers)) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "cannot resume '%s': it is damaged; run without --resume to start anew",
                    c->path);
}

clq_status clq_calibrate(const clq_source *source, clq_layers *layers, const clq_corpus *corpus,
                         const clq_calibrate_options *options, clq_stats_file **stats, clq_error *err)
{
    *stats = NULL;
    calibration c = {.layers = layers,
                     .corpus = corpus,
                     .o = options,
                     .state = {.width = clq_layers_width(layers), .n_tokens = corpus->n_tokens}};
    clq_status st = prepare(&c, source, err);
    if (st == CLQ_OK) st = run(&c, err);
    if (st == CLQ_OK) {
        clq_stats_sort(c.state.stats);
        st = clq_stats_write(c.state.stats, options->out, err);
    }
    if (st == CLQ_OK) {
        unlink(c.path);
        *stats = c.state.stats;
        c.state.stats = NULL;
    }
    clq_stats_free(c.state.stats);
    free(c.state.hidden);
    free(c.path);
    return st;
}

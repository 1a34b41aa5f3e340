// SPDX-License-Identifier: MIT
#include "method/method.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/threads.h"
#include "io/output.h"
#include "method/state.h"

enum { DEFAULT_WINDOWS = 128, DEFAULT_SEARCH = 2048, MAX_BLOCK = 256 };

// ---- windows ----

static clq_status read_corpus(clq_method *m, clq_error *err)
{
    const clq_method_options *o = m->o;
    clq_corpus_options c = {.kind = (clq_corpus_kind)o->text_kind,
                            .name = o->text_name ? o->text_name : "the calibration text",
                            .field = "text",
                            .context = m->engine->graph.positions,
                            .chunks = o->windows,
                            .encoder = clq_layers_encoder(m->layers),
                            .vocab = clq_layers_vocab(m->layers)};
    CLQ_TRY(clq_corpus_create(clq_layers_tokenizer(m->layers), o->text, o->text_len, &c, &m->corpus, err));
    if (o->windows || m->corpus->n_windows <= DEFAULT_WINDOWS) return CLQ_OK;
    clq_corpus_free(m->corpus);
    m->corpus = NULL;
    c.chunks = DEFAULT_WINDOWS;
    return clq_corpus_create(clq_layers_tokenizer(m->layers), o->text, o->text_len, &c, &m->corpus, err);
}

// Windows of about so many tokens together, spread evenly.
static clq_status choose_search(clq_method *m, uint64_t wanted, clq_error *err)
{
    const clq_corpus *c = m->corpus;
    uint64_t n = (wanted + c->context - 1) / c->context;
    if (n > c->n_windows) n = c->n_windows;
    m->search = malloc((n + 1) * sizeof *m->search);
    if (!m->search) return clq_fail_memory(err, n * sizeof *m->search);
    m->n_search = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) m->search[i] = (uint32_t)(i * (uint64_t)c->n_windows / n);
    return CLQ_OK;
}

static clq_status make_trial(clq_method *m, clq_error *err)
{
    uint32_t *lengths = malloc((m->n_search + 1) * sizeof *lengths);
    if (!lengths) return clq_fail_memory(err, m->n_search * sizeof *lengths);
    for (uint32_t i = 0; i < m->n_search; i++) lengths[i] = clq_corpus_window(m->corpus, m->search[i]);
    clq_status st = clq_trial_create(m->layers, lengths, m->n_search, &m->trial, err);
    free(lengths);
    return st;
}

clq_status clq_method_run_windows(clq_method *m, bool observe, bool copy, bool keep, clq_error *err)
{
    uint64_t width = clq_layers_width(m->layers);
    uint32_t searched = 0;
    for (uint32_t w = 0; w < m->corpus->n_windows; w++) {
        if (clq_cancelled(m->setup.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        uint32_t n = clq_corpus_window(m->corpus, w);
        float *hidden = m->hidden + (uint64_t)w * m->corpus->context * width;
        bool is_searched = searched < m->n_search && m->search[searched] == w;
        const clq_copies *copies = copy && is_searched ? clq_trial_copies(&m->trial, searched) : NULL;
        searched += is_searched;
        if (!observe && !copies && !keep) continue;
        if (!keep) hidden = memcpy(m->window, hidden, n * width * sizeof *hidden);
        CLQ_TRY(clq_layers_run_with(m->layers, n, hidden, observe, copies, err));
    }
    return CLQ_OK;
}

// ---- the state between layers ----

typedef struct {
    char magic[8];
    uint64_t fingerprint, n_floats, hash;
    uint32_t next, reserved;
} checkpoint_head;

static const char MAGIC[8] = "CLQHIDN1";

static uint64_t hidden_floats(const clq_method *m) { return m->corpus->n_tokens * clq_layers_width(m->layers); }

static clq_status write_checkpoint(clq_method *m, clq_error *err)
{
    uint64_t n = hidden_floats(m), n_bytes = sizeof(checkpoint_head) + n * sizeof *m->hidden;
    double start = clq_seconds();
    char *bytes = malloc(n_bytes);
    if (!bytes) return clq_fail_memory(err, n_bytes);
    checkpoint_head head = {.fingerprint = m->setup.fingerprint,
                            .n_floats = n,
                            .hash = XXH3_64bits(m->hidden, n * sizeof *m->hidden),
                            .next = m->next};
    memcpy(head.magic, MAGIC, sizeof MAGIC);
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, m->hidden, n * sizeof *m->hidden);
    clq_status st = clq_output_whole(m->setup.checkpoint, bytes, n_bytes, err);
    free(bytes);
    m->written = clq_seconds();
    m->write_seconds = m->written - start;
    return st;
}

// Takes over a checkpoint of this very run; another is passed over, as the output's journal decides whether to resume.
static clq_status read_checkpoint(clq_method *m, clq_error *err)
{
    checkpoint_head head;
    uint64_t n = hidden_floats(m);
    clq_file f;
    if (access(m->setup.checkpoint, R_OK) != 0) return CLQ_OK;
    CLQ_TRY(clq_file_open(m->setup.checkpoint, &f, err));
    clq_status st =
        f.size == sizeof head + n * sizeof *m->hidden ? clq_file_read(&f, 0, &head, sizeof head, err) : CLQ_BAD_INPUT;
    bool same = st == CLQ_OK && memcmp(head.magic, MAGIC, sizeof MAGIC) == 0 && head.n_floats == n &&
                head.fingerprint == m->setup.fingerprint && head.next <= clq_layers_count(m->layers);
    if (same) st = clq_file_read(&f, sizeof head, m->hidden, n * sizeof *m->hidden, err);
    if (same && st == CLQ_OK && XXH3_64bits(m->hidden, n * sizeof *m->hidden) == head.hash)
        m->first = m->next = head.next;
    clq_file_close(&f);
    return CLQ_OK;
}

void clq_method_forget_checkpoint(clq_method *m) { unlink(m->setup.checkpoint); }

// ---- opening ----

typedef struct {
    uint64_t rows;
} extra_wish;

static bool extra_floats(void *user, const clq_engine *engine, uint64_t *n_floats)
{
    const extra_wish *wish = user;
    return clq_trial_floats(engine, wish->rows, n_floats);
}

// The group that most weights have: sums of products are kept of its blocks.
static uint32_t common_group(const clq_method_setup *s)
{
    uint64_t sizes[MAX_BLOCK / 32 + 1] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < s->source->n_tensors; i++) {
        const clq_destiny *d = &s->destinies[i];
        if (!d->written || d->type.format != CLQ_INT || d->type.granularity != CLQ_PER_GROUP) continue;
        if (d->type.group_size <= MAX_BLOCK) sizes[d->type.group_size / 32] += s->source->tensors[i].n_elements;
    }
    for (uint32_t i = 1; i <= MAX_BLOCK / 32; i++)
        if (sizes[i] > sizes[best]) best = i;
    return 32 * best;
}

static uint32_t gram_of(const clq_method *m)
{
    if (m->o->method == CLQ_METHOD_GPTQ) return CLQ_GRAM_ALL;
    return m->rule == CLQ_SCALES_SEARCH || m->rule == CLQ_SCALES_CLIP ? common_group(&m->setup) : 0;
}

static bool has_static(const clq_method_setup *s)
{
    for (uint32_t i = 0; i < s->source->n_tensors; i++)
        if (s->destinies[i].written && s->destinies[i].activation.quant == CLQ_QUANT_STATIC) return true;
    return false;
}

static bool has_quantized(const clq_method_setup *s)
{
    for (uint32_t i = 0; i < s->source->n_tensors; i++)
        if (s->destinies[i].written &&
            (s->destinies[i].type.format == CLQ_INT || s->destinies[i].type.format > CLQ_BF16))
            return true;
    return false;
}

static clq_status open_layers(clq_method *m, clq_error *err)
{
    uint64_t wanted = m->o->search_tokens ? m->o->search_tokens : DEFAULT_SEARCH;
    clq_layers_options o = {.context = m->o->context,
                            .gram = gram_of(m),
                            .without_values = !has_static(&m->setup),
                            .floats = true,
                            .extra = extra_floats,
                            .hooks = m->setup.hooks};
    if (!o.context) CLQ_TRY(clq_layers_default_context(m->setup.source, &o.context, err));
    uint64_t most = (m->o->windows ? m->o->windows : DEFAULT_WINDOWS) * (uint64_t)o.context;
    if (most > m->o->text_len + o.context) most = m->o->text_len + o.context; // a token is a byte at least
    if (wanted > most) wanted = most;
    extra_wish wish = {.rows = (wanted + o.context - 1) / o.context * o.context};
    o.extra_user = &wish;
    CLQ_TRY(clq_layers_open(m->setup.source, m->setup.device, &o, &m->layers, err));
    m->engine = clq_layers_engine(m->layers);
    CLQ_TRY(read_corpus(m, err));
    CLQ_TRY(choose_search(m, wanted, err));
    return make_trial(m, err);
}

static clq_status map_tensors(clq_method *m, clq_error *err)
{
    uint32_t n = m->setup.source->n_tensors;
    m->layer_of = malloc((n + 1ull) * sizeof *m->layer_of);
    if (!m->layer_of) return clq_fail_memory(err, n * sizeof *m->layer_of);
    for (uint32_t i = 0; i < n; i++) m->layer_of[i] = -1;
    for (uint32_t l = 0; l < m->engine->net.layers; l++)
        for (int w = 0; w < CLQ_N_WEIGHTS; w++) {
            const clq_view_tensor *both[] = {m->engine->layers[l].weights[w].tensor,
                                             m->engine->layers[l].weights[w].bias_tensor};
            for (int b = 0; b < 2; b++)
                for (uint32_t k = 0; both[b] && !both[b]->computed && k < both[b]->from.n_pieces; k++)
                    m->layer_of[both[b]->from.sources ? both[b]->from.sources[k] : both[b]->from.source] = (int32_t)l;
        }
    return CLQ_OK;
}

static uint64_t layer_bytes(const clq_engine *e)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < e->net.layers; i++)
        if (e->layers[i].n_bytes > most) most = e->layers[i].n_bytes;
    return most;
}

static uint64_t widest(const clq_engine *e)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < e->net.layers; i++)
        for (int w = 0; w < CLQ_N_WEIGHTS; w++)
            if (e->layers[i].weights[w].cols > most) most = e->layers[i].weights[w].cols;
    return most;
}

// What all will take, and whether that is allowed.
static clq_status count_memory(clq_method *m, clq_error *err)
{
    uint64_t width = clq_layers_width(m->layers), cols = widest(m->engine);
    m->n_bytes = (m->corpus->n_tokens + m->corpus->context) * width * sizeof(float) + layer_bytes(m->engine) +
                 clq_layers_device_bytes(m->layers);
    m->n_bytes += clq_scaler_bytes(m->scaler);
    if (m->sweeper) m->n_bytes += clq_sweeper_bytes(m->sweeper) + cols * cols * (sizeof(float) + sizeof(double));
    m->n_bytes += 2 * clq_trial_largest(m->engine) * sizeof(float); // copies while errors are measured
    uint64_t limit = m->setup.max_memory;
    if (!limit || m->n_bytes + (16u << 20) <= limit) return CLQ_OK;
    return clq_fail(err, CLQ_USAGE,
                    "%s needs %" PRIu64 " MiB for a layer, the hidden states of %" PRIu64 " tokens and its search, and "
                    "--max-mem allows %" PRIu64 "; fewer --chunks, a smaller --ctx and fewer --search-tokens take less",
                    clq_method_at(m->o->method)->name, (m->n_bytes + (16u << 20)) >> 20, m->corpus->n_tokens,
                    limit >> 20);
}

static clq_status embed(clq_method *m, clq_error *err)
{
    uint64_t width = clq_layers_width(m->layers);
    for (uint32_t w = 0; w < m->corpus->n_windows; w++) {
        if (clq_cancelled(m->setup.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
        CLQ_TRY(clq_layers_embed(m->layers, m->corpus->tokens + (uint64_t)w * m->corpus->context,
                                 clq_corpus_window(m->corpus, w), m->hidden + (uint64_t)w * m->corpus->context * width,
                                 err));
    }
    return CLQ_OK;
}

static clq_status open_method(clq_method *m, clq_error *err)
{
    CLQ_TRY(clq_image_create(m->setup.source, m->setup.destinies, &m->image, err));
    CLQ_TRY(open_layers(m, err));
    CLQ_TRY(map_tensors(m, err));
    m->has_static = has_static(&m->setup);
    m->floats_only = !has_quantized(&m->setup);
    uint32_t gram = gram_of(m);
    uint64_t block = gram == CLQ_GRAM_ALL ? MAX_BLOCK : gram, cols = widest(m->engine);
    CLQ_TRY(clq_scaler_create(m->setup.device, cols, block, &m->scaler, err));
    if (m->o->method == CLQ_METHOD_GPTQ) CLQ_TRY(clq_sweeper_create(m->setup.device, cols, &m->sweeper, err));
    CLQ_TRY(count_memory(m, err));
    uint64_t n_bytes = hidden_floats(m) * sizeof *m->hidden,
             window = (uint64_t)m->corpus->context * clq_layers_width(m->layers) * sizeof *m->window;
    m->hidden = malloc(n_bytes);
    m->window = malloc(window);
    if (!m->hidden || !m->window) return clq_fail_memory(err, n_bytes + window);
    if (m->setup.resume) CLQ_TRY(read_checkpoint(m, err));
    if (m->first) return CLQ_OK;
    clq_method_forget_checkpoint(m);
    return embed(m, err);
}

clq_status clq_method_open(const clq_method_setup *setup, clq_method **method, clq_error *err)
{
    clq_method *m = *method = calloc(1, sizeof *m);
    if (!m) return clq_fail_memory(err, sizeof *m);
    m->setup = *setup;
    m->o = setup->options;
    m->rule = clq_method_rule(m->o);
    clq_status st = open_method(m, err);
    if (st == CLQ_OK) return CLQ_OK;
    clq_method_close(m);
    *method = NULL;
    return st;
}

void clq_method_close(clq_method *m)
{
    if (!m) return;
    clq_sweeper_free(m->sweeper);
    clq_scaler_free(m->scaler);
    clq_trial_free(&m->trial);
    clq_image_free(&m->image);
    clq_corpus_free(m->corpus);
    clq_layers_close(m->layers);
    for (uint32_t i = 0; i < m->n_names; i++) free(m->names[i]);
    free(m->names);
    free(m->sites);
    free(m->search);
    free(m->layer_of);
    free(m->hidden);
    free(m->window);
    free(m);
}

void clq_method_tokens(const clq_method *m, uint64_t *calibration, uint64_t *search)
{
    *calibration = m->corpus->n_tokens;
    *search = m->trial.n_rows;
}

uint64_t clq_method_bytes(const clq_method *m) { return m->n_bytes; }
uint32_t clq_method_first_layer(const clq_method *m) { return m->first; }
uint32_t clq_method_layers(const clq_method *m) { return clq_layers_count(m->layers); }
int32_t clq_method_layer_of(const clq_method *m, uint32_t tensor) { return m->layer_of[tensor]; }

// ---- layers ----

clq_status clq_method_next(clq_method *m, clq_error *err)
{
    CLQ_TRY(clq_layers_load(m->layers, m->next, err));
    CLQ_TRY(clq_image_load(&m->image, &m->engine->layers[m->next], err));
    return clq_method_prepare_layer(m, err);
}

const clq_prepared *clq_method_prepared(const clq_method *m, uint32_t tensor) { return m->image.tensors[tensor]; }
void clq_method_drop(clq_method *m, uint32_t tensor) { clq_image_drop_one(&m->image, tensor); }

clq_status clq_method_taken(clq_method *m, clq_error *err)
{
    clq_image_drop(&m->image);
    m->next++;
    if (m->next == clq_layers_count(m->layers)) return CLQ_OK;
    // At most a tenth of the time goes into checkpoints.
    bool cheap = clq_seconds() - m->written >= 10 * m->write_seconds;
    return cheap || clq_cancelled(m->setup.hooks) ? write_checkpoint(m, err) : CLQ_OK;
}

clq_status clq_method_report(clq_method *m, const clq_site_report *report, clq_error *err)
{
    clq_site_report *sites = realloc(m->sites, (m->n_sites + 1ull) * sizeof *sites);
    if (!sites) return clq_fail_memory(err, (m->n_sites + 1ull) * sizeof *sites);
    m->sites = sites;
    char **names = realloc(m->names, (m->n_names + 2ull) * sizeof *names);
    if (!names) return clq_fail_memory(err, (m->n_names + 2ull) * sizeof *names);
    m->names = names;
    clq_site_report *site = &sites[m->n_sites];
    *site = *report;
    const char *texts[] = {report->name, report->fold};
    for (int i = 0; i < 2; i++) {
        names[m->n_names] = strdup(texts[i]);
        if (!names[m->n_names]) return clq_fail_memory(err, 64);
        *(i ? &site->fold : &site->name) = names[m->n_names++];
    }
    m->n_sites++;
    return CLQ_OK;
}

const clq_site_report *clq_method_sites(const clq_method *m, uint32_t *n)
{
    *n = m->n_sites;
    return m->sites;
}

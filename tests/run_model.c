// SPDX-License-Identifier: MIT
// Runs a model on tokens and writes floats to standard output: run_model MODEL [OPTION=VALUE]... ID...
//   device=ref  batch=N  context=N  memory=BYTES  cache=f32|f16|q8_0  activations=N (clq_rounding)
//   step=N (tokens a call)
//   want=logits (of all tokens), hidden (of all layers), mean, cls, last (a pooled embedding),
//   layers (hidden states as calibration makes them, one layer at a time), observed (the slots of all sites of layer 0)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/layers.h"
#include "model/runtime.h"

static clq_status put(const float *x, size_t n)
{
    fwrite(x, sizeof *x, n, stdout);
    return CLQ_OK;
}

static uint32_t width;

static clq_status put_logits(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err)
{
    (void)first;
    (void)err;
    return put(logits, (size_t)n * clq_model_facts_of(user)->vocab);
}

static clq_status put_hidden(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *hidden,
                             clq_error *err)
{
    (void)user;
    (void)layer;
    (void)first;
    (void)err;
    return put(hidden, (size_t)n * width);
}

// want=layers, want=observed: two windows of the tokens, the first of which is written.
static clq_status run_layers(const clq_source *source, clq_device *device, const int32_t *tokens, uint32_t n,
                             bool observed, clq_error *err)
{
    clq_layers *l = NULL;
    clq_layers_options o = {.context = n, .gram = observed ? CLQ_GRAM_ALL : 0};
    clq_status st = clq_layers_open(source, device, &o, &l, err);
    uint32_t embd = st == CLQ_OK ? clq_layers_width(l) : 0, layers = st == CLQ_OK ? clq_layers_count(l) : 0, n_sites;
    uint32_t half = n > 1 ? n / 2 : 1;
    float *hidden = calloc((size_t)n * embd + 1, sizeof *hidden), *other = calloc((size_t)n * embd + 1, sizeof *other);
    if (!hidden || !other) st = CLQ_DEVICE;
    if (st == CLQ_OK) st = clq_layers_embed(l, tokens, n, hidden, err);
    if (st == CLQ_OK) st = clq_layers_embed(l, tokens, half, other, err);
    for (uint32_t i = 0; i < layers && st == CLQ_OK; i++) {
        if (!observed) put(hidden, (size_t)n * embd);
        st = clq_layers_load(l, i, err);
        if (st == CLQ_OK) st = clq_layers_run(l, n, hidden, err);
        if (st == CLQ_OK) st = clq_layers_run(l, half, other, err);
        const clq_site *sites = clq_layers_sites(l, &n_sites);
        for (uint32_t s = 0; s < n_sites && st == CLQ_OK && observed && i == 0; s++)
            for (uint32_t m = 0; m < sites[s].n_matrices && st == CLQ_OK; m++) {
                size_t cols = sites[s].cols, n_slot = CLQ_SLOT_FLOATS(cols);
                float *slot = calloc(n_slot + cols * cols, sizeof *slot);
                st = slot ? clq_layers_observed(l, &sites[s], m, slot, slot + n_slot, err) : CLQ_DEVICE;
                if (st == CLQ_OK) put(slot, n_slot + cols * cols);
                fprintf(stderr, "site %s matrix %u cols %u\n", sites[s].weights[0], m, sites[s].cols);
                free(slot);
            }
    }
    free(hidden);
    free(other);
    clq_layers_close(l);
    return st;
}

static void warn(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "warning: %s\n", text);
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    size_t len = strlen(name);
    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], name, len) == 0 && argv[i][len] == '=') return argv[i] + len + 1;
    return otherwise;
}

int main(int argc, char **argv)
{
    clq_error err = {0};
    clq_hooks hooks = {.warn = warn};
    clq_source *source = NULL;
    clq_device *device = NULL;
    clq_model *model = NULL;
    const char *want = option(argc, argv, "want", "logits"), *cache = option(argc, argv, "cache", "f32");
    clq_model_options o = {
        .batch = (uint32_t)strtoul(option(argc, argv, "batch", "0"), NULL, 10),
        .context = (uint32_t)strtoul(option(argc, argv, "context", "0"), NULL, 10),
        .max_memory = strtoull(option(argc, argv, "memory", "0"), NULL, 10),
        .activations = (clq_rounding)atoi(option(argc, argv, "activations", "0")),
        .cache_type = strcmp(cache, "f16") == 0 ? CLQ_F16 : strcmp(cache, "q8_0") == 0 ? CLQ_Q8_0 : CLQ_F32,
        .hooks = &hooks,
    };
    int32_t *tokens = calloc((size_t)argc + 1, sizeof *tokens);
    uint32_t n = 0, step = (uint32_t)strtoul(option(argc, argv, "step", "0"), NULL, 10);
    for (int i = 2; tokens && i < argc; i++)
        if (!strchr(argv[i], '=')) tokens[n++] = atoi(argv[i]);
    if (argc < 3 || !tokens) return 2;
    clq_device_options device_options = {.work_group_form = -1, .hooks = &hooks};
    clq_status st = clq_source_open(argv[1], &hooks, &source, &err);
    if (st == CLQ_OK) st = clq_device_open(option(argc, argv, "device", "ref"), &device_options, &device, &err);
    bool observed = strcmp(want, "observed") == 0, by_layer = observed || strcmp(want, "layers") == 0;
    if (st == CLQ_OK && by_layer) st = run_layers(source, device, tokens, n, observed, &err);
    if (st == CLQ_OK && !by_layer) st = clq_model_open(source, device, &o, &model, &err);
    if (st == CLQ_OK && !by_layer) {
        const clq_model_facts *f = clq_model_facts_of(model);
        width = f->embd;
        fprintf(stderr, "%s '%s': %u layers, width %u, vocabulary %u, %llu weights, %llu bytes, %u streamed\n",
                f->architecture, f->name, f->layers, f->embd, f->vocab, (unsigned long long)f->n_weights,
                (unsigned long long)f->weight_bytes, f->streamed_layers);
        clq_pooling pooling = strcmp(want, "mean") == 0  ? CLQ_POOL_MEAN
                              : strcmp(want, "cls") == 0 ? CLQ_POOL_CLS
                                                         : CLQ_POOL_LAST;
        if (strcmp(want, "logits") == 0 || strcmp(want, "hidden") == 0) {
            bool logits = *want == 'l';
            for (uint32_t i = 0; i < n && st == CLQ_OK; i += step ? step : n) {
                clq_eval e = {.tokens = tokens + i, .n = step && step < n - i ? step : n - i, .user = model};
                e.logits = logits ? put_logits : NULL;
                e.hidden = logits ? NULL : put_hidden;
                st = clq_model_eval(model, &e, &err);
            }
        } else {
            float *embedding = calloc(f->embd, sizeof *embedding);
            st = clq_model_embed(model, tokens, n, pooling, embedding, &err);
            if (st == CLQ_OK) put(embedding, f->embd);
            free(embedding);
        }
    }
    if (st != CLQ_OK) fprintf(stderr, "%s\n", err.text);
    clq_model_close(model);
    clq_device_close(device);
    clq_source_close(source);
    free(tokens);
    return st;
}

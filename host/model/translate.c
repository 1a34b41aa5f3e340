// SPDX-License-Identifier: MIT
// The two entry points: tensors and general metadata; hyper.c, rope.c and vocab*.c do the rest.
#include "model/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/card.h"
#include "model/vocab.h"

void clq_translation_free(clq_translation *t)
{
    for (uint32_t i = 0; i < t->n_tensors; i++) free(t->tensors[i].name);
    free(t->tensors);
    for (uint32_t i = 0; i < t->n_computed; i++) {
        free(t->computed[i].name);
        free(t->computed[i].data);
    }
    free(t->computed);
    for (uint32_t i = 0; i < t->n_files; i++) {
        free(t->files[i].name);
        free(t->files[i].data);
    }
    free(t->files);
    clq_kvs_free(&t->kvs);
    json_decref(t->config);
    *t = (clq_translation){0};
}

// ---- tensors, either way -----------------------------------------------------------------------

// Which source tensor fills which place: index + 1, 0 for none. Places count rows of the
// architecture's table, layers, and weight or bias.
typedef struct places {
    const clq_arch *arch;
    const clq_source *source;
    bool from_hf;
    uint32_t n_rows, n_layers;
    uint32_t *filled;
} places;

static uint32_t *place(const places *p, uint32_t row, uint32_t layer, bool is_bias)
{
    return &p->filled[((size_t)row * p->n_layers + layer) * 2 + is_bias];
}

static bool in_layers(const clq_tensor_row *row)
{
    return strchr(row->hf, '%') != NULL;
}

static clq_status places_create(places *p, clq_error *err)
{
    while (p->arch->tensors[p->n_rows].hf) p->n_rows++;
    size_t n = (size_t)p->n_rows * p->n_layers * 2;
    p->filled = calloc(n, sizeof *p->filled);
    return p->filled ? CLQ_OK : clq_fail_memory(err, n * sizeof *p->filled);
}

static clq_status fill(const places *p, uint32_t index, const clq_tensor_row *row, uint32_t layer,
                       bool is_bias, clq_error *err)
{
    const char *name = p->source->tensors[index].name;
    if (layer >= p->n_layers)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' belongs to a layer that the model's "
                        "configuration (%u layers) does not have",
                        name, p->n_layers);
    uint32_t *slot = place(p, (uint32_t)(row - p->arch->tensors), layer, is_bias);
    if (*slot)
        return clq_fail(err, CLQ_BAD_INPUT, "tensors '%s' and '%s' are one and the same tensor",
                        p->source->tensors[*slot - 1].name, name);
    *slot = index + 1;
    return CLQ_OK;
}

// Translates one place; nothing to do where it is empty and may be.
static clq_status emit(const places *p, const clq_sizes *sizes, uint32_t row_index, uint32_t layer,
                       bool is_bias, clq_translation *out, clq_error *err)
{
    const clq_tensor_row *row = &p->arch->tensors[row_index];
    uint32_t slot = *place(p, row_index, layer, is_bias);
    if (!slot && !(row->flags & (is_bias ? CLQ_ROW_BIAS_REQUIRED : CLQ_ROW_REQUIRED)))
        return CLQ_OK;
    char *name = clq_row_name(slot == 0 ? (p->from_hf ? row->hf : row->gguf)
                                        : (p->from_hf ? row->gguf : row->hf),
                              layer, is_bias);
    if (!name) return clq_fail_memory(err, 64);
    if (!slot) {
        clq_status st = clq_fail(err, CLQ_BAD_INPUT,
                                 "tensor '%s' is missing: the checkpoint is incomplete", name);
        free(name);
        return st;
    }
    unsigned rope = row->flags & (CLQ_ROW_ROPE_Q | CLQ_ROW_ROPE_K);
    out->tensors[out->n_tensors++] = (clq_translated_tensor){
        .name = name,
        .source = slot - 1,
        .order = !rope        ? CLQ_ROWS_KEPT
                 : p->from_hf ? CLQ_ROWS_HF_TO_GGUF
                              : CLQ_ROWS_GGUF_TO_HF,
        .n_heads = !rope                    ? 0
                   : rope == CLQ_ROW_ROPE_Q ? sizes->heads
                                            : sizes->kv_heads,
    };
    return clq_row_check(row, is_bias, &p->source->tensors[slot - 1], sizes, err);
}

// In the table's order; rows that stand in layers are written layer by layer.
static clq_status emit_all(const places *p, const clq_sizes *sizes, clq_translation *out,
                           clq_error *err)
{
    out->tensors = calloc((size_t)p->source->n_tensors + 1, sizeof *out->tensors);
    if (!out->tensors) return clq_fail_memory(err, p->source->n_tensors * sizeof *out->tensors);
    const clq_tensor_row *rows = p->arch->tensors;
    for (uint32_t begin = 0, end; begin < p->n_rows; begin = end) {
        end = begin + 1;
        bool layered = in_layers(&rows[begin]);
        while (layered && end < p->n_rows && in_layers(&rows[end])) end++;
        for (uint32_t layer = 0; layer < (layered ? p->n_layers : 1); layer++)
            for (uint32_t r = begin; r < end; r++)
                for (int is_bias = 0; is_bias < 2; is_bias++)
                    CLQ_TRY(emit(p, sizes, r, layer, is_bias, out, err));
    }
    return CLQ_OK;
}

static const clq_tensor *first_of(const places *p, const char *gguf_name)
{
    for (uint32_t r = 0; r < p->n_rows; r++) {
        uint32_t slot = *place(p, r, 0, false);
        if (slot && strcmp(p->arch->tensors[r].gguf, gguf_name) == 0)
            return &p->source->tensors[slot - 1];
    }
    return NULL;
}

// ---- Hugging Face -> GGUF ----------------------------------------------------------------------

static clq_status place_hf(const places *p, bool tied, const clq_hooks *hooks, clq_error *err)
{
    clq_buf left_out = {0};
    clq_status st = CLQ_OK;
    for (uint32_t i = 0; i < p->source->n_tensors && st == CLQ_OK; i++) {
        const char *name = p->source->tensors[i].name;
        uint32_t layer;
        bool is_bias;
        const clq_tensor_row *row = clq_row_of_hf(p->arch, name, &layer, &is_bias);
        if (clq_arch_drops(p->arch, name) || (row && row->flags & CLQ_ROW_TIED && tied))
            clq_buf_printf(&left_out, "%s'%s'", left_out.len ? ", " : "", name);
        else if (row)
            st = fill(p, i, row, layer, is_bias, err);
        else
            st =
                clq_fail(err, CLQ_BAD_INPUT,
                         "tensor '%s' has no counterpart in GGUF's '%s' models; a folder as output "
                         "would keep it",
                         name, p->arch->name);
    }
    if (st == CLQ_OK && left_out.len)
        clq_warn(hooks, "GGUF does not store these tensors, left out: %.*s%s",
                 (int)(left_out.len < 600 ? left_out.len : 600), left_out.data,
                 left_out.len < 600 ? "" : " ...");
    clq_buf_free(&left_out);
    return st;
}

// A causal model without its output matrix is incomplete, unless the embedding serves as such.
static clq_status check_output(const places *p, const json_t *config, bool tied, clq_error *err)
{
    const char *class_name =
        clq_json_string(json_array_get(json_object_get(config, "architectures"), 0));
    if (tied || !class_name || !clq_ends_with(class_name, "ForCausalLM")) return CLQ_OK;
    for (uint32_t r = 0; r < p->n_rows; r++) {
        if (!(p->arch->tensors[r].flags & CLQ_ROW_TIED) || *place(p, r, 0, false)) continue;
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s.weight' is missing and config.json does not set "
                        "\"tie_word_embeddings\": the checkpoint is incomplete",
                        p->arch->tensors[r].hf);
    }
    return CLQ_OK;
}

// Sizes that config.json leaves out are those of the embeddings.
static void complete_sizes(const places *p, clq_sizes *sizes)
{
    const clq_tensor *words = first_of(p, "token_embd"), *types = first_of(p, "token_types");
    if (!sizes->vocab && words && words->n_dims && words->dims[0] <= INT32_MAX)
        sizes->vocab = (uint32_t)words->dims[0];
    if (!sizes->token_types && types && types->n_dims && types->dims[0] <= INT32_MAX)
        sizes->token_types = (uint32_t)types->dims[0];
}

static clq_status hf_tensors(places *p, clq_sizes *sizes, const clq_hooks *hooks,
                             clq_translation *out, clq_error *err)
{
    bool tied = false;
    clq_json_bool(p->source->config, "tie_word_embeddings", &tied);
    p->n_layers = sizes->layers;
    CLQ_TRY(places_create(p, err));
    CLQ_TRY(place_hf(p, tied, hooks, err));
    CLQ_TRY(check_output(p, p->source->config, tied, err));
    complete_sizes(p, sizes);
    return emit_all(p, sizes, out, err);
}

static void set_text(clq_gguf_kvs *kvs, const char *key, const char *text, size_t len)
{
    clq_kv_set_string(kvs, key, text, len);
}

// "135M", "1.1B": two significant digits at least.
static void set_size_label(const clq_source *hf, clq_translation *out)
{
    static const struct {
        double unit;
        char letter;
    } units[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
    size_t i = 0;
    uint64_t n_parameters = 0;
    for (uint32_t k = 0; k < out->n_tensors; k++)
        n_parameters += hf->tensors[out->tensors[k].source].n_elements;
    while (i < 3 && (double)n_parameters <= units[i].unit) i++;
    double scaled = (double)n_parameters / units[i].unit;
    char text[48];
    int len = snprintf(text, sizeof text, "%.*f%c",
                       scaled <= 0.5  ? 2
                       : scaled < 9.5 ? 1
                                      : 0,
                       scaled, units[i].letter);
    set_text(&out->kvs, "general.size_label", text, (size_t)len);
}

// The model's name: config.json's "_name_or_path" without its owner, else the folder's name.
static void set_name(const clq_source *hf, clq_gguf_kvs *kvs)
{
    const char *path = clq_json_text(hf->config, "_name_or_path");
    if (!path || !*clq_path_base(path) || *clq_path_base(path) == '.') path = hf->path;
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    if (end > begin && path[begin] != '.') set_text(kvs, "general.name", path + begin, end - begin);
}

static void set_general(const clq_source *hf, const clq_arch *arch, clq_gguf_kvs *kvs)
{
    set_text(kvs, "general.architecture", arch->name, strlen(arch->name));
    set_text(kvs, "general.type", "model", 5);
    set_name(hf, kvs);
}

enum { POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST };

// How sentence-transformers names the ways to pool, in the order in which they are looked for.
static const struct {
    const char *flag, *mode;
    uint32_t value;
} poolings[] = {
    {"pooling_mode_mean_tokens", "mean", POOLING_MEAN},
    {"pooling_mode_cls_token", "cls", POOLING_CLS},
    {"pooling_mode_lasttoken", "lasttoken", POOLING_LAST},
};

enum { N_POOLINGS = sizeof poolings / sizeof *poolings };

static clq_status pooling_of(const json_t *pooling, uint32_t *value, clq_error *err)
{
    const char *mode = clq_json_text(pooling, "pooling_mode");
    for (size_t i = 0; i < N_POOLINGS; i++) {
        bool on = false;
        if ((clq_json_bool(pooling, poolings[i].flag, &on) && on) ||
            (mode && strcmp(mode, poolings[i].mode) == 0)) {
            *value = poolings[i].value;
            return CLQ_OK;
        }
    }
    return clq_fail(err, CLQ_BAD_INPUT,
                    "the pooling module's config.json asks for a pooling that GGUF does not know; "
                    "known are mean, cls and lasttoken");
}

// modules.json lists a sentence-transformers model's stages, one of which may be the pooling.
static clq_status set_pooling(const clq_source *hf, const char *key, clq_gguf_kvs *kvs,
                              clq_error *err)
{
    json_t *modules = NULL, *pooling = NULL, *module;
    clq_status st = clq_json_load(hf->path, "modules.json", &modules, err);
    const char *folder = NULL;
    size_t i;
    json_array_foreach(modules, i, module)
    {
        const char *type = clq_json_text(module, "type");
        if (type && clq_ends_with(type, "Pooling")) folder = clq_json_text(module, "path");
    }
    if (st != CLQ_OK || !folder) goto out;
    char name[256];
    if (strstr(folder, "..") || *folder == '/' ||
        snprintf(name, sizeof name, "%s/config.json", folder) >= (int)sizeof name) {
        st = clq_fail(err, CLQ_BAD_INPUT, "modules.json: '%s' is no folder of the model", folder);
        goto out;
    }
    CLQ_TRY_OUT(clq_json_load(hf->path, name, &pooling, err));
    uint32_t value = 0;
    if (!pooling) {
        st = clq_fail(err, CLQ_BAD_INPUT, "modules.json names '%s/%s', which is missing", hf->path,
                      name);
        goto out;
    }
    CLQ_TRY_OUT(pooling_of(pooling, &value, err));
    clq_kv_set_u32(kvs, key, value);
out:
    json_decref(pooling);
    json_decref(modules);
    return st;
}

static clq_status set_encoder(const clq_source *hf, const clq_arch *arch, const clq_sizes *sizes,
                              clq_gguf_kvs *kvs, clq_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.attention.causal", arch->name);
    clq_kv_set_bool(kvs, key, false);
    clq_kv_set_u32(kvs, "tokenizer.ggml.token_type_count", sizes->token_types);
    snprintf(key, sizeof key, "%s.pooling_type", arch->name);
    return set_pooling(hf, key, kvs, err);
}

// GGUF's "llama" attends to the whole context; a window that is shorter gets lost.
static void warn_sliding_window(const json_t *config, const clq_hooks *hooks)
{
    uint32_t window, positions;
    bool bad = false, use = true;
    clq_json_bool(config, "use_sliding_window", &use);
    if (use && clq_json_u32(config, "sliding_window", &window, &bad) &&
        clq_json_u32(config, "max_position_embeddings", &positions, &bad) && window < positions)
        clq_warn(hooks,
                 "config.json: the sliding window of %u tokens has no place in GGUF; texts "
                 "longer than that will be attended to as a whole",
                 window);
}

clq_status clq_translate_to_gguf(const clq_source *hf, const clq_hooks *hooks, clq_translation *out,
                                 clq_error *err)
{
    *out = (clq_translation){0};
    if (!json_is_object(hf->config))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' has no config.json; a GGUF file needs the model's configuration",
                        hf->path);
    places p = {.source = hf, .from_hf = true};
    clq_sizes sizes;
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_arch_of_config(hf->config, &p.arch, err));
    set_general(hf, p.arch, &out->kvs);
    CLQ_TRY_OUT(clq_hypers_to_gguf(p.arch, hf->config, &sizes, &out->kvs, err));
    if (p.arch->has_rope) CLQ_TRY_OUT(clq_rope_to_gguf(p.arch, hf->config, &sizes, out, err));
    CLQ_TRY_OUT(hf_tensors(&p, &sizes, hooks, out, err));
    set_size_label(hf, out);
    CLQ_TRY_OUT(clq_card_to_gguf(hf, &out->kvs, err));
    warn_sliding_window(hf->config, hooks);
    if (p.arch->is_encoder) CLQ_TRY_OUT(set_encoder(hf, p.arch, &sizes, &out->kvs, err));
    CLQ_TRY_OUT(clq_tokenizer_to_gguf(hf, hooks, sizes.vocab, &out->kvs, err));
    if (out->kvs.failed) st = clq_fail_memory(err, 0);
out:
    free(p.filled);
    if (st != CLQ_OK) clq_translation_free(out);
    return st;
}

// ---- GGUF -> Hugging Face ----------------------------------------------------------------------

static clq_status place_gguf(const places *p, clq_error *err)
{
    for (uint32_t i = 0; i < p->source->n_tensors; i++) {
        const char *name = p->source->tensors[i].name;
        uint32_t layer;
        bool is_bias;
        const clq_tensor_row *row = clq_row_of_gguf(p->arch, name, &layer, &is_bias);
        if (row)
            CLQ_TRY(fill(p, i, row, layer, is_bias, err));
        else if (!p->arch->has_rope || strcmp(name, "rope_freqs.weight") != 0)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tensor '%s' has no counterpart in Hugging Face's %s; a .gguf file as "
                            "output would keep it",
                            name, p->arch->classes[0]);
    }
    return CLQ_OK;
}

// config.json switches biases in groups.
static clq_status set_bias_groups(const places *p, json_t *config, clq_error *err)
{
    for (const clq_bias_group *g = p->arch->biases; g && g->key; g++) {
        uint32_t n = 0, n_biases = 0;
        for (uint32_t r = 0; r < p->n_rows; r++) {
            if (!strstr(p->arch->tensors[r].hf, g->part)) continue;
            for (uint32_t layer = 0; layer < p->n_layers; layer++, n++)
                n_biases += *place(p, r, layer, true) != 0;
        }
        if (n_biases != 0 && n_biases != n)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "%u of %u '%s' layers have a bias; Hugging Face's %s has all or none",
                            n_biases, n, g->part, p->arch->classes[0]);
        CLQ_TRY(clq_json_set(config, g->key, json_boolean(n_biases != 0), err));
    }
    return CLQ_OK;
}

static clq_status set_tied(const places *p, json_t *config, clq_error *err)
{
    for (uint32_t r = 0; r < p->n_rows; r++)
        if (p->arch->tensors[r].flags & CLQ_ROW_TIED)
            CLQ_TRY(clq_json_set(config, "tie_word_embeddings",
                                 json_boolean(*place(p, r, 0, false) == 0), err));
    return CLQ_OK;
}

static clq_status set_head(const clq_arch *arch, const clq_gguf_kvs *kvs, json_t *config,
                           clq_error *err)
{
    const char *name;
    size_t len;
    CLQ_TRY(clq_json_set(config, "architectures", json_pack("[s]", arch->classes[0]), err));
    CLQ_TRY(clq_json_set(config, "model_type", json_string(arch->model_type), err));
    json_t *text =
        clq_kv_get_string(kvs, "general.name", &name, &len) ? json_stringn(name, len) : NULL;
    return text ? clq_json_set(config, "_name_or_path", text, err) : CLQ_OK;
}

// The modules of sentence-transformers, where the metadata says how to pool.
static clq_status add_pooling(const clq_gguf_kvs *kvs, const clq_arch *arch, const clq_sizes *sizes,
                              clq_translation *out, clq_error *err)
{
    char key[96];
    uint64_t value;
    snprintf(key, sizeof key, "%s.pooling_type", arch->name);
    if (!clq_kv_get_u64(kvs, key, &value) || value == POOLING_NONE) return CLQ_OK;
    json_t *pooling = json_pack("{s:i}", "word_embedding_dimension", (int)sizes->embd);
    json_t *modules =
        json_pack("[{s:i, s:s, s:s, s:s}, {s:i, s:s, s:s, s:s}]", "idx", 0, "name", "0", "path", "",
                  "type", "sentence_transformers.models.Transformer", "idx", 1, "name", "1", "path",
                  "1_Pooling", "type", "sentence_transformers.models.Pooling");
    clq_status st = CLQ_OK;
    bool known = false;
    for (size_t i = 0; i < N_POOLINGS; i++) {
        known = known || poolings[i].value == value;
        CLQ_TRY_OUT(
            clq_json_set(pooling, poolings[i].flag, json_boolean(poolings[i].value == value), err));
    }
    if (!known) {
        st = clq_fail(err, CLQ_BAD_INPUT, "metadata '%s' is %llu; known are 0 to 3", key,
                      (unsigned long long)value);
        goto out;
    }
    CLQ_TRY_OUT(clq_add_json_file(out, "modules.json", modules, err));
    CLQ_TRY_OUT(clq_add_json_file(out, "1_Pooling/config.json", pooling, err));
out:
    json_decref(modules);
    json_decref(pooling);
    return st;
}

static clq_status gguf_tensors(places *p, const clq_sizes *sizes, clq_translation *out,
                               clq_error *err)
{
    p->n_layers = sizes->layers;
    CLQ_TRY(places_create(p, err));
    CLQ_TRY(place_gguf(p, err));
    CLQ_TRY(emit_all(p, sizes, out, err));
    CLQ_TRY(set_tied(p, out->config, err));
    return set_bias_groups(p, out->config, err);
}

clq_status clq_translate_to_hf(const clq_source *gguf, const clq_hooks *hooks, clq_translation *out,
                               clq_error *err)
{
    *out = (clq_translation){.config = json_object()};
    places p = {.arch = clq_arch_find(gguf->architecture), .source = gguf};
    clq_sizes sizes;
    clq_status st = CLQ_OK;
    if (!p.arch) {
        st = clq_fail(err, CLQ_BAD_INPUT,
                      "architecture '%s' has no translation to a Hugging Face folder; known are "
                      "llama and bert. A .gguf file as output needs no translation",
                      gguf->architecture);
        goto out;
    }
    CLQ_TRY_OUT(set_head(p.arch, &gguf->kvs, out->config, err));
    CLQ_TRY_OUT(clq_hypers_to_hf(p.arch, gguf, &sizes, out->config, err));
    if (p.arch->has_rope) CLQ_TRY_OUT(clq_rope_to_hf(p.arch, gguf, &sizes, out->config, err));
    CLQ_TRY_OUT(gguf_tensors(&p, &sizes, out, err));
    CLQ_TRY_OUT(clq_tokenizer_to_hf(gguf, sizes.vocab, hooks, out, err));
    CLQ_TRY_OUT(clq_card_to_hf(&gguf->kvs, out, err));
    if (p.arch->is_encoder) CLQ_TRY_OUT(add_pooling(&gguf->kvs, p.arch, &sizes, out, err));
out:
    free(p.filled);
    if (st != CLQ_OK) clq_translation_free(out);
    return st;
}

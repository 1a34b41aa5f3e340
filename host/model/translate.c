// SPDX-License-Identifier: MIT
// The two entry points, general metadata and pooling; tensors.c, hyper.c, attention.c, rope.c and
// vocab*.c do the rest.
#include "model/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/card.h"
#include "model/vocab.h"

void clq_translation_free(clq_translation *t)
{
    for (uint32_t i = 0; i < t->n_tensors; i++) {
        free(t->tensors[i].name);
        free(t->tensors[i].from.sources);
    }
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

// ---- Hugging Face -> GGUF ----------------------------------------------------------------------

static void set_text(clq_gguf_kvs *kvs, const char *key, const char *text, size_t len)
{
    clq_kv_set_string(kvs, key, text, len);
}

// "135M", "1.1B": two significant digits at least. "8x7B": experts, and what a model of one would have.
static void set_size_label(clq_translation *out)
{
    static const struct {
        double unit;
        char letter;
    } units[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
    size_t i = 0;
    uint64_t n_parameters = 0, n_experts = 0;
    for (uint32_t k = 0; k < out->n_tensors; k++) {
        const clq_origin *from = &out->tensors[k].from;
        if (from->sources) n_experts = from->n_pieces;
        n_parameters += (from->sources ? 1 : from->n_pieces) * from->n_elements;
    }
    while (i < 3 && (double)n_parameters <= units[i].unit) i++;
    double scaled = (double)n_parameters / units[i].unit;
    char text[80], experts[24] = "";
    if (n_experts) snprintf(experts, sizeof experts, "%llux", (unsigned long long)n_experts);
    int len = snprintf(text, sizeof text, "%s%.*f%c", experts,
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
static clq_status set_pooling(const clq_source *hf, const clq_arch *arch, clq_gguf_kvs *kvs,
                              clq_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.pooling_type", arch->name);
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

static void set_encoder(const clq_arch *arch, const clq_sizes *sizes, clq_gguf_kvs *kvs)
{
    char key[96];
    snprintf(key, sizeof key, "%s.attention.causal", arch->name);
    clq_kv_set_bool(kvs, key, false);
    clq_kv_set_u32(kvs, "tokenizer.ggml.token_type_count", sizes->token_types);
}

clq_status clq_translate_to_gguf(const clq_source *hf, const clq_hooks *hooks, clq_translation *out,
                                 clq_error *err)
{
    *out = (clq_translation){0};
    if (!json_is_object(hf->config))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' has no config.json; a GGUF file needs the model's configuration",
                        hf->path);
    const clq_arch *arch;
    clq_sizes sizes;
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_arch_of_config(hf->config, &arch, err));
    set_general(hf, arch, &out->kvs);
    CLQ_TRY_OUT(clq_hypers_to_gguf(arch, hf->config, &sizes, &out->kvs, err));
    CLQ_TRY_OUT(clq_attention_to_gguf(arch, hf->config, &sizes, hooks, &out->kvs, err));
    if (arch->rope_base > 0) CLQ_TRY_OUT(clq_rope_to_gguf(arch, hf->config, &sizes, out, err));
    CLQ_TRY_OUT(clq_tensors_to_gguf(arch, hf, &sizes, hooks, out, err));
    set_size_label(out);
    CLQ_TRY_OUT(clq_card_to_gguf(hf, &out->kvs, err));
    if (arch->is_encoder) set_encoder(arch, &sizes, &out->kvs);
    if (arch->may_pool) CLQ_TRY_OUT(set_pooling(hf, arch, &out->kvs, err));
    uint32_t n_rows = sizes.vocab_kept ? sizes.vocab_kept : sizes.vocab;
    CLQ_TRY_OUT(clq_tokenizer_to_gguf(hf, hooks, n_rows, &out->kvs, err));
    if (arch->no_space_prefix && clq_kv_find(&out->kvs, "tokenizer.ggml.scores"))
        clq_kv_set_bool(&out->kvs, "tokenizer.ggml.add_space_prefix", false);
    if (out->kvs.failed) st = clq_fail_memory(err, 0);
out:
    if (st != CLQ_OK) clq_translation_free(out);
    return st;
}

// ---- GGUF -> Hugging Face ----------------------------------------------------------------------

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

clq_status clq_translate_to_hf(const clq_source *gguf, const clq_hooks *hooks, clq_translation *out,
                               clq_error *err)
{
    *out = (clq_translation){.config = json_object()};
    const clq_arch *arch;
    clq_sizes sizes;
    clq_status st = CLQ_OK;
    CLQ_TRY_OUT(clq_arch_of_gguf(gguf, &arch, err));
    CLQ_TRY_OUT(set_head(arch, &gguf->kvs, out->config, err));
    CLQ_TRY_OUT(clq_hypers_to_hf(arch, gguf, &sizes, out->config, err));
    CLQ_TRY_OUT(clq_attention_to_hf(arch, &gguf->kvs, &sizes, out->config, err));
    if (arch->rope_base > 0) CLQ_TRY_OUT(clq_rope_to_hf(arch, gguf, &sizes, out->config, err));
    CLQ_TRY_OUT(clq_tensors_to_hf(arch, gguf, &sizes, out, err));
    CLQ_TRY_OUT(clq_tokenizer_to_hf(gguf, sizes.vocab, hooks, out, err));
    CLQ_TRY_OUT(clq_card_to_hf(&gguf->kvs, out, err));
    if (arch->may_pool) CLQ_TRY_OUT(add_pooling(&gguf->kvs, arch, &sizes, out, err));
out:
    if (st != CLQ_OK) clq_translation_free(out);
    return st;
}

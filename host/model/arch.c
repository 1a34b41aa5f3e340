// SPDX-License-Identifier: MIT
#include "model/arch.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- lookup ------------------------------------------------------------------------------------

static const clq_arch *of_class(const char *class_name)
{
    for (size_t i = 0; i < clq_n_archs; i++)
        for (const char *const *c = clq_archs[i].classes; *c; c++)
            if (strcmp(*c, class_name) == 0) return &clq_archs[i];
    return NULL;
}

static const clq_arch *of_model_type(const char *model_type)
{
    if (strcmp(model_type, "mistral") == 0) return of_class("MistralForCausalLM");
    for (size_t i = 0; i < clq_n_archs; i++)
        if (strcmp(clq_archs[i].model_type, model_type) == 0) return &clq_archs[i];
    return NULL;
}

// The first class of each architecture, as a list for messages.
static void list_classes(clq_buf *b)
{
    for (size_t i = 0; i < clq_n_archs; i++)
        clq_buf_printf(b, "%s%s", i ? ", " : "", clq_archs[i].classes[0]);
    clq_buf_zeros(b, 1);
}

clq_status clq_arch_of_gguf(const clq_source *gguf, const clq_arch **arch, clq_error *err)
{
    char key[96];
    uint64_t experts = 0;
    snprintf(key, sizeof key, "%.60s.expert_count", gguf->architecture);
    clq_kv_get_u64(&gguf->kvs, key, &experts);
    for (size_t i = 0; i < clq_n_archs; i++) {
        if (strcmp(clq_archs[i].name, gguf->architecture) != 0) continue;
        *arch = &clq_archs[i];
        if (clq_archs[i].has_experts == (experts > 0)) return CLQ_OK;
        if (i + 1 == clq_n_archs || strcmp(clq_archs[i + 1].name, gguf->architecture) != 0)
            return CLQ_OK; // the only one of that name, or the last: its keys will tell
    }
    clq_buf known = {0};
    list_classes(&known);
    clq_status st =
        clq_fail(err, CLQ_BAD_INPUT,
                 "architecture '%s' has no translation to a Hugging Face folder; known are those "
                 "of %s. A .gguf file as output needs no translation",
                 gguf->architecture, known.failed ? "(no memory)" : known.data);
    clq_buf_free(&known);
    return st;
}

clq_status clq_arch_of_config(const json_t *config, const clq_arch **arch, clq_error *err)
{
    const char *class_name =
        clq_json_string(json_array_get(json_object_get(config, "architectures"), 0));
    const char *model_type = clq_json_text(config, "model_type");
    *arch = class_name ? of_class(class_name) : model_type ? of_model_type(model_type) : NULL;
    if (*arch) return CLQ_OK;
    if (!class_name && !model_type)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "config.json has neither \"architectures\" nor \"model_type\"; one of them "
                        "must say which model this is");
    clq_buf known = {0};
    list_classes(&known);
    clq_status st =
        clq_fail(err, CLQ_BAD_INPUT,
                 "architecture '%s' of config.json has no translation to GGUF: its tensor names and "
                 "hyperparameters are not in the tables. Known are %s. A folder as output needs no "
                 "translation",
                 class_name ? class_name : model_type, known.failed ? "(no memory)" : known.data);
    clq_buf_free(&known);
    return st;
}

bool clq_arch_drops(const clq_arch *arch, const char *name)
{
    for (const char *const *pattern = arch->dropped; *pattern; pattern++)
        if (fnmatch(*pattern, name, 0) == 0) return true;
    return false;
}

// ---- names -------------------------------------------------------------------------------------

// The end of the tensor name's stem, NULL when it has no known suffix.
static const char *split_suffix(const char *name, bool *is_bias)
{
    static const struct {
        const char *text;
        bool is_bias;
    } suffixes[] = {{".weight", false}, {".bias", true}, {".gamma", false}, {".beta", true}};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (!clq_ends_with(name, suffixes[i].text)) continue;
        *is_bias = suffixes[i].is_bias;
        return name + strlen(name) - strlen(suffixes[i].text);
    }
    return NULL;
}

// Takes a decimal number without leading zeros, below CLQ_MAX_LAYERS.
static bool take_number(const char **name, const char *end, uint32_t *n)
{
    const char *digits = *name;
    *n = 0;
    while (*name < end && **name >= '0' && **name <= '9' && *n < CLQ_MAX_LAYERS)
        *n = *n * 10 + (uint32_t)(*(*name)++ - '0');
    return *name != digits && (*digits != '0' || *name - digits == 1) && *n < CLQ_MAX_LAYERS;
}

// Matches [name, end) against a pattern with at most one '%' and one '#'.
static bool match(const char *pattern, const char *name, const char *end, clq_row_match *m)
{
    m->layer = m->expert = 0;
    for (; *pattern; pattern++) {
        if (*pattern == '%' || *pattern == '#') {
            if (!take_number(&name, end, *pattern == '%' ? &m->layer : &m->expert)) return false;
        } else if (name == end || *name++ != *pattern) {
            return false;
        }
    }
    return name == end;
}

clq_row_match clq_row_of_gguf(const clq_arch *arch, const char *name)
{
    clq_row_match m = {0};
    const char *end = split_suffix(name, &m.is_bias);
    for (const clq_tensor_row *row = arch->tensors; end && row->hf && !m.row; row++)
        if ((!m.is_bias || row->flags & CLQ_ROW_BIAS) && match(row->gguf, name, end, &m))
            m.row = row;
    return m;
}

clq_row_match clq_row_of_hf(const clq_arch *arch, const char *name)
{
    const char *prefix = arch->optional_prefix;
    if (prefix && strncmp(name, prefix, strlen(prefix)) == 0) name += strlen(prefix);
    const char *missing = arch->missing_prefix;
    size_t n_missing = missing ? strlen(missing) : 0;
    clq_row_match m = {0};
    const char *end = split_suffix(name, &m.is_bias);
    for (const clq_tensor_row *row = arch->tensors; end && row->hf && !m.row; row++) {
        if (m.is_bias && !(row->flags & CLQ_ROW_BIAS)) continue;
        if (match(row->hf, name, end, &m) ||
            (n_missing && strncmp(row->hf, missing, n_missing) == 0 &&
             match(row->hf + n_missing, name, end, &m)))
            m.row = row;
    }
    return m;
}

char *clq_row_name(const char *pattern, uint32_t layer, uint32_t expert, bool is_bias)
{
    clq_buf b = {0};
    for (; *pattern; pattern++) {
        if (*pattern == '%' || *pattern == '#')
            clq_buf_printf(&b, "%" PRIu32, *pattern == '%' ? layer : expert);
        else
            clq_buf_append(&b, pattern, 1);
    }
    clq_buf_text(&b, is_bias ? ".bias" : ".weight");
    clq_buf_zeros(&b, 1);
    if (!b.failed) return b.data;
    clq_buf_free(&b);
    return NULL;
}

bool clq_row_stacks(const clq_tensor_row *row)
{
    return strchr(row->hf, '#') != NULL;
}

// ---- shapes ------------------------------------------------------------------------------------

static uint64_t size_of(const clq_sizes *s, char letter, const char **what)
{
    switch (letter) {
    case 'V': *what = "vocabulary size"; return s->vocab;
    case 'E': *what = "hidden size"; return s->embd;
    case 'F': *what = "feed-forward size"; return s->ffn;
    case 'P': *what = "context length"; return s->positions;
    case 'T': *what = "number of token types"; return s->token_types;
    case 'Q': *what = "attention heads times head size"; return (uint64_t)s->heads * s->head_dim;
    case 'K': *what = "key-value heads times head size"; return (uint64_t)s->kv_heads * s->head_dim;
    case 'A':
        *what = "size of queries, keys and values";
        return ((uint64_t)s->heads + 2ull * s->kv_heads) * s->head_dim;
    case 'U': *what = "feed-forward size, twice"; return 2ull * s->ffn;
    case 'D': *what = "head size"; return s->head_dim;
    case 'N': *what = "number of experts"; return s->experts;
    case 'X': *what = "feed-forward size of an expert"; return s->expert_ffn;
    case 'S': *what = "feed-forward size of the shared expert"; return s->shared_ffn;
    default: *what = "size"; return 1;
    }
}

clq_status clq_row_check(const clq_tensor_row *row, bool is_bias, bool is_slice,
                         const clq_tensor *t, const clq_sizes *sizes, clq_error *err)
{
    const char *shape = row->shape + is_slice;
    // GGUF files may leave out a first dimension of 1.
    if (*shape == '1' && t->n_dims + 1 == strlen(shape)) shape++;
    uint32_t n_dims = is_bias ? 1 : (uint32_t)strlen(shape);
    if (t->n_dims != n_dims)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has %u dimensions instead of %u", t->name,
                        t->n_dims, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        const char *what;
        uint64_t expected = size_of(sizes, shape[d], &what);
        if (t->dims[d] != expected)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "dimension %u of tensor '%s' is %" PRIu64 ", but the %s is %" PRIu64
                            ": the tensor does not belong to this configuration",
                            d, t->name, t->dims[d], what, expected);
    }
    return CLQ_OK;
}

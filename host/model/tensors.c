// SPDX-License-Identifier: MIT
// Which source tensor becomes which, by the rows of an architecture's table.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/vocab.h"

// Which source tensor fills which place: index + 1, 0 for none. Places count rows of the
// architecture's table, layers, and weight or bias; rows of experts have a place for each expert on
// the Hugging Face side.
typedef struct places {
    const clq_arch *arch;
    const clq_source *source;
    const clq_sizes *sizes;
    bool from_hf;
    uint32_t n_rows;
    uint32_t *filled, *experts; // experts: NULL when no row has any
    uint32_t *expert_rows;      // a row's index among those with experts
} places;

static bool per_expert(const places *p, uint32_t row)
{
    return p->from_hf && clq_row_stacks(&p->arch->tensors[row]);
}

static uint32_t *place(const places *p, uint32_t row, uint32_t layer, uint32_t expert, bool is_bias)
{
    size_t n_layers = p->sizes->layers;
    if (per_expert(p, row))
        return &p->experts[(p->expert_rows[row] * n_layers + layer) * p->sizes->experts + expert];
    return &p->filled[((size_t)row * n_layers + layer) * 2 + is_bias];
}

static bool in_layers(const clq_tensor_row *row)
{
    return strchr(row->hf, '%') != NULL;
}

static void places_free(places *p)
{
    free(p->filled);
    free(p->experts);
    free(p->expert_rows);
}

static clq_status places_create(places *p, clq_error *err)
{
    while (p->arch->tensors[p->n_rows].hf) p->n_rows++;
    p->expert_rows = calloc(p->n_rows, sizeof *p->expert_rows);
    if (!p->expert_rows) return clq_fail_memory(err, p->n_rows * sizeof *p->expert_rows);
    size_t n_stacks = 0, n = (size_t)p->n_rows * p->sizes->layers * 2;
    for (uint32_t r = 0; r < p->n_rows; r++)
        if (per_expert(p, r)) p->expert_rows[r] = (uint32_t)n_stacks++;
    size_t n_experts = n_stacks * p->sizes->layers * p->sizes->experts;
    p->filled = calloc(n, sizeof *p->filled);
    if (n_experts) p->experts = calloc(n_experts, sizeof *p->experts);
    if (p->filled && (p->experts || !n_experts)) return CLQ_OK;
    return clq_fail_memory(err, (n + n_experts) * sizeof *p->filled);
}

static clq_status fill(const places *p, uint32_t index, const clq_row_match *m, clq_error *err)
{
    const char *name = p->source->tensors[index].name;
    if (m->layer >= p->sizes->layers)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' belongs to a layer that the model's "
                        "configuration (%u layers) does not have",
                        name, p->sizes->layers);
    uint32_t row = (uint32_t)(m->row - p->arch->tensors);
    if (per_expert(p, row) && m->expert >= p->sizes->experts)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s' belongs to an expert that the model's configuration (%u "
                        "experts) does not have",
                        name, p->sizes->experts);
    uint32_t *slot = place(p, row, m->layer, m->expert, m->is_bias);
    if (*slot)
        return clq_fail(err, CLQ_BAD_INPUT, "tensors '%s' and '%s' are one and the same tensor",
                        p->source->tensors[*slot - 1].name, name);
    *slot = index + 1;
    return CLQ_OK;
}

static clq_status missing(const places *p, const clq_tensor_row *row, uint32_t layer,
                          uint32_t expert, bool is_bias, clq_error *err)
{
    char *name = clq_row_name(p->from_hf ? row->hf : row->gguf, layer, expert, is_bias);
    if (!name) return clq_fail_memory(err, 64);
    clq_status st = clq_fail(err, CLQ_BAD_INPUT,
                             "tensor '%s' is missing: the checkpoint is incomplete", name);
    free(name);
    return st;
}

// Appends a tensor; its origin is the whole of `slot`'s source until the caller says otherwise.
static clq_status append(const places *p, const clq_tensor_row *row, uint32_t layer,
                         uint32_t expert, bool is_bias, uint32_t slot, clq_translation *out,
                         clq_translated_tensor **added, clq_error *err)
{
    if (out->n_tensors == out->capacity) {
        uint32_t capacity = out->capacity ? 2 * out->capacity : 256;
        clq_translated_tensor *tensors = realloc(out->tensors, capacity * sizeof *tensors);
        if (!tensors) return clq_fail_memory(err, capacity * sizeof *tensors);
        out->tensors = tensors;
        out->capacity = capacity;
    }
    char *name = clq_row_name(p->from_hf ? row->gguf : row->hf, layer, expert, is_bias);
    if (!name) return clq_fail_memory(err, 64);
    const clq_tensor *t = &p->source->tensors[slot - 1];
    *added = &out->tensors[out->n_tensors++];
    **added = (clq_translated_tensor){
        .name = name, .n_dims = t->n_dims, .from = clq_origin_of(p->source, slot - 1)};
    memcpy((*added)->dims, t->dims, sizeof t->dims);
    if (row->flags & CLQ_ROW_NORM1) (*added)->from.shift = p->from_hf ? 1 : -1;
    return CLQ_OK;
}

// A row that is one tensor on both sides; nothing to do where its place is empty and may be.
static clq_status emit_one(const places *p, uint32_t row_index, uint32_t layer, bool is_bias,
                           clq_translation *out, clq_error *err)
{
    const clq_tensor_row *row = &p->arch->tensors[row_index];
    const clq_sizes *sizes = p->sizes;
    uint32_t slot = *place(p, row_index, layer, 0, is_bias);
    if (!slot) {
        bool required = row->flags & (is_bias ? CLQ_ROW_BIAS_REQUIRED : CLQ_ROW_REQUIRED);
        return required ? missing(p, row, layer, 0, is_bias, err) : CLQ_OK;
    }
    CLQ_TRY(clq_row_check(row, is_bias, false, &p->source->tensors[slot - 1], sizes, err));
    clq_translated_tensor *t;
    CLQ_TRY(append(p, row, layer, 0, is_bias, slot, out, &t, err));
    unsigned rope = row->flags & (CLQ_ROW_ROPE_Q | CLQ_ROW_ROPE_K);
    if (rope) {
        t->from.order = p->from_hf ? CLQ_ROWS_HF_TO_GGUF : CLQ_ROWS_GGUF_TO_HF;
        t->from.n_heads = rope == CLQ_ROW_ROPE_Q ? sizes->heads : sizes->kv_heads;
    }
    if (*row->shape == 'V' && sizes->vocab_kept && sizes->vocab_kept < t->dims[0]) {
        t->from.n_elements = t->from.n_elements / t->dims[0] * sizes->vocab_kept;
        t->dims[0] = sizes->vocab_kept;
    }
    // A first dimension of 1 that GGUF files may leave out.
    if (*row->shape == '1' && t->n_dims + 1 == strlen(row->shape)) {
        t->dims[1] = t->dims[0];
        t->dims[0] = 1;
        t->n_dims = 2;
    }
    return CLQ_OK;
}

// The experts' matrices, one behind the other, become one tensor.
static clq_status stack(const places *p, uint32_t row_index, uint32_t layer, clq_translation *out,
                        clq_error *err)
{
    const clq_tensor_row *row = &p->arch->tensors[row_index];
    uint32_t n = p->sizes->experts, *sources = malloc(n * sizeof *sources);
    if (!sources) return clq_fail_memory(err, n * sizeof *sources);
    clq_status st = CLQ_OK;
    for (uint32_t e = 0; e < n && st == CLQ_OK; e++) {
        uint32_t slot = *place(p, row_index, layer, e, false);
        sources[e] = slot - 1;
        st = slot ? clq_row_check(row, false, true, &p->source->tensors[slot - 1], p->sizes, err)
                  : missing(p, row, layer, e, false, err);
    }
    clq_translated_tensor *t;
    if (st == CLQ_OK) st = append(p, row, layer, 0, false, sources[0] + 1, out, &t, err);
    if (st != CLQ_OK) {
        free(sources);
        return st;
    }
    t->from.sources = sources;
    t->from.n_pieces = n;
    memmove(&t->dims[1], &t->dims[0], 2 * sizeof *t->dims);
    t->dims[0] = n;
    t->n_dims = 3;
    return CLQ_OK;
}

// Each expert's matrix of one tensor becomes a tensor.
static clq_status split(const places *p, uint32_t row_index, uint32_t layer, clq_translation *out,
                        clq_error *err)
{
    const clq_tensor_row *row = &p->arch->tensors[row_index];
    uint32_t slot = *place(p, row_index, layer, 0, false);
    if (!slot) return missing(p, row, layer, 0, false, err);
    CLQ_TRY(clq_row_check(row, false, false, &p->source->tensors[slot - 1], p->sizes, err));
    for (uint32_t e = 0; e < p->sizes->experts; e++) {
        clq_translated_tensor *t;
        CLQ_TRY(append(p, row, layer, e, false, slot, out, &t, err));
        t->n_dims = 2;
        memmove(&t->dims[0], &t->dims[1], 2 * sizeof *t->dims);
        t->from.n_elements = t->dims[0] * t->dims[1];
        t->from.first = e * t->from.n_elements;
    }
    return CLQ_OK;
}

static clq_status emit(const places *p, uint32_t row, uint32_t layer, clq_translation *out,
                       clq_error *err)
{
    if (clq_row_stacks(&p->arch->tensors[row]))
        return p->from_hf ? stack(p, row, layer, out, err) : split(p, row, layer, out, err);
    CLQ_TRY(emit_one(p, row, layer, false, out, err));
    return emit_one(p, row, layer, true, out, err);
}

// In the table's order; rows that stand in layers are written layer by layer.
static clq_status emit_all(const places *p, clq_translation *out, clq_error *err)
{
    const clq_tensor_row *rows = p->arch->tensors;
    for (uint32_t begin = 0, end; begin < p->n_rows; begin = end) {
        end = begin + 1;
        bool layered = in_layers(&rows[begin]);
        while (layered && end < p->n_rows && in_layers(&rows[end])) end++;
        for (uint32_t layer = 0; layer < (layered ? p->sizes->layers : 1); layer++)
            for (uint32_t r = begin; r < end; r++) CLQ_TRY(emit(p, r, layer, out, err));
    }
    return CLQ_OK;
}

static const clq_tensor *first_of(const places *p, const char *gguf_name)
{
    for (uint32_t r = 0; r < p->n_rows; r++) {
        if (strcmp(p->arch->tensors[r].gguf, gguf_name) != 0) continue;
        uint32_t slot = *place(p, r, 0, 0, false);
        if (slot) return &p->source->tensors[slot - 1];
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
        clq_row_match m = clq_row_of_hf(p->arch, name);
        if (clq_arch_drops(p->arch, name) || (m.row && m.row->flags & CLQ_ROW_TIED && tied))
            clq_buf_printf(&left_out, "%s'%s'", left_out.len ? ", " : "", name);
        else if (m.row)
            st = fill(p, i, &m, err);
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
        if (!(p->arch->tensors[r].flags & CLQ_ROW_TIED) || *place(p, r, 0, 0, false)) continue;
        return clq_fail(err, CLQ_BAD_INPUT,
                        "tensor '%s.weight' is missing and config.json does not set "
                        "\"tie_word_embeddings\": the checkpoint is incomplete",
                        p->arch->tensors[r].hf);
    }
    return CLQ_OK;
}

// Sizes that config.json leaves out are those of the embeddings.
static clq_status complete_sizes(const places *p, clq_sizes *sizes, clq_error *err)
{
    const clq_tensor *words = first_of(p, "token_embd"), *types = first_of(p, "token_types");
    uint64_t n_words = words && words->n_dims && words->dims[0] <= INT32_MAX ? words->dims[0] : 0;
    bool named = sizes->vocab != 0;
    if (!named) sizes->vocab = (uint32_t)n_words;
    if (!sizes->token_types && types && types->n_dims && types->dims[0] <= INT32_MAX)
        sizes->token_types = (uint32_t)types->dims[0];
    if (p->arch->trims_vocabulary)
        return clq_tokenizer_rows(p->source, sizes->vocab, named, &sizes->vocab_kept, err);
    return CLQ_OK;
}

clq_status clq_tensors_to_gguf(const clq_arch *arch, const clq_source *hf, clq_sizes *sizes,
                               const clq_hooks *hooks, clq_translation *out, clq_error *err)
{
    places p = {.arch = arch, .source = hf, .sizes = sizes, .from_hf = true};
    bool tied = arch->tied_by_default;
    clq_json_bool(hf->config, "tie_word_embeddings", &tied);
    clq_status st = places_create(&p, err);
    if (st == CLQ_OK) st = place_hf(&p, tied, hooks, err);
    if (st == CLQ_OK) st = check_output(&p, hf->config, tied, err);
    if (st == CLQ_OK) st = complete_sizes(&p, sizes, err);
    if (st == CLQ_OK) st = emit_all(&p, out, err);
    places_free(&p);
    return st;
}

// ---- GGUF -> Hugging Face ----------------------------------------------------------------------

static clq_status place_gguf(const places *p, clq_error *err)
{
    for (uint32_t i = 0; i < p->source->n_tensors; i++) {
        const char *name = p->source->tensors[i].name;
        clq_row_match m = clq_row_of_gguf(p->arch, name);
        if (m.row)
            CLQ_TRY(fill(p, i, &m, err));
        else if (!clq_rope_reads(p->arch, name))
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
            const clq_tensor_row *row = &p->arch->tensors[r];
            if (!strstr(row->hf, g->part) || !(row->flags & CLQ_ROW_BIAS)) continue;
            for (uint32_t layer = 0; layer < p->sizes->layers; layer++, n++)
                n_biases += *place(p, r, layer, 0, true) != 0;
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
    if (p->arch->is_encoder) return CLQ_OK;
    bool tied = true;
    for (uint32_t r = 0; r < p->n_rows; r++)
        if (p->arch->tensors[r].flags & CLQ_ROW_TIED) tied = *place(p, r, 0, 0, false) == 0;
    return clq_json_set(config, "tie_word_embeddings", json_boolean(tied), err);
}

clq_status clq_tensors_to_hf(const clq_arch *arch, const clq_source *gguf, const clq_sizes *sizes,
                             clq_translation *out, clq_error *err)
{
    places p = {.arch = arch, .source = gguf, .sizes = sizes};
    clq_status st = places_create(&p, err);
    if (st == CLQ_OK) st = place_gguf(&p, err);
    if (st == CLQ_OK) st = emit_all(&p, out, err);
    if (st == CLQ_OK) st = set_tied(&p, out->config, err);
    if (st == CLQ_OK) st = set_bias_groups(&p, out->config, err);
    places_free(&p);
    return st;
}

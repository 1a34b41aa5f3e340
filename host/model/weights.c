// SPDX-License-Identifier: MIT
#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "ops/steps.h"

enum { ALIGNMENT = 64, CHUNK_BYTES = 4 << 20 };

enum { EMBED = 1, HEAD = 2, LAYER = 4, BIAS_REQUIRED = 8, MAY_MISS = 16, VECTOR = 32, AS_FLOATS = 64 };

// shape: a letter a dimension (see model/arch.h); needs: features of which all must be there.
typedef struct {
    const char *name, *shape;
    unsigned flags, needs;
} slot;

static const slot slots[CLQ_N_WEIGHTS] = {
    [CLQ_W_EMBED] = {"token_embd", "VE", EMBED, 0},
    [CLQ_W_POSITIONS] = {"position_embd", "PE", EMBED, CLQ_HAS_BERT},
    [CLQ_W_TYPES] = {"token_types", "TE", EMBED | MAY_MISS, CLQ_HAS_BERT},
    [CLQ_W_EMBED_NORM] = {"token_embd_norm", "E", EMBED | VECTOR | BIAS_REQUIRED, CLQ_HAS_BERT},
    [CLQ_W_OUTPUT_NORM] = {"output_norm", "E", HEAD | VECTOR, CLQ_HAS_PRE_NORMS},
    [CLQ_W_OUTPUT] = {"output", "VE", HEAD, CLQ_HAS_HEAD},
    [CLQ_W_ATTN_NORM] = {"attn_norm", "E", LAYER | VECTOR, CLQ_HAS_PRE_NORMS},
    [CLQ_W_Q] = {"attn_q", "QE", LAYER, CLQ_HAS_SPLIT_QKV},
    [CLQ_W_K] = {"attn_k", "KE", LAYER, CLQ_HAS_SPLIT_QKV},
    [CLQ_W_V] = {"attn_v", "KE", LAYER, CLQ_HAS_SPLIT_QKV},
    [CLQ_W_QKV] = {"attn_qkv", "AE", LAYER, CLQ_HAS_FUSED_QKV},
    [CLQ_W_Q_NORM] = {"attn_q_norm", "D", LAYER | VECTOR, CLQ_HAS_QK_NORMS},
    [CLQ_W_K_NORM] = {"attn_k_norm", "D", LAYER | VECTOR, CLQ_HAS_QK_NORMS},
    [CLQ_W_O] = {"attn_output", "EQ", LAYER, 0},
    // The norms behind the parts: gemma's of what a part adds, bert's of the sum.
    [CLQ_W_POST_ATTN_NORM] = {"post_attention_norm", "E", LAYER | VECTOR, CLQ_HAS_POST_NORMS},
    [CLQ_W_FFN_NORM] = {"ffn_norm", "E", LAYER | VECTOR, CLQ_HAS_PRE_NORMS},
    [CLQ_W_GATE] = {"ffn_gate", "FE", LAYER, CLQ_HAS_DENSE | CLQ_HAS_GATE},
    [CLQ_W_UP] = {"ffn_up", "FE", LAYER, CLQ_HAS_DENSE},
    [CLQ_W_DOWN] = {"ffn_down", "EF", LAYER, CLQ_HAS_DENSE},
    [CLQ_W_POST_FFN_NORM] = {"post_ffw_norm", "E", LAYER | VECTOR, CLQ_HAS_POST_NORMS},
    [CLQ_W_ROUTER] = {"ffn_gate_inp", "NE", LAYER, CLQ_HAS_EXPERTS},
    [CLQ_W_GATE_EXPS] = {"ffn_gate_exps", "NXE", LAYER, CLQ_HAS_EXPERTS},
    [CLQ_W_UP_EXPS] = {"ffn_up_exps", "NXE", LAYER, CLQ_HAS_EXPERTS},
    [CLQ_W_DOWN_EXPS] = {"ffn_down_exps", "NEX", LAYER, CLQ_HAS_EXPERTS},
    [CLQ_W_SHARED_ROUTER] = {"ffn_gate_inp_shexp", "1E", LAYER, CLQ_HAS_SHARED_EXPERT},
    [CLQ_W_SHARED_GATE] = {"ffn_gate_shexp", "SE", LAYER, CLQ_HAS_SHARED_EXPERT},
    [CLQ_W_SHARED_UP] = {"ffn_up_shexp", "SE", LAYER, CLQ_HAS_SHARED_EXPERT},
    [CLQ_W_SHARED_DOWN] = {"ffn_down_shexp", "ES", LAYER, CLQ_HAS_SHARED_EXPERT},
};

// bert's norms stand in gemma's slots under other names, with a bias.
static slot slot_of(int which, const clq_net *net)
{
    slot s = slots[which];
    if (net->features & CLQ_HAS_BERT && (which == CLQ_W_POST_ATTN_NORM || which == CLQ_W_POST_FFN_NORM)) {
        s.name = which == CLQ_W_POST_ATTN_NORM ? "attn_output_norm" : "layer_output_norm";
        s.flags |= BIAS_REQUIRED;
        s.needs = CLQ_HAS_BERT;
    }
    if (which == CLQ_W_UP && net->features & CLQ_HAS_FUSED_GATE) s.shape = "UE";
    return s;
}

static uint64_t size_of(const clq_net *n, char letter)
{
    switch (letter) {
    case 'V': return n->vocab;
    case 'E': return n->embd;
    case 'F': return n->ffn;
    case 'U': return 2ull * n->ffn;
    case 'P': return n->positions;
    case 'T': return n->token_types;
    case 'Q': return (uint64_t)n->heads * n->head_dim;
    case 'K': return (uint64_t)n->kv_heads * n->head_dim;
    case 'A': return ((uint64_t)n->heads + 2ull * n->kv_heads) * n->head_dim;
    case 'D': return n->head_dim;
    case 'N': return n->experts;
    case 'X': return n->expert_ffn;
    case 'S': return n->shared_ffn;
    default: return 1;
    }
}

// ---- planning ----

// Leading dimensions of 1 do not count.
static bool has_shape(const clq_view_tensor *t, const uint64_t *dims, uint32_t n)
{
    uint32_t skip_t = 0, skip = 0;
    while (skip_t + 1 < t->n_dims && t->dims[skip_t] == 1) skip_t++;
    while (skip + 1 < n && dims[skip] == 1) skip++;
    return t->n_dims - skip_t == n - skip &&
           memcmp(t->dims + skip_t, dims + skip, (n - skip) * sizeof *dims) == 0;
}

static clq_status check_shape(const clq_view_tensor *t, const clq_net *net, const char *shape, clq_error *err)
{
    uint64_t dims[3], n_elements = 1;
    uint32_t n = (uint32_t)strlen(shape);
    char text[96] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < n; i++) {
        dims[i] = size_of(net, shape[i]);
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%" PRIu64, i ? ", " : "", dims[i]);
        if (dims[i] == 0 || dims[i] > INT32_MAX || !clq_mul_u64(n_elements, dims[i], &n_elements))
            return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': the metadata ask for the shape [%s]", t->name, text);
    }
    if (has_shape(t, dims, n)) return CLQ_OK;
    char has[96] = "";
    len = 0;
    for (uint32_t i = 0; i < t->n_dims && len < sizeof has - 24; i++)
        len += (size_t)snprintf(has + len, sizeof has - len, "%s%" PRIu64, i ? ", " : "", t->dims[i]);
    return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' has the shape [%s], but the metadata ask for [%s]", t->name, has,
                    text);
}

// Adds a stretch of n bytes at the unit's end.
static bool place(clq_unit *u, uint64_t n_bytes, uint64_t *at)
{
    *at = u->n_bytes;
    return clq_add_u64(u->n_bytes, n_bytes, &u->n_bytes) &&
           clq_round_up_u64(u->n_bytes, ALIGNMENT, &u->n_bytes) && u->n_bytes < UINT64_MAX / 4;
}

static const clq_tensor *piece_of(const clq_view *v, const clq_view_tensor *t, uint32_t piece)
{
    const clq_origin *o = &t->from;
    return &v->source->tensors[o->sources ? o->sources[piece] : o->source];
}

clq_activation clq_weight_activation(const clq_weight *w, uint32_t matrix)
{
    const clq_origin *o = &w->tensor->from;
    if (w->tensor->computed) return (clq_activation){0};
    return w->source->tensors[o->sources ? o->sources[o->n_pieces == w->count ? matrix : 0] : o->source].activation;
}

// Pieces of one matrix must want the same.
static clq_status check_activations(const clq_view *v, const clq_weight *w, clq_error *err)
{
    const clq_origin *o = &w->tensor->from;
    if (w->tensor->computed || o->n_pieces == w->count) return CLQ_OK;
    for (uint32_t i = 1; i < o->n_pieces; i++) {
        clq_activation a = piece_of(v, w->tensor, 0)->activation, b = piece_of(v, w->tensor, i)->activation;
        if (a.quant != b.quant || a.scale != b.scale || a.zero_point != b.zero_point)
            return clq_fail(err, CLQ_BAD_INPUT, "tensors '%s' and '%s' are one weight here, but their activations are "
                            "quantized in different ways", piece_of(v, w->tensor, 0)->name,
                            piece_of(v, w->tensor, i)->name);
    }
    return CLQ_OK;
}

static bool same_layout(const clq_tensor *a, const clq_tensor *b)
{
    return clq_type_equal(&a->type, &b->type) && !a->zero_points.n_bytes == !b->zero_points.n_bytes &&
           !a->group_index.n_bytes == !b->group_index.n_bytes;
}

// The type that the device gets: the stored one, where all pieces have it and kernels know it, else F32.
static clq_status choose_type(const clq_view *v, clq_weight *w, const slot *s, clq_error *err)
{
    const clq_view_tensor *t = w->tensor;
    w->type = clq_plain(CLQ_F32);
    if (t->computed) return CLQ_OK;
    const clq_tensor *first = piece_of(v, t, 0);
    bool uniform = true;
    for (uint32_t i = 0; i < t->from.n_pieces; i++) {
        const clq_tensor *p = piece_of(v, t, i);
        if (clq_format_row(p->type.format)->kind == CLQ_KIND_OPAQUE)
            return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is stored as %s, which cannot be decoded", p->name,
                            clq_format_row(p->type.format)->info.name);
        uniform = uniform && same_layout(p, first);
        // Rows that quantization saw otherwise, and pieces that begin within one, are decoded.
        if (p->type.format == CLQ_INT && p->row_len && p->row_len != w->cols) uniform = false;
    }
    const clq_format *f = clq_format_row(first->type.format);
    bool known = f->kind == CLQ_KIND_CODEC || (f->kind == CLQ_KIND_INT && w->count == t->from.n_pieces);
    if (s->flags & (VECTOR | AS_FLOATS) || !uniform || !known || t->from.shift != 0) return CLQ_OK;
    if (w->cols % f->info.block_elements)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': rows of %u elements are no whole blocks of type %s", t->name,
                        w->cols, f->info.name);
    w->type = first->type;
    return CLQ_OK;
}

static clq_status place_weight(const clq_view *v, clq_unit *u, clq_weight *w, clq_error *err)
{
    bool ok = clq_mul_u64(w->rows, clq_type_row_bytes(&w->type, w->cols), &w->code_bytes);
    uint64_t n;
    ok = ok && clq_mul_u64(w->code_bytes, w->count, &n) && place(u, n, &w->w);
    if (ok && w->type.format == CLQ_INT) {
        const clq_tensor *t = piece_of(v, w->tensor, 0);
        w->groups = w->type.granularity == CLQ_PER_TENSOR ? 0 : (uint32_t)clq_type_groups(&w->type, w->cols);
        w->n_scales = w->groups ? (uint64_t)w->rows * w->groups : 1;
        ok = clq_mul_u64(w->n_scales, 4ull * w->count, &n) && place(u, n, &w->scales);
        if (t->zero_points.n_bytes) ok = ok && place(u, w->n_scales * w->count, &w->zero_points);
        if (t->group_index.n_bytes) ok = ok && place(u, 4ull * w->cols * w->count, &w->group_index);
        if (clq_step_takes_i8(&w->type, w->cols)) ok = ok && place(u, 4ull * w->rows * w->count, &w->code_sums);
    }
    if (ok && w->bias_tensor) ok = place(u, 4ull * w->rows, &w->bias);
    return ok ? CLQ_OK : clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is too large", w->tensor->name);
}

static clq_status plan_weight(const clq_view *v, const clq_net *net, const slot *s, int32_t layer, clq_unit *u,
                              clq_weight *w, clq_error *err)
{
    char prefix[32] = "", name[96];
    if (layer >= 0) snprintf(prefix, sizeof prefix, "blk.%d.", layer);
    snprintf(name, sizeof name, "%s%s.weight", prefix, s->name);
    w->tensor = clq_view_find(v, name);
    if (!w->tensor && s->flags & MAY_MISS) return CLQ_OK;
    if (!w->tensor) return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is missing", name);
    CLQ_TRY(check_shape(w->tensor, net, s->shape, err));
    uint32_t n = (uint32_t)strlen(s->shape);
    w->cols = (uint32_t)size_of(net, s->shape[n - 1]);
    w->rows = n > 1 ? (uint32_t)size_of(net, s->shape[n - 2]) : 1;
    w->count = n > 2 ? (uint32_t)size_of(net, s->shape[0]) : 1;
    snprintf(name, sizeof name, "%s%s.bias", prefix, s->name);
    w->bias_tensor = clq_view_find(v, name);
    if (w->bias_tensor && w->count > 1)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s': biases of experts are not supported", name);
    if (!w->bias_tensor && s->flags & BIAS_REQUIRED)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is missing", name);
    const char bias_shape[2] = {s->shape[0], '\0'};
    if (w->bias_tensor) CLQ_TRY(check_shape(w->bias_tensor, net, bias_shape, err));
    CLQ_TRY(choose_type(v, w, s, err));
    CLQ_TRY(check_activations(v, w, err));
    w->source = v->source;
    w->is_vector = (s->flags & VECTOR) != 0;
    if (w->is_vector) {
        uint64_t n_bytes = 4ull * w->cols;
        bool ok = place(u, n_bytes, &w->w) && (!w->bias_tensor || place(u, n_bytes, &w->bias));
        return ok ? CLQ_OK : clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is too large", name);
    }
    return place_weight(v, u, w, err);
}

clq_status clq_unit_plan(const clq_view *view, const clq_net *net, int32_t which, bool floats, clq_unit *unit,
                         clq_error *err)
{
    bool tied = !(net->features & CLQ_HAS_HEAD);
    *unit = (clq_unit){0};
    for (int i = 0; i < CLQ_N_WEIGHTS; i++) {
        slot s = slot_of(i, net);
        if (floats) s.flags |= AS_FLOATS;
        clq_weight *w = &unit->weights[i];
        w->w = w->scales = w->zero_points = w->group_index = w->bias = w->code_sums = CLQ_NONE;
        unsigned place_of = which >= 0 ? LAYER : which == CLQ_UNIT_HEAD ? HEAD : tied ? EMBED | HEAD : EMBED;
        if (which == CLQ_UNIT_HEAD && tied) continue;
        if (!(s.flags & place_of) || (net->features & s.needs) != s.needs) continue;
        CLQ_TRY(plan_weight(view, net, &s, which, unit, w, err));
    }
    return CLQ_OK;
}

// ---- loading ----

typedef struct {
    const clq_view *view;
    clq_memory *memory;
    uint64_t base;
    uint8_t *raw, *ordered; // CHUNK_BYTES or what a head's rows need
    uint64_t capacity;
    clq_error *err;
} loader;

static clq_status write_at(const loader *l, uint64_t offset, const void *src, uint64_t n_bytes)
{
    return n_bytes ? l->memory->device->ops->memory_write(l->memory, l->base + offset, src, n_bytes, l->err) : CLQ_OK;
}

static clq_status reserve(loader *l, uint64_t n_bytes)
{
    if (n_bytes <= l->capacity) return CLQ_OK;
    free(l->raw);
    free(l->ordered);
    l->raw = malloc(n_bytes);
    l->ordered = malloc(n_bytes);
    l->capacity = l->raw && l->ordered ? n_bytes : 0;
    return l->capacity ? CLQ_OK : clq_fail_memory(l->err, 2 * n_bytes);
}

// Rows at a time: whole heads where rows change places. Buffers hold so many rows of row_bytes.
static clq_status chunk_rows(loader *l, const clq_origin *o, uint64_t rows, uint64_t row_bytes, uint64_t *n)
{
    uint64_t unit = o->order == CLQ_ROWS_KEPT ? 1 : rows / o->n_heads, fit = CHUNK_BYTES / row_bytes / unit * unit;
    *n = fit > unit ? fit : unit;
    if (*n > rows) *n = rows;
    return reserve(l, *n * row_bytes);
}

// Rows [first, first + n), whole heads, of `size` bytes each, in the order of the device.
static const void *order_rows(const clq_origin *o, uint64_t rows, uint64_t first, uint64_t n,
                              const void *from, void *to, uint64_t size)
{
    if (o->order == CLQ_ROWS_KEPT) return from;
    for (uint64_t r = 0; r < n; r++) {
        uint64_t source = clq_row_from(o->order, o->n_heads, rows, first + r) - first;
        memcpy((uint8_t *)to + r * size, (const uint8_t *)from + source * size, size);
    }
    return to;
}

static clq_status load_floats(loader *l, const clq_view_tensor *t, uint64_t rows, uint64_t cols, uint64_t at)
{
    const clq_origin *o = &t->from;
    if (t->computed) return write_at(l, at, t->computed, rows * cols * 4);
    uint64_t step;
    CLQ_TRY(chunk_rows(l, o, rows, cols * 4, &step));
    for (uint64_t r = 0; r < rows; r += step) {
        uint64_t n = rows - r < step ? rows - r : step;
        CLQ_TRY(clq_origin_read(l->view->source, o, r * cols, n * cols, (float *)(void *)l->raw, l->err));
        const void *src = order_rows(o, rows, r, n, l->raw, l->ordered, cols * 4);
        CLQ_TRY(write_at(l, at + r * cols * 4, src, n * cols * 4));
    }
    return CLQ_OK;
}

// A vector, or a bias: rows of one element where they change places.
static clq_status load_vector(loader *l, const clq_view_tensor *t, uint64_t n, uint64_t at)
{
    const clq_origin *o = &t->from;
    if (t->computed) return write_at(l, at, t->computed, n * 4);
    CLQ_TRY(reserve(l, n * 4));
    CLQ_TRY(clq_origin_read(l->view->source, o, 0, n, (float *)(void *)l->raw, l->err));
    return write_at(l, at, order_rows(o, n, 0, n, l->raw, l->ordered, 4), n * 4);
}

// As stored.
static clq_status load_blocks(loader *l, const clq_weight *w)
{
    const clq_origin *o = &w->tensor->from;
    const clq_source *s = l->view->source;
    uint64_t rows = (uint64_t)w->rows * w->count, row_bytes = clq_type_row_bytes(&w->type, w->cols), step;
    CLQ_TRY(chunk_rows(l, o, rows, row_bytes, &step));
    for (uint64_t r = 0; r < rows;) {
        uint64_t want = rows - r < step ? rows - r : step;
        clq_stretch x = clq_origin_at(s, o, r * w->cols, want * w->cols);
        const clq_file *f = &s->files[x.t->codes.file];
        uint64_t n = x.n / w->cols, offset = x.t->codes.offset + x.first / w->cols * row_bytes;
        const void *bytes = clq_file_at(f, offset);
        if (!bytes) {
            CLQ_TRY(clq_file_read(f, offset, l->raw, n * row_bytes, l->err));
            bytes = l->raw;
        }
        bytes = order_rows(o, rows, r, n, bytes, l->ordered, row_bytes);
        CLQ_TRY(write_at(l, w->w + r * row_bytes, bytes, n * row_bytes));
        clq_file_forget(f, offset, n * row_bytes);
        r += n;
    }
    return CLQ_OK;
}

// The sums of the codes of n rows, from row r of a matrix on.
static clq_status load_code_sums(loader *l, const clq_weight *w, uint64_t first, const int8_t *codes, uint64_t n)
{
    int32_t sums[256];
    for (uint64_t r = 0; r < n; r++) {
        const int8_t *row = codes + r * w->cols;
        int32_t sum = 0;
        for (uint32_t i = 0; i < w->cols; i++) sum += row[i];
        sums[r % 256] = sum;
        uint64_t done = r % 256 + 1;
        if (done == 256 || r + 1 == n)
            CLQ_TRY(write_at(l, w->code_sums + 4 * (first + r + 1 - done), sums, 4 * done));
    }
    return CLQ_OK;
}

// One matrix of integers with scales: a piece of its own.
static clq_status load_integers(loader *l, const clq_weight *w, uint32_t piece)
{
    const clq_origin *o = &w->tensor->from;
    const clq_source *s = l->view->source;
    const clq_tensor *t = piece_of(l->view, w->tensor, piece);
    uint64_t row_bytes = clq_type_row_bytes(&w->type, w->cols), per_row = w->groups ? w->groups : 1, step;
    uint64_t first_row = (o->first + piece * o->stride) / w->cols;
    uint64_t codes_at = w->w + piece * w->code_bytes, scale_at = piece * w->n_scales;
    CLQ_TRY(chunk_rows(l, o, w->rows, row_bytes + per_row * 5 + 4, &step));
    for (uint64_t r = 0; r < w->rows; r += step) {
        uint64_t n = w->rows - r < step ? w->rows - r : step;
        uint8_t *codes = l->raw, *to = l->ordered;
        float *scales = (float *)(void *)(codes + (n * row_bytes + 3) / 4 * 4);
        int8_t *zeros = (int8_t *)(scales + n * per_row);
        CLQ_TRY(clq_tensor_parts(s, t, first_row + r, n, codes, scales,
                                 w->zero_points != CLQ_NONE ? zeros : NULL, l->err));
        const int8_t *ordered = order_rows(o, w->rows, r, n, codes, to, row_bytes);
        CLQ_TRY(write_at(l, codes_at + r * row_bytes, ordered, n * row_bytes));
        if (w->code_sums != CLQ_NONE)
            CLQ_TRY(load_code_sums(l, w, (uint64_t)piece * w->rows + r, ordered, n));
        if (!w->groups && r > 0) continue; // one scale for all
        uint64_t n_scales = w->groups ? n * per_row : 1, at = scale_at + r * w->groups;
        bool moves = w->groups != 0;
        CLQ_TRY(write_at(l, w->scales + at * 4,
                         moves ? order_rows(o, w->rows, r, n, scales, to, per_row * 4) : scales, n_scales * 4));
        if (w->zero_points != CLQ_NONE)
            CLQ_TRY(write_at(l, w->zero_points + at,
                             moves ? order_rows(o, w->rows, r, n, zeros, to, per_row) : zeros, n_scales));
    }
    if (w->group_index == CLQ_NONE) return CLQ_OK;
    CLQ_TRY(reserve(l, 4ull * w->cols));
    CLQ_TRY(clq_tensor_group_index(s, t, (int32_t *)(void *)l->raw, l->err));
    return write_at(l, w->group_index + 4ull * w->cols * piece, l->raw, 4ull * w->cols);
}

// The weight is on the device: what the file's mapping holds of it may go.
static void forget_weight(const clq_view *v, const clq_weight *w)
{
    for (uint32_t i = 0; !w->tensor->computed && i < w->tensor->from.n_pieces; i++) {
        const clq_extent *codes = &piece_of(v, w->tensor, i)->codes;
        clq_file_forget(&v->source->files[codes->file], codes->offset, codes->n_bytes);
    }
}

static clq_status load_weight(loader *l, const clq_weight *w)
{
    if (w->bias_tensor) CLQ_TRY(load_vector(l, w->bias_tensor, w->is_vector ? w->cols : w->rows, w->bias));
    if (w->type.format == CLQ_INT) {
        for (uint32_t i = 0; i < w->count; i++) CLQ_TRY(load_integers(l, w, i));
        return CLQ_OK;
    }
    if (w->is_vector) return load_vector(l, w->tensor, w->cols, w->w);
    bool stored = !w->tensor->computed && piece_of(l->view, w->tensor, 0)->type.format == w->type.format &&
                  !piece_of(l->view, w->tensor, 0)->scales.n_bytes && w->tensor->from.shift == 0 &&
                  clq_origin_uniform(l->view->source, &w->tensor->from);
    return stored ? load_blocks(l, w) : load_floats(l, w->tensor, (uint64_t)w->rows * w->count, w->cols, w->w);
}

clq_status clq_unit_load(const clq_view *view, const clq_unit *unit, clq_memory *memory, uint64_t base,
                         clq_error *err)
{
    loader l = {.view = view, .memory = memory, .base = base, .err = err};
    clq_status st = CLQ_OK;
    for (int i = 0; i < CLQ_N_WEIGHTS && st == CLQ_OK; i++)
        if (unit->weights[i].tensor) {
            st = load_weight(&l, &unit->weights[i]);
            forget_weight(view, &unit->weights[i]);
        }
    free(l.raw);
    free(l.ordered);
    return st;
}

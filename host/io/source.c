// SPDX-License-Identifier: MIT
// Opening any checkpoint by its content, looking tensors up, reading them as floats.
#define _GNU_SOURCE // qsort_r
#include "io/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/half.h"

clq_tensor *clq_source_add_tensor(clq_source *s)
{
    if (s->n_tensors == s->capacity) {
        uint32_t capacity = s->capacity ? 2 * s->capacity : 64;
        if (capacity < s->capacity) return NULL;
        clq_tensor *tensors = realloc(s->tensors, capacity * sizeof *tensors);
        if (!tensors) return NULL;
        s->tensors = tensors;
        s->capacity = capacity;
    }
    clq_tensor *t = &s->tensors[s->n_tensors++];
    memset(t, 0, sizeof *t);
    return t;
}

void clq_source_drop_unnamed(clq_source *s)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_tensors; i++)
        if (s->tensors[i].name) s->tensors[kept++] = s->tensors[i];
    s->n_tensors = kept;
}

static int by_name(const void *a, const void *b, void *source)
{
    const clq_tensor *t = ((const clq_source *)source)->tensors;
    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

clq_status clq_source_check_names(clq_source *s, clq_error *err)
{
    free(s->by_name);
    s->by_name = malloc((s->n_tensors + 1) * sizeof *s->by_name);
    if (!s->by_name) return clq_fail_memory(err, s->n_tensors * sizeof *s->by_name);
    for (uint32_t i = 0; i < s->n_tensors; i++) s->by_name[i] = i;
    qsort_r(s->by_name, s->n_tensors, sizeof *s->by_name, by_name, s);
    for (uint32_t i = 1; i < s->n_tensors; i++) {
        const clq_tensor *t = &s->tensors[s->by_name[i - 1]], *u = &s->tensors[s->by_name[i]];
        if (strcmp(t->name, u->name) == 0)
            return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' stands twice: in '%s' and in '%s'", t->name,
                            s->files[t->codes.file].path, s->files[u->codes.file].path);
    }
    return CLQ_OK;
}

const clq_tensor *clq_source_find(const clq_source *s, const char *name)
{
    uint32_t low = 0, high = s->n_tensors;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const clq_tensor *t = &s->tensors[s->by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

// Whether a file without a magic can be meant as safetensors: by its first bytes, or by its name.
static bool may_be_safetensors(const clq_file *f, const uint8_t head[9])
{
    uint64_t len = 0;
    for (int i = 0; i < 8; i++) len |= (uint64_t)head[i] << (8 * i);
    return len <= f->size - 8 || head[8] == '{' || clq_ends_with(f->path, ".safetensors");
}

static clq_status open_single(clq_source *s, const clq_hooks *hooks, clq_error *err)
{
    s->files = calloc(1, sizeof *s->files);
    if (!s->files) return clq_fail_memory(err, sizeof *s->files);
    CLQ_TRY(clq_file_open(s->path, &s->files[0], err));
    s->n_files = 1;
    // The content decides, not the name: files of the Hugging Face cache have none.
    uint8_t head[9] = {0};
    if (s->files[0].size < 8)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has %" PRIu64 " bytes: neither a GGUF nor a safetensors file",
                        s->path, s->files[0].size);
    CLQ_TRY(clq_file_read(&s->files[0], 0, head, s->files[0].size < 9 ? 8 : 9, err));
    if (memcmp(head, "GGUF", 4) == 0) return clq_gguf_open(s, hooks, err);
    if (!may_be_safetensors(&s->files[0], head))
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' is neither a GGUF file (it does not begin with 'GGUF') nor a safetensors file (it does "
                        "not begin with a header)",
                        s->path);
    s->container = CLQ_SAFETENSORS;
    s->architecture = strdup("");
    if (!s->architecture) return clq_fail_memory(err, 1);
    CLQ_TRY(clq_safetensors_read(s, 0, err));
    CLQ_TRY(clq_source_check_names(s, err));
    return clq_compressed_assemble(s, hooks, err);
}

clq_status clq_source_open(const char *path, const clq_hooks *hooks, clq_source **source, clq_error *err)
{
    *source = NULL;
    struct stat sb;
    if (stat(path, &sb) != 0) return clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot open '%s'", path);
    clq_source *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return clq_fail_memory(err, sizeof *s);
    }
    clq_status st = S_ISDIR(sb.st_mode) ? clq_hfdir_open(s, hooks, err) : open_single(s, hooks, err);
    if (st == CLQ_OK)
        *source = s;
    else
        clq_source_close(s);
    return st;
}

void clq_source_close(clq_source *s)
{
    if (!s) return;
    for (uint32_t i = 0; i < s->n_tensors; i++) free(s->tensors[i].name);
    for (uint32_t i = 0; i < s->n_files; i++) clq_file_close(&s->files[i]);
    for (uint32_t i = 0; i < s->n_extra_files; i++) free(s->extra_files[i]);
    clq_kvs_free(&s->kvs);
    json_decref(s->config);
    json_decref(s->st_metadata);
    free(s->extra_files);
    free(s->by_name);
    free(s->tensors);
    free(s->files);
    free(s->architecture);
    free(s->path);
    free(s);
}

clq_container clq_source_container(const clq_source *s) { return s->container; }
const char *clq_source_architecture(const clq_source *s) { return s->architecture; }
uint32_t clq_source_count(const clq_source *s) { return s->n_tensors; }

const char *clq_activations_name(clq_activations kind)
{
    static const char *const names[] = {"none", "token", "tensor", "static", "auto"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "";
}

clq_activation_info clq_activation_describe(const clq_activation *a)
{
    static const clq_activations kinds[] = {[CLQ_QUANT_NONE] = CLQ_ACTIVATIONS_NONE,
                                            [CLQ_QUANT_TOKEN] = CLQ_ACTIVATIONS_TOKEN,
                                            [CLQ_QUANT_TENSOR] = CLQ_ACTIVATIONS_TENSOR,
                                            [CLQ_QUANT_STATIC] = CLQ_ACTIVATIONS_STATIC};
    return (clq_activation_info){kinds[a->quant], a->scale, a->zero_point};
}

clq_status clq_source_tensor(const clq_source *s, uint32_t index, clq_tensor_info *info, clq_error *err)
{
    if (index >= s->n_tensors)
        return clq_fail(err, CLQ_USAGE, "tensor %u of %u does not exist", index, s->n_tensors);
    const clq_tensor *t = &s->tensors[index];
    *info = (clq_tensor_info){
        .name = t->name,
        .n_dims = t->n_dims,
        .n_elements = t->n_elements,
        .n_bytes = t->codes.n_bytes + t->scales.n_bytes + t->zero_points.n_bytes + t->group_index.n_bytes,
        .file = s->files[t->codes.file].path,
        .offset = t->codes.offset,
        .activation = clq_activation_describe(&t->activation),
    };
    memcpy(info->dims, t->dims, sizeof info->dims);
    clq_type_name(&t->type, info->type);
    return CLQ_OK;
}

void clq_tensor_matrix(const clq_tensor *t, uint64_t *rows, uint64_t *cols)
{
    *cols = t->row_len ? t->row_len : t->n_dims ? t->dims[t->n_dims - 1] : 1;
    *rows = *cols ? t->n_elements / *cols : 0;
}

clq_status clq_source_rows(const clq_source *s, uint32_t index, uint64_t first, uint64_t n, float *y,
                           clq_error *err)
{
    if (index >= s->n_tensors)
        return clq_fail(err, CLQ_USAGE, "tensor %u of %u does not exist", index, s->n_tensors);
    const clq_tensor *t = &s->tensors[index];
    uint64_t rows = t->n_dims > 1 ? t->dims[0] : 1;
    if (first > rows || n > rows - first)
        return clq_fail(err, CLQ_USAGE, "rows %" PRIu64 "..%" PRIu64 " of tensor '%s', which has %" PRIu64, first,
                        first + n, t->name, rows);
    uint64_t all, cols;
    clq_tensor_matrix(t, &all, &cols);
    uint64_t per = rows ? all / rows : 0; // matrix rows in a row of the first dimension
    return clq_tensor_read(s, t, first * per, n * per, y, err);
}

// ---- decoding ----

clq_status clq_extent_view(const clq_source *s, const clq_extent *e, uint64_t offset, uint64_t n, uintptr_t align,
                           const void **bytes, void **owned, clq_error *err)
{
    const clq_file *f = &s->files[e->file];
    *owned = NULL;
    const uint8_t *p = clq_file_at(f, e->offset + offset);
    if (p && (uintptr_t)p % align == 0) {
        *bytes = p;
        return CLQ_OK;
    }
    *owned = malloc(n ? n : 1);
    if (!*owned) return clq_fail_memory(err, n);
    *bytes = *owned;
    clq_status st = clq_file_read(f, e->offset + offset, *owned, n, err);
    if (st != CLQ_OK) {
        free(*owned);
        *owned = NULL;
    }
    return st;
}

clq_status clq_extent_floats(const clq_source *s, const clq_extent *e, uint64_t first, uint64_t n, float *y,
                             clq_error *err)
{
    const uint64_t size = clq_format_at(e->format)->block_bytes;
    const void *bytes = NULL;
    void *owned;
    CLQ_TRY(clq_extent_view(s, e, first * size, n * size, size, &bytes, &owned, err));
    const uint8_t *u8 = bytes;
    switch (e->format) {
    case CLQ_F64:
        for (uint64_t i = 0; i < n; i++) y[i] = (float)((const double *)bytes)[i];
        break;
    case CLQ_F8_E4M3:
        for (uint64_t i = 0; i < n; i++) y[i] = clq_f8_e4m3_to_f32(u8[i]);
        break;
    case CLQ_F8_E5M2:
        for (uint64_t i = 0; i < n; i++) y[i] = clq_f8_e5m2_to_f32(u8[i]);
        break;
    default:
        clq_load_floats(e->format, bytes, n, y);
    }
    free(owned);
    return CLQ_OK;
}

// float8 with one scale per tile of scale_block[0] x scale_block[1].
static clq_status scale_rows(const clq_source *s, const clq_tensor *t, uint64_t cols, uint64_t first, uint64_t n,
                             float *y, clq_error *err)
{
    uint64_t block_rows = t->scale_block[0], block_cols = t->scale_block[1];
    uint64_t per_row = clq_div_up(cols, block_cols);
    float *scale = malloc(per_row * sizeof *scale);
    if (!scale) return clq_fail_memory(err, per_row * sizeof *scale);
    clq_status st = CLQ_OK;
    for (uint64_t r = 0; r < n && st == CLQ_OK; r++) {
        if (r == 0 || (first + r) % block_rows == 0)
            st = clq_extent_floats(s, &t->scales, (first + r) / block_rows * per_row, per_row, scale, err);
        for (uint64_t b = 0; b < per_row && st == CLQ_OK; b++) {
            uint64_t end = (b + 1) * block_cols < cols ? (b + 1) * block_cols : cols;
            for (uint64_t c = b * block_cols; c < end; c++) y[r * cols + c] *= scale[b];
        }
    }
    free(scale);
    return st;
}

clq_status clq_tensor_read(const clq_source *s, const clq_tensor *t, uint64_t first, uint64_t n, float *y,
                           clq_error *err)
{
    uint64_t rows, cols;
    clq_tensor_matrix(t, &rows, &cols);
    if (n == 0 || cols == 0) return CLQ_OK;
    if (t->type.format == CLQ_INT) return clq_integers_read(s, t, first, n, y, err);
    const clq_format *f = clq_format_row(t->type.format);
    if (f->kind == CLQ_KIND_OPAQUE)
        return clq_fail(err, CLQ_BAD_INPUT, "tensor '%s' is stored as %s, which cannot be decoded", t->name,
                        f->info.name);
    if (f->info.block_elements == 1) {
        bool float8 = t->type.format == CLQ_F8_E4M3 || t->type.format == CLQ_F8_E5M2;
        if (float8 && !t->scales.n_bytes)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "tensor '%s' is %s, but no weight_scale or weight_scale_inv stands beside it", t->name,
                            f->info.name);
        CLQ_TRY(clq_extent_floats(s, &t->codes, first * cols, n * cols, y, err));
        return t->scales.n_bytes ? scale_rows(s, t, cols, first, n, y, err) : CLQ_OK;
    }
    uint64_t block = first * cols / f->info.block_elements, n_blocks = n * cols / f->info.block_elements;
    const void *bytes = NULL;
    void *owned;
    uint64_t block_bytes = f->info.block_bytes;
    CLQ_TRY(clq_extent_view(s, &t->codes, block * block_bytes, n_blocks * block_bytes, 2, &bytes, &owned, err));
    f->decode_ref(bytes, n_blocks, y);
    free(owned);
    return CLQ_OK;
}

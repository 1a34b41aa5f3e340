// SPDX-License-Identifier: MIT
// GGUF metadata as a list of raw values, and the header writer.
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "io/gguf.h"

void clq_kvs_free(clq_gguf_kvs *kvs)
{
    for (uint32_t i = 0; i < kvs->n; i++) {
        free(kvs->items[i].key);
        free(kvs->items[i].value);
    }
    free(kvs->items);
    *kvs = (clq_gguf_kvs){0};
}

static clq_gguf_kv *find(const clq_gguf_kvs *kvs, const char *key)
{
    for (uint32_t i = 0; i < kvs->n; i++)
        if (strcmp(kvs->items[i].key, key) == 0) return &kvs->items[i];
    return NULL;
}

const clq_gguf_kv *clq_kv_find(const clq_gguf_kvs *kvs, const char *key)
{
    return find(kvs, key);
}

static uint64_t load_le(const uint8_t *p, unsigned n_bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n_bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

bool clq_kv_get_u64(const clq_gguf_kvs *kvs, const char *key, uint64_t *v)
{
    const clq_gguf_kv *kv = find(kvs, key);
    if (!kv) return false;
    switch (kv->type) {
    case CLQ_GGUF_U8: case CLQ_GGUF_U16: case CLQ_GGUF_U32: case CLQ_GGUF_U64:
        *v = load_le(kv->value, (unsigned)kv->n_bytes);
        return true;
    case CLQ_GGUF_I8: case CLQ_GGUF_I16: case CLQ_GGUF_I32: case CLQ_GGUF_I64:
        *v = load_le(kv->value, (unsigned)kv->n_bytes);
        return !(*v >> (8 * kv->n_bytes - 1) & 1);
    default:
        return false;
    }
}

bool clq_kv_get_f64(const clq_gguf_kvs *kvs, const char *key, double *v)
{
    const clq_gguf_kv *kv = find(kvs, key);
    if (kv && kv->type == CLQ_GGUF_F32) {
        *v = clq_from_bits((uint32_t)load_le(kv->value, 4));
        return true;
    }
    if (kv && kv->type == CLQ_GGUF_F64) {
        uint64_t bits = load_le(kv->value, 8);
        memcpy(v, &bits, 8);
        return true;
    }
    return false;
}

bool clq_kv_get_bool(const clq_gguf_kvs *kvs, const char *key, bool *v)
{
    const clq_gguf_kv *kv = find(kvs, key);
    if (!kv || kv->type != CLQ_GGUF_BOOL) return false;
    *v = kv->value[0] != 0;
    return true;
}

bool clq_kv_get_string(const clq_gguf_kvs *kvs, const char *key, const char **s, size_t *len)
{
    const clq_gguf_kv *kv = find(kvs, key);
    if (!kv || kv->type != CLQ_GGUF_STRING) return false;
    const uint8_t *cursor = kv->value;
    clq_kv_next_string(&cursor, s, len);
    return true;
}

char *clq_kv_dup_string(const clq_gguf_kvs *kvs, const char *key)
{
    const char *s;
    size_t len;
    if (!clq_kv_get_string(kvs, key, &s, &len)) return NULL;
    return strndup(s, len);
}

bool clq_kv_get_array(const clq_gguf_kvs *kvs, const char *key, clq_gguf_type *element, uint64_t *n,
                      const uint8_t **elements)
{
    const clq_gguf_kv *kv = find(kvs, key);
    if (!kv || kv->type != CLQ_GGUF_ARRAY) return false;
    *element = (clq_gguf_type)load_le(kv->value, 4);
    *n = load_le(kv->value + 4, 8);
    *elements = kv->value + 12;
    return true;
}

void clq_kv_next_string(const uint8_t **cursor, const char **s, size_t *len)
{
    *len = (size_t)load_le(*cursor, 8);
    *s = (const char *)*cursor + 8;
    *cursor += 8 + *len;
}

void clq_kv_set_raw(clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, const void *value,
                    uint64_t n_bytes)
{
    if (kvs->failed) return;
    uint8_t *copy = malloc(n_bytes ? n_bytes : 1);
    clq_gguf_kv *kv = find(kvs, key);
    if (!kv && copy) {
        if (kvs->n == kvs->capacity) {
            uint32_t capacity = kvs->capacity ? 2 * kvs->capacity : 32;
            clq_gguf_kv *items = realloc(kvs->items, capacity * sizeof *items);
            if (!items) goto fail;
            kvs->items = items;
            kvs->capacity = capacity;
        }
        char *own_key = strdup(key);
        if (!own_key) goto fail;
        kv = &kvs->items[kvs->n++];
        *kv = (clq_gguf_kv){.key = own_key};
    }
    if (!copy) goto fail;
    memcpy(copy, value, n_bytes);
    free(kv->value);
    kv->type = type;
    kv->value = copy;
    kv->n_bytes = n_bytes;
    return;
fail:
    free(copy);
    kvs->failed = true;
}

static void set_buf(clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, clq_buf *b)
{
    if (b->failed)
        kvs->failed = true;
    else
        clq_kv_set_raw(kvs, key, type, b->data, b->len);
    clq_buf_free(b);
}

void clq_kv_set_u16(clq_gguf_kvs *kvs, const char *key, uint16_t v)
{
    uint8_t bytes[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    clq_kv_set_raw(kvs, key, CLQ_GGUF_U16, bytes, sizeof bytes);
}

static void set_word(clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, uint32_t v)
{
    clq_buf b = {0};
    clq_buf_u32(&b, v);
    set_buf(kvs, key, type, &b);
}

void clq_kv_set_u32(clq_gguf_kvs *kvs, const char *key, uint32_t v)
{
    set_word(kvs, key, CLQ_GGUF_U32, v);
}

void clq_kv_set_i32(clq_gguf_kvs *kvs, const char *key, int32_t v)
{
    set_word(kvs, key, CLQ_GGUF_I32, (uint32_t)v);
}

void clq_kv_set_f32(clq_gguf_kvs *kvs, const char *key, float v)
{
    set_word(kvs, key, CLQ_GGUF_F32, clq_bits(v));
}

void clq_kv_set_bool(clq_gguf_kvs *kvs, const char *key, bool v)
{
    uint8_t byte = v;
    clq_kv_set_raw(kvs, key, CLQ_GGUF_BOOL, &byte, 1);
}

static void put_string(clq_buf *b, const char *s, size_t len)
{
    clq_buf_u64(b, len);
    clq_buf_append(b, s, len);
}

void clq_kv_set_string(clq_gguf_kvs *kvs, const char *key, const char *s, size_t len)
{
    clq_buf b = {0};
    put_string(&b, s, len);
    set_buf(kvs, key, CLQ_GGUF_STRING, &b);
}

static clq_buf array_head(clq_gguf_type element, uint64_t n)
{
    clq_buf b = {0};
    clq_buf_u32(&b, element);
    clq_buf_u64(&b, n);
    return b;
}

void clq_kv_set_strings(clq_gguf_kvs *kvs, const char *key, const char *const *s, const size_t *len,
                        uint64_t n)
{
    clq_buf b = array_head(CLQ_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) put_string(&b, s[i], len[i]);
    set_buf(kvs, key, CLQ_GGUF_ARRAY, &b);
}

void clq_kv_set_f32s(clq_gguf_kvs *kvs, const char *key, const float *v, uint64_t n)
{
    clq_buf b = array_head(CLQ_GGUF_F32, n);
    for (uint64_t i = 0; i < n; i++) clq_buf_u32(&b, clq_bits(v[i]));
    set_buf(kvs, key, CLQ_GGUF_ARRAY, &b);
}

void clq_kv_set_i32s(clq_gguf_kvs *kvs, const char *key, const int32_t *v, uint64_t n)
{
    clq_buf b = array_head(CLQ_GGUF_I32, n);
    for (uint64_t i = 0; i < n; i++) clq_buf_u32(&b, (uint32_t)v[i]);
    set_buf(kvs, key, CLQ_GGUF_ARRAY, &b);
}

void clq_kv_remove(clq_gguf_kvs *kvs, const char *key)
{
    clq_gguf_kv *kv = find(kvs, key);
    if (!kv) return;
    free(kv->key);
    free(kv->value);
    size_t behind = (size_t)(kvs->items + kvs->n - (kv + 1));
    memmove(kv, kv + 1, behind * sizeof *kv);
    kvs->n--;
}

void clq_gguf_write_header(clq_buf *out, const clq_gguf_kvs *kvs, const clq_gguf_tensor *tensors,
                           uint64_t n_tensors, uint32_t alignment)
{
    if (kvs->failed) out->failed = true;
    size_t start = out->len;
    clq_buf_text(out, "GGUF");
    clq_buf_u32(out, 3);
    clq_buf_u64(out, n_tensors);
    clq_buf_u64(out, kvs->n);
    for (uint32_t i = 0; i < kvs->n; i++) {
        const clq_gguf_kv *kv = &kvs->items[i];
        put_string(out, kv->key, strlen(kv->key));
        clq_buf_u32(out, kv->type);
        clq_buf_append(out, kv->value, kv->n_bytes);
    }
    for (uint64_t i = 0; i < n_tensors; i++) {
        const clq_gguf_tensor *t = &tensors[i];
        put_string(out, t->name, strlen(t->name));
        clq_buf_u32(out, t->n_dims);
        for (uint32_t d = t->n_dims; d-- > 0;) clq_buf_u64(out, t->dims[d]);
        clq_buf_u32(out, t->ggml_type);
        clq_buf_u64(out, t->offset);
    }
    size_t rest = (out->len - start) % alignment;
    if (rest) clq_buf_zeros(out, alignment - rest);
}

// SPDX-License-Identifier: MIT
// GGUF v2 and v3: metadata kept byte for byte, tensor descriptions, header writing.
// Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef CLQ_IO_GGUF_H
#define CLQ_IO_GGUF_H

#include "base/buffer.h"
#include "base/error.h"

typedef enum clq_gguf_type {
    CLQ_GGUF_U8, CLQ_GGUF_I8, CLQ_GGUF_U16, CLQ_GGUF_I16, CLQ_GGUF_U32, CLQ_GGUF_I32, CLQ_GGUF_F32,
    CLQ_GGUF_BOOL, CLQ_GGUF_STRING, CLQ_GGUF_ARRAY, CLQ_GGUF_U64, CLQ_GGUF_I64, CLQ_GGUF_F64,
    CLQ_GGUF_TYPE_COUNT
} clq_gguf_type;

// value: the bytes behind the type number, as they stand in the file (an array's begin with its
// element type, u32, and count, u64; a string's with its length, u64). Owned.
typedef struct clq_gguf_kv {
    char *key;
    clq_gguf_type type;
    uint8_t *value;
    uint64_t n_bytes;
} clq_gguf_kv;

typedef struct clq_gguf_kvs {
    clq_gguf_kv *items;
    uint32_t n, capacity;
    bool failed; // an allocation failed; checked once by the writer
} clq_gguf_kvs;

void clq_kvs_free(clq_gguf_kvs *kvs);
const clq_gguf_kv *clq_kv_find(const clq_gguf_kvs *kvs, const char *key);

// Readers: false when the key is missing or not of that kind.
bool clq_kv_get_u64(const clq_gguf_kvs *kvs, const char *key, uint64_t *v); // any integer type >= 0
bool clq_kv_get_f64(const clq_gguf_kvs *kvs, const char *key, double *v);   // f32 or f64
bool clq_kv_get_bool(const clq_gguf_kvs *kvs, const char *key, bool *v);
// Borrowed, not NUL-terminated.
bool clq_kv_get_string(const clq_gguf_kvs *kvs, const char *key, const char **s, size_t *len);
// New NUL-terminated memory, NULL when missing.
char *clq_kv_dup_string(const clq_gguf_kvs *kvs, const char *key);
// elements: borrowed bytes of the elements, n of them (little-endian; unaligned).
bool clq_kv_get_array(const clq_gguf_kvs *kvs, const char *key, clq_gguf_type *element, uint64_t *n,
                      const uint8_t **elements);
// Steps through the elements of a string array: call n times with the same cursor.
void clq_kv_next_string(const uint8_t **cursor, const char **s, size_t *len);

// Writers: replace the key where it stands, else append.
void clq_kv_set_u16(clq_gguf_kvs *kvs, const char *key, uint16_t v);
void clq_kv_set_u32(clq_gguf_kvs *kvs, const char *key, uint32_t v);
void clq_kv_set_i32(clq_gguf_kvs *kvs, const char *key, int32_t v);
void clq_kv_set_f32(clq_gguf_kvs *kvs, const char *key, float v);
void clq_kv_set_bool(clq_gguf_kvs *kvs, const char *key, bool v);
void clq_kv_set_string(clq_gguf_kvs *kvs, const char *key, const char *s, size_t len);
void clq_kv_set_strings(clq_gguf_kvs *kvs, const char *key, const char *const *s, const size_t *len,
                        uint64_t n);
void clq_kv_set_f32s(clq_gguf_kvs *kvs, const char *key, const float *v, uint64_t n);
void clq_kv_set_i32s(clq_gguf_kvs *kvs, const char *key, const int32_t *v, uint64_t n);
// Copies bytes as they are.
void clq_kv_set_raw(clq_gguf_kvs *kvs, const char *key, clq_gguf_type type, const void *value,
                    uint64_t n_bytes);
void clq_kv_remove(clq_gguf_kvs *kvs, const char *key);

// A tensor as a header describes it. dims are row-major here (GGUF stores them reversed).
typedef struct clq_gguf_tensor {
    const char *name;
    uint32_t ggml_type;
    uint32_t n_dims;
    uint64_t dims[4];
    uint64_t offset; // in the data section
} clq_gguf_tensor;

// Appends a v3 header, padded to `alignment`.
void clq_gguf_write_header(clq_buf *out, const clq_gguf_kvs *kvs, const clq_gguf_tensor *tensors,
                           uint64_t n_tensors, uint32_t alignment);

#endif

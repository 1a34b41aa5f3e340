// SPDX-License-Identifier: MIT
// The GGUF reader. Every count and length is checked against what is left of the file before it is
// used: `left` never wraps, and nothing is allocated for more items than the file could hold.
#include "io/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/source.h"

enum {
    MAX_ARRAY_DEPTH = 8,
    MAX_NAME = 4096,          // llama.cpp itself stops at 63; longer names are preserved here
    MAX_ALIGNMENT = 64 << 10, // a power of two up to this
    MAX_KVS = 10000,
    MAX_SPLITS = 99999,
};
static const uint64_t MAX_HEADER = 1u << 30;

typedef struct {
    const char *path;
    const uint8_t *p;
    uint64_t left;
    clq_error *err;
} cursor;

static clq_status corrupt(cursor *c, const char *what)
{
    return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': %s (truncated or corrupt GGUF header)", c->path, what);
}

static bool take(cursor *c, uint64_t n, const uint8_t **p)
{
    if (n > c->left) return false;
    *p = c->p;
    c->p += n;
    c->left -= n;
    return true;
}

static bool take_u32(cursor *c, uint32_t *v)
{
    const uint8_t *p;
    if (!take(c, 4, &p)) return false;
    *v = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

static bool take_u64(cursor *c, uint64_t *v)
{
    uint32_t low, high;
    if (!take_u32(c, &low) || !take_u32(c, &high)) return false;
    *v = (uint64_t)high << 32 | low;
    return true;
}

static bool take_string(cursor *c, const char **s, uint64_t *len)
{
    const uint8_t *p;
    if (!take_u64(c, len) || !take(c, *len, &p)) return false;
    *s = (const char *)p;
    return true;
}

// A name or key in new memory.
static clq_status take_name(cursor *c, const char *what, char **name)
{
    const char *s;
    uint64_t len;
    if (!take_string(c, &s, &len)) return corrupt(c, what);
    if (len == 0 || len > MAX_NAME || memchr(s, '\0', len))
        return clq_fail(c->err, CLQ_BAD_INPUT,
                        "'%s': %s of %" PRIu64 " bytes: 1 to %d bytes without NUL are allowed",
                        c->path, what, len, MAX_NAME);
    *name = strndup(s, len);
    return *name ? CLQ_OK : clq_fail_memory(c->err, len);
}

static const uint8_t scalar_bytes[CLQ_GGUF_TYPE_COUNT] = {
    [CLQ_GGUF_U8] = 1,  [CLQ_GGUF_I8] = 1,  [CLQ_GGUF_U16] = 2, [CLQ_GGUF_I16] = 2,
    [CLQ_GGUF_U32] = 4, [CLQ_GGUF_I32] = 4, [CLQ_GGUF_F32] = 4, [CLQ_GGUF_BOOL] = 1,
    [CLQ_GGUF_U64] = 8, [CLQ_GGUF_I64] = 8, [CLQ_GGUF_F64] = 8,
};

static bool skip_value(cursor *c, uint32_t type, int depth)
{
    const uint8_t *p;
    const char *s;
    uint64_t n;
    if (type >= CLQ_GGUF_TYPE_COUNT) return false;
    if (type == CLQ_GGUF_STRING) return take_string(c, &s, &n);
    if (type != CLQ_GGUF_ARRAY) return take(c, scalar_bytes[type], &p);
    uint32_t element;
    if (depth >= MAX_ARRAY_DEPTH || !take_u32(c, &element) || !take_u64(c, &n)) return false;
    if (element >= CLQ_GGUF_TYPE_COUNT) return false;
    if (scalar_bytes[element])
        return n <= c->left / scalar_bytes[element] && take(c, n * scalar_bytes[element], &p);
    for (uint64_t i = 0; i < n; i++) // each takes at least 8 bytes, so this ends with the file
        if (!skip_value(c, element, depth + 1)) return false;
    return true;
}

static clq_status read_kvs(cursor *c, uint64_t n, clq_gguf_kvs *kvs)
{
    if (n > c->left / 13) return corrupt(c, "more metadata entries than the file can hold");
    if (n > MAX_KVS)
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': %" PRIu64 " metadata entries; at most %d are read",
                        c->path, n, MAX_KVS);
    for (uint64_t i = 0; i < n; i++) {
        char *key;
        CLQ_TRY(take_name(c, "a metadata key", &key));
        uint32_t type;
        const uint8_t *value = NULL;
        clq_status st = CLQ_OK;
        if (clq_kv_find(kvs, key)) {
            st = clq_fail(c->err, CLQ_BAD_INPUT, "'%s': metadata key '%s' stands twice", c->path, key);
        } else if (!take_u32(c, &type) || (value = c->p, !skip_value(c, type, 0))) {
            st = clq_fail(c->err, CLQ_BAD_INPUT,
                          "'%s': the value of metadata key '%s' is truncated or of an unknown type",
                          c->path, key);
        } else {
            clq_kv_set_raw(kvs, key, (clq_gguf_type)type, value, (uint64_t)(c->p - value));
            if (kvs->failed) st = clq_fail_memory(c->err, (uint64_t)(c->p - value));
        }
        free(key);
        CLQ_TRY(st);
    }
    return CLQ_OK;
}

static clq_status read_alignment(cursor *c, const clq_gguf_kvs *kvs, uint32_t *alignment)
{
    *alignment = 32;
    const clq_gguf_kv *kv = clq_kv_find(kvs, "general.alignment");
    if (!kv) return CLQ_OK;
    uint64_t v = 0;
    if (kv->type != CLQ_GGUF_U32 || !clq_kv_get_u64(kvs, "general.alignment", &v) || v == 0 ||
        v > MAX_ALIGNMENT || (v & (v - 1)))
        return clq_fail(c->err, CLQ_BAD_INPUT,
                        "'%s': general.alignment must be a u32 power of two from 1 to %d", c->path,
                        MAX_ALIGNMENT);
    *alignment = (uint32_t)v;
    return CLQ_OK;
}

// Reads one tensor description; the offset stays relative to the data section.
static clq_status read_tensor(cursor *c, clq_tensor *t)
{
    CLQ_TRY(take_name(c, "a tensor name", &t->name));
    uint32_t n_dims, ggml_type;
    if (!take_u32(c, &n_dims)) return corrupt(c, "a tensor description ends early");
    if (n_dims > 4)
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensor '%s' has %u dimensions, GGUF has at most 4",
                        c->path, t->name, n_dims);
    t->n_dims = n_dims;
    t->n_elements = 1;
    for (uint32_t d = n_dims; d-- > 0;) {
        if (!take_u64(c, &t->dims[d])) return corrupt(c, "a tensor description ends early");
        if (t->dims[d] == 0)
            return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensor '%s' has a dimension of 0", c->path,
                            t->name);
        if (!clq_mul_u64(t->n_elements, t->dims[d], &t->n_elements))
            return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensor '%s' has more than 2^64 elements",
                            c->path, t->name);
    }
    if (!take_u32(c, &ggml_type) || !take_u64(c, &t->codes.offset))
        return corrupt(c, "a tensor description ends early");
    clq_format_id format = clq_format_of_ggml(ggml_type);
    if (format == CLQ_FORMAT_COUNT)
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensor '%s' has the unknown ggml type %u",
                        c->path, t->name, ggml_type);
    t->type = clq_plain(format);
    t->codes.format = format;
    uint64_t cols = n_dims ? t->dims[n_dims - 1] : 1;
    if (cols % clq_format_at(format)->block_elements)
        return clq_fail(c->err, CLQ_BAD_INPUT,
                        "'%s': tensor '%s': rows of %" PRIu64 " elements are not whole %s blocks of %u",
                        c->path, t->name, cols, clq_format_at(format)->name,
                        clq_format_at(format)->block_elements);
    if (!clq_format_bytes(format, t->n_elements, &t->codes.n_bytes))
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensor '%s' has more than 2^64 bytes", c->path, t->name);
    return CLQ_OK;
}

static clq_status check_magic(cursor *c, uint32_t *version)
{
    const uint8_t *magic;
    if (!take(c, 4, &magic) || memcmp(magic, "GGUF", 4) != 0) return corrupt(c, "no GGUF magic");
    if (!take_u32(c, version)) return corrupt(c, "no version");
    if (*version == 3u << 24 || *version == 2u << 24)
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s' is a big-endian GGUF file; only little-endian is read",
                        c->path);
    if (*version != 2 && *version != 3)
        return clq_fail(c->err, CLQ_BAD_INPUT, "'%s': GGUF version %u; versions 2 and 3 are read",
                        c->path, *version);
    return CLQ_OK;
}

static int by_offset(const void *a, const void *b)
{
    const clq_tensor *x = *(const clq_tensor *const *)a, *y = *(const clq_tensor *const *)b;
    return x->codes.offset < y->codes.offset ? -1 : x->codes.offset > y->codes.offset;
}

// No two tensors may share bytes: an encoder downstream could not tell which is meant.
static clq_status check_overlap(cursor *c, const clq_source *s, uint32_t first)
{
    uint32_t n = s->n_tensors - first;
    if (n < 2) return CLQ_OK;
    clq_tensor **order = malloc(n * sizeof *order);
    if (!order) return clq_fail_memory(c->err, n * sizeof *order);
    for (uint32_t i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    qsort(order, n, sizeof *order, by_offset);
    clq_status st = CLQ_OK;
    for (uint32_t i = 1; i < n && st == CLQ_OK; i++)
        if (order[i]->codes.offset < order[i - 1]->codes.offset + order[i - 1]->codes.n_bytes)
            st = clq_fail(c->err, CLQ_BAD_INPUT, "'%s': tensors '%s' and '%s' overlap", c->path,
                          order[i - 1]->name, order[i]->name);
    free(order);
    return st;
}

// Places the tensors [first, n_tensors) of file `file`, whose data section starts at `data`.
static clq_status place_tensors(cursor *c, clq_source *s, uint32_t first, uint32_t file,
                                uint64_t data, uint32_t alignment)
{
    uint64_t size = s->files[file].size;
    for (uint32_t i = first; i < s->n_tensors; i++) {
        clq_tensor *t = &s->tensors[i];
        uint64_t begin, end;
        if (t->codes.offset % alignment)
            return clq_fail(c->err, CLQ_BAD_INPUT,
                            "'%s': tensor '%s' starts at %" PRIu64 ", not a multiple of the alignment %u",
                            c->path, t->name, t->codes.offset, alignment);
        if (!clq_add_u64(data, t->codes.offset, &begin) ||
            !clq_add_u64(begin, t->codes.n_bytes, &end) || end > size)
            return clq_fail(c->err, CLQ_BAD_INPUT,
                            "'%s': tensor '%s' ends past the file's %" PRIu64
                            " bytes (file truncated, or header corrupt)",
                            c->path, t->name, size);
        t->codes.file = file;
        t->codes.offset = begin;
    }
    return check_overlap(c, s, first);
}

// Parses a header of which `have` bytes are at hand.
static clq_status parse_part(clq_source *s, uint32_t file, const uint8_t *header, uint64_t have,
                             clq_gguf_kvs *kvs, uint32_t *alignment, clq_error *err)
{
    cursor c = {.path = s->files[file].path, .err = err, .p = header, .left = have};
    uint32_t version, first = s->n_tensors;
    uint64_t n_tensors, n_kvs, data;
    CLQ_TRY(check_magic(&c, &version));
    if (!take_u64(&c, &n_tensors) || !take_u64(&c, &n_kvs)) return corrupt(&c, "no counts");
    CLQ_TRY(read_kvs(&c, n_kvs, kvs));
    CLQ_TRY(read_alignment(&c, kvs, alignment));
    if (n_tensors > c.left / 24) return corrupt(&c, "more tensors than the file can hold");
    for (uint64_t i = 0; i < n_tensors; i++) {
        clq_tensor *t = clq_source_add_tensor(s);
        if (!t) return clq_fail_memory(err, sizeof *t);
        CLQ_TRY(read_tensor(&c, t));
    }
    if (!clq_round_up_u64((uint64_t)(c.p - header), *alignment, &data))
        return corrupt(&c, "the header is too long");
    return place_tensors(&c, s, first, file, data, *alignment);
}

static void forget_tensors(clq_source *s, uint32_t first)
{
    while (s->n_tensors > first) free(s->tensors[--s->n_tensors].name);
}

// Reads the file `file` of the source; its metadata goes to kvs.
static clq_status read_part(clq_source *s, uint32_t file, clq_gguf_kvs *kvs, uint32_t *alignment,
                            clq_error *err)
{
    const clq_file *f = &s->files[file];
    uint64_t most = f->size < MAX_HEADER ? f->size : MAX_HEADER;
    if (f->map) return parse_part(s, file, f->map, most, kvs, alignment, err);
    // Not mapped: the header's length is known only once it is parsed, so read more until it is.
    uint32_t first = s->n_tensors;
    for (uint64_t have = 4u << 20;; have *= 2) {
        if (have > most) have = most;
        uint8_t *header = malloc(have ? have : 1);
        if (!header) return clq_fail_memory(err, have);
        clq_status st = clq_file_read(f, 0, header, have, err);
        if (st == CLQ_OK) st = parse_part(s, file, header, have, kvs, alignment, err);
        free(header);
        if (st == CLQ_OK || have == most) return st;
        forget_tensors(s, first);
        clq_kvs_free(kvs);
    }
}

// "model-00001-of-00003.gguf" -> part number and count; the length of the text in front of them.
static bool split_name(const char *path, uint64_t *stem, uint32_t *no, uint32_t *count)
{
    size_t len = strlen(path);
    const size_t tail = strlen("-00001-of-00003.gguf");
    unsigned n, of;
    char rest;
    if (len <= tail || sscanf(path + len - tail, "-%5u-of-%5u.gguf%c", &n, &of, &rest) != 2) return false;
    *stem = len - tail;
    *no = n;
    *count = of;
    return n >= 1 && n <= of && of <= MAX_SPLITS;
}

static clq_status add_file(clq_source *s, const char *path, clq_error *err)
{
    clq_file *files = realloc(s->files, (s->n_files + 1) * sizeof *files);
    if (!files) return clq_fail_memory(err, sizeof *files);
    s->files = files;
    CLQ_TRY(clq_file_open(path, &files[s->n_files], err));
    s->n_files++;
    return CLQ_OK;
}

static clq_status open_split(clq_source *s, uint64_t n_parts, clq_error *err)
{
    uint64_t stem;
    uint32_t no, count;
    if (!split_name(s->path, &stem, &no, &count) || count != n_parts)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "'%s' says that it is one of %" PRIu64
                        " parts, so its name should end in -00001-of-%05" PRIu64 ".gguf",
                        s->path, n_parts, n_parts);
    size_t len = strlen(s->path) + 1;
    char *path = malloc(len);
    if (!path) return clq_fail_memory(err, len);
    clq_status st = CLQ_OK;
    // Start anew with part 1, whose metadata is the model's.
    forget_tensors(s, 0);
    clq_kvs_free(&s->kvs);
    clq_file_close(&s->files[0]);
    s->n_files = 0;
    for (uint32_t i = 1; i <= count && st == CLQ_OK; i++) {
        memcpy(path, s->path, stem);
        snprintf(path + stem, len - stem, "-%05u-of-%05u.gguf", i, count);
        clq_gguf_kvs other = {0};
        clq_gguf_kvs *kvs = i == 1 ? &s->kvs : &other;
        uint32_t alignment;
        uint64_t part = 0, parts = 0;
        st = add_file(s, path, err);
        if (st == CLQ_OK) st = read_part(s, i - 1, kvs, &alignment, err);
        if (st == CLQ_OK && i == 1) s->alignment = alignment;
        if (st == CLQ_OK && (!clq_kv_get_u64(kvs, "split.no", &part) || part != i - 1 ||
                             !clq_kv_get_u64(kvs, "split.count", &parts) || parts != count))
            st = clq_fail(err, CLQ_BAD_INPUT, "'%s': split.no or split.count does not fit its name", path);
        clq_kvs_free(&other);
    }
    free(path);
    uint64_t expected = 0;
    if (st == CLQ_OK && clq_kv_get_u64(&s->kvs, "split.tensors.count", &expected) &&
        expected != s->n_tensors)
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': the parts hold %u tensors, split.tensors.count says %" PRIu64,
                      s->path, s->n_tensors, expected);
    return st;
}

clq_status clq_gguf_open(clq_source *s, const clq_hooks *hooks, clq_error *err)
{
    (void)hooks;
    s->container = CLQ_GGUF;
    CLQ_TRY(read_part(s, 0, &s->kvs, &s->alignment, err));
    uint64_t parts = 0;
    if (clq_kv_get_u64(&s->kvs, "split.count", &parts) && parts > 1) CLQ_TRY(open_split(s, parts, err));
    s->architecture = clq_kv_dup_string(&s->kvs, "general.architecture");
    if (!s->architecture) s->architecture = strdup("");
    if (!s->architecture) return clq_fail_memory(err, 1);
    return clq_source_check_names(s, err);
}

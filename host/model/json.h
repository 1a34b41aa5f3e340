// SPDX-License-Identifier: MIT
// JSON files of a model's folder: bounded, duplicate keys refused, typed reads that name the key.
#ifndef CLQ_MODEL_JSON_H
#define CLQ_MODEL_JSON_H

#include <jansson.h>

#include "base/buffer.h"
#include "base/error.h"
#include "model/translate.h"

enum { CLQ_MAX_JSON_BYTES = 128 << 20 };

bool clq_has_file(const char *dir, const char *name);
// CLQ_OK and *out NULL when there is no such file. The caller ends *out with json_decref.
clq_status clq_json_load(const char *dir, const char *name, json_t **out, clq_error *err);
// The same for text; free() it.
clq_status clq_text_load(const char *dir, const char *name, char **text, size_t *len,
                         clq_error *err);

// Typed members: false when missing or null. *bad is set when a member is there but has another
// type or is out of range; it is never cleared.
bool clq_json_u32(const json_t *object, const char *key, uint32_t *v, bool *bad);
bool clq_json_number(const json_t *object, const char *key, double *v, bool *bad);
bool clq_json_bool(const json_t *object, const char *key, bool *v);
// NULL when it is no string, or one with a NUL byte in it.
const char *clq_json_string(const json_t *value);
const char *clq_json_text(const json_t *object, const char *key); // the same of a member
// Adds value (stolen) to an object; CLQ_DEVICE when memory ran out, also where value is NULL.
clq_status clq_json_set(json_t *object, const char *key, json_t *value, clq_error *err);
// The shortest decimal number that reads back as the same float: 0.1f gives 0.1.
json_t *clq_json_f32(float v);

// Appends a file to a translation. The text is stolen (freed on failure).
clq_status clq_add_text_file(clq_translation *t, const char *name, char *data, size_t len,
                             clq_error *err);
// Appends a JSON document as a file; the document stays the caller's.
clq_status clq_add_json_file(clq_translation *t, const char *name, const json_t *document,
                             clq_error *err);

#endif

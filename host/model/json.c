// SPDX-License-Identifier: MIT
#include "model/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"

bool clq_has_file(const char *dir, const char *name)
{
    char *path = clq_path_join(dir, name);
    bool has = path && access(path, F_OK) == 0;
    free(path);
    return has;
}

clq_status clq_text_load(const char *dir, const char *name, char **text, size_t *len,
                         clq_error *err)
{
    *text = NULL;
    *len = 0;
    if (!clq_has_file(dir, name)) return CLQ_OK;
    char *path = clq_path_join(dir, name);
    if (!path) return clq_fail_memory(err, strlen(dir) + strlen(name) + 2);
    clq_status st = clq_file_slurp(path, CLQ_MAX_JSON_BYTES, text, len, err);
    free(path);
    return st;
}

// A copy of JSON text in which integers beyond 18 digits are written as real numbers: tokenizer
// libraries write 10^30 for "no limit", which is more than an integer of the parser holds.
static void widen_integers(const char *text, size_t len, clq_buf *out)
{
    bool in_string = false;
    size_t copied = 0;
    for (size_t i = 0; i < len; i++) {
        if (in_string && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && text[i] >= '0' && text[i] <= '9') {
            size_t begin = i;
            while (i < len && text[i] >= '0' && text[i] <= '9') i++;
            bool alone = (begin == 0 || !strchr(".eE+", text[begin - 1])) &&
                         (i == len || !strchr(".eE", text[i]));
            if (alone && i - begin > 18) {
                clq_buf_append(out, text + copied, i - copied);
                clq_buf_text(out, "e0");
                copied = i;
            }
            i--;
        }
    }
    if (copied < len) clq_buf_append(out, text + copied, len - copied);
}

clq_status clq_json_load(const char *dir, const char *name, json_t **out, clq_error *err)
{
    char *text;
    size_t len;
    *out = NULL;
    CLQ_TRY(clq_text_load(dir, name, &text, &len, err));
    if (!text) return CLQ_OK;
    json_error_t why;
    clq_buf wide = {0};
    widen_integers(text, len, &wide);
    bool failed = wide.failed;
    if (!failed)
        *out = json_loadb(wide.len ? wide.data : "", wide.len,
                          JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    clq_buf_free(&wide);
    free(text);
    if (failed) return clq_fail_memory(err, len);
    if (*out) return CLQ_OK;
    return clq_fail(err, CLQ_BAD_INPUT, "'%s/%s' is no valid JSON: line %d: %s", dir, name,
                    why.line, why.text);
}

bool clq_json_u32(const json_t *object, const char *key, uint32_t *v, bool *bad)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return false;
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > INT32_MAX) {
        *bad = true;
        return false;
    }
    *v = (uint32_t)n;
    return true;
}

bool clq_json_number(const json_t *object, const char *key, double *v, bool *bad)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return false;
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        *bad = true;
        return false;
    }
    *v = json_number_value(value);
    return true;
}

bool clq_json_bool(const json_t *object, const char *key, bool *v)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value)) return false;
    *v = json_is_true(value);
    return true;
}

const char *clq_json_string(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

const char *clq_json_text(const json_t *object, const char *key)
{
    return clq_json_string(json_object_get(object, key));
}

clq_status clq_json_set(json_t *object, const char *key, json_t *value, clq_error *err)
{
    if (json_object_set_new(object, key, value) == 0) return CLQ_OK;
    return clq_fail(err, CLQ_DEVICE, "out of memory while '%s' was written", key);
}

json_t *clq_json_f32(float v)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    return json_real(strtod(text, NULL));
}

clq_status clq_add_text_file(clq_translation *t, const char *name, char *data, size_t len,
                             clq_error *err)
{
    clq_text_file *files = realloc(t->files, (t->n_files + 1) * sizeof *files);
    if (files) t->files = files;
    char *own_name = files ? strdup(name) : NULL;
    if (!own_name || !data) {
        free(own_name);
        free(data);
        return clq_fail(err, CLQ_DEVICE, "out of memory while '%s' was written", name);
    }
    files[t->n_files++] = (clq_text_file){.name = own_name, .data = data, .len = len};
    return CLQ_OK;
}

clq_status clq_add_json_file(clq_translation *t, const char *name, const json_t *document,
                             clq_error *err)
{
    char *text = json_dumps(document, JSON_INDENT(2));
    return clq_add_text_file(t, name, text, text ? strlen(text) : 0, err);
}

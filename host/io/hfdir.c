// SPDX-License-Identifier: MIT
// Hugging Face folders: which weight files count, what is carried along.
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "io/source.h"

static const char AWQ_CONFIG[] = "quant_config.json", GPTQ_CONFIG[] = "quantize_config.json";
static const uint64_t MAX_JSON = 256u << 20;
static const uint64_t MAX_EXTRA_FILE = 256u << 20;

// *json stays NULL when the file does not exist.
static clq_status load_json(const char *dir, const char *name, json_t **json, clq_error *err)
{
    *json = NULL;
    char *path = clq_path_join(dir, name);
    if (!path) return clq_fail_memory(err, strlen(dir));
    struct stat sb;
    clq_status st = CLQ_OK;
    char *text = NULL;
    size_t len;
    if (stat(path, &sb) != 0 && errno == ENOENT) goto out;
    CLQ_TRY_OUT(clq_file_slurp(path, MAX_JSON, &text, &len, err));
    json_error_t why;
    *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(*json)) {
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s' is not a JSON object: %s (line %d)", path,
                      *json ? "another kind of value" : why.text, *json ? 1 : why.line);
        json_decref(*json);
        *json = NULL;
    }
out:
    free(text);
    free(path);
    return st;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct {
    char **items;
    uint32_t n, capacity;
} list;

static clq_status list_add(list *l, const char *text, clq_error *err)
{
    if (l->n == l->capacity) {
        uint32_t capacity = l->capacity ? 2 * l->capacity : 16;
        char **items = realloc(l->items, capacity * sizeof *items);
        if (!items) return clq_fail_memory(err, capacity * sizeof *items);
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->n] = strdup(text);
    if (!l->items[l->n]) return clq_fail_memory(err, strlen(text));
    l->n++;
    return CLQ_OK;
}

static void list_free(list *l)
{
    for (uint32_t i = 0; i < l->n; i++) free(l->items[i]);
    free(l->items);
    *l = (list){0};
}

// Names of the regular files (symlinks followed) of a folder, and one level below, sorted.
static clq_status list_files(const char *root, const char *sub, list *files, clq_error *err)
{
    char *dir_path = clq_path_join(root, sub);
    if (!dir_path) return clq_fail_memory(err, strlen(root));
    DIR *dir = opendir(*sub ? dir_path : root);
    clq_status st = CLQ_OK;
    if (!dir) st = clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot read folder '%s'", dir_path);
    free(dir_path);
    struct dirent *entry;
    while (st == CLQ_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        char *name = *sub ? clq_path_join(sub, entry->d_name) : strdup(entry->d_name);
        char *path = name ? clq_path_join(root, name) : NULL;
        struct stat sb;
        if (!path)
            st = clq_fail_memory(err, strlen(entry->d_name));
        else if (stat(path, &sb) == 0 && S_ISREG(sb.st_mode))
            st = list_add(files, name, err);
        else if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode) && !*sub)
            st = list_files(root, name, files, err);
        free(path);
        free(name);
    }
    if (dir) closedir(dir);
    return st;
}

static bool holds_weights(const char *name)
{
    static const char *const endings[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack",
                                          ".ckpt", ".npz", ".tflite", ".ot", ".onnx_data", ".index.json", ".xml"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (clq_ends_with(name, endings[i])) return true;
    return false;
}

// Files to carry along: everything that is neither weights nor written anew, and small enough.
static clq_status choose_extra(clq_source *s, const list *files, const clq_hooks *hooks, clq_error *err)
{
    list extra = {0};
    clq_status st = CLQ_OK;
    for (uint32_t i = 0; i < files->n && st == CLQ_OK; i++) {
        const char *name = files->items[i];
        if (holds_weights(name) || strcmp(name, "config.json") == 0 || strcmp(name, AWQ_CONFIG) == 0 ||
            strcmp(name, GPTQ_CONFIG) == 0)
            continue;
        char *path = clq_path_join(s->path, name);
        struct stat sb;
        if (!path)
            st = clq_fail_memory(err, strlen(name));
        else if (stat(path, &sb) == 0 && (uint64_t)sb.st_size > MAX_EXTRA_FILE)
            clq_warn(hooks, "'%s' has more than %" PRIu64 " bytes and is not carried along", path, MAX_EXTRA_FILE);
        else
            st = list_add(&extra, name, err);
        free(path);
    }
    s->extra_files = extra.items;
    s->n_extra_files = extra.n;
    return st;
}

// Older writers of AWQ and GPTQ say in a file of their own what config.json says now.
static clq_status read_old_settings(clq_source *s, clq_error *err)
{
    json_t *old = NULL;
    bool awq = true;
    if (!s->config || json_object_get(s->config, "quantization_config")) return CLQ_OK;
    CLQ_TRY(load_json(s->path, AWQ_CONFIG, &old, err));
    if (!old) {
        awq = false;
        CLQ_TRY(load_json(s->path, GPTQ_CONFIG, &old, err));
    }
    if (!old) return CLQ_OK;
    if (!json_object_get(old, "quant_method"))
        json_object_set_new(old, "quant_method", json_string(awq ? "awq" : "gptq"));
    if (!json_object_get(old, "bits")) json_object_set(old, "bits", json_object_get(old, "w_bit"));
    if (!json_object_get(old, "group_size")) json_object_set(old, "group_size", json_object_get(old, "q_group_size"));
    json_object_set_new(s->config, "quantization_config", old);
    return CLQ_OK;
}

static clq_status open_shard(clq_source *s, const char *name, clq_error *err)
{
    char *path = clq_path_join(s->path, name);
    clq_file *files = path ? realloc(s->files, (s->n_files + 1) * sizeof *files) : NULL;
    clq_status st;
    if (!files) {
        st = clq_fail_memory(err, sizeof *files);
    } else {
        s->files = files;
        st = clq_file_open(path, &s->files[s->n_files], err);
    }
    free(path);
    CLQ_TRY(st);
    s->n_files++;
    return clq_safetensors_read(s, s->n_files - 1, err);
}

// The shard names of an index, each once, and whether all are on disk.
static clq_status index_shards(const clq_source *s, const json_t *index, const char *index_name, list *shards,
                               clq_error *err)
{
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map))
        return clq_fail(err, CLQ_BAD_INPUT, "'%s/%s' has no weight_map", s->path, index_name);
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)map, tensor, value) {
        const char *name = json_string_value(value);
        if (!name || !*name || strchr(name, '/') || strcmp(name, "..") == 0)
            return clq_fail(err, CLQ_BAD_INPUT,
                            "'%s/%s': tensor '%s' is said to be in '%s', which is not a file of this folder", s->path,
                            index_name, tensor, name ? name : "(not a string)");
        CLQ_TRY(list_add(shards, name, err));
    }
    if (!shards->n) return CLQ_OK;
    qsort(shards->items, shards->n, sizeof *shards->items, by_text);
    uint32_t kept = 1;
    for (uint32_t i = 1; i < shards->n; i++) {
        if (strcmp(shards->items[i], shards->items[kept - 1]) == 0)
            free(shards->items[i]);
        else
            shards->items[kept++] = shards->items[i];
    }
    shards->n = kept;
    clq_buf missing = {0};
    for (uint32_t i = 0; i < shards->n; i++) {
        char *path = clq_path_join(s->path, shards->items[i]);
        struct stat sb;
        if (!path || stat(path, &sb) != 0) clq_buf_printf(&missing, "%s%s", missing.len ? ", " : "", shards->items[i]);
        free(path);
    }
    clq_status st = CLQ_OK;
    if (missing.len)
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s': the index names files that are not there: %.*s", s->path,
                      (int)(missing.len < 600 ? missing.len : 600), missing.data);
    clq_buf_free(&missing);
    return st;
}

// Every tensor of the index stands in the file that the index says; the count of others is told.
static clq_status check_index(const clq_source *s, const json_t *index, const clq_hooks *hooks, clq_error *err)
{
    const json_t *map = json_object_get(index, "weight_map");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) {
        const clq_tensor *found = clq_source_find(s, name);
        const char *shard = json_string_value(value);
        if (!found || strcmp(clq_path_base(s->files[found->codes.file].path), shard) != 0)
            return clq_fail(err, CLQ_BAD_INPUT, "'%s/%s' does not hold tensor '%s', which the index places there",
                            s->path, shard, name);
    }
    size_t indexed = json_object_size(map);
    if (s->n_tensors > indexed)
        clq_warn(hooks, "'%s': the shards hold %zu tensor%s that the index does not name, kept too", s->path,
                 s->n_tensors - indexed, CLQ_PLURAL(s->n_tensors - indexed));
    return CLQ_OK;
}

// The index to follow, NULL: none.
static const char *find_index(const list *files)
{
    const char *found = NULL;
    for (uint32_t i = 0; i < files->n; i++) {
        if (!clq_ends_with(files->items[i], ".safetensors.index.json") || strchr(files->items[i], '/')) continue;
        if (!found || strcmp(files->items[i], "model.safetensors.index.json") == 0) found = files->items[i];
    }
    return found;
}

// What else there is tells what the folder was thought to be.
static clq_status fail_no_weights(const clq_source *s, const list *files, clq_error *err)
{
    static const char *const endings[] = {".gguf", ".bin", ".pt", ".pth"};
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++)
        for (uint32_t i = 0; i < files->n; i++)
            if (clq_ends_with(files->items[i], endings[k]) && !strchr(files->items[i], '/'))
                return clq_fail(err, CLQ_BAD_INPUT,
                                k == 0 ? "folder '%s' holds no .safetensors file; give a GGUF file itself: '%s/%s'"
                                       : "folder '%s' holds no .safetensors file; weights in PyTorch's format are not "
                                         "read ('%s/%s'): save them as safetensors first",
                                s->path, s->path, files->items[i]);
    return clq_fail(err, CLQ_BAD_INPUT, "folder '%s' holds no .safetensors file", s->path);
}

static clq_status choose_single(const clq_source *s, const list *files, list *shards, clq_error *err)
{
    uint32_t n = 0;
    const char *only = NULL;
    for (uint32_t i = 0; i < files->n; i++) {
        if (strchr(files->items[i], '/') || !clq_ends_with(files->items[i], ".safetensors")) continue;
        n++;
        if (!only || strcmp(files->items[i], "model.safetensors") == 0) only = files->items[i];
    }
    if (!n) return fail_no_weights(s, files, err);
    if (n > 1 && strcmp(only, "model.safetensors") != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "folder '%s' holds %u .safetensors files, but neither model.safetensors nor an index that "
                        "says which to use",
                        s->path, n);
    return list_add(shards, only, err);
}

static void warn_ignored(const clq_source *s, const list *files, const list *shards, const clq_hooks *hooks)
{
    for (uint32_t i = 0; i < files->n; i++) {
        const char *name = files->items[i];
        if (!clq_ends_with(name, ".safetensors") || strchr(name, '/')) continue;
        char *const *used = shards->n ? bsearch(&name, shards->items, shards->n, sizeof *shards->items, by_text) : NULL;
        if (!used)
            clq_warn(hooks, "'%s/%s' is ignored: the model's weights are in %s%s", s->path, name, shards->items[0],
                     shards->n > 1 ? " and others" : "");
    }
}

static clq_status set_architecture(clq_source *s, clq_error *err)
{
    const char *name = json_string_value(json_object_get(s->config, "model_type"));
    if (!name) name = json_string_value(json_array_get(json_object_get(s->config, "architectures"), 0));
    s->architecture = strdup(name ? name : "");
    return s->architecture ? CLQ_OK : clq_fail_memory(err, 16);
}

clq_status clq_hfdir_open(clq_source *s, const clq_hooks *hooks, clq_error *err)
{
    s->container = CLQ_HF_FOLDER;
    list files = {0}, shards = {0};
    json_t *index = NULL;
    clq_status st;
    CLQ_TRY_OUT(list_files(s->path, "", &files, err));
    if (files.n) qsort(files.items, files.n, sizeof *files.items, by_text);
    CLQ_TRY_OUT(load_json(s->path, "config.json", &s->config, err));
    CLQ_TRY_OUT(read_old_settings(s, err));
    CLQ_TRY_OUT(set_architecture(s, err));
    const char *index_name = find_index(&files);
    if (index_name) {
        CLQ_TRY_OUT(load_json(s->path, index_name, &index, err));
        CLQ_TRY_OUT(index_shards(s, index, index_name, &shards, err));
    } else {
        CLQ_TRY_OUT(choose_single(s, &files, &shards, err));
    }
    for (uint32_t i = 0; i < shards.n; i++) CLQ_TRY_OUT(open_shard(s, shards.items[i], err));
    CLQ_TRY_OUT(clq_source_check_names(s, err));
    if (index) CLQ_TRY_OUT(check_index(s, index, hooks, err));
    if (shards.n) warn_ignored(s, &files, &shards, hooks);
    CLQ_TRY_OUT(choose_extra(s, &files, hooks, err));
    st = clq_compressed_assemble(s, hooks, err);
out:
    json_decref(index);
    list_free(&shards);
    list_free(&files);
    return st;
}

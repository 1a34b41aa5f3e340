// SPDX-License-Identifier: MIT
// docs/statistics.md describes the file. A row of `rows` is an array of a site, named "SITE.suffix".
#include "calib/stats_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checked.h"
#include "model/json.h"

enum { VERSION = 1, MAX_WEIGHTS = 64, MAX_COLS = 1 << 24, MAX_MATRICES = 1 << 16, MAX_EXPONENT = 128 };
enum { COLS = UINT32_MAX }; // a dimension: the site's

static const struct row {
    const char *suffix;
    clq_format_id format;
    size_t member;
    uint32_t dims[2]; // behind the matrices; 0: none
} rows[] = {
    {"tokens", CLQ_U64, offsetof(clq_stat_site, tokens), {0}},
    {"ranges", CLQ_F32, offsetof(clq_stat_site, ranges), {CLQ_N_OBSERVERS, 3}},
    {"min", CLQ_F32, offsetof(clq_stat_site, min), {COLS}},
    {"max", CLQ_F32, offsetof(clq_stat_site, max), {COLS}},
    {"sum", CLQ_F32, offsetof(clq_stat_site, sum), {COLS}},
    {"sum_abs", CLQ_F32, offsetof(clq_stat_site, sum_abs), {COLS}},
    {"sum_sq", CLQ_F32, offsetof(clq_stat_site, sum_sq), {COLS}},
    {"bins", CLQ_U32, offsetof(clq_stat_site, bins), {2 * CLQ_BINS}},
    {"token_bins", CLQ_U32, offsetof(clq_stat_site, token_bins), {CLQ_TOKEN_BINS}},
    {"exponents", CLQ_I32, offsetof(clq_stat_site, exponents), {0}},
    {"token_range", CLQ_F32, offsetof(clq_stat_site, token_range), {2}},
    {"gram", CLQ_F32, offsetof(clq_stat_site, gram), {COLS, COLS}},
};
enum { N_ROWS = sizeof rows / sizeof *rows };
_Static_assert(sizeof(clq_range) == 3 * sizeof(float), "ranges are rows of three floats");

static void *array_of(const clq_stat_site *site, const struct row *row)
{
    void *p;
    memcpy(&p, (const char *)site + row->member, sizeof p);
    return p;
}

// A null array is not in the file.
static clq_st_array describe(const clq_stat_site *site, const struct row *row, const char *name)
{
    clq_st_array a = {
        .name = name, .format = row->format, .n_dims = 1, .dims = {site->n_matrices}, .data = array_of(site, row)};
    for (int d = 0; d < 2 && row->dims[d]; d++) a.dims[a.n_dims++] = row->dims[d] == COLS ? site->cols : row->dims[d];
    return a;
}

static char *tensor_name(const char *site, const char *suffix)
{
    clq_buf b = {0};
    clq_buf_text(&b, site);
    clq_buf_text(&b, ".");
    clq_buf_append(&b, suffix, strlen(suffix) + 1);
    if (!b.failed) return b.data;
    clq_buf_free(&b);
    return NULL;
}

// ---- writing ----

// A string that need not be UTF-8: a byte that is not becomes '?'.
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    char *clean = json ? NULL : strdup(text);
    if (!clean) return json;
    for (char *p = clean; *p; p++)
        if (*p & 0x80) *p = '?';
    json = json_string(clean);
    free(clean);
    return json;
}

static json_t *site_json(const clq_stat_site *site)
{
    json_t *weights = json_array();
    for (uint32_t i = 0; i < site->n_weights; i++) json_array_append_new(weights, json_string(site->weights[i]));
    return json_pack("{s:o, s:I, s:I, s:b}", "weights", weights, "cols", (json_int_t)site->cols, "matrices",
                     (json_int_t)site->n_matrices, "gram", site->gram != NULL);
}

static json_t *description_json(const clq_stats_file *stats, const json_t *more)
{
    char fingerprint[17];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, stats->fingerprint);
    json_t *observers = json_array(), *sites = json_array();
    for (int i = 0; i < CLQ_N_OBSERVERS; i++)
        json_array_append_new(observers, json_string(clq_observer_name((clq_observer)i)));
    for (uint32_t i = 0; i < stats->n_sites; i++) json_array_append_new(sites, site_json(&stats->sites[i]));
    json_t *json = json_pack("{s:i, s:o, s:o, s:s, s:I, s:I, s:I, s:o, s:o}", "version", VERSION, "dataset",
                             text_json(stats->dataset), "architecture", text_json(stats->architecture), "fingerprint",
                             fingerprint, "context", (json_int_t)stats->context, "windows", (json_int_t)stats->windows,
                             "tokens", (json_int_t)stats->tokens, "observers", observers, "sites", sites);
    bool complete = json && json_array_size(sites) == stats->n_sites &&
                    (!more || json_object_update((json_t *)json, (json_t *)more) == 0);
    if (complete) return json;
    json_decref(json);
    return NULL;
}

// The value of __metadata__.
static json_t *metadata_json(const clq_stats_file *stats, const char *format, const json_t *more)
{
    json_t *description = description_json(stats, more);
    char *text = description ? json_dumps(description, JSON_COMPACT) : NULL;
    json_t *metadata = text ? json_pack("{s:s, s:s}", "format", format, "statistics", text) : NULL;
    free(text);
    json_decref(description);
    return metadata;
}

clq_status clq_stats_write_as(const clq_stats_file *stats, const char *path, const char *format, const json_t *more,
                              const clq_st_array *arrays, uint32_t n_arrays, clq_error *err)
{
    uint64_t most = (uint64_t)stats->n_sites * N_ROWS + n_arrays;
    clq_st_array *all = calloc(most + 1, sizeof *all);
    json_t *metadata = metadata_json(stats, format, more);
    uint32_t n = 0;
    clq_status st = all && metadata && most < UINT32_MAX ? CLQ_OK : clq_fail_memory(err, most * sizeof *all);
    for (uint32_t i = 0; st == CLQ_OK && i < stats->n_sites; i++)
        for (int r = 0; st == CLQ_OK && r < N_ROWS; r++) {
            if (!array_of(&stats->sites[i], &rows[r])) continue;
            char *name = tensor_name(stats->sites[i].name, rows[r].suffix);
            if (name)
                all[n++] = describe(&stats->sites[i], &rows[r], name);
            else
                st = clq_fail_memory(err, strlen(stats->sites[i].name));
        }
    uint32_t n_own = n;
    for (uint32_t i = 0; st == CLQ_OK && i < n_arrays; i++) all[n++] = arrays[i];
    if (st == CLQ_OK) st = clq_safetensors_write(path, metadata, all, n, err);
    for (uint32_t i = 0; i < n_own; i++) free((char *)all[i].name);
    free(all);
    json_decref(metadata);
    return st;
}

clq_status clq_stats_write(const clq_stats_file *stats, const char *path, clq_error *err)
{
    return clq_stats_write_as(stats, path, CLQ_STATS_FORMAT, NULL, NULL, 0, err);
}

// ---- reading ----

static clq_status bad_site(const clq_source *s, const char *name, const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "'%s': site '%s': %s", s->path, name, what);
}

static clq_status bad_description(const clq_source *s, const char *what, clq_error *err)
{
    return clq_fail(err, CLQ_BAD_INPUT, "'%s': the description of the statistics: %s", s->path, what);
}

// Another value than the array's own zero must fit the tensor in the file.
static clq_status take_array(const clq_source *s, clq_stat_site *site, const struct row *row, clq_error *err)
{
    char *name = tensor_name(site->name, row->suffix);
    if (!name) return clq_fail_memory(err, strlen(site->name));
    const clq_tensor *t = clq_source_find(s, name);
    clq_st_array want = describe(site, row, name);
    bool fits = t && t->type.format == want.format && t->n_dims == want.n_dims;
    for (uint32_t d = 0; fits && d < want.n_dims; d++) fits = t->dims[d] == want.dims[d];
    clq_status st = fits ? CLQ_OK
                         : clq_fail(err, CLQ_BAD_INPUT, "'%s': tensor '%s' is missing or has another shape or dtype",
                                    s->path, name);
    free(name);
    if (st != CLQ_OK) return st;
    // The reader has checked that the file has these bytes.
    void *data = malloc(t->codes.n_bytes);
    if (!data) return clq_fail_memory(err, t->codes.n_bytes);
    memcpy((char *)site + row->member, &data, sizeof data);
    return clq_file_read(&s->files[t->codes.file], t->codes.offset, data, t->codes.n_bytes, err);
}

static bool all_finite(const float *x, uint64_t n)
{
    float sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += x[i] * 0.0f; // NaN of what is not finite
    return sum == 0;
}

static const char *wrong_in_matrix(const clq_stat_site *s, uint32_t m)
{
    uint64_t cols = s->cols;
    const float *min = s->min + m * cols, *max = s->max + m * cols, *abs = s->sum_abs + m * cols;
    const float *sq = s->sum_sq + m * cols, *range = s->token_range + 2 * m;
    for (int i = 0; i < CLQ_N_OBSERVERS; i++) {
        const clq_range *r = &s->ranges[(uint64_t)m * CLQ_N_OBSERVERS + i];
        bool good =
            isfinite(r->absmax) && isfinite(r->min) && isfinite(r->max) && r->absmax >= 0 && r->min <= 0 && r->max >= 0;
        if (!good) return "a range is not one";
    }
    if (s->exponents[m] < CLQ_MIN_EXPONENT || s->exponents[m] > MAX_EXPONENT) return "the histogram's exponent";
    if (!all_finite(range, 2) || range[0] < 0 || range[0] > range[1]) return "the range of tokens is not one";
    if (!all_finite(min, cols) || !all_finite(max, cols) || !all_finite(s->sum + m * cols, cols) ||
        !all_finite(abs, cols) || !all_finite(sq, cols))
        return "a channel's value is not finite";
    for (uint64_t c = 0; c < cols; c++) {
        if (min[c] > max[c]) return "a channel's least value is above its largest";
        if (abs[c] < 0 || sq[c] < 0) return "a sum of absolute values or squares is negative";
    }
    if (s->gram && !all_finite(s->gram + m * cols * cols, cols * cols)) return "a sum of products is not finite";
    return NULL;
}

static bool take_u32(const json_t *object, const char *key, uint32_t least, uint32_t most, uint32_t *v)
{
    bool bad = false;
    return clq_json_u32(object, key, v, &bad) && *v >= least && *v <= most;
}

static clq_status take_weights(const clq_source *s, clq_stat_site *site, const json_t *list, clq_error *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > MAX_WEIGHTS)
        return bad_description(s, "a site has no list of weights", err);
    site->weights = calloc(n, sizeof *site->weights);
    if (!site->weights) return clq_fail_memory(err, n * sizeof *site->weights);
    for (size_t i = 0; i < n; i++) {
        const char *name = clq_json_string(json_array_get(list, i));
        if (!name || !*name) return bad_description(s, "a weight's name is none", err);
        if (!(site->weights[i] = strdup(name))) return clq_fail_memory(err, strlen(name));
        site->n_weights++;
    }
    site->name = strdup(site->weights[0]);
    return site->name ? CLQ_OK : clq_fail_memory(err, 1);
}

static clq_status take_site(const clq_source *s, clq_stat_site *site, const json_t *json, uint32_t *n_tensors,
                            clq_error *err)
{
    CLQ_TRY(take_weights(s, site, json_object_get(json, "weights"), err));
    bool gram = false;
    if (!take_u32(json, "cols", 1, MAX_COLS, &site->cols) ||
        !take_u32(json, "matrices", 1, MAX_MATRICES, &site->n_matrices) || !clq_json_bool(json, "gram", &gram))
        return bad_site(s, site->name, "cols, matrices or gram is missing or out of range", err);
    for (int r = 0; r < N_ROWS; r++) {
        if (rows[r].member == offsetof(clq_stat_site, gram) && !gram) continue;
        CLQ_TRY(take_array(s, site, &rows[r], err));
        ++*n_tensors;
    }
    for (uint32_t m = 0; m < site->n_matrices; m++) {
        const char *wrong = wrong_in_matrix(site, m);
        if (wrong) return bad_site(s, site->name, wrong, err);
    }
    return CLQ_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// A weight belongs to one site.
static clq_status check_weights(const clq_source *s, const clq_stats_file *stats, clq_error *err)
{
    uint64_t n = 0, at = 0;
    for (uint32_t i = 0; i < stats->n_sites; i++) n += stats->sites[i].n_weights;
    char **all = malloc((n + 1) * sizeof *all);
    if (!all) return clq_fail_memory(err, n * sizeof *all);
    for (uint32_t i = 0; i < stats->n_sites; i++)
        for (uint32_t k = 0; k < stats->sites[i].n_weights; k++) all[at++] = stats->sites[i].weights[k];
    qsort(all, n, sizeof *all, by_text);
    clq_status st = CLQ_OK;
    for (uint64_t i = 1; i < n && st == CLQ_OK; i++)
        if (strcmp(all[i - 1], all[i]) == 0) st = bad_site(s, all[i], "the weight stands twice", err);
    free(all);
    return st;
}

static clq_status take_sites(const clq_source *s, clq_stats_file *stats, const json_t *list, uint32_t *n_tensors,
                             clq_error *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > s->n_tensors) return bad_description(s, "there is no list of sites", err);
    stats->sites = calloc(n + 1, sizeof *stats->sites);
    if (!stats->sites) return clq_fail_memory(err, n * sizeof *stats->sites);
    for (size_t i = 0; i < n; i++) {
        stats->n_sites = (uint32_t)i + 1;
        CLQ_TRY(take_site(s, &stats->sites[i], json_array_get(list, i), n_tensors, err));
        if (i && strcmp(stats->sites[i - 1].name, stats->sites[i].name) >= 0)
            return bad_description(s, "the sites are not sorted by name", err);
    }
    return check_weights(s, stats, err);
}

static bool take_text(const json_t *object, const char *key, char **text)
{
    const char *value = clq_json_text(object, key);
    *text = value ? strdup(value) : NULL;
    return *text != NULL;
}

static bool take_fingerprint(const json_t *object, uint64_t *v)
{
    const char *text = clq_json_text(object, "fingerprint");
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return false;
    *v = strtoull(text, NULL, 16);
    return true;
}

static bool same_observers(const json_t *list)
{
    bool same = json_array_size(list) == CLQ_N_OBSERVERS;
    for (int i = 0; same && i < CLQ_N_OBSERVERS; i++) {
        const char *name = clq_json_string(json_array_get(list, (size_t)i));
        same = name && strcmp(name, clq_observer_name((clq_observer)i)) == 0;
    }
    return same;
}

static clq_status take_description(clq_stats_opened *o, const json_t *d, clq_error *err)
{
    clq_stats_file *f = o->stats;
    uint32_t version = 0, n_tensors = 0;
    if (!take_u32(d, "version", 1, INT32_MAX, &version)) return bad_description(o->source, "it has no version", err);
    if (version != VERSION)
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' has statistics of version %u; this clquant reads version %d",
                        o->source->path, version, VERSION);
    const json_t *tokens = json_object_get(d, "tokens");
    bool good = take_text(d, "dataset", &f->dataset) && take_text(d, "architecture", &f->architecture) &&
                take_fingerprint(d, &f->fingerprint) && take_u32(d, "context", 1, INT32_MAX, &f->context) &&
                take_u32(d, "windows", 1, INT32_MAX, &f->windows) && json_is_integer(tokens) &&
                json_integer_value(tokens) >= 0;
    if (!good)
        return bad_description(o->source,
                               "dataset, architecture, fingerprint, context, windows or tokens is missing or "
                               "out of range",
                               err);
    f->tokens = (uint64_t)json_integer_value(tokens);
    if (!same_observers(json_object_get(d, "observers")))
        return bad_description(o->source, "its observers are others than this clquant's", err);
    CLQ_TRY(take_sites(o->source, f, json_object_get(d, "sites"), &n_tensors, err));
    o->n_more = o->source->n_tensors - n_tensors;
    return CLQ_OK;
}

void clq_stats_close(clq_stats_opened *o)
{
    clq_stats_free(o->stats);
    clq_source_close(o->source);
    json_decref(o->description);
    *o = (clq_stats_opened){0};
}

clq_status clq_stats_open_as(const char *path, const char *format, clq_stats_opened *o, clq_error *err)
{
    *o = (clq_stats_opened){0};
    clq_status st;
    json_error_t why;
    CLQ_TRY(clq_source_open(path, NULL, &o->source, err));
    const json_t *metadata = o->source->container == CLQ_SAFETENSORS ? o->source->st_metadata : NULL;
    const char *own = clq_json_text(metadata, "format"), *text = clq_json_text(metadata, "statistics");
    if (!own || !text || strcmp(own, format) != 0) {
        st = own && strcmp(own, CLQ_CHECKPOINT_FORMAT) == 0
                 ? clq_fail(err, CLQ_BAD_INPUT, "'%s' is of a calibration that was interrupted: `clquant calibrate` with "
                            "--resume goes on with it", path)
                 : clq_fail(err, CLQ_BAD_INPUT, "'%s' is no file of the format %s", path, format);
        goto out;
    }
    o->stats = calloc(1, sizeof *o->stats);
    if (!o->stats) {
        st = clq_fail_memory(err, sizeof *o->stats);
        goto out;
    }
    o->description = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(o->description)) {
        st = bad_description(o->source, o->description ? "it is no object" : why.text, err);
        goto out;
    }
    st = take_description(o, o->description, err);
out:
    if (st != CLQ_OK) clq_stats_close(o);
    return st;
}

clq_status clq_stats_open(const char *path, clq_stats_file **stats, clq_error *err)
{
    *stats = NULL;
    clq_stats_opened o;
    CLQ_TRY(clq_stats_open_as(path, CLQ_STATS_FORMAT, &o, err));
    clq_status st = CLQ_OK;
    if (!o.stats->n_sites || o.n_more)
        st = bad_description(o.source, o.n_more ? "there are tensors that belong to no site" : "it has no sites", err);
    if (st == CLQ_OK) {
        *stats = o.stats;
        o.stats = NULL;
    }
    clq_stats_close(&o);
    return st;
}

bool clq_stats_is(const char *path)
{
    clq_source *s;
    clq_file f;
    char head[4] = "GGUF";
    if (clq_file_open(path, &f, NULL) != CLQ_OK) return false;
    bool may_be = f.size > sizeof head && clq_file_read(&f, 0, head, sizeof head, NULL) == CLQ_OK &&
                  memcmp(head, "GGUF", sizeof head) != 0; // whose metadata may be long
    clq_file_close(&f);
    if (!may_be || clq_source_open(path, NULL, &s, NULL) != CLQ_OK) return false;
    const char *format = s->container == CLQ_SAFETENSORS ? clq_json_text(s->st_metadata, "format") : NULL;
    bool is = format && (strcmp(format, CLQ_STATS_FORMAT) == 0 || strcmp(format, CLQ_CHECKPOINT_FORMAT) == 0);
    clq_source_close(s);
    return is;
}

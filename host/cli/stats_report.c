// SPDX-License-Identifier: MIT
#include "cli/stats_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"

const char *clq_site_label(const clq_stat_site *site, char text[64])
{
    const char *name = site->name, *dot = strncmp(name, "blk.", 4) == 0 ? strchr(name + 4, '.') : NULL;
    if (dot) name = dot + 1;
    size_t len = strlen(name);
    if (clq_ends_with(name, ".weight")) len -= strlen(".weight");
    char label[64];
    snprintf(label, sizeof label, "%.*s", (int)(len < 63 ? len : 63), name);
    return clq_safe_text(label, text, 64);
}

float clq_site_absmax(const clq_stat_site *s)
{
    float most = 0;
    for (uint32_t m = 0; m < s->n_matrices; m++) {
        float a = s->ranges[m * CLQ_N_OBSERVERS + CLQ_OBSERVER_MINMAX].absmax;
        most = a > most ? a : most;
    }
    return most;
}

const char *clq_experts_text(const clq_stat_site *sites, uint32_t n, char text[96])
{
    text[0] = '\0';
    uint32_t i = 0;
    while (i < n && sites[i].n_matrices == 1) i++;
    if (i == n) return text;
    const clq_stat_site *s = &sites[i];
    uint32_t without = 0;
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t m = 0; m < s->n_matrices; m++) {
        without += s->tokens[m] == 0;
        if (s->tokens[m] && s->tokens[m] < least) least = s->tokens[m];
        if (s->tokens[m] > most) most = s->tokens[m];
    }
    if (most)
        snprintf(text, 96, "; %u experts: %u without tokens, %" PRIu64 " to %" PRIu64 " tokens", s->n_matrices, without,
                 least, most);
    else
        snprintf(text, 96, "; %u experts: none with tokens", s->n_matrices);
    return text;
}

// ---- JSON ----

static json_t *range_json(const clq_range *r)
{
    return json_pack("{s:o, s:o, s:o}", "absmax", clq_json_real((double)r->absmax), "min",
                     clq_json_real((double)r->min), "max", clq_json_real((double)r->max));
}

static json_t *site_json(const clq_stat_site *s)
{
    json_t *weights = json_array(), *tokens = json_array(), *ranges = json_object();
    for (uint32_t i = 0; i < s->n_weights; i++) json_array_append_new(weights, clq_cli_text(s->weights[i]));
    for (uint32_t m = 0; m < s->n_matrices; m++) json_array_append_new(tokens, json_integer((json_int_t)s->tokens[m]));
    for (int i = 0; i < CLQ_N_OBSERVERS; i++) {
        json_t *list = json_array();
        for (uint32_t m = 0; m < s->n_matrices; m++)
            json_array_append_new(list, range_json(&s->ranges[m * CLQ_N_OBSERVERS + (uint32_t)i]));
        json_object_set_new(ranges, clq_observer_name((clq_observer)i), list);
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:b, s:o, s:o}", "name", clq_cli_text(s->name), "weights", weights, "cols",
                     (json_int_t)s->cols, "matrices", (json_int_t)s->n_matrices, "hessian", s->gram != NULL, "tokens",
                     tokens, "ranges", ranges);
}

void clq_stats_json(json_t *object, const clq_stats_file *f)
{
    char fingerprint[17];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, f->fingerprint);
    json_t *sites = json_array();
    for (uint32_t i = 0; i < f->n_sites; i++) json_array_append_new(sites, site_json(&f->sites[i]));
    json_object_set_new(object, "architecture", clq_cli_text(f->architecture));
    json_object_set_new(object, "dataset", clq_cli_text(f->dataset));
    json_object_set_new(object, "fingerprint", json_string(fingerprint));
    json_object_set_new(object, "context", json_integer(f->context));
    json_object_set_new(object, "windows", json_integer(f->windows));
    json_object_set_new(object, "tokens", json_integer((json_int_t)f->tokens));
    json_object_set_new(object, "sites", sites);
}

// ---- text ----

void clq_stats_print(const clq_stats_file *f, bool sites)
{
    char text[160], label[96];
    uint64_t n_weights = 0, unseen = 0, matrices = 0;
    bool gram = false;
    for (uint32_t i = 0; i < f->n_sites; i++) {
        const clq_stat_site *s = &f->sites[i];
        n_weights += s->n_weights;
        gram |= s->gram != NULL;
        matrices += s->n_matrices > 1 ? s->n_matrices : 0;
        for (uint32_t m = 0; s->n_matrices > 1 && m < s->n_matrices; m++) unseen += s->tokens[m] == 0;
    }
    printf("statistics of calibration, %s, %u site%s of %" PRIu64 " weight%s%s\n",
           clq_safe_text(f->architecture, text, sizeof text), f->n_sites, CLQ_PLURAL(f->n_sites), n_weights,
           CLQ_PLURAL(n_weights), gram ? ", with Hessians" : "");
    printf("  text         %s\n", *f->dataset ? clq_safe_text(f->dataset, text, sizeof text) : "unknown");
    printf("  tokens       %" PRIu64 " in %u window%s of %u\n", f->tokens, f->windows, CLQ_PLURAL(f->windows),
           f->context);
    printf("  fingerprint  %016" PRIx64 "\n", f->fingerprint);
    if (matrices) printf("  experts      %" PRIu64 " of %" PRIu64 " inputs without tokens\n", unseen, matrices);
    for (uint32_t i = 0; sites && i < f->n_sites; i++) {
        const clq_stat_site *s = &f->sites[i];
        printf("%6u columns  absmax %-12.6g %s%s\n", s->cols, (double)clq_site_absmax(s),
               clq_safe_text(s->name, text, sizeof text), clq_experts_text(s, 1, label));
    }
}

// SPDX-License-Identifier: MIT
#include "model/experts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

clq_status clq_routing_create(const clq_net *n, uint32_t batch, clq_routing *r, clq_error *err)
{
    *r = (clq_routing){0};
    if (!(n->features & CLQ_HAS_EXPERTS)) return CLQ_OK;
    uint64_t used = n->experts_used + 1ull, rows = batch * used;
    r->logits = malloc(batch * (n->experts + 1ull) * sizeof *r->logits);
    r->runs = malloc((n->experts + 1ull) * sizeof *r->runs);
    r->words = malloc(rows * 3 * sizeof *r->words);
    r->chosen = malloc(rows * sizeof *r->chosen);
    r->weights = malloc(rows * sizeof *r->weights);
    r->counts = malloc(n->experts * sizeof *r->counts);
    r->places = malloc(n->experts * sizeof *r->places);
    r->filled = malloc(n->experts * sizeof *r->filled);
    r->taken = malloc(n->experts * sizeof *r->taken);
    if (r->logits && r->runs && r->words && r->chosen && r->weights && r->counts && r->places && r->filled && r->taken)
        return CLQ_OK;
    clq_routing_free(r);
    return clq_fail_memory(err, rows * 5 * sizeof(float));
}

void clq_routing_free(clq_routing *r)
{
    free(r->logits);
    free(r->runs);
    free(r->words);
    free(r->chosen);
    free(r->weights);
    free(r->counts);
    free(r->places);
    free(r->filled);
    free(r->taken);
    *r = (clq_routing){0};
}

// The likeliest experts of one token, and their weights: probabilities among all experts, which may be made to sum
// to 1.
static void choose(const clq_net *n, const float *logits, bool *taken, int32_t *chosen, float *weights)
{
    float most = logits[0];
    double total = 0, sum = 0;
    for (uint32_t e = 1; e < n->experts; e++)
        if (logits[e] > most) most = logits[e];
    for (uint32_t e = 0; e < n->experts; e++) total += exp((double)logits[e] - most);
    memset(taken, 0, n->experts * sizeof *taken);
    for (uint32_t i = 0; i < n->experts_used; i++) {
        int32_t best = -1;
        for (uint32_t e = 0; e < n->experts; e++)
            if (!taken[e] && (best < 0 || logits[e] > logits[best])) best = (int32_t)e;
        taken[best] = true;
        chosen[i] = best;
        weights[i] = (float)(exp((double)logits[best] - most) / total);
        sum += weights[i];
    }
    double scale = n->experts_scale;
    if (n->kind->normalized_experts) scale /= fmax(sum, 6.103515625e-5);
    for (uint32_t i = 0; i < n->experts_used; i++) weights[i] = (float)(weights[i] * scale);
}

// Puts token t with its weight into row `index` of the `count` rows that begin at `row`.
static void put(clq_routing *r, uint32_t row, uint32_t count, uint32_t index, uint32_t t, float weight)
{
    uint32_t *route = r->words + r->n_rows + 2ull * row;
    r->words[row + index] = route[index] = t;
    memcpy(&route[count + index], &weight, sizeof weight);
}

void clq_routing_plan(const clq_net *n, const clq_state *state, uint32_t tokens, clq_routing *r)
{
    bool shared = n->features & CLQ_HAS_SHARED_EXPERT;
    uint32_t stride = n->experts + shared, used = n->experts_used, row = 0, in_group = 0;
    r->n_rows = tokens * (used + shared);
    r->n_runs = 0;
    memset(r->counts, 0, n->experts * sizeof *r->counts);
    memset(r->filled, 0, n->experts * sizeof *r->filled);
    for (uint32_t t = 0; t < tokens; t++) {
        int32_t *chosen = r->chosen + (uint64_t)t * used;
        choose(n, r->logits + (uint64_t)t * stride, r->taken, chosen, r->weights + (uint64_t)t * used);
        for (uint32_t i = 0; i < used; i++) r->counts[chosen[i]]++;
    }
    for (uint32_t e = 0; e < stride; e++) {
        uint32_t count = e < n->experts ? r->counts[e] : tokens;
        if (count == 0) continue;
        if (in_group + count > state->expert_rows) in_group = 0;
        r->runs[r->n_runs++] = (clq_expert_run){.expert = e < n->experts ? (int32_t)e : CLQ_SHARED_EXPERT,
                                                .tokens = count,
                                                .first = in_group,
                                                .route = state->routes + r->n_rows + 2ull * row};
        if (e < n->experts) r->places[e] = row;
        in_group += count;
        row += count;
    }
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t i = 0; i < used; i++) {
            int32_t e = r->chosen[(uint64_t)t * used + i];
            put(r, r->places[e], r->counts[e], r->filled[e]++, t, r->weights[(uint64_t)t * used + i]);
        }
        double gate = shared ? r->logits[(uint64_t)t * stride + n->experts] : 0;
        if (shared) put(r, tokens * used, tokens, t, t, (float)(1 / (1 + exp(-gate))));
    }
}

// SPDX-License-Identifier: MIT
#include "model/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/exp.h"

typedef struct {
    float logit;
    uint32_t id;
} candidate;

struct clq_sampler {
    clq_sampling o;
    uint32_t vocab;
    uint64_t state; // of the generator
    float ln_min_p; // ln min_p
    candidate *heap, *kept;
};

// ---- random numbers: PCG-XSH-RR 64/32 (M. E. O'Neill, pcg-random.org) ----

static uint32_t next_bits(uint64_t *state)
{
    uint64_t old = *state;
    *state = old * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)((old >> 18 ^ old) >> 27), turn = (uint32_t)(old >> 59);
    return x >> turn | x << (-turn & 31);
}

static uint64_t seeded(uint64_t seed)
{
    uint64_t state = 0;
    next_bits(&state);
    state += seed;
    next_bits(&state);
    return state;
}

// [0, 1), 53 bits.
static double next_uniform(uint64_t *state)
{
    uint64_t high = next_bits(state) >> 5, low = next_bits(state) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

// ---- a heap: tokens come in falling order, and only as many as are asked for are sorted ----

static bool before(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

static void sink(candidate *heap, uint32_t n, uint32_t i)
{
    candidate moved = heap[i];
    for (;;) {
        uint64_t child = 2 * (uint64_t)i + 1;
        if (child >= n) break;
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moved)) break;
        heap[i] = heap[child];
        i = (uint32_t)child;
    }
    heap[i] = moved;
}

static void make_heap(candidate *heap, const float *logits, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) heap[i] = (candidate){logits[i], i};
    for (uint32_t i = n / 2; i-- > 0;) sink(heap, n, i);
}

static candidate pop(candidate *heap, uint32_t *n)
{
    candidate first = heap[0];
    heap[0] = heap[--*n];
    if (*n) sink(heap, *n, 0);
    return first;
}

// ---- choosing ----

static uint32_t largest(const float *logits, uint32_t n, bool *ok)
{
    uint32_t best = 0;
    bool nan = false;
    for (uint32_t i = 0; i < n; i++) {
        nan |= logits[i] != logits[i];
        if (logits[i] > logits[best]) best = i;
    }
    *ok = !nan && isfinite(logits[best]);
    return best;
}

// The sum of the probabilities of what the heap holds, relative to the largest's.
static double weight_of(const candidate *c, uint32_t n, float max)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)clq_exp(c[i].logit - max);
    return sum;
}

// Moves what top-k, top-p and min-p leave to s->kept, in falling order.
static uint32_t keep(clq_sampler *s, const float *logits, float max)
{
    const clq_sampling *o = &s->o;
    uint32_t left = s->vocab, n = 0, most = o->top_k && o->top_k < s->vocab ? o->top_k : s->vocab;
    make_heap(s->heap, logits, s->vocab);
    double enough = INFINITY, sum = 0;
    if (most < s->vocab) { // the likeliest k are a distribution of their own
        while (n < most) s->kept[n++] = pop(s->heap, &left);
        if (o->top_p < 1) enough = (double)o->top_p * weight_of(s->kept, n, max);
    } else if (o->top_p < 1) {
        enough = (double)o->top_p * weight_of(s->heap, left, max);
    }
    for (uint32_t i = 0; i < most; i++) {
        candidate c = i < n ? s->kept[i] : pop(s->heap, &left);
        if (i > 0 && (sum >= enough || c.logit - max < s->ln_min_p)) return i;
        s->kept[i] = c;
        sum += (double)clq_exp(c.logit - max);
    }
    return most;
}

// Nothing is left out: no order is needed.
static uint32_t keep_all(clq_sampler *s, const float *logits)
{
    for (uint32_t i = 0; i < s->vocab; i++) s->kept[i] = (candidate){logits[i], i};
    return s->vocab;
}

clq_status clq_sample(clq_sampler *s, const float *logits, int32_t *token, clq_error *err)
{
    const clq_sampling *o = &s->o;
    bool ok;
    uint32_t best = largest(logits, s->vocab, &ok);
    if (!ok)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "the model's logits are not numbers: its weights are damaged, or its "
                        "values too large for the cache's type");
    *token = (int32_t)best;
    if (o->temperature == 0) return CLQ_OK;
    float max = logits[best];
    bool all = (!o->top_k || o->top_k >= s->vocab) && o->top_p >= 1 && o->min_p <= 0;
    uint32_t n = all ? keep_all(s, logits) : keep(s, logits, max);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        s->kept[i].logit = clq_exp((s->kept[i].logit - max) / o->temperature);
        sum += (double)s->kept[i].logit;
    }
    double place = next_uniform(&s->state) * sum;
    for (uint32_t i = 0; i < n; i++) {
        place -= (double)s->kept[i].logit;
        if (s->kept[i].logit > 0) *token = (int32_t)s->kept[i].id; // the last one, where rounding leaves a rest
        if (place < 0) break;
    }
    return CLQ_OK;
}

clq_status clq_sampler_create(const clq_sampling *sampling, uint32_t vocab, clq_sampler **sampler, clq_error *err)
{
    *sampler = NULL;
    if (!(sampling->temperature >= 0 && isfinite(sampling->temperature)))
        return clq_fail(err, CLQ_USAGE, "a temperature is 0 or more, not %g", (double)sampling->temperature);
    if (!(sampling->top_p > 0)) return clq_fail(err, CLQ_USAGE, "top-p is above 0, not %g", (double)sampling->top_p);
    if (!(sampling->min_p >= 0 && sampling->min_p <= 1))
        return clq_fail(err, CLQ_USAGE, "min-p is from 0 to 1, not %g", (double)sampling->min_p);
    if (!vocab) return clq_fail(err, CLQ_BAD_INPUT, "the vocabulary is empty");
    clq_sampler *s = calloc(1, sizeof *s);
    if (!s) return clq_fail_memory(err, sizeof *s);
    s->o = *sampling;
    s->vocab = vocab;
    s->state = seeded(sampling->seed);
    s->ln_min_p = sampling->min_p > 0 ? (float)log((double)sampling->min_p) : -INFINITY;
    if (sampling->temperature > 0) {
        s->heap = malloc(vocab * sizeof *s->heap);
        s->kept = malloc(vocab * sizeof *s->kept);
        if (!s->heap || !s->kept) {
            clq_sampler_free(s);
            return clq_fail_memory(err, 2 * (uint64_t)vocab * sizeof *s->heap);
        }
    }
    *sampler = s;
    return CLQ_OK;
}

void clq_sampler_free(clq_sampler *s)
{
    if (!s) return;
    free(s->heap);
    free(s->kept);
    free(s);
}

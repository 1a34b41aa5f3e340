// SPDX-License-Identifier: MIT
#include "calib/ranges.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 128, HIGHEST = LEVELS - 1 }; // of |x| in int8

// Divergences and errors that differ by less are equal: sums in another order would have to give the same clip.
static const double SAME = 1e-12;

typedef struct {
    uint32_t head[CLQ_SLOT_HEAD];
    uint32_t bins[2 * CLQ_BINS];
    double folded[CLQ_BINS];   // counts of |x|
    uint32_t n;                // bins up to the one of the largest |x|
    double width;              // of a bin
    double cost[CLQ_BINS + 1]; // of clipping at edge i
    // Sums over the bins before: counts, bins that are not empty, c log c; counts times middle, times its square.
    double count[CLQ_BINS + 1], used[CLQ_BINS + 1], entropy[CLQ_BINS + 1], first[CLQ_BINS + 1], second[CLQ_BINS + 1];
} histogram;

static float head_float(const histogram *h, int word)
{
    float x;
    memcpy(&x, &h->head[word], sizeof x);
    return x;
}

static clq_range range_of(double min, double max)
{
    clq_range r = {.min = min < 0 ? (float)min : 0, .max = max > 0 ? (float)max : 0};
    r.absmax = -r.min > r.max ? -r.min : r.max;
    return r;
}

// Clipped to [-absmax, absmax].
static clq_range clipped(const clq_range *all, double absmax)
{
    float a = (float)absmax < all->absmax ? (float)absmax : all->absmax;
    return (clq_range){.absmax = a, .min = all->min < -a ? -a : all->min, .max = all->max > a ? a : all->max};
}

static void fold(histogram *h)
{
    for (uint32_t i = 0; i < CLQ_BINS; i++) {
        h->folded[i] = (double)h->bins[CLQ_BINS + i] + (double)h->bins[CLQ_BINS - 1 - i];
        if (h->folded[i] > 0) h->n = i + 1;
    }
}

// ---- percentiles ----

// all: parts of `whole` that are to be kept, of each `whole` values.
static clq_range percentile(const histogram *h, const clq_range *seen, double keep, double whole)
{
    double total = 0, below = 0, above = 0, sum = 0;
    uint32_t edge = 0, low = 0, high = 2 * CLQ_BINS;
    for (uint32_t i = 0; i < h->n; i++) total += h->folded[i];
    while (edge < h->n && sum * whole < total * keep) sum += h->folded[edge++];
    double rest = total * (whole - keep); // times 2 * whole: what may be cut at each end
    while (low < high && (below + h->bins[low]) * 2 * whole <= rest) below += h->bins[low++];
    while (high > low && (above + h->bins[high - 1]) * 2 * whole <= rest) above += h->bins[--high];
    double min = ((double)low - CLQ_BINS) * h->width, max = ((double)high - CLQ_BINS) * h->width;
    clq_range r =
        range_of(min > (double)seen->min ? min : (double)seen->min, max < (double)seen->max ? max : (double)seen->max);
    r.absmax = clipped(seen, edge * h->width).absmax;
    return r;
}

// ---- clips ----

// The last of the clips that cost least; edges LEVELS to n.
static uint32_t cheapest(const histogram *h, double tolerance)
{
    double least = INFINITY;
    uint32_t best = h->n;
    for (uint32_t i = LEVELS; i <= h->n; i++) least = h->cost[i] < least ? h->cost[i] : least;
    for (uint32_t i = LEVELS; i <= h->n; i++)
        if (h->cost[i] <= least + tolerance) best = i;
    return best;
}

static double x_log_x(double x) { return x > 0 ? x * log(x) : 0; }

// KL(P || Q) of a clip at edge i. P: the bins before i, what is behind them added to the last. Q: the same bins in
// LEVELS levels, each level's counts spread over those of its bins that are not empty. In terms of sums: every bin of
// a level has the same Q.
static double divergence(const histogram *h, uint32_t i)
{
    double total = h->count[h->n], inside = h->count[i], tail = total - inside;
    double last = h->count[i] - h->count[i - 1];
    if (tail > 0 && !(last > 0)) return INFINITY; // P has something where Q has nothing
    double p_log_p = h->entropy[i - 1] + x_log_x(last + tail), p_log_q = 0;
    uint32_t begin = 0;
    for (uint32_t level = 0; level < LEVELS; level++) {
        uint32_t end = ((level + 1) * i + LEVELS - 1) / LEVELS;
        double sum = h->count[end] - h->count[begin], used = h->used[end] - h->used[begin];
        if (sum > 0) p_log_q += (level == HIGHEST ? sum + tail : sum) * log(sum / used);
        begin = end;
    }
    return (p_log_p - p_log_q) / total - log(total) + log(inside);
}

static clq_range entropy(histogram *h, const clq_range *seen)
{
    for (uint32_t i = 0; i < h->n; i++) {
        double c = h->folded[i ? i : 1];
        h->count[i + 1] = h->count[i] + c;
        h->used[i + 1] = h->used[i] + (c > 0);
        h->entropy[i + 1] = h->entropy[i] + x_log_x(c);
    }
    for (uint32_t i = LEVELS; i <= h->n; i++) h->cost[i] = divergence(h, i);
    return clipped(seen, cheapest(h, SAME) * h->width);
}

// Squared error of a clip at edge i, in widths of bins. A code covers the bins whose middles are nearest to it.
static double square_error(const histogram *h, uint32_t i)
{
    double scale = (double)i / HIGHEST, sum = 0;
    uint32_t begin = 0;
    for (uint32_t code = 0; code <= HIGHEST; code++) {
        uint32_t end = (i * (2 * code + 1) / HIGHEST + 1) / 2;
        if (code == HIGHEST || end > h->n) end = h->n;
        double y = code * scale, n = h->count[end] - h->count[begin];
        sum += h->second[end] - h->second[begin] - 2 * y * (h->first[end] - h->first[begin]) + y * y * n;
        begin = end;
    }
    return sum;
}

static clq_range least_squares(histogram *h, const clq_range *seen)
{
    for (uint32_t i = 0; i < h->n; i++) {
        double c = h->folded[i], middle = i + 0.5;
        h->count[i + 1] = h->count[i] + c;
        h->first[i + 1] = h->first[i] + c * middle;
        h->second[i + 1] = h->second[i] + c * middle * middle;
    }
    for (uint32_t i = LEVELS; i <= h->n; i++) h->cost[i] = square_error(h, i);
    return clipped(seen, cheapest(h, SAME * h->second[h->n]) * h->width);
}

clq_status clq_ranges_of(const float *slot, clq_range ranges[CLQ_N_OBSERVERS], clq_error *err)
{
    memset(ranges, 0, CLQ_N_OBSERVERS * sizeof *ranges);
    histogram *h = calloc(1, sizeof *h);
    if (!h) return clq_fail_memory(err, sizeof *h);
    memcpy(h->head, slot, sizeof h->head);
    memcpy(h->bins, slot + CLQ_SLOT_BINS, sizeof h->bins);
    fold(h);
    clq_range seen = range_of((double)head_float(h, CLQ_SLOT_MIN), (double)head_float(h, CLQ_SLOT_MAX));
    if (h->head[CLQ_SLOT_TOKENS] && h->n && seen.absmax > 0) {
        h->width = ldexp(1.0 / CLQ_BINS, (int32_t)h->head[CLQ_SLOT_EXPONENT]);
        ranges[CLQ_OBSERVER_MINMAX] = seen;
        ranges[CLQ_OBSERVER_MOVING_AVERAGE] =
            range_of((double)head_float(h, CLQ_SLOT_EMA_MIN), (double)head_float(h, CLQ_SLOT_EMA_MAX));
        ranges[CLQ_OBSERVER_P99_9] = percentile(h, &seen, 999, 1000);
        ranges[CLQ_OBSERVER_P99_99] = percentile(h, &seen, 9999, 10000);
        ranges[CLQ_OBSERVER_P99_999] = percentile(h, &seen, 99999, 100000);
        bool enough = h->n >= LEVELS;
        ranges[CLQ_OBSERVER_ENTROPY] = enough ? entropy(h, &seen) : seen;
        ranges[CLQ_OBSERVER_MSE] = enough ? least_squares(h, &seen) : seen;
    }
    free(h);
    return CLQ_OK;
}

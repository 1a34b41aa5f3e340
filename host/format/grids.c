// SPDX-License-Identifier: MIT
// The grids of the codebook formats, and the candidates of vectors that are not in them.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clquant_grids.h"
#include "clquant_steps.h"
#include "format/codebook.h"

static const uint16_t iq3_xxs_points[] = {CLQ_GRID_IQ3_XXS};
static const uint16_t iq3_s_points[] = {CLQ_GRID_IQ3_S};
static const uint16_t iq2_xxs_points[] = {CLQ_GRID_IQ2_XXS};
static const uint16_t iq2_xs_points[] = {CLQ_GRID_IQ2_XS};
static const uint16_t iq2_s_points[] = {CLQ_GRID_IQ2_S};
static const uint16_t iq1_points[] = {CLQ_GRID_IQ1};

#define GRID(points_, dims_, bits_, shells, ...)                                                   \
    {.n_points = sizeof(points_) / sizeof *(points_), .dims = dims_, .bits = bits_, .n_shells = shells, \
     .points = points_, .levels = {__VA_ARGS__}}
static clq_grid grids[CLQ_GRID_COUNT] = {
    [CLQ_GRID_ID_IQ3_XXS] = GRID(iq3_xxs_points, 4, 3, 2, CLQ_LEVELS_IQ3_XXS),
    [CLQ_GRID_ID_IQ3_S] = GRID(iq3_s_points, 4, 3, 3, CLQ_LEVELS_IQ3_S),
    [CLQ_GRID_ID_IQ2_XXS] = GRID(iq2_xxs_points, 8, 2, 2, CLQ_LEVELS_IQ2_XXS),
    [CLQ_GRID_ID_IQ2_XS] = GRID(iq2_xs_points, 8, 2, 2, CLQ_LEVELS_IQ2_XS),
    [CLQ_GRID_ID_IQ2_S] = GRID(iq2_s_points, 8, 2, 1, CLQ_LEVELS_IQ2_S),
    [CLQ_GRID_ID_IQ1] = GRID(iq1_points, 8, 2, 3, CLQ_LEVELS_IQ1),
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

enum { MOST_POINTS = 2048, MOST_DISTANCE = 4 * 49 }; // of level differences, squared: 4 x 7^2 or 8 x 2^2

// Squared distances, in levels, of every point from the vector.
static void measure(const clq_grid *g, uint8_t levels[8][MOST_POINTS], uint32_t vector, uint16_t *distance)
{
    memset(distance, 0, g->n_points * sizeof *distance);
    for (uint32_t i = 0; i < g->dims; i++) {
        int own = clq_grid_level(g, vector, i);
        for (uint32_t p = 0; p < g->n_points; p++) {
            int d = levels[i][p] - own;
            distance[p] = (uint16_t)(distance[p] + d * d);
        }
    }
}

// The points at the n_shells smallest distances, by distance, then index; their number.
static uint32_t choose(const clq_grid *g, const uint16_t *distance, uint16_t *chosen)
{
    bool present[MOST_DISTANCE + 1] = {false};
    uint32_t n = 0;
    for (uint32_t p = 0; p < g->n_points; p++) present[distance[p]] = true;
    for (uint32_t d = 0, shells = 0; d <= MOST_DISTANCE && shells < g->n_shells; d++) {
        if (!present[d]) continue;
        shells++;
        for (uint32_t p = 0; p < g->n_points; p++)
            if (distance[p] == d) chosen[n++] = g->points[p];
    }
    return n;
}

static bool vector_exists(const clq_grid *g, uint32_t vector)
{
    if (g->bits == 3) return true;
    return (vector & vector >> 1 & 0x5555) == 0; // three levels of four codes
}

static void make_table(clq_grid *g)
{
    static uint8_t levels[8][MOST_POINTS];
    static uint16_t distance[MOST_POINTS], chosen[MOST_POINTS];
    size_t n_map = (size_t)1 << g->bits * g->dims, n_lists = 0, room = 1 << 16;
    uint32_t *map = malloc(n_map * sizeof *map);
    uint16_t *lists = malloc(room * sizeof *lists);
    if (!map || !lists) abort();
    memset(map, 0xff, n_map * sizeof *map);
    for (uint32_t p = 0; p < g->n_points; p++) {
        map[g->points[p]] = p;
        for (uint32_t i = 0; i < g->dims; i++) levels[i][p] = (uint8_t)clq_grid_level(g, g->points[p], i);
    }
    for (uint32_t v = 0; v < n_map; v++) {
        if (map[v] != UINT32_MAX) continue;
        map[v] = CLQ_OFF_GRID;
        if (!vector_exists(g, v)) continue;
        measure(g, levels, v, distance);
        uint32_t n = choose(g, distance, chosen);
        while (n % 8) chosen[n] = chosen[n - 1], n++;
        if (n_lists + n > room) {
            lists = realloc(lists, (room *= 2) * sizeof *lists);
            if (!lists) abort();
        }
        memcpy(lists + n_lists, chosen, n * sizeof *lists);
        map[v] = CLQ_OFF_GRID | n / 8 << 24 | (uint32_t)(n_lists / 8);
        n_lists += n;
    }
    g->n_table_bytes = n_map * sizeof *map + n_lists * sizeof *lists;
    uint32_t *table = realloc(map, g->n_table_bytes);
    if (!table) abort();
    memcpy(table + n_map, lists, n_lists * sizeof *lists);
    free(lists);
    g->map = table;
}

const clq_grid *clq_grid_get(clq_grid_id id)
{
    pthread_mutex_lock(&lock);
    if (!grids[id].map) make_table(&grids[id]);
    pthread_mutex_unlock(&lock);
    return &grids[id];
}

void clq_grids_expand(uint8_t *bytes)
{
    static const struct {
        clq_grid_id id;
        uint32_t at;
        int factor;
    } rows[] = {{CLQ_GRID_ID_IQ2_XXS, CLQ_EXPANDED_IQ2_XXS, 1}, {CLQ_GRID_ID_IQ2_XS, CLQ_EXPANDED_IQ2_XS, 1},
                {CLQ_GRID_ID_IQ2_S, CLQ_EXPANDED_IQ2_S, 1},     {CLQ_GRID_ID_IQ1, CLQ_EXPANDED_IQ1, 8},
                {CLQ_GRID_ID_IQ3_XXS, CLQ_EXPANDED_IQ3_XXS, 1}, {CLQ_GRID_ID_IQ3_S, CLQ_EXPANDED_IQ3_S, 1}};
    for (uint32_t s = 0; s < 128; s++)
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t signs = s | (uint32_t)(__builtin_popcount(s) & 1) << 7;
            bytes[CLQ_EXPANDED_EVEN_SIGNS * 8 + s * 8 + i] = signs >> i & 1 ? 255 : 0;
        }
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const clq_grid *g = &grids[rows[r].id];
        for (uint32_t p = 0; p < g->n_points; p++)
            for (uint32_t i = 0; i < g->dims; i++)
                bytes[rows[r].at * 8 + p * g->dims + i] =
                    (uint8_t)(g->levels[clq_grid_level(g, g->points[p], i)] * rows[r].factor);
    }
}

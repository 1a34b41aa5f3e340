// SPDX-License-Identifier: MIT
// Tries, pair maps, the merge loop and the cache of words.
#include <stdlib.h>
#include <string.h>

#include "model/tokenize.h"

static uint32_t spread(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(key >> 32) ^ (uint32_t)(key >> 17);
}

// ---- trie --------------------------------------------------------------------------------------

static void trie_put_edge(clq_trie *t, uint64_t key, uint32_t child)
{
    uint32_t at = spread(key) & (t->n_slots - 1);
    while (t->edges[at]) at = (at + 1) & (t->n_slots - 1);
    t->edges[at] = key;
    t->children[at] = child;
}

static bool trie_grow(clq_trie *t)
{
    clq_trie bigger = {.n_slots = t->n_slots ? 2 * t->n_slots : 256};
    if (t->n_slots > UINT32_MAX / 4) return false;
    bigger.edges = calloc(bigger.n_slots, sizeof *bigger.edges);
    bigger.children = malloc(bigger.n_slots * sizeof *bigger.children);
    if (!bigger.edges || !bigger.children) {
        free(bigger.edges);
        free(bigger.children);
        return false;
    }
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (t->edges[i]) trie_put_edge(&bigger, t->edges[i], t->children[i]);
    free(t->edges);
    free(t->children);
    t->edges = bigger.edges;
    t->children = bigger.children;
    t->n_slots = bigger.n_slots;
    return true;
}

static uint32_t trie_new_node(clq_trie *t) // 0: no memory (the root is made first)
{
    if (t->n_nodes == t->capacity) {
        uint32_t capacity = t->capacity ? 2 * t->capacity : 64;
        int32_t *ids = realloc(t->ids, capacity * sizeof *ids);
        if (!ids) return 0;
        t->ids = ids;
        t->capacity = capacity;
    }
    t->ids[t->n_nodes] = -1;
    return t->n_nodes++;
}

uint32_t clq_trie_step(const clq_trie *t, uint32_t node, unsigned char byte)
{
    if (node == 0) return t->first[byte];
    if (!t->n_slots) return 0;
    uint64_t key = ((uint64_t)node << 8 | byte) + 1;
    uint32_t at = spread(key) & (t->n_slots - 1);
    for (; t->edges[at]; at = (at + 1) & (t->n_slots - 1))
        if (t->edges[at] == key) return t->children[at];
    return 0;
}

bool clq_trie_add(clq_trie *t, const char *text, size_t len, int32_t id)
{
    if (t->n_nodes == 0) {
        trie_new_node(t);
        if (t->n_nodes == 0) return false;
    }
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = clq_trie_step(t, node, byte);
        if (!child) {
            if (node && t->n_edges >= t->n_slots / 2 && !trie_grow(t)) return false;
            child = trie_new_node(t);
            if (!child) return false;
            if (node) {
                trie_put_edge(t, ((uint64_t)node << 8 | byte) + 1, child);
                t->n_edges++;
            } else {
                t->first[byte] = child;
            }
        }
        node = child;
    }
    if (t->ids[node] < 0) t->ids[node] = id;
    return true;
}

void clq_trie_free(clq_trie *t)
{
    free(t->edges);
    free(t->children);
    free(t->ids);
    memset(t, 0, sizeof *t);
}

// ---- pair map ----------------------------------------------------------------------------------

const struct clq_pair *clq_pair_map_find(const clq_pair_map *m, uint64_t key)
{
    if (!m->n_slots) return NULL;
    uint32_t at = spread(key) & (m->n_slots - 1);
    for (; m->slots[at].key; at = (at + 1) & (m->n_slots - 1))
        if (m->slots[at].key == key) return &m->slots[at];
    return NULL;
}

static bool pair_map_grow(clq_pair_map *m)
{
    uint32_t n_slots = m->n_slots ? 2 * m->n_slots : 1024;
    if (m->n_slots > UINT32_MAX / 4) return false;
    struct clq_pair *slots = calloc(n_slots, sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; i < m->n_slots; i++) {
        if (!m->slots[i].key) continue;
        uint32_t at = spread(m->slots[i].key) & (n_slots - 1);
        while (slots[at].key) at = (at + 1) & (n_slots - 1);
        slots[at] = m->slots[i];
    }
    free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
    return true;
}

bool clq_pair_map_add(clq_pair_map *m, uint64_t key, uint32_t rank, int32_t id)
{
    if (m->n >= m->n_slots / 2 && !pair_map_grow(m)) return false;
    uint32_t at = spread(key) & (m->n_slots - 1);
    for (; m->slots[at].key; at = (at + 1) & (m->n_slots - 1))
        if (m->slots[at].key == key) return true;
    m->slots[at] = (struct clq_pair){.key = key, .rank = rank, .id = id};
    m->n++;
    return true;
}

void clq_pair_map_free(clq_pair_map *m)
{
    free(m->slots);
    *m = (clq_pair_map){0};
}

// ---- merges ------------------------------------------------------------------------------------

bool clq_work_add_symbol(clq_tokenize_work *w, uint32_t begin, uint32_t len, int32_t id)
{
    if (w->n_symbols == w->symbol_capacity) {
        uint32_t capacity = w->symbol_capacity ? 2 * w->symbol_capacity : 64;
        clq_symbol *symbols = realloc(w->symbols, capacity * sizeof *symbols);
        if (!symbols) return false;
        w->symbols = symbols;
        w->symbol_capacity = capacity;
    }
    int32_t i = (int32_t)w->n_symbols++;
    w->symbols[i] = (clq_symbol){.begin = begin, .len = len, .prev = i - 1, .next = -1, .id = id};
    if (i) w->symbols[i - 1].next = i;
    return true;
}

static bool heap_push(clq_tokenize_work *w, struct clq_candidate c)
{
    if (w->n_heap == w->heap_capacity) {
        uint32_t capacity = w->heap_capacity ? 2 * w->heap_capacity : 64;
        struct clq_candidate *heap = realloc(w->heap, capacity * sizeof *heap);
        if (!heap) return false;
        w->heap = heap;
        w->heap_capacity = capacity;
    }
    uint32_t at = w->n_heap++;
    for (; at && w->heap[(at - 1) / 2].key > c.key; at = (at - 1) / 2) w->heap[at] = w->heap[(at - 1) / 2];
    w->heap[at] = c;
    return true;
}

static struct clq_candidate heap_pop(clq_tokenize_work *w)
{
    struct clq_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < w->n_heap; at = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1].key < w->heap[child].key) child++;
        if (w->heap[child].key >= last.key) break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = last;
    return top;
}

static bool offer(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, clq_pair_fn *pair, int32_t left,
                  int32_t right)
{
    uint32_t rank;
    struct clq_candidate c = {.right = right};
    if (left < 0 || right < 0 || !pair(t, text, &w->symbols[left], &w->symbols[right], &rank, &c.id)) return true;
    c.key = (uint64_t)rank << 32 | (uint32_t)left;
    c.right_len = w->symbols[right].len;
    return heap_push(w, c);
}

bool clq_merge_symbols(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, clq_pair_fn *pair)
{
    w->n_heap = 0;
    for (uint32_t i = 1; i < w->n_symbols; i++)
        if (!offer(t, w, text, pair, (int32_t)i - 1, (int32_t)i)) return false;
    while (w->n_heap) {
        struct clq_candidate c = heap_pop(w);
        int32_t i = (int32_t)(uint32_t)c.key;
        clq_symbol *left = &w->symbols[i], *right = &w->symbols[c.right];
        // A left side that lives still has its length: it could only have grown over the right one.
        if (!left->len || !right->len || right->len != c.right_len) continue;
        left->len += right->len;
        left->id = c.id;
        left->next = right->next;
        right->len = 0;
        if (left->next >= 0) w->symbols[left->next].prev = i;
        if (!offer(t, w, text, pair, left->prev, i) || !offer(t, w, text, pair, i, left->next)) return false;
    }
    return true;
}

// ---- cache -------------------------------------------------------------------------------------

enum { CACHE_SLOTS = 1 << 14 };

clq_cached_word *clq_cache_slot(clq_tokenize_work *w, const char *word, size_t len, bool *hit)
{
    *hit = false;
    if (!w->cache || len == 0 || len > CLQ_CACHED_BYTES) return NULL;
    uint64_t hash = len;
    for (size_t i = 0; i < len; i++) hash = (hash ^ (unsigned char)word[i]) * 0x100000001b3u;
    clq_cached_word *slot = &w->cache[spread(hash) & (CACHE_SLOTS - 1)];
    *hit = slot->len == len && memcmp(slot->text, word, len) == 0;
    return slot;
}

void clq_cache_put(clq_tokenize_work *w, clq_cached_word *slot, const char *word, size_t len, size_t n_before)
{
    size_t n = w->ids->len / sizeof(int32_t) - n_before;
    if (!slot || n > CLQ_CACHED_IDS || w->ids->failed) return;
    slot->len = (uint8_t)len;
    slot->n = (uint8_t)n;
    memcpy(slot->text, word, len);
    if (n) memcpy(slot->ids, w->ids->data + n_before * sizeof(int32_t), n * sizeof(int32_t));
}

clq_cached_word *clq_cache_create(void)
{
    return calloc(CACHE_SLOTS, sizeof(clq_cached_word));
}

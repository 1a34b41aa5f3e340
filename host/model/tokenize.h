// SPDX-License-Identifier: MIT
// What the kinds of tokenizers share. tokenizer.c makes the tokenizer and frames texts, special.c finds the tokens that
// stand in a text as such, tokenize_NAME.c turns plain text into tokens.
#ifndef CLQ_MODEL_TOKENIZE_H
#define CLQ_MODEL_TOKENIZE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "model/tokenizer.h"
#include "model/vocab.h"

// ---- maps --------------------------------------------------------------------------------------

// Texts by their bytes: each node has an edge a byte. Node 0 is the root and no node's child.
typedef struct clq_trie {
    uint64_t *edges; // node << 8 | byte, plus 1; 0: a free slot
    uint32_t *children;
    uint32_t n_slots, n_edges; // n_slots: a power of two
    int32_t *ids;              // of each node: the token that ends here, -1: none
    uint32_t n_nodes, capacity;
    uint32_t first[256]; // the root's children
} clq_trie;

// The first id of equal texts stays. false: no memory.
bool clq_trie_add(clq_trie *t, const char *text, size_t len, int32_t id);
uint32_t clq_trie_step(const clq_trie *t, uint32_t node, unsigned char byte); // 0: no such edge
void clq_trie_free(clq_trie *t);

// Numbers by a 64-bit key (never 0).
typedef struct clq_pair_map {
    struct clq_pair {
        uint64_t key;
        uint32_t rank;
        int32_t id;
    } *slots;
    uint32_t n_slots, n;
} clq_pair_map;

// Keeps what the key has already. false: no memory.
bool clq_pair_map_add(clq_pair_map *m, uint64_t key, uint32_t rank, int32_t id);
const struct clq_pair *clq_pair_map_find(const clq_pair_map *m, uint64_t key); // NULL: none
void clq_pair_map_free(clq_pair_map *m);

// ---- the tokenizer -----------------------------------------------------------------------------

// How byte-level BPE cuts a text, llama.cpp's way and by its names (cuts.c).
typedef struct clq_cut {
    const char *names[20];
    const char *patterns[8]; // each cuts the pieces that the one before left
    bool ignore_merges, add_bos;
    bool raw;     // plain UTF-8 with U+2581 for spaces, not GPT-2's letters for bytes
    bool newlines; // a run of newlines that is a token needs no merges (Gemma 4)
    bool no_bos;  // no BOS unless the metadata names it
} clq_cut;

const clq_cut *clq_cut_find(const char *name, size_t len); // NULL: unknown

typedef struct clq_tokenize_work clq_tokenize_work;
typedef clq_status clq_encode_fn(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, size_t len,
                                 clq_error *err);

struct clq_tokenizer {
    clq_encode_fn *encode; // plain text, appends to w->ids
    bool hf;               // follows `tokenizers`, not llama.cpp
    char *texts;           // of all tokens, without separators
    uint32_t *ends;        // where each token's text ends
    uint8_t *types;        // clq_token_type
    float *scores;
    bool *is_end;
    uint32_t n;
    uint32_t *by_text; // open addressing: id + 1, 0: free
    uint32_t n_slots;  // a power of two
    uint32_t max_token_bytes;
    int32_t bos, eos, eot, eom, unknown, sep, pad, mask;
    bool add_bos, add_eos, add_space_prefix;
    bool bare_space, prefix_space; // spaces become U+2581; one comes first
    uint8_t *strips; // CLQ_STRIP_*, of each token; NULL: none
    clq_trie special[2]; // user-defined tokens; those and control tokens
    int32_t bytes[256];  // the token of a byte, -1: none
    char *chat_template; // NULL: none
    // BPE
    pcre2_code *patterns[8];
    clq_pair_map merges; // left << 32 | right, plus 1
    bool letters; // tokens are spelt in GPT-2's letters for bytes
    bool ignore_merges, newlines, nfc;
    // SentencePiece: pairs of characters that stand side by side in a token
    clq_pair_map neighbours;
    // WordPiece, unigram
    clq_trie all;
    bool lowercase, strip_accents;
    bool remove_extra_spaces;
    float unknown_score;
    uint8_t *charsmap; // precompiled, NULL: none
    uint32_t n_charsmap;
};

enum { CLQ_STRIP_LEFT = 1, CLQ_STRIP_RIGHT = 2 };

static inline const char *clq_token_text(const clq_tokenizer *t, uint32_t id, uint32_t *len)
{
    uint32_t begin = id ? t->ends[id - 1] : 0;
    *len = t->ends[id] - begin;
    return t->texts + begin;
}

// The token with this text, -1: none.
int32_t clq_token_find(const clq_tokenizer *t, const char *text, size_t len);

// Each reads what only its kind has.
clq_status clq_bpe_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, bool gemma4, clq_error *err);
clq_status clq_spm_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err);
clq_status clq_unigram_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err);
clq_status clq_wordpiece_create(clq_tokenizer *t, const clq_gguf_kvs *kvs, clq_error *err);

// ---- one call ----------------------------------------------------------------------------------

// A part of the text that is one token already, or (id -1) plain.
typedef struct clq_fragment {
    uint32_t begin, len;
    int32_t id;
} clq_fragment;

// Appends to *fragments (clq_buf of clq_fragment), in order.
clq_status clq_find_special(const clq_tokenizer *t, const char *text, size_t len, bool parse, clq_buf *fragments,
                            clq_error *err);

typedef struct clq_symbol {
    uint32_t begin, len; // bytes of the text; len 0: merged into another
    int32_t prev, next;  // -1: none
    int32_t id;          // -1: no token
} clq_symbol;

enum { CLQ_CACHED_BYTES = 28, CLQ_CACHED_IDS = 8 };
typedef struct clq_cached_word {
    uint8_t len, n;
    char text[CLQ_CACHED_BYTES];
    int32_t ids[CLQ_CACHED_IDS];
} clq_cached_word;

struct clq_tokenize_work {
    clq_buf *ids;
    clq_symbol *symbols;
    uint32_t n_symbols, symbol_capacity;
    struct clq_candidate {
        uint64_t key; // rank << 32 | left: the smallest is merged first
        uint32_t right_len;
        int32_t right, id;
    } *heap;
    uint32_t n_heap, heap_capacity;
    clq_cached_word *cache; // NULL: the text is too short for one
    clq_buf text, subject, lengths[2];
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

// The byte that a letter of GPT-2's alphabet stands for; -1: it is no such letter.
int clq_letter_byte(uint32_t letter);

// Whether, and as what, two neighbours may be merged. A smaller rank comes first, then the one further left.
typedef bool clq_pair_fn(const clq_tokenizer *t, const char *text, const clq_symbol *left, const clq_symbol *right,
                         uint32_t *rank, int32_t *id);
bool clq_work_add_symbol(clq_tokenize_work *w, uint32_t begin, uint32_t len, int32_t id); // false: no memory
// Merges w->symbols until no pair is left. O(n log n). false: no memory.
bool clq_merge_symbols(const clq_tokenizer *t, clq_tokenize_work *w, const char *text, clq_pair_fn *pair);

static inline void clq_put_id(clq_tokenize_work *w, int32_t id)
{
    clq_buf_append(w->ids, &id, sizeof id);
}

clq_cached_word *clq_cache_create(void); // NULL: no memory. free() it.
// The cache's slot for a word; *hit: it is the word's. NULL: the word is not to be cached.
clq_cached_word *clq_cache_slot(clq_tokenize_work *w, const char *word, size_t len, bool *hit);
// Remembers the ids behind the first n_before of w->ids.
void clq_cache_put(clq_tokenize_work *w, clq_cached_word *slot, const char *word, size_t len, size_t n_before);

// ---- characters (unicode.c) --------------------------------------------------------------------

// Unicode categories, as bits.
enum {
    CLQ_CHAR_PUNCTUATION = 1, // P*
    CLQ_CHAR_CONTROL = 2,     // Cc, Cf, Co, Cs
    CLQ_CHAR_MARK = 4,        // Mc, Me
    CLQ_CHAR_NONSPACING = 8,  // Mn
    CLQ_CHAR_RECENT = 16,     // `tokenizers`, with Unicode 8, does not know the character as such
    CLQ_CHAR_WAS_PUNCTUATION = 32, // it still takes it for punctuation
};
unsigned clq_char_flags(uint32_t c);
unsigned clq_char_flags_hf(uint32_t c); // as `tokenizers` has them
bool clq_char_is_space(uint32_t c); // White_Space
uint32_t clq_char_lower(uint32_t c);
// Canonical decomposition, all the way; c itself if it has none. Returns how many characters.
unsigned clq_char_decompose(uint32_t c, uint32_t out[4]);
// Appends the text in normalization form C. The text is valid UTF-8.
bool clq_text_nfc(const char *text, size_t len, clq_buf *out); // false: no memory
// Appends characters in form D to a list of uint32_t.
bool clq_chars_nfd(const uint32_t *chars, size_t n, clq_buf *out);

// How many bytes a character takes by its first byte, as llama.cpp counts: 1 for bytes that begin none.
static inline uint32_t clq_utf8_length(unsigned char first)
{
    return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}
// The character at text, in *n bytes. What is malformed gives U+FFFD and takes one byte; overlong forms and surrogates
// pass, as in llama.cpp.
uint32_t clq_utf8_decode(const char *text, size_t len, uint32_t *n);
bool clq_utf8_valid(const char *text, size_t len); // strictly
void clq_utf8_append(clq_buf *b, uint32_t c);

#endif

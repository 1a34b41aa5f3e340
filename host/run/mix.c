// SPDX-License-Identifier: MIT
// The rules are those of src/llama-quant.cpp of https://github.com/ggml-org/llama.cpp, as rows: the first row whose
// mix, kind of tensor and facts fit gives the type; without one the tensor gets the mix's base.
#include "run/mix.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M,
    Q6_K, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M, IQ3_XXS, IQ3_XS, IQ3_S, IQ3_M, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0,
    Q1_0, Q2_0, MXFP4_MOE, N_MIXES, Q3_K = N_MIXES, Q4_K, Q5_K, N_NAMES
};

static const clq_mix mixes[N_NAMES] = {
    [F32] = {"F32", 0, CLQ_F32},           [F16] = {"F16", 1, CLQ_F16},
    [BF16] = {"BF16", 32, CLQ_BF16},       [Q4_0] = {"Q4_0", 2, CLQ_Q4_0},
    [Q4_1] = {"Q4_1", 3, CLQ_Q4_1},        [Q5_0] = {"Q5_0", 8, CLQ_Q5_0},
    [Q5_1] = {"Q5_1", 9, CLQ_Q5_1},        [Q8_0] = {"Q8_0", 7, CLQ_Q8_0},
    [Q2_K] = {"Q2_K", 10, CLQ_Q2_K},       [Q2_K_S] = {"Q2_K_S", 21, CLQ_Q2_K},
    [Q3_K_S] = {"Q3_K_S", 11, CLQ_Q3_K},   [Q3_K_M] = {"Q3_K_M", 12, CLQ_Q3_K},
    [Q3_K_L] = {"Q3_K_L", 13, CLQ_Q3_K},   [Q4_K_S] = {"Q4_K_S", 14, CLQ_Q4_K},
    [Q4_K_M] = {"Q4_K_M", 15, CLQ_Q4_K},   [Q5_K_S] = {"Q5_K_S", 16, CLQ_Q5_K},
    [Q5_K_M] = {"Q5_K_M", 17, CLQ_Q5_K},   [Q6_K] = {"Q6_K", 18, CLQ_Q6_K},
    [IQ1_S] = {"IQ1_S", 24, CLQ_IQ1_S},    [IQ1_M] = {"IQ1_M", 31, CLQ_IQ1_M},
    [IQ2_XXS] = {"IQ2_XXS", 19, CLQ_IQ2_XXS}, [IQ2_XS] = {"IQ2_XS", 20, CLQ_IQ2_XS},
    [IQ2_S] = {"IQ2_S", 28, CLQ_IQ2_XS},   [IQ2_M] = {"IQ2_M", 29, CLQ_IQ2_S},
    [IQ3_XXS] = {"IQ3_XXS", 23, CLQ_IQ3_XXS}, [IQ3_XS] = {"IQ3_XS", 22, CLQ_IQ3_S},
    [IQ3_S] = {"IQ3_S", 26, CLQ_IQ3_S},    [IQ3_M] = {"IQ3_M", 27, CLQ_IQ3_S},
    [IQ4_NL] = {"IQ4_NL", 25, CLQ_IQ4_NL}, [IQ4_XS] = {"IQ4_XS", 30, CLQ_IQ4_XS},
    [TQ1_0] = {"TQ1_0", 36, CLQ_TQ1_0},    [TQ2_0] = {"TQ2_0", 37, CLQ_TQ2_0},
    [Q1_0] = {"Q1_0", 40, CLQ_Q1_0},       [Q2_0] = {"Q2_0", 41, CLQ_Q2_0},
    [MXFP4_MOE] = {"MXFP4_MOE", 38, CLQ_MXFP4},
    // Short names; clq_mix_find() gives the mix that they stand for.
    [Q3_K] = {"Q3_K", 12, CLQ_Q3_K}, [Q4_K] = {"Q4_K", 15, CLQ_Q4_K}, [Q5_K] = {"Q5_K", 17, CLQ_Q5_K},
};
static const uint8_t stands_for[N_NAMES - N_MIXES] = {Q3_K_M, Q4_K_M, Q5_K_M};

const clq_mix *clq_mix_at(uint32_t index)
{
    return index < N_MIXES ? &mixes[index] : NULL;
}

const clq_mix *clq_mix_find(const char *name)
{
    for (int i = 0; i < N_NAMES; i++)
        if (strcasecmp(name, mixes[i].name) == 0) return &mixes[i < N_MIXES ? i : stands_for[i - N_MIXES]];
    return NULL;
}

// ---- kinds of tensors ----

typedef enum { TOKENS, OUTPUT, QKV, KV_B, VALUE, KEY, QUERY, ATTN_OUT, UP, GATE, DOWN, OTHER } kind;

bool clq_is_token_embedding(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0;
}

bool clq_is_output_tensor(const char *name)
{
    return strcmp(name, "output.weight") == 0;
}

static kind kind_of(const char *name)
{
    static const struct {
        const char *part;
        kind kind;
    } parts[] = {{"attn_qkv.weight", QKV}, {"attn_kv_b.weight", KV_B}, {"attn_v.weight", VALUE}, {"attn_k.weight", KEY},
                 {"attn_q.weight", QUERY}, {"attn_output.weight", ATTN_OUT}, {"ffn_up", UP}, {"ffn_gate", GATE},
                 {"ffn_down", DOWN}};
    if (clq_is_output_tensor(name)) return OUTPUT;
    if (clq_is_token_embedding(name)) return TOKENS;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part)) return parts[i].kind;
    return OTHER;
}

static bool value_like(kind k)
{
    return k == VALUE || k == QKV || k == KV_B;
}

// ---- the rows ----

#define M(mix) (1ull << (mix))
#define TINY (M(IQ1_S) | M(IQ1_M) | M(IQ2_XXS) | M(IQ2_XS) | M(IQ2_S) | M(IQ2_M)) // rules of their own
#define ALL (~0ull)

// Facts about a tensor and its model; all that a row names must hold. i of n: its place among its kind.
enum {
    GROUPED = 1 << 0,      // 4 or more query heads share a key head
    WIDE = 1 << 1,         // GROUPED, or 4 or more experts
    EXPERTS_8 = 1 << 2,
    NO_EXPERTS_8 = 1 << 3, // another number of experts
    EARLY = 1 << 4,        // i < n / 8
    EARLY_16 = 1 << 5,     // i < n / 16
    MORE = 1 << 6,         // the first and last eighth, and every third between
    MIDDLE = 1 << 7,       // n / 8 <= i < 7 n / 8
    FIRST_2 = 1 << 8,
    FIRST_4 = 1 << 9,
    IMATRIX = 1 << 10,
    NO_IMATRIX = 1 << 11,
    FALCON = 1 << 12,
    NO_FALCON = 1 << 13,
    STACKED = 1 << 14,     // an expert in each matrix
    EARLY_SEEN = 1 << 15,  // EARLY, i counted even where names tell the layer
};

typedef struct {
    uint64_t mixes;
    uint32_t facts;
    clq_format_id type;
} row;

#define ROWS(name, ...) static const row name[] = {__VA_ARGS__, {0}}

ROWS(output_rows, {M(MXFP4_MOE), 0, CLQ_Q8_0}, {ALL, FALCON, CLQ_Q8_0},
     {TINY | M(IQ3_XXS), 0, CLQ_Q5_K},
     {~M(Q8_0), 0, CLQ_Q6_K});
ROWS(moe_rows, {M(MXFP4_MOE), STACKED, CLQ_MXFP4}, {M(MXFP4_MOE), 0, CLQ_Q8_0});
ROWS(token_rows, {M(IQ2_XXS) | M(IQ2_XS) | M(IQ1_S) | M(IQ1_M), 0, CLQ_Q2_K},
     {M(IQ2_S) | M(IQ2_M) | M(IQ3_XXS), 0, CLQ_IQ3_S}, {M(TQ1_0) | M(TQ2_0) | M(Q2_0), 0, CLQ_Q4_K});
ROWS(value_rows, {TINY, WIDE, CLQ_Q4_K},
     {M(IQ2_S) | M(IQ2_M), 0, CLQ_IQ3_S}, {M(IQ1_S) | M(IQ1_M) | M(IQ2_XXS) | M(IQ2_XS), 0, CLQ_Q2_K},
     {ALL, EXPERTS_8, CLQ_Q8_0}, {M(Q2_K) | M(Q2_K_S) | M(IQ3_XXS) | M(IQ3_XS) | M(IQ3_S), GROUPED, CLQ_Q4_K},
     {M(Q2_K), 0, CLQ_Q3_K}, {M(IQ3_XXS), NO_IMATRIX, CLQ_IQ3_S}, {M(IQ3_M), 0, CLQ_Q4_K},
     {M(Q3_K_M), FIRST_2, CLQ_Q5_K}, {M(Q3_K_M), 0, CLQ_Q4_K}, {M(Q3_K_L), 0, CLQ_Q5_K},
     {M(IQ4_NL) | M(IQ4_XS), GROUPED, CLQ_Q5_K}, {M(Q4_K_M) | M(Q5_K_M), MORE, CLQ_Q6_K},
     {M(Q4_K_S), FIRST_4, CLQ_Q5_K});
ROWS(key_rows, {TINY, EXPERTS_8, CLQ_Q4_K},
     {ALL, EXPERTS_8, CLQ_Q8_0}, {M(IQ3_XS), 0, CLQ_IQ3_XXS}, {M(IQ3_XXS), 0, CLQ_IQ2_S});
ROWS(query_rows, {M(IQ3_XS), 0, CLQ_IQ3_XXS}, {M(IQ3_XXS), 0, CLQ_IQ2_S});
ROWS(attn_out_rows, {TINY, EXPERTS_8, CLQ_Q5_K},
     {M(IQ1_S) | M(IQ1_M), 0, CLQ_IQ2_XXS}, {M(IQ2_S) | M(IQ2_M), 0, CLQ_IQ3_S}, {M(Q3_K_L), FALCON, CLQ_Q4_K},
     {M(Q2_K) | M(IQ3_XS) | M(IQ3_XXS) | M(Q3_K_S) | M(Q3_K_M) | M(IQ4_NL) | M(Q4_K_S) | M(Q4_K_M) | M(IQ3_S) |
          M(IQ3_M) | M(IQ4_XS), EXPERTS_8 | NO_FALCON, CLQ_Q5_K},
     {M(Q2_K), NO_EXPERTS_8 | NO_FALCON, CLQ_Q3_K}, {M(IQ3_XXS), NO_EXPERTS_8 | NO_FALCON, CLQ_IQ3_S},
     {M(Q3_K_M) | M(IQ3_M), NO_EXPERTS_8 | NO_FALCON, CLQ_Q4_K}, {M(Q3_K_L), NO_EXPERTS_8 | NO_FALCON, CLQ_Q5_K});
ROWS(up_rows, {M(IQ3_XS), MIDDLE, CLQ_IQ3_XXS});
ROWS(down_rows, {M(IQ2_S) | M(IQ2_M), EARLY_SEEN, CLQ_IQ3_S},
     {M(IQ1_S) | M(IQ1_M) | M(IQ2_XXS) | M(IQ2_XS), EARLY_SEEN, CLQ_Q2_K}, {M(Q2_K), 0, CLQ_Q3_K},
     {M(Q2_K_S) | M(IQ3_M), EARLY, CLQ_Q4_K}, {M(IQ3_M), EXPERTS_8 | MORE, CLQ_Q4_K},
     {M(IQ3_XXS), EARLY | NO_IMATRIX, CLQ_Q4_K}, {M(IQ3_XXS), NO_IMATRIX, CLQ_Q3_K}, {M(Q3_K_M), EARLY_16, CLQ_Q5_K},
     {M(Q3_K_M), NO_FALCON, CLQ_Q4_K}, {M(Q3_K_M), MORE, CLQ_Q4_K}, {M(Q3_K_L), FALCON, CLQ_Q4_K},
     {M(Q3_K_L), 0, CLQ_Q5_K}, {M(Q4_K_M), FALCON | EARLY_16, CLQ_Q6_K}, {M(Q4_K_M), FALCON | MORE, CLQ_Q5_K},
     {M(Q4_K_M), NO_FALCON | MORE, CLQ_Q6_K}, {M(IQ4_NL) | M(IQ4_XS), EARLY | NO_IMATRIX, CLQ_Q5_K},
     {M(Q5_K_M), MORE, CLQ_Q6_K}, {M(Q4_K_S), NO_FALCON | EARLY, CLQ_Q5_K}, {M(Q4_0), IMATRIX | EARLY, CLQ_Q4_1},
     {M(Q5_0), IMATRIX | EARLY, CLQ_Q5_1});
ROWS(no_rows, {0});

static const row *const rows_of[] = {
    [TOKENS] = token_rows, [OUTPUT] = output_rows, [QKV] = value_rows, [KV_B] = value_rows, [VALUE] = value_rows,
    [KEY] = key_rows, [QUERY] = query_rows, [ATTN_OUT] = attn_out_rows, [UP] = up_rows, [GATE] = up_rows,
    [DOWN] = down_rows, [OTHER] = no_rows,
};

static clq_format_id find_row(const row *rows, uint64_t mix, uint32_t facts, clq_format_id otherwise)
{
    for (; rows->mixes; rows++)
        if (rows->mixes & mix && (rows->facts & facts) == rows->facts) return rows->type;
    return otherwise;
}

// ---- facts ----

static uint32_t position_facts(uint32_t i, uint32_t n)
{
    uint32_t eighth = n / 8, facts = 0;
    if (i < eighth) facts |= EARLY;
    if (i < n / 16) facts |= EARLY_16;
    if (i < eighth || i >= 7 * n / 8 || (i - eighth) % 3 == 2) facts |= MORE;
    if (i >= eighth && i < 7 * n / 8) facts |= MIDDLE;
    if (i < 2) facts |= FIRST_2;
    if (i < 4) facts |= FIRST_4;
    return facts;
}

static uint32_t model_facts(const clq_mix_state *s)
{
    uint32_t facts = s->n_experts == 8 ? EXPERTS_8 : NO_EXPERTS_8;
    facts |= s->falcon ? FALCON : NO_FALCON;
    facts |= s->has_imatrix ? IMATRIX : NO_IMATRIX;
    if (s->heads_per_kv >= 4) facts |= GROUPED;
    if (s->heads_per_kv >= 4 || s->n_experts >= 4) facts |= WIDE;
    return facts;
}

static int layer_of(const char *name)
{
    int layer = -1;
    return sscanf(name, "blk.%9d.", &layer) == 1 ? layer : -1;
}

// The place of a feed-forward tensor: counted, or its name's layer where experts may stand in any order.
static uint32_t ffn_place(const clq_mix_state *s, const char *name, uint32_t counted)
{
    int layer = layer_of(name);
    return s->n_experts > 1 && layer >= 0 ? (uint32_t)layer : counted;
}

int clq_mix_order(const char *a, const char *b)
{
    int x = layer_of(a), y = layer_of(b);
    return x != y ? x - y : strcmp(a, b);
}

clq_format_id clq_mix_choose(clq_mix_state *s, const char *name, const clq_tensor *t, const clq_type *tied_type)
{
    uint64_t mix = M(s->mix - mixes), cols = t->n_dims ? t->dims[t->n_dims - 1] : 1;
    uint32_t facts = model_facts(s);
    clq_format_id base = s->mix->base;
    kind k = kind_of(name);
    bool output = k == OUTPUT || (k == TOKENS && s->tied);
    if (s->glm5 && (strstr(name, "attn_q_a") || strstr(name, "attn_q_b") || strstr(name, "nextn.eh_proj")))
        return CLQ_Q8_0;
    if (output && tied_type) return tied_type->format;
    if (output && mix != M(MXFP4_MOE) && cols % clq_format_at(base)->block_elements) return CLQ_Q8_0;
    if (output) return find_row(output_rows, mix, facts, base);
    if (mix == M(MXFP4_MOE)) {
        bool stacked = t->n_dims >= 3 && t->dims[t->n_dims - 3] > 1;
        if (stacked && (!s->stacked_ffn_only || k == UP || k == GATE || k == DOWN)) facts |= STACKED;
        return find_row(moe_rows, mix, facts, base);
    }
    if (value_like(k)) facts |= position_facts(s->i_value++, s->n_values);
    if (k == DOWN && s->i_down < s->n_layers / 8) facts |= EARLY_SEEN;
    if (k == DOWN) facts |= position_facts(ffn_place(s, name, s->i_down++), s->n_layers);
    if (k == UP) facts |= position_facts(ffn_place(s, name, s->i_up++), s->n_layers);
    if (k == GATE) facts |= position_facts(ffn_place(s, name, s->i_gate++), s->n_layers);
    clq_format_id type = find_row(rows_of[k], mix, facts, base);
    // 80 layers with shared key heads: attn_v is small there.
    bool small_values = s->big_llama && value_like(k) && !(mix & TINY);
    return small_values && (type == CLQ_Q3_K || type == CLQ_Q4_K) ? CLQ_Q5_K : type;
}

// The number of an "ARCH.name" entry; of an array the first.
static uint32_t number(const clq_gguf_kvs *kvs, const char *arch, const char *name, uint32_t otherwise)
{
    char key[256];
    uint64_t v, n;
    clq_gguf_type element;
    const uint8_t *p;
    snprintf(key, sizeof key, "%.150s.%s", arch, name);
    if (clq_kv_get_u64(kvs, key, &v)) return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
    bool words = clq_kv_get_array(kvs, key, &element, &n, &p) && (element == CLQ_GGUF_U32 || element == CLQ_GGUF_I32);
    if (!words || n == 0) return otherwise;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)(p[3] & 127) << 24;
}

void clq_mix_begin(clq_mix_state *s, const clq_mix *mix, const clq_gguf_kvs *kvs, bool has_imatrix)
{
    // Models whose values llama.cpp counts among the "70B" ones, by layers.
    static const struct {
        const char *arch;
        uint32_t layers;
    } big[] = {{"llama", 80}, {"qwen2", 80}, {"deci", 80}, {"olmo", 80}, {"jais2", 68}};
    char arch[128] = "";
    const char *text;
    size_t len;
    if (clq_kv_get_string(kvs, "general.architecture", &text, &len))
        snprintf(arch, sizeof arch, "%.*s", (int)(len < 127 ? len : 127), text);
    *s = (clq_mix_state){.mix = mix, .tied = true, .has_imatrix = has_imatrix};
    s->falcon = strcmp(arch, "falcon") == 0;
    s->stacked_ffn_only = strcmp(arch, "bailingmoe3") == 0;
    s->glm5 = strcmp(arch, "glm5-next") == 0;
    s->n_layers = number(kvs, arch, "block_count", 0);
    if (s->n_layers > 1u << 20) s->n_layers = 1u << 20; // 7 * n_layers stays in range
    s->n_experts = number(kvs, arch, "expert_count", 0);
    uint32_t heads = number(kvs, arch, "attention.head_count", 0);
    uint32_t kv_heads = number(kvs, arch, "attention.head_count_kv", heads);
    s->heads_per_kv = kv_heads ? heads / kv_heads : 0;
    for (size_t i = 0; i < sizeof big / sizeof *big; i++)
        if (strcmp(arch, big[i].arch) == 0 && s->n_layers == big[i].layers)
            s->big_llama = i > 0 || heads != kv_heads;
}

void clq_mix_see(clq_mix_state *s, const char *name)
{
    kind k = kind_of(name);
    s->n_values += value_like(k);
    if (k == OUTPUT) s->tied = false;
}

bool clq_needs_importance(const char *name, clq_format_id format, const clq_mix *mix)
{
    if (clq_is_token_embedding(name) || clq_is_output_tensor(name)) return false;
    switch (format) {
    case CLQ_IQ1_S: case CLQ_IQ1_M: case CLQ_IQ2_XXS: case CLQ_IQ2_XS: case CLQ_IQ2_S: case CLQ_IQ3_XXS: return true;
    case CLQ_Q2_K: return mix == &mixes[Q2_K_S];
    default: return false;
    }
}

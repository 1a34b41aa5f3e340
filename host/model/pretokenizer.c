// SPDX-License-Identifier: MIT
// How byte-level BPE cuts a text into words. GGUF knows each way by a name, tokenizer.json spells
// it out. The regular expressions are those of the published tokenizer.json files.
#include <string.h>

#include "model/vocab.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define OTHER "[^\\r\\n\\p{L}\\p{N}]?"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const clq_pretokenizer table[] = {
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
               "lfm2", "jina-v5-nano", "glm4"},
     .splits = {CONTRACTIONS "|" OTHER
                             "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"smaug-bpe", "dbrx", "chatglm-bpe"},
     .splits = {CONTRACTIONS "|" OTHER
                             "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}},
    {.names = {"qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2", "stablelm2", "hunyuan",
               "grok-2", "solar-open"},
     .splits = {CONTRACTIONS "|" OTHER "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
     .nfc = true},
    {.names = {"qwen35"},
     .splits = {CONTRACTIONS "|" OTHER
                             "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES},
     .nfc = true},
    {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
               "mellum2"},
     .digits = true,
     .byte_level_regex = true},
    {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "jina-es", "jina-de",
               "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert",
               "granite-docling"},
     .byte_level_regex = true},
    {.names = {"tekken"},
     .splits = {OTHER UPPER "*" LOWER "+|" OTHER UPPER "+" LOWER
                            "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
     .splits = {OTHER UPPER "*" LOWER "+" CONTRACTIONS "?|" OTHER UPPER "+" LOWER "*" CONTRACTIONS
                            "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm"},
     .splits = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
                "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
                "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}},
};

enum { N_TABLE = sizeof table / sizeof *table, MAX_NAMES = 16, MAX_SPLITS = 4 };

const clq_pretokenizer *clq_pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < N_TABLE; i++)
        for (size_t k = 0; k < MAX_NAMES && table[i].names[k]; k++)
            if (strcmp(table[i].names[k], name) == 0) return &table[i];
    return NULL;
}

// ---- from tokenizer.json -----------------------------------------------------------------------

// Adds one step of a pre_tokenizer to what was seen; false: a step that no row has.
static bool see_step(const json_t *step, clq_pretokenizer *seen, size_t *n_splits, bool *done)
{
    const char *type = clq_json_text(step, "type");
    bool flag;
    if (!type || *done) return false;
    if (strcmp(type, "Digits") == 0) {
        seen->digits = true;
        return *n_splits == 0 && clq_json_bool(step, "individual_digits", &flag) && flag;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        seen->byte_level_regex = !clq_json_bool(step, "use_regex", &flag) || flag;
        return *done = true;
    }
    const char *regex = clq_json_text(json_object_get(step, "pattern"), "Regex");
    const char *behavior = clq_json_text(step, "behavior");
    if (strcmp(type, "Split") != 0 || !regex || !behavior || *n_splits == MAX_SPLITS) return false;
    if (strcmp(behavior, "Isolated") != 0) {
        // Splitting on the complement and dropping nothing is the same cut.
        if (strcmp(behavior, "Removed") != 0 || !clq_json_bool(step, "invert", &flag) || !flag)
            return false;
    }
    seen->splits[(*n_splits)++] = regex;
    return true;
}

static bool same(const clq_pretokenizer *a, const clq_pretokenizer *b)
{
    for (size_t i = 0; i < MAX_SPLITS; i++) {
        if (!a->splits[i] != !b->splits[i]) return false;
        if (a->splits[i] && strcmp(a->splits[i], b->splits[i]) != 0) return false;
    }
    return a->digits == b->digits && a->byte_level_regex == b->byte_level_regex;
}

const clq_pretokenizer *clq_pretokenizer_of(const json_t *tokenizer)
{
    const json_t *root = json_object_get(tokenizer, "pre_tokenizer");
    const json_t *steps = json_object_get(root, "pretokenizers");
    size_t n_steps = steps ? json_array_size(steps) : 1, n_splits = 0;
    clq_pretokenizer seen = {0};
    bool done = false;
    for (size_t i = 0; i < n_steps; i++)
        if (!see_step(steps ? json_array_get(steps, i) : root, &seen, &n_splits, &done))
            return NULL;
    if (!done) return NULL;
    clq_json_bool(json_object_get(tokenizer, "model"), "ignore_merges", &seen.ignore_merges);
    // ignore_merges decides between rows that cut alike; a cut that only one row has needs no help.
    const clq_pretokenizer *found = NULL;
    for (size_t i = 0; i < N_TABLE; i++) {
        if (!same(&table[i], &seen)) continue;
        if (!found || table[i].ignore_merges == seen.ignore_merges) found = &table[i];
        if (found->ignore_merges == seen.ignore_merges) break;
    }
    return found;
}

// ---- to tokenizer.json -------------------------------------------------------------------------

json_t *clq_pretokenizer_json(const clq_pretokenizer *p, bool add_prefix_space)
{
    json_t *steps = json_array();
    size_t n_steps = p->digits ? 2 : 1;
    for (size_t i = 0; i < MAX_SPLITS && p->splits[i]; i++, n_steps++)
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split",
                                               "pattern", "Regex", p->splits[i], "behavior",
                                               "Isolated", "invert", 0));
    if (p->digits)
        json_array_append_new(steps,
                              json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    json_array_append_new(steps,
                          json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                    (int)add_prefix_space, "trim_offsets", 1, "use_regex",
                                    (int)p->byte_level_regex));
    if (json_array_size(steps) == n_steps)
        return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
    json_decref(steps);
    return NULL;
}

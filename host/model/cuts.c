// SPDX-License-Identifier: MIT
// How llama.cpp cuts texts for BPE, by tokenizer.ggml.pre. The regular expressions are those of the models'
// tokenizer.json files with llama.cpp's changes (letters beyond ASCII have no case), spelt for PCRE2.
#include <string.h>

#include "model/tokenize.h"

#define CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"
#define OTHER "[^\\r\\n\\p{L}\\p{N}]?"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS OTHER "\\p{L}+"
#define MARKS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|" WORDS "|\\p{N}{1,3}|" MARKS "|" SPACES
#define QWEN2 CONTRACTIONS "|" WORDS "|\\p{N}|" MARKS "|" SPACES
#define CJK "[一-龥\\x{3040}-ゟ゠-ヿ]+"
// Letters of the scripts that have case, as DeepSeek lists them.
#define CASED \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}" \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}" \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}" \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}" \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}" \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}" \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}" \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}" \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}" \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}" \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}" \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}" \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}" \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}" \
    "\\x{1e900}-\\x{1e943}"
// From U+0800 to U+4E00, to U+9FA5, and from U+AC00 to U+D7FF, without white space: llama.cpp has that replaced before.
#define EAST_ASIAN \
    "[一-龥\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-" \
    "\\x{2fff}\\x{3001}-一가-\\x{d7ff}]+"
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"
#define DEEPSEEK3 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|" \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" \
    "[\\r\\n]*|" SPACES

static const clq_cut cuts[] = {
    {.names = {"default"},
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
               "jina-v5-nano"},
     .patterns = {LLAMA3},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"smaug-bpe", "dbrx"}, .patterns = {LLAMA3}},
    {.names = {"chatglm-bpe"}, .patterns = {LLAMA3}, .no_bos = true},
    {.names = {"glm4", "glm5"}, .patterns = {LLAMA3}, .ignore_merges = true, .no_bos = true},
    {.names = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open",
               "grok-2"},
     .patterns = {QWEN2}},
    {.names = {"qwen35"},
     .patterns = {CONTRACTIONS "|" OTHER "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES}},
    {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
     .patterns = {"\\p{N}", GPT2}},
    {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "jina-es", "jina-de", "jina-v2-es",
               "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert", "granite-docling", "jina-v1-en",
               "jina-v2-code", "roberta-bpe"},
     .patterns = {GPT2}},
    {.names = {"tekken"},
     .patterns = {OTHER UPPER "*" LOWER "+|" OTHER UPPER "+" LOWER "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
     .patterns = {OTHER UPPER "*" LOWER "+" CONTRACTIONS "?|" OTHER UPPER "+" LOWER "*" CONTRACTIONS
                        "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}},
    {.names = {"deepseek-llm"},
     .patterns = {"[\\r\\n]",
                  "\\s?[" CASED "]+",
                  "\\s?[!-/:-~！-／：-～‘-‟\\x{3001}-。]+", "(?<!\\s)\\s++\\z", EAST_ASIAN, "\\p{N}+"}},
    {.names = {"deepseek-coder"},
     .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", EAST_ASIAN, "\\p{N}"}},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, .patterns = {"\\p{N}{1,3}", CJK, DEEPSEEK3}},
    {.names = {"falcon"}, .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = {"poro-chat", "bloom", "gpt3-finnish"}, .patterns = {BLOOM}},
    {.names = {"viking"}, .patterns = {BLOOM, "\\p{N}"}},
    {.names = {"bailingmoe", "bailingmoe2", "llada-moe"},
     .patterns = {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|" WORDS "|\\p{N}|" MARKS
                  "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = {"seed-coder"},
     .patterns = {CONTRACTIONS "|" WORDS "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = {"ufakzeka"}, .patterns = {WORDS "|\\p{N}|" MARKS "|" SPACES}},
    {.names = {"minicpm5"},
     .patterns = {"\\p{N}{1,3}", CONTRACTIONS "|" WORDS "|\\p{N}+|" MARKS "|" SPACES},
     .ignore_merges = true},
    {.names = {"gemma4", "granite-embed-multi-311m"},
     .patterns = {"[^\\n]+|[\\n]+"},
     .raw = true,
     .newlines = true},
    {.names = {"sarvam-moe"}, .patterns = {"[^\\n]+|[\\n]+"}, .raw = true},
};

const clq_cut *clq_cut_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        for (size_t k = 0; k < sizeof cuts->names / sizeof *cuts->names && cuts[i].names[k]; k++)
            if (strlen(cuts[i].names[k]) == len && memcmp(cuts[i].names[k], name, len) == 0) return &cuts[i];
    return NULL;
}

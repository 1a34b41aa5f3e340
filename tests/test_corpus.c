// SPDX-License-Identifier: MIT
// host/calib/corpus.c: windows of a text.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calib/corpus.h"

static void must(clq_status st, const clq_error *err)
{
    if (st != CLQ_OK) fail_msg("%s", err->text);
}

enum { BOS = 1, EOS = 2, WORDS = 3, N_WORDS = 20, VOCAB = WORDS + N_WORDS };

// The words a ... t are the tokens 3 ... 22, with a space before them. llama: a BOS; bert: [CLS] and [SEP].
static clq_tokenizer *make_tokenizer(bool bert)
{
    static const char *const special[2][WORDS] = {{"<unk>", "<s>", "</s>"}, {"[UNK]", "[CLS]", "[SEP]"}};
    char words[N_WORDS][8];
    const char *tokens[VOCAB];
    size_t lengths[VOCAB];
    float scores[VOCAB] = {0};
    int32_t types[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        if (i >= WORDS) snprintf(words[i - WORDS], 8, "\xe2\x96\x81%c", 'a' + i - WORDS);
        tokens[i] = i < WORDS ? special[bert][i] : words[i - WORDS];
        lengths[i] = strlen(tokens[i]);
        types[i] = i < WORDS ? 3 : 1;
    }
    clq_gguf_kvs kvs = {0};
    clq_kv_set_string(&kvs, "tokenizer.ggml.model", bert ? "bert" : "llama", bert ? 4 : 5);
    clq_kv_set_strings(&kvs, "tokenizer.ggml.tokens", tokens, lengths, VOCAB);
    clq_kv_set_f32s(&kvs, "tokenizer.ggml.scores", scores, VOCAB);
    clq_kv_set_i32s(&kvs, "tokenizer.ggml.token_type", types, VOCAB);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.unknown_token_id", 0);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.bos_token_id", BOS);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.eos_token_id", EOS);
    clq_kv_set_u32(&kvs, "tokenizer.ggml.seperator_token_id", EOS);
    clq_tokenizer *t;
    clq_error err;
    must(clq_tokenizer_create(&kvs, &t, &err), &err);
    clq_kvs_free(&kvs);
    return t;
}

static clq_corpus_options corpus_options(clq_corpus_kind kind, uint32_t context)
{
    return (clq_corpus_options){.kind = kind, .name = "F", .field = "text", .context = context, .vocab = VOCAB};
}

// Windows as letters: ^ BOS, $ EOS, | between windows.
static void expect_windows(const clq_tokenizer *t, const char *text, const clq_corpus_options *o, const char *want,
                           uint64_t n_text, uint64_t n_dropped)
{
    clq_corpus *c;
    clq_error err;
    char shown[256];
    size_t n = 0;
    must(clq_corpus_create(t, text, strlen(text), o, &c, &err), &err);
    for (uint32_t w = 0; w < c->n_windows; w++) {
        if (w) shown[n++] = '|';
        for (uint32_t i = 0; i < clq_corpus_window(c, w); i++) {
            int32_t id = c->tokens[(uint64_t)w * c->context + i];
            shown[n++] = id == BOS ? '^' : id == EOS ? '$' : id == 0 ? '?' : (char)('a' + id - WORDS);
        }
    }
    shown[n] = '\0';
    assert_string_equal(shown, want);
    assert_int_equal(c->n_text, n_text);
    assert_int_equal(c->n_dropped, n_dropped);
    clq_corpus_free(c);
}

static void refuse_windows(const clq_tokenizer *t, const char *text, const clq_corpus_options *o, const char *says)
{
    clq_corpus *c = (clq_corpus *)1;
    clq_error err;
    assert_int_equal(clq_corpus_create(t, text, strlen(text), o, &c, &err), o->context < 4 ? CLQ_USAGE : CLQ_BAD_INPUT);
    assert_null(c);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

static void test_text_windows(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TEXT, 4);
    // The text begins with a BOS of its own; the first token of other windows gives way to one.
    expect_windows(t, "a b c", &o, "^abc", 4, 0);
    expect_windows(t, "a b c d e f g", &o, "^abc|^efg", 8, 0);
    expect_windows(t, "a b c d", &o, "^abc", 5, 1);
    expect_windows(t, "a b c d e", &o, "^abc|^e", 6, 0);
    o.chunks = 1;
    expect_windows(t, "a b c d e f g", &o, "^abc", 8, 4);
    o.chunks = 2;
    expect_windows(t, "a b c d e f g h i", &o, "^abc|^efg", 10, 2);
    refuse_windows(t, "a b c d e f", &o, "'F' has 7 tokens; 2 windows of 4 need 8");
    o.chunks = 0;
    refuse_windows(t, "", &o, "'F' has 1 tokens; a window needs 4");
    refuse_windows(t, "a b", &o, "'F' has 3 tokens; a window needs 4");
    o.context = 3;
    refuse_windows(t, "a b c", &o, "at least 4");
    o.context = 4;
    o.vocab = 6;
    refuse_windows(t, "a b c d e", &o, "token 4 of 'F' is 6");
    refuse_windows(NULL, "a b c", &o, "no tokenizer");
    clq_tokenizer_free(t);
}

static void test_encoder_windows(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(true);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TEXT, 5);
    o.encoder = true;
    expect_windows(t, "a b c", &o, "^abc$", 3, 0);
    expect_windows(t, "a b c d e f g h", &o, "^abc$|^def$|^gh$", 8, 0);
    expect_windows(t, "a b c d e f g", &o, "^abc$|^def$", 7, 1);
    refuse_windows(t, "a b", &o, "'F' has 2 tokens; a window needs 3");
    refuse_windows(t, "", &o, "'F' has 0 tokens");
    o.chunks = 2;
    refuse_windows(t, "a b c d e", &o, "'F' has 5 tokens; 2 windows of 3 need 6");
    clq_tokenizer_free(t);
}

static void test_lines(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_JSONL, 4);
    expect_windows(t, "{\"text\": \"a b\", \"n\": 1}\r\n\n  \n{\"text\": \"c d\"}\n{\"text\":\"\"}", &o, "^ab^|^d^", 7,
                   0);
    refuse_windows(t, "{\"text\": \"a b c\"}\n{\"body\": \"a\"}\n", &o, "'F': line 2 has no field 'text'");
    refuse_windows(t, "\n[\"text\"]", &o, "line 2 is no JSON object");
    refuse_windows(t, "{\"text\": \"a", &o, "line 1 is no JSON: ");
    refuse_windows(t, "a b c", &o, "line 1 is no JSON: ");
    refuse_windows(t, "{\"text\": 1}", &o, "line 1: its field 'text' is no text");
    refuse_windows(t, "{\"text\": \"a\", \"text\": \"b\"}", &o, "duplicate");
    refuse_windows(t, "{\"text\": \"a\"} {}", &o, "line 1 is no JSON: ");
    refuse_windows(t, "\n\n", &o, "'F' has 0 tokens; a window needs 4");
    o.field = "body";
    expect_windows(t, "{\"body\": \"a b c\"}", &o, "^abc", 4, 0);
    clq_tokenizer_free(t);
}

static void test_ids(void **state)
{
    (void)state;
    clq_tokenizer *t = make_tokenizer(false);
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TOKENS, 4);
    expect_windows(NULL, " 3 4\n5\t6 7 8\r\n9", &o, "abcd|efg", 7, 0);
    expect_windows(t, "3 4 5 6 7 8 9", &o, "^bcd|^fg", 7, 0);
    refuse_windows(NULL, "", &o, "'F' has 0 tokens; a window needs 4");
    refuse_windows(NULL, "3", &o, "'F' has 1 tokens; a window needs 4");
    refuse_windows(NULL, "3 4 23 5", &o, "number 3 is '23'");
    refuse_windows(NULL, "3 -4 5 5", &o, "number 2 is '-4'");
    refuse_windows(NULL, "3 4 5, 5", &o, "number 3 is '5,'");
    refuse_windows(NULL, "99999999999999999999999999999", &o, "number 1 is '999999999999999999999999...'");
    clq_tokenizer_free(t);
}

// The same windows for a seed wherever it runs, all with the same probability, in the text's order.
static void test_random_windows(void **state)
{
    (void)state;
    clq_corpus_options o = corpus_options(CLQ_CORPUS_TOKENS, 4);
    o.random = true;
    o.chunks = 2;
    const char text[] = "3 3 3 3 4 4 4 4 5 5 5 5 6 6 6 6 7 7 7 7 8 8 8";
    o.seed = 1;
    expect_windows(NULL, text, &o, "dddd|eeee", 23, 15);
    o.seed = 2;
    expect_windows(NULL, text, &o, "cccc|eeee", 23, 15);
    uint32_t taken[5] = {0};
    for (o.seed = 0; o.seed < 5000; o.seed++) {
        clq_corpus *c;
        clq_error err;
        must(clq_corpus_create(NULL, text, strlen(text), &o, &c, &err), &err);
        assert_int_equal(c->n_windows, 2);
        assert_true(c->tokens[0] < c->tokens[4]);
        taken[c->tokens[0] - 3]++;
        taken[c->tokens[4] - 3]++;
        clq_corpus_free(c);
    }
    for (int i = 0; i < 5; i++) assert_in_range(taken[i], 1850, 2150);
    o.chunks = 5; // all that are whole
    expect_windows(NULL, text, &o, "aaaa|bbbb|cccc|dddd|eeee", 23, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_windows), cmocka_unit_test(test_encoder_windows), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_ids),          cmocka_unit_test(test_random_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

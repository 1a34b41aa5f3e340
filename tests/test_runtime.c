// SPDX-License-Identifier: MIT
// host/model/runtime: passes of any size, caches, memories and streams give the same numbers; malformed models are
// refused. That the numbers are right is checked against other programs: cli/test_logits.py, interop/.
#include "file_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/runtime.h"

// ---- a model in a GGUF file --------------------------------------------------------------------

enum { EMBD = 64, FFN = 96, HEADS = 2, KV_HEADS = 1, HEAD_DIM = 32, VOCAB = 50, LAYERS = 3, CONTEXT = 40, EXPERTS = 5 };

typedef struct row {
    const char *name; // '%' stands for the layer
    uint64_t dims[3]; // up to the first 0
} row;

static const row llama_rows[] = {
    {"token_embd.weight", {VOCAB, EMBD}},
    {"output.weight", {VOCAB, EMBD}},
    {"output_norm.weight", {EMBD}},
    {"blk.%.attn_norm.weight", {EMBD}},
    {"blk.%.attn_q.weight", {HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_k.weight", {KV_HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_v.weight", {KV_HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_output.weight", {EMBD, HEADS * HEAD_DIM}},
    {"blk.%.ffn_norm.weight", {EMBD}},
    {"blk.%.ffn_gate.weight", {FFN, EMBD}},
    {"blk.%.ffn_up.weight", {FFN, EMBD}},
    {"blk.%.ffn_down.weight", {EMBD, FFN}},
    {0},
};

static const row moe_rows[] = {
    {"token_embd.weight", {VOCAB, EMBD}},
    {"output_norm.weight", {EMBD}},
    {"blk.%.attn_norm.weight", {EMBD}},
    {"blk.%.attn_q.weight", {HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_k.weight", {KV_HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_v.weight", {KV_HEADS * HEAD_DIM, EMBD}},
    {"blk.%.attn_output.weight", {EMBD, HEADS * HEAD_DIM}},
    {"blk.%.ffn_norm.weight", {EMBD}},
    {"blk.%.ffn_gate_inp.weight", {EXPERTS, EMBD}},
    {"blk.%.ffn_gate_exps.weight", {EXPERTS, FFN, EMBD}},
    {"blk.%.ffn_up_exps.weight", {EXPERTS, FFN, EMBD}},
    {"blk.%.ffn_down_exps.weight", {EXPERTS, EMBD, FFN}},
    {0},
};

static const row bert_rows[] = {
    {"token_embd.weight", {VOCAB, EMBD}},
    {"position_embd.weight", {CONTEXT, EMBD}},
    {"token_types.weight", {2, EMBD}},
    {"token_embd_norm.weight", {EMBD}},
    {"token_embd_norm.bias", {EMBD}},
    {"blk.%.attn_q.weight", {EMBD, EMBD}},
    {"blk.%.attn_q.bias", {EMBD}},
    {"blk.%.attn_k.weight", {EMBD, EMBD}},
    {"blk.%.attn_v.weight", {EMBD, EMBD}},
    {"blk.%.attn_output.weight", {EMBD, EMBD}},
    {"blk.%.attn_output_norm.weight", {EMBD}},
    {"blk.%.attn_output_norm.bias", {EMBD}},
    {"blk.%.ffn_up.weight", {FFN, EMBD}},
    {"blk.%.ffn_down.weight", {EMBD, FFN}},
    {"blk.%.layer_output_norm.weight", {EMBD}},
    {"blk.%.layer_output_norm.bias", {EMBD}},
    {0},
};

// What is different in a file: a tensor that is left out, or has another first dimension; a number in the metadata.
typedef struct edit {
    const char *dropped, *reshaped, *key;
    int64_t value; // -1: the key is left out
    const char *text;
    const char *says;
} edit;

static void set_u32(clq_gguf_kvs *kvs, const char *arch, const char *suffix, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    clq_kv_set_u32(kvs, key, v);
}

static clq_gguf_kvs make_kvs(const char *arch, bool experts)
{
    clq_gguf_kvs kvs = {0};
    char key[96];
    bool bert = strcmp(arch, "bert") == 0;
    clq_kv_set_string(&kvs, "general.architecture", arch, strlen(arch));
    clq_kv_set_string(&kvs, "general.name", "a test", 6);
    set_u32(&kvs, arch, "block_count", LAYERS);
    set_u32(&kvs, arch, "context_length", CONTEXT);
    set_u32(&kvs, arch, "embedding_length", EMBD);
    set_u32(&kvs, arch, "feed_forward_length", FFN);
    set_u32(&kvs, arch, "attention.head_count", HEADS);
    if (!bert) set_u32(&kvs, arch, "attention.head_count_kv", KV_HEADS);
    if (experts) set_u32(&kvs, arch, "expert_count", EXPERTS);
    if (experts) set_u32(&kvs, arch, "expert_used_count", 2);
    snprintf(key, sizeof key, "%s.attention.%s", arch, bert ? "layer_norm_epsilon" : "layer_norm_rms_epsilon");
    clq_kv_set_f32(&kvs, key, 1e-5f);
    if (bert) set_u32(&kvs, arch, "pooling_type", 1);
    return kvs;
}

// Values without a pattern, about -0.3 to 0.3; norms about 1.
static float weight_at(uint64_t i, bool is_norm)
{
    uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9u;
    float v = (float)(x >> 40) / (float)(1 << 24) - 0.5f;
    return is_norm ? 1 + 0.2f * v : 0.6f * v;
}

static void make_model(char path[256], const char *arch, const row *rows, const edit *e)
{
    clq_gguf_kvs kvs = make_kvs(arch, rows == moe_rows);
    clq_gguf_tensor tensors[64];
    char names[64][64];
    clq_buf data = {0}, file = {0};
    uint32_t n = 0;
    if (e && e->key && e->text) clq_kv_set_string(&kvs, e->key, e->text, strlen(e->text));
    if (e && e->key && !e->text && e->value >= 0) clq_kv_set_u32(&kvs, e->key, (uint32_t)e->value);
    if (e && e->key && !e->text && e->value < 0) clq_kv_remove(&kvs, e->key);
    for (const row *r = rows; r->name; r++) {
        const char *mark = strchr(r->name, '%');
        for (int layer = 0; layer < (mark ? LAYERS : 1); layer++) {
            snprintf(names[n], sizeof names[n], "%s", r->name);
            if (mark)
                snprintf(names[n], sizeof names[n], "%.*s%d%s", (int)(mark - r->name), r->name, layer, mark + 1);
            if (e && e->dropped && strcmp(e->dropped, names[n]) == 0) continue;
            tensors[n] = (clq_gguf_tensor){.name = names[n], .offset = data.len};
            uint64_t elements = 1;
            for (uint32_t d = 0; d < 3 && r->dims[d]; d++) {
                uint64_t dim = r->dims[d] + (e && e->reshaped && d == 0 && strcmp(e->reshaped, names[n]) == 0 ? 32 : 0);
                tensors[n].dims[tensors[n].n_dims++] = dim;
                elements *= dim;
            }
            for (uint64_t i = 0; i < elements; i++)
                clq_buf_u32(&data, clq_bits(weight_at(data.len / 4, strstr(r->name, "norm.w") != NULL)));
            clq_buf_zeros(&data, (32 - data.len % 32) % 32);
            n++;
        }
    }
    clq_gguf_write_header(&file, &kvs, tensors, n, 32);
    clq_buf_append(&file, data.data, data.len);
    assert_false(file.failed);
    write_bytes(root, "model.gguf", file.data, file.len);
    make_path(path, root, "model.gguf");
    clq_buf_free(&file);
    clq_buf_free(&data);
    clq_kvs_free(&kvs);
}

// ---- running it --------------------------------------------------------------------------------

typedef struct bench {
    clq_source *source;
    clq_device *device;
    clq_model *model;
    clq_error err;
} bench;

static clq_status try_model(bench *b, const char *path, const clq_model_options *o, uint64_t max_allocation)
{
    *b = (bench){0};
    b->source = open_source(path);
    assert_int_equal(clq_device_open("ref", &(clq_device_options){.work_group_form = -1, .threads = 2}, &b->device,
                                     &b->err),
                     CLQ_OK);
    b->device->info.max_allocation = max_allocation;
    return clq_model_open(b->source, b->device, o, &b->model, &b->err);
}

static bench open_limited(const char *path, const clq_model_options *o, uint64_t max_allocation)
{
    bench b;
    if (try_model(&b, path, o, max_allocation) != CLQ_OK) fail_msg("%s", b.err.text);
    return b;
}

static bench open_model(const char *path, const clq_model_options *o) { return open_limited(path, o, 0); }

static void close_model(bench *b)
{
    clq_model_close(b->model);
    clq_device_close(b->device);
    clq_source_close(b->source);
}

typedef struct logits {
    float rows[CONTEXT][VOCAB];
    uint32_t n, next;
} logits;

static clq_status keep_logits(void *user, uint32_t first, uint32_t n, const float *rows, clq_error *err)
{
    logits *l = user;
    (void)err;
    assert_int_equal(first, l->next);
    assert_true(l->n + n <= CONTEXT);
    memcpy(l->rows[l->n], rows, n * sizeof *l->rows);
    l->n += n;
    l->next += n;
    return CLQ_OK;
}

static int32_t token_at(uint32_t i) { return (int32_t)(i * 7 % VOCAB); }

// Appends the logits of tokens [first, first + n).
static void run_tokens(bench *b, uint32_t first, uint32_t n, logits *l)
{
    int32_t tokens[CONTEXT];
    for (uint32_t i = 0; i < n; i++) tokens[i] = token_at(first + i);
    l->next = 0;
    clq_eval e = {.tokens = tokens, .n = n, .logits = keep_logits, .user = l};
    if (clq_model_eval(b->model, &e, &b->err) != CLQ_OK) fail_msg("%s", b->err.text);
    assert_int_equal(clq_model_position(b->model), first + n);
}

static double worst(const logits *a, const logits *b)
{
    double most = 0;
    assert_int_equal(a->n, b->n);
    for (uint32_t t = 0; t < a->n; t++)
        for (uint32_t i = 0; i < VOCAB; i++) {
            assert_true(isfinite(a->rows[t][i]));
            most = fmax(most, fabs((double)a->rows[t][i] - b->rows[t][i]));
        }
    return most;
}

static logits run_all(const char *path, const clq_model_options *o, uint64_t max_allocation)
{
    logits l = {0};
    bench b = open_limited(path, o, max_allocation);
    run_tokens(&b, 0, CONTEXT, &l);
    close_model(&b);
    return l;
}

// ---- tests -------------------------------------------------------------------------------------

static const row *const decoders[] = {llama_rows, moe_rows};

static void pass_sizes_agree(void **state)
{
    (void)state;
    char path[256];
    for (int k = 0; k < 2; k++) {
        make_model(path, "llama", decoders[k], NULL);
        logits all = run_all(path, &(clq_model_options){0}, 0);
        for (uint32_t batch = 1; batch < CONTEXT; batch += batch < 10 ? 2 : 7) {
            logits l = run_all(path, &(clq_model_options){.batch = batch}, 0);
            assert_true(worst(&all, &l) < 1e-4);
        }
        logits one = {0};
        bench b = open_model(path, &(clq_model_options){0});
        for (uint32_t i = 0; i < CONTEXT; i++) run_tokens(&b, i, 1, &one);
        assert_true(worst(&all, &one) < 1e-4);
        close_model(&b);
    }
}

static void rewind_forgets(void **state)
{
    (void)state;
    char path[256];
    static logits all, l;
    make_model(path, "llama", llama_rows, NULL);
    bench b = open_model(path, &(clq_model_options){.batch = 8});
    memset(&all, 0, sizeof all);
    memset(&l, 0, sizeof l);
    run_tokens(&b, 0, 20, &all);
    clq_model_rewind(b.model, 30); // nothing is there
    assert_int_equal(clq_model_position(b.model), 20);
    clq_model_rewind(b.model, 3);
    assert_int_equal(clq_model_position(b.model), 3);
    memcpy(l.rows, all.rows, 3 * sizeof *l.rows);
    l.n = 3;
    run_tokens(&b, 3, 17, &l);
    assert_true(worst(&all, &l) < 1e-4);
    clq_model_rewind(b.model, 0);
    l.n = 0;
    run_tokens(&b, 0, 20, &l);
    assert_true(worst(&all, &l) == 0);
    close_model(&b);
}

static void wanted_rows_only(void **state)
{
    (void)state;
    char path[256];
    for (int k = 0; k < 2; k++) {
        make_model(path, "llama", decoders[k], NULL);
        static logits all;
        all = run_all(path, &(clq_model_options){0}, 0);
        for (uint32_t from = 0; from <= CONTEXT; from += 5) {
            static logits l;
            memset(&l, 0, sizeof l);
            l.next = from;
            int32_t tokens[CONTEXT];
            for (uint32_t i = 0; i < CONTEXT; i++) tokens[i] = token_at(i);
            bench b = open_model(path, &(clq_model_options){.batch = 12});
            clq_eval e = {.tokens = tokens, .n = CONTEXT, .logits_from = from, .logits = keep_logits, .user = &l};
            assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_OK);
            assert_int_equal(l.n, CONTEXT - from);
            for (uint32_t t = from; t < CONTEXT; t++)
                for (uint32_t i = 0; i < VOCAB; i++) assert_true(fabs(all.rows[t][i] - l.rows[t - from][i]) < 1e-4);
            close_model(&b);
        }
    }
}

static void cache_types_are_close(void **state)
{
    (void)state;
    char path[256];
    make_model(path, "llama", llama_rows, NULL);
    static logits exact, l;
    exact = run_all(path, &(clq_model_options){0}, 0);
    l = run_all(path, &(clq_model_options){.cache_type = CLQ_F16}, 0);
    double half = worst(&exact, &l);
    assert_true(half > 0 && half < 0.01);
    l = run_all(path, &(clq_model_options){.cache_type = CLQ_Q8_0}, 0);
    double q8 = worst(&exact, &l);
    assert_true(q8 > half && q8 < 0.2);
    bench b;
    assert_int_equal(try_model(&b, path, &(clq_model_options){.cache_type = CLQ_Q4_0}, 0), CLQ_USAGE);
    close_model(&b);
}

static void streamed_and_split_weights(void **state)
{
    (void)state;
    char path[256];
    for (int k = 0; k < 2; k++) {
        make_model(path, "llama", decoders[k], NULL);
        clq_model_options o = {.batch = 16};
        static logits all, l;
        all = run_all(path, &o, 0);
        bench b = open_model(path, &o);
        const clq_model_facts *f = clq_model_facts_of(b.model);
        uint64_t weights = f->weight_bytes;
        assert_int_equal(f->streamed_layers, 0);
        assert_string_equal(f->name, "a test");
        assert_string_equal(f->architecture, "llama");
        assert_false(f->is_encoder);
        assert_null(clq_model_tokenizer(b.model));
        close_model(&b);

        // The least that works: found from the message of what does not.
        clq_status st = try_model(&b, path, &(clq_model_options){.batch = 16, .max_memory = 100000}, 0);
        assert_int_equal(st, CLQ_DEVICE);
        assert_null(b.model);
        close_model(&b);
        bool streamed = false;
        for (uint64_t memory = weights / 2; memory < 2 * weights + 4000000; memory += weights / 8) {
            o.max_memory = memory;
            st = try_model(&b, path, &o, 0);
            if (st == CLQ_OK) {
                streamed = streamed || clq_model_facts_of(b.model)->streamed_layers > 0;
                memset(&l, 0, sizeof l);
                run_tokens(&b, 0, CONTEXT, &l);
                assert_true(worst(&all, &l) == 0);
            }
            close_model(&b);
        }
        assert_true(streamed);
        // Several memories.
        l = run_all(path, &(clq_model_options){.batch = 16}, k ? weights / 2 : weights * 3 / 4);
        assert_true(worst(&all, &l) < 1e-4);
        st = try_model(&b, path, &(clq_model_options){.batch = 1, .context = 8}, 60000);
        assert_int_equal(st, CLQ_DEVICE);
        close_model(&b);
    }
}

typedef struct hidden {
    float rows[LAYERS + 1][CONTEXT][EMBD];
    uint32_t next[LAYERS + 1];
} hidden;

static clq_status keep_hidden(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *rows,
                              clq_error *err)
{
    hidden *h = user;
    (void)err;
    assert_int_equal(first, h->next[layer]);
    memcpy(h->rows[layer][first], rows, n * sizeof *h->rows[layer]);
    h->next[layer] += n;
    return CLQ_OK;
}

typedef struct both {
    logits l;
    hidden h;
} both;

static clq_status both_logits(void *user, uint32_t first, uint32_t n, const float *rows, clq_error *err)
{
    return keep_logits(&((both *)user)->l, first, n, rows, err);
}

static clq_status both_hidden(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *rows,
                              clq_error *err)
{
    return keep_hidden(&((both *)user)->h, layer, first, n, rows, err);
}

static void hidden_states(void **state)
{
    (void)state;
    char path[256];
    make_model(path, "llama", llama_rows, NULL);
    bench b = open_model(path, &(clq_model_options){.batch = 9});
    static both x;
    memset(&x, 0, sizeof x);
    x.l.next = 15;
    int32_t tokens[20];
    for (uint32_t i = 0; i < 20; i++) tokens[i] = token_at(i);
    clq_eval e = {.tokens = tokens, .n = 20, .logits_from = 15, .logits = both_logits, .hidden = both_hidden,
                  .user = &x};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_OK);
    for (uint32_t i = 0; i <= LAYERS; i++) assert_int_equal(x.h.next[i], 20);
    // The first is the embedding's rows, the last makes the logits.
    float row_of[EMBD], *head = malloc(VOCAB * EMBD * sizeof *head);
    const clq_tensor *embed = clq_source_find(b.source, "token_embd.weight");
    const clq_tensor *output = clq_source_find(b.source, "output.weight");
    assert_int_equal(clq_tensor_read(b.source, output, 0, VOCAB, head, NULL), CLQ_OK);
    for (uint32_t t = 0; t < 20; t++) {
        assert_int_equal(clq_tensor_read(b.source, embed, (uint64_t)tokens[t], 1, row_of, NULL), CLQ_OK);
        assert_memory_equal(row_of, x.h.rows[0][t], sizeof row_of);
    }
    for (uint32_t t = 15; t < 20; t++)
        for (uint32_t v = 0; v < VOCAB; v++) {
            double sum = 0;
            for (uint32_t i = 0; i < EMBD; i++) sum += (double)head[v * EMBD + i] * x.h.rows[LAYERS][t][i];
            assert_true(fabs(sum - x.l.rows[t - 15][v]) < 1e-4);
        }
    free(head);
    // Pooled.
    float mean[EMBD], last[EMBD], first[EMBD];
    assert_int_equal(clq_model_embed(b.model, tokens, 20, CLQ_POOL_MEAN, mean, &b.err), CLQ_OK);
    assert_int_equal(clq_model_position(b.model), 0);
    assert_int_equal(clq_model_embed(b.model, tokens, 20, CLQ_POOL_LAST, last, &b.err), CLQ_OK);
    assert_int_equal(clq_model_embed(b.model, tokens, 20, CLQ_POOL_CLS, first, &b.err), CLQ_OK);
    for (uint32_t i = 0; i < EMBD; i++) {
        double sum = 0;
        for (uint32_t t = 0; t < 20; t++) sum += x.h.rows[LAYERS][t][i];
        assert_true(fabs(sum / 20 - mean[i]) < 1e-5);
        assert_true(fabsf(last[i] - x.h.rows[LAYERS][19][i]) < 1e-5f);
        assert_true(fabsf(first[i] - x.h.rows[LAYERS][0][i]) < 1e-5f);
    }
    assert_int_equal(clq_model_embed(b.model, tokens, 20, CLQ_POOL_NONE, mean, &b.err), CLQ_USAGE);
    close_model(&b);
}

static void encoder(void **state)
{
    (void)state;
    char path[256];
    static hidden h;
    int32_t tokens[CONTEXT + 1];
    float mean[EMBD], again[EMBD];
    for (uint32_t i = 0; i <= CONTEXT; i++) tokens[i] = token_at(i);
    make_model(path, "bert", bert_rows, NULL);
    bench b = open_model(path, &(clq_model_options){.batch = 3, .cache_type = CLQ_Q8_0});
    const clq_model_facts *f = clq_model_facts_of(b.model);
    assert_true(f->is_encoder);
    assert_int_equal(f->pooling, CLQ_POOL_MEAN);
    assert_int_equal(f->batch, CONTEXT);
    assert_int_equal(clq_model_embed(b.model, tokens, CONTEXT, CLQ_POOL_MEAN, mean, &b.err), CLQ_OK);
    memset(&h, 0, sizeof h);
    clq_eval e = {.tokens = tokens, .n = CONTEXT, .logits_from = CONTEXT, .hidden = keep_hidden, .user = &h};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_OK);
    for (uint32_t i = 0; i < EMBD; i++) {
        double sum = 0;
        for (uint32_t t = 0; t < CONTEXT; t++) sum += h.rows[LAYERS][t][i];
        assert_true(fabs(sum / CONTEXT - mean[i]) < 1e-5);
    }
    // The last token reaches the first: attention goes both ways.
    float first[EMBD], other[EMBD];
    assert_int_equal(clq_model_embed(b.model, tokens, 10, CLQ_POOL_CLS, first, &b.err), CLQ_OK);
    tokens[9] = (tokens[9] + 1) % VOCAB;
    assert_int_equal(clq_model_embed(b.model, tokens, 10, CLQ_POOL_CLS, other, &b.err), CLQ_OK);
    double change = 0;
    for (uint32_t i = 0; i < EMBD; i++) change = fmax(change, fabs((double)first[i] - other[i]));
    assert_true(change > 1e-4);
    tokens[9] = token_at(9);
    assert_int_equal(clq_model_embed(b.model, tokens, CONTEXT, CLQ_POOL_MEAN, again, &b.err), CLQ_OK);
    assert_memory_equal(mean, again, sizeof mean);
    assert_int_equal(clq_model_embed(b.model, tokens, CONTEXT + 1, CLQ_POOL_MEAN, again, &b.err), CLQ_BAD_INPUT);
    e = (clq_eval){.tokens = tokens, .n = 4, .logits = keep_logits, .user = &h};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_USAGE);
    close_model(&b);
}

static clq_status stop(void *user, uint32_t first, uint32_t n, const float *rows, clq_error *err)
{
    (void)user;
    (void)first;
    (void)n;
    (void)rows;
    return clq_fail(err, CLQ_QUALITY, "enough");
}

static void evaluations_that_fail(void **state)
{
    (void)state;
    char path[256];
    static logits l;
    memset(&l, 0, sizeof l);
    make_model(path, "llama", llama_rows, NULL);
    bench b = open_model(path, &(clq_model_options){.batch = 8});
    run_tokens(&b, 0, 5, &l);
    int32_t tokens[CONTEXT] = {1, 2, VOCAB};
    clq_eval e = {.tokens = tokens, .n = 3, .logits = keep_logits, .user = &l};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_BAD_INPUT);
    assert_non_null(strstr(b.err.text, "token 2 is 50"));
    tokens[2] = -1;
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_BAD_INPUT);
    tokens[2] = 0;
    e.n = CONTEXT - 4;
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_BAD_INPUT);
    assert_non_null(strstr(b.err.text, "context"));
    e = (clq_eval){.tokens = tokens, .n = 20, .logits_from = 12, .logits = stop};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_QUALITY);
    assert_string_equal(b.err.text, "enough");
    assert_int_equal(clq_model_position(b.model), 5);
    // The cache is as before.
    static logits all;
    memset(&all, 0, sizeof all);
    run_tokens(&b, 5, 10, &l);
    clq_model_rewind(b.model, 0);
    run_tokens(&b, 0, 15, &all);
    assert_true(worst(&all, &l) < 1e-4);
    // Nothing to do.
    e = (clq_eval){.tokens = tokens, .n = 0};
    assert_int_equal(clq_model_eval(b.model, &e, &b.err), CLQ_OK);
    close_model(&b);
}

static void malformed(void **state)
{
    (void)state;
    static const edit edits[] = {
        {.dropped = "token_embd.weight", .says = "'token_embd.weight' is missing"},
        {.dropped = "blk.1.attn_k.weight", .says = "'blk.1.attn_k.weight' is missing"},
        {.dropped = "output_norm.weight", .says = "'output_norm.weight' is missing"},
        {.dropped = "blk.2.ffn_down.weight", .says = "'blk.2.ffn_down.weight' is missing"},
        {.reshaped = "blk.0.attn_q.weight", .says = "'blk.0.attn_q.weight' has the shape [96, 64]"},
        {.reshaped = "blk.1.ffn_norm.weight", .says = "'blk.1.ffn_norm.weight' has the shape [96]"},
        {.reshaped = "output.weight", .says = "'output.weight' has the shape"},
        {.reshaped = "token_embd.weight", .says = "output.weight"},
        {.key = "general.architecture", .value = -1, .says = "'general.architecture' is missing"},
        {.key = "general.architecture", .text = "mamba", .says = "'mamba' cannot be run"},
        {.key = "llama.block_count", .value = -1, .says = "'llama.block_count' is missing"},
        {.key = "llama.block_count", .value = 2, .says = "'blk.2.attn_k.weight' has no place"},
        {.key = "llama.block_count", .value = 0, .says = "'llama.block_count' is 0"},
        {.key = "llama.block_count", .value = 4, .says = "'blk.3.attn_norm.weight' is missing"},
        {.key = "llama.block_count", .value = 4000000000, .says = "'llama.block_count'"},
        {.key = "llama.block_count", .value = 100000, .says = "at most"},
        {.key = "llama.block_count", .text = "three", .says = "'llama.block_count' is not a whole number"},
        {.key = "llama.context_length", .value = -1, .says = "'llama.context_length' is missing"},
        {.key = "llama.context_length", .value = 0, .says = "'llama.context_length' is 0"},
        {.key = "llama.embedding_length", .value = 32, .says = "[vocabulary, 32]"},
        {.key = "llama.embedding_length", .value = -1, .says = "'llama.embedding_length' is missing"},
        {.key = "llama.feed_forward_length", .value = -1, .says = "'llama.feed_forward_length' is missing"},
        {.key = "llama.feed_forward_length", .value = 2147483647, .says = "feed_forward_length"},
        {.key = "llama.attention.head_count", .value = -1, .says = "'llama.attention.head_count' is missing"},
        {.key = "llama.attention.head_count", .value = 0, .says = "'llama.attention.head_count' is 0"},
        {.key = "llama.attention.head_count", .value = 4, .says = "blk.0.attn_k.weight"},
        {.key = "llama.attention.head_count", .value = 1000, .says = "key_length"},
        {.key = "llama.attention.head_count_kv", .value = 3, .says = "no multiple of the 3"},
        {.key = "llama.attention.head_count_kv", .value = 0, .says = "head_count_kv' is 0"},
        {.key = "llama.attention.head_count_kv", .value = 2, .says = "blk.0.attn_k.weight"},
        {.key = "llama.attention.key_length", .value = 16, .says = "value_length"},
        {.key = "llama.attention.key_length", .value = 2147483647, .says = "length"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .value = -1, .says = "epsilon' is missing"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .value = 1, .says = "epsilon' is not a finite number"},
        {.key = "llama.rope.dimension_count", .value = 7, .says = "even number"},
        {.key = "llama.rope.dimension_count", .value = 64, .says = "up to the head size 32"},
        {.key = "llama.rope.dimension_count", .value = 0, .says = "'llama.rope.dimension_count' is 0"},
        {.key = "llama.rope.scaling.type", .text = "dynamic", .says = "'llama.rope.scaling.type'"},
        {.key = "llama.rope.freq_base", .value = 10000, .says = "'llama.rope.freq_base' is not a finite number"},
        {.key = "llama.expert_count", .value = 5, .says = "expert_used_count' is missing"},
        {.key = "llama.expert_count", .value = 100000, .says = "'llama.expert_count' is 100000"},
        {.key = "llama.expert_shared_feed_forward_length", .value = 7, .says = NULL},
    };
    char path[256];
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        bench b;
        make_model(path, "llama", llama_rows, &edits[i]);
        clq_status st = try_model(&b, path, &(clq_model_options){0}, 0);
        if (!edits[i].says) {
            assert_int_equal(st, CLQ_OK);
        } else {
            if (st != CLQ_BAD_INPUT) fail_msg("edit %zu: status %d '%s', not: %s", i, st, b.err.text, edits[i].says);
            if (!strstr(b.err.text, edits[i].says)) fail_msg("'%s' is not in: %s", edits[i].says, b.err.text);
            assert_null(b.model);
        }
        close_model(&b);
    }
}

static void malformed_others(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        const row *rows;
        edit e;
    } edits[] = {
        {"bert", bert_rows, {.dropped = "token_embd_norm.bias", .says = "'token_embd_norm.bias' is missing"}},
        {"bert", bert_rows, {.reshaped = "position_embd.weight", .says = "'position_embd.weight' has the shape"}},
        {"bert", bert_rows, {.reshaped = "blk.0.attn_q.bias", .says = "'blk.0.attn_q.bias' has the shape"}},
        {"bert", bert_rows, {.dropped = "blk.2.layer_output_norm.weight", .says = "layer_output_norm"}},
        {"llama", moe_rows, {.dropped = "blk.0.ffn_gate_inp.weight", .says = "ffn_gate_inp"}},
        {"llama", moe_rows, {.reshaped = "blk.0.ffn_up_exps.weight", .says = "'blk.0.ffn_up_exps.weight' has"}},
        {"llama", moe_rows, {.key = "llama.expert_used_count", .value = 6, .says = "there are 5 experts"}},
        {"llama", moe_rows, {.key = "llama.expert_count", .value = -1, .says = "ffn_gate.weight"}},
        {"qwen3", llama_rows, {.says = "attn_q_norm.weight' is missing"}},
        {"gemma2", llama_rows, {.says = "post_attention_norm.weight' is missing"}},
        {"llama", moe_rows, {.key = "llama.expert_shared_feed_forward_length", .value = 7, .says = "shared experts"}},
    };
    char path[256];
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        bench b;
        make_model(path, edits[i].arch, edits[i].rows, &edits[i].e);
        clq_status st = try_model(&b, path, &(clq_model_options){0}, 0);
        if (st != CLQ_BAD_INPUT) fail_msg("edit %zu: status %d '%s'", i, st, b.err.text);
        if (!strstr(b.err.text, edits[i].e.says)) fail_msg("'%s' is not in: %s", edits[i].e.says, b.err.text);
        close_model(&b);
    }
}

// The library's own functions for text, on the model that stands beside the tests.
static void text_of_a_model(void **state)
{
    (void)state;
    const char *data = getenv("CLQ_TEST_DATA"), text[] = "a model";
    char path[1024], piece[64], all[64] = "";
    clq_error err;
    clq_source *source;
    clq_device *device;
    clq_model *model;
    clq_model_options options = {.context = 16, .cache_type = CLQ_F32};
    int32_t ids[64];
    uint32_t n, again;
    size_t len;
    if (!data) skip();
    snprintf(path, sizeof path, "%s/tiny-llama/model.safetensors", data);
    FILE *weights = fopen(path, "rb");
    if (!weights) skip();
    fclose(weights);
    snprintf(path, sizeof path, "%s/tiny-llama", data);
    assert_int_equal(clq_source_open(path, NULL, &source, &err), CLQ_OK);
    assert_int_equal(clq_device_open("ref", NULL, &device, &err), CLQ_OK);
    assert_int_equal(clq_model_open(source, device, &options, &model, &err), CLQ_OK);
    assert_int_equal(clq_model_tokenize(model, text, strlen(text), false, false, ids, 64, &n, &err), CLQ_OK);
    assert_in_range(n, 1, 64);
    assert_int_equal(clq_model_tokenize(model, text, strlen(text), false, false, ids, 0, &again, &err), CLQ_OK);
    assert_int_equal(again, n); // no room: only how many
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(clq_model_token_text(model, ids[i], piece, sizeof piece, &len, &err), CLQ_OK);
        assert_true(len < sizeof piece);
        piece[len] = '\0';
        strcat(all, piece);
    }
    assert_string_equal(all, text);
    assert_int_equal(clq_model_token_text(model, -1, piece, sizeof piece, &len, &err), CLQ_BAD_INPUT);
    assert_false(clq_model_is_end(model, ids[0]));
    clq_model_close(model);
    clq_device_close(device);
    clq_source_close(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_sizes_agree),
        cmocka_unit_test(rewind_forgets),
        cmocka_unit_test(wanted_rows_only),
        cmocka_unit_test(cache_types_are_close),
        cmocka_unit_test(streamed_and_split_weights),
        cmocka_unit_test(hidden_states),
        cmocka_unit_test(encoder),
        cmocka_unit_test(evaluations_that_fail),
        cmocka_unit_test(malformed),
        cmocka_unit_test(malformed_others),
        cmocka_unit_test(text_of_a_model),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

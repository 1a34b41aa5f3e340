// SPDX-License-Identifier: MIT
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

// ---- weights, translations ---------------------------------------------------------------------

float value_at(size_t i)
{
    return (float)(i % 251) * 0.25f - 30.0f;
}

void add_tensor(weights *w, const char *name, uint32_t n_dims, const uint64_t *dims)
{
    uint64_t n = 1;
    clq_buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", w->header.len ? "," : "{",
                   name);
    for (uint32_t d = 0; d < n_dims; d++) {
        clq_buf_printf(&w->header, "%s%llu", d ? "," : "", (unsigned long long)dims[d]);
        n *= dims[d];
    }
    clq_buf_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->data.len,
                   w->data.len + (size_t)n * 4);
    for (uint64_t i = 0; i < n; i++) clq_buf_u32(&w->data, clq_bits(value_at(w->data.len / 4)));
}

void save_weights(const char *dir, weights *w)
{
    clq_buf file = {0};
    clq_buf_text(&w->header, "}");
    clq_buf_u64(&file, w->header.len);
    clq_buf_append(&file, w->header.data, w->header.len);
    clq_buf_append(&file, w->data.data, w->data.len);
    assert_false(file.failed);
    write_bytes(dir, "model.safetensors", file.data, file.len);
    clq_buf_free(&file);
    clq_buf_free(&w->header);
    clq_buf_free(&w->data);
}

static void add_experts(weights *w, const shape *s, const char *name, const char *skip)
{
    const char *mark = strchr(name, '#');
    for (uint32_t e = 0; e < (mark ? 3 : 1); e++) {
        char full[160];
        snprintf(full, sizeof full, "%s", name);
        if (mark) snprintf(full, sizeof full, "%.*s%u%s", (int)(mark - name), name, e, mark + 1);
        if (!skip || strcmp(skip, full) != 0) add_tensor(w, full, s->n_dims, s->dims);
    }
}

void add_shapes(weights *w, const shape *shapes, uint32_t n_layers, const char *skip)
{
    for (const shape *s = shapes; s->name; s++) {
        const char *mark = strchr(s->name, '%');
        for (uint32_t layer = 0; layer < (mark ? n_layers : 1); layer++) {
            char name[128];
            snprintf(name, sizeof name, "%s", s->name);
            if (mark)
                snprintf(name, sizeof name, "%.*s%u%s", (int)(mark - s->name), s->name, layer,
                         mark + 1);
            add_experts(w, s, name, skip);
        }
    }
}

void save_gguf(const char *path, const clq_translation *t)
{
    clq_buf data = {0}, file = {0};
    uint32_t n = t->n_tensors + t->n_computed;
    clq_gguf_tensor *tensors = calloc(n, sizeof *tensors);
    assert_non_null(tensors);
    for (uint32_t i = 0; i < n; i++) {
        bool computed = i >= t->n_tensors;
        const clq_translated_tensor *from = computed ? NULL : &t->tensors[i];
        const clq_computed_tensor *made = computed ? &t->computed[i - t->n_tensors] : NULL;
        uint64_t elements = computed ? made->dims[0] : from->from.n_pieces * from->from.n_elements;
        tensors[i] = (clq_gguf_tensor){.name = computed ? made->name : t->tensors[i].name,
                                       .n_dims = computed ? 1 : from->n_dims,
                                       .offset = data.len};
        memcpy(tensors[i].dims, computed ? made->dims : from->dims, sizeof tensors[i].dims);
        for (uint64_t k = 0; k < elements; k++)
            clq_buf_u32(&data, computed ? clq_bits(made->data[k]) : 0);
        clq_buf_zeros(&data, (32 - data.len % 32) % 32);
    }
    clq_gguf_write_header(&file, &t->kvs, tensors, n, 32);
    clq_buf_append(&file, data.data, data.len);
    assert_false(file.failed);
    char dir[256];
    snprintf(dir, sizeof dir, "%s", path);
    *strrchr(dir, '/') = '\0';
    write_bytes(dir, strrchr(path, '/') + 1, file.data, file.len);
    clq_buf_free(&file);
    clq_buf_free(&data);
    free(tensors);
}

void save_folder(const char *dir, const clq_translation *t)
{
    weights w = {0};
    for (uint32_t i = 0; i < t->n_tensors; i++) {
        add_tensor(&w, t->tensors[i].name, t->tensors[i].n_dims, t->tensors[i].dims);
    }
    save_weights(dir, &w);
    for (uint32_t i = 0; i < t->n_files; i++)
        write_bytes(dir, t->files[i].name, t->files[i].data, t->files[i].len);
    char *text = json_dumps(t->config, JSON_INDENT(2));
    assert_non_null(text);
    write_text(dir, "config.json", text);
    free(text);
}

clq_translation to_gguf(const clq_source *hf)
{
    clq_translation t;
    clq_error err = {0};
    if (clq_translate_to_gguf(hf, NULL, &t, &err) != CLQ_OK) fail_msg("%s", err.text);
    return t;
}

clq_translation to_hf(const clq_source *gguf)
{
    clq_translation t;
    clq_error err = {0};
    if (clq_translate_to_hf(gguf, NULL, &t, &err) != CLQ_OK) fail_msg("%s", err.text);
    return t;
}

void assert_same_kvs(const clq_gguf_kvs *a, const clq_gguf_kvs *b)
{
    for (uint32_t i = 0; i < a->n; i++) {
        const clq_gguf_kv *x = &a->items[i], *y = clq_kv_find(b, x->key);
        if (!y) fail_msg("'%s' is lost", x->key);
        if (x->type != y->type || x->n_bytes != y->n_bytes ||
            memcmp(x->value, y->value, x->n_bytes))
            fail_msg("'%s' changed", x->key);
    }
    assert_int_equal(a->n, b->n);
}

void assert_same_tensors(const clq_translation *a, const clq_translation *b)
{
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        assert_string_equal(a->tensors[i].name, b->tensors[i].name);
        assert_int_equal(a->tensors[i].from.order, b->tensors[i].from.order);
        assert_int_equal(a->tensors[i].from.n_heads, b->tensors[i].from.n_heads);
    }
    assert_int_equal(a->n_computed, b->n_computed);
    for (uint32_t i = 0; i < a->n_computed; i++)
        assert_memory_equal(a->computed[i].data, b->computed[i].data, 4 * a->computed[i].dims[0]);
}

void there_and_back(const char *dir)
{
    char gguf_path[256], back_dir[256];
    clq_source *hf = open_source(dir);
    clq_translation first = to_gguf(hf);
    make_path(gguf_path, root, "there.gguf");
    save_gguf(gguf_path, &first);

    clq_source *gguf = open_source(gguf_path);
    clq_translation back = to_hf(gguf);
    new_folder(back_dir, "back");
    save_folder(back_dir, &back);

    clq_source *hf2 = open_source(back_dir);
    clq_translation second = to_gguf(hf2);
    assert_same_kvs(&first.kvs, &second.kvs);
    assert_same_tensors(&first, &second);
    clq_translation_free(&second);
    clq_translation_free(&back);
    clq_translation_free(&first);
    clq_source_close(hf2);
    clq_source_close(gguf);
    clq_source_close(hf);
}

uint64_t u64_of(const clq_gguf_kvs *kvs, const char *key)
{
    uint64_t v;
    if (!clq_kv_get_u64(kvs, key, &v)) fail_msg("'%s' is missing", key);
    return v;
}

void assert_text(const clq_gguf_kvs *kvs, const char *key, const char *expected)
{
    char *text = clq_kv_dup_string(kvs, key);
    if (!text) fail_msg("'%s' is missing", key);
    assert_string_equal(text, expected);
    free(text);
}

void assert_strings(const clq_gguf_kvs *kvs, const char *key, const char *const *expected,
                           size_t n_expected)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *cursor;
    assert_true(clq_kv_get_array(kvs, key, &element, &n, &cursor));
    assert_int_equal(element, CLQ_GGUF_STRING);
    assert_int_equal(n, n_expected);
    for (uint64_t i = 0; i < n; i++) {
        const char *s;
        size_t len;
        clq_kv_next_string(&cursor, &s, &len);
        assert_int_equal(len, strlen(expected[i]));
        assert_memory_equal(s, expected[i], len);
    }
}

void assert_types(const clq_gguf_kvs *kvs, const char *digits)
{
    clq_gguf_type element;
    uint64_t n;
    const uint8_t *types;
    assert_true(clq_kv_get_array(kvs, "tokenizer.ggml.token_type", &element, &n, &types));
    assert_int_equal(n, strlen(digits));
    for (uint64_t i = 0; i < n; i++) assert_int_equal(types[4 * i], digits[i] - '0');
}

const clq_translated_tensor *find_tensor(const clq_translation *t, const char *name)
{
    for (uint32_t i = 0; i < t->n_tensors; i++)
        if (strcmp(t->tensors[i].name, name) == 0) return &t->tensors[i];
    fail_msg("tensor '%s' is missing", name);
    return NULL;
}

char *edited(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    if (!at) fail_msg("test: no '%s'", from);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    assert_non_null(out);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

void write_edited(const char *dir, const char *name, const char *text, const char *from,
                         const char *to)
{
    char *changed = edited(text, from, to);
    write_text(dir, name, changed);
    free(changed);
}

void assert_refused(const char *dir, const char *expected)
{
    clq_source *hf = open_source(dir);
    clq_translation t;
    clq_error err = {0};
    clq_status st = clq_translate_to_gguf(hf, NULL, &t, &err);
    if (st != CLQ_BAD_INPUT) fail_msg("accepted, instead of: %s", expected);
    if (!strstr(err.text, expected)) fail_msg("'%s' is not in: %s", expected, err.text);
    assert_int_equal(t.n_tensors, 0);
    clq_source_close(hf);
}

// ---- checkpoints -------------------------------------------------------------------------------

// Two layers; 4 heads of 4 rows, 2 key-value heads; 7 tokens.
const shape llama_shapes[] = {
    {"model.embed_tokens.weight", 2, {7, 16}},
    {"lm_head.weight", 2, {7, 16}},
    {"model.norm.weight", 1, {16}},
    {"model.layers.%.input_layernorm.weight", 1, {16}},
    {"model.layers.%.post_attention_layernorm.weight", 1, {16}},
    {"model.layers.%.self_attn.q_proj.weight", 2, {16, 16}},
    {"model.layers.%.self_attn.k_proj.weight", 2, {8, 16}},
    {"model.layers.%.self_attn.v_proj.weight", 2, {8, 16}},
    {"model.layers.%.self_attn.o_proj.weight", 2, {16, 16}},
    {"model.layers.%.mlp.gate_proj.weight", 2, {24, 16}},
    {"model.layers.%.mlp.up_proj.weight", 2, {24, 16}},
    {"model.layers.%.mlp.down_proj.weight", 2, {16, 24}},
    {NULL},
};

const char llama_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":16,"
    "\"intermediate_size\":24,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"num_hidden_layers\":2,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-05,"
    "\"rope_theta\":10000.0,\"vocab_size\":7,\"hidden_act\":\"silu\",\"bos_token_id\":5,"
    "\"eos_token_id\":[6,5],\"_name_or_path\":\"someone/tiny-llama\"}";

#define BPE_PRE                                                                                    \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["                                 \
    "{\"type\":\"Digits\",\"individual_digits\":true},"                                            \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}" \
    "]}"
#define BPE_ADDED                                                                                  \
    "\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},"                           \
    "{\"id\":6,\"content\":\"<|end|>\",\"special\":false}]"

const char bpe_tokenizer[] =
    "{\"version\":\"1.0\"," BPE_ADDED "," BPE_PRE ",\"model\":{\"type\":\"BPE\",\"vocab\":"
    "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\",[\"ab\",\"c\"]]}}";

const char bpe_config[] =
    "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<|end|>\"},\"add_bos_token\":true,\"add_"
    "eos_token\":false,"
    "\"chat_template\":[{\"name\":\"default\",\"template\":\"{{ x }}\"},"
    "{\"name\":\"tool-use\",\"template\":\"{{ y }}\"}]}";

const shape bert_shapes[] = {
    {"embeddings.word_embeddings.weight", 2, {9, 8}},
    {"embeddings.token_type_embeddings.weight", 2, {2, 8}},
    {"embeddings.position_embeddings.weight", 2, {16, 8}},
    {"embeddings.LayerNorm.weight", 1, {8}},
    {"embeddings.LayerNorm.bias", 1, {8}},
    {"pooler.dense.weight", 2, {8, 8}},
    {"encoder.layer.%.attention.self.query.weight", 2, {8, 8}},
    {"encoder.layer.%.attention.self.query.bias", 1, {8}},
    {"encoder.layer.%.attention.self.key.weight", 2, {8, 8}},
    {"encoder.layer.%.attention.self.key.bias", 1, {8}},
    {"encoder.layer.%.attention.self.value.weight", 2, {8, 8}},
    {"encoder.layer.%.attention.self.value.bias", 1, {8}},
    {"encoder.layer.%.attention.output.dense.weight", 2, {8, 8}},
    {"encoder.layer.%.attention.output.dense.bias", 1, {8}},
    {"encoder.layer.%.attention.output.LayerNorm.weight", 1, {8}},
    {"encoder.layer.%.attention.output.LayerNorm.bias", 1, {8}},
    {"encoder.layer.%.intermediate.dense.weight", 2, {12, 8}},
    {"encoder.layer.%.intermediate.dense.bias", 1, {12}},
    {"encoder.layer.%.output.dense.weight", 2, {8, 12}},
    {"encoder.layer.%.output.dense.bias", 1, {8}},
    {"encoder.layer.%.output.LayerNorm.weight", 1, {8}},
    {"encoder.layer.%.output.LayerNorm.bias", 1, {8}},
    {NULL},
};

const char bert_config[] =
    "{\"architectures\":[\"BertModel\"],\"model_type\":\"bert\",\"hidden_size\":8,"
    "\"intermediate_size\":12,\"num_attention_heads\":2,\"num_hidden_layers\":1,"
    "\"max_position_embeddings\":16,\"layer_norm_eps\":1e-12,\"vocab_size\":9,"
    "\"type_vocab_size\":2,\"hidden_act\":\"gelu\"}";

#define BERT_SPECIAL                                                                               \
    "\"added_tokens\":[{\"id\":0,\"content\":\"[PAD]\",\"special\":true},"                         \
    "{\"id\":1,\"content\":\"[UNK]\",\"special\":true},{\"id\":2,\"content\":\"[CLS]\","           \
    "\"special\":true},"                                                                           \
    "{\"id\":3,\"content\":\"[SEP]\",\"special\":true}]"

const char bert_tokenizer[] =
    "{" BERT_SPECIAL ",\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":false,"
    "\"strip_accents\":null},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
    "{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}"
    "},"
    "{\"SpecialToken\":{\"id\":\"[SEP]\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}},"
    "\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"##\",\"vocab\":{\"[PAD]\":0,"
    "\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"walk\":4,\"##ing\":5,\"#\":6,\"##\":7}}}";

const char bert_tokenizer_config[] = "{\"cls_token\":\"[CLS]\",\"sep_token\":\"[SEP]\","
                                            "\"pad_token\":\"[PAD]\",\"unk_token\":\"[UNK]\"}";

void make_llama(char dir[256], const char *name)
{
    weights w = {0};
    new_folder(dir, name);
    add_shapes(&w, llama_shapes, 2, NULL);
    save_weights(dir, &w);
    write_text(dir, "config.json", llama_config);
    write_text(dir, "tokenizer.json", bpe_tokenizer);
    write_text(dir, "tokenizer_config.json", bpe_config);
}

void make_bert(char dir[256], const char *name)
{
    weights w = {0};
    new_folder(dir, name);
    add_shapes(&w, bert_shapes, 1, NULL);
    save_weights(dir, &w);
    write_text(dir, "config.json", bert_config);
    write_text(dir, "tokenizer.json", bert_tokenizer);
    write_text(dir, "tokenizer_config.json", bert_tokenizer_config);
    write_text(dir, "README.md",
               "---\nlicense: apache-2.0\nlanguage: [en, 'de']\ntags:\n- a-b\n"
               "  - c\nwidget:\n- text: x\n---\n# Model\n");
    write_text(dir, "modules.json",
               "[{\"type\":\"sentence_transformers.models.Transformer\",\"path\":\"\"},"
               "{\"type\":\"sentence_transformers.models.Pooling\",\"path\":\"1_Pooling\"}]");
    write_text(dir, "1_Pooling/config.json",
               "{\"pooling_mode_cls_token\":true,"
               "\"pooling_mode_mean_tokens\":false}");
}

// SPDX-License-Identifier: MIT
// clquant tokenize
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"
#include "io/source.h"
#include "model/tokenizer.h"
#include "model/translate.h"

static const struct option options[] = {
    {"text", required_argument, NULL, 't'},    {"ids", required_argument, NULL, 'i'},
    {"json", no_argument, NULL, 'j'},          {"lines", no_argument, NULL, 'l'},
    {"special", no_argument, NULL, 's'},       {"parse-special", no_argument, NULL, 'p'},
    {0},
};

typedef struct {
    const char *text, *ids; // files, or NULL
    bool json, lines;
    unsigned flags;
} settings;

static clq_status read_all(const char *path, clq_buf *out, clq_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (!f) return clq_fail_errno(err, CLQ_BAD_INPUT, errno, "cannot open '%s'", path);
    char block[1 << 16];
    size_t n;
    errno = 0;
    while ((n = fread(block, 1, sizeof block, f)) > 0) clq_buf_append(out, block, n);
    bool failed = ferror(f);
    int error = errno;
    if (!standard) fclose(f);
    if (failed) return clq_fail_errno(err, CLQ_BAD_INPUT, error, "cannot read '%s'", path);
    return out->failed ? clq_fail_memory(err, out->len) : CLQ_OK;
}

// A GGUF file's tokenizer, or a folder's.
static clq_status open_tokenizer(const char *path, clq_tokenizer **t, clq_error *err)
{
    clq_hooks *hooks = clq_cli_hooks(false);
    clq_source *source;
    clq_translation translation = {0};
    CLQ_TRY(clq_source_open(path, hooks, &source, err));
    clq_status st = CLQ_OK;
    if (clq_source_container(source) == CLQ_HF_FOLDER) {
        st = clq_translate_to_gguf(source, hooks, &translation, err);
        if (st == CLQ_OK) st = clq_tokenizer_create_hf(&translation.kvs, t, err);
        clq_translation_free(&translation);
    } else {
        st = clq_tokenizer_create(&source->kvs, t, err);
    }
    clq_source_close(source);
    return st;
}

// ---- text to ids -------------------------------------------------------------------------------

static clq_status print_ids(const clq_tokenizer *t, const char *text, size_t len, const settings *s, json_t *list,
                            clq_error *err)
{
    clq_buf ids = {0};
    clq_status st = clq_tokenize(t, text, len, s->flags, &ids, err);
    const int32_t *id = (const int32_t *)(const void *)ids.data;
    json_t *own = list && s->lines ? json_array() : list;
    for (size_t i = 0; st == CLQ_OK && i < ids.len / sizeof *id; i++) {
        if (own)
            json_array_append_new(own, json_integer(id[i]));
        else
            printf(i ? " %d" : "%d", id[i]);
    }
    if (!list && st == CLQ_OK) putchar('\n');
    if (own != list) json_array_append_new(list, own);
    clq_buf_free(&ids);
    return st;
}

static int tokenize(const clq_tokenizer *t, const settings *s)
{
    clq_error err;
    clq_buf text = {0};
    json_t *list = s->json ? json_array() : NULL;
    clq_status st = read_all(s->text ? s->text : "-", &text, &err);
    const char *at = text.data, *end = text.data + text.len;
    if (st == CLQ_OK && !s->lines) st = print_ids(t, text.data ? text.data : "", text.len, s, list, &err);
    while (st == CLQ_OK && s->lines && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        st = print_ids(t, at, (size_t)((newline ? newline : end) - at), s, list, &err);
        at = newline ? newline + 1 : end;
    }
    clq_buf_free(&text);
    if (st == CLQ_OK) return s->json ? clq_print_json(list) : 0;
    json_decref(list);
    return clq_report(&err);
}

// ---- ids to text -------------------------------------------------------------------------------

static int detokenize(const clq_tokenizer *t, const settings *s)
{
    clq_error err;
    clq_buf pieces = {0};
    clq_status st = CLQ_OK;
    for (const char *p = s->ids; st == CLQ_OK && *p;) {
        char *stop;
        errno = 0;
        long id = strtol(p, &stop, 10);
        if (stop == p || errno || id < 0 || id > INT32_MAX || (*stop && !strchr(", ", *stop))) {
            clq_buf_free(&pieces);
            return clq_usage_error("'%s' is no list of ids", s->ids);
        }
        st = clq_token_piece(t, (int32_t)id, s->flags & CLQ_TOKENIZE_SPECIAL, &pieces, &err);
        for (p = stop; *p == ',' || *p == ' '; p++) {}
    }
    int code = 0;
    if (st != CLQ_OK) {
        code = clq_report(&err);
    } else if (s->json) {
        clq_buf_zeros(&pieces, 1);
        code = clq_print_json(json_pack("{s:o}", "text", clq_cli_text(pieces.data)));
    } else if (pieces.len) {
        fwrite(pieces.data, 1, pieces.len, stdout);
    }
    clq_buf_free(&pieces);
    return code;
}

int clq_cmd_tokenize(int argc, char **argv)
{
    settings s = {0};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 't': s.text = optarg; break;
        case 'i': s.ids = optarg; break;
        case 'j': s.json = true; break;
        case 'l': s.lines = true; break;
        case 's': s.flags |= CLQ_TOKENIZE_SPECIAL; break;
        case 'p': s.flags |= CLQ_TOKENIZE_PARSE; break;
        default: return clq_wrong_option(argv);
        }
    }
    if (argc - optind != 1) return clq_usage_error("give one model: a GGUF file or a Hugging Face folder");
    if (s.ids && (s.text || s.lines || s.flags & CLQ_TOKENIZE_PARSE))
        return clq_usage_error("--ids makes text of ids; --text, --lines and --parse-special make ids of text");
    clq_tokenizer *t;
    clq_error err;
    if (open_tokenizer(argv[optind], &t, &err) != CLQ_OK) return clq_report(&err);
    int code = s.ids ? detokenize(t, &s) : tokenize(t, &s);
    clq_tokenizer_free(t);
    return code;
}

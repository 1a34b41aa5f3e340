// SPDX-License-Identifier: MIT
// clquant generate
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/threads.h"
#include "cli/model.h"
#include "model/sample.h"
#include "run/stream.h"

enum {
    SEED = 1,
    TEMP,
    TOP_K,
    TOP_P,
    MIN_P,
    STOP,
    CHAT,
    SYSTEM,
    CHAT_TEMPLATE,
    FILE_OPTION,
    IGNORE_END,
    MAX_STOPS = 32
};
static const struct option options[] = {
    {"prompt", required_argument, NULL, 'p'},
    {"file", required_argument, NULL, FILE_OPTION},
    {"temp", required_argument, NULL, TEMP},
    {"top-k", required_argument, NULL, TOP_K},
    {"top-p", required_argument, NULL, TOP_P},
    {"min-p", required_argument, NULL, MIN_P},
    {"seed", required_argument, NULL, SEED},
    {"stop", required_argument, NULL, STOP},
    {"chat", no_argument, NULL, CHAT},
    {"system", required_argument, NULL, SYSTEM},
    {"chat-template", required_argument, NULL, CHAT_TEMPLATE},
    {"ignore-end", no_argument, NULL, IGNORE_END},
    CLQ_MODEL_OPTIONS,
    {0},
};

typedef struct {
    clq_model_request model;
    const char *prompt, *file, *system, *chat_template;
    clq_sampling sampling;
    uint32_t n; // tokens to generate, at most
    const char *stops[MAX_STOPS];
    uint32_t n_stops;
    bool chat, ignore_end;
} request;

typedef struct {
    clq_loaded model;
    clq_sampler *sampler;
    clq_stream stream;
    int32_t *prompt;
    uint32_t n_prompt;
    clq_buf text;       // all that was generated, for JSON
    clq_buf tokens;     // int32
    int32_t next;       // what the sampler chose
    bool print;         // the text goes to standard output as it comes
    const char *reason; // why it ended
    double prompt_seconds, seconds;
} job;

// ---- options ----

static int read_number(request *r, int c)
{
    clq_sampling *s = &r->sampling;
    char *end;
    switch (c) {
    case 'n':
        return clq_parse_u32(optarg, 1, 1 << 24, &r->n)
                   ? 0
                   : clq_usage_error("-n wants a number of tokens, not '%s'", optarg);
    case TOP_K:
        if (clq_parse_u32(optarg, 0, UINT32_MAX, &s->top_k)) return 0;
        return clq_usage_error("--top-k wants a number of tokens, or 0 for all, not '%s'", optarg);
    case TEMP:
        if (clq_parse_float(optarg, &s->temperature) && s->temperature >= 0) return 0;
        return clq_usage_error("--temp wants a number from 0 on, not '%s'", optarg);
    case TOP_P:
        if (clq_parse_float(optarg, &s->top_p) && s->top_p > 0 && s->top_p <= 1) return 0;
        return clq_usage_error("--top-p wants a number above 0, up to 1, not '%s'", optarg);
    case MIN_P:
        if (clq_parse_float(optarg, &s->min_p) && s->min_p >= 0 && s->min_p <= 1) return 0;
        return clq_usage_error("--min-p wants a number from 0 to 1, not '%s'", optarg);
    default: // SEED
        s->seed = strtoull(optarg, &end, 10);
        if (*optarg >= '0' && *optarg <= '9' && !*end) return 0;
        return clq_usage_error("--seed wants a number, not '%s'", optarg);
    }
}

static int read_option(request *r, int c, char **argv)
{
    switch (c) {
    case 'p': r->prompt = optarg; return 0;
    case FILE_OPTION: r->file = optarg; return 0;
    case SYSTEM: r->system = optarg; return 0;
    case CHAT_TEMPLATE: r->chat_template = optarg; return 0;
    case CHAT: r->chat = true; return 0;
    case IGNORE_END: r->ignore_end = true; return 0;
    case STOP:
        if (!*optarg) return clq_usage_error("--stop wants a text");
        if (r->n_stops == MAX_STOPS) return clq_usage_error("more than %d --stop", MAX_STOPS);
        r->stops[r->n_stops++] = optarg;
        return 0;
    case 'n':
    case SEED:
    case TEMP:
    case TOP_K:
    case TOP_P:
    case MIN_P: return read_number(r, c);
    default: return clq_model_option(&r->model, c, argv);
    }
}

static int read_request(int argc, char **argv, request *r)
{
    int c, code;
    clq_model_request_init(&r->model, CLQ_ROUND_INT8);
    r->n = 128;
    r->sampling = (clq_sampling){.top_k = 40, .top_p = 0.95f, .min_p = 0.05f};
    while ((c = getopt_long(argc, argv, "p:n:", options, NULL)) != -1)
        if ((code = read_option(r, c, argv)) != 0) return code;
    if (argc - optind != 1) return clq_usage_error("give one model");
    r->model.path = argv[optind];
    if (!r->prompt == !r->file) return clq_usage_error("give a prompt: either -p TEXT or --file FILE");
    if ((r->system || r->chat_template) && !r->chat)
        return clq_usage_error("--system and --chat-template are for --chat");
    return 0;
}

// ---- the prompt ----

static clq_status format_chat(const job *j, const request *r, const char *prompt, clq_buf *out, clq_error *err)
{
    clq_chat_message messages[2];
    uint32_t n = 0;
    if (r->system) messages[n++] = (clq_chat_message){"system", r->system};
    messages[n++] = (clq_chat_message){"user", prompt};
    CLQ_TRY(clq_chat_format(j->model.tokenizer, r->chat_template, messages, n, true, out, err));
    return out->failed ? clq_fail_memory(err, out->len) : CLQ_OK;
}

static clq_status make_prompt(job *j, const request *r, const char *prompt, size_t len, clq_error *err)
{
    clq_buf chat = {0};
    unsigned flags = CLQ_TOKENIZE_SPECIAL | CLQ_TOKENIZE_PARSE;
    clq_status st = r->chat ? format_chat(j, r, prompt, &chat, err) : CLQ_OK;
    if (st == CLQ_OK && r->chat) {
        prompt = chat.data ? chat.data : "";
        len = chat.len;
    }
    if (st == CLQ_OK) st = clq_cli_tokenize(j->model.tokenizer, prompt, len, flags, &j->prompt, &j->n_prompt, err);
    clq_buf_free(&chat);
    CLQ_TRY(st);
    const clq_model_facts *f = j->model.facts;
    if (!j->n_prompt) return clq_fail(err, CLQ_BAD_INPUT, "the prompt is empty, and the model begins with no token");
    if (j->n_prompt > f->context)
        return clq_fail(err, CLQ_BAD_INPUT, "the prompt has %u tokens, the context %u: see --ctx", j->n_prompt,
                        f->context);
    return CLQ_OK;
}

static clq_status open_job(job *j, request *r, clq_hooks *hooks, clq_error *err)
{
    char *file = NULL;
    size_t len = r->prompt ? strlen(r->prompt) : 0;
    if (r->file) CLQ_TRY(clq_read_text(r->file, "--file", &file, &len, err));
    const char *prompt = r->prompt ? r->prompt : file;
    clq_status st = clq_load(&r->model, hooks, &j->model, err);
    if (st == CLQ_OK && j->model.facts->is_encoder)
        st = clq_fail(err, CLQ_BAD_INPUT, "'%s' is an encoder (%s), which generates no text: see `clquant embed`",
                      r->model.path, j->model.facts->architecture);
    if (st == CLQ_OK) st = make_prompt(j, r, prompt, len, err);
    free(file);
    CLQ_TRY(st);
    j->stream = (clq_stream){.stops = r->stops, .n_stops = r->n_stops};
    j->print = !r->model.json;
    return clq_sampler_create(&r->sampling, j->model.facts->vocab, &j->sampler, err);
}

static void close_job(job *j)
{
    clq_sampler_free(j->sampler);
    clq_stream_free(&j->stream);
    clq_buf_free(&j->text);
    clq_buf_free(&j->tokens);
    free(j->prompt);
    clq_unload(&j->model);
}

// ---- generation ----

static clq_status choose(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err)
{
    job *j = user;
    (void)first;
    return n ? clq_sample(j->sampler, logits + (size_t)(n - 1) * j->model.facts->vocab, &j->next, err) : CLQ_OK;
}

// Runs the tokens and chooses the next one.
static clq_status run_tokens(job *j, const int32_t *tokens, uint32_t n, clq_error *err)
{
    clq_eval eval = {.tokens = tokens, .n = n, .logits_from = n - 1, .logits = choose, .user = j};
    return clq_model_eval(j->model.model, &eval, err);
}

// Moves what the stream lets go to the text, and to standard output.
static clq_status pass_on(job *j, clq_error *err)
{
    size_t before = j->text.len;
    clq_stream_take(&j->stream, &j->text);
    if (j->stream.held.failed || j->text.failed) return clq_fail_memory(err, j->text.len);
    if (!j->print || j->text.len == before) return CLQ_OK;
    if (fwrite(j->text.data + before, 1, j->text.len - before, stdout) != j->text.len - before || fflush(stdout) != 0)
        return clq_fail(err, CLQ_OUTPUT, "standard output takes no more");
    return CLQ_OK;
}

// The text of j->next goes on, as far as it may.
static clq_status take_token(job *j, clq_error *err)
{
    clq_buf piece = {0};
    clq_buf_append(&j->tokens, &j->next, sizeof j->next);
    clq_status st = clq_token_piece(j->model.tokenizer, j->next, false, &piece, err);
    if (st == CLQ_OK && (piece.failed || j->tokens.failed)) st = clq_fail_memory(err, piece.len);
    if (st == CLQ_OK) clq_stream_push(&j->stream, piece.data, piece.len);
    clq_buf_free(&piece);
    return st == CLQ_OK ? pass_on(j, err) : st;
}

// j->reason is set when it ends.
static clq_status next_token(job *j, const request *r, clq_error *err)
{
    uint32_t n = (uint32_t)(j->tokens.len / sizeof j->next);
    if (clq_cancelled(r->model.o.hooks)) return clq_fail(err, CLQ_INTERRUPTED, "interrupted");
    if (!r->ignore_end && clq_tokenizer_is_end(j->model.tokenizer, j->next)) {
        j->reason = "end";
        return CLQ_OK;
    }
    CLQ_TRY(take_token(j, err));
    if (j->stream.stopped)
        j->reason = "stop";
    else if (n + 1 == r->n)
        j->reason = "length";
    else if (clq_model_position(j->model.model) >= j->model.facts->context)
        j->reason = "context";
    else
        return run_tokens(j, &j->next, 1, err);
    return CLQ_OK;
}

static clq_status generate(job *j, const request *r, clq_error *err)
{
    double start = clq_seconds();
    CLQ_TRY(run_tokens(j, j->prompt, j->n_prompt, err));
    j->prompt_seconds = clq_seconds() - start;
    start = clq_seconds();
    clq_status st = CLQ_OK;
    while (st == CLQ_OK && !j->reason) st = next_token(j, r, err);
    j->seconds = clq_seconds() - start;
    if (st != CLQ_OK && st != CLQ_INTERRUPTED) return st;
    clq_stream_end(&j->stream);
    clq_status passed = pass_on(j, err);
    if (j->print && passed == CLQ_OK) putchar('\n');
    return passed != CLQ_OK ? passed : st;
}

// ---- reports ----

// Tokens that were run after the prompt: the last one that was chosen was not.
static uint32_t runs_of(const job *j) { return clq_model_position(j->model.model) - j->n_prompt; }

static void print_rates(const job *j)
{
    if (!j->prompt_seconds) return;
    uint32_t n = (uint32_t)(j->tokens.len / sizeof j->next), runs = runs_of(j);
    fprintf(stderr, "prompt %u token%s in %.2f s, %.1f tokens/s; generated %u in %.2f s, %.1f tokens/s", j->n_prompt,
            CLQ_PLURAL(j->n_prompt), j->prompt_seconds, clq_rate(j->n_prompt, j->prompt_seconds), n, j->seconds,
            clq_rate(runs, j->seconds));
    fprintf(stderr, j->reason && strcmp(j->reason, "context") == 0 ? "; the context is full (--ctx)\n" : "\n");
}

static json_t *report_json(const job *j, const request *r)
{
    json_t *root = json_object(), *ids = json_array();
    clq_buf text = {0};
    clq_buf_append(&text, j->text.data, j->text.len);
    clq_buf_append(&text, "", 1);
    const int32_t *tokens = (const int32_t *)(const void *)j->tokens.data;
    for (size_t i = 0; i < j->tokens.len / sizeof *tokens; i++) json_array_append_new(ids, json_integer(tokens[i]));
    json_object_set_new(root, "text", text.failed ? json_null() : clq_cli_text(text.data));
    json_object_set_new(root, "tokens", ids);
    json_object_set_new(root, "reason", json_string(j->reason));
    json_object_set_new(root, "n_prompt", json_integer(j->n_prompt));
    json_object_set_new(root, "n_generated", json_integer((json_int_t)(j->tokens.len / sizeof *tokens)));
    json_object_set_new(root, "prompt_seconds", json_real(j->prompt_seconds));
    json_object_set_new(root, "seconds", json_real(j->seconds));
    json_object_set_new(root, "prompt_tokens_per_second", clq_json_real(clq_rate(j->n_prompt, j->prompt_seconds)));
    json_object_set_new(root, "tokens_per_second", clq_json_real(clq_rate(runs_of(j), j->seconds)));
    json_object_set_new(root, "context", json_integer(j->model.facts->context));
    clq_model_json(root, &j->model, &r->model);
    clq_buf_free(&text);
    return root;
}

int clq_cmd_generate(int argc, char **argv)
{
    request r = {0};
    int code = read_request(argc, argv, &r);
    if (code) return code;
    clq_hooks *hooks = clq_cli_hooks(r.model.quiet);
    job j = {0};
    clq_error err;
    clq_status st = open_job(&j, &r, hooks, &err);
    if (st == CLQ_OK) st = generate(&j, &r, &err);
    if (st != CLQ_OK && st != CLQ_INTERRUPTED)
        code = clq_report(&err);
    else if (st == CLQ_OK && r.model.json)
        code = clq_print_json(report_json(&j, &r));
    if (st == CLQ_INTERRUPTED) {
        fprintf(stderr, "clquant: interrupted\n");
        code = CLQ_INTERRUPTED;
    }
    if ((!code || st == CLQ_INTERRUPTED) && !r.model.quiet && j.model.model) print_rates(&j);
    close_job(&j);
    return code;
}

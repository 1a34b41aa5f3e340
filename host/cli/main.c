// SPDX-License-Identifier: MIT
// The table of commands.
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/quantize.h"

static const char convert_usage[] =
    "IN OUT --type f32|f16|bf16 [--container C] [--tensor-type REGEX=T]...\n"
    "       [--tensor-type-file FILE] [--override-kv K=T:V]... [--dry-run] [--no-fallback]\n"
    "       [--keep-split | --split-max-size SIZE | --split-max-tensors N]\n"
    "       [--device D] [--max-mem SIZE] [--threads N] [--resume] [--quiet] [--json]\n"
    "\n"
    "  IN, OUT and options as in quantize. In a folder all weights get the type; in a GGUF file the\n"
    "  matrices do, vectors and tables that loaders want as float stay (f32 where they come from\n"
    "  a folder).\n"
    "\n"
    "usage: clquant convert IN OUT --container compressed-tensors|awq|gptq|gptq-v2 [...]\n"
    "\n"
    "  Without --type the integer weights of a folder keep their codes, scales and zero-points and\n"
    "  are stored in another layout. What it cannot hold is refused before anything is written.";

static const char quantize_usage[] =
    "IN OUT --type T [--container C] [--pure] [--tensor-type REGEX=T]...\n"
    "       [--tensor-type-file FILE] [--token-embedding-type T]\n"
    "       [--output-tensor-type T | --leave-output-tensor]\n"
    "       [--activations none|token|tensor|static|auto [--asymmetric-activations]\n"
    "       [--observer NAME]]\n"
    "       [--stats FILE] [--imatrix FILE] [--include-weights PART | --exclude-weights PART]...\n"
    "       [--keep-split | --split-max-size SIZE | --split-max-tensors N]\n"
    "       [--override-kv K=T:V]... [--no-fallback] [--dry-run]\n"
    "       [--device D] [--max-mem SIZE] [--threads N] [--resume] [--quiet] [--json]\n"
    "\n"
    "  IN      a GGUF file (any part of a split one), a safetensors file, or a Hugging Face folder\n"
    "  OUT     a name ending in .gguf makes a GGUF file (types q4_0 ...), any other a Hugging Face\n"
    "          style folder (types i8, i4_g128 ..., stored as compressed-tensors)\n"
    "  --container C            the layout of a folder's integer weights: compressed-tensors, awq\n"
    "                           (i4_asym_gN, i4_gN), gptq (i2 i3 i4 i8, and _gN), gptq-v2 (and _asym);\n"
    "                           gguf: what the name ending in .gguf says\n"
    "  --type T                 see `clquant formats`; for a GGUF file a mix of llama-quantize: Q4_0\n"
    "                           Q4_1 Q5_0 Q5_1 Q8_0 Q2_K[_S] Q3_K_S|M|L Q4_K_S|M Q5_K_S|M Q6_K\n"
    "                           IQ1_S|M IQ2_XXS|XS|S|M IQ3_XXS|XS|S|M IQ4_NL|XS TQ1_0 TQ2_0 Q1_0 Q2_0\n"
    "                           MXFP4_MOE F16 BF16 F32. w8a8: i8 --activations token; w8a8_static: i8\n"
    "                           --activations static\n"
    "  --pure                   the mix's base type everywhere\n"
    "  --tensor-type REGEX=T    the type of tensors whose output name the PCRE2 pattern is found in;\n"
    "                           the first that matches wins, one that matches nothing is an error\n"
    "  --tensor-type-file FILE  such rules, parted by white space\n"
    "  --token-embedding-type T, --output-tensor-type T, --leave-output-tensor\n"
    "                           for token_embd.weight and output.weight; they win over rules\n"
    "  --activations KIND       products with integer weights of a folder round their inputs to int8:\n"
    "                           token: a scale for each token; tensor: one for all tokens of a pass;\n"
    "                           static: as --stats FILE of `clquant calibrate` says, with the ranges of\n"
    "                           --observer NAME and, --asymmetric-activations, zero-points; auto: static,\n"
    "                           but token where some tokens are much larger than most; none: not.\n"
    "                           Without: as the source says of weights that are copied\n"
    "  --method M               what is done to the weights first, see `clquant methods`: rtn (default):\n"
    "                           nothing; awq, smoothquant, gptq: run the model on --calib FILE\n"
    "                           (--calib-jsonl FILE, --calib-tokens FILE), --chunks N windows of --ctx N\n"
    "                           tokens (default: at most 128 of 512); hqq: without a text\n"
    "  --scales RULE            of integer types: absmax, search or clip. docs/methods.md has these and\n"
    "                           --search-tokens N, --search-type T, --no-clip, --alpha A, --damp D,\n"
    "                           --keep-order\n"
    "  --imatrix FILE           importance matrix of llama-imatrix (.dat or GGUF), or statistics; for a\n"
    "                           GGUF file --stats FILE is one, too; --include-weights and\n"
    "                           --exclude-weights choose its entries by parts of their names\n"
    "  --override-kv K=T:V      set a metadata entry; T is int, float, bool or str\n"
    "  --split-max-size SIZE, --split-max-tensors N\n"
    "                           write parts, NAME-00001-of-0000N.gguf; --keep-split: those of the source\n"
    "  --no-fallback            refuse instead of choosing another type where a shape does not fit\n"
    "  --dry-run                print the plan; the size is the output's to the byte\n"
    "  --device D               index, part of a name, cpu, gpu, or ref (no OpenCL); default: a GPU\n"
    "  --max-mem SIZE           bound of the buffers, 16M at least (512M, 2G)\n"
    "  --threads N              host threads, and PoCL's\n"
    "  --resume                 go on with an interrupted run of the same source and settings\n"
    "  --quiet                  no progress, no warnings, no report\n"
    "  --json                   the report (or, with --dry-run, the plan) as JSON";

static const char calibrate_usage[] =
    "MODEL --text FILE|--jsonl FILE|--tokens FILE -o STATS [--ctx N]\n"
    "       [--chunks N [--seed N]] [--hessian] [--imatrix FILE]... [--resume]\n"
    "       [--device D] [--threads N] [--quiet] [--json]\n"
    "       STATS --imatrix FILE...\n"
    "\n"
    "  Runs a text through a model, layer by layer, and writes what its products read: ranges for\n"
    "  int8 activations, sums, histograms. docs/statistics.md\n"
    "\n"
    "  --text FILE              the text; -: standard input\n"
    "  --jsonl FILE             lines, each a JSON object with a text; --field NAME: which; default: text\n"
    "  --tokens FILE            token ids, with white space between them\n"
    "  -o STATS                 where the statistics go\n"
    "  --ctx N                  tokens of a window; default 512, or what the model takes\n"
    "  --chunks N               windows; default: all. --seed N: chosen at random instead of the first\n"
    "  --hessian                sums of products of inputs, too: columns times columns for each input\n"
    "  --imatrix FILE           write an importance matrix for llama-quantize, .gguf or .dat; with a\n"
    "                           statistics file in place of the model only that\n"
    "  --resume                 go on with an interrupted run of the same model, text and options\n"
    "  --device D               index, part of a name, cpu, gpu, or ref (no OpenCL); default: a GPU\n"
    "  --threads N              host threads, and PoCL's\n"
    "  --quiet                  no progress, no warnings, no report\n"
    "  --json                   the result as JSON";

static const char perplexity_usage[] =
    "MODEL --text FILE [--ctx N] [--chunks N] [--save-base FILE]\n"
    "       MODEL --base FILE [--text FILE] [--chunks N]\n"
    "\n"
    "  How well the model predicts a text (perplexity, as llama-perplexity measures it), and how far\n"
    "  its predictions are from those of a base (Kullback-Leibler divergence). docs/evaluation.md\n"
    "\n"
    "  --text FILE              the text; -: standard input\n"
    "  --ctx N                  tokens of a window; default 512\n"
    "  --chunks N               windows, at most; default: all\n"
    "  --save-base FILE         write the predictions, for --base; llama-perplexity reads them, too\n"
    "  --base FILE              compare with them; on their tokens, which a --text must begin with\n"
    "  --activations stored|f32|int8|int8-tensor\n"
    "                           how products round their inputs. stored (default): as the checkpoint\n"
    "                           says, else not; f32: not; int8: as it says, else with quantized weights\n"
    "                           to int8, as llama.cpp does; int8-tensor: with integer weights one scale\n"
    "                           a pass\n" CLQ_MODEL_OPTIONS_HELP;

static const char generate_usage[] =
    "MODEL -p PROMPT|--file FILE [-n N] [--temp T] [--seed S] [--stop TEXT]...\n"
    "\n"
    "  -p PROMPT, --file FILE   what the model goes on from; FILE -: standard input\n"
    "  -n N                     tokens, at most; default 128\n"
    "  --temp T                 0: always the likeliest token, the default; 1: as the model predicts\n"
    "  --top-k K, --top-p P, --min-p P\n"
    "                           with --temp: choose from the K likeliest tokens (default 40; 0: all),\n"
    "                           of these the likeliest that sum up to P (0.95; 1: all), of these those\n"
    "                           of at least P times the likeliest's probability (0.05; 0: all)\n"
    "  --seed S                 of the random numbers; default 0\n"
    "  --stop TEXT              end before this text\n"
    "  --ignore-end             go on behind the model's end of the text\n"
    "  --chat                   the prompt is a user's message; formatted as the model's template says\n"
    "  --system TEXT            with --chat: the system's message\n"
    "  --chat-template NAME     with --chat: another template (chatml, llama3, gemma ...)\n"
    "  --ctx N                  tokens of prompt and text; default: the model's, at most 4096\n"
    "  --activations stored|f32|int8|int8-tensor\n"
    "                           as in perplexity; default int8, which is faster\n" CLQ_MODEL_OPTIONS_HELP;

static const char embed_usage[] =
    "MODEL --text FILE [-o OUT] [--pooling mean|cls|last] [--no-normalize]\n"
    "       [--base FILE]\n"
    "\n"
    "  One embedding for each line of a text.\n"
    "\n"
    "  --text FILE              the text; -: standard input\n"
    "  -o OUT                   where to: a name ending in .npy makes an array of float32, any other\n"
    "                           JSON lines; default: JSON lines to standard output\n"
    "  --pooling mean|cls|last  which of a line's vectors; default: what the model says, else mean for\n"
    "                           encoders, last for others\n"
    "  --no-normalize           as they are; without, of length 1\n"
    "  --base FILE              compare with embeddings of an earlier run: cosines\n"
    "  --ctx N                  tokens of a line, at most; default: the model's, at most 4096\n"
    "  --activations A          as in perplexity; default stored\n" CLQ_MODEL_OPTIONS_HELP;

static const char bench_usage[] =
    "[--products] [--only NAME] [--device D] [--threads N] [--json]\n"
    "       MODEL [-p N] [-n N] [-r N]\n"
    "\n"
    "  Without MODEL: the encoders, or with --products the products of a forward pass. With it: tokens a\n"
    "  second of a prompt and of generation, the median of repetitions.\n"
    "\n"
    "  -p N                     tokens of the prompt; default 512; 0: none\n"
    "  -n N                     tokens to generate; default 128; 0: none\n"
    "  -r N                     repetitions; default 5\n"
    "  --ctx N                  tokens of the cache; default: what is needed\n"
    "  --activations A          as in generate; default int8\n" CLQ_MODEL_OPTIONS_HELP;

static const clq_command commands[] = {
    {"devices", clq_cmd_devices, "list OpenCL devices", "[--json]"},
    {"formats", clq_cmd_formats, "list types", "[--json]"},
    {"methods", clq_cmd_methods, "list what can be done to weights before they are encoded", "[--json]"},
    {"info", clq_cmd_info, "describe a checkpoint or a statistics file", "PATH [--tensors] [--json]"},
    {"quantize", clq_cmd_quantize, "quantize a checkpoint", quantize_usage},
    {"convert", clq_cmd_convert, "convert between GGUF and Hugging Face, and between f32, f16 and bf16", convert_usage},
    {"verify", clq_cmd_verify, "compare an output with its source, tensor by tensor",
     "SOURCE OUT [--min-sqnr DB] [--threads N] [--quiet] [--json]\n\n"
     "  Exit code 1 when a value or scale is not finite, a tensor is missing, an unquantized tensor\n"
     "  differs beyond its type's rounding, or a tensor's SQNR is below DB (default 1: zeros, noise)."},
    {"calibrate", clq_cmd_calibrate, "measure what a model's products read on a text", calibrate_usage},
    {"perplexity", clq_cmd_perplexity, "measure a model on a text, and against a base", perplexity_usage},
    {"generate", clq_cmd_generate, "let a model go on from a prompt", generate_usage},
    {"embed", clq_cmd_embed, "turn lines of text into vectors", embed_usage},
    {"tokenize", clq_cmd_tokenize, "turn text into token ids, or ids into text",
     "MODEL [--text FILE] [--lines] [--special] [--parse-special] [--json]\n"
     "       MODEL --ids IDS [--special] [--json]\n\n"
     "  MODEL            a GGUF file (ids as llama.cpp's) or a Hugging Face folder (as tokenizers')\n"
     "  --text FILE      the text; default: -, standard input\n"
     "  --lines          every line is a text of its own, without its newline\n"
     "  --special        with the tokens that the model wants around a text; with --ids: show them\n"
     "  --parse-special  control tokens that stand in the text (<|im_end|> ...) are tokens\n"
     "  --ids IDS        numbers with commas or spaces between them: print their text"},
    {"bench", clq_cmd_bench, "measure encoders, products, or a model's speed", bench_usage},
    {"tune", clq_cmd_tune, "choose how a device runs models",
     "[--device D] [--threads N] [--json]\n\n"
     "  Times the forms of the kernels on the device, and stores the best in the cache folder, for this\n"
     "  device and driver. Without it the choice goes by the device's kind."},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const clq_command *running;

static void print_help(FILE *to)
{
    fprintf(to, "clquant %s: quantize model checkpoints on any OpenCL device\n\nusage: clquant COMMAND ...\n\n",
            clq_version());
    for (int i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n`clquant COMMAND --help` tells a command's options. Exit codes: 0 ok, 1 a quality bound was\n"
                "missed, 2 usage, 3 bad input, 4 device, 5 output, 130 interrupted (and resumable).\n");
}

// ---- messages ----

static bool line_open; // a progress line stands in the terminal

static void clear_line(void)
{
    if (line_open) fprintf(stderr, "\r\033[K");
    line_open = false;
}

void clq_show_line(const char *text)
{
    clear_line();
    if (!text) return;
    struct winsize w;
    unsigned columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80, used = 0;
    size_t n = 0;
    for (; text[n]; n++) {
        unsigned char c = (unsigned char)text[n];
        // Continuation bytes of UTF-8 take no column; from U+1000 on a character may take two.
        used += c < 0x80 || c >= 0xc0 ? (c >= 0xe1 ? 2 : 1) : 0;
        if (used + 2 >= columns) break; // leaves room for the ^C that a terminal shows
    }
    fprintf(stderr, "%.*s", (int)n, text);
    line_open = true;
}

int clq_report(const clq_error *err)
{
    char text[sizeof err->text];
    clear_line();
    fprintf(stderr, "clquant: %s\n", clq_safe_text(err->text, text, sizeof text));
    return (int)err->status;
}

int clq_usage_error(const char *format, ...)
{
    va_list args;
    clear_line();
    va_start(args, format);
    fprintf(stderr, "clquant: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    if (running) fprintf(stderr, "see `clquant %s --help`\n", running->name);
    return CLQ_USAGE;
}

int clq_wrong_option(char **argv)
{
    const char *given = argv[optind - 1], *next = argv[optind];
    if (given[0] == '-' && given[1] == '-') {
        if (!optopt) return clq_usage_error("option '%s' is unknown", given);
        // Of several short options in one argument, the last ends it.
        if (!next || next[0] != '-' || next[1] != optopt)
            return clq_usage_error(strchr(given, '=') ? "option '%s' takes no value" : "option '%s' lacks its argument",
                                   given);
    }
    return clq_usage_error("option '-%c' is unknown; options have long names",
                           isprint(optopt) ? optopt : '?');
}

// ---- hooks ----

static volatile sig_atomic_t cancelled;

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (cancelled) _exit(CLQ_INTERRUPTED); // asked twice: at once; the journal is complete at any time
    cancelled = 1;
}

static void warn(void *user, const char *text)
{
    (void)user;
    char safe[1100];
    clear_line();
    fprintf(stderr, "clquant: warning: %s\n", clq_safe_text(text, safe, sizeof safe));
}

clq_hooks *clq_cli_hooks(bool quiet)
{
    static clq_hooks hooks;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    hooks = (clq_hooks){.warn = quiet ? NULL : warn, .cancel = &cancelled};
    return &hooks;
}

// ---- texts ----

bool clq_parse_size(const char *text, uint64_t *n_bytes)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || isspace((unsigned char)*text) || errno || !(v >= 0) || v > 1e18) return false;
    double unit = 1;
    if (*end) {
        const char *u = strchr(units, *end & ~32);
        if (!u || !*u) return false;
        for (; u >= units; u--) unit *= 1024;
        end++;
        if (strcasecmp(end, "iB") != 0 && strcasecmp(end, "B") != 0 && *end) return false;
    }
    if (v * unit > 1e18) return false;
    *n_bytes = (uint64_t)(v * unit);
    return true;
}

bool clq_parse_count(const char *text, uint32_t *n)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (end == text || *end || errno || !isdigit((unsigned char)*text) || v == 0 || v > 1024) return false;
    *n = (uint32_t)v;
    return true;
}

clq_status clq_parse_type(const char *text, clq_type *type, clq_error *err)
{
    if (!*text) return clq_fail(err, CLQ_USAGE, "the type is missing: see `clquant formats`");
    if (clq_type_parse(text, type, err) == CLQ_OK) return CLQ_OK;
    const clq_mix *mix = clq_mix_find(text);
    const clq_type_pair *pair = clq_type_pair_find(text);
    if (pair)
        return clq_fail(err, CLQ_USAGE, "'%s' is %s with int8 activations: only --type of `clquant quantize` takes it",
                        text, pair->type);
    if (!mix) return CLQ_USAGE;
    return clq_fail(err, CLQ_USAGE,
                    "'%s' is a mix, not a type: only --type of `clquant quantize` takes mixes; its base type is %s, "
                    "and `clquant formats` lists the others",
                    text, clq_format_at(mix->base)->name);
}

const char *clq_size_text(uint64_t n, char text[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    int unit = 0;
    while (v >= 1024 && unit < 4) {
        v /= 1024;
        unit++;
    }
    snprintf(text, 32, unit ? "%.2f %s" : "%.0f %s", v, units[unit]);
    return text;
}

const char *clq_shape_text(const uint64_t *dims, uint32_t n_dims, char text[160])
{
    size_t at = (size_t)snprintf(text, 160, "[");
    for (uint32_t d = 0; d < n_dims && at < 130; d++)
        at += (size_t)snprintf(text + at, 160 - at, d ? ", %llu" : "%llu", (unsigned long long)dims[d]);
    snprintf(text + at, 160 - at, "]");
    return text;
}

const char *clq_safe_text(const char *name, char *text, size_t size)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++) {
        unsigned char c = (unsigned char)name[i];
        text[i] = c == '\n' ? ' ' : c < 32 || c == 127 ? '?' : (char)c;
    }
    text[i] = '\0';
    return text;
}

int clq_print_json(json_t *json)
{
    if (!json) return clq_usage_error("out of memory");
    bool ok = json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0;
    json_decref(json);
    putchar('\n');
    return ok || ferror(stdout) ? 0 : clq_usage_error("out of memory"); // main() tells of a stream that failed
}

json_t *clq_cli_text(const char *text)
{
    json_t *json = json_string(text);
    if (json) return json;
    // Not UTF-8: every byte beyond ASCII becomes U+FFFD.
    size_t len = strlen(text), at = 0;
    char *clean = malloc(3 * len + 1);
    if (!clean) return json_null();
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 128) {
            clean[at++] = text[i];
        } else {
            memcpy(clean + at, "\xef\xbf\xbd", 3);
            at += 3;
        }
    }
    clean[at] = '\0';
    json = json_string(clean);
    free(clean);
    return json;
}

json_t *clq_json_real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *clq_json_dims(const uint64_t *dims, uint32_t n_dims)
{
    json_t *list = json_array();
    for (uint32_t d = 0; d < n_dims; d++) json_array_append_new(list, json_integer((json_int_t)dims[d]));
    return list;
}

const char *clq_activation_text(const clq_activation_info *a, char text[64])
{
    *text = '\0';
    if (a->kind == CLQ_ACTIVATIONS_STATIC)
        snprintf(text, 64, "static, scale %.6g, zero-point %d", (double)a->scale, (int)a->zero_point);
    else if (a->kind != CLQ_ACTIVATIONS_NONE)
        snprintf(text, 64, "%s", clq_activations_name(a->kind));
    return text;
}

json_t *clq_json_activation(const clq_activation_info *a)
{
    if (a->kind == CLQ_ACTIVATIONS_NONE) return json_null();
    json_t *json = json_pack("{s:s}", "kind", clq_activations_name(a->kind));
    if (a->kind != CLQ_ACTIVATIONS_STATIC) return json;
    json_object_set_new(json, "scale", clq_json_real(a->scale));
    json_object_set_new(json, "zero_point", json_integer(a->zero_point));
    return json;
}

static int run_command(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLQ_USAGE;
    }
    opterr = 0;
    bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0;
    if (help && argc == 2) {
        print_help(stdout);
        return 0;
    }
    if (help) { // "help quantize" is "quantize --help"
        argv[1] = argv[2];
        argv[2] = (char *)"--help";
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("clquant %s\n", clq_version());
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        running = &commands[i];
        for (int k = 2; k < argc; k++)
            if (strcmp(argv[k], "--help") == 0 || strcmp(argv[k], "-h") == 0) {
                printf("usage: clquant %s %s\n", running->name, running->usage);
                return 0;
            }
        return running->run(argc - 1, argv + 1);
    }
    return clq_usage_error("there is no command '%s'; `clquant --help` lists them", argv[1]);
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); // a write past a size limit shall fail, not kill
    signal(SIGPIPE, SIG_DFL);
    int code = run_command(argc, argv);
    // Output that could not be written must not look like success.
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        perror("clquant: standard output");
        code = CLQ_OUTPUT;
    }
    return code;
}

// SPDX-License-Identifier: MIT
// Chat templates by name. A model's own template is a Jinja program; it is recognised by words in it, not run. Which
// words, and what the built-in ones write, is llama.cpp's (llama-chat.cpp).
#include <stdlib.h>
#include <string.h>

#include "model/tokenize.h"

enum { TRIM = 1, TRIM_ANSWER = 2, TURNS = 4, GEMMA_SYSTEM = 8, ENDS_AT_ANSWER = 16, NO_OTHERS = 32 };

// How a message of a role is written: before, content, behind. "%" stands for the role's name.
typedef struct chat_form {
    const char *name;
    const char *begin; // of the conversation
    const char *turn;  // TURNS: before the first message of a turn, which an answer ends
    const char *system[2], *user[2], *assistant[2];
    const char *answer; // what add_assistant adds
    unsigned flags;
} chat_form;

#define HEADS(head, tail) .system = {head, tail}, .user = {head, tail}, .assistant = {head, tail}

static const chat_form forms[] = {
    {.name = "chatml", HEADS("<|im_start|>%\n", "<|im_end|>\n"), .answer = "<|im_start|>assistant\n"},
    {.name = "llama3",
     HEADS("<|start_header_id|>%<|end_header_id|>\n\n", "<|eot_id|>"),
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .flags = TRIM},
    {.name = "llama4",
     HEADS("<|header_start|>%<|header_end|>\n\n", "<|eot|>"),
     .answer = "<|header_start|>assistant<|header_end|>\n\n",
     .flags = TRIM},
    {.name = "phi3", HEADS("<|%|>\n", "<|end|>\n"), .answer = "<|assistant|>\n"},
    {.name = "phi4", HEADS("<|im_start|>%<|im_sep|>", "<|im_end|>"), .answer = "<|im_start|>assistant<|im_sep|>"},
    {.name = "zephyr", HEADS("<|%|>\n", "<|endoftext|>\n"), .answer = "<|assistant|>\n"},
    {.name = "falcon3", HEADS("<|%|>\n", "\n"), .answer = "<|assistant|>\n"},
    {.name = "gemma",
     HEADS("<start_of_turn>%\n", "<end_of_turn>\n"),
     .answer = "<start_of_turn>model\n",
     .flags = TRIM | GEMMA_SYSTEM},
    {.name = "smolvlm",
     .begin = "<|im_start|>",
     .system = {"", "\n\n"},
     .user = {"User: ", "<end_of_utterance>\n"},
     .assistant = {"Assistant: ", "<end_of_utterance>\n"},
     .answer = "Assistant:"},
    {.name = "mistral-v1",
     .turn = " [INST] ",
     .system = {"", "\n\n"},
     .user = {"", " [/INST]"},
     .assistant = {" ", "</s>"},
     .flags = TURNS},
    {.name = "mistral-v3",
     .turn = "[INST] ",
     .system = {"", "\n\n"},
     .user = {"", "[/INST]"},
     .assistant = {" ", "</s>"},
     .flags = TURNS | TRIM_ANSWER},
    {.name = "mistral-v3-tekken",
     .turn = "[INST]",
     .system = {"", "\n\n"},
     .user = {"", "[/INST]"},
     .assistant = {"", "</s>"},
     .flags = TURNS},
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "</s>"}},
    {.name = "mistral-v7-tekken",
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "</s>"}},
    {.name = "llama2",
     .begin = "[INST] ",
     .turn = "[INST] ",
     .system = {"", "\n"},
     .user = {"", " [/INST]"},
     .assistant = {"", "</s>"},
     .flags = TURNS | ENDS_AT_ANSWER},
    {.name = "llama2-sys",
     .begin = "[INST] ",
     .turn = "[INST] ",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"", " [/INST]"},
     .assistant = {"", "</s>"},
     .flags = TURNS | ENDS_AT_ANSWER},
    {.name = "llama2-sys-bos",
     .begin = "[INST] ",
     .turn = "<s>[INST] ",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"", " [/INST]"},
     .assistant = {"", "</s>"},
     .flags = TURNS | ENDS_AT_ANSWER},
    {.name = "llama2-sys-strip",
     .begin = "[INST] ",
     .turn = "[INST] ",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"", " [/INST]"},
     .assistant = {"", "</s>"},
     .flags = TURNS | ENDS_AT_ANSWER | TRIM},
    {.name = "vicuna",
     .system = {"", "\n\n"},
     .user = {"USER: ", "\n"},
     .assistant = {"ASSISTANT: ", "</s>\n"},
     .answer = "ASSISTANT:",
     .flags = NO_OTHERS},
    {.name = "deepseek3",
     .system = {"", "\n\n"},
     .user = {"<｜User｜>", ""},
     .assistant = {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
     .answer = "<｜Assistant｜>",
     .flags = NO_OTHERS},
};

static const chat_form *find(const char *name)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(forms[i].name, name) == 0) return &forms[i];
    return NULL;
}

// The first rule all of whose words stand in the template wins; NULL: one that is not built in.
static const char *recognise(const char *template)
{
    static const struct {
        const char *name, *words[4];
    } rules[] = {
        {"phi4", {"<|im_start|>", "<|im_sep|>"}},
        {"smolvlm", {"<|im_start|>", "<end_of_utterance>"}},
        {"chatml", {"<|im_start|>"}},
        {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT]"}},
        {"mistral-v1", {"[INST]", "' [INST] ' + system_message"}},
        {"mistral-v1", {"[INST]", "[AVAILABLE_TOOLS]", " [INST]"}},
        {"mistral-v3-tekken", {"[INST]", "[AVAILABLE_TOOLS]", "\"[INST]\""}},
        {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}},
        {"llama2-sys-strip", {"[INST]", "content.strip()"}},
        {"llama2-sys-bos", {"[INST]", "bos_token + '[INST]"}},
        {"llama2-sys", {"[INST]", "<<SYS>>"}},
        {"llama2", {"[INST]"}},
        {"phi3", {"<|assistant|>", "<|end|>"}},
        {NULL, {"[gMASK]<sop>"}},
        {NULL, {"<|assistant|>", "<|user|>", "<|tool_declare|>"}},
        {"falcon3", {"<|assistant|>", "<|user|>", "</s>"}},
        {NULL, {"<|assistant|>", "<|user|>"}},
        {NULL, {"<|{{ item['role'] }}|>", "<|begin_of_image|>"}},
        {"zephyr", {"<|user|>", "<|endoftext|>"}},
        {NULL, {"bos_token + message['role']"}},
        {"gemma", {"<start_of_turn>"}},
        {NULL, {"'\\n\\nAssistant: ' + eos_token"}},
        {NULL, {"GPT4 Correct "}},
        {NULL, {"USER: ", "ASSISTANT: ", "SYSTEM: "}},
        {"vicuna", {"USER: ", "ASSISTANT: "}},
        {NULL, {"### Instruction:", "<|EOT|>"}},
        {NULL, {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"}},
        {"llama3", {"<|start_header_id|>", "<|end_header_id|>"}},
        {NULL, {"[gMASK]sop"}},
        {NULL, {"<用户>"}},
        {NULL, {"'Assistant: ' + message['content'] + eos_token"}},
        {"deepseek3", {"<｜Assistant｜>", "<｜User｜>", "<｜end▁of▁sentence｜>"}},
        {"llama4", {"<|header_start|>", "<|header_end|>"}},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        size_t k = 0;
        while (k < 4 && rules[i].words[k] && strstr(template, rules[i].words[k])) k++;
        if (k == 4 || !rules[i].words[k]) return rules[i].name;
    }
    return NULL;
}

static void put_head(clq_buf *out, const char *head, const char *role)
{
    for (; *head; head++) {
        if (*head == '%')
            clq_buf_text(out, role);
        else
            clq_buf_append(out, head, 1);
    }
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_content(clq_buf *out, const char *content, bool trimmed)
{
    size_t len = strlen(content);
    while (trimmed && len && is_blank(*content)) content++, len--;
    while (trimmed && len && is_blank(content[len - 1])) len--;
    clq_buf_append(out, content, len);
}

static void write_chat(const chat_form *form, const clq_chat_message *messages, uint32_t n, bool add_assistant,
                       clq_buf *out)
{
    clq_buf system = {0}; // Gemma has no such role: it goes before what the user says next
    bool in_turn = form->flags & ENDS_AT_ANSWER; // the begin opened the first one
    if (form->begin) clq_buf_text(out, form->begin);
    for (uint32_t i = 0; i < n; i++) {
        const char *role = messages[i].role;
        bool is_system = strcmp(role, "system") == 0, is_user = strcmp(role, "user") == 0;
        bool is_answer = !is_system && !is_user;
        const char *const *frame = is_system ? form->system : is_user ? form->user : form->assistant;
        bool trimmed = form->flags & TRIM || (form->flags & TRIM_ANSWER && is_answer);
        if (form->flags & NO_OTHERS && is_answer && strcmp(role, "assistant") != 0) continue;
        if (form->flags & GEMMA_SYSTEM && is_system) {
            put_content(&system, messages[i].content, true);
            continue;
        }
        if (form->flags & TURNS && !in_turn) {
            clq_buf_text(out, form->turn);
            in_turn = true;
        }
        if (form->flags & GEMMA_SYSTEM && strcmp(role, "assistant") == 0) role = "model";
        put_head(out, frame[0], role);
        if (system.len && strcmp(role, "model") != 0) {
            clq_buf_append(out, system.data, system.len);
            clq_buf_text(out, "\n\n");
            system.len = 0;
        }
        put_content(out, messages[i].content, trimmed);
        clq_buf_text(out, frame[1]);
        if (is_answer) in_turn = false;
    }
    if (add_assistant && form->answer) clq_buf_text(out, form->answer);
    if (system.failed) out->failed = true;
    clq_buf_free(&system);
}

clq_status clq_chat_format(const clq_tokenizer *t, const char *name, const clq_chat_message *messages, uint32_t n,
                           bool add_assistant, clq_buf *out, clq_error *err)
{
    if (!name && !t->chat_template)
        return clq_fail(err, CLQ_BAD_INPUT, "the model has no chat template (tokenizer.chat_template); name one");
    const char *found = name ? name : recognise(t->chat_template);
    if (!found && !name) found = find(t->chat_template) ? t->chat_template : NULL; // some files have a name there
    const chat_form *form = found ? find(found) : NULL;
    if (!form && name) return clq_fail(err, CLQ_BAD_INPUT, "'%s' is no chat template that is built in", name);
    if (!form)
        return clq_fail(err, CLQ_BAD_INPUT, "the model's chat template is none of those that are built in; name one");
    size_t before = out->len;
    write_chat(form, messages, n, add_assistant, out);
    return out->failed ? clq_fail_memory(err, out->len - before) : CLQ_OK;
}

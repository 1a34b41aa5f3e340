# SPDX-License-Identifier: MIT
"""Writes tokenizer.json: small vocabularies of every kind, texts (bad UTF-8 too), and the ids that llama.cpp gives.
Usage: make_tokenizer.py [--model NAME=FILE]... (models whose ids of the same texts are kept as well)"""
import collections
import functools
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
import gguf  # noqa: E402
from llama_tokenizer import Llama  # noqa: E402
from tokenizer_lines import lines  # noqa: E402

PRES = ["gpt-2", "llama-bpe", "qwen2", "smollm", "tekken", "gpt-4o", "deepseek-v3", "deepseek-llm", "deepseek-coder", "falcon",
        "bloom", "qwen35", "default"]
BAD = [b"\x80", b"\xff", b"a\xffb", b"\xc3", b"\xc3 \xa9", b"\xe4\xb8", b"\xe4\xb8 x", b"x\xf0\x9f\x98", b"\xf0\x9f\x98 1", b"\xc0\x80",
       b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf8\x88\x80\x80\x80", b"\xfe\xff",
       b"a\x00b", b"\x00", b"caf\xe9 cr\xe8me", b"  \xff  \xff", b"\xa9\xa9\xa9 \xc3\xa9", b"12\xff34", b"don\xe2\x80\x99t \xe2\x80",
       b"\xc3\xa9\xcc\x81\xcc", b"\xef\xbf\xbd\xef\xbf", b"\n\xff\n\n", b"\xe4\xb8\xad\xe6\x96\x87\xe6", b"<|end|>\xff<|end|>"]
TEXTS = ["", " ", "  ", "Hello world", " Hello  World! ", "don't DON'T we'Ll", "a\tb\n\nc \n d  ", "12345 6.78e9 ٣٤", "naïve café e\u0301",
         "世界,你好。こんにちは 안녕", "ABCdefGHI", "🙂👍🏽\u200d", "x = [1, 2];\n\treturn x;\r\n", "<|end|>", "a<|end|> b<|user|>c", "<s>x</s>",
         "\u3000\u00a0x\u2003 y\u180ez", "ǅungla ÉCOLE ŉ", "......!!!???", " " * 40 + "x", "a" * 60, "▁a ▁▁b", "\u0085x\u2028"]


def train(words, n, letters):
    """The n most frequent merges, in order; words: {word: count} of lists of pieces."""
    words = [([*w], c) for w, c in words.items()]
    merges = []
    for _ in range(n):
        pairs = collections.Counter()
        for w, c in words:
            for pair in zip(w, w[1:]):
                pairs[pair] += c
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for w, _ in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def byte_letters():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, n = {}, 0
    for b in range(256):
        table[b] = chr(b) if b in plain else chr(256 + n)
        n += b not in plain
    return table


@functools.cache
def bpe_merges():
    table = byte_letters()
    words = collections.Counter()
    for line in lines(400, seed=7):
        for word in line.split(" "):
            words["".join(table[b] for b in (" " + word).encode())[:24]] += 1
    return train(words, 300, table)


def bpe(pre):
    merges = bpe_merges()
    tokens = list(byte_letters().values())
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    types = [1] * len(tokens)
    tokens += ["<s>", "</s>", "<|end|>", "<|user|>", "  "]
    types += [3, 3, 3, 4, 4]
    n = len(tokens)
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
            "tokenizer.ggml.bos_token_id": n - 5, "tokenizer.ggml.eos_token_id": n - 4}


@functools.cache
def pieces():
    words = collections.Counter()
    for line in lines(400, seed=8):
        for word in line.split(" "):
            words["▁" + word[:20]] += 1
    merges = train(words, 300, None)
    chars = ["▁"] + sorted({c for w in words for c in w if ord(c) < 0x3000 and c.isprintable() and c != "▁"})
    found = ["".join(m) for m in merges]
    return chars, [p for i, p in enumerate(found) if p not in found[:i]]


def spm():
    chars, found = pieces()
    head = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens = head + found + chars[:200] + ["<|end|>", "<|user|>", "\n\n", "   "]
    n = len(found) + len(chars[:200])
    scores = [0.0] * len(head) + [-float(i // 2) for i in range(n)] + [-1000.0] * 4
    types = [2, 3, 3] + [6] * 256 + [1] * n + [3, 4, 4, 4]
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": types}


def unigram():
    chars, found = pieces()
    tokens = ["<pad>", "</s>", "<unk>"] + found + chars[:150] + ["<|user|>"]
    n = len(found) + len(chars[:150])
    scores = [0.0] * 3 + [-2.0 - i / 64 for i in range(n)] + [0.0]
    return {"tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [3, 3, 2] + [1] * n + [4], "tokenizer.ggml.add_space_prefix": True,
            "tokenizer.ggml.remove_extra_whitespaces": True}


def wordpiece():
    chars, found = pieces()
    plain = [p for p in found if p.startswith("▁") and len(p) > 1 and p == p.lower()]
    inner = [p for p in found if "▁" not in p and p == p.lower()]
    single = [c for c in chars if c != "▁" and c == c.lower() and not c.isspace()][:200]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + plain + inner + ["▁" + c for c in single] + single
    tokens = list(dict.fromkeys(tokens + ["▁don", "▁cafe", "▁naive", "▁世", "界"]))
    return {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3, 3, 3, 3, 3] + [1] * (len(tokens) - 5), "tokenizer.ggml.bos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 1, "tokenizer.ggml.seperator_token_id": 3, "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.mask_token_id": 4}


def write_gguf(path, kvs):
    w = gguf.GGUFWriter(path, "llama")
    for key, value in {"block_count": 1, "context_length": 8, "embedding_length": 8, "feed_forward_length": 8,
                       "attention.head_count": 1}.items():
        w.add_uint32("llama." + key, value)
    w.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, value in kvs.items():
        if isinstance(value, bool):
            w.add_bool(key, value)
        elif isinstance(value, int):
            w.add_uint32(key, value)
        elif isinstance(value, str):
            w.add_string(key, value)
        else:
            w.add_array(key, value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def ids(path, texts):
    """Without and with special tokens."""
    llama = Llama(path)
    return [[llama.tokenize(t, False, False) for t in texts], [llama.tokenize(t, True, True) for t in texts]]


CHATS = [[["user", "Hi"]], [["system", " Be kind. "], ["user", " Hi\n"], ["assistant", " Hello "], ["user", "Why?"]],
         [["user", "a"], ["assistant", "b"], ["user", "c"], ["assistant", "d"]], [["system", "s"], ["system", "t"], ["user", "u"]], []]
TEMPLATES = """chatml llama2 llama2-sys llama2-sys-bos llama2-sys-strip llama3 mistral-v1 mistral-v3 mistral-v3-tekken mistral-v7
mistral-v7-tekken gemma phi3 phi4 zephyr falcon3 smolvlm llama4 vicuna deepseek3""".split() + [
    "{{ '<|im_start|>' + m.role }}", "{{ '<|im_start|>' + m.role + '<|im_sep|>' }}", "<start_of_turn>", "[INST] <<SYS>>", "[INST]",
    "[INST] content.strip()", "bos_token + '[INST]", "' [INST] ' + system_message", "[INST][AVAILABLE_TOOLS]",
    "\"[INST]\" [AVAILABLE_TOOLS]", "[INST][SYSTEM_PROMPT]", "<|assistant|><|end|>", "<|assistant|><|user|></s>",
    "<|user|><|endoftext|>", "<|start_header_id|><|end_header_id|>", "<｜Assistant｜><｜User｜><｜end▁of▁sentence｜>", "USER: ASSISTANT: ",
    "<|header_start|><|header_end|>", "<|im_start|><end_of_utterance>", "nothing that is known"]


def chats(llama):
    out = []
    for template in TEMPLATES:
        for i in range(len(CHATS)):
            for add in False, True:
                text = llama.chat(template, CHATS[i], add)
                out.append([template, i, add, None if text is None else text.decode()])
    return out


def main():
    texts = [t.encode() for t in TEXTS] + BAD
    vocabularies = {f"bpe {p}": bpe(p) for p in PRES} | {"spm": spm(), "unigram": unigram(), "wordpiece": wordpiece()}
    out = {"provenance": "llama_tokenize() of PyPI's xllamacpp 2026.10.11549; written by tests/golden/make_tokenizer.py. "
                         "texts are in hexadecimal; ids: of each text without special tokens, then with those that the "
                         "model adds and those in the text. chats, by llama_chat_apply_template(): template, "
                         "conversation, whether the answer's head comes last, text (null: unknown template). A vocabulary that says \"as\" differs only in what it lists.",
           "texts": [t.hex() for t in texts], "vocabularies": [], "models": []}
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for name, kvs in vocabularies.items():
            path = pathlib.Path(folder) / "v.gguf"
            write_gguf(path, kvs)
            entry = {"name": name, "kvs": kvs, "ids": ids(path, texts)}
            if name.startswith("bpe") and first:
                entry |= {"as": first, "kvs": {"tokenizer.ggml.pre": kvs["tokenizer.ggml.pre"]}}
            elif name.startswith("bpe"):
                first = name
            out["vocabularies"].append(entry)
    for argument in sys.argv[1:]:
        if argument == "--model":
            continue
        name, path = argument.split("=", 1)
        out["models"].append({"name": name, "ids": ids(path, texts)})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "v.gguf"
        write_gguf(path, vocabularies["spm"])
        chat_rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in chats(Llama(path)))
    rows = ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in out["vocabularies"])
    models = ",\n".join(json.dumps(v, separators=(",", ":")) for v in out["models"])
    (HERE / "tokenizer.json").write_text(
        "{\"provenance\": " + json.dumps(out["provenance"]) + ",\n\"texts\": " + json.dumps(out["texts"]) +
        ",\n\"vocabularies\": [\n" + rows + "],\n\"models\": [\n" + models +
        "],\n\"conversations\": " + json.dumps(CHATS) + ",\n\"chats\": [\n" + chat_rows + "]}\n")


main()

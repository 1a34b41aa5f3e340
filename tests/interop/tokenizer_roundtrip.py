#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the tokenizer.json that clquant writes with what it was made from.

    tokenizer_roundtrip.py NEW/tokenizer.json --original OLD/tokenizer.json
    tokenizer_roundtrip.py NEW/tokenizer.json --gguf MODEL.gguf --llama-tokenize BIN

The first form compares two Hugging Face tokenizers, pairs of texts and decoding included. The second
compares with llama.cpp's tokens of the GGUF file. Texts: some built in, and the lines of --text.
Needs the PyPI package tokenizers. Exit status 1: a difference.
"""
import argparse
import ast
import subprocess
import sys

from tokenizers import Tokenizer

TEXTS = [
    "Hello, world!", " leading and trailing ", "tabs\tand\n\nnew lines\r\n \n", "a  b   c    d",
    "1234567890 3.14 1,000,000 ١٢٣", "I'm you're HE'S we'Ll don't", "CamelCase snake_case x+=1; // ok",
    "Café naïve Ünïcode Straße İstanbul", "Привет, мир! Ще не вмерла", "我想在apple工作1314151天～",
    "日本語のテキスト 한국어 텍스트", "🚀 (normal) 😶‍🌫️ (multiple emojis)", "กำลังทดสอบ कार्य كتابة",
    "<|im_start|>user\nHi<|im_end|>", "[CLS] [MASK] [SEP] <s> </s>", "x" * 300, "=" * 70, "''''''```\"\"",
    "def f(x):\n    return [i ** 2 for i in range(x)]\n", "https://example.org/a?b=c&d=%20", "\u2581\u2581 ▁x",
]


def llama_ids(binary, gguf, text):
    command = [binary, "-m", gguf, "--ids", "--stdin", "--log-disable"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return ast.literal_eval(done.stdout.decode().strip().splitlines()[-1])


def same_as_original(new, old, text):
    pair = (text, text[:20])
    yield "ids", new.encode(text).ids, old.encode(text).ids
    yield "pair ids", new.encode(*pair).ids, old.encode(*pair).ids
    yield "pair types", new.encode(*pair).type_ids, old.encode(*pair).type_ids
    ids = old.encode(text, add_special_tokens=False).ids
    yield "text", new.decode(ids), old.decode(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("translated", help="tokenizer.json that clquant wrote")
    parser.add_argument("--original", help="tokenizer.json to compare with")
    parser.add_argument("--gguf", help="GGUF file to compare with")
    parser.add_argument("--llama-tokenize", help="llama.cpp's llama-tokenize, with --gguf")
    parser.add_argument("--text", help="file whose lines are compared too")
    args = parser.parse_args()
    if not args.original and not (args.gguf and args.llama_tokenize):
        parser.error("give --original, or --gguf and --llama-tokenize")

    texts = list(TEXTS)
    if args.text:
        with open(args.text, encoding="utf-8") as file:
            texts += [line.rstrip("\n") for line in file if line.strip()]
    new = Tokenizer.from_file(args.translated)
    old = Tokenizer.from_file(args.original) if args.original else None
    for tokenizer in filter(None, (new, old)):
        tokenizer.no_truncation()
        tokenizer.no_padding()

    n_different = 0
    for text in texts:
        if old:
            checks = same_as_original(new, old, text)
        else:
            expected = llama_ids(args.llama_tokenize, args.gguf, text)
            checks = [("ids", new.encode(text).ids, expected)]
        for what, got, expected in checks:
            if got != expected:
                n_different += 1
                print(f"{what} of {text[:60]!r}:\n  translated {got}\n  expected   {expected}")
    print(f"{len(texts)} texts, {n_different} differences")
    return n_different != 0


if __name__ == "__main__":
    sys.exit(main())

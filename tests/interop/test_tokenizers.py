# SPDX-License-Identifier: MIT
"""`clquant tokenize` against llama.cpp (GGUF) and the `tokenizers` library (folders), line by line."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest
from common import CLQ, REPO, fails, ok, run
from tokenizer_lines import lines

N = 10000
MODELS = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent"))
GOLDEN = json.loads((REPO / "tests/golden/tokenizer.json").read_text())
PLAIN, SPECIAL = [], ["--special", "--parse-special"]


def find(pattern):
    return sorted(MODELS.glob(pattern))


GGUFS = find("smollm2/**/*.gguf") + find("gemma3/**/*.gguf")
MORE = [p for folder in os.environ.get("CLQ_VOCABULARIES", "").split(":") if folder for p in pathlib.Path(folder).glob("*.gguf")]
needs_gguf = pytest.mark.skipif(not GGUFS, reason="needs models (scripts/fetch-models)")


def ids(model, texts, *flags):
    r = subprocess.run([CLQ, "tokenize", model, "--lines", "--json", *flags], input=b"".join(t + b"\n" for t in texts),
                       capture_output=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def differing(texts, ours, theirs):
    assert len(ours) == len(theirs) == len(texts) and sum(map(len, ours)) > len(texts)
    return [(t, a, b) for t, a, b in zip(texts, ours, theirs) if a != b]


# ---- llama.cpp ----

@pytest.mark.parametrize("model", GGUFS + MORE, ids=lambda p: p.name)
def test_llama_cpp(model):
    pytest.importorskip("xllamacpp")
    from llama_tokenizer import Llama
    llama = Llama(model)
    texts = [t.encode() for t in lines(N)]
    for flags, on in (PLAIN, False), (SPECIAL, True):
        assert differing(texts, ids(model, texts, *flags), [llama.tokenize(t, on, on) for t in texts]) == []


@pytest.mark.parametrize("model", GGUFS, ids=lambda p: p.name)
def test_pieces_are_llama_cpps(model):
    pytest.importorskip("xllamacpp")
    from llama_tokenizer import Llama
    llama = Llama(model)
    for i in range(0, llama.count(), 97):
        r = ok("tokenize", model, "--ids", str(i), "--special", text=False)
        assert r.stdout == llama.piece(i), i


@pytest.mark.parametrize("entry", GOLDEN["models"], ids=lambda e: e["name"])
def test_golden_ids(entry):
    found = [p for p in GGUFS if p.name == entry["name"]]
    if not found:
        pytest.skip("needs the model")
    for flags, want in zip((PLAIN, SPECIAL), entry["ids"]):
        for text, expected in zip(GOLDEN["texts"], want):
            r = subprocess.run([CLQ, "tokenize", found[0], *flags], input=bytes.fromhex(text), capture_output=True)
            assert [int(x) for x in r.stdout.split()] == expected, text


# ---- tokenizers ----

def compare_folder(folder, n):
    tokenizers = pytest.importorskip("tokenizers")
    texts = lines(n, seed=2)
    for flags, on in (PLAIN, False), (SPECIAL, True):
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = not on
        theirs = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=on)]
        assert differing(texts, ids(folder, [t.encode() for t in texts], *flags), theirs) == []


def folders():
    return [p.parent for p in find("minilm/**/tokenizer.json")] + [REPO / "tests/tiny-llama"]


@pytest.mark.parametrize("folder", folders(), ids=lambda p: p.name)
def test_folder(folder):
    if not (folder / "model.safetensors").exists() and not list(folder.glob("*.safetensors")):
        pytest.skip("needs the weights")
    compare_folder(folder, N)


@pytest.mark.parametrize("model", GGUFS, ids=lambda p: p.name)
def test_folder_made_of_gguf(model, tmp_path):
    pytest.importorskip("tokenizers")
    ok("convert", model, tmp_path / "out", "--type", "bf16", "--device", "ref", "--quiet")
    compare_folder(tmp_path / "out", N)
    shutil.rmtree(tmp_path / "out")


# ---- the command ----

def tiny():
    folder = REPO / "tests/tiny-llama"
    if not (folder / "model.safetensors").exists():
        pytest.skip("needs tests/tiny-llama")
    return folder


def test_output(tmp_path):
    assert ok("tokenize", tiny(), input="ab\n").stdout == "97 98 10\n"
    assert json.loads(ok("tokenize", tiny(), "--special", "--json", input="a").stdout) == [97]  # no BOS in its tokenizer.json
    assert json.loads(ok("tokenize", tiny(), "--lines", "--json", input="a\n\nbc").stdout) == [[97], [], [98, 99]]
    assert ok("tokenize", tiny(), "--lines", input="a\n\nbc\n").stdout == "97\n\n98 99\n"
    assert ok("tokenize", tiny(), input="").stdout == "\n"
    path = tmp_path / "t"
    path.write_bytes(b"\xc3\xa9\xff")
    assert ok("tokenize", tiny(), "--text", path).stdout == "195 169 239 191 189\n"
    assert ok("tokenize", tiny(), "--ids", "256,104 105").stdout == "hi"
    assert json.loads(ok("tokenize", tiny(), "--ids", "104,105", "--json").stdout) == {"text": "hi"}
    assert json.loads(ok("tokenize", tiny(), "--ids", "", "--json").stdout) == {"text": ""}
    assert ok("tokenize", tiny(), "--ids", "255", text=False).stdout == b"\xff"


def test_usage():
    fails(2, "tokenize")
    fails(2, "tokenize", "a", "b")
    fails(2, "tokenize", "a", "--nosuch")
    fails(2, "tokenize", "a", "--ids", "1", "--lines")
    fails(2, "tokenize", tiny(), "--ids", "1,x")
    fails(2, "tokenize", tiny(), "--ids", "-1")
    fails(3, "tokenize", tiny(), "--ids", "258", says="258")
    fails(3, "tokenize", "/nonexistent")
    fails(3, "tokenize", tiny(), "--text", "/nonexistent", says="/nonexistent")
    assert run("tokenize", "--help").returncode == 0

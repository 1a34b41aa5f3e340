# SPDX-License-Identifier: MIT
"""Logits and embeddings of every architecture against numbers of other programs (tests/golden/logits.json), and of
quantized weights against their decoded values."""
import json

import numpy as np
import pytest
from common import REPO, T, ok, read_st, st
from run_models import MODELS, logits, log_softmax, make_bert, make_model, run_model

GOLDEN = json.loads((REPO / "tests" / "golden" / "logits.json").read_text())
TINY_LLAMA = REPO / "tests" / "tiny-llama"
TEXT = list(b"She said that the dog was")


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("name", MODELS)
def test_golden(tmp_path, name, device):
    make_model(tmp_path / "in", name)
    for prompt, expected in zip(GOLDEN["prompts"], GOLDEN["models"][name], strict=True):
        ours = log_softmax(logits(tmp_path / "in", prompt, device=device))[-1]
        assert len(expected) >= 5
        for token, value in expected.items():
            assert abs(ours[int(token)] - value) < 2e-3, (name, len(prompt), token)


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_golden_embedding(tmp_path, device):
    make_bert(tmp_path / "in")
    for case in GOLDEN["embeddings"]:
        ours = run_model(tmp_path / "in", case["prompt"], want="mean", device=device)
        assert np.abs(ours / np.linalg.norm(ours) - case["embedding"]).max() < 1e-4


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("options", [{"step": 1}, {"batch": 3}, {"batch": 17}], ids=str)
@pytest.mark.parametrize("name", ["qwen2moe", "gemma3_global", "phi3"])
def test_options_agree(tmp_path, name, options, device):
    """However the tokens are cut into passes, and on a device as by the references."""
    make_model(tmp_path / "in", name)
    prompt = GOLDEN["prompts"][-1]
    whole, other = logits(tmp_path / "in", prompt), logits(tmp_path / "in", prompt, device=device, **options)
    if device == "ref":
        assert np.abs(whole - other).max() < 1e-4
    else:  # sums in float32: these random models make much of their rounding, and have logits of up to 90
        a, b = log_softmax(whole), log_softmax(other)
        assert (np.exp(a) * (a - b)).sum(-1).max() < 1e-6


@pytest.mark.parametrize("kind", ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K",
                                  "q6_K", "iq4_nl", "iq4_xs", "tq1_0", "mxfp4"])
def test_as_stored(tmp_path, kind):
    """Weights that are decoded while they are used give what decoded weights give."""
    command = "convert" if kind in ("f16", "bf16") else "quantize"
    more = () if command == "convert" else ("--pure",)
    ok(command, TINY_LLAMA, tmp_path / "q.gguf", "--type", kind, "--device", "ref", *more)
    ok("convert", tmp_path / "q.gguf", tmp_path / "f.gguf", "--type", "f32", "--device", "ref")
    stored, decoded = (logits(tmp_path / name, TEXT) for name in ("q.gguf", "f.gguf"))
    assert np.abs(stored - decoded).max() < 1e-4
    rounded = logits(tmp_path / "q.gguf", TEXT, activations=2)
    if kind in ("f16", "bf16"):
        assert np.array_equal(rounded, stored)
    else:
        assert 1e-4 < np.abs(stored - rounded).max() < 2


@pytest.mark.parametrize("kind", ["i8", "i8_asym", "i8_tensor", "i8_asym_tensor", "i4", "i4_g128", "i4_asym_g64",
                                  "i3_g64", "i6_asym_g32"])
def test_integers(tmp_path, kind):
    """The same for folders of integer weights, whose heads are also put in GGUF's order."""
    ok("quantize", TINY_LLAMA, tmp_path / "q", "--type", kind, "--device", "ref")
    ok("convert", tmp_path / "q", tmp_path / "f.gguf", "--type", "f32", "--device", "ref")
    stored, decoded = (logits(tmp_path / name, TEXT) for name in ("q", "f.gguf"))
    assert np.abs(stored - decoded).max() < 1e-4
    assert 1e-4 < np.abs(stored - logits(tmp_path / "q", TEXT, activations=2)).max() < 2


@pytest.mark.parametrize("kind", ["i8", "i4_g32", "i8_asym_tensor"])
def test_integer_experts(tmp_path, kind):
    make_model(tmp_path / "in", "qwen2moe")
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", kind, "--device", "ref")
    ok("convert", tmp_path / "q", tmp_path / "f.gguf", "--type", "f32", "--device", "ref")
    prompt = GOLDEN["prompts"][-1]
    stored, decoded = (logits(tmp_path / name, prompt) for name in ("q", "f.gguf"))
    assert np.abs(stored - decoded).max() < 1e-3


def test_group_index(tmp_path):
    """Columns whose groups are given one by one, as act-order quantization has them."""
    ok("quantize", TINY_LLAMA, tmp_path / "q", "--type", "i4_asym_g64", "--device", "ref")
    tensors = read_st(tmp_path / "q" / "model.safetensors")
    for name in [n for n in tensors if n.endswith(".weight_packed")]:
        groups = tensors[name.replace("_packed", "_scale")].shape[1]
        index = np.random.default_rng(len(name)).permutation(np.arange(64 * groups) // 64).astype(np.int32)
        tensors[name.replace("_packed", "_g_idx")] = T("I32", index.shape, index.tobytes())
    st(tmp_path / "q" / "model.safetensors", tensors)
    ok("convert", tmp_path / "q", tmp_path / "f.gguf", "--type", "f32", "--device", "ref")
    stored, decoded = (logits(tmp_path / name, TEXT) for name in ("q", "f.gguf"))
    assert np.abs(stored - decoded).max() < 1e-4

# SPDX-License-Identifier: MIT
"""A real model of few bytes, tests/tiny-llama: from its Hugging Face folder to GGUF and back, and how far each
type moves its predictions. The model runs in numpy here. CLQ_TINY_LLAMA: another folder of the same model."""
import json
import os
import pathlib

import numpy as np
import pytest

from common import REPO, ok, read_gg, read_st, values

MODEL = pathlib.Path(os.environ.get("CLQ_TINY_LLAMA") or REPO / "tests" / "tiny-llama")
pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")

HEADS, KV_HEADS, LAYERS = 4, 2, 4
# The mean Kullback-Leibler divergence from the float32 predictions, in nats: a bound for each type.
DIVERGENCE = {"q8_0": 0.0002, "q6_K": 0.0015, "q5_K": 0.005, "q4_K": 0.02, "iq4_xs": 0.02, "q4_0": 0.025}


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "f32.gguf"
    ok("convert", MODEL, path, "--type", "f32", "--device", "ref")
    return path


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def rotate(x):
    """GGUF's order of llama rows: pairs of neighbours turn."""
    n, _, dim = x.shape
    angle = np.outer(np.arange(n), 10000.0 ** (-np.arange(0, dim, 2) / dim))[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    return np.stack([even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)],
                    -1).reshape(x.shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def predict(path, tokens):
    """The logits after each token, in float64, from a GGUF file of any type."""
    w = {name: values(t).astype(np.float64) for name, t in read_gg(path).tensors.items()}
    n = len(tokens)
    x = w["token_embd.weight"][tokens]
    later = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(LAYERS):
        def apply(name, h):
            return h @ w[f"blk.{i}.{name}.weight"].T
        h = norm(x, w[f"blk.{i}.attn_norm.weight"])
        q = rotate(apply("attn_q", h).reshape(n, HEADS, -1))
        k = rotate(apply("attn_k", h).reshape(n, KV_HEADS, -1)).repeat(HEADS // KV_HEADS, 1)
        v = apply("attn_v", h).reshape(n, KV_HEADS, -1).repeat(HEADS // KV_HEADS, 1)
        a = softmax(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]) + later)
        x = x + apply("attn_output", np.einsum("hqk,khd->qhd", a, v).reshape(n, -1))
        h = norm(x, w[f"blk.{i}.ffn_norm.weight"])
        gate = apply("ffn_gate", h)
        x = x + apply("ffn_down", gate / (1 + np.exp(-gate)) * apply("ffn_up", h))
    return norm(x, w["output_norm.weight"]) @ w["output.weight"].T


@pytest.fixture(scope="module")
def probe():
    p = read_st(MODEL / "probe.safetensors")
    return values(p["tokens"])[0], values(p["logits"])[0].astype(np.float64)


def test_predictions(f32, probe):
    tokens, logits = probe
    assert np.abs(predict(f32, tokens) - logits).max() < 1e-3


def test_tokenizer(f32):
    """Every byte is the token of its value; there are no merges."""
    g = read_gg(f32)
    assert g.value("tokenizer.ggml.model") == "gpt2" and g.value("tokenizer.ggml.pre") == "gpt-2"
    assert g.value("tokenizer.ggml.bos_token_id") == 256 and g.value("tokenizer.ggml.eos_token_id") == 257
    assert g.value("tokenizer.ggml.add_bos_token") is False
    assert g.kvs["tokenizer.ggml.merges"][1] == bytes([8, 0, 0, 0] + [0] * 8)


def test_there_and_back(f32, tmp_path):
    ok("convert", f32, tmp_path / "back", "--type", "f32", "--device", "ref")
    before, after = read_st(MODEL / "model.safetensors"), read_st(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before)
    models = [json.loads((folder / "tokenizer.json").read_text())["model"] for folder in (MODEL, tmp_path / "back")]
    assert models[0]["merges"] == models[1]["merges"] == []
    # GGUF keeps special tokens in the same list; tokenizer.json may hold them in the vocabulary or beside it.
    bytes_of = [{k: v for k, v in m["vocab"].items() if v < 256} for m in models]
    assert bytes_of[0] == bytes_of[1] and len(bytes_of[0]) == 256


@pytest.mark.parametrize("device", ["ref", None], ids=["ref", "default"])
@pytest.mark.parametrize("name", DIVERGENCE)
def test_quantize(f32, probe, tmp_path, name, device):
    tokens, logits = probe
    where = ["--device", device] if device else []
    r = ok("quantize", MODEL, tmp_path / "q.gguf", "--type", name, "--pure", "--json", *where)
    assert json.loads(r.stdout)["n_fallbacks"] == 0
    types = {t["type"] for t in json.loads(ok("info", tmp_path / "q.gguf", "--json").stdout)["types"]}
    assert types == {name, "f32"}
    ok("convert", tmp_path / "q.gguf", tmp_path / "f32.gguf", "--type", "f32", "--device", "ref")
    odds = softmax(logits)
    ours = softmax(predict(tmp_path / "f32.gguf", tokens))
    divergence = (odds * np.log(odds / ours)).sum(-1).mean()
    print(f"{name}: {divergence:.6f} nats")
    assert 0 < divergence < DIVERGENCE[name]

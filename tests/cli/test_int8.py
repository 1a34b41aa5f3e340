# SPDX-License-Identifier: MIT
"""Products with activations rounded to int8, and models that are run layer by layer as calibration does it."""
import json
import subprocess

import numpy as np
import pytest
from arch_models import E, make
from common import REPO, T, f32, ok, read_folder, run, st, values
from run_models import BERT_VOCAB, CONTEXT, MODELS, RUN_MODEL, log_softmax, logits, make_bert, make_model, run_model

TINY_LLAMA = REPO / "tests" / "tiny-llama"
TEXT = list(b"She said that the dog was so big that the little girl could not see")
INT8, TENSOR = 2, 3  # clq_rounding
BINS, TOKEN_BINS = 4096, 256


def kld(a, b):
    a, b = log_softmax(a), log_softmax(b)
    return (np.exp(a) * (a - b)).sum(-1)


@pytest.mark.parametrize("activations", [INT8, TENSOR])
@pytest.mark.parametrize("kind", ["i8", "i8_asym", "i8_tensor", "i8_asym_tensor", "i4_g64", "i8_g64"])
def test_close_to_floats(tmp_path, kind, activations):
    ok("quantize", TINY_LLAMA, tmp_path / "q", "--type", kind, "--device", "ref")
    exact = logits(tmp_path / "q", TEXT)
    rounded = logits(tmp_path / "q", TEXT, activations=activations)
    assert 0 < kld(exact, rounded).mean() < (0.05 if activations == INT8 else 0.3)
    # The device rounds the same values but for the last bits of what comes before.
    assert kld(rounded, logits(tmp_path / "q", TEXT, activations=activations, device="cpu")).mean() < 5e-3
    # One token at a time: with one scale a token the same products.
    if activations == INT8:
        assert kld(rounded, logits(tmp_path / "q", TEXT, activations=INT8, device="cpu", step=1)).mean() < 5e-3


@pytest.mark.parametrize("activations", [INT8, TENSOR])
def test_experts(tmp_path, activations):
    make_model(tmp_path / "in", "qwen2moe")
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", "i8", "--device", "ref")
    prompt = [(i * 37 + 11) % 250 for i in range(50)]
    rounded = logits(tmp_path / "q", prompt, activations=activations)
    assert kld(rounded, logits(tmp_path / "q", prompt, activations=activations, device="cpu")).mean() < 0.05
    assert np.abs(log_softmax(rounded) - log_softmax(logits(tmp_path / "q", prompt))).max() > 0


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("activations", [INT8, TENSOR])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_no_numbers(tmp_path, device, activations, bad):
    """An error that names the layer, where int8 codes would hide it."""
    tensors = make(tmp_path / "in", "qwen3")
    norm = values(tensors["model.layers.1.post_attention_layernorm.weight"]).copy()
    norm[3] = bad
    tensors["model.layers.1.post_attention_layernorm.weight"] = f32(norm)
    st(tmp_path / "in" / "model.safetensors", tensors)
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", "i8", "--device", "ref")
    for ids in ([5], [5, 9, 200], list(range(20))):
        r = subprocess.run([RUN_MODEL, tmp_path / "q", f"device={device}", f"activations={activations}",
                            f"context={CONTEXT}", *map(str, ids)], capture_output=True, text=True)
        assert r.returncode == 3 and "'blk.1.ffn_gate.weight'" in r.stderr and "NaN" in r.stderr, r.stderr
    r = run("perplexity", tmp_path / "q", "--text", REPO / "README.md", "--activations", "int8", "--device", device)
    assert r.returncode == 3


def test_one_scale_for_zeros(tmp_path):
    """A token whose embedding is zero, and one whose elements are all equal."""
    tensors = make(tmp_path / "in", "qwen3")
    embedding = values(tensors["model.embed_tokens.weight"]).copy()
    embedding[5], embedding[6] = 0, 0.25
    tensors["model.embed_tokens.weight"] = f32(embedding)
    st(tmp_path / "in" / "model.safetensors", tensors)
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", "i8", "--device", "ref")
    for device in ("ref", "cpu"):
        for activations in (INT8, TENSOR):
            for ids in ([5], [6], [5, 6, 5, 6, 5, 6, 5, 6, 5, 6]):
                assert np.isfinite(logits(tmp_path / "q", ids, activations=activations, device=device)).all()


# ---- layer by layer ----

@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("name", [*MODELS, "bert"])
def test_layers(tmp_path, name, device):
    """Hidden states of a layer at a time are those of a whole pass."""
    if name == "bert":
        make_bert(tmp_path / "in")
        ids = [2, *range(5, 5 + 20), 3]
        assert max(ids) < len(BERT_VOCAB)
    else:
        make_model(tmp_path / "in", name)
        ids = [(i * 37 + 11) % 250 for i in range(50)]
    options = {} if name == "bert" else {"context": len(ids)}
    whole = run_model(tmp_path / "in", ids, want="hidden", device=device, **options)
    layers = run_model(tmp_path / "in", ids, want="layers", device=device)
    assert len(layers) % (len(ids) * E) == 0 and len(layers) < len(whole)
    assert np.abs(whole[:len(layers)] - layers).max() <= 1e-4 * np.abs(layers).max()


def test_observed(tmp_path):
    """The first site of a layer is the norm of the embeddings, which numpy makes, too."""
    tensors = make(tmp_path / "in", "qwen3")
    ids = [(i * 37 + 11) % 250 for i in range(30)]
    x = values(tensors["model.embed_tokens.weight"]).astype(np.float64)[ids]
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * values(tensors["model.layers.0.input_layernorm.weight"])
    both = np.concatenate([x, x[:15]])
    for device in ("ref", "cpu"):
        slot = run_model(tmp_path / "in", ids, want="observed", device=device)
        words = slot.view(np.uint32)
        assert list(words[:3]) == [45, 0, 2]
        assert words[16:16 + TOKEN_BINS].sum() == 45
        bins = words[16 + TOKEN_BINS:16 + TOKEN_BINS + 2 * BINS]
        exponent = int(slot.view(np.int32)[3])
        assert 2.0 ** (exponent - 1) <= np.abs(x).max() < 2.0**exponent and bins.sum() == both.size
        edges = np.arange(-BINS, BINS + 1) * 2.0**exponent / BINS
        assert np.abs(np.histogram(both, edges)[0].astype(int) - bins.astype(int)).sum() <= 8  # at edges
        k16 = (E + 15) // 16 * 16
        arrays = slot[16 + TOKEN_BINS + 2 * BINS:][:7 * k16].reshape(7, k16)[:, :E]
        for ours, theirs in zip(arrays, (both.min(0), both.max(0), both.sum(0), np.abs(both).sum(0), (both**2).sum(0),
                                         x[:15].min(0), x[:15].max(0)), strict=True):
            assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
        gram = slot[16 + TOKEN_BINS + 2 * BINS + 7 * k16:][:E * E].reshape(E, E)
        assert np.abs(gram - both.T @ both).max() < 1e-4 * np.abs(gram).max()


# ---- as checkpoints say ----

def static_folder(tmp_path, name, edit):
    """A folder of i8 weights with what `edit` says of each linear weight's activations: None, "token", or a scale."""
    make_model(tmp_path / "in", name)
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", "w8a8", "--device", "ref")
    tensors = read_folder(tmp_path / "q")
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"]
    weights = groups["group_0"]["weights"]
    inputs = groups["group_0"]["input_activations"]
    modules = [n[:-len(".weight")] for n in tensors if n.endswith(".weight") and n + "_scale" in tensors]
    groups.clear()
    for i, module in enumerate(modules):
        kind = edit(module)
        said = None if kind is None else inputs if kind == "token" else inputs | {
            "dynamic": False, "strategy": "tensor", "symmetric": True}
        groups[f"group_{i}"] = {"targets": [module], "weights": weights, "input_activations": said,
                                "output_activations": None, "format": "int-quantized"}
        if isinstance(kind, float):
            tensors[module + ".input_scale"] = T("F32", (1,), np.float32(kind).tobytes())
    st(tmp_path / "q" / "model.safetensors", tensors, {"format": "pt"})
    (tmp_path / "q" / "config.json").write_text(json.dumps(config))
    return tmp_path / "q", modules


@pytest.mark.parametrize("name", ["qwen2", "qwen2moe", "gemma2", "phi3"])
def test_different_rounding_of_one_input(tmp_path, name):
    """Weights that share an input, and experts, may each round it in another way."""
    kinds = [None, "token", 0.03, 0.05, "token", 0.02, None]
    count = iter(range(10**6))
    folder, modules = static_folder(tmp_path, name, lambda module: kinds[next(count) % len(kinds)])
    assert len(modules) > 7
    prompt = [(i * 37 + 11) % 250 for i in range(20)]
    for ids in (prompt, prompt[:1]):
        ref, cpu = (logits(folder, ids, device=d) for d in ("ref", "cpu"))
        exact = logits(folder, ids, activations=1)  # CLQ_ROUND_NOTHING
        assert np.isfinite(ref).all() and np.abs(log_softmax(ref) - log_softmax(exact)).max() > 1e-3
        assert kld(ref, cpu).mean() < 0.05


def test_static_scales_saturate(tmp_path):
    """A scale far too small clips everything: what comes out is what clipped inputs make."""
    folder, _ = static_folder(tmp_path, "qwen2", lambda module: 1e-6)
    assert np.isfinite(logits(folder, [5, 9, 200], device="cpu")).all()
    for bad in (0.0, -1.0, np.inf):
        (tmp_path / str(bad)).mkdir()
        other, _ = static_folder(tmp_path / str(bad), "qwen2", lambda module: float(bad))
        r = run("info", other)
        assert r.returncode == 3 and "input_scale" in r.stderr


@pytest.mark.parametrize("types", [{"v_proj": "f32"}, {"k_proj": "f16"}, {"up_proj": "f16"}, {"q_proj": "i8_g64"}], ids=str)
@pytest.mark.parametrize("base", ["i4_g32", "i8_g64", "i8"])
def test_mixed_types(tmp_path, base, types):
    """Weights that share an input but not its rounding: each gets its own."""
    rules = [x for part, kind in types.items() for x in ("--tensor-type", f"{part}={kind}")]
    ok("quantize", TINY_LLAMA, tmp_path / "q", "--type", base, *rules, "--device", "ref")
    exact = logits(tmp_path / "q", TEXT)
    for activations in (INT8, TENSOR):
        for device in ("ref", "cpu"):
            for ids in (TEXT, TEXT[:3]):
                ours = logits(tmp_path / "q", ids, activations=activations, device=device)
                assert kld(exact[:len(ids)], ours).mean() < (0.1 if activations == INT8 else 1), (activations, device)


@pytest.mark.parametrize("activations", [INT8, TENSOR])
def test_mixed_experts(tmp_path, activations):
    make_model(tmp_path / "in", "qwen2moe")
    ok("quantize", tmp_path / "in", tmp_path / "q", "--type", "i4_g32", "--tensor-type", r"experts\.1\.up_proj=f16",
       "--tensor-type", r"experts\.2\.=i8", "--device", "ref")
    for ids in ([5], [(i * 37 + 11) % 250 for i in range(40)]):
        ref, cpu = (logits(tmp_path / "q", ids, activations=activations, device=d) for d in ("ref", "cpu"))
        assert np.isfinite(ref).all() and kld(ref, cpu).mean() < 0.05

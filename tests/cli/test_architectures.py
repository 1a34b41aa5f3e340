# SPDX-License-Identifier: MIT
"""Hugging Face <-> GGUF for every architecture: against llama.cpp's converter (tests/golden/architectures.json),
there and back, and what is refused."""
import hashlib
import json
import struct

import arch_models
import numpy as np
import pytest
from arch_models import ARCHS, EXPERTS, make
from common import (ARRAY, REPO, SCALAR, STRING, T, config_of, fails, ok, read_folder, read_gg, run, st, values)

GOLDEN = REPO / "tests/golden/architectures.json"
# Describe the file, not the model, or are additions that change no result.
OWN = ("general.", "tokenizer.ggml.scores", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.unknown_token_id",
       "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token")


def value(typ, data):
    if typ == STRING:
        return data[8:].decode()
    if typ != ARRAY:
        return struct.unpack(SCALAR[typ], data)[0]
    element, n = struct.unpack("<IQ", data[:12])
    items, at = [], 12
    for _ in range(n):
        size = 8 + struct.unpack("<Q", data[at:at + 8])[0] if element == STRING else struct.calcsize(SCALAR[element])
        items.append(value(element, data[at:at + size]))
        at += size
    return items


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def describe(path):
    g = read_gg(path)
    kvs = {}
    for key, (typ, data) in g.kvs.items():
        v = value(typ, data)
        kvs[key] = digest(json.dumps(v).encode()) if isinstance(v, list) else v
    return {"kvs": kvs, "tensors": {n: f"{list(t.shape)} {digest(t.data)}" for n, t in g.tensors.items()}}


@pytest.fixture(params=ARCHS)
def arch(request):
    return request.param


def to_gguf(tmp_path, name, **edits):
    make(tmp_path / "in", name, **edits)
    ok("convert", tmp_path / "in", tmp_path / "out.gguf", "--type", "f32", "--device", "ref")
    return tmp_path / "out.gguf"


def test_as_llama_cpp(tmp_path, arch):
    golden = json.loads(GOLDEN.read_text())[arch]
    ours = describe(to_gguf(tmp_path, arch))
    assert ours["tensors"] == golden["tensors"]
    for key, expected in golden["kvs"].items():
        if not key.startswith(OWN) or key in ("general.architecture", "general.size_label"):
            assert ours["kvs"].get(key) == expected, key


def test_there_and_back(tmp_path, arch):
    first = read_gg(to_gguf(tmp_path, arch))
    ok("convert", tmp_path / "out.gguf", tmp_path / "hf", "--type", "f32", "--device", "ref")
    source, back = make(tmp_path / "in", arch), read_folder(tmp_path / "hf")
    assert sorted(source) == sorted(back)
    for name in source:
        assert np.array_equal(values(source[name]), values(back[name])), name
    assert config_of(tmp_path / "hf")["architectures"] == config_of(tmp_path / "in")["architectures"]
    ok("convert", tmp_path / "hf", tmp_path / "again.gguf", "--type", "f32", "--device", "ref")
    second = read_gg(tmp_path / "again.gguf")
    names = [k for k in first.kvs if k not in ("general.name",)]
    assert sorted(names) == sorted(k for k in second.kvs if k != "general.name")
    for key in names:
        assert first.kvs[key] == second.kvs[key], key
    assert first.tensors == second.tensors


def test_verify(tmp_path, arch):
    to_gguf(tmp_path, arch)
    ok("quantize", tmp_path / "in", tmp_path / "q.gguf", "--type", "q8_0", "--device", "ref")
    ok("quantize", tmp_path / "out.gguf", tmp_path / "q2.gguf", "--type", "q8_0", "--device", "ref")
    ok("quantize", tmp_path / "out.gguf", tmp_path / "i8", "--type", "i8", "--device", "ref")
    ok("verify", tmp_path / "in", tmp_path / "out.gguf")
    ok("verify", tmp_path / "in", tmp_path / "q.gguf")
    ok("verify", tmp_path / "out.gguf", tmp_path / "i8")
    a, b = read_gg(tmp_path / "q.gguf"), read_gg(tmp_path / "q2.gguf")
    assert a.tensors == b.tensors


def test_device(tmp_path):
    """Tiles that several experts fill, and norms that are shifted, on the default device."""
    for name in ("qwen3moe", "gemma3"):
        make(tmp_path / name, name)
        for device in ("ref", None):
            ok("quantize", tmp_path / name, tmp_path / f"{device}.gguf", "--type", "q4_0",
               *(["--device", device] if device else []))
        assert (tmp_path / "ref.gguf").read_bytes() == (tmp_path / "None.gguf").read_bytes()


# ---- one feature each ----

def test_norms(tmp_path):
    g = read_gg(to_gguf(tmp_path, "gemma2"))
    source = make(tmp_path / "in", "gemma2")
    expected = values(source["model.norm.weight"]) + np.float32(1)
    assert np.array_equal(values(g.tensors["output_norm.weight"]), expected)


def test_experts(tmp_path):
    g = read_gg(to_gguf(tmp_path, "mixtral"))
    source = make(tmp_path / "in", "mixtral")
    stacked = values(g.tensors["blk.1.ffn_down_exps.weight"])
    for e in range(EXPERTS):
        assert np.array_equal(stacked[e], values(source[f"model.layers.1.block_sparse_moe.experts.{e}.w2.weight"]))


def test_experts_of_several_types(tmp_path):
    tensors = make(tmp_path / "in", "qwen3moe")
    name = "model.layers.0.mlp.experts.1.up_proj.weight"
    tensors[name] = T("F32", tensors[name].shape, values(tensors[name]).tobytes())
    st(tmp_path / "in/model.safetensors", tensors)
    expected = describe(to_gguf(tmp_path / "plain", "qwen3moe"))["tensors"]
    ok("convert", tmp_path / "in", tmp_path / "out.gguf", "--type", "f32", "--device", "ref")
    assert describe(tmp_path / "out.gguf")["tensors"] == expected
    ok("convert", tmp_path / "in", tmp_path / "bf16.gguf", "--type", "bf16", "--device", "ref")
    ok("verify", tmp_path / "in", tmp_path / "bf16.gguf")


def test_trimmed_vocabulary(tmp_path):
    """Gemma 3: rows of the embedding that have no token are left out."""
    tensors = make(tmp_path / "in", "gemma3", vocab_size=None)
    n = tensors["model.embed_tokens.weight"].shape[0]
    tensors["model.embed_tokens.weight"] = arch_models.weights(0, (n + 7, arch_models.E))
    st(tmp_path / "in/model.safetensors", tensors)
    ok("convert", tmp_path / "in", tmp_path / "out.gguf", "--type", "f32", "--device", "ref")
    ok("verify", tmp_path / "in", tmp_path / "out.gguf")
    g = read_gg(tmp_path / "out.gguf")
    assert g.tensors["token_embd.weight"].shape == (n, arch_models.E)
    assert np.array_equal(values(g.tensors["token_embd.weight"]), values(tensors["model.embed_tokens.weight"])[:n])
    assert len(value(*g.kvs["tokenizer.ggml.tokens"])) == n


@pytest.mark.parametrize("types, pattern", [("SSSSSF", None), ("SFSF", 2), ("FFFF", 1), ("SSSS", None), ("SSF", 3)])
def test_layer_types(tmp_path, types, pattern):
    long = {"S": "sliding_attention", "F": "full_attention"}
    name = "gemma3"
    old = arch_models.LAYERS
    arch_models.LAYERS = len(types)
    try:
        path = to_gguf(tmp_path, name, num_hidden_layers=len(types), layer_types=[long[t] for t in types])
    finally:
        arch_models.LAYERS = old
    g = read_gg(path)
    key = "gemma3.attention.sliding_window_pattern"
    assert (g.value(key) if key in g.kvs else None) == pattern
    ok("convert", path, tmp_path / "hf", "--type", "f32", "--device", "ref")
    assert config_of(tmp_path / "hf")["layer_types"] == [long[t] for t in types]


def test_rope_parameters(tmp_path):
    """Newer config.json files hold all of rotary embeddings in one place."""
    old = describe(to_gguf(tmp_path / "old", "gemma3"))
    new = describe(to_gguf(tmp_path / "new", "gemma3", rope_theta=None, rope_scaling=None, rope_local_base_freq=None,
                           rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}))
    assert old == new


def test_dtypes(tmp_path):
    """Norms are shifted in float32, whatever they are stored in, and come back exactly."""
    tensors = make(tmp_path / "in", "gemma3")
    for dtype, store in (("F32", "<f4"), ("F16", "<f2")):
        st(tmp_path / "in/model.safetensors", {n: T(dtype, t.shape, values(t).astype(store).tobytes())
                                               for n, t in tensors.items()})
        ok("convert", tmp_path / "in", tmp_path / f"{dtype}.gguf", "--type", "f32", "--device", "ref")
    assert (tmp_path / "F32.gguf").read_bytes() == (tmp_path / "F16.gguf").read_bytes()


# ---- refusals ----

def refused(tmp_path, *says):
    fails(3, "convert", tmp_path / "in", tmp_path / "out.gguf", "--type", "f32", "--device", "ref", says=says)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("name, key", [
    ("qwen2", "intermediate_size"), ("qwen3", "head_dim"), ("qwen3moe", "num_experts"),
    ("qwen3moe", "num_experts_per_tok"), ("qwen3moe", "moe_intermediate_size"),
    ("qwen2moe", "shared_expert_intermediate_size"), ("mixtral", "num_local_experts"),
    ("gemma2", "attn_logit_softcapping"), ("gemma2", "final_logit_softcapping"), ("gemma2", "sliding_window"),
    ("gemma3", "head_dim"), ("gemma3", "sliding_window"), ("phi3", "original_max_position_embeddings"),
    ("phi3", "rms_norm_eps")])
def test_missing_key(tmp_path, name, key):
    make(tmp_path / "in", name, **{key: None})
    refused(tmp_path, f'"{key}"')


@pytest.mark.parametrize("name, edits, says", [
    ("qwen3moe", {"norm_topk_prob": False}, "norm_topk_prob"),
    ("qwen2moe", {"norm_topk_prob": True}, "norm_topk_prob"),
    ("qwen3moe", {"num_experts": EXPERTS + 1}, f"number of experts is {EXPERTS + 1}"),
    ("qwen3moe", {"num_experts": EXPERTS - 1}, f"experts.{EXPERTS - 1}."),
    ("qwen3moe", {"num_experts": 0}, "0 experts"),
    ("mixtral", {"num_local_experts": 10**6}, "1000000 experts"),
    ("qwen3moe", {"moe_intermediate_size": 33}, "feed-forward size of an expert is 33"),
    ("qwen2moe", {"shared_expert_intermediate_size": 33}, "shared expert is 33"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3", {"layer_types": ["full_attention"]}, "layer_types"),
    ("gemma3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
    ("gemma3", {"hidden_activation": "relu"}, "hidden_activation"),
    ("gemma3", {"rope_local_base_freq": "x"}, "rope_local_base_freq"),
    ("phi3", {"rope_scaling": {**arch_models.LONG, "long_factor": [1.0]}}, "long_factor"),
    ("phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 8}}, "short_factor"),
    ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    ("phi3", {"partial_rotary_factor": 0.01}, "partial_rotary_factor"),
    ("qwen2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("qwen2", {"architectures": ["GrokForCausalLM"]}, "'GrokForCausalLM'"),
    ("gemma3", {"architectures": ["Gemma3ForConditionalGeneration"]}, "Gemma3ForCausalLM"),
])
def test_bad_key(tmp_path, name, edits, says):
    make(tmp_path / "in", name, **edits)
    refused(tmp_path, says)


@pytest.mark.parametrize("name, tensor", [
    ("qwen2", "model.layers.1.self_attn.k_proj.bias"), ("qwen3", "model.layers.0.self_attn.q_norm.weight"),
    ("qwen3moe", "model.layers.1.mlp.experts.3.down_proj.weight"), ("qwen3moe", "model.layers.0.mlp.gate.weight"),
    ("qwen2moe", "model.layers.0.mlp.shared_expert_gate.weight"),
    ("mixtral", "model.layers.0.block_sparse_moe.experts.0.w1.weight"),
    ("gemma3", "model.layers.1.post_feedforward_layernorm.weight"),
    ("phi3", "model.layers.0.self_attn.qkv_proj.weight")])
def test_bad_tensor(tmp_path, name, tensor):
    tensors = make(tmp_path / "in", name)
    whole = tensors.pop(tensor)
    st(tmp_path / "in/model.safetensors", tensors)
    refused(tmp_path, f"'{tensor}' is missing")
    shape = (*whole.shape[:-1], whole.shape[-1] + 2)
    st(tmp_path / "in/model.safetensors", tensors | {tensor: arch_models.weights(0, shape)})
    refused(tmp_path, f"tensor '{tensor}'")
    st(tmp_path / "in/model.safetensors", tensors | {tensor: arch_models.weights(0, (1, *whole.shape))})
    refused(tmp_path, f"tensor '{tensor}' has {len(whole.shape) + 1} dimensions")


def test_experts_missing_in_gguf(tmp_path):
    """A GGUF file's stack of another height than expert_count."""
    path = to_gguf(tmp_path, "qwen3moe")
    b = path.read_bytes()
    key = b"qwen3moe.expert_count"
    at = b.index(key) + len(key) + 4
    path.write_bytes(b[:at] + struct.pack("<I", EXPERTS + 1) + b[at + 4:])
    fails(3, "convert", path, tmp_path / "hf", "--type", "f32", "--device", "ref", says=("blk.0.ffn_gate", "experts"))
    r = run("quantize", path, tmp_path / "q.gguf", "--type", "q8_0", "--device", "ref")
    assert r.returncode == 0, r.stderr  # GGUF to GGUF asks nothing of the architecture


def test_unknown_gguf(tmp_path):
    path = to_gguf(tmp_path, "qwen2")
    path.write_bytes(path.read_bytes().replace(b"qwen2", b"qwenX"))
    fails(3, "convert", path, tmp_path / "hf", "--type", "f32", "--device", "ref", says=("'qwenX'", "Qwen3ForCausalLM"))
    ok("quantize", path, tmp_path / "q.gguf", "--type", "q8_0", "--device", "ref")

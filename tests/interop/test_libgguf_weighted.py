# SPDX-License-Identifier: MIT
"""With an importance matrix: the program's bytes against ggml's reference quantizers (PyPI libgguf)."""
import struct

import numpy as np
import pytest

import common
import test_libgguf as plain
from common import ok

libgguf = pytest.importorskip("libgguf")

WEIGHTED = [name for name in plain.TYPES if name not in ("q8_0", "tq1_0", "tq2_0", "mxfp4", "nvfp4", "q1_0")]
TENSOR = "blk.0.ffn_up.weight"


def imatrix(path, weights):
    """A legacy file: sums of squares of `calls` evaluations, here one."""
    name = TENSOR.encode()
    path.write_bytes(struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, len(weights)) +
                     weights.astype("<f4").tobytes() + struct.pack("<i", 1) + struct.pack("<i", 4) + b"text")


# How the weights are spread: near 1, over decades, a fifth of them 0.
SPREADS = {"even": lambda r: 0.5 + r.random(plain.COLS), "wide": lambda r: r.standard_normal(plain.COLS) ** 6,
           "gaps": lambda r: r.standard_normal(plain.COLS) ** 2 * (r.random(plain.COLS) < 0.8)}


@pytest.mark.parametrize("device", plain.DEVICES, ids=["ref", "default"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted(tmp_path, name, device):
    """Over 10,000 random rows and the edge rows, the spreads in turn."""
    rng = np.random.default_rng(list(name.encode()) + [2])
    rows = np.concatenate([plain.random_rows(rng), plain.edge_rows(rng)])
    more = ["--device", device] if device else []
    total = 0
    for i, spread in enumerate(SPREADS.values()):
        weights = spread(rng).astype(np.float32)
        x = rows[i::len(SPREADS)]
        if name == "iq1_m":  # libgguf sums in an older order there: the golden vector is from ggml
            pytest.skip("no oracle")
        expected = np.frombuffer(libgguf.quantize_rows(x, plain.TYPES[name], weights).tobytes(), np.uint8).reshape(len(x), -1)
        keep = plain.finite_rows(expected, name)
        x, expected = x[keep], expected[keep]
        total += len(x)
        imatrix(tmp_path / "imatrix.dat", weights)
        plain.model(tmp_path / "in.gguf", {TENSOR: common.f32(x)})
        ok("quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "--type", name, "--pure", "--imatrix",
           tmp_path / "imatrix.dat", "--tensor-type", f".={name}", *more)  # the mix IQ2_S is of type iq2_xs
        plain.compare(tmp_path / "out.gguf", name, TENSOR, expected, x)
    assert total >= 10000

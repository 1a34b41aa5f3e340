# SPDX-License-Identifier: MIT
"""llama.cpp (PyPI xllamacpp) loads every architecture that clquant translates, in full precision and quantized, and
generates: nothing that its loader needs is missing."""
import pytest
from arch_models import ARCHS, make
from common import ok

pytest.importorskip("xllamacpp")
from test_llama_cpp import speak  # noqa: E402


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("arch", ARCHS)
def test_loads(tmp_path, arch, kind):
    make(tmp_path / "in", arch)
    command = "convert" if kind == "f32" else "quantize"
    ok(command, tmp_path / "in", tmp_path / "out.gguf", "--type", kind, "--device", "ref")
    assert len(speak(tmp_path / "out.gguf")) == 2

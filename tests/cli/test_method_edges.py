# SPDX-License-Identifier: MIT
"""Methods where groups, types and matrices do not go together as they mostly do."""
import json

import pytest

from arch_models import make
from common import ok

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps. " * 8


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def prepare(src, out, text, kind, method, *more, ctx=8, chunks=2):
    r = ok("quantize", src, out, "--type", kind, "--method", method, "--calib", text, "--ctx", str(ctx), "--chunks",
           str(chunks), "--device", "ref", "--quiet", "--json", *more)
    return json.loads(r.stdout)


def test_columns_that_the_common_group_does_not_divide(tmp_path, text):
    """Sums of products are kept for groups of 64; rows of 96 have none, and no other's place is written."""
    make(tmp_path / "m", "qwen2")
    energy = [[s["energy"] for s in prepare(tmp_path / "m", tmp_path / t, text, t, "awq")["sites"][:4]]
              for t in ("i4_asym_g32", "i4_asym_g64")]
    assert energy[1] == pytest.approx(energy[0], rel=1e-5)

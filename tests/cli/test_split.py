# SPDX-License-Identifier: MIT
"""GGUF outputs in parts."""

import errno
import itertools
import json
import os
import signal
import struct

import pytest

from common import I32, STRING, U16, U32, f32, fails, gg, kv, normal, ok, plan, quantize, read_gg, run, st, table, tree
from test_output import faults, leftovers, start, wait_records  # noqa: F401 (faults is a fixture)

NAMES = [
    "token_embd.weight",
    *[f"blk.{i}.{k}.weight" for i in range(3) for k in ("attn_q", "attn_v", "ffn_down")],
    "output_norm.weight",
]


def model(path, alignment=32):
    tensors = {n: f32(normal(i, 256) if "norm" in n else normal(i, 8, 256)) for i, n in enumerate(NAMES)}
    gg(
        path,
        tensors,
        [kv("general.architecture", STRING, "llama"), kv("llama.block_count", U32, 3), kv("general.name", STRING, "x")],
        alignment,
    )
    return path


def parts(folder, stem="out"):
    return sorted(folder.glob(stem + "-*-of-*.gguf"))


def check_parts(folder, n, whole, stem="out", sizes=None):
    """n parts with the tensors of the file `whole`, in order; the model's metadata in the first."""
    paths = parts(folder, stem)
    assert [p.name for p in paths] == [f"{stem}-{i + 1:05}-of-{n:05}.gguf" for i in range(n)]
    found = [read_gg(p) for p in paths]
    one = read_gg(whole)
    for i, g in enumerate(found):
        assert g.kvs["split.no"] == (U16, struct.pack("<H", i)) and g.kvs["split.count"] == (U16, struct.pack("<H", n))
        assert (
            g.kvs["split.tensors.count"] == (I32, struct.pack("<i", len(one.tensors))) and g.alignment == one.alignment
        )
        rest = {k: v for k, v in g.kvs.items() if not k.startswith("split.")}
        assert rest == (one.kvs if i == 0 else {k: v for k, v in one.kvs.items() if k == "general.alignment"})
    assert list(itertools.chain(*(g.tensors for g in found))) == list(one.tensors)
    assert {k: v for g in found for k, v in g.tensors.items()} == one.tensors
    if sizes:
        assert [len(g.tensors) for g in found] == sizes
    for p in paths:
        assert json.loads(ok("info", p, "--json").stdout)["n_tensors"] == len(one.tensors)
    return paths


@pytest.mark.parametrize("alignment", [32, 64])
@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_parts_of_so_many_tensors(tmp_path, alignment, device):
    src = model(tmp_path / "in.gguf", alignment)
    quantize(src, tmp_path / "whole.gguf", "Q4_K_M", mix=True)
    for most, sizes in (4, [4, 4, 3]), (11, [11]), (1, [1] * 11), (100, [11]):
        (tmp_path / "o").mkdir()
        p = plan(src, tmp_path / "o" / "out.gguf", "Q4_K_M", "--split-max-tensors", str(most), mix=True)
        quantize(src, tmp_path / "o" / "out.gguf", "Q4_K_M", "--split-max-tensors", str(most), mix=True, device=device)
        paths = check_parts(tmp_path / "o", len(sizes), tmp_path / "whole.gguf", sizes=sizes)
        assert sorted((tmp_path / "o").iterdir()) == paths  # nothing else is left
        assert sum(q.stat().st_size for q in paths) == p["n_bytes"]
        ok("verify", src, paths[-1])
        for q in paths:
            q.unlink()
        (tmp_path / "o").rmdir()


def test_parts_of_so_many_bytes(tmp_path):
    """As many tensors as fit; a larger one has a part of its own."""
    src = model(tmp_path / "in.gguf")
    quantize(src, tmp_path / "whole.gguf", "q8_0")
    for size, sizes in ("6K", [2, 2, 2, 2, 3]), ("4352", [2, 2, 2, 2, 2, 1]), ("100", [1] * 11), ("1G", [11]):
        quantize(src, tmp_path / "out.gguf", "q8_0", "--split-max-size", size)
        for p in check_parts(tmp_path, len(sizes), tmp_path / "whole.gguf", sizes=sizes):
            p.unlink()
    quantize(src, tmp_path / "out.gguf", "q8_0", "--split-max-size", "6K", "--split-max-tensors", "1")
    check_parts(tmp_path, 11, tmp_path / "whole.gguf", sizes=[1] * 11)


def test_keep_split(tmp_path):
    """Part by part as the source, whichever part is named; the metadata of splits is made anew."""
    model(tmp_path / "whole.gguf")
    ok(
        "convert",
        tmp_path / "whole.gguf",
        tmp_path / "in.gguf",
        "--type",
        "f16",
        "--split-max-tensors",
        "4",
        "--device",
        "ref",
    )
    source = parts(tmp_path, "in")
    assert len(source) == 3
    quantize(source[0], tmp_path / "single.gguf", "q8_0")
    assert not any(k.startswith("split.") for k in read_gg(tmp_path / "single.gguf").kvs)
    for named in source:
        quantize(named, tmp_path / "out.gguf", "q8_0", "--keep-split")
        for p in check_parts(tmp_path, 3, tmp_path / "single.gguf", sizes=[4, 4, 3]):
            p.unlink()
    quantize(tmp_path / "whole.gguf", tmp_path / "out.gguf", "q8_0", "--keep-split")  # of one file: one file
    assert (tmp_path / "out.gguf").exists() and not parts(tmp_path)


def test_first_part_without_tensors(tmp_path):
    """As gguf-split --no-tensor-first-split makes it."""
    for no, tensors in enumerate([{}, {"a.weight": f32(normal(1, 4, 64))}]):
        gg(
            tmp_path / f"in-{no + 1:05}-of-00002.gguf",
            tensors,
            [kv("split.no", U16, no), kv("split.count", U16, 2), kv("split.tensors.count", I32, 1)],
        )
    quantize(tmp_path / "in-00001-of-00002.gguf", tmp_path / "out.gguf", "q8_0", "--keep-split")
    first, second = (read_gg(p) for p in parts(tmp_path))
    assert not first.tensors and second.tensors["a.weight"].dtype == "Q8_0"
    assert first.value("general.file_type") == 7 and "general.file_type" not in second.kvs


def test_wrong_requests(tmp_path):
    src = model(tmp_path / "in.gguf")
    folder = st(tmp_path / "in.safetensors", {"a.weight": f32(normal(1, 4, 64))})
    out = tmp_path / "out.gguf"
    before = tree(tmp_path)
    for more in (
        ["--split-max-tensors", "0"],
        ["--split-max-tensors", "-1"],
        ["--split-max-tensors", "x"],
        ["--split-max-size", "0"],
        ["--split-max-size", "x"],
        ["--keep-split", "--split-max-size", "1M"],
    ):
        fails(2, "quantize", src, out, "--type", "q8_0", *more)
    fails(3, "quantize", folder, out, "--type", "q8_0", "--split-max-size", "1M")
    assert tree(tmp_path) == before


def test_the_input_is_not_overwritten(tmp_path):
    """OUT names the parts that are the input."""
    model(tmp_path / "whole.gguf")
    quantize(tmp_path / "whole.gguf", tmp_path / "m.gguf", "f16", "--split-max-tensors", "4")
    before = tree(tmp_path)
    for more in (["--keep-split"], ["--split-max-tensors", "4"]):
        fails(
            2,
            "quantize",
            parts(tmp_path, "m")[1],
            tmp_path / "m.gguf",
            "--type",
            "q8_0",
            *more,
            says=["m-00001-of-00003.gguf", "is the input"],
        )
    assert tree(tmp_path) == before


def test_places_that_cannot_be_written(tmp_path):
    src = model(tmp_path / "in.gguf")
    (tmp_path / "out-00002-of-00003.gguf").mkdir()
    before = tree(tmp_path)
    fails(
        5,
        "quantize",
        src,
        tmp_path / "out.gguf",
        "--type",
        "q8_0",
        "--split-max-tensors",
        "4",
        says="out-00002-of-00003.gguf",
    )
    assert tree(tmp_path) == before
    os.rmdir(tmp_path / "out-00002-of-00003.gguf")
    # An earlier output's parts are replaced, another file stays.
    (tmp_path / "out-00002-of-00003.gguf").write_text("old")
    (tmp_path / "out.gguf").write_text("other")
    quantize(src, tmp_path / "whole.gguf", "q8_0")
    quantize(src, tmp_path / "out.gguf", "q8_0", "--split-max-tensors", "4")
    check_parts(tmp_path, 3, tmp_path / "whole.gguf", sizes=[4, 4, 3])
    assert (tmp_path / "out.gguf").read_text() == "other"


def test_nothing_is_left_after_a_failure(tmp_path):
    """A weight that is not finite, in the last part."""
    x = normal(1, 8, 256)
    x[3, 3] = float("inf")
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(2, 8, 256)), "b.weight": f32(x)})
    before = tree(tmp_path)
    fails(
        3,
        "quantize",
        src,
        tmp_path / "out.gguf",
        "--type",
        "q8_0",
        "--split-max-tensors",
        "1",
        "--device",
        "ref",
        says="'b.weight'",
    )
    assert tree(tmp_path) == before
    assert (
        run(
            "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--split-max-tensors", "1", "--dry-run"
        ).returncode
        == 0
    )
    assert table(plan(src, tmp_path / "out.gguf", "q8_0", "--split-max-tensors", "1"))["a.weight"] == "q8_0"


# ---- killing, failing ----


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_resume(tmp_path, faults, how):
    """Stopped after 5 tensors, in the second part; --resume does the rest only, to the same bytes."""
    src = model(tmp_path / "in.gguf")
    quantize(src, tmp_path / "whole.gguf", "q8_0")
    more = ["--pure", "--split-max-tensors", "4"]
    p = start(src, tmp_path / "out.gguf", "q8_0", *more, faults=faults, slow_us=30000)
    wait_records(p, tmp_path / ".out.gguf.clq-journal", 5)
    p.send_signal(how)
    p.communicate(timeout=60)
    assert p.returncode == (-how if how == signal.SIGKILL else 130) and not parts(tmp_path)
    assert leftovers(tmp_path) == [".out.gguf.clq-journal", ".out.gguf.clq-partial"]
    r = ok("quantize", src, tmp_path / "out.gguf", "--type", "q8_0", *more, "--device", "ref", "--resume")
    done = [line for line in r.stderr.splitlines() if line.startswith("[")]
    assert 0 < len(done) <= 6 and done[-1].startswith("[11/11]")
    check_parts(tmp_path, 3, tmp_path / "whole.gguf", sizes=[4, 4, 3])
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_rename_fails(tmp_path, faults, call):
    """Parts that were renamed already go away again."""
    src = model(tmp_path / "in.gguf")
    before = tree(tmp_path)
    env = {"LD_PRELOAD": faults, "FAIL_rename": f"{errno.EACCES}@{call}"}
    fails(
        5,
        "quantize",
        src,
        tmp_path / "out.gguf",
        "--type",
        "q8_0",
        "--split-max-tensors",
        "4",
        "--device",
        "ref",
        env=env,
        says=f"out-0000{4 - call}-of-00003.gguf",
    )
    assert tree(tmp_path) == before

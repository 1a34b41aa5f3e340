# SPDX-License-Identifier: MIT
"""Importance matrices on the command line."""

import struct

import numpy as np
import pytest

import mixes
from common import (
    ARRAY,
    STRING,
    T,
    U32,
    f32,
    fails,
    gg,
    kv,
    normal,
    ok,
    plan,
    quantize,
    read_gg,
    refuses,
    table,
    warnings_of,
)
from mixes import write_imatrix_dat, write_imatrix_gguf


def model(tmp_path):
    """A dense and a stacked weight, and one that no matrix is about."""
    tensors = {
        "blk.0.attn_q.weight": f32(normal(1, 6, 256)),
        "blk.0.ffn_up_exps.weight": f32(normal(2, 4, 3, 256)),
        "token_embd.weight": f32(normal(3, 4, 256)),
        "output.weight": f32(normal(4, 4, 256)),
        "blk.0.attn_norm.weight": f32(normal(5, 256)),
    }
    kvs = [
        kv("general.architecture", STRING, "llama"),
        kv("llama.block_count", U32, 1),
        kv("llama.expert_count", U32, 4),
    ]
    return gg(tmp_path / "in.gguf", tensors, kvs)


def entries(seed=0):
    counts = np.full(4, mixes.CALLS, np.float32)
    return {
        "blk.0.attn_q.weight": (mixes.importance(f"q{seed}", 256).reshape(1, 256), counts[:1]),
        "blk.0.ffn_up_exps.weight": (mixes.importance(f"up{seed}", 1024).reshape(4, 256), counts),
    }


def uniform():
    return {n: (np.ones_like(v), c) for n, (v, c) in entries().items()}


def run_with(tmp_path, kind, imatrix, *more, **options):
    out = tmp_path / "out.gguf"
    r = quantize(tmp_path / "in.gguf", out, kind, *(["--imatrix", imatrix] if imatrix else []), *more, **options)
    return read_gg(out), r


def test_both_formats(tmp_path):
    """The same bytes from both, other ones than without; what was used is in the metadata."""
    model(tmp_path)
    dat, gguf = write_imatrix_dat(entries(), tmp_path / "i.dat"), write_imatrix_gguf(entries(), tmp_path / "i.gguf")
    a, r = run_with(tmp_path, "q4_K", dat)
    b, _ = run_with(tmp_path, "q4_K", gguf)
    plain, _ = run_with(tmp_path, "q4_K", None)
    assert a.tensors == b.tensors
    assert {n for n in a.tensors if a.tensors[n] != plain.tensors[n]} == set(entries())
    for g, path in (a, dat), (b, gguf):
        assert g.value("quantize.imatrix.file") == str(path) and g.value("quantize.imatrix.dataset") == "made up.txt"
        assert g.kvs["quantize.imatrix.entries_count"][0] == U32 and g.value("quantize.imatrix.entries_count") == 2
        assert g.value("quantize.imatrix.chunks_count") == 5
    assert not any(k.startswith("quantize.imatrix") for k in plain.kvs)
    assert "no entry for 1 tensor " in r.stderr and "'output.weight'" in r.stderr  # the embedding never has one


def test_without_chunks_and_dataset(tmp_path):
    model(tmp_path)
    g, _ = run_with(tmp_path, "q8_0", write_imatrix_dat(entries(), tmp_path / "i.dat", b""))
    assert [k for k in g.kvs if k.startswith("quantize.imatrix")] == [
        "quantize.imatrix.file",
        "quantize.imatrix.entries_count",
    ]


@pytest.mark.parametrize("kind", ["q4_K", "q4_0", "q2_K", "iq4_xs"])
def test_row34_an_expert_without_data(tmp_path, kind):
    """It counts its columns alike, the others use their data; in GGUF by its count, in .dat by zeros."""
    model(tmp_path)
    name = "blk.0.ffn_up_exps.weight"
    everything, _ = run_with(tmp_path, kind, write_imatrix_gguf(entries(), tmp_path / "i.gguf"))
    alike, _ = run_with(tmp_path, kind, write_imatrix_gguf(uniform(), tmp_path / "i.gguf"))
    some = entries()
    some[name][0][2] = 0
    dat = write_imatrix_dat(some, tmp_path / "i.dat")
    counts = np.float32([64, 64, 0, 64])
    some[name] = (some[name][0], counts)
    for path in dat, write_imatrix_gguf(some, tmp_path / "i.gguf"):
        got, r = run_with(tmp_path, kind, path)
        assert [w for w in warnings_of(r) if name in w and "1 of 4" in w]
        for expert in range(4):
            piece = slice(expert * len(got.tensors[name].data) // 4, (expert + 1) * len(got.tensors[name].data) // 4)
            expected = alike if expert == 2 else everything
            assert got.tensors[name].data[piece] == expected.tensors[name].data[piece]
            assert everything.tensors[name].data[piece] != alike.tensors[name].data[piece]


def test_tiles_do_not_cross_experts(tmp_path):
    """Whatever the memory, threads and tiles."""
    gg(
        tmp_path / "in.gguf",
        {"blk.0.ffn_up_exps.weight": f32(normal(7, 5, 700, 512))},
        [kv("general.architecture", STRING, "llama")],
    )
    path = write_imatrix_gguf(
        {"blk.0.ffn_up_exps.weight": (mixes.importance("x", 5 * 512).reshape(5, 512), np.full(5, 8, np.float32))},
        tmp_path / "i.gguf",
    )
    first, _ = run_with(tmp_path, "q4_0", path)
    for more in (["--max-mem", "16M"], ["--threads", "1"]):
        assert run_with(tmp_path, "q4_0", path, *more)[0].tensors == first.tensors
    one = gg(
        tmp_path / "in.gguf",
        {"a.weight": T("F32", (700, 512), f32(normal(7, 5, 700, 512)).data[3 * 700 * 2048 : 4 * 700 * 2048])},
    )
    assert one.exists()
    path = write_imatrix_gguf(
        {"a.weight": (mixes.importance("x", 5 * 512).reshape(5, 512)[3:4], np.float32([8]))}, tmp_path / "i.gguf"
    )
    n = len(first.tensors["blk.0.ffn_up_exps.weight"].data) // 5
    assert (
        run_with(tmp_path, "q4_0", path)[0].tensors["a.weight"].data
        == first.tensors["blk.0.ffn_up_exps.weight"].data[3 * n : 4 * n]
    )


def test_include_and_exclude(tmp_path):
    src = model(tmp_path)
    path = write_imatrix_dat(entries(), tmp_path / "i.dat")
    plain, _ = run_with(tmp_path, "q4_K", None)
    both, _ = run_with(tmp_path, "q4_K", path)
    for more, used in [
        (["--include-weights", "attn_q"], ["blk.0.attn_q.weight"]),
        (["--exclude-weights", "attn_q"], ["blk.0.ffn_up_exps.weight"]),
        (["--include-weights", "exps", "--include-weights", "attn"], list(entries())),
    ]:
        g, r = run_with(tmp_path, "q4_K", path, *more)
        for n in g.tensors:
            assert g.tensors[n] == (both if n in used else plain).tensors[n]
        assert g.value("quantize.imatrix.entries_count") == len(used)
        assert not warnings_of(r)
    for more in (
        ["--include-weights", "no"],
        ["--exclude-weights", "blk"],
        ["--include-weights", "a", "--exclude-weights", "b"],
        ["--include-weights", ""],
    ):
        fails(2, "quantize", src, tmp_path / "no.gguf", "--type", "q4_K", "--imatrix", path, *more)


def test_types_that_need_one(tmp_path):
    """Refused without an entry: exit code 2 where there is no matrix, 3 where it has no entry."""
    src = model(tmp_path)
    out = tmp_path / "no.gguf"
    fails(2, "quantize", src, out, "--type", "Q2_K_S", says=["'blk.0.attn_q.weight'", "q2_K", "--imatrix"])
    fails(2, "quantize", src, out, "--type", "Q2_K_S", "--pure", says="--imatrix")
    path = write_imatrix_dat(entries(), tmp_path / "i.dat")
    quantize(src, out, "Q2_K_S", "--imatrix", path, mix=True)
    out.unlink()
    one = {k: v for k, v in entries().items() if "attn_q" in k}
    fails(
        3,
        "quantize",
        src,
        out,
        "--type",
        "Q2_K_S",
        "--imatrix",
        write_imatrix_dat(one, path),
        says=["'blk.0.ffn_up_exps.weight'", "i.dat", "no entry"],
    )
    assert (
        table(plan(src, out, "Q2_K_S", "--imatrix", path, "--tensor-type", "exps=q4_0", mix=True))[
            "blk.0.attn_q.weight"
        ]
        == "q2_K"
    )
    quantize(src, out, "q2_K")  # the others do not


def test_bad_values(tmp_path):
    """Refused, naming the tensor."""
    src = model(tmp_path)
    for bad in np.nan, np.inf, -np.inf, -1e-9:
        for write in write_imatrix_dat, write_imatrix_gguf:
            e = entries()
            e["blk.0.ffn_up_exps.weight"][0][3, 255] = bad
            refuses(
                tmp_path,
                src,
                "q4_K",
                out=tmp_path / "out.gguf",
                also_info=False,
                says="'blk.0.ffn_up_exps.weight'",
                more=["--imatrix", write(e, tmp_path / "i")],
            )
    for bad in np.nan, -1, np.inf:
        e = entries()
        e["blk.0.attn_q.weight"] = (e["blk.0.attn_q.weight"][0], np.float32([bad]))
        with np.errstate(invalid="ignore"):
            path = write_imatrix_gguf(e, tmp_path / "i")
        refuses(
            tmp_path,
            src,
            "q4_K",
            out=tmp_path / "out.gguf",
            also_info=False,
            says="blk.0.attn_q.weight",
            more=["--imatrix", path],
        )


def test_wrong_sizes(tmp_path):
    """A matrix of another model."""
    src = model(tmp_path)
    for shape in (1, 128), (1, 512), (2, 256):
        e = entries() | {"blk.0.attn_q.weight": (np.ones(shape, np.float32), np.ones(shape[0], np.float32))}
        for write in write_imatrix_dat, write_imatrix_gguf:
            refuses(
                tmp_path,
                src,
                "q4_K",
                out=tmp_path / "out.gguf",
                also_info=False,
                says=["'blk.0.attn_q.weight'", "another model"],
                more=["--imatrix", write(e, tmp_path / "i")],
            )
    # Entries of token embeddings are no such sign: llama-imatrix writes them with another size.
    e = entries() | {"token_embd.weight": (np.ones((1, 5), np.float32), np.ones(1, np.float32))}
    plain, _ = run_with(tmp_path, "q4_K", None)
    g, _ = run_with(tmp_path, "q4_K", write_imatrix_dat(e, tmp_path / "i"))
    assert g.tensors["token_embd.weight"] == plain.tensors["token_embd.weight"]


def test_broken_files(tmp_path):
    src = model(tmp_path)
    path = tmp_path / "i"
    whole = {write: write(entries(), path).read_bytes() for write in (write_imatrix_dat, write_imatrix_gguf)}
    for write, data in whole.items():
        for n in (0, 3, 4, 20, 50, len(data) // 2, len(data) - (1 if write is write_imatrix_dat else 40)):
            path.write_bytes(data[:n])
            refuses(
                tmp_path,
                src,
                "q4_K",
                out=tmp_path / "out.gguf",
                also_info=False,
                says=str(path),
                more=["--imatrix", path],
            )
    e = entries()
    del e["blk.0.attn_q.weight"]
    for kvs in (
        [],
        [kv("imatrix.chunk_count", U32, 5), kv("imatrix.chunk_size", U32, 5)],
        [
            kv("imatrix.datasets", ARRAY, (U32, [1])),
            kv("imatrix.chunk_count", U32, 5),
            kv("imatrix.chunk_size", U32, 5),
        ],
    ):
        write_imatrix_gguf(e, path, kvs)
        refuses(
            tmp_path,
            src,
            "q4_K",
            out=tmp_path / "out.gguf",
            also_info=False,
            says="not an importance matrix",
            more=["--imatrix", path],
        )
    for data in (
        struct.pack("<i", -1) + b"\0" * 40,
        struct.pack("<i", 1 << 30) + b"\0" * 40,
        struct.pack("<ii", 1, -5) + b"\0" * 40,
        b"PK\3\4" * 20,
    ):
        path.write_bytes(data)
        refuses(
            tmp_path,
            src,
            "q4_K",
            out=tmp_path / "out.gguf",
            also_info=False,
            says="not an importance matrix",
            more=["--imatrix", path],
        )
    refuses(
        tmp_path,
        src,
        "q4_K",
        out=tmp_path / "out.gguf",
        also_info=False,
        says="not an importance matrix",
        more=["--imatrix", src],
    )
    refuses(
        tmp_path,
        src,
        "q4_K",
        out=tmp_path / "out.gguf",
        also_info=False,
        says="no.dat",
        more=["--imatrix", tmp_path / "no.dat"],
    )
    refuses(
        tmp_path, src, "q4_K", out=tmp_path / "out.gguf", also_info=False, says="regular", more=["--imatrix", tmp_path]
    )


def test_mixes_know_of_it(tmp_path):
    """Some rules of mixes differ with an importance matrix."""
    src = tmp_path / "in.gguf"
    mixes.write_model("plain16", src)
    path = write_imatrix_gguf(mixes.importances("plain16"), tmp_path / "i.gguf")
    for mix, without, having in ("Q4_0", "q4_0", "q4_1"), ("Q5_0", "q5_0", "q5_1"), ("IQ4_XS", "q5_K", "iq4_xs"):
        assert table(plan(src, tmp_path / "o.gguf", mix, mix=True))["blk.0.ffn_down.weight"] == without
        assert (
            table(plan(src, tmp_path / "o.gguf", mix, "--imatrix", path, mix=True))["blk.0.ffn_down.weight"] == having
        )


def test_converting_takes_none(tmp_path):
    src = model(tmp_path)
    fails(2, "convert", src, tmp_path / "o.gguf", "--type", "f16", "--imatrix", src, says="--imatrix")
    ok("info", src)

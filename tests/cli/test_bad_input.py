# SPDX-License-Identifier: MIT
"""Corrupt, hostile and unusual input files. The rows are those of the list of known failures of tools
that do this job: each is refused with exit code 3 and a message that names file and tensor, and leaves
nothing behind, or is read with the right values."""
import json
import os
import shutil
import struct

import numpy as np
import pytest

from common import (ARRAY, BOOL, F32, STRING, U16, U32, U64, T, bf16, cc, config_of, decode, f16, f32, fails, gg, gs,
                    integer, kv, llama, normal, ok, quantize, raw, raw_gg, raw_st, read_folder, read_gg,
                    refuses, run, sha, st, ti, tree, values)

W = f32(normal(1, 4, 64))
BODY = W.data  # 1024 bytes


# ---- GGUF headers ----

def infos(*names):
    return [ti(n, (64, 4), 0, 1024 * i) for i, n in enumerate(names)]


def test_good_file_is_read(tmp_path):
    """What the tests below corrupt is itself fine."""
    src = raw_gg(tmp_path / "in.gguf", infos("a.weight", "b.weight"), (), 2 * BODY)
    quantize(src, tmp_path / "out.gguf", "q8_0")
    out = read_gg(tmp_path / "out.gguf").tensors
    for name in "a.weight", "b.weight":
        assert out[name].dtype == "Q8_0" and out[name].shape == (4, 64)
        y = decode(out[name])
        amax = np.abs(values(W)).reshape(-1, 32).max(1, keepdims=True)
        assert np.all(np.abs(y - values(W)).reshape(-1, 32) <= amax * 0.0045)


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_row43_counts_wrap(tmp_path, device):
    src = tmp_path / "in.gguf"
    for n in 2**60, 2**63, 2**64 - 1, 2, 1000:
        raw_gg(src, infos("a.weight"), (), BODY, nt=n)
        refuses(tmp_path, src, says=["in.gguf", "corrupt"] if n > 2 else ["in.gguf"], device=device)
    for n in 2**60, 2**64 - 1, 2**32, 11:
        raw_gg(src, infos("a.weight"), (), BODY, nk=n)
        refuses(tmp_path, src, says="in.gguf", device=device)
    raw_gg(src, infos("a.weight"), (), BODY, nt=2**62, nk=2**62)
    refuses(tmp_path, src, says="in.gguf", device=device)


def test_row43_sum_of_sizes_wraps(tmp_path):
    """Each of three tensors is 2^63 bytes; the sum is past 2^64. And products that wrap to 0 and to 16."""
    src = raw_gg(tmp_path / "in.gguf", [ti(f"t{i}.weight", (2**61,), 0, 0) for i in range(3)], (), BODY)
    refuses(tmp_path, src, says=["in.gguf", "'t0.weight'"])
    for dims in (2**32, 2**32), (2**31, 2**31, 4), (2**62 + 4,), (2**63, 2), (2**16,) * 4, (32, 2**59 + 1):
        raw_gg(src, [ti("big.weight", dims)], (), BODY)
        refuses(tmp_path, src, says=["in.gguf", "'big.weight'"])
    raw_gg(src, [ti("big.weight", (32, 2**59), 8)], (), BODY)
    refuses(tmp_path, src, says=["in.gguf", "'big.weight'"])
    raw_gg(src, [ti("a.weight", (64, 4), 0, 0), ti("b.weight", (64, 4), 0, 2**64 - 1024)], (), BODY)
    refuses(tmp_path, src, says=["in.gguf", "'b.weight'"])


def test_row45_tensor_past_the_end(tmp_path):
    src = tmp_path / "in.gguf"
    for offset in 2**40, 2**63, 2**64 - 32, 32:
        raw_gg(src, [ti("a.weight", (64, 4), 0, offset)], (), BODY)
        refuses(tmp_path, src, says=["in.gguf", "'a.weight'", "truncated"])
    raw_gg(src, [ti("a.weight", (64, 4), 0, 1)], (), BODY + b"\0" * 64)
    refuses(tmp_path, src, says=["in.gguf", "'a.weight'", "alignment"])
    raw_gg(src, infos("a.weight", "b.weight"), (), 2 * BODY)
    whole = src.read_bytes()
    src.write_bytes(whole[:-1])
    refuses(tmp_path, src, says=["in.gguf", "'b.weight'", "truncated"])


def test_row45_cut_anywhere(tmp_path):
    """Cut at every byte of the header and some of the body: always refused, never a crash."""
    src = tmp_path / "in.gguf"
    gg(src, {"a.weight": W}, [kv("general.architecture", STRING, "zzz"), kv("x.y", ARRAY, (STRING, ["p", ""]))])
    whole = src.read_bytes()
    head = len(whole) - len(BODY)
    out = tmp_path / "out.gguf"
    for n in [*range(0, head), head, head + 1, len(whole) - 1]:
        src.write_bytes(whole[:n])
        fails(3, "quantize", src, out, "--type", "q8_0", "--device", "ref", says="in.gguf")
    assert sorted(os.listdir(tmp_path)) == ["in.gguf"]


def test_row46_dims_types_names(tmp_path):
    src = tmp_path / "in.gguf"
    for nd in 5, 2**31, 2**32 - 1:
        raw_gg(src, [ti("a.weight", (2, 2, 2, 2, 2), nd=nd)], (), BODY)
        refuses(tmp_path, src, says=["in.gguf", "'a.weight'", f"{nd} dimensions"])
    for typ in 999, 4, 5, 31, 2**32 - 1:
        raw_gg(src, [ti("a.weight", (64, 4), typ)], (), BODY)
        refuses(tmp_path, src, says=["in.gguf", "'a.weight'", f"type {typ}"])
    for n in 2**63, 2**64 - 1, 2**32, 5000, 0:
        raw_gg(src, [struct.pack("<Q", n) + b"a.weight" + struct.pack("<IQIQ", 1, 64, 0, 0)], (), BODY)
        refuses(tmp_path, src, says="in.gguf")
        raw_gg(src, infos("a.weight"), [struct.pack("<Q", n) + b"some.key" + struct.pack("<II", U32, 1)], BODY)
        refuses(tmp_path, src, says="in.gguf")
        if n != 0:
            raw_gg(src, infos("a.weight"), [gs("some.key") + struct.pack("<IQ", STRING, n) + b"x"], BODY)
            refuses(tmp_path, src, says=["in.gguf", "'some.key'"])
    raw_gg(src, [ti("a\0b.weight", (64, 4))], (), BODY)
    refuses(tmp_path, src, says=["in.gguf", "NUL"])


def test_row46_long_names_are_preserved(tmp_path):
    """More than the 63 bytes that other programs take: kept as they are."""
    names = ["n" * (length - 7) + ".weight" for length in (63, 64, 65, 200, 4096)]
    src = gg(tmp_path / "in.gguf", {n: W for n in names})
    quantize(src, tmp_path / "out.gguf", "q4_0")
    assert list(read_gg(tmp_path / "out.gguf").tensors) == names
    gg(src, {"n" * 4097: W})
    refuses(tmp_path, src, says=["in.gguf", "4097"], out=tmp_path / "other.gguf")


def test_row46_metadata_arrays(tmp_path):
    src = tmp_path / "in.gguf"
    bad = [
        struct.pack("<IIQ", ARRAY, U32, 2**62),           # the product wraps
        struct.pack("<IIQ", ARRAY, U64, 2**61 + 1),
        struct.pack("<IIQ", ARRAY, STRING, 2**60),
        struct.pack("<IIQ", ARRAY, ARRAY, 2**60),
        struct.pack("<IIQ", ARRAY, 13, 1) + b"\0" * 8,    # no such type
        struct.pack("<I", 13) + b"\0" * 8,
        struct.pack("<I", 2**31) + b"\0" * 8,
        struct.pack("<IIQ", ARRAY, ARRAY, 1) + struct.pack("<IQ", ARRAY, 1) * 5000,  # nested without end
        struct.pack("<IIQQ", ARRAY, STRING, 1, 2**63),
    ]
    for value in bad:
        raw_gg(src, infos("a.weight"), [gs("some.key") + value], BODY)
        refuses(tmp_path, src, says=["in.gguf", "'some.key'"])


@pytest.mark.parametrize("typ,value", [(U32, 0), (U32, 3), (U32, 2**31), (U32, 2**17), (U32, 2**32 - 1), (U16, 32),
                                       (U64, 32), (F32, 32.0), (STRING, "32"), (BOOL, True), (ARRAY, (U32, [32]))])
def test_row48_bad_alignment(tmp_path, typ, value):
    src = raw_gg(tmp_path / "in.gguf", infos("a.weight"), [kv("general.alignment", typ, value)], BODY)
    refuses(tmp_path, src, says=["in.gguf", "general.alignment"])


@pytest.mark.parametrize("alignment", [1, 2, 8, 16, 64, 4096, 65536])
def test_row48_good_alignment(tmp_path, alignment):
    odd = raw("I8", np.arange(7))
    src = gg(tmp_path / "in.gguf", {"odd": odd, "a.weight": W, "odd2": odd, "b.weight": W}, alignment=alignment)
    quantize(src, tmp_path / "out.gguf", "q8_0")
    out = read_gg(tmp_path / "out.gguf")  # checks offsets against the alignment
    assert out.alignment == alignment and out.tensors["odd"].data == odd.data == out.tensors["odd2"].data
    quantize(gg(tmp_path / "plain.gguf", {"a.weight": W}), tmp_path / "plain-out.gguf", "q8_0")
    expected = read_gg(tmp_path / "plain-out.gguf").tensors["a.weight"]
    assert out.tensors["a.weight"] == expected and out.tensors["b.weight"] == expected


def test_row48_zero_dimension(tmp_path):
    src = tmp_path / "in.gguf"
    for dims in (256, 0), (0,), (0, 4), (64, 4, 0, 2):
        raw_gg(src, [ti("z.weight", dims), *infos("a.weight")], (), BODY)
        refuses(tmp_path, src, says=["in.gguf", "'z.weight'", "dimension of 0"])


def test_row21_names_twice(tmp_path):
    src = raw_gg(tmp_path / "in.gguf", infos("w.weight", "v.weight", "w.weight"), (), 3 * BODY)
    refuses(tmp_path, src, says=["in.gguf", "'w.weight'", "twice"])
    raw_gg(src, infos("a.weight"), [kv("k", U32, 1), kv("j", U32, 1), kv("k", U32, 2)], BODY)
    refuses(tmp_path, src, says=["in.gguf", "'k'", "twice"])
    split = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for i, path in enumerate(split):
        raw_gg(path, infos("w.weight"), split_kvs(i, 2, 2), BODY)
    refuses(tmp_path, split[0], says=["'w.weight'", split[0].name, split[1].name])


def test_row45_tensors_overlap(tmp_path):
    src = tmp_path / "in.gguf"
    raw_gg(src, [ti("a.weight", (64, 4), 0, 0), ti("b.weight", (64, 4), 0, 512)], (), 2 * BODY)
    refuses(tmp_path, src, says=["in.gguf", "'a.weight'", "'b.weight'"])
    raw_gg(src, [ti("a.weight", (64, 4), 0, 0), ti("b.weight", (64, 4), 0, 0)], (), 2 * BODY)
    refuses(tmp_path, src, says=["in.gguf", "'a.weight'", "'b.weight'"])


def test_row46_blocks_that_do_not_fill_rows(tmp_path):
    src = raw_gg(tmp_path / "in.gguf", [ti("q.weight", (48, 2), 8)], (), BODY)
    refuses(tmp_path, src, says=["in.gguf", "'q.weight'", "48"])


def test_row54_byte_order_and_version(tmp_path):
    src = raw_gg(tmp_path / "in.gguf", infos("a.weight"), (), BODY, order=">")
    refuses(tmp_path, src, says=["in.gguf", "big-endian"])
    # A true big-endian file: every number swapped.
    name = b"a.weight"
    info = struct.pack(">Q", 8) + name + struct.pack(">IQQIQ", 2, 64, 4, 0, 0)
    head = b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + info
    src.write_bytes(head + b"\0" * (-len(head) % 32) + np.frombuffer(BODY, "<f4").astype(">f4").tobytes())
    refuses(tmp_path, src, says=["in.gguf", "big-endian"])
    for version in 0, 1, 4, 2**32 - 1:
        raw_gg(src, infos("a.weight"), (), BODY, ver=version)
        refuses(tmp_path, src, says=["in.gguf", f"version {version}"])
    raw_gg(src, infos("a.weight"), (), BODY, ver=2)
    quantize(src, tmp_path / "out.gguf", "q8_0")
    assert read_gg(tmp_path / "out.gguf").tensors["a.weight"].dtype == "Q8_0"


def test_undecodable_block_type_is_named(tmp_path):
    """Types that are known by size only copy through, but do not become another type."""
    infos_ = [ti("k.weight", (32, 2), 9, 0), ti("output_norm.weight", (256,), 0, 96)]
    body = bytes(range(72)) + b"\0" * 24 + normal(1, 256).tobytes()
    src = raw_gg(tmp_path / "in.gguf", infos_, (), body)
    refuses(tmp_path, src, says=["'k.weight'", "q8_1"], also_info=False)
    ok("info", src)


# ---- split GGUF ----

def split_kvs(no, count, n_tensors):
    return [kv("split.no", U16, no), kv("split.count", U16, count), kv("split.tensors.count", 5, n_tensors)]


def make_split(folder, n=3):
    paths = []
    for i in range(n):
        path = folder / f"m-{i + 1:05}-of-{n:05}.gguf"
        more = [kv("general.architecture", STRING, "zzz"), kv("zzz.block_count", U32, 1)] if i == 0 else []
        raw_gg(path, [ti(f"t{i}.weight", (64, 4), 0, 0)], more + split_kvs(i, n, n), normal(i, 4, 64).tobytes())
        paths.append(path)
    return paths


def test_row26_split_becomes_one(tmp_path):
    """Any part may be named; no split.* key is left; each tensor is there once, with its own values."""
    paths = make_split(tmp_path)
    for k, part in enumerate(paths):
        quantize(part, tmp_path / f"out{k}.gguf", "q8_0")
    out = read_gg(tmp_path / "out0.gguf")
    assert list(out.tensors) == ["t0.weight", "t1.weight", "t2.weight"]
    assert not [k for k in out.kvs if k.startswith("split")]
    assert out.value("general.architecture") == "zzz" and out.value("zzz.block_count") == 1
    for i in range(3):
        x = normal(i, 4, 64)
        assert np.abs(decode(out.tensors[f"t{i}.weight"]) - x).max() <= np.abs(x).max() * 0.0045
    assert sha(tmp_path / "out0.gguf") == sha(tmp_path / "out1.gguf") == sha(tmp_path / "out2.gguf")


def test_row23_split_part_missing_or_wrong(tmp_path):
    paths = make_split(tmp_path)
    shutil.move(paths[1], tmp_path / "away")
    refuses(tmp_path, paths[0], says=paths[1].name)
    shutil.copy(paths[2], paths[1])  # another part under its name
    refuses(tmp_path, paths[0], says=[paths[1].name, "split.no"])
    paths[1].unlink()
    shutil.move(tmp_path / "away", paths[1])
    shutil.copy(paths[0], tmp_path / "single.gguf")  # a part under a name that is no part's
    refuses(tmp_path, tmp_path / "single.gguf", says=["single.gguf", "-of-00003.gguf"])
    (tmp_path / "single.gguf").unlink()
    raw_gg(paths[2], [ti("t2.weight", (64, 4), 0, 0)], split_kvs(2, 3, 3), BODY[:-1])
    refuses(tmp_path, paths[0], says=[paths[2].name, "'t2.weight'"])
    raw_gg(paths[2], [], split_kvs(2, 3, 3))
    refuses(tmp_path, paths[0], says="split.tensors.count")


# ---- safetensors headers ----

def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_row49_ranges(tmp_path):
    src = tmp_path / "in.safetensors"
    w = entry("F32", [4], 0, 16)
    for header, body, name in [
        ({"w": entry("F32", [1000, 1000], 0, 4)}, 4, "w"),
        ({"w": entry("F32", [4], 0, 12)}, 12, "w"),
        ({"w": entry("F32", [3], 0, 16)}, 16, "w"),
        ({"w": w, "v": entry("F32", [4], 8, 24)}, 24, "v"),          # overlap
        ({"w": w, "v": entry("F32", [4], 20, 36)}, 36, "v"),         # a hole of 4 bytes
        ({"w": entry("F32", [4], 4, 20)}, 20, "w"),                  # a hole in front
        ({"w": entry("F32", [4], 16, 0)}, 16, "w"),                  # backwards
        ({"w": entry("F32", [-4], 0, 16)}, 16, "w"),
        ({"w": entry("F32", [4], -16, 0)}, 16, "w"),
        ({"w": entry("F32", [2.0, 2], 0, 16)}, 16, "w"),
        ({"w": entry("F32", ["4"], 0, 16)}, 16, "w"),
        ({"w": entry("F32", 4, 0, 16)}, 16, "w"),
        ({"w": entry("F32", [1] * 9, 0, 4)}, 4, "w"),                # more dimensions than are read
        ({"w": entry("F32", [2**62, 4], 0, 16)}, 16, "w"),           # the product wraps to 0
        ({"w": entry("F32", [2**32, 2**32], 0, 0)}, 0, "w"),
        ({"w": entry("F32", [2**62 + 4], 0, 16)}, 16, "w"),          # the byte count wraps to 16
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 32]}}, 32, "w"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0]}}, 16, "w"),
        ({"w": {"dtype": "F32", "shape": [4]}}, 16, "w"),
        ({"w": {"dtype": 5, "shape": [4], "data_offsets": [0, 16]}}, 16, "w"),
        ({"w": {"shape": [4], "data_offsets": [0, 16]}}, 16, "w"),
        ({"w": [0, 16]}, 16, "w"),
        ({"w": None}, 0, "w"),
    ]:
        raw_st(src, header, b"\0" * body)
        refuses(tmp_path, src, says=["in.safetensors", f"'{name}'"])
    raw_st(src, {"w": w}, b"\0" * 17)  # a byte that belongs to none
    refuses(tmp_path, src, says=["in.safetensors", "1 bytes behind"])


def test_row19_shared_bytes(tmp_path):
    src = raw_st(tmp_path / "in.safetensors", {"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 0, 16)}, b"\0" * 16)
    refuses(tmp_path, src, says=["in.safetensors", "'a'", "'b'", "share"])


def test_row51_header_length(tmp_path):
    src = tmp_path / "in.safetensors"
    good = {"w": entry("F32", [4], 0, 16)}
    n = len(json.dumps(good))
    for hlen in 0, 1, n - 1, n + 17, 2**31, 2**32 + 2, 2**63, 2**64 - 4, 2**64 - 8, 2**64 - 1:
        raw_st(src, good, b"\0" * 16, hlen=hlen)
        refuses(tmp_path, src, says="in.safetensors")
    for size in range(0, 8):
        src.write_bytes(b"\0" * size)
        refuses(tmp_path, src, says="in.safetensors")


def test_row51_header_text(tmp_path):
    src = tmp_path / "in.safetensors"
    good = json.dumps({"w": entry("F32", [4], 0, 16)}).encode()
    for text in [b"[]", b"{", b'"x"', b"null", b"\0\0\0\0", good + b"x", good[:-1], b"\xff\xfe", good.replace(b"w", b"\xff"),
                 b'{"a":' * 5000 + b"1" + b"}" * 5000, good.replace(b"16", b"99999999999999999999"),
                 good.replace(b'"w"', b'"w\\u0000"'),
                 good[:-1] + b"," + good[1:]]:  # the same name twice
        raw_st(src, text, b"\0" * 16)
        refuses(tmp_path, src, says="in.safetensors")


def test_row52_metadata_must_be_text(tmp_path):
    """The format allows a map of strings only; anything else would be carried into the output."""
    src = tmp_path / "in.safetensors"
    for metadata in 5, [], "x", None, {"a": 1}, {"a": None}, {"a": {"b": "c"}}:
        raw_st(src, {"__metadata__": metadata, "w": entry("F32", [4], 0, 16)}, b"\0" * 16)
        refuses(tmp_path, src, says=["in.safetensors", "__metadata__"])


def test_row52_dtypes_and_truncation(tmp_path):
    src = tmp_path / "in.safetensors"
    raw_st(src, {"w": entry("F99", [4], 2**60, 2**60 + 16)}, b"\0" * 16)
    refuses(tmp_path, src, says=["in.safetensors", "'w'", "truncated"])
    raw_st(src, {"w": entry("F99", [4], 0, 16)}, b"\0" * 16)
    refuses(tmp_path, src, says=["in.safetensors", "'w'", "F99"])
    for dtype in "f32", "", "F32\n", "Q4_0":
        raw_st(src, {"w": entry(dtype, [4], 0, 16)}, b"\0" * 16)
        refuses(tmp_path, src, says=["in.safetensors", "'w'"])
    st(src, {"w": W, "v": W})
    whole = src.read_bytes()
    src.write_bytes(whole[:-1])
    refuses(tmp_path, src, says=["in.safetensors", "'v'", "truncated"])


def test_row52_no_tensors(tmp_path):
    src = st(tmp_path / "in.safetensors", {}, {"format": "pt", "who": "\U0001f600"})
    assert json.loads(ok("info", src, "--json").stdout)["n_tensors"] == 0
    quantize(src, tmp_path / "out", "i8")
    assert read_folder(tmp_path / "out") == {}


def test_row52_cut_anywhere(tmp_path):
    src = st(tmp_path / "in.safetensors", {"a.weight": W, "b.weight": W})
    whole = src.read_bytes()
    for n in range(0, len(whole), 7):
        src.write_bytes(whole[:n])
        fails(3, "quantize", src, tmp_path / "out", "--type", "i8", "--device", "ref", says="in.safetensors")
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_row51_large_legal_header(tmp_path):
    """101 MB of names: read (the stated cap is 256 MiB)."""
    name = "x" * 20000
    src = st(tmp_path / "in.safetensors", {f"{name}{i}": T("U8", (1,), bytes([i % 256])) for i in range(5200)})
    assert src.stat().st_size > 101e6
    assert json.loads(ok("info", src, "--json").stdout)["n_tensors"] == 5200


def test_row53_unaligned_data(tmp_path):
    """An odd number of bytes first, and a header that ends anywhere: the same values."""
    x = {"F32": normal(1, 8, 64), "F16": normal(2, 8, 64), "BF16": normal(3, 8, 64)}
    expected = None
    for pad in range(8):
        for odd in 0, 1, 3:
            tensors = {"odd": raw("U8", np.arange(odd)), "a.weight": f32(x["F32"]), "b.weight": f16(x["F16"]),
                       "c.weight": bf16(x["BF16"]), "d.weight": raw("F64", x["F32"])}
            src = tmp_path / "in.safetensors"
            st(src, tensors)
            whole = src.read_bytes()
            n = struct.unpack("<Q", whole[:8])[0]
            src.write_bytes(struct.pack("<Q", n + pad) + whole[8:8 + n] + b" " * pad + whole[8 + n:])
            out = tmp_path / f"out{pad}{odd}"
            quantize(src, out, "i8", device="cpu" if pad % 4 == 1 else "ref")
            got = read_folder(out)
            assert got.pop("odd").data == tensors["odd"].data
            expected = expected or got
            assert got == expected
    w = integer(expected, config_of(out), "d")
    assert np.array_equal(w.decode(), integer(expected, config_of(out), "a").decode())
    assert np.all(np.abs(w.decode() - x["F32"]) <= np.abs(x["F32"]).max(1, keepdims=True) / 127 * 0.5001)


# ---- folders ----

def sharded(folder, n=3):
    folder.mkdir(exist_ok=True)
    place = {}
    for i in range(n):
        part = f"model-{i + 1:05}-of-{n:05}.safetensors"
        st(folder / part, {f"t{i}.weight": f32(normal(i, 4, 64))})
        place[f"t{i}.weight"] = part
    write_index(folder, place)
    (folder / "config.json").write_text('{"model_type": "zzz"}')
    return folder


def write_index(folder, place):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))


def test_row23_missing_shards(tmp_path):
    src = sharded(tmp_path / "in", 4)
    (src / "model-00002-of-00004.safetensors").unlink()
    (src / "model-00004-of-00004.safetensors").unlink()
    refuses(tmp_path, src, says=["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"])


def test_row23_index_that_lies(tmp_path):
    src = sharded(tmp_path / "in")
    index = json.loads((src / "model.safetensors.index.json").read_text())["weight_map"]
    for change in [{"t0.weight": "model-00002-of-00003.safetensors"}, {"nowhere.weight": "model-00001-of-00003.safetensors"}]:
        write_index(src, index | change)
        refuses(tmp_path, src, says=[f"'{next(iter(change))}'"])
    for text in ["{}", "[]", "{", '{"weight_map": []}', '{"weight_map": {"t0.weight": 5}}',
                 '{"weight_map": {"t0.weight": "a", "t0.weight": "b"}}']:
        (src / "model.safetensors.index.json").write_text(text)
        refuses(tmp_path, src, says="index.json")


def test_row85_index_outside_the_folder(tmp_path):
    src = sharded(tmp_path / "in")
    st(tmp_path / "outside.safetensors", {"t0.weight": W})
    for name in ["../outside.safetensors", "../../etc/passwd", str(tmp_path / "outside.safetensors"), "..", "", "sub/x"]:
        write_index(src, {"t0.weight": name})
        refuses(tmp_path, src, says=["'t0.weight'", "not a file of this folder"])


def test_row21_name_in_two_shards(tmp_path):
    src = sharded(tmp_path / "in", 2)
    for i in (1, 2):
        st(src / f"model-0000{i}-of-00002.safetensors", {"w.weight": W, f"t{i - 1}.weight": W})
    refuses(tmp_path, src, says=["'w.weight'", "model-00001-of-00002", "model-00002-of-00002"])


def test_row22_row25_index_wins(tmp_path):
    """Strays beside the shards are named and not read: another naming scheme, and a stale single file."""
    src = sharded(tmp_path / "in")
    st(src / "consolidated.safetensors", {"tok_embeddings.weight": W, "t0.weight": W})
    st(src / "model.safetensors", {f"t{i}.weight": raw("I8", np.zeros((4, 64))) for i in range(3)})
    r = quantize(src, tmp_path / "out", "i8")
    for stray in "consolidated.safetensors", "'" + str(src / "model.safetensors"):
        assert any("ignored" in line and stray in line for line in r.stderr.splitlines()), r.stderr
    out = read_folder(tmp_path / "out")
    assert sorted(out) == sorted([f"t{i}.weight{s}" for i in range(3) for s in ("", "_scale")])
    for i in range(3):
        x = normal(i, 4, 64)
        y = integer(out, config_of(tmp_path / "out"), f"t{i}").decode()
        assert np.all(np.abs(y - x) <= np.abs(x).max(1, keepdims=True) / 127 * 0.5001)
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]


def test_row22_no_index_to_decide(tmp_path):
    src = tmp_path / "in"
    src.mkdir()
    st(src / "a.safetensors", {"w.weight": W})
    st(src / "b.safetensors", {"w.weight": W})
    refuses(tmp_path, src, says=["2 .safetensors files"])
    st(src / "model.safetensors", {"w.weight": W})
    r = quantize(src, tmp_path / "out", "i8")
    assert "a.safetensors' is ignored" in r.stderr and "b.safetensors' is ignored" in r.stderr


def test_row23_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    refuses(tmp_path, tmp_path / "in", says="no .safetensors")
    refuses(tmp_path, tmp_path / "absent", says="absent")


@pytest.mark.parametrize("text", ["[]", "{", "5", '{"a": 1, "a": 2}', "\xff", ""])
def test_broken_config(tmp_path, text):
    src = sharded(tmp_path / "in")
    (src / "config.json").write_bytes(text.encode("latin-1"))
    refuses(tmp_path, src, says="config.json")


def test_already_quantized_elsewhere(tmp_path):
    src = sharded(tmp_path / "in")
    for q in {"quant_method": "bitsandbytes", "bits": 4}, {"bits": 4}:
        (src / "config.json").write_text(json.dumps({"quantization_config": q}))
        refuses(tmp_path, src, says="already quantized", also_info=False)


def test_gguf_needs_the_folder(tmp_path):
    src = st(tmp_path / "in.safetensors", {"w.weight": W})
    refuses(tmp_path, src, "q8_0", says=["in.safetensors", "config.json"], also_info=False)


def test_row35_unknown_architecture(tmp_path):
    """To GGUF it is refused by name; a GGUF file of it, and a folder to a folder, need no translation."""
    src = sharded(tmp_path / "in")
    refuses(tmp_path, src, "q8_0", says="zzz", also_info=False)
    gguf = gg(tmp_path / "z.gguf", {"blk.0.odd.weight": W}, [kv("general.architecture", STRING, "zzz")])
    refuses(tmp_path, gguf, "i8", says="'zzz'", also_info=False)
    quantize(gguf, tmp_path / "out.gguf", "q8_0")
    assert read_gg(tmp_path / "out.gguf").value("general.architecture") == "zzz"


def test_incomplete_llama(tmp_path):
    tensors = llama(tmp_path / "in")
    st(tmp_path / "in" / "model.safetensors", {n: t for n, t in tensors.items() if "k_proj" not in n})
    refuses(tmp_path, tmp_path / "in", "q8_0", says="model.layers.0.self_attn.k_proj.weight", also_info=False)
    st(tmp_path / "in" / "model.safetensors", tensors | {"model.layers.0.self_attn.k_proj.weight": W})
    refuses(tmp_path, tmp_path / "in", "q8_0", says="'model.layers.0.self_attn.k_proj.weight'", also_info=False)
    st(tmp_path / "in" / "model.safetensors", tensors | {"model.layers.0.mystery.weight": W})
    refuses(tmp_path, tmp_path / "in", "q8_0", says="'model.layers.0.mystery.weight'", also_info=False)


# ---- compressed-tensors and float8 that are broken ----

def packed_folder(folder, **changes):
    """An int4 g32 weight [8, 64] with one tensor replaced, or left out (None)."""
    folder.mkdir(exist_ok=True)
    tensors = {"m.weight_packed": raw("I32", np.zeros((8, 8))), "m.weight_scale": f32(np.ones((8, 2))),
               "m.weight_shape": raw("I64", [8, 64])} | {f"m.weight_{k}": v for k, v in changes.items()}
    st(folder / "model.safetensors", {k: v for k, v in tensors.items() if v is not None})
    (folder / "config.json").write_text(json.dumps({"quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group",
                                               "group_size": 32}}}}}))
    return folder


@pytest.mark.parametrize("changes", [
    {"scale": None}, {"shape": None}, {"scale": f32(np.ones((8, 3)))}, {"scale": f32(np.ones((7, 2)))},
    {"scale": raw("I8", np.ones((8, 2)))}, {"shape": raw("I64", [8, -64])}, {"shape": raw("I64", [0, 64])},
    {"shape": raw("I64", [2**62, 2**62])}, {"shape": raw("I64", [2**40, 2**23])}, {"shape": raw("I64", [64])},
    {"shape": raw("I64", [8, 65])}, {"shape": raw("I64", [8, 2**60])}, {"shape": raw("I32", [8, 2**31 - 1])},
    {"shape": f32([8, 64])}, {"packed": raw("I32", np.zeros((8, 7)))}, {"packed": raw("I8", np.zeros((8, 32)))},
    {"packed": raw("I32", np.zeros((0, 8)))},
    {"zero_point": raw("I8", np.zeros((8, 3)))}, {"zero_point": raw("I32", np.zeros((2, 2)))},
    {"zero_point": f32(np.zeros((8, 2)))}, {"g_idx": raw("I32", np.zeros(63))}, {"g_idx": raw("I64", np.zeros(64))},
])
def test_row45_broken_companions(tmp_path, changes):
    src = packed_folder(tmp_path / "in", **changes)
    refuses(tmp_path, src, "f32", out=tmp_path / "out", says="'m.weight")


def test_row60_group_index_out_of_range(tmp_path):
    for bad in -1, 2, 2**31 - 1:
        index = np.zeros(64)
        index[63] = bad
        src = packed_folder(tmp_path / "in", g_idx=raw("I32", index))
        refuses(tmp_path, src, "f32", out=tmp_path / "out", says=["'m.weight'", "g_idx[63]"], also_info=False)


def test_row45_good_companions(tmp_path):
    """The folder that the test above breaks; g_idx permutes the groups (row 60)."""
    rng = np.random.default_rng(5)
    words = rng.integers(-2**31, 2**31, (8, 8)).astype(np.int32)
    scale = np.array([[1, 10]] * 8, np.float32)
    codes = ((words.view(np.uint32)[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15).reshape(8, 64).astype(int) - 8
    for index in None, rng.permutation(np.repeat([0, 1], 32)):
        src = packed_folder(tmp_path / "in", packed=raw("I32", words), scale=f32(scale),
                            g_idx=None if index is None else raw("I32", index))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        ok("convert", src, tmp_path / "out", "--type", "f32", "--device", "ref")
        got = values(read_folder(tmp_path / "out")["m.weight"])
        of = np.repeat([0, 1], 32) if index is None else index
        assert np.array_equal(got, codes * scale[:, of])


def test_row30_float8_without_scale(tmp_path):
    src = st(tmp_path / "in.safetensors", {"m.weight": raw("F8_E4M3", np.full((32, 64), 0x38))})
    refuses(tmp_path, src, says=["'m.weight'", "weight_scale"], also_info=False)
    st(src, {"m.weight": raw("F8_E4M3", np.zeros((200, 300))), "m.weight_scale_inv": f32(np.ones((2, 2)))})
    refuses(tmp_path, src, says="'m.weight'")


# ---- values that are no numbers ----

@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, device, bad):
    x = normal(1, 40, 128)
    x[33, 5] = bad
    where = 33 * 128 + 5
    for dtype, make in ("F32", f32), ("F16", f16), ("BF16", bf16):
        src = gg(tmp_path / "in.gguf", {"a.weight": W, "bad.weight": make(x)})
        refuses(tmp_path, src, "q4_0", says=["'bad.weight'", str(where)], device=device, also_info=False)
        src = st(tmp_path / "in.safetensors", {"a.weight": W, "bad.weight": make(x)})
        for kind in "i8", "i4_asym_g32", "i8_tensor":
            refuses(tmp_path, src, kind, says=["'bad.weight'", str(where)], device=device, also_info=False)


# ---- usage ----

def test_usage_errors(tmp_path):
    src = gg(tmp_path / "in.gguf", {"a.weight": W})
    out = tmp_path / "out.gguf"
    before = tree(tmp_path)
    for args in [[], [src], [src, out], [src, out, "--type", "q9_9"], [src, out, "--type", "i9"], [src, out, "--type", "i4_g33"],
                 [src, out, "--type", "i4_g0"], [src, out, "--type", "q8_0", "extra"], [src, out, "--type", "i8"],
                 [src, tmp_path / "folder", "--type", "q8_0"], [src, out, "--type", "q8_0", "--max-mem", "1K"],
                 [src, out, "--type", "q8_0", "--max-mem", "x"], [src, out, "--type", "q8_0", "--max-mem", "-1"],
                 [src, out, "--type", "q8_0", "--threads", "0"], [src, out, "--type", "q8_0", "--threads", "-3"],
                 [src, out, "--type", "q8_0", "--tensor-type", "q4_0"], [src, out, "--type", "q8_0", "--tensor-type", "(=q4_0"],
                 [src, out, "--type", "q8_0", "--tensor-type", "a=q99"], [src, out, "--type", "q8_0", "--nonsense"]]:
        fails(2, "quantize", *args, says="clquant: " if args else "")
    fails(2, "convert", src, out, "--type", "q8_0", says="q8_0")
    fails(2, "nonsense", says="nonsense")
    fails(4, "quantize", src, out, "--type", "q8_0", "--device", "no such device")
    assert tree(tmp_path) == before


def test_inputs_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "text.gguf").write_text("this is not a model, only a text of some length")
    for name in "pipe.gguf", "loop", "text.gguf", "absent.gguf":
        r = run("quantize", tmp_path / name, tmp_path / "out.gguf", "--type", "q8_0", "--device", "ref", timeout=20)
        assert r.returncode == 3 and name in r.stderr
    assert sorted(os.listdir(tmp_path)) == ["loop", "pipe.gguf", "text.gguf"]


# ---- reading without a map ----

NO_MMAP = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
static void *map(const char *name, void *a, size_t n, int prot, int flags, int fd, off_t at)
{
    if (fd >= 0 && (flags & MAP_SHARED)) { errno = ERROR; return MAP_FAILED; } /* code is mapped private */
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
    return real(a, n, prot, flags, fd, at);
}
void *mmap(void *a, size_t n, int p, int f, int fd, off_t at) { return map("mmap", a, n, p, f, fd, at); }
void *mmap64(void *a, size_t n, int p, int f, int fd, off_t at) { return map("mmap64", a, n, p, f, fd, at); }
"""


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("error", ["ENODEV", "ENOMEM"])
def test_row86_without_mmap(tmp_path, device, error):
    """The same bytes through pread: GGUF, shards with unaligned data, a folder, and verify."""
    env = {"LD_PRELOAD": str(cc(tmp_path, NO_MMAP.replace("ERROR", error)))}
    gguf = gg(tmp_path / "in.gguf", {"a.weight": f16(normal(1, 100, 64)), "b": f32(normal(2, 7)), "c.weight": W},
              [kv("general.architecture", STRING, "zzz"), kv("tokens", ARRAY, (STRING, ["x" * 100] * 60000))])
    assert gguf.stat().st_size > 4 << 20  # the header needs more than one read
    llama(tmp_path / "model", dtype="BF16", shards=2)
    st(tmp_path / "in.safetensors", {"odd": raw("U8", [1]), "a.weight": f32(normal(1, 8, 64)), "b.weight": bf16(normal(2, 8, 64))})
    for src, out, kind in [(gguf, "g.gguf", "q4_0"), (tmp_path / "model", "m.gguf", "q8_0"), (tmp_path / "model", "m", "i4_asym_g32"),
                           (tmp_path / "in.safetensors", "s", "i8_asym_tensor")]:
        quantize(src, tmp_path / ("plain-" + out), kind, device=device)
        quantize(src, tmp_path / ("pread-" + out), kind, device=device, env=env)
        if out.endswith(".gguf"):
            assert sha(tmp_path / ("plain-" + out)) == sha(tmp_path / ("pread-" + out))
        else:
            assert tree(tmp_path / ("plain-" + out)) == tree(tmp_path / ("pread-" + out))
        ok("verify", src, tmp_path / ("pread-" + out), env=env)


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer reserves more address space than the limit")
def test_row86_no_address_space(tmp_path):
    """A sparse file larger than the address space that is left: planned, and its start read."""
    import resource
    src = tmp_path / "in.gguf"
    raw_gg(src, [ti("a.weight", (64, 4), 0, 0), ti("big.weight", (64, 2**26), 0, 1024)], (), BODY)
    with open(src, "r+b") as f:
        f.truncate(f.seek(0, 2) + 2**34)
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    r = run("quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--dry-run", "--json", preexec_fn=limit)
    assert r.returncode == 0, r.stderr
    assert [t["n_bytes"] for t in json.loads(r.stdout)["tensors"]] == [4 * 2 * 34, 2**26 * 2 * 34]


# ---- samples of other programs ----

SAMPLES = os.environ.get("CLQ_SAMPLES")


@pytest.mark.skipif(not SAMPLES or not os.path.isdir(SAMPLES), reason="CLQ_SAMPLES names the samples")
@pytest.mark.parametrize("name", ["awq_w3_asym", "awq_w4_asym", "gptq_w4", "rtn_w3", "rtn_w4", "rtn_w4_asym", "sq_w8a8"])
def test_row55_samples_are_read(tmp_path, name):
    """llm-compressor's files: the values are those of the independent decoder here, near the source."""
    folder = os.path.join(SAMPLES, "compressed-tensors")
    src = tmp_path / "in"
    src.mkdir()
    shutil.copy(os.path.join(folder, name, "layer0_k_proj.safetensors"), src / "model.safetensors")
    with open(os.path.join(folder, name, "quantization_config.json")) as f:
        config = json.load(f)
    config = {"quantization_config": config.get("quantization_config", config)}
    (src / "config.json").write_text(json.dumps(config))
    ok("convert", src, tmp_path / "out", "--type", "f32", "--device", "ref")
    tensors = read_folder_loose(src / "model.safetensors")
    module = next(n for n in tensors if n.endswith(("weight_packed", "k_proj.weight"))).rsplit(".", 1)[0]
    expected = integer(tensors, config, module).decode()
    got = values(read_folder(tmp_path / "out")[module + ".weight"])
    assert np.array_equal(got, expected)
    x = values(next(iter(read_folder_loose(os.path.join(folder, "source.safetensors")).values())))
    if name.startswith("rtn"):  # the others moved the weights away from the source on purpose
        assert np.linalg.norm(got - x) / np.linalg.norm(x) < (0.3 if "w3" in name else 0.15)


def read_folder_loose(path):
    """Of other writers: ranges need not be aligned here."""
    with open(path, "rb") as f:
        blob = f.read()
    n = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + n])
    return {k: T(e["dtype"], tuple(e["shape"]), blob[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]])
            for k, e in header.items() if k != "__metadata__"}

# SPDX-License-Identifier: MIT
"""The program's bytes against ggml's reference quantizers (PyPI libgguf), through real files."""
import json

import numpy as np
import pytest

import common
from common import T, fails, gg, kv, ok, quantize, read_gg

libgguf = pytest.importorskip("libgguf")

# ggml's number, elements and bytes of a block, where its float16 fields are.
ALL_TYPES = {"q4_0": (2, 32, 18, [0]), "q4_1": (3, 32, 20, [0, 2]), "q5_0": (6, 32, 22, [0]), "q5_1": (7, 32, 24, [0, 2]),
             "q8_0": (8, 32, 34, [0]), "q2_K": (10, 256, 84, [80, 82]), "q3_K": (11, 256, 110, [108]),
             "q4_K": (12, 256, 144, [0, 2]), "q5_K": (13, 256, 176, [0, 2]), "q6_K": (14, 256, 210, [208]),
             "iq4_nl": (20, 32, 18, [0]), "iq4_xs": (23, 256, 136, [0]), "tq1_0": (34, 256, 54, [52]),
             "tq2_0": (35, 256, 66, [64]), "mxfp4": (39, 32, 17, []), "nvfp4": (40, 64, 36, []), "q1_0": (41, 128, 18, [0]),
             "iq2_xxs": (16, 256, 66, [0]), "iq2_xs": (17, 256, 74, [0]), "iq3_xxs": (18, 256, 98, [0]),
             "iq1_s": (19, 256, 50, [0]), "iq3_s": (21, 256, 110, [0]), "iq2_s": (22, 256, 82, [0]), "iq1_m": (29, 256, 56, [])}
# Encoded with an importance matrix only (test_libgguf_weighted.py); here they are sources.
NEED_IMPORTANCE = {"iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq1_s", "iq1_m"}
KNOWN = {f["name"] for f in json.loads(ok("formats", "--json").stdout)}
TYPES = {name: facts[0] for name, facts in ALL_TYPES.items() if name in KNOWN}
ENCODED = [name for name in TYPES if name not in NEED_IMPORTANCE]
for name, (number, elements, size, _) in ALL_TYPES.items():
    common.GGML.setdefault(name.upper(), number)
    common.GGML_NAME.setdefault(number, name.upper())
    common.BLOCK.setdefault(name.upper(), (elements, size))
DEVICES = ["ref", None]  # None: the default, an OpenCL device where there is one
COLS, N_RANDOM = 256, 10240


def random_rows(rng):
    """Rows of many sizes and distributions: [N_RANDOM, COLS]."""
    x = rng.standard_normal((N_RANDOM, COLS)).astype(np.float32)
    kind = np.arange(N_RANDOM) % 8
    x[kind == 1] *= 10.0 ** rng.uniform(-8, 2, ((kind == 1).sum(), 1)).astype(np.float32)
    x[kind == 2] **= 3  # heavy tails
    x[kind == 3] = rng.random((np.sum(kind == 3), COLS))
    x[kind == 4] = rng.integers(-128, 128, (np.sum(kind == 4), COLS)) * 0.0625  # ties
    x[kind == 5] *= rng.random((np.sum(kind == 5), COLS)) < 0.1  # mostly zero
    x[kind == 6] = x[kind == 6].astype(np.float16)
    x[kind == 7] = common.bf16_values(common.bf16_bits(x[kind == 7]))
    return x


def edge_rows(rng):
    """Rows in which each block of 32 is an edge of its own."""
    rows = [np.zeros(COLS), -np.zeros(COLS), np.where(np.arange(COLS) % 2, 0.0, -0.0)]
    for c in (1.0, -1.0, 9.0, 1 / 3, -1e-3, 6e4, 1e-38, 1e-45):
        rows.append(np.full(COLS, c))
    for e in range(4, 46):
        rows.append(rng.standard_normal(COLS) * 10.0**-e)
    for e in range(-30, 16):  # just below a power of two, and its multiples
        below = np.nextafter(np.float32(2.0**e), np.float32(0))
        rows.append(below * rng.integers(-16, 17, COLS) / 16)
        rows.append(np.where(np.arange(COLS) % 5 == 0, -(2.0**e), below))
    for top in (8.0, 15.0, 16.0, 31.0, 127.0):  # the step is 1 or 2^k: every value is a tie
        for k in range(-6, 7):
            x = rng.integers(-int(top), int(top), COLS) + 0.5
            x[::32] = top
            rows.append(x * 2.0**k)
            rows.append(-x * 2.0**k)
    for amax in (65504.0, 65519.9, 5e5, 9e5, 8e6):  # scales near float16's largest
        x = rng.standard_normal(COLS)
        rows.append(x / np.abs(x).max() * amax)
    for k in range(32):  # an outlier at each position
        x = rng.standard_normal(COLS)
        x[k::32] *= 1000
        rows.append(x)
    tiny = rng.integers(-40, 41, (16, COLS)) * 1.401298464324817e-45  # subnormals
    with np.errstate(all="ignore"):
        return np.concatenate([np.array(rows).astype(np.float32), tiny.astype(np.float32)])


def oracle(x, name):
    importance = np.ones(x.shape[1], np.float32) if name in NEED_IMPORTANCE else None
    return libgguf.quantize_rows(np.ascontiguousarray(x), TYPES[name], importance)


def finite_rows(codes, name):
    """Rows whose stored scales (and minimums) are all finite."""
    _, _, block, fields = ALL_TYPES[name]
    if not fields:  # scales without infinities
        return np.ones(len(codes), bool)
    b = codes.reshape(len(codes), -1, block)
    halves = np.concatenate([b[:, :, f:f + 2] for f in fields], 2).copy().view("<u2")
    return ((halves & 0x7C00) != 0x7C00).all(axis=(1, 2))


def model(path, tensors):
    return gg(path, tensors, [kv("general.architecture", common.STRING, "llama")])


def compare(out, name, tensor, expected, rows):
    got = read_gg(out).tensors[tensor]
    assert got.dtype == name.upper() and got.shape == (len(rows), COLS)
    got = np.frombuffer(got.data, np.uint8).reshape(expected.shape)
    bad = np.flatnonzero((got != expected).any(axis=1))
    assert not len(bad), f"{len(bad)} of {len(rows)} rows differ, first {bad[0]}: {rows[bad[0]][:32]}"


@pytest.mark.parametrize("device", DEVICES, ids=["ref", "default"])
@pytest.mark.parametrize("name", ENCODED)
def test_f32(tmp_path, name, device):
    rng = np.random.default_rng(list(name.encode()))
    x = np.concatenate([random_rows(rng), edge_rows(rng)])
    expected = oracle(x, name)
    keep = finite_rows(expected, name)
    assert keep[:N_RANDOM].sum() >= 10000 and (~keep).sum() < 32
    x, expected = x[keep], expected[keep]
    model(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": common.f32(x)})
    more = ["--device", device] if device else []
    ok("quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "--type", name, *more)
    compare(tmp_path / "out.gguf", name, "blk.0.ffn_up.weight", expected, x)


@pytest.mark.parametrize("device", DEVICES, ids=["ref", "default"])
@pytest.mark.parametrize("name", ENCODED)
def test_half_sources(tmp_path, name, device):
    """float16 and bfloat16 in the file, the rows of both in one model."""
    rng = np.random.default_rng(list(name.encode()) + [1])
    rows = np.concatenate([random_rows(rng)[::4], edge_rows(rng)])
    tensors, expected = {}, {}
    with np.errstate(all="ignore"):
        for key, dtype, x in (("blk.0.ffn_up.weight", "F16", rows.astype(np.float16).astype(np.float32)),
                              ("blk.1.ffn_up.weight", "BF16", common.bf16_values(common.bf16_bits(rows)))):
            x = x[np.isfinite(x).all(axis=1)]
            codes = oracle(x, name)
            keep = finite_rows(codes, name)
            tensors[key] = common.like(dtype, x[keep])
            expected[key] = (codes[keep], x[keep])
    model(tmp_path / "in.gguf", tensors)
    more = ["--device", device] if device else []
    ok("quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "--type", name, *more)
    for key, (codes, x) in expected.items():
        compare(tmp_path / "out.gguf", name, key, codes, x)


@pytest.mark.parametrize("device", DEVICES, ids=["ref", "default"])
@pytest.mark.parametrize("name", [name for name in ENCODED if ALL_TYPES[name][3]])
def test_infinite_scale_is_refused(tmp_path, name, device):
    """Where the oracle would store an infinite scale, nothing is written."""
    x = np.ones((4, COLS), np.float32)
    x[2, 77] = 1e9
    assert not finite_rows(oracle(x, name), name).all()
    model(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": common.f32(x)})
    more = ["--device", device] if device else []
    fails(3, "quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "--type", name, *more, says="blk.0.ffn_up.weight")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf"]


@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize("device", DEVICES, ids=["ref", "default"])
def test_from_quantized(tmp_path, source, device):
    """A source that is quantized itself: decoded as ggml does, then encoded."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((512, COLS)).astype(np.float32)
    stored = oracle(x, source)
    y = np.frombuffer(libgguf.dequantize_rows_raw(TYPES[source], stored.tobytes(), *x.shape), "<f4").reshape(x.shape)
    model(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": T(source.upper(), x.shape, stored.tobytes())})
    more = ["--device", device] if device else []
    ok("quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "--type", "q5_0", *more)
    compare(tmp_path / "out.gguf", "q5_0", "blk.0.ffn_up.weight", oracle(y, "q5_0"), y)
    ok("convert", tmp_path / "in.gguf", tmp_path / "f32.gguf", "--type", "f32", *more)
    got = read_gg(tmp_path / "f32.gguf").tensors["blk.0.ffn_up.weight"]
    assert got.dtype == "F32" and got.data == y.tobytes()


def test_gguf_package_reads_it(tmp_path):
    """PyPI gguf, which llama.cpp's own scripts use, reads the output and decodes the same values."""
    gguf = pytest.importorskip("gguf")
    x = np.random.default_rng(3).standard_normal((64, COLS)).astype(np.float32)
    model(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": common.f32(x), "blk.0.attn_norm.weight": common.f32(x[0])})
    for name in ENCODED:
        out = tmp_path / f"{name}.gguf"
        quantize(tmp_path / "in.gguf", out, name)
        tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
        t = tensors["blk.0.ffn_up.weight"]
        assert t.tensor_type.name == name.upper()
        stored = read_gg(out).tensors[t.name].data
        decoded = np.frombuffer(libgguf.dequantize_rows_raw(TYPES[name], stored, *x.shape), "<f4").reshape(x.shape)
        try:
            values = gguf.quants.dequantize(t.data, t.tensor_type)
        except NotImplementedError:  # newer types
            continue
        assert np.array_equal(values, decoded)
        assert np.array_equal(tensors["blk.0.attn_norm.weight"].data, x[0])

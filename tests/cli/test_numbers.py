# SPDX-License-Identifier: MIT
"""What the numbers become: every type against encoders and decoders written here in numpy, from every
dtype, on the C references ("ref") and on OpenCL ("cpu"); what `verify` says of them; the same bytes everywhere."""
import json
import shutil

import numpy as np
import pytest

from common import (BLOCK_TYPES, DEVICES, REPO, T, bf16, bf16_bits, blocks, both, check_int, config_of, decode,
                    encode_blocks, f16, f32, fails, gg, integer, like, llama, normal, ok, quantize, raw, read_folder,
                    read_gg, refuses, sha, st, tree, values, warnings_of)


def variety(seed, rows, cols):
    """Magnitudes from 1e-3 to 1e3 by row, a constant row, zero rows and blocks, exact ties."""
    x = normal(seed, rows, cols) * (10.0 ** np.linspace(-3, 3, rows)[:, None]).astype(np.float32)
    x[1] = 0.75
    x[2] = 0
    x[3, :32] = 0
    x[4] = np.tile(np.arange(32, dtype=np.float32) - 15.5, cols // 32 + 1)[:cols]
    x[5, ::3] *= -1
    return x


# ---- exact codes ----

@both
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_block_types_exactly(tmp_path, kind, device):
    """Every field of every block, from three dtypes, against common.py's encoder; the report's error too."""
    x = variety(7, 24, 224)
    x[9] *= np.float32(60)
    tensors = {f"{d}.weight": like(d, x) for d in ("F32", "F16", "BF16")}
    src = gg(tmp_path / "in.gguf", tensors)
    report = json.loads(quantize(src, tmp_path / "out.gguf", kind, "--json", device=device).stdout)
    out = read_gg(tmp_path / "out.gguf").tensors
    for row in report["tensors"]:
        stored, got = values(tensors[row["name"]]), out[row["name"]]
        assert got.dtype == kind.upper() and got.shape == x.shape
        expected, fields = encode_blocks(kind, stored), blocks(got)
        for name in expected:
            assert np.array_equal(fields[name], expected[name].astype(fields[name].dtype)), (row["name"], name)
        e = decode(got).astype(np.float64) - stored
        assert row["max_error"] == pytest.approx(np.abs(e).max(), rel=1e-6)
        assert row["sqnr_db"] == pytest.approx(10 * np.log10((stored.astype(np.float64)**2).sum() / (e**2).sum()), abs=1e-3)
    ok("verify", src, tmp_path / "out.gguf")


INT_TYPES = [f"i{b}{a}{g}" for b in range(2, 9) for a in ("", "_asym") for g in ("", "_tensor", "_g32", "_g96")]


@both
@pytest.mark.parametrize("kind", INT_TYPES)
def test_integer_types_exactly(tmp_path, kind, device):
    """Codes, scales and zero-points from three dtypes; 45 rows, so that packed zero-points end inside a word."""
    x = variety(8, 45, 192)
    tensors = {f"{d}.weight": like(d, x) for d in ("F32", "F16", "BF16")}
    src = st(tmp_path / "in.safetensors", tensors)
    quantize(src, tmp_path / "out", kind, device=device)
    out, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    for d in "F32", "F16", "BF16":
        assert out[f"{d}.weight_scale"].dtype == d
        check_int(out, config, d, values(tensors[f"{d}.weight"]), d, kind)
    ok("verify", src, tmp_path / "out")
    # And read: the same values as the decoder here, in float32; then as the source of another type.
    ok("convert", tmp_path / "out", tmp_path / "f32", "--type", "f32", "--device", device)
    back = read_folder(tmp_path / "f32")
    assert sorted(back) == sorted(tensors) and "quantization_config" not in config_of(tmp_path / "f32")
    for d in "F32", "F16", "BF16":
        assert np.array_equal(values(back[f"{d}.weight"]), integer(out, config, d).decode())
    quantize(tmp_path / "out", tmp_path / "again", "i8", device=device)
    check_int(read_folder(tmp_path / "again"), config_of(tmp_path / "again"), "F32", values(back["F32.weight"]), "F32", "i8")


@both
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_block_types_as_source(tmp_path, kind, device):
    """Decoded to float32 exactly, and quantized from there; the same type again is a copy."""
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(variety(3, 24, 224)), "b_norm.weight": f32(normal(1, 32))})
    quantize(src, tmp_path / "q.gguf", kind)
    stored = read_gg(tmp_path / "q.gguf").tensors["a.weight"]
    ok("convert", tmp_path / "q.gguf", tmp_path / "f.gguf", "--type", "f32", "--device", device)
    back = read_gg(tmp_path / "f.gguf").tensors["a.weight"]
    assert np.array_equal(values(back), decode(stored))
    for other in BLOCK_TYPES:
        quantize(tmp_path / "q.gguf", tmp_path / "other.gguf", other, device=device)
        got = read_gg(tmp_path / "other.gguf").tensors["a.weight"]
        if other == kind:
            assert got == stored
            continue
        expected, fields = encode_blocks(other, decode(stored)), blocks(got)
        for name in expected:
            assert np.array_equal(fields[name], expected[name].astype(fields[name].dtype)), (other, name)


@both
@pytest.mark.parametrize("kind", ["i8", "i4", "i3_asym", "i5_tensor", "i8_asym_tensor", "i2_asym"])
def test_row14_row12_ragged_rows(tmp_path, kind, device):
    """Rows that fill no block, word or vector, down to one element; nothing beyond them counts."""
    shapes = [(1, 1), (1, 37), (3, 1), (5, 31), (33, 128 + 5), (64 + 5, 7), (2, 4099)]
    tensors = {f"m{i}.weight": f32(normal(i, *s)) for i, s in enumerate(shapes)}
    src = st(tmp_path / "in.safetensors", tensors)
    quantize(src, tmp_path / "out", kind, device=device)
    quantize(src, tmp_path / "again", kind, "--max-mem", "16M", device=device)
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    out, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    for i in range(len(shapes)):
        check_int(out, config, f"m{i}", values(tensors[f"m{i}.weight"]), "F32", kind)


# ---- zero, tiny and constant blocks ----

@both
@pytest.mark.parametrize("kind", [*BLOCK_TYPES, "i8", "i4_g32", "i4_asym_g32", "i8_asym", "i2_g32", "i8_tensor", "i3_asym_tensor"])
def test_row5_tiny_blocks(tmp_path, kind, device):
    """Blocks filled with values near zero: finite, and no further off than zero would be."""
    tiny = [1e-20, 1e-30, 1e-38, 1e-45, 0, 1e-6, 1e-8]
    x = np.repeat(np.array([v * s for v in tiny for s in (1, -1)], np.float32)[:, None], 32, 1)
    n_constant = len(x)
    x = np.concatenate([x, np.where(np.arange(32) == 5, x, 0), np.where(np.arange(32) % 2, x, -x)]).astype(np.float32)
    if kind in BLOCK_TYPES:
        src = gg(tmp_path / "in.gguf", {"a.weight": f32(x)})
        quantize(src, tmp_path / "out.gguf", kind, device=device)
        y = decode(read_gg(tmp_path / "out.gguf").tensors["a.weight"])
    else:
        src = st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
        quantize(src, tmp_path / "out", kind, device=device)
        w = integer(read_folder(tmp_path / "out"), config_of(tmp_path / "out"), "a")
        assert np.isfinite(w.scale).all()
        y = w.decode()
    assert np.isfinite(y).all()
    if not kind.endswith("_tensor"):
        e = np.abs(y.astype(np.float64) - x)
        assert np.all(e[:n_constant] <= np.abs(x[:n_constant]))
        assert np.all(e <= np.abs(x).max(1, keepdims=True))
    assert np.all(y[np.all(x == 0, 1)] == 0)


@pytest.mark.parametrize("kind", [*BLOCK_TYPES, "i8", "i4_g32", "i4_asym_g32", "i8_asym_tensor", "i3_asym_g32"])
def test_row5_same_bytes_on_devices(tmp_path, kind):
    """Subnormal floats must not be flushed on one device and kept on the other."""
    x = (normal(3, 64, 64).astype(np.float64) * 10.0 ** np.linspace(-45, -30, 64)[:, None]).astype(np.float32)
    gguf = kind in BLOCK_TYPES
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(x)}) if gguf else st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
    for device in DEVICES:
        quantize(src, tmp_path / (device + (".gguf" if gguf else "")), kind, device=device)
    if gguf:
        assert sha(tmp_path / "ref.gguf") == sha(tmp_path / "cpu.gguf")
    else:
        assert tree(tmp_path / "ref") == tree(tmp_path / "cpu")


@both
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_row7_constant_groups(tmp_path, bits, device):
    """Groups of one value, asymmetric, come back within one step (range taken to include 0)."""
    x = np.array([9.0, -9.0, 0.0, 9.0, -9.0], np.float32)[:, None] * np.ones((1, 96), np.float32)
    x[3:, 32:] = [[1e-3], [5.0]]
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
    quantize(src, tmp_path / "out", f"i{bits}_asym_g32", device=device)
    w = check_int(read_folder(tmp_path / "out"), config_of(tmp_path / "out"), "a", x, "F32", f"i{bits}_asym_g32")
    assert np.all(np.abs(w.decode() - x) <= np.repeat(w.scale, 32, 1))
    assert np.array_equal(w.decode()[2], x[2])


@both
def test_row8_scale_underflow(tmp_path, device):
    """A scale that float16 cannot hold becomes its smallest subnormal, so no channel is lost."""
    x = normal(4, 9, 64) * (10.0 ** -np.arange(9.0))[:, None].astype(np.float32)
    stored = f16(x)
    src = st(tmp_path / "in.safetensors", {"a.weight": stored})
    for kind in "i8", "i8_asym", "i4_g32", "i8_tensor":
        quantize(src, tmp_path / kind, kind, device=device)
        w = check_int(read_folder(tmp_path / kind), config_of(tmp_path / kind), "a", values(stored), "F16", kind)
        alive = np.abs(values(stored)).reshape(9, w.scale.shape[1], -1).max(-1) > 0 if kind != "i8_tensor" else np.array([[True]])
        assert np.all((w.scale > 0) == alive)
        steps = 0.5001 if w.symmetric else 1  # a zero-point is rounded too
        assert np.all(np.abs(w.decode() - values(stored)) <= np.repeat(np.broadcast_to(w.scale, (9, w.scale.shape[1])),
                                                                      64 // w.scale.shape[1], 1) * steps)


@both
def test_row8_lost_blocks_are_told(tmp_path, device):
    """Block types have float16 scales by definition: what they lose is counted, by tensor."""
    x = np.concatenate([normal(1, 2, 32), np.full((3, 32), 1e-7, np.float32)])
    src = gg(tmp_path / "in.gguf", {"fine.weight": f32(x[:2]), "lost.weight": f32(x)})
    r = quantize(src, tmp_path / "out.gguf", "q8_0", device=device)
    warnings = [line for line in r.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "'lost.weight'" in warnings[0] and " 3 " in warnings[0], r.stderr
    y = decode(read_gg(tmp_path / "out.gguf").tensors["lost.weight"])
    assert np.all(y[2:] == 0) and np.all(np.abs(y[:2]).max(1) > 0)


@both
def test_row9_bfloat16_scales_of_small_weights(tmp_path, device):
    """Small weights, whose scales are below bfloat16's epsilon: as exact as with float32 scales."""
    x = values(bf16(normal(6, 256, 1024) * np.float32(1e-3)))
    src = st(tmp_path / "in.safetensors", {"b.weight": bf16(x), "f.weight": f32(x)})
    quantize(src, tmp_path / "out", "i4_g32", device=device)
    out, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    assert out["b.weight_scale"].dtype == "BF16" and out["f.weight_scale"].dtype == "F32"
    error = [np.linalg.norm(integer(out, config, m).decode() - x) / np.linalg.norm(x) for m in "bf"]
    assert error[0] <= error[1] * 1.02 and error[1] < 0.12


@both
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("asym", ["", "_asym"])
def test_row57_ranges_without_zero(tmp_path, bits, asym, device):
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.uniform(*r, (8, 64)) for r in [(0, 1), (-22, -15), (100, 101), (-1, 0), (1e-3, 2e-3)]]).astype(np.float32)
    for dtype in "F32", "BF16":
        stored = like(dtype, x)
        src = st(tmp_path / "in.safetensors", {"a.weight": stored})
        kind = f"i{bits}{asym}_g32"
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        quantize(src, tmp_path / "out", kind, device=device)
        w = check_int(read_folder(tmp_path / "out"), config_of(tmp_path / "out"), "a", values(stored), dtype, kind)
        assert np.all(np.abs(w.decode().astype(np.float64) - values(stored)) <= np.repeat(w.scale, 32, 1).astype(np.float64))


@both
@pytest.mark.parametrize("bits", [4, 8, 3])
def test_row59_codes_are_clamped_before_packing(tmp_path, bits, device):
    """bfloat16 scales round down by up to 1/512, so the ends of the range are reached and never passed."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (256, 32)).astype(np.float32)
    x[:, 7] = rng.uniform(1, 2, 256)  # the largest
    x[::2] *= -1
    stored = bf16(x)
    top = 2 ** (bits - 1) - 1
    src = st(tmp_path / "in.safetensors", {"a.weight": stored})
    for asym in "", "_asym":
        kind = f"i{bits}{asym}_g32"
        quantize(src, tmp_path / kind, kind, device=device)
        w = check_int(read_folder(tmp_path / kind), config_of(tmp_path / kind), "a", values(stored), "BF16", kind)
        assert w.q.min() == -top - bool(asym) and w.q.max() == top
    zeros = np.repeat(np.linspace(-1, 0, 48, dtype=np.float32)[:, None], 32, 1)  # every zero-point
    zeros[:, 1::2] += 1
    src = st(tmp_path / "zp.safetensors", {"a.weight": f32(zeros)})
    quantize(src, tmp_path / "zp", f"i{bits}_asym_g32", device=device)
    w = check_int(read_folder(tmp_path / "zp"), config_of(tmp_path / "zp"), "a", zeros, "F32", f"i{bits}_asym_g32")
    assert len(np.unique(w.zero)) == min(2**bits, 48)


@both
@pytest.mark.parametrize("kind", ["i8", "i4", "i8_tensor", "i2_g32", "i8_asym"])
def test_row61_symmetric_range(tmp_path, kind, device):
    """-127..127 and no zero-point; the mirror image of the weights has the mirror image of the codes."""
    x = normal(5, 6, 64)
    x[0, 3], x[1, 3] = -9, 9
    x[2, :2] = 9, -9
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
    quantize(src, tmp_path / "out", kind, device=device)
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(-x)})
    quantize(src, tmp_path / "neg", kind, device=device)
    w, v = [integer(read_folder(tmp_path / f), config_of(tmp_path / f), "a") for f in ("out", "neg")]
    assert np.array_equal(w.scale, v.scale)
    if w.symmetric:
        top = 2 ** (w.bits - 1) - 1
        assert w.q.min() == -top and w.q.max() == top and np.array_equal(w.q, -v.q)
        assert "a.weight_zero_point" not in read_folder(tmp_path / "out")
    else:
        assert w.q.min() == -128 and w.q.max() == 127


@both
def test_row62_rounding_of_ties(tmp_path, device):
    """(n + 1/2) and its neighbours, where the scale is 1 in every dtype: half to even for integers, away
    from zero for q8_0, whatever the source's dtype."""
    n = np.arange(-64, 64) + 0.5
    exact = np.array([*n, 127.0, *np.zeros(31)], np.float32)
    above, below = np.nextafter(exact, np.float32(1e9)), np.nextafter(exact, np.float32(-1e9))
    above[128:] = below[128:] = exact[128:]
    for dtype in "F32", "F16", "BF16":
        src = st(tmp_path / "in.safetensors", {"a.weight": like(dtype, exact[None])})
        quantize(src, tmp_path / dtype, "i8", device=device)
        w = integer(read_folder(tmp_path / dtype), config_of(tmp_path / dtype), "a")
        assert w.scale.item() == 1 and np.array_equal(w.q[0], np.rint(exact))
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(np.stack([above, below]))})
    quantize(src, tmp_path / "near", "i8", device=device)
    w = integer(read_folder(tmp_path / "near"), config_of(tmp_path / "near"), "a")
    assert np.array_equal(w.q[0, :128], np.ceil(n)) and np.array_equal(w.q[1, :128], np.floor(n))
    x = np.concatenate([n.reshape(4, 32).astype(np.float32), np.zeros((4, 32), np.float32)], 1)
    x[:, 31] = 127
    codes = []
    for dtype in "F32", "F16", "BF16":
        src = gg(tmp_path / "in.gguf", {"a.weight": like(dtype, x)})
        quantize(src, tmp_path / "out.gguf", "q8_0", device=device)
        f = blocks(read_gg(tmp_path / "out.gguf").tensors["a.weight"])
        codes.append(f["q"])
        assert np.all(f["d"][::2] == 1) and np.all(f["d"][1::2] == 0)
    assert np.array_equal(codes[0], codes[1]) and np.array_equal(codes[0], codes[2])
    away = x[:, :32].astype(int) + np.sign(x[:, :32]).astype(int)
    away[:, 31] = 127
    assert np.array_equal(codes[0][::2], away)


# ---- plain types ----

def all_halves():
    bits = np.arange(65536, dtype=np.uint16)
    return bits[(bits & 0x7C00) != 0x7C00].view(np.float16)


@both
def test_row29_every_float16(tmp_path, device):
    """Up from every float16, and down from every float16, every midpoint and their neighbours."""
    h = all_halves()
    src = gg(tmp_path / "in.gguf", {"a.weight": f16(h.reshape(-1, 64))})
    ok("convert", src, tmp_path / "up.gguf", "--type", "f32", "--device", device)
    up = read_gg(tmp_path / "up.gguf").tensors["a.weight"]
    assert up.dtype == "F32" and np.array_equal(values(up).view(np.uint32).ravel(), h.astype(np.float32).view(np.uint32))
    positive = np.sort(h[h.view(np.uint16) < 0x7C00].astype(np.float32))
    middle = (positive[:-1] + positive[1:]) / 2  # exact in float32
    x = np.concatenate([positive, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9)),
                        np.linspace(6e-8, 6.1e-5, 4096, dtype=np.float32), np.float32([1e-45, 2.9e-8, 2.98e-8, 2.99e-8, 65519])])
    x = np.concatenate([x, -x])
    x = np.pad(x, (0, -len(x) % 64)).reshape(-1, 64)
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(x)})
    ok("convert", src, tmp_path / "down.gguf", "--type", "f16", "--device", device)
    down = read_gg(tmp_path / "down.gguf").tensors["a.weight"]
    assert down.data == x.astype("<f2").tobytes()


@both
def test_row29_bfloat16_rounding(tmp_path, device):
    u = np.random.default_rng(3).integers(0, 2**32, 1 << 16, np.uint64).astype(np.uint32)
    u = np.concatenate([u, (u & 0xFFFF0000) | 0x8000, (u & 0xFFFF0000) | 0x7FFF])
    x = u.view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < 3.3e38)]
    x = x[: len(x) // 64 * 64].reshape(-1, 64)
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
    ok("convert", src, tmp_path / "out", "--type", "bf16", "--device", device)
    assert read_folder(tmp_path / "out")["a.weight"].data == bf16_bits(x).tobytes()


@both
def test_row27_overflow_is_refused(tmp_path, device):
    """What float16, or a float16 block scale, cannot hold is refused by name; a wider type is the way."""
    x = normal(1, 4, 64)
    x[2, 5:8] = 7e4, 1e30, -7e4
    src = gg(tmp_path / "in.gguf", {"fine.weight": bf16(normal(2, 4, 64)), "big.weight": bf16(x)})
    for kind in BLOCK_TYPES:
        refuses(tmp_path, src, kind, says=["'big.weight'", "32 values", "element 128", kind, "65504"], device=device, also_info=False)
    before = tree(tmp_path)
    fails(3, "convert", src, tmp_path / "out.gguf", "--type", "f16", "--device", device,
          says=["'big.weight'", "3 values", "element 133", "65504"])
    assert tree(tmp_path) == before
    quantize(src, tmp_path / "out.gguf", "q8_0", "--tensor-type", "^big=bf16", device=device)
    out = read_gg(tmp_path / "out.gguf").tensors
    assert out["big.weight"] == bf16(x) and out["fine.weight"].dtype == "Q8_0"
    # The limits: q8_0's scale is amax / 127, q4_0's amax / 8, and of q4_1 the minimum itself is stored.
    for kind, good, bad in [("q8_0", 65504 * 127, 65520 * 127), ("q4_0", 65504 * 8, 65520 * 8), ("q5_0", 65504 * 16, 65520 * 16),
                            ("q4_1", 65504, 65520), ("q5_1", 65504, 65520)]:
        for v, fits in (good, True), (bad, False):
            block = np.where(np.arange(32) == 3, -v, 0).astype(np.float32)[None].repeat(2, 0)
            gg(src, {"edge.weight": f32(block)})
            if fits:
                quantize(src, tmp_path / "edge.gguf", kind, device=device)
                y = decode(read_gg(tmp_path / "edge.gguf").tensors["edge.weight"])
                assert y[0, 3] == pytest.approx(-v, rel=1e-3) and np.isfinite(y).all()
                (tmp_path / "edge.gguf").unlink()
            else:
                refuses(tmp_path, src, kind, says="'edge.weight'", device=device, also_info=False, out=tmp_path / "no.gguf")
    # Integer types of a float16 model have float16 scales; of a bfloat16 model, bfloat16 ones.
    src = st(tmp_path / "in.safetensors", {"big.weight": bf16(x)})
    quantize(src, tmp_path / "int", "i8", device=device)
    check_int(read_folder(tmp_path / "int"), config_of(tmp_path / "int"), "big", values(bf16(x)), "BF16", "i8")


@both
def test_row27_largest_floats(tmp_path, device):
    """Near the extremes of float32: a range beyond the largest float still gives finite scales."""
    top = 0.99 * float(np.finfo(np.float32).max)
    x = np.stack([np.linspace(-top, top, 64), np.full(64, top), np.full(64, -top)]).astype(np.float32)
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(x)})
    for kind in "i8", "i8_asym", "i4_asym_g32", "i8_asym_tensor":
        quantize(src, tmp_path / kind, kind, device=device)
        w = check_int(read_folder(tmp_path / kind), config_of(tmp_path / kind), "a", x, "F32", kind)
        assert np.isfinite(w.scale).all()
    src = st(tmp_path / "in.safetensors", {"a.weight": f32(np.minimum(np.abs(x.astype(np.float64)) / 0.99, np.finfo(np.float32).max))})
    refuses(tmp_path, src, "i8", says=["'a.weight'", "f32"], device=device, also_info=False, out=tmp_path / "no")


def e4m3(bits):
    b = np.asarray(bits, int)
    e, m = b >> 3 & 15, b & 7
    v = np.where(e == 0, m * 2.0**-9, (8 + m) * 2.0 ** (e - 10.0))
    return (np.where(b & 128, -v, v)).astype(np.float32)


def test_row30_float8_blocks(tmp_path):
    """128 x 128 blocks with ragged edges, one scale a row, and one for all."""
    rng = np.random.default_rng(4)
    codes = rng.choice([b for b in range(256) if b & 127 != 127], (200, 300))
    x = e4m3(codes)
    block = np.array([[0.5, 2, 3], [1e-3, 7, 0.25]], np.float32)
    rows = rng.uniform(0.1, 2, (200, 1)).astype(np.float32)
    cases = {"weight_scale_inv": (block, np.repeat(np.repeat(block, 128, 0)[:200], 128, 1)[:, :300]),
             "weight_scale": (rows, rows), "weight_scale_inv ": (np.float32([2.5]), np.float32(2.5))}
    for suffix, (scale, factor) in cases.items():
        src = st(tmp_path / "in.safetensors", {"m.weight": raw("F8_E4M3", codes), "m." + suffix.strip(): f32(scale)})
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        ok("convert", src, tmp_path / "out", "--type", "f32", "--device", "ref")
        out = read_folder(tmp_path / "out")
        assert list(out) == ["m.weight"] and np.array_equal(values(out["m.weight"]), x * factor)
        for device in DEVICES:
            shutil.rmtree(tmp_path / "int", ignore_errors=True)
            quantize(src, tmp_path / "int", "i8", device=device)
            check_int(read_folder(tmp_path / "int"), config_of(tmp_path / "int"), "m", x * factor, "F32", "i8")
    src = st(tmp_path / "in.safetensors", {"m.weight": raw("F8_E5M2", [[0x3C, 0xBC, 0x01, 0x7B]]), "m.weight_scale": f32([2.0])})
    shutil.rmtree(tmp_path / "out")
    ok("convert", src, tmp_path / "out", "--type", "f32", "--device", "ref")
    assert values(read_folder(tmp_path / "out")["m.weight"]).tolist() == [[2.0, -2.0, 2.0**-15, 57344.0 * 2]]


@both
def test_row31_every_dtype(tmp_path, device):
    """What is no weight is copied byte for byte; float64 weights become float32."""
    rng = np.random.default_rng(1)
    opaque = {"position_ids": raw("I64", [np.arange(512)]), "mask": T("BOOL", (3, 5), bytes([1, 0] * 7 + [1])),
              "u8": raw("U8", rng.integers(0, 256, 77)), "i8": raw("I8", rng.integers(-128, 128, (7, 11))),
              "u16": raw("U16", rng.integers(0, 65536, 9)), "u32": raw("U32", rng.integers(0, 2**32, 9)),
              "u64": raw("U64", [2**64 - 1, 0]), "i16": raw("I16", rng.integers(-32768, 32768, 9)),
              "i32": raw("I32", [[-2**31, 2**31 - 1]]), "scalar": f32(np.float32(3.25)), "int_scalar": raw("I64", 7),
              "empty": f32(np.zeros((0, 5))), "empty.weight": f16(np.zeros((0, 5))), "norm.bias": f16([1, 2, 3])}
    x = rng.standard_normal((6, 64))
    src = st(tmp_path / "in.safetensors", opaque | {"m.weight": raw("F64", x), "d": raw("F64", [1 / 3, 1e-300])})
    r = quantize(src, tmp_path / "out", "i8", device=device)
    out = read_folder(tmp_path / "out")
    for name, t in opaque.items():
        assert out[name] == t, name
    assert out["d"] == f32([1 / 3, 0])
    check_int(out, config_of(tmp_path / "out"), "m", x.astype(np.float32), "F32", "i8")
    ok("verify", src, tmp_path / "out")
    # GGUF: integers and float64 have type numbers of their own.
    tensors = {"i8": raw("I8", np.arange(5)), "i16": raw("I16", np.arange(5)), "i32": raw("I32", np.arange(5)),
               "i64": raw("I64", np.arange(5)), "m.weight": raw("F64", x), "v": raw("F64", [1 / 3]), "s": f32(np.float32(1))}
    gguf = gg(tmp_path / "in.gguf", tensors)
    quantize(gguf, tmp_path / "out.gguf", "q8_0", device=device)
    got = read_gg(tmp_path / "out.gguf").tensors
    for name in "i8", "i16", "i32", "i64", "s":
        assert got[name] == tensors[name]
    assert got["v"] == f32([1 / 3])
    assert np.array_equal(blocks(got["m.weight"])["q"], encode_blocks("q8_0", x.astype(np.float32))["q"])


# ---- verify ----

def test_verify_finds_damage(tmp_path):
    """A scale that is not finite, a missing tensor, a changed norm, another shape: exit code 1 or 3."""
    tensors = {"a.weight": f32(normal(1, 8, 64)), "b_norm.weight": f32(normal(2, 64)), "ids": raw("I32", np.arange(4))}
    src = gg(tmp_path / "in.gguf", tensors)
    quantize(src, tmp_path / "out.gguf", "q8_0")
    good = read_gg(tmp_path / "out.gguf").tensors
    bad = tmp_path / "bad.gguf"
    for name, at, byte in ("a.weight", 1, 0x7C), ("b_norm.weight", 2, 0x55), ("ids", 0, 9):
        data = bytearray(good[name].data)
        data[at] = byte
        if name == "a.weight":
            data[0] = 0  # float16's infinity
        gg(bad, good | {name: T(good[name].dtype, good[name].shape, bytes(data))})
        r = fails(1, "verify", src, bad)
        assert any(name in line and ("NOT FINITE" in line or "BAD" in line or "-inf" in line or name == "b_norm.weight")
                   for line in r.stdout.splitlines()), r.stdout
    gg(bad, {n: t for n, t in good.items() if n != "b_norm.weight"})
    fails(1, "verify", src, bad, says="'b_norm.weight'")
    gg(bad, good | {"a.weight": T("Q8_0", (7, 64), good["a.weight"].data[: 7 * 68])})
    fails(3, "verify", src, bad, says="'a.weight'")
    ok("verify", src, tmp_path / "out.gguf")
    report = json.loads(ok("verify", src, tmp_path / "out.gguf", "--json").stdout)
    assert report["ok"] and report["n_compared"] == 3
    st(tmp_path / "in.safetensors", {"m.weight": f32(normal(1, 8, 64))})
    quantize(tmp_path / "in.safetensors", tmp_path / "out", "i4_g32")
    t = read_folder(tmp_path / "out")
    for value in np.inf, np.nan:
        scale = values(t["m.weight_scale"]).copy()
        scale[3, 1] = value
        st(tmp_path / "out" / "model.safetensors", t | {"m.weight_scale": f32(scale)})
        fails(1, "verify", tmp_path / "in.safetensors", tmp_path / "out")


# ---- the same bytes everywhere ----

def outputs(tmp_path, src, out, kind, runs):
    """The hashes of several runs' outputs, which must be one."""
    seen = set()
    for i, (device, more, env) in enumerate(runs):
        path = tmp_path / f"run{i}-{out}"
        quantize(src, path, kind, *more, device=device, env=env)
        seen.add(sha(path) if path.is_file() else json.dumps({k.decode(): v for k, v in tree(path).items()}))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert len(seen) == 1


@pytest.mark.parametrize("kind", ["q4_0", "q5_1", "i4_asym_g64", "i8_asym_tensor"])
def test_row74_row17_deterministic(tmp_path, kind):
    """Runs, threads, memory bounds and devices: one file. The tensor is larger than a tile."""
    tensors = {"a.weight": f16(normal(1, 4096, 1024)), "b.weight": bf16(normal(2, 333, 320)), "c.weight": f32(normal(3, 70, 4096))}
    out = "out.gguf" if kind[0] == "q" else "out"
    src = (gg if kind[0] == "q" else st)(tmp_path / ("in.gguf" if kind[0] == "q" else "in.safetensors"), tensors)
    runs = [(d, ["--threads", n], None) for d in DEVICES for n in ("1", "2", "16")]
    runs += [(d, ["--max-mem", m], None) for d in DEVICES for m in ("16M", "20M", "2G")]
    runs += [("cpu", [], None)] * 3 + [("cpu", [], {"CLQ_TEST_DISCRETE": "1"}), ("cpu", ["--max-mem", "16M"], {"CLQ_TEST_DISCRETE": "1"})]
    outputs(tmp_path, src, out, kind, runs)


def test_row74_deterministic_models(tmp_path):
    llama(tmp_path / "in", layers=2, dtype="BF16")
    for kind, out in ("q8_0", "out.gguf"), ("i4_g32", "out"):
        outputs(tmp_path, tmp_path / "in", out, kind,
                [(d, ["--threads", n], None) for d in DEVICES for n in ("1", "2", "16")] + [("cpu", [], {"CLQ_TEST_DISCRETE": "1"})])


@pytest.mark.parametrize("kind,broken", [("q8_0", "q8_0"), ("q4_1", "all"), ("i8", "i8"), ("i4_asym_g32", "all")])
def test_row68_self_test_falls_back(tmp_path, kind, broken):
    """A kernel that fails its self-test is not used: one warning, the same bytes."""
    gguf = kind[0] == "q"
    tensors = {"a.weight": f32(normal(1, 100, 96)), "b.weight": f32(normal(2, 100, 96))}
    src = (gg if gguf else st)(tmp_path / ("in.gguf" if gguf else "in.safetensors"), tensors)
    out = [tmp_path / (n + (".gguf" if gguf else "")) for n in ("good", "fallen")]
    assert not warnings_of(quantize(src, out[0], kind, device="cpu"))
    r = quantize(src, out[1], kind, device="cpu", env={"CLQ_TEST_BREAK_KERNEL": broken})
    assert len(warnings_of(r)) == 1 and "self-test" in warnings_of(r)[0] and kind.split("_g")[0] in warnings_of(r)[0]
    assert (sha(out[0]) == sha(out[1])) if gguf else (tree(out[0]) == tree(out[1]))
    if kind == "q8_0":
        other = quantize(src, tmp_path / "other.gguf", "q4_0", device="cpu", env={"CLQ_TEST_BREAK_KERNEL": broken})
        assert not warnings_of(other)


@pytest.mark.parametrize("damage", ["wrong", "syntax", "missing"])
def test_row72_broken_kernel_source(tmp_path, damage):
    """A kernel that does not build, or computes something else: the reference, with the reason."""
    shutil.copytree(REPO / "kernels", tmp_path / "tree" / "kernels")
    (tmp_path / "tree" / "include").mkdir()
    shutil.copy(REPO / "include" / "clquant_blocks.h", tmp_path / "tree" / "include")
    env = {"CLQ_KERNEL_DIR": str(tmp_path / "tree" / "kernels")}
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(1, 100, 96))})
    quantize(src, tmp_path / "ref.gguf", "q8_0")
    assert not warnings_of(quantize(src, tmp_path / "good.gguf", "q8_0", device="cpu", env=env))
    file = tmp_path / "tree" / "kernels" / "formats" / "q8_0.cl"
    text = file.read_text()
    assert "127.0f" in text
    if damage == "wrong":
        file.write_text(text.replace("127.0f", "126.0f"))
    elif damage == "syntax":
        file.write_text(text + "\n#error this_is_the_marker\n")
    else:
        file.unlink()
    r = quantize(src, tmp_path / "broken.gguf", "q8_0", device="cpu", env=env)
    assert len(warnings_of(r)) == 1
    says = {"wrong": "gives other results", "syntax": "this_is_the_marker", "missing": "q8_0.cl"}[damage]
    assert says in r.stderr, r.stderr
    assert sha(tmp_path / "ref.gguf") == sha(tmp_path / "good.gguf") == sha(tmp_path / "broken.gguf")

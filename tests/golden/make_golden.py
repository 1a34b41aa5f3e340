#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the golden vectors of this folder with an encoder that is not clquant's.

    make_golden.py        writes input.f32, NAME.bin, NAME.f32 and the hashes in README.md

Needs the PyPI packages libgguf 0.2.2 and numpy. Running it again must not change a byte. The files of iq1_m are
written only where GGML_BASE names a libggml-base.so (README.md says which).
"""
import ctypes
import hashlib
import os
import pathlib

import libgguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
GGML_TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8,
              "q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13, "q6_K": 14,
              "iq4_nl": 20, "iq4_xs": 23, "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40, "q1_0": 41}
CODEBOOKS = {"iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19, "iq3_s": 21, "iq2_s": 22}
NEED_IMPORTANCE = ("iq2_xxs", "iq2_xs", "iq1_s")  # made with importance 1
BLOCK, SUPER = 32, 256  # of the simple types and of the others


def blocks():
    """Yields float32 blocks of 32 values; what they are for stands beside them."""
    rng = np.random.Generator(np.random.PCG64(20240229))
    normal = lambda: rng.standard_normal(BLOCK)
    for _ in range(48):
        yield normal()
    for i in range(10):  # an outlier, in every part of the block, of both signs
        x = normal()
        x[(i * 7) % BLOCK] *= (-1) ** i * 300
        yield x
    yield np.zeros(BLOCK)
    yield -np.zeros(BLOCK)
    yield np.where(np.arange(BLOCK) % 2, 0.0, -0.0)
    for c in (9.0, -9.0, 1.0, -1.0, 1 / 3, 65504.0, -65504.0, 1e-3):  # constant
        yield np.full(BLOCK, c)
    for e in (10, 20, 30, 36, 37, 38, 39, 40, 41, 42, 43, 44):  # tiny, down to subnormals
        yield normal() * 10.0**-e
        yield np.abs(normal()) * 10.0**-e
    for bits in (1, 2, 3, 7, 31, 0x7FFFFF):  # the smallest subnormals, as integers
        yield np.resize(np.array([bits, 0, bits >> 1], np.uint32), BLOCK).view(np.float32)
    for f16 in (-24.0, -24.9, -25.1, -14.0, -15.0):  # scales near float16's smallest
        yield normal() * 2.0**f16
        yield normal() * 127 * 2.0**f16
    k = np.arange(BLOCK)
    for top in (8.0, 16.0, 15.0, 31.0, 127.0):  # ties: the step is 1, the values are halves
        for sign in (1, -1):
            x = (k % 16) + 0.5
            x[0] = top
            yield sign * x
            x = k - 15.5
            x[5] = top
            x[9] = 0
            yield sign * x
    yield np.minimum(k, 15) * 1.0  # min 0, max 15 and 31: steps of 1
    yield k * 1.0
    yield np.append(k[:-1] + 0.5, 0.0)
    yield np.where(k % 2, 0.75, -0.75)  # the largest magnitude on both sides, either first
    yield np.where(k % 2, -1.5, 1.5)
    for n in range(-3, 9):  # just below and just above 2^n
        below = np.nextafter(np.float32(2.0**n), np.float32(0), dtype=np.float32)
        yield np.where(k % 3 == 0, below, -(2.0**n))
        yield np.where(k % 3 == 0, below, np.float32(2.0**n) * rng.random(BLOCK))
    yield rng.random(BLOCK)  # one sign
    yield -15.0 - 7.0 * rng.random(BLOCK)
    yield 1000.0 + rng.random(BLOCK) * 1e-3  # range far below the value
    for _ in range(6):
        yield normal().astype(np.float16)
        yield (normal().astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    for amax in (65504.0, 65519.0, 65504.0 * 7, 65519.9 * 8, 65504.0 * 15, 65504.0 * 16, 65504.0 * 127):
        x = normal()  # the scale is float16's largest, or (some types) just beyond
        yield x / np.abs(x).max() * amax
        yield -np.abs(x) / np.abs(x).max() * amax


def super_blocks():
    """Yields blocks of 256 values, each of one kind; blocks() in groups of eight are the mixed ones."""
    rng = np.random.Generator(np.random.PCG64(20240301))
    k = np.arange(SUPER)
    for scale in (1.0, 0.02, 100.0, 1e-6, 1e-12, 1e-40):
        yield rng.standard_normal(SUPER) * scale
        yield rng.random(SUPER) * scale
        yield -rng.random(SUPER) * scale
    yield rng.standard_normal(SUPER) * np.exp2(k // 16 - 8.0)  # sub-blocks of very different sizes
    yield rng.standard_normal(SUPER) * (k // 16 % 2)
    yield rng.standard_normal(SUPER) ** 5
    yield rng.integers(-8, 9, SUPER) * 0.25
    yield np.full(SUPER, 0.3)
    yield np.where(k == 100, 1.0, 0.0)
    yield k * 1.0
    yield np.where(k % 2, 1.5, -1.5)


def q2_0(x):
    """Codes and values of q2_0, which libgguf does not have: float32 [n, 64] to bytes [n, 18], float32."""
    with np.errstate(all="ignore"):
        d = np.abs(x).max(1, keepdims=True)
        inverse = np.where(d > 0, np.float32(1) / d, np.float32(0))
        v = (x * inverse).astype(np.float64)
        away = np.where(np.isfinite(inverse), np.trunc(v + np.copysign(0.5, v)), -1)
        q = np.clip(np.nan_to_num(away, nan=-1).astype(np.int64) + 1, 0, 3).astype(np.uint8)
        d16 = d.astype(np.float16)
        values = (q.astype(np.float32) - 1) * d16.astype(np.float32)
    packed = q[:, 0::4] | q[:, 1::4] << 2 | q[:, 2::4] << 4 | q[:, 3::4] << 6
    return np.concatenate([d16.view(np.uint8), packed], 1), values


def iq1_m(x, path):
    """Codes and values of iq1_m by ggml's own library; libgguf sums in an older order."""
    ggml = ctypes.CDLL(path)
    codes = np.zeros((len(x), 56), np.uint8)
    ggml.ggml_quantize_chunk(29, x.ctypes.data_as(ctypes.c_void_p), codes.ctypes.data_as(ctypes.c_void_p),
                             ctypes.c_int64(0), ctypes.c_int64(len(x)), ctypes.c_int64(SUPER), None)
    return codes.tobytes(), libgguf.dequantize_rows_raw(29, codes.tobytes(), *x.shape)


def main():
    with np.errstate(all="ignore"):
        rows = [np.asarray(b).astype(np.float32) for b in (*blocks(), *super_blocks())]
        simple = [b for b in rows if len(b) == BLOCK]
        rows += [np.zeros(BLOCK, np.float32)] * (-len(simple) % (SUPER // BLOCK))
        rows.sort(key=len)  # stable: whole super-blocks behind the blocks of 32
        x = np.concatenate(rows).reshape(-1, SUPER)
    files = {"input.f32": x.tobytes()}
    for name, ggml in GGML_TYPES.items():
        codes = libgguf.quantize_rows(x, ggml)
        files[f"{name}.bin"] = codes.tobytes()
        files[f"{name}.f32"] = libgguf.dequantize_rows_raw(ggml, codes.tobytes(), *x.shape)
    for name, ggml in CODEBOOKS.items():
        codes = libgguf.quantize_rows(x, ggml, np.ones(SUPER, np.float32) if name in NEED_IMPORTANCE else None)
        files[f"{name}.bin"] = codes.tobytes()
        files[f"{name}.f32"] = libgguf.dequantize_rows_raw(ggml, codes.tobytes(), *x.shape)
    if os.environ.get("GGML_BASE"):
        files["iq1_m.bin"], files["iq1_m.f32"] = iq1_m(x, os.environ["GGML_BASE"])
    else:
        files |= {name: (HERE / name).read_bytes() for name in ("iq1_m.bin", "iq1_m.f32")}
    codes, values = q2_0(x.reshape(-1, 64))
    files["q2_0.bin"], files["q2_0.f32"] = codes.tobytes(), values.tobytes()
    with np.errstate(all="ignore"):
        files["f16.bin"] = x.astype(np.float16).tobytes()
    u = x.view(np.uint32).astype(np.uint64)  # round to nearest, ties to even; no NaN in x
    files["bf16.bin"] = ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16).tobytes()

    lines = []
    for name, data in sorted(files.items()):
        assert len(data) < 100_000
        (HERE / name).write_bytes(data)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    readme = HERE / "README.md"
    head, _, _ = readme.read_text().partition("```sha256\n")
    readme.write_text(head + "```sha256\n" + "".join(lines) + "```\n")
    print(f"{x.size} values, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Helpers of the command-line tests: running the program, and readers, writers and decoders of the
containers that share no code with it (numpy only)."""
import hashlib
import json
import os
import pathlib
import struct
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
CLQ = os.environ.get("CLQ") or str(REPO / "build" / "clquant")

slow = pytest.mark.skipif(os.environ.get("CLQ_SLOW") != "1", reason="CLQ_SLOW=1 runs it")
BLOCK_TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
DEVICES = ["ref", "cpu"]
both = pytest.mark.parametrize("device", DEVICES)


# ---- running ----

def run(*args, env=None, timeout=300, text=True, **more):
    if "--threads" in args:  # PoCL's, too, which the suite limits otherwise
        env = {"POCL_MAX_PTHREAD_COUNT": str(args[args.index("--threads") + 1]), **(env or {})}
    return subprocess.run([CLQ, *[os.fspath(a) if isinstance(a, os.PathLike) else a for a in args]],
                          env={**os.environ, **(env or {})}, capture_output=True, text=text,
                          errors="surrogateescape" if text else None, timeout=timeout, **more)


def ok(*args, **more):
    r = run(*args, **more)
    assert r.returncode == 0, (args, r.returncode, r.stderr)
    return r


def quantize(src, out, kind, *more, device="ref", mix=False, **options):
    """mix: the mix of that name where there is one, else the type everywhere."""
    return ok("quantize", src, out, "--type", kind, "--device", device, *([] if mix else ["--pure"]), *more, **options)


def plan(src, out, kind, *more, command="quantize", mix=False):
    """The plan as JSON: nothing is written."""
    r = ok(command, src, out, "--type", kind, "--dry-run", "--json", *([] if mix or command != "quantize" else ["--pure"]), *more)
    return json.loads(r.stdout)


def table(p):
    """Tensor -> type of a plan."""
    return {t["name"]: t["to"] for t in p["tensors"]}


def warnings_of(r):
    return [line for line in r.stderr.splitlines() if line.startswith("clquant: warning: ")]


def fails(code, *args, says=(), **more):
    """The exit code (never a signal) and parts of the message; one line that starts with the name."""
    r = run(*args, **more)
    assert r.returncode == code, (args, r.returncode, r.stderr)
    assert any(line.startswith("clquant: ") for line in r.stderr.splitlines()), r.stderr
    for part in [says] if isinstance(says, str) else says:
        assert str(part) in r.stderr, (part, r.stderr)
    return r


def tree(folder):
    """Every entry below a folder with what it holds: equal before and after means untouched."""
    entries = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        key = os.fsencode(path.relative_to(folder))
        if path.is_symlink():
            entries[key] = ("link", os.readlink(path))
        elif path.is_file():
            entries[key] = ("file", sha(path))
        else:
            entries[key] = ("other", path.stat().st_mode)
    return entries


def refuses(tmp_path, src, kind=None, code=3, says=(), out=None, device="ref", also_info=True, more=()):
    """quantize and info refuse src; nothing appears or changes in tmp_path."""
    if kind is None:
        kind = "q8_0" if str(src).endswith(".gguf") else "i8"
    if out is None:
        out = tmp_path / ("out.gguf" if kind[0] != "i" else "out")
    before = tree(tmp_path)
    r = fails(code, "quantize", src, out, "--type", kind, "--device", device, *more, says=says)
    if also_info:
        fails(3, "info", src, says=says)
    assert tree(tmp_path) == before
    return r


def sha(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for piece in iter(lambda: f.read(1 << 20), b""):
            h.update(piece)
    return h.hexdigest()


def size_of(path):
    path = pathlib.Path(path)
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def cc(tmp_path, source, name="preload.so"):
    """A small shared library, to be preloaded."""
    c, so = tmp_path / (name + ".c"), tmp_path / name
    c.write_text(source)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", so, c, "-ldl"], check=True)
    c.unlink()
    return so


# ---- tensors ----

@dataclass
class T:
    """A stored tensor: dtype in safetensors' words, row-major shape, little-endian bytes."""
    dtype: str
    shape: tuple
    data: bytes


NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
         "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


def f32(a):
    a = np.asarray(a, np.float32)
    return T("F32", a.shape, a.astype("<f4").tobytes())


def f16(a):
    a = np.asarray(a)
    return T("F16", a.shape, a.astype("<f2").tobytes())


def bf16_bits(a):
    """To nearest, ties to even."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("<u2")


def bf16_values(bits):
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


def bf16(a):
    a = np.asarray(a, np.float32)
    return T("BF16", a.shape, bf16_bits(a).tobytes())


def like(dtype, a):
    return {"F32": f32, "F16": f16, "BF16": bf16}[dtype](a)


def raw(dtype, a):
    a = np.ascontiguousarray(a, NUMPY[dtype])
    return T(dtype, np.shape(a), a.tobytes())


def values(t):
    """The float32 values of a plain tensor."""
    a = np.frombuffer(t.data, NUMPY[t.dtype])
    if t.dtype == "BF16":
        a = bf16_values(a)
    return a.reshape(t.shape).astype(np.float32) if t.dtype in ("F32", "F16", "BF16", "F64") else a.reshape(t.shape)


def normal(seed, *shape, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


# ---- safetensors ----

def raw_st(path, header, body=b"", hlen=None):
    """header: a dict, or the bytes themselves."""
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h) if hlen is None else hlen) + h + body)
    return path


def st(path, tensors, metadata=None):
    header, body = {}, []
    at = 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, t in tensors.items():
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        body.append(t.data)
        at += len(t.data)
    return raw_st(path, header, b"".join(body))


def read_st(path):
    """Name -> T, checked: ranges without gaps or overlaps, and aligned to their elements."""
    with open(path, "rb") as f:
        blob = f.read()
    n = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + n])
    assert n % 8 == 0
    body, tensors, ranges = blob[8 + n:], {}, []
    for name, e in header.items():
        if name == "__metadata__":
            continue
        begin, end = e["data_offsets"]
        size = int(np.prod(e["shape"], dtype=np.int64)) * np.dtype(NUMPY[e["dtype"]]).itemsize
        assert end - begin == size, name
        assert begin % np.dtype(NUMPY[e["dtype"]]).itemsize == 0, name
        ranges.append((begin, end))
        tensors[name] = T(e["dtype"], tuple(e["shape"]), body[begin:end])
    ranges.sort()
    assert [b for b, _ in ranges] == [0, *[e for _, e in ranges][:-1]][:len(ranges)]
    assert (ranges[-1][1] if ranges else 0) == len(body)
    return tensors


def st_metadata(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        return json.loads(f.read(n)).get("__metadata__")


def read_folder(folder):
    """All tensors of a Hugging Face style folder, through its index when it has one."""
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_st(folder / "model.safetensors")
    place = json.loads(index.read_text())["weight_map"]
    tensors = {}
    for name in sorted(set(place.values())):
        for key, t in read_st(folder / name).items():
            assert place[key] == name and key not in tensors
            tensors[key] = t
    assert sorted(tensors) == sorted(place)
    return tensors


def config_of(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text())


# ---- compressed-tensors ----

def unpack_bits(words, bits, n):
    """n codes of a dense little-endian bit stream along the last axis of int32 words."""
    w = np.ascontiguousarray(words).view(np.uint32)
    stream = np.unpackbits(w.view(np.uint8), axis=-1, bitorder="little")[..., :n * bits]
    stream = stream.reshape(*stream.shape[:-1], n, bits)
    return (stream.astype(np.int64) << np.arange(bits)).sum(-1)


def scheme_of(config, module):
    """The weights' settings of a module: its own name, then re:, then the class Linear."""
    import re
    found = {}
    for group in config["quantization_config"]["config_groups"].values():
        for target in group["targets"]:
            if target == module:
                found[3] = group
            elif target.startswith("re:") and re.match(target[3:], module):
                found[2] = group
            elif target == "Linear":
                found[1] = group
    return found[max(found)]


@dataclass
class Int:
    """A weight of the integer family, taken apart. q: signed codes as [rows, cols]; scale and zero as
    [rows, groups], or [1, 1] for one of all."""
    shape: tuple
    bits: int
    q: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    symmetric: bool

    def decode(self):
        rows, cols = self.q.shape
        per = cols // self.scale.shape[1]
        s = np.repeat(np.broadcast_to(self.scale, (rows, self.scale.shape[1])), per, 1)
        z = np.repeat(np.broadcast_to(self.zero, (rows, self.zero.shape[1])), per, 1)
        return (s * (self.q - z).astype(np.float32)).astype(np.float32).reshape(self.shape)


def integer(tensors, config, module):
    """compressed-tensors' int-quantized and pack-quantized layouts; convolutions and experts as the
    scales' shape says."""
    group = scheme_of(config, module)
    w = group["weights"]
    bits, symmetric = w["num_bits"], w["symmetric"]
    packed = f"{module}.weight_packed" in tensors
    assert group["format"] == ("pack-quantized" if packed else "int-quantized")
    codes = tensors[f"{module}.weight_packed" if packed else f"{module}.weight"]
    scale_t = tensors[f"{module}.weight_scale"]
    zero_t = tensors.get(f"{module}.weight_zero_point")
    assert (zero_t is None) == symmetric
    shape = tuple(int(v) for v in values(tensors[f"{module}.weight_shape"])) if packed else codes.shape
    lead = len(scale_t.shape) - 1 if w["strategy"] != "tensor" else 1
    rows, cols = int(np.prod(shape[:lead])), int(np.prod(shape[lead:]))
    scale = values(scale_t).reshape(1, 1) if w["strategy"] == "tensor" else values(scale_t).reshape(rows, -1)
    if w["strategy"] == "group":
        assert scale.shape[1] * w["group_size"] == cols
    else:
        assert scale.shape[1] == 1
    if packed:
        assert codes.dtype == "I32" and codes.shape == shape[:lead] + (-(-cols * bits // 32),)
        q = unpack_bits(values(codes).reshape(rows, -1), bits, cols) - (1 << (bits - 1))
    else:
        assert codes.dtype == "I8" and bits == 8
        q = values(codes).reshape(rows, cols).astype(np.int64)
    zero = np.zeros(scale.shape, np.int64)
    if zero_t is not None and packed:
        words = values(zero_t)  # packed along the rows
        zero = (unpack_bits(np.ascontiguousarray(words.T), bits, scale.shape[0]) - (1 << (bits - 1))).T
    elif zero_t is not None:
        assert zero_t.dtype == "I8"
        zero = values(zero_t).reshape(scale.shape).astype(np.int64)
    return Int(shape, bits, q, scale, zero, symmetric)


# ---- GGUF ----

GGML = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "I8": 24, "I16": 25, "I32": 26,
        "I64": 27, "F64": 28, "BF16": 30, "IQ4_NL": 20, "IQ4_XS": 23, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39, "Q1_0": 41, "Q2_0": 42}
GGML_NAME = {v: k for k, v in GGML.items()}
BLOCK = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84),
         "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
         "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "Q1_0": (128, 18), "Q2_0": (64, 18)}
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALAR = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q",
          F64: "<d"}


def gs(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def ti(name, dims, typ=0, off=0, nd=None):
    """One tensor info; dims in the file's order, the contiguous one first."""
    return (gs(name) + struct.pack("<I", len(dims) if nd is None else nd) +
            b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", typ, off))


def kv(key, typ, v):
    return gs(key) + struct.pack("<I", typ) + kv_value(typ, v)


def kv_value(typ, v):
    """v of an array: (element type, list)."""
    if typ == STRING:
        return gs(v)
    if typ == ARRAY:
        element, items = v
        return struct.pack("<IQ", element, len(items)) + b"".join(kv_value(element, i) for i in items)
    return struct.pack(SCALAR[typ], v)


def raw_gg(path, infos=(), kvs=(), body=b"", nt=None, nk=None, ver=3, order="<", alignment=32):
    h = b"GGUF" + struct.pack(order + "IQQ", ver, len(infos) if nt is None else nt, len(kvs) if nk is None else nk)
    h += b"".join(kvs) + b"".join(infos)
    h += b"\0" * (-len(h) % alignment)
    with open(path, "wb") as f:
        f.write(h + body)
    return path


def gg(path, tensors, kvs=(), alignment=32):
    infos, body = [], b""
    for name, t in tensors.items():
        body += b"\0" * (-len(body) % alignment)
        infos.append(ti(name, tuple(reversed(t.shape)), GGML[t.dtype], len(body)))
        body += t.data
    body += b"\0" * (-len(body) % alignment)
    if alignment != 32:
        kvs = [*kvs, kv("general.alignment", U32, alignment)]
    return raw_gg(path, infos, kvs, body, alignment=alignment)


@dataclass
class Gguf:
    kvs: dict       # key -> (type, the value's bytes)
    tensors: dict   # name -> T
    alignment: int

    def value(self, key):
        typ, data = self.kvs[key]
        return data[8:].decode() if typ == STRING else struct.unpack(SCALAR[typ], data)[0]


def read_gg(path):
    with open(path, "rb") as f:
        b = f.read()
    at = 24
    magic, version, n_tensors, n_kvs = struct.unpack("<4sIQQ", b[:24])
    assert magic == b"GGUF" and version == 3

    def take(n):
        nonlocal at
        piece = b[at:at + n]
        assert len(piece) == n
        at += n
        return piece

    def u32():
        return struct.unpack("<I", take(4))[0]

    def u64():
        return struct.unpack("<Q", take(8))[0]

    def skip(typ):
        if typ == STRING:
            take(u64())
        elif typ == ARRAY:
            element, n = u32(), u64()
            for _ in range(n):
                skip(element)
        else:
            take(struct.calcsize(SCALAR[typ]))

    kvs, infos, tensors = {}, [], {}
    for _ in range(n_kvs):
        key = take(u64()).decode("utf-8", "surrogateescape")
        typ = u32()
        begin = at
        skip(typ)
        assert key not in kvs
        kvs[key] = (typ, b[begin:at])
    alignment = struct.unpack("<I", kvs["general.alignment"][1])[0] if "general.alignment" in kvs else 32
    for _ in range(n_tensors):
        name = take(u64()).decode("utf-8", "surrogateescape")
        dims = [u64() for _ in range(u32())]
        infos.append((name, tuple(reversed(dims)), GGML_NAME[u32()], u64()))
    data = at + -at % alignment
    end = 0
    for name, shape, dtype, offset in infos:
        n = int(np.prod(shape, dtype=np.int64))
        size = n // BLOCK[dtype][0] * BLOCK[dtype][1] if dtype in BLOCK else n * np.dtype(NUMPY[dtype]).itemsize
        assert offset % alignment == 0 and offset == end + -end % alignment, name
        end = offset + size
        assert name not in tensors and data + end <= len(b)
        tensors[name] = T(dtype, shape, b[data + offset:data + end])
    assert len(b) == data + end + -end % alignment
    return Gguf(kvs, tensors, alignment)


def blocks(t):
    """The fields of a block type: a dict of d, m, q (codes as stored, unsigned but for q8_0)."""
    size = BLOCK[t.dtype][1]
    b = np.frombuffer(t.data, np.uint8).reshape(-1, size)
    out, at = {}, 2
    out["d"] = b[:, :2].copy().view("<f2").astype(np.float32)
    if t.dtype in ("Q4_1", "Q5_1"):
        out["m"] = b[:, 2:4].copy().view("<f2").astype(np.float32)
        at = 4
    if t.dtype == "Q8_0":
        out["q"] = b[:, 2:].copy().view(np.int8).astype(np.int64)
        return out
    high = np.zeros((len(b), 32), np.int64)
    if t.dtype in ("Q5_0", "Q5_1"):
        high = np.unpackbits(b[:, at:at + 4], axis=1, bitorder="little").astype(np.int64)
        at += 4
    nibbles = b[:, at:]
    out["q"] = np.concatenate([nibbles & 15, nibbles >> 4], 1).astype(np.int64) | high << 4
    return out


def decode(t):
    """float32 values of any tensor of a GGUF file that clquant writes."""
    if t.dtype not in BLOCK:
        return values(t)
    f = blocks(t)
    zero = {"Q4_0": 8, "Q5_0": 16}.get(t.dtype, 0)
    y = f["d"] * (f["q"] - zero).astype(np.float32)
    if "m" in f:
        y = y + f["m"]
    return y.astype(np.float32).reshape(t.shape)


def half(a):
    with np.errstate(over="ignore"):
        return np.asarray(a, np.float32).astype("<f2")


def encode_blocks(kind, x):
    """The stored fields d, m and q of ggml's rules, as its documentation and this project's formats state them."""
    x = np.asarray(x, np.float32).reshape(-1, 32)
    one = np.float32(1)
    if kind == "q8_0":
        d = np.abs(x).max(1, keepdims=True) / np.float32(127)
        v = (x * np.divide(one, d, where=d != 0, out=np.zeros_like(d))).astype(np.float64)
        return {"d": half(d), "q": np.trunc(v + np.copysign(0.5, v)).astype(int)}
    bits = int(kind[1])
    top = 2**bits - 1
    if kind.endswith("0"):
        m = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
        d = m / np.float32(-(2 ** (bits - 1)))
        v = x * np.divide(one, d, where=d != 0, out=np.zeros_like(d)) + np.float32(2 ** (bits - 1) + 0.5)
        return {"d": half(d), "q": np.minimum(np.trunc(v).astype(int), top)}
    low = x.min(1, keepdims=True)
    d = (x.max(1, keepdims=True) - low) / np.float32(top)
    v = (x - low) * np.divide(one, d, where=d != 0, out=np.zeros_like(d)) + np.float32(0.5)
    return {"d": half(d), "m": half(low), "q": np.minimum(np.trunc(v).astype(int), top)}


# ---- integer encoders ----

def rounded_scale(dtype, s):
    s = np.asarray(s, np.float32)
    return {"F32": s, "F16": half(s).astype(np.float32), "BF16": bf16_values(bf16_bits(s))}[dtype]


def next_scale(dtype, s):
    if dtype == "F32":
        return np.nextafter(s, np.float32(np.inf))
    if dtype == "F16":
        return np.nextafter(half(s), np.float16(np.inf)).astype(np.float32)
    return bf16_values(bf16_bits(s) + 1)


def encode_int(x, bits, symmetric, dtype, group=None, one=False):
    """Codes [rows, cols], scales and zero-points [rows, groups] ([1, 1] for one of all)."""
    x = np.asarray(x, np.float32)
    rows, cols = x.shape
    g = x.reshape(1, 1, -1) if one else x.reshape(rows, -1, group or cols)
    low, high = g.min(-1), g.max(-1)
    if symmetric:
        extent, steps, slack = np.maximum(high, -low), np.float32(2 ** (bits - 1) - 1), np.float32(0.5)
    else:
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
        extent, steps = np.float32(0.5) * high - np.float32(0.5) * low, np.float32(0.5) * np.float32(2**bits - 1)
        slack = np.float32(0.25)
    s = rounded_scale(dtype, extent / steps)
    s = np.where(s * (steps + slack) < extent, next_scale(dtype, s), s)
    s = np.where(extent > 0, s, np.float32(0)).astype(np.float32)
    lowest = -(2 ** (bits - 1))
    z = np.zeros(s.shape, int)
    with np.errstate(divide="ignore", invalid="ignore"):
        if not symmetric:
            z = np.clip(np.where(s > 0, lowest - np.rint(low / s), 0), lowest, -lowest - 1).astype(int)
        q = np.where(s[..., None] > 0, np.rint(g / s[..., None]), 0) + z[..., None]
    return np.clip(q, lowest + symmetric, -lowest - 1).astype(int).reshape(rows, cols), s, z


def facts(kind):
    g = kind.rsplit("_g", 1)
    return {"bits": int(kind[1]), "symmetric": "asym" not in kind, "one": kind.endswith("_tensor"),
            "group": int(g[1]) if len(g) == 2 else None}


def check_int(tensors, config, name, stored, dtype, kind):
    w = integer(tensors, config, name)
    x = np.asarray(stored, np.float32).reshape(w.q.shape)
    q, s, z = encode_int(x, dtype=dtype, **facts(kind))
    assert (w.bits, w.symmetric) == (facts(kind)["bits"], facts(kind)["symmetric"])
    assert np.array_equal(w.scale, s), name
    assert np.array_equal(w.zero, z), name
    assert np.array_equal(w.q, q), name
    assert np.isfinite(w.scale).all()
    return w


# ---- models ----

def llama(folder, tied=True, layers=1, embd=64, ffn=96, heads=4, kv_heads=2, vocab=96, dtype="F32", shards=1, extra=None,
          **config):
    """A tiny llama checkpoint with random weights. The tensors that were written."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = embd // heads
    shapes = {"model.embed_tokens.weight": (vocab, embd), "model.norm.weight": (embd,)}
    for i in range(layers):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": (embd,), p + "post_attention_layernorm.weight": (embd,),
                   p + "self_attn.q_proj.weight": (embd, embd), p + "self_attn.k_proj.weight": (kv_heads * head, embd),
                   p + "self_attn.v_proj.weight": (kv_heads * head, embd), p + "self_attn.o_proj.weight": (embd, embd),
                   p + "mlp.gate_proj.weight": (ffn, embd), p + "mlp.up_proj.weight": (ffn, embd),
                   p + "mlp.down_proj.weight": (embd, ffn)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, embd)
    tensors = {name: like(dtype, normal(k, *shape, scale=0.05)) for k, (name, shape) in enumerate(shapes.items())}
    tensors |= extra or {}
    names = list(tensors)
    if shards == 1:
        st(folder / "model.safetensors", tensors, {"format": "pt"})
    else:
        place = {}
        for s in range(shards):
            part = f"model-{s + 1:05}-of-{shards:05}.safetensors"
            st(folder / part, {n: tensors[n] for n in names[s::shards]}, {"format": "pt"})
            place |= {n: part for n in names[s::shards]}
        total = sum(len(t.data) for t in tensors.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": place}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": embd, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5,
        "vocab_size": vocab, "max_position_embeddings": 128, "hidden_act": "silu", "rope_theta": 10000.0,
        "tie_word_embeddings": tied, "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
        "bos_token_id": 0, "eos_token_id": 0, **config}, indent=1))
    tokenizer(folder, vocab)
    return tensors


def tokenizer(folder, vocab):
    """A byte-level BPE of `vocab` tokens, the last by a merge."""
    words = ["<|endoftext|>", *[chr(c) for c in range(33, 33 + vocab - 2)], "ab"]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {w: i for i, w in enumerate(words)}, "merges": ["a b"]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "chat_template": "{% for m in messages %}{{ m.content }}\U0001f600{% endfor %}"}))

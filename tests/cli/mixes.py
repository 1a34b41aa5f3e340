# SPDX-License-Identifier: MIT
"""Tiny models that make the rules of llama-quantize's mixes differ, with importance matrices, for test_mixes.py and
interop/compare_llama_quantize.py. Integer arithmetic only, so that they are the same everywhere."""

import hashlib
import struct
import zlib

import numpy as np

from common import ARRAY, F32, I32, STRING, U32, T, gg, kv, like

# fmt: off
MIXES = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q2_K_S", "Q3_K", "Q3_K_S", "Q3_K_M",
    "Q3_K_L", "Q4_K", "Q4_K_S", "Q4_K_M", "Q5_K", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS",
    "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0",
    "MXFP4_MOE",
]
ALIAS = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
# fmt: on

CALLS = 64  # of the importance matrices; a power of two, so that both formats hold the same values


def bits(name, n):
    """n 32-bit numbers that follow from the name (splitmix64)."""
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) + 1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


def weights(name, *shape):
    """About normal: the sum of four bytes. Exact in float16."""
    r = bits(name, int(np.prod(shape)))
    total = sum((r >> np.uint64(8 * k)) & np.uint64(255) for k in range(4)).astype(np.int64) - 510
    return (total.astype(np.float32) / np.float32(8192)).reshape(shape)


def importance(name, n):
    """Exact multiples of 1/16, some of them 0 and some large."""
    r = bits("importance of " + name, n).astype(np.int64)
    small = r % 61
    return np.where(r % 97 == 0, 4000, small).astype(np.float32) / np.float32(16)


def dense(layers, cols=256, rows=4, ffn=256, fused=False):
    shapes = {}
    for i in range(layers):
        p = f"blk.{i}."
        shapes[p + "attn_norm.weight"] = (cols,)
        if fused:
            shapes[p + "attn_qkv.weight"] = (rows, cols)
        else:
            shapes |= {p + f"attn_{k}.weight": (rows, cols) for k in "qkv"}
        shapes |= {
            p + "attn_output.weight": (rows, cols),
            p + "ffn_up.weight": (rows, cols),
            p + "ffn_down.weight": (rows, ffn),
        }
        if not fused:
            shapes[p + "ffn_gate.weight"] = (rows, cols)
    return shapes


def experts(layers, n, cols=256, rows=3):
    shapes = {}
    for i in range(layers):
        p = f"blk.{i}."
        shapes |= {p + f"attn_{k}.weight": (rows, cols) for k in ("q", "k", "v", "output")}
        shapes |= {p + "ffn_gate_inp.weight": (n, cols)} | {
            p + f"ffn_{k}_exps.weight": (n, rows, cols) for k in ("gate", "up", "down")
        }
    return shapes


TABLES = {"token_embd.weight": (8, 256), "output_norm.weight": (256,)}
OUTPUT = {"output.weight": (8, 256)}

# fmt: off
# name -> (architecture, layers, query heads, key heads, experts, shapes, dtype of matrices)
MODELS = {
    "plain16": ("llama", 16, 8, 8, 0, TABLES | OUTPUT | dense(16), "F16"),
    "grouped_tied": ("llama", 16, 8, 2, 0, TABLES | dense(16), "F32"),
    "experts8": ("llama", 16, 8, 8, 8, TABLES | OUTPUT | experts(16, 8), "F16"),
    "experts4_grouped": ("llama", 8, 8, 2, 4, TABLES | OUTPUT | experts(8, 4), "F16"),
    "layers80": ("llama", 80, 8, 1, 0, TABLES | OUTPUT | dense(80, rows=2), "F16"),
    "fused_falcon": ("falcon", 16, 8, 1, 0, TABLES | OUTPUT | dense(16, fused=True), "F32"),
    # Rows of 288 (blocks of 32 only), 320 (of 64 too) and 80 (of none).
    "odd_rows": ("llama", 8, 8, 8, 0, {"token_embd.weight": (8, 288), "output.weight": (8, 288)} |
                 dense(8, cols=288, ffn=320) | {"blk.3.ffn_down.weight": (4, 80), "blk.4.attn_q.weight": (1, 256)},
                 "F32"),
}
# fmt: on


def write_model(name, path):
    """The GGUF file of a model; its tensors."""
    arch, layers, heads, kv_heads, n_experts, shapes, dtype = MODELS[name]
    number = {
        "block_count": layers,
        "context_length": 128,
        "embedding_length": 256,
        "feed_forward_length": 256,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
    }
    if n_experts:
        number |= {"expert_count": n_experts, "expert_used_count": 2}
    words = ["<s>", "</s>", "<unk>", "a", "b", "c", "d", "e"]
    kvs = [
        kv("general.architecture", STRING, arch),
        kv("general.name", STRING, name),
        *[kv(f"{arch}.{k}", U32, v) for k, v in number.items()],
        kv(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
        kv(f"{arch}.attention.layer_norm_epsilon", F32, 1e-5),
        kv("tokenizer.ggml.model", STRING, "llama"),
        kv("tokenizer.ggml.tokens", ARRAY, (STRING, words)),
        kv("tokenizer.ggml.scores", ARRAY, (F32, [0.0] * len(words))),
        kv("tokenizer.ggml.token_type", ARRAY, (I32, [1] * len(words))),
    ]
    tensors = {n: like(dtype if len(shape) > 1 else "F32", weights(n, *shape)) for n, shape in shapes.items()}
    gg(path, tensors, kvs)
    return tensors


def importances(name):
    """weight -> (mean squares [matrices, cols], counts [matrices]); none for tables; one expert is without data."""
    found = {}
    for weight, shape in MODELS[name][5].items():
        if len(shape) < 2 or not weight.startswith("blk.") or "gate_inp" in weight:
            continue
        matrices = shape[0] if len(shape) == 3 else 1
        values = importance(weight, matrices * shape[-1]).reshape(matrices, shape[-1])
        counts = np.full(matrices, CALLS, np.float32)
        if len(shape) == 3 and weight.startswith("blk.2."):
            values[1], counts[1] = 1, 0
        found[weight] = (values, counts)
    return found


def write_imatrix_gguf(entries, path, kvs=None):
    if kvs is None:
        kvs = [
            kv("general.type", STRING, "imatrix"),
            kv("imatrix.datasets", ARRAY, (STRING, ["made up.txt"])),
            kv("imatrix.chunk_count", U32, 5),
            kv("imatrix.chunk_size", U32, 512),
        ]
    tensors = {}
    for weight, (values, counts) in entries.items():
        sums = values * np.asarray(counts, np.float32)[:, None]
        tensors[weight + ".in_sum2"] = T("F32", sums.shape, sums.astype("<f4").tobytes())
        tensors[weight + ".counts"] = T("F32", (len(counts), 1), np.asarray(counts, "<f4").tobytes())
    gg(path, tensors, kvs)
    return path


def write_imatrix_dat(entries, path, tail=None):
    with open(path, "wb") as f:
        f.write(struct.pack("<i", len(entries)))
        for weight, (values, _) in entries.items():
            raw = (values * np.float32(CALLS)).astype("<f4").tobytes()
            f.write(struct.pack("<i", len(weight)) + weight.encode() + struct.pack("<ii", CALLS, len(raw) // 4) + raw)
        f.write(struct.pack("<ii", 5, len(b"made up.txt")) + b"made up.txt" if tail is None else tail)
    return path


# ---- reading any GGUF file, types that clquant does not decode too ----

# fmt: off
TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 10: "q2_K", 11: "q3_K", 12: "q4_K",
    13: "q5_K", 14: "q6_K", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
    22: "iq2_s", 23: "iq4_xs", 29: "iq1_m", 30: "bf16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 41: "q1_0", 42: "q2_0",
}
SIZES = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22),
    "q5_1": (32, 24), "q8_0": (32, 34), "q2_K": (256, 84), "q3_K": (256, 110), "q4_K": (256, 144), "q5_K": (256, 176),
    "q6_K": (256, 210), "iq2_xxs": (256, 66), "iq2_xs": (256, 74), "iq3_xxs": (256, 98), "iq1_s": (256, 50),
    "iq4_nl": (32, 18), "iq3_s": (256, 110), "iq2_s": (256, 82), "iq4_xs": (256, 136), "iq1_m": (256, 56),
    "tq1_0": (256, 54), "tq2_0": (256, 66), "mxfp4": (32, 17), "q1_0": (128, 18), "q2_0": (64, 18),
}
# fmt: on


def read_all(path):
    """(metadata: key -> (type, value bytes or number), name -> (type, bytes))."""
    with open(path, "rb") as f:
        b = f.read()
    at = 24
    n_tensors, n_kvs = struct.unpack("<QQ", b[8:24])
    fixed = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def u(n):
        nonlocal at
        at += n
        return int.from_bytes(b[at - n : at], "little")

    def text():
        nonlocal at
        n = u(8)
        at += n
        return b[at - n : at]

    def value(kind):
        if kind == STRING:
            return text()
        if kind == ARRAY:
            element, n = u(4), u(8)
            return [value(element) for _ in range(n)]
        return u(fixed[kind])

    kvs, infos, tensors = {}, [], {}
    for _ in range(n_kvs):
        key = text().decode()
        kind = u(4)
        kvs[key] = (kind, value(kind))
    for _ in range(n_tensors):
        name = text().decode()
        n = 1
        for _ in range(u(4)):
            n *= u(8)
        infos.append((name, TYPES[u(4)], n, u(8)))
    alignment = kvs.get("general.alignment", (U32, 32))[1]
    data = at + -at % alignment
    for name, kind, n, offset in infos:
        size = n // SIZES[kind][0] * SIZES[kind][1]
        assert data + offset + size <= len(b), name
        tensors[name] = (kind, b[data + offset : data + offset + size])
    return kvs, tensors


def summary(result):
    """What the golden table holds: general.file_type, the types in order of the names, a hash for each type."""
    if result is None:
        return None
    kvs, tensors = result
    names = sorted(tensors)
    kinds = sorted({kind for kind, _ in tensors.values()})
    hashes = {}
    for kind in kinds:
        h = hashlib.sha256()
        for name in names:
            if tensors[name][0] == kind:
                h.update(tensors[name][1])
        hashes[kind] = h.hexdigest()
    return {
        "file_type": kvs["general.file_type"][1],
        "types": "".join(chr(97 + kinds.index(tensors[n][0])) for n in names),
        "sha256": hashes,
    }

# SPDX-License-Identifier: MIT
"""AWQ ("GEMM") and GPTQ in numpy: packing, unpacking, checkpoints. Codes and zero-points are unsigned here,
[out, in] and [out, groups]."""
import json
import pathlib

import numpy as np

from common import T, f16, raw, st, unpack_bits, values

# Nibble i of an AWQ word holds channel 8 c + AWQ_ORDER[i].
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack_bits(numbers, bits):
    """A dense little-endian bit stream along the last axis, as int32 words."""
    u = np.asarray(numbers).astype(np.uint32)
    stream = (u[..., None] >> np.arange(bits, dtype=np.uint32) & 1).astype(np.uint8)
    return np.packbits(stream.reshape(*u.shape[:-1], -1), axis=-1, bitorder="little").view("<i4")


def words(a):
    return raw("I32", np.ascontiguousarray(a))


def awq_words(a):
    """[n, 8 m] numbers of 4 bits, each word 8 neighbours in AWQ's order."""
    a = np.asarray(a).astype(np.uint32)
    grouped = a.reshape(a.shape[0], -1, 8)[..., AWQ_ORDER]
    return words((grouped << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32).view("<i4"))


def awq_numbers(t):
    w = values(t).view(np.uint32)
    out = np.empty((*w.shape, 8), np.int64)
    for i, place in enumerate(AWQ_ORDER):
        out[..., place] = w >> np.uint32(4 * i) & 15
    return out.reshape(w.shape[0], -1)


def awq(name, q, zero, scale):
    return {f"{name}.qweight": awq_words(q.T), f"{name}.qzeros": awq_words(zero.T), f"{name}.scales": f16(scale.T)}


def gptq(name, q, zero, scale, bits=4, version=1, g_idx=None):
    tensors = {f"{name}.qweight": words(pack_bits(q, bits).T),
               f"{name}.qzeros": words(pack_bits((zero.T - (version == 1)) % (1 << bits), bits)),
               f"{name}.scales": f16(scale.T)}
    if g_idx is not None:
        tensors[f"{name}.g_idx"] = raw("I32", g_idx)
    return tensors


def decode(q, zero, scale, g_idx=None):
    """The weight in float32; g_idx: the group of each column."""
    if g_idx is None:
        g_idx = np.arange(q.shape[1]) // (q.shape[1] // scale.shape[1])
    return scale.astype(np.float32)[:, g_idx] * (q - zero[:, g_idx]).astype(np.float32)


def read(tensors, settings, name):
    """(q, zero, scale, g_idx) of a module: g_idx None where there is none."""
    scale = values(tensors[f"{name}.scales"]).T
    assert tensors[f"{name}.scales"].dtype == "F16"
    weight, zeros = tensors[f"{name}.qweight"], tensors[f"{name}.qzeros"]
    if settings["quant_method"] == "awq":
        return awq_numbers(weight).T, awq_numbers(zeros).T, scale, None
    out = scale.shape[0]
    bits = zeros.shape[1] * 32 // out
    g_idx = values(tensors[f"{name}.g_idx"]) if f"{name}.g_idx" in tensors else None
    cols = weight.shape[0] * 32 // bits
    q = unpack_bits(np.ascontiguousarray(values(weight).T), bits, cols)
    zero = unpack_bits(values(zeros), bits, out).T
    if settings.get("checkpoint_format", "gptq") == "gptq":
        zero = (zero + 1) % (1 << bits)
    return q, zero, scale, g_idx


def folder(path, tensors, **settings):
    path = pathlib.Path(path)
    path.mkdir()
    for pad in range(8):  # until the header has a multiple of 8 bytes, as ours have
        st(path / "model.safetensors", tensors, {"format": "pt" + " " * pad})
        if (path / "model.safetensors").read_bytes()[0] % 8 == 0:
            break
    config = {"model_type": "llama"} | ({"quantization_config": settings} if settings else {})
    (path / "config.json").write_text(json.dumps(config))
    return path


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False,
        "checkpoint_format": "gptq_v2"}

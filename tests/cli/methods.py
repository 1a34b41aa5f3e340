# SPDX-License-Identifier: MIT
"""Helpers of the tests of `quantize --method`: models whose channels differ, and what numpy computes from them."""
import json
import struct

import numpy as np
from common import T, encode_int, f32, facts, like, llama, normal, ok, st, values
from run_models import log_softmax

ATTENTION, FFN = "attn_q, attn_k, attn_v", "ffn_gate, ffn_up"


def write_ids(path, n=60, vocab=96, step=37):
    path.write_text(" ".join(str((i * step + i // 7 + 11) % vocab) for i in range(n)) + "\n")
    return path


def ids_of(path):
    return [int(i) for i in path.read_text().split()]


def prepare(src, out, kind, method, ids, *more, ctx=16, device="ref"):
    """The report."""
    how = [] if ids is None else ["--calib-tokens", ids, "--ctx", str(ctx)]
    return json.loads(ok("quantize", src, out, "--type", kind, "--method", method, *how, "--device", device, "--json",
                         *more).stdout)


def sites(report):
    """(layer, name) -> site."""
    return {(s["layer"], s["name"]): s for s in report["sites"]}


def outliers(folder, layers=1, embd=64, ffn=96, vocab=96, dtype="F32", **more):
    """A llama whose channels have very different activations. Its tensors, as float32."""
    size = np.exp(normal(900, embd) * 1.2).astype(np.float32)
    extra = {"model.embed_tokens.weight": f32(normal(901, vocab, embd) * size)}
    for i in range(layers):
        for k, n in enumerate(("input_layernorm", "post_attention_layernorm")):
            extra[f"model.layers.{i}.{n}.weight"] = f32(np.exp(normal(902 + 2 * i + k, embd) * 0.5))
        extra[f"model.layers.{i}.mlp.up_proj.weight"] = f32(normal(950 + i, ffn, embd, scale=0.05) *
                                                            np.exp(normal(960 + i, ffn, 1)))
    return {n: values(t) for n, t in llama(folder, layers=layers, embd=embd, ffn=ffn, vocab=vocab, dtype=dtype,
                                           extra=extra, **more).items()}


def stored(folder):
    """The tensors of a checkpoint that these tests wrote themselves, whose headers are not padded."""
    blob = (folder / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", blob[:8])[0]
    return {name: T(e["dtype"], tuple(e["shape"]), blob[8 + n:][slice(*e["data_offsets"])])
            for name, e in json.loads(blob[8:8 + n]).items() if name != "__metadata__"}


def restore(folder, dtype):
    """Stores a checkpoint's tensors in another type."""
    st(folder / "model.safetensors", {n: like(dtype, values(t)) for n, t in stored(folder).items()}, {"format": "pt"})
    return folder


def kld(a, b):
    a, b = log_softmax(a), log_softmax(b)
    return (np.exp(a) * (a - b)).sum(-1).max()


# ---- a layer of a llama, in float64 ----

def rms_norm(x, w, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def rope(x, theta=10000.0):
    n, _, d = x.shape
    angle = np.arange(n)[:, None] * theta ** (-np.arange(d // 2) * 2 / d)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Layer:
    """Layer 0 on windows of tokens. inputs: what q, o, gate and down read, all windows behind each other."""

    def __init__(self, tensors, ids, ctx, heads=4):
        p = "model.layers.0."
        names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
                 "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
        self.w = {k: tensors[f"{p}{n}.weight"].astype(np.float64) for k, n in names.items()}
        self.heads, self.ctx = heads, ctx
        norms = [tensors[f"{p}{n}_layernorm.weight"].astype(np.float64) for n in ("input", "post_attention")]
        x = tensors["model.embed_tokens.weight"].astype(np.float64)[ids]
        self.inputs = {"q": rms_norm(x, norms[0])}
        self.inputs["o"] = self.context(self.w, self.inputs["q"])
        x = x + self.inputs["o"] @ self.w["o"].T
        self.inputs["gate"] = rms_norm(x, norms[1])
        self.inputs["down"] = self.activated(self.w, self.inputs["gate"])

    def context(self, w, x):
        out = []
        for at in range(0, len(x), self.ctx):
            n = len(x[at:at + self.ctx])
            q, k, v = (x[at:at + self.ctx] @ w[i].T for i in "qkv")
            d = q.shape[1] // self.heads
            q, k, v = rope(q.reshape(n, -1, d)), rope(k.reshape(n, -1, d)), v.reshape(n, -1, d)
            each = self.heads // k.shape[1]
            k, v = np.repeat(k, each, 1), np.repeat(v, each, 1)
            s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(d)
            s = np.where(np.tri(n, dtype=bool), s, -np.inf)
            a = np.exp(s - s.max(-1, keepdims=True))
            out.append(np.einsum("hij,jhd->ihd", a / a.sum(-1, keepdims=True), v).reshape(n, -1))
        return np.concatenate(out)

    @staticmethod
    def activated(w, x):
        g = x @ w["gate"].T
        return g / (1 + np.exp(-g)) * (x @ w["up"].T)

    def module(self, name, instead):
        """The output of what a fold's factors can change."""
        w = self.w | instead
        if name == "q":
            return self.context(w, self.inputs["q"]) @ w["o"].T
        if name == "gate":
            return self.activated(w, self.inputs["gate"]) @ w["down"].T
        return self.inputs[name] @ w[name].T


CONSUMERS = {"q": "qkv", "o": "o", "gate": ("gate", "up"), "down": ("down",)}


def rounded(w, kind):
    f = facts(kind)
    q, s, z = encode_int(w.astype(np.float32), dtype="F32", **f)
    group = w.shape[1] // s.shape[1]
    return (np.repeat(s, group, 1) * (q - np.repeat(z, group, 1))).astype(np.float64)


def awq_factors(x_mean, w_mean, ratio, weighted):
    """AutoAWQ's _compute_best_scale, of channels that are all alive."""
    s = x_mean**ratio / (w_mean ** (1 - ratio) + 1e-4) if weighted else x_mean**ratio
    s = np.maximum(s, 1e-4)
    return s / np.sqrt(s.max() * s.min())


def awq_oracle(layer, site, kind):
    """All 40 candidates: (losses [40], factors [40][cols]), with the weights' term first."""
    group = facts(kind)["group"]
    x_mean = np.abs(layer.inputs[site]).mean(0)
    w = np.concatenate([layer.w[n] for n in CONSUMERS[site]])
    g = np.abs(w).reshape(len(w), -1, group or w.shape[1])
    w_mean = (g / (g.max(-1, keepdims=True) + 1e-6)).reshape(w.shape).mean(0)
    reference = layer.module(site, {})
    losses, factors = [], []
    for k in range(40):
        s = awq_factors(x_mean, w_mean, k % 20 / 20, k < 20)
        instead = {n: rounded(layer.w[n] * s, kind) / s for n in CONSUMERS[site]}
        losses.append(((layer.module(site, instead) - reference) ** 2).mean())
        factors.append(s)
    return np.array(losses), np.array(factors)

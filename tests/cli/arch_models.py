# SPDX-License-Identifier: MIT
"""Tiny checkpoints of the architectures that are translated, made of numpy and integers only, so that the same
bytes come out everywhere. tests/golden/make_architectures.py gives them to llama.cpp's converter."""
import json
import pathlib

import numpy as np
from common import T, bf16_bits, st

E, F, HEADS, KV, LAYERS, CONTEXT = 64, 96, 4, 2, 2, 256
EXPERTS, X, SHARED = 5, 32, 64


def weights(seed, shape):
    """Multiples of 1/64 below 2: exact in bfloat16, and so is what is added to or taken from them in float32."""
    n = int(np.prod(shape))
    x = (np.arange(n, dtype=np.uint64) + np.uint64(seed * 7919 + 1)) * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(29)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    k = (x >> np.uint64(40)).astype(np.int64) % 255 - 127
    return T("BF16", tuple(shape), bf16_bits(k.astype(np.float32) / 64).tobytes())


# ---- tokenizers ----

ADDED = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_letters():
    """GPT-2's printable letter of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    letter = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [letter[b] for b in range(256)]


def bpe(folder):
    """Byte-level BPE of 256 bytes, three merges, four added tokens; the embedding has a few rows more."""
    words = [*byte_letters(), "th", "the", "Ġthe"]
    added = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool>", False)]
    tokens = [{"id": len(words) + i, "content": c, "special": s, **ADDED} for i, (c, s) in enumerate(added)]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "vocab": {w: i for i, w in enumerate(words)}, "merges": ["t h", "th e", "Ġ the"]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "model_max_length": 10**30,
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens},
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}))
    return len(words) + len(added) + 5, {"bos_token_id": None, "eos_token_id": 261}


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """A field of a protocol buffer: bytes, a float or an integer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + np.float32(value).tobytes()
    return varint(number << 3) + varint(value)


def sentencepiece(path, pieces, prefix, unk, bos, eos):
    """pieces: (text, score, type)."""
    model = b"".join(field(1, field(1, t.encode()) + field(2, float(s)) + field(3, k)) for t, s, k in pieces)
    trainer = field(3, 2) + field(35, 1) + field(40, unk) + field(41, bos) + field(42, eos)
    model += field(2, trainer) + field(3, field(1, b"identity") + field(3, int(prefix)) + field(4, 0))
    path.write_bytes(model)


def spm(folder, gemma):
    """SentencePiece BPE with byte fallback."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "<s>", "</s>"]
    user = ["<mask>", "\n\n", "<start_of_turn>"] if gemma else ["<|endoftext|>"]
    text = ["▁t", "he", "▁the", "in", *"▁etaoinshrdlucmfwypvbgkqjxzTHE.,"]
    pieces = [(t, 0, 2 if t == "<unk>" else 3) for t in special] + [(t, 0, 4) for t in user]
    pieces += [(f"<0x{b:02X}>", 0, 6) for b in range(256)] + [(t, -i, 1) for i, t in enumerate(text)]
    unk, bos, eos = (3, 2, 1) if gemma else (0, 1, 2)
    sentencepiece(folder / "tokenizer.model", pieces, not gemma, unk, bos, eos)
    ids = {t: i for i, (t, _, _) in enumerate(pieces)}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>" if gemma else "<s>",
        "eos_token": "<eos>" if gemma else "</s>", "unk_token": "<unk>",
        "tokenizer_class": "GemmaTokenizer" if gemma else "LlamaTokenizer",
        "added_tokens_decoder": {str(ids[t]): {"content": t, "special": t not in ("<mask>", "\n\n"), **ADDED}
                                 for t in special + user}}))
    return len(pieces) + (0 if gemma else 3), {"bos_token_id": bos, "eos_token_id": eos}


# ---- architectures ----

def attention(p, head, biases=(), norms=()):
    yield from ((p + f"{n}_proj.weight", (k * head, E)) for n, k in (("q", HEADS), ("k", KV), ("v", KV)))
    yield from ((p + f"{n}_proj.bias", ((HEADS if n == "q" else KV) * head,)) for n in biases)
    yield from ((p + f"{n}_norm.weight", (head,)) for n in norms)
    yield p + "o_proj.weight", (E, HEADS * head)


def mlp(p, size, names=("gate_proj", "up_proj", "down_proj")):
    yield from ((p + f"{n}.weight", (E, size) if i == 2 else (size, E)) for i, n in enumerate(names))


def qwen2(p, head):
    yield from attention(p + "self_attn.", head, biases="qkv")
    yield from mlp(p + "mlp.", F)


def qwen3(p, head):
    yield from attention(p + "self_attn.", head, norms="qk")
    yield from mlp(p + "mlp.", F)


def experts(p, names=("gate_proj", "up_proj", "down_proj")):
    yield p + "gate.weight", (EXPERTS, E)
    for e in range(EXPERTS):
        yield from mlp(f"{p}experts.{e}.", F if names[0] == "w1" else X, names)


def qwen2moe(p, head):
    yield from attention(p + "self_attn.", head, biases="qkv")
    yield from experts(p + "mlp.")
    yield from mlp(p + "mlp.shared_expert.", SHARED)
    yield p + "mlp.shared_expert_gate.weight", (1, E)


def qwen3moe(p, head):
    yield from attention(p + "self_attn.", head, norms="qk")
    yield from experts(p + "mlp.")


def mixtral(p, head):
    yield from attention(p + "self_attn.", head)
    yield from experts(p + "block_sparse_moe.", ("w1", "w3", "w2"))


def gemma2(p, head):
    yield from attention(p + "self_attn.", head)
    yield from mlp(p + "mlp.", F)
    for name in ("pre", "post"):
        yield p + f"{name}_feedforward_layernorm.weight", (E,)


def gemma3(p, head):
    yield from gemma2(p, head)
    for name in "qk":
        yield p + f"self_attn.{name}_norm.weight", (head,)


def phi3(p, head):
    yield p + "self_attn.qkv_proj.weight", ((HEADS + 2 * KV) * head, E)
    yield p + "self_attn.o_proj.weight", (E, HEADS * head)
    yield p + "mlp.gate_up_proj.weight", (2 * F, E)
    yield p + "mlp.down_proj.weight", (E, F)


SILU = {"hidden_act": "silu"}
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32,
         "final_logit_softcapping": None, "attn_logit_softcapping": None}
MOE = {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": X, "decoder_sparse_step": 1}
LONG = {"type": "longrope", "long_factor": [1.0 + i for i in range(8)], "short_factor": [1 + i / 16 for i in range(8)]}

# name: class, model_type, layer, tokenizer, head size, output matrix, more of config.json
ARCHS = {
    "qwen2": ("Qwen2ForCausalLM", "qwen2", qwen2, bpe, 16, False,
              {**SILU, "sliding_window": 32, "use_sliding_window": False, "rope_theta": 1e6}),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", qwen3, bpe, 32, True,
              {**SILU, "head_dim": 32, "attention_bias": False, "rope_theta": 1e6, "rope_scaling": {
                  "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    "qwen2moe": ("Qwen2MoeForCausalLM", "qwen2_moe", qwen2moe, bpe, 16, True,
                 {**SILU, **MOE, "shared_expert_intermediate_size": SHARED, "norm_topk_prob": False}),
    "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe", qwen3moe, bpe, 32, True,
                 {**SILU, **MOE, "head_dim": 32, "norm_topk_prob": True}),
    "mixtral": ("MixtralForCausalLM", "mixtral", mixtral, lambda d: spm(d, False), 16, True,
                {**SILU, "num_local_experts": EXPERTS, "num_experts_per_tok": 2, "rope_theta": 1e6,
                 "sliding_window": None}),
    "gemma2": ("Gemma2ForCausalLM", "gemma2", gemma2, lambda d: spm(d, True), 16, False,
               {**GEMMA, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text", gemma3, lambda d: spm(d, True), 16, False,
               {**GEMMA, "rope_theta": 1e6, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
    "phi3": ("Phi3ForCausalLM", "phi3", phi3, lambda d: spm(d, False), 16, True,
             {**SILU, "original_max_position_embeddings": 64, "rope_scaling": LONG, "sliding_window": 200}),
}


def make(folder, name, **edits):
    """Writes the checkpoint; edits change config.json (None removes a key). The tensors."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cls, model_type, layer, tokenizer, head, output, more = ARCHS[name]
    vocab, ids = tokenizer(folder)
    shapes = {"model.embed_tokens.weight": (vocab, E), "model.norm.weight": (E,)}
    if output:
        shapes["lm_head.weight"] = (vocab, E)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {p + f"{n}_layernorm.weight": (E,) for n in ("input", "post_attention")} | dict(layer(p, head))
    tensors = {n: weights(k, s) for k, (n, s) in enumerate(shapes.items())}
    st(folder / "model.safetensors", tensors, {"format": "pt"})
    config = {"architectures": [cls], "model_type": model_type, "hidden_size": E, "intermediate_size": F,
              "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
              "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "vocab_size": vocab,
              "tie_word_embeddings": not output, "torch_dtype": "bfloat16", **ids, **more, **edits}
    removed = [k for k, v in edits.items() if v is None]
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in removed}, indent=1))
    return tensors

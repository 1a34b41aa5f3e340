#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains tiny-llama: a byte-level model of the llama architecture (3.28M parameters: hidden 256, feed-forward 768,
4 layers, 4 heads, 2 key-value heads), in float32, and writes it as a Hugging Face folder. Needs PyTorch and
safetensors.

    python3 train.py train.txt eval.txt OUT --steps 6000 --batch 64 --device cuda

Tokens 0 to 255 are bytes, 256 begins and 257 ends a text (neither is trained). Texts may be xz-compressed (.xz).
The learning rate falls with the steps, or with the time where --seconds ends the training earlier.
Prints losses in nats a byte. probe.safetensors holds the logits of one window of the evaluation text."""
import argparse
import json
import lzma
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, VOCAB, WINDOW = 256, 4, 4, 2, 64, 768, 258, 256
EPSILON, THETA = 1e-5, 10000.0
BEGIN, END = "<|begin|>", "<|end|>"


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight


def rotate(x, cos, sin):
    n = x.shape[-2]
    turned = torch.cat([-x[..., HEAD_DIM // 2:], x[..., :HEAD_DIM // 2]], -1)
    return x * cos[:n] + turned * sin[:n]


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()
        self.q_proj, self.o_proj = linear(HIDDEN, HEADS * HEAD_DIM), linear(HEADS * HEAD_DIM, HIDDEN)
        self.k_proj, self.v_proj = linear(HIDDEN, KV_HEADS * HEAD_DIM), linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.gate_proj, self.up_proj = linear(HIDDEN, FEED_FORWARD), linear(HIDDEN, FEED_FORWARD)
        self.down_proj = linear(FEED_FORWARD, HIDDEN)

    def forward(self, x, cos, sin):
        batch, n, _ = x.shape
        h = self.input_layernorm(x)
        q = rotate(self.q_proj(h).view(batch, n, HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(h).view(batch, n, KV_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.v_proj(h).view(batch, n, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(a.transpose(1, 2).reshape(batch, n, HEADS * HEAD_DIM))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.norm, self.lm_head = Norm(), linear(HIDDEN, VOCAB)
        angles = torch.outer(torch.arange(WINDOW).float(), 1 / (THETA ** (torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, 0, 0.02 / (math.sqrt(2 * LAYERS) if into_residual else 1))

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.lm_head(self.norm(x))


def read(path):
    data = pathlib.Path(path).read_bytes()
    return lzma.decompress(data) if path.endswith(".xz") else data


def windows(data, starts, n):
    return data[starts[:, None] + torch.arange(n, device=data.device)].long()


def loss_of(model, tokens):
    return F.cross_entropy(model(tokens[:, :-1]).reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))


@torch.no_grad()
def evaluate(model, data, n_windows=256, batch=64):
    """The mean loss over windows spread over the whole text."""
    starts = torch.linspace(0, len(data) - WINDOW, n_windows, dtype=torch.float64).long().to(data.device)
    return sum(loss_of(model, windows(data, s, WINDOW)).item() for s in starts.split(batch)) * batch / n_windows


def train(model, data, held_out, given):
    fused = {"fused": True} if given.device == "cuda" else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, betas=(0.9, 0.95), weight_decay=0.1, **fused)
    generator = torch.Generator().manual_seed(1)
    began, elapsed, step, shown = time.monotonic(), 0.0, 0, 0.0
    while step < given.steps:
        if step % 10 == 0:
            if given.device == "cuda":
                torch.cuda.synchronize()  # the clock must not run ahead of the work
            elapsed = time.monotonic() - began
        done = max(step / given.steps, elapsed / given.seconds if given.seconds else 0)
        if done >= 1:
            break
        rate = given.lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(0, len(data) - WINDOW, (given.batch,), generator=generator).to(data.device)
        loss = loss_of(model, windows(data, starts, WINDOW + 1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f} rate {rate:.6f} {time.monotonic() - began:.1f} s", flush=True)
        if done >= shown + 0.2:
            shown = done
            print(f"step {step} eval loss {evaluate(model, held_out):.4f}", flush=True)
    return step


def byte_letters():
    """GPT-2's printable letter of each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(out):
    letters = byte_letters()
    special = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, text in ((256, BEGIN), (257, END))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    write_json(out / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {**{letters[b]: b for b in range(256)}, BEGIN: 256, END: 257}, "merges": []}})
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END, "add_bos_token": False,
        "add_eos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "model_max_length": 2 * WINDOW})


def write_model(model, out):
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    tensors = {}
    for name, p in model.named_parameters():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2].endswith("_proj"):
            parts.insert(2, "self_attn" if parts[2] in attention else "mlp")
        name = ".".join(parts)
        tensors[name if name.startswith("lm_head") else "model." + name] = p.detach().contiguous()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
        "max_position_embeddings": 2 * WINDOW, "rms_norm_eps": EPSILON, "rope_theta": THETA, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 257, "attention_bias": False,
        "mlp_bias": False, "torch_dtype": "float32"})


@torch.no_grad()
def speak(model, prompt, n=200):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([list(prompt)])
    for _ in range(n):
        odds = F.softmax(model(tokens[:, -WINDOW:])[:, -1] / 0.7, -1)
        tokens = torch.cat([tokens, torch.multinomial(odds, 1, generator=generator)], 1)
    return bytes(t for t in tokens[0].tolist() if t < 256).decode("utf-8", "replace")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("train", help="training text")
    arguments.add_argument("eval", help="evaluation text, no part of the training text")
    arguments.add_argument("out", type=pathlib.Path, help="folder for the model")
    arguments.add_argument("--steps", type=int, default=6000)
    arguments.add_argument("--seconds", type=float, default=0, help="ends the training, if the steps have not")
    arguments.add_argument("--batch", type=int, default=64, help="windows of 256 bytes in a step")
    arguments.add_argument("--lr", type=float, default=2e-3, help="the highest learning rate")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--threads", type=int, default=0)
    given = arguments.parse_args()
    torch.manual_seed(1234)
    if given.threads:
        torch.set_num_threads(given.threads)

    texts = read(given.train), read(given.eval)
    for i in range(0, len(texts[1]) - 200, max(1, len(texts[1]) // 50)):
        assert texts[1][i:i + 200] not in texts[0], "the evaluation text is part of the training text"
    data, held_out = (torch.frombuffer(bytearray(t), dtype=torch.uint8).to(given.device) for t in texts)
    model = Model().to(given.device)
    n = sum(p.numel() for p in model.parameters())
    print(f"{n} parameters, {len(data)} bytes to train, {len(held_out)} bytes to evaluate, {given.device}", flush=True)

    step = train(model, data, held_out, given)
    print(f"steps {step} eval loss {evaluate(model, held_out):.4f}", flush=True)
    model, held_out = model.cpu().eval(), held_out.cpu()
    given.out.mkdir(parents=True, exist_ok=True)
    write_model(model, given.out)
    write_tokenizer(given.out)
    window = held_out[:WINDOW][None].long()
    with torch.no_grad():
        save_file({"tokens": window, "logits": model(window).contiguous()}, given.out / "probe.safetensors")
    for path in given.out.glob("*.safetensors"):
        path.chmod(0o644)
    print(speak(model, b"The package manager "))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""What becomes of a whole input: shapes that do not fit, fallbacks, rules, tied embeddings, models there and
back, metadata; and that the plan told it beforehand."""
import json
import os
import struct

import numpy as np
import pytest

from common import (ARRAY, BLOCK_TYPES, BOOL, F32, F64, I16, I32, I64, I8, STRING, U16, U32, U64, U8, bf16, blocks,
                    both, check_int, config_of, encode_blocks, encode_int, f16, f32, facts, gg, gs, integer, kv, llama,
                    normal, ok, plan, quantize, read_folder, read_gg, refuses, size_of, st, table, tree, values)


# ---- shapes ----

def test_row10_rows_that_do_not_fit(tmp_path):
    """One table before the start: chosen types, their number, the size to the byte; and a refusal on demand."""
    cols = {"a": 4544, "b": 896, "c": 2688, "d": 100, "e": 31}
    tensors = {f"{n}.weight": f32(normal(i, 4, c)) for i, (n, c) in enumerate(cols.items())}
    src = gg(tmp_path / "in.gguf", tensors)
    for kind in BLOCK_TYPES:
        p = plan(src, tmp_path / "out.gguf", kind)
        assert table(p) == {"a.weight": kind, "b.weight": kind, "c.weight": kind, "d.weight": "f16", "e.weight": "f16"}
        assert p["n_fallbacks"] == 2
        assert {t["name"]: bool(t["note"]) for t in p["tensors"]}["d.weight"]
        r = quantize(src, tmp_path / "out.gguf", kind)
        assert "2 tensors do not get the type" in r.stderr and "d.weight: rows of 100" in r.stderr
        assert (tmp_path / "out.gguf").stat().st_size == p["n_bytes"]
        out = read_gg(tmp_path / "out.gguf").tensors
        for name, t in tensors.items():
            if name[0] in "de":
                assert out[name] == f16(values(t))
            else:
                assert np.array_equal(blocks(out[name])["q"], encode_blocks(kind, values(t))["q"])
        (tmp_path / "out.gguf").unlink()
        refuses(tmp_path, src, kind, code=2, says=["'d.weight'", "100", "--no-fallback"], also_info=False, more=["--no-fallback"])


def test_row11_explicit_types_are_checked_too(tmp_path):
    src = gg(tmp_path / "in.gguf", {"token_embd.weight": f32(normal(1, 100, 900)), "blk.0.w.weight": f32(normal(2, 4, 64))})
    rule = ["--tensor-type", "token_embd=q8_0"]
    refuses(tmp_path, src, "q4_0", code=2, says="'token_embd.weight'", also_info=False, more=[*rule, "--no-fallback"])
    p = plan(src, tmp_path / "out.gguf", "q4_0", *rule)
    assert table(p) == {"token_embd.weight": "f16", "blk.0.w.weight": "q4_0"}
    quantize(src, tmp_path / "out.gguf", "q4_0", *rule)
    assert (tmp_path / "out.gguf").stat().st_size == p["n_bytes"]


def test_row12_groups_that_do_not_divide(tmp_path):
    """A smaller group, or the weight as it is, told beforehand and in the configuration."""
    shapes = {"a": (512, 192), "b": (1440, 512), "c": (33, 128), "d": (8, 160), "e": (8, 100), "f": (8, 96)}
    tensors = {f"{n}.weight": bf16(normal(i, *s)) for i, (n, s) in enumerate(shapes.items())}
    src = st(tmp_path / "in.safetensors", tensors)
    p = plan(src, tmp_path / "out", "i4_g128")
    assert table(p) == {"a.weight": "i4_g64", "b.weight": "i4_g128", "c.weight": "i4_g128", "d.weight": "i4_g32",
                        "e.weight": "bf16", "f.weight": "i4_g32"}
    assert p["n_fallbacks"] == 4
    r = quantize(src, tmp_path / "out", "i4_g128")
    assert "4 tensors do not get the type" in r.stderr
    assert size_of(tmp_path / "out") == p["n_bytes"]
    out, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    for name, kind in {"a": "i4_g64", "b": "i4_g128", "c": "i4_g128", "d": "i4_g32", "f": "i4_g32"}.items():
        check_int(out, config, name, values(tensors[name + ".weight"]), "BF16", kind)
    assert out["e.weight"] == tensors["e.weight"]
    assert set(config["quantization_config"]["ignore"]) - {"lm_head"} == {"e"}
    refuses(tmp_path, src, "i4_g128", code=2, says="'a.weight'", also_info=False, more=["--no-fallback"], out=tmp_path / "no")


@both
@pytest.mark.parametrize("kind", ["i8", "i4_g32", "i4_asym_g32", "i4", "i8_asym_tensor"])
def test_row32_stacked_experts(tmp_path, kind, device):
    """3-D expert weights are quantized by their last dimension, each expert for itself; nothing is left out."""
    experts = normal(1, 4, 48, 64) * np.float32([1, 10, 0.1, 0])[:, None, None]
    src = st(tmp_path / "in.safetensors", {"layers.0.mlp.experts.gate_up_proj": bf16(experts),
                                           "layers.0.self_attn.q_proj.weight": bf16(normal(2, 64, 64)),
                                           "layers.0.mlp.gate.weight": bf16(normal(3, 4, 64))})
    p = plan(src, tmp_path / "out", kind)
    quantize(src, tmp_path / "out", kind, device=device)
    assert size_of(tmp_path / "out") == p["n_bytes"]
    assert p["quantized_elements"] == 4 * 48 * 64 + 64 * 64 and p["n_elements"] == p["quantized_elements"] + 4 * 64
    out = read_folder(tmp_path / "out")
    name = "layers.0.mlp.experts.gate_up_proj"
    codes = out[name + ("_packed" if facts(kind)["bits"] < 8 else "")]
    assert codes.shape[:2] == (4, 48)
    x = values(bf16(experts)).reshape(4 * 48, 64)
    q, s, z = encode_int(x, dtype="BF16", **facts(kind))
    scale = values(out[name + "_scale"])
    if not facts(kind)["one"]:
        assert scale.shape == (4, 48, s.shape[1])
    assert np.array_equal(scale.reshape(s.shape), s)
    if facts(kind)["bits"] == 8:
        assert np.array_equal(values(codes).reshape(q.shape), q)
    ok("verify", src, tmp_path / "out")
    ok("convert", tmp_path / "out", tmp_path / "f32", "--type", "f32", "--device", device)
    repeat = [np.repeat(v, 64 // v.shape[1], 1) for v in (s, z)]
    assert np.array_equal(values(read_folder(tmp_path / "f32")[name]).reshape(q.shape), repeat[0] * (q - repeat[1]).astype(np.float32))


@pytest.mark.parametrize("kind", ["i8", "i4", "i3_tensor", "i5_asym_tensor", "i4_g32", "i8_asym_g32"])
@pytest.mark.parametrize("shape", [(3, 5, 37), (1, 1, 64), (4, 1, 32), (2, 7, 32)])
def test_row32_odd_experts(tmp_path, kind, shape):
    """Shapes whose scales or words could be taken for those of a convolution: written, and read back."""
    x = normal(1, *shape)
    src = st(tmp_path / "in.safetensors", {"experts.down_proj": f32(x)})
    to = table(plan(src, tmp_path / "out", kind))["experts.down_proj"]
    quantize(src, tmp_path / "out", kind)
    ok("convert", tmp_path / "out", tmp_path / "f32", "--type", "f32", "--device", "ref")
    got = values(read_folder(tmp_path / "f32")["experts.down_proj"])
    if to == "f32":
        assert np.array_equal(got, x)
        return
    q, s, z = encode_int(x.reshape(-1, shape[-1]), dtype="F32", **facts(kind))
    repeat = [np.repeat(v, shape[-1] // v.shape[1], 1) for v in (s, z)]
    assert np.array_equal(got.reshape(q.shape), np.broadcast_to(repeat[0], q.shape) * (q - repeat[1]).astype(np.float32))


@both
def test_row35_convolutions(tmp_path, device):
    """Convolution kernels of any rank: one scale for each output channel."""
    shapes = {"conv1": (8, 4, 3), "conv2": (6, 3, 3, 3), "conv3": (2, 3, 4, 4, 4), "point": (16, 8, 1), "wide": (4, 8, 2, 2),
              "depth": (16, 1, 32)}
    tensors = {f"{n}.weight": f32(normal(i, *s)) for i, (n, s) in enumerate(shapes.items())}
    src = st(tmp_path / "in.safetensors", tensors)
    for kind in "i8", "i4", "i4_asym_g32":
        p = plan(src, tmp_path / kind, kind)
        quantize(src, tmp_path / kind, kind, device=device)
        assert size_of(tmp_path / kind) == p["n_bytes"]
        out, config = read_folder(tmp_path / kind), config_of(tmp_path / kind)
        for n, s in shapes.items():
            if table(p)[n + ".weight"] == "f32":
                assert np.prod(s[1:]) % 32 and out[n + ".weight"] == tensors[n + ".weight"]
                continue
            w = integer(out, config, n)
            assert w.shape == s
            q, scale, z = encode_int(values(tensors[n + ".weight"]).reshape(s[0], -1), dtype="F32", **facts(kind))
            assert np.array_equal(w.q.reshape(q.shape), q) and np.array_equal(w.scale.reshape(scale.shape), scale)
            assert np.array_equal(w.zero.reshape(z.shape), z)
        ok("verify", src, tmp_path / kind)


def test_row35_no_attention_at_all(tmp_path):
    """An architecture that nobody knows: by shape and name, nothing asserted."""
    tensors = {"blk.0.ssm_conv1d.weight": f32(normal(1, 512, 4)), "blk.0.ssm_in.weight": f32(normal(2, 8, 64)),
               "blk.0.conv.weight": f32(normal(3, 64, 64, 3, 3)), "blk.0.ssm_a": f32(normal(4, 16)),
               "blk.0.deep.weight": f32(normal(5, 2, 3, 4, 32)), "output_norm.weight": f32(normal(6, 64))}
    src = gg(tmp_path / "in.gguf", tensors, [kv("general.architecture", STRING, "zzz")])
    quantize(src, tmp_path / "out.gguf", "q4_0")
    out = read_gg(tmp_path / "out.gguf").tensors
    assert {n: t.dtype for n, t in out.items()} == {"blk.0.ssm_conv1d.weight": "F32", "blk.0.ssm_in.weight": "Q4_0",
                                                    "blk.0.conv.weight": "F16", "blk.0.ssm_a": "F32", "blk.0.deep.weight": "Q4_0",
                                                    "output_norm.weight": "F32"}
    for name, t in tensors.items():
        assert out[name].shape == t.shape
    assert np.array_equal(blocks(out["blk.0.deep.weight"])["q"], encode_blocks("q4_0", values(tensors["blk.0.deep.weight"]))["q"])


# ---- rules ----

def test_row89_rules(tmp_path):
    """The first rule that matches wins, also where it names the default type; every rule must match."""
    names = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.attn_q.weight", "blk.0.ffn_gate_inp.weight", "token_embd.weight"]
    src = gg(tmp_path / "in.gguf", {n: f32(normal(i, 4, 64)) for i, n in enumerate(names)})
    out = tmp_path / "out.gguf"
    assert table(plan(src, out, "q4_0"))["blk.0.ffn_gate_inp.weight"] == "f32"
    rules = ["attn_q=q8_0", r"^blk\.0\.=q5_1", "attn=f16", "ffn_gate_inp=q4_0"]
    args = [a for r in rules for a in ("--tensor-type", r)]
    assert table(plan(src, out, "q4_0", *args)) == {
        "blk.0.attn_q.weight": "q8_0", "blk.0.attn_k.weight": "q5_1", "blk.1.attn_q.weight": "q8_0",
        "blk.0.ffn_gate_inp.weight": "q5_1", "token_embd.weight": "q4_0"}
    args = [a for r in reversed(rules) for a in ("--tensor-type", r)]
    expected = {"blk.0.attn_q.weight": "f16", "blk.0.attn_k.weight": "f16", "blk.1.attn_q.weight": "f16",
                "blk.0.ffn_gate_inp.weight": "q4_0", "token_embd.weight": "q4_0"}
    assert table(plan(src, out, "q4_0", *args)) == expected
    quantize(src, out, "q4_0", *args)
    assert {n: t.dtype.lower() for n, t in read_gg(out).tensors.items()} == expected
    out.unlink()
    refuses(tmp_path, src, "q4_0", code=2, says="'no_such'", also_info=False, more=["--tensor-type", "attn=q8_0", "--tensor-type", "no_such=q8_0"])


def test_row89_rules_of_a_folder(tmp_path):
    """Types by rule, in the configuration by module name; lm_head only when asked for."""
    tensors = {f"model.layers.0.{m}.weight": f32(normal(i, 8, 64)) for i, m in enumerate(["q_proj", "k_proj", "v_proj", "o_proj"])}
    tensors["lm_head.weight"] = f32(normal(9, 8, 64))
    src = st(tmp_path / "in.safetensors", tensors)
    quantize(src, tmp_path / "out", "i8", "--tensor-type", "q_proj=i4_g32", "--tensor-type", "k_proj=i3_asym", "--tensor-type", "v_proj=f16")
    out, config = read_folder(tmp_path / "out"), config_of(tmp_path / "out")
    for m, kind in {"q_proj": "i4_g32", "k_proj": "i3_asym", "o_proj": "i8"}.items():
        check_int(out, config, f"model.layers.0.{m}", values(tensors[f"model.layers.0.{m}.weight"]), "F32", kind)
    assert out["model.layers.0.v_proj.weight"] == f16(values(tensors["model.layers.0.v_proj.weight"]))
    assert out["lm_head.weight"] == tensors["lm_head.weight"]
    assert sorted(config["quantization_config"]["ignore"]) == ["lm_head", "model.layers.0.v_proj"]
    quantize(src, tmp_path / "head", "i8", "--tensor-type", "lm_head=i8")
    check_int(read_folder(tmp_path / "head"), config_of(tmp_path / "head"), "lm_head", values(tensors["lm_head.weight"]), "F32", "i8")


# ---- models ----

def test_row19_row20_tied_embeddings(tmp_path):
    """Tied in, tied out: no second copy, the flag unchanged, the size as planned."""
    llama(tmp_path / "in", tied=True)
    for kind, out in ("i8", tmp_path / "folder"), ("q8_0", tmp_path / "out.gguf"):
        p = plan(tmp_path / "in", out, kind)
        quantize(tmp_path / "in", out, kind)
        assert size_of(out) == p["n_bytes"]
    folder = read_folder(tmp_path / "folder")
    assert not [n for n in folder if n.startswith("lm_head")] and "model.embed_tokens.weight" in folder
    assert config_of(tmp_path / "folder")["tie_word_embeddings"] is True
    gguf = read_gg(tmp_path / "out.gguf").tensors
    assert "token_embd.weight" in gguf and "output.weight" not in gguf
    assert len(gguf) == 11
    ok("verify", tmp_path / "in", tmp_path / "folder")
    ok("verify", tmp_path / "in", tmp_path / "out.gguf")


def test_row20_tied_with_a_copy(tmp_path):
    """A checkpoint that says tied, yet stores lm_head: GGUF has the embedding once, and that is said."""
    tensors = llama(tmp_path / "in", tied=True)
    st(tmp_path / "in" / "model.safetensors", tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    r = quantize(tmp_path / "in", tmp_path / "out.gguf", "q8_0")
    assert "lm_head.weight" in r.stderr
    assert "output.weight" not in read_gg(tmp_path / "out.gguf").tensors


def test_row20_untied(tmp_path):
    llama(tmp_path / "in", tied=False)
    quantize(tmp_path / "in", tmp_path / "out.gguf", "q8_0")
    assert read_gg(tmp_path / "out.gguf").tensors["output.weight"].dtype == "Q8_0"
    quantize(tmp_path / "in", tmp_path / "out", "i8")
    out = read_folder(tmp_path / "out")
    assert out["lm_head.weight"].dtype == "F32" and config_of(tmp_path / "out")["tie_word_embeddings"] is False
    tensors = llama(tmp_path / "no", tied=False)
    st(tmp_path / "no" / "model.safetensors", {n: t for n, t in tensors.items() if n != "lm_head.weight"})
    refuses(tmp_path, tmp_path / "no", "q8_0", says=["lm_head.weight", "tie_word_embeddings"], also_info=False)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_model_there_and_back(tmp_path, dtype):
    """Folder -> GGUF -> folder, unquantized: the same tensors; rotary rows as llama.cpp has them."""
    tensors = llama(tmp_path / "in", tied=False, layers=2, dtype=dtype, shards=3)
    kind = dtype.lower()
    ok("convert", tmp_path / "in", tmp_path / "out.gguf", "--type", kind, "--device", "ref")
    gguf = read_gg(tmp_path / "out.gguf")
    for i in range(2):
        for m, heads in ("q", 4), ("k", 2):
            x = values(tensors[f"model.layers.{i}.self_attn.{m}_proj.weight"])
            rotated = x.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(x.shape)
            assert np.array_equal(values(gguf.tensors[f"blk.{i}.attn_{m}.weight"]), rotated)
        for here, there in ("mlp.down_proj", "ffn_down"), ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"):
            assert gguf.tensors[f"blk.{i}.{there}.weight"] == tensors[f"model.layers.{i}.{here}.weight"]
    assert gguf.value("llama.block_count") == 2 and gguf.value("llama.attention.head_count_kv") == 2
    assert "\U0001f600" in gguf.value("tokenizer.chat_template")
    ok("convert", tmp_path / "out.gguf", tmp_path / "back", "--type", kind, "--device", "ref")
    back = read_folder(tmp_path / "back")
    assert sorted(back) == sorted(tensors)
    for name, t in tensors.items():
        assert np.array_equal(values(back[name]), values(t)), name
    ok("verify", tmp_path / "in", tmp_path / "back")
    p = plan(tmp_path / "in", tmp_path / "quant.gguf", "q4_0")
    quantize(tmp_path / "in", tmp_path / "quant.gguf", "q4_0", device="cpu")
    assert size_of(tmp_path / "quant.gguf") == p["n_bytes"]
    quant = read_gg(tmp_path / "quant.gguf").tensors
    for name, t in quant.items():
        if t.dtype == "Q4_0":
            assert np.array_equal(blocks(t)["q"], encode_blocks("q4_0", values(gguf.tensors[name]))["q"]), name
    ok("verify", tmp_path / "in", tmp_path / "quant.gguf")


ALL_KVS = [
    kv("general.architecture", STRING, "zzz"), kv("general.file_type", U32, 0), kv("general.name", STRING, ""),
    kv("t.u8", U8, 255), kv("t.i8", I8, -128), kv("t.u16", U16, 65535), kv("t.i16", I16, -32768), kv("t.u32", U32, 2**32 - 1),
    kv("t.i32", I32, -2**31), kv("t.f32", F32, -0.0), kv("t.true", BOOL, True), kv("t.false", BOOL, False),
    kv("t.u64", U64, 2**64 - 1), kv("t.i64", I64, -2**63), kv("t.f64", F64, 1e308),
    gs("t.nan") + struct.pack("<II", F32, 0x7FC12345),
    kv("tokenizer.chat_template", STRING, "{{ x }}\n\U0001f600 日本 \0 \\ \" é"),
    gs("t.not_utf8") + struct.pack("<I", STRING) + gs(b"\xff\xfe\x80"),
    kv("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "", "\U0001f680", "\n", "x" * 3000])),
    kv("tokenizer.ggml.scores", ARRAY, (F32, [0.0, -1.5, float("inf")])), kv("t.empty", ARRAY, (STRING, [])),
    kv("t.bools", ARRAY, (BOOL, [True, False, True])),
    kv("t.nested", ARRAY, (ARRAY, [(U8, [1, 2, 3]), (STRING, ["p", "q"]), (ARRAY, [(I64, [-1])])])),
    kv("ключ.日本", STRING, "non-ASCII key"), kv("general.alignment", U32, 64),
]


@pytest.mark.parametrize("kind", [*BLOCK_TYPES, "f16", "bf16", "f32"])
def test_row37_metadata_byte_for_byte(tmp_path, kind):
    """Every kind of value, in order; only what describes the file's own type differs."""
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(1, 4, 64))}, ALL_KVS[:-1], alignment=64)
    quantize(src, tmp_path / "out.gguf", kind)
    before, after = read_gg(src).kvs, read_gg(tmp_path / "out.gguf").kvs
    number = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": 32}[kind]
    assert after.pop("general.file_type") == (U32, struct.pack("<I", number))
    assert after.pop("general.quantization_version") == (U32, struct.pack("<I", 2))
    before.pop("general.file_type")
    assert list(after.items()) == list(before.items())
    src = gg(tmp_path / "in.gguf", {"a.weight": f32(normal(1, 4, 64))}, ALL_KVS[:-1])
    if kind[0] != "q":
        ok("convert", src, tmp_path / "conv.gguf", "--type", kind, "--device", "ref")
        assert "general.quantization_version" not in read_gg(tmp_path / "conv.gguf").kvs


def test_row37_folder_keeps_its_files(tmp_path):
    """Tokenizer, templates, README and sub-folders go along byte for byte; other weights do not."""
    llama(tmp_path / "in", dtype="BF16")
    extra = {"chat_template.jinja": b"{{ x }}\xf0\x9f\x98\x80", "README.md": b"\xff\x00", "1_Pooling/config.json": b"{}", "vocab.txt": b"",
             "generation_config.json": b'{"a": 1}'}
    for name, data in extra.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    for name in "pytorch_model.bin", "model.gguf", "model.safetensors.index.json.bak.onnx", ".hidden":
        (tmp_path / "in" / name).write_bytes(b"x")
    quantize(tmp_path / "in", tmp_path / "out", "i8")
    before, after = tree(tmp_path / "in"), tree(tmp_path / "out")
    carried = [*map(os.fsencode, extra), b"tokenizer.json", b"tokenizer_config.json"]
    assert sorted(k for k, v in after.items() if v[0] == "file") == sorted([*carried, b"config.json", b"model.safetensors"])
    assert {k: after[k] for k in carried} == {k: before[k] for k in carried}
    old, new = config_of(tmp_path / "in"), config_of(tmp_path / "out")
    new.pop("quantization_config")
    assert new == old

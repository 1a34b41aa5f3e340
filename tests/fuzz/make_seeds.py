#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the seeds of the fuzz corpora: small valid files, and one broken file of each kind.

    CLQ=build/clquant make_seeds.py      writes corpus_*/seed_*; found_* files are left alone
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
import columns
from common import (ARRAY, BOOL, CLQ, F32, F64, I8, I32, STRING, U8, U16, U32, U64, f32, gg, kv, like, llama, normal, raw,
                    raw_gg, raw_st, st, ti)
from mixes import write_imatrix_dat, write_imatrix_gguf

NAMES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json",
         "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "vocab.txt", "tokenizer.model",
         "generation_config.json"]


def pack(folder):
    """A folder as fuzz_hfdir.c reads it."""
    out = b""
    for digit, name in enumerate(NAMES):
        path = pathlib.Path(folder) / name
        if path.exists():
            out += b"\x01@%d\n" % digit + path.read_bytes()
    return out


def safetensors(put):
    x = normal(1, 2, 4)
    put("plain", lambda p: st(p, {"a": like("F32", x), "b": like("F16", x), "c": like("BF16", x), "d": f32([1.0])}, {"format": "pt"}))
    put("dtypes", lambda p: st(p, {k: raw(k, [1, 0]) for k in ("F64", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL")}))
    put("float8", lambda p: st(p, {"x.weight": raw("F8_E4M3", [[1, 255], [127, 8]]), "x.weight_scale": f32([[2.0], [1.0]]),
                                   "y.weight": raw("F8_E5M2", [[1, 2]]), "y.weight_scale_inv": f32([[1.0]])}))
    put("int8", lambda p: st(p, {"x.weight": raw("I8", [[1, -2], [3, 4]]), "x.weight_scale": f32([[2.0], [1.0]]),
                                 "x.weight_zero_point": raw("I8", [[1], [2]])}))
    put("empty", lambda p: raw_st(p, {}))
    put("scalar", lambda p: raw_st(p, {"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
                                       "z": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}}, b"\0" * 4))
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    broken = {"gap": {"a": {**one, "data_offsets": [8, 16]}}, "overlap": {"a": one, "b": one}, "backwards": {"a": {**one, "data_offsets": [8, 0]}},
              "product": {"a": {**one, "shape": [1 << 40, 1 << 40]}}, "dtype": {"a": {**one, "dtype": "F99"}},
              "negative": {"a": {**one, "shape": [-2]}}, "dims": {"a": {**one, "shape": [1] * 9}}, "end": {"a": {**one, "data_offsets": [0, 1 << 62]}},
              "name": {"x" * 300: one}}
    for name, header in broken.items():
        put("bad_" + name, lambda p, h=header: raw_st(p, h, b"\0" * 8))
    put("bad_length", lambda p: raw_st(p, {"a": one}, b"\0" * 8, hlen=2**64 - 4))
    put("bad_json", lambda p: raw_st(p, b'{"a":{"dtype":"F32","shape":[', b""))
    put("bad_twice", lambda p: raw_st(p, b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}", b"\0" * 8))
    put("bad_short", lambda p: p.write_bytes(b"\x08\0\0"))


def vocabulary(model, tokens, **more):
    kvs = [kv("general.architecture", STRING, more.pop("arch", "llama")), kv("tokenizer.ggml.model", STRING, model),
           kv("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
           kv("tokenizer.ggml.token_type", ARRAY, (I32, [3, 3] + [1] * (len(tokens) - 2)))]
    for key, (typ, v) in more.items():
        kvs.append(kv("tokenizer.ggml." + key, typ, v))
    return kvs


def hyper(arch):
    return [kv(f"{arch}.block_count", U32, 1), kv(f"{arch}.context_length", U32, 64), kv(f"{arch}.embedding_length", U32, 32),
            kv(f"{arch}.feed_forward_length", U32, 32), kv(f"{arch}.attention.head_count", U32, 2),
            kv(f"{arch}.attention.head_count_kv", U32, 1), kv(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
            kv(f"{arch}.attention.layer_norm_epsilon", F32, 1e-5), kv(f"{arch}.rope.freq_base", F32, 1e4)]


def gguf(put, work):
    x = normal(2, 2, 32)
    kinds = [kv("k.u8", U8, 1), kv("k.i8", I8, -1), kv("k.u16", U16, 2), kv("k.f64", F64, 0.5), kv("k.bool", BOOL, True), kv("k.u64", U64, 1 << 40),
             kv("k.nested", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["a", ""])]))]
    put("kinds", lambda p: gg(p, {"a.weight": like("F32", x), "b.weight": like("F16", x), "c": like("BF16", x)}, kinds))
    put("aligned", lambda p: gg(p, {"a": f32([1.0, 2.0])}, alignment=64))
    put("version2", lambda p: raw_gg(p, [ti("a", (2,))], body=b"\0" * 32, ver=2))
    sizes = {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 10: 84, 11: 110, 12: 144, 13: 176, 14: 210}  # of a block
    body, infos = b"", []
    for number, size in sizes.items():
        infos.append(ti(f"t{number}", (256 if number > 9 else 32, 2), number, len(body)))
        body += bytes(k * 37 % 251 for k in range(2 * size)) + b"\0" * (-2 * size % 32)
    put("blocks", lambda p: raw_gg(p, infos, body=body))
    llama(work / "llama", embd=32, ffn=32, heads=2, kv_heads=1, vocab=40)
    for kind in ("q8_0", "q4_0"):
        out = work / f"{kind}.gguf"
        subprocess.run([CLQ, "quantize", work / "llama", out, "--type", kind, "--pure", "--device", "ref", "--quiet"], check=True)
        put("llama_" + kind, lambda p, o=out: p.write_bytes(o.read_bytes()))
    words = ["<s>", "</s>", "\u2581a", "b", "<0x41>", "ab", "\u2581", "a"]
    put("vocab_spm", lambda p: raw_gg(p, kvs=vocabulary("llama", words, scores=(ARRAY, (F32, [0.0] * 5 + [-1.0, -2.0, -3.0])),
                                                        bos_token_id=(U32, 0), eos_token_id=(U32, 1), add_space_prefix=(BOOL, True))
                                      + hyper("llama"), body=b"\0" * 32))
    put("vocab_bpe", lambda p: raw_gg(p, kvs=vocabulary("gpt2", ["<s>", "</s>", "a", "b", "ab", "\u0120a"], merges=(ARRAY, (STRING, ["a b", "\u0120 a"])),
                                                        pre=(STRING, "llama-bpe"), eos_token_id=(U32, 1)) + hyper("llama"), body=b"\0" * 32))
    put("vocab_wordpiece", lambda p: raw_gg(p, kvs=vocabulary("bert", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581a", "b"], arch="bert",
                                                              cls_token_id=(U32, 2), seperator_token_id=(U32, 3), unknown_token_id=(U32, 1))
                                            + hyper("bert"), body=b"\0" * 32))
    put("bad_ids", lambda p: raw_gg(p, kvs=vocabulary("gpt2", ["a", "b"], merges=(ARRAY, (STRING, ["a  b", "", " ", "x y z"])),
                                                      bos_token_id=(U32, 4000000000)) + hyper("llama"), body=b"\0" * 32))
    put("bad_counts", lambda p: raw_gg(p, nt=1 << 60, nk=1 << 60))
    put("bad_array", lambda p: raw_gg(p, kvs=[kv("k", U8, 1)[:9] + struct.pack("<IIQ", ARRAY, U64, 1 << 61)], nk=1, body=b"\0" * 64))
    put("bad_depth", lambda p: raw_gg(p, kvs=[kv("k", U8, 1)[:9] + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 40], nk=1))
    put("bad_type", lambda p: raw_gg(p, [ti("a", (32,), 999)], body=b"\0" * 64))
    put("bad_block", lambda p: raw_gg(p, [ti("a", (33, 2), 8)], body=b"\0" * 128))
    put("bad_product", lambda p: raw_gg(p, [ti("a", (1 << 31, 1 << 31, 4), 0)], body=b"\0" * 64))
    put("bad_offset", lambda p: raw_gg(p, [ti("a", (4,), 0, (1 << 64) - 32)], body=b"\0" * 64))
    put("bad_overlap", lambda p: raw_gg(p, [ti("a", (16,)), ti("b", (16,), 0, 32)], body=b"\0" * 128))
    put("bad_twice", lambda p: raw_gg(p, [ti("a", (4,)), ti("a", (4,), 0, 32)], [kv("k", U8, 1)] * 2, body=b"\0" * 64))
    put("bad_endian", lambda p: raw_gg(p, order=">"))
    put("bad_alignment", lambda p: raw_gg(p, kvs=[kv("general.alignment", U32, 3)], body=b"\0" * 64))
    put("bad_split", lambda p: raw_gg(p, kvs=[kv("split.count", U16, 3), kv("split.no", U16, 0)], body=b"\0" * 64))


def hfdir(put, work):
    small = dict(embd=8, ffn=8, heads=2, kv_heads=1, vocab=12)

    def folder(name, change=None, **more):
        path = work / ("hf_" + name)
        llama(path, **{**small, **more})
        if change:
            change(path)
        put(name, lambda p: p.write_bytes(pack(path)))

    def tokenizer_json(path, edit):
        t = json.loads((path / "tokenizer.json").read_text())
        edit(t)
        (path / "tokenizer.json").write_text(json.dumps(t))

    folder("llama")
    folder("shards", shards=2)
    folder("untied", tied=False, dtype="F16")
    folder("bad_config", lambda p: (p / "config.json").write_text('{"model_type": 5, "hidden_size": -1, "num_attention_heads": 0}'))
    folder("bad_heads", num_attention_heads=0, num_key_value_heads=1 << 40)
    folder("bad_numbers", hidden_size=1e300, rms_norm_eps="x", rope_theta=None, vocab_size=-5, rope_scaling={"rope_type": "llama3", "factor": 0})
    folder("bad_token_ids", bos_token_id=[1, 2], eos_token_id=1 << 62)
    folder("bad_merges", lambda p: tokenizer_json(p, lambda t: t["model"].update(merges=["a b", ["a"], ["!", "\""], 5, "", "x"])))
    folder("bad_vocab", lambda p: tokenizer_json(p, lambda t: t["model"].update(vocab={"a": -1, "b": 1 << 40, "c": "x", "d": 3, "e": 3})))
    folder("bad_added", lambda p: tokenizer_json(p, lambda t: t.update(added_tokens=[{"id": 1 << 33}, {"content": 5}, [], {"id": -1, "content": "x"}])))
    folder("bad_pre", lambda p: tokenizer_json(p, lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(((("}}, normalizer=7)))
    index = "model.safetensors.index.json"
    folder("bad_index", lambda p: (p / index).write_text('{"weight_map": {"a": "../x", "b": 5}}'))
    folder("bad_missing", lambda p: (p / "model-00002-of-00002.safetensors").unlink(), shards=2)

    def activations(name, scale=(0.25,), **settings):
        path = work / ("act_" + name)
        path.mkdir()
        st(path / "model.safetensors", {
            "m.weight": raw("I8", [[1, -2] * 16] * 2), "m.weight_scale": f32([[2.0], [1.0]]), "m.input_scale": f32(list(scale)),
            "m.input_zero_point": raw("I8", [-7]), "f.weight": raw("F16", [[0, 1]]), "f.output_scale": f32([1.0])})
        inputs = {"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": False, "dynamic": False, "observer": "minmax"}
        config = {"model_type": "llama", "quantization_config": {
            "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head", "re:.*f$"],
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel"},
                                    "input_activations": inputs | settings}}}}
        (path / "config.json").write_text(json.dumps(config))
        put(name, lambda p: p.write_bytes(pack(path)))

    activations("activations")
    activations("activations_token", strategy="token", dynamic=True, symmetric=True)
    activations("bad_input_scale", scale=[0.0])
    activations("bad_input_scales", scale=[1.0, 2.0])

    def packed(name, bits, group, zero=False, g_idx=False, **settings):
        path = work / ("ct_" + name)
        path.mkdir()
        tensors = {"m.weight_packed": raw("I32", [[0x12345678] * (64 * bits // 32)] * 4), "m.weight_scale": f32([[0.5] * (64 // group)] * 4),
                   "m.weight_shape": raw("I64", [4, 64])}
        if zero:
            tensors["m.weight_zero_point"] = raw("I32", [[7] * (64 // group)] * -(-4 * bits // 32))
        if g_idx:
            tensors["m.weight_g_idx"] = raw("I32", [k % (64 // group) for k in range(64)])
        tensors |= settings.pop("tensors", {})
        st(path / "model.safetensors", tensors)
        weights = {"num_bits": bits, "group_size": group, "strategy": "group", "symmetric": not zero, "type": "int"}
        config = {"model_type": "llama", "quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
                  {"g": {"targets": ["Linear", "re:m.*(", "re:.*m$"], "weights": {**weights, **settings}}}}}
        (path / "config.json").write_text(json.dumps(config))
        put(name, lambda p: p.write_bytes(pack(path)))

    packed("packed4", 4, 32)
    packed("packed3_zero", 3, 32, zero=True)
    packed("packed4_order", 4, 32, g_idx=True)
    packed("bad_bits", 4, 32, num_bits=33)
    packed("bad_shape", 4, 32, tensors={"m.weight_shape": raw("I64", [1 << 62, 64])})
    packed("bad_shape2", 4, 32, tensors={"m.weight_shape": raw("I64", [-4, -64])})
    packed("bad_scales", 4, 32, tensors={"m.weight_scale": f32([[0.5] * 3] * 4)})
    packed("bad_zero", 4, 32, tensors={"m.weight_zero_point": raw("I32", [[7] * 9])})
    packed("bad_index_values", 4, 32, tensors={"m.weight_g_idx": raw("I32", [-1, 1 << 30] * 32)})

    def by_columns(name, tensors, change={}, **settings):
        path = work / ("col_" + name)
        path.mkdir()
        tensors = {n: t for n, t in (tensors | {f"m.{n}": t for n, t in change.items()}).items() if t}
        st(path / "model.safetensors", tensors)
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": settings}))
        put(name, lambda p: p.write_bytes(pack(path)))

    def numbers(bits):
        place = np.arange(32)
        return ((place[:, None] + np.arange(64)) % (1 << bits), np.stack([place * 5, place * 3], 1) % (1 << bits), np.full((32, 2), 0.5))

    awq, gptq = columns.awq("m", *numbers(4)), columns.gptq("m", *numbers(4), 4, 1, np.arange(64) % 2)
    by_columns("awq", awq, **columns.AWQ)
    by_columns("gptq", gptq, **columns.GPTQ | {"desc_act": True, "checkpoint_format": "gptq"})
    by_columns("gptq3", columns.gptq("m", *numbers(3), 3, 2), **columns.GPTQ | {"bits": 3})
    by_columns("gptq8_dynamic", columns.gptq("m", *numbers(8), 8, 2), **columns.GPTQ | {"dynamic": {"+:m": {"bits": 8}, "-:((": {}, ".*": 5}})
    by_columns("gptq_symmetric", gptq, {"qzeros": raw("I32", [[0x77777777] * 4] * 2)}, **columns.GPTQ | {"sym": True})
    by_columns("bad_awq_parts", awq, {"qzeros": None}, **columns.AWQ)
    by_columns("bad_awq_groups", awq, {"scales": f32([[0.5] * 32] * 64)}, **columns.AWQ)
    by_columns("bad_awq_group_size", awq, **columns.AWQ | {"group_size": -7, "bits": -4})
    by_columns("bad_gptq_index", gptq, {"g_idx": raw("I32", [-1, 1 << 30] * 32)}, **columns.GPTQ)
    by_columns("bad_gptq_zeros", gptq, {"qzeros": raw("I32", [[1] * 31] * 2)}, **columns.GPTQ | {"bits": 40})
    by_columns("bad_gptq_shape", gptq, {"qweight": raw("I32", [[1] * 32])}, **columns.GPTQ)


def imatrix(put):
    one = {"blk.0.ffn_up.weight": (np.float32([[1, 2, 0.5, 0]]), np.float32([64]))}
    two = one | {"blk.0.ffn_down_exps.weight": (np.float32([[1, 2], [0, 0], [1, 1]]), np.float32([64, 64, 0]))}
    put("dat", lambda p: write_imatrix_dat(two, p))
    put("dat_short", lambda p: write_imatrix_dat(one, p, b""))
    put("dat_chunks", lambda p: write_imatrix_dat(one, p, struct.pack("<i", 7)))
    put("gguf", lambda p: write_imatrix_gguf(two, p))
    put("gguf_nothing", lambda p: write_imatrix_gguf({}, p))
    put("gguf_other", lambda p: write_imatrix_gguf(two, p, [kv("general.type", STRING, "model")]))
    put("bad_nan", lambda p: write_imatrix_dat({"a": (np.float32([[np.nan]]), np.float32([64]))}, p))
    put("bad_inf", lambda p: write_imatrix_gguf({"a": (np.float32([[np.inf]]), np.float32([1]))}, p))
    put("bad_negative", lambda p: write_imatrix_gguf({"a": (np.float32([[-1]]), np.float32([1]))}, p))
    put("bad_count", lambda p: write_imatrix_gguf({"a": (np.float32([[1]]), np.float32([-3]))}, p))
    put("bad_twice", lambda p: p.write_bytes(struct.pack("<i", 2) + (struct.pack("<i", 1) + b"a" + struct.pack("<iif", 1, 1, 1)) * 2))
    put("bad_entries", lambda p: p.write_bytes(struct.pack("<i", 1 << 30) + b"\0" * 40))
    put("bad_length", lambda p: p.write_bytes(struct.pack("<ii", 1, 1 << 30) + b"\0" * 40))
    put("bad_values", lambda p: p.write_bytes(struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 1 << 30) + b"\0" * 40))
    put("bad_tail", lambda p: write_imatrix_dat(one, p, struct.pack("<ii", 7, 1 << 30) + b"x"))
    put("bad_behind", lambda p: write_imatrix_dat(one, p, struct.pack("<ii", 7, 0) + b"xx"))


OBSERVERS = ["minmax", "moving-average", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy", "mse"]


def write_stats(path, sites, kind="clquant-statistics", more=None, arrays=None):
    """sites: (weights, columns, matrices, gram). more: of the description; arrays: in place of zeros."""
    about = {"version": 1, "dataset": "t", "architecture": "llama", "fingerprint": "0123456789abcdef", "context": 4, "windows": 1,
             "tokens": 4, "observers": OBSERVERS,
             "sites": [{"weights": w, "cols": c, "matrices": m, "gram": g} for w, c, m, g in sites]}
    tensors = {}
    for w, c, m, g in sites:
        shapes = {"tokens": ("U64", (m,)), "ranges": ("F32", (m, 7, 3)), "bins": ("U32", (m, 8192)),
                  "token_bins": ("U32", (m, 256)), "exponents": ("I32", (m,)), "token_range": ("F32", (m, 2))}
        shapes |= {k: ("F32", (m, c)) for k in ("min", "max", "sum", "sum_abs", "sum_sq")}
        shapes |= {"gram": ("F32", (m, c, c))} if g else {}
        tensors |= {f"{w[0]}.{k}": raw(t, np.zeros(shape)) for k, (t, shape) in shapes.items()}
    for key, t in (arrays or {}).items():
        tensors[key] = t
    st(path, tensors, {"format": kind, "statistics": json.dumps({**about, **(more or {})})})


def stats(put):
    one = [(["a"], 1, 1, False)]
    two = [(["a", "b"], 2, 1, True), (["c"], 1, 2, False)]
    put("one", lambda p: write_stats(p, one))
    put("two", lambda p: write_stats(p, two, arrays={"c.tokens": raw("U64", [4, 0]), "c.sum_sq": f32([[3.0], [0.0]])}))
    put("checkpoint", lambda p: write_stats(p, one, "clquant-checkpoint", {"run": "0" * 16, "next_layer": 1},
                                            {"hidden": f32(np.zeros((4, 2)))}))
    put("bad_sites", lambda p: write_stats(p, []))
    put("bad_twice", lambda p: write_stats(p, [(["a", "a"], 1, 1, False)]))
    put("bad_version", lambda p: write_stats(p, one, more={"version": 2}))
    put("bad_cols", lambda p: write_stats(p, one, more={"sites": [{"weights": ["a"], "cols": 1 << 40, "matrices": 1, "gram": False}]}))
    put("bad_gram", lambda p: write_stats(p, one, more={"sites": [{"weights": ["a"], "cols": 1, "matrices": 1, "gram": True}]}))
    put("bad_range", lambda p: write_stats(p, one, arrays={"a.ranges": f32(np.full((1, 7, 3), np.nan))}))
    put("bad_json", lambda p: st(p, {}, {"format": "clquant-statistics", "statistics": "{"}))


def main():
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for name, make in (("safetensors", safetensors), ("gguf", lambda put: gguf(put, work)), ("hfdir", lambda put: hfdir(put, work)),
                           ("imatrix", imatrix), ("stats", stats)):
            corpus = HERE / f"corpus_{name}"
            corpus.mkdir(exist_ok=True)
            for old in corpus.glob("seed_*"):
                old.unlink()
            make(lambda seed, write, c=corpus: write(c / f"seed_{seed}"))
            total += sum(p.stat().st_size for p in corpus.iterdir())
    print(f"{total} bytes")


if __name__ == "__main__":
    main()

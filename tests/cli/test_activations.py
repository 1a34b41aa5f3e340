# SPDX-License-Identifier: MIT
"""Int8 activations: what folders say of them, what statistics make of them, and where they are dropped."""
import json
import shutil

import numpy as np
import pytest

from arch_models import EXPERTS, LAYERS, make
from common import (config_of, f16, f32, fails, llama, normal, ok, plan, quantize, raw, read_folder, read_gg, size_of,
                    st, tree, values, warnings_of)
from mixes import write_imatrix_gguf
from run_models import make_bert
from test_output import faults, interrupted, leftovers  # noqa: F401

OBSERVERS = ["minmax", "moving-average", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy", "mse"]
DEFAULT = "percentile-99.999"  # where tokens do not differ much
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
          "mlp.up_proj", "mlp.down_proj"]
KEYS = {"actorder", "block_structure", "dynamic", "group_size", "num_bits", "observer", "observer_kwargs", "strategy",
        "symmetric", "type"}
TOKEN = {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "int", "observer": None}
TENSOR = TOKEN | {"strategy": "tensor", "symmetric": False}
STATIC = TOKEN | {"strategy": "tensor", "dynamic": False, "observer": "minmax"}


# ---- statistics, written as docs/statistics.md says ----

def write_stats(path, sites, architecture="llama", edit=None):
    """sites: weights -> (cols, tokens of each matrix). The ranges [matrices][observers][absmax, min, max]. edit changes
    the tensors before they are written."""
    tensors, about, ranges = {}, [], {}
    for i, (names, (cols, tokens)) in enumerate(sorted(sites.items())):
        site, m = names[0], len(tokens)
        rng = np.random.default_rng(i)
        r = rng.uniform(0.5, 4.0, (m, len(OBSERVERS), 3)).astype(np.float32)
        r[..., 1] *= -1
        r[np.array(tokens) == 0] = 0
        ranges[site] = r
        x = rng.uniform(0, 1, (m, cols)).astype(np.float32) * (np.array(tokens) > 0)[:, None]
        zeros = np.zeros((m, cols), np.float32)
        tensors |= {f"{site}.tokens": raw("U64", tokens), f"{site}.ranges": f32(r), f"{site}.min": f32(zeros),
                    f"{site}.max": f32(x), f"{site}.sum": f32(x), f"{site}.sum_abs": f32(x), f"{site}.sum_sq": f32(x),
                    f"{site}.bins": raw("U32", np.zeros((m, 8192))),
                    f"{site}.token_bins": raw("U32", np.zeros((m, 256))),
                    f"{site}.exponents": raw("I32", [1] * m), f"{site}.token_range": f32([[0, 1]] * m)}
        about.append({"weights": list(names), "cols": cols, "matrices": m, "gram": False})
    if edit:
        edit(tensors)
    st(path, tensors, {"format": "clquant-statistics", "statistics": json.dumps({
        "version": 1, "dataset": "text", "architecture": architecture, "fingerprint": "0" * 16, "context": 8,
        "windows": 1, "tokens": 8, "observers": OBSERVERS, "sites": about})})
    return ranges


def llama_sites(layers=1, embd=64, ffn=96):
    sites = {}
    for i in range(layers):
        p = f"blk.{i}."
        sites |= {tuple(f"{p}{n}.weight" for n in ("attn_q", "attn_k", "attn_v")): (embd, [8]),
                  (f"{p}attn_output.weight",): (embd, [8]),
                  (f"{p}ffn_gate.weight", f"{p}ffn_up.weight"): (embd, [8]), (f"{p}ffn_down.weight",): (ffn, [8])}
    return sites


SITE = {"q_proj": "attn_q", "k_proj": "attn_q", "v_proj": "attn_q", "o_proj": "attn_output", "gate_proj": "ffn_gate",
        "up_proj": "ffn_gate", "down_proj": "ffn_down"}


def expected(r, observer=DEFAULT, asymmetric=False):
    """Scale and zero-point, in float32, of one matrix's ranges."""
    absmax, low, high = r[OBSERVERS.index(observer)]
    if not asymmetric:
        return absmax / np.float32(127), 0
    scale = (high - low) / np.float32(255)
    return scale, int(-128 + np.rint(-low / scale))


@pytest.fixture
def model(tmp_path):
    llama(tmp_path / "in", layers=2, dtype="F16")
    return tmp_path / "in"


@pytest.fixture
def stats(tmp_path):
    path = tmp_path / "stats.safetensors"
    return path, write_stats(path, llama_sites(2))


def groups_of(folder):
    return config_of(folder)["quantization_config"]["config_groups"]


def inputs_of(group):
    args = group["input_activations"]
    if args is None:
        return None
    assert set(args) == KEYS and args["actorder"] is None and args["observer_kwargs"] == {}
    assert args["group_size"] is None and args["block_structure"] is None
    return {k: args[k] for k in TOKEN}


def info(path):
    return {t["name"]: t["activations"] for t in json.loads(ok("info", path, "--tensors", "--json").stdout)["tensors"]}


def modules(layers=2):
    return [f"model.layers.{i}.{n}" for i in range(layers) for n in LINEAR]


# ---- writing ----

@pytest.mark.parametrize("kind,more,weights,inputs,name", [
    ("w8a8", [], {"num_bits": 8, "strategy": "channel", "symmetric": True}, TOKEN, "int-quantized"),
    ("W8A8", ["--activations", "token"], {"num_bits": 8, "strategy": "channel"}, TOKEN, "int-quantized"),
    ("i8_tensor", ["--activations", "token"], {"num_bits": 8, "strategy": "tensor"}, TOKEN, "int-quantized"),
    ("i8_asym", ["--activations", "tensor"], {"num_bits": 8, "symmetric": False}, TENSOR, "int-quantized"),
    ("i4_g32", ["--activations", "token"], {"num_bits": 4, "strategy": "group", "group_size": 32}, TOKEN,
     "pack-quantized"),
    ("i8", ["--activations", "none"], {"num_bits": 8}, None, "int-quantized"),
])
def test_dynamic(tmp_path, model, kind, more, weights, inputs, name):
    out = tmp_path / "out"
    p = plan(model, out, kind, *more)
    quantize(model, out, kind, *more)
    assert p["n_bytes"] == size_of(out)
    assert p["type"] == kind
    config = config_of(out)["quantization_config"]
    assert config["format"] == name and list(config["config_groups"]) == ["group_0"] and config["ignore"] == ["lm_head"]
    group = config["config_groups"]["group_0"]
    assert group["targets"] == ["Linear"] and inputs_of(group) == inputs and group["output_activations"] is None
    assert {k: group["weights"][k] for k in weights} == weights and set(group["weights"]) == KEYS
    assert group["weights"]["observer"] == "minmax" and group["weights"]["dynamic"] is False
    assert not [n for n in read_folder(out) if "input_scale" in n or "input_zero" in n]
    # The weights are those of the same type without activations.
    quantize(model, tmp_path / "plain", p["tensors"][-1]["to"], "--activations", "none")
    assert read_folder(out) == read_folder(tmp_path / "plain")
    said = info(out)
    word = None if inputs is None else {"kind": inputs["strategy"]}
    assert {n: said[n + ".weight"] for n in modules()} == {n: word for n in modules()}
    assert said["model.embed_tokens.weight"] is None and said["model.norm.weight"] is None
    assert {t["name"]: t["activations"] for t in p["tensors"]} == said
    r = ok("verify", model, out)
    assert "0 values or scales not finite" in r.stdout


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("observer", [None, *OBSERVERS])
def test_static(tmp_path, model, stats, asymmetric, observer):
    path, ranges = stats
    out = tmp_path / "out"
    more = ["--stats", path, *(["--observer", observer] if observer else []),
            *(["--asymmetric-activations"] if asymmetric else [])]
    kind = "i8_tensor" if asymmetric else "w8a8_static"
    if asymmetric:
        more += ["--activations", "static"]
    p = plan(model, out, kind, *more)
    r = quantize(model, out, kind, *more)
    assert warnings_of(r) == [] and "14 weights with int8 activations (static)" in r.stdout
    assert p["n_bytes"] == size_of(out)
    groups = groups_of(out)
    assert list(groups) == ["group_0"] and inputs_of(groups["group_0"]) == STATIC | {"symmetric": not asymmetric}
    tensors, said = read_folder(out), info(out)
    for module in modules():
        layer, name = module.split(".")[2], module.split(".")[-1]
        scale, zero = expected(ranges[f"blk.{layer}.{SITE[name]}.weight"][0], observer or DEFAULT, asymmetric)
        t = tensors.pop(module + ".input_scale")
        assert t.dtype == "F32" and t.shape == (1,) and values(t)[0] == scale
        if asymmetric:
            z = tensors.pop(module + ".input_zero_point")
            assert z.dtype == "I8" and z.shape == (1,) and values(z)[0] == zero
        a = said[module + ".weight"]
        assert a["kind"] == "static" and np.float32(a["scale"]) == scale and a["zero_point"] == zero
        assert next(t for t in p["tensors"] if t["name"] == module + ".weight")["activations"] == a
    assert not [n for n in tensors if "input_scale" in n or "input_zero" in n]
    ok("verify", model, out)
    text = ok("info", out, "--tensors").stdout
    assert "  int8 activations (static): 14 weights" in text
    assert "# int8 activations: static, scale " in text and "input_scale" not in text
    text = ok("quantize", model, tmp_path / "x", "--type", kind, *more, "--dry-run").stdout
    assert "# int8 activations: static" in text


def test_other_readers(tmp_path, model, stats):
    """The safetensors package reads the folder."""
    safetensors = pytest.importorskip("safetensors")
    quantize(model, tmp_path / "out", "w8a8_static", "--stats", stats[0])
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as f:
        t = f.get_tensor("model.layers.0.mlp.down_proj.input_scale")
    assert t.shape == (1,) and t.dtype == np.float32 and t[0] == expected(stats[1]["blk.0.ffn_down.weight"][0])[0]


def test_sources_of_the_same(tmp_path, model, stats):
    """A source in shards gives the same folder; a GGUF source the same scales."""
    path, _ = stats
    llama(tmp_path / "shards", layers=2, dtype="F16", shards=3)
    quantize(model, tmp_path / "a", "w8a8_static", "--stats", path)
    quantize(tmp_path / "shards", tmp_path / "b", "w8a8_static", "--stats", path)
    assert read_folder(tmp_path / "a") == read_folder(tmp_path / "b")
    ok("convert", model, tmp_path / "m.gguf", "--type", "f16")
    quantize(tmp_path / "m.gguf", tmp_path / "c", "w8a8_static", "--stats", path)
    a, c = read_folder(tmp_path / "a"), read_folder(tmp_path / "c")
    assert {n: t for n, t in a.items() if "input_scale" in n} == {n: t for n, t in c.items() if "input_scale" in n}
    assert inputs_of(groups_of(tmp_path / "c")["group_0"]) == STATIC


def test_groups_of_config(tmp_path, model):
    """A type of its own, an embedding and a head are other groups; heads and embeddings have no activations."""
    llama(tmp_path / "untied", tied=False)
    out = tmp_path / "out"
    quantize(tmp_path / "untied", out, "w8a8", "--tensor-type", "embed|lm_head=i8", "--tensor-type", "down_proj=i4_g32",
             "--tensor-type", "o_proj=f16")
    config = config_of(out)["quantization_config"]
    groups = config["config_groups"]
    assert config["format"] == "mixed-precision" and config["ignore"] == ["model.layers.0.self_attn.o_proj"]
    assert groups["group_0"]["targets"] == ["Linear"] and inputs_of(groups["group_0"]) == TOKEN
    others = {tuple(sorted(g["targets"])): (g["weights"]["num_bits"], inputs_of(g))
              for k, g in groups.items() if k != "group_0"}
    assert others == {("lm_head", "model.embed_tokens"): (8, None), ("model.layers.0.mlp.down_proj",): (4, TOKEN)}
    said = info(out)
    assert [n for n, a in said.items() if a] == [n for n in said if any(m in n for m in LINEAR) and "o_proj" not in n]
    ok("verify", tmp_path / "untied", out)


# ---- experts, and weights that nothing is known about ----

def mixtral_sites(cols, reached):
    """cols: of q, o, w1, w2."""
    sites = {}
    for i in range(LAYERS):
        p = f"blk.{i}."
        sites |= {tuple(f"{p}attn_{n}.weight" for n in "qkv"): (cols[0], [8]),
                  (f"{p}attn_output.weight",): (cols[1], [8]),
                  (f"{p}ffn_gate_exps.weight", f"{p}ffn_up_exps.weight"): (cols[2], reached),
                  (f"{p}ffn_down_exps.weight",): (cols[3], reached)}
    return sites


@pytest.mark.parametrize("gguf", [False, True])
def test_experts(tmp_path, gguf):
    """Each has its own scale; one that no token reached the largest range of the others."""
    model, out, path = tmp_path / "in", tmp_path / "out", tmp_path / "stats"
    tensors = make(model, "mixtral")
    cols = {n: tensors[f"model.layers.0.{n}.weight"].shape[1] for n in
            ("self_attn.q_proj", "self_attn.o_proj", "block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w2")}
    sites = mixtral_sites(list(cols.values()), [8, 0] + [8] * (EXPERTS - 2))
    ranges = write_stats(path, sites)
    if gguf:
        ok("convert", model, tmp_path / "m.gguf", "--type", "f32")
        model = tmp_path / "m.gguf"
    r = quantize(model, out, "i8", "--activations", "static", "--stats", path, "--asymmetric-activations")
    assert len(warnings_of(r)) == 1
    assert f"{3 * LAYERS} experts that no token of the calibration text reached take" in r.stderr
    t = read_folder(out)
    for layer in range(LAYERS):
        for part, site in (("w1", "ffn_gate_exps"), ("w3", "ffn_gate_exps"), ("w2", "ffn_down_exps")):
            of = ranges[f"blk.{layer}.{site}.weight"]
            for e in range(EXPERTS):
                one = of[e] if e != 1 else np.stack([of[..., 0].max(0), of[..., 1].min(0), of[..., 2].max(0)], -1)
                scale, zero = expected(one, asymmetric=True)
                p = f"model.layers.{layer}.block_sparse_moe.experts.{e}.{part}."
                assert values(t[p + "input_scale"])[0] == scale and values(t[p + "input_zero_point"])[0] == zero
    assert not [n for n in t if "moe.gate.input" in n]
    # No expert of a layer was reached: that cannot be made up.
    write_stats(path, {n: (c, [0] * len(k) if len(k) > 1 else k) for n, (c, k) in sites.items()})
    fails(3, "quantize", model, tmp_path / "x", "--type", "w8a8_static", "--stats", path,
          says=["no token of the text reached", "experts", "--tensor-type"])


def test_statistics_of_another_model(tmp_path, model, stats):
    path = stats[0]
    args = ("quantize", model, tmp_path / "out", "--type", "w8a8_static", "--stats", path, "--dry-run")
    sites = llama_sites(2)
    write_stats(path, {k: v for k, v in sites.items() if k[0] != "blk.1.ffn_down.weight"})
    fails(3, *args, says=["nothing about", "model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"])
    ok(*args, "--tensor-type", r"\.1\..*down_proj=f16")
    write_stats(path, sites | {("blk.1.ffn_down.weight",): (64, [8])})
    fails(3, *args, says=["of another model", "64 columns", "96"])
    write_stats(path, sites | {("blk.1.ffn_down.weight",): (96, [0])})
    fails(3, *args, says=["no token", "model.layers.1.mlp.down_proj.weight"])
    # Zeros only: a scale of 1.
    write_stats(path, sites, edit=lambda t: t.update({"blk.0.ffn_down.weight.ranges": f32(np.zeros((1, 7, 3)))}))
    quantize(model, tmp_path / "zeros", "w8a8_static", "--stats", path)
    assert values(read_folder(tmp_path / "zeros")["model.layers.0.mlp.down_proj.input_scale"])[0] == 1
    path.write_bytes(b"no statistics")
    fails(3, *args, says=str(path))
    fails(3, *args[:-2], tmp_path / "gone", says="gone")


def test_weights_that_are_not_run(tmp_path):
    """bert's pooler is no part of what runs: its activations stay float, and that is told."""
    model, path = tmp_path / "in", tmp_path / "stats"
    make_bert(tmp_path / "bert")
    ok("convert", tmp_path / "bert", model, "--type", "f32")
    tensors = read_folder(model)
    e = tensors["encoder.layer.0.attention.self.query.weight"].shape[1]
    f = tensors["encoder.layer.0.output.dense.weight"].shape[1]
    pooler = {"pooler.dense.weight": f32(normal(1, e, e)), "pooler.dense.bias": f32(normal(1, e))}
    st(model / "model.safetensors", tensors | pooler, {"format": "pt"})
    sites = {}
    for i in range(LAYERS):
        p = f"blk.{i}."
        sites |= {tuple(f"{p}attn_{n}.weight" for n in "qkv"): (e, [8]), (f"{p}attn_output.weight",): (e, [8]),
                  (f"{p}ffn_up.weight",): (e, [8]), (f"{p}ffn_down.weight",): (f, [8])}
    ranges = write_stats(path, sites, "bert")
    r = quantize(model, tmp_path / "out", "w8a8_static", "--stats", path)
    assert len(warnings_of(r)) == 1
    assert "1 weight that running the model does not use" in r.stderr and "pooler.dense.weight" in r.stderr
    groups = groups_of(tmp_path / "out")
    assert inputs_of(groups["group_0"]) == STATIC
    scale = values(read_folder(tmp_path / "out")["encoder.layer.0.output.dense.input_scale"])[0]
    assert scale == expected(ranges["blk.0.ffn_down.weight"][0], DEFAULT)[0]
    assert groups["group_1"]["targets"] == ["pooler.dense"] and groups["group_1"]["input_activations"] is None
    ok("verify", model, tmp_path / "out")


def test_tokens_of_many_sizes(tmp_path, model):
    """One scale cannot serve tokens of very different sizes: static warns of them, auto gives each its own."""
    site, path = "blk.0.ffn_down.weight", tmp_path / "stats"

    def spread(tensors):
        bins = np.zeros((1, 256), np.uint32)
        bins[0, 4 * 32], bins[0, 4 * 42] = 7, 1  # seven tokens of about 1, one of about 1024
        tensors[f"{site}.token_bins"] = raw("U32", bins)
        tensors[f"{site}.token_range"] = f32([[1, 1030]])
    ranges = write_stats(path, llama_sites(LAYERS), edit=spread)
    r = ok("quantize", model, tmp_path / "static", "--type", "w8a8_static", "--stats", path)
    assert len(warnings_of(r)) == 1 and "'model.layers.0.mlp.down_proj.weight' 916 times" in r.stderr, r.stderr
    scale = values(read_folder(tmp_path / "static")["model.layers.0.mlp.down_proj.input_scale"])[0]
    assert scale == expected(ranges[site][0], "mse")[0]  # the default there
    r = ok("quantize", model, tmp_path / "auto", "--type", "i8", "--activations", "auto", "--stats", path)
    assert warnings_of(r) == []
    assert "13 weights with int8 activations (static)" in r.stdout and "1 weight with int8 activations (token)" in r.stdout
    kinds = {n: a["kind"] for n, a in info(tmp_path / "auto").items() if a}
    assert kinds.pop("model.layers.0.mlp.down_proj.weight") == "token" and set(kinds.values()) == {"static"}
    assert "model.layers.0.mlp.down_proj.input_scale" not in read_folder(tmp_path / "auto")
    ok("verify", model, tmp_path / "auto")
    fails(2, "quantize", model, tmp_path / "x", "--type", "i8", "--activations", "auto", says=("auto activations need",))


# ---- what a source says ----

def test_carried_along(tmp_path, model, stats):
    """A weight that has the type already is copied with its scales; the folder is the same."""
    path = stats[0]
    static = ["--activations", "static", "--asymmetric-activations", "--stats", path]
    for kind, more in (("w8a8", []), ("i8_asym_tensor", static),
                       ("i3_g32", ["--activations", "tensor"]), ("i4_asym_g32", ["--activations", "token"])):
        a, b = tmp_path / (kind + ".a"), tmp_path / (kind + ".b")
        quantize(model, a, kind, *more)
        r = quantize(a, b, kind.replace("w8a8", "i8"))
        assert warnings_of(r) == [] and read_folder(a) == read_folder(b) and config_of(a) == config_of(b)
    # Parts of it are made anew: those lose it.
    a, b = tmp_path / "w8a8.a", tmp_path / "b"
    r = quantize(a, b, "i8", "--tensor-type", "down_proj=i8_tensor")
    lost = [w for w in warnings_of(r) if "activations" in w]
    assert len(lost) == 1 and "2 weights are made anew, without the int8 activations (token)" in lost[0]
    groups = groups_of(b)
    assert inputs_of(groups["group_0"]) == TOKEN and groups["group_1"]["input_activations"] is None
    assert sorted(groups["group_1"]["targets"]) == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    # Options set it anew, without a loss of the weights.
    r = quantize(a, tmp_path / "c", "i8", "--activations", "none")
    assert warnings_of(r) == [] and groups_of(tmp_path / "c")["group_0"]["input_activations"] is None
    r = quantize(tmp_path / "c", tmp_path / "d", "w8a8_static", "--stats", path)
    assert warnings_of(r) == []
    c, d = read_folder(tmp_path / "c"), read_folder(tmp_path / "d")
    assert c == {n: t for n, t in d.items() if not n.endswith(".input_scale")} and len(d) == len(c) + 14


def test_dropped(tmp_path, model):
    src = tmp_path / "src"
    quantize(model, src, "w8a8")
    for args in (["convert", src, tmp_path / "f16", "--type", "f16"],
                 ["quantize", src, tmp_path / "i4", "--type", "i4_g32"]):
        r = ok(*args)
        said = [w for w in warnings_of(r) if "activations" in w]
        assert len(said) == 1 and "14 weights are made anew, without the int8 activations (token)" in said[0]
        assert not any(info(args[2]).values())
    for args in (["convert", "--type", "f16"], ["quantize", "--type", "q8_0"],
                 ["quantize", "--type", "q8_0", "--activations", "none"]):
        r = ok(args[0], src, tmp_path / "out.gguf", *args[1:])
        said = [w for w in warnings_of(r) if "activations" in w]
        assert len(said) == (0 if "none" in args else 1)
        if said:
            assert "a GGUF file cannot say" in said[0] and "14 weights" in said[0]
    read_gg(tmp_path / "out.gguf")
    ok("verify", src, tmp_path / "out.gguf")


def test_float_weights(tmp_path):
    """Weights in float16 whose inputs are int8: their group has no weights, and is copied so."""
    src, out = tmp_path / "in", tmp_path / "out"
    tensors = llama(src, dtype="F16", extra={"model.layers.0.mlp.down_proj.input_scale": f16([0.25]),
                                             "model.layers.0.mlp.down_proj.input_zero_point": raw("I8", [-3])})
    config = config_of(src)
    group = {"targets": ["re:.*down_proj"], "weights": None, "input_activations": STATIC | {"symmetric": False}}
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "dense", "ignore": ["lm_head"],
                                     "config_groups": {"g": group}}
    (src / "config.json").write_text(json.dumps(config))
    r = ok("convert", src, out, "--type", "f16", "--device", "ref")
    assert warnings_of(r) == []
    group = groups_of(out)["group_0"]
    assert group["weights"] is None and group["format"] == "dense" and inputs_of(group) == STATIC | {"symmetric": False}
    assert info(out)["model.layers.0.mlp.down_proj.weight"] == {"kind": "static", "scale": 0.25, "zero_point": -3}
    assert [n for n, a in info(out).items() if a] == ["model.layers.0.mlp.down_proj.weight"]
    t = read_folder(out)
    assert values(t["model.layers.0.mlp.down_proj.input_scale"])[0] == 0.25 and len(t) == len(tensors)


def test_other_schemes(tmp_path, model):
    """What cannot be followed is told once, wherever the folder is opened."""
    src = tmp_path / "src"
    quantize(model, src, "w8a8")
    config = config_of(src)
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] |= {"type": "float"}
    (src / "config.json").write_text(json.dumps(config))
    r = ok("info", src, "--tensors")
    assert len(warnings_of(r)) == 1 and "float activations" in r.stderr and "stay float" in r.stderr
    assert "# int8" not in r.stdout
    ok("convert", src, tmp_path / "out.gguf", "--type", "f16")
    # A checkpoint with scales that cannot be.
    quantize(model, tmp_path / "static", "w8a8_static", "--stats", statistics_of(tmp_path))
    t = read_folder(tmp_path / "static")
    t["model.layers.1.mlp.up_proj.input_scale"] = f32([np.nan])
    st(tmp_path / "static" / "model.safetensors", t)
    fails(3, "info", tmp_path / "static", says=["model.layers.1.mlp.up_proj.input_scale", "nan"])
    del t["model.layers.1.mlp.up_proj.input_scale"]
    st(tmp_path / "static" / "model.safetensors", t)
    fails(3, "info", tmp_path / "static", says=["model.layers.1.mlp.up_proj.input_scale", "missing"])


def statistics_of(tmp_path):
    write_stats(tmp_path / "s", llama_sites(2))
    return tmp_path / "s"


# ---- wrong use ----

@pytest.mark.parametrize("out,args,says", [
    ("o", ["--type", "w8a8_static"], ["clquant calibrate", "--stats"]),
    ("o", ["--type", "i8", "--activations", "static"], ["clquant calibrate", "--stats"]),
    ("o", ["--type", "w8a8", "--activations", "static", "--stats", "STATS"], ["--type w8a8 stands for", "contradicts"]),
    ("o", ["--type", "w8a8_static", "--activations", "none", "--stats", "STATS"], ["contradicts"]),
    ("o", ["--type", "i8", "--activations", "int8"], ["none, token, tensor, static or auto", "'int8'"]),
    ("o", ["--type", "i8", "--activations", "Token"], ["none, token, tensor, static or auto"]),
    ("o", ["--type", "w8a8_static", "--stats", "STATS", "--observer", "max"], ["'max'", *OBSERVERS]),
    ("o", ["--type", "w8a8", "--observer", "mse"], ["--observer"]),
    ("o", ["--type", "w8a8", "--asymmetric-activations"], ["--asymmetric-activations is for --activations static"]),
    ("o", ["--type", "i8", "--asymmetric-activations"], ["--asymmetric-activations is for --activations static"]),
    ("o", ["--type", "w8a8", "--stats", "STATS"], ["--stats is for --activations static"]),
    ("o", ["--type", "f16", "--activations", "token"], ["weights of integer types"]),
    ("o.gguf", ["--type", "q8_0", "--activations", "token"], ["a GGUF file cannot say"]),
    ("o.gguf", ["--type", "q4_K_M", "--activations", "static", "--stats", "STATS"], ["a GGUF file cannot say"]),
    ("o.gguf", ["--type", "w8a8"], ["stored in a folder"]),
    ("o", ["--type", "w8a8_tensor"], ["w8a8_tensor"]),
    ("o", ["--type", "i8", "--tensor-type", "down=w8a8"], ["w8a8"]),
])
def test_wrong_use(tmp_path, model, stats, out, args, says):
    before = tree(tmp_path)
    fails(2, "quantize", model, tmp_path / out, *[stats[0] if a == "STATS" else a for a in args], says=says)
    assert tree(tmp_path) == before


def test_convert_has_none_of_them(tmp_path, model, stats):
    for args in (["--activations", "token"], ["--asymmetric-activations"], ["--stats", stats[0]],
                 ["--observer", "mse"]):
        fails(2, "convert", model, tmp_path / "o", "--type", "f16", *args, says=[args[0], "clquant quantize"])
    fails(2, "convert", model, tmp_path / "o", "--type", "w8a8", says="'w8a8' is i8 with int8 activations")


# ---- importance ----

def test_importance(tmp_path):
    """Statistics weigh the errors of a GGUF output's types; as --imatrix too, and another --imatrix wins."""
    model, path = tmp_path / "in", tmp_path / "stats"
    llama(model, embd=256, ffn=256)
    t, entries = {}, {}
    write_stats(path, llama_sites(1, 256, 256), edit=t.update)
    for names in llama_sites(1, 256, 256):
        for n in names:
            entries[n] = (values(t[f"{names[0]}.sum_sq"]), np.float32([8]))
    write_imatrix_gguf(entries, tmp_path / "imatrix.gguf")
    write_imatrix_gguf({n: (v[:, ::-1].copy(), c) for n, (v, c) in entries.items()}, tmp_path / "other.gguf")

    def made(name, *more):
        quantize(model, tmp_path / name, "q4_K", *more)
        return {n: t.data for n, t in read_gg(tmp_path / name).tensors.items()}

    plain, by_stats = made("plain.gguf"), made("stats.gguf", "--stats", path)
    assert by_stats == made("imatrix1.gguf", "--imatrix", tmp_path / "imatrix.gguf") != plain
    assert by_stats == made("imatrix2.gguf", "--imatrix", path)
    other = made("other1.gguf", "--imatrix", tmp_path / "other.gguf")
    assert other == made("other2.gguf", "--imatrix", tmp_path / "other.gguf", "--stats", path) != by_stats
    assert made("less.gguf", "--stats", path, "--include-weights", "attn_q") != by_stats


# ---- resuming ----

def test_resume(tmp_path, model, stats, faults):  # noqa: F811
    path, out = stats[0], tmp_path / "out"
    more = ["--activations", "static", "--asymmetric-activations", "--stats", path]
    quantize(model, tmp_path / "good", "i4_g32", *more)
    good = tree(tmp_path / "good")
    interrupted(tmp_path, faults, model, out, "i4_g32", 12, *more)
    # Other scales: refused.
    fails(3, "quantize", model, out, "--type", "i4_g32", "--device", "ref", *more, "--observer", "minmax", "--resume",
          says="cannot resume")
    fails(3, "quantize", model, out, "--type", "i4_g32", "--device", "ref", "--resume", says="cannot resume")
    r = ok("quantize", model, out, "--type", "i4_g32", "--device", "ref", *more, "--resume")
    assert 0 < len([line for line in r.stderr.splitlines() if line.startswith("[")]) < 20
    assert tree(out) == good and leftovers(tmp_path) == []
    # Damage to a scale alone is found.
    shutil.rmtree(out)
    interrupted(tmp_path, faults, model, out, "i4_g32", 12, *more)
    partial = tmp_path / ".out.clq-partial" / "model.safetensors"
    b = bytearray(partial.read_bytes())
    n = int.from_bytes(b[:8], "little")
    header = json.loads(b[8:8 + n])
    for name, e in header.items():
        if name.endswith("input_scale"):
            b[8 + n + e["data_offsets"][0]] ^= 1
    partial.write_bytes(b)
    ok("quantize", model, out, "--type", "i4_g32", "--device", "ref", *more, "--resume")
    assert tree(out) == good

# SPDX-License-Identifier: MIT
"""quantize --method: models that stay the same in exact arithmetic, and inputs that are hard."""
import shutil

import numpy as np
import pytest
from arch_models import E
from common import config_of, decode, f32, fails, integer, like, ok, read_folder, read_gg, run, st, tree, values
from methods import ATTENTION, kld, outliers, prepare, restore, sites, stored, write_ids
from run_models import PROMPTS, logits, make_bert, make_model, run_model

P = "model.layers.0."
METHODS = [("awq",), ("smoothquant", "--alpha", "0.5")]
AWQ_FILE = ("--method", "awq", "--ctx", "16", "--device", "ref")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Name -> an f32 checkpoint, its GGUF, ids; made on first use."""
    root, made = tmp_path_factory.mktemp("methods"), {}
    ids = write_ids(root / "ids", 48)

    def get(name):
        if name not in made:
            folder = root / name
            if name == "llama":
                outliers(folder, layers=2, kv_heads=4)
            else:
                folder.mkdir()
                restore(make_bert(folder) if name == "bert" else make_model(folder, name), "F32")
            ok("convert", folder, root / f"{name}.gguf", "--type", "f32", "--device", "ref")
            made[name] = folder, root / f"{name}.gguf", ids
        return made[name]
    return get


def numbers(path, name):
    if name == "bert":
        return run_model(path, [2, 7, 9, 20, 11, 3], want="hidden").reshape(-1, 6, E)[-1].astype(np.float64)
    return logits(path, PROMPTS[2] if name != "llama" else [i % 96 for i in PROMPTS[2]])


# ---- the same model ----

@pytest.mark.parametrize("method", METHODS, ids=lambda m: m[0])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "gemma3_global", "phi3", "mixtral", "qwen2moe",
                                  "qwen3moe", "bert"])
def test_identity(models, tmp_path, name, method):
    """Factors go into one weight and out of others: the outputs are those of the source, whatever holds it. Alternating
    containers, so that each is read and written by each method."""
    folder, gguf, ids = models(name)
    if name == "bert":
        ids = tmp_path / "ids"
        ids.write_text(" ".join(str(5 + i % 34) for i in range(40)))
    for src, out in (folder, tmp_path / "out"), (gguf, tmp_path / "out.gguf"), (folder, tmp_path / "of.gguf"):
        report = prepare(src, out, "f32", *method[:1], ids, *method[1:])
        folds = {s["folded_into"] for s in report["sites"] if "folded_into" in s}
        if name == "bert":  # its norms also feed the residual
            assert folds == ({"attn_v"} if method[0] == "awq" else set())
        else:
            assert {"attn_norm"} <= folds and ("ffn_norm" in folds or name.endswith(("moe", "mixtral")))
        if src.suffix == out.suffix:
            before = stored(src) if src.is_dir() else read_gg(src).tensors
            after = read_folder(out) if out.is_dir() else read_gg(out).tensors
            changed = [n for n in before if not np.array_equal(decode(before[n]), decode(after[n]))]
            assert len(changed) >= 2 * len(folds)
        assert kld(numbers(folder, name), numbers(out, name)) < 1e-6
        shutil.rmtree(out) if out.is_dir() else out.unlink()


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "qwen2moe"])
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_dtypes_of_norms(tmp_path, name, dtype):
    """Norms keep 16 bits; the factors that went elsewhere are those that the stored norm stands for."""
    folder = tmp_path / "in"
    folder.mkdir()
    make_model(folder, name)
    restore(folder, dtype)
    report = prepare(folder, tmp_path / "out", "f32", "awq", write_ids(tmp_path / "ids"))
    before, after = stored(folder), read_folder(tmp_path / "out")
    shift = 1 if name == "gemma2" else 0
    norm = P + "input_layernorm.weight"
    assert after[norm].dtype == dtype
    old, new = values(before[norm]) + np.float32(shift), values(after[norm]) + np.float32(shift)
    s = np.divide(old, new, out=np.ones_like(old), where=new != 0)
    assert (np.abs(s - 1) > 0.05).mean() > 0.5
    q = P + "self_attn.q_proj.weight"
    assert np.allclose(values(after[q]), values(before[q]) * s, rtol=1e-6, atol=0)
    assert sites(report)[0, ATTENTION]["folded_into"] == "attn_norm"
    if "moe" not in name:  # whose routers keep 16 bits as well, and with them what the factors make of them
        assert kld(logits(folder, PROMPTS[2]), logits(tmp_path / "out", PROMPTS[2])) < 1e-6
    else:
        router, n = P + "mlp.gate.weight", P + "post_attention_layernorm.weight"
        s = values(before[n]) / np.where(values(after[n]) == 0, 1, values(after[n]))
        s = np.where(values(after[n]) == 0, 1, s)
        assert np.array_equal(values(after[router]), values(like(dtype, values(before[router]) * s.astype(np.float32))))


# ---- hard inputs ----

def edge_model(folder, what):
    """A llama of one layer, with values that are hard."""
    tensors = outliers(folder, kv_heads=4)
    emb, norm, gate, up = ("model.embed_tokens.weight", P + "input_layernorm.weight", P + "mlp.gate_proj.weight",
                           P + "mlp.up_proj.weight")
    if what == "dead channels":  # of a norm, and of activations
        tensors[norm][[0, 5]] = 0
        tensors[emb][:, [1, 7]] = 0
    elif what == "tiny channels":
        tensors[norm][3] = 1e-30
        tensors[emb][:, 4] *= 1e-30
        tensors[P + "self_attn.q_proj.weight"][:, 9] = 1e-30
    elif what == "huge and tiny":
        tensors[norm][3] = 1e15
        tensors[norm][4] = 1e-15
    elif what == "zero groups":
        tensors[gate][:8, 32:] = 0
        tensors[P + "mlp.down_proj.weight"][:, 32:64] = 0
        tensors[up][5] = 0
    elif what == "tiny groups":
        tensors[gate][:8, 32:] = 1e-9
        tensors[P + "self_attn.v_proj.weight"][2] = 1e-9
    elif what == "zero weights":
        for n in "q", "k", "v":
            tensors[f"{P}self_attn.{n}_proj.weight"][:] = 0
        tensors[P + "mlp.down_proj.weight"][:] = 0
    elif what == "negative norm":
        tensors[norm][::3] *= -1
    st(folder / "model.safetensors", {n: f32(t) for n, t in tensors.items()})
    return tensors


EDGES = ["dead channels", "tiny channels", "huge and tiny", "zero groups", "tiny groups", "zero weights",
         "negative norm"]


@pytest.mark.parametrize("what", EDGES)
@pytest.mark.parametrize("method", ["awq", "smoothquant", "gptq"])
def test_edges(tmp_path, what, method):
    """KNOWN_FAILURES 2, 66, 78: everything that is written is finite, and with f32 the model is the same."""
    tensors, ids = edge_model(tmp_path / "in", what), write_ids(tmp_path / "ids")
    more = ["--alpha", "0.5"] if method == "smoothquant" else []
    for kind in "i4_asym_g32", "i4_g32":
        out = tmp_path / kind
        report = prepare(tmp_path / "in", out, kind, method, ids, *more)
        config, written = config_of(out), read_folder(out)
        for n in tensors:
            if n.endswith("_proj.weight"):
                assert np.isfinite(integer(written, config, n[:-7]).decode()).all(), n
            else:
                assert np.isfinite(values(written[n])).all(), n
        for s in report["sites"]:
            assert all(np.isfinite(v) for v in s.values() if isinstance(v, float))
        assert np.isfinite(logits(out, [5, 9, 20])).all()
    if method != "gptq":
        prepare(tmp_path / "in", tmp_path / "f32", "f32", method, ids, *more)
        a, b = (logits(tmp_path / p, [5, 9, 20, 31, 4]) for p in ("in", "f32"))
        assert kld(a, b) < 1e-6
        if what == "dead channels":
            now = values(read_folder(tmp_path / "f32")[P + "input_layernorm.weight"])
            assert (now[[0, 5]] == 0).all()


def test_tiny_groups_leave_other_rows(tmp_path):
    """KNOWN_FAILURES 2: rows without the tiny group are rounded as if it were not there, given the same factors."""
    ids = write_ids(tmp_path / "ids")
    plain = outliers(tmp_path / "a", kv_heads=4)
    edge_model(tmp_path / "b", "tiny groups")
    got = []
    for n in "a", "b":
        prepare(tmp_path / n, tmp_path / f"{n}.out", "i4_asym_g32", "smoothquant", ids, "--alpha", "1")
        got.append(integer(read_folder(tmp_path / f"{n}.out"), config_of(tmp_path / f"{n}.out"), P + "mlp.up_proj").q)
    assert got[0].shape == plain[P + "mlp.up_proj.weight"].shape and (got[0] != got[1]).mean() < 0.01


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("kind", ["i4_g32", "i3_asym_g32", "i4"])
def test_row78_rank_deficient(tmp_path, n, kind):
    """Fewer tokens than columns, dead and equal columns: finite, at most 5% worse than rounding to nearest."""
    tensors = outliers(tmp_path / "in", kv_heads=4)
    emb, norm = tensors["model.embed_tokens.weight"], tensors[P + "input_layernorm.weight"]
    emb[:, [3, 4]] = 0
    emb[:, 6], norm[6] = emb[:, 5], norm[5]
    st(tmp_path / "in" / "model.safetensors", {k: f32(t) for k, t in tensors.items()})
    ids = write_ids(tmp_path / "ids", n)
    errors = {}
    for method, scales in ("rtn", "absmax"), ("gptq", "absmax"), ("gptq", "search"):
        out = tmp_path / (method + scales)
        report = prepare(tmp_path / "in", out, kind, method, ids, "--scales", scales, ctx=n)
        errors[method + scales] = {s["name"]: s["error"] for s in report["sites"]}
        assert np.isfinite(integer(read_folder(out), config_of(out), P + "self_attn.q_proj").decode()).all()
    for rule in "gptqabsmax", "gptqsearch":
        for site, error in errors["rtnabsmax"].items():
            assert errors[rule][site] <= 1.05 * error, (rule, site)


@pytest.mark.parametrize("name", ["mixtral", "qwen2moe"])
@pytest.mark.parametrize("method", ["awq", "gptq", "smoothquant"])
def test_row34_few_tokens_for_experts(models, tmp_path, name, method):
    """Experts with 0 and 1 tokens: the run goes on; gptq rounds those that none reaches to nearest, and says so."""
    folder, _, _ = models(name)
    ids = tmp_path / "ids"
    ids.write_text("7 7 7 9")
    r = ok("quantize", folder, tmp_path / "out", "--type", "i4_g32", "--method", method, "--calib-tokens", ids, "--ctx",
           "4", "--device", "ref")
    assert ("no token reaches it" in r.stderr) == (method == "gptq")
    assert np.isfinite(logits(tmp_path / "out", PROMPTS[1])).all()


@pytest.mark.parametrize("method", ["awq", "gptq"])
@pytest.mark.parametrize("more", [[], ["--search-tokens", "1"], ["--search-tokens", "100000"], ["--chunks", "1"]],
                         ids=lambda m: " ".join(m))
def test_row76_short_texts(models, tmp_path, method, more):
    """7 tokens: a window and a part of one; a search may want less or more."""
    folder, _, _ = models("llama")
    prepare(folder, tmp_path / "out", "i4_g32", method, write_ids(tmp_path / "ids", 7), *more, ctx=4)
    assert np.isfinite(logits(tmp_path / "out", [5, 9, 20])).all()


@pytest.mark.parametrize("text,kind", [
    ("", "--calib"), ("a", "--calib"), ("", "--calib-tokens"), ("7", "--calib-tokens"), ("7 x", "--calib-tokens"),
    ("7 99", "--calib-tokens"), ("7 -1", "--calib-tokens"), ("{", "--calib-jsonl")])
def test_texts_refused(models, tmp_path, text, kind):
    folder, _, _ = models("llama")
    (tmp_path / "text").write_text(text)
    before = tree(tmp_path)
    r = run("quantize", folder, tmp_path / "out", "--type", "i4_g32", *AWQ_FILE, kind, tmp_path / "text")
    assert r.returncode in (2, 3) and r.stderr.startswith("clquant: "), r.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("method", ["awq", "smoothquant", "gptq"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["self_attn.q_proj", "mlp.down_proj", "input_layernorm"])
def test_nan_weights(tmp_path, method, value, name):
    """Bad input, and the message says where."""
    tensors = outliers(tmp_path / "in", layers=2, kv_heads=4)
    tensor = f"model.layers.1.{name}.weight"
    tensors[tensor].reshape(-1)[5] = value
    st(tmp_path / "in" / "model.safetensors", {n: f32(t) for n, t in tensors.items()})
    ids = write_ids(tmp_path / "ids")
    r = fails(3, "quantize", tmp_path / "in", tmp_path / "out", "--type", "i4_g32", "--method", method,
              "--calib-tokens", ids, "--ctx", "16", "--device", "ref")
    assert "layer 1" in r.stderr or tensor in r.stderr or "blk.1." in r.stderr, r.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["awq", "gptq", "smoothquant", "hqq", "rtn"])
@pytest.mark.parametrize("scales", ["search", "clip"])
def test_mixed_groups(tmp_path, method, scales):
    """Weights that share an input, with groups of which neither divides the other; one that no group fits."""
    outliers(tmp_path / "in", kv_heads=4, embd=192, heads=4)
    ids = write_ids(tmp_path / "ids", 20)
    more = [] if method == "hqq" else ["--scales", scales]
    report = prepare(tmp_path / "in", tmp_path / "out", "i4_g64", method, ids, "--tensor-type", "k_proj=i4_asym_g96",
                     *more)
    assert sites(report)[0, ATTENTION]["error"] > 0
    assert np.isfinite(logits(tmp_path / "out", [5, 9, 20])).all()

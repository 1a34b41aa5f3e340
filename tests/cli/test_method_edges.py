# SPDX-License-Identifier: MIT
"""Methods where groups, types and matrices do not go together as they mostly do."""
import json

import numpy as np
import pytest

import arch_models
from arch_models import make
from common import f32, fails, ok, read_folder, st, values

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps. " * 8


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def prepare(src, out, text, kind, method, *more, ctx=8, chunks=2):
    r = ok("quantize", src, out, "--type", kind, "--method", method, "--calib", text, "--ctx", str(ctx), "--chunks",
           str(chunks), "--device", "ref", "--quiet", "--json", *more)
    return json.loads(r.stdout)


def test_columns_that_the_common_group_does_not_divide(tmp_path, text):
    """Sums of products are kept for groups of 64; rows of 96 have none, and no other's place is written."""
    make(tmp_path / "m", "qwen2")
    energy = [[s["energy"] for s in prepare(tmp_path / "m", tmp_path / t, text, t, "awq")["sites"][:4]]
              for t in ("i4_asym_g32", "i4_asym_g64")]
    assert energy[1] == pytest.approx(energy[0], rel=1e-5)


def test_groups_of_which_none_is_a_multiple(tmp_path, text, monkeypatch):
    for name, value in (("E", 192), ("LAYERS", 1)):
        monkeypatch.setattr(arch_models, name, value)
    arch = list(arch_models.ARCHS["qwen2"])
    arch[4] = 192 // arch_models.HEADS
    monkeypatch.setitem(arch_models.ARCHS, "qwen2", tuple(arch))
    make(tmp_path / "m", "qwen2")
    r = prepare(tmp_path / "m", tmp_path / "o", text, "i4_asym_g96", "awq", "--tensor-type", "k_proj=i4_asym_g64",
                chunks=1)
    assert {"i4_asym_g64", "i4_asym_g96"} <= {t["to"] for t in r["tensors"]}


def test_rows_shorter_than_any_group(tmp_path):
    """More scales than a chunk of weights has in groups of 32."""
    w = np.random.default_rng(0).normal(size=(300000, 4)).astype(np.float32)
    st(tmp_path / "m.safetensors", {"model.layers.0.mlp.up_proj.weight": f32(w)})
    r = json.loads(ok("quantize", tmp_path / "m.safetensors", tmp_path / "o", "--type", "i4", "--scales", "clip",
                      "--device", "ref", "--quiet", "--json").stdout)
    assert r["tensors"][0]["sqnr_db"] > 15


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    """The folder, and a GGUF file of it, whose experts are stacked."""
    d = tmp_path_factory.mktemp("mixtral")
    make(d / "m", "mixtral")
    ok("convert", d / "m", d / "m.gguf", "--type", "f32", "--quiet")
    return d / "m", d / "m.gguf"


def test_stacked_experts_of_several_types(tmp_path, text, mixtral):
    """One tensor is prepared for one type; in a folder each expert is a tensor."""
    args = ["--type", "i4_asym_g32", "--tensor-type", "experts.0.w1=i8", "--calib", text, "--ctx", "8", "--chunks", "1"]
    for method in ("awq", "gptq"):
        fails(2, "quantize", mixtral[1], tmp_path / "o", *args, "--method", method, "--dry-run",
              says=["experts.0.w1", "experts.1.w1", "ffn_gate_exps", "i8", "i4_asym_g32"])
    r = prepare(mixtral[0], tmp_path / "o", text, "i4_asym_g32", "rtn", "--tensor-type", "experts.0.w1=i8", chunks=1)
    assert min(t["sqnr_db"] for t in r["tensors"] if t["to"] == "i8") > 30


def input_scales(folder):
    return {n: float(values(t).ravel()[0]) for n, t in read_folder(folder).items() if n.endswith("input_scale")}


def test_static_activations_of_experts(tmp_path, text, mixtral):
    """Each expert has its own, whether they are stacked in the source or not; those that no token reaches have others'."""
    for kind, src in zip(("folder", "gguf"), mixtral):
        r = ok("quantize", src, tmp_path / kind, "--type", "w8a8_static", "--method", "rtn", "--calib", text, "--ctx",
               "4", "--chunks", "1", "--device", "ref")
        assert "no token of the calibration text reached" in r.stderr
    a, b = input_scales(tmp_path / "folder"), input_scales(tmp_path / "gguf")
    assert a == pytest.approx(b, rel=1e-6)
    downs = [a[f"model.layers.0.block_sparse_moe.experts.{i}.w2.input_scale"] for i in range(arch_models.EXPERTS)]
    assert len(set(downs)) > 1 and 1 not in downs and downs.count(max(downs)) > 1, downs


@pytest.mark.parametrize("kept", ["q_proj", "k_proj"])
def test_smoothquant_where_a_weight_stays_as_it_is(tmp_path, text, kept):
    make(tmp_path / "m", "qwen2")
    r = prepare(tmp_path / "m", tmp_path / "o", text, "w8a8", "smoothquant", "--tensor-type", f"{kept}=f16", chunks=1)
    site = r["sites"][0]
    assert site["folded_into"] == "attn_norm" and site["ratio"] > 0
    assert site["search_loss"] < site["search_loss_without"]

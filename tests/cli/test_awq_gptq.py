# SPDX-License-Identifier: MIT
"""AWQ and GPTQ folders, read: values equal to numpy's, what contradicts itself refused."""
import json
import pathlib
import shutil

import numpy as np
import pytest

import columns
from columns import AWQ, GPTQ, decode, folder
from common import REPO, config_of, f16, fails, integer, ok, raw, read_folder, read_st, refuses, st, values, warnings_of

GOLDEN = REPO / "tests" / "golden" / "containers"
K_PROJ = "model.layers.0.self_attn.k_proj"
NAME = "model.layers.0.mlp.up_proj"


def dequantized(source, out):
    """What clquant makes of a folder's tensors, in float32, and what it said."""
    r = ok("convert", source, out, "--type", "f32", "--device", "ref")
    return {name: values(t) for name, t in read_folder(out).items()}, r


def numbers(seed, rows, cols, bits, groups):
    rng = np.random.default_rng(seed)
    scale = np.float16(rng.uniform(0.01, 1, (rows, groups))) * np.float16(10) ** (np.arange(groups) % 3 - 1)
    return (rng.integers(0, 1 << bits, (rows, cols)), rng.integers(0, 1 << bits, (rows, groups)),
            scale.astype(np.float16))


# ---- files of other tools ----

@pytest.mark.parametrize("name,floor", [("autoawq", 19), ("gptq", 18.5), ("awq_w4_asym", 13), ("gptq_w4", 13),
                                        ("rtn_w3", 11.5)])
def test_real_files(tmp_path, name, floor):
    source = tmp_path / "in"
    shutil.copytree(GOLDEN / name, source)
    tensors, settings = read_folder(source), config_of(source)["quantization_config"]
    if settings["quant_method"] == "compressed-tensors":
        expected = integer(tensors, config_of(source), K_PROJ).decode()
    else:
        expected = decode(*columns.read(tensors, settings, K_PROJ))
    got, r = dequantized(source, tmp_path / "out")
    assert list(got) == [f"{K_PROJ}.weight"] and not warnings_of(r)
    y = got[f"{K_PROJ}.weight"]
    assert np.array_equal(y, expected)
    x = values(read_st(GOLDEN / "source.safetensors")[f"{K_PROJ}.weight"])
    if name == "awq_w4_asym":  # its columns are scaled
        y = y * ((x * y).sum(0) / np.maximum((y * y).sum(0), 1e-30))
    assert 10 * np.log10((x * x).sum() / ((x - y) ** 2).sum()) > floor


# ---- layouts ----

def test_awq_order(tmp_path):
    """Position-coded values against a table written by hand: code = column mod 16, zero = 5 * column mod 16."""
    rows, cols = 16, 32
    q = np.tile(np.arange(rows) % 16, (cols, 1)).T  # AWQ's columns are output channels
    zero = (np.arange(rows) * 5 % 16)[:, None]
    # Nibbles from the lowest: channels 0 2 4 6 1 3 5 7, then 8 10 12 14 9 11 13 15.
    by_hand = np.array([0x75316420, 0xFDB9ECA8], np.uint32).view("<i4")
    zeros_by_hand = np.array([0x3_9_F_5_E_4_A_0, 0xB_1_7_D_6_C_2_8], np.uint32).view("<i4")
    assert np.array_equal(values(columns.awq_words(q.T))[0], by_hand)
    assert np.array_equal(values(columns.awq_words(zero.T))[0], zeros_by_hand)
    tensors = {f"{NAME}.qweight": raw("I32", np.tile(by_hand, (cols, 1))),
               f"{NAME}.qzeros": raw("I32", zeros_by_hand[None]), f"{NAME}.scales": f16(np.ones((1, rows)))}
    source = folder(tmp_path / "in", tensors, **AWQ)
    got, _ = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{NAME}.weight"], (q - zero).astype(np.float32))


@pytest.mark.parametrize("rows,cols,group", [(8, 32, 32), (264, 160, 32), (40, 2048, 64), (1032, 1056, 1056)])
def test_awq(tmp_path, rows, cols, group):
    q, zero, scale = numbers(rows, rows, cols, 4, cols // group)
    source = folder(tmp_path / "in", columns.awq(NAME, q, zero, scale), **AWQ | {"group_size": group})
    got, _ = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale))
    assert f"i4_asym_g{group}" in ok("info", source).stdout


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows,cols,group", [(32, 32, -1), (288, 160, 32), (64, 2048, 64)])
def test_gptq(tmp_path, bits, version, rows, cols, group):
    """Asymmetric; in version 1 a zero-point of 0 wraps to the highest number, and back."""
    groups = 1 if group < 0 else cols // group
    q, zero, scale = numbers(bits, rows, cols, bits, groups)
    settings = GPTQ | {"bits": bits, "group_size": group, "checkpoint_format": "gptq_v2" if version == 2 else "gptq"}
    source = folder(tmp_path / "in", columns.gptq(NAME, q, zero, scale, bits, version), **settings)
    got, r = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale)) and not warnings_of(r)
    assert f"i{bits}_asym" + (f"_g{group}" if group > 0 else "") in ok("info", source).stdout


def test_zero_points_of_all_values(tmp_path):
    """Zero-points 0 to 15, and codes at both ends beside each other."""
    q = np.tile([0, 15], (32, 16))
    zero = (np.arange(32) % 16)[:, None]
    scale = np.ones((32, 1), np.float16)
    expected = q - zero
    for k, (tensors, settings) in enumerate([(columns.awq(NAME, q, zero, scale), AWQ),
                                             (columns.gptq(NAME, q, zero, scale, 4, 2), GPTQ)]):
        got, _ = dequantized(folder(tmp_path / f"in{k}", tensors, **settings), tmp_path / f"out{k}")
        assert np.array_equal(got[f"{NAME}.weight"], expected)


def test_symmetric_versions(tmp_path):
    """The same weight with the zero-points of both versions, under the right label and a false one."""
    q, _, scale = numbers(9, 32, 128, 4, 4)
    zero = np.full((32, 4), 8)
    expected = decode(q, zero, scale)
    for version in (1, 2):
        tensors = columns.gptq(NAME, q, zero, scale, 4, version)
        assert set(values(tensors[f"{NAME}.qzeros"]).view(np.uint32).ravel()) == {0x77777777 if version == 1 else 0x88888888}
        for label in ("gptq", "gptq_v2", None):
            path = tmp_path / f"v{version}_{label}"
            settings = GPTQ | {"sym": True, "checkpoint_format": label}
            if label is None:
                del settings["checkpoint_format"]
            got, r = dequantized(folder(path, tensors, **settings), tmp_path / f"out{version}_{label}")
            assert np.array_equal(got[f"{NAME}.weight"], expected)
            false = (label == "gptq_v2") != (version == 2)
            assert len(warnings_of(r)) == false
            if false:
                assert "checkpoint_format" in r.stderr and NAME in r.stderr
            assert "i4_g32" in ok("info", path).stdout


def test_symmetric_by_name_only(tmp_path):
    q, zero, scale = numbers(3, 32, 64, 4, 2)
    for k, settings in enumerate([GPTQ | {"sym": True}, AWQ | {"zero_point": False}]):
        tensors = columns.awq(NAME, q, zero, scale) if k else columns.gptq(NAME, q, zero, scale, 4, 2)
        got, r = dequantized(folder(tmp_path / f"in{k}", tensors, **settings), tmp_path / f"out{k}")
        assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale))
        assert "said to be symmetric" in r.stderr


def test_group_index(tmp_path):
    """A random permutation whose groups' scales differ ten times; one that says nothing new is none."""
    rows, cols, group = 32, 512, 128
    q, zero, scale = numbers(5, rows, cols, 4, cols // group)
    index = np.random.default_rng(5).permutation(cols) // group
    settings = GPTQ | {"group_size": group, "desc_act": True}
    source = folder(tmp_path / "in", columns.gptq(NAME, q, zero, scale, 4, 2, index), **settings)
    got, _ = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale, index))
    assert not np.array_equal(decode(q, zero, scale), decode(q, zero, scale, index))
    plain = folder(tmp_path / "plain", columns.gptq(NAME, q, zero, scale, 4, 2, np.arange(cols) // group), **settings)
    got, _ = dequantized(plain, tmp_path / "out2")
    assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale))
    sizes = [json.loads(ok("info", p, "--tensors", "--json").stdout)["tensors"][0]["n_bytes"] for p in (source, plain)]
    assert sizes[0] - sizes[1] == 4 * cols


def test_dynamic(tmp_path):
    """GPTQModel's settings of single modules; the first pattern that matches counts."""
    a, b = (f"model.layers.{i}.mlp.up_proj" for i in range(2))
    qa, qb = numbers(1, 32, 64, 4, 2), numbers(2, 32, 64, 8, 1)
    tensors = columns.gptq(a, *qa, 4, 2) | columns.gptq(b, *qb, 8, 2) | {"model.layers.2.mlp.up_proj.weight": f16(np.ones((32, 64)))}
    dynamic = {"+:.*\\.1\\..*": {"bits": 8, "group_size": 64}, "-:.*\\.2\\..*": {}, ".*": {"bits": 4}, "((": {}}
    source = folder(tmp_path / "in", tensors, **GPTQ | {"dynamic": dynamic})
    got, _ = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{a}.weight"], decode(*qa)) and np.array_equal(got[f"{b}.weight"], decode(*qb))
    assert "i8_asym_g64" in ok("info", source).stdout
    fails(3, "info", folder(tmp_path / "bad", tensors, **GPTQ), says="says 4")


@pytest.mark.parametrize("old", ["quant_config.json", "quantize_config.json"])
def test_old_settings(tmp_path, old):
    """AutoAWQ's and AutoGPTQ's files beside a config.json without quantization_config."""
    q, zero, scale = numbers(4, 32, 64, 4, 2)
    is_awq = old == "quant_config.json"
    source = folder(tmp_path / "in", columns.awq(NAME, q, zero, scale) if is_awq else columns.gptq(NAME, q, zero, scale, 4, 1))
    (source / "config.json").write_text('{"model_type": "llama"}')
    (source / old).write_text(json.dumps({"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"} if is_awq else
                                         {"bits": 4, "group_size": 32, "desc_act": False, "sym": False}))
    got, _ = dequantized(source, tmp_path / "out")
    assert np.array_equal(got[f"{NAME}.weight"], decode(q, zero, scale))
    assert not (tmp_path / "out" / old).exists()


# ---- refusals ----

@pytest.mark.parametrize("settings,says", [
    (AWQ | {"version": "gemv"}, "gemv"), (AWQ | {"version": "marlin"}, "marlin"),
    (AWQ | {"backend": "llm-awq"}, "llm-awq"), (GPTQ | {"checkpoint_format": "marlin"}, "marlin"),
    (GPTQ | {"is_marlin_format": True}, "marlin"), ({"quant_method": "bitsandbytes"}, "bitsandbytes"), ({"bits": 4}, "no quant_method")])
def test_other_layouts(tmp_path, settings, says):
    q, zero, scale = numbers(1, 32, 64, 4, 2)
    source = folder(tmp_path / "in", columns.awq(NAME, q, zero, scale), **settings)
    refuses(tmp_path, source, says=["already quantized", says], also_info=False)
    assert "i32" in ok("info", source).stdout


def good(kind):
    q, zero, scale = numbers(1, 32, 64, 4, 2)
    return columns.awq(NAME, q, zero, scale) if kind == "awq" else columns.gptq(NAME, q, zero, scale, 4, 2, np.arange(64) // 32)


CASES = {  # what is changed, settings, says
    "no_scales": ({"scales": None}, {}, "has no scales"),
    "no_zeros": ({"qzeros": None}, {}, "has no qzeros"),
    "no_weight": ({"qweight": None}, {}, "has no qweight"),
    "dtype": ({"qweight": raw("F32", np.zeros((8, 32)))}, {}, "must be I32"),
    "zeros_dtype": ({"qzeros": raw("I64", np.zeros((2, 4)))}, {}, "must be I32"),
    "scales_dtype": ({"scales": raw("I32", np.zeros((2, 32)))}, {}, "scales must be"),
    "flat": ({"qweight": raw("I32", np.zeros(256))}, {}, "must be a matrix"),
    "flat_scales": ({"scales": f16(np.zeros(32))}, {}, "must be a matrix"),
    "empty": ({"qweight": raw("I32", np.zeros((0, 32)))}, {}, "must be a matrix"),
    "short": ({"qweight": raw("I32", np.zeros((7, 32)))}, {}, ""),
    "narrow": ({"qweight": raw("I32", np.zeros((8, 31)))}, {}, ""),
    "zeros_groups": ({"qzeros": raw("I32", np.zeros((1, 4)))}, {}, "do not fit"),
    "zeros_width": ({"qzeros": raw("I32", np.zeros((2, 3)))}, {}, ""),
    "groups": ({"scales": f16(np.zeros((3, 32))), "qzeros": raw("I32", np.zeros((3, 4)))}, {}, "groups of"),
    "small_groups": ({"scales": f16(np.zeros((4, 32))), "qzeros": raw("I32", np.zeros((4, 4)))}, {}, "multiple of 32"),
    "bits": ({}, {"bits": 5}, "says 5"),
    "bits_wrong": ({}, {"bits": 99}, "other bits"),
    "group_size": ({}, {"group_size": 64}, "group_size 64"),
    "group_size_channel": ({}, {"group_size": -1}, "group_size -1"),
}


@pytest.mark.parametrize("kind", ["awq", "gptq"])
@pytest.mark.parametrize("case", CASES)
def test_contradictions(tmp_path, kind, case):
    change, settings, says = CASES[case]
    tensors = good(kind)
    for part, t in change.items():
        tensors[f"{NAME}.{part}"] = t
    if kind == "awq" and case == "short":
        pytest.skip("the same as a weight of fewer columns")
    tensors = {k: t for k, t in tensors.items() if t is not None}
    source = folder(tmp_path / "in", tensors, **(AWQ if kind == "awq" else GPTQ) | settings)
    refuses(tmp_path, source, says=[NAME, says])


@pytest.mark.parametrize("index,says", [([0] * 32 + [2] * 32, "is 2, but there are 2 groups"), ([-1] * 64, "is -1"),
                                        ([0] * 63, "one entry a column"), (None, "desc_act needs g_idx")])
def test_bad_group_index(tmp_path, index, says):
    tensors = good("gptq")
    del tensors[f"{NAME}.g_idx"]
    if index:
        tensors[f"{NAME}.g_idx"] = raw("I32", index)
    source = folder(tmp_path / "in", tensors, **GPTQ | {"desc_act": True})
    refuses(tmp_path, source, says=[NAME, says])


def test_awq_has_no_group_index(tmp_path):
    tensors = good("awq") | {f"{NAME}.g_idx": raw("I32", [0] * 64)}
    refuses(tmp_path, folder(tmp_path / "in", tensors, **AWQ), says=[NAME, "AWQ knows no g_idx"])


@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_truncated(tmp_path, kind):
    source = folder(tmp_path / "in", good(kind), **AWQ if kind == "awq" else GPTQ)
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refuses(tmp_path, source)


def test_two_of_a_name(tmp_path):
    tensors = good("awq") | {f"{NAME}.weight": f16(np.zeros((32, 64)))}
    refuses(tmp_path, folder(tmp_path / "in", tensors, **AWQ), says="stands twice")

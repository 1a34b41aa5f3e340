# SPDX-License-Identifier: MIT
"""Folders in the layouts of AWQ and GPTQ, written; integer weights that go from one layout to another."""
import json
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import columns
from columns import AWQ, GPTQ, decode, folder
from common import (CLQ, REPO, T, bf16, config_of, f16, f32, fails, integer, like, llama, normal, ok, raw, read_folder,
                    slow, st, tree, values, warnings_of)

TINY = REPO / "tests" / "tiny-llama"
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
          "mlp.down_proj"]
NAME = "model.layers.0.mlp.up_proj"
# container, type: bits, group size (-1: channel), symmetric
TYPES = {("awq", "i4_asym_g32"): (4, 32, False), ("awq", "i4_g32"): (4, 32, True),
         ("gptq", "i2_g32"): (2, 32, True), ("gptq", "i3_g32"): (3, 32, True), ("gptq", "i4"): (4, -1, True),
         ("gptq", "i4_g32"): (4, 32, True), ("gptq", "i8_g32"): (8, 32, True),
         ("gptq-v2", "i2_asym_g32"): (2, 32, False), ("gptq-v2", "i3_asym_g32"): (3, 32, False),
         ("gptq-v2", "i4_asym_g32"): (4, 32, False), ("gptq-v2", "i8_asym"): (8, -1, False),
         ("gptq-v2", "i4_g32"): (4, 32, True)}
CODE_OF_VERSION = {"gptq": "gptq", "gptq-v2": "gptq_v2"}


def quantization(path):
    return config_of(path)["quantization_config"]


def write(src, out, kind, container, *more):
    return ok("quantize", src, out, "--type", kind, "--container", container, "--device", "ref", *more)


def repack(src, out, container, *more):
    return ok("convert", src, out, "--container", container, "--device", "ref", *more)


def make_model(path):
    return llama(path, layers=2, dtype="F16", embd=128, ffn=96)


@pytest.fixture
def model(tmp_path):
    make_model(tmp_path / "in")
    return tmp_path / "in"


# ---- writing ----

@pytest.mark.parametrize("device", ["ref", None], ids=["ref", "default"])
@pytest.mark.parametrize("container,kind", TYPES)
def test_write(tmp_path, model, container, kind, device):
    """Codes, scales and zero-points are those that compressed-tensors gets; numpy reads both."""
    bits, group, symmetric = TYPES[container, kind]
    where = ["--device", device] if device else []
    ok("quantize", model, tmp_path / "out", "--type", kind, "--container", container, *where)
    ok("quantize", model, tmp_path / "ct", "--type", kind, *where)
    tensors, ct, source = read_folder(tmp_path / "out"), read_folder(tmp_path / "ct"), make_model(tmp_path / "same")
    settings = quantization(tmp_path / "out")
    assert settings["bits"] == bits and settings["group_size"] == group
    if container == "awq":
        assert settings == {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": not symmetric,
                            "version": "gemm", "modules_to_not_convert": None}
    else:
        assert settings == {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": symmetric,
                            "lm_head": False, "checkpoint_format": CODE_OF_VERSION[container]}
    parts = {"qweight", "qzeros", "scales"} | ({"g_idx"} if container != "awq" else set())
    for i in range(2):
        for module in (f"model.layers.{i}.{n}" for n in LINEAR):
            assert {n.rsplit(".", 1)[1] for n in tensors if n.startswith(module + ".")} == parts
            q, zero, scale, g_idx = columns.read(tensors, settings, module)
            same = integer(ct, config_of(tmp_path / "ct"), module)
            half = 1 << (bits - 1)
            assert np.array_equal(q, same.q + half) and np.array_equal(scale, same.scale)
            assert np.array_equal(zero, same.zero + half)
            if g_idx is not None:
                rows, cols = q.shape
                assert np.array_equal(g_idx, np.arange(cols) // (group if group > 0 else cols))
                stored = set(values(tensors[f"{module}.qzeros"]).view(np.uint32).ravel())
                byte = {2: 0x55, 4: 0x77, 8: 0x7F}.get(bits)
                assert not (symmetric and container == "gptq" and byte) or stored == {byte * 0x01010101}
            x, y = values(source[f"{module}.weight"]), decode(q, zero, scale)
            step = np.repeat(scale.astype(np.float32), x.shape[1] // scale.shape[1], 1)
            assert (np.abs(x - y) <= step * (0.51 if symmetric else 1.01)).all()
    others = [n for n in source if not any(n == f"model.layers.{i}.{m}.weight" for i in range(2) for m in LINEAR)]
    assert all(tensors[n] == source[n] for n in others)
    ok("verify", model, tmp_path / "out", "--min-sqnr", "3" if bits == 2 else "8")
    assert f"{kind} " in ok("info", tmp_path / "out").stdout


@pytest.mark.parametrize("container,kind", [("awq", "i4_asym_g32"), ("gptq", "i3_g32"), ("gptq-v2", "i8_asym_g32")])
def test_tiles(tmp_path, container, kind):
    """Weights of many tiles, and any number of threads: the same bytes as one tile gives, which numpy checks."""
    src = folder(tmp_path / "in", {f"{NAME}.weight": f32(normal(1, 2080, 1056))})
    write(src, tmp_path / "a", kind, container, "--max-mem", "23M", "--threads", "1")
    write(src, tmp_path / "b", kind, container, "--threads", "3")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    q, zero, scale, _ = columns.read(read_folder(tmp_path / "a"), quantization(tmp_path / "a"), NAME)
    ok("convert", tmp_path / "a", tmp_path / "f32", "--type", "f32", "--device", "ref")
    assert np.array_equal(values(read_folder(tmp_path / "f32")[f"{NAME}.weight"]), decode(q, zero, scale))


def test_memory(tmp_path):
    """What gathers a weight's rows counts: the plan says it, and a bound below it is refused."""
    src = folder(tmp_path / "in", {f"{NAME}.weight": f32(normal(1, 4096, 4096))})
    plans = [json.loads(ok("quantize", src, tmp_path / "o", "--type", "i8_g128", "--dry-run", "--json", *more).stdout)
             for more in ([], ["--container", "gptq"])]
    assert plans[1]["memory"] - plans[0]["memory"] > 4096 * 4096
    fails(2, "quantize", src, tmp_path / "o", "--type", "i8_g128", "--container", "gptq", "--max-mem", "16M",
          says=["packed by columns", "--max-mem", NAME])
    few = json.loads(ok("quantize", src, tmp_path / "o", "--type", "i8_g128", "--container", "gptq", "--max-mem", "23M",
                        "--dry-run", "--json").stdout)
    assert 4096 * 4096 < few["memory"] <= 23 << 20
    assert not (tmp_path / "o").exists()


def test_edges(tmp_path):
    """Values half a step beyond the highest code stay there, and neighbours are as they were; groups of one sign."""
    x = np.zeros((32, 64), np.float32)
    x[:, 0::4], x[:, 1::4] = 1, -1  # scale 1 / 7 and codes 7, -7
    x[0::2, 2::4] = 1.49 / 7
    src = folder(tmp_path / "in", {f"{NAME}.weight": f32(x)})
    write(src, tmp_path / "out", "i4_g32", "gptq")
    q, zero, scale, _ = columns.read(read_folder(tmp_path / "out"), quantization(tmp_path / "out"), NAME)
    assert set(q[:, 0::4].ravel()) == {15} and set(q[:, 1::4].ravel()) == {1} and set(q[:, 3::4].ravel()) == {8}
    assert set(q[0::2, 2::4].ravel()) == {9} and set(q[1::2, 2::4].ravel()) == {8} and set(zero.ravel()) == {8}


@pytest.mark.parametrize("low,high", [(0, 1), (-22, -15), (100, 101), (-1e-3, 5)])
@pytest.mark.parametrize("container,kind", [("gptq", "i4_g32"), ("gptq-v2", "i2_asym_g32"), ("gptq-v2", "i4_asym_g32"),
                                            ("gptq", "i8_g32"), ("awq", "i4_asym_g32")])
def test_one_sign(tmp_path, low, high, container, kind):
    """The range includes 0: no value is off by more than a step, float16's rounding of the scale apart."""
    x = np.random.default_rng(7).uniform(low, high, (32, 64)).astype(np.float32)
    src = folder(tmp_path / "in", {f"{NAME}.weight": f32(x)})
    write(src, tmp_path / "out", kind, container)
    q, zero, scale, _ = columns.read(read_folder(tmp_path / "out"), quantization(tmp_path / "out"), NAME)
    bits = int(kind[1])
    assert q.min() >= 0 and q.max() < 1 << bits
    step = np.repeat(scale.astype(np.float32), 32, 1)
    assert (np.abs(decode(q, zero, scale) - x) <= 1.01 * step + np.abs(x) * 2.0**-10).all()


def test_modules_left_alone(tmp_path):
    """Shapes that do not fit stay as they are, with a note; the config says so."""
    tensors = {"model.layers.0.a.weight": f16(normal(1, 32, 64)), "model.layers.0.b.weight": f16(normal(2, 30, 64)),
               "model.layers.0.c.weight": f16(normal(3, 32, 40)), "model.layers.0.conv.weight": f16(normal(4, 32, 8, 8)),
               "lm_head.weight": f16(normal(5, 32, 64)), "model.embed_tokens.weight": f16(normal(6, 32, 64))}
    src = folder(tmp_path / "in", tensors)
    for container, kind in (("awq", "i4_asym_g32"), ("gptq", "i4_g32")):
        out = tmp_path / container
        r = write(src, out, kind, container)
        assert "3 tensors do not get the type" in r.stderr
        got = read_folder(out)
        kept = [n for n in tensors if n != "model.layers.0.a.weight"]
        assert all(got[n] == tensors[n] for n in kept) and "model.layers.0.a.qweight" in got
        settings = quantization(out)
        if container == "awq":
            assert settings["modules_to_not_convert"] == ["model.layers.0.b", "model.layers.0.c"]
        else:
            assert settings["dynamic"] == {f"-:^model\\.layers\\.0\\.{n}$": {} for n in "bc"}
        assert "i4" in ok("info", out).stdout
        fails(2, "quantize", src, tmp_path / "no", "--type", kind, "--container", container, "--no-fallback",
              says="--no-fallback")


def test_mixed_types(tmp_path, model):
    """GPTQ has settings of single modules; AWQ one type for all."""
    rules = ["--tensor-type", "down_proj=i8_g32", "--tensor-type", "k_proj=i4", "--tensor-type", "v_proj=f16"]
    write(model, tmp_path / "out", "i4_g32", "gptq", *rules)
    settings, tensors = quantization(tmp_path / "out"), read_folder(tmp_path / "out")
    assert (settings["bits"], settings["group_size"], settings["sym"]) == (4, 32, True)
    dynamic = settings["dynamic"]
    for i in range(2):
        p = f"^model\\.layers\\.{i}\\."
        assert dynamic[f"+:{p}mlp\\.down_proj$"] == {"bits": 8, "group_size": 32, "sym": True}
        assert dynamic[f"+:{p}self_attn\\.k_proj$"] == {"bits": 4, "group_size": -1, "sym": True}
        assert dynamic[f"-:{p}self_attn\\.v_proj$"] == {}
    assert len(dynamic) == 6
    types = {t["name"]: t["type"] for t in json.loads(ok("info", tmp_path / "out", "--tensors", "--json").stdout)["tensors"]}
    assert [types[f"model.layers.0.{n}.weight"] for n in LINEAR] == ["i4_g32", "i4", "f16", "i4_g32", "i4_g32", "i4_g32", "i8_g32"]
    assert "model.layers.0.self_attn.v_proj.weight" in tensors
    fails(2, "quantize", model, tmp_path / "no", "--type", "i4_g32", "--container", "awq", "--tensor-type",
          "q_proj=i4_g64", says="AWQ has one type for all weights")


@pytest.mark.parametrize("container,kind,says", [
    ("awq", "i8_g32", "4 bits in groups"), ("awq", "i4", "4 bits in groups"), ("awq", "i4_tensor", "4 bits in groups"),
    ("awq", "f16", "AWQ holds"), ("gptq", "i5_g32", "2, 3, 4 or 8 bits"), ("gptq", "i8_tensor", "channels or groups"),
    ("gptq", "i4_asym_g32", "gptq-v2"), ("gptq-v2", "i6", "2, 3, 4 or 8 bits"), ("gptq", "f32", "GPTQ holds"),
    ("marlin", "i4", "--container wants"), ("gguf", "i4", ".gguf"), ("gguf", "q4_0", ".gguf")])
def test_refused_types(tmp_path, model, container, kind, says):
    fails(2, "quantize", model, tmp_path / "out", "--type", kind, "--container", container, says=says)
    assert not (tmp_path / "out").exists()


def test_refused_settings(tmp_path, model):
    def no(*more, says, out="out", command="quantize"):
        fails(2, command, model, tmp_path / out, *more, says=says)
        assert not (tmp_path / out).exists()
    no("--type", "i4_g32", "--container", "gptq", says="layout of a folder", out="x.gguf")
    no("--type", "i8", "--container", "gptq", "--activations", "token", says="cannot say how activations")
    no("--type", "w8a8", "--container", "gptq", says="cannot say how activations")
    no("--type", "i4_g32", "--container", "gptq", "--tensor-type", "up_proj=i4_asym_g32", says="gptq-v2")
    no("--container", "awq", says="--type is missing")
    no("--container", "awq", says="has no integer weights", command="convert")
    no("--container", "gguf", says="give --type", command="convert", out="x.gguf")
    no("--container", "gptq", "--type", "f16", says="GPTQ holds", command="convert")
    no("--container", "gptq", "--tensor-type", "up_proj=f16", says="--tensor-type", command="convert")
    ok("quantize", model, tmp_path / "q.gguf", "--type", "q8_0", "--container", "gguf", "--device", "ref")
    fails(2, "convert", tmp_path / "q.gguf", tmp_path / "out", "--container", "awq", says="has no integer weights")


def test_awq_symmetric_is_announced(tmp_path, model):
    r = write(model, tmp_path / "out", "i4_g32", "awq")
    assert any("zero-points" in w for w in warnings_of(r))


def test_resume(tmp_path):
    """A run that is interrupted goes on, and gives the bytes of one that is not."""
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": f32(normal(i, 1024, 2048)) for i in range(12)}
    src = folder(tmp_path / "in", tensors)
    args = ["--type", "i4_asym_g32", "--container", "awq", "--device", "ref", "--threads", "1"]
    ok("quantize", src, tmp_path / "whole", *args)
    p = subprocess.Popen([CLQ, "quantize", src, tmp_path / "out", *args], stderr=subprocess.PIPE, text=True)
    for line in p.stderr:
        if line.startswith("[3/"):
            p.send_signal(signal.SIGINT)
            break
    p.stderr.read()
    assert p.wait() in (0, 130)
    if p.returncode == 130:
        assert not (tmp_path / "out").exists()
        ok("quantize", src, tmp_path / "out", *args, "--resume")
    assert tree(tmp_path / "whole") == tree(tmp_path / "out")


def test_speed(tmp_path):
    """Packing and unpacking [11008, 4096] takes well under 2 seconds a step."""
    rng = np.random.default_rng(0)
    shape = (11008, 4096)
    words_ = rng.integers(-2**31, 2**31, (shape[0], shape[1] // 8), dtype=np.int64).astype("<i4")
    scale = rng.uniform(0.5, 1, (shape[0], shape[1] // 128)).astype(np.float16)
    zero = rng.integers(-2**31, 2**31, (shape[0] // 8, shape[1] // 128), dtype=np.int64).astype("<i4")
    tensors = {f"{NAME}.weight_packed": raw("I32", words_), f"{NAME}.weight_scale": f16(scale),
               f"{NAME}.weight_zero_point": raw("I32", zero), f"{NAME}.weight_shape": raw("I64", shape)}
    weights = {"num_bits": 4, "group_size": 128, "strategy": "group", "symmetric": False, "type": "int"}
    source = folder(tmp_path / "ct", tensors, quant_method="compressed-tensors", format="pack-quantized",
                    config_groups={"g": {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}})
    last = source
    for container in ("awq", "gptq-v2", "compressed-tensors"):
        start = time.monotonic()
        repack(last, tmp_path / container, container, "--quiet")
        seconds = time.monotonic() - start
        print(f"{container}: {seconds:.2f} s")
        assert seconds < (2 if "sanitize" not in CLQ else 60)
        last = tmp_path / container
    after = read_folder(last)
    assert all(after[n] == t for n, t in tensors.items())


# ---- from one layout to another ----

def same_tensors(a, b):
    a, b = read_folder(a), read_folder(b)
    return a.keys() == b.keys() and all(a[n] == b[n] for n in a)


@pytest.mark.parametrize("kind,path", [
    ("i4_asym_g32", ["awq", "gptq-v2", "compressed-tensors"]), ("i4_asym_g32", ["gptq-v2", "awq", "compressed-tensors"]),
    ("i4_g32", ["gptq", "awq", "gptq-v2", "compressed-tensors"]), ("i3_asym_g32", ["gptq-v2", "compressed-tensors"]),
    ("i3_g32", ["gptq", "gptq-v2", "compressed-tensors"]), ("i2", ["gptq", "compressed-tensors"]),
    ("i8", ["gptq", "compressed-tensors"]), ("i8_asym", ["gptq-v2", "compressed-tensors"]),
    ("i8_asym_g32", ["gptq-v2", "compressed-tensors"])])
def test_round_trip(tmp_path, model, kind, path):
    """Through other layouts and back: the same bytes of every tensor, and the same settings."""
    ok("quantize", model, tmp_path / "0", "--type", kind, "--device", "ref")
    before = tree(tmp_path / "0")
    for i, container in enumerate(path):
        r = repack(tmp_path / str(i), tmp_path / str(i + 1), container)
        assert "equal" in r.stdout
    last = tmp_path / str(len(path))
    assert same_tensors(tmp_path / "0", last) and quantization(tmp_path / "0") == quantization(last)
    assert tree(tmp_path / "0") == before
    # What has the layout already is copied.
    repack(last, tmp_path / "again", path[-1])
    assert same_tensors(tmp_path / "again", last)
    repack(tmp_path / "1", tmp_path / "again1", path[0])
    assert same_tensors(tmp_path / "again1", tmp_path / "1")


def test_as_quantized(tmp_path, model):
    """Converted or quantized into a layout: the same tensors. `quantize` of the same type keeps the numbers, too."""
    ok("quantize", model, tmp_path / "ct", "--type", "i4_asym_g32", "--device", "ref")
    write(model, tmp_path / "awq", "i4_asym_g32", "awq")
    repack(tmp_path / "ct", tmp_path / "b", "awq")
    assert same_tensors(tmp_path / "awq", tmp_path / "b")
    r = write(tmp_path / "awq", tmp_path / "c", "i4_asym_g32", "compressed-tensors")
    assert same_tensors(tmp_path / "ct", tmp_path / "c") and "quantized already" not in r.stderr
    r = write(tmp_path / "awq", tmp_path / "d", "i4_g32", "gptq")
    assert "quantized already" in r.stderr


@pytest.fixture
def ordered(tmp_path):
    """GPTQ, version 2, whose columns belong to groups in a random order; the same without g_idx."""
    rng = np.random.default_rng(3)
    q, zero = rng.integers(0, 16, (64, 128)), rng.integers(0, 16, (64, 4))
    scale = (rng.uniform(0.5, 1, (64, 4)) * 10.0 ** np.arange(4) / 1000).astype(np.float16)
    index = rng.permutation(128) // 32
    tensors = columns.gptq(NAME, q, zero, scale, 4, 2, index) | {"model.norm.weight": bf16(np.ones(8))}
    return folder(tmp_path / "ordered", tensors, **GPTQ | {"desc_act": True}), decode(q, zero, scale, index)


def test_ordered(tmp_path, ordered):
    """g_idx goes along; compressed-tensors says actorder "group"."""
    source, expected = ordered
    repack(source, tmp_path / "ct", "compressed-tensors")
    tensors = read_folder(tmp_path / "ct")
    weights = quantization(tmp_path / "ct")["config_groups"]["group_0"]["weights"]
    assert weights["actorder"] == "group" and weights["strategy"] == "group" and weights["group_size"] == 32
    assert tensors[f"{NAME}.weight_g_idx"] == read_folder(source)[f"{NAME}.g_idx"]
    assert tensors["model.norm.weight"].dtype == "BF16"
    index = values(tensors[f"{NAME}.weight_g_idx"])
    w = integer(tensors, config_of(tmp_path / "ct"), NAME)
    assert np.array_equal(decode(w.q, w.zero, w.scale, index), expected)
    repack(tmp_path / "ct", tmp_path / "back", "gptq-v2")
    assert same_tensors(source, tmp_path / "back") and quantization(tmp_path / "back")["desc_act"] is True
    repack(tmp_path / "ct", tmp_path / "ct2", "compressed-tensors")
    assert same_tensors(tmp_path / "ct", tmp_path / "ct2") and config_of(tmp_path / "ct") == config_of(tmp_path / "ct2")
    for path in (source, tmp_path / "ct"):
        ok("convert", path, tmp_path / (path.name + "_f32"), "--type", "f32", "--device", "ref")
        assert np.array_equal(values(read_folder(tmp_path / (path.name + "_f32"))[f"{NAME}.weight"]), expected)
    fails(2, "convert", source, tmp_path / "no", "--container", "awq", says=["g_idx", NAME])
    assert not (tmp_path / "no").exists()


def test_ordered_bytes(tmp_path):
    """8 bits with g_idx: compressed-tensors' codes are int8."""
    rng = np.random.default_rng(4)
    q, zero, index = rng.integers(0, 256, (32, 64)), rng.integers(0, 256, (32, 2)), rng.permutation(64) // 32
    scale = rng.uniform(0.5, 1, (32, 2)).astype(np.float16) * np.float16([1, 10])
    settings = GPTQ | {"desc_act": True, "bits": 8}
    source = folder(tmp_path / "in", columns.gptq(NAME, q, zero, scale, 8, 2, index), **settings)
    repack(source, tmp_path / "ct", "compressed-tensors")
    assert read_folder(tmp_path / "ct")[f"{NAME}.weight"].dtype == "I8"
    repack(tmp_path / "ct", tmp_path / "back", "gptq-v2")
    assert same_tensors(source, tmp_path / "back")
    ok("convert", tmp_path / "ct", tmp_path / "f32", "--type", "f32", "--device", "ref")
    assert np.array_equal(values(read_folder(tmp_path / "f32")[f"{NAME}.weight"]), decode(q, zero, scale, index))


def test_mixed_symmetry(tmp_path, model):
    """GPTQ version 2 says of single modules whether they have zero-points."""
    write(model, tmp_path / "out", "i4_g32", "gptq-v2", "--tensor-type", "up_proj=i4_asym_g32")
    assert quantization(tmp_path / "out")["dynamic"]["+:^model\\.layers\\.1\\.mlp\\.up_proj$"]["sym"] is False
    repack(tmp_path / "out", tmp_path / "ct", "compressed-tensors")
    repack(tmp_path / "ct", tmp_path / "back", "gptq-v2")
    assert same_tensors(tmp_path / "out", tmp_path / "back") and quantization(tmp_path / "out") == quantization(tmp_path / "back")
    fails(2, "convert", tmp_path / "out", tmp_path / "no", "--container", "awq", says="AWQ has one type")


def test_from_gguf(tmp_path, model):
    """A GGUF file becomes a folder of any layout; rows of q and k change places."""
    ok("convert", model, tmp_path / "f16.gguf", "--type", "f16", "--device", "ref")
    for container, kind in (("awq", "i4_asym_g32"), ("gptq", "i3_g32")):
        write(model, tmp_path / f"{container}_a", kind, container)
        write(tmp_path / "f16.gguf", tmp_path / f"{container}_b", kind, container)
        a, b = read_folder(tmp_path / f"{container}_a"), read_folder(tmp_path / f"{container}_b")
        assert all(a[n] == b[n] for n in a if ".layers." in n and "norm" not in n)


def ct(path, scale, bits=4, zero=None, **tensors):
    rows, cols = 32, 64
    rng = np.random.default_rng(1)
    q = rng.integers(0, 1 << bits, (rows, cols))
    all_ = {f"{NAME}.weight_packed": raw("I32", columns.pack_bits(q, bits)), f"{NAME}.weight_scale": scale,
            f"{NAME}.weight_shape": raw("I64", [rows, cols])}
    if zero is not None:
        all_[f"{NAME}.weight_zero_point"] = raw("I32", columns.pack_bits(zero.T, bits).T)
    weights = {"num_bits": bits, "group_size": 32, "strategy": "group", "symmetric": zero is None, "type": "int"}
    return folder(path, all_ | tensors, quant_method="compressed-tensors", format="pack-quantized",
                  config_groups={"g": {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}})


def test_lowest_codes_and_negative_scales(tmp_path):
    """Symmetric weights of other tools use the code -2^(bits-1); scales that were searched may be negative."""
    scale = (normal(1, 32, 2) / 8).astype(np.float16)
    assert (scale < 0).any()
    for bits in (2, 3, 4):
        source = ct(tmp_path / f"ct{bits}", f16(scale), bits)
        w = integer(read_folder(source), config_of(source), NAME)
        assert w.q.min() == -(1 << (bits - 1))
        repack(source, tmp_path / f"gptq{bits}", "gptq")
        repack(tmp_path / f"gptq{bits}", tmp_path / f"back{bits}", "compressed-tensors")
        assert same_tensors(source, tmp_path / f"back{bits}")
        for name in ("ct", "gptq"):
            ok("convert", tmp_path / f"{name}{bits}", tmp_path / f"{name}{bits}f", "--type", "f32", "--device", "ref")
            assert np.array_equal(values(read_folder(tmp_path / f"{name}{bits}f")[f"{NAME}.weight"]),
                                  decode(w.q, w.zero, w.scale))
        r = ok("verify", tmp_path / f"ct{bits}", tmp_path / f"gptq{bits}")
        assert "inf" in r.stdout


def test_scales_that_float16_lacks(tmp_path):
    """bfloat16 and float32 scales are kept where they are numbers of float16, else refused before anything is written."""
    whole = np.full((32, 2), 0.375, np.float32)
    odd = whole.copy()
    odd[31, 1] = 1 / 3
    tiny = whole.copy()
    tiny[0, 0] = 2.0**-30
    for dtype in ("F32", "BF16"):
        source = ct(tmp_path / dtype, like(dtype, whole))
        repack(source, tmp_path / f"{dtype}_gptq", "gptq")
        got = read_folder(tmp_path / f"{dtype}_gptq")[f"{NAME}.scales"]
        assert got.dtype == "F16" and np.array_equal(values(got).T, whole)
    for k, scale in enumerate((f32(odd), bf16(tiny), f32(whole * 1e6), f32(whole * np.nan))):
        source = ct(tmp_path / f"odd{k}", scale)
        for container in ("gptq", "awq"):
            fails(3, "convert", source, tmp_path / "no", "--container", container, says=[NAME, "float16"])
            assert not (tmp_path / "no").exists()
    # quantize makes the numbers anew.
    r = write(tmp_path / "odd0", tmp_path / "q", "i4_g32", "gptq")
    assert "quantized already" in r.stderr


def test_zero_points_of_version_1(tmp_path):
    """Asymmetric weights go to version 1 where no zero-point is 0."""
    zero = np.random.default_rng(2).integers(1, 16, (32, 2))
    scale = np.full((32, 2), 0.5, np.float16)
    source = ct(tmp_path / "good", f16(scale), 4, zero)
    repack(source, tmp_path / "v1", "gptq")
    q, z, s, _ = columns.read(read_folder(tmp_path / "v1"), quantization(tmp_path / "v1"), NAME)
    assert np.array_equal(z, zero) and quantization(tmp_path / "v1")["sym"] is False
    zero[17, 1] = 0
    source = ct(tmp_path / "bad", f16(scale), 4, zero)
    fails(3, "convert", source, tmp_path / "no", "--container", "gptq", says=[NAME, "zero-points of 0", "gptq-v2"])
    assert not (tmp_path / "no").exists()
    repack(source, tmp_path / "v2", "gptq-v2")


def test_refused_conversions(tmp_path, model):
    def no(source, container, *says, code=2):
        fails(code, "convert", source, tmp_path / "no", "--container", container, says=says)
        assert not (tmp_path / "no").exists()
    for kind, container, says in [("i8", "awq", "4 bits"), ("i4", "awq", "4 bits"), ("i8_tensor", "gptq", "channels or groups"),
                                  ("i5", "gptq", "2, 3, 4 or 8"), ("w8a8", "gptq", "rounded to int8")]:
        ok("quantize", model, tmp_path / kind, "--type", kind, "--device", "ref")
        no(tmp_path / kind, container, says)
    ok("quantize", model, tmp_path / "head", "--type", "i4_g32", "--tensor-type", "embed=i4_g32", "--device", "ref")
    no(tmp_path / "head", "gptq", "model.embed_tokens.weight", "not the matrix of a layer")
    repack(tmp_path / "head", tmp_path / "head2", "compressed-tensors")
    assert same_tensors(tmp_path / "head", tmp_path / "head2")
    repack(tmp_path / "w8a8", tmp_path / "w8a8_2", "compressed-tensors")
    assert quantization(tmp_path / "w8a8") == quantization(tmp_path / "w8a8_2")


# ---- running ----

@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "f16"
    ok("convert", TINY, path, "--type", "f16", "--device", "ref")
    return path


def perplexity(path, text, *more):
    r = ok("perplexity", path, "--text", text, "--chunks", "2", "--json", *more)
    return json.loads(r.stdout)["ppl"]


def test_perplexity(tmp_path, tiny):
    """Equal numbers in another layout are the same model."""
    text = REPO / "README.md"
    for kind, containers in (("i4_asym_g64", ["awq", "gptq-v2"]), ("i4_g64", ["awq", "gptq"]), ("i3_g32", ["gptq"]),
                             ("i8", ["gptq"])):
        ok("quantize", tiny, tmp_path / kind, "--type", kind, "--device", "ref")
        expected = perplexity(tmp_path / kind, text)
        assert 1 < expected < 400
        for container in containers:
            repack(tmp_path / kind, tmp_path / f"{kind}_{container}", container)
            assert perplexity(tmp_path / f"{kind}_{container}", text) == expected, (kind, container)
        ok("convert", tmp_path / f"{kind}_{containers[0]}", tmp_path / f"{kind}.gguf", "--type", "f32", "--device", "ref")
        assert perplexity(tmp_path / f"{kind}.gguf", text) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_forward_pass_with_group_index(tmp_path, tiny, device):
    """A whole model whose weights have groups in random order, against numpy."""
    from run_models import logits
    from test_tiny_llama import predict
    rng = np.random.default_rng(11)
    tensors = {}
    for name, t in read_folder(tiny).items():
        module = name.removesuffix(".weight")
        if not any(module.endswith(n) for n in LINEAR):
            tensors[name] = t
            continue
        x = values(t)
        index = rng.permutation(x.shape[1]) // 64
        groups = x.shape[1] // 64
        # Scales of groups differ: columns of group g are 10^(g mod 2) as large.
        x = x * np.where(index % 2, 10, 1) / 5
        scale = np.stack([np.abs(x[:, index == g]).max(1) / 7 for g in range(groups)], 1).astype(np.float16)
        zero = rng.integers(7, 10, scale.shape)
        q = np.clip(np.rint(x / scale[:, index].astype(np.float64)) + zero[:, index], 0, 15).astype(np.int64)
        tensors |= columns.gptq(module, q, zero, scale, 4, 2, index)
        assert groups > 1
    path = tmp_path / "gptq"
    shutil.copytree(tiny, path)
    st(path / "model.safetensors", tensors)
    config = config_of(tiny) | {"quantization_config": GPTQ | {"group_size": 64, "desc_act": True}}
    (path / "config.json").write_text(json.dumps(config))
    ok("convert", path, tmp_path / "f32.gguf", "--type", "f32", "--device", "ref")
    tokens = [int(v) for v in rng.integers(0, 256, 40)]
    expected = predict(tmp_path / "f32.gguf", np.array(tokens))
    got = logits(path, tokens, device=device)
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize("method,kind,container", [
    ("hqq", "i4_asym_g64", "awq"), pytest.param("gptq", "i4_g64", "gptq", marks=slow),
    pytest.param("awq", "i4_asym_g64", "gptq-v2", marks=slow)])
def test_methods(tmp_path, tiny, method, kind, container):
    """What a method makes is stored in any layout: the numbers that compressed-tensors gets."""
    text = [] if method == "hqq" else ["--calib", REPO / "README.md", "--ctx", "64", "--chunks", "2"]
    more = ["--method", method, *text]
    ok("quantize", tiny, tmp_path / "ct", "--type", kind, *more)
    ok("quantize", tiny, tmp_path / "out", "--type", kind, "--container", container, *more)
    repack(tmp_path / "ct", tmp_path / "same", container)
    assert same_tensors(tmp_path / "out", tmp_path / "same")
    # From weights that have the type already, too: a method makes them anew.
    if method == "gptq":
        r = ok("quantize", tmp_path / "out", tmp_path / "again", "--type", kind, "--container", container, *more)
        assert "quantized already" in r.stderr


def test_quantize_again(tmp_path, tiny):
    """To GGUF and to other types, from every layout: what a folder of the same numbers gives."""
    outputs = []
    ok("quantize", tiny, tmp_path / "ct", "--type", "i4_asym_g64", "--device", "ref")
    for container in ("compressed-tensors", "awq", "gptq-v2"):
        path = tmp_path / container / "model"  # the folder's name is the model's
        path.parent.mkdir()
        repack(tmp_path / "ct", path, container)
        outputs.append(tmp_path / f"{container}.gguf")
        ok("quantize", path, outputs[-1], "--type", "q8_0", "--pure", "--device", "ref")
    assert outputs[0].read_bytes() == outputs[1].read_bytes() == outputs[2].read_bytes()

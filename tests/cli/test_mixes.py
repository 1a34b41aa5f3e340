# SPDX-License-Identifier: MIT
"""Mixes of llama-quantize, against what it made of the same models (tests/golden/mixes.json), and the options that
choose types and metadata."""

import functools
import json

import pytest

import mixes
from common import (
    BOOL,
    F32,
    REPO,
    STRING,
    U32,
    f16,
    f32,
    fails,
    gg,
    kv,
    like,
    llama,
    normal,
    ok,
    plan,
    quantize,
    read_gg,
    refuses,
    run,
    st,
    table,
    tree,
)

GOLDEN = json.loads((REPO / "tests" / "golden" / "mixes.json").read_text())


@functools.cache
def encoders():
    return {f["name"] for f in json.loads(ok("formats", "--json").stdout)}


def prepare(tmp_path, title):
    """A model of the golden table and the options that its title stands for."""
    name = title.split()[0]
    src = tmp_path / f"{name}.gguf"
    mixes.write_model(name, src)
    if not title.endswith(" imatrix"):
        return src, []
    return src, ["--imatrix", mixes.write_imatrix_gguf(mixes.importances(name), tmp_path / "imatrix.gguf")]


def check_mix(src, out, title, mix, device, options):
    expected = GOLDEN[title][mix]
    if expected is None:  # llama-quantize refused
        assert run("quantize", src, out, "--type", mix, "--device", device, *options).returncode in (2, 3), mix
        return
    missing = set(expected["sha256"]) - encoders()
    if missing:
        fails(2, "quantize", src, out, "--type", mix, "--device", device, *options, says="does not encode")
        return
    quantize(src, out, mix.lower(), "--quiet", *options, device=device, mix=True)
    assert mixes.summary(mixes.read_all(out)) == expected, mix


@pytest.mark.parametrize("title", sorted(GOLDEN))
def test_all_mixes(tmp_path, title):
    """Type and bytes of every tensor, and general.file_type."""
    src, options = prepare(tmp_path, title)
    for mix in GOLDEN[title]:
        check_mix(src, tmp_path / "out.gguf", title, mix, "ref", options)


@pytest.mark.parametrize(
    "mix", ["Q4_K_M", "Q2_K", "Q3_K_M", "Q5_K_S", "IQ4_XS", "IQ4_NL", "Q4_1", "Q5_0", "TQ1_0", "MXFP4_MOE", "IQ2_M"]
)
@pytest.mark.parametrize("title", ["plain16", "experts8 imatrix", "odd_rows"])
def test_mixes_on_opencl(tmp_path, title, mix):
    src, options = prepare(tmp_path, title)
    check_mix(src, tmp_path / "out.gguf", title, mix, "cpu", options)


# ---- names ----


def test_names(tmp_path):
    """In any case; the short names are those of the M mixes."""
    src, out = tmp_path / "in.gguf", tmp_path / "out.gguf"
    mixes.write_model("plain16", src)
    for short, name in mixes.ALIAS.items():
        assert table(plan(src, out, short.lower(), mix=True)) == table(plan(src, out, name, mix=True))
    assert table(plan(src, out, "q4_k_M", mix=True)) == table(plan(src, out, "Q4_K_m", mix=True))
    for name in "q4_k_x", "Q4_K_", "copy", "15", "":
        refuses(tmp_path, src, "x" if not name else name, code=2, also_info=False, says="unknown type")
    # A mix is for a GGUF file, and no type of a rule.
    fails(2, "quantize", src, tmp_path / "folder", "--type", "Q4_K_M", says=["q4_K", ".gguf"])
    fails(2, "quantize", src, out, "--type", "q8_0", "--tensor-type", "attn=Q4_K_M", says="is a mix, not a type")
    fails(2, "convert", src, out, "--type", "Q4_K_M")
    assert not out.exists()


def test_pure(tmp_path):
    src, out = tmp_path / "in.gguf", tmp_path / "out.gguf"
    mixes.write_model("plain16", src)
    types = table(plan(src, out, "Q4_K_M"))
    assert {k for n, k in types.items() if not n.endswith("norm.weight")} == {"q4_K"}
    quantize(src, out, "Q4_K_M")
    assert read_gg(out).value("general.file_type") == 15
    types = table(plan(src, out, "Q4_K_M", mix=True))
    assert types["output.weight"] == "q6_K" and types["token_embd.weight"] == "q4_K"
    assert types["blk.0.attn_v.weight"] == "q6_K" and types["blk.2.attn_v.weight"] == "q4_K"


def test_types_without_an_encoder(tmp_path):
    """Told before any work, with the tensor and the mix."""
    src = tmp_path / "in.gguf"
    mixes.write_model("plain16", src)
    if "iq3_s" in encoders():
        pytest.skip("every type has an encoder")
    refuses(
        tmp_path,
        src,
        "IQ3_M",
        code=2,
        also_info=False,
        out=tmp_path / "out.gguf",
        says=["'token_embd.weight'", "iq3_s", "IQ3_M", "does not encode"],
    )


# ---- options that choose types ----


def model(tmp_path, tied=False, cols=256):
    names = {f"blk.{i}.{k}.weight": (2, cols) for i in range(2) for k in ("attn_q", "attn_v", "ffn_down")}
    names |= {"token_embd.weight": (4, cols), "blk.0.attn_norm.weight": (cols,)} | (
        {} if tied else {"output.weight": (4, cols)}
    )
    tensors = {n: (f32 if len(s) == 1 else f16)(normal(i, *s)) for i, (n, s) in enumerate(names.items())}
    kvs = [
        kv("general.architecture", STRING, "llama"),
        kv("llama.block_count", U32, 2),
        kv("llama.attention.head_count", U32, 8),
        kv("llama.attention.head_count_kv", U32, 8),
        kv("general.name", STRING, "x"),
    ]
    return gg(tmp_path / "in.gguf", tensors, kvs)


def types_of(tmp_path, src, mix, *options, **more):
    return table(plan(src, tmp_path / "out.gguf", mix, *options, **{"mix": True, **more}))


def test_embedding_and_output_types(tmp_path):
    """They win over rules, rules over the mix."""
    src = model(tmp_path)
    rules = ["--tensor-type", "token_embd|output=q5_0", "--tensor-type", "attn_v=q4_0"]
    t = types_of(tmp_path, src, "Q4_K_M", *rules)
    assert (t["token_embd.weight"], t["output.weight"], t["blk.0.attn_v.weight"], t["blk.0.attn_q.weight"]) == (
        "q5_0",
        "q5_0",
        "q4_0",
        "q4_K",
    )
    t = types_of(tmp_path, src, "Q4_K_M", *rules, "--token-embedding-type", "Q8_0", "--output-tensor-type", "f16")
    assert (t["token_embd.weight"], t["output.weight"]) == ("q8_0", "f16")
    t = types_of(tmp_path, src, "Q4_K_M", "--token-embedding-type", "q4_1", "--pure")
    assert (t["token_embd.weight"], t["output.weight"]) == ("q4_1", "q4_K")
    t = types_of(
        tmp_path, src, "Q4_K_M", "--leave-output-tensor", "--tensor-type", "output=q4_0", "--tensor-type", "attn_q=q4_0"
    )
    assert (t["token_embd.weight"], t["output.weight"]) == ("q4_K", "f16")
    quantize(src, tmp_path / "out.gguf", "Q4_K_M", "--leave-output-tensor", mix=True)
    assert read_gg(tmp_path / "out.gguf").tensors["output.weight"] == read_gg(src).tensors["output.weight"]


def test_embedding_and_output_types_of_tied_models(tmp_path):
    """Without output.weight the token embedding is the output, too."""
    src = model(tmp_path, tied=True)
    assert types_of(tmp_path, src, "Q4_K_M")["token_embd.weight"] == "q6_K"
    assert types_of(tmp_path, src, "Q4_K_M", "--output-tensor-type", "q8_0")["token_embd.weight"] == "q8_0"
    assert (
        types_of(tmp_path, src, "Q4_K_M", "--output-tensor-type", "q8_0", "--token-embedding-type", "q5_1")[
            "token_embd.weight"
        ]
        == "q5_1"
    )
    assert types_of(tmp_path, src, "Q4_K_M", "--output-tensor-type", "q8_0", "--pure")["token_embd.weight"] == "q4_K"


def test_fallbacks_of_mixes(tmp_path):
    src = model(tmp_path, cols=96)
    t = types_of(tmp_path, src, "Q4_K_M")
    assert (t["output.weight"], t["token_embd.weight"], t["blk.0.attn_q.weight"]) == ("q8_0", "q5_0", "q5_0")
    p = plan(src, tmp_path / "out.gguf", "Q4_K_M", mix=True)
    assert p["n_fallbacks"] == 7  # the output's type is the mix's own
    fails(2, "quantize", src, tmp_path / "out.gguf", "--type", "Q4_K_M", "--no-fallback", says="--no-fallback")
    fails(
        2,
        "quantize",
        model(tmp_path, cols=80),
        tmp_path / "out.gguf",
        "--type",
        "Q1_0",
        "--pure",
        says=["no type stands in", "q1_0"],
    )


def test_wrong_options(tmp_path):
    src = model(tmp_path)
    folder = st(tmp_path / "in.safetensors", {"a.weight": f32(normal(1, 4, 64))})
    out = tmp_path / "out.gguf"
    before = tree(tmp_path)
    for more, says in [
        (["--tensor-type", "no_such=q8_0"], "'no_such'"),
        (["--token-embedding-type", "q99"], "q99"),
        (["--output-tensor-type", "Q4_K_M"], "Q4_K_M"),
        (["--token-embedding-type", "i8"], "folder"),
        (["--leave-output-tensor", "--output-tensor-type", "q8_0"], "exclude each other"),
        (["--include-weights", "x"], "--imatrix"),
        (["--imatrix", tmp_path / "none"], "none"),
    ]:
        fails(2 if "none" not in says else 3, "quantize", src, out, "--type", "Q4_K_M", *more, says=says)
    for more in (
        ["--token-embedding-type", "q8_0"],
        ["--output-tensor-type", "q8_0"],
        ["--leave-output-tensor"],
        ["--override-kv", "a=int:1"],
        ["--imatrix", src],
        ["--keep-split"],
        ["--split-max-size", "1M"],
        ["--split-max-tensors", "5"],
    ):
        fails(2, "quantize", folder, tmp_path / "out", "--type", "i8", *more, says=[more[0], ".gguf"])
    for more in (["--pure"], ["--token-embedding-type", "q8_0"], ["--leave-output-tensor"], ["--imatrix", src]):
        fails(2, "convert", src, out, "--type", "f16", *more, says="clquant quantize")
    assert tree(tmp_path) == before


def test_rules_of_a_file(tmp_path):
    """Parted by white space; comments; their place among the other rules is the option's."""
    src = model(tmp_path)
    rules = tmp_path / "rules.txt"
    rules.write_text("# attention\nattn_q=q8_0   attn_v=f16 # a comment\r\n\n\tffn_down=q5_1\n")
    t = types_of(tmp_path, src, "Q4_K_M", "--tensor-type", r"blk\.1\.=q4_0", "--tensor-type-file", rules)
    assert [t[f"blk.{i}.{k}.weight"] for i in (0, 1) for k in ("attn_q", "attn_v", "ffn_down")] == [
        "q8_0",
        "f16",
        "q5_1",
    ] + ["q4_0"] * 3
    rules.write_text("\n".join(f"attn_q|no_such_{i}=q8_0" for i in range(2000)))
    assert types_of(tmp_path, src, "Q4_K_M", "--tensor-type-file", rules)["blk.0.attn_q.weight"] == "q8_0"
    for text, code, says in [
        (b"attn_q=q8_0 attn_v", 2, ["'attn_v'", "rules.txt', line 1"]),
        (b"# one\n\nattn_q=q99", 2, ["q99", "rules.txt', line 3"]),
        (b"attn_q=q8_0\0x=q8_0", 3, "not a text file"),
        (b"none=q8_0", 2, "'none'"),
    ]:
        rules.write_bytes(text)
        fails(code, "quantize", src, tmp_path / "out.gguf", "--type", "Q4_K_M", "--tensor-type-file", rules, says=says)
    fails(
        3,
        "quantize",
        src,
        tmp_path / "out.gguf",
        "--type",
        "Q4_K_M",
        "--tensor-type-file",
        tmp_path / "no.txt",
        says="no.txt",
    )
    rules.write_text("  # nothing\n")
    assert types_of(tmp_path, src, "Q4_K_M", "--tensor-type-file", rules)["blk.0.attn_q.weight"] == "q4_K"


def test_more_than_256_rules(tmp_path):
    src = model(tmp_path)
    more = [a for i in range(600) for a in ("--tensor-type", f"attn_q|x{i}=q8_0")]
    assert types_of(tmp_path, src, "Q4_K_M", *more)["blk.0.attn_q.weight"] == "q8_0"


# ---- metadata ----


def test_override_kv(tmp_path):
    src, out = model(tmp_path), tmp_path / "out.gguf"
    more = [
        "general.name=str:Name: with = and é",
        "a.float=float:-1.5",
        "a.bool=bool:true",
        "b.bool=bool:false",
        "a.int=int:4294967295",
        "general.file_type=int:7",
        "a.empty=str:",
    ]
    quantize(src, out, "Q4_K_M", *[a for m in more for a in ("--override-kv", m)], mix=True)
    g = read_gg(out)
    assert g.value("general.name") == "Name: with = and é" and g.value("a.empty") == ""
    assert g.kvs["a.float"][0] == F32 and g.value("a.float") == -1.5
    assert g.kvs["a.bool"][0] == BOOL and g.value("a.bool") is True and g.value("b.bool") is False
    assert g.kvs["a.int"][0] == U32 and g.value("a.int") == 4294967295
    assert g.value("general.file_type") == 7  # as llama-quantize: what is asked wins
    assert list(g.kvs)[:5] == [
        "general.architecture",
        "llama.block_count",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "general.name",
    ]
    ok("convert", src, out, "--type", "f32", "--override-kv", "general.name=str:other", "--device", "ref")
    assert read_gg(out).value("general.name") == "other"


def test_override_kv_counts_for_the_rules(tmp_path):
    src = model(tmp_path)
    assert types_of(tmp_path, src, "Q2_K")["blk.0.attn_v.weight"] == "q3_K"
    assert (
        types_of(tmp_path, src, "Q2_K", "--override-kv", "llama.attention.head_count_kv=int:2")["blk.0.attn_v.weight"]
        == "q4_K"
    )


def test_wrong_overrides(tmp_path):
    src = model(tmp_path)
    for text in [
        "a",
        "a=1",
        "=int:1",
        "a=int:",
        "a=int:x",
        "a=int:-1",
        "a=int:4294967296",
        "a=int:1.5",
        "a=float:",
        "a=float:1x",
        "a=float:nan",
        "a=float:1e999",
        "a=bool:1",
        "a=bool:True",
        "a=u8:1",
        "a=:1",
        "general.alignment=int:64",
        "split.count=int:2",
        "general.architecture=int:3",
    ]:
        fails(2, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--override-kv", text)
    assert [p.name for p in tmp_path.iterdir()] == ["in.gguf"]


# ---- quantizing again ----


def test_requantizing_is_told(tmp_path):
    src = model(tmp_path)
    once, twice = tmp_path / "once.gguf", tmp_path / "twice.gguf"
    assert "already" not in quantize(src, once, "Q4_K_M", mix=True).stderr
    r = quantize(once, twice, "Q8_0", mix=True)
    assert r.stderr.count("already") == 1 and "q4_K" in r.stderr and "q6_K" in r.stderr
    # Copies and widening lose nothing.
    assert "already" not in quantize(once, twice, "Q4_K_M", mix=True).stderr
    assert read_gg(twice).tensors == read_gg(once).tensors
    assert "already" not in ok("convert", once, twice, "--type", "f32", "--device", "ref").stderr
    assert "already" not in quantize(once, twice, "f16").stderr


def test_a_folder_becomes_a_mix(tmp_path):
    """Names and metadata of the translation count."""
    llama(tmp_path / "in", tied=False, layers=2, embd=256, ffn=256, heads=8, kv_heads=2, dtype="F16")
    quantize(tmp_path / "in", tmp_path / "out.gguf", "Q2_K", mix=True)
    types = {n: t.dtype for n, t in read_gg(tmp_path / "out.gguf").tensors.items()}
    assert (
        types["blk.0.attn_v.weight"] == "Q4_K"
        and types["blk.0.ffn_down.weight"] == "Q3_K"
        and types["output.weight"] == "Q6_K"
    )
    assert types["blk.1.attn_q.weight"] == "Q2_K" and types["token_embd.weight"] == "Q2_K"


def test_rows_of_one(tmp_path):
    """ggml does not count leading dimensions of 1: such a tensor is no matrix."""
    src = gg(
        tmp_path / "in.gguf",
        {
            "a.weight": f32(normal(1, 1, 256)),
            "b.weight": f32(normal(2, 1, 2, 256)),
            "c.weight": like("F16", normal(3, 2, 256)),
        },
    )
    assert table(plan(src, tmp_path / "out.gguf", "q4_K")) == {
        "a.weight": "f32",
        "b.weight": "q4_K",
        "c.weight": "q4_K",
    }

# SPDX-License-Identifier: MIT
"""What the program says to people: usage errors, warnings, reports, the progress line."""
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time

import pytest

from common import (CLQ, F32, STRING, U32, f32, fails, gg, kv, llama, normal, ok, plan, quantize, run, st, tree,
                    warnings_of)

NAMES = [f"blk.{i}.ffn_down.weight" for i in range(8)]


@pytest.fixture
def src(tmp_path):
    return gg(tmp_path / "in.gguf", {n: f32(normal(i, 8, 256)) for i, n in enumerate(NAMES)},
              [kv("general.architecture", STRING, "zzz"), kv("zzz.block_count", U32, 8)])


# ---- usage ----

@pytest.mark.parametrize("args,says", [
    (["--typo"], "option '--typo' is unknown"),
    (["--split-max", "3"], "option '--split-max' is ambiguous: --split-max-size or --split-max-tensors"),
    (["--imatrix"], "option '--imatrix' lacks its argument"),
    (["--json=5"], "option '--json=5' takes no value"),
    (["-x"], "option '-x' is unknown"),
    (["--tensor-type", "x=q4_k_m"], ["--tensor-type 'x=q4_k_m'", "'q4_k_m' is a mix, not a type", "q4_K"]),
    (["--tensor-type", "attn_v="], ["'attn_v='", "the type is missing"]),
    (["--token-embedding-type", "Q4_K_M"], ["--token-embedding-type", "is a mix, not a type"]),
    (["--output-tensor-type", ""], ["--output-tensor-type", "the type is missing"]),
    (["--device", ""], "--device wants"),
    (["--override-kv", "a=int: 5"], "' 5' is not an integer"),
    (["--override-kv", "a=float: 5"], "' 5' is not a float"),
    (["--threads", " 2"], "--threads wants"),
    (["--split-max-tensors", " 2"], "--split-max-tensors wants"),
])
def test_options(tmp_path, src, args, says):
    before = tree(tmp_path)
    fails(2, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", *args, says=says)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("args", [["--pure"], ["--token-embedding-type", "f16"], ["--output-tensor-type", "f16"],
                                  ["--leave-output-tensor"], ["--imatrix", "x"], ["--include-weights", "x"],
                                  ["--exclude-weights", "x"]])
def test_options_of_quantize_only(tmp_path, src, args):
    fails(2, "convert", src, tmp_path / "out.gguf", "--type", "f16", *args,
          says=f"{args[0]} is an option of `clquant quantize`")


def test_mixes_are_no_types(tmp_path, src):
    fails(2, "convert", src, tmp_path / "out.gguf", "--type", "Q4_K_M",
          says=["is a mix, not a type", "f32, f16 or bf16"])
    fails(2, "bench", "--only", "q4_k_m", says=["is a mix, not a type", "q4_K"])
    fails(2, "bench", "--only", "q8_0", "--device", "", says="--device wants")
    fails(3, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--tensor-type-file", tmp_path / "none",
          says=["--tensor-type-file", "none"])


@pytest.mark.parametrize("command", ["quantize", "convert", "verify", "info", "perplexity", "generate", "embed", "bench",
                                     "devices", "formats", ""])
def test_help(command):
    args = [*([command] if command else []), "--help"]
    assert max(map(len, ok(*args).stdout.splitlines())) <= 100
    with open("/dev/full", "w") as full:
        assert subprocess.run([CLQ, *args], stdout=full, stderr=subprocess.PIPE).returncode == 5


# ---- inputs ----

def test_inputs_of_another_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("this is not a model, only a text of some length")
    fails(3, "info", tmp_path / "notes.txt", says=["notes.txt", "neither a GGUF file", "nor a safetensors file"])
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"PK" + bytes(100))
    fails(3, "info", folder, says=["no .safetensors file", "pytorch_model.bin", "PyTorch"])
    (folder / "x.gguf").write_bytes(b"GGUF")
    fails(3, "info", folder, says=["no .safetensors file", "torch/x.gguf"])


def test_config_is_named_with_its_folder(tmp_path):
    folder = tmp_path / "model"
    llama(folder)
    config = json.loads((folder / "config.json").read_text())
    for change, says in ({"hidden_size": None}, "hidden_size"), ({"architectures": ["Foo"]}, "'Foo' of config.json"):
        (folder / "config.json").write_text(json.dumps({k: v for k, v in {**config, **change}.items() if v}))
        fails(3, "quantize", folder, tmp_path / "out.gguf", "--type", "q8_0", says=[f"'{folder}': ", says])


# ---- reports and warnings ----

def test_plural_forms(tmp_path):
    one = gg(tmp_path / "one.gguf", {"a.weight": f32(normal(1, 4, 100))})
    assert "1 tensor\n" in ok("info", one).stdout and "1 tensors" not in ok("info", one).stdout
    r = ok("quantize", one, tmp_path / "out.gguf", "--type", "q8_0", "--pure", "--dry-run")
    assert "in 1 file, 1 tensor," in r.stdout and "1 tensor does not get the type" in r.stderr
    r = ok("quantize", one, tmp_path / "out.gguf", "--type", "q8_0", "--pure", "--device", "ref")
    assert "0.0% of the weights quantized" in r.stdout and "0 million" not in r.stdout
    r = ok("convert", one, tmp_path / "f.gguf", "--type", "f16", "--device", "ref")
    assert "of the weights quantized" not in r.stdout
    assert re.search(r"\d+(\.\d)? (million |thousand )?weights/s", r.stdout)


def test_report_that_is_lost(tmp_path, src):
    for more in [], ["--json"]:
        with open("/dev/full", "w") as full:
            r = subprocess.run([CLQ, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--device", "ref",
                               *more],
                               stdout=full, stderr=subprocess.PIPE, text=True)
        assert r.returncode == 5 and "out.gguf' is complete; only the report" in r.stderr
        ok("info", tmp_path / "out.gguf")
        os.unlink(tmp_path / "out.gguf")


def test_parts_are_named(tmp_path, src):
    out = tmp_path / "out.gguf"
    r = quantize(src, out, "q8_0", "--split-max-tensors", "3")
    assert f"in 3 parts, the first '{tmp_path}/out-00001-of-00003.gguf'" in r.stdout and not warnings_of(r)
    p = plan(src, out, "q8_0", "--split-max-tensors", "3")
    assert p["n_files"] == 3 and p["first_part"] == f"{tmp_path}/out-00001-of-00003.gguf"
    assert not warnings_of(quantize(src, out, "q8_0", "--split-max-tensors", "3"))
    r = quantize(src, out, "q8_0", "--split-max-tensors", "4")
    assert len(warnings_of(r)) == 1
    assert "3 parts are of another split" in r.stderr and "out-00001-of-00003.gguf" in r.stderr
    # The source's own parts are not of an earlier output.
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    (tmp_path / "new").mkdir()
    quantize(src, tmp_path / "new" / "m.gguf", "q8_0", "--split-max-tensors", "3")
    r = quantize(tmp_path / "new" / "m-00001-of-00003.gguf", tmp_path / "new" / "m.gguf", "f32",
                 "--split-max-tensors", "5")
    assert "another split" not in r.stderr


def test_override_of_another_type(tmp_path, src):
    r = quantize(src, tmp_path / "out.gguf", "q8_0", "--override-kv", "zzz.block_count=str:8", "--override-kv",
                 "new=int:1")
    assert len(warnings_of(r)) == 1 and "'zzz.block_count' is u32 in the source and becomes str" in r.stderr
    assert not warnings_of(quantize(src, tmp_path / "out.gguf", "q8_0", "--override-kv", "zzz.block_count=int:8"))


# ---- the progress line ----

def terminal(args, columns, interrupt):
    """What the program writes to a terminal of that width; interrupt: SIGINT after the first progress line."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([CLQ, *map(str, args)], stdout=subprocess.DEVNULL, stderr=slave, close_fds=True)
    os.close(slave)
    seen = b""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        try:
            got = os.read(master, 4096)
        except OSError:
            break
        if not got:
            break
        seen += got
        if interrupt and b"weights/s" in seen:
            process.send_signal(signal.SIGINT)
            interrupt = False
    os.close(master)
    return process.wait(timeout=60), seen.decode()


@pytest.mark.parametrize("interrupt", [False, True])
def test_progress_line(tmp_path, interrupt):
    name = "blk.0." + "long" * 12 + ".weight"
    big = gg(tmp_path / "big.gguf", {name + str(i) + ".weight": f32(normal(i, 1024, 2048)) for i in range(8)})
    code, seen = terminal(["quantize", big, tmp_path / "out.gguf", "--type", "q2_K", "--pure", "--device", "ref",
                          "--threads", "1"],
                          40, interrupt)
    assert code == (130 if interrupt else 0)
    lines = [part for part in re.split(r"\r\x1b\[K|\r\n", seen) if "%  " in part]
    assert lines and max(map(len, lines)) < 40
    last = seen.rsplit("%  ", 1)[1]
    assert "\r\x1b[K" in last
    if interrupt:
        assert "\r\x1b[Kclquant: interrupted" in last

# SPDX-License-Identifier: MIT
"""Writing: complete or not there, whatever happens; resuming; paths; sizes; memory."""
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import numpy as np
import pytest

from common import (CLQ, STRING, T, bf16, blocks, cc, config_of, encode_blocks, f16, f32, fails, gg, kv, llama, normal, ok, plan,
                    quantize, raw, raw_gg, read_folder, read_gg, run, sha, size_of, slow, st, ti, tree, values)

W = f32(normal(1, 64, 256))


def gguf(path, n=8, rows=64):
    return gg(path, {f"blk.{i}.w.weight": f32(normal(i, rows, 256)) for i in range(n)}, [kv("general.architecture", STRING, "zzz")])


def leftovers(folder):
    return sorted(n for n in os.listdir(folder) if ".clq-" in n)


# ---- failing writes ----

# pwrite, fsync, ftruncate, close and rename under control: FAIL_<call>=<errno>@<n> makes the n-th and later calls
# on (or of) a partial file fail; SLOW=<microseconds> delays each pwrite.
FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
static int ours(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, ".clq-partial") != NULL;
}
static int fails(const char *call, int *count)
{
    char name[32];
    int code, from;
    snprintf(name, sizeof name, "FAIL_%s", call);
    const char *text = getenv(name);
    if (!text || sscanf(text, "%d@%d", &code, &from) != 2 || ++*count < from) return 0;
    errno = code;
    return 1;
}
static ssize_t put(const char *real, int fd, const void *p, size_t n, off_t at)
{
    static int count;
    static int half;
    ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, real);
    if (!ours(fd)) return next(fd, p, n, at);
    if (getenv("SLOW")) usleep(atoi(getenv("SLOW")));
    if (fails("pwrite", &count)) return -1;
    if (getenv("SHORT") && n > 1 && (half = !half)) n = n / 2;  /* a short write is no error */
    if (getenv("SHORT") && half && n % 3 == 0) { errno = EINTR; return -1; }
    return next(fd, p, n, at);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return put("pwrite", fd, p, n, at); }
ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) { return put("pwrite64", fd, p, n, at); }
int fsync(int fd)
{
    static int count;
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    return ours(fd) && fails("fsync", &count) ? -1 : next(fd);
}
int close(int fd)
{
    static int count;
    int (*next)(int) = dlsym(RTLD_NEXT, "close");
    if (!ours(fd) || !getenv("FAIL_close")) return next(fd);
    next(fd);
    return fails("close", &count) ? -1 : 0;
}
int rename(const char *a, const char *b)
{
    static int count;
    int (*next)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    return strstr(a, ".clq-partial") && fails("rename", &count) ? -1 : next(a, b);
}
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    return str(cc(tmp_path_factory.mktemp("faults"), FAULTS))


@pytest.mark.parametrize("kind", ["q8_0", "i4_asym_g32"])
@pytest.mark.parametrize("call,code", [("pwrite", "ENOSPC"), ("pwrite", "EIO"), ("fsync", "EIO"), ("fsync", "ENOSPC"), ("close", "EDQUOT"),
                                       ("rename", "EACCES")])
def test_row39_every_call_is_checked(tmp_path, faults, kind, call, code):
    """Whichever write, sync, close or rename fails: exit 5, the reason, nothing left."""
    src, out = (gguf(tmp_path / "in.gguf"), tmp_path / "o" / "out.gguf")
    if kind[0] == "i":
        src, out = st(tmp_path / "in.safetensors", {f"t{i}.weight": W for i in range(4)}), tmp_path / "o" / "out"
    (tmp_path / "o").mkdir()
    number = getattr(errno, code)
    for n in (1, 2, 5) if call == "pwrite" else (1,):
        fails(5, "quantize", src, out, "--type", kind, "--device", "ref", says=[os.strerror(number), "out"],
              env={"LD_PRELOAD": faults, f"FAIL_{call}": f"{number}@{n}"})
        assert os.listdir(tmp_path / "o") == []
    quantize(src, out, kind, env={"LD_PRELOAD": faults})
    assert os.listdir(tmp_path / "o") == [out.name]


def test_row39_short_writes_and_eintr(tmp_path, faults):
    src = gguf(tmp_path / "in.gguf")
    quantize(src, tmp_path / "plain.gguf", "q5_0")
    quantize(src, tmp_path / "short.gguf", "q5_0", env={"LD_PRELOAD": faults, "SHORT": "1"})
    assert sha(tmp_path / "plain.gguf") == sha(tmp_path / "short.gguf")


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_row39_file_size_limit(tmp_path, device):
    import resource
    src = gguf(tmp_path / "in.gguf")
    before = tree(tmp_path)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
    fails(5, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--device", device, preexec_fn=limit,
          says=[os.strerror(errno.EFBIG), "out.gguf"], env={"CLQ_CACHE_DIR": ""} if device == "ref" else None)
    assert tree(tmp_path) == before


def test_row39_full_device(tmp_path):
    src = gguf(tmp_path / "in.gguf")
    for target in "/dev/full", "/dev/null":
        link = tmp_path / "out.gguf"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        before = tree(tmp_path)
        fails(5, "quantize", src, link, "--type", "q8_0", "--device", "ref", says=["out.gguf", "not a regular file"])
        assert tree(tmp_path) == before
    # A report that cannot be printed is no success either; the model itself is complete.
    link.unlink()
    with open("/dev/full", "w") as full:
        r = subprocess.run([CLQ, "quantize", src, link, "--type", "q8_0", "--device", "ref"], stdout=full, stderr=subprocess.PIPE)
    assert r.returncode == 5 and os.strerror(errno.ENOSPC).encode() in r.stderr
    assert read_gg(link).tensors["blk.7.w.weight"].dtype == "Q8_0"


@pytest.fixture
def tmpfs(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if r.returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_row39_row83_disk_too_small(tmp_path, tmpfs):
    """Refused at the start, with both sizes; an output that fits is written."""
    src = gguf(tmp_path / "in.gguf", n=40)
    p = plan(src, tmpfs / "out.gguf", "q8_0")
    assert 40 * 64 * 256 // 32 * 34 < p["n_bytes"] < 2**20
    big = gguf(tmp_path / "big.gguf", n=80)
    needed = plan(big, tmpfs / "out.gguf", "q8_0")["n_bytes"]
    assert needed > 2**20
    for more in [], ["--resume"]:
        fails(5, "quantize", big, tmpfs / "out.gguf", "--type", "q8_0", "--device", "ref", *more,
              says=[os.strerror(errno.ENOSPC), str(needed), "out.gguf"])
        assert os.listdir(tmpfs) == []
    quantize(src, tmpfs / "out.gguf", "q8_0")
    assert (tmpfs / "out.gguf").stat().st_size == p["n_bytes"]
    # The earlier output is still there when the next one does not fit beside it.
    before = sha(tmpfs / "out.gguf")
    fails(5, "quantize", src, tmpfs / "out.gguf", "--type", "q8_0", "--device", "ref", says=os.strerror(errno.ENOSPC))
    assert sha(tmpfs / "out.gguf") == before and os.listdir(tmpfs) == ["out.gguf"]


# ---- killing, interrupting, resuming ----

def start(src, out, kind, *more, faults, slow_us=2000, device="ref", **env):
    return subprocess.Popen([CLQ, "quantize", src, out, "--type", kind, "--device", device, "--quiet", *more],
                            env={**os.environ, "LD_PRELOAD": faults, "SLOW": str(slow_us), **env}, stderr=subprocess.PIPE)


HEAD, RECORD = 24, 56  # bytes of the journal's head and of each tensor's record (host/io/output.c)


def wait_records(process, journal, n, limit=60):
    end = time.time() + limit
    while time.time() < end and process.poll() is None:
        if journal.exists() and journal.stat().st_size >= HEAD + n * RECORD:
            return
        time.sleep(0.001)
    raise AssertionError((process.poll(), process.stderr.read()))


@pytest.mark.parametrize("kind", ["q8_0", "i4_g32"])
def test_row40_killed_at_random(tmp_path, faults, kind):
    """20 times: the final name is absent, or complete; the next run succeeds over what is left."""
    gguf_out = kind[0] == "q"
    src = gguf(tmp_path / "in.gguf") if gguf_out else st(tmp_path / "in.safetensors", {f"t{i}.weight": W for i in range(8)})
    out = tmp_path / ("out.gguf" if gguf_out else "out")
    quantize(src, tmp_path / ("good.gguf" if gguf_out else "good"), kind)
    state = lambda p: sha(p) if p.is_file() else tree(p)
    good = state(tmp_path / ("good.gguf" if gguf_out else "good"))
    rng = random.Random(7)
    killed = 0
    times = []
    for _ in range(3):  # how long a whole run takes here
        begin = time.time()
        assert start(src, out, kind, faults=faults).wait() == 0
        times.append(time.time() - begin)
    for _ in range(20):
        p = start(src, out, kind, faults=faults)
        time.sleep(rng.uniform(0.02, 0.9) * min(times))
        p.send_signal(signal.SIGKILL)
        p.wait()
        p.stderr.close()
        killed += p.returncode == -signal.SIGKILL
        if out.exists():
            assert state(out) == good
            shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert killed >= 10, times
    quantize(src, out, kind)
    assert state(out) == good and leftovers(tmp_path) == []


@pytest.mark.parametrize("kind,device", [("q4_1", "ref"), ("i4_asym_g32", "ref"), ("q8_0", "cpu"), ("i8_tensor", "cpu")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_row81_resume(tmp_path, faults, kind, device, how):
    """Stopped after 3 tensors: nothing under the final name; --resume does the rest only, to the same bytes."""
    gguf_out = kind[0] == "q"
    src = gguf(tmp_path / "in.gguf", 10) if gguf_out else st(tmp_path / "in.safetensors", {f"t{i}.weight": f32(normal(i, 64, 256)) for i in range(10)})
    out, good = tmp_path / ("out.gguf" if gguf_out else "out"), tmp_path / ("good.gguf" if gguf_out else "good")
    quantize(src, good, kind, device=device)
    p = start(src, out, kind, faults=faults, slow_us=30000, device=device)
    wait_records(p, tmp_path / f".{out.name}.clq-journal", 3)
    p.send_signal(how)
    message = p.communicate(timeout=60)[1]
    assert p.returncode == (-how if how == signal.SIGKILL else 130)
    if how != signal.SIGKILL:
        assert b"--resume" in message
    assert not out.exists() and leftovers(tmp_path) == [f".{out.name}.clq-journal", f".{out.name}.clq-partial"]
    r = ok("quantize", src, out, "--type", kind, "--device", device, "--resume")
    done = [line for line in r.stderr.splitlines() if line.startswith("[")]
    assert 0 < len(done) <= 7 and done[-1].startswith("[10/10]")
    assert (sha(out) == sha(good)) if gguf_out else (tree(out) == tree(good))
    assert leftovers(tmp_path) == []


def interrupted(tmp_path, faults, src, out, kind, n=3, *more):
    p = start(src, out, kind, *more, faults=faults, slow_us=30000)
    wait_records(p, out.parent / f".{out.name}.clq-journal", n)
    p.kill()
    p.communicate()


def test_row81_resume_of_other_settings(tmp_path, faults):
    """Another type, rule or source is refused, and what is there stays; without --resume it starts anew."""
    src, out = gguf(tmp_path / "in.gguf", 10), tmp_path / "out.gguf"
    interrupted(tmp_path, faults, src, out, "q4_0")
    before = tree(tmp_path)
    for args in ["--type", "q4_1"], ["--type", "q4_0", "--tensor-type", "blk.1=q8_0"], ["--type", "f16"]:
        fails(3, "quantize", src, out, *args, "--device", "ref", "--resume", says=["cannot resume", "out.gguf"])
        assert tree(tmp_path) == before
    # Threads, memory and device do not change the bytes, so they may differ.
    quantize(tmp_path / "in.gguf", out, "q4_0", "--resume", "--threads", "1", "--max-mem", "16M", device="cpu")
    good = sha(out)
    os.unlink(out)
    interrupted(tmp_path, faults, src, out, "q4_0")
    os.utime(src, (1, 1))  # the source was written anew
    fails(3, "quantize", src, out, "--type", "q4_0", "--device", "ref", "--resume", says="cannot resume")
    quantize(src, out, "q4_0")
    assert sha(out) == good and leftovers(tmp_path) == []


def test_row81_resume_checks_what_is_there(tmp_path, faults):
    """Damage to the partial file or the journal is found: those tensors are done again."""
    src, out = gguf(tmp_path / "in.gguf", 10), tmp_path / "out.gguf"
    quantize(src, tmp_path / "good.gguf", "q8_0")
    partial, journal = tmp_path / ".out.gguf.clq-partial", tmp_path / ".out.gguf.clq-journal"
    for damage in "partial", "partial truncated", "partial gone", "journal torn", "journal record", "journal of nobody", "nothing there":
        interrupted(tmp_path, faults, src, out, "q8_0")
        code = 0
        if damage == "partial":
            b = bytearray(partial.read_bytes())
            b[2000] ^= 1
            partial.write_bytes(b)
        elif damage == "partial truncated":
            os.truncate(partial, 3000)
        elif damage == "partial gone":
            partial.unlink()
        elif damage == "journal torn":
            os.truncate(journal, HEAD + 2 * RECORD + 11)
        elif damage == "journal record":
            b = bytearray(journal.read_bytes())
            b[HEAD + RECORD + 9] ^= 1
            journal.write_bytes(b)
        elif damage == "journal of nobody":
            journal.write_bytes(b"x" * 100)
            code = 3
        else:
            partial.unlink()
            journal.unlink()
        r = run("quantize", src, out, "--type", "q8_0", "--device", "ref", "--resume")
        assert r.returncode == code, (damage, r.stderr)
        if code:
            assert journal.name in r.stderr and not out.exists()
            quantize(src, out, "q8_0")
        assert sha(out) == sha(tmp_path / "good.gguf"), damage
        assert leftovers(tmp_path) == []
        out.unlink()


def test_row40_two_writers(tmp_path, faults):
    """A second run of the same output is refused while the first goes on, and does it no harm."""
    src, out = gguf(tmp_path / "in.gguf", 10), tmp_path / "out.gguf"
    p = start(src, out, "q8_0", faults=faults, slow_us=30000)
    wait_records(p, tmp_path / ".out.gguf.clq-journal", 2)
    for more in [], ["--resume"]:
        fails(5, "quantize", src, out, "--type", "q8_0", "--device", "ref", *more, says=["out.gguf", "another process"])
    p.communicate(timeout=60)
    assert p.returncode == 0 and leftovers(tmp_path) == []
    quantize(src, tmp_path / "good.gguf", "q8_0")
    assert sha(out) == sha(tmp_path / "good.gguf")


# ---- the output that is there ----

def test_row41_output_is_the_input(tmp_path):
    src = gguf(tmp_path / "in.gguf")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.gguf").symlink_to("in.gguf")
    os.link(src, tmp_path / "hard.gguf")
    (tmp_path / "dirlink").symlink_to(".")
    before = tree(tmp_path)
    for out in [src, tmp_path / "link.gguf", tmp_path / "hard.gguf", tmp_path / "dirlink" / "in.gguf",
                os.path.join(tmp_path, ".", "sub", "..", "in.gguf"), os.path.join(tmp_path, "in.gguf")]:
        for more in [], ["--dry-run"], ["--resume"]:
            fails(2, "quantize", src, out, "--type", "q8_0", "--device", "ref", *more, says="is the input")
        assert tree(tmp_path) == before
    for given in tmp_path / "link.gguf", tmp_path / "hard.gguf":
        fails(2, "quantize", given, src, "--type", "q8_0", "--device", "ref", says="is the input")
    assert tree(tmp_path) == before
    r = run("quantize", "in.gguf", "./in.gguf", "--type", "q8_0", "--device", "ref", cwd=tmp_path)
    assert r.returncode == 2 and tree(tmp_path) == before


def test_row41_output_is_a_part_of_the_input(tmp_path):
    model = tmp_path / "model"
    llama(model, shards=2)
    (tmp_path / "link").symlink_to("model")
    before = tree(tmp_path)
    for out in model, tmp_path / "link", str(model) + "/", model / ".":
        r = run("quantize", model, out, "--type", "i8", "--device", "ref")
        assert r.returncode in (2, 5) and tree(tmp_path) == before, r.stderr
    for shard in sorted(model.glob("*.safetensors")):
        r = run("quantize", shard, model, "--type", "i8", "--device", "ref")
        assert r.returncode in (2, 5) and tree(tmp_path) == before, r.stderr
        r = run("quantize", model, shard, "--type", "i8", "--device", "ref")
        assert r.returncode in (2, 5) and tree(tmp_path) == before, r.stderr


def test_row88_folder_that_holds_other_things(tmp_path):
    src = st(tmp_path / "in.safetensors", {"w.weight": W})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    fails(5, "quantize", src, tmp_path / "out", "--type", "i8", "--device", "ref", says=["out", "thesis.tex"])
    assert tree(tmp_path) == before
    (tmp_path / "file").write_text("x")
    (tmp_path / "emptydir.gguf").mkdir()
    before = tree(tmp_path)
    fails(5, "quantize", src, tmp_path / "file", "--type", "i8", "--device", "ref", says="file")
    fails(5, "quantize", gguf(tmp_path / "in.gguf"), tmp_path / "emptydir.gguf", "--type", "q8_0", "--device", "ref", says="folder")
    (tmp_path / "in.gguf").unlink()
    assert tree(tmp_path) == before


def test_row40_replacing_an_earlier_output(tmp_path):
    """An empty folder, and an earlier output with more files, are replaced as a whole."""
    src = st(tmp_path / "in.safetensors", {"w.weight": W})
    (tmp_path / "out").mkdir()
    quantize(src, tmp_path / "out", "i8")
    (tmp_path / "out" / "model-00002-of-00002.safetensors").write_bytes(b"of an earlier run")
    (tmp_path / "out" / "model.safetensors.index.json").write_bytes(b"{}")
    quantize(src, tmp_path / "out", "i4_g32")
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]
    assert "w.weight_packed" in read_folder(tmp_path / "out") and leftovers(tmp_path) == []
    g = gguf(tmp_path / "in.gguf")
    for kind in "q4_0", "q8_0":
        quantize(g, tmp_path / "out.gguf", kind)
        assert read_gg(tmp_path / "out.gguf").tensors["blk.0.w.weight"].dtype == kind.upper()
    # A symlink as output is replaced itself; what it points to is not touched.
    (tmp_path / "precious").write_text("x")
    (tmp_path / "l.gguf").symlink_to("precious")
    quantize(g, tmp_path / "l.gguf", "q8_0")
    assert (tmp_path / "precious").read_text() == "x" and not (tmp_path / "l.gguf").is_symlink()


def test_row40_output_inside_the_input(tmp_path):
    """A folder within the model's would be carried along by later runs; a GGUF file is not."""
    model = tmp_path / "model"
    llama(model)
    (model / "sub").mkdir()
    (tmp_path / "link").symlink_to("model/sub")
    for out in model / "quant", model / "sub" / "quant", tmp_path / "link" / "quant", tmp_path / "model/../model/q":
        for more in [], ["--dry-run"]:
            fails(2, "quantize", model, out, "--type", "i8", "--device", "ref", *more, says="lies in the source folder")
    assert sorted(os.listdir(model / "sub")) == [] and not (model / "quant").exists()
    quantize(model, model / "model.gguf", "q8_0")
    quantize(model, tmp_path / "out", "i8")
    assert not (tmp_path / "out" / "model.gguf").exists()


def test_row40_failed_run_keeps_the_earlier_output(tmp_path, faults):
    src = gguf(tmp_path / "in.gguf")
    quantize(src, tmp_path / "out.gguf", "q4_0")
    before = tree(tmp_path)
    fails(5, "quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--device", "ref",
          env={"LD_PRELOAD": faults, "FAIL_pwrite": f"{errno.EIO}@4"})
    assert tree(tmp_path) == before


def test_row88_symlinks_in_place_of_temporary_files(tmp_path):
    """The partial file and the journal are never written through a link that somebody put there."""
    src = gguf(tmp_path / "in.gguf")
    (tmp_path / "precious").write_text("x")
    for ending in "journal", "partial":
        link = tmp_path / f".out.gguf.clq-{ending}"
        link.symlink_to("precious")
        r = run("quantize", src, tmp_path / "out.gguf", "--type", "q8_0", "--device", "ref")
        assert r.returncode in (0, 5) and (tmp_path / "precious").read_text() == "x"
        link.unlink(missing_ok=True)
        (tmp_path / "out.gguf").unlink(missing_ok=True)


# ---- paths and permissions ----

def test_row88_missing_folder(tmp_path):
    src = gguf(tmp_path / "in.gguf")
    before = tree(tmp_path)
    for out in tmp_path / "absent" / "out.gguf", src / "out.gguf":
        fails(5, "quantize", src, out, "--type", "q8_0", "--device", "ref", says=str(out.parent))
    for out in "", "/", ".", "..", str(tmp_path) + "/..":
        r = run("quantize", st(tmp_path / "s", {"w.weight": W}), out, "--type", "i8", "--device", "ref", cwd=tmp_path)
        (tmp_path / "s").unlink()
        assert r.returncode in (2, 5) and r.stderr.startswith("clquant: ") and tree(tmp_path) == before, (out, r)
    for more in [], ["--dry-run"]:
        fails(5, "quantize", src, tmp_path / "absent" / "out.gguf", "--type", "q8_0", *more, says="no folder")
        fails(5, "quantize", src, tmp_path / ("x" * 250 + ".gguf"), "--type", "q8_0", *more, says=["too long", "at most 242"])
        fails(2, "quantize", src, "-", "--type", "f16", *more, says="'-' cannot be an output")
    assert tree(tmp_path) == before


@pytest.fixture
def as_nobody():
    """A folder that an unprivileged user may enter, and how to run as one."""
    if os.geteuid() != 0:
        pytest.skip("permissions bind; to change the user needs root")
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copy(CLQ, folder / "clquant")
    yield folder, lambda *args: subprocess.run([folder / "clquant", *args], user=65534, group=65534, capture_output=True, text=True,
                                               env={**os.environ, "HOME": str(folder)})
    subprocess.run(["chmod", "-R", "u+rwx", folder])
    shutil.rmtree(folder)


def test_row88_permissions(as_nobody):
    """No permission to write, or to read: said before any work, with path and reason; nothing beside the source."""
    folder, as_user = as_nobody
    (folder / "source").mkdir()
    src = gguf(folder / "source" / "in.gguf")
    (folder / "source").chmod(0o555)
    for name, mode in ("closed", 0o500), ("out", 0o777):
        (folder / name).mkdir()
        os.chown(folder / name, 65534, 65534)
        (folder / name).chmod(mode)
    before = tree(folder)
    for where in "closed", "source":
        r = as_user("quantize", src, folder / where / "out.gguf", "--type", "q8_0", "--device", "ref")
        assert r.returncode == 5 and str(folder / where) in r.stderr and os.strerror(errno.EACCES) in r.stderr, r.stderr
        assert tree(folder) == before
    src.chmod(0)
    r = as_user("quantize", src, folder / "out" / "out.gguf", "--type", "q8_0", "--device", "ref")
    assert r.returncode == 3 and str(src) in r.stderr and os.strerror(errno.EACCES) in r.stderr
    src.chmod(0o444)
    r = as_user("quantize", src, folder / "out" / "out.gguf", "--type", "q8_0", "--device", "ref")
    assert r.returncode == 0 and sorted(os.listdir(folder / "out")) == ["out.gguf"] and os.listdir(folder / "source") == ["in.gguf"]


@pytest.mark.parametrize("name", ["Модель", "模型", "\U0001f600", "a b", "it's \"quoted\"", "new\nline", "-dash", "%s%n", "x" * 200,
                                  os.fsdecode(b"\xff\xfe\x80"), "tab\there", "*?[", "=eq=", "..."])
def test_row84_paths(tmp_path, name):
    """Any bytes in a path: as input, as output, as folder, in messages."""
    folder = tmp_path / name
    folder.mkdir()
    src = gguf(folder / (name + ".gguf"))
    quantize(src, folder / ("out" + name + ".gguf"), "q8_0")
    assert read_gg(folder / ("out" + name + ".gguf")).tensors["blk.0.w.weight"].dtype == "Q8_0"
    report = json.loads(ok("quantize", src, folder / "j.gguf", "--type", "q8_0", "--device", "ref", "--json").stdout)
    assert report["n_bytes"] == (folder / "j.gguf").stat().st_size
    llama(folder / name, shards=2)
    quantize(folder / name, folder / ("folder" + name), "i8")
    assert config_of(folder / ("folder" + name))["quantization_config"]["quant_method"] == "compressed-tensors"
    quantize(folder / name, folder / "model.gguf", "q8_0")
    if name == "-dash":
        r = run("quantize", "--type", "q8_0", "--device", "ref", "--", "-dash.gguf", "-out.gguf", cwd=folder)
        assert r.returncode == 0, r.stderr
    r = fails(3, "info", folder / ("absent" + name))
    assert r.stderr.count("\n") == 1


def test_row84_long_path(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 1200:
        folder = folder / ("d" * 100)
    folder.mkdir(parents=True)
    src = gguf(folder / "in.gguf")
    quantize(src, folder / "out.gguf", "q8_0")
    assert read_gg(folder / "out.gguf").tensors["blk.0.w.weight"].dtype == "Q8_0"


def test_row85_cache_of_the_hub(tmp_path):
    """snapshots/x/model.safetensors -> ../../blobs/<hex>: the name given counts, the content decides."""
    plain = tmp_path / "plain"
    llama(plain, shards=2)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "x"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in plain.iterdir():
        blob = sha(path)
        shutil.copy(path, blobs / blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob}")
    before = tree(tmp_path)
    quantize(plain, tmp_path / "a", "i8")
    quantize(snapshot, tmp_path / "b", "i8")
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert a == b and not [p for p in (tmp_path / "b").rglob("*") if p.is_symlink()]
    one = gguf(blobs / "0123456789abcdef")
    (snapshot / "m.gguf").symlink_to("../../blobs/0123456789abcdef")
    quantize(snapshot / "m.gguf", tmp_path / "c.gguf", "q8_0")
    quantize(one, tmp_path / "d.gguf", "q8_0")
    assert sha(tmp_path / "c.gguf") == sha(tmp_path / "d.gguf")
    for out in snapshot, blobs:
        r = run("quantize", snapshot, out, "--type", "i8", "--device", "ref")
        assert r.returncode in (2, 5), r.stderr
    after = tree(tmp_path)
    assert {k: after[k] for k in before} == before


def test_relative_paths(tmp_path):
    gguf(tmp_path / "in.gguf")
    st(tmp_path / "in.safetensors", {"w.weight": W})
    (tmp_path / "sub").mkdir()
    for src, out, kind in [("in.gguf", "out.gguf", "q8_0"), ("./in.gguf", "sub/out.gguf", "q8_0"), ("in.safetensors", "sub/out/", "i8"),
                           ("sub/../in.safetensors", "out", "i8")]:
        r = run("quantize", src, out, "--type", kind, "--device", "ref", cwd=tmp_path)
        assert r.returncode == 0, r.stderr
    assert sha(tmp_path / "out.gguf") == sha(tmp_path / "sub" / "out.gguf")
    assert tree(tmp_path / "out") == tree(tmp_path / "sub" / "out") and leftovers(tmp_path) == []


# ---- sizes ----

@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "f16", "i8", "i3_asym", "i4_g64", "i4_asym_g32", "i8_tensor", "i5_asym_tensor"])
def test_row83_dry_run_is_exact(tmp_path, kind):
    """Models with tied embeddings, ragged rows, experts and fallbacks: the plan's size is the output's."""
    sources = [tmp_path / "model"]
    llama(tmp_path / "model", tied=True, embd=96, heads=3, kv_heads=3, ffn=100, dtype="BF16")
    odd = {"a.weight": f16(normal(1, 33, 100)), "b.bias": f32(normal(2, 7)), "experts.gate_up_proj": bf16(normal(3, 3, 5, 64)),
           "c.weight": bf16(normal(4, 3, 4, 3)), "d": raw("U8", np.arange(3)), "e.weight": f32(normal(5, 1, 1))}
    if kind[0] == "i" or kind == "f16":
        sources.append(st(tmp_path / "odd.safetensors", odd))
    if kind[0] != "i":
        sources.append(gg(tmp_path / "odd.gguf", {n: t for n, t in odd.items() if n != "d"}))
    for i, src in enumerate(sources):
        out = tmp_path / (f"out{i}.gguf" if kind[0] != "i" and src.suffix != ".safetensors" else f"out{i}")
        p = plan(src, out, kind)
        assert not out.exists() and leftovers(tmp_path) == []
        report = json.loads(quantize(src, out, kind, "--json").stdout)
        assert p["n_bytes"] == report["n_bytes"] == size_of(out)
        assert sum(t["n_bytes"] for t in p["tensors"]) <= p["n_bytes"]
        assert [(t["name"], t["to"]) for t in p["tensors"]] == [(t["name"], t["to"]) for t in report["tensors"]]


def test_row25_output_index(tmp_path):
    """More than one shard: the index lists exactly the files that are there, with the true total. (Sparse.)"""
    n = 2600 << 20
    header = {f"t{i}": {"dtype": "U8", "shape": [n], "data_offsets": [i * n, (i + 1) * n]} for i in range(2)}
    header["w.weight"] = {"dtype": "F32", "shape": [4, 64], "data_offsets": [2 * n, 2 * n + 1024]}
    text = json.dumps(header).encode()
    src = tmp_path / "in.safetensors"
    with open(src, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.seek(8 + len(text) + 2 * n)
        f.write(normal(1, 4, 64).tobytes())
    p = plan(src, tmp_path / "out", "i8")
    assert p["n_bytes"] > 2 * n and len(p["tensors"]) == 3


@slow
def test_row25_output_index_written(tmp_path):
    """The same, written: 5.2 GB."""
    test_row25_output_index(tmp_path)
    quantize(tmp_path / "in.safetensors", tmp_path / "out", "i8")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert sorted(set(index["weight_map"].values())) == files
    n = 2600 << 20
    assert index["metadata"]["total_size"] == 2 * n + 4 * 64 + 4 * 4
    for name, shard in index["weight_map"].items():
        with open(tmp_path / "out" / shard, "rb") as f:
            assert name in json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    shutil.rmtree(tmp_path / "out")


# ---- memory ----

def test_row79_max_mem_refuses_what_it_cannot_do(tmp_path):
    """One scale a row of 64 MB: those values belong together, so 16 MiB are refused by name, before the start."""
    n = 16 << 20
    header = json.dumps({"w.weight": {"dtype": "F32", "shape": [2, n], "data_offsets": [0, 8 * n]}}).encode()
    src = tmp_path / "in.safetensors"
    with open(src, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        f.truncate(8 + len(header) + 8 * n)
    fails(2, "quantize", src, tmp_path / "out", "--type", "i8", "--device", "ref", "--max-mem", "64M", says=["'w.weight'", "--max-mem"])
    assert os.listdir(tmp_path) == ["in.safetensors"]


def peak_kib(process):
    """Largest RssAnon + RssShmem while the process runs: what is not the page cache."""
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as f:
                fields = dict(line.split(":", 1) for line in f)
            peak = max(peak, sum(int(fields[k].split()[0]) for k in ("RssAnon", "RssShmem")))
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(0.002)
    return peak


def sparse_gguf(path, dtype, rows, cols, tail, kvs=()):
    """One tensor 'big.weight' of zeros, but for its last values."""
    size = 2
    raw_gg(path, [ti("big.weight", (cols, rows), {"F16": 1, "BF16": 30}[dtype], 0)], kvs)
    at = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.truncate(at + rows * cols * size)
        f.seek(at + rows * cols * size - len(tail))
        f.write(tail)
    return path


def disk_folder(tmp_path):
    """tmp_path, unless it is memory itself."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip()
    if kind == "tmpfs":
        pytest.skip("the temporary folder is memory")
    return tmp_path


@slow
@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_row79_memory_is_bounded(tmp_path, kind, device):
    """A tensor of 4 GiB with --max-mem 512M: less than 700 MB, and the same bytes as a small run's."""
    disk_folder(tmp_path)
    tail = bf16(normal(1, 64, 4096)).data
    src = sparse_gguf(tmp_path / "in.gguf", "BF16", 524288, 4096, tail)
    p = subprocess.Popen([CLQ, "quantize", src, tmp_path / "out.gguf", "--type", kind, "--device", device, "--max-mem", "512M", "--quiet"])
    peak = peak_kib(p)
    print(f"{kind} on {device}: peak {peak / 1024:.1f} MiB")
    assert p.returncode == 0 and peak * 1024 < 700e6
    small = gg(tmp_path / "small.gguf", {"big.weight": bf16(normal(1, 64, 4096))})
    quantize(small, tmp_path / "small-out.gguf", kind)
    expected = read_gg(tmp_path / "small-out.gguf").tensors["big.weight"].data
    with open(tmp_path / "out.gguf", "rb") as f:
        f.seek(-len(expected), 2)
        assert f.read() == expected
    src.unlink()  # pytest keeps its folders for a while
    (tmp_path / "out.gguf").unlink()


@slow
@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_row15_more_than_2_31_elements(tmp_path, device):
    """2^31 + 65536 elements of float16 as one tensor, and as one row: the last 4096 values arrive."""
    x = normal(2, 4096)
    cases = [("rows", ((2**31 + 65536) // 4096, 4096)), ("row", (1, 2**31 + 65536))]
    for name, (rows, cols) in cases:
        src = sparse_gguf(tmp_path / "in.gguf", "F16", rows, cols, f16(x).data)
        quantize(src, tmp_path / "out.gguf", "q8_0", "--quiet", device=device, timeout=600)
        with open(tmp_path / "out.gguf", "rb") as f:
            f.seek(-128 * 34, 2)
            last = f.read()
            f.seek(-(128 + 64) * 34, 2)
            before = f.read(64 * 34)
        t = T("Q8_0", (4096,), last)
        expected, fields = encode_blocks("q8_0", values(f16(x))), blocks(t)
        assert np.array_equal(fields["q"], expected["q"]) and np.array_equal(fields["d"], expected["d"].astype(np.float32)), name
        assert before == bytes(64 * 34), name
        assert (tmp_path / "out.gguf").stat().st_size - (2**31 + 65536) // 32 * 34 < 4096
        src.unlink()
        (tmp_path / "out.gguf").unlink()


@slow
def test_row79_folder_memory(tmp_path):
    """A 4 GB checkpoint of many tensors into a folder, with the same bound."""
    disk_folder(tmp_path)
    shape, n = (4096, 4096), 128
    one = bf16(normal(1, *shape)).data
    header = {f"model.layers.{i}.w.weight": {"dtype": "BF16", "shape": list(shape), "data_offsets": [i * len(one), (i + 1) * len(one)]}
              for i in range(n)}
    text = json.dumps(header).encode()
    src = tmp_path / "in.safetensors"
    with open(src, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _ in range(n):
            f.write(one)
    for kind in "i4_g128", "i8_asym_tensor":
        p = subprocess.Popen([CLQ, "quantize", src, tmp_path / "out", "--type", kind, "--device", "cpu", "--max-mem", "512M", "--quiet"])
        peak = peak_kib(p)
        print(f"{kind}: peak {peak / 1024:.1f} MiB")
        assert p.returncode == 0 and peak * 1024 < 700e6
        shutil.rmtree(tmp_path / "out")
    src.unlink()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares clquant's mixes with llama-quantize's, tensor by tensor: type and bytes, and general.file_type.

    compare_llama_quantize.py BIN [--model F32_OR_F16.gguf] [--imatrix FILE] [--device D] [MIX ...]
    compare_llama_quantize.py BIN --golden tests/golden/mixes.json      writes what llama-quantize makes

BIN is the folder of llama.cpp's programs, built with -ffp-contract=off. Without --model the tiny models of
tests/cli/mixes.py are compared, without and with an importance matrix. CLQ names the clquant to run."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
import mixes
from common import CLQ


def llama_quantize(folder, src, out, mix, imatrix, more):
    """The output's metadata and tensors, or None where llama-quantize refuses."""
    args = [folder / "llama-quantize", *(["--imatrix", imatrix] if imatrix else []), *more, src, out, mix, "1"]
    r = subprocess.run(args, capture_output=True, text=True, env={**os.environ, "LD_LIBRARY_PATH": str(folder)})
    if r.returncode == 0:
        return mixes.read_all(out)
    if "imatrix" not in r.stdout + r.stderr and "fallback" not in r.stdout + r.stderr:
        raise SystemExit(f"llama-quantize {mix} of {src}: {r.stdout[-800:]}{r.stderr[-800:]}")
    return None


def clquant(src, out, mix, imatrix, device, more):
    more = [m for m in more if m != "--allow-requantize"]  # clquant only warns
    args = [
        CLQ,
        "quantize",
        src,
        out,
        "--type",
        mix,
        "--device",
        device,
        "--quiet",
        *(["--imatrix", imatrix] if imatrix else []),
        *more,
    ]
    r = subprocess.run(args, capture_output=True, text=True)
    return (mixes.read_all(out), "") if r.returncode == 0 else (None, r.stderr.strip())


def differences(theirs, ours):
    """Lines that say what differs."""
    lines = []
    if theirs[0]["general.file_type"] != ours[0]["general.file_type"]:
        lines.append(f"general.file_type {ours[0]['general.file_type'][1]}, not {theirs[0]['general.file_type'][1]}")
    for key in "quantize.imatrix.dataset", "quantize.imatrix.entries_count", "quantize.imatrix.chunks_count":
        if theirs[0].get(key) != ours[0].get(key):
            lines.append(f"{key} {ours[0].get(key)}, not {theirs[0].get(key)}")
    if sorted(theirs[1]) != sorted(ours[1]):
        lines.append("other tensors")
    for name in sorted(set(theirs[1]) & set(ours[1])):
        (kind, data), (our_kind, our_data) = theirs[1][name], ours[1][name]
        if kind != our_kind:
            lines.append(f"{name}: {our_kind}, not {kind}")
        elif data != our_data:
            size = mixes.SIZES[kind][1]
            bad = sum(data[k : k + size] != our_data[k : k + size] for k in range(0, len(data), size))
            lines.append(f"{name}: {bad} of {len(data) // size} blocks of {kind} differ")
    return lines


def cases(args, work):
    """(title, GGUF file, imatrix or None)"""
    if args.model:
        yield pathlib.Path(args.model).name, args.model, None
        if args.imatrix:
            yield pathlib.Path(args.model).name + " imatrix", args.model, args.imatrix
        return
    for name in mixes.MODELS:
        src = work / f"{name}.gguf"
        mixes.write_model(name, src)
        yield name, src, None
        yield name + " imatrix", src, mixes.write_imatrix_gguf(mixes.importances(name), work / f"{name}.imatrix")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bin", type=pathlib.Path)
    p.add_argument("mix", nargs="*")
    p.add_argument("--model")
    p.add_argument("--imatrix")
    p.add_argument("--device", default="ref")
    p.add_argument("--with", dest="more", default="", help="options for both, as '--pure --tensor-type attn_v=q8_0'")
    p.add_argument("--golden", type=pathlib.Path)
    args = p.parse_intermixed_args()
    golden, failed, more = {}, 0, args.more.split()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for title, src, imatrix in cases(args, work):
            for mix in args.mix or mixes.MIXES:
                if mix in mixes.ALIAS and not args.mix:
                    continue
                theirs = llama_quantize(args.bin, src, work / "theirs.gguf", mix, imatrix, more)
                if args.golden:
                    golden.setdefault(title, {})[mix] = mixes.summary(theirs)
                    continue
                ours, message = clquant(src, work / "ours.gguf", mix, imatrix, args.device, more)
                lines = differences(theirs, ours) if theirs and ours else []
                state = (
                    "both refuse"
                    if not theirs and not ours
                    else (
                        f"clquant refuses: {message}"
                        if not ours
                        else (
                            "only llama-quantize refuses"
                            if not theirs
                            else "differ" if lines else f"equal, {len(theirs[1])} tensors"
                        )
                    )
                )
                failed += state not in ("both refuse",) and not state.startswith("equal")
                print(f"{title:24} {mix:10} {state}")
                for line in lines[:10]:
                    print(f"{'':36}{line}")
    if args.golden:
        args.golden.write_text(json.dumps(golden, indent=0, sort_keys=True) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""How well models learn a class from some pictures (`edge-classify teach`).

    scripts/teach.py --old cats-dogs/val --cifar cifar-10-batches-bin MODEL.edge
    scripts/teach.py --cifar cifar-10-batches-bin --replace MODEL.edge

Models were converted with `--unknown`. The first form adds each of CIFAR-10's classes that the model has no label for, one at
a time, and measures how many pictures of --old, one folder for each class of the model, keep their right answer, and how many
of the new class are found. The second replaces each class of a model of CIFAR-10, one at a time: its own row of weights and
its mean are left out, and it is learned again from pictures. Frames are drawn from data_batch_1.bin with --seed, and
measured are the first --count pictures of each class of test_batch.bin. Prints a Markdown table of the mean over the classes.
Runs `edge-classify` of $EDGE_BIN (or target/release) and needs nothing but Python.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("EDGE_BIN", ROOT / "target/release")) / "edge-classify"
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def png(planes):
    """A 32x32 PNG of CIFAR's red, green and blue planes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    pixels = bytes(planes[c * 1024 + i] for i in range(1024) for c in range(3))
    rows = b"".join(b"\0" + pixels[y * 96:y * 96 + 96] for y in range(32))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1))
            + chunk(b"IEND", b""))


def write_cifar(source, count, folder, seed=None):
    """Pictures of each class, the first ones or, with a seed, any; returns the files of each."""
    data, rows = Path(source).read_bytes(), {}
    for start in range(0, len(data), 3073):
        rows.setdefault(CIFAR[data[start]], []).append(start)
    files = {}
    for name, starts in sorted(rows.items()):
        (folder / name).mkdir(parents=True)
        chosen = starts[:count] if seed is None else random.Random(seed).sample(starts, count)
        for i, start in enumerate(chosen):
            file = folder / name / f"{i:04}.png"
            file.write_bytes(png(data[start + 1:start + 3073]))
            files.setdefault(name, []).append(file)
    return files


def answers(model, folder, patch=None):
    """The likeliest class of each picture in a folder, whether or not it counts as unknown."""
    command = [BIN, "--quiet", "--json", "--top", "1", "--model", model, folder]
    command += ["--patch", patch] if patch else []
    items = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [item["classes"][0]["label"] for item in items]


def share(found, wanted):
    return sum(f == wanted for f in found) / len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--cifar", required=True)
    parser.add_argument("--old")
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--frames", default="1,8,16,64")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| model | pictures | old classes | old before | new class | bytes |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        cifar, frames = Path(args.cifar), [int(n) for n in args.frames.split(",")]
        measured = work / "measured"
        write_cifar(cifar / "test_batch.bin", args.count, measured)
        pool = write_cifar(cifar / "data_batch_1.bin", max(frames), work / "frames", args.seed)
        for model in args.models:
            old = {p.name: p for p in sorted(Path(args.old or measured).iterdir()) if p.is_dir()}
            before = {name: share(answers(model, folder), name) for name, folder in old.items()}
            new = [name for name in CIFAR if (name in old) == args.replace]
            for n in frames:
                kept, was, found, size = [], [], [], 0
                for name in new:
                    patch = work / "class.patch"
                    what = ["--replace" if args.replace else "--label", name]
                    subprocess.run([BIN, "teach", "--quiet", "--model", model, *what, "-o", patch, *pool[name][:n]],
                                   check=True)
                    size = patch.stat().st_size
                    others = [other for other in old if other != name]
                    kept += [share(answers(model, old[other], patch), other) for other in others]
                    was += [before[other] for other in others]
                    found.append(share(answers(model, measured / name, patch), name))
                mean = lambda shares: f"{sum(shares) / len(shares) * 100:.1f} %"
                print(f"| {Path(model).stem} | {n} | {mean(kept)} | {mean(was)} | {mean(found)} | {size} |", flush=True)


main()

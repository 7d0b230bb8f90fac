#!/usr/bin/env python3
"""How well models that were converted with `--unknown` tell pictures of something else.

    scripts/unknown.py --known DIR --cifar test_batch.bin --other samples/fashion/val MODEL.edge...

Pictures in --known are of the model's classes; --cifar names a file of CIFAR-10's binary version, of which
the first 50 pictures of each class that the model has no label for are taken; --other is a folder of other
pictures, and may be given several times. Prints a Markdown table of each model and each set of others: the area
under the ROC curve (the chance that one of the others scores higher than a known picture, 0.5 by guessing) of
the distance, of the largest softmax and of the energy, -log sum exp of the logits; then what the model's own
threshold makes of them. Runs `edge-classify` of $EDGE_BIN (or target/release) and needs nothing but Python.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("EDGE_BIN", ROOT / "target/release")) / "edge-classify"
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_CLASS = 50


def classify(model, folder, *options):
    command = [BIN, "--quiet", "--model", model, *options, folder]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def scores(model, folder):
    """Of each picture the three scores, higher where it is less known, and whether it counts as unknown."""
    rows = classify(model, folder, "--logits")["logits"]
    items = classify(model, folder, "--json", "--top", "1")
    softmax, energy = [], []
    for row in rows:
        # As what is left for the other classes: the same order, where the largest rounds to one.
        most, rest = max(row), sum(math.exp(v - max(row)) for v in sorted(row)[:-1])
        softmax.append(math.log(max(rest, 1e-300)))
        energy.append(-most - math.log1p(rest))
    return {
        "distance": [item["distance"] for item in items],
        "softmax": softmax,
        "energy": energy,
        "unknown": [item["unknown"] for item in items],
    }


def auroc(known, other):
    wins = sum((o > k) + (o == k) / 2 for o in other for k in known)
    return wins / len(known) / len(other)


def png(planes):
    """A 32x32 PNG of CIFAR's red, green and blue planes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    pixels = [planes[c * 1024 + i] for i in range(1024) for c in range(3)]
    rows = b"".join(b"\0" + bytes(pixels[y * 96:y * 96 + 96]) for y in range(32))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def write_cifar(source, labels, folder):
    """The first pictures of each class that is none of `labels`."""
    data, seen = Path(source).read_bytes(), {}
    for start in range(0, len(data), 3073):
        name = CIFAR[data[start]]
        count = seen.setdefault(name, 0)
        if name not in labels and count < PER_CLASS:
            (folder / f"{name}-{count:03}.png").write_bytes(png(data[start + 1:start + 3073]))
            seen[name] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--known", required=True)
    parser.add_argument("--cifar")
    parser.add_argument("--other", action="append", default=[])
    args = parser.parse_args()
    print("| model | others | distance | max-softmax | energy | false alarms | found |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for model in args.models:
        known = scores(model, args.known)
        with tempfile.TemporaryDirectory() as work:
            others = [(Path(other).as_posix(), other) for other in args.other]
            if args.cifar:
                one = next(p for p in sorted(Path(args.known).rglob("*")) if p.is_file())
                labels = classify(model, one, "--json", "--top", "100")[0]["classes"]
                write_cifar(args.cifar, {c["label"] for c in labels}, Path(work))
                others.insert(0, ("CIFAR-10", work))
            for name, folder in others:
                other = scores(model, folder)
                areas = [auroc(known[s], other[s]) for s in ("distance", "softmax", "energy")]
                alarms = sum(known["unknown"]) / len(known["unknown"]) * 100
                found = sum(other["unknown"]) / len(other["unknown"]) * 100
                cells = " | ".join(f"{a:.3f}" for a in areas)
                print(f"| {Path(model).stem} | {name} ({len(other['unknown'])}) | {cells} "
                      f"| {alarms:.1f} % | {found:.1f} % |")


main()

#!/usr/bin/env python3
"""Writes samples/fashion from Fashion-MNIST: the first pictures of each class, as PNGs.

Usage: make-samples.py [folder with the four idx .gz files] (default: Debian's
dataset-fashion-mnist package). Needs nothing but Python. The result is always the same.
"""

import gzip
import struct
import sys
import zlib
from pathlib import Path

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
# Folder, prefix of the official files, pictures per class.
PARTS = [("train", "train", 40), ("val", "t10k", 10)]


def idx(path):
    """The values of an IDX file of bytes, after its header."""
    data = gzip.decompress(path.read_bytes())
    return data[4 + 4 * data[3]:]


def png(side, pixels):
    """A square 8-bit grey PNG."""
    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + pixels[y * side:(y + 1) * side] for y in range(side))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def main():
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    target = Path(__file__).resolve().parent.parent / "samples" / "fashion"
    for folder, prefix, count in PARTS:
        images = idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        seen = [0] * len(CLASSES)
        for i, label in enumerate(labels):
            if seen[label] < count:
                path = target / folder / CLASSES[label] / f"{seen[label]:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(28, images[i * 784:(i + 1) * 784]))
                seen[label] += 1


main()

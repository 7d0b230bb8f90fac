#!/usr/bin/env python3
"""Compares TensorFlow Lite files in LiteRT, by its reference kernels, with edge-classify on what
`convert` makes of them, on the 10,000 pictures of CIFAR-10's test_batch.bin.

    pip install ai-edge-litert numpy
    cargo build --release
    tests/packages/tflite_agreement.py test_batch.bin pretrainedResnet_quant.tflite [indices.txt] …

A `.txt` file behind a model has the indices of pictures that are counted by themselves, such as MLPerf
Tiny's ic01. Models take bytes 0 to 255. Fails where less than 99.5 % of the classes are the same.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def run(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


def reference(model, pictures):
    session = Interpreter(model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    session.allocate_tensors()
    [input], [output] = session.get_input_details(), session.get_output_details()
    scores = []
    for picture in pictures:
        x = picture.astype(np.int16) - 128 if input["dtype"] == np.int8 else picture
        session.set_tensor(input["index"], x[None].astype(input["dtype"]))
        session.invoke()
        scores.append(session.get_tensor(output["index"])[0].astype(np.float32))
    return np.array(scores)


records = np.fromfile(sys.argv[1], np.uint8).reshape(-1, 3073)
labels, pictures = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
failed = False
arguments = sys.argv[2:]
for i, model in enumerate(arguments):
    if model.endswith(".txt"):
        continue
    want = reference(model, pictures)
    with tempfile.TemporaryDirectory() as folder:
        edge, npy = Path(folder) / "x.edge", Path(folder) / "x.npy"
        quantize = "int8" if want.max() > 1 else "none"
        # Values 0 to 255; int8 models say so themselves.
        run(BIN / "convert", model, "--quantize", quantize, "--mean", "0", "--std", 1 / 255, "-o", edge)
        np.save(npy, np.ascontiguousarray(pictures.astype(np.float32)))
        have = np.array(json.loads(run(BIN / "edge-classify", "--model", edge, "--logits", "--tensor", npy))["logits"])
    # Of several classes with the same probability, any is right.
    best = want == want.max(1, keepdims=True)
    same = np.take_along_axis(best, have.argmax(1)[:, None], 1).mean()
    strictly = (have.argmax(1) == want.argmax(1)).mean()
    failed |= same < 0.995
    right = [(scores.argmax(1) == labels).mean() for scores in (have, want)]
    print(f"{model}: same class on {same:.2%} ({strictly:.2%} where ties go to the first), right on "
          f"{right[0]:.2%}, in LiteRT {right[1]:.2%}", flush=True)
    for indices in [a for a in arguments[i + 1:i + 2] if a.endswith(".txt")]:
        chosen = np.loadtxt(indices, dtype=int).ravel()
        right = [(scores.argmax(1) == labels)[chosen].mean() for scores in (have, want)]
        print(f"  {indices}: right on {right[0]:.2%} of {len(chosen)}, in LiteRT {right[1]:.2%}")
sys.exit(bool(failed))

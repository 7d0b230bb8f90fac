#!/usr/bin/env python3
"""Compares random well-formed ONNX graphs, of `tests/tests/pipeline/random_graphs.rs`, with onnxruntime, which computes them
from the very file. That test compares them with tract, and int8 with its formulas.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy
    cargo build --release && tests/packages/random_graphs.py [COUNT]

Prints what is refused; fails where a number differs by more than 1e-3 of the largest, or a quarter is refused.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from common import ROOT, outcome

count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
random = np.random.default_rng(5)
onnxruntime.set_default_logger_severity(3)
wrong, refused, compared = [], [], 0
with tempfile.TemporaryDirectory() as folder:
    test = ["cargo", "test", "--release", "-p", "edge-tests", "--test", "pipeline", "random_graphs"]
    subprocess.run(test, cwd=ROOT, env=os.environ | {"EDGE_GRAPHS": f"{count}:{folder}"}, check=True)
    for seed in range(count):
        path = Path(folder) / f"{seed}.onnx"
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(path)
        dims = session.get_inputs()[0].shape
        x = random.normal(size=[1, *dims[1:]]).astype(np.float32)
        try:
            want = session.run(None, {"picture": x})[0]
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException as error:
            print(f"{seed}: onnxruntime itself fails: {str(error)[:120]}")
            continue
        is_softmax = onnx.load(path).graph.node[-1].op_type == "Softmax"
        kind = "softmax" if is_softmax else "logits"
        said = outcome(path, x.transpose(0, 2, 3, 1), want, kind, quantize="none", tolerance=1e-3)
        compared += said.startswith("right")
        if not said.startswith("right"):
            (refused if said.startswith("refused") else wrong).append(f"{seed}: {said}")
print(*refused, sep="\n")
print(*wrong, sep="\n")
print(f"{compared} right, {len(refused)} refused, {len(wrong)} wrong")
sys.exit(bool(wrong) or compared * 4 < count * 3)

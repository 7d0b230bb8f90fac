#!/usr/bin/env python3
"""Compares the shipped models, exported as ONNX in f32, fp16 and int8 (QDQ, integers), in onnxruntime with
edge-classify on their `.edge` files, on the first 1,000 pictures of CIFAR-10's test_batch.bin.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy
    cargo build --release && tests/packages/onnx_export.py path/to/test_batch.bin

Fails where onnx.checker refuses a file, floats differ by more than 1e-4 of the largest logit, or less
than 99 % of int8's classes are the same.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def run(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


records = np.fromfile(sys.argv[1], np.uint8).reshape(-1, 3073)[:1000]
labels, pictures = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)
failed = False
for name in ["resnet_8_cifar10", "resnet_20_cifar10"]:
    floats = ["--float-layers", "conv1_conv,stack1_block0_1_conv"]
    integers = ["--onnx-integers"]
    for quantize, form, flags in [("none", [], []), ("fp16", [], []), ("int8", [], []), ("int8", integers, []),
                                  ("int8", [], floats), ("int8", integers, floats)]:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            model, edge, npy = folder / "x.onnx", folder / "x.edge", folder / "x.npy"
            for output, options in [(model, form), (edge, [])]:
                run(BIN / "convert", ROOT / f"models/{name}.mpk", "--quantize", quantize, *flags, *options, "-o", output)
            onnx.checker.check_model(str(model), full_check=True)
            session = onnxruntime.InferenceSession(model)
            metadata = json.loads(session.get_modelmeta().custom_metadata_map["preprocess"])
            scale, offset = (np.array(metadata[key], np.float32)[:, None, None] for key in ["scale", "offset"])
            x = pictures * scale + offset
            want = np.concatenate([session.run(None, {"input": picture[None]})[0] for picture in x])
            np.save(npy, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
            have = np.array(json.loads(run(BIN / "edge-classify", "--model", edge, "--logits", "--tensor", npy))["logits"])
        error = np.abs(have - want).max() / np.abs(want).max()
        same = (have.argmax(1) == want.argmax(1)).mean()
        failed |= same < 0.99 or (quantize != "int8" and error > 1e-4)
        right = [(scores.argmax(1) == labels).mean() for scores in (have, want)]
        print(f"{name}, {quantize} {' '.join(form + flags)}: same class on {same:.1%}, logits within {error:.1e}, right on "
              f"{right[0]:.1%}, in onnxruntime {right[1]:.1%}", flush=True)
sys.exit(bool(failed))

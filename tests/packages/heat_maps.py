#!/usr/bin/env python3
"""Compares `edge-classify --heatmap` with the formula in NumPy: of the network exported as ONNX, onnxruntime gives
the map `a` before the average over it, and the file the weights `w` of the dense layer behind. The share of a pixel in the
score of class k, less the mean of all scores, is Σ_c (w[k, c] - mean_j w[j, c]) a[y, x, c] / pixels.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy pillow
    cargo build --release && tests/packages/heat_maps.py

The pictures are those of samples/, cut to the networks' input, so that nothing is resized. Fails where a share of floats differs
by more than 1e-4 of the largest, of fp16, whose file has maps of it, too, 5e-3. Int8 is compared with its own QDQ file, whose sums are requantized by another rule: maps
may differ by a step here and there, and shares by 3 % of the largest on average.
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

from common import BIN, ROOT, convert, run

PICTURES = ["chelsea.png", "coffee.png", "rocket.jpg"]
MODELS = ["mobilenet_v2", "mobilenet_v1_025", "resnet_20_cifar10", "resnet_8_cifar10"]
LIMITS = {"none": ("largest", 1e-4), "fp16": ("largest", 5e-3), "int8": ("mean", 0.03)}


def constant(graph, name):
    """An initializer, or what a DequantizeLinear makes of one, through what only moves its numbers."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor).astype(np.float64)
    node = next(node for node in graph.node if name in node.output)
    if node.op_type in ("Cast", "Transpose", "Reshape", "Flatten", "Identity"):
        return constant(graph, node.input[0])
    assert node.op_type == "DequantizeLinear", node.op_type
    values, scale, *zero = (constant(graph, name) for name in node.input)
    zero = zero[0] if zero else np.zeros_like(scale)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    shape = [-1 if i == axis and scale.size > 1 else 1 for i in range(values.ndim)]
    return (values - zero.reshape(shape)) * scale.reshape(shape)


def weights(graph, classes):
    """Of the last layer, [classes, channels]."""
    node = [node for node in graph.node if node.op_type in ("Gemm", "MatMul", "Conv")][-1]
    value = constant(graph, node.input[1])
    value = value.reshape(value.shape[:2])
    transposed = node.op_type == "MatMul" or node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
    value = value.T if transposed else value
    assert value.shape[0] == classes
    return value


def formula(path, picture, name):
    """The class, and its shares by the formula."""
    model = onnx.load(path)
    pool = [node for node in model.graph.node if node.op_type in ("GlobalAveragePool", "AveragePool", "ReduceMean")][-1]
    model.graph.output.append(onnx.ValueInfoProto(name=pool.input[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    metadata = session.get_modelmeta().custom_metadata_map
    p, labels = json.loads(metadata["preprocess"]), json.loads(metadata["labels"])
    scale, offset = (np.array(p[key], np.float32)[:, None, None] for key in ["scale", "offset"])
    x = np.array(picture, np.float32).transpose(2, 0, 1) * scale + offset
    scores, values = session.run(None, {session.get_inputs()[0].name: x[None]})
    w = weights(model.graph, scores.size)
    w = w[labels.index(name)] - w.mean(0)
    return np.einsum("c,chw->hw", w, values[0].astype(np.float64)) / values[0][0].size


failed = False
for name in MODELS:
    for quantize, (kind, limit) in LIMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            onnx_file, edge, photo = folder / "x.onnx", folder / "x.edge", folder / "x.png"
            for output in (onnx_file, edge):
                pictures = ["--calibration", ROOT / "samples/pictures"] if quantize == "int8" and "mobilenet" in name else []
                why = convert(ROOT / f"models/{name}.mpk", output, "--quantize", quantize, *pictures)
                assert not why, why
            side = 32 if "cifar" in name else 224 if name == "mobilenet_v2" else 128
            errors = []
            for picture in PICTURES:
                image = Image.open(ROOT / "samples/pictures" / picture).convert("RGB")
                side = min(side, *image.size)
                image = image.resize((side, side)) if side == 32 else image.crop((60, 20, 60 + side, 20 + side))
                image.save(photo)
                out = run(BIN / "edge-classify", "--model", edge, "--json", "--heatmap", folder / "heat.png", photo)
                heat = json.loads(out)[0]["heatmap"]
                have = np.array(heat["values"]).reshape(heat["height"], heat["width"])
                want = formula(onnx_file, image, heat["class"])
                assert have.shape == want.shape, (have.shape, want.shape)
                errors.append(np.abs(have - want) / np.abs(want).max())
            errors = np.stack(errors)
            error = errors.max() if kind == "largest" else errors.mean()
            failed |= not error <= limit
            print(f"{name}, {quantize}: {have.shape[0]}x{have.shape[1]}, shares differ by {errors.max():.1e} of the largest, "
                  f"{errors.mean():.1e} on average", flush=True)
sys.exit(bool(failed))

#!/usr/bin/env python3
"""Compares the real programs with onnxruntime, on full-size networks with random weights and
batch-norm statistics: PyTorch exports them by both of its exporters, in old and new versions of the
operators, with batch-norms folded or not, with an open batch; `convert` imports the file,
`edge-classify` runs it in f32, and what `convert` exports again is valid and means the same.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.31 onnx==1.23.2 onnxscript==0.7.2 \\
        onnxruntime==1.32.0 numpy
    cargo build --release && tests/packages/onnx_agreement.py [NAME…]

Prints the largest difference of the logits, relative to the largest logit; fails above 1e-3 (1e-4
for our own export).
"""
import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
import torchvision

from common import BIN, difference, logits, randomize, run

MODELS = {name: lambda name=name: getattr(torchvision.models, name)(weights=None)
          for name in ["resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"]}
MODELS |= {name: lambda name=name: timm.create_model(name) for name in ["resnet26d", "resnetv2_50"]}
WAYS = {
    "folded": dict(dynamo=False),
    "not folded": dict(dynamo=False, do_constant_folding=False, opset_version=18,
                       training=torch.onnx.TrainingMode.PRESERVE),
    "opset 11": dict(dynamo=False, opset_version=11),
    "open batch": dict(dynamo=False, dynamic_axes={"x": {0: "n"}}, opset_version=13),
    "torch.export": dict(dynamo=True),
    "torch.export, opset 21": dict(dynamo=True, opset_version=21),
}


failed = False
for label in sys.argv[1:] or MODELS:
    torch.manual_seed(0)
    net = randomize(MODELS[label]())
    # Odd maps, so that borders count.
    x = torch.randn(1, 3, 97, 97)
    for way, options in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            file, edge, again = folder / "net.onnx", folder / "net.edge", folder / "again.onnx"
            torch.onnx.export(net, (x,), file, input_names=["x"], output_names=["y"],
                              verbose=False, **options)
            want = onnxruntime.InferenceSession(file).run(None, {"x": x.numpy()})[0][0]
            run(BIN / "convert", "--quantize", "none", file, "-o", edge)
            have = logits(edge, x[0].permute(1, 2, 0).numpy(), folder)[0]
            run(BIN / "convert", file, "-o", again)
            onnx.checker.check_model(str(again), full_check=True)
            session = onnxruntime.InferenceSession(again)
            ours = session.run(None, {"input": x.numpy()})[0][0]
            errors = [difference(have, want), difference(have, ours)]
            failed |= errors[0] > 1e-3 or errors[1] > 1e-4
            print(f"{label}, {way}: {errors[0]:.1e}, exported again {errors[1]:.1e}", flush=True)
sys.exit(bool(failed))

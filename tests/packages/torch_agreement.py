#!/usr/bin/env python3
"""Compares the real programs with the real packages, on full-size networks with random weights
and batch-norm statistics: `convert` imports the state dict, `edge-classify` runs it in f32; and back: `convert` writes
safetensors, which the package loads strictly.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.30 safetensors numpy
    cargo build --release && tests/packages/torch_agreement.py

Prints the largest difference of the logits, relative to the largest logit; fails above 1e-3.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from common import randomize
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TOLERANCE = 1e-3
MODELS = {f"torchvision {name}": lambda name=name: getattr(torchvision.models, name)(weights=None)
          for name in ["resnet18", "resnet34", "resnet50", "resnet101"]}
MODELS |= {f"timm {name}": lambda name=name: timm.create_model(name)
           for name in ["resnet18d", "resnet50d", "resnetv2_50"]}


def run(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


failed = False
for label, make in MODELS.items():
    torch.manual_seed(0)
    net = randomize(make(), 224)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        want = net(x)[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        torch.save(net.state_dict(), folder / "net.pth")
        np.save(folder / "x.npy", x.permute(0, 2, 3, 1).contiguous().numpy())
        run(BIN / "convert", "--quantize", "none", folder / "net.pth", "-o", folder / "net.edge")
        out = run(BIN / "edge-classify", "--model", folder / "net.edge",
                  "--tensor", folder / "x.npy", "--logits")
        got = np.array(json.loads(out)["logits"][0])
        run(BIN / "convert", folder / "net.pth", "-o", folder / "back.safetensors")
        # timm's resnet18d has no projection in its first stack, where we have an identity.
        state = {name: tensor for name, tensor in load_file(folder / "back.safetensors").items()
                 if label != "timm resnet18d" or "layer1.0.downsample" not in name}
    back = make().eval()
    back.load_state_dict(state, strict=True)
    with torch.no_grad():
        returned = back(x)[0].numpy()
    errors = [np.abs(logits - want).max() / np.abs(want).max() for logits in (got, returned)]
    failed |= not max(errors) <= TOLERANCE
    print(f"{label:22} imported {errors[0]:.1e}  exported {errors[1]:.1e}", flush=True)
sys.exit(failed)

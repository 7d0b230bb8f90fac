#!/usr/bin/env python3
"""Compares MobileNets and EfficientNets of the real packages, with random weights and batch-norm statistics and in double
precision, with what is computed here of their state dicts and folders; and back: timm loads strictly what is written of them.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.31 transformers==5.24.0 safetensors numpy
    tests/packages/mobilenet_agreement.py [PART OF A NAME...]

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
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fixtures/torch"))
from mobilenet import write  # noqa: E402

SIDE = 72
TIMM = ["mobilenetv1_100", "mobilenetv1_125", "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_100",
        "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140", "mobilenetv3_small_050", "mobilenetv3_small_075",
        "mobilenetv3_small_100", "mobilenetv3_large_075", "mobilenetv3_large_100", "tf_mobilenetv3_small_075",
        "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100", "tf_mobilenetv3_large_075", "tf_mobilenetv3_large_100",
        "tf_mobilenetv3_large_minimal_100", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_lite0",
        "efficientnet_lite1", "tf_efficientnet_b0", "tf_efficientnet_b1", "tf_efficientnet_lite0", "tf_efficientnet_lite1"]
REFUSED = ["mobilenetv1_100h", "mobilenetv3_large_150d", "mobilenetv3_rw", "mnasnet_100", "semnasnet_100", "fbnetc_100",
           "spnasnet_100", "lcnet_050", "hardcorenas_a", "efficientnet_es", "efficientnet_b0_gn", "efficientnet_cc_b0_4e",
           "tf_efficientnetv2_b0", "mobilenetv4_conv_small", "mixnet_s"]
wanted_parts = sys.argv[1:]
makers = {}


def narrow(make, width):
    return lambda: make(width_mult=width, num_classes=7)


for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"):
    for width in (0.5, 1.0):
        makers[f"{name}_{width}.safetensors"] = narrow(getattr(torchvision.models, name), width)
for name in ("efficientnet_b0", "efficientnet_b1", "efficientnet_b5"):
    makers[f"torchvision_{name}.safetensors"] = lambda name=name: getattr(torchvision.models, name)(num_classes=7)
makers["refused_efficientnet_v2_s.safetensors"] = lambda: torchvision.models.efficientnet_v2_s(num_classes=7)
for name in TIMM + REFUSED:
    make = lambda name=name: timm.create_model(name, num_classes=7)
    refused = "refused_" if name in REFUSED else ""
    makers[f"{refused}{name}.safetensors"] = make
    makers[f"{refused}folder_{name}/model.safetensors"] = make
for width in (0.5, 1.0):
    for kind in ("V1", "V2"):
        config = getattr(transformers, f"MobileNet{kind}Config")
        make = getattr(transformers, f"MobileNet{kind}ForImageClassification")
        for more in ({}, {"tf_padding": False, "layer_norm_eps": 0.01}):
            place = f"transformers_{kind}_{width}_{len(more)}/model.safetensors"
            makers[place] = lambda config=config, make=make, more=more, width=width: make(
                config(num_labels=7, depth_multiplier=width, **more))


def describe(place, net):
    """The config of a folder."""
    folder = place.parent
    if "transformers" in folder.name:
        net.config.save_pretrained(folder)
    else:
        (folder / "config.json").write_text(json.dumps({
            "architecture": folder.name.split("folder_")[1], "num_classes": 7, "pretrained_cfg": {
                "input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "crop_pct": 0.95,
                "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}))


failed = False
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    (folder / "back").mkdir()
    torch.manual_seed(1)
    x = torch.randn(1, 3, SIDE, SIDE).double()
    np.save(folder / "input.npy", x.permute(0, 2, 3, 1).contiguous().float().numpy())
    x = x.float().double()
    for name, make in makers.items():
        if wanted_parts and not any(part in name for part in wanted_parts):
            continue
        net, place = make(), folder / "nets" / name
        write(place, net, x)
        if place.name == "model.safetensors":
            describe(place, net)
    command = "cargo test --release -p edge-zoo --lib real_networks -- --ignored --nocapture"
    failed |= subprocess.run(command.split(), cwd=ROOT, env={**os.environ, "MOBILENETS": str(folder)}).returncode != 0
    for back in sorted((folder / "back").glob("*.safetensors")):
        name = back.stem.replace("folder_", "")
        if name not in TIMM:
            continue
        net = timm.create_model(name, num_classes=7).eval().double()
        net.load_state_dict(load_file(back), strict=True)
        source = folder / "nets" / back.name
        source = source if source.exists() else folder / "nets" / back.stem / "model.safetensors"
        with safe_open(source, "pt") as file, torch.no_grad():
            want = np.array(json.loads(file.metadata()["logits"]))
            error = np.abs(net(x)[0].numpy() - want).max() / np.abs(want).max()
        failed |= not error <= 1e-3
        print(f"{back.stem:40} exported {error:.1e}", flush=True)
sys.exit(failed)

#!/usr/bin/env python3
"""Compares the real programs with the real package, on full-size presets with random weights
and batch-norm statistics: keras-hub saves a preset and computes logits, `convert` imports it,
`edge-classify` runs it in f32; and back: `convert --keras-preset` exports, keras-hub opens it.

    pip install keras==3.15.1 keras-hub==0.32.0 "jax[cpu]==0.10.2" numpy
    cargo build --release && tests/packages/keras_agreement.py

Prints the largest difference of the logits, relative to the largest logit; fails above 1e-3.
"""
import os
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import keras
import keras_hub
import numpy as np
from common import BIN, run, tensor_logits

TOLERANCE = 1e-3
IMAGENET = {"scale": [1 / (255 * s) for s in (0.229, 0.224, 0.225)],
            "offset": [-m / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]}
STEM = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7]}
DEEP = {"input_conv_filters": [32, 32, 64], "input_conv_kernel_sizes": [3, 3, 3]}
MODELS = {
    "resnet_18": dict(STEM, stackwise_num_blocks=[2, 2, 2, 2], block_type="basic_block"),
    "resnet_50": dict(STEM, stackwise_num_blocks=[3, 4, 6, 3], block_type="bottleneck_block"),
    "resnet_v2_50": dict(STEM, stackwise_num_blocks=[3, 4, 6, 3], block_type="bottleneck_block",
                         use_pre_activation=True),
    "resnet_vd_18": dict(DEEP, stackwise_num_blocks=[2, 2, 2, 2], block_type="basic_block_vd"),
    "resnet_vd_50": dict(DEEP, stackwise_num_blocks=[3, 4, 6, 3], block_type="bottleneck_block_vd"),
}


def classifier(config):
    backbone = keras_hub.models.ResNetBackbone(
        stackwise_num_filters=[64, 128, 256, 512], stackwise_num_strides=[1, 2, 2, 2], **config)
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(224, 224), interpolation="bicubic", **IMAGENET)
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    net = keras_hub.models.ResNetImageClassifier(
        backbone=backbone, preprocessor=preprocessor, num_classes=1000)
    # As after training: statistics near those of real activations, scales of their own.
    rng = np.random.default_rng(0)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(rng.normal(0, 0.2, shape))
            layer.momentum = 0.0
    backbone(rng.normal(size=(4, 224, 224, 3)).astype("float32"), training=True)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return net


failed = False
for name, config in MODELS.items():
    keras.utils.set_random_seed(0)
    net = classifier(config)
    x = np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype("float32")
    want = keras.ops.convert_to_numpy(net(x, training=False))[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        net.save_to_preset(str(folder / name))
        run(BIN / "convert", "--quantize", "none", folder / name, "-o", folder / "net.edge")
        got = tensor_logits(folder / "net.edge", x)[0]
        run(BIN / "convert", folder / name, "--keras-preset", "-o", folder / "back")
        back = keras_hub.models.ImageClassifier.from_preset(str(folder / "back"))
        returned = keras.ops.convert_to_numpy(back(x, training=False))[0]
    errors = [np.abs(logits - want).max() / np.abs(want).max() for logits in (got, returned)]
    failed |= not max(errors) <= TOLERANCE
    print(f"{name:14} imported {errors[0]:.1e}  exported {errors[1]:.1e}", flush=True)
sys.exit(failed)

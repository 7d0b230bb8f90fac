#!/usr/bin/env python3
"""Compares MobileNets and EfficientNets of Keras Applications and KerasHub, whole and with random weights and statistics,
with what is computed here of the same files.

    pip install tensorflow-cpu==2.21.0 keras-hub==0.32.0 numpy
    tests/packages/keras_mobilenets.py [NAME...]

Runs the tests that read the fixtures in `keras_mobile` on a folder of such files, which print the largest difference of
each, relative to the range of its scores.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import keras_hub
import numpy as np
from common import ROOT, train_keras_statistics
from keras import layers as L
from keras_hub.src.utils.timm import convert_efficientnet, convert_mobilenet

applications, hub = keras.applications, keras_hub.models
random = np.random.default_rng(7)
BYTES, UNIT = (0, 255), (-1, 1)
WHOLE, ALONE = [".keras", ".h5"], [".weights.h5"]
# Name, model, range of its input, kinds of files, and sizes where those of the model are open.
forms = []


def form(name, model, ends, kinds, sizes=((96, 96),)):
    forms.append((name, model, ends, kinds, sizes))


def application(name, side=96, **options):
    shape = (side, side, 3) if isinstance(side, int) else (*side, 3)
    return lambda: getattr(applications, name)(input_shape=shape, weights=None, **options)


def preset(family, converter, architecture, **head):
    def build():
        config = converter.convert_backbone_config({"architecture": architecture})
        backbone = getattr(hub, family + "Backbone")(**config)
        return getattr(hub, family + "ImageClassifier")(backbone=backbone, num_classes=1000, **head)
    return build


def own(name, before, **options):
    """A base with layers of one's own around it."""
    def build():
        base = getattr(applications, name)(input_shape=(96, 96, 3), include_top=False, weights=None, **options)
        x = keras.Input((96, 96, 3))
        return keras.Model(x, L.Dense(7, activation="softmax")(L.Dropout(0.2)(L.GlobalAveragePooling2D()(base(before(x))))))
    return build


same = lambda x: x
for alpha in [0.25, 1.0]:
    form(f"MobileNet {alpha}", application("MobileNet", alpha=alpha), UNIT, WHOLE + ALONE)
    form(f"MobileNet {alpha} at 128", application("MobileNet", 128, alpha=alpha), UNIT, WHOLE + ALONE, [(128, 128)])
for alpha in [0.35, 1.0, 1.4]:
    form(f"MobileNetV2 {alpha}", application("MobileNetV2", alpha=alpha), UNIT, WHOLE + ALONE)
form("MobileNetV2 at 75x101", application("MobileNetV2", (75, 101)), UNIT, WHOLE)
for size in ["Small", "Large"]:
    for options in [{}, {"alpha": 0.75}, {"minimalistic": True}, {"include_preprocessing": False}]:
        ends = UNIT if "include_preprocessing" in options else BYTES
        kinds = WHOLE if ends == UNIT else WHOLE + ALONE
        form(f"MobileNetV3{size} {options or ''}", application("MobileNetV3" + size, **options), ends, kinds)
form("MobileNetV3Small at 75x101", application("MobileNetV3Small", (75, 101)), BYTES, WHOLE)
for name in ["EfficientNetB0", "EfficientNetB1", "EfficientNetB2"]:
    form(name, application(name), BYTES, WHOLE + ALONE)
form("EfficientNetB0 at 75", application("EfficientNetB0", 75), BYTES, WHOLE)
form("own MobileNet", own("MobileNet", applications.mobilenet.preprocess_input, alpha=0.5), BYTES, WHOLE)
form("own MobileNetV2", own("MobileNetV2", lambda x: L.Rescaling(1 / 127.5, offset=-1)(L.RandomFlip()(x))), BYTES, WHOLE)
form("own MobileNetV3Small", own("MobileNetV3Small", same), BYTES, WHOLE)
form("own EfficientNetB0", own("EfficientNetB0", same), BYTES, WHOLE)
OPEN = [(96, 96), (75, 61)]
for architecture in ["mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv3_large_100"]:
    form(f"hub {architecture}", preset("MobileNet", convert_mobilenet, architecture), UNIT, ["", *WHOLE], OPEN)
for architecture in ["efficientnet_b0", "efficientnet_b1", "efficientnet_lite0"]:
    form(f"hub {architecture}", preset("EfficientNet", convert_efficientnet, architecture), UNIT, ["", *WHOLE], OPEN)


def pixels(height, width, ends):
    bytes_ = (np.arange(height * width * 3, dtype=np.uint64) * 2654435761 >> 7) % 256
    return bytes_.reshape(1, height, width, 3).astype(np.float32) / 255 * (ends[1] - ends[0]) + ends[0]


def normalizations(layers):
    for layer in layers:
        if isinstance(layer, L.Normalization):
            layer.adapt_mean.assign([0.485, 0.456, 0.406])
            layer.adapt_variance.assign([0.229, 0.224, 0.225])
            layer.finalize_state()
        normalizations(getattr(layer, "layers", []))


def layers_of(model):
    """Also those inside of KerasHub's blocks."""
    return list(model._flatten_layers(include_self=False))


with tempfile.TemporaryDirectory() as folder:
    folder, expected = Path(folder), []
    for name, build, ends, kinds, sizes in forms:
        if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
            continue
        keras.backend.clear_session()
        keras.utils.set_random_seed(3)
        model = build()
        if "own" in name or "at" in name or kinds[-1] != ALONE[0]:
            normalizations(layers_of(model))
        sides = [side or 96 for side in model.input_shape[1:3]]
        train_keras_statistics(model, layers_of(model), random, random.uniform(*ends, (4, *sides, 3)).astype("float32"))
        head = model.weights[-2]
        head.assign(random.normal(0, 1 / np.sqrt(np.prod(head.shape[:-1])), head.shape))
        stem = "".join(c if c.isalnum() else "_" for c in name)
        for kind in kinds:
            file = folder / f"{stem}{kind}"
            (model.save_to_preset if not kind else model.save_weights if kind == ALONE[0] else model.save)(str(file))
        # Logits, not probabilities, of which many are 0.
        last = model.layers[-1]
        if getattr(last, "activation", None) is keras.activations.softmax:
            last.activation = keras.activations.linear
        for height, width in sizes if model.input_shape[1] is None else [model.input_shape[1:3]]:
            logits = np.asarray(model(pixels(height, width, ends), training=False))[0].astype(float)
            for kind in kinds:
                expected.append({"file": f"{stem}{kind}", "shape": [height, width, 3], "low": ends[0], "high": ends[1], "logits": list(logits)})
        print(name, flush=True)
    (folder / "expected.json").write_text(json.dumps(expected))
    command = ["cargo", "test", "--release", "-p", "edge-zoo", "--lib", "keras::mobile_tests::checkpoints", "--", "--nocapture"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"KERAS_MOBILENETS": str(folder)})
sys.exit(done.returncode)

#!/usr/bin/env python3
"""Compares Keras Applications' ResNet50 and ResNet50V2, with random weights and statistics and exported
in every way, with what `convert` and edge-classify make of them: by Keras' own ONNX export, by tf2onnx
from a saved model and from TensorFlow Lite, and as TensorFlow Lite.

    pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0 onnx
    cargo build --release && tests/packages/keras_exports.py

Fails where the logarithms of probabilities differ by more than 1e-3.
"""
import os
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
from common import BIN, log_softmax, randomize_keras, run, tensor_logits

random = np.random.default_rng(3)
tf.keras.utils.set_random_seed(3)


failed = False
for name in ["ResNet50", "ResNet50V2"]:
    model = getattr(tf.keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)
    randomize_keras(model.layers, random)
    x = random.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    want = np.log(np.concatenate([model(picture[None]) for picture in x]))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        files = {kind: folder / f"{kind}.onnx" for kind in ["keras", "saved model", "tflite to onnx"]}
        tflite = folder / "model.tflite"
        tflite.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        model.export(str(files["keras"]), format="onnx", verbose=False)
        model.export(str(folder / "saved"), verbose=False)
        tf2onnx = [sys.executable, "-m", "tf2onnx.convert", "--opset", 17]
        run(*tf2onnx, "--saved-model", folder / "saved", "--output", files["saved model"])
        run(*tf2onnx, "--tflite", tflite, "--output", files["tflite to onnx"])
        for kind, file in (files | {"tflite": tflite}).items():
            edge = folder / "x.edge"
            run(BIN / "convert", file, "--quantize", "none", "--mean", 0, "--std", 1 / 255, "-o", edge)
            error = np.abs(log_softmax(tensor_logits(edge, x)) - want).max()
            failed |= not error <= 1e-3
            print(f"{name}, {kind}: within {error:.1e}", flush=True)
sys.exit(bool(failed))

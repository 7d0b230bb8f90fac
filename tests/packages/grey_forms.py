#!/usr/bin/env python3
"""Networks of one channel as PyTorch, timm, Keras and their converters write them, compared with
onnxruntime, PyTorch, Keras or LiteRT; and what programs make of pictures, compared with Pillow's luma.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.31 onnx==1.23.2 onnxscript==0.7.2 \\
        onnxruntime==1.32.0 safetensors numpy pillow
    cargo build --release && tests/packages/grey_forms.py

In an environment with TensorFlow, Keras, KerasHub and tf2onnx instead, it compares what these write.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common import BIN, Tally, outcome

SIDE, CLASSES = 28, 10
tally = Tally()
random = np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())
pixels = random.integers(0, 256, (4, SIDE, SIDE, 1)).astype(np.float32)
x = pixels / 255
MEAN, STD = 0.1307, 0.3081


def luma(edge_of):
    """Pictures of color through a model must give what a tensor of Pillow's luma does."""
    from PIL import Image
    edge = folder / "luma.edge"
    subprocess.run([BIN / "convert", edge_of, "--quantize", "none", "-o", edge], check=True, capture_output=True)
    logits = lambda *args: np.array(json.loads(subprocess.run(
        [BIN / "edge-classify", "--model", edge, "--logits", *args], check=True, capture_output=True).stdout)["logits"])
    files, grey = [], []
    for i in range(20):
        picture = Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
        files.append(folder / f"{i}.png")
        picture.save(files[-1])
        grey.append(np.asarray(picture.convert("L"), np.float32) / 255)
    np.save(folder / "grey.npy", np.array(grey))
    have, want = logits(*files), logits("--tensor", folder / "grey.npy")
    tally.see("pictures as Pillow's luma", "right" if np.abs(have - want).max() < 1e-5 else f"WRONG: {have - want}")


def pytorch():
    import onnxruntime
    import timm
    import torch
    import torchvision
    from onnxruntime import quantization
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)

    class Example(nn.Module):
        """pytorch/examples/mnist."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
            self.c, self.d = nn.Linear(9216, 128), nn.Linear(128, CLASSES)
            self.out = nn.Dropout(0.5)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.b(torch.relu(self.a(x)))), 2)
            return nn.functional.log_softmax(self.d(self.out(torch.relu(self.c(torch.flatten(x, 1))))), 1)

    class Normalized(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net((x - MEAN) / STD)

    def lenet():
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                             nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84),
                             nn.ReLU(), nn.Linear(84, CLASSES))

    def normed():
        net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten(), nn.Linear(32, CLASSES))
        for _ in range(20):
            net(torch.randn(16, 1, SIDE, SIDE))
        return net

    def resnet(net):
        """With statistics of a real pass."""
        net.train()
        with torch.no_grad():
            for _ in range(5):
                net(torch.randn(4, 1, 64, 64))
        return net.eval()

    nchw = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    file = folder / "net.onnx"

    def export(net, **options):
        torch.onnx.export(net.eval(), (nchw[:1],), file, input_names=["x"], output_names=["y"], verbose=False, **options)

    def session(file):
        session = onnxruntime.InferenceSession(file)
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: one[None]})[0] for one in nchw.numpy()])

    for name, net, options, kind in [
        ("LeNet", lenet(), dict(dynamo=False), "logits"),
        ("LeNet, torch.export", lenet(), dict(dynamo=True), "logits"),
        ("LeNet, opset 9", lenet(), dict(dynamo=False, opset_version=9), "logits"),
        ("the example of MNIST", Example(), dict(dynamo=False), "logsoftmax"),
        ("the same, torch.export", Example(), dict(dynamo=True), "logsoftmax"),
        ("batch-norms, open batch", normed(), dict(dynamo=False, dynamic_axes={"x": {0: "n"}}), "logits"),
        ("batch-norms, not folded", normed(), dict(dynamo=False, do_constant_folding=False), "logits"),
        ("a normalization inside", Normalized(lenet()), dict(dynamo=False), "logits"),
        ("softmax", nn.Sequential(lenet(), nn.Softmax(1)), dict(dynamo=False), "softmax"),
        ("ResNet-18 of torchvision", resnet(with_one_channel(torchvision.models.resnet18(num_classes=CLASSES), nn)),
         dict(dynamo=False), "logits"),
    ]:
        export(net, **options)
        tally.see(f"ONNX: {name}", outcome(file, x, session(file), kind, "none", 1e-3))
    luma(file)

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(torch.rand(32, 1, 1, SIDE, SIDE).numpy())

        def get_next(self):
            one = next(self.left, None)
            return None if one is None else {"x": one}

    export(normed(), dynamo=False)
    for way in [quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator]:
        int8 = folder / "int8.onnx"
        quantization.quantize_static(file, int8, Pictures(), quant_format=way, per_channel=True,
                                     activation_type=quantization.QuantType.QInt8)
        tally.see(f"ONNX: int8, {way.name}", outcome(int8, x, session(int8), tolerance=0.05))

    wide = np.asarray(random.random((2, 96, 96, 1)), np.float32)
    planes = torch.from_numpy(wide).permute(0, 3, 1, 2)
    nets = {"torchvision": with_one_channel(torchvision.models.resnet18(num_classes=CLASSES), nn),
            "timm": timm.create_model("resnet18", in_chans=1, num_classes=CLASSES),
            "timm, vd": timm.create_model("resnet18d", in_chans=1, num_classes=CLASSES)}
    for name, net in nets.items():
        with torch.no_grad():
            want = resnet(net)(planes).numpy()
        options = ["--input-size", "96"]
        torch.save(net.state_dict(), folder / "net.pth")
        tally.see(f"state dict: {name}", outcome(folder / "net.pth", wide, want, quantize="none", tolerance=1e-3,
                                                 options=options))
        save_file(net.state_dict(), folder / "net.safetensors")
        tally.see(f"safetensors: {name}", outcome(folder / "net.safetensors", wide, want, quantize="none",
                                                  tolerance=1e-3, options=options))
    config = {"architecture": "resnet18", "num_classes": CLASSES, "pretrained_cfg": {
        "input_size": [1, 96, 96], "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225]}}
    of_timm = folder / "resnet18.grey"
    of_timm.mkdir()
    with torch.no_grad():
        want = nets["timm"](planes).numpy()
    (of_timm / "config.json").write_text(json.dumps(config))
    save_file(nets["timm"].state_dict(), of_timm / "model.safetensors")
    tally.see("folder: timm", outcome(of_timm, wide, want, quantize="none", tolerance=1e-3))


def with_one_channel(net, nn):
    net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return net


def keras_and_tensorflow():
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(0)

    def cnn(*before, last="softmax"):
        return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *before, layers.Conv2D(32, 3, activation="relu"),
                                 layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
                                 layers.Flatten(), layers.Dropout(0.5), layers.Dense(CLASSES, activation=last)])

    def start(*first):
        """Of TensorFlow's tutorials, whose pictures have no dimension of channels."""
        return keras.Sequential([keras.Input((SIDE, SIDE)), *first, layers.Dense(CLASSES)])

    def tflite(net, like, types=None):
        converter = tf.lite.TFLiteConverter.from_keras_model(net)
        if types is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([random.random(like.shape, np.float32) * like.max()]
                                                        for _ in range(64))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type, converter.inference_output_type = types
        file = folder / "net.tflite"
        file.write_bytes(converter.convert())
        return file

    def lite(file, pictures):
        interpreter = tf.lite.Interpreter(str(file),
                                          experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF)
        interpreter.allocate_tensors()
        [into], [out] = interpreter.get_input_details(), interpreter.get_output_details()
        scores = []
        for picture in pictures:
            values = picture[None]
            if into["dtype"] != np.float32:
                scale, zero = into["quantization"]
                values = np.round(values / scale) + zero
            interpreter.set_tensor(into["index"], values.astype(into["dtype"]))
            interpreter.invoke()
            score = interpreter.get_tensor(out["index"])[0].astype(np.float32)
            if out["dtype"] != np.float32:
                scale, zero = out["quantization"]
                score = (score - zero) * scale
            scores.append(score)
        return np.array(scores)

    float32, int8, uint8 = tf.float32, tf.int8, tf.uint8
    for name, before, last, types in [
        ("float", [], "softmax", None),
        ("float, logits", [], None, None),
        ("float, Rescaling", [layers.Rescaling(1 / 255)], "softmax", None),
        ("int8", [], "softmax", (int8, int8)),
        ("int8, logits", [], None, (int8, int8)),
        ("int8, float ends", [], "softmax", (float32, float32)),
        ("int8, uint8 ends", [], "softmax", (uint8, uint8)),
        ("int8, Rescaling", [layers.Rescaling(1 / 255)], "softmax", (int8, int8)),
    ]:
        given = pixels if before else x
        file = tflite(cnn(*before, last=last), given[:1], types)
        kind = "softmax" if last else "logits"
        quantize, tolerance = ("none", 1e-3) if types is None else ("int8", 0.05)
        tally.see(f"TFLite: {name}", outcome(file, given, lite(file, given), kind, quantize, tolerance))

    for name, net in [
        ("Reshape", start(layers.Reshape((SIDE, SIDE, 1)), layers.Conv2D(12, 3, activation="relu"),
                          layers.MaxPooling2D(), layers.Flatten())),
        ("Flatten", start(layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2))),
    ]:
        for way, types in [("float", None), ("int8", (int8, int8)), ("uint8", (uint8, uint8))]:
            file = tflite(net, x[:1, ..., 0], types)
            quantize, tolerance = ("none", 1e-3) if types is None else ("int8", 0.05)
            tally.see(f"TFLite: {way}, no channels, {name}", outcome(file, x, lite(file, x[..., 0]), "logits", quantize,
                                                                     tolerance))
        want = net.predict(x[..., 0], verbose=0)
        net.export(str(folder / "net.onnx"), format="onnx", verbose=False)
        tally.see(f"ONNX: no channels, {name}", outcome(folder / "net.onnx", x, want, quantize="none", tolerance=1e-3))

    net = cnn()
    file = folder / "net.onnx"
    want = net.predict(x, verbose=0)
    net.export(str(file), format="onnx", verbose=False)
    tally.see("ONNX: Keras", outcome(file, x, want, "softmax", "none", 1e-3))
    net.save(folder / "cnn.keras")
    tally.see("Keras: as .keras", outcome(folder / "cnn.keras", x, want, "softmax", "none", 1e-3))

    def block(x, width, stride):
        y = layers.Conv2D(width, 3, stride, padding="same")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        x = layers.Conv2D(width, 1, stride, padding="same")(x) if stride > 1 else x
        return layers.ReLU()(layers.Add()([x, y]))

    start = keras.Input((32, 32, 1))
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(start)))
    y = block(block(block(y, 16, 1), 32, 2), 64, 2)
    resnet = keras.Model(start, layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(y)))
    given = random.random((4, 32, 32, 1), np.float32)
    want = resnet.predict(given, verbose=0)
    for ending in ["h5", "keras"]:
        resnet.save(folder / f"resnet.{ending}")
        tally.see(f"Keras: ResNet as .{ending}", outcome(folder / f"resnet.{ending}", given, want, "softmax", "none",
                                                         1e-3))
    import keras_hub
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 64], image_shape=(64, 64, 1),
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block")
    classifier = keras_hub.models.ResNetImageClassifier(backbone, num_classes=CLASSES)
    given = random.random((2, 64, 64, 1), np.float32)
    want = classifier.predict(given, verbose=0)
    classifier.save_to_preset(str(folder / "preset"))
    tally.see("KerasHub: preset", outcome(folder / "preset", given, want, quantize="none", tolerance=1e-3,
                                          options=["--input-size", "64"]))


try:
    import torch as _
except ImportError:
    keras_and_tensorflow()
else:
    pytorch()
sys.exit(tally.finish())

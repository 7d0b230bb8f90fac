#!/usr/bin/env python3
"""Models that other people's tools have quantized, in as many forms as those have options: what
`convert` makes of them computes what their own framework computes, or is refused by name.

    pip install torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy   # onnx, torch
    pip install tensorflow==2.21.0 tf2onnx numpy                                         # tensorflow
    cargo build --release
    tests/packages/quantized_forms.py onnx|torch|tensorflow [part of a name]

Networks are small, with random weights. Fails where a number is off by more than 5 % of the largest, or
a form is refused that is not listed as such here.
"""
import contextlib
import io as io_module
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from common import Tally, outcome

warnings.filterwarnings("ignore")
FAMILY, WANTED = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
FOLDER = Path(tempfile.mkdtemp())
TALLY = Tally()


def torch_net(relu=None, tail=None, head="linear", inside=False, pool="max"):
    """A ResNet of three blocks, as it is after training."""
    import torch
    from torch import nn

    relu = relu or nn.ReLU

    class Block(nn.Module):
        def __init__(self, c_in, c, stride):
            super().__init__()
            self.c1 = nn.Conv2d(c_in, c, 3, stride, 1, bias=False)
            self.b1, self.b2 = nn.BatchNorm2d(c), nn.BatchNorm2d(c)
            self.r1, self.r2 = relu(), relu()
            self.c2 = nn.Conv2d(c, c, 3, 1, 1, bias=False)
            self.down = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False), nn.BatchNorm2d(c)) \
                if stride > 1 else nn.Identity()
            self.add = nn.quantized.FloatFunctional()

        def forward(self, x):
            y = self.b2(self.c2(self.r1(self.b1(self.c1(x)))))
            return self.r2(self.add.add(y, self.down(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), relu())
            self.pool = nn.MaxPool2d(3, 2, 1) if pool == "max" else nn.AvgPool2d(2)
            self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
            self.mean = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Sequential(nn.Linear(64, 48), relu(), nn.Linear(48, 7)) if head == "mlp" \
                else nn.Conv2d(64, 7, 1) if head == "conv" else nn.Linear(64, 7)

        def forward(self, x):
            if inside:
                mean, std = torch.tensor([123.7, 116.3, 103.5]), torch.tensor([58.4, 57.1, 57.4])
                x = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
            x = self.mean(self.blocks(self.pool(self.stem(self.quant(x)))))
            x = self.dequant(self.head(x).flatten(1) if head == "conv" else self.head(x.flatten(1)))
            return tail(x) if tail else x

    torch.manual_seed(1)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(pictures(32, inside))
    return net.eval()


def pictures(count, raw=False):
    import torch

    torch.manual_seed(2)
    x = torch.nn.functional.interpolate(torch.randn(count, 3, 10, 10), 40, mode="bicubic")
    return (x * 50 + 120).clamp(0, 255).round() if raw else x


def export(net, raw=False, **options):
    import torch

    path = FOLDER / "float.onnx"
    options = {"dynamo": False, "opset_version": 17, **options}
    torch.onnx.export(net, (pictures(1, raw),), path, input_names=["x"], output_names=["y"],
                      verbose=False, **options)
    return path


def see_onnx(name, path, kind="logits", names=None, raw=False, tolerance=0.05, quantize="int8"):
    import onnxruntime as ort

    x = pictures(12, raw).numpy()[4:]
    settings = ort.SessionOptions()
    # As the file says, operator by operator.
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(path, settings)
        want = np.concatenate([session.run(None, {"x": x[i:i + 1]})[0] for i in range(len(x))])
    except Exception as error:
        if names is None:
            print(f"{name:44} not run by onnxruntime itself: {str(error)[:120]}")
            return
        want = np.zeros((len(x), 7))
    TALLY.see(name, outcome(path, x.transpose(0, 2, 3, 1), want, kind, quantize, tolerance), names)


def onnx_forms():
    import logging

    import onnx
    import onnxruntime as ort
    import torch
    from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat,
                                          QuantType, quantize_dynamic, quantize_static)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(3)
    s8, u8 = QuantType.QInt8, QuantType.QUInt8

    class Reader(CalibrationDataReader):
        def __init__(self, raw):
            self.left = iter([{"x": p[None].numpy()} for p in pictures(24, raw)])

        def get_next(self):
            return next(self.left, None)

    def static(path, out="q.onnx", raw=False, form="qdq", acts=u8, weights=s8, extra=None, **options):
        to = FOLDER / out
        form = QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator
        options = {"per_channel": True, **options}
        quantize_static(path, to, Reader(raw), quant_format=form, activation_type=acts,
                        weight_type=weights, extra_options=extra or {}, **options)
        return to

    def case(name, net=None, kind="logits", names=None, raw=False, after=None, opset=17, **options):
        if WANTED not in name:
            return
        path = export(net or torch_net(inside=raw), raw, opset_version=opset)
        path = static(path, raw=raw, **options)
        see_onnx(name, after(path) if after else path, kind, names, raw)

    def saved(level):
        def save(path):
            settings = ort.SessionOptions()
            settings.graph_optimization_level = level
            settings.optimized_model_filepath = str(FOLDER / "saved.onnx")
            ort.InferenceSession(path, settings)
            return FOLDER / "saved.onnx"
        return save

    def without_zero_points(path):
        model = onnx.load(path)
        zero = {t.name for t in model.graph.initializer
                if t.data_type == onnx.TensorProto.INT8 and not np.any(onnx.numpy_helper.to_array(t))}
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and len(node.input) > 2 and node.input[2] in zero:
                del node.input[2]
        onnx.save(model, path)
        return path

    level = ort.GraphOptimizationLevel
    softmax, log = torch.nn.Softmax(1), torch.nn.LogSoftmax(1)
    for form in ["qdq", "qop"]:
        for acts, weights in [(u8, s8), (u8, u8), (s8, s8)]:
            for each in [True, False]:
                case(f"{form} {acts.name} {weights.name} {'channel' if each else 'tensor'}", form=form,
                     acts=acts, weights=weights, per_channel=each)
        case(f"{form} softmax", torch_net(tail=softmax), "softmax", form=form)
        case(f"{form} log softmax", torch_net(tail=log), "logsoftmax", form=form)
        case(f"{form} softmax double", torch_net(tail=lambda y: softmax(y).double()), "softmax", form=form)
        case(f"{form} mlp head", torch_net(head="mlp"), form=form)
        case(f"{form} conv head, average pool", torch_net(head="conv", pool="average"), form=form)
        case(f"{form} reduce range", form=form, reduce_range=True)
        case(f"{form} normalizes inside", raw=True, form=form)
        case(f"{form} relu6", torch_net(relu=torch.nn.ReLU6), form=form)
        case(f"{form} exclude first", form=form, nodes_to_exclude=["/stem/stem.0/Conv"])
        case(f"{form} exclude last", form=form, nodes_to_exclude=["/head/Gemm"])
        case(f"{form} exclude middle", form=form, nodes_to_exclude=["/blocks/blocks.1/c1/Conv",
                                                                   "/blocks/blocks.1/c2/Conv"])
        case(f"{form} convolutions only", form=form, op_types_to_quantize=["Conv"])
        case(f"{form} entropy", form=form, calibrate_method=CalibrationMethod.Entropy)
        case(f"{form} percentile", form=form, calibrate_method=CalibrationMethod.Percentile)
        case(f"{form} saved extended", form=form, after=saved(level.ORT_ENABLE_EXTENDED))
        case(f"{form} saved all", form=form, after=saved(level.ORT_ENABLE_ALL))
        case(f"{form} saved all, softmax", torch_net(tail=softmax), "softmax", form=form,
             after=saved(level.ORT_ENABLE_ALL))
    for opset in [13, 15, 19, 21]:
        case(f"qdq opset {opset}", opset=opset)
    for option in ["ActivationSymmetric", "AddQDQPairToWeight", "DedicatedQDQPair", "UseQDQContribOps",
                   "QDQKeepRemovableActivations", "ForceQuantizeNoInputCheck"]:
        case(f"qdq {option}", extra={option: True})
    case("qdq weights not symmetric", acts=s8, extra={"WeightSymmetric": False}, per_channel=False)
    case("qdq float biases", extra={"QuantizeBias": False})
    case("qdq float logits", extra={"OpTypesToExcludeOutputQuantization": ["Gemm"]})
    case("qdq all pairs", acts=s8, extra={"DedicatedQDQPair": True, "AddQDQPairToWeight": True,
                                          "UseQDQContribOps": True, "ActivationSymmetric": True})
    case("qdq no zero points", acts=s8, after=without_zero_points, extra={"ActivationSymmetric": True})
    for acts in ["QInt16", "QUInt16"]:
        case(f"qdq {acts}", acts=QuantType[acts], names="int16; quantize it to 8 bits", opset=21)
    case("qdq int4 weights", weights=QuantType.QInt4, names="int4, which are not read", opset=21)
    case("qdq float8", acts=QuantType.QFLOAT8E4M3FN, weights=QuantType.QFLOAT8E4M3FN, names="float8",
         opset=19, per_channel=False, calibrate_method=CalibrationMethod.Distribution)
    if WANTED in "pre-processed":
        quant_pre_process(export(torch_net()), FOLDER / "pre.onnx")
        see_onnx("pre-processed", static(FOLDER / "pre.onnx"))
    if WANTED in "batch-norms not folded":
        path = export(torch_net(), training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
        see_onnx("batch-norms not folded", static(path))
    for word, how, names in [("extended", level.ORT_ENABLE_EXTENDED, None),
                             ("all", level.ORT_ENABLE_ALL, "ORT_ENABLE_EXTENDED")]:
        if WANTED in f"floats saved {word}":
            see_onnx(f"floats saved {word}", saved(how)(export(torch_net())), names=names,
                     tolerance=1e-3, quantize="none")
    if WANTED in "fp16 with float ends":
        from onnxruntime.transformers.float16 import convert_float_to_float16
        half = convert_float_to_float16(onnx.load(export(torch_net(), opset_version=19)), keep_io_types=True)
        onnx.save(half, FOLDER / "half.onnx")
        see_onnx("fp16 with float ends", FOLDER / "half.onnx", tolerance=0.01, quantize="none")
        see_onnx("fp16 with float ends, qdq", static(FOLDER / "half.onnx"))
    if WANTED in "dynamic":
        quantize_dynamic(export(torch_net()), FOLDER / "dynamic.onnx")
        see_onnx("dynamic", FOLDER / "dynamic.onnx", names="quantize_static")


def torch_forms():
    import torch
    from torch import nn
    from torch.ao import quantization as ao

    def learned(net):
        net.train()
        for i in range(4):
            net(pictures(16) * (1 + 0.05 * i))
        net.apply(ao.disable_observer)
        return net.eval()

    def see(name, net, kind="logits", names=None, floats=None, **options):
        if WANTED in name:
            with torch.no_grad():
                path, x = export(net, **options), pictures(12)[4:]
                rounded = net(x)
                if floats is None:
                    floats = net.apply(ao.disable_fake_quant)
                # Some of these networks are so far from their own floats that rounding a sum once
                # instead of twice makes a difference: both are as far from them.
                own = float((floats(x) - rounded).abs().max() / rounded.abs().max())
                see_onnx(name, path, kind, names, tolerance=max(0.05, 2 * own))

    def eager(backend, tail=None, fused=True, **options):
        net = torch_net(tail=tail, **options)
        if fused:
            pairs = [["stem.0", "stem.1", "stem.2"]]
            for i in range(3):
                pairs += [[f"blocks.{i}.c1", f"blocks.{i}.b1", f"blocks.{i}.r1"],
                          [f"blocks.{i}.c2", f"blocks.{i}.b2"]]
                pairs += [[f"blocks.{i}.down.0", f"blocks.{i}.down.1"]] if i else []
            net.train()
            net = ao.fuse_modules_qat(net, pairs)
        net.train()
        net.qconfig = ao.get_default_qat_qconfig(backend, version=0)
        net = learned(ao.prepare_qat(net))
        # Batch-norms of QAT modules are not folded by their export: convolutions take them up.
        return net

    def graph_mode(backend, tail=None, **options):
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
        mapping = ao.get_default_qat_qconfig_mapping(backend, version=0)
        net = torch_net(tail=tail, **options)
        return learned(prepare_qat_fx(net.train(), mapping, (pictures(1),)))

    def after_training(backend, **options):
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
        torch.backends.quantized.engine = backend
        net = prepare_fx(torch_net(**options), ao.get_default_qconfig_mapping(backend), (pictures(1),))
        net(pictures(24))
        return convert_fx(net)

    softmax = lambda y: torch.softmax(y, 1)
    for backend in ["x86", "qnnpack"]:
        for word, kind, options in [("linear", "logits", {}), ("mlp", "logits", {"head": "mlp"}),
                                    ("softmax", "softmax", {"tail": softmax})]:
            see(f"converted {backend}, {word}", after_training(backend, **options), kind,
                floats=torch_net(**options), opset_version=13)
    for backend in ["x86", "qnnpack", "fbgemm"]:
        for opset in [13, 17]:
            see(f"eager QAT {backend}, opset {opset}", eager(backend), opset_version=opset)
        see(f"eager QAT {backend}, not fused", eager(backend, fused=False), opset_version=13)
        see(f"eager QAT {backend}, softmax", eager(backend, tail=softmax), "softmax", opset_version=13)
        see(f"graph QAT {backend}", graph_mode(backend), opset_version=13)
        see(f"graph QAT {backend}, mlp", graph_mode(backend, head="mlp"), opset_version=17)
        see(f"graph QAT {backend}, softmax", graph_mode(backend, tail=softmax), "softmax", opset_version=13)
    see("eager QAT x86, constants not folded", eager("x86"), opset_version=13, do_constant_folding=False)

    class Fake(nn.Module):
        """As TensorRT's toolkit does it: inputs per tensor, weights per channel, nothing behind."""

        def __init__(self, layer, inputs):
            super().__init__()
            self.layer, self.inputs, self.largest = layer, inputs, 0.0
            self.register_buffer("scale", layer.weight.detach().abs().flatten(1).amax(1) / 127)
            self.register_buffer("zero", torch.zeros(len(layer.weight), dtype=torch.int32))

        def forward(self, x):
            self.largest = max(self.largest, float(x.detach().abs().max())) if self.training else self.largest
            w = self.layer.weight
            if self.inputs and not self.training:
                x = torch.fake_quantize_per_tensor_affine(x, self.largest / 127, 0, -128, 127)
            w = torch.fake_quantize_per_channel_affine(w, self.scale, self.zero, 0, -128, 127)
            if isinstance(self.layer, nn.Linear):
                return nn.functional.linear(x, w, self.layer.bias)
            return nn.functional.conv2d(x, w, self.layer.bias, self.layer.stride, self.layer.padding)

    def tensorrt(inputs=True, but=(), fold=True):
        net = torch_net()
        if fold:
            for block in [m for m in net.modules() if hasattr(m, "c1")]:
                block.c1 = nn.utils.fuse_conv_bn_eval(block.c1, block.b1)
                block.c2 = nn.utils.fuse_conv_bn_eval(block.c2, block.b2)
                block.b1 = block.b2 = nn.Identity()
        for name, module in list(net.named_modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)) and name not in but:
                parent = net.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], Fake(module, inputs))
        net.train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        with torch.no_grad():
            net(pictures(24))
        return net.eval()

    for opset in [13, 17, 19]:
        see(f"TensorRT, opset {opset}", tensorrt(), opset_version=opset)
    see("TensorRT, batch-norms not folded", tensorrt(fold=False))
    see("TensorRT, first and last in floats", tensorrt(but=["stem.0", "head"]))
    see("TensorRT, open batch", tensorrt(), dynamic_axes={"x": {0: "n"}})
    for opset in [18, 21]:
        see(f"TensorRT, torch.export, opset {opset}", tensorrt(), dynamo=True, opset_version=opset)

    # Nothing but weights: ranges of activations are to be measured, or floats are kept.
    if WANTED in "weights only":
        path = export(tensorrt(inputs=False))
        see_onnx("weights only", path, names="--calibration")


def tensorflow_forms():
    import keras
    import tensorflow as tf
    from keras import layers as L

    rng = np.random.default_rng(3)

    def data(low, high):
        coarse = rng.random((32, 8, 8, 3)).astype(np.float32)
        return low + (high - low) * tf.image.resize(coarse, [32, 32]).numpy()

    def net(start=(), end="softmax", v2=False, pool=L.GlobalAveragePooling2D, relu="relu", pad=False, flat=False):
        keras.utils.set_random_seed(4)
        x = inputs = L.Input((32, 32, 3))
        for layer in start:
            x = layer(x)
        if pad:
            x = L.ZeroPadding2D(1)(x)
        x = L.Conv2D(16, 3, 1 if not pad else 2, "valid" if pad else "same")(x)
        x = L.MaxPooling2D(3, 2, "same")(L.Activation(relu)(L.BatchNormalization()(x)))
        for c, stride in [(16, 1), (24, 2), (32, 2)]:
            first = L.Activation(relu)(L.BatchNormalization()(x)) if v2 else x
            y = L.Conv2D(c, 3, stride, "same", use_bias=False)(first)
            y = L.Activation(relu)(L.BatchNormalization()(y))
            y = L.Conv2D(c, 3, 1, "same", use_bias=False)(y)
            y = y if v2 else L.BatchNormalization()(y)
            short = L.Conv2D(c, 1, stride, use_bias=False)(first) if stride > 1 else x
            x = L.Add()([y, short])
            x = x if v2 else L.Activation(relu)(x)
        x = L.Activation(relu)(L.BatchNormalization()(x)) if v2 else x
        x = L.Flatten()(x) if flat else pool()(x)
        x = L.Dense(7)(x)
        x = L.Softmax()(x) if end == "softmax" else x
        model = keras.Model(inputs, x)
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                gamma, beta, mean, variance = layer.get_weights()
                layer.set_weights([rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.2, gamma.shape),
                                   rng.normal(0, 0.2, gamma.shape), rng.uniform(0.3, 1.5, gamma.shape)])
        return model

    def case(name, model, span=(0, 1), io=None, kind="softmax", names=None, ops=("TFLITE_BUILTINS_INT8",),
             calibrate=True, each=True, quantize="int8", tolerance=0.05, via=None, without=None):
        if WANTED not in name:
            return
        x = data(*span)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if calibrate:
            converter.representative_dataset = lambda: ([p[None]] for p in x)
        converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, op) for op in ops]
        if io:
            converter.inference_input_type = converter.inference_output_type = io
        if not each:
            converter._experimental_disable_per_channel = True
        if quantize == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        path = FOLDER / "model.tflite"
        with contextlib.redirect_stdout(io_module.StringIO()):
            if without:
                debug = tf.lite.experimental
                converter._experimental_new_quantizer = True
                debugger = debug.QuantizationDebugger(
                    converter=converter, debug_dataset=converter.representative_dataset,
                    debug_options=debug.QuantizationDebugOptions(**without))
                path.write_bytes(debugger.get_nondebug_quantized_model())
            else:
                path.write_bytes(converter.convert())
        session = tf.lite.Interpreter(str(path), experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF)
        session.allocate_tensors()
        [i], [o] = session.get_input_details(), session.get_output_details()
        want = []
        for picture in x[:8]:
            picture = picture[None]
            if i["dtype"] != np.float32:
                scale, zero = i["quantization"]
                limits = np.iinfo(i["dtype"])
                picture = np.clip(np.round(picture / scale + zero), limits.min, limits.max)
            session.set_tensor(i["index"], picture.astype(i["dtype"]))
            session.invoke()
            y = session.get_tensor(o["index"])[0].astype(np.float32)
            if o["dtype"] != np.float32:
                scale, zero = o["quantization"]
                y = (y - zero) * scale
            want.append(y)
        if via:
            path = via(path)
        TALLY.see(name, outcome(path, x[:8], np.array(want), kind, quantize, tolerance), names)

    ends = {"float": None, "int8": tf.int8, "uint8": tf.uint8}
    for end, io in ends.items():
        case(f"{end} ends", net(), io=io)
        case(f"{end} ends, logits", net(end="logits"), io=io, kind="logits")
        case(f"{end} ends, Rescaling", net([L.Rescaling(1 / 127.5, -1)]), (0, 255), io)
        case(f"{end} ends, Normalization", net([L.Normalization(mean=[120., 115, 100], variance=[3400., 3300, 3300])]),
             (0, 255), io)
        case(f"{end} ends, −1 to 1", net(), (-1, 1), io)
        case(f"{end} ends, per tensor", net(), io=io, each=False)
        case(f"{end} ends, pre-activation", net(v2=True), io=io)
    case("maximum, padded", net(pool=L.GlobalMaxPooling2D, pad=True))
    case("flattened", net(flat=True))
    case("relu6", net(relu="relu6"))
    for what, options in {"dense layers": dict(denylisted_ops=["FULLY_CONNECTED"]),
                          "convolutions": dict(denylisted_ops=["CONV_2D"]),
                          "sums and means": dict(denylisted_ops=["ADD", "MEAN"])}.items():
        case(f"{what} in floats", net(), without=options)
    case("int16 with int8 weights", net(), ops=["EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"],
         names="int16")
    case("weights only", net(), calibrate=False, quantize="none", tolerance=0.06, ops=["TFLITE_BUILTINS"])
    case("weights only, to int8", net(), calibrate=False, names="--calibration", ops=["TFLITE_BUILTINS"])
    case("fp16", net(), calibrate=False, quantize="fp16", tolerance=0.01, ops=["TFLITE_BUILTINS"])

    def tf2onnx(path):
        import subprocess
        to = FOLDER / "from_tflite.onnx"
        subprocess.run([sys.executable, "-m", "tf2onnx.convert", "--tflite", path, "--output", to, "--opset", "13"],
                       check=True, capture_output=True)
        return to

    case("tf2onnx, float ends", net(), via=tf2onnx)
    case("tf2onnx, Rescaling", net([L.Rescaling(1 / 127.5, -1)]), (0, 255), via=tf2onnx)


{"onnx": onnx_forms, "torch": torch_forms, "tensorflow": tensorflow_forms}[FAMILY]()
sys.exit(TALLY.finish())

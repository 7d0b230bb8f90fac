#!/usr/bin/env python3
"""Small classifiers in the many forms in which PyTorch and others write ONNX: heads, borders, pools,
shortcuts, normalizations, outputs, versions. Each is compared with onnxruntime on the source file, or
must be refused with a message that names what is not read.

    pip install torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy
    cargo build --release && tests/packages/onnx_forms.py [PART OF A NAME…]

Prints a line for each form, and the counts; fails where a number is wrong (above 1e-3 of the largest;
5e-3 for numbers of 16 bits), or where something is refused that should be read.
"""
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import common
from common import BIN, attempt, difference, logits

warnings.filterwarnings("ignore")
CLASSES, SIDE = 7, 40


def randomize(net):
    return common.randomize(net, SIDE)


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride, shortcut=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(c_in, c_out, 3, stride, 1), nn.Conv2d(c_out, c_out, 3, 1, 1)
        self.na, self.nb = nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)
        self.shortcut = shortcut or (nn.Identity() if (c_in, stride) == (c_out, 1) else
                                     nn.Conv2d(c_in, c_out, 1, stride))

    def forward(self, x):
        return F.relu(self.nb(self.b(F.relu(self.na(self.a(x))))) + self.shortcut(x))


class Net(nn.Module):
    """A small ResNet, parts of which are given."""

    def __init__(self, head=None, pool=None, pad=None, shortcut=None, before=None, stem=None):
        super().__init__()
        self.before = before or nn.Identity()
        self.pad = pad or nn.Identity()
        self.stem = stem or nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = pool or nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2, shortcut))
        self.head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))

    def features(self, x):
        return self.blocks(self.pool(self.stem(self.pad(self.before(x)))))

    def forward(self, x):
        return self.head(self.features(x))


class Do(nn.Module):
    """A function as a module, with the modules that it uses."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def linear(c=32, classes=CLASSES):
    return nn.Linear(c, classes)


HEADS = {
    "mean of both": lambda: Do(lambda s, x: s.fc(x.mean([2, 3])), fc=linear()),
    "mean 3, mean 2": lambda: Do(lambda s, x: s.fc(x.mean(3).mean(2)), fc=linear()),
    "mean 2, mean 2": lambda: Do(lambda s, x: s.fc(x.mean(2).mean(2)), fc=linear()),
    "mean kept": lambda: Do(lambda s, x: s.fc(x.mean((-2, -1), keepdim=True).flatten(1)), fc=linear()),
    "mean of flat": lambda: Do(lambda s, x: s.fc(x.flatten(2).mean(-1)), fc=linear()),
    "mean of view": lambda: Do(lambda s, x: s.fc(x.view(x.size(0), x.size(1), -1).mean(2)), fc=linear()),
    "max of both": lambda: Do(lambda s, x: s.fc(x.amax([2, 3])), fc=linear()),
    "sum": lambda: Do(lambda s, x: s.fc(x.sum([2, 3]) / 25), fc=linear()),
    "squeeze": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1).squeeze()), fc=linear()),
    "squeeze 3, 2": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2)), fc=linear()),
    "squeeze -1, -1": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)), fc=linear()),
    "index": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]), fc=linear()),
    "view": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)), fc=linear()),
    "view of channels": lambda: Do(lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1).view(-1, 32)), fc=linear()),
    "average by size": lambda: Do(lambda s, x: s.fc(F.avg_pool2d(x, x.size()[2:]).flatten(1)), fc=linear()),
    "a convolution": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, CLASSES, 1), nn.Flatten()),
    "a convolution, squeezed": lambda: Do(
        lambda s, x: s.fc(F.adaptive_avg_pool2d(x, 1)).squeeze(-1).squeeze(-1), fc=nn.Conv2d(32, CLASSES, 1)),
    "convolution, then pool": lambda: nn.Sequential(nn.Conv2d(32, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "NHWC dense, then mean": lambda: Do(lambda s, x: s.fc(x.permute(0, 2, 3, 1)).mean([1, 2]), fc=linear()),
    "NHWC mean, then dense": lambda: Do(lambda s, x: s.fc(x.permute(0, 2, 3, 1).mean([1, 2])), fc=linear()),
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32 * 25, CLASSES)),
    "flat NHWC": lambda: Do(lambda s, x: s.fc(x.permute(0, 2, 3, 1).flatten(1)), fc=linear(32 * 25)),
    "flat of rows last": lambda: Do(lambda s, x: s.fc(x.permute(0, 3, 1, 2).reshape(x.size(0), -1)), fc=linear(32 * 25)),
    "dropout": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), linear()),
    "layers": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(32, 24), nn.BatchNorm1d(24),
                                    nn.ReLU(), nn.Dropout(), linear(24)),
    "fastai": lambda: nn.Sequential(
        Do(lambda s, x: torch.cat([F.adaptive_max_pool2d(x, 1), F.adaptive_avg_pool2d(x, 1)], 1)), nn.Flatten(),
        nn.BatchNorm1d(64), nn.Dropout(0.25), nn.Linear(64, 20, bias=False), nn.ReLU(), nn.BatchNorm1d(20), linear(20)),
    "average plus maximum": lambda: Do(lambda s, x: s.fc(
        (0.5 * (F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1))).flatten(1)), fc=linear()),
    "temperature": lambda: Do(lambda s, x: s.fc(x.mean([2, 3])) / 2.5, fc=linear()),
    "part of the scores": lambda: Do(lambda s, x: s.fc(x.mean([2, 3]))[:, 1:6], fc=linear()),
    "without bias": lambda: Do(lambda s, x: s.fc(x.mean([2, 3])), fc=nn.Linear(32, CLASSES, bias=False)),
    "matmul": lambda: Do(lambda s, x: x.mean([2, 3]) @ s.fc.weight.t() + s.fc.bias, fc=linear()),
    "reduced by 49": lambda: Do(lambda s, x: s.fc(F.avg_pool2d(x, 5).reshape(-1, 32)), fc=linear()),
}
TAILS = {
    "softmax": (lambda y: y.softmax(-1), "softmax"),
    "softmax 1": (lambda y: F.softmax(y, 1), "softmax"),
    "log_softmax": (lambda y: F.log_softmax(y, 1), "logsoftmax"),
    "log of softmax": (lambda y: y.softmax(1).log(), "logsoftmax"),
    "softmax, double": (lambda y: y.softmax(1).double(), "softmax"),
    "softmax, half": (lambda y: y.softmax(1).half().float(), "softmax"),
    "softmax, squeezed": (lambda y: y.softmax(1)[0], "softmax"),
    "softmax, unsqueezed": (lambda y: y.softmax(1).unsqueeze(-1).unsqueeze(-1), "softmax"),
    "softmax in double": (lambda y: y.double().softmax(1).float(), "softmax"),
    "softmax of ten times": (lambda y: (y * 10).softmax(1), "softmax"),
    "softmax with zeros around": (lambda y: y.unsqueeze(1).softmax(2).squeeze(1), "softmax"),
}
PADS = {
    "ZeroPad2d, one side": nn.ZeroPad2d((0, 1, 0, 1)),
    "ZeroPad2d, uneven": nn.ZeroPad2d((3, 1, 2, 0)),
    "F.pad": Do(lambda s, x: F.pad(x, (1, 2, 2, 1))),
    "F.pad twice": Do(lambda s, x: F.pad(F.pad(x, (1, 0)), (0, 1, 2, 0))),
    "F.pad of four dimensions": Do(lambda s, x: F.pad(x, (1, 1, 1, 1, 0, 0, 0, 0))),
    "as TensorFlow pads": Do(lambda s, x: F.pad(x, [(2 * ((x.shape[-1] + 1) // 2) - x.shape[-1] + 3) // 2, 1, 2, 1])),
}
POOLS = {
    "ZeroPad2d, max": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
    "-inf pad, max": nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), nn.MaxPool2d(3, 2)),
    "ZeroPad2d, average": nn.Sequential(nn.ZeroPad2d((1, 1, 1, 0)), nn.AvgPool2d(3, 2)),
    "average, counted, ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=True),
    "average, not counted, ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average 2, ceil": nn.AvgPool2d(2, 2, ceil_mode=True),
    "average 4, stride 3, ceil": nn.AvgPool2d(4, 3, 1, ceil_mode=True),
    "max, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max 2, ceil, border": nn.MaxPool2d(2, 2, 1, ceil_mode=True),
    "max 5, stride 3, border, ceil": nn.MaxPool2d(5, 3, 2, ceil_mode=True),
    "Lp": nn.LPPool2d(2, 3, 2),
    "of every second": Do(lambda s, x: x[:, :, ::2, ::2]),
    "adaptive 5": nn.AdaptiveAvgPool2d(5),
    "average, divisor": nn.AvgPool2d(3, 2, divisor_override=5),
}
SHORTCUTS = {
    "option A": Do(lambda s, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))),
    "option A behind": Do(lambda s, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 16))),
    "option A, average": Do(lambda s, x: F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 8, 8))),
    "option A, average of one": Do(lambda s, x: F.pad(F.avg_pool2d(x, 1, 2), (0, 0, 0, 0, 8, 8))),
    "option A, zeros joined": Do(lambda s, x: torch.cat(
        [F.avg_pool2d(x, 1, 2), torch.zeros(1, 16, 5, 5)], 1)),
    "option A, new zeros": Do(lambda s, x: torch.cat(
        [x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)),
    "option A, times zero": Do(lambda s, x: (lambda y: torch.cat([y, y.mul(0)], 1))(F.avg_pool2d(x, 1, 2))),
    "option A, pad of all": Do(lambda s, x: F.pad(F.max_pool2d(x, 1, 2), [0, 0, 0, 0, 16, 0, 0, 0])),
    "pool and convolution": nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 32, 1)),
    "pool with ceil and convolution": nn.Sequential(
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(16, 32, 1)),
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CAFFE = torch.tensor([103.939, 116.779, 123.68])


def nchw(x):
    return x.permute(0, 3, 1, 2)


def per_channel(x):
    return x.view(1, 3, 1, 1)


# Name: what comes before the network; whether the input is NHWC; its numbers; options of `convert`.
BEFORE = {
    "caffe, gather": (lambda s, x: nchw(x[..., [2, 1, 0]] - CAFFE), "nhwc", "raw"),
    "caffe, flip": (lambda s, x: nchw(x.flip(-1) - CAFFE), "nhwc", "raw"),
    "caffe, NCHW index": (lambda s, x: x[:, [2, 1, 0]] - per_channel(CAFFE), "nchw", "raw"),
    "caffe, NCHW flip": (lambda s, x: x.flip(1) - per_channel(CAFFE), "nchw", "raw"),
    "caffe, split and joined": (lambda s, x: torch.cat(x.split(1, 1)[::-1], 1) - per_channel(CAFFE), "nchw", "raw"),
    "caffe, chunks": (lambda s, x: torch.cat(x.chunk(3, dim=1)[::-1], 1) - per_channel(CAFFE), "nchw", "raw"),
    "caffe, slices joined": (lambda s, x: torch.cat(
        [x[:, 2:3] - 103.939, x[:, 1:2] - 116.779, x[:, 0:1] - 123.68], 1), "nchw", "raw"),
    "caffe, stacked": (lambda s, x: torch.stack([x[:, 2], x[:, 1], x[:, 0]], 1) - per_channel(CAFFE), "nchw", "raw"),
    "caffe, means first": (lambda s, x: (x - per_channel(CAFFE.flip(0)))[:, [2, 1, 0]], "nchw", "raw"),
    "caffe, index_select": (lambda s, x: x.index_select(1, torch.tensor([2, 1, 0])) - per_channel(CAFFE), "nchw", "raw"),
    "transform_input": (lambda s, x: torch.cat([
        x[:, i].unsqueeze(1) * (STD[i] / 0.5) + (MEAN[i] - 0.5) / 0.5 for i in range(3)], 1), "nchw", "normal"),
    "tf": (lambda s, x: x / 127.5 - 1, "nchw", "raw"),
    "tf, NHWC": (lambda s, x: nchw(x / 127.5 - 1), "nhwc", "raw"),
    "tf, times and plus": (lambda s, x: x * (1 / 127.5) + -1.0, "nchw", "raw"),
    "torch": (lambda s, x: (x / 255 - per_channel(MEAN)) / per_channel(STD), "nchw", "raw"),
    "torch, NHWC": (lambda s, x: nchw((x / 255 - MEAN) / STD), "nhwc", "raw"),
    "torch, one product": (lambda s, x: x * per_channel(1 / (255 * STD)) - per_channel(MEAN / STD), "nchw", "raw"),
    "torch, mean of 255": (lambda s, x: (x - per_channel(MEAN * 255)) / per_channel(STD * 255), "nchw", "raw"),
    "unit": (lambda s, x: (x - per_channel(MEAN)) / per_channel(STD), "nchw", "unit"),
    "unit to ±1": (lambda s, x: x * 2 - 1, "nchw", "unit"),
    "unit, reversed": (lambda s, x: (x[:, [2, 1, 0]] - 0.5) * 4, "nchw", "unit"),
    "bytes, NHWC": (lambda s, x: nchw(x).float() / 255, "nhwc", "uint8"),
    "bytes, NCHW": (lambda s, x: (x.float() / 255 - per_channel(MEAN)) / per_channel(STD), "nchw", "uint8"),
    "bytes, to 32 bits first": (lambda s, x: nchw(x.int().float() - 127.5) / 64, "nhwc", "uint8"),
    "bytes, reversed": (lambda s, x: nchw(x.flip(-1).float() - CAFFE), "nhwc", "uint8"),
    "bytes, a picture alone": (lambda s, x: nchw(x.unsqueeze(0)).float() / 255, "hwc", "uint8"),
    "floats, a picture alone": (lambda s, x: x.unsqueeze(0) / 127.5 - 1, "chw", "raw"),
    "padded behind the normalization": (lambda s, x: F.pad(x / 127.5 - 1, (1, 1, 1, 1)), "nchw", "raw"),
}


class Outputs(nn.Module):
    def __init__(self, function, **modules):
        super().__init__()
        self.net, self.function = Net(), function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        features = self.net.features(x)
        pooled = features.mean([2, 3])
        return self.function(self, features, pooled, self.net.head(features))


# Name: outputs, names, which one is the scores' (None: asked for), options of `convert`.
OUTPUTS = {
    "embedding, logits": (lambda s, f, p, y: (p, y), ["embedding", "logits"], 1, []),
    "logits, embedding": (lambda s, f, p, y: (y, p), ["logits", "embedding"], 0, []),
    "without names": (lambda s, f, p, y: (p, y), ["out0", "out1"], 1, []),
    "map, logits": (lambda s, f, p, y: (f, y), ["output", "output2"], 1, []),
    "logits, map": (lambda s, f, p, y: (y, f), ["a", "b"], 0, []),
    "map, embedding, logits": (lambda s, f, p, y: (f, p, y), ["a", "b", "c"], 2, []),
    "embedding that is projected": (lambda s, f, p, y: (s.project(p), y), ["embedding", "logits"], 1, []),
    "embedding behind a ReLU": (lambda s, f, p, y: (y, s.project(p).relu()), ["a", "b"], 0, []),
    "normalized embedding": (lambda s, f, p, y: (F.normalize(p), y), ["a", "b"], 1, []),
    "logits, probabilities": (lambda s, f, p, y: (y, y.softmax(1)), ["a", "b"], 0, []),
    "probabilities, logits": (lambda s, f, p, y: (y.softmax(1), y), ["a", "b"], 1, []),
    "logits, the best": (lambda s, f, p, y: (y, y.argmax(1)), ["a", "b"], 0, []),
    "the best, logits": (lambda s, f, p, y: (y.argmax(1), y), ["a", "b"], 1, []),
    "confidence, logits": (lambda s, f, p, y: (y.softmax(1).amax(1), y), ["a", "b"], 1, []),
    "logits, five best": (lambda s, f, p, y: (y, *y.topk(3)), ["a", "b", "c"], 0, []),
    "two heads": (lambda s, f, p, y: (s.project(p), y), ["a", "b"], None, []),
    "two heads, named": (lambda s, f, p, y: (s.project(p), y), ["a", "b"], 1, ["--output-node", "b"]),
    "two heads, the other": (lambda s, f, p, y: (s.project(p), y), ["a", "b"], 0, ["--output-node", "a"]),
    "auxiliary head": (lambda s, f, p, y: (y, s.project(p)), ["logits", "aux_logits"], 0, []),
}
VERSIONS = [dict(dynamo=False, opset_version=v) for v in (9, 11, 13, 15, 18)]
VERSIONS += [dict(dynamo=True, opset_version=v) for v in (18, 20, 22, 24)]
VERSIONS += [dict(dynamo=False, opset_version=17, dynamic_axes={"x": {0: "n"}}),
             dict(dynamo=False, opset_version=17, dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}}),
             dict(dynamo=False, opset_version=17, do_constant_folding=False,
                  training=torch.onnx.TrainingMode.PRESERVE),
             dict(dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},))]
counts = {"right": 0, "refused": 0, "wrong": 0, "not exported": 0}


def probabilities(y, kind):
    y = y - y.max(-1, keepdims=True)
    y = y - np.log(np.exp(y).sum(-1, keepdims=True))
    return np.exp(y) if kind == "softmax" else y


def report(name, file, feed, have_x, output=0, kind="logits", options=(), refused=None, limit=1e-3, want=None):
    """Compares one file. `feed` is the file's input, `have_x` the same as NHWC; `refused`: a part of the
    message that is wanted instead."""
    if not any(part in name for part in sys.argv[1:] or [""]):
        return
    with tempfile.TemporaryDirectory() as folder:
        edge = Path(folder) / "net.edge"
        status, out, error = attempt(BIN / "convert", "--quantize", "none", file, "-o", edge, *options)
        if status:
            message = " ".join((error or out).split())
            message = message.split(": ", 2)[-1][:150]
            right = refused is not None and refused in (error or out)
            counts["refused" if right else "wrong"] += 1
            print(f"{name}: {'refused' if right else 'WRONG, refused'} ({status}): {message}", flush=True)
            return
        if want is None:
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            want = session.run(None, {session.get_inputs()[0].name: feed})[output]
        want = np.asarray(want, float).ravel()
        have = logits(edge, have_x, folder).ravel()
        if kind != "logits":
            have = probabilities(have, kind)
        error = difference(have, want) if have.shape == want.shape else float("inf")
        # What the importer was compared with, in a word.
        said = "compared" if "the source file in tract" in out else "not compared"
        right = refused is None and error <= limit
        counts["right" if right else "wrong"] += 1
        print(f"{name}: {'right' if right else 'WRONG'} {error:.1e}, source {said}"
              + ("" if refused is None else ", but was to be refused"), flush=True)


def export(net, x, folder, names=("y",), **options):
    file = Path(folder) / "net.onnx"
    options = dict(dynamo=False, opset_version=17) | options
    if options["dynamo"]:
        options.setdefault("external_data", False)
    torch.onnx.export(net, (x,), file, input_names=["x"], output_names=list(names), verbose=False, **options)
    return file


def picture(form="nchw", numbers="normal", side=SIDE):
    """An input of the network, and the same as NHWC."""
    shape = {"nchw": (1, 3, side, side), "nhwc": (1, side, side, 3), "chw": (3, side, side),
             "hwc": (side, side, 3)}[form]
    x = {"normal": lambda: torch.randn(shape), "raw": lambda: torch.rand(shape) * 255,
         "unit": lambda: torch.rand(shape),
         "uint8": lambda: torch.randint(0, 256, shape, dtype=torch.uint8)}[numbers]()
    nhwc = {"nchw": lambda: x.permute(0, 2, 3, 1), "nhwc": lambda: x, "chw": lambda: x.permute(1, 2, 0),
            "hwc": lambda: x}[form]()
    return x, np.ascontiguousarray(nhwc.numpy()).astype(np.float32)


def wanted(name, part):
    return any(p in f"{part} {name}" for p in sys.argv[1:] or [""])


def one(part, name, make, form="nchw", numbers="normal", side=SIDE, names=("y",), options=(), output=0,
        kind="logits", refused=None, limit=1e-3, by_torch=False, **versions):
    if not wanted(name, part):
        return
    torch.manual_seed(sum(map(ord, name)))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        net = make().eval()
        x, nhwc = picture(form, numbers, side)
        try:
            file = export(net, x, folder, names, **versions)
        except Exception as e:
            counts["not exported"] += 1
            print(f"{part} {name}: PyTorch does not export it: {' '.join(str(e).split())[:100]}", flush=True)
            return
        want = net(x).numpy() if by_torch else None
        report(f"{part} {name}", file, x.numpy(), nhwc, output, kind, options, refused, limit, want)


def forms():
    for name, head in HEADS.items():
        for dynamo in (False, True):
            one("head:", f"{name}{', torch.export' if dynamo else ''}", lambda: randomize(Net(head())).eval(),
                dynamo=dynamo, opset_version=18)
    one("head:", "squeeze, open batch", lambda: randomize(Net(HEADS["squeeze -1, -1"]())), dynamic_axes={"x": {0: "n"}})
    for name, (tail, kind) in TAILS.items():
        one("tail:", name, lambda: nn.Sequential(randomize(Net()), Do(lambda s, y: tail(y))), kind=kind)
    one("tail:", "softmax twice", lambda: nn.Sequential(randomize(Net()), Do(lambda s, y: y.softmax(1).softmax(1))),
        refused="computes with what a softmax gives")
    for name, pad in PADS.items():
        for dynamo in (False, True):
            one("pad:", f"{name}{', torch.export' if dynamo else ''}", lambda: randomize(Net(pad=pad)), dynamo=dynamo)
    for name, stem in [("dilated", [nn.Conv2d(3, 16, 3, 2, 2, dilation=2), nn.ReLU()]),
                       ("shuffled", [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.ChannelShuffle(4)])]:
        one("filter:", name, lambda: randomize(Net(stem=nn.Sequential(*stem))))
    one("pad:", "reflected", lambda: randomize(Net(pad=nn.ReflectionPad2d(2))), refused="pads by `reflect`")
    one("pad:", "cut", lambda: randomize(Net(pad=nn.ZeroPad2d(-2))), refused="pads [-2, -2]")
    refusals = {"Lp": "(Sign)"}
    for name, pool in POOLS.items():
        for side in (SIDE, 37):
            one("pool:", f"{name}, {side}", lambda: randomize(Net(pool=pool, head=HEADS["mean of both"]())), side=side,
                refused=refusals.get(name))
    for name, shortcut in SHORTCUTS.items():
        one("shortcut:", name, lambda: randomize_one(Net(shortcut=shortcut)))
        one("shortcut:", f"{name}, torch.export", lambda: randomize_one(Net(shortcut=shortcut)), dynamo=True)
    for name, (before, form, numbers) in BEFORE.items():
        make = lambda: nn.Sequential(Do(before), randomize(Net()))
        one("before:", name, make, form, numbers)
        one("before:", f"{name}, torch.export", make, form, numbers, dynamo=True)
    one("before:", "upside down", lambda: nn.Sequential(Do(lambda s, x: x.flip(2)), randomize(Net())),
        refused="takes a part of dimension 2")
    one("before:", "cut out", lambda: nn.Sequential(Do(lambda s, x: x[:, :, 2:-2, 2:-2]), randomize(Net())),
        refused="takes a part of dimension 2")
    for name, (function, names, output, options) in OUTPUTS.items():
        def make():
            randomize(Net())
            net = Outputs(function, project=linear(32, 9))
            randomize(net.net)
            return net
        one("outputs:", name, make, names=names, options=options, output=output or 0,
            kind="logits", refused="--output-node" if output is None else None)
    for options in VERSIONS:
        name = ", ".join(f"{k} {v}" for k, v in options.items() if k not in ("dynamic_shapes", "training"))
        open_sides = 2 in options.get("dynamic_axes", {}).get("x", {})
        one("version:", name, lambda: randomize(Net()), options=["--input-size", SIDE] if open_sides else [], **options)
    halves()
    reversed_channels()
    refused_by_name()
    random_pools()


def randomize_one(net):
    """As randomize, but of one picture, since some shortcuts are made for that."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def halves():
    """Numbers of 16 and 64 bits."""
    def half_inside():
        net = randomize(Net()).half()
        return Do(lambda s, x: s.net(x.half()).float(), net=net)

    def half_softmax():
        net = randomize(Net()).half()
        return Do(lambda s, x: s.net(x.half()).softmax(1).float(), net=net)

    def double_inside():
        net = randomize(Net()).double()
        return Do(lambda s, x: s.net(x.double()), net=net)

    one("numbers:", "16 bits inside", half_inside, limit=5e-3)
    one("numbers:", "16 bits inside, softmax", half_softmax, kind="softmax", limit=5e-3)
    # onnxruntime has no convolutions of 64 bits.
    one("numbers:", "64 bits inside", double_inside, by_torch=True)


def reversed_channels():
    """Networks that take BGR."""
    if not wanted("channels", "option:"):
        return
    for name, before, numbers in [("channels bgr", None, "normal"),
                                  ("channels bgr, with means", lambda s, x: x - per_channel(CAFFE), "raw")]:
        torch.manual_seed(3)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            net = randomize(Net())
            net = nn.Sequential(Do(before), net) if before else net
            x, nhwc = picture("nchw", numbers)
            file = export(net, x, folder)
            report(f"option: {name}", file, x.numpy(), nhwc[..., ::-1], options=["--channels", "bgr"])


def refused_by_name():
    def head(c=16):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, CLASSES))

    for name, net, what in [
        ("groups", nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=4), head()), "4 groups"),
        ("dilated", nn.Sequential(nn.Conv2d(3, 16, 3, dilation=9), head()), "dilated by"),
        ("ReLU6", nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU6(), head()), "ReLU6"),
        ("SiLU", nn.Sequential(nn.Conv2d(3, 16, 3), nn.SiLU(), head()), "Sigmoid"),
        ("joined maps", nn.Sequential(nn.Conv2d(3, 32, 3), Do(lambda s, x: torch.cat([x, x.relu()], 1)), head(64)),
         "joins maps side by side"),
        ("transposed convolution", nn.Sequential(nn.ConvTranspose2d(3, 16, 3), head()), "ConvTranspose"),
        ("group norm", nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16), head()), "not read"),
        ("a map as result", nn.Sequential(nn.Conv2d(3, 16, 3)), "no score for each class"),
    ]:
        one("refused:", name, lambda: net.eval(), refused=what)


def random_pools(count=60):
    """Pools of random sizes, strides, borders and rules, alone: what onnxruntime makes of them."""
    if not wanted("random", "pool:"):
        return
    rng = np.random.default_rng(7)
    done = 0
    while done < count:
        opset = int(rng.choice([11, 13, 17, 19, 22]))
        kind = str(rng.choice(["MaxPool", "AveragePool"]))
        filter_ = rng.integers(1, 5, 2)
        stride = rng.integers(1, 5, 2)
        pads = [int(rng.integers(0, filter_[i % 2])) for i in range(4)]
        sides = rng.integers(4, 12, 2)
        attributes = dict(kernel_shape=filter_.tolist(), strides=stride.tolist(), ceil_mode=int(rng.integers(0, 2)))
        if rng.random() < 0.25:
            attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
            attributes["ceil_mode"] = 0
        else:
            attributes["pads"] = pads
        if kind == "AveragePool":
            attributes["count_include_pad"] = int(rng.integers(0, 2))
        x = rng.standard_normal((1, 3, *sides)).astype(np.float32)
        pool = helper.make_node(kind, ["x"], ["p"], **attributes)
        try:
            size = session_of(model_of([pool], "p", x, opset)).run(None, {"x": x})[0].size
            weights = rng.standard_normal((size, size)).astype(np.float32)
            nodes = [pool, helper.make_node("Flatten", ["p"], ["f"]),
                     helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
            model = model_of(nodes, "y", x, opset, weights)
            session_of(model)
        except Exception:
            # Sizes that onnxruntime does not take, or that it infers in another way than it computes.
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "net.onnx"
            onnx.save(model, file)
            text = ", ".join(f"{k} {v}" for k, v in attributes.items())
            report(f"pool: random {done}, {kind}, {sides.tolist()}, opset {opset}, {text}", file, x, np.moveaxis(x, 1, -1))
        done += 1


def model_of(nodes, output, x, opset, weights=None):
    constants = [] if weights is None else [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


onnxruntime.set_default_logger_severity(4)
forms()
print(", ".join(f"{n} {what}" for what, n in counts.items()))
sys.exit(counts["wrong"] > 0)

#!/usr/bin/env python3
"""Networks as people bring them from PyTorch's packages, with random weights and batch-norm statistics: variants, wrappers,
checkpoints, heads, folders. Each is to compute here what it computes there, or to be refused by name with a remedy.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.30 transformers safetensors numpy onnx
    cargo build --release && tests/packages/torch_forms.py [PART OF A NAME...]
"""
import argparse
import collections
import copy
import datetime
import enum
import pathlib
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers
from common import Tally, outcome, randomize
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
SIDE = 64
tally = Tally()
wanted_parts = sys.argv[1:]


def case(name, make, save, *options, refusal=None, side=SIDE, forward=lambda net, x: net(x)):
    """`save(net, folder)` writes the network that `make()` makes, and returns what to convert."""
    if wanted_parts and not any(part in name for part in wanted_parts):
        return
    torch.manual_seed(0)
    net = randomize(make(), side)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        want = forward(net, x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        model = save(net, Path(folder))
        inputs = x.permute(0, 2, 3, 1).numpy()
        size = [] if "--input-size" in options else ["--input-size", side]
        found = outcome(model, inputs, want, quantize="none", tolerance=1e-3, options=[str(o) for o in (*size, *options)])
    # What is to be refused must not be taken for something else.
    tally.see(name, f"WRONG: {found}" if refusal and not found.startswith("refused") else found, refusal)


def as_pth(name="net.pth", wrap=lambda state: state, **how):
    def save(net, folder):
        torch.save(wrap(net.state_dict()), folder / name, **how)
        return folder / name
    return save


def as_safetensors(name="net.safetensors"):
    def save(net, folder):
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / name)
        return folder / name
    return save


def as_timm_folder(architecture, weights="model.safetensors", **more):
    import json

    def save(net, folder):
        state = {k: v.contiguous() for k, v in net.state_dict().items()}
        if weights.endswith("safetensors"):
            save_file(state, folder / weights)
        else:
            torch.save(state, folder / weights)
        config = {"architecture": architecture, "num_classes": net.num_classes, "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "crop_pct": 0.95,
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, **more}
        (folder / "config.json").write_text(json.dumps(config))
        return folder
    return save


# --- Variants of torchvision and timm, as state dicts -----------------------------------------------------------------
for name in ["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "wide_resnet101_2"]:
    case(f"torchvision {name}", lambda: getattr(torchvision.models, name)(num_classes=7), as_pth())
case("torchvision resnext50_32x4d", lambda: torchvision.models.resnext50_32x4d(num_classes=7), as_pth(),
     refusal=["ResNeXt", "choose"])
PLAIN = ["resnet10t", "resnet14t", "resnet18d", "resnet26", "resnet26t", "resnet26d", "resnet50c", "resnet50d", "resnet50s",
         "resnet50t", "resnet101c", "wide_resnet50_2", "resnetv2_18", "resnetv2_34", "resnetv2_50"]
for name in PLAIN:
    case(f"timm {name}", lambda: timm.create_model(name, num_classes=7), as_safetensors())
    case(f"timm folder {name}", lambda: timm.create_model(name, num_classes=7), as_timm_folder(name))
OTHERS = {"test_resnet": ["resnet"], "resnetblur18": ["anti-aliased"], "resnetblur50": ["anti-aliased"], "resnetaa50": ["anti-aliased"],
          "resnetaa34d": ["anti-aliased"], "seresnetaa50d": ["anti-aliased"], "seresnet18": ["squeeze-and-excitation", "choose"],
          "ecaresnet26t": ["squeeze-and-excitation", "choose"], "resnet50_gn": ["no running statistics"],
          "seresnext26d_32x4d": ["squeeze-and-excitation"], "resnetrs50": ["squeeze-and-excitation"], "resnetv2_50d": ["ONNX"],
          "resnetv2_50x1_bit": ["no running statistics"], "res2net50_26w_4s": ["ResNet"], "skresnet18": ["ResNet"],
          "resnest14d": ["ResNet"], "vgg11_bn": ["ONNX"], "vit_tiny_patch16_224": ["ONNX"]}
for name, refusal in OTHERS.items():
    side = 224 if name.startswith("vit") else SIDE
    make = lambda: timm.create_model(name, num_classes=7)
    case(f"timm {name}", make, as_safetensors(f"{name}.safetensors"), refusal=refusal, side=side)
    if name not in ("vgg11_bn",):
        case(f"timm folder {name}", make, as_timm_folder(name), refusal=["config.json", name], side=side)
case("timm folder, .bin", lambda: timm.create_model("resnet18", num_classes=7), as_timm_folder("resnet18", "pytorch_model.bin"))
case("timm folder, max pool", lambda: timm.create_model("resnet18", num_classes=7, global_pool="max"),
     as_timm_folder("resnet18", global_pool="max"))
case("timm folder, catavgmax", lambda: timm.create_model("resnet18", num_classes=7, global_pool="catavgmax"),
     as_timm_folder("resnet18", global_pool="catavgmax"), refusal=["catavgmax", "avg or max"])
case("timm folder, dilated", lambda: timm.create_model("resnet18", num_classes=7, output_stride=8),
     as_timm_folder("resnet18", model_args={"output_stride": 8}), refusal=["output_stride", "ONNX"])


# --- What tensors do not tell ------------------------------------------------------------------------------------------
def changed(change, base="resnet18", classes=7):
    def make():
        net = getattr(torchvision.models, base)(num_classes=classes)
        change(net)
        return net
    return make


def small_stem(net, pool):
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    if not pool:
        net.maxpool = nn.Identity()


def stride_first(net):
    for module in net.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck) and module.conv2.stride == (2, 2):
            module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)


def last_stride(net):
    net.layer4[0].conv1.stride = net.layer4[0].downsample[0].stride = (1, 1)


case("3×3 stem without pool", changed(lambda net: small_stem(net, False)), as_pth())
case("3×3 stem with pool", changed(lambda net: small_stem(net, True)), as_pth(), "--stem-pool")
case("3×3 stem with pool, =true", changed(lambda net: small_stem(net, True)), as_pth(), "--stem-pool=true")
case("7×7 stem without pool", changed(lambda net: setattr(net, "maxpool", nn.Identity())), as_pth(), "--stem-pool=false")
case("7×7 stem of stride 1", changed(lambda net: setattr(net.conv1, "stride", (1, 1))), as_pth(), "--stem-stride", 1)
case("bottlenecks that stride first", changed(stride_first, "resnet50"), as_pth(), "--bottleneck-stride", "1x1")
case("named caffe", changed(stride_first, "resnet50"), as_pth("resnet50_caffe.pth"), refusal=["--bottleneck-stride 1x1"])
case("last stride 1", changed(last_stride), as_pth(), "--stack-strides", "1,2,2,1")
case("named resnetblur50", changed(lambda net: None), as_pth("resnetblur50.pth"), refusal=["anti-aliased", "rename"])


class Blur(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("filt", torch.ones(64, 1, 3, 3) / 9)

    def forward(self, x):
        return F.conv2d(x, self.filt, stride=2, padding=1, groups=64)


case("blur with a buffer", changed(lambda net: setattr(net, "maxpool", Blur())), as_pth(), refusal=["blurring", "choose"])


class Cifar(nn.Module):
    """CIFAR ResNets: shortcuts that project, or option A."""

    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride, option):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
            self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
            self.shortcut, self.stride, self.pad = nn.Sequential(), stride, None
            if stride != 1 or c_in != c_out:
                if option == "A":
                    self.pad = (c_out - c_in) // 2
                else:
                    self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            if self.pad is not None:
                s = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
            else:
                s = self.shortcut(x)
            return F.relu(y + s)

    def __init__(self, blocks, widths, option):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        c_in = widths[0]
        for i, width in enumerate(widths):
            stack = []
            for j in range(blocks):
                stack.append(Cifar.Block(c_in, width, 2 if i and not j else 1, option))
                c_in = width
            setattr(self, f"layer{i + 1}", nn.Sequential(*stack))
        self.linear = nn.Linear(c_in, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for name in ["layer1", "layer2", "layer3", "layer4"]:
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return self.linear(x.mean((2, 3)))


case("kuangliu ResNet-18", lambda: Cifar(2, [64, 128, 256, 512], "B"), as_pth(), side=32)
case("akamaster ResNet-20", lambda: Cifar(3, [16, 32, 64], "A"), as_pth("resnet20.th"), side=32)
case("a wide CIFAR ResNet", lambda: Cifar(1, [32, 64, 128], "B"), as_pth("net.pth.tar"), side=32)

# --- Wrappers and prefixes --------------------------------------------------------------------------------------------
net18 = lambda: torchvision.models.resnet18(num_classes=7)
prefixed = lambda prefix: lambda state: {prefix + k: v for k, v in state.items()}
for key in ["state_dict", "model", "model_state_dict", "net", "weights", "params", "network", "model_ema", "state_dict_ema", "ema",
            "backbone", "generator"]:
    case(f"under {key}", net18, as_pth(wrap=lambda state: {"epoch": 3, key: state}))
case("nested wrappers", net18, as_pth(wrap=lambda state: {"checkpoint": {"state_dict": {"model": state}}, "epoch": 1}))
for prefix in ["module.", "_orig_mod.", "model.", "backbone.", "encoder_q.", "net.", "encoder.", "module._orig_mod.",
               "_orig_mod.module.model.", "model.backbone.", "state_dict.model.module.encoder."]:
    case(f"prefix {prefix}", net18, as_pth(wrap=prefixed(prefix)))
    case(f"prefix {prefix} in safetensors", net18,
         lambda net, folder: (save_file({prefix + k: v.contiguous() for k, v in net.state_dict().items()}, folder / "n.safetensors"),
                              folder / "n.safetensors")[1])


class Moco(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_q, self.encoder_k = net18(), net18()
        self.register_buffer("queue", torch.randn(128, 64))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        return self.encoder_q(x)


case("MoCo", Moco, as_pth(wrap=lambda state: {"state_dict": prefixed("module.")(state), "arch": "resnet18"}))
case("Lightning", net18, as_pth(wrap=lambda state: {
    "state_dict": {**prefixed("model.")(state), "criterion.weight": torch.ones(7), "metric.total": torch.tensor(1.0)},
    "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.1", "callbacks": {"ModelCheckpoint{'a': 1}": {"best": 1}}}))
case("EMA beside", net18, as_pth(wrap=lambda state: {"state_dict": state, "state_dict_ema": {k: v * 2 for k, v in state.items()}}))
case("EMA chosen", net18, as_pth(wrap=lambda state: {"state_dict": {k: v * 2 for k, v in state.items()}, "state_dict_ema": state}),
     "--state-dict", "state_dict_ema")
case("two networks", net18, as_pth(wrap=lambda state: {"net_a": state, "net_b": copy.deepcopy(state)}),
     refusal=["net_a", "net_b", "--state-dict"])
case("best is state_dict", net18, as_pth(wrap=lambda state: {"best": state, "state_dict": state}))


class Mode(enum.Enum):
    FAST = 1


class Meter:
    def __init__(self):
        self.values = [1.0, np.float32(2)]


class Parameters(dict):
    pass


def training(state, net=None):
    net = net18()
    net.load_state_dict(state)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(2, 3, SIDE, SIDE)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {"epoch": 7, "args": argparse.Namespace(data=pathlib.Path("/data"), lr=0.1, mode=Mode.FAST), "best": np.float64(0.5),
            "loss": np.arange(4), "date": datetime.datetime.now(), "delta": datetime.timedelta(1), "set": {1, 2}, "frozen": frozenset("a"),
            "default": collections.defaultdict(list, a=[1]), "counter": collections.Counter("abca"), "deque": collections.deque([1]),
            "meter": Meter(), "bytes": b"123", "array": bytearray(b"1"), "complex": 1j, "big": 2**100, "type": torch.float16,
            "device": torch.device("cpu"), "size": torch.Size([1]), "rng": torch.get_rng_state(), "numpy_rng": np.random.get_state(),
            "bools": torch.ones(3, dtype=torch.bool), "shorts": torch.ones(3, dtype=torch.int16), "halves": torch.ones(3).half(),
            "complexes": torch.ones(3, dtype=torch.complex64), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
            "scaler": {"scale": 65536.0}, "parameters": Parameters(a=1), "state_dict": collections.OrderedDict(state)}


for how, kind in [({}, "zip"), ({"_use_new_zipfile_serialization": False}, "legacy")]:
    case(f"training checkpoint, {kind}", net18, as_pth("checkpoint.pth.tar", wrap=training, **how))
    for protocol in [2, 4, 5]:
        case(f"protocol {protocol}, {kind}", net18, as_pth("n.pth", wrap=training, pickle_protocol=protocol, **how))
    case(f"halves, {kind}", net18, as_pth(wrap=lambda state: {k: v.half() for k, v in state.items()}, **how),
         forward=lambda net, x: copy.deepcopy(net).half().float()(x))
    case(f"parameters, {kind}", net18, as_pth(wrap=lambda state: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()}, **how))
    case(f"in a class of its own, {kind}", net18, as_pth(wrap=lambda state: Parameters(state), **how))
    case(f"numpy arrays, {kind}", net18, as_pth(wrap=lambda state: {k: v.numpy() for k, v in state.items()}, **how),
         refusal=["numpy", "state_dict()"])
    case(f"whole module, {kind}", net18, lambda net, folder: (torch.save(net, folder / "m.pt", **how), folder / "m.pt")[1],
         refusal=["torchvision.models.resnet.ResNet", "state_dict()"])
    case(f"whole module in a dict, {kind}", net18,
         lambda net, folder: (torch.save({"model": net, "epoch": 1}, folder / "m.pt", **how), folder / "m.pt")[1],
         refusal=["torchvision.models.resnet.ResNet", "[\"model\"].state_dict()"])
case("double", lambda: net18(), as_pth(wrap=lambda state: {k: v.double() if v.is_floating_point() else v for k, v in state.items()}))
case("TorchScript", net18, lambda net, folder: (torch.jit.save(torch.jit.script(net), folder / "m.pt"), folder / "m.pt")[1],
     refusal=["TorchScript", "state_dict()"])
case("torch.export", net18,
     lambda net, folder: (torch.export.save(torch.export.export(net, (torch.randn(1, 3, SIDE, SIDE),)), folder / "m.pt2"), folder / "m.pt2")[1],
     refusal=["torch.export", "state_dict"])


# --- Heads --------------------------------------------------------------------------------------------------------------
def head(layers, name="fc"):
    def change(net):
        del net.fc
        setattr(net, "fc", layers())
    return changed(change)


case("head: Dropout, Linear", head(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 7))), as_pth())
case("head without bias", head(lambda: nn.Linear(512, 7, bias=False)), as_pth())
case("head: MLP", head(lambda: nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 7))), as_pth(),
     refusal=["head", "fine-tuning makes a new one", "ONNX"])
case("head: BatchNorm, Linear", head(lambda: nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 7))), as_pth(),
     refusal=["head", "fine-tuning makes a new one", "ONNX"])
case("head: Identity", head(nn.Identity), as_pth(), refusal=["backbone without a head", "fine-tune"])
case("timm num_classes=0", lambda: timm.create_model("resnet18", num_classes=0), as_pth(), refusal=["backbone without a head"])
case("timm v2 num_classes=0", lambda: timm.create_model("resnetv2_50", num_classes=0), as_pth(), refusal=["backbone without a head"])


class Own(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.backbone, self.name = timm.create_model("resnet18", num_classes=0), name
        setattr(self, name, nn.Linear(512, 7))

    def forward(self, x):
        return getattr(self, self.name)(self.backbone(x))


for name in ["classifier", "head", "out"]:
    case(f"own head {name}", lambda: Own(name), as_pth())

class Children(nn.Module):
    """As many cut a ResNet: a Sequential of its children."""

    def __init__(self, key, behind=0):
        super().__init__()
        layers = list(net18().children())[:-1]
        setattr(self, key, nn.Sequential(*layers))
        self.key, self.fc = key, nn.Linear(512, 7)

    def forward(self, x):
        return self.fc(getattr(self, self.key)(x).flatten(1))


for key in ["features", "backbone", "resnet"]:
    case(f"children in {key}", lambda: Children(key), as_pth())
case("children with their head", lambda: nn.Sequential(*list(net18().children())[:-1], nn.Flatten(), nn.Linear(512, 7)), as_pth())
case("children as fastai", lambda: nn.Sequential(nn.Sequential(*list(net18().children())[:-2]), nn.Sequential(
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(512), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 7))), as_pth(),
     refusal=["head", "fine-tuning makes a new one"])


def renamed(pairs, net=net18):
    def wrap(state):
        out = {}
        for name, value in state.items():
            for before, after in pairs:
                name = name.replace(before, after, 1) if name.startswith(before) else name
            out[name] = value
        return out
    return wrap


def as_functions(state):
    """The names of weiaicunzai's pytorch-cifar100."""
    out = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] in ("conv1", "bn1"):
            name = f"conv1.{0 if parts[0] == 'conv1' else 1}.{parts[1]}"
        elif parts[0].startswith("layer"):
            stack, block, inner, *rest = int(parts[0][5:]) + 1, *parts[1:]
            if inner.startswith(("conv", "bn")):
                place = 3 * (int(inner[-1]) - 1) + inner.startswith("bn")
                name = f"conv{stack}_x.{block}.residual_function.{place}.{rest[0]}"
            else:
                name = f"conv{stack}_x.{block}.shortcut.{'.'.join(rest)}"
        out[name] = value
    return out


case("weiaicunzai ResNet-18", changed(lambda net: small_stem(net, False)), as_pth(wrap=as_functions))
case("weiaicunzai ResNet-50", changed(lambda net: small_stem(net, False), "resnet50"), as_pth(wrap=as_functions))
MM = [("conv1.", "stem."), ("bn1.", "stem.7."), ("fc.", "HEAD.")]
in_mm = lambda state: {"meta": {"mmcls_version": "1.0"}, "state_dict": {
    (f"head.{k}" if k.startswith("fc.") else "backbone." + renamed(MM)({k: 0}).popitem()[0]): v for k, v in state.items()}}
case("MMPretrain resnetv1d", lambda: timm.create_model("resnet50d", num_classes=7), as_pth(wrap=in_mm))
case("MMPretrain resnet", net18, as_pth(wrap=lambda state: {"state_dict": {
    ("head." if k.startswith("fc") else "backbone.") + k: v for k, v in state.items()}}))

# --- transformers ------------------------------------------------------------------------------------------------------
R = transformers.ResNetConfig
common = dict(num_labels=7, depths=[1, 2, 1, 1], embedding_size=16, hidden_sizes=[32, 64, 128, 256])
basic = dict(num_labels=7, layer_type="basic", depths=[2, 1, 1, 1], embedding_size=16, hidden_sizes=[16, 32, 64, 128])
FORMS = {"bottleneck": common, "basic": basic, "downsample_in_bottleneck": dict(common, downsample_in_bottleneck=True),
         "downsample_in_first_stage": dict(common, downsample_in_first_stage=True), "basic, wider": dict(basic, embedding_size=8),
         "basic, first stage": dict(basic, downsample_in_first_stage=True),
         "labels": dict(common, id2label={i: f"class {i}" for i in range(7)}, label2id={f"class {i}": i for i in range(7)})}


def as_pretrained(safe=True, processor=True):
    def save(net, folder):
        net.save_pretrained(folder, safe_serialization=True)
        if not safe:
            (folder / "model.safetensors").unlink()
            torch.save(net.state_dict(), folder / "pytorch_model.bin")
        if processor:
            transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE}).save_pretrained(folder)
        return folder
    return save


answer = lambda net, x: net(x).logits
for form, arguments in FORMS.items():
    case(f"transformers {form}", lambda: transformers.ResNetForImageClassification(R(**arguments)), as_pretrained(), forward=answer)
make = lambda **more: lambda: transformers.ResNetForImageClassification(R(**dict(common, **more)))
case("transformers .bin, no processor", make(), as_pretrained(False, False), forward=answer)
case("transformers state dict", make(), as_pth(), forward=answer)
case("transformers gelu", make(hidden_act="gelu"), as_pretrained(), forward=answer, refusal=["gelu", "relu"])
case("transformers ResNet-50", lambda: transformers.ResNetForImageClassification(R(num_labels=7)), as_pretrained(), forward=answer)


def as_onnx(**axes):
    def save(net, folder):
        class Logits(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self, x):
                return self.net(x).logits
        torch.onnx.export(Logits(), (torch.randn(1, 3, SIDE, SIDE),), folder / "m.onnx", dynamo=False, input_names=["pixel_values"],
                          dynamic_axes={"pixel_values": {0: "batch", 1: "channels", 2: "height", 3: "width"}})
        return folder / "m.onnx"
    return save


case("transformers ONNX, open channels", make(), as_onnx(), forward=answer)
sys.exit(tally.finish())

"""What the scripts here share: the programs, and what becomes of a model in them."""
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def convert(model, output, *options):
    """Why `convert` refuses a model; nothing where it takes it."""
    command = [str(a) for a in (BIN / "convert", model, "-o", output, *options)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or "no message" if done.returncode else ""


def tensor_logits(edge, x):
    """What a device file computes of an array that its network takes."""
    file = Path(edge).with_suffix(".npy")
    np.save(file, np.ascontiguousarray(x, np.float32))
    return picture_logits(edge, "--tensor", file)


def picture_logits(edge, *picture):
    """What it computes of a picture file."""
    return np.array(json.loads(run(BIN / "edge-classify", "--model", edge, "--logits", *picture))["logits"])


def randomize_keras(layers, random):
    """Gives Keras' batch-norms statistics as after training: near those of real activations, and scales of their own."""
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.3, 0.3), "moving_mean": (-0.3, 0.3), "moving_variance": (0.5, 1.5)}
    for layer in layers:
        for name, (low, high) in ranges.items() if type(layer).__name__ == "BatchNormalization" else ():
            weight = getattr(layer, name)
            if weight is not None:
                weight.assign(random.uniform(low, high, weight.shape))
        randomize_keras(getattr(layer, "layers", []), random)


def train_keras_statistics(model, layers, random, pictures):
    """Gives Keras' batch-norms the statistics of real maps, and scales of their own."""
    norms = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
        layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
        layer.momentum = 0.0
        layer.trainable = True
    model(pictures, training=True)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum


def log_softmax(scores):
    scores = scores - scores.max(1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def attempt(*args):
    """Runs a program; returns its exit status, what it wrote, and what was wrong."""
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def run(*args):
    """What a program writes, which must succeed."""
    status, out, error = attempt(*args)
    if status:
        raise SystemExit(f"{args[0]}: {error or out}")
    return out


def logits(edge, x, folder):
    """Logits of the pictures `x` (NHWC, or one as HWC) in a device file."""
    path = Path(folder) / "tensor.npy"
    np.save(path, np.ascontiguousarray(x))
    out = run(BIN / "edge-classify", "--model", edge, "--logits", "--tensor", path)
    return np.array(json.loads(out)["logits"])


def difference(have, want):
    """The largest difference, relative to the largest number."""
    return float(np.abs(have - want).max() / np.abs(want).max())


def randomize(net, side=64):
    """Batch-norms as after training: statistics of a real pass, scales and shifts of their own."""
    import torch
    from torch import nn
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 3, side, side))
    return net.eval()


def outcome(model, x, want, kind="logits", quantize="int8", tolerance=0.05, options=()):
    """What `convert` makes of a model: "right", "refused: …" or "WRONG: …". `x` are its inputs (NHWC),
    `want` what its own framework gives for them: logits, softmax or logsoftmax."""
    with tempfile.TemporaryDirectory() as folder:
        edge, npy = Path(folder) / "m.edge", Path(folder) / "x.npy"
        np.save(npy, np.ascontiguousarray(x, np.float32))
        args = [BIN / "convert", model, "--quantize", quantize, "-o", edge, *options]
        done = subprocess.run(args, capture_output=True, text=True)
        if done.returncode:
            return "refused: " + " | ".join((done.stderr or done.stdout).strip().splitlines())
        args = [BIN / "edge-classify", "--model", edge, "--logits", "--tensor", npy]
        ran = subprocess.run(args, capture_output=True, text=True)
        if ran.returncode:
            return f"WRONG: edge-classify: {ran.stderr}"
        have = np.array(json.loads(ran.stdout)["logits"], float)
    if have.shape != want.shape:
        return f"WRONG: shape {have.shape}, not {want.shape}"
    if kind != "logits":
        have = log_softmax(have)
    if kind == "softmax":
        have = np.exp(have)
    error = np.abs(have - want).max() / np.abs(want).max()
    said = [line for line in done.stdout.splitlines() if line.startswith("in floats")]
    return f"{'right' if error < tolerance else 'WRONG'}: {error:.1e} {' '.join(said)}"


class Tally:
    """Counts outcomes; what is to be refused must be so for a reason that has `names`, a text or several, in it."""

    def __init__(self):
        self.counts = {}

    def see(self, name, outcome, names=None):
        word = outcome.split(":")[0]
        names = [names] if isinstance(names, str) else names
        if word == "refused" and (names is None or any(name not in outcome for name in names)):
            word = "WRONG"
        self.counts[word] = self.counts.get(word, 0) + 1
        print(f"{name:44} {'' if word in outcome else word + ' '}{outcome[:300]}", flush=True)

    def finish(self):
        print(", ".join(f"{count} {word}" for word, count in sorted(self.counts.items())))
        return self.counts.get("WRONG", 0) > 0

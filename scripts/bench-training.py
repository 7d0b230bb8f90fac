#!/usr/bin/env python3
"""Compares the speed and the memory of training: `trainer`, PyTorch, and Keras on JAX.

    pip install -r scripts/bench-training.txt
    cargo build --release && scripts/bench-training.py

A step is forward, cross-entropy, backward and SGD with momentum, on one made-up batch of
normalized pictures, on two threads; data are neither read nor augmented. PyTorch runs in all its
modes: eager, channels last, compiled (channels last, too), and with bf16 autocast eager and
compiled; all others are f32. Every measurement is a process of its own, bound to the same two
CPUs, and must learn its batch. Rounds go through all engines in turn, so that a busy minute of the
machine does not hit one alone.

Prints two Markdown tables. Of each engine, images/s is the median over the rounds of each round's
median step, best the fastest step of all, peak MB the most resident memory of a process, with its
libraries, in MiB. Then ours beside the best of PyTorch's modes of the same precision, which is
named: the fastest for speed, the smallest of any for memory. What is not installed is skipped and
named. Ends with status 1 where a measurement failed.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
PINS = Path(__file__).with_suffix(".txt")
# Keras asks when it is imported, here and in every process that this one starts.
os.environ["KERAS_BACKEND"] = "jax"
THREADS = 2
WARM_UP = 2
RATE, MOMENTUM = 0.01, 0.9
# CPUs used by other processes during a measurement, above which it is called disturbed.
DISTURBED = 0.1

# Input side, classes, batch; trainable parameters, which every peer's network is checked to have.
NETWORKS = {
    "resnet_18": (224, 1000, 32, 11_689_512),
    "resnet_50": (224, 1000, 16, 25_557_032),
    "mobilenet_v2_100": (224, 1000, 32, 3_504_872),
    "resnet_20_cifar": (32, 10, 128, 272_474),
    "resnet_8_cifar": (32, 10, 128, 78_042),
}
# Options of `trainer bench`.
OURS = {
    "trainer": ["--precision", "f32"],
    "trainer-bf16": ["--precision", "bf16"],
    "trainer-stock": ["--precision", "f32", "--backend", "flex", "--stock"],
}
# PyTorch's modes of each of our precisions.
MODES = {
    "trainer": ["torch", "torch-channels-last", "torch-compile"],
    "trainer-bf16": ["torch-bf16", "torch-compile-bf16"],
}
# Of PyTorch with AVX2 alone: its own kernels, oneDNN's, and those that it compiles.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
AVX2_BITS = 256
# Packages, named as they are imported.
PEERS = {mode: ["torch", "torchvision"] for modes in MODES.values() for mode in modes}
PEERS["keras-jax"] = ["keras", "jax"]


def torch_step(mode, arch):
    """A function that makes a step and returns the loss, and the number of parameters."""
    import torch
    import torchvision
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """A basic block, with a 1×1 projection where it strides."""
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            y = self.bn2(self.conv2(y))
            y += self.shortcut(x)
            return functional.relu(y, inplace=True)

    def cifar(blocks, classes):
        layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
        inputs = 16
        for width in (16, 32, 64):
            for _ in range(blocks):
                layers.append(Block(inputs, width, 1 if width == inputs else 2))
                inputs = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(64, classes))

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    size, classes, batch, _ = NETWORKS[arch]
    net = {
        "resnet_18": lambda: torchvision.models.resnet18(num_classes=classes),
        "resnet_50": lambda: torchvision.models.resnet50(num_classes=classes),
        "mobilenet_v2_100": lambda: torchvision.models.mobilenet_v2(num_classes=classes, dropout=0),
        "resnet_20_cifar": lambda: cifar(3, classes),
        "resnet_8_cifar": lambda: cifar(1, classes),
    }[arch]()
    x = torch.randn(batch, 3, size, size)
    labels = torch.randint(0, classes, (batch,))
    if mode != "torch":
        net, x = (v.to(memory_format=torch.channels_last) for v in (net, x))
    if os.environ.items() >= AVX2.items():
        from torch._inductor import config
        config.cpp.simdlen = AVX2_BITS
    forward = torch.compile(net) if "compile" in mode else net
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM)

    def step():
        optimizer.zero_grad(set_to_none=True)
        half = torch.autocast("cpu", torch.bfloat16) if "bf16" in mode else contextlib.nullcontext()
        with half:
            loss = functional.cross_entropy(forward(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() for p in net.parameters())


def keras_step(arch):
    """The same for Keras, as its guide to training loops in JAX does it: one compiled function."""
    import jax
    import keras
    import numpy as np
    from keras import layers

    # On an even number of pixels "same" pads a strided filter by one less than PyTorch does and
    # computes as many outputs.
    def conv(x, width, filter_size, stride=1, relu=True):
        x = layers.Conv2D(width, filter_size, stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x) if relu else x

    def block(x, width, stride, bottleneck):
        outputs = 4 * width if bottleneck else width
        shortcut = x
        if stride != 1 or x.shape[-1] != outputs:
            shortcut = conv(x, outputs, 1, stride, relu=False)
        if bottleneck:
            y = conv(conv(x, width, 1), width, 3, stride)
            y = conv(y, outputs, 1, relu=False)
        else:
            y = conv(conv(x, width, 3, stride), outputs, 3, relu=False)
        return layers.ReLU()(layers.Add()([y, shortcut]))

    size, classes, batch, _ = NETWORKS[arch]
    stacks = {"resnet_18": (2, 2, 2, 2), "resnet_50": (3, 4, 6, 3),
              "resnet_20_cifar": (3, 3, 3), "resnet_8_cifar": (1, 1, 1)}[arch]
    keras.utils.set_random_seed(0)
    keras.backend.set_image_data_format("channels_last")
    pictures = layers.Input((size, size, 3))
    if len(stacks) == 3:
        width, y = 16, conv(pictures, 16, 3)
    else:
        width, y = 64, layers.MaxPooling2D(3, 2, padding="same")(conv(pictures, 64, 7, 2))
    for stack, blocks in enumerate(stacks):
        for n in range(blocks):
            y = block(y, width << stack, 2 if stack and n == 0 else 1, arch == "resnet_50")
    logits = layers.Dense(classes)(layers.GlobalAveragePooling2D()(y))
    net = keras.Model(pictures, logits)
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    optimizer.build(net.trainable_variables)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.standard_normal((batch, size, size, 3), dtype=np.float32))
    labels = jax.numpy.asarray(rng.integers(0, classes, batch))

    def cost(weights, statistics, x, labels):
        logits, statistics = net.stateless_call(weights, statistics, x, training=True)
        return criterion(labels, logits), statistics

    def learn(weights, statistics, velocities, x, labels):
        (loss, statistics), gradients = jax.value_and_grad(cost, has_aux=True)(
            weights, statistics, x, labels)
        weights, velocities = optimizer.stateless_apply(velocities, gradients, weights)
        return loss, (weights, statistics, velocities)

    # What a step replaces is given up to it, as `Model.fit` does.
    learn = jax.jit(learn, donate_argnums=(0, 1, 2))
    state = tuple([v.value for v in variables] for variables in (
        net.trainable_variables, net.non_trainable_variables, optimizer.variables))
    parameters = sum(v.value.size for v in net.trainable_variables)

    def step():
        nonlocal state
        loss, state = jax.block_until_ready(learn(*state, x, labels))
        return float(loss)

    return step, parameters


def peak_mb():
    """The most memory this process has had resident, in MiB; None where the system has no /proc.

    Not `getrusage`, whose figure starts with that of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kib = int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1])
    return round(kib / 1024, 1)


def measure_peer(engine, arch, steps):
    """Measures in this process; prints one JSON line with the fields of `trainer bench --json`."""
    size, _, batch, expected = NETWORKS[arch]
    step, parameters = keras_step(arch) if engine == "keras-jax" else torch_step(engine, arch)
    if parameters != expected:
        sys.exit(f"{arch} has {parameters} parameters, expected {expected}: another network")
    ms, losses = [], []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        losses.append(step())
        ms.append(1e3 * (time.perf_counter() - started))
    if not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        sys.exit(f"the loss went from {losses[0]} to {losses[-1]} and should fall")
    ms = sorted(ms[WARM_UP:])
    middle = ms[len(ms) // 2]
    print(json.dumps({
        "arch": arch, "size": size, "batch": batch, "steps": steps, "threads": THREADS,
        "backend": engine, "precision": "bf16" if "bf16" in engine else "f32",
        "images_per_s": 1e3 * batch / middle, "step_ms": {"median": middle, "min": ms[0]},
        "peak_mb": peak_mb(),
    }))


def run(command):
    """What a command printed; raises RuntimeError with the end of its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise RuntimeError(str(error)) from error
    if done.returncode != 0:
        complaint = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise RuntimeError(complaint[-1])
    return done.stdout


def busy_seconds():
    """CPU time that anything has used since the machine started; None where it does not say."""
    try:
        fields = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(engine, arch, args):
    """One measurement in a process of its own; `others` is how many CPUs other processes used."""
    if engine in PEERS:
        command = [sys.executable, __file__, "--peer", engine, "--arch", arch]
    else:
        size, _, batch, _ = NETWORKS[arch]
        command = [args.trainer, "bench", "--arch", arch, "--size", size, "--batch", batch,
                   "--threads", THREADS, "--json", *OURS[engine]]
        if args.avx2:
            command += ["--isa", "avx2"]
    busy, before = busy_seconds(), os.times()
    lines = run([str(part) for part in [*command, "--steps", args.steps]]).splitlines()
    after = os.times()
    if not lines:
        raise RuntimeError("printed nothing")
    line = json.loads(lines[-1])
    line["others"] = None
    if busy is not None:
        own = sum(after[:4]) - sum(before[:4])
        others = (busy_seconds() - busy - own) / (after.elapsed - before.elapsed)
        line["others"] = round(max(others, 0.0), 2)
    return line


def missing(engine, args, notices):
    """Why an engine cannot be measured, or None; other versions than the pinned are noted."""
    if engine == "trainer-bf16" and "bf16" not in run([str(args.trainer), "bench", "--help"]):
        return "this trainer has no bf16"
    if engine in OURS:
        return None
    try:
        # In another process: what is imported here would stay.
        run([sys.executable, "-c", "import " + ", ".join(PEERS[engine])])
    except RuntimeError as error:
        return f"{error}; pip install -r {PINS}"
    pins = dict(line.split("==") for line in PINS.read_text().split("\n") if "==" in line)
    for package in PEERS[engine]:
        version = metadata.version(package)
        if version.split("+")[0] != pins[package]:
            notices.append(f"{package} {version} instead of {pins[package]}")
    return None


def summary(lines):
    """Figures of one network on one engine over all rounds."""
    peaks = [line["peak_mb"] for line in lines if line["peak_mb"] is not None]
    return {
        "images_per_s": median(line["images_per_s"] for line in lines),
        "best_images_per_s": max(1e3 * line["batch"] / line["step_ms"]["min"] for line in lines),
        "peak_mb": max(peaks, default=None),
    }


def markdown(heads, rows, texts):
    """A table whose first `texts` columns are texts and the others numbers."""
    lines = [heads, ["---"] * texts + ["---:"] * (len(heads) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def megabytes(peak):
    return "?" if peak is None else f"{peak:.0f}"


def table(results):
    """Figures of every engine."""
    rows = [[arch, engine, f"{row['images_per_s']:.1f}", f"{row['best_images_per_s']:.1f}",
             megabytes(row["peak_mb"])] for (arch, engine), row in results.items()]
    return markdown(["network", "engine", "images/s", "best", "peak MB"], rows, 2)


def comparison(results):
    """Ours beside the best of PyTorch's modes; None where there is nothing to compare."""
    rows = []
    for (arch, engine), own in results.items():
        peers = {mode: results[arch, mode] for mode in MODES.get(engine, [])
                 if (arch, mode) in results}
        if not peers:
            continue
        fastest = max(peers, key=lambda mode: peers[mode]["images_per_s"])
        speed, quickest = (own[field] / max(peer[field] for peer in peers.values())
                           for field in ("images_per_s", "best_images_per_s"))
        row = [arch, engine, f"{own['images_per_s']:.1f}", fastest,
               f"{peers[fastest]['images_per_s']:.1f}", f"{speed:.2f}", f"{quickest:.2f}"]
        peaks = {mode: peer["peak_mb"] for mode, peer in peers.items() if peer["peak_mb"]}
        if peaks and own["peak_mb"]:
            smallest = min(peaks, key=peaks.get)
            row += [f"{own['peak_mb']:.0f}", f"{peaks[smallest]:.0f} ({smallest})",
                    f"{own['peak_mb'] / peaks[smallest]:.2f}"]
        else:
            row += ["?"] * 3
        rows.append(row)
    heads = ["network", "ours", "images/s", "PyTorch's fastest mode", "images/s", "ratio",
             "of best steps", "peak MB", "PyTorch's least", "ratio"]
    return markdown(heads, rows, 2) if rows else None


def processor():
    """The CPU's name as the system gives it."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    found = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def bind(notices):
    """Binds this process, and so all it starts, to as many CPUs as there are threads."""
    if not hasattr(os, "sched_setaffinity"):
        notices.append("this system cannot bind processes: JAX uses all CPUs")
        return
    cpus = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cpus)
    if len(cpus) < THREADS:
        notices.append(f"{THREADS} threads on {len(cpus)} CPU")


def compare(args):
    """Measures everything that was asked for and prints the table; returns the exit status."""
    notices = []
    bind(notices)
    pairs = [(a, e) for a in NETWORKS for e in [*OURS, *PEERS] if args.only.search(f"{a} {e}")]
    if not pairs:
        sys.exit(f"--only {args.only.pattern}: nothing matches, such as 'resnet_18 torch'")
    absent = {}
    for engine in dict.fromkeys(engine for _, engine in pairs):
        try:
            reason = missing(engine, args, notices)
        except RuntimeError as error:
            sys.exit(f"{args.trainer}: {error}")
        if reason:
            absent[engine] = reason
            notices.append(f"{engine} not measured: {reason}")
    for notice in notices:
        print(notice, file=sys.stderr)
    lines, failed = {}, False
    for number in range(1, args.rounds + 1):
        for arch, engine in pairs:
            if engine in absent:
                continue
            label = f"round {number}: {arch} {engine}"
            try:
                line = measure(engine, arch, args)
            except RuntimeError as error:
                failed = True
                notices.append(f"{label} failed: {error}")
                print(notices[-1], file=sys.stderr)
                continue
            lines.setdefault((arch, engine), []).append(line)
            print(f"{label}: {line['images_per_s']:.1f} images/s", file=sys.stderr)
    disturbed = [line["others"] for rounds in lines.values() for line in rounds
                 if (line["others"] or 0) > DISTURBED]
    if disturbed:
        notices.append(f"{len(disturbed)} measurements were disturbed, other processes used up to "
                       f"{max(disturbed)} CPUs; engines suffer unequally: measure again")
        print(notices[-1], file=sys.stderr)
    results = {pair: summary(lines[pair]) for pair in pairs if pair in lines}
    isa = ", AVX2 alone" if args.avx2 else ""
    machine = f"{processor()}{isa}, {THREADS} threads, {date.today()}"
    print(f"{machine}; rounds of {args.steps} steps: {args.rounds}\n\n{table(results)}")
    if compared := comparison(results):
        print(f"\n{compared}")
    if notices:
        print("\n" + "\n".join(f"- {notice}" for notice in notices))
    if args.json:
        rows = [{"arch": arch, "engine": engine, **row, "rounds": lines[arch, engine]}
                for (arch, engine), row in results.items()]
        value = {"machine": machine, "notices": notices, "results": rows}
        args.json.write_text(json.dumps(value, indent=1) + "\n")
    return 1 if failed or not results else 0


def count(text):
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("pass at least 1")
    return value


def pattern(text):
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main():
    about, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", type=Path, default=BIN / "trainer", metavar="PATH",
                        help="our program (default: target/release/trainer)")
    parser.add_argument("--rounds", type=count, default=3, help="measurements of each pair")
    parser.add_argument("--steps", type=count, default=8, help="steps of a measurement")
    parser.add_argument("--only", type=pattern, default="", metavar="REGEX",
                        help="what to measure, searched in 'network engine'; engines are "
                             + ", ".join([*OURS, *PEERS]))
    parser.add_argument("--avx2", action="store_true",
                        help="as on a processor without AVX-512: ours and PyTorch's engines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures")
    # How this script measures a peer in another process.
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--arch", choices=NETWORKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return measure_peer(args.peer, args.arch, args.steps)
    if not args.trainer.is_file():
        sys.exit(f"{args.trainer}: not found; run cargo build --release, or pass --trainer")
    # A bare name would be looked for in PATH.
    args.trainer = args.trainer.resolve()
    if args.avx2:
        os.environ.update(AVX2)
    return compare(args)


sys.exit(main())

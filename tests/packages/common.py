"""What the scripts here share: the programs, and what becomes of a model in them."""
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def log_softmax(scores):
    scores = scores - scores.max(1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


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

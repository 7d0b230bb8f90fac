#!/usr/bin/env bash
# The main job on what the repository ships: fine-tune a built-in network on the sample
# photos, convert to int8, classify pictures.
set -euo pipefail
cd "$(dirname "$0")"
# Where the programs are built already: EDGE_BIN.
if [ -z "${EDGE_BIN:-}" ]; then
  echo "== build the three programs (the first time some 260 crates, which takes minutes) =="
  cargo build --release --locked
fi
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
out=${1:-runs/demo}
rm -rf "$out"
mkdir -p "$out"

echo "== fine-tune on samples/fashion (400 photos, 10 classes) =="
"$bin/trainer" finetune --classes 10 --data samples/fashion --epochs 12 --seed 1 \
  --out "$out/run" -o "$out/fashion.mpk"
echo "== convert to int8 =="
"$bin/convert" --quantize int8 "$out/fashion.mpk" --eval samples/fashion
echo "== classify with the new model =="
"$bin/edge-classify" --model "$out/fashion.edge" --top 3 samples/fashion/val/*/000.png
echo "== classify with the built-in model, which knows ImageNet =="
"$bin/edge-classify" --top 3 --time samples/pictures/*

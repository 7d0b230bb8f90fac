#!/usr/bin/env bash
# Counts what each operator of many networks takes on every emulated core, and fits the coefficients of
# `convert::cost` to it: writes `target/costs`, prints what belongs into `convert/src/cost/coefficients.rs` and
# `convert/tests/costs.txt`.
# `costs.sh +deb` uses that toolchain for the boards. Takes some minutes.
set -euo pipefail
cd "$(dirname "$0")"
cross=${1:-}
out=$PWD/../target/costs
mkdir -p "$out"
[ -n "${EDGE_BIN:-}" ] || (cd .. && cargo build -q --release --locked -p edge-convert --bins --examples)
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-../target}/release}
convert=$bin/convert

# Fitted to, and held back: architecture, side of pictures, classes.
fitted="resnet_8_cifar 32 10
resnet_20_cifar 32 10
resnet_8_cifar 48 3
mobilenet_v1_025 96 2
mobilenet_v1_050 64 5
mobilenet_v1_020 90 3
mobilenet_v1_075 48 7
mobilenet_v2_035 96 4
mobilenet_v2_050 64 2
mobilenet_v2 32 10
mobilenet_v3_small_050 90 2
mobilenet_v3_small_075 64 3
efficientnet_lite0 48 2"
held="resnet_20_cifar 24 5
mobilenet_v1_025 128 2
mobilenet_v1_040 80 3
mobilenet_v2_035 112 2
mobilenet_v3_small_050 64 6"

make() { # PREFIX, lines
  while read -r arch side classes; do
    local name=$1$arch-$side-$classes
    "$convert" init "$arch" --size "$side" --classes "$classes" -o "$out/$name.mpk" >/dev/null
    "$convert" "$out/$name.mpk" --target cortex-m --no-verify -o "$out/$name.edge" >/dev/null
    rm "$out/$name.mpk"
  done
}
make "" <<<"$fitted"
make held- <<<"$held"

count() { # CORE BOARD [TARGET]
  for edge in "$out"/*.edge; do
    (cd "$2" && EDGE_MODEL=$edge cargo $cross run -q --release --locked ${3:+--target=$3} --features layers) |
      grep -E '^[0-9]+ [0-9]+' >"${edge%.edge}.$1"
  done
  "$bin/examples/fit_costs" "$1" "$out"
}
count cortex-m4 mps2-an386
count cortex-m3 mps2-an386 thumbv7m-none-eabi
count cortex-m0plus mps2-an386 thumbv6m-none-eabi
count cortex-m33 mps2-an505
count riscv32 riscv-virt

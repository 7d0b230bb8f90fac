#!/usr/bin/env bash
# Runs the demonstration on every emulated board and on this machine: all logits must be equal, byte
# for byte. What cannot be emulated is built. `test.sh +deb` uses that toolchain for the boards.
# Where `convert` is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")"
cross=${1:-}

run() { # BOARD MODEL [TARGET]
  local target=${3:+--target=$3}
  (cd "$1" && EDGE_MODEL=$2 cargo $cross run -q --release --locked $target)
}
logits() { grep '^logits of ' | tr -d '\r'; }

resnet_8=$PWD/../models/resnet_8_cifar10.cortex-m.edge
resnet_20=$(mktemp --suffix=.edge)
trap 'rm -f "$resnet_20"' EXIT
[ -n "${EDGE_BIN:-}" ] || (cd .. && cargo build -q --release --locked -p edge-convert)
"${EDGE_BIN:-${CARGO_TARGET_DIR:-../target}/release}/convert" \
  ../models/resnet_20_cifar10.mpk --target cortex-m -o "$resnet_20" >/dev/null

check() { # BOARD MODEL [TARGET]
  local here board
  here=$(cd host && cargo run -q --release --locked -- "$2" | logits)
  printf '\n%s, %s\n' "$1 ${3:-}" "$(basename "$2")"
  board=$(run "$@")
  grep -v '^logits of ' <<<"$board"
  if [ "$(logits <<<"$board")" != "$here" ]; then
    diff <(echo "$here") <(logits <<<"$board") >&2 || true
    echo "error: $1 computes other logits than this machine" >&2
    exit 1
  fi
  echo "$(wc -l <<<"$here") pictures, the same logits as here"
}

check mps2-an386 "$resnet_8"
# Without DSP instructions, as on a Cortex-M3.
check mps2-an386 "$resnet_8" thumbv7m-none-eabi
check mps2-an386 "$resnet_20"
check mps2-an500 "$resnet_8"
check mps2-an505 "$resnet_8"
check riscv-virt "$resnet_8"

(cd nucleo-f446re && cargo $cross build -q --release --locked)
printf '\nnucleo-f446re builds\n'

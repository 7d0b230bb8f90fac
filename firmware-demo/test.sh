#!/usr/bin/env bash
# Runs the demonstration on every emulated board and on this machine: all logits must be equal, byte
# for byte. What cannot be emulated is built. `test.sh +deb` uses that toolchain for the boards.
# Where `convert` and `trainer` are built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")"
cross=${1:-}

run() { # BOARD MODEL [TARGET [FEATURES]]
  local target=${3:+--target=$3}
  (cd "$1" && EDGE_MODEL=$2 cargo $cross run -q --release --locked $target ${4:+--features=$4})
}
# Lines that must be equal.
numbers='^(logits|distance|heat|patch|taught) of '
logits() { grep -E "$numbers" | tr -d '\r'; }

resnet_8=$PWD/../models/resnet_8_cifar10.cortex-m.edge
resnet_20=$(mktemp --suffix=.edge)
signed=$(mktemp --suffix=.edge)
mixed=$(mktemp --suffix=.edge)
known=$(mktemp --suffix=.edge)
grey=$(mktemp --suffix=.mpk)
mobile=$(mktemp --suffix=.mpk)
fitted=$(mktemp -d)
trap 'rm -rf "$fitted" "$resnet_20" "$signed" "$mixed" "$known" "$grey" "${grey%.mpk}.edge" \
  "$mobile" "${mobile%.mpk}.edge"' EXIT
[ -n "${EDGE_BIN:-}" ] || (cd .. && cargo build -q --release --locked -p edge-convert -p edge-trainer)
convert=${EDGE_BIN:-${CARGO_TARGET_DIR:-../target}/release}/convert
"$convert" ../models/resnet_20_cifar10.mpk --target cortex-m -o "$resnet_20" >/dev/null
# The model of the demonstration, which also tells unknown pictures.
"$convert" ../models/resnet_8_cifar10.mpk --target cortex-m --unknown 1% -o "$known" >/dev/null

check() { # BOARD MODEL [TARGET [FEATURES]]
  local here board teach=
  # What is learned is the same bytes, too.
  [ "${4:-}" != teach ] || teach=--features=teach
  here=$(cd host && cargo run -q --release --locked $teach -- "$2" | logits)
  printf '\n%s, %s\n' "$1 ${3:-}" "$(basename "$2")"
  board=$(run "$@")
  grep -vE "$numbers" <<<"$board"
  if [ "$(logits <<<"$board")" != "$here" ]; then
    diff <(echo "$here") <(logits <<<"$board") >&2 || true
    echo "error: $1 computes other logits than this machine" >&2
    exit 1
  fi
  echo "$(grep -c '^logits' <<<"$here") pictures, the same logits as here," \
    "$(grep -c '^distance' <<<"$here") with the same distance"
  if [ -n "$teach" ]; then
    # The ninth view of what was learned from eight, and no view of anything else.
    if [ "$(grep -c '^taught of [a-z]* [0-8]: rocket' <<<"$here")" != 1 ] ||
      ! grep -q '^taught of rocket 8: rocket' <<<"$here"; then
      echo "error: $1 did not learn rockets" >&2
      exit 1
    fi
    echo "$(grep -c '^taught' <<<"$here") pictures with the same scores of a class learned from 8"
  fi
  ran=$(sed -n 's/.* \([0-9]*\) to run.*/\1/p' <<<"$board" | head -n 1)
}

check mps2-an386 "$resnet_8"
# The same model as older releases wrote it, with long parameters, takes hardly longer.
new=$ran
check mps2-an386 "$PWD/../tests/fixtures/versions/6-cortex-m.edge"
if [ "$ran" -gt $((new * 105 / 100)) ]; then
  echo "error: $ran instructions of an older file, $new of the same model's new one" >&2
  exit 1
fi
# Without DSP instructions, as on a Cortex-M3.
check mps2-an386 "$known"
check mps2-an386 "$known" thumbv7m-none-eabi
check mps2-an386 "$resnet_20"
# Of the same pictures, their luma.
"$convert" init resnet_8_cifar --grey -o "$grey" >/dev/null
"$convert" "$grey" --target cortex-m -o "${grey%.mpk}.edge" >/dev/null
check mps2-an386 "${grey%.mpk}.edge"

# A signed model runs where its key is known, and nowhere else; one without a signature does not.
key=../tests/fixtures/versions/private.pem
EDGE_KEY=$("$convert" sign "$resnet_8" --key $key -o "$signed" | grep -oE '[0-9a-f]{64}$')
export EDGE_KEY
check mps2-an386 "$signed" '' signature
refused() { # MODEL
  local text
  if text=$(run mps2-an386 "$1" '' signature); then
    echo "error: a model is accepted without the key's signature" >&2
    exit 1
  fi
  grep 'not signed with EDGE_KEY' <<<"$text"
}
refused "$resnet_8"
EDGE_KEY=$(printf '%064d' 9) refused "$signed"

# What `trainer fit` finds has room on the board: the linker allows no more than was said, and the pictures that
# the demonstration has in flash, and half a KiB of stack for its heat maps.
"${convert%convert}trainer" fit --data ../samples/fashion --ram 26K --flash 120K --size 32 --epochs 1 --finalists 1 \
  --out "$fitted" --overwrite -o "$fitted/board.mpk" --quiet
(export EDGE_RAM=27K EDGE_FLASH=156K; check mps2-an386 "$fitted/board.edge")

# Layers of floats, on the board's floating point unit.
"$convert" ../models/resnet_8_cifar10.mpk --target cortex-m -o "$mixed" \
  --float-layers stack2_block0_2_conv,predictions >/dev/null
check mps2-an386 "$mixed" '' float

# Depthwise convolutions: random weights take as long as trained ones. Sides of 90 pixels lead to maps of
# odd ones; MobileNetV3 has filters of 5x5, gates and tables, too.
mobile() { # ARCHITECTURE SIZE
  "$convert" init "$1" --size "$2" --classes 2 -o "$mobile" >/dev/null
  "$convert" "$mobile" --target cortex-m -o "${mobile%.mpk}.edge" >/dev/null
}
mobile mobilenet_v3_small_050 90
check mps2-an386 "${mobile%.mpk}.edge"
mobile mobilenet_v1_025 90
check mps2-an386 "${mobile%.mpk}.edge"
mobile mobilenet_v1_025 96
check mps2-an386 "${mobile%.mpk}.edge"
check mps2-an386 "${mobile%.mpk}.edge" thumbv7m-none-eabi
check mps2-an500 "${mobile%.mpk}.edge"
check mps2-an505 "${mobile%.mpk}.edge"
check riscv-virt "${mobile%.mpk}.edge"

check mps2-an500 "$known"
check mps2-an505 "$known"
check riscv-virt "$known"

# An eleventh class, and a third one of a network that knows two.
"$convert" "$mobile" --target cortex-m --calibration ../samples/fashion/train --unknown 10% \
  -o "${mobile%.mpk}.edge" >/dev/null
for model in "$known" "${mobile%.mpk}.edge"; do
  check mps2-an386 "$model" '' teach
  check mps2-an386 "$model" thumbv7m-none-eabi teach
  check mps2-an500 "$model" '' teach
  check mps2-an505 "$model" '' teach
  check riscv-virt "$model" '' teach
done

(cd nucleo-f446re && cargo $cross build -q --release --locked)
printf '\nnucleo-f446re builds\n'

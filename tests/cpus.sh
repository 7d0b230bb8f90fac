#!/usr/bin/env bash
# Emulated x86-64 CPUs below each instruction set: programs and tests that were compiled for all of them use none that
# such a CPU lacks (they would be killed), and give the same int8 logits as here. Where edge-classify and
# the tests are built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v qemu-x86_64 >/dev/null; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get install -y -qq --no-install-recommends qemu-user >/dev/null
fi
if [ -z "${EDGE_BIN:-}" ]; then
  cargo build -q --release --locked -p edge-classify
  cargo test -q --release --locked -p edge-runtime --no-run
fi
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
pictures=(samples/pictures/*.png samples/pictures/*.jpg)
here=$("$bin/edge-classify" --logits "${pictures[@]}" 2>/dev/null)
# Without SSSE3, with it, with AVX2 and without AVX-512.
for cpu in qemu64 Conroe Haswell; do
  on() { qemu-x86_64 -cpu $cpu "$@" 2> >(grep -v "TCG doesn't support" >&2); }
  there=$(on "$bin/edge-classify" --logits "${pictures[@]}" 2>/dev/null)
  [ "$here" = "$there" ] || { echo "error: $cpu gives other logits" >&2; exit 1; }
  [ "$(uname -m)" = x86_64 ] || continue
  for test in hostile preprocess; do
    newest=$(ls -t "$bin/deps/$test"-* | grep -v '\.d$' | head -1)
    (cd runtime && on "$newest" --test-threads 1 -q >/dev/null)
  done
  echo "$cpu: ${#pictures[@]} pictures, the same logits as here; its tests pass"
done

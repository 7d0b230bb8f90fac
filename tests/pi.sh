#!/usr/bin/env bash
# edge-classify for Raspberry Pi, on emulated CPUs: a Cortex-A53 (Pi 3), A72 (Pi 4) and A76 (Pi 5)
# give the same int8 logits as this machine, and those without a dot product refuse to use it. The
# program is the one of the Debian package. `pi.sh +deb` builds with that toolchain. Where edge-classify is
# built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
cross=${1:-}
target=aarch64-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
dpkg-deb -x "$(bash scripts/deb.sh $target $cross)" "$work"
for file in man/man1/edge-classify.1.gz man/man1/edge-classify-bench.1.gz \
  man/man1/edge-classify-serve.1.gz \
  bash-completion/completions/edge-classify zsh/vendor-completions/_edge-classify \
  fish/vendor_completions.d/edge-classify.fish \
  doc/edge-classify/{copyright,LICENSE-APACHE,LICENSE-MIT,THIRD-PARTY.txt,edge-classify.cdx.json}; do
  [ -s "$work/usr/share/$file" ] || { echo "error: the package lacks $file" >&2; exit 1; }
done
if grep -qF -- "$PWD/" "$work/usr/bin/edge-classify"; then
  echo "error: the program names the folder that it was compiled in" >&2
  exit 1
fi
grep -q '^ring ' "$work/usr/share/doc/edge-classify/THIRD-PARTY.txt"
grep -q '"purl": "pkg:cargo/ring@' "$work/usr/share/doc/edge-classify/edge-classify.cdx.json"
pictures=(samples/pictures/*.png samples/pictures/*.jpg)

for cpu in cortex-a53 cortex-a72 cortex-a76; do
  pi() { qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu "$work/usr/bin/edge-classify" "$@"; }
  for model in "" models/resnet_8_cifar10.edge; do
    here=$("$bin/edge-classify" ${model:+--model "$model"} --logits "${pictures[@]}")
    there=$(pi ${model:+--model "$model"} --logits "${pictures[@]}")
    if [ "$here" != "$there" ]; then
      printf 'error: %s gives other logits\nhere  %s\nthere %s\n' "$cpu" "$here" "$there" >&2
      exit 1
    fi
  done
  if said=$(pi --isa dotprod "${pictures[0]}" 2>&1); then
    [ $cpu = cortex-a76 ] || { echo "error: $cpu has no dot product, but it was used" >&2; exit 1; }
  elif [ $cpu = cortex-a76 ] || ! grep -q "it has neon" <<<"$said"; then
    printf 'error: %s: --isa dotprod: %s\n' "$cpu" "$said" >&2
    exit 1
  fi
  echo "$cpu: ${#pictures[@]} pictures, two models, the same logits as here"
done

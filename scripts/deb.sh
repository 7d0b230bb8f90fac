#!/usr/bin/env bash
# Makes a Debian package of edge-classify, with its man pages and completions.
# deb.sh [TARGET [TOOLCHAIN]]: for this machine, or for aarch64-unknown-linux-gnu (64-bit Raspberry Pi)
# or armv7-unknown-linux-gnueabihf; `+deb` as the toolchain where firmware-demo/setup.sh says so.
# Prints the package's path. Uses cargo-deb, and installs it below target/ where it is missing.
# Where the example `manual` is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-}
toolchain=${2:-}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=${CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER:-arm-linux-gnueabihf-gcc}
build=${CARGO_TARGET_DIR:-target}
export PATH=$PATH:$PWD/$build/tools/bin
command -v cargo-deb >/dev/null ||
  cargo install -q --locked --root "$build/tools" cargo-deb@3.8.0 >&2
[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify --example manual >&2
"${EDGE_BIN:-$build/release}/examples/manual" target/manual
cargo $toolchain build -q --release --locked -p edge-classify ${target:+--target $target} >&2
cargo deb -q --no-build --locked -p edge-classify ${target:+--target $target}

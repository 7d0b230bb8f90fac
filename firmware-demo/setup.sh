#!/usr/bin/env bash
# Installs what the firmware and the emulated tests need: QEMU, an Arm compiler and the Rust
# standard libraries of the targets. Does nothing where they are there already.
#
# Where rustup can add targets (`rustup target add`), it does. Debian 12 machines without
# that use Debian's own Rust (package rustc-web) and its sources, linked as toolchain `deb`.
# Prints the argument that makes cargo use the toolchain that has the targets: nothing, or +deb.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
# Only the answer goes to standard output.
exec 3>&1 >&2
BARE="thumbv6m-none-eabi thumbv7m-none-eabi thumbv7em-none-eabihf thumbv8m.main-none-eabihf"
BARE+=" riscv32imac-unknown-none-elf riscv32imc-unknown-none-elf"
ARM64="aarch64-unknown-linux-gnu"
WASM="wasm32-unknown-unknown"

say() { printf 'setup: %s\n' "$*" >&2; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
has_targets() { # TOOLCHAIN
  local sysroot target
  sysroot=$(rustc ${1:++$1} --print sysroot 2>/dev/null) || return 1
  for target in $BARE $ARM64 $WASM; do
    [ -d "$sysroot/lib/rustlib/$target/lib" ] || return 1
  done
}

if ! command -v qemu-system-arm >/dev/null || ! command -v qemu-system-riscv32 >/dev/null ||
  ! command -v qemu-aarch64 >/dev/null ||
  ! command -v aarch64-linux-gnu-gcc >/dev/null; then
  say "installing QEMU and the aarch64 C compiler"
  as_root apt-get update -qq
  as_root apt-get install -y -qq --no-install-recommends \
    qemu-system-arm qemu-system-misc qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
fi

if has_targets ""; then exit 0; fi
if rustup target add $BARE $ARM64 $WASM >/dev/null 2>&1; then
  say "targets added by rustup"
  exit 0
fi
if has_targets deb; then
  echo +deb >&3
  exit 0
fi

say "rustup has no such targets here: using Debian's Rust as toolchain 'deb'"
as_root apt-get update -qq
as_root apt-get install -y -qq --no-install-recommends rustc-web cargo-web rust-web-src lld-19 >/dev/null
lib=/usr/lib/rustlib
# The targets' linker, which rustup's toolchains bring along.
bin=$lib/$(rustc -vV | sed -n 's/^host: //p')/bin
as_root mkdir -p "$bin"
[ -e "$bin/rust-lld" ] || as_root ln -s /usr/bin/lld-19 "$bin/rust-lld"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ ! -d $lib/$ARM64 ]; then
  # Unpacked by hand: installing the foreign-architecture package would pull in a system.
  version=$(dpkg-query -W -f '${Version}' rustc-web)
  as_root dpkg --add-architecture arm64
  as_root apt-get update -qq
  (cd "$work" && apt-get download -qq "libstd-rust-web-dev:arm64=$version" &&
    dpkg-deb --fsys-tarfile libstd-rust-web-dev_*.deb | as_root tar -x -C / ./usr/lib/rustlib)
  as_root dpkg --remove-architecture arm64
  as_root apt-get update -qq
fi
# The libraries of a target, from their sources.
for target in $BARE $WASM; do
  [ ! -d $lib/$target ] || continue
  if [ $target = $WASM ]; then crates=std,panic_abort; else crates=core,alloc; fi
  mkdir -p "$work/empty/src"
  echo '#![no_std]' >"$work/empty/src/lib.rs"
  printf '[package]\nname="empty"\nedition="2021"\n[profile.release]\npanic="abort"\n[workspace]\n' \
    >"$work/empty/Cargo.toml"
  (cd "$work/empty" && PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
    CARGO_TARGET_DIR="$work/empty/target" cargo build -q --release --target $target -Zbuild-std=$crates)
  as_root mkdir -p $lib/$target/lib
  for library in "$work"/empty/target/$target/release/deps/*.rlib; do
    [[ $library == */libempty-* ]] || as_root cp "$library" $lib/$target/lib/
  done
done
rustup toolchain link deb /usr
say "done"
echo +deb >&3

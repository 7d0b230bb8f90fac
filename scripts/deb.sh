#!/usr/bin/env bash
# Makes a Debian package of edge-classify, with its man pages and completions.
# deb.sh [TARGET [TOOLCHAIN]]: for this machine, or for aarch64-unknown-linux-gnu (64-bit Raspberry Pi)
# or armv7-unknown-linux-gnueabihf; `+deb` as the toolchain where firmware-demo/setup.sh says so.
# Prints the package's path. Where the example `manual` is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-}
toolchain=${2:-}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=${CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER:-arm-linux-gnueabihf-gcc}
case ${target:-$(rustc -vV | sed -n 's/^host: //p')} in
  x86_64-*) architecture=amd64 ;;
  aarch64-*) architecture=arm64 ;;
  armv7-*) architecture=armhf ;;
  *) echo "error: no Debian architecture is known for $target" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
build=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify --example manual >&2
"${EDGE_BIN:-$build/release}/examples/manual" "$work/manual"
cargo $toolchain build -q --profile dist --locked -p edge-classify ${target:+--target $target} >&2

put() { install -D -m "$1" "$2" "$work/package/$3"; } # MODE FILE PLACE
put 755 "$build/${target:+$target/}dist/edge-classify" usr/bin/edge-classify
gzip -9n "$work"/manual/*.1
for page in "$work"/manual/*.1.gz; do
  put 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
put 644 "$work/manual/edge-classify.bash" usr/share/bash-completion/completions/edge-classify
put 644 "$work/manual/_edge-classify" usr/share/zsh/vendor-completions/_edge-classify
put 644 "$work/manual/edge-classify.fish" usr/share/fish/vendor_completions.d/edge-classify.fish
put 644 edge-classify/packaging/edge-classify.service usr/lib/systemd/system/edge-classify.service
put 644 README.md usr/share/doc/edge-classify/README.md
put 644 LICENSE-MIT usr/share/doc/edge-classify/copyright
size=$(du -sk "$work/package" | cut -f1)
mkdir "$work/package/DEBIAN"
cat >"$work/package/DEBIAN/control" <<EOF
Package: edge-classify
Version: $version-1
Architecture: $architecture
Maintainer: edge-resnet developers <edge-resnet@localhost>
Section: graphics
Priority: optional
Depends: libc6 (>= 2.34), libgcc-s1
Installed-Size: $size
Description: Classifies pictures with an .edge model
 Classifies JPEG, PNG, WebP, BMP and GIF pictures with a ResNet in int8, in milliseconds and without
 a network. A model for CIFAR-10's ten classes is built in; others are .edge files.
EOF
package=$build/debian/edge-classify_$version-1_$architecture.deb
mkdir -p "$build/debian"
dpkg-deb --root-owner-group --build "$work/package" "$package" >/dev/null
echo "$package"

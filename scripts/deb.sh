#!/usr/bin/env bash
# Makes a Debian package of edge-classify, with its man pages, completions, service, licences and bill of
# materials; from the same sources by the same compilers always the same bytes.
# deb.sh [TARGET [TOOLCHAIN]]: for this machine, or for aarch64-unknown-linux-gnu (64-bit Raspberry Pi),
# armv7-unknown-linux-gnueabihf, or one of musl, whose program needs no library; `+deb` as the toolchain where
# firmware-demo/setup.sh says so. Prints the package's path. Where the example `manual` is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
toolchain=${2:-}
case $target in
  x86_64-*) architecture=amd64 ;;
  aarch64-*) architecture=arm64 ;;
  armv7-*hf) architecture=armhf ;;
  *) echo "error: no Debian architecture is known for $target" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
build=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify --example manual >&2
"${EDGE_BIN:-$build/release}/examples/manual" "$work/manual"
cargo $toolchain fetch -q --locked --target "$target" >&2
source scripts/dist-env.sh
dist_environment "$target"
cargo $toolchain build -q --profile dist --locked -p edge-classify --target "$target" >&2
program=$build/$target/dist/edge-classify

put() { install -D -m "$1" "$2" "$work/package/$3"; } # MODE FILE PLACE
doc=usr/share/doc/edge-classify
put 755 "$program" usr/bin/edge-classify
gzip -9n "$work"/manual/*.1
for page in "$work"/manual/*.1.gz; do
  put 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
put 644 "$work/manual/edge-classify.bash" usr/share/bash-completion/completions/edge-classify
put 644 "$work/manual/_edge-classify" usr/share/zsh/vendor-completions/_edge-classify
put 644 "$work/manual/edge-classify.fish" usr/share/fish/vendor_completions.d/edge-classify.fish
put 644 edge-classify/packaging/edge-classify.service usr/lib/systemd/system/edge-classify.service
for file in README.md SECURITY.md LICENSE-APACHE LICENSE-MIT docs/serve.md; do
  put 644 $file "$doc/$(basename $file)"
done
put 644 models/README.md "$doc/models.md"
python3 scripts/notices.py --toolchain "$toolchain" --target "$target" --out "$work/notices" edge-classify
for file in "$work"/notices/*; do
  put 644 "$file" "$doc/$(basename "$file")"
done
put 644 edge-classify/packaging/copyright "$doc/copyright"
# The oldest glibc that has all that the program asks for; one for musl asks for nothing.
glibc=$(readelf -VW "$program" | sed -n 's/.*Name: GLIBC_\([0-9.]*\).*/\1/p' | sort -Vu | tail -n 1)
size=$(find "$work/package" -type f -printf '%s\n' | awk '{ kib += int($1 / 1024) + 1 } END { print kib }')
mkdir "$work/package/DEBIAN"
cat >"$work/package/DEBIAN/control" <<END
Package: edge-classify
Version: $version-1
Architecture: $architecture
Maintainer: edge-resnet developers <edge-resnet@localhost>
Section: graphics
Priority: optional${glibc:+
Depends: libc6 (>= $glibc), libgcc-s1}
Installed-Size: $size
Description: Classifies pictures with an .edge model
 Classifies JPEG, PNG, WebP, BMP and GIF pictures with a neural network in int8, in milliseconds and
 without a network, from the command line or by HTTP. A MobileNetV2 for ImageNet's thousand classes is
 built in; others are .edge files.
END
package=$build/debian/edge-classify_$version-1_$architecture.deb
mkdir -p "$build/debian"
dpkg-deb -Zxz -z9 --threads-max=1 --root-owner-group --build "$work/package" "$package" >/dev/null
echo "$package"

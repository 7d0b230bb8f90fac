#!/usr/bin/env bash
# Makes the Debian package of edge-classify here, and once more from a copy of this checkout in a folder of another
# name and length, and compares the bytes. reproducible.sh [TARGET]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source scripts/dist-env.sh
if [ -z "${EDGE_BIN:-}" ]; then
  cargo build -q --release --locked -p edge-classify --example manual
  EDGE_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/release")
fi
export EDGE_BIN
copy="$work/another folder, with a longer name"
mkdir -p "$copy/sources"
git ls-files -z | tar --null -T - -c | tar -x -C "$copy/sources"
here=$(bash scripts/deb.sh "$@")
there=$(CARGO_TARGET_DIR="$copy/build" bash "$copy/sources/scripts/deb.sh" "$@")
sha256sum "$here" "$there"
if ! cmp "$here" "$there"; then
  dpkg-deb -R "$here" "$work/here"
  dpkg-deb -R "$there" "$work/there"
  diff -rq "$work/here" "$work/there" || true
  exit 1
fi
echo "the same $(stat -c %s "$here") bytes twice"

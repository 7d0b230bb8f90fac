#!/usr/bin/env bash
# Builds one HTML file that classifies pictures in a browser, with a model inside; it can be opened
# from a disk, mailed, or put on any web server.
# build.sh [MODEL.edge] [PAGE.html] [+deb]: that model (the built-in one), that page
# (target/edge-web.html), that toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
cross=
[ "${!#}" = +deb ] && { cross=+deb; set -- "${@:1:$#-1}"; }
model=${1:-models/mobilenet_v2.edge}
page=${2:-target/edge-web.html}
(cd web && cargo $cross build -q --release --locked)
wasm=${CARGO_TARGET_DIR:-web/target}/wasm32-unknown-unknown/release/edge_web.wasm

packed() { gzip -9nc "$1" | base64 -w0; }
mkdir -p "$(dirname "$page")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat edge-classify/src/serve/heat.js web/page.js >"$work/SCRIPT"
# The page's policy names the script by its hash.
hash=$(sha256sum "$work/SCRIPT" | cut -c1-64 | sed 's/../\\x&/g')
hash=$(printf "$hash" | base64 -w0)
packed "$wasm" >"$work/WASM"
packed "$model" >"$work/MODEL"
while IFS= read -r line; do
  case $line in
    *@WASM@* | *@MODEL@* | *@SCRIPT@*)
      name=${line#*@}
      name=${name%%@*}
      printf '%s' "${line%%@*}"
      cat "$work/$name"
      printf '%s\n' "${line##*@}"
      ;;
    *) printf '%s\n' "${line/@HASH@/$hash}" ;;
  esac
done <web/page.html >"$page.tmp"
mv "$page.tmp" "$page"
echo "$page: $(stat -c %s "$page") bytes; module $(stat -c %s "$wasm") bytes, model $(stat -c %s "$model")"

#!/usr/bin/env bash
# The page in a real browser, Chromium without a window: pictures get the same scores as from
# edge-classify, files that are none an error. `test.sh +deb` builds the module with that toolchain.
# Where the programs are built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
cross=${1:-}
work=$(mktemp -d)
. scripts/browser.sh
trap 'close_browser; rm -rf "$work"' EXIT
bash web/build.sh models/mobilenet_v2.edge "$work/page.html" $cross
size=$(($(stat -c %s "$work/page.html") - $(gzip -9c models/mobilenet_v2.edge | base64 -w0 | wc -c)))
[ $size -le 1000000 ] || { echo "error: the page takes $size bytes without its model" >&2; exit 1; }
echo "the page without its model: $size bytes"
[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify -p edge-convert
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
"$bin/convert" models/resnet_8_cifar10.mpk -o "$work/f32.edge" >/dev/null
echo '<!doctype html>no picture' >"$work/page.jpg"
head -c 20000 samples/pictures/rocket.jpg >"$work/half.jpg"

start_driver
new_session --window-size=800,1000
input=
give() { # FILE…: as a user would choose them, one after another
  local file count
  for file in "$@"; do
    count=$(script 'document.querySelectorAll("article").length')
    request "/element/$input/value" "$(jq -nc --arg text "$(realpath "$file")" '{text: $text}')" >/dev/null
    wait_for "document.querySelectorAll('article').length > $count &&
      document.querySelector('article').querySelector('p') !== null"
  done
}
shown() { script "[...document.querySelectorAll('article')].map((a) => $1).reverse()"; }

request /url "$(jq -nc --arg url "file://$work/page.html" '{url: $url}')" >/dev/null
input=$(request /element '{"using":"css selector","value":"#file"}' | jq -r '.[]')
wait_for 'document.getElementById("about").textContent.includes("simd128")'

pictures=(samples/pictures/*.png samples/pictures/*.jpg)
give "${pictures[@]}"
here=$("$bin/edge-classify" --logits "${pictures[@]}" | jq -c .logits)
there=$(shown 'JSON.parse(a.dataset.logits)')
if [ "$here" != "$there" ]; then
  printf 'error: other logits\nhere  %s\nthere %s\n' "$here" "$there" >&2
  exit 1
fi
echo "${#pictures[@]} pictures, the same logits as from edge-classify"
curl -sS "$session/screenshot" | jq -r .value | base64 -d >target/edge-web.png

# Another model, in f32, and what is no picture.
give "$work/f32.edge" "${pictures[@]}" "$work/page.jpg" "$work/half.jpg" "${pictures[0]}"
here=$("$bin/edge-classify" --model "$work/f32.edge" --json --top 1 "${pictures[@]}" | jq -c '[.[].classes[0].label]')
there=$(shown 'a.querySelector("li span")?.textContent ?? a.querySelector("p").textContent')
count=${#pictures[@]}
[ "$here" = "$(jq -c ".[$count + 1:2 * $count + 1]" <<<"$there")" ] || { printf 'error: other classes\n%s\n%s\n' "$here" "$there" >&2; exit 1; }
jq -e ".[2 * $count + 1:] | (.[0] | test(\"web page\")) and (.[1] | test(\"damaged\"))" <<<"$there" >/dev/null ||
  { printf 'error: what is no picture: %s\n' "$there" >&2; exit 1; }
echo "f32: the same classes; what is no picture is refused"

# Pictures like none that the model was calibrated on.
"$bin/convert" models/mobilenet_v2.mpk --calibration samples/fashion/train --unknown 1% -o "$work/known.edge" --quiet
count=$(script 'document.querySelectorAll("article").length')
give "$work/known.edge" "${pictures[@]}"
here=$("$bin/edge-classify" --model "$work/known.edge" --json "${pictures[@]}" | jq -c '[.[].distance * 1000 | round]')
there=$(shown '[a.dataset.distance, a.querySelector(".unknown") !== null]' |
  jq -c "[.[$count + 1:][] | select(.[1]) | .[0] | tonumber * 1000 | round]")
[ "$here" = "$there" ] || { printf 'error: other distances\nhere  %s\nthere %s\n' "$here" "$there" >&2; exit 1; }
echo "unknown pictures are told, with the same distances"

#!/usr/bin/env bash
# The page of `edge-classify serve` in a real browser, Chromium without a window: pictures that are
# chosen, dropped and pasted, one that is none, the camera, a token; at 1200 and 390 pixels. Screenshots go to
# target/serve-*.png. Where edge-classify is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
mkdir -p target
work=$(mktemp -d)
service=
. scripts/browser.sh
clean() {
  close_browser
  [ -z "$service" ] || kill "$service" || true
  rm -rf "$work"
}
trap clean EXIT

start() { # OPTION…: a service; its address is $url
  : >"$work/log"
  "$bin/edge-classify" serve --listen 127.0.0.1:0 "$@" 2>"$work/log" &
  service=$!
  for _ in $(seq 100); do
    url=$(sed -n 's/.*listening on \([^,]*\),.*/\1/p' "$work/log")
    [ -z "$url" ] || return 0
    sleep 0.1
  done
  cat "$work/log" >&2
  exit 1
}
stop() { kill -TERM "$service"; wait "$service"; service=; }

browse() { # WIDTH HEIGHT
  new_session --hide-scrollbars "--window-size=$1,$2" \
    --use-fake-device-for-media-stream --use-fake-ui-for-media-stream
  # A window is never narrower than 500 pixels; a phone is.
  request /goog/cdp/execute "$(jq -nc --argjson w "$1" --argjson h "$2" '{cmd: "Emulation.setDeviceMetricsOverride",
    params: {width: $w, height: $h, deviceScaleFactor: 1, mobile: ($w < 500)}}')" >/dev/null
}
open_page() {
  request /url "$(jq -nc --arg url "$url/" '{url: $url}')" >/dev/null
  wait_for 'document.getElementById("about").textContent.includes("classes")'
}
give() { # FILE…: as a user would choose them
  local input file count
  input=$(request /element '{"using":"css selector","value":"#file"}' | jq -r '.[]')
  for file in "$@"; do
    count=$(script 'document.querySelectorAll("article").length')
    request "/element/$input/value" "$(jq -nc --arg text "$(realpath "$file")" '{text: $text}')" >/dev/null
    wait_for "document.querySelectorAll('article').length > $count"
  done
  settled
}
settled() { wait_for '[...document.querySelectorAll("article")].every((a) => a.querySelector("ol, .error") !== null)'; }
click() { script "document.getElementById('$1').click()" >/dev/null; }
shoot() { # NAME: the whole page
  local height
  height=$(script 'document.documentElement.scrollHeight')
  request /goog/cdp/execute '{"cmd":"Page.captureScreenshot","params":{"captureBeyondViewport":true}}' |
    jq -r .data | base64 -d >"target/serve-$1.png"
  [ "$(script 'document.documentElement.scrollWidth <= innerWidth')" = true ] ||
    { echo "error: $1 is wider than its window" >&2; exit 1; }
}
labels() { script '[...document.querySelectorAll("article")].map((a) => a.querySelector("li span")?.textContent ?? a.querySelector(".error").textContent).reverse()'; }

start_driver
echo '<!doctype html>no picture' >"$work/page.jpg"
pictures=(samples/pictures/*.png samples/pictures/*.jpg)
want=$("$bin/edge-classify" --json --top 1 "${pictures[@]}" 2>/dev/null | jq -c '[.[].classes[0].label | gsub("_"; " ")]')

start
for size in "1200 900" "390 844"; do
  browse $size
  width=${size% *}
  open_page
  shoot "$width-empty"
  give "${pictures[@]}" "$work/page.jpg"
  jq -ne --argjson got "$(labels)" --argjson want "$want" \
    '$got[:-1] == $want and ($got[-1] | contains("web page"))' >/dev/null ||
    { echo "error: at $width pixels the page says $(labels), the program $want" >&2; exit 1; }
  shoot "$width-results"
done

# Dropped and pasted.
small=crates/picture/tests/fixtures/420.jpg
small_label=$("$bin/edge-classify" --json --top 1 $small | jq -c '[.[].classes[0].label | gsub("_"; " ")]')
for event in drop paste; do
  open_page
  field=$([ $event = drop ] && echo dataTransfer || echo clipboardData)
  script "(() => {
    const bytes = Uint8Array.from(atob('$(base64 -w0 $small)'), (c) => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'small.jpg', {type: 'image/jpeg'}));
    const event = new Event('$event', {bubbles: true, cancelable: true});
    event.$field = data;
    document.body.dispatchEvent(event);
  })()" >/dev/null
  wait_for 'document.querySelector("article ol") !== null'
  [ "$(labels)" = "$small_label" ] || { echo "error: $event gives $(labels)" >&2; exit 1; }
done

# The browser's pretended camera.
open_page
click open
wait_for '!document.getElementById("camera").hidden && document.getElementById("video").videoWidth > 0'
click shoot
wait_for 'document.querySelector("article ol") !== null'
shoot 390-camera
click close
wait_for 'document.getElementById("camera").hidden'
# What the policy forbids is reported; nothing is.
errors=$(curl -sS -H 'Content-Type: application/json' -d '{"type":"browser"}' "$session/se/log" | jq -c '[.value[] | select(.level == "SEVERE") | .message | select(contains("422") | not)]')
[ "$errors" = '[]' ] || { echo "error: the browser complains: $errors" >&2; exit 1; }
stop

start --token secret
open_page
input=$(request /element '{"using":"css selector","value":"#file"}' | jq -r '.[]')
request "/element/$input/value" "$(jq -nc --arg text "$(realpath samples/pictures/rocket.jpg)" '{text: $text}')" >/dev/null
wait_for '!document.getElementById("login").hidden'
shoot 390-token
script 'document.getElementById("token").value = "secret"' >/dev/null
script 'document.getElementById("login").requestSubmit()' >/dev/null
wait_for 'document.querySelector("article ol") !== null'
stop
echo "the page: chosen, dropped, pasted and photographed pictures, a token, at 1200 and 390 pixels"

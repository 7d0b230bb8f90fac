# Chromium without a window, as WebDriver has it: what the tests of pages share. Sourced, with a folder $work for its
# log; close_browser is the caller's to call in the end.
if ! { command -v chromium && command -v chromedriver && command -v jq && command -v curl; } >/dev/null; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends chromium chromium-driver jq curl >/dev/null
fi
driver= session=

start_driver() {
  chromedriver --port=0 >"$work/driver.log" 2>&1 &
  driver=$!
  for _ in $(seq 100); do
    port=$(sed -n 's/.*successfully on port \([0-9]*\).*/\1/p' "$work/driver.log")
    [ -z "$port" ] || break
    sleep 0.1
  done
}
close_session() { [ -z "$session" ] || curl -s -X DELETE "$session" >/dev/null || true; }
close_browser() {
  close_session
  [ -z "$driver" ] || kill "$driver" || true
}
request() { # PATH JSON: the answer's value
  curl -sS --fail-with-body -H 'Content-Type: application/json' -d "$2" "$session$1" | jq -c .value
}
new_session() { # ARGUMENT…: of Chromium, in place of the session before
  close_session
  session=http://127.0.0.1:$port/session
  session+=/$(request "" "$(printf '%s\n' --headless=new --no-sandbox "$@" | jq -Rnc \
    '{capabilities: {alwaysMatch: {"goog:chromeOptions": {args: [inputs]}}}}')" | jq -r .sessionId)
}
script() { request /execute/sync "$(jq -nc --arg script "return $1" '{script: $script, args: []}')"; }
wait_for() { # EXPRESSION: until it is true
  for _ in $(seq 300); do
    [ "$(script "$1")" != true ] || return 0
    sleep 0.1
  done
  echo "error: the page never got so far that $1" >&2
  script 'document.body.innerText' >&2
  exit 1
}

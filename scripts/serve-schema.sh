#!/usr/bin/env bash
# Requests that are made of the service's description, good ones and bad ones, by schemathesis: each answer
# has to be one that is described. Bytes that are no picture are as described, too, and rightly refused: that
# alone is not checked. Without schemathesis, it is installed into a virtual environment of its
# own. Where edge-classify is built already: EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${EDGE_BIN:-}" ] || cargo build -q --release --locked -p edge-classify
bin=${EDGE_BIN:-${CARGO_TARGET_DIR:-target}/release}
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools/schemathesis")
schemathesis=$(command -v schemathesis || echo "$tools/bin/schemathesis")
[ -x "$schemathesis" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install -q schemathesis; }
work=$(mktemp -d)
service=
trap '[ -z "$service" ] || kill "$service" || true; rm -rf "$work"' EXIT
run() { # OPTION-OF-SERVE… -- OPTION-OF-SCHEMATHESIS…
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  "$bin/edge-classify" serve --listen 127.0.0.1:0 "${options[@]}" 2>"$work/log" &
  service=$!
  for _ in $(seq 100); do
    url=$(sed -n 's/.*listening on \([^,]*\),.*/\1/p' "$work/log")
    [ -z "$url" ] || break
    sleep 0.1
  done
  (cd "$work" && "$schemathesis" run "$url/openapi.json" --max-examples 300 --exclude-checks positive_data_acceptance --workers 4 --phases examples,coverage,fuzzing "$@")
  # It still answers, and has met no fault of its own.
  ! curl -sS --fail-with-body -H 'Authorization: Bearer secret' "$url/metrics" | grep 'status="5' | grep -v '"503"'
  kill -TERM $service
  wait $service
  service=
}
run --
run --token secret -- -H 'Authorization: Bearer secret'

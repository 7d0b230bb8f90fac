#!/usr/bin/env bash
# same-logits.sh JSON BOARD: the logits that edge-classify printed as JSON and those in the
# board's `logit CLASS VALUE` lines are the same numbers, to the last digit.
set -euo pipefail
here=$(grep -o '\[\[.*\]\]' <<<"$1" | tr -d '[]' | tr ',' '\n' | sed 's/\.0$//')
board=$(sed -n 's/^logit [0-9]* //p' <<<"$2" | tr -d '\r' | sed 's/\.0$//')
if [ -z "$here" ] || [ "$here" != "$board" ]; then
  printf 'logits differ:\nhere\n%s\nboard\n%s\n' "$here" "$board" >&2
  exit 1
fi
echo "same logits: $(tr '\n' ' ' <<<"$here")"

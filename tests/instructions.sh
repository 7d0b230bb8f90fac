#!/usr/bin/env bash
# Counts the instructions of fixed workloads, which noise does not change, and fails where one takes 2 %
# more than `instructions.txt` says; `--update` writes what was counted there.
#
# Needs valgrind, whose CPU has AVX2 and no AVX-512, and programs of `cargo build --release` in $EDGE_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${EDGE_BIN:-target/release}
file=tests/instructions.txt
rust=$(rustc -V | cut -d' ' -f2)

count() {
  local name=$1
  shift
  local said
  said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null) ||
    { echo "error: $name: $said" >&2; exit 1; }
  echo "$name $(sed -n 's/.*Collected : //p' <<<"$said")"
}

counted=$(
  count photo "$bin/edge-classify" --threads 1 samples/pictures/rocket.jpg
  count icon "$bin/edge-classify" --threads 1 --model models/resnet_20_cifar10.edge samples/pictures/chelsea.png
  count resnet_8 "$bin/edge-classify" --threads 1 --model models/resnet_8_cifar10.edge --logits \
    --tensor tests/fixtures/versions/7-input.npy
  count training_step "$bin/trainer" bench --arch resnet_8_cifar --batch 4 --steps 1 --threads 1
)
if [ "${1:-}" = --update ]; then
  { echo "rustc $rust"; echo "$counted"; } >$file
  cat $file
  exit
fi
if [ "$(sed -n 's/^rustc //p' $file)" != "$rust" ]; then
  echo "SKIPPED: $file was counted with rustc $(sed -n 's/^rustc //p' $file), this is $rust; count anew with --update"
  exit
fi
while read -r name now; do
  was=$(sed -n "s/^$name //p" $file)
  awk -v name="$name" -v now="$now" -v was="${was:-0}" 'BEGIN {
    if (!was) { print "error: " name " is not in the file; count it with --update"; exit 1 }
    printf "%-14s %11d instructions, %+.2f %%\n", name, now, (now / was - 1) * 100
    exit now > was * 1.02
  }' || failed=1
done <<<"$counted"
[ -z "${failed:-}" ] || { echo "error: more than 2 % above $file" >&2; exit 1; }

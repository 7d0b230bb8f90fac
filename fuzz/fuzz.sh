#!/usr/bin/env bash
# Fuzzes every reader for some seconds each, with AddressSanitizer: fuzz.sh [SECONDS [TARGET…]]. Wants nightly
# Rust and `cargo install cargo-fuzz`. What is found lies in artifacts/, what was learned in corpus/;
# fuzz.sh --keep packs the small files of it that together reach all that it reaches, for the tests.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
[ $# -gt 0 ] || set -- artifact burnpack checkpoint folder hdf5 keras onnx patch pickle picture safetensors tflite torch
if [ "$seconds" = --keep ]; then
  for target; do
    mkdir -p kept/"$target" small/"$target"
    find "corpus/$target" -size -12k -exec cp -t "small/$target" {} +
    # What was kept before, however large: made by hand, of numbers that are zero.
    tar xzf corpus.tar.gz -C small "./$target"
    cargo +nightly fuzz run "$target" "kept/$target" "small/$target" -- -set_cover_merge=1 -use_counters=0 \
      -max_len=262144
  done
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - -C kept . | gzip -9n >corpus.tar.gz
  rm -r kept small
  exit
fi
# What lies elsewhere, by the kind of file.
kinds() {
  case $1 in
    artifact) echo edge ;;
    burnpack) echo bpk ;;
    checkpoint) echo mpk ;;
    hdf5) echo h5 ;;
    pickle) echo th ;;
    picture) echo jpg ;;
    torch) echo pt ;;
    *) echo "$1" ;;
  esac
}
for target; do
  mkdir -p "corpus/$target"
  # What a corpus was never made of has seeds alone.
  tar xzf corpus.tar.gz -C corpus "./$target" 2>/dev/null || true
  find ../tests/fixtures ../models ../crates/picture/tests/fixtures -size -256k -name "*.$(kinds "$target")" \
    -exec cp -n {} "corpus/$target/" \;
  [ ! -d "seeds/$target" ] || cp -n "seeds/$target"/* "corpus/$target/"
  echo "== $target"
  cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
    -max_len=262144 -print_final_stats=1 2>&1 | grep -aE "number_of_executed|cov:|SUMMARY|panicked" | tail -4
done

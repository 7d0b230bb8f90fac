#!/usr/bin/env bash
# Checks that the library compiles for every class of device with each set of features that makes sense
# there, without a warning. `check-targets.sh +deb` uses that toolchain, which has no lints.
set -euo pipefail
cd "$(dirname "$0")"
command=(clippy)
# Without std, what an x86 CPU has is known when it is compiled: `false && false`.
lints=(-- -D warnings -A clippy::eq_op -A clippy::nonminimal_bool)
[ -z "${1:-}" ] || { command=("$1" check); lints=(); }

while read -r target device sets; do
  for features in $sets; do
    printf '%-28s %-10s %s\n' "$target" "$device" "$features"
    cargo "${command[@]}" -q --release --locked --target "$target" --no-default-features \
      --features "${features#-}" "${lints[@]}"
  done
done <<'TABLE'
thumbv6m-none-eabi          Cortex-M0  - alloc float host signature
thumbv7em-none-eabihf       Cortex-M4  - alloc float host signature alloc,float,signature
thumbv8m.main-none-eabihf   Cortex-M33 - alloc float host signature alloc,float,signature
riscv32imc-unknown-none-elf ESP32-C3   - alloc float host signature
wasm32-unknown-unknown      browsers   - alloc,host alloc,host,signature std
x86_64-unknown-linux-gnu    PCs        - alloc host std,signature
TABLE

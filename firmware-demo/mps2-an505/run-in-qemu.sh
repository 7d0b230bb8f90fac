#!/usr/bin/env bash
# Runs a firmware file in QEMU; its exit status is the firmware's. `-icount` makes counts repeatable.
exec timeout 120 qemu-system-arm -M mps2-an505 -nographic -monitor none -serial none \
  -icount shift=6 -semihosting-config enable=on,target=native -kernel "$1"

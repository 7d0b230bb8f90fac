#!/usr/bin/env bash
# Runs a firmware file in QEMU; its exit status is the firmware's. `-icount` makes counts repeatable.
exec timeout 120 qemu-system-riscv32 -M virt -bios none -nographic -monitor none -serial stdio \
  -icount shift=0 -kernel "$1"

# Sourced by the scripts that make packages, at the repository's root: an environment in which the profile
# `dist` gives the same bytes in every folder and at any time, and `dist_environment TARGET`, which adds linker,
# C compiler and flags for a target.

# The last commit's; without a history, the version's is all that is known.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
umask 022

dist_environment() {
  local target=$1 name gcc from maps flags=()
  case $target in
    aarch64-*) gcc=aarch64-linux-gnu-gcc ;;
    armv7-*) gcc=arm-linux-gnueabihf-gcc ;;
    *) gcc=gcc ;;
  esac
  # For musl, too: the little that is compiled from C needs headers on which all libraries agree.
  name=CC_${target//-/_}
  export "$name=${!name:-$gcc}"
  name=${target//-/_}
  name=CARGO_TARGET_${name^^}_LINKER
  [[ $target == wasm32-* ]] || export "$name=${!name:-$gcc}"
  # Messages of panics name files: those of no folder of this machine.
  maps=("$PWD=/edge-resnet" "$(realpath -m "${CARGO_TARGET_DIR:-target}")=/target")
  for from in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    maps+=("$from=/crates")
  done
  maps+=("$(rustc --print sysroot)/lib/rustlib/src/rust=/rust")
  for from in "${maps[@]}"; do
    flags+=("--remap-path-prefix=$from")
  done
  case $target in
    *-musl*) flags+=(-Ctarget-feature=+crt-static) ;;
    wasm32-*) flags+=(-Ctarget-feature=+simd128) ;; # these flags take the place of web/.cargo/config.toml's
  esac
  # Separated by what no path has.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
  name=CFLAGS_${target//-/_}
  export CARGO_ENCODED_RUSTFLAGS CC_SHELL_ESCAPED_FLAGS=1 "$name=$(printf -- '-ffile-prefix-map=%q ' "${maps[@]}")"
}

#!/usr/bin/env bash
# Makes what people download instead of compiling, into target/release-files: for each TARGET an archive of the
# programs and a Debian package of edge-classify, then the page for browsers, all with licences and a bill of
# materials, and SHA256SUMS. Each program is started and classifies a photo first, in QEMU where it is another
# machine's. From the same sources by the same compilers always the same bytes (scripts/reproducible.sh).
#   release.sh [TARGET…]   Linux on x86-64 and 64-bit Arm, with musl: one program for any distribution; and on
#                          32-bit Arm, with this machine's glibc
#   EDGE_PROGRAMS          which of `edge-classify convert trainer`; all. `trainer` takes long to compile
#   EDGE_SIGNING_KEY       private key (Ed25519, PEM, `openssl genpkey -algorithm ed25519`) to sign SHA256SUMS with
#   EDGE_BIN               where the examples `manual` and `manuals`, which write man pages, are built already
set -euo pipefail
cd "$(dirname "$0")/.."
targets=("$@")
[ $# -gt 0 ] || targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-gnueabihf)
read -ra programs <<<"${EDGE_PROGRAMS:-edge-classify convert trainer}"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
build=${CARGO_TARGET_DIR:-target}
out=$build/release-files
doc=share/doc/edge-resnet
host=$(rustc -vV | sed -n 's/^host: //p')
declare -A crates=([edge-classify]=edge-classify [convert]=edge-convert [trainer]=edge-trainer)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" || true; rm -rf "$work"' EXIT
source scripts/dist-env.sh
say() { printf '%s (after %d s)\n' "$*" $SECONDS >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
for program in "${programs[@]}"; do
  [ -n "${crates[$program]:-}" ] || fail "EDGE_PROGRAMS: there is no \`$program\`, only ${!crates[*]}"
done
[ -z "${EDGE_SIGNING_KEY:-}" ] || openssl pkey -in "$EDGE_SIGNING_KEY" -noout ||
  fail "EDGE_SIGNING_KEY is no private key in PEM"

# What a target is compiled and tried with.
tools() { # TARGET
  local packages=()
  case $1 in
    aarch64-*) command -v aarch64-linux-gnu-gcc >/dev/null || packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
    armv7-*) command -v arm-linux-gnueabihf-gcc >/dev/null || packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross) ;;
  esac
  { command -v qemu-aarch64 && command -v qemu-arm; } >/dev/null || packages+=(qemu-user)
  command -v xz >/dev/null || packages+=(xz-utils)
  command -v curl >/dev/null || packages+=(curl)
  command -v python3 >/dev/null || packages+=(python3)
  if [ ${#packages[@]} -gt 0 ]; then
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  fi
  [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || rustup -q target add "$1"
}

# What starts a target's programs: nothing, or an emulator.
runner() { # TARGET
  case $1 in
    "${host%%-*}"-*) run=() ;;
    aarch64-*) run=(qemu-aarch64 -L /usr/aarch64-linux-gnu) ;;
    armv7-*) run=(qemu-arm -L /usr/arm-linux-gnueabihf) ;;
    *) fail "$1: no emulator is known for it" ;;
  esac
}

try_serve() { # TARGET EDGE-CLASSIFY
  local log=$work/serve.log address= answer
  "${run[@]}" "$2" serve --listen 127.0.0.1:0 2>"$log" &
  server=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/.*listening on \(http:[^,]*\).*/\1/p' "$log")
    [ -z "$address" ] || break
    sleep 0.1
  done
  [ -n "$address" ] || fail "$1: serve does not listen: $(cat "$log")"
  answer=$(curl -sS --max-time 60 -F file=@samples/pictures/coffee.png "$address/classify?top=1" || true)
  kill -TERM $server
  wait $server || fail "$1: serve does not end well"
  server=
  grep -q espresso <<<"$answer" || fail "$1: serve answers $answer"
}

# Each program classifies, or makes what classifies, the same everywhere.
try() { # TARGET FOLDER
  local photos=(samples/pictures/*.png samples/pictures/*.jpg) run=() program logits
  runner "$1"
  for program in "${programs[@]}"; do
    case $program in
      edge-classify)
        logits=$("${run[@]}" "$2/edge-classify" --logits "${photos[@]}") || fail "$1: edge-classify fails"
        [ -e "$work/logits" ] || echo "$logits" >"$work/logits"
        [ "$logits" = "$(cat "$work/logits")" ] || fail "$1: other logits than ${targets[0]}'s"
        "${run[@]}" "$2/edge-classify" --top 1 samples/pictures/coffee.png | grep espresso
        try_serve "$1" "$2/edge-classify"
        ;;
      convert)
        "${run[@]}" "$2/convert" models/resnet_8_cifar10.mpk -o "$work/f32.edge" >/dev/null
        "${run[@]}" "$2/convert" inspect "$work/f32.edge" >/dev/null
        rm "$work/f32.edge"
        ;;
      trainer)
        "${run[@]}" "$2/trainer" classify --preset models/mobilenet_v2.mpk --top 1 samples/pictures/coffee.png |
          grep espresso
        ;;
    esac
  done
}

# Man pages and completions, which are the same for each target; of edge-classify, its Debian package has them.
manuals() {
  [ -d "$work/manuals" ] || {
    say "writing man pages"
    [ -n "${EDGE_BIN:-}" ] ||
      env -u CARGO_ENCODED_RUSTFLAGS cargo build -q --release --locked -p edge-tests --example manuals
    "${EDGE_BIN:-$build/release}/examples/manuals" "$work/manuals"
    gzip -9n "$work"/manuals/*.1
  }
}

put_manual() { # PROGRAM FOLDER
  local page share=$2/share
  manuals
  for page in "$work/manuals/$1".1.gz "$work/manuals/$1"-*.1.gz; do
    install -D -m 644 "$page" "$share/man/man1/$(basename "$page")"
  done
  install -D -m 644 "$work/manuals/$1.bash" "$share/bash-completion/completions/$1"
  install -D -m 644 "$work/manuals/_$1" "$share/zsh/vendor-completions/_$1"
  install -D -m 644 "$work/manuals/$1.fish" "$share/fish/vendor_completions.d/$1.fish"
}

pack() { # NAME: the folder of that name in $work, as NAME.tar.xz
  tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -c "$1" |
    xz -T1 -9e >"$out/$1.tar.xz"
}

rm -rf "$out"
mkdir -p "$out"
for target in "${targets[@]}"; do
  tools "$target"
  cargo fetch -q --locked --target "$target"
  dist_environment "$target"
  chosen=()
  for program in "${programs[@]}"; do
    say "$target: compiling $program"
    # One by one, so that none gets what another asks of a crate.
    cargo build -q --profile dist --locked -p "${crates[$program]}" --target "$target"
    chosen+=("${crates[$program]}=$program")
  done
  say "$target: starting ${programs[*]}"
  try "$target" "$build/$target/dist"
  name=edge-resnet-$version-${target%%-*}-linux
  mkdir -p "$work/$name/bin"
  if [[ " ${programs[*]} " == *" edge-classify "* ]]; then
    package=$(env -u CARGO_ENCODED_RUSTFLAGS bash scripts/deb.sh "$target")
    cp "$package" "$out/"
    # What the package has, laid out as below /usr/local.
    dpkg-deb -x "$package" "$work/deb"
    cp -r "$work/deb/usr/." "$work/$name"
    rm -rf "$work/deb"
    mv "$work/$name/share/doc/edge-classify" "$work/$name/$doc"
    rm "$work/$name/$doc/copyright"
    sed -i 's|/usr/bin/|/usr/local/bin/|' "$work/$name/lib/systemd/system/edge-classify.service"
  fi
  for program in "${programs[@]}"; do
    install -m 755 "$build/$target/dist/$program" "$work/$name/bin/"
    [ "$program" = edge-classify ] || put_manual "$program" "$work/$name"
  done
  mkdir -p "$work/$name/$doc"
  cp README.md SECURITY.md LICENSE-APACHE LICENSE-MIT docs/*.md "$work/$name/$doc/"
  cp models/README.md "$work/$name/$doc/models.md"
  python3 scripts/notices.py --target "$target" --out "$work/$name/$doc" "${chosen[@]}"
  for folder in "$PWD" "$(realpath "$build")" "${CARGO_HOME:-$HOME/.cargo}"; do
    ! grep -rqF -- "$folder/" "$work/$name/bin" || fail "$target: a program names $folder"
  done
  pack "$name"
  rm -rf "${work:?}/$name"
done

say "the page"
name=edge-web-$version
tools wasm32-unknown-unknown
cargo fetch -q --locked --manifest-path web/Cargo.toml
dist_environment wasm32-unknown-unknown
mkdir "$work/$name"
bash web/build.sh models/mobilenet_v2.edge "$work/$name/edge-web.html" >&2
cp LICENSE-APACHE LICENSE-MIT "$work/$name/"
python3 scripts/notices.py --manifest web/Cargo.toml --target wasm32-unknown-unknown --out "$work/$name" \
  edge-web
pack "$name"

cd "$out"
sha256sum -- *.deb *.tar.xz >SHA256SUMS
if [ -n "${EDGE_SIGNING_KEY:-}" ]; then
  openssl pkey -in "$EDGE_SIGNING_KEY" -pubout -out "$work/public.pem"
  openssl pkeyutl -sign -inkey "$EDGE_SIGNING_KEY" -rawin -in SHA256SUMS -out SHA256SUMS.sig
  openssl pkeyutl -verify -pubin -inkey "$work/public.pem" -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
else
  echo "UNSIGNED: without EDGE_SIGNING_KEY, SHA256SUMS tells damage but not who made these files" >&2
fi
ls -l
say "done"

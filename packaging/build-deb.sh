#!/usr/bin/env bash
# Builds the Debian package into target/debian/, and prints its path last.
#
#   packaging/build-deb.sh           builds the release binary and packs it
#   packaging/build-deb.sh BINARY    packs this one
#
# Man pages and completions are written by the very binary that is packed. Exit code 69: there is no cargo-deb, and it cannot be
# installed.
set -euo pipefail
target=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "$0")/../target}")
binary=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."

export PATH="$target/cargo-deb/bin:$PATH"
if ! cargo deb --version >/dev/null 2>&1; then
  echo "There is no cargo-deb: it is installed into $target/cargo-deb" >&2
  # Not into this project's target directory: what it is built from shall not stay.
  env -u CARGO_TARGET_DIR cargo install cargo-deb --version ^3 --locked --root "$target/cargo-deb" || exit 69
fi
if [[ -z $binary ]]; then
  cargo build --release --locked --package quorate
  binary=$target/release/quorate
fi

# cargo-deb looks for all that was built in release/ of the target directory: here is one with nothing else in it.
stage=$target/package
rm -rf "$stage"
mkdir -p "$stage/release/man" "$stage/release/completions"
cp --reflink=auto "$binary" "$stage/release/quorate"
"$binary" man "$stage/release/man"
gzip -9 --no-name "$stage"/release/man/*
for shell in bash zsh fish; do
  "$binary" completions "$shell" >"$stage/release/completions/$shell"
done
CARGO_TARGET_DIR=$stage cargo deb --quiet --package quorate --no-build --strip --output "$target/debian/"

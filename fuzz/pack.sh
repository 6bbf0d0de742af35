#!/usr/bin/env bash
# Puts what fuzzing needs into a folder that runs on another x86-64 Linux, where nothing is installed
# (after cmake --build --preset fuzz): fuzz/pack.sh FOLDER, there FOLDER/run.sh.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
cd "$(dirname "$0")/.."
pack=$1
mkdir -p "$pack"/{bin,lib,source/tests/golden/openelm-tiny-kvp-c,source/tests/data}
cp -r fuzz/run.sh fuzz/*.dict fuzz/seeds "$pack"
cp tests/data/tokenizer.model "$pack/source/tests/data"
for part in base auxiliary; do
  mkdir -p "$pack/source/tests/golden/openelm-tiny-kvp-c/$part"
  cp tests/golden/openelm-tiny-kvp-c/$part/config.json "$pack/source/tests/golden/openelm-tiny-kvp-c/$part"
done
# Symbols stay, lines of the source do not.
for program in build/fuzz/fuzz_*; do
  [ -x "$program" ] && [ -f "$program" ] || continue
  strip --strip-debug -o "$pack/bin/${program##*/}" "$program"
done
# All but the C library, which has to fit the other machine's loader.
ldd "$pack"/bin/* | awk '$3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv)\.so' | xargs -I{} cp -L {} "$pack/lib"

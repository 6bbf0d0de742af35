#!/usr/bin/env bash
# What a change has to pass beside `make test`, which has to have been run (it builds the program):
#   scripts/check.sh [format] [instructions]      # both without an argument
#     format        clang-format changes nothing
#     instructions  prefill and decode take no more instructions than are kept (callgrind; GCC 12)
# Tests under sanitizers: make asan; fuzzing: fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- format instructions
scripts/install-dependencies.sh check

format() {
  git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run -Werror
}

instructions() {
  scripts/instruction-counts.py build/release/kvcast
}

for stage in "$@"; do
  case $stage in format | instructions) ;; *)
    echo "$0: unknown stage $stage: expected format or instructions" >&2
    exit 2 ;;
  esac
  begin=$SECONDS
  echo "== $stage"
  ( set -e; "$stage" )
  echo "== $stage: fine, $((SECONDS - begin)) s"
done

#!/usr/bin/env bash
# What is tried at every change beside the tests of `make test`, which has to have been run (it builds the program):
#   scripts/check.sh [format] [instructions] [sanitizers] [fuzz]      # all four without an argument
#     format        clang-format changes nothing
#     instructions  prefill and decode take no more instructions than are kept (callgrind)
#     sanitizers    unit, malformed and server tests under AddressSanitizer and UndefinedBehaviorSanitizer
#     fuzz          every fuzz target for FUZZ_SECONDS (60), as many at a time as there are processors
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
[ $# -gt 0 ] || set -- format instructions sanitizers fuzz
scripts/install-dependencies.sh check

sanitized() {
  [ -e build/fuzz/build.ninja ] || cmake --preset fuzz -DKVCAST_BUILD_TESTS=ON > build/fuzz-configure.log
  cmake --build build/fuzz -j "$jobs" --target "$@"
}

format() {
  git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run -Werror
}

instructions() {
  scripts/instruction-counts.py build/release/kvcast
}

sanitizers() {
  sanitized kvcast_unit_tests kvcast_malformed_tests kvcast_server_tests kvcast_program
  local tests failed=0
  for tests in unit malformed server; do
    echo "$tests tests"
    (cd build/fuzz && UBSAN_OPTIONS=print_stacktrace=1 ./kvcast_${tests}_tests --gtest_brief=1) || failed=1
  done
  return $failed
}

fuzz() {
  sanitized fuzzers
  local name names=()
  for name in fuzz/*_fuzz.cpp; do names+=("$(basename "$name" _fuzz.cpp)"); done
  printf '%s\n' "${names[@]}" | xargs -P "$jobs" -n 1 fuzz/run.sh "${FUZZ_SECONDS:-60}"
}

for stage in "$@"; do
  case $stage in format | instructions | sanitizers | fuzz) ;; *)
    echo "$0: unknown stage $stage: expected format, instructions, sanitizers or fuzz" >&2
    exit 2 ;;
  esac
  begin=$SECONDS
  echo "== $stage"
  ( set -e; "$stage" )
  echo "== $stage: fine, $((SECONDS - begin)) s"
done

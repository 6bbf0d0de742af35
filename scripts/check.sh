#!/usr/bin/env bash
# What a change has to pass beside `make test`, which has to have been run (it builds the program):
#   scripts/check.sh [STAGE...]      # without an argument all of them but tidy
#     format        clang-format changes nothing
#     instructions  prefill and decode take no more instructions than are kept (callgrind; GCC 12)
#     sanitizers    unit, malformed and server tests under AddressSanitizer and UndefinedBehaviorSanitizer (clang)
#     fuzz          every fuzz target for FUZZ_SECONDS (10) from its seeds on
#     tidy          clang-tidy on the files that differ from main, and on a TIDY_SHARE-th (40) of the others: as
#                   commits go by, each has its turn. Not all are clean yet.
# fuzz and tidy use what sanitizers has built.
set -euo pipefail
cd "$(dirname "$0")/.."
stages=(format instructions sanitizers fuzz tidy)
[ $# -gt 0 ] || set -- format instructions sanitizers fuzz
scripts/install-dependencies.sh check
jobs=${JOBS:-$(nproc)}

format() {
  git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run -Werror
}

instructions() {
  scripts/instruction-counts.py build/release/kvcast
}

sanitizers() {
  cmake --preset check > /dev/null
  cmake --build build/check -j "$jobs" --target fuzzers kvcast_program kvcast_unit_tests kvcast_malformed_tests kvcast_server_tests
  # Of the kernels only the portable ones are built, of the other folders of tests none.
  ctest --test-dir build/check -j "$jobs" --output-on-failure -E '_NOT_BUILT|^Kernel|^CorpusRecipe|^Report'
}

fuzz() {
  FUZZERS=$PWD/build/check fuzz/run.sh "${FUZZ_SECONDS:-10}" "$jobs" build/check/fuzzed
}

tidy() {
  local base files
  base=$(git merge-base HEAD origin/main 2> /dev/null || git merge-base HEAD main 2> /dev/null || git rev-parse HEAD~1)
  mapfile -t files < <({
    git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' 'apps/*.cpp'
    git ls-files 'src/*.cpp' 'apps/*.cpp' | awk -v share="${TIDY_SHARE:-40}" -v turn="$(git rev-list --count HEAD)" 'NR % share == turn % share'
  } | sort -u | grep -vE '^(src/train|apps/kvcast-train|src/kernels/isa_)')
  echo "${#files[@]} files"
  printf '%s\n' "${files[@]}" | xargs -P "$jobs" -n 1 clang-tidy -p build/check --quiet --warnings-as-errors='*'
}

for stage in "$@"; do
  case " ${stages[*]} " in *" $stage "*) ;; *)
    echo "$0: unknown stage $stage: expected one of ${stages[*]}" >&2
    exit 2 ;;
  esac
  begin=$SECONDS
  echo "== $stage"
  ( set -e; "$stage" )
  echo "== $stage: fine, $((SECONDS - begin)) s"
done

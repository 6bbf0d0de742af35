#!/usr/bin/env bash
# What CI does (.ci/run, which calls the suite itself): everything that is found by machines; 30 minutes on 2 cores are the goal.
#   scripts/check.sh [STAGE...]      # without an argument all of them, the soonest first
#     format        clang-format changes nothing
#     suite         programs, library and tests build without a warning (GCC, optimised) and every test passes; golden
#                   numbers are among them
#     instructions  prefill and decode take no more instructions than are kept (callgrind; GCC 12)
#     sanitizers    unit, malformed and server tests under AddressSanitizer and UndefinedBehaviorSanitizer (clang); the
#                   benchmarks and fuzzers compile
#     fuzz          every fuzz target for FUZZ_SECONDS (30) from its seeds on
#     tidy          clang-tidy finds nothing in the lines that differ from main, in at most TIDY_FILES (16) of the files:
#                   a file takes some 20 s of a processor, and what is older than this check is not clean yet
# instructions uses what suite has built, fuzz what sanitizers has. Every stage says how long it took; one that fails
# does not keep the others from being run.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(format suite instructions sanitizers fuzz tidy)
[ $# -gt 0 ] || set -- "${stages[@]}"
for stage in "$@"; do
  case " ${stages[*]} " in *" $stage "*) ;; *)
    echo "$0: unknown stage $stage: expected one of ${stages[*]}" >&2
    exit 2 ;;
  esac
done
scripts/install-dependencies.sh runtime trainer tests check || exit 1
jobs=${JOBS:-$(nproc)}

format() {
  git ls-files '*.cpp' '*.h' | xargs -P "$jobs" -n 40 clang-format --dry-run -Werror
}

suite() {
  make test STRICT=1 JOBS="$jobs"
}

instructions() {
  scripts/instruction-counts.py build/ci/kvcast
}

sanitizers() {
  cmake --preset check > /dev/null
  cmake --build build/check -j "$jobs" --target fuzzers benchmarks kvcast_program kvcast_unit_tests kvcast_malformed_tests kvcast_server_tests
  # Of the kernels only the portable ones are built, of the other folders of tests none. Every round of the
  # scheduler's model takes many times as long here; the suite has more of them. Left to the suite: what is about
  # shares of many draws, time and millions of entries.
  KVCAST_SCHEDULER_ROUNDS=4000 ctest --test-dir build/check -j "$jobs" --output-on-failure \
    -E '_NOT_BUILT|^Kernel|^CorpusRecipe|^Report|FrequenciesFollow|AWordOfAMegabyte|WhatIsTooMuchIsRefused'
}

fuzz() {
  FUZZ_MERGE=no FUZZERS=$PWD/build/check fuzz/run.sh "${FUZZ_SECONDS:-30}" "$jobs" build/check/fuzzed
}

tidy() {
  local base files
  # Nothing is built: only how each file would be compiled by itself is asked for.
  cmake --preset check -B build/tidy -DCMAKE_UNITY_BUILD=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON > /dev/null
  base=$(git merge-base HEAD origin/main 2> /dev/null || git merge-base HEAD main 2> /dev/null || true)
  [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=HEAD~1
  mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' 'apps/*.cpp' 'src/*.h' 'apps/*.h' 'include/*.h' |
    grep -vE '^(src/train|apps/kvcast-train|src/kernels/(isa_|simd_|.*_inl\.h))' |
    shuf -n "${TIDY_FILES:-16}" --random-source=<(yes "$(git rev-parse HEAD)"))
  echo "${#files[@]} files"
  [ ${#files[@]} -gt 0 ] || return 0
  git diff -U0 "$base" -- "${files[@]}" | clang-tidy-diff -p1 -path build/tidy -j "$jobs" -quiet 2> /dev/null | tee build/tidy/found.txt
  ! grep -E '(warning|error): ' build/tidy/found.txt > /dev/null
}

failed=()
for stage in "$@"; do
  begin=$SECONDS
  echo "== $stage"
  (set -e; "$stage")  # not as a condition, where -e would not count
  status=$?
  echo "== $stage: $([ $status -eq 0 ] && echo fine || echo FAILED), $((SECONDS - begin)) s"
  [ $status -eq 0 ] || failed+=("$stage")
done
[ ${#failed[@]} -eq 0 ] || { echo "$0: failed: ${failed[*]}" >&2; exit 1; }

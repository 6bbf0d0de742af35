#!/bin/sh
# Runs the fuzzers: fuzz/run.sh [SECONDS [NAME...]]. Needs cmake --build --preset fuzz first.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- safetensors gguf json text tokenizer spec request http template
for name; do
  corpus=build/fuzz/corpus/$name
  mkdir -p "$corpus"
  echo "fuzz_$name: $seconds s"
  log=build/fuzz/$name.log
  if ! UBSAN_OPTIONS=print_stacktrace=1 nice build/fuzz/fuzz_"$name" -max_total_time="$seconds" \
      -max_len=8192 -dict=fuzz/"$name".dict -artifact_prefix=build/fuzz/"$name"- \
      "$corpus" fuzz/seeds/"$name" 2> "$log"; then
    tail -n 60 "$log"
    exit 1
  fi
  grep -E '^Done|DONE' "$log"
done

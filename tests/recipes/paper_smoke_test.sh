#!/bin/sh
# recipes/paper/run.sh on stand-ins: every stage leaves what it should, and a second run begins nothing again.
#   paper_smoke_test.sh BUILD
set -eu

build=$1 root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() {
  KVCAST=$build/kvcast KVCAST_TRAIN=$build/kvcast-train OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} \
    "$root/recipes/paper/run.sh" --smoke "$out" "$@"
}
run > "$out/first.log" 2>&1 || { tail -20 "$out/first.log" >&2; exit 1; }

fail() { echo "paper_smoke_test.sh: $1" >&2; exit 1; }
for settings in paper ours alone; do
  [ "$(ls -d "$out/$settings"/kvp-*[!l] | grep -vc 'jsonl$')" -eq 11 ] || fail "$settings: expected eleven results"
done
for task in triviaqa arc_challenge arc_easy boolq hellaswag piqa sciq winogrande; do
  # Eleven pairs, three settings each, two bases and three small models alone, the 1.1B being both.
  [ "$(ls "$out/results/eval-$task"-*.json | wc -l)" -eq 37 ] || fail "$task: expected 37 results"
done
[ "$(ls "$out"/results/ttft-*.json "$out"/results/lengths-*.json | wc -l)" -eq 22 ] || fail "expected 22 timings"
[ "$(ls "$out"/results/analysis-*/analysis.json | wc -l)" -eq 22 ] || fail "expected 22 analyses"
grep -q 'Table 3' "$out/results/tables.md" || fail "no tables"
for pair in kvp-c-1.1b-450m kvp-lp-1.1b-0.25; do
  # A score and a time beside the published ones.
  grep -E "^\| $pair-paper " "$out/results/tables.md" | grep -q '\[' || fail "$pair: no score in the table"
done

before=$(find "$out/paper" "$out/ours" "$out/alone" "$out/results" -name '*.safetensors' -o -name 'eval-*' | xargs ls -l --time-style=full-iso)
run > "$out/second.log" 2>&1 || { tail -20 "$out/second.log" >&2; exit 1; }
after=$(find "$out/paper" "$out/ours" "$out/alone" "$out/results" -name '*.safetensors' -o -name 'eval-*' | xargs ls -l --time-style=full-iso)
[ "$before" = "$after" ] || fail "a second run began something again"

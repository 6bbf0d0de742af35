#!/bin/sh
# recipes/paper/run.sh on stand-ins: every stage leaves what it should, and a second run begins nothing again.
#   paper_smoke_test.sh BUILD [PAIR...]     two of the eleven, one of each kind of auxiliary, which is a fifth of the time
set -eu

build=$1 root=$(cd "$(dirname "$0")/../.." && pwd)
shift
[ $# -gt 0 ] || set -- kvp-c-1.1b-450m kvp-lp-1.1b-0.25
pairs=$*
# Bases and small models, which are evaluated by themselves.
alone=$(for pair; do
  name=${pair#kvp-*-}
  echo "${name%-*}"
  case $pair in kvp-c-*) echo "${name##*-}" ;; esac
done | sort -u | wc -l)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() {
  KVCAST=$build/kvcast KVCAST_TRAIN=$build/kvcast-train OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} \
    "$root/recipes/paper/run.sh" --smoke --pairs "$pairs" "$out"
}
run > "$out/first.log" 2>&1 || { tail -20 "$out/first.log" >&2; exit 1; }

fail() { echo "paper_smoke_test.sh: $1" >&2; exit 1; }
for settings in paper ours alone; do
  [ "$(ls -d "$out/$settings"/kvp-*[!l] | grep -vc 'jsonl$')" -eq $# ] || fail "$settings: expected $# results"
done
for task in triviaqa arc_challenge arc_easy boolq hellaswag piqa sciq winogrande; do
  [ "$(ls "$out/results/eval-$task"-*.json | wc -l)" -eq $((3 * $# + alone)) ] || fail "$task: expected $((3 * $# + alone)) results"
done
[ "$(ls "$out"/results/ttft-*.json "$out"/results/lengths-*.json | wc -l)" -eq $((2 * $#)) ] || fail "expected $((2 * $#)) timings"
[ "$(ls "$out"/results/analysis-*/analysis.json | wc -l)" -eq $((2 * $#)) ] || fail "expected $((2 * $#)) analyses"
grep -q 'Table 3' "$out/results/tables.md" || fail "no tables"
for pair; do
  # A score and a time beside the published ones.
  grep -E "^\| $pair-paper " "$out/results/tables.md" | grep -q '\[' || fail "$pair: no score in the table"
done

before=$(find "$out/paper" "$out/ours" "$out/alone" "$out/results" -name '*.safetensors' -o -name 'eval-*' | xargs ls -l --time-style=full-iso)
run > "$out/second.log" 2>&1 || { tail -20 "$out/second.log" >&2; exit 1; }
after=$(find "$out/paper" "$out/ours" "$out/alone" "$out/results" -name '*.safetensors' -o -name 'eval-*' | xargs ls -l --time-style=full-iso)
[ "$before" = "$after" ] || fail "a second run began something again"

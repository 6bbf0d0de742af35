#!/usr/bin/env bash
# Runs the fuzzers beside one another, here (after cmake --build --preset fuzz) or where fuzz/pack.sh
# put them:
#   fuzz/run.sh [SECONDS [JOBS [OUTDIR [NAME...]]]]     60 s, as many jobs as processors, build/fuzz/runs
# Each begins with its seeds and with OUTDIR/NAME, keeps what it finds new there and what is wrong in
# OUTDIR/NAME.crashes, or in OUTDIR/NAME.once if that input alone is fine when it is run again (a time-out
# where others use the machine). Afterwards OUTDIR/summary.txt has a line for each, OUTDIR/corpora.tar.gz
# what is left of the corpora when nothing is twice in them (FUZZ_MERGE=no: neither is made). Exit status 1:
# something was found.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -d "$here/bin" ]; then
  programs=$here/bin out=$here/runs
  export KVCAST_SOURCE_DIR=$here/source
  libraries=$here/lib
else
  libraries=
  programs=${FUZZERS:-$here/../build/fuzz} out=$here/../build/fuzz/runs
fi
seconds=${1:-60} jobs=${2:-$(nproc)} out=${3:-$out}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- $(cd "$here/seeds" && ls)
mkdir -p "$out/tmp"
out=$(cd "$out" && pwd)
export TMPDIR=$out/tmp UBSAN_OPTIONS=print_stacktrace=1
# Addresses of much randomness are more than this sanitizer's shadow has room for.
start="env LD_LIBRARY_PATH=$libraries"
setarch -R true 2> /dev/null && start="setarch -R $start"
# Leaks are looked for by stopping threads, which not every container allows.
if $start "$programs/fuzz_$1" -runs=1 2>&1 | grep -q 'LeakSanitizer has encountered a fatal error'; then
  export ASAN_OPTIONS=detect_leaks=0
fi
workers=$((jobs / $# > 0 ? jobs / $# : 1))
limits="-rss_limit_mb=2048 -timeout=25 -max_len=8192"

fuzz() {
  local name=$1 dictionary= input
  mkdir -p "$out/$name" "$out/$name.crashes"
  # A seed that fails the fuzzer itself would pass over.
  if ! $start "$programs/fuzz_$name" -rss_limit_mb=2048 -timeout=25 "$here/seeds/$name"/* > "$out/$name.seeds.log" 2>&1; then
    for input in "$here/seeds/$name"/*; do
      $start "$programs/fuzz_$name" -rss_limit_mb=2048 -timeout=25 "$input" > /dev/null 2>&1 || cp "$input" "$out/$name.crashes"
    done
  fi
  [ ! -e "$here/$name.dict" ] || dictionary=-dict=$here/$name.dict
  # Several findings in one run: it goes on after one.
  $start "$programs/fuzz_$name" -fork="$workers" -ignore_crashes=1 -ignore_ooms=1 -ignore_timeouts=1 \
    -max_total_time="$seconds" -print_final_stats=1 $limits $dictionary \
    -artifact_prefix="$out/$name.crashes/" "$out/$name" "$here/seeds/$name" > "$out/$name.log" 2>&1 || true
  for input in "$out/$name.crashes"/*; do
    [ -e "$input" ] || continue
    $start "$programs/fuzz_$name" $limits "$input" > "$input.log" 2>&1 || continue
    rm "$input.log"
    mkdir -p "$out/$name.once"
    mv "$input" "$out/$name.once"
  done
  [ "${FUZZ_MERGE:-yes}" = yes ] || return 0
  rm -rf "$out/$name.least"
  mkdir "$out/$name.least"
  timeout 900 $start "$programs/fuzz_$name" -merge=1 $limits "$out/$name.least" "$here/seeds/$name" "$out/$name" \
    > "$out/$name.merge.log" 2>&1 || true
}

# The last line of each kind that libFuzzer wrote.
summary() {
  local name=$1 line found
  line=$(grep -aE '^#[0-9]+: cov: ' "$out/$name.log" | tail -n 1)
  found=$(find "$out/$name.crashes" -type f ! -name '*.log' | wc -l)
  set -- $line
  line=${1:-#0:} line=${line#\#}
  echo "$name: ${line%:} executions, cov ${3:-0}, features ${5:-0}, corpus $(ls "$out/$name.least" 2> /dev/null | wc -l) files, findings $found, not again $(ls "$out/$name.once" 2> /dev/null | wc -l)"
}

running=0
for name; do
  fuzz "$name" &
  running=$((running + 1))
  if [ $((running * workers)) -ge "$jobs" ]; then
    wait -n || true
    running=$((running - 1))
  fi
done
wait
for name; do summary "$name"; done | tee "$out/summary.txt"
[ "${FUZZ_MERGE:-yes}" != yes ] || tar -C "$out" -czf "$out/corpora.tar.gz" $(for name; do echo "$name.least"; done)
rm -rf "$TMPDIR"
! find "$out" -path '*.crashes/*' -type f | grep .

#!/bin/sh
# Trains the first bundle from text: tokenizer, shards, base, auxiliary, KV prediction, held-out
# losses. A stage whose output exists is skipped; one that was cut off goes on from its checkpoint.
#
#   recipes/first-light/train.sh [--smoke] CORPUS OUT [OPTIONS OF THE TRAINING STAGES...]
#
# CORPUS is the folder with the .zst files that data.toml names. --smoke tries every stage with a
# few tiny steps on one small file. KVCAST_TRAIN names the program (default: build/release).
set -eu

recipes=$(cd "$(dirname "$0")" && pwd)
program=${KVCAST_TRAIN:-$recipes/../../build/release/kvcast-train}
smoke=no
if [ "${1:-}" = --smoke ]; then
  smoke=yes
  shift
fi
if [ $# -lt 2 ]; then
  echo "usage: train.sh [--smoke] CORPUS OUT [OPTIONS...]" >&2
  exit 2
fi
corpus=$1 out=$2
shift 2
mkdir -p "$out"

data=$recipes/data.toml
prefix=384 suffix=128 windows=2048
if [ $smoke = yes ]; then
  data=$recipes/smoke.toml
  prefix=96 suffix=32 windows=32
  set -- --set run.steps=8 --set run.micro_batch_sequences=2 --set run.accumulation=1 \
    --set data.sequence_tokens=128 --set run.log_every=2 --set optimizer.warmup_steps=2 "$@"
fi

# stage OUTPUT COMMAND...: runs the command unless its output exists
stage() {
  if [ -e "$1" ]; then
    echo "$1: exists, skipped"
    return
  fi
  shift
  "$program" "$@"
}

stage "$out/tokenizer.model" tokenizer "$data" --set data="$corpus" --set out="$out"
stage "$out/shards/shards.json" shards "$data" --set data="$corpus" --set out="$out"
stage "$out/base" pretrain "$recipes/base.toml" --set out="$out" --resume "$@"
stage "$out/auxiliary" pretrain "$recipes/auxiliary.toml" --set out="$out" --resume "$@"
stage "$out/bundle" kvp "$recipes/kvp.toml" --set out="$out" --resume "$@"
"$program" heldout "$out/bundle" --shards "$out/shards" --prefix $prefix --suffix $suffix \
  --tail 1,16 --windows $windows > "$out/heldout.json"
cat "$out/heldout.json"

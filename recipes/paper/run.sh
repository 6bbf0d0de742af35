#!/bin/sh
# The paper's eleven pairs: trains, evaluates and tabulates any subset of them. What exists is kept, what was cut off goes on
# where it was: the same command again after a failure, or on another day with more pairs.
#
#   recipes/paper/run.sh [--smoke] [--stages "data train evaluate time analyze tables"] [--pairs "kvp-c-1.1b-270m ..."]
#       [--settings "paper ours alone"] OUT [OPTIONS...]
#
# OPTIONS go to every training run, such as --set run.steps=400. Environment:
#   WEIGHTS  OpenELM-270M, -450M, -1_1B, -3B as on Hugging Face, and Llama-2's tokenizer.model; default OUT/weights
#   TEXT     the text to train on: .jsonl or .txt, or either as .zst or .gz
#   EVAL     the evaluation files that docs/REPRODUCE.md names; those that are missing are left out
#   GPUS     processes of a training run, by torchrun; default 1
#   RESULTS  where results and tables go; default results/paper
#   KVCAST, KVCAST_TRAIN  the programs; default build/release
# --smoke runs every stage on tiny random stand-ins in a few minutes on a CPU; everything then goes to OUT.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
kvcast=${KVCAST:-$root/build/release/kvcast}
train=${KVCAST_TRAIN:-$root/build/release/kvcast-train}
all_pairs="kvp-c-1.1b-450m kvp-c-1.1b-270m kvp-lp-1.1b-0.75 kvp-lp-1.1b-0.50 kvp-lp-1.1b-0.25
  kvp-c-3b-1.1b kvp-c-3b-450m kvp-c-3b-270m kvp-lp-3b-0.75 kvp-lp-3b-0.50 kvp-lp-3b-0.25"
pairs=$all_pairs settings="paper ours alone" stages="data train evaluate time analyze tables" smoke=no
while [ $# -gt 0 ]; do
  case $1 in
    --smoke) smoke=yes; shift ;;
    --stages) stages=$2; shift 2 ;;
    --pairs) pairs=$2; shift 2 ;;
    --settings) settings=$2; shift 2 ;;
    *) break ;;
  esac
done
if [ $# -lt 1 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
  exit 2
fi
out=$1
shift
mkdir -p "$out"
weights=${WEIGHTS:-$out/weights} text=${TEXT:-} eval=${EVAL:-} gpus=${GPUS:-1}
results=${RESULTS:-$root/results/paper}
limit="" dtype=bf16 timing="" repetitions=7 lengths="128,256,512,1024" batches="1,4,8" windows=64 window=512 decode=16
if [ $smoke = yes ]; then
  weights=$out/weights eval=$here/smoke results=$out/results text=$out/text.txt gpus=1
  limit="--limit 2 --max-tokens 4" dtype=f32 timing="--timing-repetitions 1" repetitions=1 decode=2
  lengths="8,16" batches="1,2" windows=2 window=48
  set -- --device cpu --quiet --set run.steps=2 --set run.micro_batch_sequences=2 --set run.accumulation=1 \
    --set run.precision=f32 --set data.sequence_tokens=48 --set optimizer.warmup_steps=1 --set run.log_every=1 "$@"
fi
mkdir -p "$results"

# shapes_of PAIR: base and auxiliary as `kvcast bench` names them
shapes_of() {
  rest=${1#kvp-*-}
  case $1 in
    kvp-c-*) echo "openelm-${rest%-*} openelm-${rest##*-}" ;;
    *) echo "openelm-${rest%-*} openelm-${rest%-*}-lp-${rest##*-}" ;;
  esac
}

launch() {
  if [ "$gpus" -gt 1 ]; then
    torchrun --no-python --nproc-per-node "$gpus" "$train" "$@"
  else
    "$train" "$@"
  fi
}

# unless FILE COMMAND...: its output becomes FILE, which is complete or not there
unless() {
  [ -s "$1" ] && return
  file=$1
  shift
  "$@" > "$file.partial" && mv "$file.partial" "$file"
}

# Four random models with the paper's layers and hardly any width, and a text to train on.
stand_ins() {
  cat "$root"/README.md "$root"/docs/*.md > "$text"
  [ -e "$weights/tokenizer.model" ] || "$train" tokenizer "$here/smoke/data.toml" --set text="$text" --set weights="$weights" --set shards="$out/shards"
  stage_data
  while read -r name layers dim; do
    "$train" pretrain "$here/smoke/model.toml" --set shards="$out/shards" --set directory="$weights/$name" \
      --set model.layers="$layers" --set model.model_dim="$dim" --resume --device cpu --quiet
  done << 'END'
OpenELM-270M 16 32
OpenELM-450M 20 32
OpenELM-1_1B 28 48
OpenELM-3B 36 48
END
}

stage_data() {
  recipe=$here/data.toml
  [ $smoke = yes ] && recipe=$here/smoke/data.toml
  [ -e "$out/shards/shards.json" ] || "$train" shards "$recipe" --set weights="$weights" --set text="$text" --set shards="$out/shards"
}

stage_train() {
  for pair in $pairs; do
    for setting in $settings; do
      command=kvp more=""
      case $setting in
        alone) command=alone ;;
        ours) [ $smoke = yes ] && more="--set ridge.tokens=1024 --set ridge.held_out_tokens=128" ;;
      esac
      # shellcheck disable=SC2086
      launch $command "$here/$pair.toml" --set settings="$setting" --set weights="$weights" --set shards="$out/shards" \
        --set out="$out" --resume $more "$@"
      cp "$out/$setting/$pair.jsonl" "$results/train-$pair-$setting.jsonl"
    done
  done
}

# tasks: name, file, options
tasks() {
  cat << 'END'
triviaqa triviaqa-validation
humaneval HumanEval --allow-code-execution
arc_challenge arc_challenge
arc_easy arc_easy
boolq boolq
hellaswag hellaswag
piqa piqa
sciq sciq_validation
winogrande winogrande
END
}

# data_file STEM: the evaluation file of that name, compressed or not
data_file() {
  for name in "$eval/$1.jsonl.gz" "$eval/$1.jsonl"; do
    [ -e "$name" ] && echo "$name" && return
  done
  echo "$eval/$1.jsonl: not there, left out" >&2
  return 1
}

# evaluate NAME MODEL PREFILL: every task for which there is a file
evaluate() {
  name=$1 model=$2 prefill=$3
  [ -e "$model" ] || { echo "$model: not there, left out" >&2; return; }
  tasks > "$out/tasks.txt"
  while read -r task file options; do
    result=$results/eval-$task-$name.json
    [ -s "$result" ] && continue
    data=$(data_file "$file") || continue
    case $task in
      triviaqa) options="--shots 1 --shots-data $(data_file triviaqa-train)" ;;
      humaneval) ;;
      *) [ "$prefill" != kv-prediction ] || options=--predicted-scoring ;;  # as the paper scored them
    esac
    # shellcheck disable=SC2086
    if ! "$kvcast" eval "$model" --task "$task" --data "$data" --prefill "$prefill" --dtype $dtype --label "$name" $options \
      $limit $timing --out "$result" > /dev/null < /dev/null; then
      [ "$task" = humaneval ] || exit 1  # which needs a sandbox that not every machine permits
      echo "$result: left out" >&2
    fi
  done < "$out/tasks.txt"
}

bases() { for pair in $pairs; do shapes_of "$pair" | cut -d' ' -f1; done | sort -u; }

directory_of() {
  case $1 in
    openelm-1.1b) echo "$weights/OpenELM-1_1B" ;;
    *) echo "$weights/OpenELM-$(echo "${1#openelm-}" | tr 'bm' 'BM')" ;;
  esac
}

stage_evaluate() {
  pruning="exact,random:0.75,random:0.5,random:0.25,static:0.5,static:0.25"
  for last in 0.75 0.5 0.25 0.1 0.05 0.01; do pruning="$pruning,lazy:0.75-$last"; done
  for last in 0.5 0.25 0.1 0.05 0.01; do pruning="$pruning,lazy:0.5-$last"; done
  for base in $(bases); do evaluate "$base" "$(directory_of "$base")" "$pruning"; done
  for pair in $pairs; do
    case $pair in
      kvp-c-*) small=$(shapes_of "$pair" | cut -d' ' -f2) && evaluate "$small" "$(directory_of "$small")" exact ;;
    esac
    for setting in $settings; do
      spec=kv-prediction
      [ "$setting" = alone ] && spec=exact
      evaluate "$pair-$setting" "$out/$setting/$pair" $spec
    done
  done
}

# Times need no trained weights: random ones of the same shapes. In --smoke the stand-ins themselves.
stage_time() {
  unless "$results/flops.json" "$kvcast" flops -p 59 --format json
  for pair in $pairs; do
    # shellcheck disable=SC2046
    set -- $(shapes_of "$pair")
    model="--arch $1 --aux $2" batch=64
    [ $smoke = yes ] && model="$out/paper/$pair" batch=2
    specs="--prefill exact,kv-prediction,auxiliary --dtype $dtype -r $repetitions --format json"
    # shellcheck disable=SC2086
    unless "$results/ttft-$pair.json" "$kvcast" bench $model -p 59 -b $batch $specs --decode 0
    # shellcheck disable=SC2086
    unless "$results/lengths-$pair.json" "$kvcast" bench $model -p $lengths -b $batches $specs --decode $decode
  done
}

stage_analyze() {
  for pair in $pairs; do
    for setting in $settings; do
      [ "$setting" = alone ] && continue
      [ -e "$out/$setting/$pair" ] || continue
      [ -e "$results/analysis-$pair-$setting/analysis.json" ] && continue
      "$kvcast" analyze "$out/$setting/$pair" --data "$text" --limit $windows --tokens $window --dtype $dtype --label "$pair $setting" \
        --out "$results/analysis-$pair-$setting" > /dev/null
    done
  done
}

stage_tables() {
  "$here/tables.py" "$results" "$here/published.json" > "$results/tables.md.partial"
  mv "$results/tables.md.partial" "$results/tables.md"
  if python3 -c 'import jinja2, matplotlib, pandas' 2> /dev/null; then
    PYTHONPATH=$root/python python3 -m kvcast_report "$results" --out "$results/report" > /dev/null
  else
    echo "$results/report: left out, figures need python3-matplotlib, -pandas and -jinja2" >&2
  fi
  echo "$results/tables.md"
}

[ $smoke = no ] || stand_ins
for stage in $stages; do
  case $stage in
    data | train | evaluate | time | analyze | tables) "stage_$stage" "$@" ;;
    *) echo "run.sh: unknown stage $stage" >&2; exit 2 ;;
  esac
done

#!/bin/sh
# Trains the model family from text and measures it on held-out documents. A stage whose output
# exists is skipped; one that was cut off goes on from its checkpoint.
#
#   recipes/family/train.sh [--smoke] [--stages "data base auxiliaries points ablation"] TEXT OUT [OPTIONS...]
#
# TEXT is the folder that recipes/data/prepare.py wrote. OPTIONS go to every training stage, such as
# --set run.steps=400 or --device cuda. `points` trains, for every auxiliary, alone, with the
# paper's recipe and with ours; `ablation` (not among the default stages) puts one switch of ours
# back at a time. Environment: KVCAST_TRAIN, the program (default: build/release); POINTS, those to
# train; ABLATION_POINT, default 10m; SEEDS, default 11: runs with others are named NAME-seedN.
# --smoke tries every stage with a few tiny steps; TEXT is then the folder of the first light's text.
set -eu

recipes=$(cd "$(dirname "$0")" && pwd)
program=${KVCAST_TRAIN:-$recipes/../../build/release/kvcast-train}
data=$recipes/../data/data.toml
stages="data base auxiliaries points"
prefix=384 suffix=128 windows=2048
smoke=no
while [ $# -gt 0 ]; do
  case $1 in
    --smoke) smoke=yes; shift ;;
    --stages) stages=$2; shift 2 ;;
    *) break ;;
  esac
done
if [ $# -lt 2 ]; then
  echo 'usage: train.sh [--smoke] [--stages "..."] TEXT OUT [OPTIONS...]' >&2
  exit 2
fi
text=$1 out=$2
shift 2
mkdir -p "$out"
points=${POINTS:-"10m 23m lp-0.50 lp-0.75 lp-0.25"}
ablation_point=${ABLATION_POINT:-10m}
seeds=${SEEDS:-11}
shape_options="" ridge_options=""
if [ $smoke = yes ]; then
  data=$recipes/../first-light/smoke.toml
  prefix=96 suffix=32 windows=16
  shape_options="--set model.layers=4 --set model.model_dim=128"
  ridge_options="--set ridge.tokens=2048 --set ridge.held_out_tokens=512"
  set -- --set run.steps=4 --set run.micro_batch_sequences=2 --set data.sequence_tokens=128 \
    --set run.log_every=2 --set optimizer.warmup_steps=2 --device cpu "$@"
fi

# stage OUTPUT COMMAND...: runs the command unless its output exists
stage() {
  if [ -e "$1" ]; then
    echo "$1: exists, skipped" >&2
    return
  fi
  shift
  "$program" "$@"
}

# auxiliary_of TABLE POINT: the option that names the point's auxiliary
auxiliary_of() {
  case $2 in
    lp-*) echo "--set $1.keep=\"${2#lp-}\"" ;;
    *) echo "--set $1.auxiliary=$out/auxiliary-$2" ;;
  esac
}

# kvp NAME RECIPE POINT SEED OPTIONS...
kvp() {
  name=$1 recipe=$2 point=$3 seed=$4
  shift 4
  # shellcheck disable=SC2046,SC2086
  stage "$out/$name" kvp "$recipes/$recipe" --set out="$out" --set name="$name" \
    $(auxiliary_of kvp "$point") $(settings_of "$point") --set run.seed="$seed" $ridge_options --resume "$@"
}

# held_out NAME POINT BUNDLES...: their losses and shares of the gap, as OUT/NAME-POINT.json
held_out() {
  name=$1 point=$2
  shift 2
  "$program" heldout "$@" --alone "$out/alone-$point" --shards "$out/shards" --prefix $prefix \
    --suffix $suffix --tail 1,16 --windows $windows --batch 64 > "$out/$name-$point.json.partial"
  mv "$out/$name-$point.json.partial" "$out/$name-$point.json"
  echo "$out/$name-$point.json"
}

# settings_of POINT: layers of the base need smaller steps than a model of its own, and fewer
settings_of() {
  case $1 in
    lp-*) echo "--set optimizer.learning_rate=1e-3 --set run.steps=475" ;;
  esac
}

# suffixed NAME SEED: the seed is named unless it is the recipes' own
suffixed() {
  [ "$2" = 11 ] && echo "$1" || echo "$1-seed$2"
}

train_data() {
  stage "$out/tokenizer.model" tokenizer "$data" --set data="$text" --set out="$out"
  stage "$out/shards/shards.json" shards "$data" --set data="$text" --set out="$out"
}

train_base() {
  # shellcheck disable=SC2086
  stage "$out/base" pretrain "$recipes/base.toml" --set out="$out" --resume $shape_options "$@"
}

train_auxiliaries() {
  for size in 23m 10m; do
    # shellcheck disable=SC2086
    stage "$out/auxiliary-$size" pretrain "$recipes/auxiliary-$size.toml" --set out="$out" \
      --resume $shape_options "$@"
  done
}

train_points() {
  for point in $points; do
    alone=$(auxiliary_of alone "$point")
    case $point in lp-*) alone="--set alone.base=$out/base $alone" ;; esac
    # shellcheck disable=SC2046,SC2086
    stage "$out/alone-$point" alone "$recipes/alone.toml" --set out="$out" \
      --set name="alone-$point" $alone $(settings_of "$point") --resume "$@"
    # A bundle around it, so that `kvcast eval --prefill auxiliary` can judge it.
    # shellcheck disable=SC2086
    stage "$out/ridge-$point" ridge "$recipes/ridge.toml" --set out="$out" \
      --set name="ridge-$point" --set ridge.auxiliary="$out/alone-$point" $ridge_options \
      --set data.sequence_tokens=$((prefix + suffix))
    bundles="$out/ridge-$point"
    for seed in $seeds; do
      paper=$(suffixed "paper-$point" "$seed") ours=$(suffixed "ours-$point" "$seed")
      kvp "$paper" kvp-paper.toml "$point" "$seed" "$@"
      kvp "$ours" kvp.toml "$point" "$seed" "$@"
      bundles="$bundles $out/$paper $out/$ours"
    done
    # shellcheck disable=SC2086
    held_out heldout "$point" $bundles
  done
}

# One switch of ours at a time: NAME and the keys that differ.
ablations() {
  cat << 'END'
ours
no-ridge kvp.predictor_init=default
no-split kvp.split_share=0
all-split kvp.split_share=1
no-kl kvp.lambda_kl=0
no-consistency kvp.consistency=none
attention-output kvp.consistency=attention-output
paper-map kvp.layer_map=paper
kv-only-last kvp.auxiliary_kv_only_last=true kvp.lambda_auxiliary=0
auxiliary-loss-1 kvp.lambda_auxiliary=1
random-tail kvp.tail_max=16
END
}

train_ablation() {
  bundles=""
  for seed in $seeds; do
    ablations > "$out/ablations.txt"
    while read -r name keys; do
      options=""
      for key in $keys; do options="$options --set $key"; done
      bundle=$(suffixed "$name-$ablation_point" "$seed")
      # shellcheck disable=SC2086
      kvp "$bundle" kvp.toml "$ablation_point" "$seed" $options "$@" < /dev/null
      bundles="$bundles $out/$bundle"
    done < "$out/ablations.txt"
  done
  # shellcheck disable=SC2086
  held_out ablation "$ablation_point" $bundles
}

for name in $stages; do
  case $name in
    data | base | auxiliaries | points | ablation) "train_$name" "$@" ;;
    *) echo "train.sh: unknown stage $name" >&2; exit 2 ;;
  esac
done

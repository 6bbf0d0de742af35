#!/bin/sh
# From a base to a forecast, stage by stage, with one recipe; what is there already is not made anew.
#   recipes/adapt/adapt.sh RECIPE base=MODEL text=TEXT out=OUT [TABLE.KEY=VALUE ...]
# KVCAST_TRAIN names the program (build/release/kvcast-train).
set -eu
recipe=$1
shift
train=${KVCAST_TRAIN:-build/release/kvcast-train}
out=
settings=
for setting in "$@"; do
  case $setting in out=*) out=${setting#out=} ;; esac
  settings="$settings --set $setting"
done
[ -n "$out" ] || { echo "adapt.sh: expected out=FOLDER" >&2; exit 2; }
mkdir -p "$out"
[ -e "$out/shards/shards.json" ] || $train shards "$recipe" $settings
[ -e "$out/prompts.safetensors" ] || $train prompts "$recipe" $settings
grep -q '"chats"' "$out/shards/shards.json" || $train answers "$recipe" $settings
$train adapt "$recipe" --resume $settings

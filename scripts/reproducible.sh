#!/usr/bin/env bash
# Whether kvcast is the same bytes wherever and whenever it is built: two clones in folders of different names, built with
# another environment and order each, without a compiler cache; then the hashes of the program and of the library.
#   scripts/reproducible.sh [CMAKE_OPTION...]      # -DKVCAST_PORTABLE_KERNELS=ON is sooner done
# What is committed is built, by preset ci (Release), without trainer, tests and benchmarks. Exit status 1: they differ.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)} revision=$(git rev-parse HEAD) folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
built=(kvcast libkvcast.so)

build() {  # FOLDER JOBS CMAKE_OPTION...
  local tree=$1 processes=$2
  shift 2
  git clone --quiet --no-checkout . "$tree"
  git -C "$tree" checkout --quiet --detach "$revision"
  # As far as a build may see where and when it is. One job and several end in another order.
  (cd "$tree" && cmake --preset ci -DKVCAST_BUILD_TRAINER=OFF -DKVCAST_BUILD_TESTS=OFF -DKVCAST_BUILD_BENCHMARKS=OFF "$@" > /dev/null &&
    cmake --build build/ci -j "$processes" --target kvcast_program kvcast > build.log) || { cat "$tree/build.log" >&2; exit 2; }
  (cd "$tree/build/ci" && sha256sum "${built[@]}")
}

export CCACHE_DISABLE=1
first=$(TZ=UTC LC_ALL=C build "$folder/here" "$jobs" "$@")
second=$(TZ=Pacific/Kiritimati LC_ALL=C.UTF-8 USER=somebody HOSTNAME=elsewhere build "$folder/some/where/else" $((jobs + 1)) "$@")
echo "$first"
echo "$second"
[ "$first" = "$second" ] || { echo "$0: two builds of $revision differ" >&2; exit 1; }
echo "two builds of ${revision:0:12}, one hash"

#!/usr/bin/env bash
# Cross-compiles the kernels for AArch64 and runs their tests under qemu-user: on a processor with
# everything, then that a processor with less gets what it has.
#   scripts/test-aarch64.sh [BUILD_DIRECTORY]        (packages: scripts/install-dependencies.sh aarch64)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build/aarch64}

for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v "$tool" >/dev/null || {
    echo "$0: $tool not found; run scripts/install-dependencies.sh aarch64" >&2
    exit 1
  }
done

cmake -S "$root/tests/aarch64" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  --toolchain "$root/cmake/aarch64-linux-gnu.cmake" >/dev/null
cmake --build "$build" -j "$(nproc)" --target kvcast_kernel_tests
tests=$build/kvcast_kernel_tests
emulator=(qemu-aarch64 -L /usr/aarch64-linux-gnu)

shards=$(nproc)
running=()
for ((shard = 0; shard < shards; ++shard)); do
  GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "${emulator[@]}" -cpu max "$tests" \
    --gtest_brief=1 --gtest_filter='-*/portable' &
  running+=($!)
done
for shard in "${running[@]}"; do wait "$shard"; done
for processor in cortex-a72:neon neoverse-n1:neondot max:neonmmla; do
  KVCAST_EXPECTED_ISA=${processor##*:} "${emulator[@]}" -cpu "${processor%%:*}" "$tests" \
    --gtest_brief=1 --gtest_filter='Isa.ProcessorGetsTheBestThatItHas'
done

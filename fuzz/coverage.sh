#!/usr/bin/env bash
# Which lines of what a target is about its corpus reaches (clang's source-based coverage):
#   fuzz/coverage.sh [CORPORA]      a folder with NAME.least or NAME for each target; without: the seeds alone
set -euo pipefail
cd "$(dirname "$0")/.."
corpora=${1:-}
build=build/coverage
cmake -B $build -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER=clang++ -DKVCAST_BUILD_TRAINER=OFF -DKVCAST_BUILD_BENCHMARKS=OFF \
  -DKVCAST_PORTABLE_KERNELS=ON -DCMAKE_UNITY_BUILD=ON -DCMAKE_CXX_FLAGS='-O1 -fprofile-instr-generate -fcoverage-mapping' > /dev/null
cmake --build $build -j "${JOBS:-$(nproc)}" --target fuzzers > /dev/null
about() {
  case $1 in
    calls) echo src/capi ;;
    gguf) echo src/io/gguf.cpp src/io/gguf_metadata.cpp src/io/code_blocks.cpp ;;
    http) echo src/server/http_connection.cpp src/server/http_exchange.cpp src/server/http_server.cpp src/server/http_text.cpp ;;
    json) echo src/model/bundle.cpp src/model/config.cpp src/model/families src/io/json.cpp ;;
    prefix) echo src/runtime/prefix_store.cpp ;;
    recipe) echo src/train/data/recipe.cpp src/train/data/toml_reader.cpp ;;
    request) echo src/server/requests.cpp src/server/request_messages.cpp src/server/json_object.cpp src/runtime/tool_calls.cpp ;;
    safetensors) echo src/io/safetensors.cpp src/model/weight_reader.cpp ;;
    spec) echo src/prefill/strategy.cpp ;;
    template) echo src/runtime/jinja ;;
    text) echo src/tokenizer/detokenizer.cpp src/runtime/stop_matcher.cpp ;;
    tokenizer) echo src/tokenizer ;;
  esac
}
for seeds in fuzz/seeds/*; do
  name=${seeds##*/}
  inputs=("$seeds")
  for more in "$corpora/$name.least" "$corpora/$name"; do
    [ -n "$corpora" ] && [ -d "$more" ] && inputs+=("$more")
  done
  LLVM_PROFILE_FILE=$build/$name.profraw $build/fuzz_"$name" "${inputs[@]}" > /dev/null 2>&1 || echo "fuzz_$name failed" >&2
  llvm-profdata merge -sparse $build/$name.profraw -o $build/$name.profdata
  # shellcheck disable=SC2046
  llvm-cov report $build/fuzz_"$name" -instr-profile=$build/$name.profdata $(about "$name") |
    awk -v name="$name" '/^TOTAL/ { printf "%-12s lines %s of %s (%s), regions %s\n", name, $8 - $9, $8, $10, $4 }'
done

#!/usr/bin/env bash
# Installs a build into a fresh prefix, builds the README's program against it with
# find_package(kvcast), and runs it on the shipped bundle.
#   check.sh BUILD_DIR SOURCE_DIR
set -euo pipefail
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >/dev/null

# The first C++ block of the README is the program.
awk '/^```cpp$/ {inside = 1; next} /^```$/ {if (inside) exit} inside' "$source/README.md" >"$work/main.cpp"
lines=$(wc -l <"$work/main.cpp")
[ "$lines" -gt 5 ] && [ "$lines" -le 20 ] || { echo "README program has $lines lines" >&2; exit 1; }
cat >"$work/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(example CXX)
set(CMAKE_CXX_STANDARD 20)
find_package(kvcast REQUIRED)
add_executable(example main.cpp)
target_link_libraries(example PRIVATE kvcast::kvcast)
CMAKE
cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/build" >/dev/null

bundle="$work/prefix/share/kvcast/models/kvcast-65m"
answer=$("$work/build/example" "$bundle" 2>"$work/err") || { cat "$work/err" >&2; exit 1; }
[ "${#answer}" -gt 20 ] || { echo "answer too short: '$answer'" >&2; exit 1; }
grep -q 'ms to the first token' "$work/err"

# The installed program finds the shipped bundle by itself, away from the source tree.
"$work/prefix/bin/kvcast" run -p "The river" -n 4 --json | grep -q '"ttft_ms"'
echo "installed, built against, and ran: $answer"

#!/usr/bin/env bash
# Installs a build into a fresh prefix, builds the README's program with the README's CMake against
# it, and runs it on the shipped bundle; the same in C through pkg-config.
#   check.sh BUILD_DIR SOURCE_DIR
set -euo pipefail
build=$1 source=$2
work=$build/install-check
rm -rf "$work" && mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
fail() { echo "$*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/prefix" >"$work/installed"
! grep -E '^-- (Installing|Up-to-date): ' "$work/installed" | grep -qv ": $work/prefix/" || fail "installed outside the prefix"
! grep -rl "$source" "$work/prefix/lib/systemd" "$work/prefix/lib/pkgconfig" || fail "a path of the source tree"
! grep '^Exec[A-Za-z]*=/' "$work/prefix/lib/systemd/system/kvcast.service" || fail "a fixed path in the unit"
! grep -oE '\]\([^)]*\)' "$work/prefix/share/doc/kvcast/README.md" | grep -v '](https\?:' || fail "links of the installed README"

# The first block of a language in the README.
block() { awk -v fence="^\`\`\`$1\$" '$0 ~ fence {inside = 1; next} /^```$/ {if (inside) exit} inside' "$source/README.md"; }
block cpp >"$work/main.cpp"
lines=$(wc -l <"$work/main.cpp")
[ "$lines" -gt 5 ] && [ "$lines" -le 20 ] || fail "README program has $lines lines"
{ echo 'cmake_minimum_required(VERSION 3.22)'; echo 'project(example CXX)'; echo 'add_executable(your_program main.cpp)'; block cmake; } >"$work/CMakeLists.txt"
cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/build" >/dev/null

bundle="$work/prefix/share/kvcast/models/kvcast-65m"
answer=$("$work/build/your_program" "$bundle" 2>"$work/err") || { cat "$work/err" >&2; exit 1; }
[ "${#answer}" -gt 20 ] || fail "answer too short: '$answer'"
grep -q 'ms to the first token' "$work/err"
if "$work/build/your_program" >/dev/null 2>"$work/err"; then fail "no argument, and no error"; fi
grep -qi usage "$work/err" || fail "without an argument it does not say how to use it"

# C, through pkg-config.
export PKG_CONFIG_PATH="$work/prefix/lib/pkgconfig"
if command -v pkg-config >/dev/null; then
  flags=$(pkg-config --cflags --libs kvcast)
else
  flags="-I$work/prefix/include -L$work/prefix/lib -lkvcast"
fi
# shellcheck disable=SC2086
cc -std=c99 -Wall -Wextra -pedantic -Werror -o "$work/c_program" "$source/tests/install/answer.c" $flags -Wl,-rpath,"$work/prefix/lib"
"$work/c_program" "$bundle"

# The library exports its API and nothing else of ours.
if command -v nm >/dev/null; then
  exported=$(nm -DC --defined-only "$work/prefix/lib/libkvcast.so" | grep -v ' [wWvVuU] ' | awk '{$1 = $2 = ""; print}')
  strays=$(grep -Ev '^ *(kvcast_|kvcast::(Model|Session|AnswerStream|Batch|ChatFormat)::|kvcast::(parse_dtype|parse_kv_dtype|parse_drafts|check_drafts|dtype_text|fail|one_line|validate|version|commit|finish_reason_text)|(typeinfo|vtable)|KVCAST)' <<<"$exported" || true)
  [ -z "$strays" ] || fail "exported: $strays"
fi

# The installed program finds the shipped bundle by itself, away from the source tree.
"$work/prefix/bin/kvcast" run -p "The river" -n 4 --json | grep -q '"ttft_ms"'
echo "installed, built against, and ran: $answer"

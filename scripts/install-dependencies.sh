#!/usr/bin/env bash
# Installs the Debian 12 packages that kvcast is built from, if any are missing.
#   scripts/install-dependencies.sh [runtime] [trainer] [tests] [python] [deb] [models] [clients] [check] [aarch64]
set -euo pipefail

packages=()
for group in "${@:-runtime}"; do
  case $group in
    runtime) packages+=(g++ cmake ninja-build git ca-certificates libexpected-dev libfmt-dev
      nlohmann-json3-dev libcli11-dev libeigen3-dev libsentencepiece-dev libpcre2-dev
      libutf8proc-dev libboost1.81-dev zlib1g-dev libmd-dev libedit-dev) ;;
    trainer) packages+=(libtorch-dev libopenblas0-openmp libgloo-dev libtomlplusplus-dev libzstd-dev zlib1g-dev) ;;
    tests) packages+=(mold libgtest-dev libgmock-dev libbenchmark-dev zstd mandoc zsh bubblewrap python3-minimal
      python3-matplotlib python3-pandas python3-jinja2 mypy) ;;
    python) packages+=(python3 python3-pip python3-venv) ;;
    deb) packages+=(file dpkg-dev) ;;  # what CPack finds a package's dependencies with
    models) packages+=(python3 python3-pip) ;;
    clients) packages+=(python3-venv curl chromium nginx-light) ;;
    check) packages+=(clang libclang-rt-dev clang-format clang-tidy llvm valgrind python3-minimal) ;;
    aarch64) packages+=(g++-aarch64-linux-gnu qemu-user googletest) ;;
    *) echo "$0: unknown group $group: expected runtime, trainer, tests, python, deb, models, clients, check or aarch64" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || {
  echo "$0: apt-get not found; install the equivalents of: ${missing[*]}" >&2
  exit 1
}
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"

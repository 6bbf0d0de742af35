#!/usr/bin/env bash
# Other people's clients, unmodified, against a server on the shipped bundle: make test-clients.
#   tests/clients/run.sh KVCAST [OUTPUT_DIRECTORY]
# Installs the clients from PyPI into build/clients, Chromium and nginx from Debian.
set -euo pipefail
kvcast=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${2:-$root/build/clients/screenshots}
venv=$root/build/clients/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
export PATH=$venv/bin:$PATH

log=$(mktemp)
"$kvcast" serve --port 0 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null; rm -f "$log"' EXIT
for _ in $(seq 300); do
  url=$(sed -n 's/^kvcast: ready at \(.*\)\/$/\1/p' "$log")
  [ -n "$url" ] && break
  kill -0 $server || { cat "$log" >&2; exit 1; }
  sleep 0.1
done

run() { echo "== $*"; "$@"; }
run "$here/curl_check.sh" "$url"
run python "$here/openai_check.py" "$url"
run python "$here/openai_async_check.py" "$url"
run python "$here/langchain_check.py" "$url"
run python "$here/litellm_check.py" "$url"
run "$here/llm_check.sh" "$url"
run python "$here/page_check.py" "$url" "$out"
run python "$root/tests/deploy/two_servers.py" "$kvcast"

#!/usr/bin/env bash
# Other people's clients, unmodified, against a server on the shipped bundle: make test-clients.
#   tests/clients/run.sh KVCAST [OUTPUT_DIRECTORY]
# Installs the clients from PyPI into build/clients; Chromium and nginx are Debian's, and the model
# that calls tools is one of `make models`.
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
server=
stop() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait
  server=
}
trap 'stop; rm -f "$log"' EXIT
# Starts a server on a model, or the shipped bundle, and sets `url`.
serve() {
  stop
  : >"$log"
  "$kvcast" serve --port 0 "$@" 2>"$log" &
  server=$!
  for _ in $(seq 600); do
    url=$(sed -n 's/^kvcast: ready at \(.*\)\/$/\1/p' "$log")
    [ -n "$url" ] && return
    kill -0 "$server" || break
    sleep 0.1
  done
  cat "$log" >&2
  exit 1
}
run() { echo "== $*"; "$@"; }

serve
run "$here/curl_check.sh" "$url"
run python "$here/openai_check.py" "$url"
run python "$here/openai_async_check.py" "$url"
run python "$here/langchain_check.py" "$url"
run python "$here/litellm_check.py" "$url"
run "$here/llm_check.sh" "$url"
run python "$here/page_check.py" "$url" "$out"
serve qwen2.5-coder-0.5b-instruct
run python "$here/tools_check.py" "$url"
stop
run python "$root/tests/deploy/two_servers.py" "$kvcast"

#!/usr/bin/env bash
# Checks a running `kvcast serve` with curl, as people type it.
#   tests/clients/curl_check.sh [http://127.0.0.1:8080]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}
json='Content-Type: application/json'
fail() { echo "curl: $*" >&2; exit 1; }
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

curl -sf "$url/health" | grep -q ok || fail "health"
curl -sf "$url/v1/completions" -H "$json" -d '{"prompt": "The sea is", "max_tokens": 8}' | grep -q '"finish_reason"' || fail "completion"
curl -sfN "$url/v1//chat/completions/" -H 'content-type: Application/JSON; charset=utf-8' \
  -d '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": true}' | tail -n 2 | grep -q '\[DONE\]' || fail "stream"
curl -sf --http1.0 "$url/v1/models" | grep -q '"object":"list"' || fail "HTTP/1.0"
curl -sfI "$url/" | grep -qi '^date:' || fail "HEAD"
curl -sf --compressed -H 'Expect: 100-continue' "$url/v1/completions" -H "$json" -d '{"prompt": "a", "max_tokens": 1}' >/dev/null || fail "Expect"
[ "$(status -X OPTIONS "$url/v1/completions")" = 204 ] || fail "OPTIONS"
[ "$(status "$url/v1/completions" -d 'prompt=a')" = 415 ] || fail "a form was taken for JSON"
[ "$(status "$url/v1/completions" -H "$json" -d '{')" = 400 ] || fail "broken JSON"
[ "$(status "$url/nowhere")" = 404 ] || fail "404"
echo "all checks passed with $(curl --version | head -n 1)"

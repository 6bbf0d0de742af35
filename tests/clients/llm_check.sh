#!/usr/bin/env bash
# Checks a running `kvcast serve` with the command line tool llm (pip install llm).
#   tests/clients/llm_check.sh [http://127.0.0.1:8080]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}
export LLM_USER_PATH
LLM_USER_PATH=$(mktemp -d)
trap 'rm -rf "$LLM_USER_PATH"' EXIT
cat >"$LLM_USER_PATH/extra-openai-models.yaml" <<END
- model_id: kvcast
  model_name: kvcast
  api_base: "$url/v1"
  api_key_name: kvcast
- model_id: kvcast-text
  model_name: kvcast
  api_base: "$url/v1"
  api_key_name: kvcast
  completion: true
END
llm keys set kvcast --value any
streamed=$(llm -m kvcast 'Who lives in the lighthouse?' -o max_tokens 8 -o temperature 0)
whole=$(llm -m kvcast --no-stream 'Who lives in the lighthouse?' -o max_tokens 8 -o temperature 0)
[ -n "$whole" ] && [ "$streamed" = "$whole" ] || { echo "streamed: $streamed; whole: $whole" >&2; exit 1; }
llm -m kvcast --no-stream -c 'And then?' -o max_tokens 8 -o temperature 0 >/dev/null
text=$(llm -m kvcast-text --no-stream 'The sea is' -o max_tokens 8 -o temperature 0)
[ -n "$text" ] || { echo "no completion" >&2; exit 1; }
echo "all checks passed with $(llm --version): $whole"

"""Checks a running `kvcast serve` with litellm.

    pip install litellm
    python tests/clients/litellm_check.py [http://127.0.0.1:8080]
"""
import asyncio
import sys

import litellm

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
litellm.telemetry = False
common = {"api_base": url + "/v1", "api_key": "any", "max_tokens": 8, "temperature": 0}
messages = [{"role": "user", "content": "Who lives in the lighthouse?"}]

whole = litellm.completion(model="openai/kvcast", messages=messages, **common)
pieces = litellm.completion(model="openai/kvcast", messages=messages, stream=True, **common)
text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert whole.usage.completion_tokens <= 8
legacy = litellm.text_completion(model="text-completion-openai/kvcast", prompt="The sea is", **common)
assert legacy.choices[0].text
again = asyncio.run(litellm.acompletion(model="openai/kvcast", messages=messages, **common))
assert again.choices[0].message.content == text
try:
    litellm.completion(model="openai/kvcast", messages=[{"role": "user", "content": "a " * 9000}], **common)
    raise AssertionError("a prompt beyond the context was answered")
except litellm.ContextWindowExceededError as error:
    print("refused:", str(error)[:100])
print("all checks passed with litellm:", repr(text))

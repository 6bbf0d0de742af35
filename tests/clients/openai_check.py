"""Checks a running `kvcast serve` with the openai package: pip install openai.

    python tests/clients/openai_check.py [http://127.0.0.1:8080]
"""
import sys
import time
import urllib.request

import openai

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = openai.OpenAI(base_url=url + "/v1", api_key="any")
model = client.models.list().data[0].id
print("model", model)


def metric(name):
    for line in urllib.request.urlopen(url + "/metrics").read().decode().splitlines():
        if line.startswith("kvcast:" + name + "{"):
            return float(line.split()[-1])
    raise KeyError(name)


prompt = "The old man sat by the river and"
whole = client.completions.create(model=model, prompt=prompt, max_tokens=24, temperature=0, logprobs=3)
assert whole.choices[0].text and whole.usage.prompt_tokens > 3
assert len(whole.choices[0].logprobs.token_logprobs) == whole.usage.completion_tokens
print("completion:", repr(whole.choices[0].text), whole.timings["ttft_ms"], "ms")

pieces = [c for c in client.completions.create(model=model, prompt=prompt, max_tokens=24, temperature=0,
                                               stream=True, stream_options={"include_usage": True})]
text = "".join(p.choices[0].text for p in pieces if p.choices)
assert text == whole.choices[0].text, text
assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens

for prefill in ("exact", "kv-prediction", "kv-prediction:tail=16", "auxiliary"):
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=16,
        temperature=0, logprobs=True, top_logprobs=2, extra_body={"prefill": prefill})
    content = chat.choices[0].logprobs.content
    assert content and len(content[0].top_logprobs) == 2
    assert content[0].logprob == content[0].top_logprobs[0].logprob
    assert chat.timings["prefill"] == prefill
    print("chat:", prefill, repr(chat.choices[0].message.content), chat.timings["ttft_ms"], "ms")

stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}],
                                        max_tokens=16, temperature=0, stream=True)
roles = [c.choices[0].delta.role for c in stream]
assert roles[0] == "assistant" and not any(roles[1:])

before = metric("requests_cancelled_total")
stream = client.completions.create(model=model, prompt=prompt, max_tokens=400, temperature=1, n=8,
                                   stream=True, extra_body={"ignore_eos": True})
next(iter(stream))
stream.close()
for _ in range(100):
    if metric("requests_cancelled_total") > before and metric("num_requests_running") == 0:
        break
    time.sleep(0.05)
else:
    raise AssertionError("a closed stream goes on running")

for broken, status in (({"prompt": "a " * 5000}, 400), ({"prompt": "a", "temperature": -1}, 400),
                       ({"prompt": "a", "extra_body": {"grammar": "root ::= a"}}, 400)):
    try:
        client.completions.create(**{"model": model, **broken})
        raise AssertionError("not refused: " + str(broken)[:60])
    except openai.APIStatusError as error:
        assert error.status_code == status, error
        print("refused:", status, error.body["message"])
many = client.completions.create(model=model, prompt=["One", "Two"], n=2, max_tokens=4, temperature=1, seed=1)
assert [c.index for c in many.choices] == [0, 1, 2, 3]
print("all checks passed with openai", openai.__version__)

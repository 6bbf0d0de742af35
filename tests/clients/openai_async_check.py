"""Checks a running `kvcast serve` with the openai package's asynchronous client, histories, and
/v1/responses. Tools: tools_check.py.

    pip install openai
    python tests/clients/openai_async_check.py [http://127.0.0.1:8080]
"""
import asyncio
import sys

import openai

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = openai.AsyncOpenAI(base_url=url + "/v1", api_key="any")


async def one(i):
    stream = await client.chat.completions.create(
        model="whatever", messages=[{"role": "user", "content": f"Number {i}."}], max_tokens=8,
        temperature=0, stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
    text, usage, scored = "", None, 0
    async for piece in stream:
        usage = piece.usage or usage
        for choice in piece.choices:
            text += choice.delta.content or ""
            scored += len(choice.logprobs.content) if choice.logprobs else 0
    assert usage.completion_tokens == scored, (usage, scored)
    return text


async def main():
    together = await asyncio.gather(*(one(i) for i in range(8)))
    assert together == [await one(i) for i in range(8)], "answers depend on who else asks"

    # Without a place for tools in the model's template, a history with calls is refused, not cut.
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    history = [{"role": "user", "content": "Is the lamp lit?"}, {"role": "assistant", "content": None},
               {"role": "user", "content": [{"type": "text", "text": "Then tell me."}]}]
    answer = await client.chat.completions.create(model="m", messages=history, max_tokens=8, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length")
    history[1]["tool_calls"] = [call]

    response = await client.responses.create(model="m", input="The sea is", max_output_tokens=8, temperature=0)
    assert response.output_text and response.usage.output_tokens <= 8, response
    events = [event async for event in await client.responses.create(
        model="m", input="The sea is", max_output_tokens=8, temperature=0, stream=True)]
    assert events[0].type == "response.created" and events[-1].response.output_text == response.output_text
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == response.output_text

    for broken in ({"response_format": {"type": "json_object"}}, {"max_tokens": "many"}, {"messages": history}):
        try:
            await client.chat.completions.create(**{"model": "m", "messages": history[:1], **broken})
            raise AssertionError(f"not refused: {broken}")
        except openai.BadRequestError as error:
            assert error.body["param"] in broken, error.body
    print("all checks passed with openai", openai.__version__)


asyncio.run(main())

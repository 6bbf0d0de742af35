"""Checks tools against a running `kvcast serve` of a model that has been trained to call them: openai,
whole, streamed and through an agent's turn, and langchain-openai with bind_tools.

    pip install openai langchain-openai
    kvcast serve qwen2.5-coder-0.5b-instruct & python tests/clients/tools_check.py [http://127.0.0.1:8080]
"""
import json
import sys

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = openai.OpenAI(base_url=url + "/v1", api_key="any")
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "The time", "parameters": {
    "type": "object", "properties": {}}}}
messages = [{"role": "user", "content": "How is the weather in Paris?"}]
common = {"model": "any", "tools": [WEATHER, TIME], "temperature": 0, "max_tokens": 64}


def calls_of(stream):
    """What openai's own helper for streams makes of the pieces."""
    with stream as events:
        for _ in events:
            pass
        return events.get_final_completion().choices[0]


for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
    answer = client.chat.completions.create(messages=messages, tool_choice=choice, **common).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None, answer
    call = answer.message.tool_calls[0]
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}, call
    streamed = calls_of(client.chat.completions.stream(messages=messages, tool_choice=choice, **common))
    assert streamed.finish_reason == "tool_calls", streamed
    assert [(c.function.name, c.function.arguments) for c in streamed.message.tool_calls] == \
        [(c.function.name, c.function.arguments) for c in answer.message.tool_calls], streamed
print("called:", call.function.name, call.function.arguments)

# An agent's second turn: the call and its result go back as they are. (A model this small would go on calling.)
messages += [answer.message.model_dump(exclude_none=True),
             {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"sky": "foggy", "celsius": 11})}]
told = client.chat.completions.create(messages=messages, tool_choice="none", **common).choices[0]
assert told.finish_reason == "stop" and told.message.content, told
print("told:", told.message.content)
none = client.chat.completions.create(messages=messages[:1], tool_choice="none", **common).choices[0]
assert not none.message.tool_calls and none.message.content, none
auto = client.chat.completions.create(messages=messages[:1], **common).choices[0]
print("of its own:", auto.message.tool_calls or auto.message.content)

# The same by /v1/responses: whole, streamed, and the agent's turn.
flat = [{"type": "function", "strict": False, **tool["function"]} for tool in (WEATHER, TIME)]
shared = {"model": "any", "tools": flat, "temperature": 0, "max_output_tokens": 64}
history = [{"role": "user", "content": "How is the weather in Paris?"}]
named = {"type": "function", "name": "get_weather"}
whole = client.responses.create(input=history, tool_choice=named, **shared)
made = [item for item in whole.output if item.type == "function_call"][0]
assert (made.name, json.loads(made.arguments)) == ("get_weather", {"city": "Paris"}), whole
with client.responses.stream(input=history, tool_choice=named, **shared) as events:
    kinds = [event.type for event in events]
    streamed = events.get_final_response()
assert [(i.type, getattr(i, "arguments", None)) for i in streamed.output] == \
    [(i.type, getattr(i, "arguments", None)) for i in whole.output], streamed
assert "response.function_call_arguments.done" in kinds and kinds[-1] == "response.completed", kinds
history += [made.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": made.call_id, "output": json.dumps({"sky": "foggy", "celsius": 11})}]
after = client.responses.create(input=history, tool_choice="none", **shared)
assert after.output_text == told.message.content, (after.output_text, told.message.content)
print("by responses:", made.name, made.arguments)

for broken in ({"tool_choice": {"type": "function", "function": {"name": "fly"}}},
               {"tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]}):
    try:
        client.chat.completions.create(**{**common, "messages": messages[:1], **broken})
        raise AssertionError(f"not refused: {broken}")
    except openai.BadRequestError as error:
        assert error.body["param"] in broken, error.body


@tool
def get_weather(city: str) -> str:
    """The weather of a city now."""
    return f"It is foggy in {city}, 11 degrees."


chat = ChatOpenAI(base_url=url + "/v1", api_key="any", model="any", temperature=0, max_tokens=64)
asked = HumanMessage("How is the weather in Paris?")
called = chat.bind_tools([get_weather], tool_choice="get_weather").invoke([asked])
assert called.tool_calls[0]["args"] == {"city": "Paris"}, called
result = get_weather.invoke(called.tool_calls[0])
assert isinstance(result, ToolMessage)
final = chat.bind_tools([get_weather], tool_choice="none").invoke([asked, called, result])
assert final.content and not final.tool_calls, final
print("all checks passed with openai", openai.__version__, "and langchain-openai:", repr(final.content))

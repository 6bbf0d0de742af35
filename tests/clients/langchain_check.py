"""Checks a running `kvcast serve` with langchain-openai.

    pip install langchain-openai
    python tests/clients/langchain_check.py [http://127.0.0.1:8080]
"""
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
common = {"base_url": url + "/v1", "api_key": "any", "model": "kvcast", "temperature": 0, "max_tokens": 12}

text = OpenAI(**common)
whole = text.invoke("The old keeper climbed the stairs and")
assert whole and "".join(text.stream("The old keeper climbed the stairs and")) == whole
assert len(text.batch(["One", "Two", "Three"])) == 3

chat = ChatOpenAI(**common)
history = [SystemMessage("Be brief."), HumanMessage("Hello."), AIMessage("Hello!"), HumanMessage("Who are you?")]
answer = chat.invoke(history)
assert answer.usage_metadata["output_tokens"] <= 12
assert "".join(piece.content for piece in chat.stream(history)) == answer.content
scored = chat.bind(logprobs=True, top_logprobs=2).invoke(history)
assert scored.response_metadata["logprobs"]["content"]
print("all checks passed with langchain-openai:", repr(whole), repr(answer.content))

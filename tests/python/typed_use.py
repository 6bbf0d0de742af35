"""What a program that is checked with `mypy --strict` does with the package."""

from typing import List

import numpy as np
from numpy.typing import NDArray

import kvcast


def streamed(model: kvcast.Model, prompt: str) -> str:
    answer: kvcast.Answer = model.session().generate(prompt, prefill="exact", max_tokens=8, stop=["."])
    pieces: List[str] = list(answer)
    reason: str = answer.finish_reason
    tokens: NDArray[np.int32] = answer.tokens
    return f"{''.join(pieces)} {reason} {tokens.size} {answer.timings.ttft_ms:.1f}"


def talked(model: kvcast.Model) -> kvcast.Completion:
    session: kvcast.Session = model.session()
    with session.chat([{"role": "user", "content": "Hello"}], max_tokens=4) as answer:
        return answer.read()


def called(model: kvcast.Model) -> List[str]:
    tools = [{"type": "function", "function": {"name": "look"}}]
    session: kvcast.Session = model.session()
    answer = session.chat([{"role": "user", "content": "Look."}], tools=tools, tool_choice="required")
    calls: List[kvcast.ToolCall] = answer.tool_calls
    session.chat([{"role": "user", "content": "Look."}, answer.message], tools=tools)
    session.generate("def add(", suffix="return a + b")
    return [call.arguments for call in calls]


def batched(model: kvcast.Model) -> float:
    answers: List[kvcast.Completion] = model.generate(["One", model.tokenize("Two"), [1, 2]], progress=print)
    scores: List[kvcast.Score] = model.score(["One"], [answers[0].tokens])
    total: float = scores[0].total
    best: NDArray[np.bool_] = scores[0].most_probable
    stop: List[str] = model.chat_stop
    return total + float(best.sum()) + len(stop)


def loaded(path: str) -> kvcast.Model:
    try:
        return kvcast.Model.load(path, dtype="int8", threads=2)
    except kvcast.KvcastError as error:
        raise SystemExit(str(error)) from error

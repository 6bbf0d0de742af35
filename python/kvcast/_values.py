"""What callers give and get, and how it becomes the library's structs and back."""

import ctypes
import json
from ctypes import byref, c_char_p
from dataclasses import dataclass
from typing import Any, Mapping, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from . import _library
from ._library import library

Tokens = NDArray[np.int32]
Prompt = Union[str, Sequence[int], NDArray[np.integer[Any]]]
Message = Mapping[str, Any]
Messages = Sequence[Message]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Timings:
    """Where the time of an answer went, in milliseconds, and how many tokens it was about."""

    tokenize_ms: float
    auxiliary_ms: float
    predictor_ms: float
    base_ms: float  #: under kv-prediction: what is left of it when the auxiliary is done
    ttft_ms: float  #: from the start to the first token
    decode_ms: float  #: all tokens after the first
    prompt_tokens: int
    predicted_tokens: int  #: of the prompt, whose keys and values were forecast
    decode_tokens: int  #: that decode_ms covers
    gate_score: float  #: how far the forecast was found to be trusted, in nats; below the threshold
    gate_threshold: float  #: the prompt was read exactly; both are NaN where no forecast was judged
    drafted_tokens: int  #: guessed and checked
    accepted_tokens: int  #: of these, what the answer has

    @property
    def decode_tokens_per_s(self) -> float:
        return 1000 * self.decode_tokens / self.decode_ms if self.decode_ms > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """An answer."""

    text: str
    tokens: Tokens  #: int32 [tokens]; the end-of-text token is not among them
    finish_reason: str  #: "end-of-text", "stop", "max-tokens", "context-full" or "cancelled"
    timings: Timings


@dataclass(frozen=True)
class Score:
    """Natural-log probabilities of a continuation's tokens."""

    logprobs: NDArray[np.float32]  #: float32 [tokens]
    most_probable: NDArray[np.bool_]  #: bool [tokens]: what greedy choice would have taken

    @property
    def total(self) -> float:
        """The continuation's log-probability, summed in double precision."""
        return float(self.logprobs.sum(dtype=np.float64))


@dataclass(frozen=True)
class ToolCall:
    """A tool that an answer calls."""

    id: str  #: what the message with its result says as "tool_call_id"
    name: str
    arguments: str  #: JSON as the model wrote it; cut where the answer was


def message_of(message):
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        content = ""  # what is said beside calls may be nothing
    if not isinstance(message.get("role"), str) or not isinstance(content, str):
        raise TypeError(f'a message: expected {{"role": text, "content": text}}, got {message!r}')
    more = {name: message[name] for name in ("tool_calls", "tool_call_id", "name") if message.get(name) is not None}
    return _library.Message(message["role"].encode("utf-8"), content.encode("utf-8"),
                            json.dumps(more).encode() if more else None)


def chat_options_of(tools, tool_choice):
    if isinstance(tool_choice, Mapping):  # OpenAI's {"type": "function", "function": {"name": ...}}
        tool_choice = tool_choice["function"]["name"]
    return _library.ChatOptions(tools=json.dumps(list(tools)).encode() if tools else None, tool_choice=tool_choice.encode("utf-8"))


def options_of(prefill, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, ignore_end_of_text,
               drafts, suffix=None):
    stop = [stop] if isinstance(stop, str) else list(stop)
    texts = (c_char_p * max(1, len(stop)))(*(_library.c_text(text) for text in stop))
    return _library.GenerateOptions(
        prefill=_library.optional_bytes(prefill), max_tokens=_library.whole("max_tokens", max_tokens, 1, 2**63 - 1),
        temperature=temperature, top_k=_library.whole("top_k", top_k, 0, 2**63 - 1), top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=_library.whole("seed", seed, 0, 2**64 - 1), stop=texts, stop_count=len(stop),
        ignore_end_of_text=int(ignore_end_of_text), suffix=_library.optional_bytes(suffix), drafts=_library.optional_bytes(drafts))


def completion_of(answer):
    found = _library.Completion()
    library.kvcast_answer_completion(answer, byref(found))
    times = {name: getattr(found, name) for name in Timings.__dataclass_fields__}
    return Completion(ctypes.string_at(found.text, found.text_bytes).decode("utf-8"),
                      _library.tokens_of(found.tokens, found.token_count), found.finish_reason.decode(), Timings(**times))

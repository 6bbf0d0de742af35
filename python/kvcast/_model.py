"""Models, conversations and batches."""

import ctypes
import json
import os
import threading
import weakref
from ctypes import byref, c_float, c_size_t, c_ubyte, c_void_p
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from . import _library
from ._library import Handle, KvcastError, call, library
from ._values import (Completion, Messages, Prompt, Score, ToolCall, Tools, Timings, Tokens, chat_options_of, completion_of, message_of,
                      options_of)


class Model:
    """A model directory, a GGUF file or a KV-prediction bundle, loaded. Immutable: any number of threads may use it."""

    def __init__(self, handle: Handle):
        """Model.load makes one."""
        if not isinstance(handle, Handle):
            raise TypeError(f"kvcast.Model({handle!r}): models are loaded by kvcast.Model.load(path)")
        self._handle = handle
        self._info = _library.ModelInfo()
        library.kvcast_model_describe(handle, byref(self._info))
        self._lock = threading.Lock()
        self._chat = self._batch = None

    @classmethod
    def load(cls, path: Union[str, "os.PathLike[str]"], *, dtype: str = "auto", kv_dtype: str = "auto", threads: int = 0,
             tokenizer: Optional[str] = None) -> "Model":
        """Loads `path`.

        dtype: how weights are held and multiplied: "auto" (as stored), "f32", "bf16", "int8", "int8-blocks", "int4".
        kv_dtype: how keys and values are cached: "auto", "f32", "bf16", "int8" (half of bf16's memory).
        threads: of a forward pass; 0: one for each core it may use, a quota of time included.
        tokenizer: a tokenizer file, for directories that carry none.

        Raises KvcastError, which names the file, the tensor or key, and what was expected.
        """
        options = _library.LoadOptions(dtype=dtype.encode(), kv_dtype=kv_dtype.encode(), threads=threads,
                                       tokenizer=_library.optional_bytes(tokenizer))
        return cls(Handle(call("kvcast_model_load", os.fsencode(path), byref(options)), "kvcast_model_free"))

    def __repr__(self) -> str:
        kind = "bundle" if self.is_bundle else "model"
        return f"<kvcast.Model: {kind}, {self.dtype}, context of {self.context_tokens} tokens, {self.weight_bytes / 1e6:.0f} MB>"

    @property
    def is_bundle(self) -> bool:
        """KV prediction is possible: base, auxiliary and predictor are there."""
        return bool(self._info.is_bundle)

    @property
    def has_tokenizer(self) -> bool:
        return bool(self._info.has_tokenizer)

    @property
    def vocab_size(self) -> int:
        return self._info.vocab_size

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self._info.context_tokens

    @property
    def weight_bytes(self) -> int:
        return self._info.weight_bytes

    @property
    def threads(self) -> int:
        return self._info.threads

    @property
    def dtype(self) -> str:
        return self._info.dtype.decode()

    @property
    def kv_dtype(self) -> str:
        return self._info.kv_dtype.decode()

    @property
    def default_prefill(self) -> str:
        """The prefill strategy used when none is asked for."""
        return self._info.default_prefill.decode()

    def tokenize(self, text: str, add_bos: bool = True) -> Tokens:
        """Token ids of `text`, BOS first if asked for. int32 [tokens]"""
        data, count = text.encode("utf-8"), c_size_t()
        return _library.take_tokens(call("kvcast_tokenize", self._handle, data, len(data), int(add_bos), byref(count)), count.value)

    def detokenize(self, tokens: Prompt) -> str:
        """The text of token ids [tokens]."""
        array, count = _library.token_array(tokens), c_size_t()
        pointer = call("kvcast_detokenize", self._handle, _library.pointer_to(array), array.size, byref(count))
        return _library.take_text(pointer, count.value)

    def _ids(self, prompt):
        return self.tokenize(prompt) if isinstance(prompt, str) else _library.token_array(prompt)

    def _chat_handle(self):
        with self._lock:
            if self._chat is None:
                self._chat = Handle(call("kvcast_chat_new", self._handle), "kvcast_chat_free")
            return self._chat

    def _batch_handle(self):
        with self._lock:
            if self._batch is None:
                self._batch = Handle(call("kvcast_batch_new", self._handle, None), "kvcast_batch_free")
            return self._batch

    def chat_prompt(self, messages: Messages, *, tools: Tools = (), tool_choice: Union[str, Mapping[str, Any]] = "auto") -> Tokens:
        """The prompt of a conversation, [{"role": "user", "content": "..."}, ...], by the model's own template, up to the opening
        of the assistant's next message. Tools, and messages with tool calls and results: as OpenAI's API has them. int32 [tokens]"""
        written = (_library.Message * len(messages))(*(message_of(message) for message in messages))
        count = c_size_t()
        return _library.take_tokens(call("kvcast_chat_render", self._chat_handle(), written, len(messages),
                                         byref(chat_options_of(tools, tool_choice)), byref(count)), count.value)

    def chat_message(self, text: str, *, tools: Tools = (), tool_choice: Union[str, Mapping[str, Any]] = "auto") -> Dict[str, Any]:
        """The message that an answer's text is, to go on with: {"role": "assistant", "content": ...}, and "tool_calls" if it calls
        some. Tools and choice: those of its prompt."""
        data, more = text.encode("utf-8"), c_void_p()
        content = _library.take_text(call("kvcast_chat_read", self._chat_handle(), data, len(data),
                                          byref(chat_options_of(tools, tool_choice)), byref(more)))
        return {"role": "assistant", "content": content, **json.loads(_library.take_text(more.value) or "{}")}

    @property
    def chat_stop(self) -> List[str]:
        """Strings that end an answer in a chat, beside the end-of-text token."""
        chat = self._chat_handle()
        texts: List[str] = []
        while (text := library.kvcast_chat_stop(chat, len(texts))) is not None:
            texts.append(text.decode("utf-8"))
        return texts

    def session(self) -> "Session":
        """A new conversation."""
        return Session(self)

    def generate(self, prompts: Sequence[Prompt], *, prefill: Optional[str] = None, max_tokens: int = 64, temperature: float = 0.0,
                 top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: int = 0,
                 stop: Union[str, Iterable[str]] = (), ignore_end_of_text: bool = False, drafts: Union[str, int] = "auto",
                 progress: Optional[Callable[[int], object]] = None) -> List[Completion]:
        """Answers many prompts (texts or token ids) at once by continuous batching; beginnings that they share are run once.

        Returns a Completion for each, in their order; prompt i samples with seed + i. Options: see Session.generate.
        `progress` is called now and then with how many prompts are done; what it raises stops the batch.
        """
        options = options_of(prefill, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, ignore_end_of_text,
                           drafts)
        arrays = [self._ids(prompt) for prompt in prompts]
        answers = (c_void_p * max(1, len(arrays)))()
        _run_batch("kvcast_batch_generate", progress, lambda callback: (
            self._batch_handle(), _library.token_lists(arrays), len(arrays), byref(options), callback, None, answers))
        handles = [Handle(pointer, "kvcast_answer_free") for pointer in answers[:len(arrays)]]
        return [completion_of(handle) for handle in handles]

    def score(self, contexts: Sequence[Prompt], continuations: Sequence[Prompt], *, prefill: Optional[str] = None,
              progress: Optional[Callable[[int], object]] = None) -> List[Score]:
        """Scores continuations[i] behind contexts[i], which the strategy `prefill` reads; a Score for each.

        Texts are encoded on their own, continuations without BOS; give token ids where the border is to lie within a word.
        Every context and continuation needs at least one token.
        """
        if len(contexts) != len(continuations):
            raise ValueError(f"{len(contexts)} contexts and {len(continuations)} continuations: expected as many")
        before = [self._ids(text) for text in contexts]
        behind = [self.tokenize(text, add_bos=False) if isinstance(text, str) else _library.token_array(text) for text in continuations]
        ends = np.cumsum([array.size for array in behind], dtype=np.int64)
        total = int(ends[-1]) if len(behind) else 0
        logprobs, chosen = np.empty(max(1, total), np.float32), np.empty(max(1, total), np.uint8)
        _run_batch("kvcast_batch_score", progress, lambda callback: (
            self._batch_handle(), _library.token_lists(before), _library.token_lists(behind), len(before),
            _library.optional_bytes(prefill), callback, None, _library.pointer_to(logprobs, c_float),
            _library.pointer_to(chosen, c_ubyte)))
        starts = [0, *ends[:-1]]
        return [Score(logprobs[a:b].copy(), chosen[a:b].astype(bool)) for a, b in zip(starts, ends)]


def _run_batch(name, progress, arguments):
    """Calls a batch function; an exception of `progress`, or Ctrl-C, stops it and is raised here."""
    raised = []

    def report(_user, done):
        try:
            if progress is not None:
                progress(done)
        except BaseException as error:  # pylint: disable=broad-except  # KeyboardInterrupt is the point
            raised.append(error)
        return len(raised)

    try:
        call(name, *arguments(_library.Progress(report)))
    except KvcastError:
        if not raised:
            raise
    if raised:
        raise raised[0]


class Answer(Iterator[str]):
    """An answer being written: iterate over its pieces of text. Closing it, or leaving a `with` block, ends it there; what was
    written stays part of the conversation. `completion` (and text, tokens, finish_reason, timings) is what there is so far."""

    def __init__(self, session: "Session", handle: Handle):
        self._session, self._handle, self._final = session, handle, None
        self._chat: Dict[str, Any] = {}  # tools and choice, if it is a chat's
        self._lock = threading.Lock()  # nobody cancels what is being freed
        self._piece, self._bytes = c_void_p(), c_size_t()
        self._message: Optional[Tuple[Completion, Dict[str, Any]]] = None  # of which completion, and it

    def __next__(self) -> str:
        while self._final is None:
            if call("kvcast_answer_next", self._handle, byref(self._piece), byref(self._bytes)) == 0:
                self.close()
            elif self._bytes.value:
                return ctypes.string_at(self._piece, self._bytes.value).decode("utf-8")
        raise StopIteration

    def read(self) -> Completion:
        """All that is left, at once; then the completion."""
        for _ in self:
            pass
        return self.completion

    def cancel(self) -> None:
        """Makes the answer end at the next token, or the prefill between two layers. From any thread."""
        with self._lock:
            if self._final is None:
                library.kvcast_answer_cancel(self._handle)

    def close(self) -> None:
        """Ends the answer here."""
        with self._lock:
            if self._final is not None:
                return
            library.kvcast_answer_end(self._handle)
            self._final = completion_of(self._handle)
            self._handle.close()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def completion(self) -> Completion:
        return self._final or completion_of(self._handle)

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def tokens(self) -> Tokens:
        return self.completion.tokens

    @property
    def finish_reason(self) -> str:
        return self.completion.finish_reason

    @property
    def timings(self) -> Timings:
        return self.completion.timings

    @property
    def message(self) -> Dict[str, Any]:
        """The answer as a message to go on with: {"role": "assistant", "content": ...}, and "tool_calls" if it calls some."""
        completion = self.completion
        if self._message is None or self._message[0] is not completion:
            self._message = (completion, self._session._model.chat_message(completion.text, **self._chat))
        return self._message[1]

    @property
    def tool_calls(self) -> List[ToolCall]:
        """The tools that a chat's answer calls."""
        return [ToolCall(made["id"], made["function"]["name"], made["function"]["arguments"])
                for made in self.message.get("tool_calls", [])]


class Session:
    """One conversation: a KV cache and the tokens so far. Every prompt continues it. One thread at a time; sessions of one model
    may run on different threads at once."""

    def __init__(self, model: Model):
        self._model = model
        pointer = library.kvcast_session_new(model._handle)
        if not pointer:
            raise MemoryError("a conversation: not enough memory")
        self._handle = Handle(pointer, "kvcast_session_free")
        self._answer: Callable[[], Optional[Answer]] = lambda: None  # a weak reference: an answer that nobody holds is over

    def generate(self, prompt: Prompt, *, prefill: Optional[str] = None, max_tokens: int = 64, temperature: float = 0.0, top_k: int = 0,
                 top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: int = 0,
                 stop: Union[str, Iterable[str]] = (), ignore_end_of_text: bool = False, drafts: Union[str, int] = "auto",
                 suffix: Optional[str] = None) -> Answer:
        """Adds `prompt` (a text, BOS first if the conversation begins, or token ids as they are) and answers it.

        prefill: "exact", "kv-prediction", "kv-prediction:tail=16", "auxiliary", ...; None: the model's own choice.
        max_tokens: longest answer. stop: the answer ends before the first of these that appears in it.
        temperature 0 is greedy; else top_k (0: off), top_p (1: off), min_p (0: off) and seed say what is drawn.
        repetition_penalty: 1 is off. ignore_end_of_text: go on after the end-of-text token.
        drafts: tokens guessed from the text so far, or by the auxiliary, that one step checks, which changes no answer: "auto", "off" or
        at most how many.
        suffix: the answer is what belongs between the prompt, a text, and this (fill in the middle), for models that have tokens for
        it, such as Qwen2.5-Coder.

        Returns an Answer to iterate over. An answer of this session that is not over is ended first.
        """
        options = options_of(prefill, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, ignore_end_of_text,
                           drafts, suffix)
        self._end_answer()
        if isinstance(prompt, str):
            data = prompt.encode("utf-8")
            pointer = call("kvcast_answer_text", self._handle, data, len(data), byref(options))
        else:
            array = _library.token_array(prompt)
            pointer = call("kvcast_answer_tokens", self._handle, _library.pointer_to(array), array.size, byref(options))
        answer = Answer(self, Handle(pointer, "kvcast_answer_free"))
        self._answer = weakref.ref(answer)
        return answer

    def _end_answer(self):
        if (answer := self._answer()) is not None:
            answer.close()

    def chat(self, messages: Messages, *, tools: Tools = (), tool_choice: Union[str, Mapping[str, Any]] = "auto",
             **options: Any) -> Answer:
        """Answers a conversation, [{"role": "user", "content": "..."}, ...], by the model's chat template. What this session has
        already read of it is not read again. Options: see `generate`.

        tools: that the answer may call, as OpenAI's API has them: [{"type": "function", "function": {"name": ..., "description": ...,
        "parameters": JSON schema}}]. tool_choice: "auto", "required" (the answer calls one), a tool's name, "none".
        Pieces come as the model writes them, calls included; then the answer's `message` (and `tool_calls`) has them apart. Go on
        with messages + [answer.message, {"role": "tool", "tool_call_id": call.id, "content": result}].
        """
        prompt, read = self._model.chat_prompt(messages, tools=tools, tool_choice=tool_choice), self.tokens
        self._end_answer()
        if read.size and (read.size >= prompt.size or not np.array_equal(prompt[:read.size], read)):
            self.reset()
            read = read[:0]
        stop = options.pop("stop", ())
        stop = [stop] if isinstance(stop, str) else list(stop)
        answer = self.generate(prompt[read.size:], stop=stop + self._model.chat_stop, **options)
        answer._chat = {"tools": tools, "tool_choice": tool_choice}
        return answer

    def reset(self) -> None:
        """Forgets the conversation."""
        self._end_answer()
        library.kvcast_session_reset(self._handle)

    @property
    def tokens(self) -> Tokens:
        """The conversation so far. int32 [tokens]"""
        count = c_size_t()
        pointer = library.kvcast_session_tokens(self._handle, byref(count))
        return _library.tokens_of(pointer, count.value)

    @property
    def cache_bytes(self) -> int:
        return library.kvcast_session_cache_bytes(self._handle)

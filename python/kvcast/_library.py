"""kvcast.h as ctypes declarations. Calls release the GIL; errors become KvcastError."""

import ctypes
import operator
import os
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_ubyte, c_uint64, c_void_p
from pathlib import Path

import numpy as np


class KvcastError(RuntimeError):
    """What went wrong, where, and what was expected, in one line: the library's own."""


class _Struct(Structure):
    """A struct of kvcast.h that knows its size; fields that are not given are the defaults."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


class LoadOptions(_Struct):
    _fields_ = [("struct_size", c_size_t), ("dtype", c_char_p), ("kv_dtype", c_char_p), ("threads", c_int32),
                ("tokenizer", c_char_p)]


class ModelInfo(_Struct):
    _fields_ = [("struct_size", c_size_t), ("is_bundle", c_int32), ("has_tokenizer", c_int32), ("vocab_size", c_int64),
                ("context_tokens", c_int64), ("weight_bytes", c_int64), ("threads", c_int32), ("dtype", c_char_p),
                ("kv_dtype", c_char_p), ("default_prefill", c_char_p)]


class GenerateOptions(_Struct):
    _fields_ = [("struct_size", c_size_t), ("prefill", c_char_p), ("max_tokens", c_int64), ("temperature", c_float),
                ("top_p", c_float), ("min_p", c_float), ("repetition_penalty", c_float), ("top_k", c_int64),
                ("seed", c_uint64), ("stop", POINTER(c_char_p)), ("stop_count", c_size_t), ("ignore_end_of_text", c_int32),
                ("suffix", c_char_p), ("drafts", c_char_p)]


class Completion(_Struct):
    _fields_ = [("struct_size", c_size_t), ("text", c_void_p), ("text_bytes", c_size_t), ("tokens", POINTER(c_int32)),
                ("token_count", c_size_t), ("finish_reason", c_char_p), ("tokenize_ms", c_double), ("auxiliary_ms", c_double),
                ("predictor_ms", c_double), ("base_ms", c_double), ("ttft_ms", c_double), ("decode_ms", c_double),
                ("prompt_tokens", c_int64), ("predicted_tokens", c_int64), ("decode_tokens", c_int64),
                ("gate_score", c_double), ("gate_threshold", c_double), ("drafted_tokens", c_int64),
                ("accepted_tokens", c_int64)]


class BatchOptions(_Struct):
    _fields_ = [("struct_size", c_size_t), ("max_batch", c_int64), ("max_cache_bytes", c_int64)]


class Message(Structure):
    _fields_ = [("role", c_char_p), ("content", c_char_p), ("more", c_char_p)]


class ChatOptions(_Struct):
    _fields_ = [("struct_size", c_size_t), ("tools", c_char_p), ("tool_choice", c_char_p)]


class Tokens(Structure):
    _fields_ = [("data", POINTER(c_int32)), ("count", c_size_t)]


Progress = CFUNCTYPE(c_int, c_void_p, c_size_t)

_ERROR = POINTER(c_char_p)
_COUNT = POINTER(c_size_t)
_SIGNATURES = {  # name: (result, arguments); what ends with _ERROR can fail
    "kvcast_version": (c_char_p, ()),
    "kvcast_commit": (c_char_p, ()),
    "kvcast_free": (None, (c_void_p,)),
    "kvcast_model_load": (c_void_p, (c_char_p, POINTER(LoadOptions), _ERROR)),
    "kvcast_model_free": (None, (c_void_p,)),
    "kvcast_model_describe": (None, (c_void_p, POINTER(ModelInfo))),
    "kvcast_tokenize": (c_void_p, (c_void_p, c_char_p, c_size_t, c_int, _COUNT, _ERROR)),
    "kvcast_detokenize": (c_void_p, (c_void_p, POINTER(c_int32), c_size_t, _COUNT, _ERROR)),
    "kvcast_chat_new": (c_void_p, (c_void_p, _ERROR)),
    "kvcast_chat_free": (None, (c_void_p,)),
    "kvcast_chat_render": (c_void_p, (c_void_p, POINTER(Message), c_size_t, POINTER(ChatOptions), _COUNT, _ERROR)),
    "kvcast_chat_read": (c_void_p, (c_void_p, c_char_p, c_size_t, POINTER(ChatOptions), POINTER(c_void_p), _ERROR)),
    "kvcast_chat_stop": (c_char_p, (c_void_p, c_size_t)),
    "kvcast_session_new": (c_void_p, (c_void_p,)),
    "kvcast_session_free": (None, (c_void_p,)),
    "kvcast_session_reset": (None, (c_void_p,)),
    "kvcast_session_tokens": (POINTER(c_int32), (c_void_p, _COUNT)),
    "kvcast_session_cache_bytes": (c_int64, (c_void_p,)),
    "kvcast_answer_text": (c_void_p, (c_void_p, c_char_p, c_size_t, POINTER(GenerateOptions), _ERROR)),
    "kvcast_answer_tokens": (c_void_p, (c_void_p, POINTER(c_int32), c_size_t, POINTER(GenerateOptions), _ERROR)),
    "kvcast_answer_next": (c_int, (c_void_p, POINTER(c_void_p), _COUNT, _ERROR)),
    "kvcast_answer_cancel": (None, (c_void_p,)),
    "kvcast_answer_end": (None, (c_void_p,)),
    "kvcast_answer_completion": (None, (c_void_p, POINTER(Completion))),
    "kvcast_answer_free": (None, (c_void_p,)),
    "kvcast_batch_new": (c_void_p, (c_void_p, POINTER(BatchOptions), _ERROR)),
    "kvcast_batch_free": (None, (c_void_p,)),
    "kvcast_batch_generate": (c_int, (c_void_p, POINTER(Tokens), c_size_t, POINTER(GenerateOptions), Progress, c_void_p,
                                      POINTER(c_void_p), _ERROR)),
    "kvcast_batch_score": (c_int, (c_void_p, POINTER(Tokens), POINTER(Tokens), c_size_t, c_char_p, Progress, c_void_p,
                                   POINTER(c_float), POINTER(c_ubyte), _ERROR)),
}


def _load():
    """The library beside this file (a wheel's), or the one that KVCAST_LIBRARY names (a build's)."""
    library = ctypes.CDLL(os.environ.get("KVCAST_LIBRARY") or str(Path(__file__).with_name("libkvcast.so")))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load()


def raise_error(error):
    message = error.value.decode("utf-8", "replace")
    library.kvcast_free(error)
    raise KvcastError(message)


def call(name, *arguments):
    """Calls a function that can fail; its last argument is added."""
    error = c_char_p()
    result = getattr(library, name)(*arguments, byref(error))
    if error.value is not None:
        raise_error(error)
    return result


class Handle:
    """Owns a pointer that `release` frees, once."""

    def __init__(self, pointer, release):
        self._as_parameter_, self._release = pointer, getattr(library, release)

    def close(self):
        pointer, self._as_parameter_ = self._as_parameter_, None
        if pointer:
            self._release(pointer)

    def __del__(self):
        if getattr(self, "_as_parameter_", None):
            self.close()


def text_bytes(text):
    return text.encode("utf-8")


def c_text(text):
    """For parameters that end at their first 0."""
    if "\0" in text:
        raise ValueError(f"{text!r}: expected a text without \\0")
    return text.encode("utf-8")


def optional_bytes(text):
    return None if text is None else c_text(str(text))


def whole(name, value, low, high):
    """ctypes would take other numbers modulo a power of two."""
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name}: {number}, expected {low} to {high}")
    return number


def take_text(pointer, size=-1):
    """A copy of a text of `size` bytes, or that a 0 ends, which is then freed; None for NULL."""
    if not pointer:
        return None
    text = ctypes.string_at(pointer, size).decode("utf-8", "replace")
    library.kvcast_free(pointer)
    return text


def token_array(tokens):
    """Token ids as a contiguous array of int32 [tokens]."""
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"token ids: expected a text or a sequence of integers, got {type(tokens).__name__} of shape {array.shape}")
    if array.size and not (-2**31 <= int(array.min()) and int(array.max()) < 2**31):
        raise ValueError(f"token ids: expected whole numbers of 32 bits, got {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32)


def pointer_to(array, kind=c_int32):
    return array.ctypes.data_as(POINTER(kind))


def tokens_of(pointer, count):
    """A copy of `count` token ids. [count]"""
    if not count:
        return np.empty(0, np.int32)
    return np.frombuffer(ctypes.string_at(pointer, 4 * count), np.int32).copy()


def take_tokens(pointer, count):
    """The same of an array that is then freed."""
    tokens = tokens_of(pointer, count)
    library.kvcast_free(pointer)
    return tokens


def token_lists(arrays):
    """kvcast_tokens [arrays]; they must be kept as long as it is used."""
    return (Tokens * len(arrays))(*(Tokens(pointer_to(array), array.size) for array in arrays))

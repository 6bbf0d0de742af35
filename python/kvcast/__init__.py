"""kvcast: forecast the KV cache, get the first token sooner.

    model = kvcast.Model.load("models/kvcast-65m")
    for piece in model.session().generate("The city of Rome was"):
        print(piece, end="", flush=True)

Errors are KvcastError with one line of the library's. `read_results` (needs pandas) gives result files as frames.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Union

from ._library import KvcastError, library as _c
from ._model import Answer, Model, Session
from ._values import Completion, Score, Timings, ToolCall

__version__ = _c.kvcast_version().decode()
__commit__ = _c.kvcast_commit().decode()
__all__ = ["Answer", "Completion", "KvcastError", "Model", "Score", "Session", "Timings", "ToolCall", "read_results"]


if TYPE_CHECKING:
    from kvcast_report import Results


def read_results(*paths: Union[str, os.PathLike[str]]) -> Results:
    """Result files of kvcast eval, bench and analyze, training logs, and directories of them, as pandas frames: see
    kvcast_report.Results."""
    from kvcast_report import read_results as read  # pandas is loaded when it is needed

    return read(*paths)

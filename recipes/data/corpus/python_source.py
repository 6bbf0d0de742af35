"""Python source worth learning from: no copies, no generated files, no data written as code."""

import re

from .documents import SeenBlocks, digest

_LEAST_BYTES, _MOST_BYTES = 200, 150_000
_LONGEST_LINE, _LONGEST_MEAN_LINE = 400, 80
_LEAST_LETTERS, _MOST_DIGITS = 0.45, 0.2  # shares of what is not white space
_GENERATED = re.compile(r"automatically generated|auto-?generated|do not (edit|modify)|@generated|"
                        r"^#.{0,40}generated (by|from|with)", re.IGNORECASE | re.MULTILINE)
_HEADER_CHARACTERS = 1500  # where a generated file says so
# Blocks, cut at empty lines, shorter than this repeat without meaning anything.
_LEAST_BLOCK_LINES, _LEAST_BLOCK_CHARACTERS = 3, 120
_MOST_REPEATED = 0.5  # a file of which more is known already is dropped whole


_TEST = re.compile(r"/tests?/|/test_[^/]*$|_test\.py$")


def is_test(path):
    return _TEST.search(path) is not None


def reason_to_skip(text):
    """Why a file is not source that a person wrote, or None."""
    if not _LEAST_BYTES <= len(text) <= _MOST_BYTES:
        return "size"
    if _GENERATED.search(text, 0, _HEADER_CHARACTERS):
        return "generated"
    lines = text.split("\n")
    if max(map(len, lines)) > _LONGEST_LINE or len(text) / len(lines) > _LONGEST_MEAN_LINE:
        return "data-like"
    dense = "".join(text.split())
    # bytes.translate counts classes of ASCII characters without a loop over them in Python.
    raw = dense.encode()
    digits = len(raw) - len(raw.translate(None, b"0123456789"))
    letters = len(raw) - len(raw.translate(
        None, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"))
    if digits > _MOST_DIGITS * len(raw) or letters < _LEAST_LETTERS * len(raw):
        return "data-like"
    return None


class PythonCleaner:
    """Remembers files and blocks over all packages."""

    def __init__(self):
        self.files = set()
        self.blocks = SeenBlocks()
        self.skipped = {}  # reason -> files

    def clean(self, raw):
        """The text to keep of one file, or None."""
        text, reason = self._clean(raw)
        if reason:
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        return text

    def _clean(self, raw):
        try:
            text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\f", "")
        except UnicodeDecodeError:
            return None, "encoding"
        text = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
        reason = reason_to_skip(text)
        if reason:
            return None, reason
        key = digest(text)
        if key in self.files:
            return None, "copy"
        self.files.add(key)
        kept, repeated_characters = [], 0
        for block in re.split(r"\n{2,}", text):
            long_enough = (len(block) >= _LEAST_BLOCK_CHARACTERS
                           and block.count("\n") + 1 >= _LEAST_BLOCK_LINES)
            if long_enough and not self.blocks.add(block):
                repeated_characters += len(block)
            else:
                kept.append(block)
        if repeated_characters > _MOST_REPEATED * len(text):
            return None, "repeated blocks"
        if repeated_characters == 0:
            return text, None
        text = "\n\n".join(kept)
        return (text, None) if len(text) >= _LEAST_BYTES else (None, "size")

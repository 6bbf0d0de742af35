"""Keeps what reads as English in documentation, with the code and headings beside it."""

import re

from .documents import SeenBlocks

_LEAST_WORDS = 8
_LEAST_WORD_CHARACTERS = 0.7  # share of a prose block's characters in words of letters
_LEAST_REMEMBERED = 40  # characters; shorter blocks (headings, terms) may repeat
_LONGEST_LISTING = 4000  # characters; a longer block that is no prose is a table or a dump
_LEAST_DOCUMENT = 300
_LETTER = re.compile(r"[A-Za-z]")
_WORD = re.compile(r"[A-Za-z][a-z'’]*[a-z,.;:)]|\b[aAI]\b")


def is_prose(block):
    words = _WORD.findall(block)
    dense = len(block) - block.count(" ") - block.count("\n")
    return (len(words) >= _LEAST_WORDS
            and sum(map(len, words)) >= _LEAST_WORD_CHARACTERS * dense)


class ProseCleaner:
    """Remembers blocks over all packages."""

    def __init__(self):
        self.blocks = SeenBlocks()

    def clean(self, text):
        """Prose blocks not met before, with each the block before it (a heading, a signature) and
        after it (an example); None if too little remains."""
        blocks = [block for block in re.split(r"\n{2,}", text) if _LETTER.search(block)]
        blocks = [block for block in blocks
                  if len(block) < _LEAST_REMEMBERED or self.blocks.add(block)]
        prose = [is_prose(block) for block in blocks]
        kept = [block for i, block in enumerate(blocks)
                if prose[i] or ((any(prose[max(i - 1, 0):i + 2])) and
                                len(block) <= _LONGEST_LISTING)]
        text = "\n\n".join(kept)
        return text if len(text) >= _LEAST_DOCUMENT else None

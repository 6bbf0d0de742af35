"""Dictionaries in dictd's format and fortune files, packed into documents of several entries."""

import gzip
import re

_DOCUMENT_CHARACTERS = 4000
_BASE64 = {c: i for i, c in enumerate(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_SOURCES = re.compile(r"\s*\[(1913 Webster|Webster 1913 Suppl\.|PJC|WordNet [\d.]+|Century Dict\.[^\]]*|"
                      r"RP|AS|CCD|GG|Note: )[^\]]*\]")
_HEADWORD_AGAIN = re.compile(r"\\[^\\\n]{1,60}\\,? ?")
_PRONUNCIATION = re.compile(r"\s*\([^()\n]*\[[^()]*\)")
_LIGATURES = {"[ae]": "ae", "[oe]": "oe", "[eth]": "th", "[thorn]": "th", "[e^]": "e",
              "[deg]": " degrees", "[frac12]": "1/2", "[sect]": "section"}
_ACCENT = re.compile(r"\[[^\w\s\]]?([A-Za-z])[^\w\s\]]?\]")


def _number(digits):
    value = 0
    for digit in digits:
        value = value * 64 + _BASE64[digit]
    return value


def tidy(entry):
    """An entry without marks of origin and pronunciation, its wrapped lines joined."""
    entry = _SOURCES.sub("", entry)
    entry = _PRONUNCIATION.sub("", _HEADWORD_AGAIN.sub("", entry))
    for mark, letters in _LIGATURES.items():
        entry = entry.replace(mark, letters)
    entry = _ACCENT.sub(r"\1", entry)
    entry = re.sub(r"\{\s*([^{}]*?)\s*\}", lambda m: " ".join(m.group(1).split()), entry)
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", entry.strip("\n")):
        # A sense or a part of speech begins a line; other lines were wrapped.
        lines = re.split(r"\n(?=\s*(?:\(?[0-9a-z]\)?[.:)]|[0-9]+[.:]|(?:n|v|adj|adv) [0-9]*:?)\s)",
                         paragraph)
        lines = [" ".join(line.split()) for line in lines]
        paragraphs.append("\n".join(line for line in lines if line))
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def entries(index, packed):
    """The entries of a dictionary, in the order of the file."""
    text = gzip.decompress(packed)  # dictzip is gzip with an index
    spans = set()
    for line in index.decode().splitlines():
        word, offset, length = line.split("\t")[:3]
        if not word.startswith("00-database") and not word.startswith("00database"):
            spans.add((_number(offset), _number(length)))
    for offset, length in sorted(spans):
        entry = text[offset:offset + length].decode("utf-8", "replace")
        lines = entry.rstrip("\n").split("\n")
        while len(lines) > 1 and lines[-1][:1] not in (" ", "\t"):
            lines.pop()  # the next entry's headword, or nothing
        entry = "\n".join(lines)
        head, newline, rest = entry.partition("\n")
        if newline and rest[:1] == " " and not head.startswith(" ") and len(head) < 60:
            yield head.strip() + "\n" + tidy(rest) if "\\" not in head else tidy(entry)
        else:
            yield tidy(entry)


def fortunes(raw):
    """The sayings of a fortune file."""
    for saying in re.split(r"\n%+\n", raw.decode("utf-8", "replace")):
        saying = re.sub(r".\x08", "", saying).strip("\n")
        if saying and "�" not in saying:
            yield saying


def pack(pieces):
    """Documents of neighbouring pieces."""
    document, characters = [], 0
    for piece in pieces:
        document.append(piece)
        characters += len(piece)
        if characters >= _DOCUMENT_CHARACTERS:
            yield "\n\n".join(document)
            document, characters = [], 0
    if document:
        yield "\n\n".join(document)

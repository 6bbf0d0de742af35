"""Questions and answers as text."""

import gzip
import json
import re
import subprocess

from .documents import digest

_QUESTIONS_A_DOCUMENT = 8
_LEANS_ON_CHOICES = re.compile(
    r"\b(of|from) (these|the following|those)\b|\bthe following\b|\bnot one of\b|"
    r"\b(true or false|all of the above|none of the above)\b", re.IGNORECASE)


def rows_of(path):
    """The objects of a .jsonl.gz or .jsonl.zst file."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
        return
    unpacked = subprocess.run(["zstd", "-dcq", str(path)], check=True, stdout=subprocess.PIPE)
    yield from map(json.loads, unpacked.stdout.decode().splitlines())


def stands_alone(row):
    """False for a question that asks about choices which the text does not show."""
    answer = row["answer"].strip()
    return (answer and not _LEANS_ON_CHOICES.search(row["question"])
            and not _LEANS_ON_CHOICES.search(answer) and len(answer) <= 100)


def documents(paths, overlap):
    """(documents of several questions each, rows dropped for an evaluation question). The order of
    the questions is that of a hash, so that a document mixes topics as an evaluation does."""
    texts, dropped, seen = [], {}, set()
    for path in paths:
        for row in filter(stands_alone, rows_of(path)):
            question = " ".join(row["question"].split())
            found = overlap.find(question)
            if found:
                dropped[found] = dropped.get(found, 0) + 1
            elif question.lower() not in seen:
                seen.add(question.lower())
                texts.append(f"Question: {question}\nAnswer: {' '.join(row['answer'].split())}")
    texts.sort(key=digest)
    groups = [texts[i:i + _QUESTIONS_A_DOCUMENT]
              for i in range(0, len(texts), _QUESTIONS_A_DOCUMENT)]
    return ["\n\n".join(group) for group in groups], dropped

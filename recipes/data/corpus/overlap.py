"""Finds evaluation questions in training text.

Texts are compared in lower case, without punctuation, white space squeezed; only a whole question
counts. A question is looked at only in documents that hold its longest word, so the search costs
little more than cutting the text into words.
"""

import gzip
import json
import string

# Typographic marks that sources write for ASCII ones, dropped as those are.
_MARKS = "‘’“”–—…"
# A short question of a set other than TriviaQA may well stand in a text by chance.
_LEAST_WORDS_ELSEWHERE = 6
_FIELDS = ("question", "query", "prompt")


def words_of(text):
    """The normalised words of a text, as bytes."""
    if not text.isascii():
        for mark in _MARKS:
            text = text.replace(mark, "")
    return text.lower().encode().translate(None, string.punctuation.encode()).split()


class EvaluationQuestions:
    def __init__(self, files):
        self.by_word = {}  # longest word -> [(words, normalised question, file name)]
        for path in files:
            name = path.name.split(".")[0]
            with gzip.open(path, "rt", encoding="utf-8") as rows:
                for row in map(json.loads, rows):
                    question = next((row[key] for key in _FIELDS if key in row), "")
                    words = words_of(question)
                    if words and (name.startswith("triviaqa")
                                  or len(words) >= _LEAST_WORDS_ELSEWHERE):
                        key = max(words, key=lambda word: (len(word), word))
                        padded = b" " + b" ".join(words) + b" "
                        self.by_word.setdefault(key, []).append((set(words), padded, name))

    def find(self, text):
        """The name of an evaluation file one of whose questions the text holds, or None."""
        words = words_of(text)
        distinct = set(words)
        padded = None
        for key in sorted(self.by_word.keys() & distinct):
            for question_words, question, name in self.by_word[key]:
                if question_words <= distinct:
                    padded = padded or b" " + b" ".join(words) + b" "
                    if question in padded:
                        return name
        return None

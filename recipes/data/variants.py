#!/usr/bin/env python3
"""Two further sources for a forecast to learn from, made of prose: what must be copied word for word, and
text with spaced punctuation, as corpora of older language models have it.

    recipes/data/variants.py OUT SOURCE.txt.zst... [--mb 12] [--seed 1] [--held-out-fraction 0.01] [--shards-seed 1]

OUT/repeats.txt.zst: pieces of prose among which lists of made-up entries (a name, a word or a number, a value)
stand, which come again later in the document, some in another order, some one by one; or a passage that comes
again whole; or a few short sentences said over and over, among them entries that are asked for at the end.
OUT/spaced.txt.zst: articles with every punctuation mark between spaces, " @-@ " for a hyphen inside
a word, " @,@ " and " @.@ " inside a number, <unk> for rare words and " = Title = " headings. Of each at most MB
megabytes. Documents that `kvcast-train shards` holds out of these sources, with that fraction or a smaller one and
that seed, are left out: else pieces of what is evaluated on would be trained on. SOURCE must be the recipe's own
file, whose name and order of documents decide. The result depends on the input and the options alone. Needs the
program zstd.
"""
import argparse
import collections
import pathlib
import random
import re
import subprocess

END = "<|endoftext|>"
LABELS = ("code", "number", "name", "word", "value", "entry", "label", "address", "password", "reference", "room",
          "order", "colour", "account", "locker", "ticket")
SHAPES = ("{label} {key}: {value}", "{key} = {value}", "- {key}: {value}", "{key} has the {label} {value}.",
          "The {label} of {key} is {value}.", "{key},{value}", '"{key}": "{value}"')


def scramble(x):
    """As in src/train/data/random.h."""
    x = (x + 0x9e3779b97f4a7c15) % 2**64
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) % 2**64
    return x ^ (x >> 31)


def held_out(name, number, fraction, seed):
    """Whether `kvcast-train shards` holds out the source's document of this number, from 0, empty ones not counted."""
    fnv = 0xcbf29ce484222325
    for byte in name.encode():
        fnv = ((fnv ^ byte) * 0x100000001b3) % 2**64
    return (scramble(scramble(scramble(scramble(seed) ^ fnv)) ^ number) >> 11) * 2.0**-53 < fraction


def documents(paths, fraction, seed):
    """Documents of all files in turns, without those that are held out."""
    def trained_on(path):
        name, number = pathlib.Path(path).name.partition(".")[0], 0
        for document in read(path):
            if document:
                if not held_out(name, number, fraction, seed):
                    yield document
                number += 1

    def read(path):
        stream = subprocess.Popen(["zstd", "-dc", "--long=27", path], stdout=subprocess.PIPE, text=True,
                                  errors="replace", encoding="utf-8")
        lines = []
        for line in stream.stdout:
            if line.rstrip("\n") == END:
                yield "".join(lines).strip()
                lines = []
            else:
                lines.append(line)
    readers = [trained_on(path) for path in paths]
    while readers:
        for reader in list(readers):
            document = next(reader, None)
            if document is None:
                readers.remove(reader)
            else:
                yield document


def value(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return str(rng.randrange(10 ** rng.randrange(2, 9)))
    if kind == 1:
        return "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=rng.randrange(4, 9)))
    if kind == 2:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(4, 10)))
    return "-".join(str(rng.randrange(100, 1000)) for _ in range(rng.randrange(2, 4)))


def refrain(document, rng):
    """A few short sentences over and over, entries somewhere among them, and what was said of one."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", document) if 2 < len(s.split()) < 12]
    if len(sentences) < 4:
        return None
    said = rng.sample(sentences, rng.randrange(1, 5))
    lines = [" ".join(said)] * rng.randrange(6, max(8, 300 // sum(len(s.split()) for s in said)))
    label = rng.choice(LABELS)
    entries = {f"The {label} of {value(rng)} is": value(rng) for _ in range(rng.randrange(0, 3))}
    entries[f"The {label} is"] = value(rng)
    ending = rng.choice((".", ". Remember it.", ", and no other."))
    for what, which in entries.items():
        lines.insert(rng.randrange(len(lines) + 1), f"{what} {which}{ending}")
    what, which = rng.choice(list(entries.items()))
    question = rng.choice(("", f"What is {what[0].lower()}{what[1:-3]}? "))
    return f"{rng.choice((' ', chr(10))).join(lines)}\n{question}{what} {which}."


def repeats(document, rng):
    words = document.split(" ")
    if len(words) < 60:
        return None
    if rng.random() < 0.25:
        return refrain(document, rng)

    def prose(most):
        count = rng.randrange(10, most)
        first = rng.randrange(max(1, len(words) - count))
        return " ".join(words[first:first + count])

    if rng.random() < 0.3:  # a passage, something else, the passage again
        passage = prose(120)
        return "\n\n".join([prose(60), passage, prose(250), passage, prose(30)])
    shape, label = rng.choice(SHAPES), rng.choice(LABELS)
    keys = rng.sample(sorted({w.strip('.,;:()"') for w in words if 3 < len(w) < 12 and w.isalpha()}) or ["it"], 1)
    keys += [value(rng) for _ in range(rng.randrange(0, 8))]
    rng.shuffle(keys)
    entries = [shape.format(label=label, key=key, value=value(rng)) for key in keys]
    asked = rng.sample(entries, rng.randrange(1, len(entries) + 1))
    if rng.random() < 0.5:  # scattered over the text instead of a list
        body = "\n".join(f"{prose(80)} {entry} {prose(80)}" for entry in entries)
    else:
        body = "\n".join([prose(150), *entries, prose(250)])
    return "\n\n".join([body, "\n".join(asked), prose(30)])


def spaced(document, known, rng):
    title, _, body = document.partition("\n")
    def word(match):
        return match[0] if match[0].lower() in known or rng.random() < 0.3 else "<unk>"
    body = re.sub(r"(?<=\d),(?=\d)", " @,@ ", body)
    body = re.sub(r"(?<=\d)\.(?=\d)", " @.@ ", body)
    body = re.sub(r"(?<=\w)-(?=\w)", " @-@ ", body)
    body = re.sub(r"(?<![@\w])([^\w\s@])|([^\w\s@])(?![@\w])", lambda m: f" {m[0]} ", body)
    body = re.sub(r"'s\b", " 's", body)
    body = re.sub(r"[A-Za-z]{2,}", word, body)
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in body.split("\n")]
    return f" = {title.strip()} = \n \n" + "\n".join(f" {line} " for line in lines if line)


class Writer:
    def __init__(self, path, most):
        self.left, self.path = most, path
        self.stream = subprocess.Popen(["zstd", "-q", "-f", "-12", "-o", str(path)], stdin=subprocess.PIPE)
        self.documents = 0

    def add(self, text):
        if text is None or self.left <= 0:
            return
        data = f"{text}\n{END}\n".encode()
        self.stream.stdin.write(data)
        self.left -= len(data)
        self.documents += 1

    def close(self):
        self.stream.stdin.close()
        if self.stream.wait() != 0:
            raise SystemExit(f"{self.path}: zstd failed")
        print(f"{self.path}: {self.documents} documents")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("source", nargs="+")
    parser.add_argument("--mb", type=float, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out-fraction", type=float, default=0.01)
    parser.add_argument("--shards-seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    what = (arguments.source, arguments.held_out_fraction, arguments.shards_seed)
    counts = collections.Counter()
    for number, document in enumerate(documents(*what)):
        counts.update(document.lower().split())
        if number == 1500:
            break
    known = {word for word, _ in counts.most_common(30000)}
    most = int(arguments.mb * 1e6)
    arguments.out.mkdir(parents=True, exist_ok=True)
    writers = [Writer(arguments.out / f"{name}.txt.zst", most) for name in ("repeats", "spaced")]
    for document in documents(*what):
        if len(document) < 400:
            continue
        writers[0].add(repeats(document, rng))
        writers[1].add(spaced(document[:20000], known, rng))
        if all(writer.left <= 0 for writer in writers):
            break
    for writer in writers:
        writer.close()


if __name__ == "__main__":
    main()

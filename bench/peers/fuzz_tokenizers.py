r"""kvcast's tokenizers beside those of PyPI's `tokenizers`, on tokenizers and texts that are made up, until time is over.

    python bench/peers/fuzz_tokenizers.py build/release/kvcast_tokenizer_ids [TOKENIZER.json...] [--seconds 900] [--seed N]

Every round takes one of the given files or of tests/golden/tokenizers, most often with another normalizer, other
pre-tokenizers and other added tokens put into it, and some hundred texts: random, structured, and mutations of these. Ids of
plain text, ids with control tokens parsed and BOS, and the decoded text have to be equal. Ends with 1 at the first
difference, which it makes as short as it can; the tokenizer is kept as fuzz_tokenizers_failed.json. Bytes that are
not UTF-8 are U+FFFD one by one, as kvcast has them.

What kvcast does otherwise, and no round asks for:
- No text becomes a control token unasked, even one that is an ordinary entry of the vocabulary too.
- Control tokens are looked for in the text as it comes, even where the file says "normalized".
- An added token that is written in GPT-2's byte alphabet ("\u00e9") is text, not bytes to be decoded.
- An added token of which the normalizer leaves nothing is never found, where `tokenizers` cuts a text everywhere. Of two that it
  makes the same the first is found; `tokenizers` finds one by chance.
- Replace puts its text once where nothing is matched (a*); `tokenizers` panics there, or puts it twice.
- After a normalizer that leaves spaces as they are, or that rewrites a text's beginning, SentencePiece's rules for the
  first space hold, not those of Metaspace and Strip.
"""

import argparse
import codecs
import copy
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

from tokenizers import Tokenizer

from make_tokenizer_text import Maker

codecs.register_error("one by one", lambda error: ("\ufffd", error.start + 1))
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/tokenizers"
REGEXES = [r"\s+", r"\p{N}{1,3}", r"\p{L}+|\p{N}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"(?i:'s|'t|'re)|\w+", r"\s+(?!\S)|\s+", r"[\p{Lu}\p{M}]+",
           r"\d+|\W", r"[\p{Han}]+|\p{Hiragana}+", r"(?m).b", r"^ *|$", r"a*", r"\bw", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\h+", r"\p{P}|\p{S}"]
ADDED = ["<tool>", "[M]", "word", " x", "  ", "ab", "abc", "\u00e9", "e\u0301", "A", "\n", "<|end|>x", "</s>!", "1", "\u65e5", "user", "\u2581\u2581"]


class Rounds:
    def __init__(self, program: str, seed: int):
        self.program = program
        self.random = random.Random(seed)
        self.maker = Maker(seed)
        self.folder = tempfile.TemporaryDirectory()
        self.file = pathlib.Path(self.folder.name) / "tokenizer.json"

    # Tokenizers

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def flag(self) -> bool:
        return self.chance(0.5)

    def pattern(self, matches_nothing: bool = True) -> dict:
        regexes = [regex for regex in REGEXES if matches_nothing or not re.match(r"\^|a\*", regex)]
        return {"Regex": self.random.choice(regexes)} if self.chance(0.8) else {"String": self.random.choice([" ", "ab", "."])}

    def normalizer(self, byte_level: bool):
        contents = ["", " ", "\u2581", "xy"] if byte_level else [" ", "\u2581", "xy"]
        kinds = [lambda: {"type": "NFC"}, lambda: {"type": "NFKC"}, lambda: {"type": "Prepend", "prepend": "\u2581"},
                 lambda: {"type": "Replace", "pattern": self.pattern(False), "content": self.random.choice(contents)}]
        steps = [self.random.choice(kinds)() for _ in range(self.random.randrange(3))]
        if not byte_level:
            steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})
        return {"type": "Sequence", "normalizers": steps}

    def pre_tokenizer(self, byte_level: bool):
        split = lambda: {"type": "Split", "pattern": self.pattern(), "invert": self.flag(), "behavior": self.random.choice(
            ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"])}
        digits = lambda: {"type": "Digits", "individual_digits": self.flag()}
        steps = [self.random.choice([split, split, digits])() for _ in range(self.random.randrange(3))]
        if byte_level:
            steps.append({"type": "ByteLevel", "add_prefix_space": self.chance(0.3), "trim_offsets": True, "use_regex": self.flag()})
        elif self.chance(0.4):
            scheme = self.random.choice(["always", "never"])
            steps.append({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": self.flag()})
        return {"type": "Sequence", "pretokenizers": steps}

    def change_steps(self, whole: dict, byte_level: bool) -> None:
        if byte_level:
            if self.chance(0.5):
                whole["normalizer"] = self.normalizer(byte_level)
            if self.chance(0.6):
                whole["pre_tokenizer"] = self.pre_tokenizer(byte_level)
        elif self.chance(0.3):
            whole["normalizer"] = {"type": "Sequence", "normalizers": [{"type": self.random.choice(["NFC", "NFKC"])}]}
            whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": self.flag()}
        elif self.chance(0.6):
            whole["normalizer"] = self.normalizer(byte_level)
            whole["pre_tokenizer"] = self.pre_tokenizer(byte_level)

    def changed(self, whole: dict) -> dict:
        whole = copy.deepcopy(whole)
        byte_level = "ByteLevel" in json.dumps(whole["decoder"])
        self.change_steps(whole, byte_level)
        if byte_level and self.chance(0.3):
            whole["model"]["ignore_merges"] = self.flag()
        vocabulary = whole["model"]["vocab"]
        whole["added_tokens"] = [token for token in whole["added_tokens"] if token["special"]]
        following = max([*vocabulary.values(), *[token["id"] for token in whole["added_tokens"]]]) + 1
        for text in self.random.sample(ADDED, self.random.randrange(7)):
            if byte_level and text in ("\u00e9", "e\u0301"):
                continue
            token = {"id": vocabulary.get(text, following), "content": text, "single_word": self.chance(0.4), "lstrip": self.chance(0.4),
                     "rstrip": self.chance(0.4)}
            token["special"] = text not in vocabulary and self.chance(0.3)
            token["normalized"] = not token["special"] and self.flag()
            following += token["id"] == following
            whole["added_tokens"].append(token)
        whole["added_tokens"].sort(key=lambda token: token["id"])
        return whole

    # Texts

    def text(self, names: list[str]) -> bytes:
        made = self.maker.piece() if self.chance(0.5) else self.small_text(names)
        if len(made) > 1500:
            first = self.random.randrange(len(made) - 1500)
            made = made[first:first + self.random.randrange(1500)]
        for _ in range(self.random.choice([0, 0, 0, 1, 3])):
            at = self.random.randrange(len(made) + 1)
            made = self.random.choice([made[:at] + self.random.randbytes(1) + made[at:], made[:at] + made[at + 1:], made[:at] + made[at // 2:]])
        return made

    def small_text(self, names: list[str]) -> bytes:
        parts = [*names, *ADDED, " ", " ", "  ", "\n", "\t", "a", "b", "word", "The", " cache", "'s", "12", "345", ".", "\u00e9", "e\u0301", "\u2581",
                 "\u65e5\u672c", "\u200d", "\u0301", "\U0001F600", "\U00010d40", "\U00031350", "\u00a0", "\u3000", "\u24b6", "\u00b2", "\ufffd"]
        return "".join(self.random.choices(parts, k=self.random.randrange(1, 25))).encode()

    # Comparison

    def ours(self, texts: list[bytes]):
        """One (plain, parsed, decoded) a text; None if the tokenizer is refused."""
        given, out = (pathlib.Path(self.folder.name) / name for name in ("texts", "out"))
        given.write_bytes(b"".join(struct.pack("<i", len(text)) + text for text in texts))
        said = subprocess.run([self.program, str(self.file), str(given), "--many", "--out", str(out)], capture_output=True, text=True)
        if said.returncode == 1:
            return None, said.stderr.strip()
        if said.returncode:
            raise SystemExit(f"ended with {said.returncode}: {said.stderr}")
        data, at, results = out.read_bytes(), 0, []
        for _ in texts:
            lists = []
            for size in (4, 4, 1):
                (count,) = struct.unpack_from("<i", data, at)
                part = data[at + 4:at + 4 + count * size]
                lists.append(list(struct.unpack(f"<{count}i", part)) if size == 4 else part.decode())
                at += 4 + count * size
            results.append(tuple(lists))
        return results, ""

    @staticmethod
    def theirs(tokenizer: Tokenizer, text: bytes):
        given = text.decode(errors="one by one")
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(given, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        return plain, tokenizer.encode(given).ids, tokenizer.decode(plain)

    def differs(self, tokenizer: Tokenizer, text: bytes) -> bool:
        try:
            return self.ours([text])[0][0] != self.theirs(tokenizer, text)
        except BaseException as error:  # noqa: BLE001: their panics are no Exceptions
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return False

    def shortened(self, tokenizer: Tokenizer, text: bytes) -> bytes:
        size = len(text) // 2
        while size:
            for at in range(0, len(text), size):
                shorter = text[:at] + text[at + size:]
                if self.differs(tokenizer, shorter):
                    text = shorter
                    break
            else:
                size //= 2
        return text

    def compare(self, whole: dict) -> tuple[int, str]:
        """How many texts were compared, or why none were."""
        self.file.write_text(json.dumps(whole))
        try:
            tokenizer = Tokenizer.from_file(str(self.file))
        except Exception as error:  # noqa: BLE001: whatever they refuse
            return 0, f"tokenizers: {error}"
        normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
        normal = [normalize(token["content"]) for token in whole["added_tokens"] if token["normalized"]]
        if "" in normal or len(set(normal)) < len(normal):
            return 0, "added tokens are empty or the same when normalized"
        names = [token["content"] for token in whole["added_tokens"]][:40]
        texts = [self.text(names) for _ in range(200)]
        results, reason = self.ours(texts)
        if results is None:
            return 0, reason
        controls = {token["id"] for token in whole["added_tokens"] if token["special"]}
        for text, ours in zip(texts, results):
            try:
                theirs = self.theirs(tokenizer, text)
                if ours == theirs or not controls.isdisjoint(theirs[0]):
                    continue
            except BaseException as error:  # noqa: BLE001: their panics are no Exceptions
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                return 0, f"tokenizers panics: {error}"
            text = self.shortened(tokenizer, text)
            pathlib.Path("fuzz_tokenizers_failed.json").write_text(json.dumps(whole, ensure_ascii=False))
            mine, other = self.ours([text])[0][0], self.theirs(tokenizer, text)
            print(f"DIFFERENT on {text!r}: {text.decode(errors='one by one')!r}")
            for name, a, b in zip(("plain", "parsed", "decoded"), mine, other):
                print(f"  {name}: kvcast {a}\n  {name}: tokenizers {b}")
            for part in ("normalizer", "pre_tokenizer", "added_tokens", "post_processor", "decoder"):
                print(f"  {part}: {json.dumps(whole[part])[:1500]}")
            raise SystemExit(1)
        return len(texts), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("tokenizers", nargs="*", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    rounds = Rounds(asked.program, asked.seed)
    kinds = sorted(path.with_name(path.name.replace(".cases", "")) for path in GOLDEN.glob("*.cases.json"))
    sources = [json.loads(path.read_text()) for path in [*asked.tokenizers, *kinds]]
    end, count, texts, refused = time.time() + asked.seconds, 0, 0, {}
    while time.time() < end:
        whole = rounds.random.choice(sources)
        compared, reason = rounds.compare(rounds.changed(whole) if rounds.chance(0.8) else whole)
        count, texts = count + (compared > 0), texts + compared
        if reason:
            refused[reason[-60:]] = refused.get(reason[-60:], 0) + 1
    print(f"{texts} texts by {count} tokenizers: equal; {sum(refused.values())} tokenizers were refused")
    for reason, times in sorted(refused.items(), key=lambda item: -item[1])[:8]:
        print(f"  {times} x ... {reason}")


if __name__ == "__main__":
    sys.exit(main())

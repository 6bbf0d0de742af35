"""A text that is hard on tokenizers, the same for the same seed: writing systems, code, and everything odd.

    python bench/peers/make_tokenizer_text.py OUT [--megabytes 20] [--seed 1]

Words of the writing systems come from the translations in Debian's iso-codes (names of countries, languages, scripts,
currencies), code from this repository and Python's library. The rest is made up: emoji, control characters, every kind
of space, code points of all planes with and without combining marks, bytes that are not UTF-8, names of control tokens
whole and cut, long runs of spaces, line ends, digits, letters. Pieces follow one another in random order.
"""

import argparse
import gettext
import pathlib
import random
import sysconfig
import unicodedata

LOCALES = pathlib.Path("/usr/share/locale")
# Writing systems, and languages whose translations are in them.
SCRIPTS = {
    "Latin": ["de", "fr", "vi", "pl", "tr", "is", "yo"], "Greek": ["el"], "Cyrillic": ["ru", "uk", "kk", "mn"],
    "Armenian": ["hy"], "Georgian": ["ka"], "Hebrew": ["he"], "Arabic": ["ar", "fa", "ur", "ug"], "Devanagari": ["hi", "mr", "ne"],
    "Bengali": ["bn", "as"], "Gurmukhi": ["pa"], "Gujarati": ["gu"], "Oriya": ["or"], "Tamil": ["ta"], "Telugu": ["te"],
    "Kannada": ["kn"], "Malayalam": ["ml"], "Sinhala": ["si"], "Thai": ["th"], "Tibetan": ["dz"], "Ethiopic": ["am", "ti"],
    "Khmer": ["km"], "Hangul": ["ko"], "Japanese": ["ja"], "Han": ["zh_CN", "zh_TW"]}
CONTROL_TOKENS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<s>", "</s>", "<unk>",
    "<|fim_prefix|>", "<repo_name>", "<tool_call>", "</tool_call>", "<|object_ref_start|>", "<0x41>", "<0xE2>", "[INST]", "\u2581"]
SPACES = [chr(c) for c in range(0x110000) if chr(c).isspace()] + ["\u200b", "\ufeff", "\u180e", "\u200d", "\u2060"]
MARKS = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me")]
COMPOSED = [chr(c) for c in range(0x110000) if unicodedata.decomposition(chr(c))]


def words_of(language: str) -> list[str]:
    words = []
    for file in sorted(LOCALES.glob(f"{language}/LC_MESSAGES/iso_*.mo")):
        with file.open("rb") as opened:
            catalog = gettext.GNUTranslations(opened)._catalog
        words += [text for key, text in catalog.items() if key and isinstance(text, str)]
    return sorted(set(words))


class Maker:
    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.languages = {script: [word for name in names for word in words_of(name)] for script, names in SCRIPTS.items()}
        missing = [script for script, words in self.languages.items() if not words]
        if missing:
            raise SystemExit(f"no translations in {', '.join(missing)}: apt-get install iso-codes")
        root = pathlib.Path(__file__).resolve().parents[2]
        files = [f for end in ("*.cpp", "*.h", "*.py", "*.md", "*.sh") for folder in ("src", "tests", "docs", "python", "fuzz")
                 for f in (root / folder).rglob(end)]
        files += sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        self.code = [file.read_text(errors="replace") for file in sorted(files)]

    def language(self) -> str:
        words = self.languages[self.random.choice(sorted(self.languages))]
        sentences = []
        for _ in range(self.random.randrange(5, 40)):
            chosen = self.random.choices(words, k=self.random.randrange(1, 12))
            sentences.append(" ".join(chosen) + self.random.choice([". ", ", ", "; ", "? ", "\n", "\u3002", "\u0964 ", " (1) "]))
        return "".join(sentences)

    def source_code(self) -> str:
        lines = self.random.choice(self.code).splitlines(keepends=True)
        first = self.random.randrange(max(1, len(lines)))
        return "".join(lines[first:first + self.random.randrange(5, 80)])

    def emoji(self) -> str:
        some = lambda first, last: chr(self.random.randrange(first, last))
        kinds = [lambda: some(0x1F300, 0x1FAFF), lambda: some(0x1F600, 0x1F64F) + some(0x1F3FB, 0x1F400),
                 lambda: "\u200d".join(some(0x1F466, 0x1F480) for _ in range(3)), lambda: some(0x2600, 0x27BF) + "\ufe0f",
                 lambda: some(0x1F1E6, 0x1F200) + some(0x1F1E6, 0x1F200), lambda: self.random.choice("0123456789#*") + "\ufe0f\u20e3"]
        return "".join(self.random.choice(kinds)() + self.random.choice(["", "", " ", "!"]) for _ in range(40))

    def controls(self) -> str:
        pool = [chr(c) for c in [*range(0x20), *range(0x7F, 0xA1), 0xAD, *range(0x2028, 0x2030), *range(0xFFF0, 0x10000)]]
        return "".join(self.random.choice([*pool, "a", " ", "1", "."]) for _ in range(100))

    def spaces(self) -> str:
        return "".join(self.random.choice([self.random.choice(SPACES) * self.random.randrange(1, 4), "a", "1", "-", "\u00e9", "'s"])
                       for _ in range(100))

    def code_points(self) -> str:
        tops = [0x300, 0x3000, 0x10000, 0x20000, 0x32400, 0x110000]
        taken = []
        for _ in range(100):
            character = self.random.randrange(self.random.choice(tops))
            taken.append(chr(0xFFFD if 0xD800 <= character < 0xE000 else character) * self.random.choice([1, 1, 1, 2, 5]))
            taken.append(self.random.choice(["", "", " ", "\n"]))
        return "".join(taken)

    def composition(self) -> str:
        taken = []
        for _ in range(60):
            base = self.random.choice(COMPOSED) if self.random.random() < 0.7 else self.random.choice("aeiou\u1100\u0915")
            text = base + "".join(self.random.choices(MARKS, k=self.random.choice([0, 0, 1, 2, 3])))
            taken.append(unicodedata.normalize(self.random.choice(["NFC", "NFD"]), text) if self.random.random() < 0.5 else text)
        return self.random.choice(["", " "]).join(taken)

    def invalid(self) -> bytes:
        valid = "z\u00e9\u65e5\U0001F600".encode()
        bad = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80\xbf", b"\xc3", b"\xfe\xfe"]
        pieces = self.random.choices(bad + [valid, b" ", b"word", self.random.randbytes(9)], k=40)
        return b"".join(pieces)

    def control_tokens(self) -> str:
        taken = []
        for _ in range(30):
            name = self.random.choice(CONTROL_TOKENS)
            if self.random.random() < 0.3:
                cut = self.random.randrange(len(name))
                name = name[:cut] + self.random.choice([name[cut:], "", " "]) + name
            taken.append(name + self.random.choice(["", " ", "\n", "user", "x", "  "]))
        return "".join(taken)

    def runs(self) -> str:
        unit = self.random.choice([" ", " ", "\t", "\n", "\r\n", "0", "7", "12", "a", "=", "-", "\u00e9", "\u65e5", "\u3000", " \n", "ab ", "\U0001F600"])
        length = self.random.choice([3, 10, 40, 200, 1000, 4000])
        digits = "".join(self.random.choices("0123456789\u0663\u0967\u00b2", k=length))
        return self.random.choice([unit * length, unit * length, digits]) + self.random.choice(["x", " x", "\n", ""])

    def piece(self) -> bytes:
        kinds = [self.language] * 24 + [self.source_code] * 4 + [self.emoji] * 3 + [self.spaces] * 2 + [self.code_points] * 3
        kinds += [self.composition] * 3 + [self.controls] * 2 + [self.invalid] * 2 + [self.control_tokens] * 3 + [self.runs] * 3
        made = self.random.choice(kinds)()
        return made if isinstance(made, bytes) else made.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    maker, size = Maker(asked.seed), 0
    with asked.out.open("wb") as out:
        while size < asked.megabytes * 1e6:
            size += out.write(maker.piece())


if __name__ == "__main__":
    main()

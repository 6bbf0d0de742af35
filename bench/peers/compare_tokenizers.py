"""kvcast's token ids beside those of PyPI's `tokenizers`, on text of one's own.

    python bench/peers/compare_tokenizers.py build/release/kvcast_tokenizer_ids TOKENIZER.json TEXT... [--model MODEL]

kvcast reads MODEL, a GGUF file or another form of the same tokenizer, if it is given. make_tokenizer_json.py makes
TOKENIZER.json of such a file, make_tokenizer_text.py a text with everything in it. Each text is encoded twice: as plain
text, and with the names of control tokens parsed. Shows the first difference of each, and exits with 1 if there is one. Bytes that are not UTF-8 are U+FFFD one by one in what `tokenizers` gets, as in
what kvcast makes of them.
"""

import argparse
import codecs
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from tokenizers import Tokenizer


# Every byte that belongs to no character is U+FFFD.
codecs.register_error("one by one", lambda error: ("\ufffd", error.start + 1))


def compare(program: str, tokenizer_file: str, model: str, text_file: pathlib.Path, parse_special: bool) -> bool:
    tokenizer = Tokenizer.from_file(tokenizer_file)
    tokenizer.encode_special_tokens = not parse_special
    text = text_file.read_bytes().decode(errors="one by one")
    expected = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory) / "ids"
        command = [program, model, str(text_file), "--out", str(out)]
        said = subprocess.run(command + ["--parse-special"] * parse_special, check=True, capture_output=True, text=True)
        ids = np.fromfile(out, np.int32)
    shorter = min(len(ids), len(expected))
    different = np.flatnonzero(ids[:shorter] != expected[:shorter])
    equal = len(ids) == len(expected) and not len(different)
    how = "control tokens" if parse_special else "plain text"
    print(f"{text_file}, {how}: {said.stdout.strip()}: {'equal' if equal else 'DIFFERENT'}")
    if not equal:
        at = int(different[0]) if len(different) else shorter
        around = slice(max(0, at - 3), at + 6)
        for name, tokens in (("kvcast", ids), ("tokenizers", expected)):
            print(f"  {name:>10} at {at}: {[tokenizer.id_to_token(int(token)) for token in tokens[around]]}")
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("tokenizer")
    parser.add_argument("text", nargs="+", type=pathlib.Path)
    parser.add_argument("--model")
    asked = parser.parse_args()
    model = asked.model or asked.tokenizer
    results = [compare(asked.program, asked.tokenizer, model, text, parse) for text in asked.text for parse in (False, True)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

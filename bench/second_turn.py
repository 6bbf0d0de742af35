#!/usr/bin/env python3
"""What a forecast costs the second turn: a passkey or a pair of words from the first turn's prompt, asked for after an answer.

bench/second_turn.py BUNDLE --out FILE.json      (KVCAST_LIBRARY names libkvcast.so of a build)

The first turn's prompt hides a passkey in filling, or is a list of pairs of words, and is read by each strategy; the base writes an
answer of --answer tokens over it (refined beside it or not); then the key is asked for. The answer of the second turn is right where it
begins with the key; it is also compared with what exact makes of the very same conversation.
"""
import argparse
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import kvcast  # noqa: E402

WORDS = ("river stone apple horse king house water bread ship tree mountain book road garden winter summer gold silver bird fish sword church city "
         "island forest bridge paper glass window table music letter school army field cloud fire snow wheel tower").split()


def passkey(draw, fill):
    key = str(draw.randint(10000, 99999))
    sentences = ["The grass is green. The sky is blue. The sun is yellow. "] * fill
    sentences.insert(draw.randint(0, fill), f"The pass key is {key}. Remember it. ")
    return ("There is a pass key hidden in this text. Remember it.\n" + "".join(sentences), "\nWhat is the pass key? The pass key is", key)


def recall(draw, pairs):
    keys, values = draw.sample(WORDS, pairs), draw.sample(WORDS, pairs)
    asked = draw.randrange(pairs)
    text = "".join(f"The {key} goes with the {value}.\n" for key, value in zip(keys, values))
    return text, f"\nThe {keys[asked]} goes with the", values[asked]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=pathlib.Path)
    options.add_argument("--prefill", nargs="+", default=["exact", "kv-prediction", "kv-prediction:refine=8"])
    options.add_argument("--examples", type=int, default=50)
    options.add_argument("--answer", type=int, default=64, help="tokens of the first turn's answer")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=pathlib.Path)
    chosen = options.parse_args()
    model = kvcast.Model.load(chosen.bundle, threads=chosen.threads)
    session = model.session()
    results = {}
    for name, make, size in (("passkey, 18 units", passkey, 18), ("recall, 16 pairs", recall, 16)):
        draw = random.Random(f"second turn {name}")
        examples = [make(draw, size) for _ in range(chosen.examples)]
        scores = {prefill: {"right": 0, "as_exact": 0} for prefill in chosen.prefill}
        for text, question, key in examples:
            first, asked = model.tokenize(text), model.tokenize(question, add_bos=False)
            for prefill in chosen.prefill:
                session.reset()
                written = session.generate(first, prefill=prefill, max_tokens=chosen.answer, ignore_end_of_text=True).read()
                answer = session.generate(asked, prefill=prefill, max_tokens=8, ignore_end_of_text=True).read()
                scores[prefill]["right"] += answer.text.strip().startswith(key)
                session.reset()
                conversation = [*first, *written.tokens, *asked]
                exact = session.generate(conversation, prefill="exact", max_tokens=8, ignore_end_of_text=True).read()
                scores[prefill]["as_exact"] += list(answer.tokens) == list(exact.tokens)
        results[name] = {"prompt_tokens": len(first), "examples": chosen.examples, "strategies": scores}
        print(name, json.dumps(results[name]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps({"bundle": chosen.bundle.name, "dtype": model.dtype, "first_answer_tokens": chosen.answer,
                                          "tasks": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

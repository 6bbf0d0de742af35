#!/usr/bin/env python3
"""Calibrates the gate of a bundle and measures it on other prompts (docs/EVALUATION.md, "The gate").

bench/gate.py BUNDLE --data EVAL_SETS --text HELD_OUT.txt --out gate.json     (KVCAST_LIBRARY names libkvcast.so of a build)

A forecast is wrong where one of its first greedy tokens is not exact's. The threshold is the one that tells wrong from right
best on the calibration prompts (largest hit rate less false alarms); ROC and area are of the test prompts, drawn from other rows.
"""
import argparse
import gzip
import json
import pathlib
import random
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import kvcast  # noqa: E402

ANSWER_TOKENS = 6
FORECAST = "kv-prediction:tail=16"
JUDGED = FORECAST + ",gate=-1000"  # refuses nothing


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Prompts:
    """Token ids of prompts of several kinds; half 0 and half 1 share no row of the data."""

    def __init__(self, model, data, text, half):
        self.model, self.random = model, random.Random(f"gate {half}")
        mine = lambda items: items[half::2]
        self.programs = mine(rows(data / "HumanEval.jsonl.gz"))
        self.passages = mine(rows(data / "boolq.jsonl.gz"))
        self.lessons = mine([row for row in rows(data / "sciq_validation.jsonl.gz") if row["support"]])
        self.questions = mine(rows(data / "triviaqa-validation.jsonl.gz"))
        whole = text.read_text(encoding="utf-8").replace("<|endoftext|>", "")
        self.documents = mine([whole[begin:begin + 12000] for begin in range(0, len(whole) - 12000, 12000)])

    def cut(self, text, most):
        return [int(token) for token in self.model.tokenize(text)[:most]]

    def length(self):
        return self.random.randint(128, 768)

    def prose(self):
        text = self.random.choice(self.documents)
        return self.cut(text[self.random.randrange(len(text) // 3):], self.length())

    def code(self):
        chosen = self.random.sample(self.programs, 8)
        return self.cut("\n\n".join(row["prompt"] + row["canonical_solution"] for row in chosen), self.length())

    def chat(self):
        turns = [f"User: {row['support']} {row['question']}\nAssistant: {row['correct_answer']}\n"
                 for row in self.random.sample(self.lessons, self.random.randint(1, 4))]
        asked = self.random.choice(self.passages)
        return self.cut("".join(turns) + f"User: {asked['passage']} {asked['question']}?\nAssistant:", 900)

    def questions_and_answers(self):
        solved = [f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"
                  for row in self.random.sample(self.questions, self.random.randint(3, 20))]
        return self.cut("".join(solved) + f"Question: {self.random.choice(self.questions)['question']}\nAnswer:", 900)

    def passkey(self):
        fill = self.random.randint(4, 75)
        sentences = ["The grass is green. The sky is blue. The sun is yellow. "] * fill
        self.key = str(self.random.randint(10000, 99999))
        sentences.insert(self.random.randint(0, fill), f"The pass key is {self.key}. Remember it. ")
        return self.cut("There is a pass key hidden in this text. Remember it.\n" + "".join(sentences)
                        + "\nWhat is the pass key? The pass key is", 1500)

    def unlike(self):
        kind = self.random.randrange(3)
        if kind == 0:
            text = " ".join(str(self.random.randrange(100000)) for _ in range(600))
        elif kind == 1:
            text = "".join(self.random.choice("0123456789abcdef") for _ in range(2000))
        else:
            words = self.random.choice(self.documents).split()[:1200]
            self.random.shuffle(words)
            text = " ".join(words)
        return self.cut(text, self.length())

    KINDS = ("prose", "code", "chat", "questions_and_answers", "passkey", "unlike")

    def draw(self, count, passkeys):
        """[kind, prompt, key, of a passkey]"""
        return [(kind, getattr(self, kind)(), self.key if kind == "passkey" else None)
                for kind in self.KINDS for _ in range(passkeys if kind == "passkey" else count)]


def judge(model, prompts, session):
    """[kind, score, wrong, milliseconds to the first token exactly, by a judged forecast and by one that is not, and of a passkey whether
    exact's answer and the forecast's have it] of each prompt."""
    judged = []
    for number, (kind, prompt, key) in enumerate(prompts):
        answers = {}
        for prefill in ("exact", FORECAST, JUDGED):
            session.reset()
            answers[prefill] = session.generate(prompt, prefill=prefill, max_tokens=ANSWER_TOKENS, ignore_end_of_text=True).read()
        wrong = [int(t) for t in answers["exact"].tokens] != [int(t) for t in answers[JUDGED].tokens]
        judged.append((kind, answers[JUDGED].timings.gate_score, wrong, *(answers[p].timings.ttft_ms for p in ("exact", JUDGED, FORECAST)),
                       key and tuple(key in answers[p].text for p in ("exact", JUDGED))))
        if number % 20 == 19:
            print(f"{number + 1} of {len(prompts)}", file=sys.stderr)
    return judged


def rates(judged, threshold):
    """Shares of the wrong and of the right forecasts that are refused."""
    wrong = [score < threshold for _, score, bad, *_ in judged if bad]
    right = [score < threshold for _, score, bad, *_ in judged if not bad]
    return sum(wrong) / max(1, len(wrong)), sum(right) / max(1, len(right))


def area(judged):
    wrong = [score for _, score, bad, *_ in judged if bad]
    right = [score for _, score, bad, *_ in judged if not bad]
    if not wrong or not right:
        return None
    return sum((w < r) + (w == r) / 2 for w in wrong for r in right) / (len(wrong) * len(right))


def summary(judged, threshold):
    caught, alarms = rates(judged, threshold)
    refused = [row for row in judged if row[1] < threshold]
    exact_ms = statistics.fmean(row[3] for row in judged)
    return {"n": len(judged), "wrong": sum(row[2] for row in judged), "area": area(judged), "refused": len(refused),
            "wrong_refused_share": caught, "right_refused_share": alarms, "wrong_after_gate": sum(row[2] for row in judged if row[1] >= threshold),
            "mean_ttft_ms": {"exact": exact_ms, "forecast": statistics.fmean(row[5] for row in judged),
                             "forecast, judged": statistics.fmean(row[4] for row in judged)}}


def with_gate(prompts, judged, threshold, session):
    """Mean milliseconds to the first token exactly, and with the gate, in turns."""
    taken = {"exact": [], f"{FORECAST},gate={threshold}": []}
    for _, prompt, _ in prompts:
        for prefill, times in taken.items():
            session.reset()
            times.append(session.generate(prompt, prefill=prefill, max_tokens=1).read().timings.ttft_ms)
    kinds = [row[0] for row in judged]
    return {kind: {prefill: statistics.fmean(t for t, k in zip(times, kinds) if kind in (k, "all")) for prefill, times in taken.items()}
            for kind in ("all", *Prompts.KINDS)}


def passkeys(judged, threshold):
    """What becomes of those that exact repeats."""
    found = [(score < threshold, key[1]) for kind, score, *_, key in judged if key and key[0]]
    return {"exact_has": len(found), "forecast_loses": sum(not has for _, has in found), "lost_refused": sum(refused and not has for refused, has in found),
            "kept_refused": sum(refused and has for refused, has in found), "gate_has": sum(refused or has for refused, has in found)}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=pathlib.Path)
    options.add_argument("--data", type=pathlib.Path, required=True, help="folder of HumanEval.jsonl.gz, boolq, sciq_validation, triviaqa-validation")
    options.add_argument("--text", type=pathlib.Path, required=True, help="held-out text, of at least 100,000 characters")
    options.add_argument("--per-kind", type=int, default=40, help="prompts of each kind, and as many others to test")
    options.add_argument("--passkeys", type=int, default=80, help="prompts of this kind: few forecasts of them are wrong")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=pathlib.Path, required=True)
    options.add_argument("--write", action="store_true", help="put the threshold into the bundle's kvcast.json")
    chosen = options.parse_args()
    model = kvcast.Model.load(chosen.bundle, threads=chosen.threads)
    session = model.session()
    prompts = [Prompts(model, chosen.data, chosen.text, half).draw(chosen.per_kind, chosen.passkeys) for half in (0, 1)]
    calibration, test = (judge(model, half, session) for half in prompts)
    candidates = sorted(score for _, score, *_ in calibration)
    threshold = round(max(candidates, key=lambda t: rates(calibration, t)[0] - rates(calibration, t)[1]), 2)
    roc = [dict(zip(("threshold", "wrong_refused_share", "right_refused_share"), (round(t, 3), *rates(test, t))))
           for t in candidates[::max(1, len(candidates) // 20)]]
    kinds = {kind: summary([row for row in test if row[0] == kind], threshold) for kind in Prompts.KINDS}
    chosen.out.write_text(json.dumps({
        "bundle": chosen.bundle.name, "dtype": model.dtype, "threads": chosen.threads, "answer_tokens": ANSWER_TOKENS, "prefill": JUDGED,
        "threshold": threshold, "calibration": summary(calibration, threshold), "test": summary(test, threshold),
        "test_by_kind": kinds, "test_passkeys": passkeys(test, threshold),
        "test_mean_ttft_ms": with_gate(prompts[1], test, threshold, session), "test_roc": roc}, indent=1) + "\n", encoding="utf-8")
    if chosen.write:
        manifest = chosen.bundle / "kvcast.json"
        known = json.loads(manifest.read_text(encoding="utf-8"))
        known["gate"] = threshold
        manifest.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(chosen.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

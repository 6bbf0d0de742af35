#!/usr/bin/env python3
"""What drafts bring: the same greedy answers with and without them, in turns, token for token compared.

    PYTHONPATH=python KVCAST_LIBRARY=build/release/libkvcast.so bench/drafts.py MODEL TASK --data FILE --out results/drafts.json

Tasks: `code` goes on with HumanEval's prompts, `edit` asks for HumanEval's solutions with a change, `passage` asks BoolQ's questions with
the passage beside them (--data: HumanEval.jsonl.gz, boolq.jsonl.gz), `chat` is open questions of this file. Each prompt is answered by a
conversation of its own under each of --drafts, --rounds times in turns, of which the median counts; tokens/s are of decoding alone. With --out, what
the file holds of the same model and task is kept, so that a long series can be taken in pieces (--first, --limit).
"""
import argparse
import gzip
import json
import os
import pathlib
import statistics
import sys

import kvcast

CODE_STOP = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
CHANGES = ["Add type hints to every parameter and the return value of this function.",
           "Rename the first parameter of this function to `data` everywhere.",
           "Add a comment above each statement of this function.",
           "Make this function raise a ValueError where its first argument is None."]
CHAT = ["What is the capital of France, and what is it known for?", "Explain photosynthesis to a child.",
        "Write a short poem about the sea.", "Give me three tips for better sleep.", "Why is the sky blue?",
        "Tell me a story about a fox and a crow.", "How do I make a good cup of coffee?", "What is a black hole?",
        "Write an email in which I ask my boss for a day off.", "What are the benefits of regular exercise?",
        "Describe the city of Rome to somebody who has never been there.", "How does a refrigerator work?",
        "Suggest a dinner for two with pasta.", "What should I see in Japan in a week?", "What makes a good friend?",
        "Explain the difference between weather and climate.", "Give me ideas for a birthday present for my father.",
        "How can I learn to play the guitar?", "What was the industrial revolution?", "Write a toast for a wedding."]


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def prompts(model, task, data):
    """(prompt tokens, stop strings), one after the other."""
    if task == "code":
        for row in rows(data):
            yield model.tokenize(row["prompt"]), CODE_STOP
        return
    if task == "chat":
        questions = CHAT
    elif task == "edit":
        questions = [f"{CHANGES[i % len(CHANGES)]} Answer with the whole function.\n\n```python\n{row['prompt']}{row['canonical_solution']}```"
                     for i, row in enumerate(rows(data))]
    else:
        questions = [f"{row['passage']}\n\nWhich sentences of this text bear on the question \"{row['question']}?\"? "
                     "Copy them, then explain in a sentence what they say."
                     for row in rows(data)]
    for question in questions:
        yield model.chat_prompt([{"role": "user", "content": question}]), model.chat_stop


def answer(model, prompt, stop, drafts, options):
    return model.session().generate(prompt, prefill=options.prefill, max_tokens=options.max_tokens, stop=stop, drafts=drafts).read()


def measure(model, options):
    examples = []
    every = list(prompts(model, options.task, options.data))[options.first:options.first + options.limit]
    for drafts in options.drafts:  # warms up what is measured
        answer(model, *every[0], drafts, options)
    for i, (prompt, stop) in enumerate(every):
        found = {drafts: [] for drafts in options.drafts}
        for turn in range(options.rounds):
            for drafts in options.drafts if (i + turn) % 2 == 0 else options.drafts[::-1]:
                found[drafts].append(answer(model, prompt, stop, drafts, options))
        first = found[options.drafts[0]][0]
        equal = all(list(done.tokens) == list(first.tokens) and done.text == first.text for of_mode in found.values() for done in of_mode)
        example = {"example": options.first + i, "prompt_tokens": len(prompt), "equal": equal, "runs": {}}
        for drafts, answers in found.items():
            times = [done.timings for done in answers]
            example["runs"][drafts] = {"tokens": times[0].decode_tokens, "ms": statistics.median(time.decode_ms for time in times),
                                       "drafted": statistics.median(time.drafted_tokens for time in times),
                                       "accepted": statistics.median(time.accepted_tokens for time in times)}
        examples.append(example)
        print(json.dumps(example), file=sys.stderr)
    return examples


def summary(examples, modes):
    """Tokens/s over all answers, and what each answer gained over the first mode."""
    out = {"examples": len(examples), "equal": sum(example["equal"] for example in examples)}
    for mode in modes:
        runs = [example["runs"][mode] for example in examples]
        speeds = [run["tokens"] / run["ms"] for run in runs if run["tokens"] > 0]
        base = [example["runs"][modes[0]] for example in examples if example["runs"][mode]["tokens"] > 0]
        ratios = [speed * run["ms"] / run["tokens"] for speed, run in zip(speeds, base)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        drafted = sum(run["drafted"] for run in runs)
        out[mode] = {"tokens_per_s": 1e3 * sum(run["tokens"] for run in runs) / sum(run["ms"] for run in runs),
                     "gain_quartiles": quartiles, "gain_least": min(ratios), "gain_most": max(ratios), "drafted": drafted,
                     "accepted": sum(run["accepted"] for run in runs)}
    return out


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("task", choices=["code", "edit", "passage", "chat"])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--drafts", nargs="+", default=["off", "auto"], help="the first is what the others are compared with")
    parser.add_argument("--prefill", default="exact")
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    model = kvcast.Model.load(options.model, threads=options.threads)
    examples = measure(model, options)
    name = f"{pathlib.Path(options.model).stem} {options.task}"
    results = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    kept = [example for example in results.get(name, {}).get("examples", []) if set(example["runs"]) == set(options.drafts)]
    of_now = {example["example"] for example in examples}
    examples = sorted([example for example in kept if example["example"] not in of_now] + examples, key=lambda example: example["example"])
    results[name] = {"machine": machine(), "processors": os.cpu_count(), "threads": model.threads,
                     "commit": kvcast.__commit__, "prefill": options.prefill, "rounds": options.rounds, "max_tokens": options.max_tokens,
                     "summary": summary(examples, options.drafts), "examples": examples}
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({name: results[name]["summary"]}, indent=1))
    if not all(example["equal"] for example in examples):
        sys.exit("answers differ")


if __name__ == "__main__":
    main()

"""Greedy answers with revision are exact's, token for token: prompts of three kinds, streamed and whole.

    python tests/clients/revise_check.py KVCAST MODEL --data EVAL_SETS --chats CHATS.jsonl [--per-kind 100] [--out FILE.json]

EVAL_SETS holds HumanEval.jsonl.gz and the triviaqa sets (docs/EVALUATION.md), CHATS.jsonl rows with `prompt`. Each prompt is
answered exactly, over the forecast with `revise` as a whole (its tokens must be exact's) and streamed (its text must be, once
revisions are made, and the time of everything is taken).
"""
import argparse
import gzip
import json
import os
import statistics

from served import Served

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("kvcast")
parser.add_argument("model")
parser.add_argument("--data", required=True)
parser.add_argument("--chats", required=True)
parser.add_argument("--per-kind", type=int, default=100)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--prefill", default="kv-prediction:refine=auto")
parser.add_argument("--threads", default="2")
parser.add_argument("--out")
args = parser.parse_args()


def rows(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
    with opened as lines:
        return [json.loads(line) for line in lines][:args.per_kind]


def question(row):
    return f"Question: {row['question']}\nAnswer:"


solved = "".join(f"{question(row)} {row['answer']}\n\n" for row in rows(os.path.join(args.data, "triviaqa-train.jsonl.gz"))[:8])
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
prompts = ([("chat", CHAT, {"messages": [{"role": "user", "content": row["prompt"]}]}) for row in rows(args.chats)]
           + [("code", TEXT, {"prompt": row["prompt"]}) for row in rows(os.path.join(args.data, "HumanEval.jsonl.gz"))]
           + [("TriviaQA", TEXT, {"prompt": solved + question(row)}) for row in rows(os.path.join(args.data, "triviaqa-validation.jsonl.gz"))])


def whole(server, path, body, prefill, revise):
    """(tokens, how it ended, timings)"""
    logprobs = {"logprobs": True} if path == CHAT else {"logprobs": 0}
    answer = server.post(path, **body, **logprobs, temperature=0, max_tokens=args.tokens, prefill=prefill, revise=revise, cache_prompt=False)
    choice = answer["choices"][0]
    tokens = [entry["bytes"] for entry in choice["logprobs"]["content"]] if path == CHAT else choice["logprobs"]["tokens"]
    text = choice["message"]["content"] if path == CHAT else choice["text"]
    return tokens, text, choice["finish_reason"], answer["timings"]


answers = []
with Served(args.kvcast, args.model, "--threads", args.threads) as server:
    for number, (kind, path, body) in enumerate(prompts):
        exact = whole(server, path, body, "exact", False)
        found = whole(server, path, body, args.prefill, True)
        text, timings, events = server.stream(path, **body, max_tokens=args.tokens, prefill=args.prefill, revise=True, cache_prompt=False)
        entry = {"kind": kind, "prompt_tokens": exact[3]["prompt_tokens"], "tokens": exact[3]["generated_tokens"],
                 "equal": found[:3] == exact[:3], "equal_streamed": text == exact[1],
                 "exact_ttft_ms": exact[3]["ttft_ms"], "exact_ms": exact[3]["ttft_ms"] + exact[3]["decode_ms"],
                 "ttft_ms": timings["ttft_ms"], "ms": timings["ttft_ms"] + timings["decode_ms"],
                 "exact_after_tokens": timings["exact_after_tokens"], "revised_tokens": timings["revised_tokens"]}
        taken_back = [(ms, event) for ms, event in events if event.get("object") == "kvcast.revision"]
        if timings["revised_tokens"]:
            entry["from_token"] = timings["exact_after_tokens"]  # all before it are exact's
            shown = [ms for ms, event in events if event.get("object") != "kvcast.revision"]
            if taken_back:  # else what was taken back had not become text yet
                entry |= {"from_character": taken_back[0][1]["from_character"], "wrong_for_ms": taken_back[0][0] - shown[0]}
        answers.append(entry)
        if number % 10 == 9:
            print(f"{number + 1} of {len(prompts)}, {sum(not a['equal'] or not a['equal_streamed'] for a in answers)} differ, "
                  f"{sum(a['revised_tokens'] > 0 for a in answers)} revised", flush=True)
        if not entry["equal"] or not entry["equal_streamed"]:
            print(f"{kind}, prompt {number}: differs: {exact[1]!r}, {found[1]!r}, streamed {text!r}", flush=True)


def summary(of):
    revised = [a for a in of if a["revised_tokens"]]
    mean = lambda values: round(statistics.fmean(values), 1) if (values := list(values)) else None
    return {"prompts": len(of), "equal": sum(a["equal"] for a in of), "equal_streamed": sum(a["equal_streamed"] for a in of), "revised": len(revised),
            "mean_prompt_tokens": mean(a["prompt_tokens"] for a in of),
            "revised_from_token": sorted(a["from_token"] for a in revised), "mean_tokens_taken_back": mean(a["revised_tokens"] for a in revised),
            "mean_ms_until_taken_back": mean(a["wrong_for_ms"] for a in revised if "wrong_for_ms" in a),
            "mean_ttft_ms": {"exact": mean(a["exact_ttft_ms"] for a in of), "forecast": mean(a["ttft_ms"] for a in of)},
            "mean_ms_to_the_end": {"exact": mean(a["exact_ms"] for a in of), "not revised": mean(a["ms"] - a["exact_ms"] for a in of if not a["revised_tokens"]),
                                   "revised": mean(a["ms"] - a["exact_ms"] for a in revised)}}


result = {"model": os.path.basename(args.model.rstrip("/")), "prefill": args.prefill, "answer_tokens": args.tokens, "threads": int(args.threads),
          "mean_ms_to_the_end": "of exact; for the others what is added to it, over the same prompts", "all": summary(answers),
          "kinds": {kind: summary([a for a in answers if a["kind"] == kind]) for kind in dict.fromkeys(a["kind"] for a in answers)}}
print(json.dumps(result, indent=1))
if args.out:
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(json.dumps(result, indent=1) + "\n")
assert all(a["equal"] and a["equal_streamed"] for a in answers)

"""`auto:ttft=` on this machine: how near its estimates are to the time taken, and whether budgets are kept where any strategy could.

    python tests/clients/budget_check.py KVCAST MODEL [--prompts 200] [--out FILE.json]

Prompts of 16 to 2,048 tokens (no longer than the context), evenly spread over the logarithm of their length, in any order, each with a
budget between the forecast's time and more than exact's. Beside each request the same prompt is read exactly and by forecast, in turns:
what any strategy could; and once more right after, just as `auto` read it: how far the machine agrees with itself.
"""
import argparse
import json
import math
import os
import random
import statistics

from served import Served

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("kvcast")
parser.add_argument("model")
parser.add_argument("--prompts", type=int, default=200)
parser.add_argument("--longest", type=int, default=2048)
parser.add_argument("--threads", default="2")
parser.add_argument("--out")
args = parser.parse_args()
draw = random.Random(11)


def ask(server, prompt, prefill):
    return server.complete(prompt, max_tokens=1, prefill=prefill, cache_prompt=False)["timings"]


rows = []
# A default strategy that has to know the machine measures it at load.
with Served(args.kvcast, args.model, "--threads", args.threads, "--prefill", "auto:ttft=300") as server:
    context = json.loads(server.ask("GET", "/props")[1])["default_generation_settings"]["n_ctx"]
    longest = min(args.longest, context - 2)
    vocabulary = server.post("/tokenize", prompt="".join(chr(c) for c in range(97, 123)) * 40)["tokens"]
    lengths = [round(16 * (longest / 16) ** (i / (args.prompts - 1))) for i in range(args.prompts)]
    draw.shuffle(lengths)
    for length in lengths:
        prompt = [draw.choice(vocabulary) for _ in range(length)]
        could = {spec: ask(server, prompt, spec)["ttft_ms"] for spec in ("exact", "kv-prediction")}
        budget = max(1, round(min(could.values()) * draw.uniform(1, 6)))
        timings = ask(server, prompt, f"auto:ttft={budget}")
        again = ask(server, prompt, timings["prefill"])
        rows.append({"tokens": length, "budget_ms": budget, "prefill": timings["prefill"], "estimated_ms": timings["estimated_ms"],
                     "prefill_ms": timings["prefill_ms"], "again_ms": again["prefill_ms"], "ttft_ms": timings["ttft_ms"], "exact_ms": could["exact"],
                     "forecast_ms": could["kv-prediction"]})

for row in rows:
    row["off"] = row["estimated_ms"] / row["prefill_ms"] - 1
within = lambda some: sum(abs(row["off"]) <= 0.15 for row in some) / max(1, len(some))
possible = [row for row in rows if min(row["exact_ms"], row["forecast_ms"]) <= row["budget_ms"]]
late = [row for row in possible if row["ttft_ms"] > row["budget_ms"]]
result = {"model": os.path.basename(args.model.rstrip("/")), "threads": int(args.threads), "prompts": len(rows), "tokens": [min(lengths), max(lengths)],
          "within_15_percent": within(rows), "within_15_percent_exact": within([r for r in rows if r["prefill"] == "exact"]),
          "within_15_percent_forecast": within([r for r in rows if r["prefill"] != "exact"]),
          "within_15_percent_by_length": {f"{2 ** i} to {2 ** (i + 1) - 1}": within([r for r in rows if 2 ** i <= r["tokens"] < 2 ** (i + 1)])
                                          for i in range(4, int(math.log2(max(lengths))) + 1)},
          # What estimates are up against: how well the very same reading right after tells the time of this one.
          "read_again_within_15_percent": sum(abs(row["again_ms"] / row["prefill_ms"] - 1) <= 0.15 for row in rows) / len(rows),
          "median_off": statistics.median(row["off"] for row in rows), "exact_share": sum(r["prefill"] == "exact" for r in rows) / len(rows),
          "budget_possible": len(possible), "budget_kept": len(possible) - len(late),
          "late_by": sorted(round(row["ttft_ms"] / row["budget_ms"] - 1, 3) for row in late), "rows": rows}
print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1))
if args.out:
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(json.dumps(result, indent=None, separators=(",", ":")).replace('{"tokens":', '\n{"tokens":') + "\n")

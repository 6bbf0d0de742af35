#!/usr/bin/env python3
"""The paper's tables from result files, each value beside the published one, as Markdown.

  tables.py RESULTS published.json

RESULTS is what run.sh filled: eval-TASK-NAME.json, ttft-PAIR.json, lengths-PAIR.json, flops.json, train-PAIR-SETTING.jsonl.
What has not been run is left blank.
"""

import json
import sys
from pathlib import Path

SETTINGS = ("paper", "ours")
CHOICE = {"arc_challenge": "acc_norm", "arc_easy": "acc_norm", "boolq": "acc", "hellaswag": "acc_norm",
          "piqa": "acc", "sciq": "acc", "winogrande": "acc"}
TITLES = {"trivia-1.1b": "TriviaQA, FLOPs and time to the first token: OpenELM-1.1B (Table 3)",
          "trivia-3b": "TriviaQA: OpenELM-3B", "humaneval-1.1b": "HumanEval: OpenELM-1.1B",
          "choice-1.1b": "Multiple choice, mean of seven: OpenELM-1.1B"}


class Results:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.flops = self.read("flops.json", {"results": []})["results"]

    def read(self, name, default=None):
        path = self.directory / name
        return json.loads(path.read_text()) if path.exists() else default

    def metric(self, task, name, prefill, metric):
        """{value, low, high}, or nothing. Multiple choice is scored as the paper did where that was run."""
        found = None
        for result in self.read(f"eval-{task}-{name}.json", {"results": []})["results"]:
            if result["prefill"] == prefill and metric in result:
                if found is None or result.get("scoring") == "predicted":
                    found = result[metric]
        return found

    def score(self, table, name, prefill):
        if table.startswith("trivia"):
            return self.metric("triviaqa", name, prefill, "exact_match")
        if table.startswith("humaneval"):
            return self.metric("humaneval", name, prefill, "pass@1")
        parts = [self.metric(task, name, prefill, metric) for task, metric in CHOICE.items()]
        if None in parts:
            return None
        return {"value": sum(part["value"] for part in parts) / len(parts)}

    def reduction(self, pair):
        """(the paper's count, exact count) of a pair for its 59-token prompts."""
        base, auxiliary = shapes_of(pair)
        for entry in self.flops:
            if (entry["base"], entry["auxiliary"]) == (base, auxiliary):
                return entry["paper_approximation"]["reduction"], entry["exact_count"]["reduction"]
        return None

    def seconds(self, pair, prefill):
        for result in self.read(f"ttft-{pair}.json", {"results": []})["results"]:
            if result["prefill"] == prefill:
                return result["ttft_ms"]["median"] / 1000
        return None


def shapes_of(pair):
    kind, rest = pair.removeprefix("kvp-").split("-", 1)
    base, other = rest.split("-", 1)
    return f"openelm-{base}", f"openelm-{other}" if kind == "c" else f"openelm-{base}-lp-{other}"


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def percent(score):
    if score is None:
        return ""
    text = number(100 * score["value"])
    return f"{text} [{100 * score['low']:.2f}, {100 * score['high']:.2f}]" if "low" in score else text


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def timing_of(entry, base):
    """The pair, and the strategy in its timing, that take as long as this row does."""
    name = entry["name"]
    if name == f"openelm-{base}":
        return f"kvp-c-{base}-270m", entry["prefill"]
    if name.startswith("openelm-"):
        return f"kvp-c-{base}-{name.removeprefix('openelm-')}", "auxiliary"
    if name.endswith("-alone"):
        return name.removesuffix("-alone"), "auxiliary"
    return name, "kv-prediction"


def table(results, name, published):
    rows, base = [], name.rsplit("-", 1)[1]
    for entry in published:
        is_pair = entry["name"].startswith("kvp-") and entry["prefill"] == "kv-prediction"
        for setting in SETTINGS if is_pair else ("",):
            label = f"{entry['name']}-{setting}" if is_pair else entry["name"]
            flops = results.reduction(entry["name"]) if is_pair else None
            timed, strategy = timing_of(entry, base)
            exact, here = results.seconds(timed, "exact"), results.seconds(timed, strategy)
            rows.append([
                label, entry["prefill"], number(entry.get("flops")),
                f"{flops[0]:.2f}, {flops[1]:.2f}" if flops else "", number(entry.get("ttft_s")),
                number(here, 3), number(entry.get("ttft")), number(exact / here if here else None),
                number(entry.get("score")), percent(results.score(name, label, entry["prefill"]))])
    header = ["model", "prefill", "FLOPs ÷, paper", "here: its count, exact", "TTFT s, paper (M2 Pro)",
              "here", "TTFT ÷, paper", "here", "score, paper", "here [95%]"]
    return f"## {TITLES[name]}\n\n" + markdown(header, rows)


def lengths(results, pairs):
    """The figures of TTFT against prompt length and batch, and against the time of a generation step."""
    rows = []
    for pair in pairs:
        for result in results.read(f"lengths-{pair}.json", {"results": []})["results"]:
            ttft, speed = result["ttft_ms"]["median"], result.get("decode_tokens_per_s")
            # A step of the whole batch gives one token to each sequence.
            steps = ttft / 1000 * speed / result["batch"] if speed else None
            rows.append([pair, result["prefill"], str(result["batch"]), str(result["prompt_tokens"]),
                         number(ttft, 1), number(steps, 1)])
    header = ["pair", "prefill", "batch", "prompt tokens", "TTFT ms", "TTFT / generation step"]
    return "## TTFT by prompt length and batch\n\n" + markdown(header, rows)


def training(results):
    rows = []
    for path in sorted(results.directory.glob("train-*.jsonl")):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        if entries:
            last = entries[-1]
            rows.append([path.stem.removeprefix("train-"), str(last["step"]), f"{last['tokens']:.3g}",
                         " ".join(f"{name} {value:.3f}" for name, value in last["losses"].items())])
    return "## Training\n\n" + markdown(["run", "steps", "tokens", "losses at the end"], rows)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: tables.py RESULTS published.json")
    results = Results(sys.argv[1])
    published = json.loads(Path(sys.argv[2]).read_text())
    pairs = sorted(path.stem.removeprefix("lengths-") for path in results.directory.glob("lengths-*.json"))
    parts = [table(results, name, rows) for name, rows in published.items()]
    analyses = sorted(path.name for path in results.directory.glob("analysis-*"))
    figures = "## Errors of predicted keys and values\n\nBy layer and position, and their densities: " + (
        ", ".join(f"`{name}/`" for name in analyses) or "not run") + "\n"
    print("\n".join(parts + [lengths(results, pairs), figures, training(results)]), end="")


if __name__ == "__main__":
    main()

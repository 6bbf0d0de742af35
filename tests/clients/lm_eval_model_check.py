"""LM Evaluation Harness through the package's model class beside `kvcast eval`: the same examples, the same scores.

    pip install '.[lm-eval]'
    python tests/clients/lm_eval_model_check.py DATA_DIRECTORY MODEL [--limit 300] [--kvcast build/release/kvcast]

DATA_DIRECTORY holds arc_easy.jsonl.gz (query, choices, label) and HumanEval.jsonl.gz. ARC-Easy: accuracy under each
strategy. HumanEval: greedy completions, text by text, which the harness asks for with its own prompts and stop rules;
equal texts pass equal tests, so nothing that a model wrote is run. Nothing is downloaded. Fails if anything differs.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import lm_eval
from lm_eval.tasks import TaskManager

from kvcast.lm_eval import KvcastLM

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("model")
parser.add_argument("--limit", type=int, default=300)
parser.add_argument("--max-tokens", type=int, default=64, help="of HumanEval's completions")
parser.add_argument("--prefill", default="exact,kv-prediction,kv-prediction:tail=16")
parser.add_argument("--kvcast", default="build/release/kvcast")
args = parser.parse_args()

TASKS = {
    "arc_easy": """
task: arc_easy
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{query}}\\nAnswer:"
doc_to_target: label
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true},
              {metric: acc_norm, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
""" % (args.data / "arc_easy.jsonl.gz"),
    "humaneval": """
task: humaneval
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{canonical_solution}}"
generation_kwargs: {until: ["\\nclass", "\\ndef", "\\n#", "\\nif", "\\nprint"], max_gen_toks: %d, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
""" % (args.data / "HumanEval.jsonl.gz", args.max_tokens)}


def harness(prefill):
    model = KvcastLM(args.model, prefill=prefill)
    with tempfile.TemporaryDirectory() as directory:
        for name, text in TASKS.items():
            (pathlib.Path(directory) / f"{name}.yaml").write_text(text)
        return lm_eval.simple_evaluate(model=model, tasks=list(TASKS), limit=args.limit, bootstrap_iters=0, log_samples=True,
                                       task_manager=TaskManager(include_path=directory, include_defaults=False))


def ours(prefill, task, file, *more):
    """The result, and the examples' outputs."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as outputs:
        out = subprocess.run([args.kvcast, "eval", args.model, "--task", task, "--data", str(args.data / file), "--prefill", prefill,
                              "--limit", str(args.limit), "--json", "--timing-repetitions", "0", "--outputs", outputs.name, *more],
                             capture_output=True, text=True, check=True).stdout
        return json.loads(out)["results"][0], [json.loads(line) for line in open(outputs.name, encoding="utf-8")]


different = 0
for prefill in args.prefill.split(","):
    found = harness(prefill)
    expected, _ = ours(prefill, "arc_easy", "arc_easy.jsonl.gz")
    for name in ("acc", "acc_norm"):
        value, other = found["results"]["arc_easy"][f"{name},none"], expected[name]["value"]
        different += abs(value - other) > 1e-9
        print(f"arc_easy   {prefill:22s} {name:9s} lm_eval {value:.4f}  kvcast eval {other:.4f}")
    _, rows = ours(prefill, "humaneval", "HumanEval.jsonl.gz", "--temperature", "0", "--samples-per-problem", "1", "--max-tokens",
                   str(args.max_tokens), "--allow-code-execution")
    with gzip.open(args.data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        ids = [json.loads(line)["task_id"] for line in file]
    mine = {ids[sample["doc_id"]]: sample["resps"][0][0] for sample in found["samples"]["humaneval"]}
    theirs = {row["task_id"]: row["completions"][0] for row in rows}
    equal = sum(theirs[task] == text for task, text in mine.items())
    different += equal != len(mine) or len(mine) != len(theirs)
    print(f"humaneval  {prefill:22s} texts     {equal} of {len(mine)} equal")
sys.exit("the scores differ" if different else 0)

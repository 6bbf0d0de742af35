"""LM Evaluation Harness on a running `kvcast serve` beside `kvcast eval`: the same examples, the same scores.

    pip install 'lm-eval[api]'
    python tests/clients/lm_eval_check.py DATA_DIRECTORY MODEL [http://127.0.0.1:8080] [--limit 100]

DATA_DIRECTORY holds arc_easy.jsonl.gz (query, choices, label), triviaqa-validation.jsonl.gz (question, aliases) and
triviaqa-train.jsonl.gz (question, answer), whose first row is the solved example. MODEL is what the server serves,
with --prefill exact: that strategy is asked through the harness's own `local-completions`; for others it is given
two fields more, `prefill` and, where a text is scored, `context_length`. Nothing is downloaded. Prompts, stop rules
and metrics are the harness's; it sends no BOS. Fails if a score differs.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import lm_eval
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("model")
parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
parser.add_argument("--limit", type=int, default=100)
parser.add_argument("--prefill", default="exact,kv-prediction")
parser.add_argument("--kvcast", default="build/release/kvcast")
parser.add_argument("--samples", help="write what each example got there")
args = parser.parse_args()

ARC = """
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
"""
TRIVIA = """
task: triviaqa
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
test_split: test
output_type: generate_until
description: %s
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{aliases}}"
generation_kwargs: {until: ["\\n", ".", ","], do_sample: false, temperature: 0.0, max_gen_toks: 24}
filter_list: [{name: remove_whitespace, filter: [{function: remove_whitespace}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true,
               ignore_punctuation: true}]
metadata: {version: 1.0}
"""


class WithPrefill(LocalCompletionsAPI):
    prefill = None

    async def amodel_call(self, session, sem, messages, *, ctxlens=None, **kwargs):
        if ctxlens:
            kwargs["context_length"] = ctxlens[0]  # one prompt a request
        return await super().amodel_call(session, sem, messages, ctxlens=ctxlens, **kwargs)

    def _create_payload(self, messages, context_length=None, **kwargs):
        payload = super()._create_payload(messages, **kwargs) | {"prefill": self.prefill}
        if context_length:
            payload["context_length"] = context_length
        return payload


def solved_example():
    with gzip.open(args.data / "triviaqa-train.jsonl.gz") as rows:
        row = json.loads(next(rows))
    return f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"


def harness(prefill):
    server = json.load(urllib.request.urlopen(args.url + "/v1/models"))["data"][0]
    plain = prefill == server["prefill"]["default"]
    client = (LocalCompletionsAPI if plain else WithPrefill)(
        model=server["id"], base_url=args.url + "/v1/completions", num_concurrent=8,
        max_length=server["max_model_len"], batch_size=4 if plain else 1)
    client.prefill = prefill
    with tempfile.TemporaryDirectory() as directory:
        tasks = pathlib.Path(directory)
        (tasks / "arc.yaml").write_text(ARC % (args.data / "arc_easy.jsonl.gz"))
        (tasks / "trivia.yaml").write_text(TRIVIA % (args.data / "triviaqa-validation.jsonl.gz",
                                                    json.dumps(solved_example())))
        results = lm_eval.simple_evaluate(
            model=client, tasks=["arc_easy", "triviaqa"], limit=args.limit, bootstrap_iters=0, log_samples=True,
            task_manager=TaskManager(include_path=directory, include_defaults=False))
    if args.samples:
        with open(args.samples + "." + prefill.replace(":", "-"), "w") as out:
            for task, samples in results["samples"].items():
                for sample in samples:
                    out.write(json.dumps({"task": task, "doc": sample["doc_id"],
                                          "resps": sample["filtered_resps"]}) + "\n")
    return {task: {name.split(",")[0]: value for name, value in scores.items() if isinstance(value, float)}
            for task, scores in results["results"].items()}


def ours(task, file, *more):
    out = subprocess.run([args.kvcast, "eval", args.model, "--task", task, "--data", str(args.data / file),
                          "--prefill", args.prefill, "--limit", str(args.limit), "--no-bos", "--json",
                          "--timing-repetitions", "0", *more], capture_output=True, text=True, check=True).stdout
    return {result["prefill"]: {name: metric["value"] for name, metric in result.items() if isinstance(metric, dict)
                                and "value" in metric} for result in json.loads(out)["results"]}


eval_scores = {"arc_easy": ours("arc_easy", "arc_easy.jsonl.gz"),
               "triviaqa": ours("triviaqa", "triviaqa-validation.jsonl.gz", "--shots", "1", "--shots-data",
                                str(args.data / "triviaqa-train.jsonl.gz"), "--max-tokens", "24")}
different = 0
for prefill in args.prefill.split(","):
    for task, scores in harness(prefill).items():
        for name, value in scores.items():
            other = eval_scores[task][prefill][name]
            different += abs(value - other) > 1e-9
            print(f"{task:10s} {prefill:16s} {name:12s} lm_eval {value:.4f}  kvcast eval {other:.4f}")
sys.exit("the scores differ" if different else 0)

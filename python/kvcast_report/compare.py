"""Evaluation results put side by side: which belong together, what to call them, what they cost.

A comparison is one base on one task: `compare()` gives a frame of entries for each, with

  method, name   what may share one curve ("KV prediction (ours)", "LazyLLM"), and which of them ("KVP-C-10M")
  value, low, high   the task's metric, in per cent where it is a share
  flops, ttft        how many times cheaper than the base's exact prefill: counted (for a model alone: the paper's
                     approximation, since files tell only its parameters), and measured within one file
  good           higher is better, whatever the metric
"""

import math
from dataclasses import dataclass

import pandas as pd

_NAMES = {"nll": "Held-out text", "triviaqa": "TriviaQA", "humaneval": "HumanEval", "arc_challenge": "ARC-c",
          "arc_easy": "ARC-e", "boolq": "BoolQ", "hellaswag": "HellaSwag", "piqa": "PIQA", "sciq": "SciQ",
          "winogrande": "WinoGrande", "next_line": "Next line", "passkey": "Passkey", "recall": "Recall",
          "agreement": "Agreement", "chats": "Chats"}
MULTIPLE_CHOICE = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "piqa", "sciq", "winogrande")
_SHARES = ("acc_norm", "acc", "agreement", "exact_match", "pass@1", "edit_similarity", "top1", "first")
_METHODS = ("exact", "KV prediction", "alone", "its auxiliary", "LazyLLM", "static", "random")
COSTS = {"flops": "prefill FLOPs", "ttft": "measured TTFT"}


def task_name(task):
    return _NAMES.get(task, task)


def short_parameters(count):
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.{0 if count >= 1e7 else 1}f}M"


def choose_metric(task, metrics):
    """What a task is judged by, of the metrics that there are."""
    if task in ("nll", "chats") and "nll" in metrics:
        return "nll"
    wanted = _SHARES[1:] if task in ("boolq", "winogrande") else _SHARES  # answers of one word: length says nothing
    return next((metric for metric in wanted if metric in metrics), sorted(metrics)[0])


@dataclass
class Comparison:
    set: str
    base: str
    task: str
    setting: str  # "1-shot, 500 examples"
    metric: str
    entries: pd.DataFrame
    totals: pd.DataFrame

    @property
    def scale(self):
        return 100 if self.metric in _SHARES else 1

    @property
    def lower_is_better(self):
        return self.metric in ("nll", "kl")

    @property
    def unit(self):
        names = {"nll": "negative log-likelihood (nats/token)", "acc": "accuracy (%)", "exact_match": "exact match (%)",
                 "acc_norm": "length-normalised accuracy (%)"}
        return names.get(self.metric, f"{self.metric} (%)" if self.scale == 100 else self.metric)

    @property
    def exact(self):
        """The value under exact prefill; NaN if there is none."""
        found = self.entries[self.entries.method == "exact"]
        return found.value.iloc[0] if len(found) else math.nan

    def beside_exact(self, value):
        """A score over exact's in per cent; for likelihoods the difference says more."""
        return f"{value - self.exact:+.3f}" if self.lower_is_better else f"{100 * value / self.exact:.1f}"


def _entry_name(row, base_parameters):
    """("KV prediction (ours), tail 16", "KVP-C-10M"): a label's variant is what follows its first space."""
    model, _, variant = row.label.partition(" ")
    brackets = f" ({variant})" if variant else ""
    spec, _, options = row.prefill.partition(":")
    scoring = ", predicted scoring" if row.scoring == "predicted" else ""
    if spec == "exact":
        if row.auxiliary_parameters or row.base_parameters == base_parameters:
            return "exact" + scoring, "exact"
        return "alone" + brackets + scoring, model
    if spec == "kv-prediction":
        options = "".join(", " + option.replace("=", " ") for option in options.split(",") if option)
        return "KV prediction" + brackets + options + scoring, model
    if spec == "auxiliary":
        return "its auxiliary alone" + brackets + scoring, model
    dropping = {"random": "random tokens (RP)", "static": "static pruning (SP)", "lazy": "LazyLLM"}
    return (dropping[spec] + scoring, options) if spec in dropping else (row.prefill + scoring, model)


def _rank(method):
    return next((i for i, name in enumerate(_METHODS) if method.startswith(name)), len(_METHODS))


def is_control(method):
    """What nobody would run, but what a gain must beat."""
    return method.startswith(("zero-cache", "wrong-cache"))


def _entries(group, base_parameters, scale):
    entries = group.copy()
    entries[["method", "name"]] = [_entry_name(row, base_parameters) for row in group.itertuples()]
    entries[["value", "low", "high"]] *= scale
    exact = entries[entries.prefill == "exact"]
    own = exact.drop_duplicates("source").set_index("source").ttft_ms
    entries["ttft"] = entries.source.map(own) / entries.ttft_ms
    entries["flops"] = entries.flops_exact.fillna(entries.flops_paper)
    smaller = (entries.auxiliary_parameters == 0) & (entries.method != "exact")
    entries.loc[smaller, "flops_paper"] *= base_parameters / entries.base_parameters[smaller]
    entries.loc[smaller, "flops"] = entries.flops_paper[smaller]
    bases = entries[entries.method == "exact"].ttft_ms
    if len(bases):
        entries.loc[smaller, "ttft"] = bases.iloc[0] / entries.ttft_ms[smaller]
    entries["control"] = entries.method.map(is_control)
    entries["rank"] = entries.method.map(_rank)
    entries["untimed"] = (entries.method == "exact") & entries.ttft_ms.isna()
    entries = entries.sort_values(["rank", "method", "untimed", "flops"], ascending=[True, True, True, False], kind="stable")
    repeated = (entries.method == "exact") & entries.method.duplicated()  # every bundle reports the exact base again
    return entries[~repeated].reset_index(drop=True)


def compare(results):
    """A Comparison for each set, base, task and setting, with the smaller plain models of the same set beside."""
    if results.evals.empty:
        return []
    keys = ["set", "task", "shots", "length", "n"]
    by_hash = results.evals.groupby("base_parameters").base_sha256.nunique()
    comparisons = []
    for key, rows in results.evals.groupby(keys, sort=False):
        bundles = rows[rows.auxiliary_parameters > 0]
        bases = (bundles if len(bundles) else rows)[["base_parameters", "base_sha256"]].drop_duplicates()
        for parameters, sha in bases.itertuples(index=False):
            same = (rows.base_parameters == parameters) & (rows.base_sha256 == sha)
            group = rows[same | ((rows.auxiliary_parameters == 0) & (rows.base_parameters < parameters))]
            metric = choose_metric(key[1], set(group.metric))
            base = short_parameters(parameters) + (f" ({sha[:4]})" if by_hash[parameters] > 1 else "")
            setting = ", ".join(filter(None, [f"{key[2]}-shot" if key[2] else "",
                                              f"{key[3]} tokens" if key[3] else "", f"{key[4]:,} examples"]))
            comparison = Comparison(key[0], base, key[1], setting, metric, None, None)
            comparison.entries = _entries(group[group.metric == metric], parameters, comparison.scale)
            comparison.totals = _totals(results.totals, comparison)
            comparisons.append(comparison)
    order = list(_NAMES)
    return sorted(comparisons, key=lambda c: order.index(c.task) if c.task in order else len(order))


def _totals(totals, comparison):
    if totals.empty:
        return totals
    wanted = comparison.entries[["source", "task", "prefill", "length", "n", "method", "name"]]
    return totals.merge(wanted, on=["source", "task", "prefill", "length", "n"])


def frontier(reductions, goodness):
    """Indices of the points that no other one beats, dearest first. [n] each; points that are not finite are out."""
    points = [(-r, -g, i) for i, (r, g) in enumerate(zip(reductions, goodness)) if math.isfinite(r) and math.isfinite(g)]
    best, kept = -math.inf, []
    for r, g, i in sorted(points):  # from the cheapest on
        if -g > best or (kept and (-r, -g) == (reductions[kept[-1]], goodness[kept[-1]])):
            best = -g
            kept.append(i)
    return kept[::-1]


def quality_at(reductions, goodness, reduction):
    """The frontier's goodness at a cost, interpolated over it; NaN if no point is so cheap."""
    dearer = None
    for i in frontier(reductions, goodness):
        if reductions[i] >= reduction:
            if dearer is None or reductions[i] == reduction:
                return goodness[i]
            before, after, at = 1 / reductions[dearer], 1 / reductions[i], 1 / reduction
            share = (at - after) / (before - after)
            return goodness[i] + share * (goodness[dearer] - goodness[i])
        dearer = i
    return math.nan

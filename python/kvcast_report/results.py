"""Result files and training logs as pandas frames (docs/FORMAT.md, "Result files").

A named file must be a result; other files below a named directory give a note. What is wrong with a
result is a ResultError of one line that names file and key.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

#: Files of models and training runs, which lie about beside logs: not worth a note.
_PARTS_OF_MODELS = {"config.json", "kvcast.json", "model.safetensors.index.json", "shards.json", "tokenizer.json",
                    "tokenizer_config.json", "generation_config.json", "training.json", "training_state.json"}


class ResultError(ValueError):
    """A file that is no result, or a wrong one; the message is one line."""


@dataclass
class Results:
    """What was read. Every frame has `source` (the file) and `set` (the folder that it lay in).

    evals     one row for each model, strategy, task and metric of `kvcast eval`: value, low, high (95%), and costs
              (flops_paper, flops_exact: the base's exact prefill over this one's; ttft_ms, ttft_p10_ms, ttft_p90_ms)
    totals    times to the end of an answer: as evals, with answer_tokens and total_ms
    bench     one row for each strategy, prompt length and batch of `kvcast bench`
    heldout   what `kvcast-train heldout` printed, one row for each model and reader: suffix_nll, gap_closed
    training  one row for each line of a training log and loss term
    analyses  the JSON of `kvcast analyze`, as it is
    healing   the JSON of `kvcast_healing`, as it is
    notes     what was left out, a line each
    """

    evals: pd.DataFrame
    totals: pd.DataFrame
    bench: pd.DataFrame
    heldout: pd.DataFrame
    training: pd.DataFrame
    analyses: list = field(default_factory=list)
    healing: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def __bool__(self):
        frames = (self.evals, self.bench, self.heldout, self.training)
        return bool(self.analyses or self.healing) or any(len(frame) for frame in frames)


class _Object:
    """A JSON object whose wrong keys are errors that say where."""

    def __init__(self, value, where):
        if not isinstance(value, dict):
            raise ResultError(f"{where}: expected an object")
        self.value, self.where = value, where

    def _wrong(self, key, expected):
        raise ResultError(f'{self.where}: key "{key}": expected {expected}')

    def get(self, key, kind, default=None):
        """The value under `key`; `default` where it is missing, an error where that is None."""
        value = self.value.get(key, default)
        names = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
        if not isinstance(value, kind) or isinstance(value, bool):
            self._wrong(key, names[kind])
        return value

    def number(self, key, default=None):
        """A finite number; NaN for null, and for a missing key that has a default."""
        value = self.value.get(key, default)
        if value is None and key in self.value:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._wrong(key, "a number or null")
        return float(value)

    def object(self, key, default=None):
        return _Object(self.get(key, dict, default), f'{self.where}: key "{key}"')

    def objects(self, key):
        entries = self.get(key, list)
        return [_Object(entry, f'{self.where}: key "{key}" entry {i}') for i, entry in enumerate(entries)]


def _is_estimate(value):
    return isinstance(value, dict) and set(value) == {"value", "low", "high"}


def _first_result_has(value, key):
    entries = value.get("results")
    return isinstance(entries, list) and bool(entries) and isinstance(entries[0], dict) and key in entries[0]


def _is_bench(value):
    """Of `kvcast bench`; comparisons with other engines have times too, but name an engine beside them."""
    return isinstance(value, dict) and _first_result_has(value, "ttft_ms") and not _first_result_has(value, "engine")


class _Reader:
    def __init__(self):
        self.rows = {name: [] for name in ("evals", "totals", "bench", "heldout", "training")}
        self.analyses, self.healing, self.notes = [], [], []

    def add(self, path, named):
        where, place = str(path), {"source": str(path), "set": path.parent.name or path.stem}
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ResultError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if path.suffix == ".jsonl":
            self._training(text, path.stem, where, place)
        elif not self._json(text, where, place):
            if named:
                raise ResultError(f"{where}: neither a result of kvcast eval, bench or analyze nor a training log")
            self.notes.append(f"{where}: not a result that kvcast-report reads")

    def _json(self, text, where, place):
        value = _parse(text, where)
        if not isinstance(value, dict):
            return False
        top = _Object(value, where)
        kind = value.get("kind", "")
        if kind == "kvcast-analysis":
            self._analysis(top, place)
        elif kind == "kvcast-healing":
            self._healing(top, place)
        elif kind == "kvcast-eval" or (not kind and _first_result_has(value, "task")):
            self._eval(top, place)
        elif _is_bench(value):
            self._bench(top, place, Path(where).stem)
        elif _first_result_has(value, "suffix_nll"):
            self._heldout(top, place)
        elif isinstance(value.get("runs"), list) and value["runs"] and all(map(_is_bench, value["runs"])):
            for number, run in enumerate(top.objects("runs"), 1):
                self._bench(run, place, f"{Path(where).stem}, run {number}")
        else:
            return False
        return True

    def _eval(self, top, place):
        if "format" in top.value and top.value["format"] != 1:
            top._wrong("format", "1")
        model = top.object("model", {})
        base, auxiliary = model.object("base", {}), model.object("auxiliary", {})
        file = place | {"label": model.get("label", str, Path(top.where).stem), "dtype": model.get("dtype", str, ""),
                        "machine": top.get("machine", str, ""), "base_sha256": base.get("sha256", str, ""),
                        "base_parameters": base.get("parameters", int, 0),
                        "auxiliary_parameters": auxiliary.get("parameters", int, 0)}
        for entry in top.objects("results"):
            flops, ttft = entry.object("flops_reduction", {}), entry.object("ttft_ms", {})
            row = file | {"task": entry.get("task", str), "prefill": entry.get("prefill", str),
                          "scoring": entry.get("scoring", str, ""), "n": entry.get("n", int),
                          "shots": entry.get("shots", int, 0), "length": entry.get("length", int, 0),
                          "prompt_tokens": entry.get("prompt_tokens", int, 0),
                          "flops_paper": flops.number("paper", math.nan), "flops_exact": flops.number("exact", math.nan),
                          "ttft_ms": ttft.number("median", math.nan), "ttft_p10_ms": ttft.number("p10", math.nan),
                          "ttft_p90_ms": ttft.number("p90", math.nan),
                          "peak_rss_bytes": entry.number("peak_rss_bytes", math.nan)}
            metrics = [key for key, value in entry.value.items() if _is_estimate(value)]
            if not metrics:
                raise ResultError(f'{entry.where}: no metric in it: expected a key with "value", "low" and "high"')
            for metric in metrics:
                found = entry.object(metric)
                self.rows["evals"].append(row | {"metric": metric} | {k: found.number(k) for k in found.value})
            totals = entry.object("total_ms", {})
            for tokens in totals.value:
                if not tokens.isdecimal():
                    raise ResultError(f'{totals.where}: "{tokens}" is no number of tokens')
                self.rows["totals"].append(row | {"answer_tokens": int(tokens), "total_ms": totals.number(tokens)})

    def _bench(self, run, place, name):
        about = place | {key: run.get(key, str, "") for key in ("machine", "isa", "commit")}
        about |= {"threads": run.get("threads", int, 0), "run": name}
        for entry in run.objects("results"):
            ttft = entry.object("ttft_ms")
            speed = entry.number("decode_tokens_per_s", 0.0)
            batch = entry.get("batch", int)
            self.rows["bench"].append(
                about | {key: entry.get(key, str) for key in ("arch", "prefill", "dtype")}
                | {"prompt_tokens": entry.get("prompt_tokens", int), "batch": batch,
                   "ttft_ms": ttft.number("median"), "ttft_p10_ms": ttft.number("p10", math.nan),
                   "ttft_p90_ms": ttft.number("p90", math.nan), "decode_tokens_per_s": speed,
                   "step_ms": 1000 * batch / speed if speed > 0 else math.nan,
                   "peak_rss_bytes": entry.number("peak_rss_bytes", math.nan)})

    def _heldout(self, top, place):
        about = place | {key: top.get(key, int) for key in ("windows", "prefix_tokens", "suffix_tokens")}
        for entry in top.objects("results"):
            shares = entry.object("share_of_gap_closed", {})
            losses = entry.object("suffix_nll")
            for reader in losses.value:
                loss = losses.object(reader)
                self.rows["heldout"].append(
                    about | {"model": Path(entry.get("model", str)).name, "reader": reader,
                             "suffix_nll": loss.number("value"), "standard_error": loss.number("standard_error"),
                             "gap_closed": shares.number(reader, math.nan)})

    def _analysis(self, top, place):
        if top.value.get("format") != 1:
            top._wrong("format", "1")
        model = top.object("model")
        bins = len(top.get("position_edges", list)) - 1
        for layer in top.objects("layers"):
            for part in (layer.object("keys"), layer.object("values")):
                part.object("l1").number("value")
                if len(part.get("l1_by_position", list)) != bins:
                    part._wrong("l1_by_position", f"a list of {bins} numbers")
            layer.object("attention_cosine").number("value")
        self.analyses.append(place | top.value | {"label": model.get("label", str), "dtype": model.get("dtype", str)})

    def _healing(self, top, place):
        tokens = top.get("answer_tokens", int)
        for strategy in top.objects("strategies"):
            strategy.get("prefill", str)
            for key in ("ttft_ms", "answer_ms"):
                strategy.number(key)
            for key, length in (("step_ms", tokens - 1), ("kl", tokens), ("nll", tokens), ("top1", tokens)):
                if len(strategy.get(key, list)) != length:
                    strategy._wrong(key, f"a list of {length} numbers")
        self.healing.append(place | top.value | {"model": top.get("model", str), "prompt_tokens": top.get("prompt_tokens", int)})

    def _training(self, text, name, where, place):
        by_step = {}
        lines = text.split("\n")  # the last one is empty if the file is whole
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = _Object(_parse(line, f"{where}: line {number}"), f"{where}: line {number}")
            except ResultError:
                if number == len(lines) > 1:
                    self.notes.append(f"{where}: line {number}, the last, is cut short and left out")
                    break
                raise
            step = entry.get("step", int)
            repeated = [old for old in by_step if old >= step]
            if repeated:
                self.notes.append(f"{where}: resumed after step {step - 1}; the lines that it repeats count once")
            for old in repeated:
                del by_step[old]
            losses = entry.object("losses")
            about = place | {"name": name, "step": step, "tokens": entry.get("tokens", int)}
            about |= {key: entry.number(key, math.nan)
                      for key in ("tokens_per_second", "teraflops", "utilisation", "elapsed_seconds")}
            by_step[step] = [about | {"term": term, "loss": losses.number(term)} for term in losses.value]
        if not by_step:
            raise ResultError(f"{where}: no line in it")
        self.rows["training"] += [row for rows in by_step.values() for row in rows]


def _parse(text, where):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ResultError(f"{where}: not JSON: {error}".replace("\n", " ")) from None


def read_results(*paths):
    """Reads result files (.json), training logs (.jsonl) and directories of them into a `Results`.

    Raises ResultError for a named file that is no result, and for a result with something wrong in it.
    """
    reader = _Reader()
    for path in map(Path, paths):
        if not path.is_dir():
            reader.add(path, named=True)
            continue
        for file in sorted(path.rglob("*.json*")):
            if file.suffix in (".json", ".jsonl") and file.name not in _PARTS_OF_MODELS:
                reader.add(file, named=False)
    frames = {name: pd.DataFrame(rows) for name, rows in reader.rows.items()}
    return Results(**frames, analyses=reader.analyses, healing=reader.healing, notes=reader.notes)

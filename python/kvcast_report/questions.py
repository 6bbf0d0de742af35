"""The page's contents: one entry for each question a reader has, and under it a view for each choice of its filters."""

import math
import re
from dataclasses import dataclass, field

import pandas as pd

from . import figures
from .compare import COSTS, MULTIPLE_CHOICE, compare, quality_at, task_name


@dataclass
class Table:
    rows: pd.DataFrame  # of text; what the page and the files show
    note: str = ""
    title: str = ""
    id: str = ""


@dataclass
class View:
    """What one choice of the filters shows."""

    facets: dict  # filter -> this view's choice
    tables: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)  # id -> matplotlib Figure
    text: str = ""


@dataclass
class Question:
    title: str
    lead: str
    views: list

    @property
    def id(self):
        return slug(self.title)

    @property
    def filters(self):
        """{facet: its choices, in the order of the views}, of facets that leave a choice."""
        choices = {}
        for view in self.views:
            for facet, choice in view.facets.items():
                choices.setdefault(facet, {})[choice] = True
        return {facet: list(found) for facet, found in choices.items() if len(found) > 1}


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _number(value, decimals=2):
    return f"{value:,.{decimals}f}" if math.isfinite(value) else "–"


def _median(numbers):
    known = numbers.dropna()
    return known.median() if len(known) else math.nan


def _estimate(row, decimals):
    text = _number(row.value, decimals)
    return text if pd.isna(row.low) or pd.isna(row.high) else f"{text} [{row.low:.{decimals}f}, {row.high:.{decimals}f}]"


def _facets(comparison):
    return {"results": comparison.set, "base": comparison.base, "task": task_name(comparison.task),
            "setting": comparison.setting}


def _id(what, comparison):
    return slug(f"{what} {comparison.set} {comparison.task} {comparison.setting} {comparison.base}")


# ---- quality ----

def _quality_table(comparison):
    beside = "over exact" if comparison.lower_is_better else "% of exact"
    decimals = 1 if comparison.scale == 100 else 3
    rows = [{"method": row.method, "model": row.name, comparison.unit: _estimate(row, decimals),
             beside: comparison.beside_exact(row.value), "FLOPs ÷": _number(row.flops), "FLOPs ÷ (paper)": _number(row.flops_paper),
             "TTFT ÷": _number(row.ttft), "TTFT ms": _number(row.ttft_ms)}
            for row in comparison.entries.itertuples()]
    return Table(pd.DataFrame(rows), "Intervals: 95%. ÷: exact's prefill over this one's, by counting, by the paper's approximation, "
                 "and in time measured in the same run.", id=_id("quality", comparison))


def _overview(comparisons):
    """One table for each set and base: every task's score, and the mean of multiple choice."""
    views = []
    for place in dict.fromkeys((c.set, c.base) for c in comparisons):
        tasks = [c for c in comparisons if (c.set, c.base) == place]
        if len(tasks) < 2:
            continue
        rows = {}
        for comparison in tasks:
            column = f"{task_name(comparison.task)} ({comparison.metric}; {comparison.setting})"
            for method, name, value in comparison.entries[["method", "name", "value"]].itertuples(index=False):
                rows.setdefault((method, name), {})[column] = _number(value, 1 if comparison.scale == 100 else 3)
        choice = [c for c in tasks if c.task in MULTIPLE_CHOICE]
        for key, row in rows.items():
            scores = [c.entries[(c.entries.method == key[0]) & (c.entries.name == key[1])].value for c in choice]
            complete = bool(choice) and all(len(found) for found in scores)
            row["mean of multiple choice"] = _number(sum(s.iloc[0] for s in scores) / len(scores) if complete else math.nan, 1)
        frame = pd.DataFrame([{"method": m, "model": n} | row for (m, n), row in rows.items()]).fillna("–")
        table = Table(frame, "Per cent, higher is better; likelihoods in nats, lower is better. The mean is given where a model was "
                      "measured on all multiple-choice tasks.", id=slug("quality overview " + " ".join(place)))
        views.append(View({"results": place[0], "base": place[1], "task": "all tasks", "setting": ""}, [table]))
    return views


def _quality(comparisons):
    return Question("What does it cost in quality?", "Scores of every strategy and model, beside exact prefill.",
                    _overview(comparisons) + [View(_facets(c), [_quality_table(c)]) for c in comparisons])


def _equal_cost(comparison, cost):
    """Every KV-prediction point, and what other methods reach at its cost."""
    entries = comparison.entries[~comparison.entries.control]
    sign = -1 if comparison.lower_is_better else 1
    decimals = 1 if comparison.scale == 100 else 3
    methods = [m for m in dict.fromkeys(entries.method) if m != "exact"]
    rows = []
    for point in entries[entries.method.str.startswith("KV prediction") & entries[cost].notna()].to_dict("records"):
        row = {"point": f"{point['name']}, {point['method']}", "÷": _number(point[cost]), "its score": _number(point["value"], decimals)}
        for method in methods:
            own = entries[entries.method.isin([method, "exact"]) & entries[cost].notna()]
            reached = sign * quality_at(list(own[cost]), list(sign * own.value), point[cost])
            row[method] = "·" if method == point["method"] else _number(reached, decimals)
        rows.append(row)
    return Table(pd.DataFrame(rows), "Other methods' scores are interpolated on their own frontiers, exact included, to this cost; –: none of "
                 "the method's points is so cheap.", f"At equal {COSTS[cost]}", _id("equal-" + cost, comparison))


def _choice(comparisons):
    views = []
    for comparison in comparisons:
        figure = figures.pareto(comparison)
        if figure is None:
            continue
        tables = [_equal_cost(comparison, cost) for cost in COSTS]
        views.append(View(_facets(comparison), [t for t in tables if len(t.rows)], {_id("pareto", comparison): figure},
                          "Bars: 95% intervals. Grey line: the points that no other one beats; dashed: exact. FLOPs are counted, those of "
                          "models alone by the paper's approximation."))
    return Question("Which strategy is best at the same cost?", "Quality against what is saved before the first token.", views)


def _answers(comparisons):
    views = []
    for comparison in comparisons:
        figure = figures.total_time(comparison)
        if figure is None:
            continue
        peaks = comparison.entries.groupby(["method", "name"]).peak_rss_bytes.max()
        wide = comparison.totals.pivot_table(index=["method", "name"], columns="answer_tokens", values="total_ms", sort=False)
        rows = [{"method": key[0], "model": key[1]} | {f"{tokens} tokens": _number(ms, 1) for tokens, ms in row.items()}
                | {"peak memory MB": _number(peaks[key] / 1e6, 0)} for key, row in wide.iterrows()]
        table = Table(pd.DataFrame(rows), f"Milliseconds from a prompt of {comparison.entries.prompt_tokens.max():,} tokens to the end of so many "
                      "answer tokens, batch 1, medians.", id=_id("total-time", comparison))
        views.append(View(_facets(comparison), [table], {_id("total-time", comparison): figure}))
    return Question("When is the answer finished, and how much memory does it take?",
                    "Where a curve crosses the auxiliary's, answering with the auxiliary alone would have been as quick.", views)


# ---- speed ----

def _speed(bench):
    views = []
    groups = list(bench.groupby(["set", "run", "arch", "dtype"], sort=False)) if len(bench) else []
    for (place, run, model, dtype), rows in sorted(groups, key=lambda group: -group[1].prefill.nunique()):
        first = rows.iloc[0]
        ident = slug(f"ttft {place} {run} {model} {dtype}")
        table_rows = []
        for (batch, tokens), case in rows.groupby(["batch", "prompt_tokens"]):
            times = case.drop_duplicates("prefill").set_index("prefill")
            row = {"batch": f"{batch}", "prompt": f"{tokens:,}"}
            for prefill in dict.fromkeys(rows.prefill):
                row[prefill] = _number(times.ttft_ms.get(prefill, math.nan))
                if prefill != "exact" and "exact" in set(rows.prefill):
                    row[prefill + " ÷"] = _number(times.ttft_ms.get("exact", math.nan) / times.ttft_ms.get(prefill, math.nan))
            table_rows.append(row | {"step ms": _number(times.step_ms.get("exact", times.step_ms.iloc[0]))})
        note = f"Medians in ms; ÷: exact's TTFT over this one's. One run, {first.threads} threads, {first.machine}, commit {first.commit}."
        facets = {"machine": f"{first.machine}, {first.isa}", "model": model, "dtype": dtype, "run": f"{place}, {run}"}
        several = rows.prompt_tokens.nunique() > 1
        views.append(View(facets, [Table(pd.DataFrame(table_rows), note, id=ident)], {ident: figures.ttft(rows)} if several else {},
                          "Bars: from the 10% to the 90% quantile." if several else ""))
    return Question("How much sooner is the first token?", "Time to first token of every strategy, as kvcast bench measured it.", views)


# ---- the predicted cache, training ----

_CACHE_FIGURES = {"l1-by-layer": figures.cache_by_layer, "l1-by-position": figures.cache_by_position,
                  "l1-heat-map": figures.cache_heat_map, "difference-density": figures.cache_density,
                  "attention-cosine": figures.cache_attention}


def cache_figures(analysis):
    return {name: draw(analysis) for name, draw in _CACHE_FIGURES.items()}


def _cache(analyses):
    views = []
    for analysis in analyses:
        ident = slug(f"{analysis['set']} {analysis['label']} {analysis['dtype']}")
        rows = []
        for layer in analysis["layers"]:
            row = {"layer": str(layer["layer"])}
            for part in ("keys", "values"):
                row |= {f"{part} L1": _number(layer[part]["l1"]["value"], 4), f"{part} relative": _number(layer[part]["relative_l1"], 3)}
            rows.append(row | {"attention cosine": _number(layer["attention_cosine"]["value"], 4)})
        note = (f"Keys after k_norm, before RoPE; {analysis.get('windows')} windows of {analysis.get('window_tokens')} tokens of "
                f"{analysis.get('data')}. L1: mean |predicted − exact|; relative: over mean |exact|. Bars: 95% intervals over windows.")
        views.append(View({"results": analysis["set"], "model": f"{analysis['label']}, {analysis['dtype']}"},
                          [Table(pd.DataFrame(rows), id="cache-" + ident)],
                          {f"{name}-{ident}": figure for name, figure in cache_figures(analysis).items()}, note))
    return Question("How near is the predicted cache to the exact one?", "Keys, values and attention outputs, layer by layer.", views)


def _healing(runs):
    views = []
    for run in runs:
        ident = slug(f"healing {run['set']} {run['model']} {run['dtype']} {run['prompt_tokens']}")
        rows = []
        for strategy in run["strategies"]:
            middle = sorted(strategy["step_ms"])[len(strategy["step_ms"]) // 2]
            row = {"strategy": strategy["prefill"], "first token ms": _number(strategy["ttft_ms"], 0), "token ms (median)": _number(middle),
                   "whole answer ms": _number(strategy["answer_ms"], 0),
                   "exact after": f"{strategy['exact_after_tokens']:.0f} tokens" if "exact_after_tokens" in strategy else "–"}
            for begin, end in ((0, 32), (32, 128), (128, 512)):
                part = strategy["kl"][begin:end]
                row[f"KL, tokens {begin + 1} to {end}"] = _number(sum(part) / len(part), 4) if len(part) == end - begin else "–"
            rows.append(row)
        note = (f"{run['windows']} prompts of {run['prompt_tokens']:,} tokens, answers of {run['answer_tokens']} that all strategies are given "
                f"({run['answer']}); {run['threads']} threads, {run['dtype']}. Times: medians over prompts; KL: means.")
        views.append(View({"results": run["set"], "model": run["model"], "prompt": f"{run['prompt_tokens']:,} tokens"},
                          [Table(pd.DataFrame(rows), note, id=ident)], {ident: figures.healing(run)}))
    return Question("Does the cache heal?", "The answer token by token while the forecast is replaced by exact rows.", views)


def _training(results):
    views = []
    for (place, source), rows in results.heldout.groupby(["set", "source"], sort=False) if len(results.heldout) else ():
        first = rows.iloc[0]
        table = []
        for model, of_model in rows.groupby("model", sort=False):
            row = {"model": model}
            for entry in of_model.itertuples():
                row[entry.reader] = f"{entry.suffix_nll:.3f} ± {entry.standard_error:.3f}"
                if not pd.isna(entry.gap_closed):
                    row[entry.reader + " gap closed %"] = _number(100 * entry.gap_closed, 1)
            table.append(row)
        name = source.rpartition("/")[2].removesuffix(".json")
        note = (f"Nats a token of the next {first.suffix_tokens} tokens after {first.prefix_tokens} read, ± standard error, {first.windows} windows. "
                "Gap closed: from the auxiliary alone (0%) to exact (100%).")
        views.append(View({"results": place, "show": f"held-out: {name}"},
                          [Table(pd.DataFrame(table).fillna("–"), note, id=slug(f"held-out {place} {name}"))]))
    for place, rows in results.training.groupby("set", sort=False) if len(results.training) else ():
        predicting = rows.groupby("source").term.transform(lambda terms: (terms == "base").any())
        for kind, runs in rows.groupby(predicting.map({True: "runs of KV prediction", False: "runs of models alone"})):
            groups = [runs[runs.name.isin(names)] for names in _chunks(list(dict.fromkeys(runs.name)), 8)]
            for part, some in enumerate(groups, 1):
                views.append(_training_view(place, kind + (f", part {part}" if len(groups) > 1 else ""), some))
    return Question("What did training reach?", "Held-out likelihood, and the runs' losses.", views)


def _chunks(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]


def _training_view(place, kind, runs):
    table = []
    for name, run in runs.groupby("name", sort=False):
        last = run.iloc[-1]
        row = {"run": name, "steps": f"{last.step:,}", "tokens (M)": _number(last.tokens / 1e6, 1)}
        for term, of_term in run.groupby("term"):
            if term != "z_loss":
                row[term] = _number(of_term.loss.tail(max(1, len(of_term) // 20)).mean(), 4)
        table.append(row | {"tokens/s": _number(_median(run.tokens_per_second), 0), "MFU %": _number(100 * _median(run.utilisation), 1),
                            "minutes": _number(last.elapsed_seconds / 60, 1)})
    ident = slug(f"loss {place} {kind}")
    return View({"results": place, "show": kind},
                [Table(pd.DataFrame(table).fillna("–"), "Losses: mean of the last 5% of the log's lines. Speed: medians.", id=ident)],
                {ident: figures.losses(runs)}, "Thin lines as logged, thick ones running means; the fall at the beginning is cut off.")


def make_questions(results):
    """The questions that `results` have an answer to."""
    comparisons = compare(results)
    questions = [_speed(results.bench), _quality(comparisons), _choice(comparisons), _answers(comparisons),
                 _cache(results.analyses), _healing(results.healing), _training(results)]
    return [question for question in questions if question.views]

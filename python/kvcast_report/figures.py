"""Figures, each a matplotlib Figure made from frames; nothing here knows of files or pages."""

import math

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

from .compare import COSTS, frontier, task_name  # noqa: E402

# A palette that colour-blind readers can tell apart, and a marker beside each colour (Okabe and Ito, darkened).
_COLORS = ("#0060A8", "#D04F00", "#007D5B", "#A8478A", "#8A6A00", "#3388C8", "#5B5B5B", "#B3123C", "#4A3FA0", "#6B8E23")
_MARKERS = "osD^vPXphd"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "kvcast",  # the same data give the same file
    "font.family": ["DejaVu Sans", "sans-serif"], "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8A929E",
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E4E7EB", "grid.linewidth": 0.8, "lines.linewidth": 1.8,
    "lines.markersize": 5.5, "legend.frameon": False, "legend.fontsize": 8.5, "figure.facecolor": "white"}


def style():
    """The look of every figure: a context to make and save them in."""
    return matplotlib.rc_context(_STYLE)


def _look(index):
    return {"color": _COLORS[index % len(_COLORS)], "marker": _MARKERS[index % len(_MARKERS)]}


def _panels(count, height=3.6, width=5.0):
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def save(figure, path):
    """Writes PATH, as its extension says."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=144)


def _log_axis(axis, ticks, name="x"):
    """A logarithmic axis with these ticks and no others."""
    (axis.set_xscale if name == "x" else axis.set_yscale)("log")
    which = getattr(axis, name + "axis")
    which.set_minor_locator(NullLocator())
    which.set_ticks(sorted(ticks))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _nice_ticks(low, high):
    """1, 2, 5, 10, ... (1, 1.5, 2, 3, ... over a short range) that span [low, high]."""
    steps = (1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 5, 7)
    ticks = [s * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for s in steps]
    inside = [t for t in ticks if low / 1.02 <= t <= high * 1.02]
    return inside or [low, high]


def _bars(rows, middle, low, high):
    """Error bars [2, n] that matplotlib takes; None where there are none."""
    bars = [(rows[middle] - rows[low]).clip(lower=0), (rows[high] - rows[middle]).clip(lower=0)]
    return bars if all(bar.notna().all() for bar in bars) else None


def pareto(comparison):
    """Quality against what is saved before the first token; None with fewer than three points."""
    entries = comparison.entries[~comparison.entries.control]
    costs = [cost for cost in COSTS if entries[cost].notna().sum() >= 3]
    if not costs:
        return None
    figure, axes = _panels(len(costs), height=4.4, width=5.0 if len(costs) > 1 else 8.0)
    methods = list(dict.fromkeys(entries.method))
    sign = -1 if comparison.lower_is_better else 1
    for axis, cost in zip(axes, costs):
        points = entries[entries[cost].notna()].reset_index(drop=True)
        best = frontier(list(points[cost]), list(sign * points.value))
        axis.plot(points[cost][best], points.value[best], color="#8A929E", alpha=0.4, linewidth=4, zorder=1)
        for index, method in enumerate(methods):
            rows = points[points.method == method].sort_values(cost)
            if len(rows):
                alone = method.startswith(("alone", "its auxiliary"))
                axis.errorbar(rows[cost], rows.value, _bars(rows, "value", "low", "high"), **_look(index), label=method,
                              linewidth=1, elinewidth=0.7, alpha=0.85, mfc="white" if alone else None)
        _label(axis, [(points[cost][i], points.value[i], points.name[i]) for i in best if points.method[i] != "exact"])
        if math.isfinite(comparison.exact):
            axis.axhline(comparison.exact, color="#8A929E", linestyle="--", linewidth=0.9)
        _log_axis(axis, _nice_ticks(points[cost].min(), points[cost].max()))
        axis.set(title=f"{task_name(comparison.task)} against {COSTS[cost]}", ylabel=comparison.unit,
                 xlabel="times fewer FLOPs than exact" if cost == "flops" else "times sooner than exact")
    _legend_beside(axes[-1], axes[0])
    return figure


def _label(axis, points):
    """Names (x, y, name), from the right; one that would lie on another is left out."""
    taken = []
    low, high = axis.get_ylim()
    for x, y, name in reversed(points):
        if all(abs(math.log(x / other)) > 0.5 or abs(y - height) > 0.05 * (high - low) for other, height in taken):
            axis.annotate(name, (x, y), (-4, -11), textcoords="offset points", fontsize=7.5, ha="right")
            taken.append((x, y))


def _legend_beside(axis, of=None):
    axis.legend(*(of or axis).get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1.02, 0.5))


def total_time(comparison):
    """Time to the end of the answer against its length; None where it was not measured."""
    rows = comparison.totals
    if rows.empty:
        return None
    rows = rows[rows.prefill.isin(["exact", "kv-prediction", "auxiliary"])]
    curves = [(key, curve) for key, curve in rows.groupby(["method", "name"], sort=False) if len(curve) > 1]
    if not curves:
        return None
    figure, (axis,) = _panels(1, width=8.5)
    for index, ((method, name), curve) in enumerate(curves):
        label = method if method == "exact" else f"{method} {name}"
        axis.plot(curve.answer_tokens, curve.total_ms, **_look(index), label=label)
    _log_axis(axis, rows.answer_tokens.unique())
    _log_axis(axis, _nice_ticks(rows.total_ms.min(), rows.total_ms.max()), "y")
    axis.set(title="Time to the end of the answer", xlabel="answer (tokens)", ylabel="time since the prompt (ms)")
    _legend_beside(axis)
    return figure


def ttft(rows):
    """Time to first token of one bench run's model against prompt length, a panel for each batch, and what a wait is in
    generation steps (the paper's Figures 5b and 1)."""
    batches = sorted(rows.batch.unique())
    exact = rows[(rows.prefill == "exact") & rows.step_ms.notna()]
    figure, axes = _panels(len(batches) + (len(exact) > 0), width=4.4)
    lengths = rows.prompt_tokens.unique()
    for axis, batch in zip(axes, batches):
        shown = rows[rows.batch == batch]
        for index, (prefill, curve) in enumerate(shown.groupby("prefill", sort=False)):
            curve = curve.sort_values("prompt_tokens")
            axis.errorbar(curve.prompt_tokens, curve.ttft_ms, _bars(curve, "ttft_ms", "ttft_p10_ms", "ttft_p90_ms"),
                          **_look(index), label=prefill, elinewidth=0.8)
        _log_axis(axis, _nice_ticks(shown.ttft_ms.min(), shown.ttft_ms.max()), "y")
        axis.set(title=f"Batch {batch}", ylabel="TTFT (ms)")
    if len(exact):
        steps = exact.assign(steps=exact.ttft_ms / exact.step_ms)
        for index, (batch, curve) in enumerate(steps.groupby("batch")):
            curve = curve.sort_values("prompt_tokens")
            axes[-1].plot(curve.prompt_tokens, curve.steps, **_look(index), label=f"batch {batch}")
        _log_axis(axes[-1], _nice_ticks(steps.steps.min(), steps.steps.max()), "y")
        axes[-1].set(title="exact: TTFT in generation steps", ylabel="TTFT / time of a step")
    for axis in axes:
        _log_axis(axis, lengths)
        axis.set_xlabel("prompt (tokens)")
        axis.legend()
    return figure


def losses(rows):
    """Losses of some runs against tokens seen: as logged, and a running mean. The fall at the beginning is cut off."""
    order = ("base", "auxiliary", "loss", "keys", "values", "kl")
    found = set(rows.term) - {"z_loss"}
    if "base" in found:
        found.discard("loss")  # a sum of the others
    terms = sorted(found, key=lambda term: (order.index(term) if term in order else len(order), term))
    runs = list(dict.fromkeys(rows.name))
    figure, axes = _panels(len(terms), width=4.2)
    for axis, term in zip(axes, terms):
        of_term = rows[(rows.term == term) & rows.loss.notna()]
        for index, name in enumerate(runs):
            run, color = of_term[of_term.name == name], _look(index)["color"]
            axis.plot(run.tokens / 1e6, run.loss, color=color, linewidth=0.7, alpha=0.35)
            smooth = run.loss.rolling(max(1, len(run) // 40), center=True, min_periods=1).mean()
            axis.plot(run.tokens / 1e6, smooth, color=color, label=name)
        late = of_term[of_term.tokens > 0.1 * of_term.groupby("name").tokens.transform("max")].loss
        if late.min() < late.max():
            margin = 0.05 * (late.max() - late.min())
            axis.set_ylim(late.min() - margin, late.max() + margin)
        axis.set(title=term, xlabel="tokens (millions)", xlim=(0, None))
    axes[0].set_ylabel("loss")
    _legend_beside(axes[-1], axes[0])
    return figure


def cache_by_layer(analysis):
    layers = analysis["layers"]
    figure, axes = _panels(2)
    for index, part in enumerate(("keys", "values")):
        l1 = [layer[part]["l1"] for layer in layers]
        middle = [e["value"] for e in l1]
        bars = None
        if all(e["low"] is not None for e in l1):
            bars = [[e["value"] - e["low"] for e in l1], [e["high"] - e["value"] for e in l1]]
        axes[0].errorbar(range(len(layers)), middle, bars, **_look(index), label=part, elinewidth=0.8)
        axes[1].plot([layer[part]["relative_l1"] for layer in layers], **_look(index), label=part)
    axes[0].set(title="L1 error", ylabel="mean |predicted − exact|")
    axes[1].set(title="L1 error relative to the exact cache", ylabel="mean |predicted − exact| / mean |exact|")
    for axis in axes:
        axis.set(xlabel="base layer", ylim=(0, None))
        axis.legend()
    return figure


def _heat_map(figure, axis, analysis, rows, title, label):
    edges = analysis["position_edges"]
    mesh = axis.pcolormesh(edges, [i - 0.5 for i in range(len(rows) + 1)], rows, cmap="viridis", rasterized=True)
    axis.grid(False)
    axis.set(title=title, xlabel="position (tokens)", ylabel="base layer")
    figure.colorbar(mesh, ax=axis, label=label)


def cache_heat_map(analysis):
    figure, axes = _panels(2)
    for axis, part in zip(axes, ("keys", "values")):
        rows = [layer[part]["l1_by_position"] for layer in analysis["layers"]]
        _heat_map(figure, axis, analysis, rows, part.capitalize(), "mean |predicted − exact|")
    return figure


def cache_by_position(analysis):
    edges, layers = analysis["position_edges"], analysis["layers"]
    centres = [(a + b - 1) / 2 for a, b in zip(edges, edges[1:])]
    figure, (axis,) = _panels(1)
    for index, part in enumerate(("keys", "values")):
        sums = zip(*(layer[part]["l1_by_position"] for layer in layers))
        axis.plot(centres, [sum(column) / len(layers) for column in sums], color=_COLORS[index], label=part)
    axis.set(title="L1 error by position", xlabel="position (tokens)", ylabel="mean |predicted − exact|, mean over layers",
             ylim=(0, None))
    axis.legend()
    return figure


def healing(run):
    """Milliseconds of every token of an answer, and how far it is from exact's, by position."""
    figure, axes = _panels(2)
    least = 1e-6  # nats; of what is exact the logarithm would be lost
    for index, strategy in enumerate(run["strategies"]):
        times, positions = strategy["step_ms"], range(1, len(strategy["step_ms"]) + 1)
        look = {"color": _COLORS[index], "label": strategy["prefill"], "linewidth": 1.4}
        axes[0].plot(positions, times, **look)
        axes[1].plot(range(len(strategy["kl"])), [max(least, kl) for kl in strategy["kl"]], **look)
    axes[0].set(title="Time of each token after the first", xlabel="token of the answer", ylabel="milliseconds", ylim=(0, None))
    axes[1].set(title="KL divergence from exact's distribution", xlabel="token of the answer", ylabel="nats", yscale="log",
                ylim=(least / 2, None))
    axes[0].legend()
    return figure


def cache_density(analysis):
    figure, axes = _panels(2)
    shades = matplotlib.colormaps["viridis"]
    depth = max(1, len(analysis["layers"]) - 1)
    for axis, part in zip(axes, ("keys", "values")):
        for i, layer in enumerate(analysis["layers"]):
            density = layer[part].get("density")
            if not density:
                continue
            counts = density["counts"]
            width = (density["high"] - density["low"]) / len(counts)
            total = sum(counts) + density["below"] + density["above"]
            x = [density["low"] + (bin + 0.5) * width for bin in range(len(counts))]
            axis.plot(x, [count / (total * width) for count in counts], color=shades(0.85 * i / depth), label=f"layer {i}")
        axis.axvline(0, color="#8A929E", linewidth=0.8)
        axis.set(title=part.capitalize(), xlabel="predicted − exact", ylabel="density", ylim=(0, None))
        axis.legend()
    return figure


def cache_attention(analysis):
    figure, axes = _panels(2)
    names = {"attention_cosine": "predicted keys and values", "attention_cosine_predicted_keys": "predicted keys, exact values",
             "attention_cosine_predicted_values": "exact keys, predicted values"}
    for index, (key, name) in enumerate(names.items()):
        axes[0].plot([layer[key]["value"] for layer in analysis["layers"]], **_look(index), label=name)
    axes[0].set(title="Attention outputs against the exact cache's", xlabel="base layer", ylabel="mean cosine")
    axes[0].legend()
    rows = [layer["attention_cosine_by_position"] for layer in analysis["layers"]]
    _heat_map(figure, axes[1], analysis, rows, "Predicted keys and values", "mean cosine")
    return figure

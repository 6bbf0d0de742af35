"""Files as kvcast eval, bench, analyze and kvcast-train write them."""


def estimate(value, half=0.01):
    return {"value": value, "low": value - half, "high": value + half}


def eval_entry(task, prefill, metric, value, reduction, ttft, **more):
    return {"task": task, "prefill": prefill, "scoring": "mixed", "n": 1000, metric: estimate(value), "prompt_tokens": 50,
            "flops_reduction": {"paper": reduction, "exact": reduction * 1.1},
            "ttft_ms": {"median": ttft, "p10": ttft * 0.9, "p90": ttft * 1.2},
            "total_ms": {"1": ttft, "16": ttft + 150}, "peak_rss_bytes": 104857600} | more


def eval_file(label, base, auxiliary, results):
    model = {"path": "models/x", "label": label, "dtype": "bf16", "base": {"parameters": base, "sha256": f"b{base}"}}
    if auxiliary:
        model["auxiliary"] = {"parameters": auxiliary, "sha256": "a"}
    return {"kind": "kvcast-eval", "format": 1, "commit": "abc", "machine": "M", "threads": 2, "model": model, "results": results}


def family(task="triviaqa", metric="exact_match", **more):
    """A bundle of 60M and 10M, the same trained otherwise, and a model of 10M alone."""
    def entry(prefill, value, reduction, ttft):
        return eval_entry(task, prefill, metric, value, reduction, ttft, **more)
    return [eval_file("KVP-C-10M ours", 60_000_000, 10_000_000,
                      [entry("exact", 0.20, 1, 10), entry("kv-prediction", 0.16, 6, 2.5), entry("auxiliary", 0.08, 6, 2),
                       entry("lazy:0.75-0.25", 0.10, 1.6, 7), entry("wrong-cache", 0.01, 6, 2.5)]),
            eval_file("KVP-C-10M paper", 60_000_000, 10_000_000, [entry("exact", 0.20, 1, 12), entry("kv-prediction", 0.12, 6, 3)]),
            eval_file("10M", 10_000_000, 0, [entry("exact", 0.09, 1, 2)])]


def bench_file():
    results = [{"arch": "openelm-1.1b<-openelm-270m", "prefill": prefill, "dtype": "bf16", "prompt_tokens": tokens, "batch": 1,
                "threads": 2, "ttft_ms": {"median": factor * tokens, "p10": factor * tokens, "p90": factor * tokens},
                "decode_tokens_per_s": 20.0}
               for tokens in (128, 512) for prefill, factor in (("exact", 2.0), ("kv-prediction", 0.5))]
    return {"machine": "M", "isa": "avx2", "commit": "c", "threads": 2, "results": results}


def analysis_file(layers=4, bins=3):
    def errors(scale):
        return {"l1": estimate(scale), "relative_l1": scale / 2, "mean": 0.0, "standard_deviation": scale,
                "l1_by_position": [scale] * bins,
                "density": {"low": -1.0, "high": 1.0, "below": 1, "above": 2, "counts": [3, 4, 5]}}
    return {"kind": "kvcast-analysis", "format": 1, "commit": "c", "model": {"path": "m", "label": "<tiny>", "dtype": "f32"},
            "data": "text.txt", "windows": 3, "window_tokens": 64, "position_edges": [0, 16, 32, 64],
            "layers": [{"layer": i, "keys": errors(0.1 * (i + 1)), "values": errors(0.2 * (i + 1)),
                        "attention_cosine": estimate(0.9), "attention_cosine_predicted_keys": estimate(0.95),
                        "attention_cosine_predicted_values": estimate(0.92), "attention_cosine_by_position": [0.9] * bins}
                       for i in range(layers)]}


def healing_file(tokens=4):
    def strategy(prefill, kl, **more):
        return {"prefill": prefill, "ttft_ms": 10.0, "answer_ms": 50.0, "step_ms": [5.0] * (tokens - 1), "kl": kl,
                "nll": [2.0] * tokens, "top1": [1] * tokens} | more
    return {"kind": "kvcast-healing", "model": "<tiny>", "dtype": "int4", "threads": 2, "prompt_tokens": 512, "answer_tokens": tokens,
            "windows": 3, "answer": "exact's, greedy", "strategies": [
                strategy("exact", [0.0] * tokens), strategy("kv-prediction:refine=8", [0.1, 0.1] + [0.0] * (tokens - 2), exact_after_tokens=2)]}


def heldout_file():
    loss = {"value": 2.0, "standard_error": 0.02}
    return {"windows": 64, "prefix_tokens": 384, "suffix_tokens": 128, "results": [
        {"model": "/runs/ours-10m", "suffix_nll": {"exact": loss, "auxiliary": loss, "kv-prediction:tail=1": loss},
         "share_of_gap_closed": {"kv-prediction:tail=1": 0.9}}]}


def log_line(step, **losses):
    return {"step": step, "tokens": 1000 * step, "losses": losses, "tokens_per_second": 100.0, "elapsed_seconds": float(step)}

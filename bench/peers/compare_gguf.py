#!/usr/bin/env python3
"""A GGUF file in kvcast beside llama.cpp: the same numbers, and how fast; JSON on stdout.

    python3 -m venv venv
    CMAKE_ARGS=-DGGML_NATIVE=ON venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python numpy
    venv/bin/python bench/peers/compare_gguf.py build/release/kvcast FILE.gguf logits     # cosines, greedy answers
    venv/bin/python bench/peers/compare_gguf.py build/release/kvcast FILE.gguf perplexity --text TEXT
    venv/bin/python bench/peers/compare_gguf.py build/release/kvcast FILE.gguf kl --text TEXT --windows 24 --tokens 100
    venv/bin/python bench/peers/compare_gguf.py build/release/kvcast FILE.gguf speed -p 128,512

`logits`: 20 prompts of several kinds; token ids, cosine of the prompt's last logits, and greedy answers; where these part, how far
apart the two tokens' logits are in both engines; and the cosine of each engine's logits with those of the same file in f32, weights and
activations (kvcast's, which tests hold equal to transformers'). `kl`: mean divergence (nats) of the next token after each window from
that of the file in f32, of both engines. `perplexity`: the last 128 of windows of 512 tokens, as `kvcast eval --task nll`
cuts them. `speed`: prefill, decode and the time from a fresh process to the first token of a one-token prompt, in turns, medians.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from compare_llama_cpp import read_safetensors  # noqa: E402

PROMPTS = [
    "The city of Rome was",
    "Once upon a time, in a village at the edge of a dark forest, there lived",
    "Water boils at 100 degrees Celsius because",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "import numpy as np\n\ndef softmax(x, axis=-1):\n",
    "#include <vector>\n#include <algorithm>\n\nint main() {\n  std::vector<int> v = {3, 1, 2};\n",
    "SELECT name, COUNT(*) FROM users WHERE",
    "The three laws of thermodynamics are as follows. First,",
    "Q: What is the capital of France?\nA:",
    "Translate to German: \"The weather is beautiful today.\"\n",
    "In 1969, Neil Armstrong",
    "A recipe for pancakes:\n\n1. Mix 200 g of flour with",
    "<html>\n<head>\n  <title>",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8, 13,",
    "The mitochondrion is",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "Pourquoi le ciel est-il bleu ? Parce que",
    "| Country | Capital |\n|---|---|\n| Spain | Madrid |\n| Italy |",
    "To be, or not to be, that is the question:",
]


class Kvcast:
    name = "kvcast"

    def __init__(self, args):
        self.args = args

    def run(self, *arguments):
        process = subprocess.run([self.args.kvcast, *map(str, arguments)], capture_output=True)
        if process.returncode != 0:
            sys.exit(f"kvcast {arguments[0]}: {process.stderr.decode().strip()}")
        return process.stdout

    def answer(self, tokens, steps):
        """Logits after the prompt and after each of `steps` greedy tokens, and these tokens."""
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/out.safetensors"
            self.run("inspect", self.args.model, "--tokens", " ".join(map(str, tokens)), "--prefill", "exact", "--steps", steps,
                     "--dtype", self.args.dtype, "--threads", self.args.threads, "--out", out)
            tensors = read_safetensors(out)
            logits = [np.array(tensors["prompt_logits"])] + list(np.array(tensors["step_logits"]))
            return logits, [int(t) for t in tensors["tokens"]][:steps]

    def last(self, tokens):
        return self.answer(tokens, 0)[0][0]

    def in_f32(self, folder):
        """The same file in f32, converted once: mapped where it is, it costs nothing to open."""
        self.run("convert", self.args.model, f"{folder}/f32", "--dtype", "f32")
        return Kvcast(argparse.Namespace(**vars(self.args) | {"model": f"{folder}/f32", "dtype": "auto"}))

    def nll(self, text):
        report = json.loads(self.run("eval", self.args.model, "--task", "nll", "--data", text, "--limit", self.args.windows,
                                     "--prefill", "exact", "--dtype", self.args.dtype, "--threads", self.args.threads, "--json"))
        return report["results"][0]["nll"]["value"], report["results"][0]["n"]

    def bench(self):
        report = json.loads(self.run("bench", self.args.model, "--dtype", self.args.dtype, "-p", ",".join(map(str, self.args.p)),
                                     "-r", 1, "--decode", self.args.decode, "--threads", self.args.threads, "--prefill", "exact",
                                     "--format", "json"))
        self.head = {key: report[key] for key in ("machine", "isa", "commit")}
        for row in report["results"]:
            yield {"engine": self.name, "prompt_tokens": row["prompt_tokens"], "ttft_ms": row["ttft_ms"]["median"],
                   "decode_tokens_per_s": row["decode_tokens_per_s"],
                   "share_of_peak": row["share_of_peak"], "share_of_read_bandwidth": row["share_of_read_bandwidth"]}

    def start(self):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            self.run("inspect", self.args.model, "--tokens", "1", "--steps", 0, "--prefill", "exact", "--dtype", self.args.dtype,
                     "--threads", self.args.threads, "--out", f"{folder}/out.safetensors")
            return 1e3 * (time.perf_counter() - begin)


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, args, logits_all=False):
        import llama_cpp
        self.args, self.module = args, llama_cpp
        self.llama = llama_cpp.Llama(str(args.model), n_ctx=args.context, n_batch=2048, n_ubatch=512, flash_attn=True,
                                     n_threads=args.threads, n_threads_batch=args.threads, logits_all=logits_all, verbose=False)

    def tokenize(self, text, special=False):
        return self.llama.tokenize(text.encode(), add_bos=False, special=special)

    def last_logits(self):
        pointer = self.module.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(pointer, (self.llama.n_vocab(),)).copy()

    def last(self, tokens):
        self.llama.reset()
        self.llama.eval(tokens)
        return self.last_logits()

    def answer(self, tokens, steps):
        self.llama.reset()
        self.llama.eval(tokens)
        logits, answer = [self.last_logits()], []
        for _ in range(steps):
            answer.append(int(logits[-1].argmax()))
            self.llama.eval(answer[-1:])
            logits.append(self.last_logits())
        return logits, answer

    def nll(self, windows, prefix):
        values = []
        for window in windows:
            self.llama.reset()
            self.llama.eval(window)
            logits = np.array(self.llama.scores[prefix - 1:len(window) - 1], dtype=np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            chosen = logits[np.arange(len(logits)), window[prefix:]]
            values.append(float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean()))
        return statistics.mean(values)

    def bench(self):
        for tokens in self.args.p:
            self.llama.reset()
            begin = time.perf_counter()
            self.llama.eval([(i * 7919 + 13) % 32000 for i in range(tokens)])
            ttft = time.perf_counter() - begin
            begin = time.perf_counter()
            for _ in range(self.args.decode):
                self.llama.eval([13])
            yield {"engine": self.name, "prompt_tokens": tokens, "ttft_ms": 1e3 * ttft,
                   "decode_tokens_per_s": self.args.decode / (time.perf_counter() - begin)}

    def start(self):
        """A fresh process: what Python and its imports take is left out."""
        script = ("import sys, time, llama_cpp, llama_cpp.llama\n"
                  "begin = time.perf_counter()\n"
                  "llama = llama_cpp.Llama(sys.argv[1], n_ctx=512, n_threads=int(sys.argv[2]), verbose=False)\n"
                  "llama.eval([1])\n"
                  "print(1e3 * (time.perf_counter() - begin))\n")
        process = subprocess.run([sys.executable, "-c", script, str(self.args.model), str(self.args.threads)], check=True,
                                 capture_output=True)
        return float(process.stdout)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def log_probabilities(logits):
    logits = logits.astype(np.float64) - logits.max()
    return logits - np.log(np.exp(logits).sum())


def divergence(exact, logits):
    p, q = log_probabilities(exact), log_probabilities(logits)
    return float((np.exp(p) * (p - q)).sum())


def compare_logits(args):
    with tempfile.TemporaryDirectory() as folder:
        return logits_beside(args, Kvcast(args).in_f32(folder))


def logits_beside(args, f32):
    ours, theirs = Kvcast(args), LlamaCpp(args)
    rows = []
    for text in PROMPTS[:args.prompts]:
        tokens = theirs.tokenize(text)
        our_logits, our_answer = ours.answer(tokens, args.steps)
        their_logits, their_answer = theirs.answer(tokens, args.steps)
        row = {"prompt": text[:40], "prompt_tokens": len(tokens), "cosine": cosine(our_logits[0], their_logits[0])}
        exact = f32.last(tokens)
        row |= {"kvcast_to_f32": cosine(our_logits[0], exact), "llama_cpp_to_f32": cosine(their_logits[0], exact)}
        part = next((i for i, (a, b) in enumerate(zip(our_answer, their_answer)) if a != b), None)
        if part is not None:
            a, b = our_answer[part], their_answer[part]
            row |= {"first_difference": part, "gap_kvcast": float(our_logits[part][a] - our_logits[part][b]),
                    "gap_llama_cpp": float(their_logits[part][b] - their_logits[part][a]),
                    "largest_change": float(np.abs((our_logits[part] - our_logits[part].mean()) -
                                                   (their_logits[part] - their_logits[part].mean())).max())}
        rows.append(row)
    summary = {f"{which}_{key}": of(r[key] for r in rows) for key in ("cosine", "kvcast_to_f32", "llama_cpp_to_f32")
               for which, of in (("lowest", min), ("median", statistics.median))}
    return summary | {"kvcast_nearer_to_f32": sum(r["kvcast_to_f32"] > r["llama_cpp_to_f32"] for r in rows),
            "answers_equal": sum("first_difference" not in r for r in rows), "answer_tokens": args.steps, "prompts": rows}


def windows_of(args, llama):
    bos = llama.llama.token_bos() if llama.llama.metadata.get("tokenizer.ggml.add_bos_token") == "true" else None
    tokens, room = llama.tokenize(args.text.read_text()), args.tokens - (bos is not None)
    windows = [([] if bos is None else [bos]) + tokens[i:i + room] for i in range(0, len(tokens) - room + 1, room)]
    if args.windows < len(windows):
        windows = [windows[i * len(windows) // args.windows] for i in range(args.windows)]
    return windows


def compare_divergence(args):
    ours, theirs = Kvcast(args), LlamaCpp(args)
    windows = windows_of(args, theirs)
    rows = {engine.name: [] for engine in (ours, theirs)}
    with tempfile.TemporaryDirectory() as folder:
        f32 = ours.in_f32(folder)
        for window in windows:
            exact = f32.last(window)
            for engine in (ours, theirs):
                logits = engine.last(window)
                rows[engine.name].append((divergence(exact, logits), cosine(exact, logits), exact.argmax() == logits.argmax()))
    of_engine = {}
    for name, values in rows.items():
        kl, cosines, first = (np.array(column) for column in zip(*values))
        error = kl.std(ddof=1) / math.sqrt(len(kl)) if len(kl) > 1 else None
        of_engine[name] = {"mean_kl": kl.mean(), "standard_error": error, "largest_kl": kl.max(), "lowest_cosine": cosines.min(),
                           "same_first_choice": int(first.sum())}
    return {"windows": len(windows), "tokens": args.tokens} | of_engine


def compare_perplexity(args):
    theirs = LlamaCpp(args, logits_all=True)
    windows = windows_of(args, theirs)
    nll, n = Kvcast(args).nll(args.text)
    their_nll = theirs.nll(windows, args.tokens - 128)
    return {"windows": len(windows), "kvcast_windows": n, "kvcast": math.exp(nll), "llama_cpp": math.exp(their_nll),
            "ratio": math.exp(nll - their_nll)}


def compare_speed(args):
    engines = [Kvcast(args), LlamaCpp(args)]
    samples = []
    for round_number in range(-1, args.rounds):  # the first warms up
        for engine in engines:
            rows = list(engine.bench())
            for row in rows:
                row["start_ms"] = engine.start() if row is rows[0] else None
            if round_number >= 0:
                samples += rows
    results = []
    for tokens in args.p:
        row = {"prompt_tokens": tokens}
        for engine in engines:
            own = [s for s in samples if s["engine"] == engine.name and s["prompt_tokens"] == tokens]
            row[engine.name] = {key: statistics.median(s[key] for s in own) for key in own[0]
                                if key not in ("engine", "prompt_tokens", "start_ms")}
        row["prefill_ratio"] = row["llama.cpp"]["ttft_ms"] / row["kvcast"]["ttft_ms"]
        row["decode_ratio"] = row["kvcast"]["decode_tokens_per_s"] / row["llama.cpp"]["decode_tokens_per_s"]
        results.append(row)
    start = {engine.name: statistics.median(s["start_ms"] for s in samples if s["engine"] == engine.name and s["start_ms"])
             for engine in engines}
    return engines[0].head | {"rounds": args.rounds, "results": results, "start_to_first_token_ms": start}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kvcast")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("what", choices=["logits", "perplexity", "kl", "speed"])
    parser.add_argument("--dtype", default="auto", help="kvcast's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--steps", type=int, default=64, help="logits: tokens of a greedy answer")
    parser.add_argument("--text", type=pathlib.Path, help="perplexity and kl: plain text")
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=512, help="of a window; perplexity scores the last 128")
    parser.add_argument("-p", type=lambda text: [int(p) for p in text.split(",")], default=[128, 512])
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--context", type=int, default=4096)
    args = parser.parse_args()
    compare = {"logits": compare_logits, "perplexity": compare_perplexity, "kl": compare_divergence, "speed": compare_speed}[args.what]
    import llama_cpp
    head = {"model": args.model.name, "dtype": args.dtype, "threads": args.threads, "llama_cpp_python": llama_cpp.__version__}
    print(json.dumps(head | {args.what: compare(args), "command": " ".join(sys.argv)}, indent=1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A GGUF file in kvcast and in builds of llama.cpp and ik_llama.cpp, by their own benchmarks, in turns.

    # each peer built as one likes, for AVX-512 (-DGGML_NATIVE=ON) or AVX2 alone:
    #   cmake -B build -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON && cmake --build build -t llama-bench
    bench/peers/compare_llama_bench.py FILE.gguf --kvcast build/release/kvcast --isa avx512bf16,avx2 \\
        --peer 'llama.cpp=llama.cpp/build/bin/llama-bench -fa 1' --peer 'ik_llama.cpp=ik_llama.cpp/build/bin/llama-bench -fa 1' \\
        -p 128,512,2048 --rounds 3 --into results/peers.json

A round starts every engine once for every prompt length, one after the other, so that what disturbs the machine for a while
disturbs them alike; each warms up first, as it does by itself. Rounds are added to those that the file holds already; the table on
stdout is of the medians of all. Prefill: time to the first token; decode: tokens a second after that prompt. --bundle: a bundle of
the file, whose --forecast is measured beside it. --arch: what kvcast cannot read as GGUF, by its shape with random weights:

    bench/peers/compare_llama_bench.py openelm-1.1b-q4_0.gguf --arch openelm-1.1b --dtype bf16,int8,int4 --peer ...
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys


def run(command, environment=None):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


class Kvcast:
    """`kvcast bench` on one instruction set; of a bundle, under KV Prediction."""

    def __init__(self, args, isa, model, prefill, kind=""):
        self.args, self.isa, self.model, self.prefill = args, isa, model, prefill
        self.name = f"kvcast {isa}" + kind + ("" if prefill == "exact" else f" {prefill}")

    def measure(self, prompt):
        command = [self.args.kvcast, "bench", *self.model, "-p", str(prompt), "--prefill", self.prefill, "-r", "1", "--decode",
                   str(self.args.decode), "--threads", str(self.args.threads), "--format", "json"]
        result = json.loads(run(command, {"KVCAST_ISA": self.isa}))["results"][0]
        return {"ttft_ms": result["ttft_ms"]["median"], "decode_per_s": result["decode_tokens_per_s"]}


class LlamaBench:
    """llama-bench of llama.cpp (decode at a depth: -d) or of ik_llama.cpp (-gp)."""

    def __init__(self, args, text):
        self.args = args
        self.name, _, command = text.partition("=")
        self.command = shlex.split(command)
        usage = subprocess.run([self.command[0], "--help"], capture_output=True, text=True)
        self.takes_depth = "--n-depth" in usage.stdout + usage.stderr

    def measure(self, prompt):
        common = [*self.command, "-m", self.args.model, "-t", str(self.args.threads), "-r", "1", "-o", "json"]
        prefill = self.results([*common, "-p", str(prompt), "-n", "0"])
        decode = str(self.args.decode)
        after = ["-p", "0", "-n", decode, "-d", str(prompt)] if self.takes_depth else ["-p", "0", "-n", "0", "-gp", f"{prompt},{decode}"]
        return {"ttft_ms": 1e3 * prompt / prefill["avg_ts"], "decode_per_s": self.results([*common, *after])["avg_ts"]}

    def results(self, command):
        out = run(command)
        return json.loads(out[out.index("["):])[-1]


def table(record):
    names = list(dict.fromkeys(m["engine"] for m in record["measured"]))
    prompts = sorted({m["prompt"] for m in record["measured"]})
    median = {}
    for name in names:
        for prompt in prompts:
            of = [m for m in record["measured"] if m["engine"] == name and m["prompt"] == prompt]
            if of:
                median[name, prompt] = [statistics.median(m[key] for m in of) for key in ("ttft_ms", "decode_per_s")] + [len(of)]
    print("| engine | " + " | ".join(f"{p}: ms | decode/s | rounds" for p in prompts) + " |")
    print("|---|" + "--:|--:|--:|" * len(prompts))
    for name in names:
        cells = []
        for prompt in prompts:
            got = median.get((name, prompt))
            cells += [f"{got[0]:.0f}", f"{got[1]:.1f}", str(got[2])] if got else ["", "", ""]
        print(f"| {name} | " + " | ".join(cells) + " |")


def add_options(parser):
    """What every comparison with kvcast has."""
    parser.add_argument("model")
    parser.add_argument("--kvcast", default="build/release/kvcast")
    parser.add_argument("--isa", default="avx512bf16,avx2", help="kvcast's instruction sets; empty: none")
    parser.add_argument("-p", "--prompts", default="128,512,2048")
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=pathlib.Path, help="JSON; its rounds are kept")


def measure_in_turns(args, engines):
    record = {"model": pathlib.Path(args.model).name, "threads": args.threads, "decode_tokens": args.decode, "measured": []}
    if args.into and args.into.exists():
        record = json.loads(args.into.read_text())
    for _ in range(args.rounds):
        for prompt in map(int, args.prompts.split(",")):
            for engine in engines:
                record["measured"].append({"engine": engine.name, "prompt": prompt, **engine.measure(prompt)})
                if args.into:
                    args.into.write_text(json.dumps(record, indent=1) + "\n")
    table(record)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--arch", help="kvcast's shape for the file, as `kvcast bench --arch` has it")
    parser.add_argument("--dtype", default="bf16,int8,int4", help="kvcast's weights with --arch")
    parser.add_argument("--bundle", help="measured under --forecast too")
    parser.add_argument("--forecast", default="kv-prediction", help="a strategy of the bundle")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="a llama-bench, with options of its own")
    args = parser.parse_args()
    if args.arch and args.bundle:
        parser.error("--bundle is of a file, --arch of none")
    engines = []
    for isa in filter(None, args.isa.split(",")):
        if args.arch:
            engines += [Kvcast(args, isa, ["--arch", args.arch, "--dtype", dtype], "exact", " " + dtype) for dtype in args.dtype.split(",")]
            continue
        engines.append(Kvcast(args, isa, [args.model], "exact"))
        if args.bundle:
            engines.append(Kvcast(args, isa, [args.bundle], args.forecast))
    engines += [LlamaBench(args, text) for text in args.peer]
    measure_in_turns(args, engines)


if __name__ == "__main__":
    main()

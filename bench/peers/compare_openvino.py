#!/usr/bin/env python3
"""A GGUF file in kvcast and in OpenVINO GenAI, which reads some of them itself, in turns.

    python3 -m venv venv && venv/bin/pip install openvino-genai numpy
    venv/bin/python bench/peers/compare_openvino.py FILE.gguf --kvcast build/release/kvcast --isa avx512bf16,avx2 -p 128,512 --rounds 3 --into JSON

Time to the first token of prompts of random tokens (each a new one, so that nothing is kept of the last), and tokens a second after
it. OpenVINO is loaded once and warmed up; it takes what instructions the machine has. Rounds are added to those that the file holds.
"""
import argparse
import json
import os
import pathlib
import random

import numpy as np
import openvino as ov
import openvino_genai as genai

from compare_llama_bench import Kvcast, table


class OpenVino:
    def __init__(self, args):
        self.args, self.name = args, f"OpenVINO {ov.__version__.split('-')[0]}"
        self.pipeline = genai.LLMPipeline(args.model, "CPU", INFERENCE_NUM_THREADS=args.threads)
        self.random = random.Random(1)
        self.measure(64)

    def measure(self, prompt):
        ids = np.array([[self.random.randrange(1000, 30000) for _ in range(prompt)]], dtype=np.int64)
        inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        config = genai.GenerationConfig(max_new_tokens=1 + self.args.decode, ignore_eos=True, do_sample=False)
        metrics = self.pipeline.generate(inputs, config).perf_metrics
        return {"ttft_ms": metrics.get_ttft().mean, "decode_per_s": 1e3 / metrics.get_tpot().mean}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kvcast", default="build/release/kvcast")
    parser.add_argument("--isa", default="avx512bf16,avx2", help="kvcast's instruction sets")
    parser.add_argument("-p", "--prompts", default="128,512,2048")
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=pathlib.Path, help="JSON; its rounds are kept")
    args = parser.parse_args()
    engines = [Kvcast(args, isa, [args.model], "exact") for isa in args.isa.split(",")] + [OpenVino(args)]
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


if __name__ == "__main__":
    main()

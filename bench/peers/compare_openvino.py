#!/usr/bin/env python3
"""A GGUF file in kvcast and in OpenVINO GenAI, which reads some of them itself, in turns.

    python3 -m venv venv && venv/bin/pip install openvino-genai numpy
    venv/bin/python bench/peers/compare_openvino.py FILE.gguf --kvcast build/release/kvcast --isa avx512bf16,avx2 -p 128,512 --rounds 3 --into JSON

Time to the first token of prompts of random tokens (each a new one, so that nothing is kept of the last), and tokens a second after
it. OpenVINO is loaded once and warmed up with each length; it takes what instructions the machine has. Rounds are added to those that the file holds.
"""
import argparse
import random

import numpy as np
import openvino as ov
import openvino_genai as genai

from compare_llama_bench import Kvcast, add_options, measure_in_turns


class OpenVino:
    def __init__(self, args):
        self.args, self.name = args, f"OpenVINO {ov.__version__.split('-')[0]}"
        self.pipeline = genai.LLMPipeline(args.model, "CPU", INFERENCE_NUM_THREADS=args.threads)
        self.random = random.Random(1)
        self.warm = set()

    def measure(self, prompt):
        if prompt not in self.warm:  # as the other engines' benchmarks do
            self.warm.add(prompt)
            self.measure(prompt)
        ids = np.array([[self.random.randrange(1000, 30000) for _ in range(prompt)]], dtype=np.int64)
        inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        config = genai.GenerationConfig(max_new_tokens=1 + self.args.decode, ignore_eos=True, do_sample=False)
        metrics = self.pipeline.generate(inputs, config).perf_metrics
        return {"ttft_ms": metrics.get_ttft().mean, "decode_per_s": 1e3 / metrics.get_tpot().mean}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    args = parser.parse_args()
    engines = [Kvcast(args, isa, [args.model], "exact") for isa in filter(None, args.isa.split(","))]
    measure_in_turns(args, [*engines, OpenVino(args)])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What a dtype costs in quality: KL divergence (nats) of the next token's distribution from that of f32 and an exact
cache, after prompts cut evenly from a text, through `kvcast inspect`. Needs numpy and sentencepiece.

    bench/dtype_kl.py build/release/kvcast BUNDLE TEXT [--windows 60] [--prefix 384]
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import sentencepiece

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
from compare_llama_cpp import read_safetensors  # noqa: E402

CASES = [("bf16", "exact"), ("int8", "exact"), ("f32", "kv-prediction"), ("int8", "kv-prediction")]


def log_probabilities(args, tokens, dtype, prefill, out):
    subprocess.run([args.kvcast, "inspect", args.bundle, "--tokens", " ".join(map(str, tokens)), "--dtype", dtype,
                    "--prefill", prefill, "--steps", "0", "--out", out], check=True, capture_output=True)
    logits = np.array(read_safetensors(out)["prompt_logits"], dtype=np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kvcast")
    parser.add_argument("bundle")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--prefix", type=int, default=384)
    args = parser.parse_args()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=f"{args.bundle}/base/tokenizer.model")
    ids = tokenizer.encode(args.text.read_text())
    step = len(ids) // args.windows
    if step < args.prefix:
        sys.exit(f"{args.text}: {len(ids)} tokens, too few for {args.windows} windows of {args.prefix}")
    divergences = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, step * args.windows, step):
            tokens = [tokenizer.bos_id()] + ids[start:start + args.prefix - 1]
            p = log_probabilities(args, tokens, "f32", "exact", f"{folder}/out.safetensors")
            for case in CASES:
                q = log_probabilities(args, tokens, *case, f"{folder}/out.safetensors")
                divergences[case].append(float((np.exp(p) * (p - q)).sum()))
    for (dtype, prefill), values in divergences.items():
        error = np.std(values, ddof=1) / len(values) ** 0.5
        print(f"{dtype} {prefill}: mean {np.mean(values):.5f} +- {error:.5f}, median {np.median(values):.5f}")


if __name__ == "__main__":
    main()

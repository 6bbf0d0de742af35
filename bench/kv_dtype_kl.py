#!/usr/bin/env python3
"""What the cache's type costs in quality: KL divergence (nats) of the next token's distribution from that over a cache in f32, the
same weights, exactly read prompts, after windows cut evenly from a text; through `kvcast inspect`. Needs numpy.

    PYTHONPATH=python KVCAST_LIBRARY=build/release/libkvcast.so bench/kv_dtype_kl.py build/release/kvcast MODEL TEXT --windows 40
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import kvcast

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
from compare_llama_cpp import read_safetensors  # noqa: E402

TYPES = ["bf16", "int8"]


def log_probabilities(args, tokens, kv_dtype, out):
    subprocess.run([args.kvcast, "inspect", args.model, "--tokens", " ".join(map(str, tokens)), "--dtype", args.dtype, "--kv-dtype",
                    kv_dtype, "--prefill", "exact", "--out", out], check=True, capture_output=True)
    logits = np.array(read_safetensors(out)["prompt_logits"], dtype=np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kvcast")
    parser.add_argument("model")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--prefix", type=int, default=512)
    args = parser.parse_args()
    ids = list(kvcast.Model.load(args.model).tokenize(args.text.read_text()[:40 * args.windows * args.prefix], add_bos=False))
    step = len(ids) // args.windows
    if step < args.prefix:
        sys.exit(f"{args.text}: {len(ids)} tokens, too few for {args.windows} windows of {args.prefix}")
    divergences, first = {kind: [] for kind in TYPES}, {kind: 0 for kind in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, step * args.windows, step):
            p = log_probabilities(args, ids[start:start + args.prefix], "f32", f"{folder}/out.safetensors")
            for kind in TYPES:
                q = log_probabilities(args, ids[start:start + args.prefix], kind, f"{folder}/out.safetensors")
                divergences[kind].append(float((np.exp(p) * (p - q)).sum()))
                first[kind] += int(p.argmax() == q.argmax())
    result = {"model": pathlib.Path(args.model).name, "dtype": args.dtype, "windows": args.windows, "prefix": args.prefix}
    for kind, values in divergences.items():
        result[kind] = {"kl_mean": float(np.mean(values)), "kl_error": float(np.std(values, ddof=1) / len(values) ** 0.5),
                        "kl_median": float(np.median(values)), "same_first": first[kind] / args.windows}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

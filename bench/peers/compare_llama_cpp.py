#!/usr/bin/env python3
"""Exact prefill of an OpenELM shape: kvcast beside llama.cpp, in turns, in one run.

    python3 -m venv venv && venv/bin/pip install llama-cpp-python gguf numpy
    venv/bin/python bench/peers/compare_llama_cpp.py build/release/kvcast --arch 1.1b -p 128,512

llama.cpp gets a GGUF file with random bf16 weights of the same shape (written once, kept in the
temporary folder). Both run batch 1 on the same number of threads; medians over rounds that alternate.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

SHAPES = {"270m": (16, 1280, 64), "450m": (20, 1536, 64), "1.1b": (28, 2048, 64)}
VOCAB = 32000


def make_divisible(value, divisor):
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def layer_shapes(layers, dim, head_dim):
    """(query heads, KV heads, FFN width) per layer: OpenELM's layer-wise scaling."""
    for i in range(layers):
        qkv = round(0.5 + 0.5 * i / (layers - 1), 2)
        ffn = round(0.5 + 3.5 * i / (layers - 1), 2)
        heads = make_divisible(qkv * dim, head_dim * 4) // head_dim
        yield heads, heads // 4, make_divisible(ffn * dim, 256)


def write_gguf(path, layers, dim, head_dim):
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "openelm")
    shapes = list(layer_shapes(layers, dim, head_dim))
    writer.add_context_length(2048)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_head_count([s[0] for s in shapes])
    writer.add_head_count_kv([s[1] for s in shapes])
    writer.add_feed_forward_length([s[2] for s in shapes])
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name, n, k):
        values = rng.standard_normal((n, k), dtype=np.float32) * np.float32(k**-0.5)
        bf16 = (values.view(np.uint32) >> 16).astype(np.uint16)
        writer.add_tensor(name, bf16, raw_dtype=GGMLQuantizationType.BF16)

    def ones(name, n):
        writer.add_tensor(name, np.ones(n, dtype=np.float32))

    matrix("token_embd.weight", VOCAB, dim)
    ones("output_norm.weight", dim)
    for i, (heads, kv_heads, ffn) in enumerate(shapes):
        ones(f"blk.{i}.attn_norm.weight", dim)
        matrix(f"blk.{i}.attn_qkv.weight", (heads + 2 * kv_heads) * head_dim, dim)
        ones(f"blk.{i}.attn_q_norm.weight", head_dim)
        ones(f"blk.{i}.attn_k_norm.weight", head_dim)
        matrix(f"blk.{i}.attn_output.weight", dim, heads * head_dim)
        ones(f"blk.{i}.ffn_norm.weight", dim)
        matrix(f"blk.{i}.ffn_gate.weight", ffn, dim)
        matrix(f"blk.{i}.ffn_up.weight", ffn, dim)
        matrix(f"blk.{i}.ffn_down.weight", dim, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kvcast_ttft(args, auxiliary):
    command = [args.kvcast, "bench", "--arch", f"openelm-{args.arch}", "-p", args.p, "-r", "2",
               "--dtype", args.dtype, "--decode", "0", "--threads", str(args.threads), "--format", "json"]
    if auxiliary:
        command += ["--aux", f"openelm-{auxiliary}", "--prefill", "exact,kv-prediction"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kvcast")
    parser.add_argument("--arch", choices=SHAPES, default="1.1b")
    parser.add_argument("--aux", choices=SHAPES, help="also KV prediction with this auxiliary")
    parser.add_argument("-p", default="128,512", help="prompt lengths")
    parser.add_argument("--dtype", default="bf16", help="kvcast's; llama.cpp runs bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    path = os.path.join(tempfile.gettempdir(), f"openelm-{args.arch}-random-bf16.gguf")
    if not os.path.exists(path):
        write_gguf(path, *SHAPES[args.arch])
    import llama_cpp
    llama = llama_cpp.Llama(path, n_ctx=2048, n_batch=2048, n_ubatch=512, n_threads=args.threads,
                            n_threads_batch=args.threads, verbose=False)
    lengths = [int(p) for p in args.p.split(",")]
    theirs = {p: [] for p in lengths}
    ours = {}
    for _ in range(args.rounds):
        for result in (report := kvcast_ttft(args, args.aux))["results"]:
            ours.setdefault((result["prefill"], result["prompt_tokens"]), []).append(result["ttft_ms"]["median"])
        for p in lengths:
            for repetition in range(2):
                llama.reset()
                start = time.perf_counter()
                llama.eval([(i * 7919 + 13) % VOCAB for i in range(p)])
                if repetition:
                    theirs[p].append(1e3 * (time.perf_counter() - start))
    results = [{"prompt_tokens": p, "llama_cpp_bf16_ms": statistics.median(theirs[p]),
                "kvcast_ms": {k[0]: statistics.median(v) for k, v in ours.items() if k[1] == p}}
               for p in lengths]
    print(json.dumps({"machine": report["machine"], "isa": report["isa"], "commit": report["commit"],
                      "threads": args.threads, "arch": args.arch, "auxiliary": args.aux, "dtype": args.dtype,
                      "llama_cpp_python": llama_cpp.__version__, "rounds": args.rounds, "results": results}, indent=1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Prefill and decode of an OpenELM shape: kvcast beside llama.cpp, in turns, in one run; JSON on stdout.

    python3 -m venv venv
    CMAKE_ARGS=-DGGML_NATIVE=ON venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python gguf numpy
    venv/bin/python bench/peers/compare_llama_cpp.py build/release/kvcast --arch 1.1b --aux 270m -p 128,256,512

Both get the same random weights: kvcast as packed directories, llama.cpp as a GGUF file in bf16 and what its own
quantiser makes of it. They are made once and kept in --work. That both compute the same model is checked first.
Batch 1; medians over rounds that alternate.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import random_openelm as openelm  # noqa: E402

LLAMA_TYPES = {"bf16": None, "q8_0": 7, "q4_0": 2}  # llama.h: LLAMA_FTYPE_MOSTLY_*


def read_safetensors(path):
    data = np.memmap(path, dtype=np.uint8, mode="r")
    length = int(data[:8].view(np.uint64)[0])
    header = json.loads(bytes(data[8:8 + length]))
    header.pop("__metadata__", None)
    types = {"BF16": np.uint16, "F32": np.float32, "I64": np.int64}
    return {name: data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]]
            .view(types[t["dtype"]]).reshape(t["shape"]) for name, t in header.items()}


def write_gguf(path, model, arch):
    """The checkpoint `model` as a GGUF file in bf16."""
    from gguf import GGMLQuantizationType, GGUFWriter
    layers, dim, head_dim = openelm.SHAPES[arch]
    shapes = list(openelm.layer_shapes(arch))
    tensors = read_safetensors(model / "model.safetensors")
    writer = GGUFWriter(path, "openelm")
    writer.add_context_length(openelm.CONTEXT)
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
    writer.add_vocab_size(openelm.VOCAB)
    writer.add_tokenizer_model("no_vocab")

    def add(name, bits):
        if bits.ndim == 1:  # norms are f32 there
            writer.add_tensor(name, (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(name, np.ascontiguousarray(bits), raw_dtype=GGMLQuantizationType.BF16)

    add("token_embd.weight", tensors["transformer.token_embeddings.weight"])
    add("output_norm.weight", tensors["transformer.norm.weight"])
    names = {"attn_norm": "attn_norm", "attn.qkv_proj": "attn_qkv", "attn.q_norm": "attn_q_norm",
             "attn.k_norm": "attn_k_norm", "attn.out_proj": "attn_output", "ffn_norm": "ffn_norm",
             "ffn.proj_2": "ffn_down"}
    for i, (_, _, ffn) in enumerate(shapes):
        layer = f"transformer.layers.{i}."
        for ours, theirs in names.items():
            add(f"blk.{i}.{theirs}.weight", tensors[f"{layer}{ours}.weight"])
        gate_up = tensors[layer + "ffn.proj_1.weight"]
        add(f"blk.{i}.ffn_gate.weight", gate_up[:ffn])
        add(f"blk.{i}.ffn_up.weight", gate_up[ffn:])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def once(path, make):
    """Makes what is not there yet, under another name first."""
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        make(partial)
        partial.rename(path)
    return path


class Kvcast:
    def __init__(self, args):
        self.args = args
        name = f"openelm-{args.arch}" + (f"-{args.aux}" if args.aux else "")
        plain = once(args.work / name, lambda path: openelm.write_bundle(path, args.arch, args.aux)
                     if args.aux else openelm.write_model(path, args.arch, 1))
        self.base = plain / "base" if args.aux else plain
        self.packed = {dtype: once(args.work / f"{name}-{dtype}", lambda path, dtype=dtype: self.run(
            "convert", plain, path, "--dtype", dtype)) for dtype in args.dtypes}

    def run(self, *arguments):
        return subprocess.run([self.args.kvcast, *map(str, arguments)], check=True, capture_output=True).stdout

    def bench(self, dtype):
        prefill = "exact,kv-prediction" if self.args.aux else "exact"
        report = json.loads(self.run(
            "bench", self.packed[dtype], "--dtype", dtype, "-p", ",".join(map(str, self.args.p)), "-r", 1,
            "--decode", self.args.decode, "--threads", self.args.threads, "--prefill", prefill, "--format", "json"))
        self.report = report
        for row in report["results"]:
            yield {"engine": "kvcast", "dtype": dtype, "prefill": row["prefill"], "prompt_tokens": row["prompt_tokens"],
                   "ttft_ms": row["ttft_ms"]["median"], "decode_tokens_per_s": row["decode_tokens_per_s"]}

    def logits(self, tokens):
        out = self.args.work / "logits.safetensors"
        self.run("inspect", self.base, "--tokens", " ".join(map(str, tokens)), "--dtype", "bf16", "--steps", 0,
                 "--out", out)
        return np.array(read_safetensors(out)["prompt_logits"])


class LlamaCpp:
    def __init__(self, args, model):
        import llama_cpp
        self.args, self.version = args, llama_cpp.__version__
        bf16 = once(args.work / f"openelm-{args.arch}-bf16.gguf", lambda path: write_gguf(path, model, args.arch))
        self.models = {}
        for name in args.llama:
            path = bf16 if LLAMA_TYPES[name] is None else once(
                args.work / f"openelm-{args.arch}-{name}.gguf", lambda path, name=name: self.quantise(bf16, path, name))
            self.models[name] = llama_cpp.Llama(str(path), n_ctx=openelm.CONTEXT, n_batch=2048, n_ubatch=512,
                                                flash_attn=True, n_threads=args.threads, n_threads_batch=args.threads,
                                                verbose=False)

    def quantise(self, source, path, name):
        import llama_cpp
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.nthread = LLAMA_TYPES[name], self.args.threads
        if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), options) != 0:
            sys.exit(f"{path}: llama.cpp cannot quantise")

    def bench(self, name, warm_up):
        llama = self.models[name]
        for tokens in self.args.p:
            for measured in (False, True) if warm_up else (True,):
                llama.reset()
                start = time.perf_counter()
                llama.eval(prompt(tokens))
                ttft = time.perf_counter() - start
            start = time.perf_counter()
            for _ in range(self.args.decode):
                llama.eval([13])
            decode = time.perf_counter() - start
            yield {"engine": "llama.cpp", "dtype": name, "prefill": "exact", "prompt_tokens": tokens,
                   "ttft_ms": 1e3 * ttft, "decode_tokens_per_s": self.args.decode / decode if decode else 0}

    def logits(self, tokens):
        import llama_cpp
        llama = self.models["bf16"]
        llama.reset()
        llama.eval(tokens)
        pointer = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        return np.ctypeslib.as_array(pointer, (openelm.VOCAB,)).copy()


def prompt(count):
    return [(i * 7919 + 13) % openelm.VOCAB for i in range(count)]


def check_same_model(ours, theirs):
    """How alike the two engines' logits are; ends the run if they compute different models."""
    tokens = prompt(24)
    a, b = ours.logits(tokens), theirs.logits(tokens)
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    if cosine < 0.999:
        sys.exit(f"the engines' logits differ: cosine {cosine:.5f}, expected at least 0.999")
    return cosine


def summarise(samples):
    """Medians per case; a decode figure of a case counts once a round too."""
    cases = {}
    for row in samples:
        cases.setdefault(tuple(row[k] for k in ("engine", "dtype", "prefill", "prompt_tokens")), []).append(row)
    return [dict(zip(("engine", "dtype", "prefill", "prompt_tokens"), case)) |
            {key: statistics.median(row[key] for row in rows) for key in ("ttft_ms", "decode_tokens_per_s")}
            for case, rows in cases.items()]


def ratios(results, args):
    """How many times sooner kvcast's first token comes than llama.cpp's."""
    at = {(r["engine"], r["dtype"], r["prefill"], r["prompt_tokens"]): r["ttft_ms"] for r in results}
    for tokens in args.p:
        theirs = {name: at["llama.cpp", name, "exact", tokens] for name in args.llama}
        best = min(theirs, key=theirs.get)
        for dtype in args.dtypes:
            for prefill in ("exact", "kv-prediction") if args.aux else ("exact",):
                ours = at["kvcast", dtype, prefill, tokens]
                yield {"prompt_tokens": tokens, "kvcast": f"{dtype} {prefill}",
                       "over_llama_cpp": {name: ms / ours for name, ms in theirs.items()},
                       "llama_cpp_best": best}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("kvcast")
    parser.add_argument("--arch", choices=openelm.SHAPES, default="1.1b")
    parser.add_argument("--aux", choices=openelm.SHAPES, help="also KV prediction with this auxiliary")
    parser.add_argument("-p", type=lambda text: [int(p) for p in text.split(",")], default=[128, 512])
    parser.add_argument("--dtypes", type=names, default=["bf16", "int8"], help="kvcast's")
    parser.add_argument("--llama", type=names, default=list(LLAMA_TYPES), help="llama.cpp's: bf16, q8_0, q4_0")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decode", type=int, default=8, help="tokens after each prompt")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "kvcast-peers")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    ours = Kvcast(args)
    theirs = LlamaCpp(args, ours.base)
    cosine = check_same_model(ours, theirs)
    samples = []
    for round_number in range(args.rounds):
        for i in range(max(len(args.dtypes), len(args.llama))):
            if i < len(args.dtypes):
                samples += ours.bench(args.dtypes[i])
            if i < len(args.llama):
                samples += theirs.bench(args.llama[i], warm_up=round_number == 0)
    results = summarise(samples)
    head = {key: ours.report[key] for key in ("machine", "isa", "commit", "threads")}
    print(json.dumps(head | {
        "arch": args.arch, "auxiliary": args.aux, "llama_cpp_python": theirs.version, "rounds": args.rounds,
        "logits_cosine": cosine, "results": results, "ratios": list(ratios(results, args)),
        "command": " ".join(sys.argv)}, indent=1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""From the start of the process to its first token, and the most memory it held: runs `kvcast inspect` on a one-token
prompt for each model directory in turn, and prints medians as JSON.

    bench/load_time.py build/release/kvcast MODEL... [--rounds 7] [--dtype auto]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time


def run(kvcast, directory, dtype, threads, out):
    start = time.perf_counter()
    process = subprocess.Popen([kvcast, "inspect", directory, "--tokens", "1", "--steps", "0", "--dtype", dtype,
                                "--threads", str(threads), "--out", out])
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{directory}: kvcast inspect failed")
    return 1e3 * (time.perf_counter() - start), usage.ru_maxrss * 1024


def weight_bytes(directory):
    return sum(file.stat().st_size for file in pathlib.Path(directory).rglob("*.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kvcast")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    samples = {directory: [] for directory in args.models}
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(-1, args.rounds):  # the first brings the files into the page cache
            for directory in args.models:
                sample = run(args.kvcast, directory, args.dtype, args.threads, f"{folder}/out.safetensors")
                if round_number >= 0:
                    samples[directory].append(sample)
    print(json.dumps({"threads": args.threads, "dtype": args.dtype, "results": [
        {"model": pathlib.Path(directory).name, "file_bytes": weight_bytes(directory),
         "start_to_first_token_ms": statistics.median(ms for ms, _ in runs),
         "peak_rss_bytes": statistics.median(rss for _, rss in runs)} for directory, runs in samples.items()]}, indent=1))


if __name__ == "__main__":
    main()

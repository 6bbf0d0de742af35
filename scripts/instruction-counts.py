#!/usr/bin/env python3
"""Counts the instructions of the shipped bundle's prefill and decode (callgrind, AVX2 kernels, one thread), which do
not depend on how busy a machine is, and compares them with those that are kept.

    scripts/instruction-counts.py build/release/kvcast            # fails if a count has grown by more than 3%
    scripts/instruction-counts.py build/release/kvcast --write    # keeps the counts of now

A gain is worth keeping too: a count that has fallen by more than 3% is said, and does not fail. Counts are of GCC 12
and Debian 12's libraries; another compiler's differ.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "speed" / "instructions.json"
SHORT = "The city of Rome was founded in the year, and then the people of the city went on to the hills"
LONG = " ".join([SHORT] * 6)
TOLERANCE = 0.03


def run(kvcast, prompt, tokens, prefill):
    """Instructions of one answer, loading included."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(kvcast), "run",
               str(ROOT / "models" / "kvcast-65m"), "-p", prompt, "-n", str(tokens), "--prefill", prefill, "--drafts", "off",
               "--threads", "1"]
    done = subprocess.run(command, env={**os.environ, "KVCAST_ISA": "avx2"}, capture_output=True, text=True)
    counted = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode != 0 or not counted:
        sys.exit(f"instruction-counts: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(counted.group(1).replace(",", ""))


def counts(kvcast):
    short = {prefill: run(kvcast, SHORT, 1, prefill) for prefill in ("exact", "kv-prediction")}
    return {
        "start": short["exact"],
        "prefill_exact": run(kvcast, LONG, 1, "exact") - short["exact"],
        "prefill_kv_prediction": run(kvcast, LONG, 1, "kv-prediction") - short["kv-prediction"],
        "decode": run(kvcast, SHORT, 17, "exact") - short["exact"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kvcast", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="keep the counts of now")
    arguments = parser.parse_args()
    now = counts(arguments.kvcast)
    if arguments.write:
        KEPT.write_text(json.dumps(now, indent=1) + "\n")
        return
    kept = json.loads(KEPT.read_text())
    grown = []
    for name, before in kept.items():
        change = now[name] / before - 1
        print(f"{name:22} {before:>15,} -> {now[name]:>15,}  {change:+.2%}")
        if change > TOLERANCE:
            grown.append(name)
    if grown:
        sys.exit(f"instruction-counts: {', '.join(grown)}: more than {TOLERANCE:.0%} more instructions than "
                 f"{KEPT.relative_to(ROOT)} has; if that is worth it, say why and keep them by --write")


if __name__ == "__main__":
    main()

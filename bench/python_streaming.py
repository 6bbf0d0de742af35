"""What streaming from Python costs over the same loop in C++: one answer pulled piece by piece by each, in turns.

    PYTHONPATH=python KVCAST_LIBRARY=build/release/libkvcast.so python3 bench/python_streaming.py [MODEL] [--tokens 256] [--rounds 30]

Prints the median of the rounds' ratios (wall clock, first token to last) and their quartiles, as JSON.
"""

import argparse
import ctypes
import json
import statistics
import time

import kvcast
from kvcast._library import library

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="models/kvcast-65m")
parser.add_argument("--tokens", type=int, default=256)
parser.add_argument("--rounds", type=int, default=30)
arguments = parser.parse_args()

model = kvcast.Model.load(arguments.model)
library.kvcast_answer_run.argtypes = [ctypes.c_void_p] * 4
prompt = model.tokenize("The city of Rome was founded")


def begin():
    answer = model.session().generate(prompt, prefill="exact", max_tokens=arguments.tokens, ignore_end_of_text=True, drafts="off")
    next(answer)
    return answer, time.perf_counter()


def in_python():
    answer, start = begin()
    text = "".join(answer)
    return time.perf_counter() - start, len(text)


def in_cpp():
    answer, start = begin()
    assert library.kvcast_answer_run(answer._handle, None, None, None) == 0
    return time.perf_counter() - start, len(answer.text)


in_cpp()
ratios, seconds = [], []
for i in range(arguments.rounds):
    first, second = (in_python, in_cpp) if i % 2 else (in_cpp, in_python)
    (a, read), (b, other) = first(), second()
    python, cpp = (a, b) if i % 2 else (b, a)
    assert min(read, other) > 0
    ratios.append(python / cpp)
    seconds.append(cpp)
low, median, high = statistics.quantiles(ratios, n=4)
print(json.dumps({"model": arguments.model, "tokens": arguments.tokens, "rounds": arguments.rounds, "threads": model.threads,
                  "commit": kvcast.__commit__, "python_over_cpp": {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)},
                  "cpp_ms_per_token": round(1000 * statistics.median(seconds) / (arguments.tokens - 1), 3)}))

"""Load on a running `kvcast serve`: concurrent streams, many requests in a row, clients that vanish, long
bodies, a stop while it answers.

    python tests/clients/load_check.py streams|batched|soak|vanish|bodies|drain|ttft [http://127.0.0.1:8080] [options]

Needs nothing but Python. `soak` and `vanish` read the memory of the server's process: --pid. `drain` sends it SIGTERM.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time

WORDS = ("the old keeper of the lighthouse went down to the sea and saw that a boat had come in from "
         "the island with letters for every house in the village but one of them had no name on it").split()

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=("streams", "batched", "soak", "vanish", "bodies", "drain", "ttft"))
parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
parser.add_argument("--pid", type=int)
parser.add_argument("--requests", type=int, default=0)
parser.add_argument("--first", type=int, default=0, help="soak: number of the first request, to go on where "
                    "an earlier run ended")
parser.add_argument("--concurrent", type=int, default=32)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--prefill", nargs="+", default=["exact", "kv-prediction", "kv-prediction:tail=16", "auxiliary"],
                    help="strategies that requests take turns with")
parser.add_argument("--kvcast", default="build/release/kvcast", help="ttft: the program to compare with")
parser.add_argument("--model", default="", help="ttft: its model")
parser.add_argument("--threads", default="1", help="ttft: its threads; the server must have as many")
args = parser.parse_args()
SPECS = args.prefill
host = args.url.split("//")[1].rstrip("/")


def prompt(seed, words):
    draw = random.Random(seed)
    return f"Story {seed}: " + " ".join(draw.choice(WORDS) for _ in range(words))


def metric(name):
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", "/metrics")
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith("kvcast:" + name + "{"):
            return float(line.split()[-1])
    raise KeyError(name)


def rss_mib():
    with open(f"/proc/{args.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def post(body, connection=None):
    connection = connection or http.client.HTTPConnection(host, timeout=120)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = json.loads(response.read())
    assert response.status == 200, data
    return data


def stream(body):
    """(text, seconds to first text, gaps between pieces, timings, complete)"""
    connection = http.client.HTTPConnection(host, timeout=120)
    start = last = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body | {"stream": True}),
                       {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    text, first, gaps, timings, done = "", None, [], None, False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            break
        event = json.loads(line[6:])
        assert "error" not in event, event
        if event.get("object") == "kvcast.revision":
            text = text[:event["from_character"]]
            continue
        now = time.perf_counter()
        if first is None:
            first = now - start
        else:
            gaps.append(now - last)
        last = now
        text += "".join(choice["text"] for choice in event["choices"])
        timings = event.get("timings", timings)
    return text, first, gaps, timings, done


def percentiles(values, unit=1e3):
    values = sorted(values)
    at = lambda share: values[min(len(values) - 1, int(share * len(values)))] * unit
    return f"p50 {at(.5):.1f}  p90 {at(.9):.1f}  p99 {at(.99):.1f}  max {values[-1] * unit:.1f} ms"


def wait_until_ready():
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except ConnectionRefusedError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{args.url} is not ready")


def body_of(i):
    return {"prompt": prompt(i, (8, 40, 120, 300)[i % 4]), "max_tokens": args.tokens, "temperature": 0,
            "ignore_eos": True, "prefill": SPECS[i % len(SPECS)]}


wait_until_ready()
if args.what == "streams":
    count = args.requests or 4 * args.concurrent
    with concurrent.futures.ThreadPoolExecutor(args.concurrent) as pool:
        start = time.perf_counter()
        results = list(pool.map(lambda i: stream(body_of(i)), range(count)))
        seconds = time.perf_counter() - start
    assert all(done for *_, done in results), "a stream is not complete"
    assert all(t["generated_tokens"] == args.tokens for _, _, _, t, _ in results)
    print(f"{count} streams, {args.concurrent} at a time, {args.tokens} tokens each, no error, all complete; "
          f"{count * args.tokens / seconds:.0f} tokens/s, "
          f"{sum(t['prompt_tokens'] for _, _, _, t, _ in results) / seconds:.0f} prompt tokens/s")
    print("TTFT, server (from arrival):", percentiles([t["ttft_ms"] / 1e3 for _, _, _, t, _ in results]))
    print("TTFT, client:               ", percentiles([first for _, first, *_ in results]))
    print("between pieces, client:     ", percentiles([gap for _, _, gaps, *_ in results for gap in gaps]))
    print(f"longest step with a running answer, server: {metric('longest_step_seconds') * 1e3:.1f} ms")

elif args.what == "batched":
    # How many rows are exact when a token is chosen depends on how long steps take. What is refined
    # is compared by its final answer, which is exact's.
    count = args.requests or 64
    bodies = [body | {"cache_prompt": False, "revise": "refine=" in body["prefill"]} for body in map(body_of, range(count))]
    alone = [post(body)["choices"][0]["text"] for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(args.concurrent) as pool:
        together = list(pool.map(lambda body: stream(body)[0], bodies))
    different = sum(a != b for a, b in zip(alone, together))
    print(f"{count} greedy answers of {args.tokens} tokens: {different} differ between one by one and batched")
    assert different == 0

elif args.what == "soak":
    count = args.requests or 10_000
    connection = http.client.HTTPConnection(host, timeout=120)
    samples = []  # without the prefix store, which has a limit of its own (--prefix-cache)
    start = time.perf_counter()
    for i in range(args.first, args.first + count):
        post({"prompt": prompt(i, 10 + i % 60), "max_tokens": 1 + i % 8, "temperature": 0.7, "seed": i,
              "prefill": SPECS[i % len(SPECS)]}, connection)
        if (i - args.first) % (count // 10) == count // 10 - 1:
            stored = metric("prefix_cache_bytes") / 2 ** 20
            samples.append(rss_mib() - stored)
            print(f"{i + 1} requests: {samples[-1]:.1f} MiB and {stored:.1f} of stored prefixes", flush=True)
    print(f"{count} requests in {time.perf_counter() - start:.0f} s; growth over the last 80%: "
          f"{samples[-1] - samples[1]:.1f} MiB")
    assert samples[-1] - samples[1] < 8

elif args.what == "vanish":
    count = args.requests or 1000
    before = metric("requests_cancelled_total")
    memory = rss_mib() if args.pid else 0
    open_sockets = []
    for i in range(count):
        body = json.dumps({"prompt": prompt(i, 1200), "max_tokens": 400, "stream": i % 2 == 0,
                           "prefill": SPECS[i % len(SPECS)], "cache_prompt": False})
        connection = socket.create_connection(host.split(":"))
        connection.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                            f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
        open_sockets.append(connection)
        if len(open_sockets) >= 20:
            time.sleep(0.02)
            for connection in open_sockets:
                connection.close()
            open_sockets = []
    for connection in open_sockets:
        connection.close()
    for _ in range(600):
        left = metric("num_requests_running") + metric("num_requests_waiting")
        if left == 0:
            break
        time.sleep(0.1)
    print(f"{count} clients vanished; left running or waiting: {left:.0f}; cancelled: "
          f"{metric('requests_cancelled_total') - before:.0f}; cache bytes held: {metric('cache_bytes'):.0f}; "
          f"connections: {metric('num_connections'):.0f}"
          + (f"; memory {memory:.1f} -> {rss_mib():.1f} MiB" if args.pid else ""))
    assert left == 0 and metric("cache_bytes") == 0

elif args.what == "bodies":
    # Long bodies to every route that reads text, a third of their clients gone before the answer, beside
    # streams that must not notice.
    count = args.requests or 100
    text = prompt(0, 170_000)
    routes = (("/tokenize", {"prompt": text}, 200),
              ("/v1/completions", {"prompt": text}, 400),
              ("/v1/completions", {"prompt": [7] * 170_000}, 400),
              ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}, 400))

    def long_body(i):
        path, body, expected = routes[i % len(routes)]
        connection = http.client.HTTPConnection(host, timeout=120)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        if i % 3 == 0:
            connection.close()
            return None
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == expected, (path, response.status, str(answer)[:200])
        assert expected == 200 or answer["error"]["code"] == "context_length_exceeded", answer
        return expected

    alone = stream(body_of(1))[0]
    with concurrent.futures.ThreadPoolExecutor(args.concurrent) as pool:
        bodies = [pool.submit(long_body, i) for i in range(count)]
        streams = [stream(body_of(1))]
        while not all(body.done() for body in bodies):
            streams.append(stream(body_of(1)))
        answers = [body.result() for body in bodies]
    assert all(text == alone and done for text, _, _, _, done in streams)
    sizes = [len(json.dumps(body)) / 1e6 for _, body, _ in routes]
    print(f"{count} bodies of {min(sizes):.1f} to {max(sizes):.1f} MB, {args.concurrent} at a time: {answers.count(200)} "
          f"read, {answers.count(400)} refused, {answers.count(None)} clients gone; meanwhile {len(streams)} streams, "
          f"each as when alone")
    print("between pieces, client:", percentiles([gap for _, _, gaps, *_ in streams for gap in gaps]))

elif args.what == "drain":
    # The signal comes when the first answer is complete.
    count = args.requests or 2 * args.concurrent
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        streams = [pool.submit(stream, body_of(i)) for i in range(count)]
        next(concurrent.futures.as_completed(streams))
        os.kill(args.pid, signal.SIGTERM)
        left = sum(not s.done() for s in streams)
        complete = sum(s.exception() is None and s.result()[4] for s in streams)
    for _ in range(600):
        if not os.path.exists(f"/proc/{args.pid}") or "Z" in open(f"/proc/{args.pid}/stat").read().split()[2]:
            break
        time.sleep(0.1)
    else:
        raise SystemExit("the server is still there")
    print(f"SIGTERM with {left} of {count} streams under way: {complete} complete; the server has ended")
    assert complete == count

else:
    # Both sides alternate, so that other work on the machine hits both alike.
    count = args.requests or 15
    for words in (20, 100, 300):
        text = prompt(words, words)
        for spec in ("exact", "kv-prediction"):
            ours, program = [], []
            connection = http.client.HTTPConnection(host, timeout=120)
            for _ in range(count):
                t = post({"prompt": text, "max_tokens": 2, "temperature": 0, "prefill": spec,
                          "cache_prompt": False}, connection)["timings"]
                ours.append(t["ttft_ms"])
                # --compare warms up before it measures, as a server has.
                out = subprocess.run([args.kvcast, "run", *([args.model] if args.model else []), "-p", text, "-n",
                                      "2", "--prefill", spec, "--compare", spec, "--threads", args.threads,
                                      "--json"], capture_output=True, text=True, check=True).stdout
                program.append(json.loads(out)["answers"][0]["ttft_ms"])
            a, b = statistics.median(ours), statistics.median(program)
            print(f"{t['prompt_tokens']:4d} tokens, {spec:14s}: server {a:7.2f} ms (min {min(ours):.2f}), "
                  f"run {b:7.2f} ms (min {min(program):.2f}), difference {a - b:+.2f} ms (of minima "
                  f"{min(ours) - min(program):+.2f})")

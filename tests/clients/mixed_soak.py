"""Mixed traffic for as long as one likes on a server of its own: chats, completions, scores of prompts, bad requests,
clients that vanish and clients that read slowly, with refinement and a prefix store. Needs nothing but Python.

    python3 tests/clients/mixed_soak.py KVCAST MODEL [--minutes 60] [--clients 8] [--threads N] [--cache-mib 96]
                                        [--pause SECONDS] [--probe-pause SECONDS]

Each client sends its next request when the last one is over (--pause: and so long after it on average), a probe of one
shape every quarter of a second (--probe-pause) gives the time to the first token. Larger requests than any of these come
first, and many at once, so that scratch memory, which only grows, is there. Twenty times all of them rest, once what they
asked for is done: what is allocated then, but for kept prefixes (--cache-mib bounds these), is memory that stays; what
serves requests depends on what is asked at the moment and moves by a tenth. After a warm-up of a tenth of the time it has
changed by no more than 1% of resident memory from the mean of the next three rests to that of the last three (the rest are
weights, mapped from their file, which come in page by page as words are met); the 99th percentile of the probe's time in
the last fifth is no more than 10% longer than in the first one; and no request may fail. Prints a line a minute and a line
of JSON; exit status 1 if one of the three does not hold.
"""
import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time

from served import Served

WORDS = ("the old keeper of the lighthouse went down to the sea and saw that a boat had come in from "
         "the island with letters for every house in the village but one of them had no name on it").split()


def text(draw, words):
    return " ".join(draw.choice(WORDS) for _ in range(words))


class Traffic:
    def __init__(self, server, pause=0.0, probe_pause=0.25):
        self.server = server
        self.pause, self.probe_pause = pause, probe_pause
        self.over, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.busy = 0
        self.lock = threading.Lock()
        self.counts, self.errors = {}, []
        self.memory, self.allocated, self.at_rest, self.probes = [], [], [], []  # (seconds, value)
        self.begin = time.monotonic()

    def now(self):
        return time.monotonic() - self.begin

    def repeat(self, action):
        """Until the end; what goes wrong is kept."""
        while not self.over.is_set():
            self.go_on.wait()
            with self.lock:
                if not self.go_on.is_set():
                    continue
                self.busy += 1
            try:
                kind = action()
            except Exception as error:  # whatever it is, it is a finding
                with self.lock:
                    self.errors.append(f"{self.now():.0f} s: {type(error).__name__}: {error}"[:300])
                kind = None
            with self.lock:
                self.busy -= 1
                if kind:
                    self.counts[kind] = self.counts.get(kind, 0) + 1
            if not kind:
                time.sleep(0.1)

    def prompt(self, draw):
        """Some begin alike, as conversations do."""
        return f"Story {draw.randrange(40)}: " + text(random.Random(draw.randrange(40)), 60) + text(draw, draw.randrange(5, 120))

    def client(self, number):
        draw = random.Random(number)
        kinds = [self.completion, self.completion_stream, self.chat, self.chat, self.score, self.vanish, self.slow, self.bad]

        def once():
            if self.pause > 0:
                self.over.wait(draw.expovariate(1 / self.pause))
            return draw.choice(kinds)(draw)
        self.repeat(once)

    def largest(self):
        """Scratch memory is made for the longest prompt that is read while nothing else is, and for the most answers at once."""
        draw = random.Random(7)
        long = text(draw, 500)
        for prefill in ("kv-prediction:tail=16,refine=auto", "exact"):
            self.server.post("/v1/completions", prompt=f"{prefill} {long}", max_tokens=60, prefill=prefill, ignore_eos=True)
        self.server.post("/v1/completions", prompt=f"Score {long}", max_tokens=0, echo=True, logprobs=1)
        at_once = [threading.Thread(target=lambda n=n: self.server.post("/v1/completions", prompt=f"{n} {self.prompt(draw)}", n=2, max_tokens=60,
                                                                        ignore_eos=True, drafts=16)) for n in range(12)]
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()

    def completion(self, draw):
        answer = self.server.post("/v1/completions", prompt=self.prompt(draw), max_tokens=draw.randrange(1, 40), temperature=0.7,
                                  seed=draw.randrange(1000), n=draw.choice([1, 1, 2]))
        assert answer["choices"] and all(choice["finish_reason"] for choice in answer["choices"]), answer
        return "completion"

    def completion_stream(self, draw):
        _, timings, _ = self.server.stream("/v1/completions", prompt=self.prompt(draw), max_tokens=draw.randrange(1, 60), stop=["\n\n"])
        assert timings, "a stream without its end"
        return "stream"

    def chat(self, draw):
        messages = [{"role": "user", "content": self.prompt(draw)}]
        for _ in range(draw.randrange(1, 4)):
            said, timings, _ = self.server.stream("/v1/chat/completions", messages=messages, max_tokens=draw.randrange(4, 40))
            assert timings, "a stream without its end"
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": text(draw, 8)}]
        return "chat"

    def score(self, draw):
        answer = self.server.post("/v1/completions", prompt=self.prompt(draw), max_tokens=0, echo=True, logprobs=1)
        assert answer["choices"][0]["logprobs"]["token_logprobs"][1:], answer
        return "score"

    def bad(self, draw):
        status, data = self.server.ask("POST", "/v1/completions", draw.choice([{"prompt": 1.5}, {"prompt": "a", "n": -1}, [], {"x": "y" * 5000}]))
        assert status == 400 and b"error" in data, (status, data[:200])
        return "refused"

    def open(self, draw, tokens):
        body = json.dumps({"prompt": self.prompt(draw), "max_tokens": tokens, "stream": True, "ignore_eos": True})
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=600)
        connection.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.server.port}\r\n"
                            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
        return connection

    def vanish(self, draw):
        with self.open(draw, 400) as connection:
            if draw.random() < 0.7:
                connection.recv(draw.randrange(1, 2000))
        return "vanished"

    def slow(self, draw):
        with self.open(draw, 60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            read = b""
            while b"[DONE]" not in read and not self.over.is_set():
                piece = connection.recv(200)
                assert piece, f"closed after {read[-200:]}"
                read = read[-400:] + piece
                time.sleep(0.01)
        return "slow"

    def probe(self):
        """The clients' requests are with it, so that waiting for them counts."""
        draw = random.Random(99)

        def once():
            begin = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=600)
            connection.request("POST", "/v1/completions", json.dumps(
                {"prompt": f"{draw.random()} " + text(draw, 40), "max_tokens": 4, "stream": True, "cache_prompt": False, "ignore_eos": True}),
                {"Content-Type": "application/json"})
            response = connection.getresponse()
            first = next(line for line in response if line.startswith(b"data: "))
            took = time.perf_counter() - begin
            assert b'"error"' not in first, first
            rest = response.read()
            assert b"[DONE]" in rest and b'"error"' not in rest, first + rest
            self.probes.append((self.now(), 1e3 * took))
            self.over.wait(self.probe_pause)
            return "probe"
        self.repeat(once)

    def sizes(self):
        """Resident and allocated, in MiB."""
        with open(f"/proc/{self.server.process.pid}/status") as status:
            found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status.read(), re.MULTILINE))
        return int(found["VmRSS"]) / 1024, int(found["RssAnon"]) / 1024

    def watch(self):
        while not self.over.wait(1):
            resident, allocated = self.sizes()
            self.memory.append((self.now(), resident))
            self.allocated.append((self.now(), allocated))

    def rest(self):
        """Nobody asks anything until what is allocated has been read."""
        with self.lock:
            self.go_on.clear()
        try:
            for _ in range(1200):
                if self.busy == 0:
                    break
                time.sleep(0.1)
            assert self.busy == 0, f"{self.busy} clients still wait after two minutes"
            time.sleep(5)  # those that vanished are noticed, stored prefixes are refined
            kept = re.search(r"^kvcast:prefix_cache_bytes(?:\{.*\})? (\S+)$", self.server.ask("GET", "/metrics")[1].decode(), re.MULTILINE)
            self.at_rest.append((self.now(), self.sizes()[1] - float(kept[1]) / (1 << 20)))
        finally:
            self.go_on.set()


def p99(values):
    return sorted(values)[int(0.99 * len(values))]


def parts(samples, seconds):
    """The values of the first and of the last fifth of what follows the warm-up."""
    warm = seconds / 10
    fifth = (seconds - warm) / 5
    return ([v for t, v in samples if warm <= t < warm + fifth], [v for t, v in samples if t >= seconds - fifth])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kvcast")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache-mib", type=int, default=96)
    parser.add_argument("--pause", type=float, default=0, help="mean seconds that a client waits before a request")
    parser.add_argument("--probe-pause", type=float, default=0.25)
    arguments = parser.parse_args()
    seconds = 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as store, Served(
            arguments.kvcast, arguments.model, "--threads", str(arguments.threads), "--cache-mib", str(arguments.cache_mib),
            "--prefix-store", store, "--prefix-store-mib", "64", "--prefill", "kv-prediction:tail=16,refine=auto") as server:
        traffic = Traffic(server, arguments.pause, arguments.probe_pause)
        traffic.largest()
        threads = [threading.Thread(target=traffic.client, args=(i,)) for i in range(arguments.clients)]
        threads += [threading.Thread(target=traffic.probe), threading.Thread(target=traffic.watch)]
        for thread in threads:
            thread.daemon = True  # what goes wrong here ends the program
            thread.start()
        while traffic.now() < seconds:
            time.sleep(min(60, seconds / 20, max(0.1, seconds - traffic.now())))
            if traffic.now() >= (len(traffic.at_rest) + 1) * seconds / 20:
                traffic.rest()
            recent = [v for t, v in traffic.probes if t > traffic.now() - 60] or [0]
            print(f"{traffic.now():6.0f} s: {sum(traffic.counts.values())} requests, {len(traffic.errors)} failed, "
                  f"{traffic.memory[-1][1]:.1f} MiB, first token p50 {statistics.median(recent):.1f} p99 {p99(recent):.1f} ms", flush=True)
        with open(f"/proc/{server.process.pid}/stat") as stat:
            processor_seconds = sum(int(field) for field in stat.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")
        traffic.over.set()
        for thread in threads:
            thread.join()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=120)

    memory, allocated = ([statistics.mean(part) for part in parts(samples, seconds)] for samples in (traffic.memory, traffic.allocated))
    rests = [value for t, value in traffic.at_rest if t >= seconds / 10]
    kept = [statistics.mean(rests[:3]), statistics.mean(rests[-3:])]
    first_token = [p99(part) for part in parts(traffic.probes, seconds)]
    holds = {"no_error": not traffic.errors and status == 0, "memory": abs(kept[1] - kept[0]) <= 0.01 * memory[0],
             "first_token": first_token[1] <= 1.1 * first_token[0]}
    for error in traffic.errors[:10]:
        print(error)
    print(json.dumps({"minutes": arguments.minutes, "requests": traffic.counts, "failed": len(traffic.errors), "exit_status": status,
                      "processor_seconds": processor_seconds,
                      "resident_mib": memory, "allocated_mib": allocated, "allocated_at_rest_mib": kept, "at_rest_mib": rests, "first_token_p99_ms": first_token,
                      "probes": len(traffic.probes), "holds": holds}))
    sys.exit(0 if all(holds.values()) else 1)


if __name__ == "__main__":
    main()

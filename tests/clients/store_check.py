"""The prefix store on disk, treated badly: nothing wrong is ever served.

    python tests/clients/store_check.py KVCAST MODEL OTHER_MODEL [--kills 100] [--out FILE.json]

kill -9 while entries are written, a full disk (a small tmpfs where this may mount one, and a limit on file sizes), flipped bits and
files cut short, a folder that another model filled. Every answer is compared with a server's that has no store. At the end the first
token of a stored prefix of 1,500 tokens after a restart, beside reading it.
"""
import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

from served import Served

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("kvcast")
parser.add_argument("model")
parser.add_argument("other")
parser.add_argument("--kills", type=int, default=100)
parser.add_argument("--threads", default="2")
parser.add_argument("--prefix-tokens", type=int, default=1500)
parser.add_argument("--checks", default="kills,damaged,other_model,full_disk,first_token", help="some of these, in this order")
parser.add_argument("--out")
args = parser.parse_args()
WORDS = ("the old keeper of the lighthouse went down to the sea and saw that a boat had come in from the island with letters "
         "for every house in the village but one of them had no name on it").split()
draw = random.Random(7)
PROMPTS = [f"Story {i}: " + " ".join(draw.choice(WORDS) for _ in range(words)) for i, words in enumerate([60, 120, 200, 300, 400] * 2)]
COMPLETE = ".kvprefix"
folder = pathlib.Path(tempfile.mkdtemp(prefix="kvcast-store-"))


def serve(store=None, model=None):
    return Served(args.kvcast, model or args.model, "--threads", args.threads, *(["--prefix-store", str(store)] if store else []))


def answer(server, prompt, **more):
    got = server.complete(prompt, max_tokens=8, prefill="exact", **more)
    return got["choices"][0]["text"], got["timings"]["cached_tokens"]


with serve() as plain:
    RIGHT = {prompt: answer(plain, prompt, cache_prompt=False)[0] for prompt in PROMPTS}


def check_all(server):
    """How many prompts were answered with rows of the store; every answer must be right."""
    found = 0
    for prompt in PROMPTS:
        text, cached = answer(server, prompt)
        assert text == RIGHT[prompt], (prompt, text, RIGHT[prompt], cached)
        found += cached > len(WORDS)
    return found


def files(store):
    return sorted(path for path in store.rglob("*") if path.is_file())


def filled(store):
    """A store with what the prompts leave; waits until it is written."""
    with serve(store) as server:
        check_all(server)
        settle(store)
    return files(store)


def settle(store, seconds=10):
    before, end = None, time.monotonic() + seconds
    while time.monotonic() < end:
        now = [(path.name, path.stat().st_size) for path in files(store)]
        if now and now == before:
            return
        before = now
        time.sleep(0.3)


def kills():
    """A server is killed while it writes; the next one answers from what is left."""
    store = folder / "kills"
    found = cut_short = 0
    for number in range(args.kills):
        if number % 10 == 9:
            shutil.rmtree(store, ignore_errors=True)  # so that there is always something to write
        server = serve(store)
        prompts = draw.sample(PROMPTS, 4)
        answered = threading.Event()

        def load():
            try:
                for prompt in prompts:
                    text, cached = answer(server, prompt)
                    assert text == RIGHT[prompt], (prompt, text)
                    hits.append(cached > len(WORDS))
                    answered.set()
            except OSError:  # it is gone
                pass

        hits = []
        thread = threading.Thread(target=load)
        thread.start()
        answered.wait(60)  # from now on something is written
        time.sleep(draw.uniform(0, 0.2))
        server.kill()
        thread.join()
        found += sum(hits)
        cut_short += any(not path.name.endswith(COMPLETE) for path in files(store))
    with serve(store) as server:
        check_all(server)
        settle(store)
    with serve(store) as server:
        return {"kills": args.kills, "killed_while_writing": cut_short, "answers_from_the_store_between_kills": found, "prompts_found_afterwards": check_all(server), "prompts": len(PROMPTS)}


def damaged():
    """One bit of a file, or its end, and the whole folder again: the entry is not used, the answers are right."""
    store = folder / "bits"
    whole = folder / "whole"
    shutil.copytree(store.parent / "kills", whole)
    served = removed = 0
    rounds = 25
    for number in range(rounds):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(whole, store)
        path = draw.choice(files(store))
        data = bytearray(path.read_bytes())
        if number % 5 == 4:
            del data[draw.randrange(len(data)):]
        else:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        with serve(store) as server:
            served += check_all(server)
            settle(store)
            removed += not path.exists() or path.read_bytes() != data
    assert removed == rounds, f"{rounds - removed} damaged files are still there"
    return {"damaged_files": rounds, "removed_or_written_anew": removed, "prompts_found_beside_them": served, "prompts": rounds * len(PROMPTS)}


def other_model():
    store = folder / "whole"
    with serve(model=args.other) as plain:
        right = {prompt: answer(plain, prompt, cache_prompt=False)[0] for prompt in PROMPTS}
    with serve(store, model=args.other) as server:
        for prompt in PROMPTS:
            text, cached = answer(server, prompt, cache_prompt=False)
            assert text == right[prompt] and cached == 0, (prompt, text, cached)
        for prompt in PROMPTS:
            text, cached = answer(server, prompt)
            assert text == right[prompt], (prompt, text)
    with serve(store) as server:
        return {"prompts_of_the_first_model_found_afterwards": check_all(server), "prompts": len(PROMPTS)}


def full_disk():
    """Entries that do not fit are left out, the server goes on."""
    result = {}
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False, stderr=subprocess.DEVNULL).returncode == 0
    if mounted:
        try:
            for _ in range(2):
                with serve(disk / "store") as server:
                    check_all(server)
                    settle(disk)
                    result["tmpfs of 3 MiB: prompts found again"] = check_all(server)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    else:
        print("no tmpfs: mount is not allowed here")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))  # the server inherits it
    try:
        for _ in range(2):
            with serve(folder / "limited") as server:
                check_all(server)
                settle(folder / "limited", 3)
                assert server.ready(), "the server ended"
        result["files of at most 1 MiB: files"] = len(files(folder / "limited"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    return result


def first_token():
    """Milliseconds to the first token of a long prefix with a new end: stored by a server before, and read again."""
    store = folder / "long"
    with serve() as server:
        text, words = "", 0
        while len(server.post("/tokenize", prompt=text)["tokens"]) < args.prefix_tokens:
            text += "".join(f" {draw.choice(WORDS)}" for _ in range(32))
        tokens = server.post("/tokenize", prompt=text)["tokens"][:args.prefix_tokens]
    with serve(store) as server:
        server.complete(tokens, max_tokens=1, prefill="exact")
        settle(store)
    stored, again = [], []
    for turn in range(7):
        for milliseconds, place in ((stored, store), (again, None)):
            with serve(place) as server:
                timings = server.complete(tokens + [tokens[5 + turn], tokens[9]], max_tokens=1, prefill="exact")["timings"]
                milliseconds.append(timings["ttft_ms"])
                assert (timings["cached_tokens"] >= args.prefix_tokens - 1) == (place is not None), timings
    return {"prefix_tokens": args.prefix_tokens, "stored_ms": statistics.median(stored), "read_again_ms": statistics.median(again),
            "file_bytes": sum(path.stat().st_size for path in files(store))}


try:
    result = {"model": os.path.basename(args.model.rstrip("/")), "other": os.path.basename(args.other.rstrip("/"))}
    for check in (globals()[name] for name in args.checks.split(",")):
        result[check.__name__] = check()
        print(check.__name__, json.dumps(result[check.__name__]), flush=True)
        if args.out:
            pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
finally:
    shutil.rmtree(folder, ignore_errors=True)

"""A `kvcast serve` of one's own, and what checks ask of it. Needs nothing but Python."""
import http.client
import json
import os
import re
import subprocess
import tempfile
import time


class Served:
    """A server process that is ready; killed when the block ends. `options` go to `kvcast serve` as they are."""

    def __init__(self, kvcast, model, *options):
        self.notes = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([kvcast, "serve", model, "--port", "0", *options], stdout=subprocess.DEVNULL, stderr=self.notes)
        self.port = self.chosen_port()
        while not self.ready():
            assert self.process.poll() is None, f"kvcast serve ended with status {self.process.returncode}"
            time.sleep(0.01)

    def chosen_port(self):
        """The one that the system gave it, which it says before it loads."""
        while True:
            ended = self.process.poll()
            said = re.search(r"http://127\.0\.0\.1:(\d+)/health", os.pread(self.notes.fileno(), 1 << 16, 0).decode())
            if said:
                return int(said[1])
            assert ended is None, f"kvcast serve ended with status {ended}"
            time.sleep(0.01)

    def ready(self):
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def kill(self):
        self.process.kill()  # SIGKILL
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def post(self, path, **body):
        status, data = self.ask("POST", path, body)
        assert status == 200, (status, data[:300])
        return json.loads(data)

    def complete(self, prompt, **more):
        return self.post("/v1/completions", **{"temperature": 0, "prompt": prompt, **more})

    def stream(self, path, **body):
        """(final text, timings, [(milliseconds since the request, event)]); revisions are made in the text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        begin = time.perf_counter()
        connection.request("POST", path, json.dumps({"temperature": 0, "stream": True, **body}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        text, timings, events = "", {}, []
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            events.append((1e3 * (time.perf_counter() - begin), event))
            if event.get("object") == "kvcast.revision":
                text = text[:event["from_character"]]
                continue
            for choice in event["choices"]:
                text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            timings = event.get("timings", timings)
        return text, timings, events

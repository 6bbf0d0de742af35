"""Two kvcast servers behind Debian's nginx with packaging/deploy/nginx.conf, as docs/DEPLOY.md says:
prompts that begin alike find their prefixes again, a server drains without a lost answer, and one that
is killed under load costs no more than the answers it was writing.

    apt install nginx-light
    python tests/deploy/two_servers.py KVCAST [MODEL]
"""
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

kvcast, model = os.path.abspath(sys.argv[1]), sys.argv[2:3]
configuration = pathlib.Path(__file__).parents[2] / "packaging/deploy/nginx.conf"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(port):
    process = subprocess.Popen([kvcast, "serve", *model, "--port", str(port), "--threads", "1"],
                               stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return process
        except OSError:
            pass
        assert process.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server is not ready")


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def complete(port, prompt, **more):
    status, body = ask(port, "POST", "/v1/completions",
                       {"temperature": 0, "max_tokens": 16, "ignore_eos": True, **more, "prompt": prompt})
    assert status == 200, (status, body[:200])
    return json.loads(body)


def count(port, name):
    text = ask(port, "GET", "/metrics")[1].decode()
    return float(re.search(rf"^kvcast:{name}{{.*}} (.*)$", text, re.M).group(1))


def load(port, requests, threads=8):
    """How each of many requests ended: True, or what was wrong."""
    def one(i):
        try:
            complete(port, f"Prompt {i % 16}: the old keeper climbed the stairs of tower {i % 16} and",
                     max_tokens=24)
            return True
        except (AssertionError, OSError, http.client.HTTPException) as error:
            return repr(error)[:200]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(requests)))


def check(folder):
    ports, front = [free_port(), free_port()], free_port()
    text = configuration.read_text()
    for old, new in (("127.0.0.1:8081", f"127.0.0.1:{ports[0]}"), ("127.0.0.1:8082", f"127.0.0.1:{ports[1]}"),
                     ("127.0.0.1:8080", f"127.0.0.1:{front}")):
        assert old in text, old
        text = text.replace(old, new)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; {temporary}\n{text}\n}}\n")
    servers = [start_server(port) for port in ports]
    nginx = subprocess.Popen([shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-c", folder / "nginx.conf"],
                             stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                if ask(front, "GET", "/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        check_prefixes(front, ports)
        check_draining(front, ports, servers)
        check_killing(front, servers)
    finally:
        for process in (nginx, *servers):
            if process.poll() is None:
                process.terminate()
                process.wait()


def check_prefixes(front, ports):
    """A conversation's turns go to one server, different conversations to both."""
    found = 0
    for i in range(12):
        text = f"{i}: the lighthouse of island number {i} was built of {['stone', 'wood', 'brick'][i % 3]}. " * 8
        complete(front, text, prefill="exact")
        again = complete(front, text + "And then", prefill="exact")["timings"]
        found += again["cached_tokens"] > 0.8 * again["prompt_tokens"]
    status = set()
    for i in range(12):
        first = [{"role": "system", "content": "You keep lighthouses. " * 20},
                 {"role": "user", "content": f"Hi {i}"}]
        later = first + [{"role": "assistant", "content": "Hello {there}."}, {"role": "user", "content": "And?"}]
        for messages in (first, later):
            status.add(ask(front, "POST", "/v1/chat/completions",
                           {"temperature": 0, "max_tokens": 4, "messages": messages, "prefill": "exact"})[0])
        again = json.loads(ask(front, "POST", "/v1/chat/completions",
                               {"messages": later, "max_tokens": 4, "prefill": "exact"})[1])["timings"]
        found += again["cached_tokens"] > 0.8 * again["prompt_tokens"]
    assert status == {200}, status
    shares = [count(port, "e2e_request_latency_seconds_count") for port in ports]
    print(f"prefixes: {found} of 24 found again; requests by server {shares}")
    assert found >= 22 and min(shares) > 0, (found, shares)


def check_draining(front, ports, servers):
    """SIGTERM under load: no answer is lost, the rest goes to the other server."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(load, front, 200)
        time.sleep(1)
        servers[0].send_signal(signal.SIGTERM)
        results = running.result()
    assert servers[0].wait(60) == 0
    lost = [r for r in results if r is not True]
    print(f"draining: {len(results)} requests, {len(lost)} lost")
    assert not lost, lost
    servers[0] = start_server(ports[0])


def check_killing(front, servers):
    """kill -9 under load: at most the answers that were under way there are lost, nothing after it."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(load, front, 200)
        time.sleep(1)
        servers[0].kill()
        results = running.result()
    lost = [r for r in results if r is not True]
    print(f"killing: {len(results)} requests, {len(lost)} lost")
    assert len(lost) <= 8, lost  # as many as there are threads
    after = load(front, 50)
    assert all(r is True for r in after), after


with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    check(pathlib.Path(folder))
print("two servers behind nginx: all checks passed")

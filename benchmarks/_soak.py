"""A server under mixed requests for a while: valid, invalid, cancelled, and of clients that leave. Nothing leaks, nothing is stuck.

    python benchmarks/_soak.py [--seconds 600] [--clients 8] [--json soak.json]

It fails where a request is answered by a fault of the server, where an accepted job has no end, or where memory after the first
tenth of the time grows by more than 5 %.
"""

import argparse
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))

from serving import make_model, started

ENDS = ("done", "failed", "cancelled")
LEAST = 3
"""Requests of each client, also where the time is over before."""


class Soak:
    """Clients that ask whatever comes to their minds, until time is over, and each a few times.

    Args:
        url: Of the server.
        seconds: How long.
    """

    def __init__(self, url, seconds):
        self.url, self.until = url, time.monotonic() + seconds
        self.counts, self.jobs, self.wrong = Counter(), [], []
        self.lock = threading.Lock()

    def client(self, seed):
        """One client; what it does is a function of its seed."""
        draw, asked = random.Random(seed), 0
        kinds = [
            getattr(self, name) for name in ("valid", "job", "cancelled", "invalid", "malformed", "leaving", "silent")
        ]
        with httpx.Client(base_url=self.url, timeout=120) as http:
            while asked < LEAST or time.monotonic() < self.until:
                asked += 1
                kind = draw.choice(kinds)
                try:
                    kind(http, draw)
                    self.note(kind.__name__)
                except Exception as error:
                    self.fail(f"{kind.__name__}: {error!r}")

    def note(self, what):
        with self.lock:
            self.counts[what] += 1

    def fail(self, what):
        with self.lock:
            self.wrong.append(what)

    def expect(self, answer, *statuses):
        if answer.status_code not in (*statuses, 429):
            self.fail(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code in statuses

    def asked(self, draw, **more):
        sampler = draw.choice(["ddim", "heun", "dpmpp_2m", "ancestral", "euler"])
        return {
            "n": draw.randint(1, 4), "steps": draw.randint(1, 12), "label": str(draw.randint(0, 9)), "seed": draw.randint(0, 9),
            "sampler": sampler, "guidance": draw.choice([0.0, 1.0, 2.5]), "strict": draw.random() < 0.2, **more,
        }  # fmt: skip

    def valid(self, http, draw):
        self.expect(http.post("/v1/images/generations", json=self.asked(draw)), 200)

    def job(self, http, draw):
        answer = http.post(
            "/v1/jobs", json=self.asked(draw, durable=draw.random() < 0.5, keep_steps=draw.random() < 0.3)
        )
        if not self.expect(answer, 202):
            return
        number = answer.json()["id"]
        with self.lock:
            self.jobs.append(number)
        with http.stream("GET", f"/v1/jobs/{number}/events", params={"previews": draw.random() < 0.5}) as stream:
            last = [line for line in stream.iter_lines() if line.startswith("event: ")][-1].removeprefix("event: ")
        if last != "done":
            self.fail(f"job {number} ended as {last}")
        self.expect(http.get(f"/v1/jobs/{number}/result.png"), 200)
        if draw.random() < 0.7:
            self.expect(http.delete(f"/v1/jobs/{number}"), 200)
            with self.lock:
                self.jobs.remove(number)

    def cancelled(self, http, draw):
        answer = http.post("/v1/jobs", json=self.asked(draw, n=16, steps=1000))
        if not self.expect(answer, 202):
            return
        number = answer.json()["id"]
        with self.lock:
            self.jobs.append(number)
        time.sleep(draw.random() * 0.1)
        self.expect(http.post(f"/v1/jobs/{number}/cancel"), 200)

    def invalid(self, http, draw):
        wrong = draw.choice(
            [{"steps": 0}, {"sampler": "huen"}, {"label": "x"}, {"prompt": "a cat"}, {"n": 10**9}, {"odd": 1}]
        )
        self.expect(http.post("/v1/jobs", json=self.asked(draw, **wrong)), 400)

    def malformed(self, http, draw):
        content = draw.choice([b"{", b"\xff", b"[" * 10_000, b"x" * 5_000_000])
        headers = {"content-type": "application/json"}
        self.expect(http.post("/v1/jobs", content=content, headers=headers), 400, 413)

    def leaving(self, http, draw):
        try:
            httpx.post(f"{self.url}/v1/images/generations", json=self.asked(draw, n=16, steps=1000), timeout=0.2)
        except httpx.TimeoutException:
            return

    def silent(self, http, draw):
        address = httpx.URL(self.url)
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(draw.choice([b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"POST", b"\0" * 20]))
            time.sleep(draw.random() * 0.1)

    def unended(self, http):
        """Accepted jobs that have no end."""
        until, left = time.monotonic() + 60, list(self.jobs)
        while left and time.monotonic() < until:
            left = [each for each in left if http.get(f"/v1/jobs/{each}").json().get("state") not in (*ENDS, None)]
            time.sleep(0.1)
        return left


def memory_of(process):
    """Megabytes that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("this system does not tell")


def soak(seconds, clients):
    """Runs it all; returns what was seen."""
    with tempfile.TemporaryDirectory() as place:
        model = make_model(Path(place) / "digits")
        command = [
            sys.executable,
            "-m",
            "unnoise",
            "serve",
            model,
            "--results",
            Path(place) / "results",
            "engine.active=8",
        ]
        with started(lambda port: [*command, "--port", port]) as (url, server):
            http = httpx.Client(base_url=url, timeout=60)
            run, memory = Soak(url, seconds), []
            threads = [threading.Thread(target=run.client, args=(seed,)) for seed in range(clients)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                memory.append(memory_of(server))
                time.sleep(max(0.1, seconds / 100))
            unended = run.unended(http)
            healthy = http.get("/health").json()
            http.close()
    warm = memory[len(memory) // 10 :]
    fifth = max(1, len(warm) // 5)
    growth = sum(warm[-fifth:]) / sum(warm[:fifth]) - 1
    return {"seconds": seconds, "counts": dict(run.counts), "wrong": run.wrong, "unended": unended, "health": healthy,
            "memory_mb": memory, "growth": growth}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    arguments = parser.parse_args()
    seen = soak(arguments.seconds, arguments.clients)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(seen["counts"].items())))
    memory = seen["memory_mb"]
    warm = memory[len(memory) // 10]
    print(
        f"memory {memory[0]:.0f} MB at first, {warm:.0f} MB when warm, {memory[-1]:.0f} MB at the end ({seen['growth']:+.1%})"
    )
    print(
        f"{len(seen['wrong'])} wrong answers, {len(seen['unended'])} jobs without an end; load {os.getloadavg()[0]:.1f}"
    )
    for line in seen["wrong"][:20]:
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(seen, indent=1))
    sys.exit(bool(seen["wrong"] or seen["unended"] or seen["growth"] > 0.05))


if __name__ == "__main__":
    main()

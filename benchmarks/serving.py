"""What the server makes a second, for 1, 8 and 32 clients at a time, beside a plain server of diffusers and FastAPI.

Both servers have a process of their own, the same network (that of the recipe `digits`, with weights of nothing), and answer the
same requests: one image, 20 steps, guidance 2. They take turns, so that whatever else the machine does hits both. Then: what a
single request waits besides its making, and what previews cost.

    python benchmarks/serving.py [--requests 64] [--rounds 3] [--clients 1 8 32] [--json serving.json]   (minutes)
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.sampling import SamplingSettings

STEPS = 20


def make_model(folder):
    """The network of `digits`, on a process that schedulers of diffusers know."""
    spec = Spec("image", (1, 8, 8), tuple(map(str, range(10))))
    network = {
        "name": "unet",
        "width": 16,
        "multipliers": [1, 2, 4],
        "blocks": 1,
        "attention": [-1],
        "head_channels": 32,
    }
    blueprint = Blueprint(
        spec, IdentityCodec.pixels(), schedules.build("linear"), "v", 0.5, False, networks.build(network)
    )
    return Model(blueprint, blueprint.build(0), SamplingSettings(steps=STEPS)).save(folder)


@contextmanager
def started(command):
    """A server in a process of its own, once it answers; gives its address and the number of its process."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))  # and does not listen: the server may bind to it too, and nobody else is given it
    port = held.getsockname()[1]
    process = subprocess.Popen(
        [*map(str, command(port))], env={"OMP_NUM_THREADS": "1", **os.environ}, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(2000):
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(60)
        held.close()


def ask(client, plain, seed):
    """One request; what the server tells of it."""
    if plain:
        answer = client.post("/generate", json={"steps": STEPS, "seed": seed, "label": seed % 10, "guidance": 2.0})
    else:
        told = {
            "label": seed % 10,
            "seed": seed,
            "num_inference_steps": STEPS,
            "guidance_scale": 2.0,
            "sampler": "ddim",
        }
        answer = client.post("/v1/images/generations", json=told)
    answer.raise_for_status()
    return answer.json()


def rate(url, plain, clients, requests):
    """Images a second."""
    seeds, lock = iter(range(requests)), threading.Lock()

    def work():
        with httpx.Client(base_url=url, timeout=600) as client:
            while True:
                with lock:
                    seed = next(seeds, None)
                if seed is None:
                    return
                ask(client, plain, seed)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests / (time.perf_counter() - began)


def overhead(url, requests):
    """Milliseconds of a single request besides the making of its samples, in the queue and in all.

    The queue is everything between acceptance and end; in all are HTTP, the picture's file, and the client itself, too.

    Returns:
        The median and the 95th percentile of each.
    """
    spent = {"queue": [], "all": []}
    with httpx.Client(base_url=url, timeout=600) as client:
        for seed in range(requests):
            began = time.perf_counter()
            told = ask(client, False, seed)["unnoise"]
            for name, seconds in (("queue", told["seconds"]), ("all", time.perf_counter() - began)):
                spent[name].append(1000 * (seconds - told["making"]))
    return {
        name: {"median": statistics.median(each), "p95": statistics.quantiles(each, n=20)[-1]}
        for name, each in spent.items()
    }


def watched(url, previews, requests):
    """Seconds in which samples of 100 steps are made while somebody watches, with pictures or without."""
    spent = []
    with httpx.Client(base_url=url, timeout=600) as client:
        for seed in range(requests):
            job = client.post(
                "/v1/jobs", json={"n": 4, "steps": 100, "label": 3, "seed": seed, "durable": False}
            ).json()["id"]
            with client.stream("GET", f"/v1/jobs/{job}/events", params={"previews": previews}) as stream:
                stream.read()
            spent.append(client.get(f"/v1/jobs/{job}").json()["making"])
    return statistics.median(spent)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64, help="for each number of clients")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as place:
        model, python = make_model(Path(place) / "digits"), sys.executable
        results = Path(place) / "results"
        ours = started(lambda port: [python, "-m", "unnoise", "serve", model, "--port", port, "--results", results])
        with ours as (url, _), started(lambda port: [python, here / "_plain_server.py", model, port]) as (plain_url, _):
            for each, plain in ((url, False), (plain_url, True)):
                rate(each, plain, 2, 8)  # to warm up
            rates = {(plain, n): [] for n in arguments.clients for plain in (False, True)}
            for _ in range(arguments.rounds):
                for n in arguments.clients:
                    for plain in (False, True):
                        rates[plain, n].append(rate(plain_url if plain else url, plain, n, arguments.requests))
            spent = overhead(url, arguments.requests)
            looks = [(watched(url, False, 3), watched(url, True, 3)) for _ in range(arguments.rounds)]
    best = {key: max(found) for key, found in rates.items()}
    alone = arguments.clients[0]
    print("clients   unnoise /s   against one by one   plain server /s   unnoise : plain")
    for n in arguments.clients:
        own, plain = best[False, n], best[True, n]
        print(f"{n:7}{own:13.1f}{own / best[False, alone]:21.2f}{plain:18.1f}{own / plain:18.2f}")
    cost = statistics.median(b / a for a, b in looks) - 1
    for name, where in (("queue", "in the queue"), ("all", "in all")):
        median, p95 = spent[name]["median"], spent[name]["p95"]
        print(f"a single request spends {median:.1f} ms {where} besides its making (95th percentile {p95:.1f} ms)")
    print(
        f"previews add {cost:+.1%} to the making of samples of 100 steps; load of this machine {os.getloadavg()[0]:.1f}"
    )
    if arguments.json:
        table = [{"clients": n, "unnoise": best[False, n], "plain": best[True, n]} for n in arguments.clients]
        whole = {
            "rates": table,
            "overhead_ms": spent,
            "previews": cost,
            "load": os.getloadavg()[0],
        }
        arguments.json.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()

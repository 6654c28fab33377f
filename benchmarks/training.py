"""Training beside other libraries: speed, memory, time to a first step, and quality after the same minutes.

Every contender runs in a process of its own, with the whole of its own step: batch, noise, forward and backward pass, clipping,
optimizer, moving average. Contenders take turns, so that whatever else the machine does hits all; the least time counts, since
others only add to it, and the median and the machine's load stand beside it. With --clock cpu the processor's seconds count, by
the number of threads: a help where the machine is not one's own, and kind to whoever leaves threads idle. Arithmetic is counted
by torch's FlopCounterMode, three forward passes a step, and held against what matmul and convolution reach here in the same rounds.

    python benchmarks/training.py [--only unet,dit] [--quick] [--json training.json] [--markdown]

    peak     GFLOP/s of matmul and of a 3 x 3 convolution forward and backward, fp32 and bf16
    unet     U-Nets on 32 x 32 x 3, the DDPM CIFAR-10 configuration and its like
    dit      DiT-S/4 on 32 x 32 x 4 latents
    points   the seeds' net on points of the plane, and the seconds until samples of the spiral are good
    sd       a step of a U-Net of Stable Diffusion 1.5's shape at 512 x 512 with guidance, and the decoder
    memory   the most memory of each of these processes
    start    from the start of a process to the first update of the digits recipe
    quality  only where it is asked for: FID after --minutes of training each; see `_training_quality.py`

A peer's variants: "as shipped"; "given bf16": autocast, a fused optimizer and an allocator that keeps freed memory; "channels
last": its weights and pictures in that order too. Peers that are not installed are named and left out. To install them all
without another build of torch (torchvision must be the one that belongs to the torch here; none of its operators is called):

    pip install --no-deps diffusers==0.42.1 azula==0.11.1 smalldiffusion==0.5.0 denoising-diffusion-pytorch==2.3.4 \\
        ema-pytorch==0.8.3 pytorch-fid==0.3.0 torchvision==0.28.0 accelerate einops tqdm psutil
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import _training_report as report

PARTS = ("peak", "unet", "dit", "points", "sd", "memory", "start")
MEASURED = ("unet", "dit", "points", "sd")
BATCHES = {"unet": 32, "dit": 32, "points": 64, "sd": 1}
STEPS = {"unet": 2, "dit": 4, "points": 512, "sd": 1}
"""Updates between two looks at the clock: as many as unnoise draws at once, or a multiple."""
THREADS = {"points": 1, "until": 1}
"""Of everybody, where one is the fastest for all: on steps this small a second thread costs more than it saves."""
TURNS = {"unet": 1, "dit": 2, "points": 4, "sd": 1}


def worker(arguments, **spec):
    """What a process of its own found."""
    threads = THREADS.get(spec["part"], arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    task = json.dumps({**spec, "clock": arguments.clock, "began": time.time()})
    command = [sys.executable, str(Path(__file__).with_name("_training_worker.py")), task]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        return {"missing": f"its process ended with {done.returncode}: {last}"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def print_table(arguments, title, cells):
    print(f"\n{title}\n")
    print("\n".join(report.show(cells, arguments.markdown)), flush=True)


# --- The parts: each puts what it found into the result


def peak(arguments, result):
    """Rates of this machine; also measured in every round of networks, and the best of all counts."""
    found = worker(arguments, part="peak", turns=3 if arguments.quick else 6)
    rates = result.setdefault("peak", {})
    for name, rate in found.get("rates", {}).items():
        rates[name] = max(rates.get(name, 0.0), rate)
    return found


def measure(arguments, part, result, brief=False):
    """All contenders of a part in turns."""
    everyone = [
        (name, variant) for name, variants in arguments.names[part] for variant in variants if arguments.who in name
    ]
    known = [row for row in arguments.known.get(part, []) if not row["name"].startswith("unnoise")]
    found = {pair: [] for pair in everyone if report.find(known, *pair) is None}
    rounds = 1 if arguments.quick or brief else arguments.rounds
    for turn in range(rounds):
        if part in report.PEAKS and not brief:
            peak(arguments, result)
        for pair in list(found) if turn % 2 == 0 else list(reversed(found)):
            say(f"{part}, round {turn + 1} of {rounds}: {pair[0]}, {pair[1]}")
            seen = worker(
                arguments, part=part, name=pair[0], variant=pair[1], batch=BATCHES[part],
                steps=1 if brief else STEPS[part], turns=1 if brief else TURNS[part],
                warm=0 if brief or part == "sd" else 1,
            )  # fmt: skip
            if "missing" in seen:
                result["missing"][f"{part}: {pair[0]}, {pair[1]}"] = seen["missing"]
                del found[pair]
            else:
                found[pair].append(seen)
    rows = [report.merged(part, *pair, BATCHES[part], each) for pair, each in found.items()]
    return [*rows, *known]


def networks(part, arguments, result):
    """A part that measures steps."""
    result[part] = measure(arguments, part, result)
    title = f"{part}: batch {BATCHES[part]}, threads {THREADS.get(part, arguments.threads)}"
    print_table(arguments, title, report.table(part, result[part], result["peak"]))
    if part == "points":
        until(arguments, result)


def until(arguments, result):
    """Seconds of training until samples of the spiral are good."""
    ours, *peers = arguments.names["until"]
    result["until"] = []
    for name in [ours] if arguments.quick else [ours, *peers]:
        say(f"points: until samples are good: {name}")
        rounds = 1 if arguments.quick or name != ours else arguments.rounds
        found = [worker(arguments, part="until", name=name, limit=arguments.limit) for _ in range(rounds)]
        whole = [each for each in found if "missing" not in each]
        if not whole:
            result["missing"][f"until: {name}"] = found[0]["missing"]
            continue
        result["until"].append({"name": name, **min(whole, key=lambda each: each["seconds"] or float("inf"))})
    rows = [[row["name"], row["seconds"], row["updates"], row["distance"]] for row in result["until"]]
    title = "points: seconds of training until the energy distance of 2,000 samples to the spiral is at most 0.003"
    print_table(arguments, title, report.plain_table(["who", "seconds", "updates", "distance"], rows))


def memory(arguments, result):
    """The most memory of each process; parts that were not asked for are run for a step."""
    rows = []
    for part in MEASURED:
        if part not in result:
            result[part] = measure(arguments, part, result, brief=True)
        rows += [[part, f"{row['name']}, {row['variant']}", row["megabytes"]] for row in result[part]]
    print_table(arguments, "memory: the most of each process, MB", report.plain_table(["part", "who", "MB"], rows))


def start(arguments, result):
    """From the start of a process to the first update."""
    found = [worker(arguments, part="start", recipe="digits") for _ in range(1 if arguments.quick else 3)]
    seconds = report.least(each.get("seconds") for each in found)
    result["start"] = [{"recipe": "digits", "seconds": seconds, "all": found}]
    rows = [["recipe digits", seconds, *[each.get("seconds") for each in found][:1]]]
    print_table(
        arguments, "start: seconds from the start of the process", report.plain_table(["what", "least", "cold"], rows)
    )


def main():
    arguments = parsed()
    arguments.names = worker(arguments, part="names")
    if "missing" in arguments.names:
        sys.exit(f"the benchmark cannot begin: {arguments.names['missing']}")
    print(f"{platform.machine()}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}; {_cpu()}")
    result = {
        "missing": {},
        "peak": {},
        "threads": arguments.threads,
        "clock": arguments.clock,
        "cpu": _cpu(),
        "quick": arguments.quick,
    }
    result["peak"] |= arguments.known.get("peak", {})
    for part in arguments.only:
        if part in MEASURED:
            networks(part, arguments, result)
        else:
            {"peak": peak, "memory": memory, "start": start, "quality": quality}[part](arguments, result)
        write(arguments, result)
    if result["peak"]:
        rows = sorted(result["peak"].items())
        print_table(arguments, "peak: GFLOP/s", report.plain_table(["what", "GFLOP/s"], rows))
    found = list(report.targets(result))
    result["targets"] = [{**each._asdict(), "met": each.met} for each in found]
    print_table(arguments, "targets", report.targets_table(found))
    for name, why in result["missing"].items():
        print(f"left out: {name} ({why})")
    write(arguments, result)


def quality(arguments, result):
    """FID after the same minutes of training."""
    from _training_quality import compare

    result["quality"] = compare(arguments, worker, say)
    headers = ["data", "who", "FID", "low", "high", "KID", "trained, s", "images seen", "samples", "calls"]
    keys = ("data", "name", "fid", "low", "high", "kid", "seconds", "images", "samples", "calls")
    rows = [[row[key][0] if key == "kid" else row[key] for key in keys] for row in result["quality"]]
    print_table(arguments, "quality: after the same time of training", report.plain_table(headers, rows))


def write(arguments, result):
    if arguments.json:  # after every part: the whole takes long
        arguments.json.write_text(json.dumps(result, indent=2))


def _cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--rounds", type=int, default=3, help="processes of every contender")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch, for every contender"
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: seconds of the processor by threads, for a machine on which others work too",
    )  # fmt: skip
    parser.add_argument("--who", default="", help="only contenders with this in their name")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="points: seconds of training that a peer gets at most"
    )
    parser.add_argument(
        "--known", metavar="JSON", help="take the peers' rows, and the peak, from an earlier run's file"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--minutes", type=float, default=10.0, help="quality: of training, for each")
    parser.add_argument("--samples", type=int, default=5000, help="quality: of each, and of FID")
    parser.add_argument("--calls", type=int, default=20, help="quality: network evaluations of a sample")
    parser.add_argument(
        "--data", action="append", default=[], metavar="RECIPE=PATH", help="quality: fashion-mnist=..., cifar10=..."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="quality: where its stages are kept")
    parser.add_argument("--stages", default="train,sample,judge", help="quality: which, with commas between")
    parser.add_argument(
        "--set", action="append", default=[], help="quality: options of unnoise's recipe, such as training.lr=1e-3"
    )
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    unknown = set(arguments.only) - {*PARTS, "quality"}
    if unknown:
        parser.error(f"--only: expected some of {', '.join(PARTS)} and quality, got {', '.join(sorted(unknown))}")
    arguments.known = json.loads(Path(arguments.known).read_text()) if arguments.known else {}
    arguments.json = arguments.json and arguments.json.resolve()
    arguments.out = arguments.out.resolve()
    return arguments


if __name__ == "__main__":
    main()
